"""Tokens: nothing of a text is lost, every term is scored once, and the layout is bookkeeping."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from thetahat.errors import BadArgument, EmptyData, MalformedFile, UnknownLevel
from thetahat.language import BPE, Bytes, Characters, Tokens, shards
from thetahat.language.fast_tokenizers import from_config

TEXTS = [
    "To be, or not to be: that is the question.",
    "naïve café — 今日は 🎭 <end> done",
    "a",
    "¡Olé!\r\nsecond line\ttab",
]


def tokenizers() -> dict[str, object]:
    return {
        "bytes": Bytes(),
        "characters": Characters.of(*TEXTS),
        "bpe": BPE.train(TEXTS * 3, vocabulary=300),
    }


@pytest.fixture(scope="module", params=["bytes", "characters", "bpe"])
def tokenizer(request):
    if request.param == "bpe":
        pytest.importorskip("tokenizers")
    return tokenizers()[request.param]


# ---- tokenizers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_comes_back_and_its_tokens_stand_for_its_bytes(tokenizer, text):
    """decode(encode(text)) = text, and Σ lengths = bytes of UTF-8: also where a character is several
    tokens, or spells a special one."""
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert int(tokenizer.lengths[tokens].sum()) == len(text.encode("utf-8"))
    assert len(tokenizer.lengths) == tokenizer.vocabulary
    assert tokens.max() < tokenizer.vocabulary


def test_a_tokenizer_comes_back_from_its_plain_values(tokenizer):
    again = from_config(json.loads(json.dumps(tokenizer.to_config())))
    assert type(again) is type(tokenizer)
    assert (again.vocabulary, again.end) == (tokenizer.vocabulary, tokenizer.end)
    np.testing.assert_array_equal(again.encode(TEXTS[0]), tokenizer.encode(TEXTS[0]))


def test_bpe_merges_what_is_frequent():
    """Sennrich et al.: the most frequent pair becomes a token. "ab" nine times is one token, so nine are
    left of eighteen bytes."""
    pytest.importorskip("tokenizers")
    assert len(BPE.train(["ab" * 9], vocabulary=258).encode("ab" * 9)) == 9


def test_a_tokenizer_that_changes_the_text_is_refused():
    package = pytest.importorskip("tokenizers")
    own = package.Tokenizer(package.models.BPE())
    own.pre_tokenizer = package.pre_tokenizers.Whitespace()
    with pytest.raises(BadArgument, match="byte-level"):
        BPE(own)
    with pytest.raises(BadArgument, match="vocabulary=7"):
        BPE.train(["x"], vocabulary=7)


def test_a_character_outside_the_alphabet_is_named():
    with pytest.raises(UnknownLevel, match=r"'z' \(at 2\)"):
        Characters("abc").encode("abz")
    with pytest.raises(BadArgument, match="once"):
        Characters("aa")


# ---- terms -------------------------------------------------------------------------------------------------


def terms(tokens: Tokens, batches=None) -> list[tuple[int, int, int]]:
    """(document, input, target) of each term that counts, in order."""
    out = []
    for b in tokens.batches() if batches is None else batches:
        group = b.group if b.grouped else torch.zeros(b.shape, dtype=torch.long)
        for g, x, y, c in zip(
            *(t.reshape(-1).tolist() for t in (group, b["input"], b["target"], b.count)), strict=True
        ):
            if c:
                out.append((g, x, y))
    return out


def test_the_terms_of_closed_documents_are_their_tokens_and_their_end():
    """end t o end: three terms; p(document) = p(t | end) p(o | t) p(end | to)."""
    found = terms(Tokens(["to", "b"], context=50))
    assert [(x, y) for _, x, y in found] == [(256, 116), (116, 111), (111, 256), (256, 98), (98, 256)]
    assert [g for g, _, _ in found] == [1, 1, 1, 2, 2]


def test_the_first_token_of_a_document_without_an_end_is_given_and_not_scored():
    found = terms(Tokens(["abc", "ca"], Characters("abc"), context=50))
    assert [(x, y) for _, x, y in found] == [(0, 1), (1, 2), (2, 0)]
    unmasked = Tokens(["abc", "ca"], Characters("abc"), context=50, mask=False)
    assert [(x, y) for _, x, y in terms(unmasked)] == [(0, 1), (1, 2), (2, 2), (2, 0)]


@pytest.mark.parametrize("context", [1, 3, 7, 40, 500])
@pytest.mark.parametrize("layout", ["stream", "padded", "packed"])
def test_every_layout_scores_every_term_once_in_the_same_order(tokenizer, context, layout):
    tokens = Tokens(TEXTS, tokenizer, context=1000)
    other = tokens.laid_out(context=context, layout=layout)
    found = terms(other)
    assert found == terms(tokens)
    assert len(found) == other.size
    assert other.fingerprint == tokens.fingerprint
    assert all(b.shape[1] <= context for b in other.batches())


@pytest.mark.parametrize("stride", [1, 4, 9])
@pytest.mark.parametrize("layout", ["stream", "padded", "packed"])
def test_windows_that_overlap_score_every_term_once_with_more_before_it(stride, layout):
    """Each scored term has at least context − stride terms before it in its row, or all that its document (or
    the stream) has."""
    tokens = Tokens(["x" * 5 + "abcdefghijklmnopqrstuvw", "yz"], context=10, stride=stride, layout=layout)
    assert terms(tokens) == terms(tokens.laid_out(context=100, layout="stream"))
    batch = next(iter(tokens.batches()))
    for row in range(1, len(batch)):
        if layout != "packed" and batch.group[row, 0] == batch.group[0, 0]:
            assert int(batch.count[row].argmax()) == 10 - stride


def test_packed_rows_hold_whole_documents_and_name_them():
    tokens = Tokens(["aa", "bbb", "c", "dddddd"], context=8, layout="packed")
    (batch,) = tokens.batches()
    assert batch["document"].tolist() == [[1, 1, 1, 2, 2, 2, 2], [3, 3] + [-1] * 5, [4] * 7]
    assert batch.count.sum() == tokens.size == 3 + 4 + 2 + 7


@pytest.mark.parametrize("layout", ["stream", "padded", "packed"])
def test_an_epoch_deals_out_every_term_once_in_another_order(layout):
    tokens = Tokens(["the quick brown fox " * 5, "jumps", "over the lazy dog"], context=16, layout=layout)
    generator = torch.Generator().manual_seed(0)
    epochs = [[(b["input"], b["target"], b.count) for b in tokens.epoch(3, generator)] for _ in range(3)]
    expected = sorted((x, y) for _, x, y in terms(tokens))
    for epoch in epochs:
        found = [
            (int(x), int(y))
            for X, Y, C in epoch
            for x, y, c in zip(X.reshape(-1), Y.reshape(-1), C.reshape(-1), strict=True)
            if c
        ]
        assert sorted(found) == expected
        assert all(len(X) <= 3 for X, _, _ in epoch)
    assert str(epochs[0]) != str(epochs[1])
    again = [b["input"].tolist() for b in tokens.epoch(3, torch.Generator().manual_seed(0))]
    assert again == [X.tolist() for X, _, _ in epochs[0]]


@pytest.mark.parametrize("fraction", [0.1, 0.5])
def test_a_split_cuts_where_a_document_begins_and_loses_no_term(tokenizer, fraction):
    texts = [f"document {i} says {i * i}" for i in range(20)]
    own = tokenizer if tokenizer.end is not None else Characters.of(*texts)
    tokens = Tokens(texts, own, context=16)
    rest, out = tokens.split(fraction)
    assert terms(rest) + terms(out) == terms(tokens)
    assert rest.documents + out.documents == 20
    assert out.size / tokens.size == pytest.approx(fraction, abs=0.05)


def test_one_text_is_split_into_its_beginning_and_its_end():
    """nanoGPT's split: the first 90 % and the last 10 % of the characters, each scored from its second on."""
    text = "abcdefghij" * 10
    rest, out = Tokens([text], Characters.of(text), context=7).split(0.1)
    assert (rest.size, out.size) == (89, 9)
    assert out.decode([y for _, _, y in terms(out)]) == "bcdefghij"


def test_units_of_one_long_text_are_blocks_of_it_whatever_the_window():
    tokens = Tokens(torch.zeros(10_000, dtype=torch.long), None, context=64)
    for view in (tokens, tokens.laid_out(context=100, stride=10)):
        groups = [g for g, _, _ in terms(view)]
        assert [groups.count(g) for g in range(5)] == [2000] * 4 + [1999]


# ---- shards ------------------------------------------------------------------------------------------------


def test_shards_are_mapped_and_equal_the_texts_that_they_were_made_of(tmp_path, tokenizer):
    """Windows across the edges of shards of about five tokens."""
    folder = shards(TEXTS, tmp_path / "shards", tokenizer, tokens=5)
    mapped, own = Tokens(folder, context=11), Tokens(TEXTS, tokenizer, context=11)
    assert len(mapped.stream.parts) > 2
    assert all(isinstance(p, np.memmap) for p in mapped.stream.parts)
    assert terms(mapped) == terms(own)
    assert mapped.fingerprint == own.fingerprint
    assert mapped.documents == 4
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    for a, b in zip(mapped.epoch(2, generators[0]), own.epoch(2, generators[1]), strict=True):
        assert torch.equal(a["input"], b["input"])


def test_shards_that_were_cut_short_are_refused(tmp_path):
    folder = shards(TEXTS, tmp_path / "shards")
    with pytest.raises(BadArgument, match="already"):
        shards(TEXTS, folder)
    part = folder / "tokens-00000.bin"
    part.write_bytes(part.read_bytes()[:-2])
    with pytest.raises(MalformedFile, match=r"tokens-00000\.bin.* cut short"):
        Tokens(folder)
    (folder / "tokens.json").write_text("{")
    with pytest.raises(MalformedFile, match=r"tokens\.json"):
        Tokens(folder)


def test_a_folder_of_texts_is_read_file_by_file_and_jsonl_line_by_line(tmp_path):
    (tmp_path / "b.txt").write_bytes(b"second\r\n")
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n', encoding="utf-8")
    tokens = Tokens(tmp_path)
    assert tokens.documents == 3
    assert tokens.decode([y for _, _, y in terms(tokens) if y < 256]) == "onetwosecond\r\n"


# ---- what goes wrong ---------------------------------------------------------------------------------------


def test_what_is_no_text_is_refused_by_name(tmp_path):
    def file(name: str, content: bytes) -> str:
        (tmp_path / name).write_bytes(content)
        return str(tmp_path / name)

    with pytest.raises(EmptyData, match=r"empty\.txt.* is empty"):
        Tokens(file("empty.txt", b""))
    with pytest.raises(MalformedFile, match=r"no UTF-8 text: byte 0xff at 2"):
        Tokens(file("latin.txt", b"ab\xff"))
    with pytest.raises(MalformedFile, match="zero byte at 1"):
        Tokens(file("image.bin", b"a\0b"))
    with pytest.raises(MalformedFile, match="line 2"):
        Tokens(file("x.jsonl", b'{"text": "a"}\n{"txt": "b"}\n'))
    with pytest.raises(MalformedFile, match="neither a file nor a folder"):
        Tokens("to be or not to be")
    with pytest.raises(EmptyData, match="list of texts"):
        Tokens([])
    with pytest.raises(EmptyData, match="1 tokens"):
        Tokens(["a"], Characters("a"))


def test_a_token_outside_the_vocabulary_is_named():
    with pytest.raises(UnknownLevel, match=r"document 1: the token 300 at 2 .* 0 … 256"):
        Tokens([np.array([1, 2]), np.array([3, 4, 300])], Bytes())
    with pytest.raises(UnknownLevel, match="-1 at 0"):
        Tokens(torch.tensor([-1, 2]), None)
    with pytest.raises(BadArgument, match="float"):
        Tokens(torch.tensor([0.5, 2]), None)


@pytest.mark.parametrize(
    "settings",
    [
        {"context": 0},
        {"layout": "ragged"},
        {"stride": 0},
        {"context": 4, "stride": 5},
        {"layout": "packed", "mask": False},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(BadArgument, match="Accepted"):
        Tokens(["some text"], **settings)
