"""EM: it never decreases the log-likelihood, ends where others' optima are, and says which maxima there
are."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

import thetahat as th
from thetahat.data import Tensors
from thetahat.data.shipped import shipped
from thetahat.errors import BadArgument, FlatDirection, NoMaximum
from thetahat.families import MultivariateNormal
from thetahat.likelihood import LogLikelihood, LogPrior, Objective
from thetahat.models import Mixture
from thetahat.models.mixture import regressions
from thetahat.solvers import EM, Newton, choose, iterate
from thetahat.solvers.complete_data import Complete, expect, limits

FAITHFUL = np.loadtxt(shipped("faithful"), delimiter=",", skiprows=1)
WAITING = FAITHFUL[:, 1]


def drawn(seed: int = 0) -> np.ndarray:
    """Two normals that overlap: EM is slow on them."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(0, 1, 150), rng.normal(2.0, 1.2, 100)])


def heavy(seed: int = 0) -> np.ndarray:
    """A normal and a Student t of 3 degrees of freedom: of two normals the t's degrees of freedom would grow for ever."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(0, 1, 250), 5 + rng.standard_t(3, 250)])


def crossing(n: int = 240) -> dict[str, np.ndarray]:
    """Two lines that cross: y = 1 + 2x and y = −1 − x."""
    rng = np.random.default_rng(3)
    x, first = rng.uniform(-2, 2, n), rng.random(n) < 0.4
    return {"y": np.where(first, 1 + 2 * x, -1 - x) + 0.4 * rng.normal(size=n), "x": x}


def objective(model: Mixture, data: Any, weights: Any = None) -> Objective:
    source = data if isinstance(data, Tensors) or hasattr(data, "encoder") else model.source(data)
    return Objective([LogLikelihood(model, source, weights)])


def cases() -> dict[str, Objective]:
    rng = np.random.default_rng(1)
    counts = np.concatenate([rng.poisson(2, 80), rng.poisson(6, 60)]).astype(float)
    weighted = Mixture("normal", 2).source(
        {"y": drawn(), "times": rng.integers(0, 4, 250).astype(float)}, "times"
    )
    prior = Mixture("normal", 2)
    return {
        "normals": objective(Mixture("normal", 2), drawn()),
        "vectors": objective(Mixture(MultivariateNormal(2), 3), FAITHFUL),
        "counts, by formula": objective(Mixture("poisson", 2), counts),
        "counts, by Newton": objective(Mixture("negative_binomial", 2), counts),
        "not alike": objective(Mixture(["normal", "student_t"]), heavy()),
        "regressions, by least squares": objective(*regressions("y ~ x", crossing(), 2)),
        "regressions, by Newton": objective(*regressions("y ~ x", crossing(), 2, "logistic")),
        "weighted rows": objective(Mixture("normal", 2), weighted),
        "with a prior": objective(prior, drawn()) + LogPrior(th.priors.Normal(0.5, on="*: scale"), prior),
    }


CASES = cases()


# ---- it never decreases ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("start", range(2))
def test_a_step_of_em_never_decreases_the_objective(name, start):
    """Dempster, Laird and Rubin (1977), theorem 1; to rounding, from what a first guess gives."""
    target, solver = CASES[name], EM(accelerate=False, starts=start + 1)
    state = solver.start(target)
    point = expect(target, state.starts[start], state.limits)
    for _ in range(12):
        after = solver.advance(target, point, state.limits)
        assert not after.trouble
        assert after.value >= point.value - 1e-11 * abs(point.value)
        point = after


@pytest.mark.parametrize("name", CASES)
def test_a_leap_of_squarem_never_decreases_it_either(name):
    target, solver = CASES[name], EM()
    state = solver.start(target)
    point = expect(target, state.starts[0], state.limits)
    for _ in range(6):
        after, _ = solver.cycle(target, point, state.limits)
        assert after.value >= point.value - 1e-11 * abs(point.value)
        point = after


@pytest.mark.parametrize("name", CASES)
def test_the_whole_climb_rises_and_ends_certified(name):
    """Every line of the trace is at least as high as the one before it, Newton's steps included."""
    target = CASES[name]
    solver = EM(starts=2)
    state = iterate(solver, target)
    values = [value for _, value, _ in state.trace]
    assert len(values) > 3
    assert all(b >= a - 1e-11 * abs(a) for a, b in pairwise(values))
    certificate = solver.certificate(target, state)
    assert certificate.status == "certified maximum"
    assert certificate.standard_errors is not None
    assert certificate.standard_errors < 1e-6


def test_where_a_fit_is_certified_em_stands_still():
    """A maximum of ℓ is a fixed point of EM (and of every weighted maximum-likelihood fit in it)."""
    target = CASES["normals"]
    state = iterate(EM(starts=1), target)
    edges = limits(target, target.model)
    here = expect(target, state.theta, edges)
    torch.testing.assert_close(EM().advance(target, here, edges).theta, state.theta, rtol=0, atol=1e-9)


def test_the_slope_of_q_is_that_of_the_log_likelihood_and_q_bounds_its_change():
    """Fisher's identity; and ℓ(θ) − ℓ(θ₀) ≥ Q(θ) − Q(θ₀), Jensen's inequality, anywhere."""
    target = CASES["vectors"]
    state = EM(starts=1).start(target)
    here = expect(target, state.starts[0], state.limits)
    Q = Complete(target, here)
    torch.testing.assert_close(
        Q.taylor(here.theta, order=1).gradient,
        target.taylor(here.theta, order=1).gradient,
        rtol=1e-9,
        atol=1e-8,
    )
    base = Q.value(here.theta)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        theta = here.theta + 0.1 * torch.randn(len(here.theta), dtype=torch.float64, generator=generator)
        assert target.value(theta) - here.value >= Q.value(theta) - base - 1e-9


def test_squarem_needs_fewer_steps_than_em_where_components_overlap():
    """Varadhan and Roland (2008): passes over the data until ℓ is within 10⁻⁴ nats of its maximum."""
    target = CASES["normals"]
    top = target.value(iterate(EM(starts=1), target).theta)
    taken = {}
    for accelerate in (True, False):
        solver = EM(accelerate=accelerate)
        state = solver.start(target)
        point, passes = expect(target, state.starts[0], state.limits), 0
        while point.value < top - 1e-4:
            point, more = solver.cycle(target, point, state.limits)
            passes += more
            assert passes < 5000
        taken[accelerate] = passes
    assert taken[True] < 0.5 * taken[False]


# ---- it ends where others' optima are ----------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 3])
def test_the_maximum_is_that_of_scikit_learn(k):
    """GaussianMixture 1.x of scikit-learn, full covariances, reg_covar=0, run to tol=1e-13 from θ̂'s own
    neighbourhood and not from θ̂."""
    from sklearn.mixture import GaussianMixture

    fit = th.fit(Mixture(MultivariateNormal(2), k), FAITHFUL, solver=EM(starts=4))
    natural = fit.estimates.to_numpy()
    own = natural[k:].reshape(k, 5)
    means = own[:, :2]
    other = GaussianMixture(
        k,
        reg_covar=0.0,
        tol=1e-13,
        max_iter=20_000,
        means_init=means + np.array([0.05, -0.5]),
        random_state=0,
    )
    other.fit(FAITHFUL)
    assert other.converged_
    assert fit.log_likelihood == pytest.approx(other.score(FAITHFUL) * len(FAITHFUL), abs=1e-7)
    order = np.argsort(other.means_[:, 0])
    np.testing.assert_allclose(natural[:k], other.weights_[order], atol=1e-5)
    np.testing.assert_allclose(means, other.means_[order], rtol=1e-4)
    for row, covariance in zip(own, other.covariances_[order], strict=True):
        L = np.array([[row[2], 0.0], [row[3], row[4]]])
        np.testing.assert_allclose(L @ L.T, covariance, rtol=2e-3, atol=1e-4)


def test_waiting_times_are_those_of_mixtools():
    """R, mixtools, normalmixEM(faithful$waiting), stopped at a gain of 1e-8: λ 0.360887 0.639113, μ 54.614893
    80.091093, σ 5.871245 5.867716, log-likelihood -1034.002."""
    fit = th.fit(Mixture("normal", 2), WAITING)
    known = [0.360887, 0.639113, 54.614893, 5.871245, 80.091093, 5.867716]
    np.testing.assert_allclose(fit.estimates, known, rtol=1e-5)
    assert fit.log_likelihood == pytest.approx(-1034.002, abs=5e-4)
    assert str(fit.certificate).startswith("certified local maximum")


@pytest.mark.parametrize(("k", "bic"), [(1, 2607.623), (2, 2322.192)])
def test_the_bic_of_old_faithful_is_that_of_mclust(k, bic):
    """R, mclust, mclustBIC(faithful), model VVV: -2607.623, -2322.192 (its BIC has the other sign). Its
    third is a lower maximum than ours."""
    fit = th.fit(Mixture(MultivariateNormal(2), k), shipped("faithful"), solver=EM(starts=3))
    assert fit.criteria["BIC"] == pytest.approx(bic, abs=5e-4)


def test_one_component_is_the_family_alone():
    alone, mixture = (
        th.fit(MultivariateNormal(2), FAITHFUL),
        th.fit(Mixture(MultivariateNormal(2), 1), FAITHFUL),
    )
    assert mixture.log_likelihood == pytest.approx(alone.log_likelihood, abs=1e-9)
    np.testing.assert_allclose(mixture.estimates[1:], alone.estimates, rtol=1e-8)


def test_standard_errors_are_those_of_the_information_by_finite_differences():
    """J by central differences of the log-likelihood in the natural parameters (π₀, μ, σ); weight[1] = 1 −
    weight[0] has the same error."""
    fit = th.fit(Mixture("normal", 2), WAITING)
    e = fit.estimates.to_numpy()[[0, 2, 3, 4, 5]]
    y = torch.from_numpy(WAITING)

    def log_likelihood(v: np.ndarray) -> float:
        terms = [
            math.log(w) - math.log(s) - 0.5 * ((y - m) / s) ** 2
            for w, m, s in ((v[0], v[1], v[2]), (1 - v[0], v[3], v[4]))
        ]
        return float(torch.logsumexp(torch.stack(terms), 0).sum())

    h = 1e-3 * np.maximum(np.abs(e), 0.1)
    J = np.empty((5, 5))
    for i in range(5):
        for j in range(5):
            a, b = np.eye(5)[i] * h[i], np.eye(5)[j] * h[j]
            J[i, j] = -sum(s * t * log_likelihood(e + s * a + t * b) for s in (1, -1) for t in (1, -1)) / (
                4 * h[i] * h[j]
            )
    expected = np.sqrt(np.diag(np.linalg.inv(J)))
    errors = fit.standard_errors().to_numpy()
    np.testing.assert_allclose(errors[[0, 2, 3, 4, 5]], expected, rtol=1e-4)
    assert errors[1] == pytest.approx(errors[0], rel=1e-12)


def test_intercepts_alone_make_the_mixture_of_normals():
    model, table = regressions("y ~ 1", {"y": WAITING}, 2)
    fit, plain = th.fit(model, table), th.fit(Mixture("normal", 2), WAITING)
    assert fit.log_likelihood == pytest.approx(plain.log_likelihood, abs=1e-8)
    np.testing.assert_allclose(fit.estimates, plain.estimates, rtol=1e-6)


def test_lines_that_cross_are_told_apart():
    """Drawn with intercepts −1, 1, slopes −1, 2 and the weight 0.4: each truth within 4 standard errors."""
    model, table = regressions("y ~ x", crossing(), 2)
    fit = th.fit(model, table)
    error = fit.standard_errors()
    truth = {
        "weight[1]": 0.4,
        "0: Intercept": -1.0,
        "0: x": -1.0,
        "1: Intercept": 1.0,
        "1: x": 2.0,
        "0: scale": 0.4,
        "1: scale": 0.4,
    }
    for name, value in truth.items():
        assert abs(fit.estimates[name] - value) < 4 * error[name], name
    at_two = float(fit.predict({"x": [2.0]})[0])
    e = fit.estimates
    assert at_two == pytest.approx(
        sum(e[f"weight[{k}]"] * (e[f"{k}: Intercept"] + 2 * e[f"{k}: x"]) for k in (0, 1)), rel=1e-12
    )


# ---- rows --------------------------------------------------------------------------------------------------


def test_a_weight_is_so_many_rows():
    rng = np.random.default_rng(5)
    times = rng.integers(0, 4, len(WAITING))
    weighted = th.fit(Mixture("normal", 2), {"y": WAITING, "n": times.astype(float)}, weights="n")
    repeated = th.fit(Mixture("normal", 2), np.repeat(WAITING, times))
    assert weighted.log_likelihood == pytest.approx(repeated.log_likelihood, abs=1e-8)
    np.testing.assert_allclose(weighted.standard_errors(), repeated.standard_errors(), rtol=1e-6)


def test_blocks_of_rows_change_nothing():
    y = torch.from_numpy(WAITING)
    whole, blocks = (th.fit(Mixture("normal", 2), Tensors({"y": y}, block=block)) for block in (1000, 37))
    np.testing.assert_allclose(blocks.estimates, whole.estimates, rtol=1e-9)


def test_many_rows_are_climbed_from_the_maxima_of_a_subsample():
    """The same maximum as from every row; rows sorted by component do not mislead it, for the subsample is
    spread over them."""
    y = np.sort(np.concatenate([drawn(seed) for seed in range(4)]))
    slow = th.fit(Mixture("normal", 2), y, solver=EM(starts=3))
    fast = th.fit(Mixture("normal", 2), y, solver=EM(starts=3, thin_above=400))
    np.testing.assert_allclose(fast.estimates, slow.estimates, rtol=1e-7)
    assert "subsample" in fast.certificate.detail


def test_a_weighting_that_is_held_weighs_the_rows():
    """w = 2 for every row: the same θ̂, ℓ doubled."""
    model = Mixture("normal", 2)
    twice = th.fit(
        model, model.source(WAITING), weights=lambda batch, log_prob: torch.full_like(log_prob, 2.0)
    )
    once = th.fit(Mixture("normal", 2), WAITING)
    np.testing.assert_allclose(twice.estimates, once.estimates, rtol=1e-8)
    assert twice.certificate.ok


# ---- which maxima there are --------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_numbers_and_another_the_same_maximum():
    first, again, other = (
        th.fit(Mixture("normal", 2), WAITING, solver=EM(seed=s, starts=2)) for s in (0, 0, 9)
    )
    assert bool((first.estimates == again.estimates).all())
    np.testing.assert_allclose(other.estimates, first.estimates, rtol=1e-8)


def test_lower_maxima_are_told_and_the_highest_is_kept():
    """Four components on 272 rows: more than one maximum, each certified on its own."""
    target = objective(Mixture(MultivariateNormal(2), 4), FAITHFUL)
    solver = EM(starts=2)
    state = iterate(solver, target)
    assert state.best is not None
    ends = [m for m in state.found if m.certificate.ok]
    assert len({round(m.value, 3) for m in ends}) > 1
    assert state.best.value == max(m.value for m in ends)
    certificate = solver.certificate(target, state)
    assert "nats lower" in certificate.detail
    assert not certificate.concave
    for m in ends[:3]:
        t = target.taylor(m.theta)
        assert t.information is not None
        assert float(torch.linalg.eigvalsh(t.information.dense())[0]) > 0
        assert float(t.gradient.abs().max()) < 1e-5


def test_components_are_numbered_by_their_first_parameter():
    fit = th.fit(Mixture("normal", 3), drawn(), solver=EM(starts=3), on_failure="return")
    means = fit.estimates[["0: mean", "1: mean", "2: mean"]]
    assert means.is_monotonic_increasing


# ---- what is no answer -------------------------------------------------------------------------------------


def test_a_component_that_collapses_is_refused_with_the_reason():
    """20 rows at 0 exactly: the variance of a component there → 0 and ℓ → ∞."""
    y = np.concatenate([np.zeros(20), drawn()[:40]])
    with pytest.raises(NoMaximum, match=r"each of 4 starts.*collapsed on 20 observations.*prior") as error:
        th.fit(Mixture("normal", 2), y, solver=EM(starts=4))
    assert error.value.certificate.status == "no maximum"
    with pytest.raises(NoMaximum, match="covariance is singular"):
        th.fit(Mixture(MultivariateNormal(2), 2), np.stack([drawn(), 2 * drawn()], 1), solver=EM(starts=2))


def test_a_prior_on_the_scales_prevents_it():
    """log σ ~ N(0, 0.5²): the objective has a maximum, where its gradient vanishes."""
    y = np.concatenate([np.zeros(20), drawn()[:40]])
    fit = th.fit(Mixture("normal", 2), y, prior=th.priors.Normal(0.5, on="*: scale"), solver=EM(starts=3))
    assert fit.certificate.status == "certified maximum"
    assert fit.estimates[["0: scale", "1: scale"]].min() > 1e-3
    assert float(fit.objective.taylor(fit.theta).gradient.abs().max()) < 1e-6


def test_a_climb_that_runs_into_a_singularity_is_left_and_told():
    """A start on one row collapses; the others find the maximum that mixtools finds."""
    model = Mixture("normal", 2)
    solver = EM(
        begin=torch.tensor([math.log(9.0), 96.0, math.log(1e-3), 71.0, math.log(13.0)], dtype=torch.float64)
    )
    with pytest.raises(NoMaximum, match="collapsed on 1 observations"):
        th.fit(model, WAITING, solver=solver)


def test_components_that_the_data_do_not_ask_for_are_named():
    """Counts no more spread than Poisson's: the likelihood of two components is highest where they are one
    (Lindsay 1983)."""
    counts = np.repeat(np.arange(7.0), [5, 15, 22, 22, 17, 10, 5])
    assert counts.var() < counts.mean()
    with pytest.raises(FlatDirection, match="the data do not ask for 2 components") as error:
        th.fit(Mixture("poisson", 2), counts, solver=EM(starts=3))
    alone = th.fit(th.families.Poisson(), counts)
    assert error.value.fit.log_likelihood == pytest.approx(alone.log_likelihood, abs=1e-6)


def test_what_em_does_not_fit_is_refused():
    with pytest.raises(BadArgument, match="one mixture"):
        th.fit(th.families.MultivariateNormal(2), FAITHFUL, solver=EM())
    with pytest.raises(BadArgument, match=r"component 0 is Laplace.*kinks"):
        th.fit(Mixture("laplace", 2), WAITING)
    with pytest.raises(BadArgument, match="starts=0"):
        EM(starts=0)
    with pytest.raises(BadArgument, match="hand_over=0"):
        EM(hand_over=0.0)


def test_em_is_chosen_for_a_mixture_and_newton_alone_reaches_the_same():
    """From the mixture's own start, which is one first guess."""
    model = Mixture("normal", 2)
    target = objective(model, WAITING)
    assert isinstance(choose(target), EM)
    newton = th.fit(Mixture("normal", 2), WAITING, solver=Newton())
    assert newton.log_likelihood == pytest.approx(th.fit(model, WAITING).log_likelihood, abs=1e-8)


# ---- a fit of one is a fit ---------------------------------------------------------------------------------


def test_intervals_tests_and_bootstrap_work_as_for_other_models():
    fit = th.fit(Mixture("normal", 2), WAITING, solver=EM(starts=2))
    wald, profile = (
        fit.intervals(kind=kind, parameters=["weight[0]", "0: mean", "0: scale"])
        for kind in ("wald", "profile")
    )
    np.testing.assert_allclose(profile, wald, rtol=0.1)
    assert not np.allclose(profile, wald, rtol=1e-6)
    assert wald.loc["0: scale", "low"] > 0
    for name in ("0: mean", "0: scale"):  # 2(ℓ̂ − ℓ_p) = χ² at the ends of a profile interval
        for end in profile.loc[name]:
            assert fit.test(f"{name} = {end}", "likelihood_ratio").statistic == pytest.approx(
                3.8415, abs=2e-3
            )
    assert fit.test("0: mean = 54.6", "likelihood_ratio").p_value > 0.9
    spread = fit.bootstrap(40, seed=1).std()
    np.testing.assert_allclose(spread, fit.standard_errors(), rtol=0.5)


def test_a_saved_mixture_comes_back(tmp_path):
    """To the last bit, without its rows; with them, everything."""
    for fit, data in (
        (th.fit(Mixture(MultivariateNormal(2), 2), FAITHFUL, solver=EM(starts=1)), FAITHFUL),
        (th.fit(*regressions("y ~ x", crossing(), 2), solver=EM(starts=2)), crossing()),
    ):
        path = fit.save(tmp_path / "mixture.thetahat")
        again = th.load(path)
        assert bool((again.standard_errors() == fit.standard_errors()).all())
        assert again.names == fit.names
        assert str(again.summary()).splitlines()[4:] == str(fit.summary()).splitlines()[4:]
        whole = th.load(path, data)
        assert whole.score().total == pytest.approx(fit.log_likelihood, abs=1e-9)
        path.unlink()


def test_the_summary_says_what_was_mixed():
    text = str(
        th.fit(Mixture(["normal", "student_t"]), drawn(), solver=EM(starts=2), on_failure="return").summary()
    )
    assert "mixture of 2 components" in text
    assert "1 of Normal" in text
    assert "1 of StudentT" in text


# ---- how many ----------------------------------------------------------------------------------------------


def test_bic_and_held_out_nats_both_ask_for_two_components():
    """Old Faithful: BIC is lowest at 2; held out in four parts, 2 beats 1 by far more than its error, and
    3 does not beat 2 by its own."""
    bic, held = {}, {}
    order = np.random.default_rng(0).permutation(len(FAITHFUL))
    for k in (1, 2, 3):
        bic[k] = th.fit(Mixture(MultivariateNormal(2), k), FAITHFUL, solver=EM(starts=3)).criteria["BIC"]
        scores = np.empty(len(FAITHFUL))
        for part in range(4):
            out = order[part::4]
            train = np.delete(FAITHFUL, out, axis=0)
            fit = th.fit(Mixture(MultivariateNormal(2), k), train, solver=EM(starts=3))
            scores[out] = fit.score(FAITHFUL[out]).per_observation.numpy()
        held[k] = scores
    assert min(bic, key=lambda k: bic[k]) == 2

    def gain(a: int, b: int) -> tuple[float, float]:
        d = held[a] - held[b]
        return float(d.mean()), float(d.std(ddof=1) / math.sqrt(len(d)))

    mean, error = gain(2, 1)
    assert mean > 5 * error
    mean, error = gain(3, 2)
    assert mean < 2 * error
