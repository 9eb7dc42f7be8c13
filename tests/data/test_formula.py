"""Formulas: columns of any name, names of estimates that are unique, expressions that run no code, sizes that
are known beforehand."""

import os

import numpy as np
import pandas as pd
import pytest

import thetahat as th
from thetahat.data.expressions import alias, column, shown, unquote, written
from thetahat.errors import BadFormula, ThetahatError

N = 60


def rng(seed=0):
    return np.random.default_rng(seed)


def least_squares(columns, y):
    """numpy: the coefficients of y on 1 and these columns."""
    X = np.column_stack([np.ones(len(y)), *columns])
    return np.linalg.lstsq(X, y, rcond=None)[0]


def data(**columns):
    r = rng(3)
    return {
        "y": r.normal(size=N),
        "x": r.random(N) + 0.1,
        "z": r.normal(size=N),
        "g": list("abc") * (N // 3),
    } | columns


# ---- columns of any name -----------------------------------------------------------------------------------

NAMES = [
    *(
        "1",
        "0",
        "-1",
        "2.5",
        "a b",
        "a:b",
        "a~b",
        "a+b",
        "log(u)",
        "it's",
        'say "u"',
        "(u",
        "[T.b]",
        "a\\b",
        " u ",
        "class",
        "np",
        "C",
        "I",
    ),
    *(
        "log",
        "bs",
        "offset",
        "offset(u)",
        "µ",
        "größe",
        "ﬁ",
        "x.y",
        "Intercept",
        "y2 ~ u",
        "#",
        "quoted",
        "{u}",
        "é",
        "None",
        ".",
    ),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_column_may_be_called_anything(name):
    """numpy.linalg.lstsq; beside it a column whose name differs by an underscore, or is what Python would
    read."""
    r = rng(5)
    u, v, w, y = r.random((4, N)) + 0.5
    twin = "".join(c if c.isalnum() else "_" for c in name) + "_"
    frame = pd.DataFrame({"y": y, name: u, twin: v, "w": w})
    found = th.fit(f"y ~ `{name}` + w:`{name}` + log(`{name}`) + bs(`{twin}`, df=3)", frame)
    at = found.predict(frame)
    want = th.fit("y ~ u + w:u + log(u) + bs(v, df=3)", pd.DataFrame({"y": y, "u": u, "v": v, "w": w}))
    np.testing.assert_allclose(found.estimates.to_numpy(), want.estimates.to_numpy(), rtol=1e-9)
    np.testing.assert_allclose(at, want.predict(), rtol=1e-10)
    np.testing.assert_allclose(th.fit(f"y ~ `{name}`", frame).estimates[:2], least_squares([u], y), rtol=1e-8)
    np.testing.assert_allclose(th.fit(f"`{name}` ~ w", frame).estimates[:2], least_squares([w], u), rtol=1e-8)
    np.testing.assert_allclose(
        th.fit(f"y ~ offset(`{name}`)", frame).estimates.iloc[0], (y - u).mean(), rtol=1e-8
    )


def test_numbered_columns_of_an_array_are_columns():
    """pd.DataFrame(array) calls its columns 0, 1, 2; "1" is also how a formula writes the intercept."""
    X = rng().normal(size=(N, 3))
    found = th.fit("`0` ~ `1` + `2` + `1`:`2`", pd.DataFrame(X))
    np.testing.assert_allclose(
        found.estimates[:4], least_squares([X[:, 1], X[:, 2], X[:, 1] * X[:, 2]], X[:, 0]), rtol=1e-8
    )
    assert found.names[:4] == ["Intercept", "1", "2", "1:2"]


def test_a_splines_memory_is_of_its_column_when_names_look_alike(tmp_path):
    """ "a b" and "a_b" become one name in Python: each keeps its own knots, in new rows and after loading."""
    r = rng(1)
    frame = pd.DataFrame({"y": r.normal(size=N), "a b": r.random(N), "a_b": 5 + r.random(N)})
    found = th.fit("y ~ bs(`a b`, df=4) + bs(a_b, df=4)", frame)
    some = frame.iloc[10:20]
    np.testing.assert_allclose(found.predict(some), found.predict().iloc[10:20], rtol=1e-12)
    again = th.load(found.save(tmp_path / "a.thetahat"))
    np.testing.assert_array_equal(again.predict(some), found.predict(some))


def test_names_go_to_aliases_and_back():
    for name in NAMES:
        assert column(alias(name)) == name
        assert unquote(unquote(f"log(`{name}`) + x")) == unquote(f"log(`{name}`) + x")
    assert shown(unquote("`a b` + log(`a b`)")) == "a b + log(`a b`)"
    assert written(unquote("`a b` + log(`a b`)")) == "`a b` + log(`a b`)"
    for broken in ("`a", "y + ``", "`"):
        with pytest.raises(BadFormula, match="backtick"):
            unquote(broken)


# ---- names of estimates ------------------------------------------------------------------------------------

COLLISIONS = [
    ("y ~ scale", {}, "normal"),
    ("y ~ Intercept", {}, "normal"),
    ("y ~ Intercept + `(Intercept)`", {}, "normal"),
    ("y ~ x + `scale: x`", {"scale": "~ x"}, "normal"),
    ("y ~ x + Intercept + `scale: Intercept`", {"scale": "~ x"}, "normal"),
    ("n ~ dispersion + x", {}, "negative_binomial"),
    ("y ~ `g[T.b]` + g", {}, "normal"),
    ("y ~ x + z + x:z + `x:z`", {}, "normal"),
    ("y ~ exp(x) + `exp(x)`", {}, "normal"),
    ("y ~ location + scale + df", {}, "student_t"),
    ("y ~ `scale (2)` + scale + `mean: scale`", {}, "normal"),
]


@pytest.mark.parametrize(("formula", "given", "family"), COLLISIONS)
def test_every_estimate_has_a_name_of_its_own_that_all_questions_take_alike(formula, given, family):
    """The value that each question gives under a name is the value that stands at that place among the
    estimates."""
    r = rng(2)
    extra = [
        "scale",
        "Intercept",
        "(Intercept)",
        "scale: x",
        "scale: Intercept",
        "dispersion",
        "g[T.b]",
        "x:z",
        "exp(x)",
        "location",
    ]
    columns = {name: r.normal(size=N) for name in (*extra, "df", "scale (2)", "mean: scale")}
    frame = data(n=r.negative_binomial(2, 0.3, N), **columns)
    fit = th.fit(formula, frame, family, **given)
    names, values = fit.names, fit.estimates.to_numpy()
    assert len(set(names)) == len(names) == len(values)
    for i, name in enumerate(names):
        assert fit.estimates[name] == values[i]
        low, high = fit.intervals(parameters=[name]).to_numpy()[0]
        assert low <= values[i] <= high
        assert float(fit.delta(lambda v, name=name: v[name])["estimate"].iloc[0]) == pytest.approx(
            values[i], rel=1e-12
        )
        slope = fit.model.slopes[i]
        if slope:
            z = values[i] / fit.standard_errors().to_numpy()[i]
            assert fit.test(f"{name} = 0").statistic == pytest.approx(z**2, rel=1e-8)
            assert th.priors.Normal(1.0, on=name).coordinates(fit.model).tolist() == [i]


@pytest.mark.parametrize(
    "hypothesis",
    [
        "`site name`[T.b] = 0",
        "site name[T.b] = 0",
        "`site name[T.b]` = 0",
        "2*`site name`[T.b] = 0",
        "0 = `site name`[T.b]",
    ],
)
def test_hypotheses_take_the_backticks_that_formulas_need(hypothesis):
    """The same restriction as a row of R."""
    fit = th.fit("y ~ `site name` + x", data(**{"site name": list("abb") * (N // 3)}))
    at = fit.names.index("site name[T.b]")
    z = fit.estimates.iloc[at] / fit.standard_errors().iloc[at]
    assert fit.test(hypothesis).statistic == pytest.approx(z**2, rel=1e-9)


def test_every_question_takes_names_with_backticks_or_without():
    fit = th.fit(
        "y ~ C(`site name`) + log(`a b`)",
        data(**{"site name": [1, 2, 2] * (N // 3), "a b": rng().random(N) + 1}),
    )
    for name in ("C(`site name`)[T.2]", "C(site name)[T.2]", "`C(site name)[T.2]`"):
        assert fit.intervals(parameters=[name]).index.tolist() == ["C(`site name`)[T.2]"]
        assert (
            float(fit.delta(lambda v, name=name: v[name])["estimate"].iloc[0])
            == fit.estimates["C(`site name`)[T.2]"]
        )
        assert th.priors.Normal(1.0, on=name).coordinates(fit.model).tolist() == [
            fit.names.index("C(`site name`)[T.2]")
        ]
    with pytest.raises(th.errors.BadArgument, match="no estimate is called 'site'"):
        fit.test("`site` = 0")


# ---- code --------------------------------------------------------------------------------------------------

ATTACKS = [
    "y ~ {np.f2py.os.system('touch hit') + x}",
    "y ~ {x.to_csv('hit')}",
    "y ~ {bs.__globals__['np'].savetxt('hit', x)}",
    "y ~ I(np.savetxt('hit', x) or x)",
    "y ~ {__import__('os').system('touch hit')}",
    "y ~ I(open('hit', 'w'))",
    "y ~ I((lambda: open('hit', 'w'))())",
    "y ~ {[open('hit', 'w') for i in (1,)]}",
    "y ~ {getattr(x, 'to_csv')('hit')}",
    "y ~ I(eval('1'))",
    "y ~ offset(np.f2py.os.system('touch hit'))",
    "y ~ x + offset({np.savetxt('hit', x)})",
    "I(np.savetxt('hit', y) or y) ~ x",
    "{y.to_csv('hit')} ~ x",
    "log(y.to_pickle('hit')) ~ x",
    "y ~ np.memmap('hit', mode='w+', shape=10)",
    "y ~ np.frompyfunc(x.to_csv, 1, 1)('hit')",
    "y ~ C(g, contr.poly(scores=x.to_csv('hit')))",
    "y ~ cr(x, df=4, constraints=open('hit', 'w'))",
    "y ~ `x`.to_csv('hit')",
    "y ~ Q('x').to_csv('hit')",
    "y ~ I(np.log(x, z))",
    "y ~ I(np.add(x, z, x))",
    "y ~ I(log(x, out=z))",
    "y ~ I(np.add(x, z, dtype='int8'))",
    "y ~ np.add.at(x, 0, 1)",
    "y ~ np.seterr(all='raise')",
    "y ~ np.random.seed(0)",
    "y ~ C(g, contr.sum.__init__)",
    "y ~ I(x, _state={})",
    "y ~ center(x, _context=np)",
    "y ~ I(*[x])",
    "y ~ {(y := x)}",
    "y ~ {x.__class__}",
    "y ~ {np.os}",
    "y ~ I(f'{x}')",
    "y ~ {x[0]}",
    "y ~ I(10**10**10)",
    "y ~ I(9**9**9 + x)",
    "y ~ I(1 << 10**10)",
    "y ~ I('a'*10**10)",
    "y ~ I([0]*10**10)",
    "y ~ bs(x, df=10**9)",
    "y ~ poly(x, 100000000)",
    "y ~ hashed(g, levels=10000000000)",
    "y ~ np.tile(x, 10**9)",
    "y ~ (x + z + g)**1000000",
    "y ~ " + "*".join(f"I(x + {i})" for i in range(30)),
    "y ~ " + "(" * 3000 + "x" + ")" * 3000,
    "y ~ I(" + "-" * 20000 + "x)",
    "y ~ I(" + "(" * 300 + "x" + ")" * 300 + ")",
]


@pytest.mark.parametrize("formula", ATTACKS, ids=[a[:50] for a in ATTACKS])
def test_a_formula_runs_no_code(formula, tmp_path, monkeypatch):
    """Refused before anything runs: nothing is written and nothing is changed."""
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame(data())
    before, state = frame.copy(), np.random.get_state()[1].tolist()
    with pytest.raises(ThetahatError):
        th.fit(formula, frame)
    left, right = formula.split("~", 1)
    if left.strip() == "y":
        with pytest.raises(ThetahatError):
            th.fit("y ~ 1", frame, scale=f"~ {right}")
    assert os.listdir(tmp_path) == []
    pd.testing.assert_frame_equal(frame, before)
    assert np.random.get_state()[1].tolist() == state


def test_the_command_runs_no_code_either(tmp_path, monkeypatch, capsys):
    from thetahat.cli import main

    monkeypatch.chdir(tmp_path)
    pd.DataFrame(data()).to_csv("a.csv", index=False)
    assert main(["fit", "y ~ {x.to_csv('hit')}", "a.csv"]) != 0
    assert main(["fit", "y ~ 1", "a.csv", "--set", "scale=~ {x.to_csv('hit')}"]) != 0
    assert sorted(os.listdir(tmp_path)) == ["a.csv"]
    assert "calls x.to_csv" in capsys.readouterr().err


def test_trusted_formulas_are_python():
    """numpy.linalg.lstsq: a method of a column, which is no function that formulas know."""
    frame = data()
    with pytest.raises(BadFormula, match=r"trusted=True"):
        th.fit("y ~ {z.clip(0)}", frame)
    found = th.fit("y ~ {z.clip(0)} + {(lambda v: v**2)(x)}", frame, trusted=True)
    want = least_squares([np.clip(frame["z"], 0, None), frame["x"] ** 2], frame["y"])
    np.testing.assert_allclose(found.estimates[:3], want, rtol=1e-8)
    with pytest.raises(ThetahatError, match="none of the functions that formulas know"):
        found.save("nowhere.thetahat")


def test_what_is_not_of_rows_is_said():
    for right, message in [
        ("I(x and z)", "Accepted: &"),
        ("I(not x)", "Accepted: &"),
        ("I(1j*x)", "complex"),
        ("I(x in z)", "Accepted"),
    ]:
        with pytest.raises(BadFormula, match=message):
            th.fit(f"y ~ {right}", data())


# ---- sizes -------------------------------------------------------------------------------------------------


def test_an_interaction_of_two_wide_categories_is_a_code_a_row():
    """20,000 × 20,000 combinations, of which 300 occur: the fit of the margins and the combinations is one of
    their cells' means."""
    from thetahat.data.design import build
    from thetahat.data.frame import Frame

    r = rng()
    a, b = (np.char.add(p, r.integers(0, 20_000, 40_000).astype(str)) for p in "ab")
    design = build("a*b", Frame({"a": a, "b": b}))
    assert len(design.coded[2].names) < 40_000
    codes = design.coded[2].codes(pd.DataFrame({"a": a, "b": b}), {})
    assert design.coded[2].names[codes[codes > 0][0] - 1] == f"a[T.{a[codes > 0][0]}]:b[T.{b[codes > 0][0]}]"


def test_columns_that_would_not_fit_are_refused_with_their_number():
    r = rng()
    wide = {name: np.char.add(name, r.integers(0, 3000, 30_000).astype(str)) for name in "ab"}
    frame = {"y": r.normal(size=30_000), "x": r.random(30_000), **wide}
    for right in ("a:b", "a:bs(x, df=50):b", "poly(x, 900):a"):
        with pytest.raises(BadFormula, match=r"makes .* columns of 30,000 rows, .* GiB"):
            th.fit(f"y ~ {right}", frame)


def test_a_ten_way_interaction_has_a_column_a_cell():
    """2**10 cells of two-level factors: as many coefficients."""
    from thetahat.data.design import build
    from thetahat.data.frame import Frame

    cells = np.array([[(i >> k) & 1 for k in range(10)] for i in range(1024)])
    frame = Frame({f"a{k}": np.array(["u", "v"])[cells[:, k]] for k in range(10)})
    design = build("*".join(f"a{k}" for k in range(10)), frame)
    assert len(design.names) == 1024


def test_a_density_of_any_number_is_not_logistic_regression() -> None:
    with pytest.raises(th.errors.BadArgument, match="Logistic regression is family='bernoulli'"):
        th.fit("y ~ x", {"y": [0, 1, 0, 1, 1, 0], "x": [1.0, 2, 3, 4, 5, 6]}, "logistic")
