"""The command says what the library says, on the right stream, with the right exit code, and never with a
traceback of its own errors."""

import io
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import thetahat as th
from thetahat import cli, tour
from thetahat.cli.align import Align
from thetahat.cli.arguments import COMMANDS, parse

CLAIMS = "claims ~ age + C(region)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """claims.csv with two missing ages, new.csv without the response, and two saved fits."""
    path = tmp_path_factory.mktemp("claims")
    r = np.random.default_rng(0)
    n = 120
    frame = pd.DataFrame(
        {"age": r.normal(size=n).round(3), "region": r.choice(["north", "south", "west"], n)}
    )
    frame["claims"] = r.negative_binomial(2, 2 / (2 + np.exp(0.5 + 0.4 * frame["age"])))
    frame["n"] = r.integers(1, 4, n)
    frame["firm"] = r.integers(0, 20, n)
    frame["high"] = (frame["age"] > 0).map({True: "yes", False: "no"})
    frame.to_csv(path / "whole.csv", index=False)
    frame.loc[[3, 7], "age"] = np.nan
    frame.to_csv(path / "claims.csv", index=False)
    frame.dropna().head(8)[["age", "region"]].to_csv(path / "new.csv", index=False)
    for family in ("poisson", "negative_binomial", "normal"):
        th.fit(CLAIMS, str(path / "whole.csv"), family).save(path / f"{family}.thetahat")
    return path


def strict(text):
    """JSON as RFC 8259 has it: NaN and Infinity are refused."""

    def refuse(literal):
        raise AssertionError(f"{literal} is no JSON")

    return json.loads(text, parse_constant=refuse)


# ---- fit ---------------------------------------------------------------------------------------------------


def test_fit_prints_the_summary_and_nothing_else(run, folder):
    """The library's own summary, at 80 columns, is what stands on stdout."""
    code, out, err = run("fit", CLAIMS, "claims.csv", "--family", "poisson")
    fit = th.fit(CLAIMS, "claims.csv", "poisson")
    assert (code, err) == (0, "")
    assert f"{fit.estimates['age']:.4f}"[:5] in out.replace("−", "-")
    assert "2 rows dropped for a missing value" in out
    assert "Certified global maximum" in out
    assert max(map(len, out.splitlines())) <= 80


def test_every_option_of_fit_reaches_the_library(run, folder):
    """Python's th.fit with the same arguments: the same numbers to the last bit."""
    words = [
        "fit",
        CLAIMS,
        "claims.csv",
        "--family",
        "negative_binomial",
        "--set",
        "dispersion=~ age",
        "--weights",
        "n",
    ]
    words += [
        "--prior",
        "normal:2.5",
        "--prior",
        "student_t:1.5:df=3:on=dispersion: age",
        "--missing",
        "drop",
        "--level",
        "0.9",
    ]
    code, out, _ = run(*words, "--by", "firm", "--json")
    priors = [th.priors.Normal(2.5), th.priors.StudentT(1.5, df=3.0, on="dispersion: age")]
    fit = th.fit(CLAIMS, "claims.csv", "negative_binomial", dispersion="~ age", weights="n", prior=priors)
    found = strict(out)
    assert code == 0
    assert found["level"] == 0.9
    assert [e["name"] for e in found["estimates"]] == fit.names
    assert [e["estimate"] for e in found["estimates"]] == fit.estimates.tolist()
    assert [e["standard_error"] for e in found["estimates"]] == fit.standard_errors(
        "cluster", by="firm"
    ).tolist()
    assert [e["low"] for e in found["estimates"]] == fit.intervals(0.9, covariance="cluster", by="firm")[
        "low"
    ].tolist()
    assert found["certificate"]["status"] == fit.certificate.status


def test_held_parameters_and_sandwich(run):
    code, out, _ = run(
        "fit",
        CLAIMS,
        "claims.csv",
        "--family",
        "student_t",
        "--set",
        "df=4",
        "--covariance",
        "sandwich",
        "--json",
    )
    fit = th.fit(CLAIMS, "claims.csv", "student_t", df=4)
    assert code == 0
    assert [e["standard_error"] for e in strict(out)["estimates"]] == fit.standard_errors("sandwich").tolist()


def test_save_writes_a_fit_that_loads(run, tmp_path):
    path = tmp_path / "a.thetahat"
    code, out, err = run("fit", CLAIMS, "claims.csv", "--family", "poisson", "--save", path, "--json")
    assert code == 0
    assert strict(out)["saved"] == str(path)
    assert "a.thetahat" in err.replace("\n", "")
    assert th.load(path).estimates.tolist() == [e["estimate"] for e in strict(out)["estimates"]]


def test_report_writes_html(run, tmp_path):
    path = tmp_path / "a.html"
    code, out, _ = run("fit", CLAIMS, "claims.csv", "--family", "poisson", "--report", path, "--json")
    assert code == 0
    assert strict(out)["report"] == str(path)
    assert path.read_text().lstrip().lower().startswith("<!doctype html")
    code, out, _ = run("report", "poisson.thetahat", "whole.csv", "-o", tmp_path / "b.html", "--json")
    assert (code, strict(out)) == (0, {"report": str(tmp_path / "b.html")})


def test_a_report_of_other_data_is_refused(run, tmp_path):
    code, _, err = run("report", "poisson.thetahat", "claims.csv", "-o", tmp_path / "b.html")
    assert code == 3
    assert "other data" in err
    assert not list(tmp_path.iterdir())


# ---- exit codes --------------------------------------------------------------------------------------------

FAILURES = [
    (1, "NoMaximum", ["fit", "high ~ age", "claims.csv", "--family", "bernoulli"]),
    (1, "FlatDirection", ["fit", "claims ~ age + I(2*age)", "claims.csv"]),
    (2, "BadArgument", ["fit", CLAIMS, "claims.csv", "--family", "poison"]),
    (2, "BadFormula", ["fit", "claims ~ age +* region", "claims.csv"]),
    (2, "BadArgument", ["fit", CLAIMS, "claims.csv", "--set", "dispersion"]),
    (2, "BadArgument", ["fit", CLAIMS, "claims.csv", "--set", "weights=n"]),
    (2, "BadArgument", ["fit", CLAIMS, "claims.csv", "--prior", "normal:wide"]),
    (2, "BadArgument", ["fit", CLAIMS, "claims.csv", "--prior", "cauchy:1"]),
    (2, "BadArgument", ["fit", CLAIMS, "claims.csv", "--prior", "normal:1:df=3"]),
    (2, "BadArgument", ["fit", CLAIMS, "claims.csv", "--level", "95"]),
    (2, "BadArgument", ["fit", CLAIMS, "claims.csv", "--covariance", "cluster"]),
    (3, "UnknownColumn", ["fit", CLAIMS, "claims.csv", "--by", "firms"]),
    (2, "BadArgument", ["fit", CLAIMS, "claims.csv", "--save", "nowhere/a.thetahat"]),
    (2, "BadArgument", ["fit", CLAIMS, "claims.csv", "--save", "claims.csv"]),
    (2, "BadArgument", ["fit", CLAIMS, "claims.csv", "--save", "new.csv"]),
    (2, "BadArgument", ["fit", CLAIMS, "claims.csv", "--report", "whole.csv"]),
    (2, "BadArgument", ["compare", "poisson.thetahat", "--data", "whole.csv"]),
    (2, "BadArgument", ["sample", "poisson.thetahat", "new.csv", "-o", "whole.csv"]),
    (2, "BadArgument", ["sample", "poisson.thetahat", "new.csv", "-n", "0"]),
    (3, "UnknownColumn", ["fit", "claims ~ agee", "claims.csv"]),
    (3, "MalformedFile", ["fit", CLAIMS, "none.csv"]),
    (3, "OutOfSupport", ["fit", "age ~ 1", "claims.csv", "--family", "poisson"]),
    (3, "NotFinite", ["fit", CLAIMS, "claims.csv", "--missing", "raise"]),
    (3, "BadSave", ["score", "claims.csv", "claims.csv"]),
    (3, "BadSave", ["score", "none.thetahat", "claims.csv"]),
    (3, "UnknownColumn", ["score", "poisson.thetahat", "new.csv"]),
    (4, "IncomparableScores", ["compare", "poisson.thetahat", "normal.thetahat", "--data", "whole.csv"]),
]


@pytest.mark.parametrize(("code", "name", "words"), FAILURES, ids=[" ".join(w[-3:]) for _, _, w in FAILURES])
def test_a_failure_has_its_code_its_name_and_no_traceback(run, folder, code, name, words):
    """By the tree of thetahat.errors; --json puts the same on stdout."""
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    found, out, err = run(*words)
    assert found == code
    assert out == ""
    assert err.startswith(f"{name}: ")
    assert "Traceback" not in err
    found, out, err = run(*words, "--json")
    assert found == code
    error = strict(out)["error"]
    assert error["type"] == name
    assert error["message"]
    assert ("certificate" in error) == (code == 1)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_traceback_is_shown_on_request(run):
    code, _, err = run("fit", CLAIMS, "none.csv", "--traceback")
    assert code == 3
    assert "Traceback (most recent call last)" in err


def test_on_failure_return_prints_the_fit_and_still_exits_with_1(run):
    code, out, _ = run(
        "fit", "high ~ age", "claims.csv", "--family", "bernoulli", "--on-failure", "return", "--json"
    )
    assert code == 1
    assert strict(out)["certificate"]["status"] == "no maximum"


def test_an_error_of_thetahat_itself_has_a_code_of_its_own(run, monkeypatch):
    monkeypatch.setattr(sys.modules["thetahat.fitting"], "fit", lambda *_, **__: 1 / 0)
    code, _, err = run("fit", CLAIMS, "claims.csv")
    assert code == 70
    assert "ZeroDivisionError" in err


USAGE = [
    [],
    ["fti"],
    ["fit"],
    ["fit", "y ~ x"],
    ["fit", CLAIMS, "claims.csv", "--famly", "poisson"],
    ["sample", "a", "b", "-n", "x"],
]


@pytest.mark.parametrize("words", USAGE)
def test_usage_errors_exit_with_2_and_point_to_help(run, words):
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert "--help" in err


# ---- score, compare, sample, tour --------------------------------------------------------------------------


def test_score_is_the_fits_own(run):
    code, out, _ = run("score", "poisson.thetahat", "whole.csv", "--json")
    score = th.load("poisson.thetahat").score("whole.csv")
    assert code == 0
    assert strict(out)["total"] == score.total
    fitted = th.fit(
        CLAIMS, "whole.csv", "poisson"
    ).log_likelihood  # summed in another order, by the compiled sums
    assert score.total == pytest.approx(fitted, rel=4e-16)
    code, out, _ = run("score", "poisson.thetahat", "whole.csv")
    assert "exact log mass of claims" in out


def test_rows_that_surprise_a_fit_are_flagged_beside_a_reference(run, folder):
    """One count of a thousand among forty rows like the others."""
    rows = pd.read_csv(folder / "whole.csv")
    odd = rows.tail(12).reset_index(drop=True)
    odd.loc[5, "claims"] = 1000
    odd.to_csv(folder / "odd.csv", index=False)
    words = ["score", "negative_binomial.thetahat", "odd.csv", "--against", "whole.csv"]
    code, out, _ = run(*words, "--level", "0.2", "--json")
    found = strict(out)
    assert (code, found["flagged"]) == (0, [5])
    assert found["difference"] < 0
    code, out, _ = run(*words)
    assert code == 0
    assert "reference" in out
    assert max(map(len, out.splitlines())) <= 80
    code, _, err = run("score", "negative_binomial.thetahat", "odd.csv", "--against", "none.csv")
    assert code == 3
    assert "none.csv" in err


def test_ratings_are_a_command_and_columns_that_are_not_read_are_named(run, folder):
    games = th.data.shipped("baseball")
    code, out, _ = run(
        "fit", "reward", games, "--count", "games", "--save", "league.thetahat", "--report", "league.html"
    )
    assert code == 0
    assert "Milwaukee" in out.splitlines()[1]
    assert th.load(folder / "league.thetahat").certificate.ok
    assert (folder / "league.html").stat().st_size > 5000
    code, out, _ = run("fit", "reward", games)
    assert "columns that were not read: games" in out
    code, _, err = run("fit", "reward", games, "--network", "folder")
    assert code == 2
    assert "a table of items" in err


def test_a_robust_fit_is_a_word(run):
    formula, data = "loss ~ air_flow + water_temperature + acid", th.data.shipped("stackloss")
    code, out, _ = run("fit", formula, data, "--robust", "density_power:0.5", "--json")
    assert code == 0
    found = th.fit(formula, data, robust=th.DensityPower(0.5))
    assert strict(out)["log_likelihood"]["nats"] == pytest.approx(found.log_likelihood, abs=1e-9)
    code, _, err = run("fit", formula, data, "--robust", "median")
    assert code == 2
    assert "trimmed:0.75" in err


def test_compare_names_fits_by_their_files(run):
    code, out, _ = run(
        "compare", "poisson.thetahat", "negative_binomial.thetahat", "--data", "whole.csv", "--json"
    )
    found = strict(out)
    assert code == 0
    assert found["best"] == "negative_binomial"
    assert set(found["scores"]) == {"poisson", "negative_binomial"}
    code, out, _ = run("compare", "poisson.thetahat", "negative_binomial.thetahat", "--data", "whole.csv")
    assert out.index("negative_binomial") < out.index("\npoisson")


def test_sample_gives_the_same_draws_for_the_same_seed(run, tmp_path):
    """fit.sample with that seed; counts are whole numbers."""
    expected = th.load("negative_binomial.thetahat").sample(5, "new.csv", seed=3)
    words = ["sample", "negative_binomial.thetahat", "new.csv", "-n", 5, "--seed", 3]
    code, out, _ = run(*words)
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "draw_1,draw_2,draw_3,draw_4,draw_5"
    assert np.array_equal(np.array([line.split(",") for line in lines[1:]], dtype=int).T, expected)
    assert strict(run(*words, "--json")[1])["draws"] == expected.tolist()
    for name, read in (("d.csv", pd.read_csv), ("d.parquet", pd.read_parquet)):
        code, out, err = run(*words, "--out", tmp_path / name)
        assert (code, out) == (0, "")
        assert "8 rows of 5 draws" in err.replace("\n", " ")
        assert np.array_equal(read(tmp_path / name).to_numpy().T, expected)
    assert run(*words, "--out", tmp_path / "d.csv")[0] == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d.csv", "d.parquet"]


def test_tour_shows_its_rows(run, monkeypatch, tmp_path):
    """The first two systems, which take no time; an answer that is not the known one is exit code 1."""
    monkeypatch.setattr(tour, "SYSTEMS", dict(list(tour.SYSTEMS.items())[:2]))
    code, out, _ = run("tour", "--quick", "--html", tmp_path / "t.html")
    assert code == 0
    assert "linear regression" in out
    assert "linear regression" in (tmp_path / "t.html").read_text()
    code, out, _ = run("tour", "--quick", "--json")
    assert code == 0
    assert [row["agrees"] for row in strict(out)["rows"]] == [True, True]
    wrong = tour.Row("a", "b", "c", "nats", 0.0, float("nan"), "none", "other", agrees=False)
    monkeypatch.setattr(tour, "SYSTEMS", {"wrong": lambda quick: wrong})
    code, out, _ = run("tour", "--json")
    assert code == 1
    assert strict(out)["rows"][0]["after"] is None


# ---- help --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits_a_terminal_shows_examples_and_the_exit_codes(run, name):
    code, out, err = run(*([name] if name else []), "--help")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines()[1:])) <= 80  # tyro leaves the line of usage to the terminal
    assert "Exit codes:" in out
    assert f"  thetahat {name or 'fit'}" in out
    assert "None" not in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_of_the_help_is_understood(name):
    """Each is parsed as the shell would hand it over."""
    import shlex

    lines = COMMANDS[name][2].replace("\\\n", " ").splitlines()
    examples = [
        shlex.split(line.split("|")[0].split(" > ")[0]) for line in lines if line.startswith("  thetahat")
    ]
    assert any(words[1] == name for words in examples)
    for words in examples:  # those of others, what comes before or after
        kind = Align if name == "align" else COMMANDS[name][0]
        assert isinstance(parse(words[1:]), kind if words[1] == name else object)


# ---- as a process ------------------------------------------------------------------------------------------

COMMAND = [sys.executable, "-c", "from thetahat.cli import main; raise SystemExit(main())"]


def test_the_process_has_the_code_and_the_streams(folder):
    """One call that fails, piped and without a terminal: JSON on stdout, the message on stderr, 1 to the
    shell."""
    words = ["fit", "high ~ age", "claims.csv", "--family", "bernoulli", "--json"]
    done = subprocess.run([*COMMAND, *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 1
    assert strict(done.stdout)["error"]["type"] == "NoMaximum"
    assert done.stderr.startswith("NoMaximum: the likelihood has no maximum")
    assert "--prior normal:2.5;" in done.stderr
    assert "--on-failure return" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_version_loads_no_table_reader_and_no_scipy(folder):
    code = (
        "import sys; from thetahat.cli import main; main(['--version']); "
        "print([m for m in ('pandas', 'pyarrow', 'scipy', 'tyro', 'altair') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.stdout.splitlines() == [f"thetahat {th.__version__}", "[]"]


@pytest.mark.parametrize(("encoding", "interval"), [("ascii", "-2.2"), ("cp1252", "-2.2"), ("utf-8", "−2.2")])
def test_a_terminal_without_greek_shows_the_nearest_ascii_and_no_error(
    folder, monkeypatch, capsys, encoding, interval
):
    """In this process; the test below has one of its own."""
    monkeypatch.chdir(folder)
    written = io.BytesIO()
    with io.TextIOWrapper(written, encoding=encoding) as terminal:
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", terminal)
            assert cli.main(["fit", "claims ~ age", "claims.csv", "--family", "poisson"]) == 0
        terminal.flush()
        shown = written.getvalue().decode(encoding)
    assert capsys.readouterr().err == ""
    assert "Certified global maximum" in shown
    assert interval[0] in shown
    assert "?" not in shown


def test_python_prints_a_summary_where_standard_output_is_not_unicode(folder):
    """print(fit.summary()) of a negative estimate: U+2212 has no place in cp1252."""
    code = "import thetahat as th; f = th.fit('y ~ x', {'y': [3.0, 2.5, 0.5, 0.0], 'x': [0.0, 1.0, 2.0, 3.0]}); print(f.summary(), f, f.score())"
    environment = {"PYTHONIOENCODING": "cp1252", "PATH": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert b"-1.1" in done.stdout
