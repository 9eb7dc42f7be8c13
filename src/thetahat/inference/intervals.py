"""Confidence intervals: Wald's, the profile likelihood's, the bootstrap's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from scipy.stats import norm
from torch import Tensor

from ..errors import BadArgument
from ..likelihood import Objective
from ..models.base import names_of
from . import bootstrap as boot
from . import profile
from .covariance import Clusters, check, of_theta, project, variances
from .natural import coordinates, find, natural

KINDS = ("wald", "profile", "bootstrap")


def intervals(
    objective: Objective,
    theta: Tensor,
    level: float = 0.95,
    kind: str = "wald",
    *,
    parameters: Sequence[str] | None = None,
    covariance: str = "observed",
    clusters: Clusters = None,
    draws: int = 999,
    seed: int = 0,
) -> pd.DataFrame:
    """Intervals of the estimates, on their natural scale.

        wald        θ̂_j ± z·√V_jj, mapped: natural(·) of both ends. An estimate that is no function of one θ_j: v̂_i ± z·√Var v̂_i
        profile     {ψ : 2(ℓ̂ − ℓ_p(ψ)) ≤ χ²_{1, level}}
        bootstrap   the (1 ± level)/2 quantiles of the refits

    A scale's Wald interval is found on the logarithm and so never reaches below 0; the profile's and the percentile's respect any
    reparametrisation of themselves.

    Parameters
    ----------
    objective, theta : θ̂, (p,), a maximum
    level : of confidence
    kind : one of `KINDS`
    parameters : for those alone; None: all
    covariance, clusters : V of the Wald interval (`inference.covariance`); for the bootstrap, clusters are drawn whole
    draws, seed : of the bootstrap

    Returns
    -------
    columns low and high. `attrs["endpoints"]` says of each profile endpoint how it was found.

    Raises
    ------
    BadArgument, FlatDirection, NotConverged

    Source: Pawitan (2001), In All Likelihood, ch. 2 and 9; Efron and Tibshirani (1993), An Introduction to the Bootstrap, ch. 13.

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
            "by names clusters, and a profile interval takes none: the likelihood itself holds the rows independent."
        )
    wanted = find(objective, parameters)
    attrs: dict[str, object] = {"level": level, "kind": kind}
    if kind == "wald":
        ends = _wald(objective, theta, level, covariance, clusters, wanted)
    elif kind == "profile":
        names = names_of(objective.model)
        found = profile.endpoints(objective, theta, level, [names[i] for i in wanted])
        ends = np.array([[low.value, high.value] for low, high in found.values()]).reshape(-1, 2)
        attrs["endpoints"] = {name: (low.status, high.status) for name, (low, high) in found.items()}
    else:
        how = "pairs" if clusters is None else "cluster"
        frame = boot.bootstrap(objective, theta, draws, how, clusters=clusters, seed=seed)
        attrs |= {"failed": frame.attrs["failed"], "draws": draws}
        ends = np.nanquantile(frame.to_numpy()[:, wanted], [(1 - level) / 2, (1 + level) / 2], axis=0).T
    out = pd.DataFrame(ends, index=[names_of(objective.model)[i] for i in wanted], columns=["low", "high"])
    out.attrs |= attrs
    return out


def _wald(objective: Objective, theta: Tensor, level: float, kind: str, clusters: Clusters, wanted: list[int]) -> np.ndarray:
    check(kind, clusters)
    z = float(norm.ppf((1 + level) / 2))
    places, values = coordinates(objective), natural(objective, theta)
    own = [i for i in wanted if places[i] is not None]
    ends = torch.empty(len(values), 2, dtype=torch.float64)
    if own:
        at = torch.tensor([int(places[i]) for i in own])  # type: ignore[arg-type]
        error = _theta_variances(objective, theta, at, kind, clusters).sqrt()
        for side, sign in enumerate((-1.0, 1.0)):
            moved = theta.clone()
            moved[at] += sign * z * error.to(theta.dtype)
            ends[own, side] = natural(objective, moved)[own]
    rest = [i for i in wanted if places[i] is None]
    if rest:
        error = variances(objective, theta, kind, clusters)[rest].sqrt()
        ends[rest] = torch.stack([values[rest] - z * error, values[rest] + z * error], 1)
    return ends[wanted].sort(1).values.numpy()


def _theta_variances(objective: Objective, theta: Tensor, at: Tensor, kind: str, clusters: Clusters) -> Tensor:
    """V_jj of the wanted coordinates of θ."""
    if kind in ("observed", "expected", "sandwich"):
        return of_theta(objective, theta, kind)[at]
    G = torch.zeros(len(at), len(theta), dtype=torch.float64)
    G[torch.arange(len(at)), at] = 1.0
    return project(objective, theta, G, kind, clusters).diagonal().clamp(min=0)
