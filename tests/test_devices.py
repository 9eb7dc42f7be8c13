"""Every system on an accelerator, without one: on the device "pretend" (tests/pretend.py) a tensor that was made
elsewhere fails where it is used. The oracle is the same system on the CPU: the same draws, the same θ to rounding."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import thetahat as th
from thetahat.data import devices
from thetahat.likelihood import LogLikelihood, Objective
from thetahat.rl.rollouts import returns
from thetahat.solvers.stochastic import GROWTH, _rescaled

from . import pretend

mlp = th.networks.mlp
LEVELS = 4


@pytest.fixture
def device() -> Iterator[str]:
    with pretend.plugged_in() as name:
        yield name


@pytest.fixture
def without_double(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(devices, "NO_DOUBLE", {"mps", pretend.NAME})
    with pretend.plugged_in(double=False) as name:
        yield name


# ---- the systems -------------------------------------------------------------------------------------------

rng = np.random.default_rng(0)
ROWS = {"x": rng.normal(size=(40, 3)).astype(np.float32), "y": rng.integers(0, 3, 40)}
NUMBERS = {"x": ROWS["x"], "y": rng.normal(size=40).astype(np.float32)}
IMAGES = rng.integers(0, LEVELS, (24, 4, 4)).astype(np.uint8)
TEXT = ["the cat sat on the mat. " * 3, "a dog ran to a log and sat. " * 3]
PAIRS = [
    {"prompt": [0, 1], "chosen": [2, 3], "rejected": [4, 1, 2]},
    {"prompt": [0], "chosen": [1, 1], "rejected": [3, 0]},
] * 6


def images() -> th.generative.Images:
    return th.generative.Images(IMAGES, LEVELS)


def language(seed: int = 0) -> th.language.Autoregressive:
    return th.language.Autoregressive(th.networks.Transformer(6, layers=1, width=16, heads=2, seed=seed))


def objective_of(model: nn.Module, data: object, weights: object = None) -> Objective:
    source = th.models.inputs.source_of(data, model, None)
    return Objective([LogLikelihood(model, source, weights)])


def classifier() -> Objective:
    network = nn.Sequential(
        mlp(3, (8,), 8, seed=0), nn.BatchNorm1d(8), nn.Dropout(0.0), nn.ReLU(), mlp(8, (), 3, seed=1)
    )
    return objective_of(th.models.Conditional(th.families.Categorical(3), network), ROWS)


def regression() -> Objective:
    network = nn.Sequential(
        th.networks.Standardise.of(torch.from_numpy(NUMBERS["x"])), mlp(3, (8,), 2, seed=0)
    )
    return objective_of(th.models.Conditional(th.families.Normal(), network), NUMBERS)


def counted() -> Objective:
    counts = {**NUMBERS, "n": ROWS["y"]}
    model = th.models.Conditional(th.families.StudentT(), mlp(3, (8,), 3, seed=0))
    return Objective([LogLikelihood(model, th.models.inputs.source_of(counts, model, "n"))])


def convnet() -> Objective:
    return objective_of(
        th.models.Conditional(
            th.families.Categorical(3), th.generative.ConvNet((4, 4), 3, (4,), levels=LEVELS)
        ),
        {"x": IMAGES.reshape(24, 16), "y": ROWS["y"][:24]},
    )


def vae(K: int = 1) -> Objective:
    model = th.generative.VAE(
        mlp(16, (12,), 4, seed=1),
        mlp(2, (12,), 16 * LEVELS, seed=2),
        th.families.Categorical(LEVELS),
        latent=2,
        K=K,
    )
    return objective_of(model, images())


def beta_vae() -> Objective:
    term = vae().terms[0]
    return objective_of(th.generative.BetaVAE(term.model, beta=2.0, free_bits=0.1), images())


def flow_matching() -> Objective:
    times = th.generative.ImportanceTimes(th.generative.Straight(8.0, -8.0), [1.0, 2.0, 1.0])
    model = th.generative.Diffusion(
        th.generative.Denoiser(3), predict="velocity", schedule=times, dimensions=3
    )
    noised = th.generative.Noised(th.data.Tensors({"y": torch.from_numpy(ROWS["x"])}))
    return Objective([LogLikelihood(model, noised, th.generative.FlowMatching(times))])


def diffusion() -> Objective:
    network = th.generative.UNet((4, 4), LEVELS, channels=(4, 8))
    return objective_of(th.generative.Diffusion(network, levels=LEVELS, predict="levels"), images())


def score_model() -> Objective:
    network = th.generative.Denoiser(3)
    return objective_of(th.generative.Diffusion(network, predict="v", dimensions=3), {"y": ROWS["x"]})


def flow() -> Objective:
    model = th.generative.Dequantised(
        th.generative.Flow.affine(16, transforms=2, hidden=(12,)),
        levels=LEVELS,
        maps=["logit", th.data.maps.Standardise(0.0, 2.5)],
    )
    return objective_of(model, images())


LABELLED = {"y": IMAGES.reshape(24, 16), "label": np.arange(24) % 3}
VECTORS = {"y": ROWS["x"], "label": ROWS["y"]}


def conditional_vae() -> Objective:
    return objective_of(th.generative.VAE.images((4, 4), LEVELS, latent=2, width=8, K=2, classes=3), LABELLED)


def conditional_diffusion() -> Objective:
    network = th.generative.UNet((4, 4), LEVELS, channels=(4, 8), classes=3)
    model = th.generative.Diffusion(network, levels=LEVELS, predict="levels", classes=3, drop_label=0.3)
    return objective_of(model, LABELLED)


def conditional_score_model() -> Objective:
    network = th.generative.Denoiser(3, width=16, blocks=1, classes=3)
    return objective_of(th.generative.Diffusion(network, classes=3), VECTORS)


def conditional_flow() -> Objective:
    return objective_of(th.generative.Flow.affine(3, transforms=2, hidden=(12,), classes=3), VECTORS)


def pixels() -> Objective:
    network = th.generative.PixelTransformer((4, 4), LEVELS, layers=1, width=8, heads=2)
    return objective_of(th.generative.FullyVisible(th.families.Categorical(LEVELS), network), images())


def masked() -> Objective:
    network = th.generative.MaskedMLP(16, LEVELS, 9, levels=LEVELS)
    return objective_of(th.generative.FullyVisible(th.families.Categorical(LEVELS), network), images())


def gpt() -> Objective:
    alphabet = th.language.Characters.of(*TEXT)
    network = th.networks.Transformer(alphabet.vocabulary, layers=1, width=16, heads=2, seed=0)
    return objective_of(th.language.Autoregressive(network), th.language.Tokens(TEXT, alphabet, context=16))


def lora() -> Objective:
    objective = gpt()
    th.language.add_lora(objective.model.network, rank=2)
    return objective


def dpo() -> Objective:
    model = th.preferences.DPO(language(), language(1), 0.5)
    return objective_of(model, th.preferences.TokenPairs(PAIRS, context=8))


def reward() -> Objective:
    model = th.preferences.BradleyTerry(th.preferences.Reward(language().network))
    return objective_of(model, th.preferences.TokenPairs(PAIRS, context=8))


def rlhf() -> Objective:
    draws = th.language.Generations(
        [[0], [1, 2]],
        lambda prompts, answers: torch.tensor([float((a == 1).sum()) for a in answers]),
        max_new_tokens=4,
        num_generations=4,
        end=5,
        advantage=th.language.GroupRelative(),
        reference=language(1),
        kl_coef=0.1,
        epochs=2,
    )
    return Objective([LogLikelihood(language(), draws, th.rl.Clipped(0.2))])


def reinforce(seed: int = 0) -> Objective:
    policy = th.rl.Policy(nn.Sequential(th.networks.Normaliser(4), mlp(4, (8,), 2, seed=seed)))
    weights = th.rl.RewardToGo(0.98, normalise=True)
    settings = {"max_episode_steps": 12}
    rollouts = th.rl.Rollouts("CartPole-v1", 4, seed=seed, settings=settings)
    return Objective([LogLikelihood(policy, rollouts, weights)])


def ppo(environment: str = "CartPole-v1", inputs: int = 4, outputs: int = 2, seed: int = 0) -> Objective:
    value = th.rl.Value(mlp(inputs, (8,), 1, seed=seed + 1))
    advantage = th.rl.GAE(value, normalise=True)
    rollouts = th.rl.Rollouts(
        environment, 4, num_steps=8, advantage=advantage, epochs=2, batch_size=16, seed=seed
    )
    policy = th.rl.Policy(mlp(inputs, (8,), outputs, "tanh", seed=seed), rollouts.actions)
    return Objective([LogLikelihood(policy, rollouts, th.rl.Clipped()), LogLikelihood(value, rollouts)])


def replayed(model: nn.Module) -> Objective:
    replay = th.rl.Replay(
        "CartPole-v1",
        2,
        learning_starts=20,
        batch_size=8,
        n_steps=2,
        target_update_interval=2,
        exploration=(0.2, 0.2, 0),
    )
    return Objective([LogLikelihood(model, replay)])


SYSTEMS: dict[str, Callable[[], Objective]] = {
    "classifier": classifier,
    "regression": regression,
    "counted rows": counted,
    "ConvNet": convnet,
    "VAE": vae,
    "IWAE": lambda: vae(3),
    "diffusion": diffusion,
    "score model": score_model,
    "β-VAE": beta_vae,
    "flow matching": flow_matching,
    "flow": flow,
    "VAE of classes": conditional_vae,
    "diffusion of classes": conditional_diffusion,
    "score model of classes": conditional_score_model,
    "flow of classes": conditional_flow,
    "autoregressive pixels": pixels,
    "masked pixels": masked,
    "GPT": gpt,
    "LoRA": lora,
    "DPO": dpo,
    "reward model": reward,
    "RLHF": rlhf,
    "REINFORCE": reinforce,
    "PPO": ppo,
    "PPO in a box": lambda: ppo("Pendulum-v1", 3, 2),
    "PPO of several seeds": lambda: th.rl.stacked([ppo(seed=s) for s in range(2)]),
    "REINFORCE of several seeds": lambda: th.rl.stacked([reinforce(seed=s) for s in range(2)]),
    "C51": lambda: replayed(th.rl.C51(mlp(4, (8,), 2 * 11, seed=0), 0.0, 50.0, 11)),
    "QR-DQN": lambda: replayed(th.rl.QRDQN(mlp(4, (8,), 2 * 5, seed=0), 5)),
    "IQN": lambda: replayed(th.rl.IQN(mlp(4, (8,), 8, seed=0), mlp(8, (), 2, seed=1), 8)),
}


WHOLE = (
    "DPO",
    "reward model",
    "RLHF",
    "REINFORCE",
    "PPO",
    "PPO in a box",
    "PPO of several seeds",
    "REINFORCE of several seeds",
    "C51",
    "QR-DQN",
    "IQN",
)  # nothing held out


def trained(name: str, device: str | None, **settings: object) -> th.Fit:
    torch.manual_seed(0)
    own = {
        "steps": 5,
        "learning_rate": 0.01,
        "batch_size": 8,
        "evaluate_every": 2,
        "optimiser": "sgd",
        **settings,
    }
    own = {"held_out": None if name in WHOLE else 0.25} | own
    return th.maximize(SYSTEMS[name](), solver=th.Stochastic(**own), device=device)


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_system_is_trained_where_it_is_told_and_is_what_it_is_on_the_cpu(name: str, device: str) -> None:
    fit = trained(name, device)
    assert {p.device.type for p in fit.model.parameters()} == {device}
    here = fit.to("cpu")
    assert {p.device.type for p in here.model.parameters()} == {"cpu"}
    wanted = trained(name, None)
    torch.testing.assert_close(here.objective.theta, wanted.objective.theta, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_system_is_trained_where_there_is_no_float64(name: str, without_double: str) -> None:
    fit = trained(name, without_double)
    assert {p.dtype for p in fit.model.parameters()} == {torch.float32}
    assert bool(torch.isfinite(fit.to("cpu").objective.theta).all())


def test_the_probability_flow_of_a_device_without_float64_is_integrated_on_the_cpu(
    without_double: str,
) -> None:
    fit = trained("score model", without_double)
    flow = th.generative.ProbabilityFlow(fit.model, tolerance=1e-3)
    y = torch.from_numpy(ROWS["x"][:3])
    assert bool(torch.isfinite(flow.log_prob(th.data.Batch({"y": y}))).all())
    fit = trained("score model of classes", without_double)
    flow = th.generative.ProbabilityFlow(fit.model, tolerance=1e-3)
    p = th.generative.class_probabilities(flow, {"y": y})
    assert torch.allclose(p.sum(1), torch.ones(3, dtype=p.dtype))


def test_importance_times_are_found_where_the_model_lies(device: str) -> None:
    fit = trained("flow matching", device)
    found = [
        th.generative.ImportanceTimes.fitted(f.model, {"y": ROWS["x"]}, bins=2).q
        for f in (fit, fit.to("cpu"))
    ]
    torch.testing.assert_close(found[0].cpu(), found[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"optimiser": "adamw"},
        {"optimiser": "muon"},
        {"ema_decay": 0.9},
        {"accumulation_steps": 2},
        {"max_grad_norm": 0.1},
        {"precision": torch.bfloat16},
        {"restore_best": False, "held_out": None},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["classifier", "GPT", "PPO"])
def test_every_setting_of_a_run_works_on_an_accelerator(name: str, settings: dict, device: str) -> None:
    fit = trained(name, device, **(settings | ({"held_out": None} if name == "PPO" else {})))
    assert fit.certificate.status == "stochastic"
    assert all(bool(torch.isfinite(p).all()) for p in fit.model.parameters())


@pytest.mark.parametrize("name", [name for name in SYSTEMS if name not in WHOLE])
def test_a_fit_is_scored_where_it_lies_as_on_the_cpu(name: str, device: str) -> None:
    fit = trained(name, device)
    there, here = fit.score(seed=0), fit.to("cpu").score(seed=0)
    assert there.mean == pytest.approx(here.mean, rel=1e-4)
    assert str(fit.summary())


@pytest.mark.parametrize("name", ["classifier", "regression", "ConvNet"])
def test_a_network_predicts_and_draws_from_an_accelerator(name: str, device: str) -> None:
    fit = trained(name, device)
    here = fit.to("cpu")
    what = "mean" if name == "regression" else "probabilities"
    np.testing.assert_allclose(fit.predict(what=what), here.predict(what=what), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(fit.sample(2, seed=1), here.sample(2, seed=1), rtol=1e-3, atol=1e-5)
    if name == "regression":
        np.testing.assert_allclose(fit.residuals(), here.residuals(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["VAE of classes", "diffusion of classes", "score model of classes", "flow of classes"]
)
def test_a_model_of_classes_draws_and_classifies_on_an_accelerator(name: str, device: str) -> None:
    fit = trained(name, device)
    here = fit.to("cpu")
    batch = LABELLED if name in ("VAE of classes", "diffusion of classes") else VECTORS
    found, wanted = (th.generative.class_probabilities(each, {"y": batch["y"][:4]}) for each in (fit, here))
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
    settings = {} if name in ("VAE of classes", "flow of classes") else {"guidance": 2.0}
    there = fit.sample(3, label=[0, 1, 2], **settings)
    if name != "flow of classes":  # zuko draws where its network lies, from another stream
        assert np.isclose(there, here.sample(3, label=[0, 1, 2], **settings), atol=1e-3).mean() > 0.9


@pytest.mark.parametrize(
    "name",
    [
        "VAE",
        "β-VAE",
        "diffusion",
        "score model",
        "flow matching",
        "flow",
        "autoregressive pixels",
        "masked pixels",
    ],
)
def test_a_generative_model_draws_on_an_accelerator_what_it_draws_on_the_cpu(name: str, device: str) -> None:
    fit = trained(name, device)
    torch.manual_seed(0)
    there = fit.model.draw(3, generator=torch.Generator().manual_seed(0))
    assert there.device.type in (device, "cpu")
    if name != "flow":  # zuko draws where its network lies, from another stream
        here = fit.to("cpu").model.draw(3, generator=torch.Generator().manual_seed(0))
        assert float((there.cpu() == here).float().mean()) > 0.9 or torch.allclose(
            there.cpu(), here, atol=1e-3
        )
    assert fit.sample(3).shape[0] == 3


def test_a_language_model_answers_where_it_is_asked(device: str) -> None:
    fit = trained("GPT", device)
    prompt = torch.tensor([[0, 1], [2, 3]])
    draws = [
        f.model.sample(prompt, 8, top_k=3, generator=torch.Generator().manual_seed(0))
        for f in (fit, fit.to("cpu"))
    ]
    assert draws[0].device.type == "cpu"
    assert torch.equal(*draws)


def test_a_policy_plays_where_it_is_asked(device: str) -> None:
    fit = trained("PPO", device)
    assert torch.equal(
        *(returns(f.model, "CartPole-v1", 4, max_episode_steps=30) for f in (fit, fit.to("cpu")))
    )


def test_a_saved_fit_is_of_no_device(device: str, tmp_path) -> None:
    fit = trained("classifier", device)
    fit.save(tmp_path / "a.thetahat")
    found = th.load(tmp_path / "a.thetahat")
    assert {p.device.type for p in found.model.parameters()} == {"cpu"}
    torch.testing.assert_close(found.objective.theta, fit.to("cpu").objective.theta, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["classifier", "GPT", "PPO", "C51", "RLHF"])
def test_a_run_goes_on_from_its_checkpoint_on_an_accelerator(name: str, device: str, tmp_path) -> None:
    """The oracle is the run without an interruption."""
    wanted = trained(name, device, steps=6).to("cpu").objective.theta
    solver = {"steps": 6, "checkpoint": tmp_path / "c", "checkpoint_every": 1}

    class Stop(Exception):
        pass

    def stop(state) -> None:
        if state.step == 4:
            raise Stop

    torch.manual_seed(0)
    own = {"learning_rate": 0.01, "batch_size": 8, "evaluate_every": 2, "optimiser": "sgd"}
    own |= {"held_out": None if name in WHOLE else 0.25}
    with pytest.raises(Stop):
        th.maximize(SYSTEMS[name](), solver=th.Stochastic(**own | solver), device=device, callback=stop)
    found = trained(name, device, **solver).to("cpu").objective.theta
    assert torch.equal(found, wanted)


def test_what_was_given_stays_where_it_was(device: str) -> None:
    objective = dpo()
    th.maximize(objective, solver=th.Stochastic(steps=2, held_out=None), device=device)
    assert {p.device.type for p in objective.model.parameters()} == {"cpu"}


def test_the_device_refuses_what_an_accelerator_refuses(device: str) -> None:
    """So that the tests above can fail."""

    class Careless(nn.Module):
        def forward(self, x):
            return x + torch.ones(x.shape[-1])

    model = th.models.Conditional(th.families.Normal(), nn.Sequential(mlp(3, (8,), 2), Careless()))
    with pytest.raises(RuntimeError, match="same device"):
        th.fit(model, NUMBERS, solver=th.Stochastic(steps=2), device=device)
    with pytest.raises(RuntimeError, match="generator"):
        torch.randn(3, generator=torch.Generator(), device=device)
    with pytest.raises((RuntimeError, TypeError), match="numpy"):
        torch.ones(3, device=device).numpy()


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(th.errors.BadArgument, match="no such device"):
        th.Stochastic(device="hpu")
    with pytest.raises(th.errors.BadArgument, match="device='gpu'"):
        th.Stochastic(device="gpu")
    with pytest.raises(th.errors.BadArgument, match="holds no numbers"):
        th.Stochastic(device="meta")


def test_whole_data_solvers_say_that_they_sum_on_the_cpu(device: str) -> None:
    rows = {"y": [0.9, 2.1, 2.9, 4.2], "x": [0.0, 1.0, 2.0, 3.0]}
    with pytest.raises(th.errors.BadArgument, match="float64 on the CPU"):
        th.fit("y ~ x", rows, device=device)
    assert th.fit("y ~ x", rows, device="auto").estimates["x"] == pytest.approx(1.07)


def test_the_first_step_on_an_accelerator_counts_its_operations(device: str) -> None:
    """Of an affine map of 3 inputs to 2 outputs: 2·3·2 forward, as many for the weights' gradient."""
    states = []
    model = th.models.Conditional(th.families.Normal(), mlp(3, (), 2))
    solver = th.Stochastic(steps=3, batch_size=8, held_out=None)
    th.maximize(objective_of(model, NUMBERS), solver=solver, device=device, callback=states.append)
    assert states[-1].used(1000.0) == {"flops_per_second": 24 * 1000.0}


def test_no_operation_is_counted_on_the_cpu() -> None:
    states = []
    th.maximize(classifier(), solver=th.Stochastic(steps=2, held_out=None), callback=states.append)
    assert states[-1].used(1000.0) == {}


# ---- the command -------------------------------------------------------------------------------------------


def test_a_run_of_the_command_is_trained_sampled_and_scored_on_a_device(
    device: str, tmp_path, monkeypatch, capsys
) -> None:
    from thetahat.cli import main

    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device(device))
    (tmp_path / "a.txt").write_text("to be or not to be, that is the question. " * 40)
    run = str(tmp_path / "run")
    asked = [
        "fit",
        "gpt",
        str(tmp_path / "a.txt"),
        "--run",
        run,
        "--steps",
        "3",
        "--layers",
        "1",
        "--width",
        "16",
    ]
    asked += ["--heads", "2", "--context", "16", "--batch-size", "4", "--precision", "bfloat16"]
    assert main(asked) == 0
    for more in ([], ["--device", "cpu"]):
        assert main(["sample", run, "--max-new-tokens", "5", "--prompt", "t", *more]) == 0
        assert main(["score", run, str(tmp_path / "a.txt"), *more]) == 0
    capsys.readouterr()


# ---- float16 -----------------------------------------------------------------------------------------------


def test_float16_learns_what_float32_learns() -> None:
    half, full = (
        trained("classifier", None, precision=torch.float16, steps=50),
        trained("classifier", None, steps=50),
    )
    torch.testing.assert_close(half.objective.theta, full.objective.theta, rtol=0.02, atol=2e-3)


def test_a_step_whose_scaled_gradient_overflows_moves_nothing_and_halves_the_scale() -> None:
    """log p = c·θ·y has the gradient c; times 2¹⁶ it is beyond float16's 65,504 until the scale is 2⁵ or so."""

    class Steep(nn.Module):
        measure = "density"

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1, 1))

        def log_prob(self, batch):
            return 1000 * (batch["x"] @ self.weight)[:, 0] - 500 * batch["x"][:, 0]

    seen = []
    solver = th.Stochastic(
        steps=30,
        batch_size=4,
        optimiser="sgd",
        momentum=0.0,
        learning_rate=1e-6,
        lr_schedule="constant",
        held_out=None,
        precision=torch.float16,
    )
    data = {"x": np.ones((4, 1), dtype=np.float32), "y": np.zeros(4)}
    fit = th.maximize(
        objective_of(Steep(), data), solver=solver, callback=lambda s: seen.append((s.scale, float(s.theta)))
    )
    scales = [scale for scale, _ in seen]
    assert scales[0] == 2.0**16
    assert all(b in (a, a / 2) for a, b in itertools.pairwise(scales))
    last = scales[-1]
    assert 1 <= last < 2**8
    skipped = sum(b < a for a, b in itertools.pairwise(scales))
    assert f"{skipped} of them moved nothing" in str(fit.certificate)
    assert all(t == 0 for s, t in seen if s > last)
    assert float(fit.objective.theta) == pytest.approx((30 - skipped) * 1e-3, rel=1e-3)


def test_float16_and_shards_are_refused() -> None:
    with pytest.raises(th.errors.BadArgument, match="float16"):
        th.Stochastic(precision=torch.float16, distributed="fsdp")


def test_the_scale_is_doubled_after_enough_clean_steps() -> None:
    states = []
    th.maximize(
        classifier(),
        solver=th.Stochastic(steps=2, held_out=None, precision=torch.float16),
        callback=states.append,
    )
    before = replace(states[-1], clean=GROWTH - 1)
    assert (_rescaled(before).scale, _rescaled(before).clean) == (2 * before.scale, 0)
