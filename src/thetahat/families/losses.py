"""Losses by the names that machine learning gives them, and the family that each is in disguise."""

from __future__ import annotations

import difflib

from ..errors import BadArgument
from .base import Family
from .huber import Huber
from .laplace import AsymmetricLaplace
from .registry import registry

LOSSES = {
    "squared": "normal",
    "absolute": "laplace",
    "huber": "huber",
    "pinball": "asymmetric_laplace",
    "log_cosh": "hyperbolic_secant",
    "logistic": "bernoulli",
    "cross_entropy": "categorical",
    "poisson": "poisson",
}


def loss(name: str, level: float | None = None) -> Family:
    """The family that a loss is in disguise: the loss is −log p up to constants, and to minimise one is to
    maximise the other.

        loss           of                     −log p(y | θ, σ = 1), up to a constant in θ             family
        squared        r = y − μ              r²/2                                                    Normal
        absolute       r = y − μ              |r|                                                     Laplace
        huber          r = y − μ              r²/2 where |r| ≤ level, level·(|r| − level/2) beyond    Huber(level)
        pinball        r = y − μ              level·r where r ≥ 0, (level − 1)·r where r < 0          AsymmetricLaplace(level)
        log_cosh       r = y − μ              log cosh r                                              HyperbolicSecant
        logistic       y ∈ {0, 1}, logit η    log(1 + e^η) − y·η                                      Bernoulli
        cross_entropy  y ∈ {0 … K−1}, η       log Σ_k e^(η_k) − η_y                                   Categorical
        poisson        y ∈ {0, 1, …}, η       e^η − y·η                                               Poisson

    What the loss leaves out comes with the family: the scale σ of the first five, at 1 in the loss, can be
    estimated (and then weighs the loss against every other term), and losses become comparable, in nats, on
    the same data.

    Parameters
    ----------
    name
        of the loss, from the table
    level
        the threshold of huber (default 1.345) or the quantile of pinball (default 0.5); no other loss has one

    Raises
    ------
    BadArgument
        for an unknown name; for a level where there is none; for hinge, which is the negative log of no
        probability

    Examples
    --------
    >>> print(loss("pinball", 0.9), loss("squared"))
    AsymmetricLaplace(level=0.9) Normal()
    """
    if "hinge" in name:
        # for no constant c is e^(−c·h(η)) + e^(−c·h(−η)) the same for every η, so that e^(−c·h) is not a
        # probability of y = ±1
        raise BadArgument(
            f"the {name} loss is not a likelihood: e^(−loss) does not sum to a constant over the two "
            "classes, so it is the "
            "−log p of no family, and no probability can be read from its margin. Its nearest likelihood is "
            "'logistic'."
        )
    if name not in LOSSES:
        near = difflib.get_close_matches(name, LOSSES, n=1)
        hint = f" Nearest: {near[0]!r}." if near else ""
        raise BadArgument(f"unknown loss {name!r}.{hint} Losses: {', '.join(LOSSES)}.")
    if level is None:
        return registry[LOSSES[name]]()
    if name == "huber":
        return Huber(level)
    if name == "pinball":
        return AsymmetricLaplace(level)
    raise BadArgument(
        f"the {name} loss has no level; got {level!r}. Those that have one: huber (threshold), pinball "
        "(quantile)."
    )
