"""Maximum trimmed likelihood by concentration: fit the rows that are kept, keep those most probable under the
fit, until they are the same.

    kept ← the h rows of largest log p(x_i | θ);      θ ← argmax Σ_{i kept} log p(x_i | θ)

Neither step lowers the sum of the h largest, and there are finitely many subsets, so that it ends at a fixed
point: θ̂ is the maximum for the rows kept, and they are the most probable under θ̂. Where the h-th and the
next row are not tied, the rows kept do not change near θ̂, which is therefore a local maximum of the trimmed
likelihood. There are many: the run begins from random elemental subsets (as many rows as coefficients, so
that some are free of outliers), takes two steps from each, and goes on to the end from the best.

References
----------
Rousseeuw and Van Driessen (2006), Computing LTS regression for large data sets, Data Min. Knowl. Discov. 12;
Neykov and Müller (2003), Breakdown point and computation of trimmed likelihood estimators in generalized
linear models.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..data.batch import concatenate
from ..errors import BadArgument
from ..likelihood import LogLikelihood, Objective
from ..likelihood.robust import TrimmedTerm, consistency, largest, log_probs
from ..models.information import Factor
from ..models.regression import Regression
from ..types import Settings, StateLike
from . import closed_form
from .certificate import Certificate
from .choice import of_likelihood
from .loop import iterate
from .maxima import Maximum, distinct
from .newton import Newton
from .newton import State as NewtonState

SCREENED = 2  # concentration steps from each elemental start
SIZES = 3  # of elemental subsets: as many rows as coefficients, one more, two more
PART = 1500  # rows beyond which a part of them is concentrated first
LARGEST = 2**22  # numbers of a block of starts


@dataclass(frozen=True)
class State:
    """The subsets from which to concentrate, and where those before them ended."""

    subsets: tuple[Tensor, ...]
    found: tuple[Maximum, ...] = ()
    kept: tuple[Tensor, ...] = ()  # at each of them
    final: Maximum | None = None  # after reweighting
    ended: Objective | None = None  # the objective of the rows that were kept then
    begun: float = -math.inf
    passes: int = 0

    @property
    def best(self) -> int:
        return max(range(len(self.found)), key=lambda i: (self.found[i].certificate.ok, self.found[i].value))

    @property
    def theta(self) -> Tensor:
        return self.answer.theta

    @property
    def answer(self) -> Maximum:
        return self.found[self.best] if self.final is None else self.final

    @property
    def trace(self) -> tuple[tuple[int, float, float], ...]:
        return self.answer.trace if self.found else ()

    @property
    def factor(self) -> Factor | None:
        newton = self.answer.newton
        return None if newton is None else newton.factor

    @property
    def scale(self) -> Tensor | None:
        """Of Newton's last state on the rows kept; where they were fitted by a formula there is nothing to
        grow suspicious about."""
        newton = self.answer.newton
        return None if newton is None else newton.scale


@dataclass(frozen=True, kw_only=True)
class FastTrimmed:
    """Settings.

    Parameters
    ----------
    starts
        elemental subsets
    seed
        of them
    best
        subsets from which it is concentrated to the end
    steps
        of concentration at most, from one subset
    """

    starts: int = 500
    seed: int = 0
    best: int = 10
    steps: int = 200

    # ---- start ---------------------------------------------------------------------------------------------

    def start(self, objective: Objective) -> State:
        term = trimmed(objective)
        begun = objective.value()
        n, h = sum(term.lengths), term.h
        if h < objective.size + 1:
            raise BadArgument(
                f"keep={term.robust.keep:g} of {n} rows keeps {h}, and {objective.size} parameters need "
                "more. Keep more of them."
            )
        everything = torch.ones(n, dtype=torch.bool)
        if h == n:
            return State((everything,), begun=begun, passes=1)
        best = self._screened(objective, term, n, h)
        return State((everything, *best), begun=begun, passes=1)

    def _screened(self, objective: Objective, term: TrimmedTerm, n: int, h: int) -> list[Tensor]:
        """The best different subsets of two steps from each elemental start, (n,) boolean, best first."""
        generator = torch.Generator().manual_seed(self.seed)
        rows = _linear_rows(objective)
        if rows is not None:
            values, kept = _least_squares(*rows, h, self.starts, generator)
        else:
            values, kept = self._from_subsets(objective, term, n, h, generator)
        out: list[Tensor] = []
        for i in torch.argsort(values, descending=True, stable=True).tolist():
            if math.isfinite(float(values[i])) and not any(torch.equal(kept[i], other) for other in out):
                out.append(kept[i])
            if len(out) == self.best:
                break
        return out

    def _from_subsets(
        self, objective: Objective, term: TrimmedTerm, n: int, h: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """As `_least_squares`, for any model: a few steps of Newton in the place of a formula."""
        values, kept = [], []
        seen: dict[
            bytes, tuple[Tensor, Tensor, float]
        ] = {}  # rows → θ there, the rows that are then kept, and their log p
        for number in range(self._enough(h / n, objective.size + SIZES)):
            rows = torch.zeros(n, dtype=torch.bool)
            rows[torch.randperm(n, generator=generator)[: objective.size + 1 + number % SIZES]] = True
            theta = objective.theta
            value = -math.inf
            for _ in range(SCREENED + 1):
                key = rows.numpy().tobytes()
                if key not in seen:
                    seen[key] = self._concentrated(objective, term, rows, theta, h)
                theta, rows, value = seen[key]
                if value == -math.inf:
                    break
            values.append(value)
            kept.append(rows)
        return torch.tensor(values, dtype=torch.float64), torch.stack(kept)

    def _enough(self, share: float, rows: int) -> int:
        """Starts of which one has no outlier among its rows but with probability 10⁻⁶ (Rousseeuw and Leroy
        1987, ch. 5): each costs iterations."""
        clean = share**rows
        return (
            self.starts
            if clean < 1e-12
            else max(20, min(self.starts, math.ceil(math.log(1e-6) / math.log1p(-min(clean, 0.999)))))
        )

    def _concentrated(
        self, objective: Objective, term: TrimmedTerm, rows: Tensor, theta: Tensor, h: int
    ) -> tuple[Tensor, Tensor, float]:
        """θ by a few steps of Newton on these rows, the h rows that are most probable there, and their log
        p; −∞ where θ runs away."""
        inner = Objective([term.on(rows)], objective.priors)
        theta = iterate(Newton(steps=3, begin=theta, thin_above=10**18), inner).theta
        if not bool(torch.isfinite(theta).all()):
            return theta, rows, -math.inf
        log_p = _log_probs(objective, theta)
        kept = largest(log_p, h)
        return theta, kept, float(log_p[kept].sum())

    # ---- step ----------------------------------------------------------------------------------------------

    def step(self, objective: Objective, state: State) -> State:
        """Concentrate the next subset to the end; after the last, reweight, if that is asked for."""
        term = trimmed(objective)
        if len(state.found) == len(state.subsets):
            return self._reweighted(objective, state)
        kept, trace = state.subsets[len(state.found)], [(0, state.begun, math.inf)]
        end, certificate, theta = (
            None,
            Certificate(status="not converged", size=objective.size),
            objective.theta,
        )
        for step in range(1, self.steps + 1):
            end, certificate = _maximised(objective, term, kept, theta)
            theta = end.theta
            if not bool(torch.isfinite(theta).all()):
                break
            now = largest(_log_probs(objective, theta), term.h)
            value = float(Objective([term.on(now)], objective.priors).value(theta))
            trace.append(
                (
                    step,
                    value,
                    certificate.standard_errors if certificate.standard_errors is not None else math.inf,
                )
            )
            if torch.equal(now, kept):
                break
            kept = now
        else:
            certificate = replace(
                certificate,
                status="not converged",
                detail=f"The rows kept still changed after {self.steps} steps.",
            )
        assert end is not None
        newton = end if isinstance(end, NewtonState) else None
        found = Maximum(
            end.theta,
            trace[-1][1],
            certificate,
            newton,
            tuple(trace),
            "" if certificate.ok else certificate.status,
        )
        return replace(
            state, found=(*state.found, found), kept=(*state.kept, kept), passes=state.passes + 3 * len(trace)
        )

    def _reweighted(self, objective: Objective, state: State) -> State:
        """Maximum likelihood of the rows within the cut-off."""
        held = within(objective.at(state.theta))
        end, certificate = _maximised(objective, trimmed(objective), held, state.theta)
        value = float(end.trace[-1][1])
        newton = end if isinstance(end, NewtonState) else None
        final = Maximum(
            end.theta, value, certificate, newton, (*state.trace, (len(state.trace), value, end.trace[-1][2]))
        )
        ended = Objective([trimmed(objective).holding(held)], objective.priors).at(final.theta)
        return replace(state, final=final, ended=ended, passes=state.passes + 3)

    # ---- done ----------------------------------------------------------------------------------------------

    def done(self, objective: Objective, state: State) -> bool:
        wanted = trimmed(objective).robust.reweight is not None and len(state.subsets) > 1
        return len(state.found) >= len(state.subsets) and (state.final is not None or not wanted)

    def certificate(self, objective: Objective, state: State) -> Certificate:
        """That of the maximum on the rows kept; and how many runs led to them."""
        term, best = trimmed(objective), state.found[state.best]
        n, h = len(state.kept[0]), term.h
        answer = best if state.final is None else state.final
        known: Settings = {"concave": bool(answer.certificate.concave and h == n), "passes": state.passes}
        known["steps"] = len(answer.trace) - 1
        if h == n:
            return replace(answer.certificate, detail="No row is left out: maximum likelihood.", **known)
        at_top, *lower = distinct([m for m in state.found if m.certificate.ok] or [best])
        told = (
            f"{h} of {n} rows kept, those most probable under the fit. Concentrated to the end from the "
            f"{len(state.subsets) - 1} best of "
            f"{self.starts} elemental starts, and from all rows: {at_top[1]} led here"
        )
        if lower:
            gap = at_top[0].value - lower[0][0].value
            told += f", {sum(times for _, times in lower)} to lower maxima (the next {gap:.3g} nats lower)"
        if state.ended is not None:
            told += f". Then reweighted: maximum likelihood of the {int(trimmed(state.ended).kept().sum())} rows within the cut-off"
        return replace(answer.certificate, detail=told + ".", **known)


def trimmed(objective: Objective) -> TrimmedTerm:
    """The term, or the reason why concentration is not for it."""
    term = objective.terms[0]
    if len(objective.terms) != 1 or not isinstance(term, TrimmedTerm):
        raise BadArgument("FastTrimmed maximises one trimmed likelihood: robust=th.Trimmed(keep).")
    return term


def _log_probs(objective: Objective, theta: Tensor) -> Tensor:
    """log p of every row at θ, (n,)."""
    with objective.moved(theta) as here:
        return log_probs(here.terms[0])


def _maximised(
    objective: Objective, term: TrimmedTerm, kept: Tensor, theta: Tensor
) -> tuple[StateLike, Certificate]:
    """The maximum on some rows, by iterations that begin at θ."""
    inner = Objective([term.on(kept)], objective.priors)
    solver = of_likelihood(inner)
    if isinstance(solver, Newton):
        solver = replace(solver, begin=theta, thin_above=10**18)
    state = iterate(solver, inner)
    return state, solver.certificate(inner, state)


# ---- least squares -----------------------------------------------------------------------------------------


def _linear_rows(objective: Objective) -> tuple[Tensor, Tensor] | None:
    """X (n, p) and y − offset (n,) of a normal linear model, whose log p falls with the residual's size;
    None of another model."""
    term = objective.terms[0]
    if not closed_form.applies(Objective([LogLikelihood(term.model, term.source)], objective.priors)):
        return None
    mean = term.model.predictors[0]
    X, y, _ = closed_form.columns(mean, concatenate(list(term.source.batches())))
    return torch.from_numpy(X), torch.from_numpy(y)


def _least_squares(
    X: Tensor, y: Tensor, h: int, starts: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Minus the sum of the h smallest squared residuals after two steps from each start, (starts,), and the
    rows kept, (starts, n).

    Of many rows a random part is concentrated, and what it ends at is looked at on all of them.
    """
    n, p = X.shape
    X = X / X.abs().amax(0).clamp(min=1e-300)
    part = torch.randperm(n, generator=generator)[:PART] if n > PART else torch.arange(n)
    some, own, many = X[part], y[part], max(p + 1, round(h * len(part) / n))
    found = []
    block = max(1, min(-(-starts // SIZES), LARGEST // (many * p)))
    for number, begin in enumerate(range(0, starts, block)):
        size = min(block, starts - begin)
        # p rows, and some more: single rows would not reach every maximum of a location
        rows = torch.rand(size, len(part), generator=generator, dtype=torch.float64).argsort(1)[
            :, : min(p + number % SIZES, len(part))
        ]
        for _ in range(SCREENED + 1):
            # the minimum-norm solution where rows repeat: a start, not an answer
            beta = torch.linalg.lstsq(some[rows], own[rows][..., None], driver="gelsd").solution[..., 0]
            squares = (own - beta @ some.T).square()
            rows = squares.argsort(dim=1, stable=True)[:, :many]
        found.append((-squares.gather(1, rows).sum(1), beta))
    values, beta = (torch.cat(parts) for parts in zip(*found, strict=True))
    best = torch.argsort(values, descending=True, stable=True)[: starts if n <= PART else 20]
    squares = (y - beta[best] @ X.T).square()
    rows = squares.argsort(dim=1, stable=True)[:, :h]
    return -squares.gather(1, rows).sum(1), torch.zeros(len(best), n, dtype=torch.bool).scatter_(
        1, rows, True
    )


# ---- reweighting -------------------------------------------------------------------------------------------


def within(objective: Objective) -> Tensor:
    """The rows of a normal regression within the two-sided quantile `reweight` of the fit, its scale made
    consistent, (n,) boolean.

    Raises
    ------
    BadArgument
        another family, or a scale with predictors: there is no one scale to cut off at
    """
    term = trimmed(objective)
    rows = _linear_rows(objective)
    model = term.model
    if rows is None or not isinstance(model, Regression):
        raise BadArgument(
            "reweight cuts residuals off at a multiple of the scale: it is for the normal family, its scale "
            "a constant."
        )
    X, y = rows
    residual = (y - X @ objective.theta[: X.shape[1]]).abs()
    h, n = term.h, len(y)
    scale = math.sqrt(float(residual[term.kept()].square().mean())) * consistency(h / n)
    cut = float(torch.special.ndtri(torch.tensor((1 + term.robust.reweight) / 2, dtype=torch.float64)))
    return residual <= cut * scale
