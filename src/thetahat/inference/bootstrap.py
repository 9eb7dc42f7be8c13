"""The bootstrap: the model fitted again to resampled data, from θ̂ on.

    pairs        observations are drawn with replacement: counts ~ Multinomial(n, c/n), n = Σ c
    cluster      whole clusters are drawn: count of row i = c_i · m_g(i), m ~ Multinomial(G, 1/G)
    parametric   y is drawn from the fitted model, row by row

A resample is the same batches, counted otherwise: nothing is copied. Draw d has a seed of its own, made of
(seed, d), and every draw is computed with one thread, so the numbers do not depend on how many draws, or how
many workers, there are.

References
----------
Efron (1979), Bootstrap methods: another look at the jackknife; Efron and Tibshirani (1993), An Introduction
to the Bootstrap, ch. 6, 8.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.source import Source, Tensors
from ..errors import BadArgument, NotConverged
from ..families.censored import Censored
from ..likelihood import LogLikelihood, Objective, Trimmed
from ..models.base import family_of, names_of
from ..protocols import Samples, Steers, target_of
from ..solvers import interior_point, quantile
from ..solvers.interior_point import InteriorPoint
from ..solvers.loop import iterate
from ..solvers.newton import Newton
from ..solvers.proximal import Proximal
from ..threads import one_thread
from ..types import ModelLike, Plain, SolverLike
from .cluster_scores import sharing
from .meat import codes_of
from .natural import coordinates, natural, parameter

KINDS = ("pairs", "parametric", "cluster")
PATIENCE = 2.0  # seconds before a progress bar appears
# a standard error that grows by this factor along the run belongs to a coefficient that has no maximum
RUNAWAY = 1e3

Refitted = tuple[
    Tensor | None, bool
]  # θ of a draw, None if it has no maximum; whether a constant ran to its boundary


def bootstrap(
    objective: Objective,
    theta: Tensor,
    draws: int = 999,
    kind: str = "pairs",
    *,
    clusters: Sequence[np.ndarray] | None = None,
    seed: int = 0,
    workers: int = 1,
) -> pd.DataFrame:
    """Estimates refitted to resampled data.

    Parameters
    ----------
    objective, theta
        θ̂, (p,)
    draws
        how many resamples
    kind
        one of `KINDS`
    clusters
        for "cluster": one array of labels, one a row
    seed
        of the resampling; draw d depends on (seed, d) alone
    workers
        threads, each with a model of its own

    Returns
    -------
    pd.DataFrame
        a row a draw, a column an estimate, on the natural scale. A draw whose likelihood has no maximum is a
        row of NaN: `attrs["failed"]` counts them, and a warning names the number. `attrs["boundary"]` counts
        the draws in which a constant ran to its boundary.

    Raises
    ------
    BadArgument
        an unknown kind, clusters that do not fit it, a model without `sample`
    NotConverged
        no draw has a maximum

    Examples
    --------
    >>> import thetahat as th
    >>> fit = th.fit("y ~ x", {"y": [2.0, 1.0, 4.0, 7.0, 8.0], "x": [0.0, 1.0, 2.0, 3.0, 4.0]}, "poisson")
    >>> bootstrap(fit.objective, fit.theta, draws=3, kind="parametric").notna().all().to_dict()
    {'Intercept': True, 'x': True}
    """
    found, failed, boundary = refits(
        objective, theta, draws, kind, clusters=clusters, seed=seed, workers=workers
    )
    values = torch.stack([natural(objective, t) for t in found])
    out = pd.DataFrame(values.numpy(), columns=names_of(objective.model))
    out.attrs |= {"failed": failed, "boundary": boundary, "kind": kind, "seed": seed}
    return out


def refits(
    objective: Objective,
    theta: Tensor,
    draws: int,
    kind: str = "pairs",
    *,
    clusters: Sequence[np.ndarray] | None = None,
    seed: int = 0,
    workers: int = 1,
) -> tuple[Tensor, int, int]:
    """θ of each draw, (draws, p), NaN where it failed; how many failed; how many ended at a boundary."""
    _check(objective, kind, draws, clusters, workers)
    codes = None if clusters is None else codes_of(objective, clusters[0])
    objective = objective.at(theta)
    with one_thread():
        scale, growth = _reference(objective, theta)

        def once(own: Objective, draw: int) -> Refitted:
            rng = np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(draw,)))
            resampled = drawn_anew(own, rng) if kind == "parametric" else _recounted(own, rng, codes)
            return _refit(resampled, theta, scale, growth)

        results = list(_shown(_run(objective, once, draws, workers), draws))
    failed = sum(t is None for t, _ in results)
    if failed == draws:
        raise NotConverged(
            f"none of the {draws} resamples has a maximum that could be certified: the bootstrap says "
            "nothing here. Where a category has "
            "levels of few rows, a resample may lack one: kind='parametric' keeps every row."
        )
    if failed:
        warnings.warn(
            f"{failed} of {draws} resamples have no maximum (NaN rows): what is computed from the others is "
            "conditional on having one.",
            stacklevel=2,
        )
    rows = [torch.full_like(theta, torch.nan) if t is None else t for t, _ in results]
    return torch.stack(rows), failed, sum(edge for _, edge in results)


def _check(objective: Objective, kind: str, draws: int, clusters: Plain, workers: int) -> None:
    if kind not in KINDS:
        raise BadArgument(f"bootstrap kind {kind!r}. Accepted: {', '.join(map(repr, KINDS))}.")
    if kind != "parametric" and any(isinstance(term.model, Steers) for term in objective.terms):
        raise BadArgument(
            f"kind={kind!r} resamples rows, and the rows of a mixed model share random effects: a group that is drawn twice "
            "would be one group of twice the rows. kind='parametric' draws new random effects and rows from the fit."
        )
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 2:
        raise BadArgument(f"draws={draws!r}: a whole number of at least 2 is needed.")
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise BadArgument(f"workers={workers!r}: a whole number of at least 1 is needed.")
    if any(isinstance(t.robust, Trimmed) for t in objective.terms):
        raise BadArgument(
            "a resample counts its rows, and Trimmed keeps or leaves out whole ones: it has no bootstrap. "
            "th.DensityPower has one."
        )
    if (kind == "cluster") != bool(clusters):
        what = (
            "needs by: the column that names the clusters"
            if kind == "cluster"
            else f"takes no by; received {len(clusters)} column(s)"
        )
        raise BadArgument(f"the bootstrap kind {kind!r} {what}.")
    if clusters is not None and len(clusters) != 1:
        raise BadArgument(f"a cluster bootstrap draws clusters of one column; by names {len(clusters)}.")
    if kind == "parametric":
        if len(objective.terms) != 1 or not isinstance(objective.model, Samples):
            raise BadArgument(
                f"{type(objective.model).__name__} has no sample, from which a parametric bootstrap could "
                "draw. Use kind='pairs'."
            )
        if isinstance(family_of(objective.model), Censored):
            raise BadArgument(
                "a censored family does not say when a row is censored, so no data can be drawn from it. Use "
                "kind='pairs'."
            )


# ---- resamples ---------------------------------------------------------------------------------------------


@dataclass
class Recounted:
    """A source with other counts, one a row."""

    source: Source
    count: Tensor

    @property
    def size(self) -> int | None:
        return self.source.size

    @property
    def fingerprint(self) -> str:
        return f"{self.source.fingerprint}, resampled"

    @property
    def units(self) -> str:
        return self.source.units

    def batches(self, model: ModelLike = None) -> Iterator[Batch]:
        start = 0
        for batch in self.source.batches(model):
            own = self.count[start : start + len(batch)]
            start += len(batch)
            if len(batch.shape) > 1:  # a row of several terms (time, tokens) is drawn whole
                own = own.view(-1, *[1] * (len(batch.shape) - 1)) * batch.count
            yield batch.with_count(own)


def _recounted(objective: Objective, rng: np.random.Generator, codes: np.ndarray | None) -> Objective:
    """Every source with counts drawn anew: terms over one source keep their rows together."""
    terms: list[LogLikelihood] = []
    for group in sharing(objective):
        source = group[0].source
        count = torch.cat([_row_count(b) for b in source.batches(group[0].model)]).numpy()
        if codes is None:
            n = round(float(count.sum()))
            drawn = rng.multinomial(n, count / count.sum()) * (count.sum() / n)
        else:
            clusters = int(codes.max()) + 1
            drawn = count * rng.multinomial(clusters, np.full(clusters, 1 / clusters))[codes]
        recounted = Recounted(source, torch.from_numpy(np.asarray(drawn, dtype=np.float64)))
        terms += [t.over(recounted) for t in group]
    return Objective(terms, objective.priors)


def _row_count(batch: Batch) -> Tensor:
    """How often each entry of the first index was observed; a row of several terms is one observation."""
    return (
        batch.count.to(torch.float64)
        if len(batch.shape) == 1
        else torch.ones(len(batch), dtype=torch.float64)
    )


def drawn_anew(objective: Objective, rng: np.random.Generator) -> Objective:
    """The same rows with y drawn from the model at θ̂; a row counted c times is c rows, each with a y of its
    own."""
    term = objective.terms[0]
    target = target_of(term.model)
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    parts: dict[str, list[Tensor]] = {}
    for batch in term.source.batches(term.model):
        if batch.counted:
            count = batch.count.round()
            if not bool((count == batch.count).all()):
                raise BadArgument(
                    "a parametric bootstrap draws y for each observation, and some frequency weights are not "
                    "whole numbers."
                )
            batch = batch[torch.arange(len(batch)).repeat_interleave(count.long())].with_count(
                torch.ones(int(count.sum()), dtype=torch.float64)
            )
        drawn = term.model.sample(batch, generator=generator)
        for name, tensor in {**batch.tensors, target: drawn.to(batch[target].dtype)}.items():
            parts.setdefault(name, []).append(tensor)
    source = Tensors({name: torch.cat(tensors) for name, tensors in parts.items()}, target=target, copy=False)
    return Objective([term.over(source)], objective.priors)


# ---- refits ------------------------------------------------------------------------------------------------


def _reference(objective: Objective, theta: Tensor) -> tuple[Tensor, Tensor]:
    """√J_jj at θ̂, and the standard error of each coordinate in its units: what runaway coefficients are
    measured against."""
    J = objective.taylor(theta, order=2).information
    assert J is not None
    scale = J.diagonal().clamp(min=1e-300).sqrt()
    factor = J.factor()
    growth = (
        torch.ones_like(scale) if factor is None else factor.inverse_diagonal().clamp(min=0).sqrt() * scale
    )
    return scale, growth


def _refit(objective: Objective, theta: Tensor, scale: Tensor, growth: Tensor) -> Refitted:
    """θ of one resample, reached from θ̂.

    A draw fails where Newton cannot certify its end, or where some standard error has grown a thousandfold
    more than at θ̂ (separation). A constant of the family that runs to its own boundary is an estimate, not a
    failure: the simpler model is what that draw asks for.
    """
    if quantile.linear(objective):
        programme = quantile.LinearProgramme()
        found = programme.start(objective)
        return (found.theta if programme.certificate(objective, found).ok else None), False
    if objective.kinked:
        proximal = Proximal(begin=theta, tolerance=1e-6, twice=False)
        end = iterate(proximal, objective)
        return (end.theta if proximal.certificate(objective, end).ok else None), False
    bounded = interior_point.applies(objective)
    solver: SolverLike = (
        InteriorPoint(tolerance=1e-6) if bounded else Newton(begin=theta, thin_above=10**18, tolerance=1e-6)
    )
    state = iterate(solver, objective)
    if state.factor is None or not solver.certificate(objective, state).ok:
        return None, False
    if bounded and len(state.held):
        return state.theta, False
    grown = state.factor.inverse_diagonal().clamp(min=0).sqrt() * torch.maximum(state.scale, scale)
    away = grown >= RUNAWAY * growth
    edges = [_at_boundary(objective, state.theta, int(j)) for j in torch.nonzero(away).reshape(-1)]
    return (None, False) if not all(edges) else (state.theta, bool(edges))


def _at_boundary(objective: Objective, theta: Tensor, j: int) -> bool:
    estimates = coordinates(objective)
    index = estimates.index(j) if j in estimates and len(objective.terms) == 1 else None
    spec = None if index is None else parameter(objective, index)
    if index is None or spec is None or spec.boundary is None:
        return False
    value = float(natural(objective, theta)[index])
    return abs(value - spec.boundary) < 1e-3 if np.isfinite(spec.boundary) else abs(value) > 1e4


# ---- workers -----------------------------------------------------------------------------------------------


def _run(
    objective: Objective, once: Callable[[Objective, int], Refitted], draws: int, workers: int
) -> Iterator[Refitted]:
    """once(objective, d) for each draw, in order. A worker is a thread; models and data are shared, and
    nobody writes into them.

    Threads, not processes: a likelihood of one's own is a function that no pickle carries, and torch releases
    the interpreter's lock where the time goes.
    """
    if workers == 1:
        for d in range(draws):
            yield once(objective, d)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(lambda d: once(objective, d), range(draws))


def _shown(results: Iterator[Refitted], draws: int) -> Iterator[Refitted]:
    """The results as they come; with a progress bar once they take a while, if someone is looking."""
    if not sys.stderr.isatty():
        yield from results
        return
    from rich.console import Console
    from rich.progress import Progress

    begun, bar = time.monotonic(), None
    try:
        for d, result in enumerate(results, 1):
            if bar is None and time.monotonic() - begun > PATIENCE:
                bar = Progress(console=Console(stderr=True), transient=True)
                task = bar.add_task("bootstrap", total=draws)
                bar.start()
            if bar is not None:
                bar.update(task, completed=d)
            yield result
    finally:
        if bar is not None:
            bar.stop()
