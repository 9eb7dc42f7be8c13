"""Tidy tables of a fit and tables of several fits, against R's figures and by what each of their forms must hold."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as tree
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import thetahat as th
from thetahat.errors import BadArgument, MissingExtra

DATA = {
    "y": [2.0, 1.0, 4.0, 7.0, 8.0, 3.0, 0.0, 6.0],
    "x": [0.0, 1.0, 2.0, 3.0, 4.0, 2.5, 0.5, 3.5],
    "g": list("abcabcab"),
}
FRAME = pd.DataFrame(DATA, index=[f"row {i}" for i in range(8)])
LONG = "a_name_of_a_column_that_is_longer_than_the_whole_line_of_a_terminal_of_eighty_characters_and_more"


@pytest.fixture(scope="module")
def counts() -> th.Fit:
    return th.fit("y ~ x + g", FRAME, "poisson")


@pytest.fixture(scope="module")
def line() -> th.Fit:
    return th.fit("y ~ x", FRAME)


# ---- tidy, glance, augment -------------------------------------------------------------------------------------


def test_tidy_is_r_s_table_of_coefficients(counts: th.Fit) -> None:
    """R 4: summary(glm(y ~ x + g, poisson, d, control = list(epsilon = 1e-15)))$coefficients: by default its errors are those
    of one iteration before the last."""
    found = counts.tidy()
    said = [
        [-0.0431758689876, 0.593661199736, -0.0727281301301, 0.94202246321206],
        [0.6492817982794, 0.212414348769, 3.0566757944596, 0.00223806200943],
        [-0.4693593721979, 0.499897134945, -0.9389119068455, 0.34777597541338],
        [-0.1780617249543, 0.503975192376, -0.3533144639817, 0.72385270320628],
    ]
    columns = ["estimate", "standard_error", "statistic", "p_value"]
    np.testing.assert_allclose(found[columns].to_numpy(), said, rtol=1e-8)
    assert found["term"].tolist() == ["Intercept", "x", "g[T.b]", "g[T.c]"]
    assert set(found["parameter"]) == {"mean"}


def test_tidy_of_a_linear_model_has_student_s_t(line: th.Fit) -> None:
    """R 4: summary(lm(y ~ x, d))$coefficients, confint(lm(y ~ x, d))."""
    found = line.tidy().iloc[:2]
    said = [
        [0.152866242038, 0.868777771468, 0.175955517117, 0.86611733395712, -1.972956382979, 2.27868886705],
        [1.804670912951, 0.351938180165, 5.127806571325, 0.00216164357606, 0.943509209035, 2.66583261687],
    ]
    columns = ["estimate", "standard_error", "statistic", "p_value", "low", "high"]
    np.testing.assert_allclose(found[columns].to_numpy(), said, rtol=1e-8)


def test_exponentiated_coefficients_keep_their_test_and_constants_their_scale() -> None:
    """exp maps ends to ends, and d exp(b) = exp(b) db; a constant on its own scale is no coefficient."""
    fit = th.fit("y ~ x", FRAME.assign(y=FRAME["y"] + 0.5), "gamma")
    plain, exp = fit.tidy(), fit.tidy(exponentiate=True)
    for name in ("estimate", "low", "high"):
        np.testing.assert_allclose(exp[name][:2], np.exp(plain[name][:2]), rtol=1e-14)
    np.testing.assert_allclose(exp["standard_error"][:2], exp["estimate"][:2] * plain["standard_error"][:2])
    pd.testing.assert_frame_equal(exp[["statistic", "p_value"]], plain[["statistic", "p_value"]])
    assert plain["term"][2] == "dispersion"
    pd.testing.assert_series_equal(exp.iloc[2], plain.iloc[2])


def test_the_terms_of_each_parameter_stand_under_it() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=60)
    data = {"x": x, "y": x + np.exp(0.3 * x) * rng.normal(size=60), "g": np.tile(list("abc"), 20)}
    found = th.fit("y ~ x", data, scale="~ x").tidy()
    assert found[["parameter", "term"]].to_numpy().tolist() == [
        ["mean", "Intercept"], ["mean", "x"], ["scale", "Intercept"], ["scale", "x"],
    ]  # fmt: skip
    mixed = th.fit("y ~ x + (1 | g)", data).tidy()
    assert mixed[["term", "group"]].to_numpy().tolist() == [
        ["Intercept", ""], ["x", ""], ["scale", ""], ["sd(Intercept | g)", "g"],
    ]  # fmt: skip


def test_glance_has_r_s_deviance_and_r_squared(counts: th.Fit, line: th.Fit) -> None:
    """R 4: deviance, logLik, AIC and BIC of the glm; deviance and r.squared of lm(y ~ x), r.squared of lm(y ~ x - 1)."""
    found = counts.glance().iloc[0]
    said = {
        "deviance": 4.20008143154,
        "log_likelihood": -13.2372478079,
        "AIC": 34.4744956159,
        "BIC": 34.7922617826,
    }
    np.testing.assert_allclose([found[name] for name in said], list(said.values()), rtol=1e-10)
    assert found["status"] == "certified maximum"
    assert np.isnan(found["r_squared"])
    own = line.glance().iloc[0]
    np.testing.assert_allclose(
        [own["r_squared"], own["deviance"]], [0.814209276013, 10.9384288747], rtol=1e-10
    )
    origin = th.fit("y ~ x - 1", FRAME).glance().iloc[0]
    np.testing.assert_allclose(origin["r_squared"], 0.938576135224, rtol=1e-10)


def test_augment_has_r_s_fitted_values_errors_and_hat_values(counts: th.Fit, line: th.Fit) -> None:
    """R 4, f of the same call: predict(f, type = "response", se.fit = TRUE), hatvalues(f)."""
    found = counts.augment()
    assert found.index.equals(FRAME.index)
    np.testing.assert_allclose(found["fitted"][:2], [0.957742937974, 1.146537529891], rtol=1e-8)
    np.testing.assert_allclose(found["standard_error"][:2], [0.568574821596, 0.693909805554], rtol=1e-8)
    np.testing.assert_allclose(found["leverage"][:2], [0.337540810729, 0.419969521879], rtol=1e-8)
    own = line.augment()
    np.testing.assert_allclose(own["standard_error"][:2], [0.868777771468, 0.606391629140], rtol=1e-8)
    np.testing.assert_allclose(own["leverage"][:2], [0.414012738854, 0.201698513800], rtol=1e-8)


def test_augment_leaves_rows_where_they_are() -> None:
    """A row that the fit left out has no fitted value, and the rows after it keep theirs."""
    data = FRAME.assign(x=[0.0, np.nan, *DATA["x"][2:]])
    found = th.fit("y ~ x", data).augment()
    assert found["fitted"].isna().tolist() == [False, True] + [False] * 6
    kept = th.fit("y ~ x", data.drop(index="row 1")).augment()
    np.testing.assert_allclose(found["fitted"].dropna(), kept["fitted"], rtol=1e-12)


def test_augment_of_new_rows_has_residuals_where_it_has_the_response(line: th.Fit) -> None:
    new = FRAME.iloc[:3]
    full, bare = line.augment(new), line.augment(new[["x"]])
    np.testing.assert_allclose(full["quantile_residual"], line.residuals()[:3], rtol=1e-10)
    assert list(bare.columns) == ["x", "fitted", "standard_error"]
    with pytest.raises(BadArgument, match="fitted"):
        line.augment(new.assign(fitted=1.0))


def test_answers_are_of_the_kind_of_the_data(line: th.Fit) -> None:
    pl = pytest.importorskip("polars")
    data = pl.DataFrame(DATA)
    for given in (data, data.lazy()):
        fit = th.fit("y ~ x", given)
        for answer in (fit.tidy(), fit.glance(), fit.augment()):
            assert isinstance(answer, pl.DataFrame)
        assert fit.augment()["y"].to_list() == DATA["y"]
        np.testing.assert_array_equal(fit.tidy()["estimate"].to_numpy(), line.tidy()["estimate"].to_numpy())
    assert isinstance(line.tidy(), pd.DataFrame)


@pytest.mark.parametrize("family", ["categorical", "cox", "ordinal(levels=('u', 'v', 'w'))"])
def test_a_model_without_a_mean_is_told_by_what_it_has(family: str) -> None:
    if family == "cox":
        found = th.fit(
            "Surv(x, e) ~ z",
            {"x": [1.0, 2, 3, 4, 5, 6], "e": [1, 1, 0, 1, 1, 1], "z": [1.0, 0, 1, 0, 0, 1]},
            "cox",
        )
        assert "linear" in found.augment().columns
        assert found.tidy()["term"].tolist() == ["z"]
        return
    rng = np.random.default_rng(1)
    data = {"k": rng.choice(list("uvw"), 60), "x": rng.normal(size=60)}
    found = th.fit("k ~ x", data, family).augment()
    shares = found[[f"fitted[{k}]" for k in "uvw"]].to_numpy()
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-12)


def test_a_fit_without_a_maximum_has_estimates_and_no_errors() -> None:
    data = {"y": [0, 0, 0, 1, 1, 1], "x": [1.0, 2, 3, 4, 5, 6]}
    fit = th.fit("y ~ x", data, "bernoulli", on_failure="return")
    assert fit.tidy()["standard_error"].isna().all()
    assert fit.glance()["status"][0] == "no maximum"
    shown = str(th.table([fit]))
    assert "no maximum" in shown
    assert "(1): Standard errors belong to a certified maximum" in " ".join(shown.split())


# ---- several fits ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def several() -> th.report.table.RegressionTable:
    rng = np.random.default_rng(0)
    n = 60
    x = rng.normal(size=n)
    data = {"x": x, "y": x + rng.normal(size=n), "g": np.tile(list("abc"), n // 3), LONG: rng.normal(size=n)}
    fits = [
        th.fit("y ~ x", data),
        th.fit("y ~ x + g", data, scale="~ x"),
        th.fit("y ~ x + (1 | g)", data),
        th.fit(f"y ~ x + {LONG}", data),
    ]
    return th.table(fits, stars=True)


def test_every_cell_and_every_name_is_printed_within_eighty_columns(several) -> None:
    text = str(several)
    assert max(map(len, text.splitlines())) <= 80
    for row in several.rows:
        for cell in row.cells:
            assert cell in text
        assert "".join(row.label.split()) in "".join(text.split())
    assert [name for name, _ in several.columns] == ["(1)", "(2)", "(2)", "(3)", "(4)"]
    assert [parameter for _, parameter in several.columns] == ["mean", "mean", "scale", "mean", "mean"]


def test_each_form_holds_every_cell(several) -> None:
    root = tree.fromstring(several.to_html())
    body = [[("".join(cell.itertext())) for cell in line] for line in root.iter("tr")]
    assert [line[0] for line in body[2:-1]] == [row.label for row in several.rows]
    for line, row in zip(body[2:-1], several.rows, strict=True):
        assert tuple(line[1:]) == row.cells
    latex = several.to_latex()
    begun = latex[latex.index("\\midrule") : latex.index("bottomrule")]
    rows = [line for line in begun.splitlines() if line.endswith(r"\\")]
    assert len(rows) == len(several.rows)
    assert all(line.count(" & ") == 5 for line in rows if "multicolumn" not in line)
    assert "−" not in latex
    markdown = [line for line in several.to_markdown().splitlines() if line.startswith("|")]
    assert {
        len(line.replace(r"\|", "")) - len(line.replace(r"\|", "").replace("|", "")) for line in markdown
    } == {7}
    typst = several.to_typst()
    assert typst.count("\n  [") + typst.count("\n  table.cell(") == len(several.rows)
    assert several.frame.shape == (len(several.rows), 5)


def test_word_has_the_table_or_names_the_extra(
    several, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "docx", None)
    with pytest.raises(MissingExtra, match="docx"):
        several.to_docx(tmp_path / "table.docx")
    monkeypatch.undo()
    docx = pytest.importorskip("docx")
    found = docx.Document(str(several.to_docx(tmp_path / "table.docx"))).tables[0]
    cells = [[cell.text for cell in row.cells] for row in found.rows][2:]
    assert [line[0] for line in cells] == [row.label for row in several.rows]
    assert [tuple(line[1:]) for line in cells] == [row.cells or ("",) * 5 for row in several.rows]


def test_estimates_are_those_of_the_fits(counts: th.Fit, line: th.Fit) -> None:
    shown = th.table(
        {"counts": counts, "line": line}, intervals=True, statistics=["deviance"], keep="x"
    ).frame
    assert shown.loc["x"].tolist() == ["0.649", "1.805"]
    assert shown.iloc[1].tolist() == ["[0.233, 1.066]", "[0.944, 2.666]"]  # R: confint.default, confint
    assert shown.loc["Deviance"].tolist() == ["4.2001", "10.938"]
    assert "Intercept" not in shown.index


def test_terms_are_chosen_and_renamed(counts: th.Fit) -> None:
    found = th.table(
        [counts], drop=["Intercept", r"^g"], rename={"x": "Age", "AIC": "Akaike"}, names=["claims"]
    )
    assert found.columns == (("claims", ""),)
    assert [row.label for row in found.rows if row.label] == [
        "Age",
        "Observations",
        "Log-likelihood",
        "Akaike",
        "BIC",
    ]
    stars = th.table([counts], stars=True).frame
    assert stars.loc["x"].tolist() == ["0.649**"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep": "age"}, "'age' finds no term. Terms: Intercept, x"),
        ({"drop": "("}, "not a regular expression"),
        ({"statistics": ["aic"]}, "'aic'. Accepted: observations"),
        ({"names": ["a", "b"]}, "1 different names"),
        ({"level": 2.0}, "between 0 and 1"),
    ],
)
def test_what_is_not_there_is_refused_by_name(line: th.Fit, settings, message: str) -> None:
    with pytest.raises(BadArgument) as error:
        th.table([line], **settings)
    assert message in str(error.value)


def test_table_takes_fits_alone(line: th.Fit) -> None:
    with pytest.raises(BadArgument, match="received int"):
        th.table([line, 3])
    with pytest.raises(BadArgument, match="received none"):
        th.table([])


def test_names_are_escaped_in_each_form() -> None:
    name = "50% <b> & $x_1$ #|*"
    fit = th.fit(f"y ~ `{name}`", {"y": DATA["y"], name: DATA["x"]})
    found = th.table([fit])
    assert any("".join(c.itertext()) == name for c in tree.fromstring(found.to_html()).iter("th"))
    assert r"50\% \textless{}b\textgreater{} \& \$x\_1\$ \#\textbar{}*" in found.to_latex()
    assert r"50% \<b\> & \$x\_1\$ \#|\*" in found.to_typst()
    assert r"50% \<b\> & $x\_1$ #\|\*" in found.to_markdown()


def test_maketables_reads_a_fit(line: th.Fit) -> None:
    """By its plug-in interface: attributes alone, whether it is installed or not."""
    table = line.__maketables_coef_table__
    assert table.index.name == "Coefficient"
    assert list(table.columns) == ["b", "se", "t", "p", "ci95l", "ci95u"]
    assert line.__maketables_stat__("N") == 8
    assert line.__maketables_stat__("r2") == pytest.approx(0.814209276013, rel=1e-10)
    assert line.__maketables_stat__("adj_r2") is None
    assert line.__maketables_depvar__ == "y"


def test_the_summary_is_eighty_columns_wide_and_cuts_nothing() -> None:
    level = "c level with quite a long name indeed, and more of it than a line can hold beside its numbers"
    data = {"y": np.array(DATA["y"]) * 3e5, LONG: np.array(DATA["x"]) * 1e-7, "h": [level, "b"] * 4}
    text = str(th.fit(f"y ~ {LONG} + h", data).summary())
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert LONG in "".join(text.split())
    assert f"h[T.{level}]".replace(" ", "") in "".join(text.split())


def test_fits_are_compared_in_a_list(line: th.Fit) -> None:
    other = th.fit("y ~ 1", FRAME)
    found, named = th.compare([line, other]), th.compare({"(1)": line, "(2)": other})
    assert str(found) == str(named)
    with pytest.raises(BadArgument, match="in a list"):
        th.compare([line])
