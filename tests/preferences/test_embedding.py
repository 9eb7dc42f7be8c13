"""Features of answers: what a language model makes of them, whatever they are batched and padded with."""

from __future__ import annotations

import pytest
import torch
from tests.llama import llama

from thetahat.errors import BadArgument
from thetahat.language import Bytes, Pretrained
from thetahat.networks import Transformer, mlp
from thetahat.preferences import TokenPairs, embedded

ROWS = [
    {"prompt": "2+2=", "chosen": "4", "rejected": "five, or so"},
    {"prompt": "Say nothing.", "chosen": "", "rejected": "No."},
    {"prompt": "Count", "chosen": " one two three", "rejected": " 3"},
]


def networks() -> dict[str, torch.nn.Module]:
    theirs = llama(num_hidden_layers=2, num_key_value_heads=1).double()
    return {"llama": Pretrained(theirs), "ours": Transformer(257, layers=2, width=16, heads=2).double()}


@pytest.mark.parametrize("name", ["llama", "ours"])
def test_features_do_not_depend_on_batches_order_or_padding(name):
    """All in one batch, one by one, padded by another token to another width, and in another order: the
    same to rounding."""
    network = networks()[name]
    pairs = TokenPairs(ROWS, Bytes())
    whole = torch.cat(embedded(network, pairs, ("last", "mean")), 1)
    alone = torch.cat(embedded(network, pairs, ("last", "mean"), tokens=1), 1)
    torch.testing.assert_close(alone, whole, rtol=0, atol=1e-12)
    other = TokenPairs([*ROWS[::-1], {"prompt": "x" * 90, "chosen": "a", "rejected": "b"}], Bytes())
    for which in ("chosen", "rejected"):
        real = torch.arange(other.whole[which].shape[1]) < other.whole[f"{which}_length"][:, None]
        other.whole.tensors[which] = torch.where(real, other.whole[which], 7)
    moved = torch.cat(embedded(network, other, ("last", "mean")), 1)[:3].flip(0)
    torch.testing.assert_close(moved, whole, rtol=0, atol=1e-12)


def test_features_are_the_hidden_states_of_the_answer():
    """By hand, an answer at a time: the state at its end, and the mean over its tokens (its end included)."""
    network = networks()["ours"]
    pairs = TokenPairs(ROWS, Bytes())
    chosen, rejected = embedded(network, pairs, ("last", "mean"))
    assert chosen.shape == (3, 32)
    for i, row in enumerate(ROWS):
        for found, answer in ((chosen, row["chosen"]), (rejected, row["rejected"])):
            ids = torch.tensor([*row["prompt"].encode(), *answer.encode(), 256])
            with torch.no_grad():
                h = network.features(ids[None])[0]
            torch.testing.assert_close(found[i, :16], h[-1], rtol=0, atol=1e-12)
            torch.testing.assert_close(found[i, 16:], h[len(row["prompt"]) :].mean(0), rtol=0, atol=1e-12)


def test_a_network_is_left_as_it_was():
    network = networks()["ours"].train()
    embedded(network, TokenPairs(ROWS, Bytes()))
    assert network.training


def test_what_has_no_features_is_refused():
    pairs = TokenPairs(ROWS, Bytes())
    with pytest.raises(BadArgument, match="pooling='max'"):
        embedded(networks()["ours"], pairs, "max")
    with pytest.raises(BadArgument, match="Sequential has no features"):
        embedded(mlp(2, (), 1), pairs)
