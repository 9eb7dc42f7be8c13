"""Observations seen through one-to-one maps are scored as what was observed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import thetahat as th
from thetahat.data import Batch, Tensors, Transformed, maps
from thetahat.errors import BadArgument, DataError, NotFinite, OutOfSupport

rng = np.random.default_rng(0)
ROWS = torch.from_numpy(
    np.exp(rng.normal(size=(40, 3)) @ np.array([[1.0, 0.3, 0.0], [0.0, 0.5, 0.2], [0.0, 0.0, 2.0]]))
)
UNIT = torch.sigmoid(torch.log(ROWS))

CHAINS = {
    "standardise": (ROWS, ["standardise"]),
    "whiten": (ROWS, ["whiten"]),
    "log, some columns": (ROWS, [maps.Log(columns=(0, 2))]),
    "logit": (UNIT, ["logit"]),
    "logit between ends, some columns": (UNIT, [maps.Logit(-1.0, 4.0, columns=(1,))]),
    "log, whiten": (ROWS, ["log", "whiten"]),
    "logit, standardise, whiten": (UNIT, ["logit", "standardise", "whiten"]),
}


@pytest.mark.parametrize("chain", CHAINS)
def test_the_log_determinant_is_that_of_the_jacobian(chain: str) -> None:
    """log |det ∂t/∂x| of automatic differentiation, row by row."""
    x, chosen = CHAINS[chain]
    source = Transformed(x, *chosen)
    (batch,) = source.batches()
    found = source.log_determinant(batch)

    def forward(row: torch.Tensor) -> torch.Tensor:
        return maps.forward(source.maps, row[None])[0][0]

    for i in range(5):
        J = torch.autograd.functional.jacobian(forward, x[i])
        assert float(found[i]) == pytest.approx(float(torch.linalg.slogdet(J)[1]), abs=1e-10)
    torch.testing.assert_close(maps.forward(source.maps, x)[1], found, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(source.restore(batch["y"]), x, rtol=1e-10, atol=1e-12)


def test_one_scale_for_all_columns_is_counted_for_each() -> None:
    """t = (x − 1)/2 of three columns: log |det| = −3 log 2."""
    one = maps.Standardise(1.0, 2.0)
    torch.testing.assert_close(
        one.log_determinant(ROWS), torch.full((40,), -3 * math.log(2), dtype=torch.float64)
    )
    torch.testing.assert_close(
        one.log_determinant(ROWS[:, 0]), torch.full((40,), -math.log(2), dtype=torch.float64)
    )


@pytest.mark.parametrize("chosen", [["standardise"], ["whiten"], ["standardise", "whiten"]], ids=", ".join)
def test_a_normal_is_scored_alike_in_any_linear_units(chosen: list[str]) -> None:
    """The normal family is closed under affine maps, so the maximum of log p(x) is the same number
    whichever t it is fitted to."""
    model = lambda: th.models.Density(th.families.MultivariateNormal(3))  # noqa: E731
    raw = th.fit(model(), Tensors({"y": ROWS}))
    mapped = th.fit(model(), Transformed(ROWS, *chosen))
    compared = th.compare({"raw": raw.score(), "mapped": mapped.score()})
    assert compared.pair("raw", "mapped").difference == pytest.approx(0.0, abs=1e-8)
    assert mapped.score().log_determinant != 0.0


def test_a_normal_of_logarithms_is_the_log_normal() -> None:
    """Its density in closed form: φ((log x − μ)/σ)/(σ x)."""
    x = ROWS[:, 0]
    fit = th.fit(th.models.Density(th.families.Normal()), Transformed(x, "log"))
    log_x = torch.log(x)
    mu, sigma = log_x.mean(), log_x.std(correction=0)
    exact = -0.5 * ((log_x - mu) / sigma) ** 2 - torch.log(sigma) - 0.5 * math.log(2 * math.pi) - log_x
    torch.testing.assert_close(fit.score().per_observation, exact, rtol=1e-8, atol=1e-8)
    assert fit.score().units == "y"


def test_a_source_through_maps_stays_itself() -> None:
    """Fingerprint, size and units of a score are those of what was observed; the batches, those of t."""
    inner = Tensors({"y": ROWS, "x": ROWS[:, :1]})
    source = Transformed(inner, "log", "standardise")
    assert (source.fingerprint, source.size, source.scored_in) == (inner.fingerprint, 40, "y")
    assert source.units == "standardise(log(y))"
    (batch,) = source.batches()
    torch.testing.assert_close(batch["y"].mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(batch["x"], ROWS[:, :1])


def test_other_data_go_through_the_same_maps() -> None:
    """`like` learns nothing: the constants are those of the first data."""
    train = Transformed(ROWS[:30], "standardise")
    held_out = train.like(ROWS[30:])
    torch.testing.assert_close(
        held_out.whole["y"], (ROWS[30:] - ROWS[:30].mean(0)) / ROWS[:30].std(0, correction=0)
    )
    assert held_out.fingerprint == Tensors({"y": ROWS[30:]}).fingerprint


def test_maps_of_maps_add_their_log_determinants() -> None:
    """One source of two maps, and a map of a mapped source, are the same."""
    once = Transformed(ROWS, "log", "standardise")
    twice = Transformed(Transformed(ROWS, "log"), "standardise")
    (a,), (b,) = once.batches(), twice.batches()
    torch.testing.assert_close(once.log_determinant(a), twice.log_determinant(b))
    assert (once.units, once.scored_in, once.fingerprint) == (twice.units, twice.scored_in, twice.fingerprint)


def test_counts_weigh_what_is_learnt() -> None:
    """A count of 3 is three rows."""
    count = torch.tensor([3.0, 1.0, 2.0], dtype=torch.float64)
    counted = Transformed(Batch({"y": ROWS[:3, :2]}, count=count), "whiten")
    repeated = Transformed(ROWS[:3, :2].repeat_interleave(count.long(), 0), "whiten")
    torch.testing.assert_close(counted.whole["y"].repeat_interleave(count.long(), 0), repeated.whole["y"])


def test_a_table_is_read_in_the_order_of_its_columns() -> None:
    source = Transformed({"a": [1.0, 2.0, 4.0], "b": [3.0, 5.0, 4.0]}, "standardise")
    torch.testing.assert_close(
        source.restore(source.whole["y"])[:, 1], torch.tensor([3.0, 5.0, 4.0], dtype=torch.float64)
    )


def test_streamed_batches_are_the_whole() -> None:
    """A source that is not in memory is mapped batch by batch."""

    class Streamed:
        size, fingerprint, units = 40, "f", "y"

        def batches(self, model: object = None):
            for at in range(0, 40, 7):
                yield Batch({"y": ROWS[at : at + 7]})

    source = Transformed(Streamed(), "whiten")
    parts = torch.cat([b["y"] for b in source.batches()])
    torch.testing.assert_close(parts, Transformed(ROWS, "whiten").whole["y"])
    assert source.whole is None


def test_what_a_map_cannot_take_is_named() -> None:
    bad = ROWS.clone()
    bad[3, 1] = -2.0
    with pytest.raises(OutOfSupport, match=r"row 3, column 1 is -2, and log needs positive numbers \(1 such"):
        Transformed(bad, "log")
    with pytest.raises(OutOfSupport, match="row 3, column 1"):
        Transformed(bad, maps.Log(columns=(1,)))
    with pytest.raises(OutOfSupport, match="row 3, column 1"):
        Transformed(ROWS, "log").like(bad)
    with pytest.raises(OutOfSupport, match="strictly between 0 and 1"):
        Transformed(ROWS, "logit")
    bad[5, 2] = math.nan
    with pytest.raises(NotFinite, match="row 5, column 2 of 'y' is nan"):
        Transformed(bad, "standardise")
    with pytest.raises(DataError, match=r"column 1 of the observations is constant \(7\)"):
        Transformed(torch.stack([ROWS[:, 0], torch.full((40,), 7.0, dtype=torch.float64)], 1), "standardise")
    with pytest.raises(DataError, match="linearly dependent"):
        Transformed(torch.stack([ROWS[:, 0], 2 * ROWS[:, 0]], 1), "whiten")


def test_what_is_no_map_is_named() -> None:
    with pytest.raises(BadArgument, match="no map is given"):
        Transformed(ROWS)
    with pytest.raises(BadArgument, match=r"'sqrt' is not a map\. Accepted: 'log'"):
        Transformed(ROWS, "sqrt")
    with pytest.raises(BadArgument, match=r"columns=\(3,\) of observations of the shape \(40, 3\)"):
        Transformed(ROWS, maps.Log(columns=(3,)))
    with pytest.raises(BadArgument, match="low below high"):
        maps.Logit(1.0, 1.0)
    with pytest.raises(BadArgument, match="learnt no scale"):
        maps.Standardise().forward(ROWS)
    with pytest.raises(BadArgument, match="several columns"):
        Transformed(ROWS[:, 0], "whiten")
    with pytest.raises(BadArgument, match=r"array of numbers, \(n,\) or \(n, d\)"):
        Transformed(ROWS[None], "log")
