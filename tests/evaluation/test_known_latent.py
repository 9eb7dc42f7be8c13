"""Predictions of a likelihood of one's own with latent variables: groups that were fitted, average groups, draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import thetahat as th
from thetahat.evaluation.known_latent import known_latent
from thetahat.likelihood import LogLikelihood, Objective

R = Path(__file__).parents[3] / "shared" / "data" / "r"
needs_r = pytest.mark.skipif(not R.exists(), reason="R's data are not here")


@th.model(
    a=250.0, d=10.0, sigma=th.positive(25.0), b=th.latent(by="Subject", sd=(24.0, 6.0)), target="Reaction"
)
def line(batch, a, d, sigma, b):  # type: ignore[no-untyped-def]
    days = batch["Days"]
    return th.families.Normal().at(a + d * days + b[:, 0] + b[:, 1] * days, sigma)


def half(found: pd.DataFrame) -> np.ndarray:
    """The standard errors that 95 % intervals were made of."""
    return ((found["high"] - found["low"]) / 2 / 1.959963984540054).to_numpy()


@needs_r
def test_errors_of_predictions_are_those_of_glmmtmb() -> None:
    """glmmTMB 1.1.5, predict(…, se.fit=TRUE) of Reaction ~ Days + (Days | Subject): TMB's covariance of random effects."""
    table = pd.read_csv(R / "sleepstudy.csv")
    fit = th.fit(line, table)
    new = table.iloc[[0, 4, 24, 179]].drop(columns="Reaction")
    known = fit.predict(new, level=0.95)
    assert known["value"].to_numpy() == pytest.approx([254.2209, 332.3921, 232.7876, 369.5258], rel=1e-6)
    assert half(known) == pytest.approx([12.945135, 7.795937, 7.913110, 13.812876], rel=1e-6)
    average = fit.predict(new, level=0.95, groups="average")
    assert half(average) == pytest.approx([6.632279, 8.314503, 8.314503, 14.216630], rel=5e-6)
    without = fit.predict(new.drop(columns="Subject"), level=0.95, groups="average")
    pd.testing.assert_frame_equal(without, average)
    with pytest.raises(th.errors.UnknownColumn, match="Subject"):
        fit.predict(new.drop(columns="Subject"))


@needs_r
def test_errors_of_a_binomial_are_those_of_glmmtmb() -> None:
    table = pd.read_csv(R / "cbpp.csv")
    table = table.assign(**{f"p{k}": (table["period"].astype(str) == str(k)) * 1.0 for k in (2, 3, 4)})

    @th.model(i=-1.0, e2=0.0, e3=0.0, e4=0.0, b=th.latent(by="herd", sd=0.5), target="incidence")
    def own(batch, i, e2, e3, e4, b):  # type: ignore[no-untyped-def]
        eta = i + e2 * batch["p2"] + e3 * batch["p3"] + e4 * batch["p4"] + b
        return th.families.Binomial().at(torch.sigmoid(eta), trials=batch["size"])

    found = th.fit(own, table).predict(table.iloc[[0, 6, 19]], "linear", level=0.95)
    assert found["value"].to_numpy() == pytest.approx([-0.808512, -2.826101, -1.798801], abs=1e-5)
    assert half(found) == pytest.approx([0.3783301, 0.4495642, 0.4175684], rel=1e-5)


def test_gradients_of_rows_are_those_of_automatic_differentiation() -> None:
    g = np.random.default_rng(3)
    s, t = np.repeat(np.arange(12), 6), np.tile(np.arange(6), 12)
    b, c = g.normal(size=(12, 2)) * (1.0, 0.2), 0.3 * g.normal(size=6)
    y = (5 + b[s, 0]) * np.exp(-0.3 * np.exp(b[s, 1]) * t) + c[t] + 0.1 * g.normal(size=72)
    table = pd.DataFrame({"y": y, "x": t * 1.0, "s": s, "t": t})

    @th.model(
        level=5.0,
        rate=th.positive(0.3),
        sigma=th.positive(0.1),
        b=th.latent(by="s", sd=(1.0, 0.2)),
        c=th.latent(by="t", sd=0.3),
    )
    def own(batch, level, rate, sigma, b, c):  # type: ignore[no-untyped-def]
        mean = (level + b[:, 0]) * torch.exp(-rate * torch.exp(b[:, 1]) * batch["x"]) + c
        return th.families.Normal().at(mean, sigma)

    bound, source = own.bound(table)
    marginal = Objective([LogLikelihood(bound, source)])
    theta = bound.start(source)
    marginal = marginal.at(theta)
    objective, V = known_latent(marginal, "known")
    batch = next(iter(source.batches(bound)))[:7]
    model = objective.model
    eta = model.eta(batch)[0]
    one = torch.ones(7, dtype=torch.float64)
    found = model.gradient_rows(batch, [one, 0 * one])
    for i in range(7):
        own_row = torch.autograd.grad(eta[i], model.all, retain_graph=True)[0]
        assert torch.allclose(found[i], own_row, atol=1e-12)
    # ∂û/∂θ by differences of the modes
    for j in range(len(theta)):
        h = torch.zeros_like(theta)
        h[j] = 1e-4
        u = [marginal.at(theta + sign * h) for sign in (1, -1)]
        ends = [own_modes(o) for o in u]
        slope = (ends[0] - ends[1]) / 2e-4
        assert V.D[:, j] == pytest.approx(slope, abs=1e-5)


def own_modes(objective) -> torch.Tensor:  # type: ignore[no-untyped-def]
    """û, level by level."""
    model = objective.model
    batch = next(iter(objective.terms[0].source.batches(model)))
    beta, phi = model.coefficients.detach(), model.covariance.detach()
    (first, rest), _, _ = model.evaluator(batch, None).modes(beta, phi)
    return torch.from_numpy(np.concatenate([first.T.reshape(-1), rest]))


def test_unknown_groups_are_named_and_draws_have_the_groups_variance() -> None:
    g = np.random.default_rng(0)
    who = np.repeat(np.arange(40), 10)
    table = pd.DataFrame({"y": 3 + 2 * g.normal(size=40)[who] + g.normal(size=400), "g": who})

    @th.model(level=0.0, sigma=th.positive(1.0), b=th.latent(by="g"))
    def own(batch, level, sigma, b):  # type: ignore[no-untyped-def]
        return th.families.Normal().at(level + b, sigma)

    fit = th.fit(own, table)
    new = pd.DataFrame({"g": [3, 99]})
    with pytest.raises(th.errors.UnknownLevel, match="row 1: the fit has not seen this group of g"):
        fit.predict(new)
    assert fit.predict(new, groups="average") == pytest.approx([fit.estimates["level"]] * 2)
    draws = fit.sample(400)
    level, sigma, sd = fit.estimates
    total = sd**2 + sigma**2
    # a draw's variance over rows has a coefficient of variation of about √(2/40): of 400 draws 1.1 %
    assert np.mean((draws - level) ** 2) == pytest.approx(total, rel=0.05)
    assert np.mean((draws[:, ::10] - level) * (draws[:, 1::10] - level)) == pytest.approx(sd**2, rel=0.08)
    assert fit.residuals().std() == pytest.approx(1.0, abs=0.1)


def test_a_function_of_log_p_alone_has_no_predictions() -> None:
    @th.model(level=0.0, b=th.latent(by="g"))
    def own(batch, level, b):  # type: ignore[no-untyped-def]
        return th.families.Normal().log_prob(batch["y"], level + b, torch.tensor(1.0, dtype=torch.float64))

    fit = th.fit(own, {"y": [1.0, 2.0, 0.0, 4.0, 3.0, 3.5], "g": [0, 0, 1, 1, 2, 2]})
    with pytest.raises(th.errors.BadArgument, match="returns log p of each row alone"):
        fit.predict()
    assert len(fit.random_effects()) == 3


def test_new_groups_are_scored_by_their_own_integrals() -> None:
    """The rows that were fitted, as groups of other names: the fit's own log-likelihood, and a spread over groups."""
    g = np.random.default_rng(8)
    who = np.repeat(np.arange(9), 4)
    table = pd.DataFrame({"y": g.poisson(np.exp(0.5 + 0.6 * g.normal(size=9)[who])), "g": who})

    @th.model(level=0.1, b=th.latent(by="g", sd=0.5))
    def own(batch, level, b):  # type: ignore[no-untyped-def]
        return th.families.Poisson().at(torch.exp(level + b))

    fit = th.fit(own, table)
    new = fit.score(table.assign(g=who + 100).sample(frac=1.0, random_state=1))
    assert new.total == pytest.approx(fit.log_likelihood, abs=1e-9)
    assert new.standard_error > 0
    with pytest.raises(th.errors.BadArgument, match="row 0 is of the group '0' of g, which was fitted"):
        fit.score(table)
