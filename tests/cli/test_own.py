"""A likelihood of one's own from the command: what th.fit says of it, and no traceback of its own errors."""

import json

import pandas as pd
import pytest

import thetahat as th

MODELS = """
import torch
import thetahat as th


@th.model(asymptote=200.0, middle=725.0, scale=350.0, sigma=th.positive(8.0), b=th.latent(by="tree", sd=30.0))
def growth(batch, asymptote, middle, scale, sigma, b):
    mean = (asymptote + b) / (1 + torch.exp(-(batch["age"] - middle) / scale))
    return th.families.Normal().at(mean, sigma)


@th.model(asymptote=200.0, middle=725.0, scale=350.0, sigma=th.positive(8.0))
def alike(batch, asymptote, middle, scale, sigma):
    mean = asymptote / (1 + torch.exp(-(batch["age"] - middle) / scale))
    return th.families.Normal().at(mean, sigma)


@th.model(asymptote=200.0, middle=725.0, scale=350.0, sigma=th.positive(20.0), b=th.latent(by="tree", sd=80.0))
def early(batch, asymptote, middle, scale, sigma, b):
    mean = asymptote / (1 + torch.exp(-(batch["age"] - middle - b) / scale))
    return th.families.Normal().at(mean, sigma)


def function(batch):
    return 0.0
"""
AGE = [118, 484, 664, 1004, 1231, 1372, 1582]
GIRTH = [
    [30, 58, 87, 115, 120, 142, 145],
    [33, 69, 111, 156, 172, 203, 203],
    [30, 51, 75, 108, 115, 139, 140],
    [32, 62, 112, 167, 179, 209, 214],
    [30, 49, 81, 125, 142, 174, 177],
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """models.py, orange.csv, and a fit of each model by the command."""
    path = tmp_path_factory.mktemp("own")
    (path / "models.py").write_text(MODELS)
    (path / "broken.py").write_text("x = 1 / 0\n")
    rows = [(tree, age, y) for tree, own in enumerate(GIRTH) for age, y in zip(AGE, own, strict=True)]
    pd.DataFrame(rows, columns=["tree", "age", "y"]).to_csv(path / "orange.csv", index=False)
    return path


def fitted(run, name):
    if not pd.io.common.file_exists(f"{name}.thetahat"):
        assert run("fit", "--model", f"models.py:{name}", "orange.csv", "--save", f"{name}.thetahat")[0] == 0
    return f"{name}.thetahat"


def test_a_fit_with_latent_variables_is_that_of_nlmer(run):
    """lme4's nlmer and nlme of the orange trees: log-likelihood −131.57, sd 31.646."""
    code, out, _ = run(
        "fit",
        "orange.csv",
        "--model=models.py:growth",
        "--json",
        "--save",
        "growth.thetahat",
        "--report",
        "growth.html",
    )
    told = json.loads(out)
    assert code == 0
    assert told["log_likelihood"]["nats"] == pytest.approx(-131.5719, abs=1e-4)
    assert told["certificate"]["status"] == "certified maximum"
    with open("growth.html", encoding="utf-8") as file:
        assert "asymptote" in file.read()
    code, out, _ = run("fit", "orange.csv", "--model", "models.py:growth", "--level", "0.9")
    assert code == 0
    assert "sd(b | tree)" in out
    assert "90% low" in out


def test_more_nodes_of_quadrature_priors_and_weights_are_passed_on(run):
    said = [
        json.loads(run("fit", "orange.csv", "--model", "models.py:early", "--json", *more)[1])[
            "log_likelihood"
        ]["nats"]
        for more in ([], ["--quadrature", "9"])
    ]
    assert said[0] != said[1]
    assert said[1] == pytest.approx(said[0], abs=0.1)
    code, out, _ = run(
        "fit",
        "orange.csv",
        "--model",
        "models.py:alike",
        "--prior",
        "normal:1:location=100:on=theta.asymptote",
        "--json",
    )
    assert code == 0
    held = {row["name"]: row["estimate"] for row in json.loads(out)["estimates"]}
    assert 99 < held["asymptote"] < 105
    code, _, err = run("fit", "orange.csv", "--model", "models.py:alike", "--weights", "nothing")
    assert code == 3
    assert "nothing" in err


def test_what_is_done_with_the_fit_takes_the_model_again(run):
    fit, table = fitted(run, "alike"), "orange.csv"
    model = ["--model", "models.py:alike"]
    code, out, _ = run("predict", fit, table, *model, "--level", "0.9")
    assert code == 0
    assert out.splitlines()[0] == "value,low,high"
    assert len(out.splitlines()) == 36
    code, out, _ = run("score", fit, table, *model, "--json")
    assert code == 0
    expected = json.loads(run("fit", table, *model, "--json")[1])["log_likelihood"]["nats"]
    assert json.loads(out)["total"] == pytest.approx(expected, abs=1e-9)
    assert run("sample", fit, table, *model, "-n", "2")[0] == 0
    assert run("report", fit, table, *model, "-o", "alike.html")[0] == 0
    code, _, err = run("predict", fit, table)
    assert code == 2
    assert "--model FILE.py:alike" in err
    code, _, err = run("predict", fit, table, "--model", "models.py:growth")
    assert code == 2
    assert "alike" in err


def test_fits_of_several_models_are_compared(run, folder):
    fits = [fitted(run, "alike"), "line.thetahat"]
    th.fit("y ~ age", str(folder / "orange.csv")).save("line.thetahat")
    code, out, _ = run("compare", *fits, "--data", "orange.csv", "--model", "models.py:alike", "--json")
    assert code == 0
    assert "line" in out
    code, _, err = run("compare", *fits, "--data", "orange.csv", *["--model", "models.py:alike"] * 3)
    assert code == 2
    assert "given 3 times, and 1 of the fits" in err
    code, _, err = run("compare", fits[1], fits[1], "--data", "orange.csv", "--model", "models.py:alike")
    assert code == 2


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("models.py", "FILE.py:NAME"),
        ("nothing.py:growth", "nothing.py is not a file"),
        ("models.py:shrink", "no attribute 'shrink'"),
        ("models.py:function", "is a function, not a model"),
        ("models.py:MODELS", "no attribute"),
        ("broken.py:growth", "ZeroDivisionError: division by zero"),
        ("no_such_module:growth", "No module named"),
    ],
)
def test_what_is_not_a_model_is_said(run, model, message):
    code, out, err = run("fit", "--model", model, "orange.csv")
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_the_help_says_how_it_is_written(run):
    code, out, _ = run("fit", "--model", "growth.py:growth", "--help")
    assert code == 0
    assert "@th.model" in out
    assert max(map(len, out.splitlines()[1:])) <= 80
    assert "FILE.py:NAME" in run("fit", "--help")[1]
    code, _, err = run("fit", "y ~ age", "orange.csv", "--model", "models.py:growth")
    assert code == 2
    assert "orange.csv" in err


def test_a_run_takes_no_model(run, tmp_path):
    (tmp_path / "run").mkdir()
    code, _, err = run("predict", tmp_path / "run", "orange.csv", "--model", "models.py:growth")
    assert code == 2
    assert "Leave it out" in err
