"""Designs against formulaic's own dense matrices: the same columns under the same names, whatever road
they take here."""

import numpy as np
import pandas as pd
import pytest
import torch
from formulaic import model_matrix

from thetahat.data.design import build, stack
from thetahat.data.expressions import FUNCTIONS
from thetahat.data.frame import Frame
from thetahat.data.response import Response
from thetahat.data.table import Encoder, new_rows
from thetahat.errors import UnknownLevel
from thetahat.families import Parameter
from thetahat.models.regression import Predictor

N = 240


def table(n=N, seed=0):
    r = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "y": r.normal(size=n),
            "x": r.normal(size=n),
            "z": r.uniform(0.5, 3.0, n),
            "k": r.integers(0, 4, n),
            "flag": r.random(n) < 0.4,
            "a": r.choice(["p", "q", "r"], n),
            "b": pd.Categorical(
                r.choice(["lo", "mid", "hi"], n), categories=["lo", "mid", "hi"], ordered=True
            ),
            "c": r.choice(["u", "v"], n),
            "two words": r.normal(size=n),
        }
    )


def written_out(formula, frame):
    """The design's columns, one by one: η of each unit vector."""
    design = build(formula, Frame(frame))
    batch = Encoder(Response("y", ("y",)), (design,)).encode(frame)
    predictor = Predictor("mean", Parameter(), design, 0, 0)
    offset = predictor.eta(batch, torch.zeros(predictor.size, dtype=torch.float64)).expand(len(frame))
    columns = [
        predictor.eta(batch, e).expand(len(frame)) - offset
        for e in torch.eye(predictor.size, dtype=torch.float64)
    ]
    values = torch.stack(columns, 1).numpy() if columns else np.zeros((len(frame), 0))
    return pd.DataFrame(values, columns=design.names), offset.numpy()


FORMULAS = [
    "1",
    "0",
    "x",
    "x - 1",
    "0 + x + z",
    "x + z + k",
    "flag",
    "x + flag",
    "x:flag",
    "a",
    "0 + a",
    "a - 1",
    "a + b",
    "0 + a + b",
    "a:b",
    "a + b + a:b",
    "a*b",
    "a*b*c",
    "a + a:b",
    "a:b + b:c",
    "x:a",
    "x + x:a",
    "x*a",
    "a + a:x:z",
    "x:z",
    "x*z*a",
    "(x + z + a)**2",
    "x/a",
    "a/b",
    "x %in% a",
    "C(k)",
    "0 + C(k)",
    "C(k):x",
    "C(k)*a",
    "log(z)",
    "np.log(z) + exp(x)",
    "I(x**2) + I(x*z)",
    "{x + z}",
    "poly(x, 3)",
    "bs(x, df=5)",
    "bs(x, df=5):a",
    "cr(x, df=4) + a",
    "center(x) + scale(z)",
    "C(a, contr.sum)",
    "C(a, contr.treatment('q'))",
    "C(b, contr.poly)",
    "C(a, contr.helmert) + c",
    "C(a, contr.sum):x",
    "a + C(a, contr.sum):x",
    "`two words` + x",
    "log(abs(`two words`)) + `two words`:a",
    "where(x > 0, x, 0)",
    "maximum(x, z)",
    "np.clip(x, -1, 1)",
]


@pytest.mark.parametrize("formula", FORMULAS)
def test_the_design_has_formulaics_columns(formula):
    """formulaic 1.x, model_matrix(formula, data): the union of columns, and each column's values."""
    frame = table()
    ours, offset = written_out(formula, frame)
    theirs = model_matrix(formula, frame, context=FUNCTIONS)
    assert sorted(ours.columns) == sorted(theirs.columns)
    assert (offset == 0).all()
    for name in ours:
        np.testing.assert_allclose(ours[name], np.asarray(theirs[name], dtype=float), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("formula", "offset"),
    [
        ("x + offset(z)", lambda d: d["z"]),
        ("offset(log(z)) + a", lambda d: np.log(d["z"])),
        ("x + offset(z) + offset(2*x + 1)", lambda d: d["z"] + 2 * d["x"] + 1),
        ("offset(k)", lambda d: d["k"]),
    ],
)
def test_an_offset_adds_to_the_predictor_and_has_no_coefficient(formula, offset):
    frame = table()
    ours, found = written_out(formula, frame)
    np.testing.assert_allclose(found, offset(frame), rtol=1e-14)
    assert not any("offset" in name for name in ours)


def test_a_category_of_a_thousand_levels_is_one_integer_a_row():
    r = np.random.default_rng(1)
    frame = pd.DataFrame(
        {"y": r.normal(size=5000), "g": np.char.add("g", r.permutation(np.arange(5000) % 1000).astype(str))}
    )
    design = build("g", Frame(frame))
    batch = Encoder(Response("y", ("y",)), (design,)).encode(frame)
    assert sorted(batch) == ["code0.0", "y"]
    assert len(design.names) == 1000
    first = sorted(frame["g"].unique())[0]
    code = batch["code0.0"].numpy()
    assert (code[frame["g"] == first] == 0).all()
    assert all(
        design.names[1 + c - 1] == f"g[T.{g}]" for c, g in zip(code[:50], frame["g"][:50], strict=True) if c
    )


def test_declared_categories_keep_their_order_and_unseen_ones_have_no_column():
    frame = pd.DataFrame({"g": pd.Categorical(["hi", "lo", "hi", "lo"], categories=["lo", "never", "hi"])})
    assert build("g", Frame(frame)).names == ["Intercept", "g[T.hi]"]
    assert build("g", Frame(frame.astype(str))).names == ["Intercept", "g[T.lo]"]


def test_combinations_that_never_occur_have_no_column():
    frame = pd.DataFrame({"a": list("ppqq"), "b": list("uuuv")})
    assert build("a + b + a:b", Frame(frame)).names == ["Intercept", "a[T.q]", "b[T.v]", "a[T.q]:b[T.v]"]
    assert build("0 + x:a:b", Frame(frame.assign(x=1.0))).names == [
        "x:a[p]:b[u]",
        "x:a[q]:b[u]",
        "x:a[q]:b[v]",
    ]


@pytest.mark.parametrize("formula", ["a", "a:c", "C(a, contr.sum)", "a + a:x"])
def test_categories_that_are_declared_and_never_occur_have_no_column(formula):
    frame = table()
    declared = frame.assign(a=pd.Categorical(frame["a"], categories=["p", "q", "never", "r"]))
    assert not [name for name in build(formula, Frame(declared)).names if "never" in name]
    pd.testing.assert_frame_equal(written_out(formula, declared)[0], written_out(formula, frame)[0])


def test_a_column_may_have_the_name_of_a_function():
    frame = pd.DataFrame({"scale": [1.0, 2.0, 4.0], "log": [3.0, 1.0, 2.0]})
    np.testing.assert_allclose(
        written_out("np.log(scale)", frame.assign(y=0.0))[0].iloc[:, 1], np.log(frame["scale"])
    )
    assert build("scale + log", Frame(frame)).required == ("log", "scale")


def test_new_rows_are_encoded_as_the_fit_remembers():
    """Splines, polynomials and centring keep the knots, the norms and the means of the rows that were
    fitted."""
    frame = table()
    formula = "bs(x, df=5) + poly(z, 2) + center(k) + a*b + C(c, contr.sum)"
    design = build(formula, Frame(frame))
    encoder = Encoder(Response("y", ("y",)), (design,))
    whole, some = encoder.encode(frame), new_rows(encoder, frame.drop(columns="y").iloc[5:9])
    for name in some:
        torch.testing.assert_close(some[name], whole[name][5:9], rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("formula", ["a", "a:b", "C(a, contr.sum)", "a:x", "C(k)"])
def test_an_unseen_level_is_named_with_its_row_and_column(formula):
    frame = table()
    encoder = Encoder(Response("y", ("y",)), (build(formula, Frame(frame)),))
    later = frame.iloc[:3].assign(a=["p", "q", "new"], k=[0, 1, 9])
    with pytest.raises(UnknownLevel, match=r"'new' .row 2|9 .row 2"):
        new_rows(encoder, later)


def test_columns_that_lie_evenly_in_memory_are_not_copied():
    block = np.arange(12.0).reshape(3, 4)  # rows are columns of a data frame
    for own in (block, block.T):
        columns = [own[i] for i in range(len(own))]
        stacked = stack(columns)
        np.testing.assert_array_equal(stacked, own)
        assert np.shares_memory(stacked, block)
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 3)), columns=list("xyz"))
    np.testing.assert_array_equal(stack([frame[c].to_numpy() for c in "xyz"]), frame.to_numpy().T)


@pytest.mark.parametrize(
    "columns",
    [
        [np.arange(3.0), np.arange(3.0)[::-1]],
        [np.arange(10.0)[::2], np.arange(10.0)[1::2]],
        [np.arange(6.0)[3:], np.arange(6.0)[:3]],
        [np.arange(4.0)] * 3,
        [np.arange(3), np.arange(3.0)],
        [np.arange(8.0)[0:4], np.arange(8.0)[2:6]],
        [np.arange(1.0)],
    ],
)
def test_stacking_is_right_wherever_the_columns_lie(columns):
    np.testing.assert_array_equal(stack(columns), np.stack(columns))


def test_nothing_stacks_to_nothing():
    assert stack([]).size == 0
