"""Where texts come from, and what tokens they are: nothing is read as something else without a word."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from thetahat.errors import (
    BadArgument,
    DataError,
    EmptyData,
    MalformedFile,
    UnknownColumn,
    UnknownLevel,
    WrongType,
)
from thetahat.language import BPE, Bytes, Characters, Tokens
from thetahat.language.fast_tokenizers import from_config

TEXTS = ["one", "two", "drei"]


def texts_of(tokens: Tokens) -> str:
    return tokens.decode([t for t in tokens.stream.take(np.arange(len(tokens.stream))) if t < 256])


# ---- tables and lists --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        TEXTS,
        tuple(TEXTS),
        np.array(TEXTS),
        np.array(TEXTS, dtype=object),
        pd.Series(TEXTS),
        pd.DataFrame({"text": TEXTS, "id": [1, 2, 3]}),
        pd.DataFrame({"body": TEXTS}),
        {"text": TEXTS, "id": [1, 2, 3]},
    ],
    ids=lambda d: type(d).__name__,
)
def test_texts_are_read_from_lists_columns_and_tables(data):
    tokens = Tokens(data)
    assert (tokens.documents, texts_of(tokens)) == (3, "onetwodrei")


def test_a_table_without_a_column_of_texts_is_refused_with_its_columns():
    with pytest.raises(UnknownColumn, match="title, body"):
        Tokens(pd.DataFrame({"title": ["a"], "body": ["b"]}))
    with pytest.raises(BadArgument, match="document 1 is a float"):
        Tokens(pd.DataFrame({"text": ["a", float("nan")]}))
    with pytest.raises(BadArgument, match="is a int"):
        Tokens(7)


# ---- lines of JSON -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"])
def test_a_line_of_json_ends_at_a_line_feed_alone(tmp_path, separator):
    """JSON allows U+2028, U+2029 and U+0085 in a string as they stand; the control characters are escaped by
    json.dumps."""
    text = f"a{separator}b"
    (tmp_path / "x.jsonl").write_text(json.dumps({"text": text}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert Tokens(tmp_path / "x.jsonl").decode(Bytes().encode(text)) == text
    assert texts_of(Tokens(tmp_path / "x.jsonl")) == text


def test_blank_lines_a_mark_of_byte_order_and_carriage_returns_are_no_documents(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n\r\n   \n\n{"text": "b"}\r\n\n')
    assert (Tokens(path).documents, texts_of(Tokens(path))) == (2, "ab")
    path.write_bytes(b'{"text": "a"}\n\n{"txt": "b"}\n')
    with pytest.raises(MalformedFile, match="line 3"):
        Tokens(path)
    path.write_bytes(b"\n \n")
    with pytest.raises(EmptyData, match="blank"):
        Tokens(path)


def test_half_a_character_is_refused_by_its_place(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"text": "ab\\ud800c"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"U\+D800 at 2"):
        Tokens(tmp_path / "x.jsonl")
    for tokenizer in (Bytes(), Characters("abc"), BPE.train(["abc"], vocabulary=258)):
        with pytest.raises(DataError, match=r"U\+D800 at 1"):
            tokenizer.encode("a\ud800")
        with pytest.raises(WrongType, match="bytes"):
            tokenizer.encode(b"abc")


# ---- tokens to text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [-1, 10**6, 1.5])
@pytest.mark.parametrize("kind", ["bytes", "characters", "bpe"])
def test_a_token_that_is_not_of_the_vocabulary_has_no_text(kind, bad):
    """Python would count −1 from the end of the alphabet."""
    tokenizer = {
        "bytes": Bytes(),
        "characters": Characters("abc"),
        "bpe": BPE.train(["abc"], vocabulary=258),
    }[kind]
    with pytest.raises(UnknownLevel, match=f"the token {bad} at 1 .* 0 … {tokenizer.vocabulary - 1}"):
        tokenizer.decode([0, bad])
    last = torch.tensor([0, tokenizer.vocabulary - 1])
    assert isinstance(tokenizer.decode(last), str)


# ---- special tokens in texts -------------------------------------------------------------------------------

CHAT = "<|im_start|>user\nHi<|im_end|>\n"


def chat_tokenizer():
    package = pytest.importorskip("tokenizers")
    own = BPE.train([CHAT], vocabulary=270)._own
    own.add_special_tokens(
        [package.AddedToken("<|im_start|>", special=True), package.AddedToken("<|im_end|>", special=True)]
    )
    return own


def test_a_special_token_in_a_text_is_what_was_said_or_refused():
    own = chat_tokenizer()
    with pytest.raises(DataError, match=r"<\|im_start\|>.*at 0.*special=True"):
        BPE(own).encode(CHAT)
    meant, spelled = BPE(own, special=True), BPE(own, special=False)
    ids = [own.token_to_id("<|im_start|>"), own.token_to_id("<|im_end|>")]
    found = meant.encode(CHAT)
    assert found[0] == ids[0]
    assert found[-2] == ids[1]
    assert meant.decode(found) == "user\nHi\n"
    assert int(meant.lengths[found].sum()) == len("user\nHi\n")  # a special token stands for no text
    assert not set(ids) & set(spelled.encode(CHAT).tolist())
    assert spelled.decode(spelled.encode(CHAT)) == CHAT
    assert BPE(own).decode(BPE(own).encode("Hi")) == "Hi"


@pytest.mark.parametrize("special", [True, False, None])
def test_what_a_special_token_means_is_kept_with_the_tokenizer(special):
    again = from_config(json.loads(json.dumps(BPE(chat_tokenizer(), special=special).to_config())))
    assert again.special is special
    if special is not None:
        np.testing.assert_array_equal(again.encode(CHAT), BPE(chat_tokenizer(), special=special).encode(CHAT))
