"""Hidden Markov models: every path summed, derivatives by differences, and what a fit says."""

from __future__ import annotations

import gc
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

import thetahat as th
from thetahat.errors import (
    BadArgument,
    BadFormula,
    DataError,
    EmptyData,
    NoMaximum,
    NotFinite,
    OutOfSupport,
    UnknownColumn,
)
from thetahat.inference.natural import natural
from thetahat.models.base import get_theta, set_theta
from thetahat.models.chain_layout import Layout
from thetahat.models.chains import passes
from thetahat.models.hidden_paths import drawn_path, viterbi
from thetahat.models.hidden_spread import Scores, spread
from thetahat.solvers import BaumWelch

HMM = th.models.HMM
QUICK = BaumWelch(starts=3)
HMMLEARN = -296.699586449304  # log-likelihood of `simulated(200)`: see the test that reads it


def simulated(n: int = 200, seed: int = 0) -> np.ndarray:
    """y of two states that stay with 0.9: N(0, 1) and N(4, 0.5²)."""
    rng = np.random.default_rng(seed)
    z = np.zeros(n, dtype=int)
    for t in range(1, n):
        z[t] = z[t - 1] if rng.random() < 0.9 else 1 - z[t - 1]
    return np.where(z == 0, rng.normal(0, 1, n), rng.normal(4, 0.5, n))


def table(n: int = 120, seed: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "id": rng.integers(0, 5, n).astype(str),
        "y": rng.poisson(np.where(np.arange(n) % 20 < 10, 2.0, 8.0)).astype(float),
        "x": rng.normal(size=n),
        "z": rng.normal(size=n),
    }


def ready(hmm: HMM, data: Any, noise: float = 0.2) -> tuple[HMM, Any]:
    """A model at some θ that is no maximum, and its batch."""
    model, source = hmm.bound(data)
    batch = next(iter(source.batches()))
    theta = model.start(source)
    set_theta(
        model,
        theta
        + noise * torch.randn(len(theta), generator=torch.Generator().manual_seed(1), dtype=theta.dtype),
    )
    return model, batch


# ---- the log-likelihood, against the sum over every path ---------------------------------------------------


def by_paths(
    log_b: np.ndarray, log_a: np.ndarray, log_d: np.ndarray
) -> tuple[float, np.ndarray, tuple[int, ...]]:
    """log Σ_z p(z, y), P(z_t = k | y), and the most probable path, by all K^T of them; log_a is (K, K) or (K, K, T)."""
    K, T = log_b.shape
    total, share, best = -np.inf, np.full((K, T), -np.inf), (-np.inf, (0,) * T)
    for z in itertools.product(range(K), repeat=T):
        value = log_d[z[0]] + log_b[z[0], 0]
        for t in range(1, T):
            a = log_a if log_a.ndim == 2 else log_a[:, :, t]
            value += a[z[t - 1], z[t]] + log_b[z[t], t]
        total = np.logaddexp(total, value)
        for t in range(T):
            share[z[t], t] = np.logaddexp(share[z[t], t], value)
        best = max(best, (value, z))
    return float(total), np.exp(share - total), best[1]


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("moving", [False, True])
@pytest.mark.parametrize("K", [1, 2, 3])
def test_passes_sum_over_all_paths_however_sequences_are_cut(K: int, moving: bool, zeros: bool) -> None:
    rng = np.random.default_rng(K)
    group = rng.permutation(np.repeat([2, 0, 1], [6, 5, 1]))
    n = len(group)
    log_b = 3 * rng.normal(size=(K, n))
    a = rng.dirichlet(np.ones(K), size=(n, K) if moving else K)
    if zeros and K > 1:
        a[..., 0, 1] = 0
        a /= a.sum(-1, keepdims=True)
    with np.errstate(divide="ignore"):
        log_a = np.log(np.moveaxis(a, 0, -1) if moving else a)
    log_d = np.log(rng.dirichlet(np.ones(K)))
    for piece in (None, 1, 2, 4):
        layout = Layout.of(group, piece)
        passed = passes(layout, log_b, log_a, log_d)
        path = viterbi(layout, log_b, log_a, log_d)
        assert passed.log == (zeros and K > 1)
        for s in range(3):
            own = np.flatnonzero(np.sort(group) == s)
            total, share, best = by_paths(log_b[:, own], log_a if not moving else log_a[:, :, own], log_d)
            assert passed.log_c[own].sum() == pytest.approx(total, abs=1e-11)
            np.testing.assert_allclose(passed.smoothed[:, own], share, atol=1e-12)
            assert tuple(path[own]) == best
        xi = passed.pairs(layout.later)
        np.testing.assert_allclose(xi.sum(0), passed.smoothed[:, layout.later], atol=1e-12)
        np.testing.assert_allclose(xi.sum(1), passed.smoothed[:, layout.later - 1], atol=1e-12)
        np.testing.assert_allclose(passed.counts(), xi.sum(-1), atol=1e-11)


def test_a_density_that_underflows_in_one_state_is_not_lost() -> None:
    log_b = np.array([[0.0, -2000.0, 0.0, 0.0], [-2000.0, 0.0, -2000.0, -3000.0]])
    log_a, log_d = np.log([[0.9, 0.1], [0.2, 0.8]]), np.log([0.5, 0.5])
    found = passes(Layout.of(np.zeros(4)), log_b, log_a, log_d).log_c.sum()
    assert found == pytest.approx(by_paths(log_b, log_a, log_d)[0], abs=1e-12)
    never = np.array([-800.0, 0.0])  # a first state that is as good as impossible, and whose y is the other's
    found = passes(Layout.of(np.zeros(4), 2), log_b, log_a, never).log_c.sum()
    assert found == pytest.approx(by_paths(log_b, log_a, never)[0], abs=1e-12)
    with np.errstate(divide="ignore"):
        one_way = np.log([[0.5, 0.5], [0.0, 1.0]])  # a state that is left is never reached again
    log_b = np.array([[-900.0, -900.0, 0.0], [0.0, 0.0, -5000.0]])
    found = passes(Layout.of(np.zeros(3)), log_b, one_way, log_d).log_c.sum()
    assert found == pytest.approx(by_paths(log_b, one_way, log_d)[0], abs=1e-12)


def test_two_states_of_a_coin_have_a_closed_form() -> None:
    """P(1, 1) = Σ_jk δ_j p_j a_jk p_k, δ = (a_21, a_12) / (a_12 + a_21)."""
    model, source = HMM(2, "bernoulli").bound({"y": [1.0, 1.0, 0.0]})
    p, a = np.array([0.3, 0.8]), np.array([[0.9, 0.1], [0.4, 0.6]])
    logit = lambda v: np.log(v / (1 - v))  # noqa: E731
    set_theta(model, torch.tensor([np.log(0.1 / 0.9), np.log(0.4 / 0.6), *logit(p)]))
    delta = np.array([0.4, 0.1]) / 0.5
    pair = (delta * p) @ a @ p
    batch = next(iter(source.batches()))
    with torch.no_grad():
        found = model.log_prob(batch)
    assert float(found[:2].sum()) == pytest.approx(np.log(pair), abs=1e-14)
    assert float(found.sum()) == pytest.approx(np.log((delta * p) @ a @ (p * (a @ (1 - p)))), abs=1e-14)


def test_one_state_is_the_density_itself() -> None:
    y = simulated()
    alone, hidden = th.fit("normal", {"y": y}), th.fit(HMM(1, "normal"), {"y": y})
    assert hidden.log_likelihood == pytest.approx(alone.log_likelihood, abs=1e-10)
    np.testing.assert_allclose(
        hidden.estimates[["state 1: mean", "state 1: scale"]], alone.estimates, rtol=1e-9
    )


def test_a_change_of_unit_changes_log_p_by_the_logarithm_of_the_unit() -> None:
    y = simulated()
    one, ten = (th.fit(HMM(2, "normal"), {"y": s * y}, solver=QUICK) for s in (1.0, 10.0))
    assert one.log_likelihood - ten.log_likelihood == pytest.approx(len(y) * np.log(10), abs=1e-8)
    np.testing.assert_allclose(one.estimates.iloc[:4], ten.estimates.iloc[:4], rtol=1e-8)


def test_sequences_add_and_may_be_interleaved() -> None:
    y = simulated(60)
    ids = np.tile(["a", "b", "c"], 20)
    model, source = HMM(2, "normal", sequence="id").bound({"y": y, "id": ids})
    theta = model.start(source)
    set_theta(model, theta)
    alone, _ = HMM(2, "normal").bound({"y": y})
    set_theta(alone, theta)
    with torch.no_grad():
        found = model.log_prob(next(iter(source.batches())))
        for name in "abc":
            part = next(iter(alone.source({"y": y[ids == name]}).batches()))
            torch.testing.assert_close(found[torch.from_numpy(ids == name)], alone.log_prob(part))


@pytest.mark.parametrize("piece", [None, 1, 3, 7])
def test_the_row_before_is_found_however_sequences_are_cut(piece: int | None) -> None:
    group = np.random.default_rng(2).permutation(np.repeat([0, 1, 2, 3], [17, 9, 1, 40]))
    layout = Layout.of(group, piece)
    row = np.arange(len(group))
    np.testing.assert_array_equal(layout.placed(row[layout.packed]), row)
    before = layout.before(layout.packed)  # by entry, the place of the row before
    own = layout.first[layout.packed]
    np.testing.assert_array_equal(before[~own], layout.packed[~own] - 1)
    np.testing.assert_array_equal(before[own], layout.packed[own])
    sizes = np.bincount(np.repeat(np.arange(len(layout.begins)), layout._pieces[1]))
    assert sizes.max() <= (piece or 40)
    alone = Layout.of(np.zeros(1000), 32)
    assert alone.even
    assert np.ptp(alone._pieces[1]) <= 1


def test_passes_are_remembered_only_for_what_they_are_of() -> None:
    y = simulated(50)
    model, source = HMM(2, "normal").bound({"y": y})
    batch = next(iter(source.batches()))
    theta = model.start(source)
    set_theta(model, theta)
    first = model.passed(batch)
    assert model.passed(batch) is first
    assert model.passed(batch, backward=False) is first
    set_theta(model, theta + 0.1)
    assert model.passed(batch) is not first
    with torch.no_grad():
        moved = float(model.log_prob(batch).sum())
    other, _ = HMM(2, "logistic").bound({"y": y})  # as many parameters, another family
    set_theta(other, theta + 0.1)
    with torch.no_grad():
        assert abs(float(other.log_prob(batch).sum()) - moved) > 1.0
        batch["y"].mul_(1.5)
        fresh = float(model.log_prob(th.data.Batch({**batch.tensors, "y": batch["y"].clone()})).sum())
        assert abs(fresh - moved) > 1.0
        assert float(model.log_prob(batch).sum()) == pytest.approx(fresh, abs=1e-10)


def test_a_batch_that_is_gone_leaves_nothing_behind() -> None:
    from thetahat.models import hmm as module

    model, source = HMM(2, "normal").bound({"y": simulated(50)})
    set_theta(model, model.start(source))
    before = len(module._ENTRIES)
    batch = th.data.Batch({"y": torch.from_numpy(simulated(50))})
    model.passed(batch)
    assert len(module._ENTRIES) == before + 1
    del batch
    gc.collect()
    assert len(module._ENTRIES) == before


# ---- derivatives -------------------------------------------------------------------------------------------

CASES = {
    "stationary": (HMM(3, "normal"), lambda: {"y": simulated(80)}),
    "free": (HMM(2, "normal", initial="free"), lambda: simulated(80)),
    "sequences": (HMM(2, "poisson", sequence="id"), lambda: {k: table()[k] for k in ("id", "y")}),
    "predictors": (HMM("y ~ x", states=2, family="poisson", transition="~ z", sequence="id"), table),
    "a dispersion": (HMM("y ~ x", states=3, family="negative_binomial", transition="~ z"), table),
    "one state": (HMM("y ~ x", states=1, family="poisson"), table),
}


@pytest.mark.parametrize("case", CASES)
def test_gradient_and_information_are_those_of_finite_differences(case: str) -> None:
    hmm, data = CASES[case]
    model, batch = ready(hmm, data())
    objective = th.Objective([th.LogLikelihood(model, th.data.Tensors(batch, block=10**9))])
    theta, found = get_theta(model), model.taylor(batch)
    size = 1e-5
    for i in range(len(theta)):
        step = torch.zeros_like(theta)
        step[i] = size
        up, down = (objective.taylor(theta + s * step, order=1) for s in (1, -1))
        slope = float(up.value - down.value) / (2 * size)
        assert float(found.gradient[i]) == pytest.approx(slope, abs=1e-6 * (1 + abs(slope)))
        row = -(up.gradient - down.gradient) / (2 * size)
        scale = 1e-7 * (1 + float(found.information.A.abs().max()))
        torch.testing.assert_close(found.information.A[i], row, atol=scale, rtol=1e-6)


@pytest.mark.parametrize("piece", [None, 1, 2])
@pytest.mark.parametrize("zeros", [False, True])
def test_the_spread_of_scores_is_that_over_all_paths(zeros: bool, piece: int | None) -> None:
    """Var(S | y) = Σ_z p(z | y) (S_z − E S)(S_z − E S)ᵀ over all K^T paths, S the score of the complete data."""
    rng = np.random.default_rng(4)
    K, lengths, p = 3, [5, 1, 4], 2 + 4 + 5
    group = np.repeat([0, 1, 2], lengths)
    layout = Layout.of(group, piece)
    a = rng.dirichlet(np.ones(K), size=K)
    if zeros:
        a[0, 1] = 0
        a /= a.sum(1, keepdims=True)
    with np.errstate(divide="ignore"):
        log_a = np.log(a)
    delta, log_b = rng.dirichlet(np.ones(K)), rng.normal(size=(K, len(group)))
    initial = np.zeros((K, p))
    initial[:, :2] = np.eye(K)[:, 1:] - delta[1:]
    logits = [(0, 2, slice(2, 3)), (1, 0, slice(3, 4)), (1, 2, slice(4, 5)), (2, 1, slice(5, 6))]
    places = [slice(6, 8), slice(8, 10), slice(10, 11)]
    emission = [rng.normal(size=(size, len(group))) for size in (2, 2, 1)]
    weight = np.array([1.0, 2.0, 3.0])

    def score(z: tuple[int, ...], rows: np.ndarray) -> np.ndarray:
        out = initial[z[0]].copy()
        for t, row in enumerate(rows):
            out[places[z[t]]] += emission[z[t]][:, row]
            for j, k, at in logits if t else ():
                if z[t - 1] == j:
                    out[at] += (z[t] == k) - a[j, k]
        return out

    expected = np.zeros((p, p))
    for s in range(3):
        rows = np.flatnonzero(group == s)
        paths = list(itertools.product(range(K), repeat=len(rows)))
        logs = [
            np.log(delta[z[0]]) + log_b[z, rows].sum() + log_a[z[:-1], z[1:]].sum()
            for z in map(np.array, paths)
        ]
        share = np.exp(logs - np.logaddexp.reduce(logs))
        S = np.array([score(z, rows) for z in paths])
        S -= share @ S
        expected += weight[s] * (S.T * share) @ S
    passed = passes(layout, log_b, log_a, np.log(delta))
    assert passed.log == zeros
    found = spread(
        passed,
        Scores(initial, [e[:, layout.packed] for e in emission], places, logits, a),
        weight[group][layout.packed],
    )
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_sums_of_normal_rows_are_those_of_their_derivatives() -> None:
    """At a mean 10⁶ scales from 0 no digit is lost."""
    generator = torch.Generator().manual_seed(0)
    y = 1e6 + torch.randn(500, dtype=torch.float64, generator=generator)
    w = torch.rand(500, dtype=torch.float64, generator=generator)
    eta = torch.tensor([1e6 + 0.3], dtype=torch.float64), torch.tensor([0.2], dtype=torch.float64)
    value, gradient, J = th.families.Normal().sums(y, w, *eta)
    log_p, score, curvature = th.families.Normal().derivatives(y, eta)
    torch.testing.assert_close(value, w @ log_p, rtol=1e-13, atol=0)
    torch.testing.assert_close(gradient, torch.stack([w @ s for s in score]), rtol=1e-11, atol=1e-11)
    for (i, j), c in curvature.items():
        torch.testing.assert_close(J[i, j], -(w @ c), rtol=1e-11, atol=1e-11)
        assert J[i, j] == J[j, i]
    assert th.families.Normal(link="log").sums(y, w, *eta) is None


@pytest.mark.parametrize("case", CASES)
def test_the_graph_of_log_p_agrees_with_the_identities_to_rounding(case: str) -> None:
    hmm, data = CASES[case]
    model, batch = ready(hmm, data())
    free = list(model.parameters())

    def flat(value: Tensor, graph: bool = False) -> Tensor:
        parts = torch.autograd.grad(
            value, free, create_graph=graph, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return torch.cat([p.reshape(-1) for p in parts])

    log_p = model.log_prob(batch)
    with torch.no_grad():
        torch.testing.assert_close(model.log_prob(batch), log_p.detach(), atol=1e-11, rtol=0)
    gradient = flat(log_p.sum(), True)
    hessian = torch.stack([flat(g) for g in gradient])
    found = model.taylor(batch)
    torch.testing.assert_close(found.gradient, gradient.detach(), atol=1e-9, rtol=1e-10)
    torch.testing.assert_close(found.information.A, -hessian, atol=1e-9, rtol=1e-9)
    scores = model.scores(batch)
    for i in (0, 7, len(batch) - 1):
        torch.testing.assert_close(scores[i], flat(log_p[i]), atol=1e-10, rtol=1e-9)


def test_long_sequences_have_the_derivatives_of_the_same_one_uncut() -> None:
    model, batch = ready(HMM(2, "normal"), {"y": simulated(300)})
    cut = model.taylor(batch)
    whole = Layout.of(np.zeros(300), 300)
    model.arranged = lambda _: whole  # type: ignore[method-assign]
    uncut = model.taylor(batch)
    torch.testing.assert_close(cut.gradient, uncut.gradient, atol=1e-10, rtol=1e-11)
    torch.testing.assert_close(cut.information.A, uncut.information.A, atol=1e-9, rtol=1e-11)


def test_a_sequence_counted_twice_is_two_of_them() -> None:
    data = {k: table()[k] for k in ("id", "y")}
    model, batch = ready(HMM(2, "poisson", sequence="id"), data)
    weight = torch.where(batch.group == 1, 2.0, 1.0).to(torch.float64)
    twice = np.concatenate([np.arange(120), np.flatnonzero(batch.group.numpy() == 1)])
    names = np.concatenate([data["id"], np.full(len(twice) - 120, "again")])
    more = next(iter(model.source({"id": names, "y": data["y"][twice]}).batches()))
    a, b = model.taylor(batch, weight), model.taylor(more)
    assert float(a.value) == pytest.approx(float(b.value), abs=1e-10)
    torch.testing.assert_close(a.information.A, b.information.A, atol=1e-9, rtol=1e-10)
    with pytest.raises(BadArgument, match="rows of a sequence are one observation"):
        model.taylor(batch, torch.arange(120, dtype=torch.float64))


# ---- missing values ----------------------------------------------------------------------------------------


def test_a_missing_y_is_summed_over() -> None:
    y = simulated(40)
    lost = y.copy()
    lost[[0, 13, 14]] = np.nan
    model, source = HMM(2, "normal").bound({"y": lost})
    set_theta(model, model.start(source))
    batch = next(iter(source.batches()))
    with torch.no_grad():
        found = model.log_prob(batch)
    assert float(found[[0, 13, 14]].abs().max()) < 1e-14
    grid = np.linspace(-10, 14, 161)  # ∫ p(y_1 … y_40) dy_14 by the trapezoid rule, y_1 and y_15 missing
    filled = []
    for v in grid:
        own = lost.copy()
        own[13] = v
        with torch.no_grad():
            filled.append(float(model.log_prob(next(iter(model.source({"y": own}).batches()))).sum()))
    integral = np.trapezoid(np.exp(np.array(filled) - float(found.sum())), grid)
    assert integral == pytest.approx(1.0, abs=1e-8)
    fit = th.fit(HMM(2, "normal"), {"y": lost}, solver=QUICK)
    assert fit.observations == 37
    assert fit.score().n == 37
    assert "3 of them without y" in str(fit.summary())
    assert np.isnan(fit.residuals()).sum() == 3


# ---- fits --------------------------------------------------------------------------------------------------


def test_a_fit_recovers_its_states_and_is_certified() -> None:
    y = simulated(2000)
    fit = th.fit(HMM(2, "normal"), {"y": y}, solver=QUICK)
    assert fit.certificate.status == "certified maximum"
    assert fit.certificate.nats < 1e-12
    truth = pd.Series(
        {"P(1 → 1)": 0.9, "P(1 → 2)": 0.1, "P(2 → 1)": 0.1, "P(2 → 2)": 0.9, "state 1: mean": 0.0, "state 1: scale": 1.0,
         "state 2: mean": 4.0, "state 2: scale": 0.5}
    )  # fmt: skip
    assert list(fit.estimates.index) == list(truth.index)
    assert ((fit.estimates - truth).abs() < 4 * fit.standard_errors()).all()
    ends = fit.intervals()
    assert (ends["low"] < fit.estimates).all()
    assert (ends["high"] > fit.estimates).all()
    assert ends.loc["P(1 → 2)", "low"] > 0
    assert ends.loc["P(1 → 1)", "high"] < 1


def test_em_never_lets_the_log_likelihood_fall() -> None:
    objective = th.Objective([th.LogLikelihood(*HMM(3, "normal").bound({"y": simulated(150)}))])
    solver = BaumWelch(starts=2, accelerate=False, cycles=30)
    state = solver.start(objective)
    values = []
    while not solver.done(objective, state):
        state = solver.step(objective, state)
        values += [] if state.point is None else [state.point.value]
        if state.point is None:
            assert (np.diff(values) >= -1e-9 * abs(values[0])).all()
            values = []


def test_the_maximum_is_no_lower_than_that_of_hmmlearn() -> None:
    """hmmlearn 0.3.3: GaussianHMM(2, n_iter=2000, tol=1e-10, random_state=i).fit(simulated(200)), the best of i = 0 … 9."""
    fit = th.fit(HMM(2, "normal", initial="free"), {"y": simulated(200)}, solver=QUICK)
    assert fit.log_likelihood >= HMMLEARN - 1e-6


def test_a_transition_that_is_never_taken_is_at_its_boundary() -> None:
    rng = np.random.default_rng(3)
    z = np.tile(np.repeat([0, 1, 2], 12), 6)
    data = {"y": 20.0 * z + rng.normal(size=len(z))}
    fit = th.fit(HMM(3, "normal"), data, solver=QUICK)
    assert set(fit.certificate.boundary) == {"P(1 → 3)", "P(2 → 1)", "P(3 → 2)"}
    fit = th.fit(HMM(3, "normal", initial="free"), data, solver=QUICK)
    assert fit.certificate.status == "boundary"
    assert fit.certificate.ok
    starts = {"P(start 2)", "P(start 3)"}
    assert set(fit.certificate.boundary) == {"P(1 → 3)", "P(2 → 1)", "P(3 → 2)", *starts}
    assert "P(1 → 3) = 0" in str(fit.certificate)
    assert (fit.estimates[["P(1 → 3)", "P(2 → 1)", "P(3 → 2)"]] == 0).all()
    assert fit.estimates["P(1 → 2)"] == pytest.approx(6 / 72, abs=1e-9)  # the states are as good as seen
    assert fit.estimates["P(3 → 1)"] == pytest.approx(5 / 71, abs=1e-9)
    assert fit.standard_errors()["P(1 → 2)"] > 0


def test_a_state_that_collapses_on_one_value_has_no_maximum() -> None:
    y = np.concatenate([np.full(20, 1.0), [5.0, 5.0, 5.0], np.full(20, 1.0)])
    with pytest.raises(NoMaximum, match="collapsed"):
        th.fit(HMM(2, "normal"), {"y": y}, solver=QUICK)


def test_a_prior_on_the_scales_prevents_the_collapse() -> None:
    y = np.concatenate([np.full(20, 1.0), [5.0, 5.0, 5.0], np.full(20, 1.0)])
    prior = th.priors.Normal(1.0, location=0.0, on="*scale*")
    fit = th.fit(HMM(2, "normal"), {"y": y}, prior=prior, solver=QUICK, on_failure="return")
    assert fit.certificate.status != "no maximum"


def test_predictors_of_emissions_and_transitions_are_found_again() -> None:
    rng = np.random.default_rng(5)
    n = 3000
    x, w = rng.normal(size=n), rng.normal(size=n)
    z = np.zeros(n, dtype=int)
    for t in range(1, n):
        leave = 1 / (1 + np.exp(2 - w[t]))
        z[t] = 1 - z[t - 1] if rng.random() < leave else z[t - 1]
    y = rng.poisson(np.exp(np.where(z == 0, 0.5 + 0.5 * x, 2.0 - 0.3 * x)))
    data = {"y": y, "x": x, "w": w, "id": np.repeat(np.arange(6), 500)}
    fit = th.fit(
        HMM("y ~ x", states=2, family="poisson", transition="~ w", sequence="id"), data, solver=QUICK
    )
    truth = {"1 → 2: Intercept": -2.0, "1 → 2: w": 1.0, "2 → 1: Intercept": -2.0, "2 → 1: w": 1.0, "state 1: Intercept": 0.5,
             "state 1: x": 0.5, "state 2: Intercept": 2.0, "state 2: x": -0.3}  # fmt: skip
    off = (fit.estimates[list(truth)] - pd.Series(truth)).abs() / fit.standard_errors()[list(truth)]
    assert (off < 4).all()
    assert (fit.decode()["state"] == z + 1).mean() > 0.9


@pytest.mark.parametrize("family", ["bernoulli", "gamma", "student_t", "negative_binomial", "beta"])
def test_families_of_the_house_are_states(family: str) -> None:
    rng = np.random.default_rng(7)
    z = np.tile(np.repeat([0, 1], 15), 10)
    y = {
        "bernoulli": rng.binomial(1, np.where(z == 0, 0.15, 0.8)),
        "gamma": rng.gamma(4, np.where(z == 0, 0.25, 2.0)),
        "student_t": rng.standard_t(5, len(z)) + 6.0 * z,
        "negative_binomial": rng.negative_binomial(3, np.where(z == 0, 0.7, 0.15)),
        "beta": rng.beta(np.where(z == 0, 2, 8), np.where(z == 0, 8, 2)),
    }[family]
    fit = th.fit(HMM(2, family), {"y": y}, solver=BaumWelch(starts=2))
    assert fit.certificate.ok
    assert (fit.decode()["state"] == z + 1).mean() > 0.75


def test_vectors_are_described_by_a_family_of_vectors() -> None:
    rng = np.random.default_rng(8)
    z = np.tile(np.repeat([0, 1], 15), 8)
    y = rng.normal(size=(len(z), 2)) + 4.0 * z[:, None]
    fit = th.fit(HMM(2, th.families.MultivariateNormal(2)), y, solver=BaumWelch(starts=2))
    assert fit.certificate.ok
    assert (fit.decode()["state"] == z + 1).all()
    assert fit.sample().shape == y.shape


# ---- what is asked of a fit --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fit() -> th.Fit:
    frame = pd.DataFrame({"y": simulated(400)}, index=pd.date_range("2020-01-01", periods=400))
    return th.fit(HMM(2, "normal"), frame, solver=QUICK)


def test_decode_gives_a_row_a_row_with_the_index_of_the_table(fit: th.Fit) -> None:
    states = fit.decode()
    assert list(states.columns) == ["state", "P(1)", "P(2)"]
    assert states.index[0] == pd.Timestamp("2020-01-01")
    np.testing.assert_allclose(states[["P(1)", "P(2)"]].sum(axis=1), 1.0)
    assert set(states["state"]) == {1, 2}
    new = fit.decode({"y": [0.0, 0.1, 4.0, 4.1, 3.9]})
    assert new["state"].tolist() == [1, 1, 2, 2, 2]


def test_a_forecast_comes_to_the_stationary_distribution(fit: th.Fit) -> None:
    found = fit.forecast(500, levels=(0.1, 0.9))
    e = fit.estimates
    share = e["P(2 → 1)"] / (e["P(1 → 2)"] + e["P(2 → 1)"])
    last, first = found.iloc[-1], found.iloc[0]
    assert last["P(1)"] == pytest.approx(share, abs=1e-12)
    assert last["mean"] == pytest.approx(
        share * e["state 1: mean"] + (1 - share) * e["state 2: mean"], abs=1e-12
    )
    now = fit.decode().iloc[-1]
    assert first["P(1)"] == pytest.approx(
        now["P(1)"] * e["P(1 → 1)"] + now["P(2)"] * e["P(2 → 1)"], abs=1e-12
    )
    from scipy.stats import norm

    for q in (0.1, 0.9):
        below = share * norm.cdf(last[f"{q:g}"], e["state 1: mean"], e["state 1: scale"])
        below += (1 - share) * norm.cdf(last[f"{q:g}"], e["state 2: mean"], e["state 2: scale"])
        assert below == pytest.approx(q, abs=1e-10)


def test_a_quantile_of_counts_is_the_smallest_with_enough_below() -> None:
    fit = th.fit(HMM(2, "poisson", sequence="id"), {k: table()[k] for k in ("id", "y")}, solver=QUICK)
    found = fit.forecast(2, levels=(0.3, 0.9))
    assert len(found) == 10
    assert found["sequence"].nunique() == 5
    from scipy.stats import poisson

    means = fit.estimates[["state 1: mean", "state 2: mean"]].to_numpy()
    for _, row in found.iterrows():
        for q in (0.3, 0.9):
            below = [
                row[["P(1)", "P(2)"]].to_numpy(float) @ poisson.cdf(row[f"{q:g}"] - d, means) for d in (0, 1)
            ]
            assert below[0] >= q > below[1]


def test_quantile_residuals_are_one_step_ahead_and_standard_normal(fit: th.Fit) -> None:
    from scipy.stats import kstest, norm

    r = fit.residuals()
    assert kstest(r, "norm").pvalue > 0.01
    e, y = fit.estimates, simulated(400)
    state = fit.decode({"y": y[:100]}).iloc[-1]  # of the last row of those before, smoothed is filtered
    ahead = state[["P(1)", "P(2)"]].to_numpy() @ e.iloc[:4].to_numpy().reshape(2, 2)
    below = ahead @ norm.cdf(
        y[100], e[["state 1: mean", "state 2: mean"]], e[["state 1: scale", "state 2: scale"]]
    )
    assert r.iloc[100] == pytest.approx(norm.ppf(below), abs=1e-9)
    with pytest.raises(BadArgument, match="mixture of 2"):
        fit.residuals("deviance")


def test_draws_have_the_transitions_of_the_chain() -> None:
    a, d = np.array([[0.9, 0.1, 0.0], [0.3, 0.3, 0.4], [0.0, 0.5, 0.5]]), np.array([0.0, 1.0, 0.0])
    n = 60_000
    uniform = np.random.default_rng(0).random(n)
    layout = Layout.of(np.repeat(np.arange(3), n // 3))
    z = drawn_path(layout, a, d, uniform)
    assert (z[layout.starts] == 1).all()
    counts = np.zeros((3, 3))
    np.add.at(counts, (z[layout.later - 1], z[layout.later]), 1)
    np.testing.assert_allclose(counts / counts.sum(1, keepdims=True), a, atol=0.015)
    assert counts[0, 2] == counts[2, 0] == 0
    state = 1  # row after row, of the first sequence
    for t in range(1, 200):
        state = int((uniform[t] >= np.cumsum(a[state])[:-1]).sum())
        assert z[t] == state


def test_a_sample_is_like_the_data(fit: th.Fit) -> None:
    drawn = fit.sample(20, seed=1)
    assert drawn.shape == (20, 400)
    y = simulated(400)
    assert drawn.mean() == pytest.approx(y.mean(), abs=0.3)
    own = np.mean([np.corrcoef(d[1:], d[:-1])[0, 1] for d in drawn])
    assert own == pytest.approx(np.corrcoef(y[1:], y[:-1])[0, 1], abs=0.05)


def test_a_score_of_new_sequences_is_their_own(fit: th.Fit) -> None:
    y = simulated(50, seed=9)
    found = fit.score({"y": y})
    with torch.no_grad():
        batch = next(iter(fit.model.source({"y": y}).batches()))
        assert found.total == pytest.approx(float(fit.model.log_prob(batch).sum()), abs=1e-10)
    assert found.n == 50
    assert found.units == "y"


def test_saved_and_loaded_it_is_the_same(fit: th.Fit, tmp_path: Path) -> None:
    path = fit.save(tmp_path / "hidden.thetahat")
    again = th.load(path)
    pd.testing.assert_series_equal(again.estimates, fit.estimates)
    pd.testing.assert_frame_equal(again.intervals(), fit.intervals())
    data = pd.DataFrame({"y": simulated(400)}, index=pd.date_range("2020-01-01", periods=400))
    pd.testing.assert_frame_equal(th.load(path, data=data).decode(), fit.decode())
    with pytest.raises(BadArgument, match="needs the data"):
        again.decode()


def test_a_boundary_and_predictors_survive_a_file(tmp_path: Path) -> None:
    data = table()
    hmm = HMM("y ~ x", states=2, family="poisson", transition="~ z", sequence="id", initial="free")
    fit = th.fit(hmm, data, solver=QUICK)
    again = th.load(fit.save(tmp_path / "a.thetahat"), data=data)
    pd.testing.assert_frame_equal(again.decode(), fit.decode())
    assert again.certificate == fit.certificate


def test_a_model_is_as_it_was_before_the_fit() -> None:
    hmm = HMM(2, "normal")
    th.fit(hmm, {"y": simulated(60)}, solver=QUICK)
    assert not list(hmm.parameters())


def test_the_natural_values_are_probabilities_and_their_slopes_exact(fit: th.Fit) -> None:
    theta = fit.theta
    values = natural(fit.objective, theta)
    torch.testing.assert_close(values[[0, 2]] + values[[1, 3]], torch.ones(2, dtype=torch.float64))
    V = fit.covariance().to_numpy()
    assert V[0, 1] == pytest.approx(-V[0, 0], rel=1e-9)  # P(1 → 1) = 1 − P(1 → 2)


# ---- what cannot be ----------------------------------------------------------------------------------------


def test_impossible_models_are_refused() -> None:
    for make, message in (
        (lambda: HMM(0, "normal"), "0 states"),
        (lambda: HMM(2.5, "normal"), "2.5 states"),  # type: ignore[arg-type]
        (lambda: HMM(True, "normal"), "True states"),
        (lambda: HMM("y ~ x", family="normal"), "None states"),
        (lambda: HMM("normal", states=2), "number of states"),
        (lambda: HMM(2, "normal", states=2), "once"),
        (lambda: HMM(2, "normal", transition="~ z"), "formula"),
        (lambda: HMM(2, "normal", initial="uniform"), "'stationary', 'free'"),
        (lambda: HMM("y ~ 1", states=2, transition="~ z", initial="stationary"), "no stationary"),
        (lambda: HMM(2, "laplace"), "kinks"),
        (lambda: HMM(2, "no such family"), "no such family"),
        (lambda: HMM(2, "normal").names, "has not read any data"),
    ):
        with pytest.raises(BadArgument, match=message):
            make()


def test_impossible_data_are_refused() -> None:
    y = simulated(20)
    for hmm, data, error, message in (
        (HMM(2, "normal"), None, BadArgument, "needs data"),
        (HMM(2, "normal"), {"y": y, "x": y}, BadArgument, "Name it in a formula"),
        (HMM(3, "normal"), {"y": [1.0, 2.0, 1.0, 2.0]}, BadArgument, "at most 2 states"),
        (
            HMM(2, "normal", sequence="id"),
            {"y": y, "id": np.arange(20)},
            BadArgument,
            "no sequence has two rows",
        ),
        (HMM(2, "normal"), {"y": [1.0]}, BadArgument, "no sequence has two rows"),
        (HMM(2, "normal", sequence="ID"), {"y": y, "id": y}, UnknownColumn, "ID"),
        (HMM(2, "normal", time="t"), {"y": y}, UnknownColumn, "t"),
        (HMM(2, "normal", time="t"), {"y": y, "t": np.r_[0:10, 9:19]}, DataError, "Sort the rows by 't'"),
        (
            HMM(2, "normal", sequence="id"),
            {"y": y, "id": [None, *"a" * 19]},
            DataError,
            "names the sequences",
        ),
        (
            HMM("y ~ x", states=2),
            {"y": y, "x": np.r_[np.nan, y[1:]]},
            NotFinite,
            "only the response may be missing",
        ),
        (HMM("y ~ 1", states=2, transition="~ x"), {"y": y, "x": np.r_[y[1:], np.nan]}, NotFinite, "row 19"),
        (HMM("y ~ 1", states=2, transition="x"), {"y": y, "x": y}, BadFormula, "predictors alone"),
        (HMM("y ~ 1", states=2, transition="~ 1"), {"y": y}, BadArgument, "leave it out"),
        (HMM("y ~ 1", states=2), y, BadArgument, "needs a table"),
        (HMM(2, "normal"), {"y": np.full(5, np.nan)}, EmptyData, "missing"),
        (HMM(2, "poisson"), {"y": y}, OutOfSupport, "probability zero"),
        (HMM(2, "normal"), np.zeros((5, 2)), BadArgument, "one sequence of numbers"),
    ):
        with pytest.raises(error, match=message):
            th.fit(hmm, data)
    with pytest.raises(BadArgument, match="cannot be weighted"):
        th.fit(HMM(2, "normal"), {"y": y, "w": y}, weights="w")


def test_methods_of_hidden_states_are_refused_elsewhere(fit: th.Fit) -> None:
    plain = th.fit("normal", {"y": simulated(20)})
    for method in (plain.decode, lambda: plain.forecast(2)):
        with pytest.raises(BadArgument, match="hidden Markov models"):
            method()
    with pytest.raises(BadArgument, match="at least 1"):
        fit.forecast(0)
    with pytest.raises(BadArgument, match="between 0 and 1"):
        fit.forecast(1, levels=(1.0,))
    with pytest.raises(BadArgument, match="BaumWelch fits one hidden Markov model"):
        th.fit("normal", {"y": simulated(20)}, solver=BaumWelch())


def test_a_forecast_with_predictors_needs_them() -> None:
    data = table()
    fit = th.fit(
        HMM("y ~ x", states=2, family="poisson", transition="~ z", sequence="id"), data, solver=QUICK
    )
    with pytest.raises(BadArgument, match=r"reads x, z"):
        fit.forecast(2)
    ids = np.repeat(np.unique(data["id"]), 2)
    rows = {"x": np.zeros(10), "z": np.zeros(10), "id": ids}
    found = fit.forecast(2, rows)
    shuffled = {k: v[::-1] for k, v in rows.items()}
    pd.testing.assert_frame_equal(found, fit.forecast(2, shuffled))
    with pytest.raises(BadArgument, match="has 1 rows"):
        fit.forecast(2, {k: v[:-1] for k, v in rows.items()})


def test_a_stationary_chain_keeps_the_transition_by_which_its_first_state_is_reached() -> None:
    """One switch, never back: free, P(2 → 1) = 0; stationary, δ_1 would be 0 with it, and the first rows are of state 1."""
    rng = np.random.default_rng(1)
    data = {"y": np.r_[rng.poisson(0.5, 50), rng.poisson(9, 50)]}
    free = th.fit(HMM(2, "poisson", initial="free"), data, solver=QUICK)
    assert set(free.certificate.boundary) == {"P(start 2)", "P(2 → 1)"}
    assert free.estimates["P(1 → 2)"] == pytest.approx(1 / 50, abs=1e-3)
    kept = th.fit(HMM(2, "poisson"), data, solver=QUICK)
    assert kept.certificate.status == "certified maximum"
    assert 0 < kept.estimates["P(2 → 1)"] < 0.05


def test_clusters_are_sequences() -> None:
    y, ids = simulated(240), np.repeat(np.arange(8), 30)
    fit = th.fit(HMM(2, "normal", sequence="id"), {"y": y, "id": ids}, solver=QUICK)
    scores = fit.model.scores(fit.source.whole).numpy()
    U = np.stack([scores[ids == s].sum(0) for s in range(8)])
    V = np.linalg.inv(fit.objective.taylor(order=2).information.A.numpy())
    G = torch.autograd.functional.jacobian(fit.model.natural, fit.theta).numpy()
    expected = np.sqrt(np.diag(G @ V @ (U.T @ U) @ V @ G.T))
    np.testing.assert_allclose(fit.standard_errors("sandwich"), expected, rtol=1e-8)
    assert len(fit.bootstrap(3, "cluster", by="id").dropna()) == 3
    with pytest.raises(BadArgument, match="one observation"):
        fit.bootstrap(3)
