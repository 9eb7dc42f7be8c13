"""What stops a training run is named: the value, what its model accepts, and the row of the data, which
the test has put there."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import thetahat as th
from thetahat.data import Tensors
from thetahat.errors import NotConverged
from thetahat.families import Bernoulli, Categorical, Gamma, Normal, Poisson
from thetahat.generative import (
    VAE,
    Augmented,
    Denoiser,
    Diffusion,
    FullyVisible,
    Images,
    MaskedMLP,
    Noised,
    Shifts,
)
from thetahat.models import Conditional
from thetahat.networks import mlp

N = 60


def x(n: int = N) -> torch.Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(0))


def fails(model, data, said, held_out=None, steps=40, **settings):
    with pytest.raises(NotConverged, match=said) as caught:
        th.fit(model, data, solver=th.Stochastic(steps=steps, batch_size=8, held_out=held_out, **settings))
    return caught.value


@pytest.mark.parametrize(
    ("family", "good", "bad", "support"),
    [
        (
            Poisson(),
            2.0,
            -1.0,
            r"'y' is -1 in row 37 of the data, outside Poisson\(\)'s support, the counts 0, 1, 2",
        ),
        (Poisson(), 2.0, 1.5, r"'y' is 1.5 in row 37 .* the counts"),
        (Gamma(), 2.0, 0.0, r"'y' is 0 in row 37 .* the positive numbers"),
        (Bernoulli(), 1.0, 2.0, r"'y' is 2 in row 37 .* \{0, 1\}"),
        (Categorical(3), 1, 3, r"'y' is 3 in row 37 .* the codes 0 … 2"),
        (Categorical(3), 1, -1, r"'y' is -1 in row 37 .* the codes 0 … 2"),
    ],
)
@pytest.mark.parametrize("held_out", [None, 0.5])
def test_a_value_outside_the_support_is_named_with_the_support_and_its_row(
    family, good, bad, support, held_out
):
    """Row 37 of the data, whichever batch meets it, or the held-out half before the first step."""
    y = torch.full((N,), good)
    y[37] = bad
    model = Conditional(family, mlp(2, (), len(family.parameters)))
    error = fails(model, {"x": x(), "y": y}, support, held_out)
    assert "Correct or leave out these rows" in error.certificate.advice


def test_labels_from_one_are_met_by_the_question_whether_they_were_meant():
    """1 … 3 of three classes: the codes are 0 … 2."""
    y = torch.arange(N) % 3 + 1
    fails(
        Conditional(Categorical(3), mlp(2, (), 3)),
        {"x": x(), "y": y},
        r"'y' is 3 .*Categories are numbered from 0: y − 1",
        0.2,
    )


@pytest.mark.parametrize("held_out", [None, 0.5])
def test_a_missing_input_is_named_with_its_row_and_column(held_out):
    values = x()
    values[11, 1] = math.nan
    y = torch.zeros(N)
    said = r"log p is nan .* The data hold nan in 'x' in row 11 of the data, column 1 \(1 such values"
    error = fails(Conditional(Normal(), mlp(2, (), 2)), {"x": values, "y": y}, said, held_out)
    assert "Every value must be finite" in error.certificate.advice


def test_a_pixel_outside_the_levels_is_named():
    """Images that were made for more levels: pixel 5 of image 4 is 9 of 8 levels."""
    y = torch.ones(N, 6, dtype=torch.uint8)
    y[:, 0], y[4, 5] = 0, 9
    rows = Tensors({"y": y})
    said = r"'y' is 9 in row 4 of the data, column 5, outside .*0 … 7"
    fails(Diffusion(Denoiser(6, width=8, blocks=1), levels=8), rows, said, steps=20)
    fails(Diffusion(Denoiser(6, width=8, blocks=1), levels=8), Noised(rows), said, steps=20)
    fails(VAE(mlp(6, 4, 4), mlp(2, 4, 48), Categorical(8), latent=2), rows, said, steps=20)
    fails(FullyVisible(Categorical(8), MaskedMLP(6, 8, 4, levels=8)), rows, said, steps=20)


def test_the_row_is_that_of_the_data_where_inputs_are_changed_at_random():
    """Augmented: the label is found, the image is another one in every epoch."""
    images, y = torch.randint(0, 256, (N, 16), dtype=torch.uint8), torch.arange(N) % 3
    y[23] = 7
    source = Augmented({"x": images, "y": y}, Shifts((4, 4), 1))
    net = nn.Sequential(nn.Linear(16, 3))
    fails(Conditional(Categorical(3), net), source, r"'y' is 7 in row 23 of the data")


def test_outputs_that_are_not_finite_are_not_blamed_on_the_data():
    """A network that gives NaN where its input is above 2: row 9 alone."""

    class Breaks(nn.Linear):
        def forward(self, x):
            return torch.where(x[:, :1] > 2, math.nan, super().forward(x))

    values = x().clamp(-1, 1)
    values[9, 0] = 3
    error = fails(
        Conditional(Poisson(), Breaks(2, 1)),
        {"x": values, "y": torch.ones(N)},
        r"in row 9 of the data.*model's outputs",
    )
    assert "Lower the learning rate" in error.certificate.advice


@pytest.mark.parametrize("solver", [th.Newton(), th.LBFGS()], ids=["Newton", "LBFGS"])
def test_the_solvers_of_all_rows_name_them_too(solver):
    """−1 is no count, 3 of 1 … 3 is not a code of three classes, and NaN no number."""
    values, bad, missing = x().double(), torch.ones(N), x().double()
    bad[7], missing[11, 1] = -1, math.nan
    one = mlp(2, (), 1, dtype=torch.float64)
    for model, data, said in (
        (
            Conditional(Poisson(), one),
            {"x": values, "y": bad},
            r"'y' is -1 in row 7 of the data, outside Poisson\(\)'s support",
        ),
        (
            Conditional(Categorical(3), mlp(2, (), 3, dtype=torch.float64)),
            {"x": values, "y": torch.arange(N) % 3 + 1},
            "numbered from 0",
        ),
        (
            Conditional(Poisson(), one),
            {"x": missing, "y": torch.ones(N)},
            "The data hold nan in 'x' in row 11 of the data, column 1",
        ),
    ):
        with pytest.raises(NotConverged, match=said):
            th.fit(model, data, solver=solver)


def test_images_are_fitted_to_the_end_where_nothing_is_wrong():
    images = Images(np.random.default_rng(0).integers(0, 8, (40, 2, 3)), levels=8)
    fit = th.fit(
        Diffusion(Denoiser(6, width=8, blocks=1), levels=8),
        images,
        solver=th.Stochastic(steps=5, batch_size=8),
    )
    assert fit.certificate.status == "stochastic"


# ---- what a certificate says of a run that ended well ------------------------------------------------------


def rows():
    g = torch.Generator().manual_seed(0)
    values = torch.randn(200, 2, generator=g)
    return {"x": values, "y": torch.poisson(torch.exp(0.3 * values[:, 0] + 0.5), generator=g)}


def test_a_run_that_learnt_nothing_says_so():
    """Steps so large that every evaluation is worse than the first, whose θ is kept, or not."""
    model = Conditional(Poisson(), mlp(2, (), 1))
    settings = {
        "steps": 6,
        "batch_size": 8,
        "optimiser": "sgd",
        "learning_rate": 0.3,
        "lr_schedule": "constant",
        "held_out": 0.5,
    }
    with torch.no_grad():
        model.network[0].weight.copy_(torch.tensor([[0.3, 0.0]]))
        model.network[0].bias.fill_(0.5)
    before = torch.cat([p.detach().reshape(-1).clone() for p in model.parameters()])
    best = th.fit(model, rows(), solver=th.Stochastic(**settings))
    assert best.trace[0][1] == max(mean for _, mean, _ in best.trace)
    said = (
        "Nothing was learnt: the best evaluation was the first, before any step, so that θ is where it began."
    )
    assert torch.equal(best.theta, before)
    for text in (str(best.certificate), str(best.summary())):
        assert said in " ".join(text.split())
    last = th.fit(model, rows(), solver=th.Stochastic(restore_best=False, **settings))
    assert "Nothing was learnt" in str(last.certificate)
    assert "worse than where it began" in str(last.certificate)


def test_a_run_that_learnt_something_does_not():
    fit = th.fit(
        Conditional(Poisson(), mlp(2, (), 1)),
        rows(),
        solver=th.Stochastic(steps=40, batch_size=16, learning_rate=0.02),
    )
    assert "Nothing was learnt" not in str(fit.certificate)
    assert "patience" not in str(fit.certificate)


def test_an_end_by_patience_is_said():
    solver = th.Stochastic(
        steps=500, batch_size=16, learning_rate=0.3, evaluate_every=5, patience=3, held_out=0.3
    )
    fit = th.fit(Conditional(Poisson(), mlp(2, (), 1)), rows(), solver=solver)
    assert fit.certificate.steps < 500
    assert (
        "Ended before its 500 steps: 3 evaluations in a row were no better than the best (patience)."
        in str(fit.certificate)
    )
