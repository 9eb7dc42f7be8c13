"""Batch norm under an averaged θ, and in batches that are too small for it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import thetahat as th
from thetahat.data import Tensors
from thetahat.errors import BadArgument, ThetahatError
from thetahat.families import Categorical, Normal
from thetahat.generative import Augmented, ConvNet, Images
from thetahat.models import Conditional


def normed(dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Dropout(dropout), nn.ReLU(), nn.Linear(5, 2))


def rows(n: int = 64):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, 3, generator=g) + 1
    return {"x": x, "y": x[:, 0] - x[:, 1] + torch.randn(n, generator=g)}


@pytest.mark.parametrize("restore_best", [True, False])
@pytest.mark.parametrize("held_out", [None, "rows"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_statistics_are_those_of_the_averaged_weights(restore_best, held_out, dropout):
    """Steps of all rows: mean and variance (n − 1) of W̄x + b̄ over them, in float64 by hand; and a score
    is of those."""
    data, settings = (
        rows(),
        {"steps": 30, "batch_size": 64, "learning_rate": 0.02, "lr_schedule": "constant", "ema_decay": 0.9},
    )
    held = None if held_out is None else Tensors(data)
    fit = th.fit(
        Conditional(Normal(), normed(dropout)),
        data,
        solver=th.Stochastic(restore_best=restore_best, held_out=held, evaluate_every=30, **settings),
    )
    linear, norm = fit.model.network[0], fit.model.network[1]
    assert held is None or fit.trace[-1][1] > fit.trace[0][1], "θ is that of the last step, whichever is kept"
    h = data["x"].double() @ linear.weight.detach().double().T + linear.bias.detach().double()
    torch.testing.assert_close(norm.running_mean.double(), h.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var.double(), h.var(0), rtol=1e-4, atol=1e-5)
    assert norm.momentum == 0.1
    if held is not None:
        assert fit.score(held).mean == pytest.approx(fit.trace[-1][1], abs=1e-6)


def test_averaging_loses_nothing_to_old_statistics():
    """Large constant steps: with the statistics of the raw θ this held-out mean is up to a nat lower; the raw
    weights' is the yardstick."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x, y = (
        torch.from_numpy(digits.images.astype("uint8")).flatten(1)[:900],
        torch.from_numpy(digits.target)[:900],
    )
    train, test = ({"x": x[a:b], "y": y[a:b]} for a, b in ((0, 600), (600, 900)))
    score = {}
    for average in (None, 0.99):
        solver = th.Stochastic(
            steps=80,
            batch_size=16,
            learning_rate=0.03,
            lr_schedule="constant",
            ema_decay=average,
            restore_best=False,
            held_out=None,
        )
        fit = th.fit(
            Conditional(Categorical(10), ConvNet((8, 8), 10, (16, 32), levels=17)), train, solver=solver
        )
        score[average] = fit.score(Tensors(test)).mean
    assert score[0.99] > score[None] - 0.02


def test_a_resumed_average_has_the_same_statistics_bit_for_bit(tmp_path):
    """Killed after step 7 of 12 (what a checkpoint at 7 holds), and gone on: θ and buffers of the run that
    was not killed."""

    def settings(path):
        return th.Stochastic(
            steps=12,
            batch_size=16,
            ema_decay=0.8,
            learning_rate=0.1,
            evaluate_every=3,
            checkpoint=path,
            checkpoint_every=1,
            held_out=0.25,
        )

    whole = th.fit(Conditional(Normal(), normed(0.3)), rows(), solver=settings(tmp_path / "whole"))
    killed = settings(tmp_path / "killed")

    class Stop(Exception):
        pass

    def watch(state):
        if state.step == 7:
            raise Stop

    objective = th.likelihood.Objective(
        [th.likelihood.LogLikelihood(Conditional(Normal(), normed(0.3)), Tensors(rows()))]
    )
    with pytest.raises(Stop):
        th.maximize(objective, solver=killed, callback=watch)
    again = th.fit(Conditional(Normal(), normed(0.3)), rows(), solver=killed)
    assert torch.equal(again.theta, whole.theta)
    for a, b in zip(again.model.buffers(), whole.model.buffers(), strict=True):
        assert torch.equal(a, b)


# ---- batches of one row ------------------------------------------------------------------------------------


def images(n: int):
    g = torch.Generator().manual_seed(0)
    return torch.randint(0, 17, (n, 64), generator=g, dtype=torch.uint8), torch.arange(n) % 3


@pytest.mark.parametrize("n", [16, 17, 18, 31, 33])
def test_a_last_batch_of_one_row_joins_the_one_before(n):
    """n = 16m + 1 rows in batches of 16, through every way in which rows are minibatches; torch's own
    BatchNorm1d takes no single row."""
    x, y = images(n)
    data = {"x": x.float() / 16, "y": y}
    net = nn.Sequential(nn.Linear(64, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    solver = th.Stochastic(steps=4, batch_size=16, held_out=None)
    for source in (data, Augmented(data, lambda x, g: x)):
        assert (
            th.fit(Conditional(Categorical(3), net), source, solver=solver).certificate.status == "stochastic"
        )
    pieces = th.Stochastic(steps=4, batch_size=8, accumulation_steps=3, held_out=None)
    assert th.fit(Conditional(Categorical(3), net), data, solver=pieces).certificate.status == "stochastic"
    pixels = ConvNet((8, 8), 3, (4, 4, 4), levels=17)  # its last layer has one pixel
    assert (
        th.fit(Conditional(Categorical(3), pixels), {"x": x, "y": y}, solver=solver).certificate.status
        == "stochastic"
    )


def test_every_row_is_still_seen_once_an_epoch():
    """33 rows in batches of 16: 16 and 17, each row once."""
    from thetahat.solvers.minibatches import feeds

    term = th.likelihood.LogLikelihood(
        Conditional(Normal(), normed()), Tensors({"x": torch.zeros(33, 3), "y": torch.arange(33.0)})
    )
    (feed,) = feeds([term], 16, torch.Generator().manual_seed(0), {}, least=2)
    epoch = [next(feed.batches)[0] for _ in range(2)]
    assert [len(batch) for batch in epoch] == [16, 17]
    assert sorted(torch.cat([batch["y"] for batch in epoch]).tolist()) == list(range(33))


@pytest.mark.parametrize(("batch_size", "pieces"), [(1, 1), (3, 2), (7, 4)])
def test_batches_too_small_for_batch_norm_are_refused(batch_size, pieces):
    with pytest.raises(
        BadArgument,
        match=f"batch_size={batch_size}, accumulation_steps={pieces}: BatchNorm1d takes the variance",
    ):
        th.fit(
            Conditional(Normal(), normed()),
            rows(),
            solver=th.Stochastic(batch_size=batch_size, accumulation_steps=pieces, steps=2),
        )
    th.fit(
        Conditional(Normal(), nn.Linear(3, 2)),
        rows(),
        solver=th.Stochastic(batch_size=batch_size, accumulation_steps=pieces, steps=2),
    )


def test_a_single_row_is_too_few():
    data = {name: value[:1] for name, value in rows().items()}
    with pytest.raises(ThetahatError, match="1 rows, and batch norm needs 2"):
        th.fit(
            Conditional(Normal(), normed()), data, solver=th.Stochastic(batch_size=4, steps=2, held_out=None)
        )


def test_images_in_memory_are_dealt_so_too():
    x, _ = images(17)
    source = Images(x.reshape(17, 8, 8).numpy(), levels=17)
    net = nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
    vae = th.generative.VAE(net, th.networks.mlp(2, 8, 64 * 17), Categorical(17), latent=2)
    assert (
        th.fit(vae, source, solver=th.Stochastic(steps=4, batch_size=8, held_out=None)).certificate.status
        == "stochastic"
    )
