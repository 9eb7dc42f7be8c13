"""Likelihoods of one's own that return a distribution: everything that a formula's fit answers, they answer alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import thetahat as th


@th.model(a=0.1, b=0.1)
def rate(batch, a, b):  # type: ignore[no-untyped-def]
    return th.families.Poisson().at(torch.exp(a + b * batch["x"]))


def table() -> pd.DataFrame:
    g = np.random.default_rng(2)
    x = g.normal(size=80)
    return pd.DataFrame({"y": g.poisson(np.exp(0.5 + 0.4 * x)), "x": x})


@pytest.fixture(scope="module")
def both() -> tuple[th.Fit, th.Fit]:
    return th.fit(rate, table()), th.fit("y ~ x", table(), family="poisson")


NEW = pd.DataFrame({"x": [-1.0, 0.0, 2.0]})


@pytest.mark.parametrize(
    "ask",
    [
        lambda fit: fit.estimates,
        lambda fit: fit.standard_errors(),
        lambda fit: fit.predict(NEW),
        lambda fit: fit.predict(NEW, level=0.9),
        lambda fit: fit.predict(NEW, "linear", level=0.9),
        lambda fit: fit.predict(NEW, "quantile", level=0.75),
        lambda fit: fit.predict(NEW, level=0.9, kind="plug-in"),
        lambda fit: fit.predict(NEW, level=0.9, kind="prediction"),
        lambda fit: fit.residuals(),
        lambda fit: fit.residuals("pearson"),
        lambda fit: fit.sample(3),
        lambda fit: fit.score().total,
        lambda fit: fit.calibration(bins=5)[["predicted", "observed"]],
    ],
)
def test_answers_are_those_of_the_formula(both, ask) -> None:  # type: ignore[no-untyped-def]
    own, formula = (np.asarray(ask(fit), dtype=float) for fit in both)
    assert own == pytest.approx(formula, rel=1e-7, abs=1e-7)


def test_the_measure_is_the_familys(both) -> None:  # type: ignore[no-untyped-def]
    own, formula = both
    assert own.score().measure == formula.score().measure == "mass"
    assert th.compare({"own": own, "formula": formula}) is not None


def test_what_was_given_stays_as_it_was(both) -> None:  # type: ignore[no-untyped-def]
    assert rate.values()["a"].item() == 0.1
    assert not hasattr(rate, "family")


def test_it_is_saved_and_loaded_with_its_family(both, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    both[0].save(tmp_path / "own.fit")
    again = th.load(tmp_path / "own.fit", model=rate)
    assert again.predict(NEW, level=0.9).to_numpy() == pytest.approx(
        both[0].predict(NEW, level=0.9).to_numpy(), rel=1e-12
    )


def test_extras_come_from_the_distribution() -> None:
    data = pd.DataFrame({"hits": [3, 5, 1, 0, 4], "shots": [9, 9, 5, 2, 8]})

    @th.model(p=th.interval(0, 1), target="hits")
    def own(batch, p):  # type: ignore[no-untyped-def]
        return th.families.Binomial().at(p, trials=batch["shots"])

    fit = th.fit(own, data)
    assert fit.estimates["p"] == pytest.approx(13 / 33)
    assert fit.predict(data) == pytest.approx(data["shots"] * 13 / 33)
    with pytest.raises(th.errors.UnknownColumn, match="shots"):
        fit.predict({"other": [1.0]})


def test_a_function_that_changes_its_mind_is_named() -> None:
    @th.model(a=0.1)
    def own(batch, a):  # type: ignore[no-untyped-def]
        if len(batch) < 3:
            return th.families.Normal().at(a, 1.0)
        return th.families.Poisson().at(torch.exp(a) + 0 * batch["y"])

    fit = th.fit(own, {"y": [1.0, 2.0, 0.0, 1.0]})
    with pytest.raises(
        th.errors.ModelError, match=r"returned Poisson.* of the rows that were fitted, and Normal"
    ):
        fit.predict({"y": [1.0]})


def test_a_parameter_of_another_shape_is_refused() -> None:
    @th.model(a=0.1)
    def own(batch, a):  # type: ignore[no-untyped-def]
        return th.families.Normal().at(a + batch["x"][:, None], 1.0)

    with pytest.raises(th.errors.ModelError, match="a parameter of shape"):
        th.fit(own, {"y": [1.0, 2.0], "x": [0.0, 1.0]})
