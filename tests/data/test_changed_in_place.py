"""What the user does to the data after a fit changes nothing that the fit says."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

import thetahat as th
from thetahat.data import Batch, Frame, Tensors

N = 50


def columns():
    r = np.random.default_rng(0)
    return {
        "y": r.normal(size=N),
        "x": r.normal(size=N),
        "z": r.random(N),
        "w": r.integers(1, 4, N).astype(float),
        "k": np.arange(N) % 5.0,
    }


def spoil(array):
    """Write through the memory itself, whatever its flags say."""
    raw = np.asarray(array)
    at = raw.__array_interface__["data"][0]
    window = type("Window", (), {"__array_interface__": {**raw.__array_interface__, "data": (at, False)}})
    np.asarray(window())[...] = 1e6


def of_arrays(c):
    return c, lambda: [spoil(v) for v in c.values()]


def of_frame(c):
    frame = pd.DataFrame(c)

    def change():
        frame.iloc[:, :] = 1e6
        frame["x"] = 0.0

    return frame, change


def of_memory(c):
    """pandas hands out views that cannot be written into; one that is held may have been made writable by force."""
    frame = pd.DataFrame(c)
    views = [frame[name].to_numpy() for name in frame]
    return frame, lambda: [spoil(view) for view in views]


def of_block(c):
    block = np.column_stack(list(c.values()))
    frame = pd.DataFrame(block, columns=list(c), copy=False)
    return frame, lambda: spoil(block)


def of_polars(c):
    frame = pl.DataFrame(c)
    return frame, lambda: [spoil(v) for v in c.values()]


def of_arrow(c):
    frame = pa.table({name: pa.array(v) for name, v in c.items()})
    return frame, lambda: [spoil(v) for v in c.values()]


def of_tensors(c):
    tensors = {name: torch.from_numpy(v) for name, v in c.items()}
    return tensors, lambda: [t.fill_(1e6) for t in tensors.values()]


MAKERS = [of_arrays, of_frame, of_memory, of_block, of_polars, of_arrow, of_tensors]


def answers(fit):
    by = fit.standard_errors("cluster", by="k") if "formula" in fit.call else 0
    table = (
        [fit.residuals(), fit.influence(), fit.effects(), fit.outliers(None), by]
        if "formula" in fit.call
        else []
    )
    return [
        fit.standard_errors("observed"),
        fit.standard_errors("sandwich"),
        fit.score().per_observation,
        fit.score().fingerprint,
        fit.log_likelihood,
        *([fit.predict(), fit.predict(level=0.9), fit.calibration(), *table] if table else []),
    ]


def same(before, after):
    for one, other in zip(before, after, strict=True):
        if isinstance(one, (pd.DataFrame, pd.Series)):
            (
                pd.testing.assert_frame_equal
                if isinstance(one, pd.DataFrame)
                else pd.testing.assert_series_equal
            )(one, other)
        else:
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("formula", ["y ~ x + z", "y ~ x + log(z)", "y ~ C(k)*x"])
def test_a_table_that_is_changed_after_the_fit_changes_nothing(make, formula):
    """Each answer is asked before and after, of two fits of equal data."""
    want = answers(th.fit(formula, make(columns())[0], weights="w"))
    data, change = make(columns())
    fit = th.fit(formula, data, weights="w")
    change()
    same(want, answers(fit))


def likelihood():
    @th.model(mu=0.0, b=0.0, sigma=th.positive(1.0))
    def normal(batch, mu, b, sigma):
        return torch.distributions.Normal(mu + b * batch["x"], sigma).log_prob(batch["y"])

    return normal


@pytest.mark.parametrize("kind", ["dict", "batch", "source", "arrays", "frame"])
def test_tensors_that_are_changed_after_the_fit_change_nothing(kind):
    def made():
        c = {name: v for name, v in columns().items() if name in ("y", "x", "w")}
        tensors = {name: torch.from_numpy(v) for name, v in c.items()}
        count = tensors.pop("w") if kind in ("batch", "source") else None
        batch = Batch(dict(tensors), count=count)
        data = {
            "dict": tensors,
            "arrays": c,
            "frame": pd.DataFrame(c, copy=False),
            "batch": batch,
            "source": Tensors(batch),
        }[kind]
        return data, lambda: [spoil(v) for v in c.values()]

    weights = {"weights": "w"} if kind in ("dict", "arrays", "frame") else {}
    want = answers(th.fit(likelihood(), made()[0], **weights))
    data, change = made()
    fit = th.fit(likelihood(), data, **weights)
    change()
    same(want, answers(fit))


def test_columns_that_repeat_one_value_are_copied_as_one():
    """A broadcast tensor has stride 0, and its copy too."""
    held = Tensors({"x": torch.zeros(1, 1000).expand(100_000, 1000), "y": torch.zeros(100_000)})
    assert held.whole["x"].stride() == (0, 1)
    assert held.whole["x"].untyped_storage().nbytes() == 4000


def test_columns_of_every_type_and_name_are_copied_with_their_types() -> None:
    """float64 columns into one block, the others beside it: a name such as `self` is a column's like any other."""
    data = pd.DataFrame(
        {
            "x": [1.0, 2.0, 4.0, 3.0],
            "self": [1, 2, 3, 5],
            "g": pd.Categorical(list("abab")),
            "y": [1.5, 2.0, 2.5, 4.0],
            "narrow": np.array([1, 2, 3, 4], dtype=np.float32),
            "whole": pd.array([1, 2, 3, 4], dtype="Int64"),
        }
    )
    own = Frame(data).owning(list(data))
    held = own.read(list(data))
    assert {name: held[name].dtype for name in data} == dict(data.dtypes)
    for name in data:
        assert held[name].tolist() == data[name].tolist()
    before = th.fit("y ~ x + self", data).estimates
    data.loc[:, "x"] = 0.0
    assert held["x"].tolist() == [1.0, 2.0, 4.0, 3.0]
    assert len(before) == 4
