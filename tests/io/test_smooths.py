"""Grouping factors and smooth terms encode new rows to the same bits after they were written and read."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from thetahat.data.frame import Frame
from thetahat.data.random_terms import build_grouping
from thetahat.data.smooths import build_curves, read_call
from thetahat.errors import BadSave
from thetahat.io.smooths import curve, curve_config, grouping, grouping_config

R = np.random.default_rng(2)
FRAME = pd.DataFrame(
    {"x": R.random(60), "z": R.random(60), "g": R.choice(list("abc"), 60), "k": R.integers(0, 9, 60)}
)
TEXTS = [
    *("s(x)", "s(x, bs='cr', k=6)", "s(x, bs='cc', k=6)", "s(x, bs='ps', m=[2, 1])", "s(x, z, k=12)"),
    *(
        "te(x, z)",
        "ti(x, z)",
        "s(g, bs='re')",
        "s(x, by=g)",
        "s(x, g, bs='fs', k=6)",
        "s(x, k, bs='fs', base='cr', k=5)",
        "s(x, by=z, k=5)",
        "s(x, bs='cr', k=3, knots=[0, 0.4, 1])",
    ),
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_curve_comes_back_to_the_last_bit(text):
    new = FRAME.sample(25, random_state=1).assign(x=lambda d: 1.1 * d["x"])
    for made in build_curves(read_call(text, list(FRAME)), FRAME):
        config, tensors = curve_config(made, "at")
        again = curve(json.loads(json.dumps(config, allow_nan=False)), "at", tensors)
        for one, other in zip(again.columns(new), made.columns(new), strict=True):
            assert one.tobytes() == other.tobytes()
        assert all(np.array_equal(a, b) for a, b in zip(again.penalties, made.penalties, strict=True))
        assert (again.label, again.names, again.required) == (made.label, made.names, made.required)


@pytest.mark.parametrize("name", ["N", "R", "constraint", "penalty0", "own0", "basis0.knots"])
@pytest.mark.parametrize("change", ["cut", "nan", "single"])
def test_tensors_that_do_not_fit_each_other_are_refused(name, change):
    (made,) = build_curves(read_call("s(x, bs='cr', k=6)", list(FRAME)), FRAME)
    config, tensors = curve_config(made, "at")
    t = tensors[f"at.{name}"].clone()
    t = t[:-1] if change == "cut" else t * torch.nan if change == "nan" else t.float()
    with pytest.raises(BadSave):
        curve(config, "at", tensors | {f"at.{name}": t})


def test_a_polynomial_of_too_many_terms_is_refused_before_it_is_written_out():
    (made,) = build_curves(read_call("s(x, z, k=12)", list(FRAME)), FRAME)
    config, tensors = curve_config(made, "at")
    config["margins"][0]["settings"]["order"] = 10**9
    with pytest.raises(BadSave, match="order 1000000000"):
        curve(config, "at", tensors)


@pytest.mark.parametrize("columns", [["g"], ["k"], ["g", "k"]])
def test_a_grouping_factor_comes_back(columns):
    made = build_grouping(columns, Frame(FRAME), "(1 | g)")
    config, tensors = grouping_config(made, "at")
    again = grouping(json.loads(json.dumps(config)), "at", tensors)
    new = FRAME.assign(k=FRAME["k"] + R.integers(0, 3, 60))
    assert np.array_equal(again.codes(new), made.codes(new))
    assert again.names == made.names
    for cells in (made.cells[::-1].copy(), made.cells + 10**6, made.cells.astype(np.int32)):
        with pytest.raises(BadSave, match="do not fit its levels"):
            grouping(config, "at", {"at.cells": torch.from_numpy(cells)})
