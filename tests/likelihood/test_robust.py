"""Density power and trimming: what theory, brute force and other software say of them."""

import itertools
import math

import numpy as np
import pytest
import torch

import thetahat as th
from thetahat.errors import BadArgument, NoCurvature, NoMaximum
from thetahat.likelihood.robust import Powered, consistency, get
from thetahat.models.taylor import taylor

PHONES, STACKLOSS = th.data.shipped("phones"), th.data.shipped("stackloss")
STACK = "loss ~ air_flow + water_temperature + acid"
few = {"starts": 50}


def line(n=60, bad=0, seed=0, value=1e6):
    """y = 1 + 2x + noise, the last `bad` responses replaced."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    y = 1 + 2 * x + rng.normal(size=n)
    y[n - bad :] = value
    return {"y": y, "x": x}


# ---- density power -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("formula", "data", "family", "fixed"),
    [
        (STACK, STACKLOSS, "normal", {}),
        (STACK, STACKLOSS, "student_t", {"df": 4.0}),
        ("incidents ~ type + offset(log(service))", th.data.shipped("ships"), "poisson", {}),
        ("distress ~ temperature", th.data.shipped("orings"), "bernoulli", {}),
        ("loss ~ air_flow", STACKLOSS, "gamma", {}),
    ],
)
def test_a_density_power_of_almost_zero_is_maximum_likelihood(formula, data, family, fixed):
    """H_β → log p as β → 0: coefficients differ by O(β)."""
    plain = th.fit(formula, data, family=family, **fixed)
    robust = th.fit(formula, data, family=family, robust=th.DensityPower(1e-10), **fixed)
    np.testing.assert_allclose(robust.estimates, plain.estimates, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(robust.standard_errors(), plain.standard_errors("sandwich"), rtol=1e-6)
    assert robust.maximised == pytest.approx(plain.log_likelihood, abs=1e-6)


@pytest.mark.parametrize("beta", [1e-12, 0.3, 1.0])
def test_the_value_of_a_row_is_that_of_the_paper(beta):
    """Basu et al. (1998), eq. 2.1 with (1 + 1/β) written out, at N(0.3, 1.7²): sums in plain arithmetic;
    log p for β → 0."""
    y, mean, scale = (torch.tensor([v], dtype=torch.float64) for v in (2.0, 0.3, 1.7))
    found = float(Powered(th.families.Normal(), beta).log_prob(y, mean, scale))
    density = math.exp(-0.5 * ((2.0 - 0.3) / 1.7) ** 2) / (1.7 * math.sqrt(2 * math.pi))
    if beta < 1e-6:
        assert found == pytest.approx(math.log(density), abs=1e-11)
    else:
        integral = (1.7 * math.sqrt(2 * math.pi)) ** -beta / math.sqrt(1 + beta)
        assert found == pytest.approx((density**beta - 1) / beta + 1 - integral / (1 + beta), rel=1e-13)


def test_its_mean_is_highest_at_the_true_density():
    """∫ p₀ H_β(y | θ) dy has gradient 0 and a negative Hessian at θ = θ₀ (Fisher consistency), by
    quadrature."""
    y = torch.linspace(-15, 15, 6001, dtype=torch.float64)
    weight = torch.exp(th.families.Normal().log_prob(y, *torch.tensor([0.3, 1.7], dtype=torch.float64))) * (
        y[1] - y[0]
    )
    eta = torch.tensor([0.3, math.log(1.7)], dtype=torch.float64)
    powered = Powered(th.families.Normal(), 0.5)

    def expected(e):
        return (weight * powered.log_prob_eta(y, *e)).sum()

    assert torch.autograd.functional.jacobian(expected, eta).abs().max() < 1e-8
    assert torch.linalg.eigvalsh(torch.autograd.functional.hessian(expected, eta)).max() < 0


@pytest.mark.parametrize("family", ["normal", "student_t", "poisson", "weibull", "negative_binomial"])
def test_gradient_and_information_are_those_of_differentiation(family):
    """The regression's sums of scores and curvatures against reverse-mode differentiation of Σ H_β through
    the coefficients."""
    rng = np.random.default_rng(2)
    data = {
        "y": rng.poisson(4.0, 30) + (0.5 if family in ("weibull", "normal", "student_t") else 0.0),
        "x": rng.normal(size=30),
    }
    term = th.fit("y ~ x", data, family=family, on_failure="return").objective.terms[0]
    model, batch = term.model, next(iter(term.source.batches()))
    with torch.no_grad():
        model.coefficients += 0.1
    twin = th.DensityPower(0.4).of(model, term.source).scored
    ours = twin.taylor(batch)

    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.coefficients = model.coefficients

        def log_prob(self, b):
            return twin.log_prob(b)

    automatic = taylor(Plain(), batch, None)
    torch.testing.assert_close(ours.value, automatic.value, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.gradient, automatic.gradient, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(ours.information.dense(), automatic.information.dense(), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("beta", [0.1, 0.5, 1.0])
def test_the_sandwich_is_the_closed_form_at_the_normal(beta):
    """J⁻¹KJ⁻¹ of H_β with each row's y replaced by a fine grid of normal quantiles: σ²/n over `efficiency`,
    σ²/2n over `efficiency_of_scale`."""
    n = 4001
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    fit = th.fit("y ~ 1", {"y": (3 + 2 * torch.special.ndtri(u)).numpy()}, robust=th.DensityPower(beta))
    np.testing.assert_allclose(fit.estimates, [3.0, 2.0], atol=5e-3)
    error, scale = fit.standard_errors(), fit.estimates["scale"]
    assert (scale**2 / n) / error["Intercept"] ** 2 == pytest.approx(
        th.DensityPower(beta).efficiency, rel=5e-3
    )
    assert (scale**2 / (2 * n)) / error["scale"] ** 2 == pytest.approx(
        th.DensityPower(beta).efficiency_of_scale, rel=5e-3
    )


def test_efficiencies_are_the_papers():
    """Basu et al. (1998), table 1: asymptotic efficiencies of mean and standard deviation, in %: β 0.1: 98.8,
    97.6; 0.5: 83.8, 73.4 …"""
    for beta, mean, scale in (
        (0.02, 0.999, 0.999),
        (0.1, 0.988, 0.976),
        (0.5, 0.838, 0.731),
        (1.0, 0.650, 0.541),
    ):
        assert th.DensityPower(beta).efficiency == pytest.approx(mean, abs=6e-4)
        assert th.DensityPower(beta).efficiency_of_scale == pytest.approx(scale, abs=6e-3)


def test_outliers_do_not_move_it_and_move_maximum_likelihood():
    """A fifth of the responses at 10⁶: the density-power line is, to rounding, that of the other rows
    under β's own equations with their share."""
    data = line(60, 12)
    good = {k: v[:48] for k, v in data.items()}
    robust, alone = (th.fit("y ~ x", d, robust=th.DensityPower(0.5)) for d in (data, good))
    assert abs(th.fit("y ~ x", data).estimates["Intercept"]) > 1e5
    # the 12 rows leave the integral in the sum, which pulls the scale down, and nothing else
    assert abs(robust.estimates[["Intercept", "x"]] - alone.estimates[["Intercept", "x"]]).max() < 0.1
    further = th.fit("y ~ x", line(60, 12, value=1e9), robust=th.DensityPower(0.5))
    np.testing.assert_allclose(further.estimates, robust.estimates, rtol=1e-9)
    assert set(robust.outliers(12).index) == set(range(48, 60))
    assert (robust.outliers(12)["weight"] == 0).all()


def test_it_is_equivariant():
    """y → a + cy + x·b and x → kx move the estimates as they must: H_β changes by a factor and a constant."""
    data = line(40, 5, value=30.0)
    one = th.fit("y ~ x", data, robust=th.DensityPower(0.5)).estimates
    moved = {"y": 3 * data["y"] + 7 - 2 * data["x"], "x": 10 * data["x"]}
    two = th.fit("y ~ x", moved, robust=th.DensityPower(0.5)).estimates
    expected = [3 * one["Intercept"] + 7, (3 * one["x"] - 2) / 10, 3 * one["scale"]]
    np.testing.assert_allclose(two, expected, rtol=1e-7)


def test_counts_with_outliers_keep_their_rate():
    """Poisson with mean 4, a tenth of the rows at 500: the sum over counts in the place of the integral."""
    rng = np.random.default_rng(5)
    y = rng.poisson(4.0, 200).astype(float)
    clean = th.fit("y ~ 1", {"y": y[:180]}, family="poisson").estimates["Intercept"]
    y[180:] = 500
    robust = th.fit("y ~ 1", {"y": y}, family="poisson", robust=th.DensityPower(0.3))
    assert abs(robust.estimates["Intercept"] - clean) < 0.03
    assert th.fit("y ~ 1", {"y": y}, family="poisson").estimates["Intercept"] > 3.9


def test_frequency_weights_are_rows():
    """A row of weight 3 is three rows, in the estimates and in the sandwich."""
    data = {
        "y": np.array([1.0, 2.0, 2.5, 4.0, 30.0, 5.5]),
        "x": np.arange(6.0),
        "w": np.array([1.0, 3.0, 1.0, 2.0, 1.0, 1.0]),
    }
    times = data["w"].astype(int)
    one = th.fit("y ~ x", data, weights="w", robust=th.DensityPower(0.5))
    two = th.fit("y ~ x", {k: np.repeat(v, times) for k, v in data.items()}, robust=th.DensityPower(0.5))
    np.testing.assert_allclose(one.estimates, two.estimates, rtol=1e-7)
    np.testing.assert_allclose(one.standard_errors(), two.standard_errors(), rtol=1e-6)


def test_the_bootstrap_refits_what_was_maximised():
    """The errors of 40 clean rows and the sandwich's agree within what 60 draws can tell; log p alone
    would give ten times as much."""
    fit = th.fit("y ~ x", line(40, 2, value=40.0), robust=th.DensityPower(0.5))
    ratio = fit.bootstrap(60)["x"].std() / fit.standard_errors()["x"]
    assert 0.6 < ratio < 1.6


def test_a_robust_fit_does_not_call_itself_a_likelihood():
    """What needs the maximum of a likelihood is refused, by name; the score stays one of nats."""
    fit = th.fit("calls ~ year", PHONES, robust="density_power:0.5")
    assert fit.score().total == pytest.approx(fit.log_likelihood)
    assert fit.maximised != pytest.approx(fit.log_likelihood)
    assert not fit.certificate.concave
    assert "density power divergence" in str(fit.summary())
    assert "AIC" not in str(fit.summary())
    for refused in (
        lambda: fit.criteria,
        lambda: fit.standard_errors("observed"),
        lambda: fit.intervals(kind="profile"),
        lambda: fit.test("year = 0", "likelihood_ratio"),
        lambda: fit.kept,
        lambda: fit.evidence,
        lambda: fit.influence(),
        lambda: th.fit("calls ~ year", PHONES, robust=th.DensityPower(), prior=th.priors.Laplace(1.0)),
        lambda: th.fit("calls ~ year", PHONES, robust=th.DensityPower(), solver=th.Stochastic(steps=1)),
    ):
        with pytest.raises(BadArgument):
            refused()


# ---- trimmed -----------------------------------------------------------------------------------------------


def test_trimmed_normal_is_least_trimmed_squares_over_all_subsets():
    """n = 12, h = 8: all 495 subsets tried."""
    rng = np.random.default_rng(4)
    X = np.column_stack([np.ones(12), rng.normal(size=(12, 2))])
    y = X @ [1.0, 2.0, -1.0] + 0.3 * rng.normal(size=12)
    y[:3] += 5
    best = min(
        itertools.combinations(range(12), 8),
        key=lambda rows: float(np.linalg.lstsq(X[list(rows)], y[list(rows)], rcond=None)[1][0]),
    )
    fit = th.fit("y ~ a + b", {"y": y, "a": X[:, 1], "b": X[:, 2]}, robust=th.Trimmed(8 / 12))
    assert fit.kept.tolist() == list(best)
    rows = list(best)
    np.testing.assert_allclose(
        fit.estimates[:3], np.linalg.lstsq(X[rows], y[rows], rcond=None)[0], rtol=1e-10
    )
    scale = fit.estimates["scale"]
    assert fit.maximised == pytest.approx(-8 * (0.5 * math.log(2 * math.pi) + math.log(scale) + 0.5))
    assert fit.certificate.ok
    assert not fit.certificate.concave


def test_trimmed_counts_reach_the_best_subset():
    """Poisson, n = 8, h = 6, no formula: all 28 subsets fitted by maximum likelihood."""
    rng = np.random.default_rng(9)
    x = rng.normal(size=8)
    y = rng.poisson(np.exp(1 + 0.5 * x)).astype(float)
    y[2], y[7] = 30, 25
    values = {}
    for rows in itertools.combinations(range(8), 6):
        part = th.fit(
            "y ~ x", {"y": y[list(rows)], "x": x[list(rows)]}, family="poisson", on_failure="return"
        )
        values[rows] = part.log_likelihood
    fit = th.fit("y ~ x", {"y": y, "x": x}, family="poisson", robust=th.Trimmed(0.75, starts=30))
    best = max(values, key=values.get)
    assert fit.kept.tolist() == list(best)
    assert fit.maximised == pytest.approx(values[best], abs=1e-8)


def test_keeping_every_row_is_maximum_likelihood():
    """keep = 1, and every inference with it."""
    plain, kept = th.fit(STACK, STACKLOSS), th.fit(STACK, STACKLOSS, robust=th.Trimmed(1.0))
    np.testing.assert_allclose(kept.estimates, plain.estimates, rtol=1e-12)
    assert kept.maximised == pytest.approx(plain.log_likelihood)


def test_stack_loss_has_the_subset_and_the_outliers_of_robustbase():
    """R 2.7.1, robustbase, tests/tlts.Rout.save, ltsReg(stack.loss ~ ., stackloss): n 21, half 13, best
    subsample 5 … 12, 15 … 19; after reweighting, outliers 1, 3, 4, 21 and coefficients −37.6525, 0.7977,
    0.5773, −0.0671, which are least squares of the other 17 rows.
    """
    half = th.fit(STACK, STACKLOSS, robust=th.Trimmed(13 / 21))
    assert (half.kept + 1).tolist() == [5, 6, 7, 8, 9, 10, 11, 12, 15, 16, 17, 18, 19]
    four = th.fit(STACK, STACKLOSS, robust=th.Trimmed(17 / 21))
    assert sorted(set(range(1, 22)) - set(four.kept + 1)) == [1, 3, 4, 21]
    np.testing.assert_allclose(four.estimates[:4], [-37.6525, 0.7977, 0.5773, -0.0671], atol=6e-5)
    assert sorted(four.outliers(4).index + 1) == [1, 3, 4, 21]


def test_stack_loss_is_the_best_of_all_subsets():
    """All 203,490 subsets of 13 of the 21 days, by their normal equations."""
    data = _columns(STACKLOSS)
    y, columns = (
        data["loss"] - data["loss"].mean(),
        [data[k] for k in ("air_flow", "water_temperature", "acid")],
    )
    X = np.column_stack([np.ones(21)] + [(c - c.mean()) / c.std() for c in columns])
    subsets = np.array(list(itertools.combinations(range(21), 13)))
    mask = np.zeros((len(subsets), 21))
    np.put_along_axis(mask, subsets, 1.0, 1)
    M = (mask @ (X[:, :, None] * X[:, None, :]).reshape(21, 16)).reshape(-1, 4, 4)
    b = mask @ (X * y[:, None])
    squares = mask @ y**2 - (b * np.linalg.solve(M, b[..., None])[..., 0]).sum(1)
    fit = th.fit(STACK, STACKLOSS, robust=th.Trimmed(13 / 21))
    assert fit.kept.tolist() == subsets[squares.argmin()].tolist()
    assert fit.estimates["scale"] ** 2 * 13 == pytest.approx(squares.min(), rel=1e-9)


def test_twenty_numbers_have_the_location_of_robustbase():
    """The same file, ltsReg(y20): least trimmed squares of a location, reweighted: 44.6; of keep = 1:
    33.0."""
    y20 = [2, 3, 4, 8, 12, 22, 28, 29, 33, 34, 38, 40, 41, 47, 48, 50, 51, 54, 56, 59]
    every = th.fit("y ~ 1", {"y": np.array(y20, dtype=float)}, robust=th.Trimmed(1.0))
    assert every.estimates["Intercept"] == pytest.approx(33.0, abs=0.05)
    half = th.fit("y ~ 1", {"y": np.array(y20, dtype=float)}, robust=th.Trimmed(11 / 20))
    windows = np.lib.stride_tricks.sliding_window_view(np.array(y20, dtype=float), 11)
    assert half.estimates["Intercept"] == pytest.approx(windows[windows.var(axis=1).argmin()].mean())


def test_it_breaks_down_where_more_rows_are_bad_than_are_left_out():
    """n = 60, keep = 0.7: 18 rows are left out. 18 rows at 10⁶ are harmless, and 19 are not (Neykov and
    Müller 2003)."""
    holds, breaks = (th.fit("y ~ x", line(60, bad), robust=th.Trimmed(0.7, **few)) for bad in (18, 19))
    assert abs(holds.estimates[["Intercept", "x"]] - [1, 2]).max() < 0.6
    assert holds.kept.tolist() == list(range(42))
    assert abs(breaks.estimates["Intercept"]) > 1e3


def test_trimmed_is_equivariant():
    """The same rows are kept of y → a + cy + x·b and x → kx, and the estimates move as they must."""
    data = line(40, 8, value=30.0)
    moved = {"y": 3 * data["y"] + 7 - 2 * data["x"], "x": 10 * data["x"]}
    one, two = (th.fit("y ~ x", d, robust=th.Trimmed(0.75, **few)) for d in (data, moved))
    assert one.kept.tolist() == two.kept.tolist()
    e = one.estimates
    np.testing.assert_allclose(
        two.estimates, [3 * e["Intercept"] + 7, (3 * e["x"] - 2) / 10, 3 * e["scale"]], rtol=1e-9
    )


def test_reweighting_is_maximum_likelihood_of_the_rows_within_the_cut_off():
    """Rows within Φ⁻¹(0.9875) consistent scales of the trimmed line, and least squares of them."""
    data = line(60, 12, value=60.0)
    raw = th.fit("y ~ x", data, robust=th.Trimmed(0.5, **few))
    fit = th.fit("y ~ x", data, robust=th.Trimmed(0.5, reweight=0.975, **few))
    residual = np.abs(data["y"] - raw.estimates["Intercept"] - raw.estimates["x"] * data["x"])
    inside = np.flatnonzero(residual <= 2.241403 * raw.estimates["scale"] * consistency(0.5))
    assert fit.kept.tolist() == inside.tolist()
    part = th.fit("y ~ x", {k: v[inside] for k, v in data.items()})
    np.testing.assert_allclose(fit.estimates, part.estimates, rtol=1e-9)
    assert "reweighted" in fit.certificate.detail


@pytest.mark.parametrize("keep", [0.5, 0.75, 0.9])
def test_the_scale_of_the_rows_kept_is_made_consistent_by_its_factor(keep):
    """Normal quantiles: the standard deviation of the central share, times the factor, is 1."""
    u = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    z = torch.special.ndtri(u)
    central = z[z.abs().argsort()[: int(keep * len(z))]]
    assert float(central.square().mean().sqrt()) * th.Trimmed(keep).consistency == pytest.approx(
        1.0, abs=1e-4
    )


def test_a_mixed_up_fit_of_half_the_rows_has_the_same_seed_the_same_answer():
    """Same seed, same rows; another seed finds the same maximum here."""
    fits = [th.fit("calls ~ year", PHONES, robust=th.Trimmed(0.6, seed=seed)) for seed in (0, 0, 1)]
    assert fits[0].estimates.equals(fits[1].estimates)
    assert fits[0].kept.tolist() == fits[2].kept.tolist()


def test_phones_leave_out_the_years_of_minutes():
    """Rousseeuw and Leroy (1987), §2.2: in 1964 to 1969 (rows 14 … 19) minutes were counted for calls, and
    parts of 1963 and 1970 with them.

    Their line by least median of squares is −5.610 + 0.115·year in tens of millions, and by least squares
    −26.01 + 0.504·year.
    """
    plain = th.fit("calls ~ year", PHONES).estimates
    np.testing.assert_allclose([plain["Intercept"] / 10, plain["year"] / 10], [-26.01, 0.504], atol=5e-3)
    half = th.fit("calls ~ year", PHONES, robust=th.Trimmed(13 / 24))
    assert not set(range(13, 21)) & set(half.kept)
    assert half.estimates["year"] / 10 == pytest.approx(0.115, abs=0.002)
    power = th.fit("calls ~ year", PHONES, robust=th.DensityPower(0.5))
    assert power.estimates["year"] / 10 == pytest.approx(0.110, abs=5e-4)
    assert sorted(power.outliers(8).index) == list(range(13, 21))


def test_a_trimmed_fit_says_what_it_does_not_know():
    """No standard errors, no resamples, no weights; rows on a line have no likelihood."""
    fit = th.fit("calls ~ year", PHONES, robust=th.Trimmed(0.6, **few))
    assert "Trimmed(0.6)" in str(fit.summary())
    with pytest.raises(NoCurvature, match="which rows are kept"):
        fit.standard_errors()
    with pytest.raises(BadArgument, match="bootstrap"):
        fit.bootstrap(5)
    with pytest.raises(BadArgument, match="weights"):
        th.fit("y ~ x", {**line(20), "w": np.ones(20) * 2}, weights="w", robust=th.Trimmed(0.7))
    with pytest.raises(BadArgument, match="Keep more"):
        th.fit(STACK, {k: v[:7] for k, v in _columns(STACKLOSS).items()}, robust=th.Trimmed(0.5))
    exact = line(30)
    exact["y"][:25] = 1 + 2 * exact["x"][:25]
    with pytest.raises(NoMaximum):
        th.fit("y ~ x", exact, robust=th.Trimmed(0.6, **few))


def _columns(path):
    import pandas as pd

    return {k: v.to_numpy() for k, v in pd.read_csv(path).items()}


@pytest.mark.parametrize(
    ("robust", "said"),
    [
        ("huber", "Accepted"),
        ("trimmed:half", "Accepted"),
        ("trimmed:0.3", "from 0.5 to 1"),
        ("density_power:0", "positive"),
        (0.5, "Accepted"),
    ],
)
def test_a_setting_that_is_none_is_refused(robust, said):
    """The message says what is accepted."""
    with pytest.raises(BadArgument, match=said):
        get(robust)


def test_families_without_the_integral_are_refused():
    """A kinked density, a censored row, and a likelihood of one's own."""
    with pytest.raises(BadArgument, match="kinks"):
        th.fit("calls ~ year", PHONES, family="laplace", robust="density_power")
    with pytest.raises(BadArgument, match="censored"):
        th.fit(
            "Surv(y, event) ~ 1",
            {"y": [1.0, 2.0, 3.0], "event": [1, 1, 0]},
            family="weibull",
            robust="density_power",
        )

    @th.model(m=0.0)
    def own(batch, m):
        return -((batch["y"] - m) ** 2)

    with pytest.raises(BadArgument, match="Trimmed"):
        th.fit(own, {"y": [1.0, 2.0]}, robust="density_power")


def test_a_likelihood_of_ones_own_is_trimmed_too():
    """An exponential law written by hand, against the family's own: the smallest waits are kept."""

    @th.model(m=th.positive(1.0))
    def waits(batch, m):
        return -torch.log(m) - batch["y"] / m

    y = np.array([0.3, 0.5, 0.8, 1.1, 1.4, 2.0, 2.2, 90.0])
    fit = th.fit(waits, {"y": y}, robust=th.Trimmed(0.75, starts=20))
    assert fit.kept.tolist() == [0, 1, 2, 3, 4, 5]
    assert fit.estimates["m"] == pytest.approx(y[:6].mean(), rel=1e-7)


@pytest.mark.parametrize("robust", [th.DensityPower(0.5), th.Trimmed(0.6)], ids=str)
def test_a_saved_robust_fit_is_the_same_fit(robust, tmp_path):
    """Estimates and certificate without the data; with them, whatever the fit says of them."""
    fit = th.fit("calls ~ year", PHONES, robust=robust)
    path = fit.save(tmp_path / "phones.thetahat")
    alone, whole = th.load(path), th.load(path, data=PHONES)
    for again in (alone, whole):
        assert again.estimates.equals(fit.estimates)
        assert str(again.certificate) == str(fit.certificate)
        assert again.robust == robust
        assert "maximised" in str(again.summary())
    with pytest.raises(BadArgument, match="AIC"):
        _ = alone.criteria
    assert whole.outliers().equals(fit.outliers())
    assert whole.maximised == pytest.approx(fit.maximised)
    if isinstance(robust, th.DensityPower):
        assert whole.standard_errors().equals(fit.standard_errors())


def test_intervals_of_predictions_are_the_sandwichs():
    """Var(a + 60b) = xᵀVx with V the covariance of the estimates; the mean's link is the identity."""
    fit = th.fit("calls ~ year", PHONES, robust=th.DensityPower(0.5))
    x = np.array([1.0, 60.0])
    half = 1.959964 * math.sqrt(x @ fit.covariance().to_numpy()[:2, :2] @ x)
    found = fit.predict({"year": [60.0]}, level=0.95).iloc[0]
    assert found["high"] - found["value"] == pytest.approx(half, rel=1e-6)
    wide = fit.predict({"year": [60.0]}, level=0.95, kind="prediction").iloc[0]
    assert wide["high"] - wide["low"] > 2 * half
