"""Robust errors, curves and residuals of Cox's model of a file that is streamed: those of the same rows in memory, however the
file is cut into blocks."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import thetahat as th
from thetahat.data import Frame
from thetahat.data.ordered import OrderedTable
from thetahat.data.selection import Selection
from thetahat.errors import BadArgument, DataError, UnknownLevel
from thetahat.evaluation.cox_curves import baseline_hazard, curves
from thetahat.evaluation.cox_residuals import KINDS, residual_blocks, residuals
from thetahat.models.cox_scores import Following
from thetahat.models.cox_streamed import CoxStreamed

from ..models.cox_data import R_CLUSTER, R_ROBUST, R_WEIGHTED, SMALL, drawn, written

COX = {"family": "cox"}
SAME = {"rtol": 1e-9, "atol": 1e-11}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven rows a block, in place of 131,072."""
    monkeypatch.setattr(Selection.blocks, "__defaults__", (7,))
    monkeypatch.setattr(Selection.backward, "__defaults__", (7,))


def both(
    path: Path, *, rising: bool, strata: bool, weights: str | None, ties: str = "efron"
) -> tuple[th.Fit, th.Fit]:
    """The fit of a table in memory, and of the same rows in a file."""
    rng = np.random.default_rng(7)
    data = drawn(140, 2, strata=4, ties=0.25).assign(
        n=rng.integers(0, 4, 140),
        part=rng.uniform(0.2, 2, 140) * rng.integers(0, 2, 140),
        k=rng.choice([*"uvw"], 140),
        c=rng.integers(0, 30, 140),
        d=rng.choice([*"pqrs"], 140),
    )
    data.loc[5, "a"] = np.nan
    by = ["g"] if strata else []
    data = data.sort_values([*by, "stop"], ascending=[*(True for _ in by), rising], kind="stable")
    data = data.reset_index(drop=True)
    data.to_parquet(path / "rows.parquet", row_group_size=7, index=False)
    weight = th.weights.Probability("part") if weights == "probability" else weights
    formula = "Surv(stop, event) ~ a + b + k" + " + strata(g)" * strata
    settings = {**COX, "ties": ties, "weights": weight}
    file = Frame(path / "rows.parquet", memory=1)
    whole, fit = (th.fit(formula, rows, **settings) for rows in (data, file))  # type: ignore[arg-type]
    assert isinstance(fit.model, CoxStreamed)
    assert not isinstance(whole.model, CoxStreamed)
    return whole, fit


def same(a: object, b: object) -> None:
    if isinstance(a, pd.DataFrame):
        assert isinstance(b, pd.DataFrame)
        pd.testing.assert_frame_equal(a, b, check_exact=False, **SAME)
    else:
        np.testing.assert_allclose(np.asarray(b), np.asarray(a), **SAME)


CASES = [
    pytest.mark.parametrize("rising", [False, True]),
    pytest.mark.parametrize("strata", [False, True]),
    pytest.mark.parametrize("weights", [None, "n", "probability"]),
]


def every_case(test: Callable[..., None]) -> Callable[..., None]:
    for mark in CASES:
        test = mark(test)
    return test


@every_case
def test_robust_errors_are_those_of_the_rows_in_memory(
    rising: bool, strata: bool, weights: str | None, tmp_path: Path
) -> None:
    whole, fit = both(tmp_path, rising=rising, strata=strata, weights=weights)
    same(whole.covariance(), fit.covariance())  # with sampling weights it is the sandwich
    for kind, by in (("HC0", None), ("HC1", None), ("cluster", "c"), ("cluster", ["c", "d"])):
        same(whole.covariance(kind, by=by), fit.covariance(kind, by=by))


@every_case
def test_baseline_and_curves_are_those_of_the_rows_in_memory(
    rising: bool, strata: bool, weights: str | None, tmp_path: Path
) -> None:
    whole, fit = both(tmp_path, rising=rising, strata=strata, weights=weights)
    same(baseline_hazard(whole), baseline_hazard(fit))
    new = pd.DataFrame({"a": [0.3, -1.0], "b": [0.0, 2.0], "k": ["v", "u"], "g": [1, 3]})
    same(curves(whole, new), curves(fit, new))
    times = [2.25, 0.1, 0.5, 0.5, 0.3, 9.0, 100.0]  # between events, twice, out of order, after the last row
    same(curves(whole, new, times), curves(fit, new, times))
    for what in ("survival", "cumulative_hazard"):
        same(*(f.predict(new, what=what, times=[0.4, 1.0], level=0.9) for f in (whole, fit)))


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@every_case
def test_residuals_are_those_of_the_rows_in_memory(
    ties: str, rising: bool, strata: bool, weights: str | None, tmp_path: Path
) -> None:
    whole, fit = both(tmp_path, rising=rising, strata=strata, weights=weights, ties=ties)
    for kind in KINDS:
        same(residuals(whole, kind), residuals(fit, kind))
        rows = pd.concat(residual_blocks(fit, kind))
        assert rows.index.is_unique
        assert len(rows) == (
            whole.objective.terms[0].source.size if "schoen" not in kind else len(residuals(fit, kind))
        )
    np.testing.assert_allclose(residuals(fit, "score"), fit.residuals("score"), rtol=0)
    assert str(whole.concordance()) == str(fit.concordance())


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("rising", [False, True])
def test_robust_errors_as_r(ties: str, rising: bool, tmp_path: Path) -> None:
    """R 4.2.2, survival 3.5-3, in blocks of three rows: coxph(Surv(time, status) ~ x + z, d, robust = TRUE), with
    cluster = g, and with weights = w, robust = TRUE."""
    file = written(SMALL.rename(columns={"time": "stop"}), tmp_path, rising=rising, rows=3)
    fit = th.fit("Surv(stop, status) ~ x + z", file, ties=ties, **COX)
    assert fit.covariance("HC0").to_numpy() == pytest.approx(np.array(R_ROBUST[ties]), abs=1e-9)
    small_sample = 6 / 5 * 11 / 10  # which R leaves out
    own = fit.covariance("cluster", by="g").to_numpy() / small_sample
    assert own == pytest.approx(np.array(R_CLUSTER[ties]), abs=1e-9)
    value, beta, V = R_WEIGHTED[ties]
    weighted = th.fit(
        "Surv(stop, status) ~ x + z", file, ties=ties, weights=th.weights.Probability("w"), **COX
    )
    assert weighted.log_likelihood == pytest.approx(value, abs=1e-9)
    assert weighted.estimates.to_numpy() == pytest.approx(beta, abs=1e-9)
    assert weighted.covariance().to_numpy() == pytest.approx(np.array(V), abs=1e-9)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("size", [1.0, 40.0, 900.0])
def test_scores_add_up_to_the_gradient_wherever_the_model_stands(
    ties: str, size: float, tmp_path: Path
) -> None:
    """exp(900) is beyond float64: what later batches expect of a row is a sum of ratios that are at most 1."""
    data = drawn(140, 3, strata=4, ties=0.25)
    fit = th.fit(
        "Surv(stop, event) ~ a + b + strata(g)",
        written(data, tmp_path, rising=True, by=("g",)),
        ties=ties,
        **COX,
    )
    model, source = fit.model, fit.source
    assert isinstance(model, CoxStreamed)
    with torch.no_grad():
        model.coefficients.copy_(torch.tensor([0.6, -0.8]) * size)
    gradient = fit.objective.terms[0].over(source, model).taylor(1).gradient
    following = Following(model, source.batches(), lambda batch: None)
    rows = [following.step(batch, None) for batch in source.batches()]
    scores = torch.cat([r.scores for r in rows])
    assert bool(torch.isfinite(scores).all())
    torch.testing.assert_close(scores.sum(0), gradient, rtol=0, atol=1e-10)
    assert abs(float(torch.cat([r.martingale for r in rows]).sum())) < 1e-10


def held(path: Path, n: int, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The most float64 numbers in tensors at any batch of a pass, over those at its beginning, of n rows."""
    data = drawn(n, 3, ties=0.01).assign(c=np.arange(n) % 11)
    fit = th.fit("Surv(stop, event) ~ a + b", written(data, path, rising=True, rows=50), **COX)
    seen: list[int] = []

    def now() -> int:
        gc.collect()
        tensors = [
            o for o in gc.get_objects() if issubclass(type(o), torch.Tensor) and o.dtype == torch.float64
        ]
        return sum({t.data_ptr(): t.untyped_storage().nbytes() // 8 for t in tensors}.values())

    plain = OrderedTable.beside

    def counted(self: OrderedTable, columns: tuple[str, ...] = ()):  # type: ignore[no-untyped-def]
        for i, each in enumerate(plain(self, columns)):
            if i % 20 == 19:
                seen.append(now())
            yield each

    monkeypatch.setattr(OrderedTable, "beside", counted)
    out = {}
    for name, asked in {
        "cluster": lambda: fit.covariance("cluster", by="c"),
        "curves": lambda: curves(fit, pd.DataFrame({"a": [0.0], "b": [1.0]}), [0.5, 1.0]),
        "dfbeta": lambda: [len(block) for block in residual_blocks(fit, "dfbeta")],
    }.items():
        before = now()
        seen.clear()
        asked()
        out[name] = max(seen) - before
    return out


def test_memory_is_that_of_a_few_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 3,000 rows with two columns, a time and an event, 12,000 numbers: three blocks of 50 rows with what is made of them
    (20 numbers a row), and the sums of 60 batches, 2p + 4 numbers each. No pass holds more."""
    monkeypatch.setattr(Selection.blocks, "__defaults__", (50,))
    monkeypatch.setattr(Selection.backward, "__defaults__", (50,))
    for name, numbers in held(tmp_path, 3000, monkeypatch).items():
        assert 0 < numbers < 3 * 50 * 20 + 60 * (2 * 2 + 4), name


def test_a_subset_of_a_file_that_is_read_from_its_end(tmp_path: Path) -> None:
    data = drawn(140, 2, ties=0.25).sort_values("stop", kind="stable").reset_index(drop=True)
    chosen = np.random.default_rng(1).uniform(size=140) < 0.6
    file = written(data, tmp_path, rising=True)
    whole, fit = (th.fit("Surv(stop, event) ~ a + b", rows, subset=chosen, **COX) for rows in (data, file))
    assert fit.log_likelihood == pytest.approx(whole.log_likelihood, rel=1e-13)
    same(whole.residuals("martingale"), fit.residuals("martingale"))


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    data = drawn(100, 2, strata=2, ties=0.25).assign(one=1.0)
    data.loc[data.g == 1, "event"] = 0.0
    data["c"] = np.where(np.arange(100) == 40, np.nan, np.arange(100) % 7)
    fit = th.fit("Surv(stop, event) ~ a + strata(g)", written(data, tmp_path, rising=True, by=("g",)), **COX)
    with pytest.raises(UnknownLevel, match="g=1, in which the fit has seen no event"):
        curves(fit, pd.DataFrame({"a": [0.0], "g": [1]}), [1.0])
    with pytest.raises(BadArgument, match="by='c': the column is missing in row"):
        fit.covariance("cluster", by="c")
    with pytest.raises(BadArgument, match="has one value only"):
        fit.covariance("cluster", by="one")
    with pytest.raises(BadArgument, match="residual_blocks is of a fit"):
        residual_blocks(th.fit("Surv(stop, event) ~ a", data, **COX))
    with pytest.raises(BadArgument, match="Accepted: 'martingale'"):
        residual_blocks(fit, "pearson")
    with pytest.raises(BadArgument, match="no random effects"):
        curves(fit, pd.DataFrame({"a": [0.0], "g": [0]}), [1.0], groups="average")


def test_a_loaded_fit_needs_its_rows_for_what_reads_them(tmp_path: Path) -> None:
    file = written(drawn(100, 2, ties=0.25).assign(c=np.arange(100) % 7), tmp_path, rising=True)
    fit = th.fit("Surv(stop, event) ~ a + b", file, **COX, covariance="cluster", by="c")
    fit.save(tmp_path / "fit.thetahat")
    again = th.load(tmp_path / "fit.thetahat")
    assert again.standard_errors().tolist() == fit.standard_errors().tolist()
    with pytest.raises(BadArgument, match=r"th\.load\(.*data="):
        again.residuals("martingale")
    for data in (file, pd.read_parquet(tmp_path / "rows.parquet")):
        whole = th.load(tmp_path / "fit.thetahat", data=data)
        assert isinstance(whole.model, CoxStreamed) == (data is file)
        assert whole.estimates.tolist() == fit.estimates.tolist()
        same(fit.residuals("martingale"), whole.residuals("martingale"))
        same(fit.covariance("HC0"), whole.covariance("HC0"))
    other = written(drawn(100, 3, ties=0.25).assign(c=1), tmp_path, rising=True)
    with pytest.raises(DataError, match="other data"):
        th.load(tmp_path / "fit.thetahat", data=other)
