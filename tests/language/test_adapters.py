"""Low-rank adapters where matrices are shared."""

from __future__ import annotations

import pytest
import torch

from thetahat.errors import BadArgument
from thetahat.language import add_lora, merge
from thetahat.networks import Transformer


def test_an_output_that_is_tied_to_the_embedding_takes_no_adapter_of_its_own():
    """Merged, the change of the output would be one of the embedding: W + BA is read in two places."""
    net = Transformer(11, layers=1, width=16, heads=2, tied=True)
    with pytest.raises(BadArgument, match=r"lm_head.*embed_tokens"):
        add_lora(net, targets=("q_proj", "lm_head"))
    assert all(p.requires_grad for p in net.parameters())  # what was refused is as it was


@pytest.mark.parametrize("tied", [True, False])
def test_a_merged_network_computes_what_the_adapted_one_did(tied):
    net = Transformer(11, layers=2, width=16, heads=2, tied=tied)
    tokens = torch.randint(11, (2, 6), generator=torch.Generator().manual_seed(0))
    add_lora(net, rank=2, targets=("q_proj", "o_proj", "up_proj") if tied else ("q_proj", "lm_head"))
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
        before = net(tokens)
        torch.testing.assert_close(merge(net)(tokens), before)


def test_a_matrix_tied_after_it_was_adapted_is_not_merged():
    net = add_lora(Transformer(11, layers=1, width=16, heads=2), rank=2, targets=("lm_head",))
    net.model["embed_tokens"].weight = net.lm_head.linear.weight
    with pytest.raises(BadArgument, match="tied"):
        merge(net)
