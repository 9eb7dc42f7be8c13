"""A family as strict JSON, and back: what a saved fit keeps of its family.

    {"family": "truncated", "settings": {"family": {"family": "poisson"}, "low": 0.0}}

That is the registered name, and those settings that are not the default. Families and links among the
settings are written in the same way; infinities and NaN, which strict JSON lacks, as {"number": "inf"}.
"""

from __future__ import annotations

import math
from dataclasses import MISSING, fields

from ..errors import BadArgument
from ..families import links
from ..families.base import Family
from ..families.links import Link
from ..families.registry import registry, tables, wrappers
from ..types import Plain, Settings

_LINKS = {
    c.__name__.lower(): c
    for c in vars(links).values()
    if isinstance(c, type) and issubclass(c, Link) and c is not Link
}


NAMES: dict[str, type[Family]] = {**registry, **wrappers, **tables}


def _settings(value: Plain) -> Settings:
    """The fields that are not at their default, encoded."""
    defaults = {f.name: f.default for f in fields(value) if f.default is not MISSING}
    chosen = {f.name: vars(value)[f.name] for f in fields(value) if f.init}
    return {
        n: _encode(v, f"{type(value).__name__}.{n}")
        for n, v in chosen.items()
        if n not in defaults or v != defaults[n]
    }


def _encode(value: Plain, where: str) -> Plain:
    if isinstance(value, Family):
        return to_config(value)
    if isinstance(value, Link):
        settings = _settings(value)
        return {"link": type(value).__name__.lower(), **({"settings": settings} if settings else {})}
    if isinstance(value, float) and not math.isfinite(value):
        return {"number": str(float(value))}
    if isinstance(value, (tuple, list)):
        return [_encode(v, where) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise BadArgument(
        f"{where} is {value!r}, which cannot be saved. Saved are numbers, strings, tuples, links and "
        "families."
    )


def _decode(value: Plain) -> Plain:
    if isinstance(value, list):
        return tuple(_decode(v) for v in value)
    if not isinstance(value, dict):
        return value
    if "family" in value:
        return from_config(value)
    if "link" in value:
        return _build(value, "link", _LINKS)
    if set(value) == {"number"} and value["number"] in ("inf", "-inf", "nan"):
        return float(value["number"])
    raise BadArgument(f"{value!r} is not a setting of a family.")


def _build(config: Settings, kind: str, names: Settings) -> Plain:
    name, settings = config[kind], config.get("settings", {})
    if not isinstance(name, str) or name not in names:
        raise BadArgument(f"unknown {kind} {name!r} in a saved {kind}. Known: {', '.join(names)}.")
    known = {f.name for f in fields(names[name]) if f.init}
    if not isinstance(settings, dict) or set(settings) - known or set(config) - {kind, "settings"}:
        raise BadArgument(f"{config!r} is no {name}: its settings are {', '.join(sorted(known)) or 'none'}.")
    try:
        return names[name](**{n: _decode(v) for n, v in settings.items()})
    except TypeError as error:
        raise BadArgument(f"{config!r} is no {name}: {error}.") from error


def to_config(family: Family) -> Settings:
    """The family as a dictionary that strict JSON can write.

    Raises
    ------
    BadArgument
        for a family, or a setting, that has no registered name

    Examples
    --------
    >>> from thetahat.families import Bernoulli
    >>> to_config(Bernoulli(link="probit"))
    {'family': 'bernoulli', 'settings': {'link': 'probit'}}
    """
    name = next((n for n, c in NAMES.items() if c is type(family)), None)
    if name is None:
        raise BadArgument(f"{type(family).__name__} is not a registered family, and cannot be saved by name.")
    settings = _settings(family)
    return {"family": name, **({"settings": settings} if settings else {})}


def from_config(config: Settings) -> Family:
    """The family of that configuration: `from_config(to_config(family)) == family`.

    Raises
    ------
    BadArgument
        for anything that `to_config` does not write

    Examples
    --------
    >>> str(from_config({"family": "bernoulli", "settings": {"link": "probit"}}))
    'Bernoulli(link=probit)'
    """
    if not isinstance(config, dict) or "family" not in config:
        raise BadArgument(f"{config!r} is not a saved family.")
    family: Family = _build(config, "family", NAMES)
    return family
