"""A likelihood of one's own: its parameters stand under their own names, on their own scales."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
import torch

import thetahat as th

DEATHS = {"deaths": range(10), "days": [162, 267, 271, 185, 111, 61, 27, 8, 3, 1]}
STARTS = {"winter": th.interval(0, 1), "low": th.positive(1.0), "high": th.positive(3.0)}


@pytest.mark.parametrize("order", list(itertools.permutations(STARTS)), ids=" ".join)
def test_estimates_stand_under_their_own_names_in_whatever_order_the_parameters_are_given(
    order: tuple[str, ...],
) -> None:
    """Hasselblad (1969), deaths of women over 80 in The Times: a mixture of two Poissons, means 1.2561 and
    2.6634, share 0.3599 of the first, log-likelihood −1989.946 (as Everitt and Hand, 1981, §4.4.1, give
    them)."""

    @th.model(measure="mass", **{name: STARTS[name] for name in order})
    def mixture(batch, winter, low, high):  # type: ignore[no-untyped-def]
        poisson = th.families.Poisson()
        return torch.logaddexp(
            torch.log1p(-winter) + poisson.log_prob(batch["deaths"], low),
            torch.log(winter) + poisson.log_prob(batch["deaths"], high),
        )

    fit = th.fit(mixture, DEATHS, weights="days")
    assert list(fit.estimates.index) == list(order)
    assert fit.estimates.to_dict() == pytest.approx(
        {"winter": 0.6401, "low": 1.2561, "high": 2.6634}, abs=5e-5
    )
    assert fit.log_likelihood == pytest.approx(-1989.946, abs=5e-4)


def test_a_function_that_sums_is_refused() -> None:
    @th.model(mean=0.0)
    def summed(batch, mean):  # type: ignore[no-untyped-def]
        return th.families.Normal().log_prob(batch["y"], mean, torch.tensor(1.0)).sum()

    with pytest.raises(th.errors.ModelError, match="Do not sum or average"):
        th.fit(summed, {"y": [1.0, 2.0]})


def test_parameters_and_arguments_must_agree() -> None:
    with pytest.raises(th.errors.BadArgument, match="they must agree"):

        @th.model(mean=0.0)
        def other(batch, location):  # type: ignore[no-untyped-def]
            return -((batch["y"] - location) ** 2)


@pytest.mark.parametrize(
    ("constraint", "value"),
    [
        (th.positive(2.5), [2.5]),
        (th.interval(-1.0, 3.0, 2.0), [2.0]),
        (th.ordered([-1.0, 0.5, 4.0]), [-1.0, 0.5, 4.0]),
        (th.simplex([0.2, 0.5, 0.3]), [0.2, 0.5, 0.3]),
        (th.simplex(4), [0.25] * 4),
    ],
    ids=str,
)
def test_a_constraint_starts_where_it_is_told(constraint, value: list[float]) -> None:  # type: ignore[no-untyped-def]
    """constrain(unconstrain(v)) = v, and the unconstrained start is free: moved anywhere, it stays in the
    set."""
    start = constraint.start()
    assert constraint.constrain(start).reshape(-1).tolist() == pytest.approx(value, rel=1e-14)
    moved = constraint.constrain(
        start + torch.linspace(-3, 3, start.numel() or 1, dtype=torch.float64).reshape(start.shape)
    )
    assert bool(torch.isfinite(moved).all())


@pytest.mark.parametrize("name", ["half", "train", "items"])
def test_a_parameter_with_the_name_of_a_method_of_the_module_is_refused_by_that_name(name: str) -> None:
    with pytest.raises(th.errors.BadArgument, match=rf"'{name}'.*such as {name}_"):
        th.model(**{name: 1.0})


@th.model(a=0.0, b=0.0, scale=th.positive(1.0))
def _line(batch, a, b, scale):  # type: ignore[no-untyped-def]
    return th.families.Normal().at(a + b * batch["x"], scale)


@th.model(a=0.0)
def _reads_text(batch, a):  # type: ignore[no-untyped-def]
    return -((batch["y"] - a * batch["g"]) ** 2)


def _table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    x = rng.normal(size=40)
    return pd.DataFrame(
        {"x": x, "y": 1 + x + rng.normal(size=40), "w": np.tile([1.0, 2.0], 20), "g": list("ab") * 20}
    )


def test_text_that_a_model_of_one_s_own_does_not_read_is_left_out_and_text_that_it_reads_is_refused() -> None:
    data = _table()
    np.testing.assert_allclose(th.fit(_line, data).estimates, th.fit(_line, data[["x", "y"]]).estimates)
    with pytest.raises(th.errors.WrongType, match="'g' holds text, and your own model reads it"):
        th.fit(_reads_text, data)
    rows = data[["x", "g"]]  # to predict, without a response
    np.testing.assert_array_equal(th.fit(_line, data).predict(rows), th.fit(_line, data).predict(rows[["x"]]))


def test_what_a_model_of_one_s_own_cannot_do_is_refused_with_what_can_be_done() -> None:
    data = _table()[["x", "y", "w"]]
    with pytest.raises(th.errors.BadArgument, match=r"subset= .*data\[mask\]"):
        th.fit(_line, data, subset="x > 0")
    with pytest.raises(th.errors.BadArgument, match="array: put it into the data as a column"):
        th.fit(_line, data, weights=data["w"].to_numpy())
    fit = th.fit(_line, data)
    with pytest.raises(th.errors.BadArgument, match=r"fit.residuals\(\)"):
        fit.check()
    for ask in (fit.anova, lambda: th.anova(fit, fit)):
        with pytest.raises(th.errors.BadArgument, match=r"fit.test\('b = 0', 'likelihood_ratio'\)"):
            ask()
    formula = th.fit("y ~ x", data).test("x = 0", "likelihood_ratio")
    assert fit.test("b = 0", "likelihood_ratio").statistic == pytest.approx(formula.statistic, rel=1e-6)
