"""The call that a report prints makes the same fit again."""

import json
import shlex

import numpy as np
import pytest

import thetahat as th
from thetahat import cli
from thetahat.report import reproduce

CALLS = [
    {"family": "poisson"},
    {"family": "negative_binomial", "dispersion": "~ period", "missing": "raise"},
    {"family": "negative_binomial", "dispersion": 0.5},
    {"family": "poisson", "prior": th.priors.Normal(0.5)},
    {
        "family": "poisson",
        "prior": [th.priors.StudentT(2.0, df=7.0, on="type*"), th.priors.Normal(1.0, 0.1, on="period*")],
    },
    {"family": th.families.Poisson(link="softplus")},
    {"family": "poisson", "solver": th.LBFGS()},
]


@pytest.fixture(
    params=CALLS, ids=lambda call: " ".join(f"{name}={type(value).__name__}" for name, value in call.items())
)
def again(request: pytest.FixtureRequest) -> th.Fit:
    return th.fit("incidents ~ type + period + log(service)", str(th.data.shipped("ships")), **request.param)


def test_the_python_call_makes_the_fit_again(again: th.Fit) -> None:
    named: dict = {}
    exec(reproduce.python(again), named)
    assert named["fit"].log_likelihood == pytest.approx(again.log_likelihood, rel=1e-12)
    assert named["fit"].estimates.to_dict() == pytest.approx(again.estimates.to_dict(), rel=1e-6)


def test_the_command_makes_the_fit_again(again: th.Fit, capsys: pytest.CaptureFixture[str]) -> None:
    """Or there is none: for a link, and for a solver, which the command does not take."""
    command = reproduce.command(again)
    if not command:
        assert "th.families" in reproduce.python(again) or "solver=" in reproduce.python(again)
        return
    assert cli.main([*shlex.split(command)[1:], "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    text = json.dumps(found)
    assert again.summary().to_dict()["log_likelihood"]["nats"] == pytest.approx(_nats(found), rel=1e-12), text


def _nats(found: dict) -> float:
    return float(found["log_likelihood"]["nats"])


def test_the_call_of_a_fit_without_a_maximum_asks_for_it_as_it_stands() -> None:
    frame = {"y": [0, 0, 1, 1], "x": [1.0, 2.0, 3.0, 4.0]}
    fit = th.fit("y ~ x", frame, "bernoulli", on_failure="return")
    assert 'on_failure="return"' in reproduce.python(fit)
    assert reproduce.command(fit).endswith("--on-failure return")


def test_a_run_is_made_again_with_its_folder(tmp_path):
    """The call names run=, and not the checkpoint inside it; an optimiser of one's own by its name."""
    import torch

    model = th.models.Conditional(th.families.Normal(), th.networks.mlp(1, (), 2))
    rows = {"x": torch.zeros(8, 1), "y": torch.zeros(8)}
    solver = th.Stochastic(steps=2, held_out=None, optimiser=torch.optim.NAdam)
    text = reproduce.python(th.fit(model, rows, solver=solver, run=tmp_path / "r"))
    assert f'run="{tmp_path / "r"}"' in text
    assert "optimiser=NAdam" in text
    assert "checkpoint" not in text


def test_what_a_formula_fit_was_asked_for_is_in_both() -> None:
    """How random effects were integrated out too: another integral is another fit."""
    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=60), "g": np.repeat(np.arange(10), 6)}
    data["y"] = data["x"] + rng.normal(size=10)[data["g"]] + rng.normal(size=60)
    data["k"] = rng.poisson(np.exp(0.3 * data["x"]))
    for call, said, word in (
        ({"model": "y ~ x + (1 | g)", "reml": True}, "reml=True", "--reml"),
        (
            {"model": "k ~ x + (1 | g)", "family": "poisson", "quadrature": 5},
            "quadrature=5",
            "--quadrature 5",
        ),
    ):
        fit = th.fit(data=data, **call)
        assert said in reproduce.python(fit)
        assert word in reproduce.command(fit)
        named = {"data": data}
        exec(reproduce.python(fit), named)
        assert named["fit"].maximised == pytest.approx(fit.maximised, rel=1e-12)
    fit = th.fit("y ~ double(x)", data, functions={"double": double})
    named = {"data": data, "double": double}
    exec(reproduce.python(fit), named)
    assert named["fit"].maximised == pytest.approx(fit.maximised, rel=1e-12)
    assert reproduce.command(fit) == ""


def double(x: np.ndarray) -> np.ndarray:
    return 2 * x
