"""Rewards of one's own: a function of prompt and answer, a model of transformers, several with weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import thetahat as th
from tests.llama import SIZES
from tests.llama import tokenizer as bytewise
from thetahat.cli import main
from thetahat.cli.rewards import reward_of
from thetahat.errors import BadArgument, DataError
from thetahat.io import runs

FUNCTIONS = '''
def letters(prompt, answer):
    """The share of the answer's characters that are the first of its prompt."""
    return sum(c == prompt[0] for c in answer) / max(len(answer), 1)

def vowels(prompt, answer):
    return answer.count("a") / max(len(answer), 1)

def longer(prompt, answer):
    return len(answer)

def wrong(prompt, answer):
    return "good"

def infinite(prompt, answer):
    return float("inf") if answer == "ab" else 1.0

def unknown(prompt, answer):
    return float("nan")

number = 3
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A language model of two letters, prompts of them, and functions."""
    out = tmp_path_factory.mktemp("rewards")
    (out / "text.txt").write_text("abba baab abab bbaa " * 40)
    (out / "prompts.txt").write_text("a\nb\n")
    (out / "prompts.jsonl").write_text("\n".join(json.dumps({"prompt": p}) for p in "abab"))
    (out / "own.py").write_text(FUNCTIONS)
    asked = ["fit", "gpt", str(out / "text.txt"), "--steps", "30", "--context", "16", "--layers", "1"]
    assert main([*asked, "--width", "16", "--heads", "2", "--run", str(out / "gpt")]) == 0
    return out


def tokens(*texts: str) -> list[torch.Tensor]:
    return [torch.tensor([ord(c) for c in text]) for text in texts]


def test_rewards_are_those_of_the_function_and_several_are_summed_with_their_weights(folder):
    own = str(folder / "own.py")
    asked = (f"{own}:letters", f"{own}:longer")
    reward = reward_of(asked, (2.0, -0.5), th.language.Bytes())
    found = reward(tokens("a", "b"), tokens("aab", "aaab"))
    assert found.tolist() == pytest.approx([2 * 2 / 3 - 1.5, 2 * 0.25 - 2.0])
    assert reward_of(asked[:1], (), th.language.Bytes())(tokens("a"), tokens("aa")).tolist() == [1.0]


def test_a_function_of_a_module_is_imported(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    assert reward_of(["own:longer"], (), th.language.Bytes())(tokens("a"), tokens("abc")).tolist() == [3.0]


@pytest.mark.parametrize(
    ("asked", "weights", "error", "text"),
    [
        (["own.py:none"], (), BadArgument, "cannot be imported"),
        (["own.py:number"], (), BadArgument, "not a function"),
        (["other.py:letters"], (), BadArgument, "is not a file"),
        (["nowhere.thetahat"], (), BadArgument, "no such file or folder"),
        (["own.py:letters"], (1.0, 2.0), BadArgument, "2 numbers for 1 rewards"),
        (["own.py:wrong"], (), DataError, "gave 'good'"),
    ],
    ids=["no function", "a number", "no file", "nowhere", "weights", "no number"],
)
def test_what_is_no_reward_is_refused(asked, weights, error, text, folder):
    given = [str(folder / name) if name.startswith(("own", "other", "nowhere")) else name for name in asked]
    with pytest.raises(error, match=text):
        reward_of(given, weights, th.language.Bytes())(tokens("a"), tokens("b"))


def test_a_reward_model_of_transformers_gives_its_logit(tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer = bytewise(pad_token="<end>")
    config = transformers.LlamaConfig(vocab_size=257, num_labels=1, pad_token_id=256, **SIZES)
    torch.manual_seed(0)
    model = transformers.LlamaForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path / "r")
    tokenizer.save_pretrained(tmp_path / "r")
    found = reward_of([str(tmp_path / "r")], (), th.language.Bytes())(tokens("ab", "b"), tokens("c", "ad"))
    with torch.no_grad():
        wanted = [
            float(model(**tokenizer(text, return_tensors="pt")).logits[0, 0]) for text in ("abc", "bad")
        ]
    assert found.tolist() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
    "more",
    [
        ["--method", "grpo", "--clip-coef-high", "0.28", "--no-scale-rewards", "--no-length-normalise"],
        ["--method", "rloo", "--temperature", "0.8", "--top-p", "0.95", "--prompts.txt"],
    ],
    ids=["Dr. GRPO", "top p"],
)
def test_the_command_learns_what_the_function_rewards(more, folder, capsys):
    """The share of one of the two letters."""
    prompts = "prompts.txt" if more[-1] == "--prompts.txt" else "prompts.jsonl"
    run = folder / f"run-{more[1]}"
    asked = ["align", str(folder / prompts), "--network", str(folder / "gpt"), "--run", str(run)]
    asked += [
        "--reward",
        f"{folder / 'own.py'}:vowels",
        "--beta",
        "0.01",
        "--steps",
        "80",
        "--learning-rate",
        "0.05",
    ]
    asked += [
        "--max-new-tokens",
        "8",
        "--context",
        "16",
        "--batch-size",
        "32",
        "--num-generations",
        "8",
        "--lora-rank",
        "4",
    ]
    assert main([*asked, *[m for m in more if m != "--prompts.txt"]]) == 0
    lines = [line["reward"] for line in runs.metrics(run) if "reward" in line]
    assert sum(lines[-8:]) / 8 > sum(lines[:8]) / 8 + 0.15
    assert main(["sample", str(run), "--prompt", "a", "--max-new-tokens", "4"]) == 0
    capsys.readouterr()


@pytest.mark.parametrize(("name", "value", "answer"), [("infinite", "inf", "ab"), ("unknown", "nan", "aa")])
def test_a_reward_that_is_not_finite_is_refused_with_its_answer(folder, name, value, answer):
    reward = reward_of((f"{folder / 'own.py'}:{name}",), (), th.language.Bytes())
    with pytest.raises(DataError, match=f"{name} gave {value} for the answer '{answer}'. Accepted: a finite"):
        reward(tokens("a", "a"), tokens("aa", "ab"))


def test_prompts_of_a_text_are_its_lines_and_nothing_else_ends_one(folder, tmp_path):
    """U+2028, a form feed and U+0085 are characters of a prompt, at which str.splitlines would cut it."""
    from thetahat.cli.align import _prompts

    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffa\u2028b\r\nc\x0cd\x85e\n\nc\x0cd\x85e\nf".encode())
    found = _prompts(path, th.language.Bytes(), None, 100)
    texts = [bytes(p).decode() for p in found]
    assert texts == ["a\u2028b", "c\x0cd\x85e", "f"]


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"caf\xe9", "no UTF-8"), (b"a\0b", "binary"), (b"", "empty"), (None, "neither a file")],
)
def test_prompts_that_cannot_be_read_are_refused_by_name(folder, tmp_path, capsys, content, said):
    path = tmp_path / "prompts.txt"
    if content is not None:
        path.write_bytes(content)
    words = ["align", str(path), "--network", str(folder / "gpt"), "--method", "rloo"]
    words += ["--reward", f"{folder / 'own.py'}:letters", "--context", "16", "--max-new-tokens", "4"]
    assert main([*words, "--run", str(tmp_path / "run")]) in (2, 3)
    assert said in capsys.readouterr().err


def test_label_smoothing_is_refused_by_ipo(folder, tmp_path, capsys):
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"prompt": "a", "chosen": "b", "rejected": "a"}) + "\n")
    words = ["align", str(tmp_path / "pairs.jsonl"), "--network", str(folder / "gpt"), "--method", "ipo"]
    assert main([*words, "--label-smoothing", "0.1", "--run", str(tmp_path / "run")]) == 2
    assert "--label-smoothing is an option of --method dpo alone" in capsys.readouterr().err
