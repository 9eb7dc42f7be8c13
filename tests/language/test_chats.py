"""Conversations: the tokens are those of the chat template, and those of the assistant alone are scored."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pandas as pd
import pytest
import torch
from tests.llama import tokenizer as bytewise

import thetahat as th
from thetahat.errors import BadArgument, DataError, EmptyData, MalformedFile
from thetahat.language import Autoregressive, Bytes, Chats

PLAIN = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
MARKED = PLAIN.replace(
    "{{ m.content }}</s>",
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}</s>{% endgeneration %}{% else %}{{ m.content }}</s>{% endif %}",
)
TALK = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "2+2?"},
    {"role": "assistant", "content": "four"},
    {"role": "user", "content": "3+3?"},
    {"role": "assistant", "content": "six"},
]
SHORT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]


@pytest.fixture(scope="module")
def tokenizer():
    """A byte-level tokenizer of transformers, trained on nothing: a token a byte."""
    out = bytewise()
    out.chat_template = PLAIN
    return out


def scored(chats: Chats) -> list[str]:
    """The text of each row's scored tokens."""
    (batch,) = chats.batches()
    return [
        chats.tokenizer.decode(row[c > 0].tolist())
        for row, c in zip(batch["target"], batch.count, strict=True)
    ]


@pytest.mark.parametrize("template", [PLAIN, MARKED], ids=["by its messages", "as the template marks"])
def test_the_assistants_tokens_alone_are_scored(template, tokenizer):
    tokenizer.chat_template = template
    chats = Chats([{"messages": TALK}, {"messages": SHORT}], tokenizer)
    (batch,) = chats.batches()
    whole = torch.cat([batch["input"][0, :1], batch["target"][0]]).tolist()
    assert tokenizer.decode(whole) == tokenizer.apply_chat_template(TALK, tokenize=False)
    assert scored(chats) == ["four</s>six</s>", "hello</s>"]
    tokenizer.chat_template = PLAIN


def test_other_roles_may_be_scored(tokenizer):
    assert scored(Chats([TALK], tokenizer, roles=("user",))) == ["<user>2+2?</s><user>3+3?</s>"]


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_a_model_scores_each_answer_as_it_does_alone(layout, tokenizer):
    """The oracle is each conversation in a batch of its own, token by token."""
    net = th.networks.Transformer(257, layers=2, width=16, heads=2, seed=0).double()
    model = Autoregressive(net)
    talks = [TALK, SHORT, SHORT[:2], TALK[:3]]
    chats = Chats(talks, tokenizer, context=160, layout=layout)
    (batch,) = chats.batches()
    assert len(batch) == (4 if layout == "padded" else 2)
    found = torch.where(batch.count > 0, model.log_prob(batch), 0.0)
    total = 0.0
    for talk in talks:
        ids = torch.tensor(tokenizer.apply_chat_template(talk, tokenize=True, return_dict=True)["input_ids"])
        logits = torch.log_softmax(net(ids[None, :-1])[0], -1).gather(-1, ids[1:, None])[:, 0]
        text, at = tokenizer.apply_chat_template(talk, tokenize=False), 0
        for m in (m for m in talk if m["role"] == "assistant"):
            at = text.index(f"<assistant>{m['content']}", at) + len("<assistant>")
            end = at + len(m["content"]) + len("</s>")
            total += float(logits[at - 1 : end - 1].detach().sum())
    assert float(found.detach().sum()) == pytest.approx(total, rel=1e-10)


def test_a_fit_learns_the_answers_and_holds_out_whole_conversations(tokenizer):
    talks = [
        [{"role": "user", "content": f"{i}?"}, {"role": "assistant", "content": "yes"}] for i in range(40)
    ]
    chats = Chats(talks, tokenizer, context=64)
    net = th.networks.Transformer(257, layers=1, width=32, heads=2, seed=0)
    fit = th.fit(
        Autoregressive(net), chats, solver=th.Stochastic(steps=80, learning_rate=0.01, held_out=0.25)
    )
    first, best, error = fit.certificate.trend
    assert first < -4
    assert best > -0.2
    assert error > 0
    score = fit.score(chats)
    assert (score.units, score.n) == ("token", 40 * len("yes</s>"))
    assert score.bits_per_byte == pytest.approx(
        -score.mean / np.log(2), rel=1e-6
    )  # every token here is a byte


ROWS = [{"prompt": "1+1=", "completion": "2"}, {"prompt": "2+3=", "completion": "5"}]


@pytest.mark.parametrize("kind", ["list", "jsonl", "gz", "parquet", "data frame", "dict", "datasets"])
def test_rows_come_as_people_have_them(kind, tmp_path):
    lines = "\n".join(json.dumps(row) for row in ROWS) + "\n"
    path = tmp_path / f"a.{kind if kind != 'gz' else 'jsonl.gz'}"
    if kind == "jsonl":
        path.write_text(lines)
    if kind == "gz":
        path.write_bytes(gzip.compress(lines.encode()))
    if kind == "parquet":
        pd.DataFrame(ROWS).to_parquet(path)
    data = {"list": ROWS, "data frame": pd.DataFrame(ROWS), "dict": pd.DataFrame(ROWS).to_dict("list")}.get(
        kind, path
    )
    if kind == "datasets":
        data = pytest.importorskip("datasets").Dataset.from_list(ROWS)
    chats = Chats(data, Bytes())
    assert chats.conversations == 2
    assert chats.fingerprint == Chats(ROWS, Bytes()).fingerprint
    assert scored(chats) == ["2", "5"]


def test_messages_of_a_parquet_file_are_read(tokenizer, tmp_path):
    pd.DataFrame({"messages": [TALK, SHORT]}).to_parquet(tmp_path / "a.parquet")
    assert scored(Chats(tmp_path / "a.parquet", tokenizer)) == ["four</s>six</s>", "hello</s>"]


def test_what_is_too_long_is_refused_dropped_or_cut(tokenizer):
    with pytest.raises(DataError, match="and context=40 leaves room for 41"):
        Chats([TALK, SHORT], tokenizer, context=40)
    dropped = Chats([TALK, SHORT], tokenizer, context=40, overlong="drop")
    assert (dropped.conversations, dropped.dropped) == (1, ["row 0"])
    cut = Chats([TALK], tokenizer, context=60, overlong="cut")
    assert scored(cut) == ["four</s>"]
    with pytest.raises(EmptyData, match="1 dropped"):
        Chats([TALK], tokenizer, context=20, overlong="cut")


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        ([["hi"]], DataError, "row 0 is"),
        ([{"messages": []}], DataError, "row 0 is"),
        ([{"question": "a"}], DataError, "Accepted: a list of messages"),
        ([{"prompt": "", "completion": ""}], DataError, "no token"),
        ([], EmptyData, "no conversation"),
        ("nowhere.jsonl", MalformedFile, "not a file"),
    ],
    ids=str,
)
def test_what_is_no_conversation_is_refused_by_its_row(data, error, text, tokenizer):
    own = th.language.Characters("abc") if data and data[0] == {"prompt": "", "completion": ""} else tokenizer
    with pytest.raises(error, match=text):
        Chats(data, own)


def test_a_tokenizer_without_a_template_says_so():
    with pytest.raises(BadArgument, match="chat template"):
        Chats([SHORT], Bytes())
    with pytest.raises(BadArgument, match="layout='stream'"):
        Chats(ROWS, Bytes(), layout="stream")


def test_a_template_that_rewrites_the_past_is_refused(tokenizer):
    tokenizer.chat_template = "{{ messages | length }}" + PLAIN
    with pytest.raises(DataError, match="generation"):
        Chats([TALK], tokenizer)
    tokenizer.chat_template = PLAIN
