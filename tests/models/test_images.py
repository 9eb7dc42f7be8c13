"""Every model of images × 2, 17 and 256 levels, as `Images` holds them (uint8), by API and by command; and
the type of a number is not its value."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

import thetahat as th
from thetahat.cli import main
from thetahat.data import Batch, Tensors
from thetahat.families import Bernoulli, Categorical, MultivariateNormal, Normal, Poisson
from thetahat.generative import (
    VAE,
    Augmented,
    ConvNet,
    Denoiser,
    Dequantised,
    Diffusion,
    Flow,
    FullyVisible,
    Images,
    MaskedMLP,
    Noised,
    PixelTransformer,
    Shifts,
    UNet,
)
from thetahat.models import Conditional, Density, Mixture
from thetahat.networks import mlp

D, SHAPE, LEVELS = 16, (4, 4), (2, 17, 256)


def pixels(levels: int, n: int = 40, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Images that hold the lowest and the highest level."""
    array = np.random.default_rng(0).integers(0, levels, (n, *shape)).astype(np.uint8)
    array[0].flat[:2] = 0, levels - 1
    return array


def pixel_family(levels: int):
    return Bernoulli() if levels == 2 else Categorical(levels)


def outputs(levels: int) -> int:
    return 1 if levels == 2 else levels


MODELS = {
    "VAE": lambda L: VAE.images(SHAPE, L, latent=2, width=8),
    "VAE, categorical": lambda L: VAE(mlp(D, 8, 4), mlp(2, 8, D * outputs(L)), pixel_family(L), latent=2),
    "IWAE": lambda L: VAE.images(SHAPE, L, latent=2, width=8, K=3),
    "IWAE, doubly reparameterised": lambda L: VAE.images(
        SHAPE, L, latent=2, width=8, K=3, estimator="doubly reparameterised"
    ),
    "diffusion, levels": lambda L: Diffusion(UNet(SHAPE, L, channels=(4,)), levels=L, predict="levels"),
    "diffusion, v": lambda L: Diffusion(Denoiser(D, width=8, blocks=1), levels=L),
    "diffusion, epsilon": lambda L: Diffusion(
        Denoiser(D, width=8, blocks=1), levels=L, predict="epsilon", K=2
    ),
    "flow": lambda L: Dequantised(Flow.affine(D, hidden=(8,), transforms=1), levels=L, maps=["logit"]),
    "spline flow": lambda L: Dequantised(
        Flow.spline(D, hidden=(8,), transforms=1, bins=4), levels=L, K=2, maps=["logit"]
    ),
    "MADE": lambda L: FullyVisible(pixel_family(L), MaskedMLP(D, outputs(L), 8, levels=L)),
    "independent pixels": lambda L: FullyVisible(pixel_family(L), MaskedMLP(D, outputs(L), None)),
    "pixel transformer": lambda L: FullyVisible(
        Categorical(L), PixelTransformer(SHAPE, L, layers=1, width=8, heads=2)
    ),
    "mixture": lambda L: Mixture([Density(MultivariateNormal(D)), Density(MultivariateNormal(D))]),
}


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("name", [n for n in MODELS if n != "mixture"])
def test_every_model_of_images_takes_its_first_steps_on_bytes(name, levels):
    """As `Images` holds them, uint8; the same fit of the same pixels as int64 has the same θ, bit for bit."""
    array = pixels(levels)
    fits = []
    for images in (
        Images(array, levels=levels),
        Tensors({"y": torch.from_numpy(array.astype("int64")).flatten(1)}),
    ):
        solver = th.Stochastic(steps=2, batch_size=16, learning_rate=1e-3, held_out=0.25)
        fits.append(th.fit(MODELS[name](levels), images, solver=solver))
    assert fits[0].certificate.status == "stochastic"
    assert all(math.isfinite(e) for _, e, _ in fits[0].trace)
    assert torch.equal(fits[0].theta, fits[1].theta)
    assert math.isfinite(fits[0].score(Images(array, levels=levels)).mean)


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int16, torch.int32, torch.int64, torch.float32, torch.float64]
)
@pytest.mark.parametrize("name", MODELS)
def test_log_p_of_an_image_does_not_depend_on_the_type_of_its_pixels(name, dtype):
    """log p of the same 256 levels, as float64, by definition of a function; draws of a bound from one
    seed."""
    model, y = MODELS[name](256), torch.from_numpy(pixels(256)).flatten(1)

    def log_p(values):
        batch = Batch({"y": values})
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(0)
            return model.log_prob(batch)

    torch.testing.assert_close(
        log_p(y.to(dtype)).double(), log_p(y.to(torch.float64)).double(), rtol=1e-6, atol=1e-5
    )


@pytest.mark.parametrize("levels", LEVELS)
def test_a_classifier_reads_bytes_augmented_or_not(levels):
    x, y = torch.from_numpy(pixels(levels, 60, (8, 8))), torch.arange(60).to(torch.uint8) % 3
    solver = th.Stochastic(steps=3, batch_size=16, held_out=0.2)
    for source in (Tensors({"x": x, "y": y}), Augmented({"x": x.flatten(1), "y": y}, Shifts((8, 8), 1))):
        fit = th.fit(
            Conditional(Categorical(3), ConvNet((8, 8), 3, (4,), levels=levels)), source, solver=solver
        )
        assert fit.certificate.status == "stochastic"
    perceptron = th.fit(
        Conditional(Categorical(3), mlp(64, 4, 3)), {"x": x.flatten(1), "y": y}, solver=solver
    )
    assert perceptron.certificate.status == "stochastic"


@pytest.mark.parametrize("levels", LEVELS)
def test_noised_and_binarised_images_are_bytes_too(levels):
    images = Images(pixels(levels), levels=levels)
    fit = th.fit(MODELS["diffusion, v"](levels), Noised(images), solver=th.Stochastic(steps=2, batch_size=16))
    assert fit.certificate.status == "stochastic"
    black = th.fit(
        VAE.images(SHAPE, 2, latent=2, width=8),
        images.binarised(),
        solver=th.Stochastic(steps=2, batch_size=16),
    )
    assert black.certificate.status == "stochastic"


COMMANDS = {
    "vae": "{d}/{L}.npy --levels {L} --width 8 --latent 2",
    "diffusion": "{d}/{L}.npy --levels {L} --channels 4",
    "classifier": "{d}/{L}.npy {d}/labels.npy --levels {L} --channels 4 8",
}


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_images_fits_every_number_of_levels(name, levels, tmp_path, capsys):
    """`thetahat fit vae | diffusion | classifier` on a .npy of bytes, and `thetahat score` of the run."""
    np.save(tmp_path / f"{levels}.npy", pixels(levels, shape=(8, 8)))
    np.save(tmp_path / "labels.npy", np.arange(40, dtype=np.uint8) % 3)
    words = COMMANDS[name].format(d=tmp_path, L=levels).split()
    assert (
        main(
            [
                "fit",
                name,
                *words,
                "--steps",
                "3",
                "--batch-size",
                "16",
                "--run",
                str(tmp_path / "run"),
                "--json",
            ]
        )
        == 0
    )
    told = capsys.readouterr()
    assert json.loads(told.out)["certificate"]["status"] == "stochastic"
    more = ["--labels", str(tmp_path / "labels.npy")] if name == "classifier" else []
    assert main(["score", str(tmp_path / "run"), str(tmp_path / f"{levels}.npy"), *more, "--json"]) == 0
    assert math.isfinite(json.loads(capsys.readouterr().out)["mean"])


def test_the_usual_decoder_does_not_grow_with_the_levels():
    """32 × 32 pixels of three colours: two networks of less than 3 million numbers, where a Categorical(256)
    decoder of width 500 has 501 · 3072 · 256 in its last layer alone."""
    sizes = [sum(p.numel() for p in VAE.images((3, 32, 32), levels).parameters()) for levels in (17, 256)]
    assert sizes[0] == sizes[1] < 3e6
    model = VAE.images((3, 32, 32), latent=4, width=8)
    y = torch.randint(0, 256, (2, 3072), dtype=torch.uint8)
    assert bool(torch.isfinite(model.log_prob(Batch({"y": y}))).all())
    drawn = model.draw(2, generator=torch.Generator().manual_seed(0))
    assert drawn.dtype == torch.int64
    assert 0 <= int(drawn.min()) <= int(drawn.max()) <= 255
    assert tuple(model.reconstruct(Batch({"y": y})).shape) == (2, 3072)


def test_an_odd_image_is_cut_from_the_decoders_grid():
    """7 × 5 pixels of two colours, from grids of 2 × 2, 4 × 4 and 8 × 8; each pixel's mass sums to 1."""
    model = VAE.images((2, 7, 5), 17, latent=3, width=8, components=2)
    eta = model.predictors(torch.randn(4, 3)).detach().double()
    assert tuple(eta.shape) == (4, 70, 5)
    p = torch.stack(
        [
            model.family.log_prob_eta(torch.full((4, 70), float(y)).double(), *eta.unbind(-1))
            for y in range(17)
        ]
    )
    assert float((p.exp().sum(0) - 1).abs().max()) < 1e-12


TYPES = [torch.uint8, torch.int16, torch.int32, torch.int64]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("family", "high"),
    [(Poisson(), 255), (th.families.NegativeBinomial(), 255), (Normal(), 255), (th.families.Geometric(), 255), (Bernoulli(), 1),
     (Categorical(200), 199), (th.families.GeneralizedPoisson(), 255), (th.families.ZeroInflated(Poisson()), 255),
     (th.families.DiscretisedLogistic(256), 255)],
    ids=str,
)  # fmt: skip
def test_log_p_of_a_count_does_not_depend_on_its_type(family, high, dtype):
    """255 + 1 is 256, whatever the bits of y: float64 is the oracle. By network, alone, and in a mixture."""
    high = min(high, torch.iinfo(dtype).max)
    y = torch.arange(high + 1)
    k = len(family.parameters) + hasattr(family, "probabilities")
    network = nn.Linear(1, k, dtype=torch.float64)
    models = [Conditional(family, network)]
    if not hasattr(family, "probabilities"):
        models += [Density(family), Mixture([Density(family), Density(family)])]
    x = torch.linspace(-1, 1, len(y), dtype=torch.float64)[:, None]
    for model in models:
        with torch.no_grad():
            own = model.log_prob(Batch({"y": y.to(dtype), "x": x}))
            exact = model.log_prob(Batch({"y": y.double(), "x": x}))
        assert own.dtype == torch.float64
        torch.testing.assert_close(own, exact, rtol=1e-12, atol=1e-12)


def test_booleans_are_trials():
    y, x = torch.tensor([True, False, True]), torch.ones(3, 1, dtype=torch.float64)
    model = Conditional(Bernoulli(), nn.Linear(1, 1, dtype=torch.float64))
    with torch.no_grad():
        torch.testing.assert_close(
            model.log_prob(Batch({"x": x, "y": y})), model.log_prob(Batch({"x": x, "y": y.double()}))
        )


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_a_likelihood_of_ones_own_reads_whole_numbers_that_do_not_wrap(dtype):
    """A batch of narrow integers is read as int64: the sum and the negative of bytes are what they are in
    arithmetic."""
    y = torch.tensor([0, 100, 127]).to(dtype)
    batch = Batch({"y": y})
    assert (batch["y"] + 200).tolist() == [200, 300, 327]
    assert (-batch["y"]).tolist() == [0, -100, -127]
    assert bool((batch["y"] < 2**40).all())
    assert batch.tensors["y"].dtype == dtype, "and is held in its own bits"


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.arange(40) % 3 + 1, "holds the classes 1 … 3, and no 0. Number them from 0: labels − 1."),
        (np.eye(3, dtype=int)[np.arange(40) % 3], "Of one-hot rows: labels.argmax(1);"),
        ((np.arange(40) % 3)[:, None], "Give labels[:, 0]."),
        (np.arange(40) % 3 - 1, "Labels are whole numbers 0, 1, …"),
        ((np.arange(40) % 3).astype(float), "type float64. Labels are whole numbers 0, 1, …"),
    ],
)
def test_labels_of_another_kind_are_refused_by_the_command(labels, said, tmp_path, capsys):
    """What scikit-learn, Keras and MATLAB have for labels, and what is meant by them here."""
    np.save(tmp_path / "images.npy", pixels(17, shape=(8, 8)))
    np.save(tmp_path / "labels.npy", labels)
    words = [
        "fit",
        "classifier",
        str(tmp_path / "images.npy"),
        str(tmp_path / "labels.npy"),
        "--run",
        str(tmp_path / "run"),
    ]
    assert main(words) != 0
    assert said in " ".join(capsys.readouterr().err.split())
