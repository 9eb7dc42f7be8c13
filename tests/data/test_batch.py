"""Batch, Tensors and their counts: what every model sees."""

import numpy as np
import pytest
import torch

from thetahat.data import Batch, Tensors
from thetahat.data.batch import concatenate
from thetahat.data.source import Thinned, check_count
from thetahat.errors import BadArgument, BadWeights, EmptyData, UnknownColumn


def batch(n=5, **more):
    return Batch({"x": torch.arange(2.0 * n).reshape(n, 2), "y": torch.arange(float(n))}, **more)


def test_a_slice_of_a_batch_slices_every_tensor_its_counts_and_its_groups():
    part = batch(count=torch.arange(5.0), group=torch.arange(5) // 2)[1:3]
    assert part["x"].tolist() == [[2.0, 3.0], [4.0, 5.0]]
    assert part.count.tolist() == [1.0, 2.0]
    assert part.group.tolist() == [0, 1]
    assert part.shape == (2,)
    assert part.total == 3.0


def test_a_term_counts_once_and_is_its_own_group_unless_said_otherwise():
    plain = batch()
    assert (plain.counted, plain.grouped) == (False, False)
    assert plain.count.tolist() == [1.0] * 5
    assert plain.group.tolist() == [0, 1, 2, 3, 4]
    assert plain.total == 5.0


def test_the_groups_of_tokens_are_their_sequences():
    tokens = Batch({"y": torch.zeros(2, 3)}, dims=2)
    assert tokens.shape == (2, 3)
    assert tokens.group.tolist() == [[0, 0, 0], [1, 1, 1]]
    assert tokens.total == 6.0


def test_concatenation_undoes_slicing():
    whole = batch(count=torch.arange(5.0))
    again = concatenate([whole[:2], whole[2:]])
    assert torch.equal(again["x"], whole["x"])
    assert torch.equal(again.count, whole.count)


def test_another_precision_leaves_codes_alone():
    moved = Batch({"code": torch.arange(3), "x": torch.ones(3)}, count=torch.ones(3)).to(torch.float64)
    assert moved["code"].dtype == torch.long
    assert moved["x"].dtype == moved.count.dtype == torch.float64


def test_counts_can_be_replaced_and_the_first_batch_keeps_its_own():
    first = batch(count=torch.ones(5))
    second = first.with_count(torch.zeros(5))
    assert first.total == 5.0
    assert second.total == 0.0


@pytest.mark.parametrize(
    ("tensors", "message"), [({}, "at least one"), ({"a": torch.ones(2), "b": torch.ones(3)}, "'b'.*3.*2")]
)
def test_a_batch_is_of_tensors_that_share_their_leading_shape(tensors, message):
    with pytest.raises(BadArgument, match=message):
        Batch(tensors)


def test_a_tensor_that_is_not_there_is_named_with_its_nearest():
    with pytest.raises(UnknownColumn, match=r"'yy'.*'y'"):
        batch()["yy"]


def test_blocks_of_tensors_are_the_tensors():
    source = Tensors({"x": torch.randn(10, 2), "y": torch.zeros(10)}, block=4)
    blocks = list(source.batches())
    assert [len(b) for b in blocks] == [4, 4, 2]
    assert torch.equal(concatenate(blocks)["x"], source.whole["x"])


def test_the_fingerprint_follows_the_response_and_its_counts_and_not_the_predictors():
    y = torch.arange(4.0)
    plain = Tensors({"y": y, "x": torch.zeros(4)}).fingerprint
    assert plain == Tensors({"y": y, "x": torch.ones(4)}, block=2).fingerprint
    assert plain != Tensors({"y": y.flip(0)}).fingerprint
    assert plain != Tensors({"y": y}, count=torch.tensor([1.0, 1.0, 1.0, 2.0])).fingerprint


def test_no_rows_are_no_source():
    with pytest.raises(EmptyData):
        Tensors({"y": torch.zeros(0)})


@pytest.mark.parametrize(
    ("count", "message"),
    [
        ([1, -2], "row 1 is -2"),
        ([np.nan, 1], "row 0 is missing"),
        ([1, np.inf], "row 1 is inf"),
        ([0, 0], "zero"),
    ],
)
def test_counts_are_finite_not_negative_and_not_all_zero(count, message):
    with pytest.raises(BadWeights, match=message):
        check_count(np.array(count, dtype=float))


@pytest.mark.parametrize(("n", "keep"), [(10, 3), (9, 3), (7, 10)])
def test_a_thinned_source_has_as_many_rows_as_it_says(n, keep):
    source = Thinned(Tensors({"y": torch.arange(float(n))}), keep)
    assert sum(len(b) for b in source.batches()) == source.size == -(-n // keep)
