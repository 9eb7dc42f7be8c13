"""Cox's model of a file that is streamed: the partial likelihood against its definition, and the fit of the same rows in
memory, however the file is cut into blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import thetahat as th
from thetahat.data import Frame
from thetahat.data.ordered import OrderedTable
from thetahat.data.selection import Selection
from thetahat.errors import BadArgument, DataError, FlatDirection, NoMaximum, ThetahatError
from thetahat.likelihood import LogLikelihood
from thetahat.models.cox_streamed import CoxStreamed

from .cox_data import R_FITS, SMALL, definition, drawn, written

COX = {"family": "cox"}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven rows a block, in place of 131,072."""
    monkeypatch.setattr(Selection.blocks, "__defaults__", (7,))
    monkeypatch.setattr(Selection.backward, "__defaults__", (7,))


def streamed(formula: str, data: Frame, **settings: str) -> tuple[CoxStreamed, OrderedTable]:
    from thetahat.models.formulas import regression

    model, table = regression(formula, data, th.families.Cox(**settings))
    assert isinstance(model, CoxStreamed)
    assert isinstance(table, OrderedTable)
    return model, table


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("rising", [False, True])
@pytest.mark.parametrize("strata", [1, 4])
@pytest.mark.parametrize("size", [1.0, 40.0, 900.0])
def test_value_gradient_and_information_are_those_of_the_definition(
    ties: str, rising: bool, strata: int, size: float, tmp_path: Path
) -> None:
    """exp(900) is beyond float64: what is carried from block to block is a logarithm."""
    data = drawn(60, 3, strata=strata, ties=0.5)
    by = ("g",) if strata > 1 else ()
    file = written(data, tmp_path, rising=rising, by=by)
    model, table = streamed(f"Surv(stop, event) ~ a + b{' + strata(g)' * (strata > 1)}", file, ties=ties)
    assert len(list(table.batches())) > 4
    X, t, e = data[["a", "b"]].to_numpy(), data["stop"].to_numpy(), data["event"].to_numpy()

    def at(beta: np.ndarray, order: int = 1):  # type: ignore[no-untyped-def]
        with torch.no_grad():
            model.coefficients.copy_(torch.tensor(beta))
        return LogLikelihood(model, table).taylor(order)

    def direct(beta: np.ndarray) -> float:
        return definition(beta, X, t, e, None, data["g"].to_numpy() if strata > 1 else None, ties)

    beta, h = np.array([0.6, -0.8]) * size, 1e-4
    found = at(beta, 2)
    assert float(found.value) == pytest.approx(direct(beta), rel=1e-13)
    assert bool(torch.isfinite(found.information.dense()).all())
    if size > 1:
        return
    unit = np.eye(2) * h
    slope = [(direct(beta + u) - direct(beta - u)) / (2 * h) for u in unit]
    assert found.gradient.numpy() == pytest.approx(slope, abs=1e-6)
    curvature = [(at(beta + u).gradient - at(beta - u).gradient) / (2 * h) for u in unit]
    assert found.information.dense().numpy() == pytest.approx(-torch.stack(curvature).numpy(), abs=1e-6)


def test_ties_reach_over_several_blocks(tmp_path: Path) -> None:
    """What the next tests rest on: some time has more events than a block has rows, and they are handed out together."""
    data = drawn(300, 2, ties=0.5)
    _, table = streamed("Surv(stop, event) ~ a", written(data, tmp_path, rising=False))
    events = data[data["event"] == 1].groupby("stop").size()
    assert events.max() > 14
    seen = [set(b["y"][b["event"] == 1].tolist()) for b in table.batches()]
    assert sum(map(len, seen)) == len(events)
    assert sum(len(b) for b in table.batches()) == 300


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("rising", [False, True])
@pytest.mark.filterwarnings("ignore:.*are not whole numbers")
@pytest.mark.parametrize("weights", [None, "n", "part"])
@pytest.mark.parametrize("strata", [False, True])
def test_the_fit_is_that_of_the_same_rows_in_memory(
    ties: str, rising: bool, weights: str | None, strata: bool, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    data = drawn(300, 2, strata=4, ties=0.25).assign(
        n=rng.integers(0, 4, 300),
        part=rng.uniform(0.2, 2, 300),
        z=rng.normal(size=300),
        k=rng.choice([*"uvw"], 300),
    )
    data.loc[5, "a"] = np.nan
    formula = "Surv(stop, event) ~ a + b + k + offset(z)" + " + strata(g)" * strata
    settings = {**COX, "ties": ties, "weights": weights}
    file = written(data, tmp_path, rising=rising, by=("g",) if strata else ())
    whole = th.fit(formula, data, **settings)
    fit = th.fit(formula, file, **settings)
    assert fit.source.streamed
    assert fit.certificate.ok
    assert fit.log_likelihood == pytest.approx(whole.log_likelihood, rel=1e-13)
    assert fit.estimates.to_numpy() == pytest.approx(whole.estimates.to_numpy(), rel=1e-9)
    assert fit.covariance().to_numpy() == pytest.approx(whole.covariance().to_numpy(), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_small_data_with_many_ties_as_r(ties: str, tmp_path: Path) -> None:
    """R 4.2.2, survival 3.5-3: coxph(Surv(time, status) ~ x + z, d, ties = …), in blocks of three rows."""
    file = written(SMALL.rename(columns={"time": "stop"}), tmp_path, rising=True, rows=3)
    value, beta, V = R_FITS[ties]
    fit = th.fit("Surv(stop, status) ~ x + z", file, ties=ties, **COX)
    assert fit.log_likelihood == pytest.approx(value, abs=1e-9)
    assert fit.estimates.to_numpy() == pytest.approx(beta, abs=1e-9)
    assert fit.covariance().to_numpy() == pytest.approx(np.array(V), abs=1e-9)


def test_a_prior_and_a_thinned_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From 20,000 rows on the iterations begin on the first rows of each block."""
    monkeypatch.setattr(Selection.blocks, "__defaults__", (5000,))
    data = drawn(24_000, 6, ties=0.01)
    file = written(data, tmp_path, rising=False, rows=5000)
    settings = {**COX, "prior": th.priors.Normal(0.05)}
    whole, fit = (th.fit("Surv(stop, event) ~ a + b", rows, **settings) for rows in (data, file))
    assert fit.estimates.to_numpy() == pytest.approx(whole.estimates.to_numpy(), rel=1e-9)
    assert fit.standard_errors().to_numpy() == pytest.approx(whole.standard_errors().to_numpy(), rel=1e-9)


@pytest.mark.parametrize("rising", [False, True])
@pytest.mark.parametrize("strata", [False, True])
def test_a_direction_without_a_maximum_is_named(rising: bool, strata: bool, tmp_path: Path) -> None:
    data = drawn(120, 4, strata=3, ties=0.1)
    hidden = np.where(data["event"] == 1, -data["stop"], -99.0)
    noise = np.random.default_rng(0).normal(size=len(data))
    data = data.assign(late=-hidden, p=noise, q=hidden - noise)
    file = written(data, tmp_path, rising=rising, by=("g",) if strata else ())
    right = " + strata(g)" * strata
    with pytest.raises(NoMaximum, match=r"smallest late of those at risk.*Leave out late"):
        th.fit(f"Surv(stop, event) ~ a + late{right}", file, **COX)
    with pytest.raises(NoMaximum, match=r"largest.*p.*q") as caught:
        th.fit(f"Surv(stop, event) ~ a + p + q{right}", file, **COX)
    direction = caught.value.certificate.directions[0]
    assert direction["p"] == pytest.approx(direction["q"], rel=1e-4)
    twice = data.assign(twice=2 * data["a"])
    file = written(twice, tmp_path, rising=rising, by=("g",) if strata else ())
    with pytest.raises(FlatDirection, match="twice"):
        th.fit(f"Surv(stop, event) ~ a + twice{right}", file, **COX)


def test_rows_out_of_order_are_refused_with_what_to_do(tmp_path: Path) -> None:
    data = drawn(50, 1, strata=3, ties=0.1).reset_index(drop=True)
    file = written(data, tmp_path, rising=True)
    with pytest.raises(DataError, match=r"the rows of a stratum are not together.*sort it by the strata"):
        th.fit("Surv(stop, event) ~ a + strata(g)", file, **COX)
    ordered = data.sort_values("stop").reset_index(drop=True)
    ordered.iloc[[*range(30), 40, *range(30, 40), *range(41, 50)]].to_parquet(tmp_path / "out.parquet")
    later, before = ordered["stop"][40], ordered["stop"][30]
    with pytest.raises(
        DataError, match=rf"in row 31 of .*stop = {later:g} is followed by {before:g}.*sink_parquet"
    ):
        th.fit("Surv(stop, event) ~ a", Frame(tmp_path / "out.parquet", memory=1), **COX)


@pytest.mark.parametrize(
    ("formula", "settings", "says"),
    [
        ("Surv(start, stop, event) ~ a", {}, "delayed entry"),
        ("Surv(stop, event) ~ a", {"ties": "exact"}, "ties='efron'"),
        ("Surv(stop, event) ~ a + (1 | g)", {}, "too large to be held in memory"),
        ("Surv(stop, event) ~ a", {"robust": "trimmed:0.8"}, "rows together"),
        ("Surv(stop, event) ~ a", {"solver": th.Stochastic(steps=2)}, "rows together"),
    ],
)
def test_what_cannot_be_streamed_is_refused_by_name(
    formula: str, settings: dict[str, object], says: str, tmp_path: Path
) -> None:
    file = written(drawn(50, 1, entry=True, strata=3), tmp_path, rising=False)
    with pytest.raises(ThetahatError, match=says):
        th.fit(formula, file, **{**COX, **settings})  # type: ignore[arg-type]


def test_what_needs_all_rows_at_once_is_refused(tmp_path: Path) -> None:
    data = drawn(50, 1, strata=5)
    fit = th.fit("Surv(stop, event) ~ a", written(data, tmp_path, rising=False), **COX)
    with pytest.raises(BadArgument, match="in memory"):
        fit.score()
    with pytest.raises(DataError, match="streamed them from a file"):
        fit.proportional_hazards()
    with pytest.raises(DataError, match="in order of time, which is not that of its rows"):
        fit.predict(what="linear")
    with pytest.raises(BadArgument, match="Accepted there: covariance='cluster'"):
        fit.bootstrap(5, "cluster", by="g")
    with pytest.raises(BadArgument, match=r"rows together.*'HC1', 'cluster'"):
        fit.covariance("CR2", by="g")
    with pytest.raises(BadArgument, match=r"covariance='HAC' needs rows in the order of a time"):
        fit.covariance("HAC")
    assert fit.predict(data, what="linear").to_numpy() == pytest.approx(data["a"] * fit.estimates["a"])


def test_a_summary_says_that_rows_were_streamed_and_a_saved_fit_is_the_fit(tmp_path: Path) -> None:
    data = drawn(50, 1)
    fit = th.fit("Surv(stop, event) ~ a", written(data, tmp_path, rising=True), **COX)
    shown = "".join(str(fit.summary()).split())  # a long path is broken anywhere
    assert "rows.parquet,streamed" in shown
    assert "TIC" not in str(fit.summary())  # which is made of score residuals
    again = th.load(fit.save(tmp_path / "fit.thetahat"))
    assert again.estimates.tolist() == fit.estimates.tolist()
    assert again.standard_errors().tolist() == fit.standard_errors().tolist()
    ratio = fit.bootstrap(60, seed=1).std().to_numpy() / fit.standard_errors().to_numpy()
    assert ((ratio > 0.6) & (ratio < 1.6)).all()
