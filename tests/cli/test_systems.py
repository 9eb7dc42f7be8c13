"""`thetahat fit gpt, classifier, vae, flow, diffusion`: a run, then its draws and its score, without a
line of Python; and bad input by name."""

from __future__ import annotations

import json
import math
import re
import shlex

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits

import thetahat as th
from tests.llama import saved
from thetahat.cli import main
from thetahat.cli.align import Align
from thetahat.cli.arguments import COMMANDS, Reward, parse
from thetahat.cli.policies import Policy
from thetahat.cli.systems import SYSTEMS, again
from thetahat.report.formatting import number


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    digits = load_digits()
    np.save(folder / "digits.npy", digits.images[:300].astype("uint8"))
    np.save(folder / "labels.npy", digits.target[:300])
    (folder / "text.txt").write_text(
        "\n".join(f"line {i}, whose square is {i * i}" for i in range(60)), encoding="utf-8"
    )
    g = np.random.default_rng(0)
    x = g.normal(3, 2, 200)
    pd.DataFrame({"a": x, "b": x + g.normal(0, 0.5, 200)}).to_csv(folder / "rows.csv", index=False)
    pairs = [{"prompt": f"what is {i}", "chosen": f"{i} {i + 1}", "rejected": "no"} for i in range(20)]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)), encoding="utf-8")
    done = [{"prompt": f"what is {i}", "completion": f"{i}"} for i in range(20)]
    (folder / "done.jsonl").write_text("\n".join(map(json.dumps, done)), encoding="utf-8")
    saved(folder / "llama", "what is 1 2 3 no", 270)
    return folder


SMALL = {
    "gpt": "{d}/text.txt --context 32 --layers 1 --width 16 --heads 2 --steps 12",
    "classifier": "{d}/digits.npy {d}/labels.npy --levels 17 --channels 4 8 --steps 12",
    "vae": "{d}/digits.npy --levels 17 --width 16 --latent 2 --steps 12",
    "flow": "{d}/rows.csv --transforms 1 --width 8 --steps 12",
    "diffusion": "{d}/digits.npy --levels 17 --channels 4 --steps 12",
    "finetune": "{d}/llama {d}/done.jsonl --context 32 --steps 12 --batch-size 4",
    "align": "{d}/pairs.jsonl --network {d}/llama --context 16 --steps 12",
    "policy": "--env CartPole-v1 --num-envs 4 --num-steps 8 --epochs 2 --width 8 --eval-episodes 2 --total-timesteps 192",
}


@pytest.fixture(scope="module")
def fitted(data, tmp_path_factory):
    """A run of every system."""
    folder = tmp_path_factory.mktemp("runs")
    for name, words in SMALL.items():
        assert (
            main(["fit", name, *words.format(d=data).split(), "--run", str(folder / name), "--seed", "3"])
            == 0
        )
    return folder


def test_every_system_is_tried():
    assert set(SMALL) == set(SYSTEMS)


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_example_of_the_help_is_understood(name, capsys):
    """Each is parsed as the shell would hand it over; and the help fits a terminal."""
    kind, _, more = SYSTEMS[name]
    for line in more.splitlines():
        if line.startswith("  thetahat"):
            words = shlex.split(line)
            expected = Policy if name == "policy" else Align if name == "align" else kind
            expected = (
                expected if name in words[1:3] else Reward if words[2] == "reward" else COMMANDS[words[1]][0]
            )
            assert isinstance(parse(words[1:]), expected)
    assert main(["fit", name, "--help"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert max(map(len, shown[1:])) <= 80
    assert any("Exit codes" in line for line in shown)


@pytest.mark.parametrize("name", SMALL)
def test_a_run_is_rebuilt_from_its_folder_alone(fitted, name):
    """Its model, without its data or a line of code: the parameters are those that the run left."""
    system, _, fit = again(fitted / name)
    assert system.name == name
    assert fit.certificate.status == "stochastic"
    assert all(bool(torch.isfinite(p).all()) for p in fit.model.parameters())
    assert (fitted / name / "report.html").stat().st_size > 5000


@pytest.mark.parametrize("name", SMALL)
def test_a_run_of_the_command_is_opened_in_python_with_its_tokenizer_and_settings(fitted, name):
    """`th.load(folder)` alone; the checkpoint of the run, which nothing of `load` reads, is the oracle of
    every parameter of every model."""
    from safetensors.torch import load

    fit = th.load(fitted / name)
    raw = (fitted / name / "checkpoint").read_bytes()[16:]
    kept = load(raw)
    ended = [t for key, t in sorted(kept.items()) if key.startswith("theta.")]
    best = [t for key, t in sorted(kept.items()) if key.startswith("best.theta.")]
    average = [t for key, t in sorted(kept.items()) if key.startswith("average.")]
    truth = torch.cat([t.reshape(-1) for t in (best or average or ended)])
    assert torch.equal(fit.theta, truth)
    assert fit.solver.steps == 12
    assert fit.settings["seed"] == 3
    assert (fit.tokenizer is not None) == (name in ("gpt", "align", "finetune"))
    assert len(fit.objective.terms) == (2 if name == "policy" else 1)


def test_a_run_of_python_is_sampled_and_scored_by_the_command(data, tmp_path, capsys):
    """Its file describes model, tokenizer and context; the score of the fit itself is the oracle."""
    tokens = th.language.Tokens(data / "text.txt", "characters", context=16)
    network = th.networks.Transformer(tokens.vocabulary, layers=1, width=16, heads=2, activation="relu2")
    solver = th.Stochastic(steps=5, batch_size=4)
    fit = th.fit(th.language.Autoregressive(network), tokens, solver=solver, run=tmp_path / "gpt")
    assert main(["score", str(tmp_path / "gpt"), str(data / "text.txt"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mean"] == fit.score(tokens).mean
    assert main(["sample", str(tmp_path / "gpt"), "--prompt", "line", "--max-new-tokens", "5"]) == 0
    assert len(capsys.readouterr().out) == len("line") + 5 + 1
    images = th.generative.Images(np.load(data / "digits.npy"), levels=17)
    vae = th.generative.VAE.images(images.shape, 17, width=8, latent=2)
    th.fit(vae, images, solver=solver, run=tmp_path / "vae")
    assert main(["sample", str(tmp_path / "vae"), "-o", str(tmp_path / "a.npy"), "-n", "3"]) == 0
    assert np.load(tmp_path / "a.npy").shape == (3, 8, 8)
    again = th.load(tmp_path / "gpt")
    assert torch.equal(again.theta, fit.theta)
    assert again.solver.steps == 5
    assert again.tokenizer.alphabet == tokens.tokenizer.alphabet


@pytest.mark.parametrize(
    ("name", "more", "known"),
    [
        ("gpt", "{d}/text.txt", lambda s: s["bits_per_byte"] > 0),
        ("classifier", "{d}/digits.npy --labels {d}/labels.npy", lambda s: s["kind"] == "exact"),
        (
            "vae",
            "{d}/digits.npy --samples 7",
            lambda s: (s["kind"], s["K"], s["dimensions"]) == ("lower bound", 7, 64),
        ),
        (
            "flow",
            "{d}/rows.csv",
            lambda s: (s["measure"], s["units"], s["dimensions"]) == ("density", "y", 2),
        ),
        ("diffusion", "{d}/digits.npy", lambda s: s["kind"] == "lower bound"),
        ("align", "{d}/pairs.jsonl", lambda s: s["mean"] > -0.6931),
    ],
)
def test_a_run_scores_other_data(fitted, data, capsys, name, more, known):
    capsys.readouterr()
    assert main(["score", str(fitted / name), *more.format(d=data).split(), "--json"]) == 0
    score = json.loads(capsys.readouterr().out)
    assert math.isfinite(score["mean"])
    assert known(score)


def test_the_score_of_a_flow_is_in_the_units_of_its_table(fitted, data, capsys):
    """log p of the rows themselves: standardised they are denser by log of the scales."""
    capsys.readouterr()
    main(["score", str(fitted / "flow"), str(data / "rows.csv"), "--json"])
    said = json.loads(capsys.readouterr().out)["mean"]
    _, sizes, fit = again(fitted / "flow")
    x = torch.tensor(pd.read_csv(data / "rows.csv").to_numpy())
    shift, scale = torch.tensor(sizes["shift"]), torch.tensor(sizes["scale"])
    inside = (
        fit.model.log_prob(th.data.Batch({"y": ((x - shift) / scale).float()})).detach().double().mean()
        - scale.log().sum()
    )
    assert said == pytest.approx(float(inside), abs=1e-5)


def test_a_run_is_sampled(fitted, tmp_path, capsys):
    capsys.readouterr()
    words = [
        "sample",
        str(fitted / "gpt"),
        "--prompt",
        "line 1",
        "--max-new-tokens",
        "9",
        "-n",
        "2",
        "--seed",
        "5",
        "--json",
    ]
    assert main(words) == 0
    texts = json.loads(capsys.readouterr().out)["texts"]
    assert len(texts) == 2
    assert all(text.startswith("line 1") and len(text) == 15 for text in texts)
    assert main(["sample", str(fitted / "flow"), "-n", "4", "-o", str(tmp_path / "new.csv")]) == 0
    drawn = pd.read_csv(tmp_path / "new.csv")
    assert list(drawn.columns) == ["a", "b"]
    assert len(drawn) == 4
    for name in ("vae", "diffusion"):
        assert main(["sample", str(fitted / name), "-n", "3", "-o", str(tmp_path / f"{name}.npy")]) == 0
        images = np.load(tmp_path / f"{name}.npy")
        assert images.shape == (3, 8, 8)
        assert images.min() >= 0
        assert images.max() <= 16
    assert main(["sample", str(fitted / "vae"), "-n", "3", "-o", str(tmp_path / "sheet.png")]) == 0
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_text_is_written_to_a_file(fitted, tmp_path, capsys):
    words = ["sample", str(fitted / "gpt"), "--prompt", "line", "--max-new-tokens", "5", "-n", "2"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert main([*words, "-o", str(tmp_path / "x.txt")]) == 0
    assert (tmp_path / "x.txt").read_text() == shown


def test_a_policy_plays_and_its_returns_are_kept_apart(fitted, capsys):
    """Whole greedy episodes for `play` and for each look; those of the play that was learnt from under a
    name of their own."""
    assert main(["play", str(fitted / "policy"), "-n", "5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["episodes"], found["greedy"]) == (5, True)
    assert found["lowest"] <= found["mean"] <= found["highest"]
    lines = [json.loads(line) for line in (fitted / "policy" / "metrics.jsonl").read_text().splitlines()]
    assert sum("greedy_return" in line for line in lines) == 12
    assert any("training_return" in line for line in lines)  # where an episode ended since the line before
    assert 0 < lines[-1]["played"] <= 6 * 4 * 8  # six passes, less the steps that only begin anew


def test_what_a_run_measured_is_in_its_summary_and_report(tmp_path, capsys):
    """The last of its returns, both kinds, θ of policy and value function apart, and the command that
    makes it again."""
    words = [
        *"fit policy --env CartPole-v1 --num-envs 4 --num-steps 8 --epochs 2 --width 8 --eval-episodes 3 --total-timesteps 192".split(),
        "--run",
    ]
    assert main([*words, str(tmp_path / "r")]) == 0
    shown, last = capsys.readouterr().out, {}
    for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines():
        last |= json.loads(line)
    assert re.search(
        rf"greedy return\s+{number(last['greedy_return'])} ± {number(last['greedy_return_error'], 2)}\n",
        shown,
    )
    assert re.search(rf"training return\s+{number(last['training_return'])}\n", shown)
    assert "θ of Policy, 130 values in 6 tensors" in shown
    assert "θ of Value, 121 values in 6 tensors" in shown
    page = (tmp_path / "r" / "report.html").read_text()
    assert "steps played" in page
    assert "training return" in page
    assert f"<code>thetahat {' '.join(words)} {tmp_path / 'r'}</code>" in page


@pytest.mark.parametrize(
    ("option", "value"),
    [("--discount", "0.5"), ("--gae-lambda", "0.5"), ("--num-envs", "2"), ("--clip-coef", "0.3")],
)
def test_a_run_does_not_go_on_with_other_weights_or_other_play(fitted, capsys, option, value):
    """What data are drawn from the model, and how they weigh, is what was asked for when the run began."""
    words = [
        "fit",
        "policy",
        *SMALL["policy"].split(),
        "--seed",
        "3",
        "--run",
        str(fitted / "policy"),
        "--resume",
    ]
    words = [w for i, w in enumerate(words) if option not in (w, words[i - 1])]
    assert main([*words, option, value]) == 3
    assert f"{option} was " in capsys.readouterr().err


@pytest.mark.parametrize("method", ["a2c", "reinforce"])
def test_the_other_weights_are_a_word(tmp_path, capsys, method):
    own = {"a2c": ["--num-steps", "8", "--total-timesteps", "32"], "reinforce": ["--passes", "2"]}[method]
    words = ["fit", "policy", "--method", method, "--num-envs", "2", *own, "--eval-episodes", "1", "--json"]
    assert main([*words, "--run", str(tmp_path / "r")]) == 0
    assert json.loads(capsys.readouterr().out)["certificate"]["status"] == "stochastic"


def test_environments_that_cannot_be_learnt_are_refused(tmp_path, capsys):
    for name, said in (("NoSuch-v0", "NoSuch"), ("FrozenLake-v1", "")):
        code = main(
            [
                "fit",
                "policy",
                "--env",
                name,
                "--total-timesteps",
                "4",
                "--num-envs",
                "1",
                "--num-steps",
                "4",
                "--method",
                "a2c",
                "--run",
                str(tmp_path / name),
                "--eval-episodes",
                "1",
            ]
        )
        assert code == (2 if said else 0)
        assert said in capsys.readouterr().err


def test_a_run_is_gone_on_with_only_if_asked(fitted, data, capsys):
    words = ["fit", "gpt", *SMALL["gpt"].format(d=data).split(), "--run", str(fitted / "gpt"), "--seed", "3"]
    assert main(words) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*words, "--resume"]) == 0
    assert main([*words[:-1], "4", "--resume"]) == 3
    assert "--seed was 3 when" in capsys.readouterr().err
    assert main(["fit", "flow", str(data / "rows.csv"), "--run", str(fitted / "gpt"), "--resume"]) == 3
    assert "is the run of a gpt" in capsys.readouterr().err
    assert main(["fit", "flow", str(data / "rows.csv"), "--resume"]) == 2
    assert main(["fit", "flow", str(data / "rows.csv"), "--run", str(fitted / "none"), "--resume"]) == 2


def harmed(folder, what: str) -> str:
    """A file of bad data, by what is wrong with it."""
    path = folder / f"{what}.bad"
    if what == "empty text":
        path.write_text("")
    elif what == "binary text":
        path.write_bytes(bytes(range(256)) * 4)
    elif what == "out of range":
        path = path.with_suffix(".npy")
        np.save(path, np.full((4, 8, 8), 17, dtype=np.uint8))
    elif what == "no images":
        path = path.with_suffix(".npy")
        np.save(path, np.zeros((0, 8, 8), dtype=np.uint8))
    elif what == "cut short":
        path.write_bytes(b"\0\0\x08\x03" + (5).to_bytes(4, "big") + (8).to_bytes(4, "big") * 2 + b"\0" * 100)
    elif what == "words":
        path = path.with_suffix(".csv")
        path.write_text("a,b\n1,2\n3,x\n")
    return str(path)


@pytest.mark.parametrize(
    ("system", "what", "code", "said"),
    [
        ("gpt", "empty text", 3, "empty"),
        ("gpt", "binary text", 3, "UTF-8"),
        ("gpt", "not there", 3, "not there"),
        ("vae", "out of range", 3, "0 … 16"),
        ("diffusion", "no images", 3, "no images"),
        ("vae", "cut short", 3, "cut short"),
        ("flow", "words", 3, "b"),
    ],
)
def test_bad_input_is_named_and_nothing_is_left_behind(tmp_path, capsys, system, what, code, said):
    levels = ["--levels", "17"] if system in ("vae", "diffusion") else []
    assert (
        main(["fit", system, harmed(tmp_path, what), *levels, "--steps", "2", "--run", str(tmp_path / "run")])
        == code
    )
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_a_climb_that_cannot_begin_leaves_no_run_behind(data, tmp_path, capsys):
    """So that the same --run can be given again, with what was wrong put right."""
    words = ["fit", "flow", str(data / "rows.csv"), "--steps", "2", "--run", str(tmp_path / "run")]
    assert main([*words, "--held-out", "1e-9"]) == 2
    assert "holds out 0" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main(words) == 0


def test_a_constant_column_and_a_single_class_are_named(data, tmp_path, capsys):
    (tmp_path / "rows.csv").write_text("a,b\n" + "\n".join(f"{i},1" for i in range(20)), encoding="utf-8")
    assert main(["fit", "flow", str(tmp_path / "rows.csv"), "--run", str(tmp_path / "run")]) == 3
    assert "column 'b' of" in capsys.readouterr().err
    np.save(tmp_path / "zeros.npy", np.zeros(300, dtype=int))
    words = ["fit", "classifier", str(data / "digits.npy"), str(tmp_path / "zeros.npy"), "--levels", "17"]
    assert main([*words, "--run", str(tmp_path / "run")]) == 2
    assert "one class only" in capsys.readouterr().err


def test_images_and_labels_that_do_not_match_are_refused(data, tmp_path, capsys):
    np.save(tmp_path / "few.npy", np.zeros(5, dtype=int))
    words = [
        "fit",
        "classifier",
        str(data / "digits.npy"),
        str(tmp_path / "few.npy"),
        "--levels",
        "17",
        "--run",
        str(tmp_path / "run"),
    ]
    assert main(words) == 2
    assert "5 labels" in capsys.readouterr().err


def test_what_cannot_be_drawn_or_scored_is_refused(fitted, data, tmp_path, capsys):
    for words, said in [
        (["sample", str(fitted / "classifier")], "draws labels"),
        (["sample", str(fitted / "vae")], "images need a file"),
        (["sample", str(fitted / "vae"), str(data / "digits.npy")], "without DATA"),
        (
            ["score", str(fitted / "vae"), str(data / "digits.npy"), "--labels", str(data / "labels.npy")],
            "which has none",
        ),
        (["score", str(fitted / "gpt"), str(data / "text.txt"), "--samples", "5"], "not made of draws"),
        (["sample", str(fitted / "policy")], "thetahat play"),
        (["score", str(fitted / "policy"), str(data / "rows.csv")], "thetahat play"),
        (["play", str(fitted / "vae")], "plays nothing"),
        (["sample", str(fitted / "gpt"), "-n", "0"], "-n 0"),
        (["sample", str(fitted / "gpt"), "--prompt", ""], "--prompt is empty"),
        (["sample", str(fitted / "gpt"), "--prompt", "l", "--temperature", "nan"], "temperature=nan"),
        (["sample", str(fitted / "gpt"), "-o", str(tmp_path / "no" / "x.txt")], "no"),
        (["fit", "policy", "--env", "no_such_module:X-v0", "--run", str(tmp_path / "p")], "no_such_module"),
        (["fit", "policy", "--held-out", "0.3", "--run", str(tmp_path / "p")], "--held-out"),
        (["fit", "policy", "--entropy-coef", "nan", "--run", str(tmp_path / "p")], "entropy_coef=nan"),
    ]:
        assert main(words) == 2, words
        assert said in capsys.readouterr().err
    (tmp_path / "other.txt").write_text("Ω is not a character of that text")
    assert main(["score", str(fitted / "gpt"), str(tmp_path / "other.txt")]) == 3
    assert "'Ω'" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["sample", str(tmp_path / "empty")]) == 3
    assert "is not a run" in capsys.readouterr().err


def test_several_runs_of_a_policy_are_told_with_an_interval(fitted, tmp_path, capsys):
    """The interquartile mean of the runs' own means, and the probability that a run is better than itself: one half."""
    runs = []
    for seed in (0, 1):
        run = str(tmp_path / f"p{seed}")
        asked = [
            "fit",
            "policy",
            "--num-envs",
            "2",
            "--num-steps",
            "8",
            "--total-timesteps",
            "64",
            "--eval-episodes",
            "2",
        ]
        assert main([*asked, "--seed", str(seed), "--max-episode-steps", "15", "--run", run]) == 0
        runs.append(run)
    capsys.readouterr()
    assert main(["play", *runs, "--against", *runs, "-n", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    means = list(found["runs"].values())
    assert all(mean <= 15 for mean in means)
    assert found["iqm"]["value"] == pytest.approx(sum(means) / 2)
    assert found["probability_of_improvement"]["value"] == 0.5
    assert main(["play", *runs, "-n", "4"]) == 0
    assert "interquartile mean of 2 runs" in capsys.readouterr().out


def test_an_aligned_model_goes_to_transformers_and_its_adapters_to_peft(fitted, data, tmp_path, capsys):
    """The policy, and not DPO's model of the pairs."""
    import torch
    import transformers

    for name, more in (("merged", []), ("adapters", ["--adapters"])):
        assert main(["export", str(fitted / "align"), "-o", str(tmp_path / name), *more]) == 0
    policy = again(fitted / "align")[2].model.policy
    found = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    ids = torch.arange(5, 12)[None]
    with torch.no_grad():
        torch.testing.assert_close(found(input_ids=ids).logits, policy.network(ids), rtol=1e-4, atol=1e-5)
    base = transformers.AutoModelForCausalLM.from_pretrained(data / "llama")
    again_adapted = th.language.add_adapters(base, tmp_path / "adapters")
    with torch.no_grad():
        torch.testing.assert_close(
            again_adapted(input_ids=ids).logits, policy.network(ids), rtol=1e-4, atol=1e-5
        )
    capsys.readouterr()


def test_pictures_in_class_folders_from_the_command(tmp_path, capsys):
    """Two classes that differ by their brightness, streamed and in memory: the run knows the folders' names, is scored on
    other folders of the same names, and refuses folders of others."""
    PIL = pytest.importorskip("PIL.Image")
    g = np.random.default_rng(0)
    for part, names in (
        ("train", ("dark", "light")),
        ("test", ("dark", "light")),
        ("other", ("dark", "white")),
    ):
        for name, level in zip(names, (40, 200), strict=True):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(12):
                array = (level + g.integers(-30, 30, (10, 14, 3))).astype("uint8")
                PIL.fromarray(array).save(tmp_path / part / name / f"{i}.png")
    asked = ["--size", "9", "--channels", "4", "8", "--steps", "30", "--batch-size", "12"]
    for extra, run in (["--flip"], "memory"), (["--stream", "--colours", "grey"], "stream"):
        words = ["fit", "classifier", str(tmp_path / "train"), *asked, *extra, "--run", str(tmp_path / run)]
        assert main(words) == 0
        assert th.load(tmp_path / run).model.network.shape == ((3, 9, 9) if run == "memory" else (1, 9, 9))
        capsys.readouterr()
        assert main(["score", str(tmp_path / run), str(tmp_path / "test"), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["n"] == 24
        assert main(["predict", str(tmp_path / run), str(tmp_path / "test" / "dark"), "--json"]) == 0
        assert list(json.loads(capsys.readouterr().out)) == ["dark", "light"]
        assert main(["score", str(tmp_path / run), str(tmp_path / "other")]) == 3
        assert "dark, white, and the model knows the classes dark, light" in " ".join(
            capsys.readouterr().err.split()
        )
    words = ["fit", "diffusion", str(tmp_path / "train"), *asked, "--run", str(tmp_path / "diffusion")]
    assert main(words) == 0
    model = th.load(tmp_path / "diffusion").model
    assert model.levels == 256
    assert model.predict == "v"
    assert model.dimensions == 3 * 81


def test_soft_labels_noisy_labels_and_several_labels_from_the_command(data, tmp_path, capsys):
    """Shares that are one-hot are the labels themselves: the same fit. Of several labels the score is a sum of binary
    log-likelihoods, computed here from what the run predicts."""
    images, labels = np.load(data / "digits.npy"), np.load(data / "labels.npy")
    np.save(tmp_path / "soft.npy", np.eye(10)[labels])
    np.save(tmp_path / "many.npy", np.stack([labels % 2, labels > 4, labels == 0], 1).astype("uint8"))
    np.save(tmp_path / "bad.npy", np.eye(10)[labels] * 0.5)
    words = f"fit classifier {data}/digits.npy {{}} --levels 17 --channels 4 8 --steps 15 --run {tmp_path}/".split()

    def run(name, labels, *more):
        return main([w.format(labels) for w in words[:-1]] + [words[-1] + name, *more])

    assert run("hard", data / "labels.npy") == run("soft", tmp_path / "soft.npy") == 0
    one, two = (th.load(tmp_path / name).model.network.head.weight for name in ("hard", "soft"))
    torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)
    assert run("noise", data / "labels.npy", "--label-noise", "0.2") == 0
    assert th.load(tmp_path / "noise").model.label_noise == 0.2
    assert run("many", tmp_path / "many.npy", "--multi-label") == 0
    fit, y = th.load(tmp_path / "many"), torch.from_numpy(np.load(tmp_path / "many.npy")).double()
    x = torch.from_numpy(images).reshape(len(images), -1)
    with torch.no_grad():
        logits = fit.model.network.eval()(x).double()
    by_hand = -torch.nn.functional.binary_cross_entropy_with_logits(logits, y, reduction="sum")
    capsys.readouterr()
    scored = [
        "score",
        str(tmp_path / "many"),
        f"{data}/digits.npy",
        "--labels",
        str(tmp_path / "many.npy"),
        "--json",
    ]
    assert main(scored) == 0
    assert json.loads(capsys.readouterr().out)["total"] == pytest.approx(float(by_hand), rel=1e-5)
    for name, labels, more, said in (
        ("a", tmp_path / "bad.npy", (), "sum to 1"),
        ("b", data / "labels.npy", ("--multi-label",), "0 and 1, (n, K)"),
    ):
        assert run(name, labels, *more) == 2
        assert said in " ".join(capsys.readouterr().err.split())


def test_models_of_images_given_their_class_from_the_command(data, tmp_path, capsys):
    """The run knows its classes: draws of one class, guided or each class in turn, and scores given labels, which are those
    of Python with the same labels; without labels, or with guidance of what has none, the option is named."""
    images = th.generative.Images(
        np.load(data / "digits.npy"), levels=17, labels=np.load(data / "labels.npy")
    )
    small = {
        "vae": "--width 16 --latent 2 --steps 12",
        "diffusion": "--channels 4 --steps 12 --flip",
    }
    for name, words in small.items():
        run = tmp_path / name
        asked = f"fit {name} {data}/digits.npy --levels 17 --labels {data}/labels.npy {words} --run {run}"
        assert main(asked.split()) == 0
        fit = th.load(run)
        assert fit.model.classes == 10
        capsys.readouterr()
        scored = ["score", str(run), str(data / "digits.npy"), "--labels", str(data / "labels.npy"), "--json"]
        assert main(scored) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["total"] == pytest.approx(fit.score(images).total, rel=1e-6)
        out = tmp_path / f"{name}.npy"
        guided = ["--guidance", "2"] if name == "diffusion" else []
        assert main(["sample", str(run), "-n", "3", "--label", "7", *guided, "-o", str(out)]) == 0
        own = fit.sample(3, label=7, **({"guidance": 2.0} if guided else {}))
        assert np.array_equal(np.load(out).reshape(3, -1), own)
        out.unlink()
        assert main(["sample", str(run), "-n", "3", "-o", str(out)]) == 0
        assert np.array_equal(np.load(out).reshape(3, -1), fit.sample(3, label=torch.arange(3)))
        capsys.readouterr()
        assert main(["score", str(run), str(data / "digits.npy")]) == 2
        assert "give --labels too" in capsys.readouterr().err
    assert main(["sample", str(tmp_path / "vae"), "--guidance", "2", "-o", str(tmp_path / "x.npy")]) == 2
    assert "cannot be guided" in capsys.readouterr().err
    assert main(["sample", str(tmp_path / "vae"), "--label", "10", "-o", str(tmp_path / "x.npy")]) != 0
    assert "0 … 9" in capsys.readouterr().err
