"""Mixture: each row came from one of K components, and which one was not seen.

    log p(x | θ) = log Σ_k π_k p_k(x | θ_k)

What was not seen has a posterior, the responsibilities r_k(x) = π_k p_k(x) / p(x), and with them every
derivative of the mixture is made of its components' own. With S_k = ∂ log(π_k p_k)/∂θ the score of a row
whose component were known, and J_k its information,

    score         s = Σ_k r_k S_k                                            (Fisher's identity)
    information   J = Σ_k r_k J_k − (Σ_k r_k S_k S_kᵀ − s sᵀ)                 (Louis': complete less missing)

The first sums are weighted maximum likelihood of each component, responsibilities as weights: what EM
maximises.

References
----------
Dempster, Laird and Rubin (1977), Maximum likelihood from incomplete data via the EM algorithm; Louis (1982),
Finding the observed information matrix when using the EM algorithm; McLachlan and Peel (2000), Finite Mixture
Models.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .. import families
from ..data.batch import Batch
from ..data.source import Source
from ..errors import BadArgument
from ..families.base import Family
from ..protocols import HasSlopes, HasStart, is_concave, measure_of
from ..types import Data, ModelLike, Plain
from .base import Model, coefficient_names, family_of, get_theta, names_of, natural_of
from .density import Density, observed
from .information import Information
from .partition import partition
from .regression import Regression
from .taylor import Taylor, scores, taylor, weighted

if TYPE_CHECKING:
    from ..data.table import Encoder, Table


class Mixture(Model):
    """p(x) = Σ_k π_k p_k(x | θ_k): the component of a row was not seen.

        log p(x | θ) = logsumexp_k (log π_k + log p_k(x | θ_k)),      π = softmax(0, a_1, …, a_{K−1})

    θ = (a_1, …, a_{K−1}, θ_0, …, θ_{K−1}). Components of one kind may change places without changing p: a fit
    numbers them by their first parameter (mean, location, intercept), upwards.

    Parameters
    ----------
    components
        a family, its name, or a model, of which there are `k` copies; or a list of them, not necessarily
        alike. A family has no predictors; regressions as components share a table (see `regressions`)
    k
        how many, where one is given

    Raises
    ------
    BadArgument
        fewer than one component, densities mixed with masses, or vectors of different lengths

    Examples
    --------
    >>> Mixture("normal", 2).names
    ['weight[0]', 'weight[1]', '0: mean', '0: scale', '1: mean', '1: scale']
    """

    target = "y"

    def __init__(
        self, components: str | Family | nn.Module | Sequence[str | Family | nn.Module], k: int | None = None
    ):
        super().__init__()
        built = _built(components, k)
        self.components = nn.ModuleList(built)
        first = next((p for c in built for p in c.parameters()), None)  # of networks in their precision
        self.logits = nn.Parameter(
            torch.zeros(len(built) - 1, dtype=torch.float64 if first is None else first.dtype)
        )
        self.measure = built[0].measure
        self.alike = [next(j for j, other in enumerate(built) if _alike(other, each)) for each in built]

    # ---- p -------------------------------------------------------------------------------------------------

    @property
    def k(self) -> int:
        return len(self.components)

    def log_weights(self) -> Tensor:
        """log π, (K,)."""
        return torch.log_softmax(torch.cat([self.logits.new_zeros(1), self.logits]), 0)

    def joint(self, batch: Batch) -> Tensor:
        """log π_k + log p_k(x), (n, K)."""
        return torch.stack([c.log_prob(batch) for c in self._models()], -1) + self.log_weights()

    def log_prob(self, batch: Batch) -> Tensor:
        return torch.logsumexp(self.joint(batch), -1)

    def responsibilities(self, batch: Batch) -> Tensor:
        """p(k | x), (n, K): how probable each component is for each row. Rows sum to 1."""
        with torch.no_grad():
            return torch.softmax(self.joint(batch), -1)

    def mean(self, batch: Batch) -> Tensor:
        """E[y] = Σ_k π_k E_k[y], (n,), or (n, d) of vectors."""
        with torch.no_grad():
            return torch.stack([c.mean(batch) for c in self._models()], -1) @ torch.exp(self.log_weights())

    def sample(self, batch: Batch, *, generator: torch.Generator | None = None) -> Tensor:
        """One draw of y for each row: of its component first."""
        with torch.no_grad():
            z = torch.multinomial(
                torch.exp(self.log_weights()), len(batch), replacement=True, generator=generator
            )
            drawn = torch.stack([c.sample(batch, generator=generator) for c in self._models()])
        return drawn[z, torch.arange(len(batch))]

    # ---- derivatives ---------------------------------------------------------------------------------------

    def complete(
        self,
        batch: Batch,
        r: Tensor,
        weight: Tensor | None = None,
        order: int = 2,
        precision: torch.dtype = torch.float64,
    ) -> Taylor:
        """Q = Σ_i w_i Σ_k r_ik log(π_k p_k(x_i)), r held: to second order. The log-likelihood if the
        components had been seen.

        Parameters
        ----------
        r
            (n, K) responsibilities
        """
        counts = r if weight is None else r * weight[:, None]
        with torch.no_grad():
            log_pi = self.log_weights()
        pi, n_k = torch.exp(log_pi), counts.sum(0)
        value = weighted(log_pi, n_k).sum()
        gradient = [n_k[1:] - n_k.sum() * pi[1:]]
        blocks = [n_k.sum() * (torch.diag(pi[1:]) - torch.outer(pi[1:], pi[1:]))]
        for component, count in zip(self._models(), counts.T, strict=True):
            rows = count > 0  # a row that a component cannot have produced has no derivatives there
            part = taylor(
                component, batch if bool(rows.all()) else batch[rows], count[rows], order, precision
            )
            value = value + part.value
            gradient.append(part.gradient)
            if part.information is not None:
                blocks.append(part.information.dense())
        J = Information(torch.block_diag(*blocks)) if order > 1 else None
        return Taylor(value, torch.cat(gradient), J)

    def taylor(
        self,
        batch: Batch,
        weight: Tensor | None = None,
        order: int = 2,
        precision: torch.dtype = torch.float64,
    ) -> Taylor:
        """Σ w log p, its gradient (Fisher's identity), and its information (Louis')."""
        with torch.no_grad():
            joint = self.joint(batch)
            log_p = torch.logsumexp(joint, -1)
            r = torch.exp(joint - log_p[..., None])
        value = log_p.sum() if weight is None else weighted(log_p, weight).sum()
        known = self.complete(batch, r, weight, order, precision)
        if known.information is None:
            return Taylor(value, known.gradient)
        return Taylor(
            value, known.gradient, Information(known.information.A - self._missing(batch, r, weight))
        )

    def _missing(self, batch: Batch, r: Tensor, weight: Tensor | None) -> Tensor:
        """Σ_i w_i (Σ_k r_k S_k S_kᵀ − s sᵀ): what would be known besides, had the components been seen.
        (p, p)"""
        s, own = self._scores(batch, r)
        counts = r if weight is None else r * weight[:, None]
        pi = torch.exp(self.log_weights().detach())
        away = torch.eye(self.k, dtype=pi.dtype)[:, 1:] - pi[1:]  # row k: ∂ log π_k / ∂a
        out = s.new_zeros(s.shape[1], s.shape[1])
        first = slice(0, self.k - 1)
        out[first, first] = away.T @ (counts.sum(0)[:, None] * away)
        for k, (place, s_k) in enumerate(zip(self.places, own, strict=True)):
            out[place, place] = s_k.T @ (counts[:, k, None] * s_k)
            cross = torch.outer(away[k], counts[:, k] @ s_k)
            out[first, place], out[place, first] = cross, cross.T
        return out - s.T @ (s if weight is None else weight[:, None] * s)

    def scores(self, batch: Batch) -> Tensor:
        """∂ log p_i / ∂θ, (n, p)."""
        return self._scores(batch, self.responsibilities(batch))[0]

    def _scores(self, batch: Batch, r: Tensor) -> tuple[Tensor, list[Tensor]]:
        """s, (n, p), and each component's own scores, (n, p_k), 0 for rows that it cannot have produced."""
        own = []
        for component, r_k in zip(self._models(), r.T, strict=True):
            rows = r_k > 0
            of_rows = scores(component, batch if bool(rows.all()) else batch[rows])
            s_k = of_rows.new_zeros(len(r), of_rows.shape[1])
            s_k[rows] = of_rows
            own.append(s_k)
        pi = torch.exp(self.log_weights().detach())
        parts = [r[:, 1:] - pi[1:], *(r[:, k, None] * s_k for k, s_k in enumerate(own))]
        return torch.cat(parts, 1), own

    # ---- θ -------------------------------------------------------------------------------------------------

    @property
    def sizes(self) -> list[int]:
        """How many coordinates of θ each component has."""
        return [sum(p.numel() for p in c.parameters() if p.requires_grad) for c in self.components]

    @property
    def places(self) -> list[slice]:
        """Where each component's own θ lies in the whole one."""
        out, at = [], self.k - 1
        for size in self.sizes:
            out.append(slice(at, at + size))
            at += size
        return out

    @property
    def heads(self) -> int:
        """How many estimates stand before those of the components: the weights."""
        return self.k

    @property
    def names(self) -> list[str]:
        return [f"weight[{k}]" for k in range(self.k)] + self._of_components(names_of)

    @property
    def coefficient_names(self) -> list[str]:
        """One name a coordinate of θ, as priors name it: logit[k] is a_k = log π_k/π_0."""
        own = self._of_components(coefficient_names)
        return [f"logit[{k}]" for k in range(1, self.k)] + own

    def _of_components(self, names: Callable[[nn.Module], list[str]]) -> list[str]:
        return [f"{k}: {name}" for k, c in enumerate(self.components) for name in names(c)]

    @property
    def slopes(self) -> list[bool]:
        """Which coordinates of θ are coefficients of a column: those of components that are regressions."""
        own = (
            c.slopes if isinstance(c, HasSlopes) else [True] * size
            for c, size in zip(self.components, self.sizes, strict=True)
        )
        return [False] * (self.k - 1) + [bool(b) for each in own for b in each]

    def natural(self, theta: Tensor) -> Tensor:
        """θ seen through its constraints: K weights, and the components' own natural values."""
        weights = torch.softmax(torch.cat([theta.new_zeros(1), theta[: self.k - 1]]), 0)
        return torch.cat(
            [weights, *(natural_of(c, theta[at]) for c, at in zip(self.components, self.places, strict=True))]
        )

    def canonical(self, theta: Tensor) -> Tensor:
        """θ with the components that are alike in the order of their first natural value: the same p."""
        values = [natural_of(c, theta[at]) for c, at in zip(self.components, self.places, strict=True)]
        order = list(range(self.k))
        for kind in set(self.alike):
            seats = [k for k in range(self.k) if self.alike[k] == kind]
            for seat, k in zip(seats, sorted(seats, key=lambda k: values[k].tolist()), strict=True):
                order[seat] = k
        logits = torch.cat([theta.new_zeros(1), theta[: self.k - 1]])[order]
        return torch.cat([logits[1:] - logits[0], *(theta[self.places[k]] for k in order)])

    @property
    def elementwise(self) -> bool:
        return False

    @property
    def concave(self) -> bool:
        return self.k == 1 and is_concave(self.components[0])

    # ---- data, and where to begin --------------------------------------------------------------------------

    @property
    def encoder(self) -> Encoder | None:
        """How a table becomes what regressions as components read; None where there are none."""
        return next((c.encoder for c in self.components if isinstance(c, Regression)), None)

    def source(self, data: Data, weights: str | None = None) -> Source | None:
        """Rows as the components read them: an array or a table (`models.density.observed`); None where they
        read them as other models do."""
        found = [c.family for c in self.components if isinstance(c, (Density, Regression))]
        if len(found) < self.k:
            return None
        if self.encoder is None:
            return observed(data, found, weights)
        from ..data.frame import Frame
        from ..data.table import Table

        return Table(Frame(data), self.encoder, found[0])

    def start(self, source: Source) -> Tensor:
        """θ of one partition of the rows, from which to start without EM; canonical. As it is, where a
        component does not say where to begin."""
        if not all(isinstance(c, HasStart) for c in self.components):
            return get_theta(self)
        held = partition(self, list(source.batches()), torch.Generator().manual_seed(0))
        return self.canonical(self.begin(source, held))

    def begin(self, source: Source, responsibilities: Sequence[Tensor]) -> Tensor:
        """θ of responsibilities given beforehand, (n, K) a batch: each component where it would start were
        its rows known."""
        counted = [
            r if not b.counted else r * b.count[:, None]
            for b, r in zip(source.batches(), responsibilities, strict=True)
        ]
        n_k = torch.stack([c.sum(0) for c in counted]).sum(0)
        parts = [torch.log(n_k[1:] / n_k[0])]
        for k, c in enumerate(self._models()):
            rows = Recounted(source, [part[:, k] for part in counted])
            parts.append(c.start(rows) if isinstance(c, HasStart) else get_theta(c))
        return torch.cat([p.to(torch.float64) for p in parts])

    def _models(self) -> list[ModelLike]:
        return list(self.components)


class Recounted:
    """The batches of a source, counted otherwise: a component sees the rows by how far it is responsible for
    them.

    Parameters
    ----------
    source
        whose batches come in the same order at every pass
    counts
        of each batch, (n,)
    """

    def __init__(self, source: Source, counts: Sequence[Tensor]):
        self.inner, self.counts = source, counts

    @property
    def size(self) -> int | None:
        return self.inner.size

    @property
    def fingerprint(self) -> str:
        return f"{self.inner.fingerprint}, recounted"

    @property
    def units(self) -> str:
        return self.inner.units

    def batches(self, model: ModelLike = None) -> Iterator[Batch]:
        for batch, count in zip(self.inner.batches(model), self.counts, strict=True):
            yield batch.with_count(count)


# ---- what makes a mixture ----------------------------------------------------------------------------------


def regressions(
    formula: str,
    data: Data,
    k: int,
    family: str | Family | None = None,
    *,
    weights: str | None = None,
    missing: str = "drop",
    **parameters: str | float,
) -> tuple[Mixture, Table]:
    """A mixture of k regressions of one formula, and the table that they read: which of k relations holds for
    a row was not seen.

        log p(y | x) = log Σ_k π_k p(y | x, θ_k)

    Parameters
    ----------
    formula, data, family, weights, missing, parameters
        as `fit` takes them

    References
    ----------
    Quandt and Ramsey (1978), Estimating mixtures of normal distributions and switching regressions.

    Examples
    --------
    >>> mixture, table = regressions("y ~ x", {"y": [1.0, 2.0, 0.5], "x": [0.0, 1.0, 2.0]}, 2)
    >>> mixture.names[2:5]
    ['0: Intercept', '0: x', '0: scale']
    """
    from .formulas import family_of_formula, regression

    chosen = family_of_formula(formula, family)
    one, table = regression(formula, data, chosen, parameters=parameters, weights=weights, missing=missing)
    return Mixture(one, k), table


def _built(components: Plain, k: int | None) -> list[ModelLike]:
    """The components as models: families without predictors are densities."""
    one = isinstance(components, (str, Family, nn.Module))
    if not one and (not isinstance(components, Sequence) or k is not None):
        raise BadArgument(
            "Mixture(family, k) has k components alike, Mixture([one, other, …]) those of the list; received "
            f"{type(components).__name__} and k={k!r}."
        )
    if one and (isinstance(k, bool) or not isinstance(k, int) or k < 1):
        raise BadArgument(f"k={k!r} components. Accepted: a whole number of at least 1.")
    given = [components] * int(k or 0) if one else list(components)
    if not given:
        raise BadArgument("a mixture has at least one component.")
    built = [
        copy.deepcopy(each) if isinstance(each, nn.Module) else Density(families.get(each)) for each in given
    ]
    _agree(built)
    return built


def _agree(built: list[ModelLike]) -> None:
    """Refuse components whose log p cannot be put into one sum."""
    measures = list(dict.fromkeys(measure_of(c) for c in built))
    if len(measures) > 1:
        raise BadArgument(
            f"a {measures[0]} and a {measures[1]} have no sum: the components of a mixture are all of one "
            "measure."
        )
    lengths = list(dict.fromkeys(c.family.length for c in built if family_of(c) is not None))
    if len(lengths) > 1:
        raise BadArgument(f"the components describe y of different lengths: {', '.join(map(str, lengths))}.")
    encoders = {id(c.encoder) for c in built if isinstance(c, Regression)}
    if len(encoders) > 1 or (encoders and any(isinstance(c, Density) for c in built)):
        raise BadArgument(
            "regressions as components read one table: build them of one formula "
            "(models.mixture.regressions)."
        )


def _alike(a: nn.Module, b: nn.Module) -> bool:
    """Whether two components may change places."""
    if type(a) is not type(b) or not isinstance(a, (Density, Regression)):
        return a is b
    settings = ("family", "slots", "fixed")
    return all(vars(a).get(name) == vars(b).get(name) for name in settings)
