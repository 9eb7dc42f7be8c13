"""The delta method: functions of the estimates, with their standard errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pandas as pd
import torch
from torch import Tensor

from ..errors import BadArgument
from ..likelihood import Objective
from ..models.base import names_of, natural_of, place_of
from ..types import Data, Plain
from .covariance import Clusters, Covariance, project
from .natural import own_places, unknown


def delta(
    objective: Objective,
    theta: Tensor,
    function: Callable[[dict[str, Tensor]], Plain],
    kind: str | Covariance = "observed",
    clusters: Clusters = None,
) -> pd.DataFrame:
    """f(v̂) and its standard error, by automatic differentiation.

        Var f(v̂) ≈ F V Fᵀ,      F = ∂f(natural(θ))/∂θ at θ̂

    Parameters
    ----------
    objective, theta
        θ̂, (p,)
    function
        dict of estimate name → scalar tensor, on the natural scale; returns a tensor, or a dict of label →
        tensor
    kind, clusters
        the covariance V of θ̂ (`inference.covariance`)

    Returns
    -------
    pd.DataFrame
        columns estimate and standard_error, a row an entry; `attrs["covariance"]` is F V Fᵀ as an array.

    Raises
    ------
    BadArgument
        the function asks for a name that no estimate has, or returns something else than tensors

    References
    ----------
    Doob (1935), The limiting distributions of certain statistics; Oehlert (1992), A note on the delta method.

    Examples
    --------
    >>> import thetahat as th
    >>> fit = th.fit("y ~ x", {"y": [2.0, 1.0, 4.0, 7.0, 8.0], "x": [0.0, 1.0, 2.0, 3.0, 4.0]}, "poisson")
    >>> delta(fit.objective, fit.theta, lambda v: {"rate ratio": torch.exp(v["x"])}).round(4).to_dict("index")
    {'rate ratio': {'estimate': 1.5571, 'standard_error': 0.2645}}
    """
    names, places = names_of(objective.model), own_places(objective)
    with torch.enable_grad():
        leaf = theta.clone().requires_grad_()
        values = natural_of(objective.model, leaf[places])
        labels, flat = _outputs(_call(function, _Values(zip(names, values, strict=True))))
        rows = [
            torch.autograd.grad(v, leaf, retain_graph=True, allow_unused=True)[0] if v.requires_grad else None
            for v in flat
        ]
    F = torch.stack([torch.zeros_like(theta) if r is None else r for r in rows]).to(torch.float64)
    V = project(objective, theta, F, kind, clusters)
    table = {
        "estimate": [float(v.detach()) for v in flat],
        "standard_error": V.diagonal().clamp(min=0).sqrt().tolist(),
    }
    out = pd.DataFrame(table, index=pd.Index(labels))
    out.attrs["covariance"] = V.numpy()
    return out


class _Values(dict[str, Tensor]):
    """Estimates by name; columns in a name may be in backticks or not."""

    def __missing__(self, name: str) -> Tensor:
        at = place_of(name, list(self)) if isinstance(name, str) else None
        if at is None:
            raise unknown(str(name), list(self))
        return list(self.values())[at]


def _call(function: Callable[[dict[str, Tensor]], Plain], values: dict[str, Tensor]) -> Plain:
    try:
        return function(values)
    except KeyError as error:
        if error.args and error.args[0] not in values:
            raise unknown(str(error.args[0]), list(values)) from None
        raise


def _outputs(result: Data) -> tuple[list[str], list[Tensor]]:
    """A label and a scalar for each entry of what the function returned."""
    parts = dict(result) if isinstance(result, Mapping) else {"value": result}
    labels: list[str] = []
    flat: list[Tensor] = []
    for label, part in parts.items():
        if not isinstance(part, Tensor):
            raise BadArgument(
                f"the function returned {type(part).__name__} for {label!r}. Accepted: a tensor, or a dict "
                "of label → tensor."
            )
        entries = part.reshape(-1)
        labels += [str(label)] if part.ndim == 0 else [f"{label}[{i}]" for i in range(len(entries))]
        flat += list(entries)
    if not flat:
        raise BadArgument("the function returned nothing: a tensor, or a dict of label → tensor, is needed.")
    return labels, flat
