"""Samplers: from pure noise back to x, in steps.

With z̄ = z/α and σ̄ = σ/α = e^{−λ/2}, noise is removed along

    dz̄/dσ̄ = ε̂(z, λ)                                          the probability flow: no noise but that of the start

    "ddim"       Euler's step,  z_s = α_s x̂ + σ_s ε̂                                                              error O(1/steps)
    "heun"       Euler's step, then the mean of the slopes at both its ends                                         error O(1/steps²)
    "ancestral"  q(z_s | z_t, x̂) = N(α_s (e^{λ_t − λ_s} z̄_t + c x̂), σ_s² c),   c = 1 − e^{λ_t − λ_s}        noise anew at each step

References
----------
Ho, Jain and Abbeel (2020), Denoising diffusion probabilistic models; Kingma et al. (2021), eq. 32 (ancestral
in λ); Song, Meng and Ermon (2021), Denoising diffusion implicit models, eq. 14; Karras, Aittala, Aila and
Laine (2022), Elucidating the design space of diffusion-based generative models, algorithm 1.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import BadArgument
from .labels import Label, asked

if TYPE_CHECKING:
    from .diffusion import Denoised, Diffusion

METHODS = ("ancestral", "ddim", "heun")


@torch.no_grad()
def sample(
    model: Diffusion,
    n: int,
    *,
    label: Label | None = None,
    guidance: float = 1.0,
    steps: int = 100,
    method: str = "ancestral",
    generator: torch.Generator | None = None,
) -> Tensor:
    """n draws, (n, d).

    Parameters
    ----------
    model
        whose ε̂ leads back
    n
        draws
    label
        of a model with classes: the class of all draws, or of each, (n,). None: draws of y without a class,
        which a network that was fitted with drop_label above 0 has learnt
    guidance
        1: draws of p(y | label), none. Above 1 ε̃ = ε̂(z, ∅) + guidance · (ε̂(z, label) − ε̂(z, ∅)) leads
        further towards the class (`Diffusion.guided`); the network is asked twice. What is drawn then has no
        likelihood
    steps
        from t = 1 to t = 0, evenly spaced in the model's t; the network is asked once a step, by "heun" twice
    method
        "ancestral", which ends with a draw from p(x | z_0); "ddim" or "heun", which end with its mean (of
        levels: its mode)
    generator
        the randomness; None: torch's own

    Raises
    ------
    BadArgument
        an unknown method; the model does not know its d; no label where one is needed, a label where there
        are no classes, guidance without either
    UnknownLevel, WrongType
        a label that is not 0 … C − 1

    References
    ----------
    Ho and Salimans (2022), Classifier-free diffusion guidance (eq. 6, with w = guidance − 1).

    Examples
    --------
    >>> from .diffusion import Diffusion
    >>> white = Diffusion(lambda z, log_snr: z, predict="epsilon", dimensions=2)       # "all is noise": x̂ = 0 where α is small
    >>> tuple(sample(white, 3, steps=2, method="ddim").shape)
    (3, 2)
    """
    if method not in METHODS:
        raise BadArgument(f"method={method!r}. Accepted: {', '.join(map(repr, METHODS))}.")
    if n < 1 or steps < 1:
        raise BadArgument(f"n={n}, steps={steps}. Accepted: 1 or more.")
    if model.dimensions is None:
        raise BadArgument("Diffusion does not know the length of its vectors: give it dimensions=.")
    at = model.scale.device
    given = asked(label, n, model.classes, model, at, marginal=model.drop_label > 0)
    denoised = model.guided(given, guidance)
    z = torch.randn(n, model.dimensions, generator=generator, dtype=model.dtype).to(at)
    z = solve(model, z, steps=steps, method=method, generator=generator, denoised=denoised)
    high = model.schedule.high.to(z)
    ratio = z / torch.sigmoid(high).sqrt()
    if method != "ancestral":
        return model.decode(ratio)
    if model.levels is None:
        return model.decode(ratio + torch.exp(-high / 2) * _normal(z, generator))
    p = model.log_levels(ratio).exp().reshape(-1, model.levels)
    return (
        torch.multinomial(p.to("cpu" if generator is None else generator.device), 1, generator=generator)
        .reshape(z.shape)
        .to(z.device)
    )


@torch.no_grad()
def solve(
    model: Diffusion,
    z: Tensor,
    *,
    steps: int,
    method: str,
    generator: torch.Generator | None = None,
    denoised: Denoised | None = None,
) -> Tensor:
    """z_0 of z_1, (n, d), along `denoised` (None: the model's own)."""
    denoised = model.denoised if denoised is None else denoised
    grid = model.schedule.log_snr(torch.linspace(1, 0, steps + 1, dtype=z.dtype, device=z.device))
    for before, after in itertools.pairwise(grid):
        z = _step(denoised, z, before, after, method, generator)
    return z


def _step(
    denoised: Denoised, z: Tensor, t: Tensor, s: Tensor, method: str, generator: torch.Generator | None
) -> Tensor:
    """z_s of z_t; t and s are log-SNRs, s the larger."""
    x, epsilon = denoised(z, t.expand(len(z)))
    alpha, sigma = torch.sigmoid(s).sqrt(), torch.sigmoid(-s).sqrt()
    if method == "ancestral":
        c = -torch.expm1(t - s)
        mean = alpha * ((1 - c) * z / torch.sigmoid(t).sqrt() + c * x)
        return mean + sigma * c.sqrt() * _normal(z, generator)
    euler = alpha * x + sigma * epsilon
    if method == "ddim":
        return euler
    again = denoised(euler, s.expand(len(z)))[1]
    width = torch.exp(-s / 2) - torch.exp(-t / 2)  # of the step in σ̄, below 0
    return euler + alpha * width * (again - epsilon) / 2


def _normal(like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)
