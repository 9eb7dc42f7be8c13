"""Six models of the same images: 8 × 8 digits of 17 grey levels, their held-out scores, bits per pixel, in one table."""

from __future__ import annotations

import functools
import math
from importlib import import_module
from typing import Any

from torch import nn

import thetahat as th
from thetahat.tour.row import Row

LEVELS, SHAPE, PIXELS, LATENT = 17, (8, 8), 64, 16


GREY = th.families.Categorical(LEVELS)


@functools.cache
def images() -> tuple[th.generative.Images, th.generative.Images]:
    """1400 images to fit to, and 397 others to score, of scikit-learn's copy of the UCI digits."""
    try:
        digits = import_module("sklearn.datasets").load_digits()
    except ImportError as error:
        raise th.errors.MissingExtra.named("scikit-learn", "sklearn") from error
    every = th.generative.Images(digits.images.astype("uint8"), levels=LEVELS)
    return every.take(slice(0, 1400)), every.take(slice(1400, None))


def row_of(
    name: str,
    maximised: str,
    model: nn.Module,
    solver: th.Stochastic,
    quick: bool,
    *,
    samples: int | None = None,
) -> Row:
    train, test = images()
    found = th.fit(model, train, solver=solver)
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
        drawn=found.sample(2 if quick else 12) if isinstance(model, th.protocols.Draws) else None,
    )


def steps(quick: bool, steps: int, **settings: Any) -> th.Stochastic:
    """An eighth of the steps where there is little time."""
    steps = max(40, steps // 8) if quick else steps
    return th.Stochastic(steps=steps, evaluate_every=max(1, steps // 5), **settings)
