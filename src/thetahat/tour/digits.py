"""Six models of the same images, 8 × 8 digits of 17 grey levels, and their scores on the same held-out ones:
bits per pixel in one true table.

A mass of whole numbers can be compared with a mass of whole numbers, whatever made it: regressions pixel by
pixel, a mixture, a flow whose density was integrated over each level's cell, a latent variable, a diffusion,
a transformer. Some are known exactly and some by a bound.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from importlib import import_module

from torch import nn

from ..data.maps import Standardise
from ..errors import MissingExtra
from ..evaluation.compare import Comparison, compare
from ..families import Categorical
from ..fit import fit
from ..generative.dequantised import Dequantised
from ..generative.diffusion import Diffusion
from ..generative.flow import Flow
from ..generative.fully_visible import FullyVisible
from ..generative.images import Images
from ..generative.masked import MaskedMLP
from ..generative.pixels import PixelTransformer
from ..generative.unet import UNet
from ..generative.vae import VAE
from ..models import Mixture
from ..networks import mlp
from ..protocols import Draws
from ..result import Fit
from ..solvers import Stochastic
from ..types import Plain
from .row import Row

LEVELS, SHAPE, PIXELS, LATENT = 17, (8, 8), 64, 16
GREY = Categorical(LEVELS)


@functools.cache
def images() -> tuple[Images, Images]:
    """1400 images to fit to, and 397 others to score, of scikit-learn's copy of the UCI digits."""
    try:
        digits = import_module("sklearn.datasets").load_digits()
    except ImportError as error:
        raise MissingExtra.named("scikit-learn", "sklearn") from error
    every = Images(digits.images.astype("uint8"), levels=LEVELS)
    return every.take(slice(0, 1400)), every.take(slice(1400, None))


# ---- the systems -------------------------------------------------------------------------------------------


def regressions(quick: bool) -> Row:
    model = FullyVisible(GREY, MaskedMLP(PIXELS, LEVELS - 1, hidden=(), levels=LEVELS))
    solver = _steps(quick, 600, batch_size=128, learning_rate=3e-3 if not quick else 2e-2)
    return _row(
        "regressions, pixel by pixel", "Σ_i Σ_j log Categorical(y_j | a_j + B_j·y_<j)", model, solver, quick
    )


def mixture(quick: bool) -> Row:
    parts = [FullyVisible(GREY, MaskedMLP(PIXELS, LEVELS - 1, hidden=None, seed=k)) for k in range(10)]
    solver = _steps(quick, 300, batch_size=128, learning_rate=0.1)
    return _row(
        "mixture of images", "Σ log Σ_k π_k Π_j Categorical(y_j | a_kj)", Mixture(parts), solver, quick
    )


def flow(quick: bool) -> Row:
    flow = Flow.affine(PIXELS, transforms=5, hidden=(128,))
    model = Dequantised(flow, levels=LEVELS, maps=["logit", Standardise(0.0, 2.5)])
    solver = _steps(quick, 400, batch_size=128, learning_rate=3e-3)
    return _row(
        "flow",
        "Σ log ∫ p(y + u) du,  p(x) = N(f(x))·|f′(x)|",
        model,
        solver,
        quick,
        samples=4 if quick else 16,
    )


def vae(quick: bool) -> Row:
    encoder = mlp(PIXELS, (256,), 2 * LATENT, seed=1)
    decoder = mlp(LATENT, (256,), PIXELS * LEVELS, seed=2)
    model = VAE(encoder, decoder, GREY, latent=LATENT)
    solver = _steps(quick, 1500, batch_size=128, learning_rate=2e-3, warmup_steps=50)
    return _row(
        "VAE", "Σ log ∫ p(y | z) N(z) dz, bounded below", model, solver, quick, samples=16 if quick else 128
    )


def diffusion(quick: bool) -> Row:
    model = Diffusion(UNet(SHAPE, LEVELS, channels=(12, 24)), levels=LEVELS, predict="levels")
    solver = _steps(quick, 480, batch_size=64, learning_rate=0.01, ema_decay=0.95 if quick else 0.98)
    return _row(
        "diffusion",
        "Σ log p(y | noise undone), bounded below",
        model,
        solver,
        quick,
        samples=8 if quick else 64,
    )


def transformer(quick: bool) -> Row:
    network = PixelTransformer(SHAPE, levels=LEVELS, layers=2, width=64)
    solver = _steps(quick, 200, batch_size=64, optimiser="muon", learning_rate=0.01)
    return _row(
        "transformer, pixel by pixel", "Σ_i Σ_j log p(y_j | y_<j)", FullyVisible(GREY, network), solver, quick
    )


SYSTEMS: dict[str, Callable[[bool], Row]] = {
    "regressions, pixel by pixel": regressions,
    "mixture of images": mixture,
    "flow": flow,
    "VAE": vae,
    "diffusion": diffusion,
    "transformer, pixel by pixel": transformer,
}


def compared(done: Iterable[Row]) -> Comparison | None:
    """The table of those that were scored on the same images; None of fewer than two."""
    scores = {row.system: row.score for row in done if row.score is not None}
    return compare(scores) if len(scores) > 1 else None


def _row(
    name: str,
    maximised: str,
    model: nn.Module,
    solver: Stochastic,
    quick: bool,
    *,
    samples: int | None = None,
) -> Row:
    train, test = images()
    found: Fit = fit(model, train, solver=solver)
    assert found.certificate.trend is not None
    score = found.score(test, samples=samples)
    first, after, _ = found.certificate.trend
    error = score.standard_error / PIXELS / math.log(2)
    kind = {"exact": "exactly", "lower bound": "at most, by a bound,", "estimate": "about"}[score.kind]
    return Row(
        name,
        "digits, 1400 images",
        maximised,
        "nats a held-out image",
        first,
        after,
        f"stochastic: on 397 other images {kind} {score.bits_per_dimension:.3f} ± {error:.3f} bits a pixel",
        f"{LEVELS} levels at random: {math.log2(LEVELS):.3f} bits a pixel",
        score=score,
        drawn=found.sample(2 if quick else 12) if isinstance(model, Draws) else None,
    )


def _steps(quick: bool, steps: int, **settings: Plain) -> Stochastic:
    """An eighth of the steps where there is little time."""
    steps = max(40, steps // 8) if quick else steps
    return Stochastic(steps=steps, evaluate_every=max(1, steps // 5), **settings)
