"""A run is made longer, begun at another's parameters, and used."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import thetahat as th
from thetahat.errors import BadArgument
from thetahat.io import runs
from thetahat.io.export import export

ROWS = {"x": torch.randn(96, 2, generator=torch.Generator().manual_seed(0)), "y": torch.arange(96) % 3}


def objective(seed: int = 0) -> th.Objective:
    model = th.models.Conditional(th.families.Categorical(3), th.networks.mlp(2, 8, 3, seed=seed))
    return th.Objective([th.LogLikelihood(model, th.data.Tensors(ROWS))])


def solver(steps: int, **settings: object) -> th.Stochastic:
    own = {"batch_size": 16, "evaluate_every": 4, "lr_schedule": "constant", "learning_rate": 0.02}
    return th.Stochastic(steps=steps, **own | settings)


@pytest.mark.parametrize(
    "settings", [{}, {"ema_decay": 0.9}, {"held_out": None}, {"warmup_steps": 3}], ids=str
)
def test_at_a_constant_rate_a_run_made_longer_is_the_run_that_was_asked_for_so_many_steps(settings, tmp_path):
    """The oracle is the one long run, to the last bit; the first part ends at the best of its evaluations."""
    for steps in (8, 20):
        short = th.maximize(objective(), solver=solver(steps, **settings), run=tmp_path / "a")
    long = th.maximize(objective(), solver=solver(20, **settings), run=tmp_path / "b")
    assert torch.equal(short.theta, long.theta)
    assert short.trace == long.trace
    assert runs.read(tmp_path / "a")["run"]["steps"] == "20"
    assert [line["step"] for line in runs.metrics(tmp_path / "a")] == list(range(1, 21))


def test_a_run_made_longer_goes_on_from_its_last_step_and_not_from_its_best(tmp_path):
    """The rate is so high that the first evaluation, before any step, is the best."""
    high = {"learning_rate": 30.0, "optimiser": "sgd"}
    first = th.maximize(objective(), solver=solver(8, **high), run=tmp_path / "a")
    assert torch.equal(first.theta, objective().theta)
    again = th.maximize(objective(), solver=solver(12, **high, restore_best=True), run=tmp_path / "a")
    assert again.trace[-1][1] != first.trace[0][1]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd"])
def test_with_a_schedule_the_schedule_begins_again(schedule, tmp_path):
    """And an interruption of the second part changes nothing."""

    class Killed(BaseException):
        pass

    def kill(state):
        if state.step == 11:
            raise Killed

    settings = {"lr_schedule": schedule, "warmup_steps": 2, "checkpoint_every": 1}
    for folder in ("a", "b"):
        th.maximize(objective(), solver=solver(8, **settings), run=tmp_path / folder)
    whole = th.maximize(objective(), solver=solver(16, **settings), run=tmp_path / "a")
    with pytest.raises(Killed):
        th.maximize(objective(), solver=solver(16, **settings), run=tmp_path / "b", callback=kill)
    again = th.maximize(objective(), solver=solver(16, **settings), run=tmp_path / "b")
    assert torch.equal(whole.theta, again.theta)
    rates = [line["learning_rate"] for line in runs.metrics(tmp_path / "a")]
    assert rates[:8] == rates[8:]
    assert rates[8] == 0.01
    assert rates[9] == 0.02


def test_a_run_that_has_not_ended_is_not_made_longer_where_its_rate_depends_on_its_end(tmp_path):
    class Killed(BaseException):
        pass

    def kill(state):
        if state.step == 5:
            raise Killed

    settings = {"lr_schedule": "cosine", "checkpoint_every": 1}
    with pytest.raises(Killed):
        th.maximize(objective(), solver=solver(8, **settings), run=tmp_path / "a", callback=kill)
    with pytest.raises(BadArgument, match="has not ended its 8 steps"):
        th.maximize(objective(), solver=solver(16, **settings), run=tmp_path / "a")
    th.maximize(objective(), solver=solver(8, **settings), run=tmp_path / "a")
    with pytest.raises(Killed):
        th.maximize(
            objective(),
            solver=solver(16, **settings),
            run=tmp_path / "a",
            callback=lambda s: kill(s) if s.step != 10 else (_ for _ in ()).throw(Killed()),
        )
    with pytest.raises(BadArgument, match="has not ended its 16 steps"):
        th.maximize(objective(), solver=solver(24, **settings), run=tmp_path / "a")


def test_a_checkpoint_alone_is_made_longer_at_a_constant_rate(tmp_path):
    for steps in (8, 20):
        short = th.maximize(objective(), solver=solver(steps, checkpoint=tmp_path / "c"))
    assert torch.equal(short.theta, th.maximize(objective(), solver=solver(20)).theta)


# ---- what moves θ ------------------------------------------------------------------------------------------


def _trained(**settings: object) -> torch.Tensor:
    return th.maximize(objective(), solver=solver(6, held_out=None, **settings)).theta


def _by_hand(make, rate=lambda step: 0.02) -> torch.Tensor:
    """The same steps by a loop of torch: the order is the run's."""
    network = th.networks.mlp(2, 8, 3, seed=0)
    optimiser = make(list(network.named_parameters()))
    ratios = [group["lr"] / optimiser.param_groups[0]["lr"] for group in optimiser.param_groups]
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(96, generator=generator)
    for step in range(6):
        rows = order[16 * step : 16 * step + 16]
        loss = nn.functional.cross_entropy(network(ROWS["x"][rows]), ROWS["y"][rows])
        optimiser.zero_grad()
        loss.backward()
        for group, ratio in zip(optimiser.param_groups, ratios, strict=True):
            group["lr"] = rate(step) * ratio
        optimiser.step()
    return torch.cat([p.detach().reshape(-1) for p in network.parameters()])


def groups(named) -> torch.optim.Optimizer:
    bias, weight = ([p for n, p in named if n.endswith("bias") is b] for b in (True, False))
    return torch.optim.SGD([{"params": weight, "lr": 0.1}, {"params": bias, "lr": 0.4}], momentum=0.5)


@pytest.mark.parametrize(
    "make", [torch.optim.NAdam, torch.optim.RMSprop, groups], ids=["NAdam", "RMSprop", "groups of parameters"]
)
def test_any_optimiser_of_torch_moves_theta_as_in_a_loop_by_hand(make):
    torch.testing.assert_close(_trained(optimiser=make), _by_hand(make), rtol=1e-5, atol=1e-6)


def test_weight_decay_is_decoupled_and_of_matrices_alone():
    def make(named):
        matrix, rest = ([p for _, p in named if (p.ndim > 1) is b] for b in (True, False))
        return torch.optim.AdamW(
            [{"params": rest, "weight_decay": 0.0}, {"params": matrix, "weight_decay": 0.3}], lr=0.02
        )

    torch.testing.assert_close(_trained(weight_decay=0.3), _by_hand(make), rtol=1e-5, atol=1e-6)


def test_a_schedule_of_ones_own_is_a_factor_of_the_rate():
    found = _trained(lr_schedule=lambda step: 0.5**step, optimiser="sgd", momentum=0.0)
    wanted = _by_hand(
        lambda named: torch.optim.SGD([p for _, p in named], lr=0.02), lambda step: 0.02 * 0.5**step
    )
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_wsd_is_constant_and_then_falls_to_zero():
    rates = [
        th.Stochastic(steps=10, learning_rate=1.0, lr_schedule="wsd", decay_steps=4, warmup_steps=2).rate(k)
        for k in range(11)
    ]
    assert rates == [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    assert th.Stochastic(steps=10, learning_rate=1.0, lr_schedule="wsd").rate(9) == 0.5


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"optimiser": lambda named: None}, "gave a NoneType"),
        ({"optimiser": lambda named: torch.optim.LBFGS([p for _, p in named])}, "solver=th.LBFGS"),
        ({"optimiser": lambda named: torch.optim.SGD([named[0][1]], lr=1.0)}, "'network.0.bias' is left out"),
        ({"weight_decay": 0.1, "optimiser": "sgd"}, "a prior"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0"),
        ({"decay_steps": 3}, "lr_schedule='wsd'"),
        ({"lr_schedule": lambda step: 1.0, "warmup_steps": 3}, "Leave one of them out"),
        ({"lr_schedule": "exponential"}, "lr_schedule='exponential'"),
    ],
    ids=["no optimiser", "closure", "left out", "sgd decay", "negative", "not wsd", "warm-up", "unknown"],
)
def test_what_cannot_move_theta_is_refused(settings, text):
    with pytest.raises(BadArgument, match=text):
        _trained(**settings)


def test_a_fit_by_an_optimiser_of_ones_own_is_saved_without_its_solver(tmp_path):
    fit = th.maximize(objective(), solver=solver(4, optimiser=torch.optim.NAdam))
    assert "4 steps of NAdam" in str(fit.certificate)
    found = th.load(fit.save(tmp_path / "a.thetahat"))
    assert found.solver is None
    assert torch.equal(found.theta, fit.theta)


# ---- W&B ---------------------------------------------------------------------------------------------------


def test_weights_and_biases_gets_what_metrics_hold(tmp_path, monkeypatch):
    """What is logged is read from the module's own calls: `init` once, `log` at each line."""
    wandb = pytest.importorskip("wandb")
    logged, begun = {}, []

    class Run:
        def log(self, numbers, step):
            logged[step] = numbers

        def finish(self):
            begun.append("finished")

    monkeypatch.setattr(wandb, "init", lambda **settings: begun.append(settings) or Run())
    asked = objective()
    record = runs.Run(tmp_path / "a", asked, solver(6), wandb="project")
    th.maximize(asked, solver=record.solver, run=record)
    assert begun[0]["project"] == "project"
    assert begun[0]["name"] == "a"
    assert begun[1] == "finished"
    for line in runs.metrics(tmp_path / "a"):
        assert logged[line["step"]]["train/log_likelihood"] == line["train/log_likelihood"]
        assert logged[line["step"]]["grad_norm"] == line["grad_norm"]
    assert {
        "train/log_likelihood",
        "validation/log_likelihood",
        "learning_rate",
        "grad_norm",
        "terms_per_second",
    } <= set(logged[4])


def test_without_wandb_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "find_spec", lambda name: None)
    asked = objective()
    record = runs.Run(tmp_path / "a", asked, solver(6), wandb="project")
    with pytest.raises(th.errors.MissingExtra, match=r"thetahat\[wandb\]"):
        th.maximize(asked, solver=record.solver, run=record)


# ---- export ------------------------------------------------------------------------------------------------


def test_an_export_holds_the_tensors_of_the_network_and_what_made_them(tmp_path):
    """Read by safetensors alone."""
    from safetensors import safe_open

    fit = th.maximize(objective(), solver=solver(4))
    export(fit, tmp_path / "a.safetensors", {"note": "x"})
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    own = fit.model.network.state_dict()
    assert found.keys() == own.keys()
    assert all(torch.equal(found[name], own[name]) for name in own)
    about = json.loads(metadata["about"])
    assert about == {
        "model": "Conditional",
        "network": "Sequential",
        "measure": "mass",
        "units": "y",
        "parameters": 51,
        "note": "x",
    }
    with pytest.raises(BadArgument, match="exists"):
        export(fit, tmp_path / "a.safetensors")
    with pytest.raises(BadArgument, match=r"\.safetensors"):
        export(fit, tmp_path / "a.bin")
    line = th.fit("y ~ x", {"y": [0.9, 2.1, 2.9, 4.2], "x": [0.0, 1.0, 2.0, 3.0]})
    with pytest.raises(BadArgument, match="no network to export"):
        export(line, tmp_path / "b.safetensors")
