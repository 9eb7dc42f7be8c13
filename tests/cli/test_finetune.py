"""`thetahat finetune`: a model of transformers on a user's chats, and what comes out is loaded by transformers and peft."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

import thetahat as th
from tests.llama import saved
from thetahat.cli import main

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # of peft
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A small Llama with its tokenizer, chats, completions, and text."""
    out = tmp_path_factory.mktemp("finetune")
    saved(out / "model", template=TEMPLATE)
    talk = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "yes"}]
    files = {
        "chats.jsonl": [{"messages": talk}] * 30,
        "done.jsonl": [{"prompt": "1+1=", "completion": "2"}] * 30,
        "text.jsonl": [{"text": "to be or not to be"}] * 30,
    }
    for name, rows in files.items():
        (out / name).write_text("\n".join(json.dumps(row) for row in rows))
    return out


def fine(folder: Path, data: str, run: str, *more: str) -> list[str]:
    asked = [
        "finetune",
        str(folder / "model"),
        str(folder / data),
        "--run",
        str(folder / run),
        "--context",
        "64",
    ]
    return [*asked, "--batch-size", "4", "--held-out", "0.2", *more]


@pytest.mark.parametrize("data", ["chats.jsonl", "done.jsonl", "text.jsonl"])
@pytest.mark.parametrize(
    "more", [["--steps", "4"], ["--method", "full", "--packing", "--epochs", "1"]], ids=["lora", "full"]
)
def test_a_model_of_transformers_is_trained_and_goes_back(data, more, folder, capsys):
    run = f"{data}-{more[1]}"
    assert main(fine(folder, data, run, *more, "--learning-rate", "0.01")) == 0
    out = folder / f"{run}-merged"
    assert main(["export", str(folder / run), "-o", str(out)]) == 0
    found = transformers.AutoModelForCausalLM.from_pretrained(out)
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    ids = torch.tensor([tokenizer.encode("<user>?</s><assistant>yes", add_special_tokens=False)])
    with torch.no_grad():
        theirs = torch.log_softmax(found(input_ids=ids).logits[:, :-1], -1).gather(-1, ids[:, 1:, None])[
            ..., 0
        ]
    from thetahat.cli.systems import again

    model = again(folder / run)[2].model
    ours = model.log_prob(th.data.Batch({"input": ids[:, :-1], "target": ids[:, 1:]}, dims=2)).detach()
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)
    assert main(["sample", str(folder / run), "--prompt", "to", "--max-new-tokens", "3"]) == 0
    assert main(["score", str(folder / run), str(folder / data)]) == 0
    capsys.readouterr()


def test_epochs_say_how_many_steps(folder, capsys):
    assert main(fine(folder, "chats.jsonl", "epochs", "--epochs", "2")) == 0
    assert th.io.runs.read(folder / "epochs")["run"]["steps"] == "12"  # 24 rows of 30, four a step, twice
    capsys.readouterr()


def test_adapters_go_to_peft(folder, capsys):
    peft = pytest.importorskip("peft")
    assert main(fine(folder, "chats.jsonl", "adapted", "--steps", "4", "--learning-rate", "0.05")) == 0
    for name, more in (("adapters", ["--adapters"]), ("whole", [])):
        assert main(["export", str(folder / "adapted"), "-o", str(folder / name), *more]) == 0
    base = transformers.AutoModelForCausalLM.from_pretrained(folder / "model")
    adapted = peft.PeftModel.from_pretrained(base, folder / "adapters").eval()
    merged = transformers.AutoModelForCausalLM.from_pretrained(folder / "whole")
    ids = torch.arange(60, 70)[None]
    with torch.no_grad():
        torch.testing.assert_close(
            adapted(input_ids=ids).logits, merged(input_ids=ids).logits, rtol=1e-4, atol=1e-5
        )
    capsys.readouterr()


def test_ids_beyond_the_tokenizers_are_not_drawn_and_that_is_said(tmp_path, capsys):
    """An embedding of 320 rows for a tokenizer of fewer, of which the rows beyond are far the most probable."""
    folder = tmp_path / "model"
    saved(folder, template=TEMPLATE)
    own = transformers.AutoModelForCausalLM.from_pretrained(folder)
    V = own.config.vocab_size
    own.resize_token_embeddings(V + 63)
    with torch.no_grad():
        own.get_output_embeddings().weight[V:] = 50 * own.get_output_embeddings().weight[:1].sign()
    own.save_pretrained(folder)
    (tmp_path / "text.txt").write_text("to be or not to be " * 20)
    words = ["finetune", str(folder), str(tmp_path / "text.txt"), "--steps", "1", "--learning-rate", "1e-9"]
    assert main([*words, "--context", "16", "--held-out", "0.2", "--run", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    assert (
        main(["sample", str(tmp_path / "run"), "--prompt", "to ", "--max-new-tokens", "20", "-n", "3"]) == 0
    )
    said = capsys.readouterr()
    assert f"63 of the model's {V + 63} ids have no text" in said.err.replace("\n", " ")


def test_a_model_with_a_sentencepiece_tokenizer_is_trained_scored_and_drawn_from(tmp_path, capsys):
    """Llama 2's kind of tokenizer: no byte-level BPE."""
    from tests.language.test_fast_tokenizers import llama

    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=llama(), eos_token="</s>")
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    network = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=len(tokenizer), **shape))
    network.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    text = "the cat sat on the mat\n" * 20
    (tmp_path / "text.txt").write_text(text)
    words = [
        "finetune",
        str(tmp_path / "model"),
        str(tmp_path / "text.txt"),
        "--steps",
        "2",
        "--context",
        "16",
    ]
    assert main([*words, "--held-out", "0.2", "--run", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    assert main(["score", str(tmp_path / "run"), str(tmp_path / "text.txt"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["bits_per_byte"] == pytest.approx(-found["total"] / math.log(2) / len(text), rel=1e-9)
    assert main(["sample", str(tmp_path / "run"), "--prompt", "the cat", "--max-new-tokens", "5"]) == 0
    assert capsys.readouterr().out.startswith("the cat")
