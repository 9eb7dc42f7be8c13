"""The benchmarks' own arithmetic: who is said to be slower, what the record's table holds, and that contestants do the same work.

No seconds are measured here."""

from __future__ import annotations

import argparse
import importlib
import itertools
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def load(monkeypatch):
    """A module of benchmarks/, which import one another as scripts do."""
    monkeypatch.syspath_prepend(str(HERE))
    return importlib.import_module


def tree(*seconds: float):
    """A tree whose calls take so many seconds, again and again."""
    turns = itertools.cycle(seconds)
    return lambda work: {"seconds": next(turns)}


@pytest.mark.parametrize(
    ("ours", "base", "slower"),
    [
        ((1.1,), (1.0,), False),
        ((1.25,), (1.0,), True),
        ((2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.1), (1.0,), False),  # a busy machine: one turn was quiet
        ((1.25, 1.3), (1.0, 5.0), False),  # half of the turns say the contrary
        ((1.0,), (1.3,), False),
    ],
)
def test_a_work_is_slower_where_the_minima_and_most_turns_say_so(load, ours, base, slower):
    regression = load("regression")
    found = regression.compared(["hmm"], tree(*ours), tree(*base), {"hmm": 1.2})["hmm"]
    assert found.slower(1.2) == slower
    assert ("SLOWER" in regression.page({"hmm": found}, {"hmm": 1.2})) == slower


def test_a_work_that_seems_slower_is_repeated_and_others_are_not(load):
    regression = load("regression")
    noisy = tree(*[1.5] * 7, *[1.0] * 14)  # the first attempt was disturbed
    found = regression.compared(["hmm"], noisy, tree(1.0), {"hmm": 1.2})["hmm"]
    assert len(found.ours) == 14
    assert not found.slower(1.2)
    assert len(regression.compared(["hmm"], tree(1.0), tree(1.0), {"hmm": 1.2})["hmm"].ours) == 7


def test_what_this_tree_cannot_do_fails_and_what_the_base_cannot_do_does_not(load):
    regression = load("regression")
    broken = lambda work: {"error": "KeyError: 'x'"}  # noqa: E731
    limits = {"hmm": 1.2}
    found = regression.compared(["hmm"], broken, tree(1.0), limits)
    assert found["hmm"].slower(1.2)
    assert "FAILED: ours: KeyError: 'x'" in regression.page(found, limits)
    found = regression.compared(["hmm"], tree(1.0), broken, limits)
    assert not found["hmm"].slower(1.2)
    assert "not compared: base: KeyError: 'x'" in regression.page(found, limits)


@pytest.mark.parametrize("work", ["small logistic", "mixed"])
def test_a_work_of_the_regression_runs(load, work):
    load("regression").WORKS[work]()()


SPEED = """# Speed

| work | who | version | seconds | ours / theirs | bar | memory over the data, MiB | largest difference of coefficients |
|---|---|---|---|---|---|---|---|
| gamma | thetahat | 0.1.0 | 2.0 |  |  | 1 |  |
| gamma | glum | 3.4.1 | 1.0 | 2.000 | 1 MISSED | 1 | 1e-9 |
| gamma | statsmodels_gamma | 0.15.0 | 8.0 | 0.250 | 1 met | 1 | 1e-9 |
| quantile | sklearn_quantile | 1.9.1 | failed: not done within 1800 s | | | | |
"""


def test_the_record_keeps_what_is_lost_what_failed_and_what_was_left_out(load, tmp_path):
    record = load("record")
    (tmp_path / "speed.md").write_text(SPEED, encoding="utf-8")
    outcomes = [record.Outcome("speed", "done", 3.0, 0.5), record.Outcome("vae", "left out: needs --mnist")]
    page = record.record(outcomes, tmp_path)
    assert "| gamma | glum | 2 | **the peer** | speed.md |" in page
    assert "| gamma | statsmodels | 0.25 | ours | speed.md |" in page
    assert "| quantile | sklearn_quantile | failed: not done within 1800 s |" in page
    assert "for 2 pairs of work and peer; ours is slower in one of them" in page
    assert "| vae | left out: needs --mnist |  |  |" in page
    (tmp_path / "record.md").write_text(page, encoding="utf-8")
    later = record.record([record.Outcome("hmm", "failed: no hmmlearn", 0.1, 1.0)], tmp_path)
    assert "| speed | done | 3.0 | 0.5 |" in later
    assert "| hmm | failed: no hmmlearn | 0.1 | 1.0 |" in later


def test_a_benchmark_is_left_out_where_what_it_needs_is_not_given(load):
    record = load("record")
    given = argparse.Namespace(short=False, **dict.fromkeys(record.GIVEN) | {"data": "there"})
    assert record.left_out("accuracy", given) == ""
    assert record.left_out("vae", given) == "left out: needs --mnist"
    assert record.left_out("python_peers", given) == "left out: needs --peers"
    given.short = True
    assert record.left_out("vae", given) == "left out: it has no short form"


def test_every_benchmark_of_the_record_is_a_script(load):
    assert all((HERE / f"{name}.py").is_file() for name in load("record").BENCHMARKS)


def test_a_family_s_contestants_reach_one_maximum(load):
    """statsmodels and scikit-learn: they stop at gradients of 1e-6 or so, and BFGS's a little before."""
    families = load("works_families")
    pairs = {
        "gamma": families.statsmodels_gamma,
        "Tweedie, power 1.5": families.statsmodels_tweedie,
        "ordinal": families.statsmodels_ordinal,
        "multinomial": families.sklearn_newton,
        "hurdle negative binomial": families.statsmodels_hurdle,
    }
    for work, peer in pairs.items():
        data = families.WORKS[work](2000, 3)
        ours, theirs = families.CONTESTS[work][0](data), peer(data)
        k = min(len(ours[0]), len(theirs[0]))
        np.testing.assert_allclose(ours[0][:k], theirs[0][:k], atol=2e-4, err_msg=work)
        if theirs[1] is not None:
            assert ours[1] == pytest.approx(theirs[1], rel=1e-6), work


def test_fixed_effects_are_those_of_a_design_with_a_column_a_level(load):
    """numpy: least squares on dummies, s² of n − p."""
    effects = load("works_effects")
    data = effects.difficult(600)
    frame = data.frame
    dummies = [np.eye(len(frame[c].cat.categories))[frame[c].cat.codes][:, 1:] for c in data.extra["effects"]]
    X = np.column_stack([frame[["x0", "x1"]], np.ones(len(frame)), *dummies])
    beta, squares, rank, _ = np.linalg.lstsq(X, data.y, rcond=None)
    assert rank == X.shape[1]
    errors = np.sqrt(squares[0] / (len(X) - rank) * np.diag(np.linalg.inv(X.T @ X)))
    found, _ = effects.thetahat_effects(data)
    np.testing.assert_allclose(found, np.r_[beta[:2], errors[:2]], rtol=1e-8)


def test_the_sums_beside_tabmat_s_are_those_of_numpy(load):
    from thetahat.kernels import compiled

    if not compiled.available():
        pytest.skip("this installation has no compiled sums")
    effects = load("works_effects")
    data = effects.claims(1000)
    x = data.frame[[f"x{j}" for j in range(5)]].to_numpy()
    want = x.T @ (x * data.frame[["exposure"]].to_numpy())
    np.testing.assert_allclose(effects.thetahat_sums(data)[0], want.ravel(), rtol=1e-10, atol=1e-10)


def test_the_machine_is_told_in_general_terms(load):
    told = load("machine")
    assert told.machine().startswith(f"A machine of {told.cores()} core")
    assert told.load(None) == "How busy the machine was is unknown."
    assert told.load(0.0) == "The machine was quiet before."
    assert "1.5 of its" in told.load(1.5)
    assert told.busy(0.05) is None or told.busy(0.05) >= 0


def test_a_difference_is_of_coefficients_or_else_of_log_likelihoods(load):
    distance = load("speed").distance
    ours = {"coefficients": [1.0, 2.0], "value": -100.0}
    assert distance(ours, {"coefficients": [1.0, 2.5, 9.0], "value": None}) == "5.0e-01"
    assert distance(ours, {"coefficients": [], "value": -101.0}) == "log-likelihood, relative: 1.0e-02"
    assert distance(ours, {"coefficients": [], "value": None}) == ""
