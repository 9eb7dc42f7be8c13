"""The call that makes a fit again: as Python, and as the command where a command can say it."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..families.base import Family
from ..families.links import Link
from ..io.families import to_config
from ..likelihood import priors
from ..likelihood.weights import Importance, Probability
from ..models import Regression
from ..models.custom import Custom
from ..models.given import WEIGHTS
from ..solvers import Stochastic, choose
from ..solvers.checkpoint import OF_RUN
from ..types import Plain, Settings, fields_of, shown_as

if TYPE_CHECKING:
    from ..result import Fit


def python(fit: Fit) -> str:
    """The Python call. What has no name (a frame in memory, a model of one's own) has the name of its kind
    there.

    Examples
    --------
    >>> from thetahat import fit
    >>> print(python(fit("y ~ x", {"y": [0.9, 2.1, 2.9, 4.2], "x": [0.0, 1.0, 2.0, 3.0]})))
    import thetahat as th
    <BLANKLINE>
    fit = th.fit("y ~ x", data)
    """
    call = fit.call
    if call.get("command"):
        return ""  # it was a command that put the objective together
    data = _quoted(str(call["data"])) if call.get("data") else "data"
    arguments = []
    if "formula" in call:
        first = _quoted(call["formula"])
        named = family(fit.model.family)
        arguments += [] if named == '"normal"' else [f"family={named}"]
    elif isinstance(fit.model, Regression) and call:
        first = family(fit.model.family)
    elif call:
        first = fit.model.function.__name__ if isinstance(fit.model, Custom) else "model"
    else:
        return _python("maximize", ["objective", *_solver(fit)])
    if call.get("weights"):
        named = call["weights"] != WEIGHTS
        arguments.append(f"weights={_quoted(call['weights']) if named else 'weights'}")
    weighting = fit.objective.terms[0].weights
    if isinstance(weighting, Probability) or (
        isinstance(weighting, Importance) and isinstance(weighting.ratio, str)
    ):
        arguments.append(f"weights={written(weighting, 'th.weights.')}")
    priors = [written(prior.prior, "th.priors.") for prior in fit.objective.priors]
    if priors:
        arguments.append(f"prior={priors[0] if len(priors) == 1 else '[' + ', '.join(priors) + ']'}")
    if fit.robust is not None:
        arguments.append(f"robust={written(fit.robust, 'th.')}")
    if call.get("missing", "drop") != "drop":
        arguments.append(f"missing={_quoted(call['missing'])}")
    arguments += [
        f"{name}={name if call[name] is None else _quoted(call[name])}"
        for name in ("offset", "subset")
        if name in call
    ]  # of an array, which is not kept, the name stands for it
    arguments += [f"{name}={call[name]!r}" for name in ("reml", "quadrature") if name in call]
    if call.get("functions"):
        arguments.append(
            f"functions={{{', '.join(f'{_quoted(name)}: {name}' for name in call['functions'])}}}"
        )
    arguments += ['collinear="drop"'] if call.get("collinear") else []
    arguments += ["trusted=True"] if call.get("trusted") else []
    arguments += [
        f"{name}={_quoted(v) if isinstance(v, str) else repr(v)}"
        for name, v in (call.get("parameters") or {}).items()
    ]
    kind, by = fit._errors
    arguments += [f"covariance={_quoted(kind)}"] if kind is not None else []
    arguments += [f"by={_quoted(by) if isinstance(by, str) else list(by)}"] if by is not None else []
    failed = [] if fit.certificate.ok else ['on_failure="return"']
    return _python("fit", [first, data, *arguments, *_solver(fit), *failed])


def _python(called: str, parts: list[str]) -> str:
    inside = ", ".join(parts)
    if len(inside) > 80:
        inside = "\n    " + ",\n    ".join(parts) + ",\n"
    return f"import thetahat as th\n\nfit = th.{called}({inside})"


def command(fit: Fit) -> str:
    """The command line that was given, or that would do the same.

    Empty where there is none: a model of one's own, a prior on a list of names, a family with settings, a
    solver.

    Examples
    --------
    >>> from thetahat import fit, priors
    >>> command(fit("y ~ x", {"y": [0, 1, 0, 1], "x": [0.0, 1.0, 2.0, 3.0]}, "bernoulli", prior=priors.Normal(2.5)))
    "thetahat fit 'y ~ x' data.csv --family bernoulli --prior normal:2.5"
    """
    call = fit.call
    if call.get("command"):
        out: str = call["command"]
        return out
    priors = [_prior(prior.prior) for prior in fit.objective.priors]
    weighted = fit.objective.terms[0].weights is not None
    if (
        "formula" not in call
        or call.get("trusted")
        or {"offset", "subset", "collinear", "functions"} & set(call)
        or call.get("weights") == WEIGHTS
        or _solver(fit)
        or not all(priors)
        or weighted
        or fit.robust is not None
        or ":"
        in (fit._errors[0] or "")  # a kind of covariance with a setting, which the command does not take
    ):
        return ""
    named = family(fit.model.family).strip('"')
    if named.startswith("th."):
        return ""
    words = ["thetahat", "fit", call["formula"], str(call.get("data") or "data.csv"), "--family", named]
    for name, value in (call.get("parameters") or {}).items():
        words += ["--set", f"{name}={value}"]
    if call.get("weights"):
        words += ["--weights", call["weights"]]
    for prior in priors:
        words += ["--prior", prior]
    words += ["--reml"] if call.get("reml") else []
    words += ["--quadrature", str(call["quadrature"])] if "quadrature" in call else []
    if call.get("missing", "drop") != "drop":
        words += ["--missing", call["missing"]]
    kind, by = fit._errors
    words += ["--covariance", kind] if kind is not None else []
    for name in [by] if isinstance(by, str) else by or ():
        words += ["--by", name]
    if not fit.certificate.ok:
        words += ["--on-failure", "return"]
    return shlex.join(words)


def _prior(prior: Any) -> str:
    """A prior as the command takes it, normal:2.5:on=x*; empty if it cannot."""
    names = {kind: name for name, kind in priors.registry.items()}
    if type(prior) not in names or not (prior.on is None or isinstance(prior.on, str)):
        return ""
    if isinstance(prior, priors.Jeffreys):
        return names[type(prior)]  # it has no scale
    settings = list(fields_of(prior).items())
    rest = [
        f"{name}={value!r}" for name, value in settings if name in ("location", "df", "mix") and value != 0
    ]
    return ":".join(
        [names[type(prior)], repr(prior.scale), *rest, *([f"on={prior.on}"] if prior.on is not None else [])]
    )


def family(chosen: Family) -> str:
    """A family as an argument: its name where all its settings stand at their defaults, else the object.

    Examples
    --------
    >>> from thetahat import families
    >>> family(families.get("zero_inflated(poisson)")), family(families.Bernoulli(link="probit"))
    ('"zero_inflated(poisson)"', 'th.families.Bernoulli(link="probit")')
    """
    config = to_config(chosen)
    name = _name(config)
    return _quoted(name) if name else written(chosen, "th.families.")


def _name(config: Settings) -> str:
    settings = config.get("settings", {})
    if config["family"] in ("categorical", "ordinal") and set(settings) == {"k"}:
        settings = {}  # the response says how many categories there are
    if not settings:
        out: str = config["family"]
        return out
    inner = settings.get("family")
    within = _name(inner) if set(settings) == {"family"} and isinstance(inner, dict) else ""
    return f"{config['family']}({within})" if within else ""


def written(settings: Plain, prefix: str) -> str:
    """A frozen dataclass as the code that makes it."""
    shown = []
    for each in dataclasses.fields(settings):
        value = getattr(settings, each.name)
        if not each.init or value is None or value == each.default:
            continue
        if isinstance(value, Link):
            text = _quoted(str(value)) if type(value)() == value else written(value, "th.families.links.")
        elif dataclasses.is_dataclass(value):
            text = written(value, prefix)
        elif callable(value):
            text = shown_as(value)
        else:
            text = _quoted(value) if isinstance(value, str) else repr(value)
        shown.append(f"{each.name}={text}")
    return f"{prefix}{type(settings).__name__}({', '.join(shown)})"


def _solver(fit: Fit) -> list[str]:
    """solver=…, if it is not the one that would be chosen, with the settings that would be chosen."""
    chosen: Any = choose(fit.objective)
    if not dataclasses.is_dataclass(fit.solver) or fit.solver == chosen:
        return []
    solver, run = fit.solver, list[str]()
    if isinstance(solver, Stochastic) and Path(solver.checkpoint or "").name == OF_RUN:  # of a run's folder
        run = [f"run={_quoted(str(Path(solver.checkpoint or '').parent))}"]
        solver = dataclasses.replace(solver, checkpoint=None, restarted_at=0, in_place=False)
    return [*([] if solver == chosen else [f"solver={written(solver, 'th.')}"]), *run]


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
