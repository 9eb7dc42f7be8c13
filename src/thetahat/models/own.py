"""`th.model`: a likelihood of one's own from a function, with latent variables or without."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ..errors import BadArgument
from ..types import Plain
from .custom import Constraint, Custom, Latent

if TYPE_CHECKING:
    from .latent import Unbound


def model(
    *,
    measure: str = "density",
    target: str = "y",
    concave: bool = False,
    **parameters: float | Tensor | Constraint | Latent,
) -> Callable[[Callable[..., Plain]], Custom | Unbound]:
    """Make a model of a function `f(batch, **parameters)` that returns log p of each row, or its distribution.

    Of a function that returns `th.families.Normal().at(mean, scale)` the fit also predicts, with intervals, draws, and has
    residuals and calibration.

    Parameters
    ----------
    measure
        "density" or "mass"; of a distribution its family's
    target
        the column that is scored
    concave
        say so if log p is concave in the unconstrained parameters: the certificate is then global
    parameters
        a start each: a number, a tensor, or `positive(…)`, `interval(…)`, `ordered(…)`, `simplex(…)`; `latent(by=…)` of
        what is not observed of each group, over which the likelihood is integrated

    Examples
    --------
    >>> import torch
    >>> from thetahat import positive
    >>> @model(rate=positive(1.0))
    ... def exponential(batch, rate):
    ...     return torch.log(rate) - rate * batch["y"]
    >>> exponential.names
    ['rate']
    """
    latents = {name: p for name, p in parameters.items() if isinstance(p, Latent)}
    constraints = {
        name: p if isinstance(p, Constraint) else Constraint(p)
        for name, p in parameters.items()
        if not isinstance(p, Latent)
    }
    taken = next((name for name in constraints if hasattr(nn.ParameterDict(), name)), None)
    if taken is not None:
        raise BadArgument(
            f"@th.model({taken}=…): {taken!r} is a name that torch.nn.ParameterDict, which holds the parameters, has for itself. "
            f"Accepted: another, such as {taken}_ or {taken}_value, in the function too."
        )
    if not constraints:
        raise BadArgument("a model needs parameters: @th.model(mu=0.0, sigma=th.positive(1.0)).")

    def decorate(function: Callable[..., Plain]) -> Custom | Unbound:
        takes = list(inspect.signature(function).parameters)[1:]
        open_ended = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())
        if not open_ended and set(takes) != set(parameters):
            raise BadArgument(
                f"{function.__name__} takes {', '.join(takes)}, and @model gives {', '.join(parameters)}: "
                "they must agree."
            )
        custom = Custom(function, constraints, measure, target, concave)
        if not latents:
            return custom
        from .latent import Unbound  # brings scipy, which takes long to load

        return Unbound(custom, latents)

    return decorate
