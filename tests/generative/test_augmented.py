"""Augmentation: every row once an epoch, changed; scores and held-out rows as they were observed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import thetahat as th
from thetahat.data import Tensors
from thetahat.errors import BadArgument, UnknownColumn
from thetahat.generative import Augmented, Shifts


def source(n=20):
    x = torch.randint(1, 256, (n, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Tensors({"x": x, "y": torch.arange(n)})


def test_a_shift_is_numpys_with_zeros_at_the_edge():
    """All 25 shifts of one image of two channels, by slices of a padded array."""
    x = torch.arange(1, 25, dtype=torch.uint8).reshape(1, 2, 3, 4)
    padded = np.pad(x[0].numpy(), ((0, 0), (2, 2), (2, 2)))
    expected = {padded[:, i : i + 3, j : j + 4].tobytes() for i in range(5) for j in range(5)}
    shifts, generator = Shifts((2, 3, 4), 2), torch.Generator().manual_seed(0)
    moved = shifts(x.expand(600, 2, 3, 4), generator)
    assert {image.numpy().tobytes() for image in moved} == expected
    flat = shifts(x.reshape(1, -1).expand(600, -1), torch.Generator().manual_seed(0))
    assert torch.equal(
        flat, shifts(x.expand(600, 2, 3, 4), torch.Generator().manual_seed(0)).reshape(600, -1)
    )


def test_an_epoch_has_every_row_once_and_another_epoch_other_changes():
    augmented, generator = Augmented(source(), Shifts((3, 4), 1)), torch.Generator().manual_seed(0)
    first, second = (
        {int(y): x for b in augmented.epoch(7, generator) for x, y in zip(b["x"], b["y"], strict=True)}
        for _ in "ab"
    )
    assert sorted(first) == sorted(second) == list(range(20))
    assert any(not torch.equal(first[i], second[i]) for i in first)


def test_a_score_sees_the_rows_as_they_were_observed():
    plain = source()
    augmented = Augmented(plain, Shifts((3, 4), 1))
    assert torch.equal(next(augmented.batches())["x"], plain.whole["x"])
    assert (augmented.fingerprint, augmented.size, augmented.observations) == (plain.fingerprint, 20, 20.0)
    left, out = augmented.split(0.25, torch.Generator().manual_seed(0))
    assert isinstance(left, Augmented)
    assert sorted([*left.source.whole["y"].tolist(), *out.whole["y"].tolist()]) == list(range(20))
    assert torch.equal(out.whole["x"], plain.whole["x"][out.whole["y"]])


def test_a_change_that_changes_nothing_is_the_same_fit():
    """θ of a run on rows in a source that augments by nothing: every batch holds the rows themselves."""
    augmented = Augmented(source(), Shifts((3, 4), 0))
    for batch in augmented.epoch(20, torch.Generator().manual_seed(1)):
        assert torch.equal(batch["x"], source().whole["x"][batch["y"]])


def test_a_climb_takes_it_and_holds_out_unchanged_rows():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 200)
    x = rng.integers(0, 50, (200, 8, 8))
    x[y == 1, 3:5, :] += 150
    data = Augmented({"x": torch.tensor(x, dtype=torch.uint8), "y": torch.tensor(y)}, Shifts((8, 8), 1))
    model = th.models.Conditional(th.families.Categorical(2), th.generative.ConvNet((8, 8), 2, (4,)))
    fit = th.fit(model, data, solver=th.Stochastic(steps=60, batch_size=50, learning_rate=0.02, held_out=0.2))
    assert fit.observations == 200
    assert fit.score().n == 200
    assert fit.score().mean > -0.1


def test_counts_travel_with_their_rows():
    rows = Tensors({"x": torch.ones(4, 4), "y": torch.arange(4)}, count=torch.tensor([1.0, 2.0, 3.0, 4.0]))
    augmented = Augmented(rows, Shifts((2, 2), 0))
    assert augmented.observations == 10
    for batch in augmented.epoch(2, torch.Generator().manual_seed(0)):
        assert torch.equal(batch.count, batch["y"] + 1.0)


def test_what_cannot_be_augmented_is_refused():
    with pytest.raises(UnknownColumn, match="'z'"):
        Augmented(source(), Shifts((3, 4)), inputs="z")
    with pytest.raises(BadArgument, match="number of pixels"):
        Shifts((3, 4), -1)
    with pytest.raises(BadArgument, match="stay as they were"):
        next(Augmented(source(), lambda x, g: x[:, :2]).epoch(4, torch.Generator()))
    with pytest.raises(BadArgument, match=r"held_out=0\.01"):
        Augmented(source(), Shifts((3, 4))).split(0.01, torch.Generator())
