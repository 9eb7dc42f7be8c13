"""Confidence intervals: Wald's, the profile likelihood's, the bootstrap's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..distributions import chi2, student
from ..errors import BadArgument
from ..likelihood import Objective
from ..models.base import names_of
from ..protocols import MapsIntervals
from . import bootstrap as boot
from . import profile, variance_profiles
from .clusters import held
from .covariance import Clusters, Covariance, prepare
from .covariance import natural as spread
from .natural import coordinates, find, natural, probabilities

KINDS = ("wald", "profile", "bootstrap")


def intervals(
    objective: Objective,
    theta: Tensor,
    level: float = 0.95,
    kind: str = "wald",
    *,
    parameters: Sequence[str] | None = None,
    covariance: str | Covariance = "observed",
    clusters: Clusters = None,
    draws: int = 999,
    seed: int = 0,
) -> pd.DataFrame:
    """Intervals of the estimates, on their natural scale.

        wald        θ̂_j ± t·√V_jj, mapped: natural(·) of both ends. An estimate that is not a function of one θ_j: v̂_i ± t·√Var v̂_i
        profile     {ψ : 2(ℓ̂ − ℓ_p(ψ)) ≤ χ²_{1, level}}
        bootstrap   the (1 ± level)/2 quantiles of the refits

    t is the quantile of Student's distribution with the degrees of freedom of V (`covariance`): ∞, the
    normal, but n − p of a normal linear model and G − 1 of clusters. The scale of a normal linear model has,
    with V = "ols", the exact interval σ̂ √(n/χ²_{n−p}).

    A scale's Wald interval is found on the logarithm and so never reaches below 0; the profile's and the
    percentile's respect any reparametrisation of themselves.

    Parameters
    ----------
    objective, theta
        θ̂, (p,), a maximum
    level
        of confidence
    kind
        one of `KINDS`
    parameters
        for those alone; None: all
    covariance, clusters
        V of the Wald interval (`inference.covariance`); for the bootstrap, clusters are drawn whole
    draws, seed
        of the bootstrap

    Returns
    -------
    pd.DataFrame
        columns low and high. `attrs["endpoints"]` says of each profile endpoint how it was found.

    Raises
    ------
    BadArgument, FlatDirection, NotConverged

    References
    ----------
    Pawitan (2001), In All Likelihood, ch. 2 and 9; Efron and Tibshirani (1993), An Introduction to the
    Bootstrap, ch. 13.

    Examples
    --------
    >>> import thetahat as th
    >>> fit = th.fit("y ~ x", {"y": [2.0, 1.0, 4.0, 7.0, 8.0], "x": [0.0, 1.0, 2.0, 3.0, 4.0]}, "poisson")
    >>> intervals(fit.objective, fit.theta, 0.9, "profile", parameters=["x"]).round(3).to_dict("list")
    {'low': [0.174], 'high': [0.738]}
    """
    if kind not in KINDS:
        raise BadArgument(f"kind {kind!r} of interval. Accepted: {', '.join(map(repr, KINDS))}.")
    if not 0 < level < 1:
        raise BadArgument(f"level={level!r}: a number between 0 and 1, such as 0.95.")
    if kind != "wald" and covariance != "observed":
        raise BadArgument(f"covariance={covariance!r} makes Wald intervals; a {kind} interval takes none.")
    if kind == "profile" and clusters is not None:
        raise BadArgument(
            "by names clusters, and a profile interval takes none: the likelihood itself holds the rows "
            "independent."
        )
    wanted = find(objective, parameters)
    attrs: dict[str, object] = {"level": level, "kind": kind}
    if kind == "wald":
        ends = _wald(objective, theta, level, covariance, clusters, wanted)
    elif kind == "profile":
        ends, attrs["endpoints"] = _profiles(objective.at(theta), level, wanted)
    else:
        how = "pairs" if clusters is None else "cluster"
        frame = boot.bootstrap(objective, theta, draws, how, clusters=held(clusters, kind), seed=seed)
        attrs |= {"failed": frame.attrs["failed"], "draws": draws}
        ends = np.nanquantile(frame.to_numpy()[:, wanted], [(1 - level) / 2, (1 + level) / 2], axis=0).T
    out = pd.DataFrame(ends, index=[names_of(objective.model)[i] for i in wanted], columns=["low", "high"])
    out.attrs |= attrs
    return out


def _profiles(
    objective: Objective, level: float, wanted: Sequence[int]
) -> tuple[np.ndarray, dict[str, tuple[str, str]]]:
    """The ends of profile intervals, (m, 2), and how each was found. Standard deviations and correlations of random effects are
    functions of several θ_j, of which `variance_profiles` follows the profile on their own scale."""
    names, theta = names_of(objective.model), objective.theta
    ends, how = np.empty((len(wanted), 2)), {}
    for k, i in enumerate(wanted):
        if variance_profiles.of_component(objective, i):
            ends[k] = variance_profiles.ends(objective, i, level)
            how[names[i]] = ("solved", "solved")
    rest = [k for k, i in enumerate(wanted) if names[i] not in how or np.isnan(ends[k]).any()]
    found = profile.endpoints(objective, theta, level, [names[wanted[k]] for k in rest]) if rest else {}
    for k, (name, (low, high)) in zip(rest, found.items(), strict=True):
        ends[k] = low.value, high.value
        how[name] = (low.status, high.status)
    return ends, {names[i]: how[names[i]] for i in wanted}


def _wald(
    objective: Objective,
    theta: Tensor,
    level: float,
    kind: str | Covariance,
    clusters: Clusters,
    wanted: list[int],
) -> np.ndarray:
    objective = objective.at(theta)
    V = prepare(objective, kind, clusters)
    places, values = coordinates(objective), natural(objective, theta)
    own = [i for i in wanted if places[i] is not None]
    ends = torch.empty(len(values), 2, dtype=torch.float64)
    if own:
        at = torch.tensor([int(places[i]) for i in own])  # type: ignore[arg-type]
        half = V.variances()[at].sqrt() * _quantiles(V, at, len(theta), level)
        for side, sign in enumerate((-1.0, 1.0)):
            moved = theta.clone()
            moved[at] += sign * half.to(theta.dtype)
            ends[own, side] = natural(objective, moved)[own]
        if V.kind == "ols" and own[-1] == len(values) - 1:
            ends[-1] = _scale(objective, theta, V.df, level)
    rest = [i for i in wanted if places[i] is None]
    if rest:
        error = spread(objective, theta, V).diagonal()[rest].sqrt() * float(
            student.ppf((1 + level) / 2, V.df)
        )
        ends[rest] = torch.stack([values[rest] - error, values[rest] + error], 1)
        model = objective.model
        if isinstance(model, MapsIntervals):
            names = names_of(objective.model)
            found = [
                model.interval(names[i], float(values[i]), float(e)) for i, e in zip(rest, error, strict=True)
            ]
            ends[rest] = torch.tensor(found, dtype=torch.float64)
        share = probabilities(objective)
        for i, half in zip(rest, error, strict=True):
            if share[i] and 0 < values[i] < 1:
                logit, slope = torch.logit(values[i]), 1 / (values[i] * (1 - values[i]))
                ends[i] = torch.sigmoid(torch.stack([logit - slope * half, logit + slope * half]))
    return ends[wanted].sort(1).values.numpy()


def _quantiles(V: Covariance, at: Tensor, size: int, level: float) -> Tensor:
    """t of each wanted coordinate of θ; the normal's quantile where it has infinitely many degrees of
    freedom."""
    df = torch.full((len(at),), V.df, dtype=torch.float64)
    if V.clusters is not None:
        G = torch.zeros(len(at), size, dtype=torch.float64)
        G[torch.arange(len(at)), at] = 1.0
        df = V.freedom(G)
    elif V.by_coordinate is not None:
        df = V.by_coordinate[at]
    return torch.from_numpy(np.atleast_1d(student.ppf((1 + level) / 2, df.numpy())))


def _scale(objective: Objective, theta: Tensor, df: float, level: float) -> Tensor:
    """The ends of σ of a normal linear model, from Σ c r² / σ² ~ χ²_{n−p}; on the scale of its link where
    it is no constant."""
    n = objective.observations
    ratio = np.sqrt(n / chi2.ppf([(1 + level) / 2, (1 - level) / 2], df))
    moved = [theta.clone(), theta.clone()]
    for each, r in zip(moved, ratio, strict=True):
        each[-1] += float(np.log(r))
    return torch.stack([natural(objective, each)[-1] for each in moved])
