"""`thetahat predict`, `export`, `compare` of runs, and runs that are made longer or begun at another's parameters."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

import thetahat as th
from thetahat.cli import main

SHAPE = ["--context", "16", "--layers", "1", "--width", "16", "--heads", "2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A saved line, two runs of a language model, and one of a classifier."""
    out = tmp_path_factory.mktemp("deploy")
    rng = np.random.default_rng(0)
    pd.DataFrame({"y": rng.normal(size=30), "x": np.arange(30.0)}).to_csv(out / "d.csv", index=False)
    assert main(["fit", "y ~ x", str(out / "d.csv"), "--save", str(out / "y.thetahat")]) == 0
    (out / "a.txt").write_text("\n".join(f"This is line {i} of {i * i}." for i in range(40)))
    for name, seed in (("one", "0"), ("two", "1")):
        asked = ["fit", "gpt", str(out / "a.txt"), "--steps", "4", "--run", str(out / name), "--seed", seed]
        assert main([*asked, *SHAPE]) == 0
    np.save(out / "images.npy", rng.integers(0, 4, (40, 6, 6)).astype(np.uint8))
    np.save(out / "labels.npy", rng.integers(0, 2, 40))
    asked = [
        "fit",
        "classifier",
        str(out / "images.npy"),
        str(out / "labels.npy"),
        "--levels",
        "4",
        "--steps",
        "3",
    ]
    assert main([*asked, "--channels", "4", "--run", str(out / "classes")]) == 0
    return out


def test_predictions_are_those_of_the_fit_row_by_row(folder, capsys):
    assert (
        main(["predict", str(folder / "y.thetahat"), str(folder / "d.csv"), "--level", "0.9", "--json"]) == 0
    )
    found = pd.DataFrame(json.loads(capsys.readouterr().out))
    wanted = th.load(folder / "y.thetahat").predict(str(folder / "d.csv"), level=0.9)
    np.testing.assert_allclose(found[["value", "low", "high"]], wanted[["value", "low", "high"]], rtol=1e-12)
    assert (
        main(["predict", str(folder / "y.thetahat"), str(folder / "d.csv"), "-o", str(folder / "p.csv")]) == 0
    )
    np.testing.assert_allclose(pd.read_csv(folder / "p.csv")["value"], wanted["value"], rtol=1e-12)
    assert (
        main(["predict", str(folder / "y.thetahat"), str(folder / "d.csv"), "-o", str(folder / "p.csv")]) == 2
    )


def test_a_classifiers_run_predicts_the_probability_of_each_class(folder, capsys):
    assert main(["predict", str(folder / "classes"), str(folder / "images.npy"), "--json"]) == 0
    found = pd.DataFrame(json.loads(capsys.readouterr().out))
    assert found.shape == (40, 2)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)
    assert main(["predict", str(folder / "classes"), str(folder / "images.npy"), "--what", "linear"]) == 2
    assert main(["predict", str(folder / "one"), str(folder / "a.txt")]) == 2
    assert "predicts nothing of rows" in capsys.readouterr().err


def test_an_export_is_what_the_run_came_to(folder, capsys):
    assert main(["export", str(folder / "one"), "-o", str(folder / "one.safetensors")]) == 0
    assert capsys.readouterr().out == ""
    found, own = load_file(folder / "one.safetensors"), th.load(folder / "one").model.network.state_dict()
    assert found.keys() == own.keys()
    assert all(np.array_equal(found[name], own[name].numpy()) for name in own)
    assert main(["export", str(folder / "y.thetahat"), "-o", str(folder / "y.safetensors")]) == 2


def test_runs_are_compared_by_paired_differences_of_what_they_score(folder, capsys):
    """The oracle is the comparison of the two scores in Python."""
    asked = ["compare", str(folder / "one"), str(folder / "two"), "--data", str(folder / "a.txt"), "--json"]
    assert main(asked) == 0
    found = json.loads(capsys.readouterr().out)
    fits = {name: th.load(folder / name) for name in ("one", "two")}
    tokens = th.language.Tokens(folder / "a.txt", fits["one"].tokenizer, context=16)
    wanted = th.compare({name: fit.score(tokens) for name, fit in fits.items()}).to_dict()
    assert json.loads(json.dumps(found)) == json.loads(json.dumps(wanted))
    mixed = ["compare", str(folder / "one"), str(folder / "y.thetahat"), "--data", str(folder / "d.csv")]
    assert main(mixed) != 0


def test_a_run_is_made_longer_by_the_command(folder, capsys):
    run = str(folder / "longer")
    asked = ["fit", "gpt", str(folder / "a.txt"), *SHAPE, "--run", run]
    assert main([*asked, "--steps", "4"]) == 0
    assert main([*asked, "--steps", "9", "--resume"]) == 0
    assert th.load(run).certificate.steps == 9
    assert main([*asked, "--steps", "5", "--resume"]) == 3
    assert "ask for the same, or for more steps" in capsys.readouterr().err.replace("\n", " ")


def test_a_run_begins_at_the_parameters_of_another(folder, capsys):
    asked = [
        "fit",
        "gpt",
        str(folder / "a.txt"),
        "--steps",
        "3",
        "--learning-rate",
        "1e-9",
        "--init-from",
        str(folder / "one"),
    ]
    assert main([*asked, *SHAPE, "--run", str(folder / "begun")]) == 0
    begun, one = (th.load(folder / name).theta for name in ("begun", "one"))
    np.testing.assert_allclose(begun, one, atol=1e-7)
    assert main([*asked, "--width", "32", "--heads", "2", "--run", str(folder / "other")]) == 2
    assert "has shape" in capsys.readouterr().err
