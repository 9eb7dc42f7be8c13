"""A Dataset, a DataLoader or a function is what the same rows in memory are."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import thetahat as th
from thetahat.errors import BadArgument, DataError, EmptyData

X = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
Y = torch.arange(60) % 3


class Rows(Dataset):
    def __len__(self):
        return 60

    def __getitem__(self, i):
        return {"x": X[i], "y": int(Y[i])}


class Endless(IterableDataset):
    def __iter__(self):
        k = 0
        while True:
            yield X[k % 60], Y[k % 60]
            k += 1


class Pass(IterableDataset):
    def __iter__(self):
        return zip(X, Y, strict=True)


def model() -> th.models.Conditional:
    return th.models.Conditional(th.families.Categorical(3), th.networks.mlp(2, 8, 3, seed=0))


def fitted(data, **settings) -> th.Fit:
    own = {"steps": 12, "batch_size": 16, "learning_rate": 0.02}
    return th.fit(model(), data, solver=th.Stochastic(**own | settings))


@pytest.mark.parametrize(
    "data", [Rows(), TensorDataset(X, Y), th.data.Items(Rows(), workers=2)], ids=["dict", "tuple", "workers"]
)
def test_items_are_scored_as_the_rows_in_memory_are(data):
    fit = fitted(data)
    source = th.models.inputs.source_of(data, fit.model, None)
    rows = th.data.Tensors({"x": X, "y": Y})
    assert fit.score(source).total == pytest.approx(fit.score(rows).total, rel=1e-6)
    assert source.fingerprint == rows.fingerprint
    assert fit.certificate.trend is not None  # a tenth of the items was held out
    assert source.size == 60


def test_items_of_every_epoch_are_each_once_in_an_order_of_the_seed():
    source, generator = th.data.Items(Rows()), torch.Generator().manual_seed(3)
    first, second = (
        [y for b in source.epoch(16, generator) for y in b["x"][:, 0].tolist()] for _ in range(2)
    )
    assert sorted(first) == sorted(second) == sorted(X[:, 0].tolist())
    assert first != second
    again = [y for b in source.epoch(16, torch.Generator().manual_seed(3)) for y in b["x"][:, 0].tolist()]
    assert again == first


def test_what_is_held_out_is_not_trained_on():
    left, out = th.data.Items(Rows()).split(0.2, torch.Generator().manual_seed(0))
    seen = [{y for b in part.batches() for y in b["x"][:, 0].tolist()} for part in (left, out)]
    assert [len(each) for each in seen] == [48, 12]
    assert not seen[0] & seen[1]
    with pytest.raises(BadArgument, match="holds out 0"):
        left.split(0.001, torch.Generator())


USED = torch.Generator()  # one that many passes share, and so is in another state at each


@pytest.mark.parametrize(
    "loader",
    [
        lambda: DataLoader(Rows(), batch_size=10, shuffle=True),
        lambda: DataLoader(TensorDataset(X, Y), batch_size=10, sampler=WeightedRandomSampler([1.0] * 60, 60)),
        lambda: DataLoader(Rows(), batch_size=10, shuffle=True, generator=USED),
        lambda: DataLoader(
            Rows(), batch_size=10, sampler=RandomSampler(Rows(), replacement=True, generator=USED)
        ),
        lambda: DataLoader(Pass(), batch_size=10),
        lambda: lambda: ((X[k : k + 10], Y[k : k + 10]) for k in range(0, 60, 10)),
    ],
    ids=["shuffled", "sampler", "own generator", "sampler's generator", "iterable", "function"],
)
def test_a_loader_gives_the_batches_and_a_run_of_it_goes_on_bit_for_bit(loader, tmp_path):
    class Stop(Exception):
        pass

    def stop(state):
        if state.step == 7:
            raise Stop

    wanted = fitted(loader())
    assert wanted.certificate.steps == 12
    settings = {
        "steps": 12,
        "batch_size": 16,
        "learning_rate": 0.02,
        "checkpoint": tmp_path / "c",
        "checkpoint_every": 1,
    }
    with pytest.raises(Stop):
        th.fit(model(), loader(), solver=th.Stochastic(**settings), callback=stop)
    again = fitted(loader(), checkpoint=tmp_path / "c", checkpoint_every=1)
    assert torch.equal(again.theta, wanted.theta)


def test_a_step_takes_the_loaders_own_batches():
    """Twelve steps of 10 rows: two epochs of 60."""
    fit = fitted(DataLoader(Rows(), batch_size=10, shuffle=True))
    assert "over 2 epochs" in str(fit.certificate)


def test_data_without_end_are_trained_on_for_as_many_steps_as_asked():
    fit = fitted(Endless())
    assert "of data without end" in str(fit.certificate)


def test_a_generator_is_refused_since_it_is_read_once():
    with pytest.raises(BadArgument, match="can be read once"):
        fitted((x, y) for x, y in zip(X, Y, strict=True))


def test_what_a_loader_gives_is_named_or_refused():
    named = th.data.loaded.named
    assert list(named((X, Y))) == ["x", "y"]
    assert list(named(X, target="image")) == ["image"]
    assert list(named([X, Y], ("a", "b"))) == ["a", "b"]
    with pytest.raises(DataError, match="has 3 parts"):
        named((X, Y, Y))
    with pytest.raises(DataError, match="not numbers"):
        named({"x": ["a", "b"], "y": [1, 2]})
    with pytest.raises(EmptyData, match="no items"):
        th.data.Items(TensorDataset(torch.zeros(0, 1)))
    with pytest.raises(BadArgument, match="Loaded"):
        th.data.Items(Pass())
    with pytest.raises(BadArgument, match="received list"):
        th.data.Loaded([1, 2])


def test_a_dataset_larger_than_memory_is_an_images_source():
    """One tensor an item is the model's target."""

    class Pictures(Dataset):
        def __len__(self):
            return 40

        def __getitem__(self, i):
            return torch.full((16,), i % 4, dtype=torch.uint8)

    network = th.generative.PixelTransformer((4, 4), 4, layers=1, width=8, heads=2)
    fit = th.fit(
        th.generative.FullyVisible(th.families.Categorical(4), network),
        Pictures(),
        solver=th.Stochastic(steps=4, batch_size=8),
    )
    assert fit.score(th.data.Items(Pictures())).n == 40


def test_weights_of_a_dataset_are_refused():
    with pytest.raises(BadArgument, match="weights='w'"):
        th.fit(model(), Rows(), weights="w")
