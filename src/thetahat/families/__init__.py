"""The families: p(y | its own parameters). One file a kind, one line of the registry a family."""

from __future__ import annotations

from ..errors import BadArgument
from . import links
from .base import Family, Parameter, Range, Support
from .bernoulli import Bernoulli
from .normal import LogNormal, Normal
from .poisson import Poisson

registry: dict[str, type[Family]] = {
    "normal": Normal,
    "lognormal": LogNormal,
    "bernoulli": Bernoulli,
    "poisson": Poisson,
}


def get(family: str | Family) -> Family:
    """The family of that name with its default settings, or the family itself.

    >>> str(get("poisson"))
    'Poisson()'
    """
    if isinstance(family, Family):
        return family
    if isinstance(family, type) and issubclass(family, Family):
        return family()
    if family not in registry:
        import difflib

        near = difflib.get_close_matches(str(family), registry, n=1)
        hint = f" Nearest: {near[0]!r}." if near else ""
        raise BadArgument(f"unknown family {family!r}.{hint} Families: {', '.join(registry)}.")
    return registry[family]()


__all__ = ["Family", "Parameter", "Range", "Support", "get", "links", "registry"] + [c.__name__ for c in registry.values()]
