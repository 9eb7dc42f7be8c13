"""gymnasium's wrappers, stacked frames, Atari's preprocessing, and the size and scale of images."""

from __future__ import annotations

import importlib.util
import json
import sys
import textwrap

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces, wrappers

import thetahat as th
from thetahat.cli import main, policies
from thetahat.errors import BadArgument, MissingExtra
from thetahat.rl.environments import Environments
from thetahat.rl.rollouts import returns
from thetahat.rl.wrapping import Wrapped


class Screen(gymnasium.Env):
    """An image of the time since the beginning, of some space; pays −3 for the first action and 5 for the other; 6 steps."""

    def __init__(self, space=None):
        self.observation_space = space or spaces.Box(0, 255, (12, 14, 3), np.uint8)
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.shown(), {}

    def shown(self):
        return np.full(self.observation_space.shape, self.t).astype(self.observation_space.dtype)

    def step(self, action):
        self.t += 1
        return self.shown(), (-3.0, 5.0)[action], self.t == 6, False, {}


def bits():
    """As MinAtar shows its games: true and false, (10, 10, 4)."""
    return Screen(spaces.Box(0.0, 1.0, (10, 10, 4), bool))


def test_gymnasiums_wrappers_are_played_as_a_function_and_as_an_environment():
    """The third state of an episode is the three frames 0, 1, 2; rewards and limits are the wrappers'."""

    def make():
        env = wrappers.TimeLimit(wrappers.TransformReward(Screen(), np.sign), 4)
        return wrappers.FrameStackObservation(env, 3)

    for given in (make, make()):
        seen = Environments(given, 1)
        network = th.networks.Convolution(seen.shape, 2, channels=(4,), width=8)
        policy = th.rl.Policy(network)
        batch = next(th.rl.Rollouts(given, 2).batches(policy))
        assert batch["state"].shape == (2, 4, 3, 12, 14, 3)
        assert batch["state"][0, 2, :, 0, 0, 0].tolist() == [0, 1, 2]
        assert set(batch["reward"].flatten().tolist()) <= {-1.0, 1.0}
        assert bool(batch["truncated"][:, 3].all())
        assert returns(policy, given, 2).abs().max() <= 4


@pytest.mark.parametrize("channels_first", [False, True])
def test_stacked_frames_are_channels(channels_first):
    """A convolution of (K, H, W, C) against torch's own of the K·C channels in order, and of (K, H, W)."""
    shape = (4, 3, 9, 8) if channels_first else (4, 9, 8, 3)
    network = th.networks.Convolution(shape, 2, channels=(5,), width=6, scale=2.0, seed=1)
    x = torch.rand(7, *shape)
    h = torch.stack([f if channels_first else f.permute(0, 3, 1, 2) for f in x.unbind(1)], 1).reshape(
        7, 12, 9, 8
    )
    conv = network.layers[0]
    h = torch.relu(torch.nn.functional.conv2d(h / 2, conv.weight, conv.bias, stride=2, padding=1)).flatten(1)
    torch.testing.assert_close(network(x), network.output(torch.relu(network.hidden(h))))
    assert network(x.reshape(1, 7, *shape)).shape == (1, 7, 2)
    assert th.networks.Convolution((4, 84, 84), 2).layers[0].in_channels == 4


def test_known_shapes_of_convolutions():
    """84 × 84 → 20 → 9 → 7, 64·7·7 = 3136 (Mnih et al. 2015); 10 × 10 → 8, 16·8·8 = 1024 (Young and Tian 2019)."""
    from thetahat.networks.convolution import ATARI, MINATAR

    assert th.networks.Convolution((4, 84, 84), 2, **ATARI).hidden.in_features == 3136
    assert th.networks.Convolution((10, 10, 4), 2, width=128, **MINATAR).hidden.in_features == 1024
    with pytest.raises(BadArgument, match="stride"):
        th.networks.Convolution((10, 10, 4), 2, (4, 4), stride=(1, 1, 1))
    with pytest.raises(BadArgument, match="too small"):
        th.networks.Convolution((4, 8, 8), 2, **ATARI)


@pytest.mark.parametrize(
    ("space", "scale"),
    [
        (spaces.Box(0, 255, (12, 12, 3), np.uint8), 255.0),
        (spaces.Box(0, 1, (12, 12, 3), np.uint8), 1.0),
        (spaces.Box(0.0, 1.0, (10, 10, 4), bool), 1.0),
        (spaces.Box(-2.0, 0.5, (10, 10, 4), np.float32), 2.0),
        (spaces.Box(-np.inf, np.inf, (10, 10, 4), np.float32), 1.0),
    ],
    ids=["bytes", "0 and 1 as bytes", "bool", "floats", "no edges"],
)
def test_pixels_are_divided_by_the_largest_that_the_space_has(space, scale, monkeypatch):
    monkeypatch.setattr(policies, "function_of", lambda option, path, name: lambda: Screen(space))
    command = policies.PPO(env="here:screen")
    sizes, _ = command.read()
    assert sizes["scale"] == scale
    network = command.model(json.loads(json.dumps(sizes))).network
    assert network.scale == scale
    assert (len(network.layers), network.hidden.out_features) == (1, 128)
    old = {name: v for name, v in sizes.items() if name not in ("scale", "convolution")}
    assert command._network(old, 2, 0).scale == 255.0


def test_rows_of_numbers_are_stacked_to_one_row_and_numbers_of_states_to_indicators():
    seen = Environments(Wrapped("CartPole-v1", 3), 2)
    state = seen.reset(seed=0)
    assert state.shape == (2, 12)
    np.testing.assert_array_equal(state[:, :4], state[:, 8:])
    assert Environments(Wrapped("FrozenLake-v1", 2), 1).shape == (32,)
    with pytest.raises(BadArgument, match="frame_stack=0"):
        Wrapped("CartPole-v1", 0)


def test_rewards_are_clipped_in_training_alone(monkeypatch):
    """Atari's wrapper stands aside here (there is no emulator): what is trained on pays signs, what is evaluated pays −3 and 5."""
    monkeypatch.setattr(Wrapped, "_made", lambda self, limit: Screen(spaces.Box(0, 255, (84, 84), np.uint8)))
    monkeypatch.setattr(wrappers, "AtariPreprocessing", lambda env: env)
    command = policies.PPO(env="ALE/Some-v5", atari=True, num_envs=2, num_steps=6, eval_episodes=2, width=8)
    sizes, _ = command.read()
    assert sizes["shape"] == [4, 84, 84]
    model = command.model(sizes)
    objective = command.objective(model, None, sizes)
    batch = next(objective.terms[0].source.batches(model))
    assert set(batch["reward"][batch.count > 0].tolist()) <= {-1.0, 1.0}
    assert command.measure(model)["greedy_return"] in (-18.0, 30.0)


@pytest.mark.skipif(importlib.util.find_spec("ale_py") is not None, reason="ale-py is installed")
def test_atari_without_its_emulator_says_what_to_install():
    for make in (
        lambda: Environments("ALE/Pong-v5"),
        lambda: Environments(Wrapped("ALE/Pong-v5", 4, atari=True)),
    ):
        with pytest.raises(MissingExtra, match=r"ale_py.*pip install \"gymnasium\[atari\]\""):
            make()
    with pytest.raises(BadArgument, match="atari=True"):
        Wrapped(Screen, atari=True)


def test_a_run_takes_a_function_stacks_goes_on_and_plays(tmp_path, monkeypatch, capsys):
    """The run that is interrupted and goes on ends at the same θ as the one that is not."""
    (tmp_path / "own_games.py").write_text(
        textwrap.dedent("""
            import gymnasium, numpy as np

            class Bits(gymnasium.Env):
                observation_space = gymnasium.spaces.Box(0.0, 1.0, (10, 10, 2), bool)
                action_space = gymnasium.spaces.Discrete(2)

                def reset(self, *, seed=None, options=None):
                    super().reset(seed=seed)
                    self.t = 0
                    return self.shown(), {}

                def shown(self):
                    return self.np_random.random((10, 10, 2)) < 0.5

                def step(self, action):
                    self.t += 1
                    return self.shown(), float(action), False, self.t == 7, {}

            def make():
                return Bits()
        """)
    )
    monkeypatch.chdir(tmp_path)
    words = (
        "fit policy --env own_games.py:make --frame-stack 2 --num-envs 2 --num-steps 8 --epochs 1 --normalise-rewards "
        "--width 8 --eval-episodes 1 --max-episode-steps 5 --json"
    ).split()
    assert main([*words, "--total-timesteps", "64", "--run", "whole", "--lr-schedule", "constant"]) == 0
    assert main([*words, "--total-timesteps", "32", "--run", "part", "--lr-schedule", "constant"]) == 0
    more = ["--total-timesteps", "64", "--run", "part", "--lr-schedule", "constant", "--resume"]
    assert main([*words, *more]) == 0
    assert main(["play", "part", "--episodes", "3", "--json"]) == 0
    said = capsys.readouterr().out
    assert json.loads(said[said.rindex("\n{") :])["highest"] <= 5
    whole, part = (th.load(tmp_path / name / "fit.thetahat").theta for name in ("whole", "part"))
    assert torch.equal(whole, part)
    config = json.loads((tmp_path / "part" / "config.json").read_text())["about"]
    assert config["sizes"]["shape"] == [2, 10, 10, 2]
    assert config["sizes"]["scale"] == 1.0
    assert "own_games" not in sys.modules
    assert main(["fit", "policy", "--env", "own_games.py:none", "--run", "no"]) != 0
    assert "--env own_games.py:none cannot be imported" in capsys.readouterr().err


def test_earlier_runs_of_rows_go_on_under_the_default_width(tmp_path):
    command = policies.PPO()
    known = {"system": "policy", "settings": {**command.settings, "width": 64}}
    command.continues(tmp_path, known)
    with pytest.raises(th.errors.BadSave, match="--width was 32"):
        command.continues(tmp_path, {"system": "policy", "settings": {**command.settings, "width": 32}})


@pytest.mark.skipif(importlib.util.find_spec("minatar") is None, reason="needs minatar")
def test_minatar_is_played_by_its_name():
    seen = Environments("MinAtar/Breakout-v1", 2)
    assert (seen.shape, seen.scale) == ((10, 10, 4), 1.0)
    command = policies.PPO(env="MinAtar/Breakout-v1", num_envs=2, num_steps=16)
    sizes, _ = command.read()
    model = command.model(sizes)
    assert [layer.weight.shape for layer in model.network.layers] == [(16, 4, 3, 3)]
    batch = next(command.objective(model, None, sizes).terms[0].source.batches(model))
    assert set(batch["state"].unique().tolist()) == {0.0, 1.0}


def test_minatar_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "minatar.gym", None)
    for name in [name for name in gymnasium.registry if name.startswith("MinAtar/")]:
        monkeypatch.delitem(gymnasium.registry, name)
    with pytest.raises(MissingExtra, match="pip install minatar"):
        Environments("MinAtar/Breakout-v1")
