"""Covariances of random effects, as factors Λ with b = Λ u, u ~ N(0, I).

    unstructured   Λ lower triangular, free                        (x | g)
    diagonal       Λ = diag(s)                                     (x || g), diag(x | g)
    cs             Λ = s · chol[(1 − ρ) I + ρ 11ᵀ]                  cs(0 + f | g):  one variance, one correlation
    ar1            Λ = s · chol[ρ^|i − j|]                         ar1(0 + f | g)
    smooth         Λ = s · I, or (Σ_m S_m / s_m²)^−½                one or several penalties of a smooth term
    curve          Λ = diag(s₀, …, s₀, s₁, …, s_M)                  s(x, g, bs="fs"): how a group's curve bends, its polynomials

The scales s may have either sign: the likelihood is the same at s and −s, so that a variance of 0 is a stationary
point inside the domain, and Newton's method certifies it like any other: where it is the maximum, ∂ℓ/∂(s²) ≤ 0 there,
which is half of ∂²ℓ/∂s². Reported are |s|, never s.

Source: Bates et al. (2015), Fitting linear mixed-effects models using lme4, §2.2; Wood (2011), Fast stable restricted
maximum likelihood, for smooth terms.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

NEAR_END = 0.3  # of the slope of sin z
NOTHING = 1e-12  # of the largest standard deviation of a term: one that is 0, but for rounding


def deviation(phi: Tensor) -> Tensor:
    """|φ|, whose slope at 0 is 1: that of a standard deviation which leaves its boundary."""
    return torch.where(phi < 0, -phi, phi)


@dataclass(frozen=True)
class Structure(ABC):
    """Λ (width, width) as a function of its own parameters φ, (size,)."""

    width: int

    @property
    @abstractmethod
    def size(self) -> int:
        """How many parameters."""

    @abstractmethod
    def factor(self, phi: Tensor) -> Tensor:
        """Λ, (width, width)."""

    @abstractmethod
    def start(self, scale: Tensor) -> Tensor:
        """φ at which the effects are independent with these standard deviations, (width,)."""

    def typical(self, scale: Tensor) -> Tensor:
        """The size of each φ where the effects have these standard deviations: what a step is measured by."""
        return self.start(scale)

    def near_end(self, phi: Tensor) -> bool:
        """Whether a correlation is so near to an end of its range that the average information says little of it."""
        return False

    @abstractmethod
    def names(self, effects: Sequence[str], group: str) -> list[str]:
        """One name a value of `natural`."""

    @abstractmethod
    def natural(self, phi: Tensor, sigma: Tensor) -> Tensor:
        """Standard deviations (Λ times sigma), then correlations."""

    @property
    def correlations(self) -> tuple[float, float]:
        """The range of a correlation."""
        return -1.0, 1.0

    @abstractmethod
    def scale_places(self) -> list[int]:
        """The parameters that are scales, one an effect: 0 is the boundary of a variance."""

    def slopes(self, phi: Tensor) -> Tensor:
        """∂Λ/∂φ_a, (size, width, width)."""
        with torch.enable_grad():
            leaf = phi.detach().clone().requires_grad_()
            factor = self.factor(leaf)
            v = torch.ones_like(factor).requires_grad_()
            (g,) = torch.autograd.grad(
                (factor * v).sum(), leaf, create_graph=True
            )  # Σ v ∂Λ/∂φ_a: linear in v
            each = [torch.autograd.grad(a, v, retain_graph=True, allow_unused=True)[0] for a in g]
        return torch.stack([torch.zeros_like(v) if own is None else own for own in each]).detach()

    def pulled(self, phi: Tensor, block: Tensor) -> Tensor:
        """∂(Σ Λ ∘ block)/∂φ, (size,), of a block (width, width)."""
        with torch.enable_grad():
            leaf = phi.detach().clone().requires_grad_()
            return torch.autograd.grad((self.factor(leaf) * block).sum(), leaf)[0]

    def idle(self, phi: Tensor) -> list[int]:
        """The parameters on which Λ does not depend, because others are 0."""
        return []


@dataclass(frozen=True)
class Unstructured(Structure):
    """Free variances and correlations.

    order : of the effects in the triangle, () as they are. An effect of variance 0 is last: before another one, of
    positive variance, it makes a circle of factors with one and the same covariance.
    """

    order: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        return self.width * (self.width + 1) // 2

    @cached_property
    def _places(self) -> tuple[Tensor, Tensor]:
        rows, columns = np.tril_indices(self.width)
        return torch.from_numpy(rows), torch.from_numpy(columns)

    @property
    def _order(self) -> list[int]:
        return list(self.order) or list(range(self.width))

    def factor(self, phi: Tensor) -> Tensor:
        out = phi.new_zeros(self.width, self.width).index_put(self._places, phi)
        return out[np.argsort(self.order).tolist()] if self.order else out

    def pulled(self, phi: Tensor, block: Tensor) -> Tensor:
        own: Tensor = block[self._order][self._places]
        return own

    def start(self, scale: Tensor) -> Tensor:
        return torch.diag(scale[self._order])[self._places]

    def typical(self, scale: Tensor) -> Tensor:
        out: Tensor = scale[self._order][self._places[0]]
        return out

    def without(self, phi: Tensor) -> tuple[Unstructured, Tensor]:
        """The same covariance with the effects of variance 0 last, and its φ."""
        lam = self.factor(phi)
        gone = {i for i in range(self.width) if not bool(lam[i].any())}
        order = sorted(range(self.width), key=lambda i: i in gone)
        own = [i for i in order if i not in gone]
        L = phi.new_zeros(self.width, self.width)
        triangle = torch.linalg.qr(lam[own].T, mode="r").R.T
        L[: len(own), : triangle.shape[1]] = triangle
        return Unstructured(self.width, tuple(order)), L[self._places]

    def names(self, effects: Sequence[str], group: str) -> list[str]:
        sds = [f"sd({e} | {group})" for e in effects]
        return sds + [
            f"corr({effects[j]}, {effects[i]} | {group})" for i in range(self.width) for j in range(i)
        ]

    def natural(self, phi: Tensor, sigma: Tensor) -> Tensor:
        lam = self.factor(phi)
        sd = _norm(lam)
        pairs = []
        for i in range(self.width):
            for j in range(i):
                known = bool(torch.minimum(sd[i], sd[j]) > NOTHING * sd.max())  # else there is no correlation
                pairs.append((lam[i] @ lam[j]) / (sd[i] * sd[j]) if known else sd.new_tensor(torch.nan))
        return torch.cat([sd * sigma, *(p[None] for p in pairs)])

    def scale_places(self) -> list[int]:
        return [int(k * (k + 1) // 2 + k) for k in np.argsort(self._order)]


@dataclass(frozen=True)
class Diagonal(Structure):
    @property
    def size(self) -> int:
        return self.width

    def factor(self, phi: Tensor) -> Tensor:
        return torch.diag(phi)

    def pulled(self, phi: Tensor, block: Tensor) -> Tensor:
        return block.diagonal()

    def start(self, scale: Tensor) -> Tensor:
        return scale.clone()

    def names(self, effects: Sequence[str], group: str) -> list[str]:
        return [f"sd({e} | {group})" for e in effects]

    def natural(self, phi: Tensor, sigma: Tensor) -> Tensor:
        return deviation(phi) * sigma

    def scale_places(self) -> list[int]:
        return list(range(self.width))


@dataclass(frozen=True)
class OneCorrelation(Structure):
    """One scale and one correlation: φ = (s, z), ρ a function of sin z onto its range, ends included.

    An end of the range is then a stationary point inside the domain, as s = 0 is; Λ has square roots of 1 ± sin z with
    the sign that makes it smooth there.
    """

    @property
    def size(self) -> int:
        return 2

    @abstractmethod
    def rho(self, z: Tensor) -> Tensor:
        """The correlation."""

    @abstractmethod
    def root(self, z: Tensor) -> Tensor:
        """The Cholesky factor of the matrix of correlations, (width, width), by its formula: that of a numerical one fails
        where ρ rounds to ±1."""

    def factor(self, phi: Tensor) -> Tensor:
        return phi[0] * self.root(phi[1])

    def typical(self, scale: Tensor) -> Tensor:
        return torch.stack([scale.mean(), scale.new_ones(())])

    def near_end(self, phi: Tensor) -> bool:
        return abs(math.cos(float(phi[1]))) < NEAR_END

    def names(self, effects: Sequence[str], group: str) -> list[str]:
        return [f"sd({effects[0]} … | {group})", f"corr({effects[0]} … | {group})"]

    def natural(self, phi: Tensor, sigma: Tensor) -> Tensor:
        return torch.stack([deviation(phi[0]) * sigma, self.rho(phi[1])])

    def idle(self, phi: Tensor) -> list[int]:
        return [1] if float(phi[0]) == 0 else []

    def scale_places(self) -> list[int]:
        return [0]


@dataclass(frozen=True)
class CompoundSymmetry(OneCorrelation):
    """ρ in [−1/(width − 1), 1]: at the lower end the effects of a group sum to 0, at the upper one they are the same."""

    @property
    def correlations(self) -> tuple[float, float]:
        return -1 / (self.width - 1), 1.0

    def rho(self, z: Tensor) -> Tensor:
        low = self.correlations[0]
        return low + (1 - low) * (1 + torch.sin(z)) / 2

    def root(self, z: Tensor) -> Tensor:
        """With c_j = 1 + jρ:  L_jj = √((1 − ρ) c_j / c_{j−1}),  L_ij = ρ √((1 − ρ) / (c_{j−1} c_j))  below it."""
        q, rho, one = self.width, self.rho(z), torch.ones_like(z)[None]
        high = math.sqrt(q / (q - 1)) * torch.sin(math.pi / 4 - z / 2)  # √(1 − ρ)
        last = math.sqrt(q) * torch.sin(math.pi / 4 + z / 2)  # √c_{q−1}
        root = (1 + torch.arange(q - 1, dtype=z.dtype) * rho).sqrt()  # √c_j, j < q − 1
        diagonal = torch.cat([one, high * root[1:] / root[:-1], (high * last / root[-1])[None]])
        below = torch.cat([rho[None], rho * high / (root[:-1] * root[1:]), torch.zeros_like(one)])
        out: Tensor = torch.diag(diagonal) + torch.tril(below.expand(q, q), -1)
        return out

    def start(self, scale: Tensor) -> Tensor:
        return torch.stack([scale.mean(), scale.new_tensor(math.asin(2 / self.width - 1))])  # ρ = 0


@dataclass(frozen=True)
class Autoregressive(OneCorrelation):
    """ρ in [−1, 1], of neighbours in the order of the levels."""

    def rho(self, z: Tensor) -> Tensor:
        return torch.sin(z)

    def root(self, z: Tensor) -> Tensor:
        """L_i0 = ρⁱ,  L_ij = ρ^(i−j) √(1 − ρ²)."""
        at, rho = torch.arange(self.width), self.rho(z)
        safe = torch.where(rho == 0, torch.full_like(rho, 1e-300), rho)
        powers = torch.tril(safe ** (at[:, None] - at).clamp(min=0))
        out: Tensor = powers * torch.where(at == 0, torch.ones_like(z), torch.cos(z))
        return out

    def start(self, scale: Tensor) -> Tensor:
        return torch.stack([scale.mean(), torch.tensor(0.2, dtype=torch.float64)])


@dataclass(frozen=True, eq=False)
class Penalised(Structure):
    """A smooth term's coefficients, of variances v_j = 1 / Σ_m d_mj / s_m², the penalties being diag(d_m) in their
    coordinates; of one penalty, which is I there, each coefficient is an effect of its own.

        Λ_jj = Π_m s_m / √(Σ_m d_mj Π_{l≠m} s_l²),    m, l among those with d_mj > 0

    An s_m of 0 leaves those coefficients that S_m does not reach, which are then smooth functions of the others.
    """

    penalties: tuple[np.ndarray, ...] = ()
    of_what: tuple[str, ...] = ()

    @classmethod
    def of(cls, penalties: tuple[np.ndarray, ...], of_what: tuple[str, ...]) -> Penalised:
        return cls(1 if len(penalties) == 1 else len(penalties[0]), penalties, of_what)

    @property
    def size(self) -> int:
        return len(self.penalties)

    @cached_property
    def diagonals(self) -> Tensor:
        """d, (size, k)."""
        return torch.as_tensor(np.stack([np.diag(S) for S in self.penalties]))

    def factor(self, phi: Tensor) -> Tensor:
        if len(self.penalties) == 1:
            return phi[0] * torch.eye(self.width, dtype=phi.dtype)
        return torch.diag(self._deviations(phi[:, None]))

    def pulled(self, phi: Tensor, block: Tensor) -> Tensor:
        return block.trace()[None] if len(self.penalties) == 1 else super().pulled(phi, block)

    def slopes(self, phi: Tensor) -> Tensor:
        if len(self.penalties) == 1:
            return super().slopes(phi)
        with torch.enable_grad():
            each = phi.detach()[:, None].repeat(1, self.width).requires_grad_()
            return torch.diag_embed(torch.autograd.grad(self._deviations(each).sum(), each)[0])

    def _deviations(self, phi: Tensor) -> Tensor:
        """Λ's diagonal, (k,), of φ (size, k) or (size, 1)."""
        d = self.diagonals
        own = torch.where(d > 0, phi, 1.0)
        squares = torch.zeros(self.width, dtype=phi.dtype)
        for m in range(self.size):
            others = [own[j] ** 2 for j in range(self.size) if j != m]
            squares = squares + d[m] * torch.stack(others).prod(0)
        root = torch.where(squares > 0, squares, 1.0).sqrt()
        # several s_m of 0 leave nothing of what all of them reach
        return torch.where(squares > 0, own.prod(0) / root, 0.0)

    def idle(self, phi: Tensor) -> list[int]:
        gone = (self.diagonals > 0) & (phi[:, None] == 0)  # (size, k)
        return [
            m
            for m in range(self.size)
            if self.size > 1
            and bool((gone[[j for j in range(self.size) if j != m]].any(0) | (self.diagonals[m] == 0)).all())
        ]

    def start(self, scale: Tensor) -> Tensor:
        return scale.mean().expand(self.size).clone()

    def names(self, effects: Sequence[str], group: str) -> list[str]:
        return [f"sd({group})"] if self.size == 1 else [f"sd({group}; {m + 1})" for m in range(self.size)]

    def natural(self, phi: Tensor, sigma: Tensor) -> Tensor:
        return deviation(phi) * sigma

    def scale_places(self) -> list[int]:
        return list(range(self.size))


@dataclass(frozen=True)
class OfCurve(Structure):
    """A group's curve: one scale of all columns in which it bends, which come first, and one of each further column.

    parts : what each scale is of
    """

    parts: tuple[str, ...]

    @property
    def size(self) -> int:
        return len(self.parts)

    @property
    def bends(self) -> int:
        """How many columns have the first scale."""
        return self.width - self.size + 1

    def factor(self, phi: Tensor) -> Tensor:
        return torch.diag(torch.cat([phi[:1].expand(self.bends), phi[1:]]))

    def start(self, scale: Tensor) -> Tensor:
        return torch.cat([scale[: self.bends].mean()[None], scale[self.bends :]])

    def names(self, effects: Sequence[str], group: str) -> list[str]:
        return [f"sd({part} | {group})" for part in self.parts]

    def natural(self, phi: Tensor, sigma: Tensor) -> Tensor:
        return deviation(phi) * sigma

    def scale_places(self) -> list[int]:
        return list(range(self.size))


@dataclass(frozen=True)
class Held(Structure):
    """Another structure with some of its parameters held at 0: one of several effects left out.

    Parameters
    ----------
    base
        the whole
    kept
        which of its parameters are left, at least one
    """

    base: Structure
    kept: tuple[int, ...]

    @property
    def size(self) -> int:
        return len(self.kept)

    def factor(self, phi: Tensor) -> Tensor:
        whole = phi.new_zeros(self.base.size).index_put((torch.tensor(self.kept),), phi)
        return self.base.factor(whole)

    def start(self, scale: Tensor) -> Tensor:
        return self.base.start(scale)[list(self.kept)]

    def typical(self, scale: Tensor) -> Tensor:
        return self.base.typical(scale)[list(self.kept)]

    def names(self, effects: Sequence[str], group: str) -> list[str]:
        return [f"scale {i + 1} ({group})" for i in range(self.size)]

    def natural(self, phi: Tensor, sigma: Tensor) -> Tensor:
        return phi * sigma

    def scale_places(self) -> list[int]:
        return [self.kept.index(i) for i in self.base.scale_places() if i in self.kept]


def without_effect(structure: Structure, effect: int) -> Structure | None:
    """The structure of the other effects, that one's variance and covariances 0; None: none is left.

    Examples
    --------
    >>> without_effect(Unstructured(2), 1).kept
    (0,)
    """
    if isinstance(structure, Unstructured):
        rows, columns = np.tril_indices(structure.width)
        kept = tuple(np.flatnonzero((rows != effect) & (columns != effect)).tolist())
    else:
        kept = tuple(i for i in range(structure.size) if i != effect)
    one_scale = not isinstance(structure, (Unstructured, Diagonal, OfCurve))
    return None if one_scale or not kept else Held(structure.width, structure, kept)


def _norm(lam: Tensor) -> Tensor:
    """The lengths of the rows, with the slope 0 where one is 0."""
    squares = (lam**2).sum(1)
    return torch.where(squares > 0, torch.where(squares > 0, squares, 1.0).sqrt(), 0.0)


STRUCTURES: dict[str, Callable[[int], Structure]] = {
    "us": Unstructured,
    "diag": Diagonal,
    "cs": CompoundSymmetry,
    "ar1": Autoregressive,
}
