"""Baum and Welch's algorithm, then Newton's: the same maximum by every way, and what is held at 0."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import thetahat as th
from thetahat.errors import BadArgument
from thetahat.models.base import get_theta
from thetahat.models.information import Information
from thetahat.solvers import BaumWelch, baum_welch
from thetahat.solvers.expected_states import begun, expect, limits, settled, steering, stretches, value
from thetahat.solvers.never_taken import held, inside

HMM = th.models.HMM


def simulated(n: int = 400, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    z = np.zeros(n, dtype=int)
    for t in range(1, n):
        z[t] = z[t - 1] if rng.random() < 0.9 else 1 - z[t - 1]
    return np.where(z == 0, rng.normal(0, 1, n), rng.normal(3, 0.5, n))


def objective_of(hmm: HMM, y: np.ndarray) -> th.Objective:
    model, source = hmm.bound({"y": y})
    return th.Objective([th.LogLikelihood(model, source)])


@pytest.mark.parametrize("initial", ["stationary", "free"])
def test_em_newton_and_a_subsample_come_to_one_maximum(initial: str) -> None:
    y, hmm = simulated(), HMM(2, "normal", initial=initial)
    whole = th.fit(hmm, {"y": y}, solver=BaumWelch(starts=3))
    plain = th.fit(hmm, {"y": y}, solver=BaumWelch(starts=2, accelerate=False, hand_over=1e-6, cycles=2000))
    thinned = th.fit(hmm, {"y": y}, solver=BaumWelch(starts=3, thin_above=200))
    for other in (plain, thinned):
        assert other.log_likelihood == pytest.approx(whole.log_likelihood, abs=1e-9)
        np.testing.assert_allclose(other.estimates, whole.estimates, atol=1e-7)
    assert "tried on a subsample" in thinned.certificate.detail
    assert whole.certificate.standard_errors < 1e-7


def test_the_gradient_vanishes_at_the_maximum() -> None:
    fit = th.fit(HMM(2, "normal"), {"y": simulated()}, solver=BaumWelch(starts=2))
    found = fit.objective.taylor(order=2)
    assert float((found.gradient / found.information.diagonal().sqrt()).abs().max()) < 1e-8
    assert float(torch.linalg.eigvalsh(found.information.A)[0]) > 0


def test_a_run_begins_where_it_is_told_and_is_the_same_again() -> None:
    y = {"y": simulated()}
    model, source = HMM(2, "normal").bound(y)
    begin = model.start(source)
    one = th.fit(HMM(2, "normal"), y, solver=BaumWelch(begin=begin))
    assert "1 of 1 start led here" in one.certificate.detail
    again = [th.fit(HMM(2, "normal"), y, solver=BaumWelch(starts=3, seed=4)).theta for _ in range(2)]
    assert torch.equal(*again)


def test_newton_alone_comes_to_the_same_maximum() -> None:
    y = {"y": simulated()}
    ours, newton = (th.fit(HMM(2, "normal"), y, solver=s) for s in (BaumWelch(starts=2), th.Newton()))
    assert newton.log_likelihood == pytest.approx(ours.log_likelihood, abs=1e-9)


def test_a_transition_held_at_zero_by_mistake_is_found() -> None:
    objective = objective_of(HMM(2, "normal"), simulated())
    fit = th.maximize(objective, solver=BaumWelch(starts=2))
    model = fit.model.holding([(0, 1)])
    assert held(model) == {"P(1 → 2)": "one that never goes from state 1 to state 2 (P(1 → 2) = 0)"}
    without = th.Objective([th.LogLikelihood(model, fit.source)])
    found = inside(without, set())
    assert found is not None
    assert found[0] == (0, 1)
    assert found[1].value() > without.value()
    assert held(found[1].model) == {}


def test_holding_and_allowing_keep_the_other_probabilities() -> None:
    objective = objective_of(HMM(3, "normal", initial="free"), simulated())
    model = objective.at(objective.model.start(objective.terms[0].source)).model
    before = model.natural(get_theta(model))
    rest = model.holding([(0, 1), (2, 2)], [0])
    after = rest.natural(get_theta(rest))
    assert after[0] == after[4] == after[11] == 0
    torch.testing.assert_close(after[3] / after[5], before[3] / before[5])
    torch.testing.assert_close(after[9] / after[10], before[9] / before[10])
    torch.testing.assert_close(after[1] / after[2], before[1] / before[2])
    back = rest.allowing(2, 2, 1e-3)
    assert float(back.natural(get_theta(back))[11]) == pytest.approx(1e-3, rel=2e-3)
    ordered = rest.ordered()
    torch.testing.assert_close(ordered.ordered().theta, ordered.theta)


def test_stretches_are_rows_that_follow_one_another() -> None:
    y = np.arange(1000.0)
    model, source = HMM(2, "normal").bound({"y": y})
    some = stretches(model, source.whole, 200)
    assert 150 <= len(some) <= 250
    group, value = some.group.numpy(), some["y"].numpy()
    same = group[1:] == group[:-1]
    assert (np.diff(value)[same] == 1).all()


def test_many_rows_come_to_the_maximum_of_em_on_all_of_them() -> None:
    """From a subsample's maximum, steered by its information: the same as EM and Newton's method on every row."""
    y = {"y": simulated(25_000)}
    model, source = HMM(2, "normal", initial="free").bound(y)
    begin = model.start(source)
    ways = [BaumWelch(begin=begin), BaumWelch(begin=begin, thin_above=10**9)]
    some, every = (th.fit(HMM(2, "normal", initial="free"), y, solver=way) for way in ways)
    assert some.log_likelihood == pytest.approx(every.log_likelihood, rel=1e-13)
    np.testing.assert_allclose(some.estimates, every.estimates, atol=1e-8)
    np.testing.assert_allclose(some.standard_errors(), every.standard_errors(), rtol=1e-6)
    assert some.certificate.standard_errors < 1e-7
    values = [value for _, value, _ in every.trace]
    assert all(b >= a - 1e-6 for a, b in itertools.pairwise(values))


def test_a_subsample_that_misleads_costs_steps_and_no_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    """An information a million times too small or too large steers badly; the maximum is the same."""
    y = {"y": simulated(25_000)}
    expected = th.fit(HMM(2, "normal"), y, solver=BaumWelch(starts=1)).log_likelihood
    suggested = baum_welch.steering
    for factor in (1e-6, 1e6):

        def wrong(objective: th.Objective, rows: int, factor: float = factor) -> Information | None:
            J = suggested(objective, rows)
            return None if J is None else J.times(factor)

        monkeypatch.setattr(baum_welch, "steering", wrong)
        fit = th.fit(HMM(2, "normal"), y, solver=BaumWelch(starts=1))
        assert fit.certificate.ok
        assert fit.log_likelihood == pytest.approx(expected, rel=1e-13)


def test_first_states_are_settled_without_a_pass() -> None:
    rng = np.random.default_rng(3)
    n, S = 400, 20
    data = {"y": simulated(n), "id": rng.permutation(np.repeat(np.arange(S), n // S))}
    model, source = HMM(2, "normal", initial="free", sequence="id").bound(data)
    objective = th.Objective([th.LogLikelihood(model, source)])
    objective = objective.at(model.start(source))
    point = expect(objective, objective.theta, limits(objective))
    assert point.passed is not None
    after = settled(objective, point.passed)
    assert value(after) > point.value
    assert float(after.taylor(order=1).gradient[0]) == pytest.approx(0, abs=1e-4)  # of the logit of δ
    torch.testing.assert_close(after.theta[1:], objective.theta[1:])


def test_a_first_state_held_at_zero_by_mistake_is_found() -> None:
    """Its slope is that of ℓ along (1 − ε) δ + ε e_k, by differences."""
    rng = np.random.default_rng(3)
    data = {"y": simulated(400), "id": rng.permutation(np.repeat(np.arange(20), 20))}
    fit = th.fit(HMM(2, "normal", initial="free", sequence="id"), data, solver=BaumWelch(starts=2))
    assert fit.certificate.status == "certified maximum"
    model = fit.model.holding([], [1])
    without = th.Objective([th.LogLikelihood(model, fit.source)])
    eps = 1e-7
    beside = th.Objective([th.LogLikelihood(model.allowing(-1, 1, eps), fit.source)])
    share = float(beside.model.natural(beside.theta)[1])
    slope = (value(beside) - value(without)) / share
    assert begun(without)[1] == pytest.approx(slope, rel=1e-4)
    assert begun(without)[0] == pytest.approx(0, abs=1e-9)
    found = inside(without, set())
    assert found is not None
    assert found[0] == (-1, 1)
    assert inside(without, {(-1, 1)}) is None


def test_the_only_sequence_begins_in_one_state() -> None:
    """log Σ_k δ_k g_k is highest where δ is 1 in the state of the largest g: the others are held at 0."""
    objective = objective_of(HMM(2, "normal", initial="free"), simulated())
    objective = objective.at(objective.model.start(objective.terms[0].source))
    point = expect(objective, objective.theta, limits(objective))
    assert point.passed is not None
    after = settled(objective, point.passed)
    assert sum(after.model.chain.starts) == 1
    assert value(after) > point.value


def test_a_subsample_suggests_the_information_of_all() -> None:
    objective = th.fit(HMM(2, "normal"), {"y": simulated(20_000)}, solver=BaumWelch(starts=1)).objective
    J, whole = steering(objective, 5000), objective.taylor(order=2).information
    assert J is not None
    assert whole is not None
    ratio = torch.linalg.eigvals(torch.linalg.solve(whole.dense(), J.dense())).real
    assert float(ratio.min()) > 0.5
    assert float(ratio.max()) < 2


def test_what_is_expected_sums_to_the_rows() -> None:
    objective = objective_of(HMM(2, "normal", initial="free"), simulated())
    theta = objective.model.start(objective.terms[0].source)
    point = expect(objective, theta, limits(objective))
    assert float(point.gamma.sum()) == pytest.approx(400)
    assert point.taken.sum() == pytest.approx(399)
    assert float(point.first.sum()) == pytest.approx(1)


def test_settings_that_cannot_be_are_refused() -> None:
    for settings, message in (
        ({"starts": 0}, "starts=0"),
        ({"cycles": 0}, "cycles=0"),
        ({"inner": 0}, "inner=0"),
        ({"hand_over": 0.0}, "positive"),
        ({"tolerance": -1.0}, "positive"),
    ):
        with pytest.raises(BadArgument, match=message):
            BaumWelch(**settings)
    hmm = HMM(2, "normal")
    with pytest.raises(BadArgument, match="takes no weighting"):
        th.fit(hmm, {"y": simulated(50)}, weights=lambda batch, log_prob: torch.ones(len(batch)))
