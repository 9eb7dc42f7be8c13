"""A mixture of k copies of a family: a density with several peaks, of which a network or linear predictors
give every parameter."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import BadArgument
from ..protocols import Categories
from .base import Parameter
from .bernoulli import Bernoulli
from .censored import Wrapper
from .ranges import real
from .special import count_quantile, invert_cdf
from .von_mises import VonMises


@dataclass(frozen=True)
class MixtureOf(Wrapper):
    """One of k copies of a family, and which one was not seen: a mixture density.

        log p(y) = logsumexp_j (log π_j + log p_j(y | θ_j)),      π = softmax(0, a_1, …, a_{k−1}),     p_j the family inside

    The parameters are those of copy 0, of copy 1, … (mean_0, scale_0, mean_1, …), then the log-odds logit_1 …
    logit_{k−1} against copy 0. With a network, `Conditional(MixtureOf(Normal(), 5), network)` is a mixture
    density network, and may have several peaks where y is ambiguous. Without predictors it is
    `models.Mixture`. In a formula the first parameter of every copy has the predictors of the formula: a
    mixture of regressions. Copies may change places without changing p; and a density whose scale may go to 0
    has no highest maximum.

    Parameters
    ----------
    family
        the family inside, a density or a mass of single numbers
    k
        how many copies

    References
    ----------
    Bishop (1994), Mixture Density Networks, eq. 22–29.

    Examples
    --------
    >>> from thetahat.families import Normal
    >>> tensor = torch.tensor
    >>> family = MixtureOf(Normal(), 2)
    >>> list(family.parameters)
    ['mean_0', 'scale_0', 'mean_1', 'scale_1', 'logit_1']
    >>> at = family.log_prob(tensor(0.0), tensor(-1.0), tensor(1.0), tensor(1.0), tensor(1.0), tensor(0.0))
    >>> round(at.item(), 6)  # both copies give it −½ log 2π − ½
    -1.418939
    """

    k: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 1:
            raise BadArgument(f"k={self.k!r} copies. Accepted: a whole number of at least 1.")
        inside: Any = self.family
        while isinstance(inside, Wrapper) and not isinstance(inside, MixtureOf):
            inside = inside.family
        if isinstance(inside, (MixtureOf, Bernoulli, Categories)):
            raise BadArgument(
                f"a mixture of {self.family} is one such again, and no data could tell the copies apart."
            )
        if isinstance(inside, VonMises):
            raise BadArgument(
                "angles of several copies are cut at several places; models.Mixture has no need of a cut."
            )

    @property
    def parameters(self) -> dict[str, Parameter]:
        own = list(self.family.parameters.items())
        out = {
            f"{name}_{j}": replace(p, own_predictors=i == 0)
            for j in range(self.k)
            for i, (name, p) in enumerate(own)
        }
        return out | {f"logit_{j}": Parameter(real) for j in range(1, self.k)}

    def impossible(self, y: Tensor, j: int, high: bool, **extras: Tensor) -> Tensor:
        return torch.zeros_like(y, dtype=torch.bool)  # another copy may give y

    # ---- p -------------------------------------------------------------------------------------------------

    def split(self, parameters: Sequence[Tensor]) -> tuple[list[Sequence[Tensor]], Tensor]:
        """Each copy's own parameters, and log π, (k, …)."""
        size = len(self.family.parameters)
        own = [parameters[j * size : (j + 1) * size] for j in range(self.k)]
        logits = parameters[self.k * size :]
        odds = torch.broadcast_tensors(torch.zeros_like(parameters[0]), *logits)
        return own, torch.log_softmax(torch.stack(odds), 0)

    def _pooled(self, log_p: Callable[..., Tensor], parameters: Sequence[Tensor]) -> Tensor:
        """log Σ_j π_j exp log_p(θ_j)."""
        own, log_pi = self.split(parameters)
        parts = torch.broadcast_tensors(*(log_p(*theta) + log_pi[j] for j, theta in enumerate(own)))
        top = torch.stack(parts).detach().amax(0)
        possible = torch.isfinite(top)
        if bool(possible.all()):
            return torch.logsumexp(torch.stack(parts), 0)
        kept = torch.stack(
            [torch.where(possible, part, 0.0) for part in parts]
        )  # where no copy can be, 0 has a derivative
        return torch.where(possible, torch.logsumexp(kept, 0), top)

    def _averaged(self, of: Callable[..., Tensor], parameters: Sequence[Tensor]) -> Tensor:
        """Σ_j π_j of(θ_j)."""
        own, log_pi = self.split(parameters)
        return torch.stack(
            torch.broadcast_tensors(*(of(*theta) * log_pi[j].exp() for j, theta in enumerate(own)))
        ).sum(0)

    def log_prob(self, y: Tensor, *parameters: Tensor, **extras: Tensor) -> Tensor:
        return self._pooled(lambda *theta: self.family.log_prob(y, *theta, **extras), parameters)

    def log_prob_eta(self, y: Tensor, *eta: Tensor, **extras: Tensor) -> Tensor:
        return self._pooled(lambda *own: self.family.log_prob_eta(y, *own, **extras), eta)

    def responsibilities(self, y: Tensor, *parameters: Tensor, **extras: Tensor) -> Tensor:
        """P(copy j | y), (…, k). Rows sum to 1."""
        own, log_pi = self.split(parameters)
        joint = torch.broadcast_tensors(
            *(self.family.log_prob(y, *t, **extras) + log_pi[j] for j, t in enumerate(own))
        )
        return torch.softmax(torch.stack(joint, -1), -1)

    # ---- what follows --------------------------------------------------------------------------------------

    def sample(
        self, *parameters: Tensor, generator: torch.Generator | None = None, **extras: Tensor
    ) -> Tensor:
        own, log_pi = self.split(parameters)
        drawn = torch.stack(
            torch.broadcast_tensors(
                *(self.family.sample(*theta, generator=generator, **extras) for theta in own)
            )
        )
        pi = log_pi.exp().expand(self.k, *drawn.shape[1:])
        z = torch.multinomial(pi.reshape(self.k, -1).T, 1, generator=generator).reshape(1, *drawn.shape[1:])
        return drawn.gather(0, z)[0]

    def expectation(self, *parameters: Tensor, **extras: Tensor) -> Tensor:
        return self._averaged(lambda *theta: self.family.expectation(*theta, **extras), parameters)

    def variance(self, *parameters: Tensor, **extras: Tensor) -> Tensor:
        mean = self.expectation(*parameters, **extras)

        def about(*theta: Tensor) -> Tensor:
            return (
                self.family.variance(*theta, **extras)
                + (self.family.expectation(*theta, **extras) - mean) ** 2
            )

        return self._averaged(about, parameters)

    def cdf(self, y: Tensor, *parameters: Tensor, **extras: Tensor) -> Tensor:
        return self._averaged(lambda *theta: self.family.cdf(y, *theta, **extras), parameters)

    def log_cdf(self, y: Tensor, *parameters: Tensor, **extras: Tensor) -> Tensor:
        return self._pooled(lambda *theta: self.family.log_cdf(y, *theta, **extras), parameters)

    def log_survival(self, y: Tensor, *parameters: Tensor, **extras: Tensor) -> Tensor:
        return self._pooled(lambda *theta: self.family.log_survival(y, *theta, **extras), parameters)

    def quantile(self, q: Tensor, *parameters: Tensor, **extras: Tensor) -> Tensor:
        s = self.support
        q = q.expand(torch.broadcast_shapes(q.shape, *(p.shape for p in parameters)))
        if s.integer:
            return count_quantile(lambda y: self.cdf(y, *parameters, **extras), q)
        value = invert_cdf(
            lambda y: self.cdf(y, *parameters, **extras),
            q,
            s.low,
            s.high,
            survival=lambda y: torch.exp(self.log_survival(y, *parameters, **extras)),
        )
        if self.measure != "mixed":
            return value
        return torch.where(
            q <= self.cdf(torch.zeros_like(q), *parameters, **extras), 0.0, value
        )  # the atom of zeros

    def in_support(self, y: Tensor, **extras: Tensor) -> Tensor:
        return self.family.in_support(y, **extras)

    def start(self, y: Tensor, weight: Tensor, **extras: Tensor) -> tuple[float, ...]:
        """Each copy where it would start if the rows, in the order of y, were its own part of them; equal
        shares."""
        order = torch.argsort(y, stable=True)
        along = torch.cumsum(weight[order], 0) - weight[order] / 2
        place = torch.empty_like(along)
        place[order] = along / weight.sum()
        edges = torch.linspace(0, 1, self.k + 1, dtype=place.dtype)
        parts = [(place >= a) & (place < b) for a, b in itertools.pairwise(edges)]
        whole = self.inner_start(y, weight, torch.ones_like(parts[0]), extras)
        starts = [
            self.inner_start(y, weight, rows, extras) if bool((rows & (weight > 0)).any()) else whole
            for rows in parts
        ]
        return (*(value for start in starts for value in start), *([0.0] * (self.k - 1)))
