"""A fit in one file: safetensors for θ̂ and J, strict JSON for everything else, versioned, with a checksum over every byte.

    thetahat fit, version 1
        theta                       θ̂, unconstrained
        model.*                     in its place, the parameters and buffers of a network
        encoder.*                   the codes of categorical terms
        value, gradient, A, E, D    the objective at θ̂ to second order: from these come standard errors and intervals
        trace                       of the climb
        fit                         JSON: model, family, encodings, certificate, call, log-likelihood, fingerprint and units of the data

No pickle, and no row of the data; category levels, spline knots, and the centres of transforms are there, since new rows cannot be encoded
without them. Code is not saved: a likelihood of one's own and a network are given again to `load`. Loading runs nothing from the file:
expressions of a formula are let through only if they are made of columns, numbers, arithmetic and functions that formulas know.
"""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import archive, families
from .data import Table
from .data import config as encoders
from .data.plain import plain, rich
from .errors import BadArgument, BadSave, DataError, FitError
from .fit import Fit
from .inference.bread import Inverse, bread
from .inference.criteria import counted
from .likelihood import DensityPower, LogLikelihood, LogPrior, Objective, Trimmed, priors
from .likelihood.recalled import Forgotten, ForgottenTable, ForgottenWeights, Memory, Recalled, Spread
from .models import BradleyTerry, Density, Mixture, PlackettLuce, Regression
from .models.base import get_theta, set_theta
from .models.custom import Custom
from .models.given import source_of
from .models.information import Information
from .models.taylor import Taylor
from .solvers import DENSE, EM, LBFGS, Certificate, ClosedForm, Newton, Proximal

RATED = (BradleyTerry, PlackettLuce)  # of items or features: plain values make them again
_SOLVERS = {c.__name__: c for c in (ClosedForm, Newton, LBFGS, EM, Proximal)}


# ---- save --------------------------------------------------------------------------------------------------------------------


def save(fit: Fit, path: str | Path) -> Path:
    """Write a fit to one file, aside first and then renamed: a crash leaves the old file or the new one, never half of one.

    Parameters
    ----------
    fit : with one log-likelihood term
    path : usually named .thetahat; another file than a saved fit is not overwritten

    Returns
    -------
    Path

    Raises
    ------
    BadArgument : the fit holds something that is not saved (several terms, a family that is not registered), or the path is another file's
    BadFormula : the formula calls something that a loaded formula may not

    >>> import tempfile, thetahat as th
    >>> fit = th.fit("y ~ x", {"y": [0.9, 2.1, 2.9, 4.2], "x": [0.0, 1.0, 2.0, 3.0]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     again = th.load(fit.save(f"{folder}/line.thetahat"))
    >>> bool((again.standard_errors() == fit.standard_errors()).all())
    True
    """
    from . import __version__

    path = Path(path)
    content, tensors = _content(fit)
    archive.write(path, content, tensors, __version__)
    return path


def _content(fit: Fit) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if len(fit.objective.terms) != 1:
        raise BadArgument(f"a fit of {len(fit.objective.terms)} terms is not saved: save its models' state_dict() instead.")
    model, own = _model_config(fit.model)
    spread = _spread(fit)
    tensors = {**({} if model["kind"] == "module" else {"theta": fit.theta}), **own, **_second_order(fit)}
    if spread is not None:
        tensors |= {"spread": spread.V, "freedom": spread.df}
    if fit.trace:
        tensors["trace"] = torch.tensor([[float(v) for v in row] for row in fit.trace], dtype=torch.float64)
    term = fit.objective.terms[0]
    counts = (
        not fit.objective.kinked and term.robust is None
    )  # whether the parameters of a maximum of the likelihood can be counted
    weights = None if term.weights is None else getattr(term.weights, "__name__", None) or str(term.weights)
    return {
        "model": model,
        "priors": [_prior_config(p) for p in fit.objective.priors],
        "weights": weights,
        "robust": _robust_config(term.robust),
        "covariance": None if spread is None and fit._errors[0] is None else plain([fit.covariance_chosen[0], fit._errors[1]]),
        "certificate": plain(fit.certificate.to_dict(), "the certificate"),
        "solver": _solver_config(fit.solver),
        "call": plain({k: str(v) if isinstance(v, Path) else v for k, v in fit.call.items()}, "the call"),
        "log_likelihood": _known(fit, "log_likelihood"),
        "criteria": plain(fit.criteria) if counts and "A" in tensors and fit.certificate.ok else None,
        "data": plain(dataclasses.asdict(_memory(fit))),
    }, tensors


def _model_config(model: nn.Module) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What is needed to build the model again, or to know the model that is given again."""
    if isinstance(model, Regression):
        encoder, tensors = encoders.to_config(model.encoder)
        config = {"family": families.to_config(model.family), "encoder": encoder, "slots": model.slots, "density": model.density}
        return {"kind": "regression", "fixed": plain(model.fixed), **config}, tensors
    if isinstance(model, Density):
        return {"kind": "density", "family": families.to_config(model.family)}, {}
    if isinstance(model, Mixture) and all(isinstance(c, (Density, Regression)) for c in model.components):
        parts = [_model_config(c) for c in model.components]
        own = {f"component.{k}.{name}": t for k, (_, found) in enumerate(parts) for name, t in found.items()}
        return {"kind": "mixture", "components": [part for part, _ in parts]}, own
    if type(model) in RATED and model.scorer is None:
        return {"kind": "preference", "of": type(model).__name__, "settings": plain(model.to_config())}, {}
    if isinstance(model, Custom):
        return {"kind": "custom", "name": model.function.__name__, "parameters": _constraints(model)}, {}
    state = {f"model.{name}": t.detach().cpu() for name, t in _state(model).items()}
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    return {"kind": "module", "name": type(model).__name__, "shapes": _shapes(model), "trained": trained}, state


def _constraints(model: Custom) -> list[list[Any]]:
    """Name, constraint, shape, and the ends of an interval, of each parameter."""
    ends = {n: [getattr(c, "low", None), getattr(c, "high", None)] for n, c in model.constraints.items()}
    return [[n, type(c).__name__.lower(), list(model.theta[n].shape), plain(ends[n])] for n, c in model.constraints.items()]


def _shapes(model: nn.Module) -> dict[str, list[int]]:
    return {name: list(t.shape) for name, t in _state(model).items()}


def _state(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers; of a model that keeps what is free alone, those of its parameters that are moved."""
    free = {name for name, p in model.named_parameters() if p.requires_grad}
    every = model.state_dict()
    return {n: t for n, t in every.items() if n in free} if getattr(model, "keeps", "all") == "free" else every


def _second_order(fit: Fit) -> dict[str, Tensor]:
    """The objective at θ̂ to second order, where its information can be written out and means something."""
    layout = getattr(fit.model, "layout", None)
    if (len(fit.theta) if layout is None else layout.kept) > DENSE or fit.certificate.status == "stochastic":
        return {}
    if isinstance(fit.objective, Recalled) and fit.objective.found is None:
        return {}
    found = fit.objective.taylor(fit.theta, order=2)
    J = found.information
    assert J is not None
    parts = {"value": found.value, "gradient": found.gradient, "A": J.A, "E": J.E, "D": J.D}
    try:
        factor = bread(fit.objective)
        parts["inverse"] = factor.matrix if isinstance(factor, Inverse) else None
    except FitError:
        pass  # no covariance here, none there
    return {name: t for name, t in parts.items() if t is not None}


ROWLESS = ("observed", "expected", "ols")  # covariances that a fit has without its rows


def _spread(fit: Fit) -> Spread | None:
    """The covariance of the fit's own kind, where it needs the rows; None where there is none, or it could not be held."""
    kind, by = fit.covariance_chosen
    if kind in ROWLESS or fit.certificate.status == "stochastic" or len(fit.theta) > DENSE:
        return None
    if isinstance(fit.objective, Recalled):
        return fit.objective.spread
    try:
        prepared = fit._prepared(kind, by)
    except (FitError, BadArgument):
        return None
    every = torch.eye(len(fit.theta), dtype=torch.float64)
    return Spread(kind, prepared.of(every), prepared.freedom(every))


def _known(fit: Fit, what: str) -> Any:
    """A number that is known, or can be had by a pass over data that end; None of a stochastic fit that was not asked for it."""
    if what in fit._cache:
        return plain(fit._cache[what])
    if fit.certificate.status == "stochastic" or fit.source.size is None:
        return None
    return plain(getattr(fit, what))


def _memory(fit: Fit) -> Memory:
    source, total = fit.source, _known(fit, "observations")
    if isinstance(source, Forgotten | ForgottenTable):
        return dataclasses.replace(source.memory, path="")
    memory = Memory(
        path="",
        source=type(source).__name__,
        size=source.size,
        total=total,
        fingerprint=None if source.size is None else source.fingerprint,
        units=source.units,
    )
    if isinstance(source, Table):
        return dataclasses.replace(
            memory, name=source.frame.name, dropped=source.dropped, missing=source.missing, streamed=source.streamed
        )
    return dataclasses.replace(memory, weights=fit.call.get("weights"))


def _prior_config(term: LogPrior) -> dict[str, Any]:
    kind = type(term.prior)
    if getattr(priors, kind.__name__, None) is not kind:
        raise BadArgument(f"a prior of the type {kind.__name__} is code and is not saved. Saved are those of th.priors.")
    return {
        "prior": kind.__name__,
        "settings": plain({f.name: getattr(term.prior, f.name) for f in dataclasses.fields(term.prior)}),
    }


def _robust_config(robust: DensityPower | Trimmed | None) -> dict[str, Any] | None:
    return None if robust is None else {"robust": type(robust).__name__, "settings": plain(dataclasses.asdict(robust))}


def _solver_config(solver: Any) -> dict[str, Any] | None:
    if type(solver).__name__ not in _SOLVERS:
        return None
    return {
        "solver": type(solver).__name__,
        "settings": plain({f.name: getattr(solver, f.name) for f in dataclasses.fields(solver)}),
    }


# ---- load --------------------------------------------------------------------------------------------------------------------


def load(path: str | Path, data: Any = None, *, model: nn.Module | None = None) -> Fit:
    """The fit that `save` wrote.

    Without its data it gives, to the last bit, the estimates, standard errors, Wald intervals and tests, criteria, certificate,
    summary, and predictions, draws and scores for new rows. With them, everything.

    Parameters
    ----------
    path : the file
    data : those to which it was fitted: what needs their rows (profiles, the bootstrap, the sandwich, residuals) then works again
    model : the likelihood of one's own, or the network, where the fit was of one; a network's parameters are overwritten

    Returns
    -------
    Fit

    Raises
    ------
    BadSave : no saved fit, damaged, or of a version that this library does not read
    BadArgument : the model is missing, is another one, or is not needed
    DataError : the data are others than those that were fitted
    """
    from . import __version__

    path = Path(path)
    content, tensors = archive.read(path, __version__)
    try:
        built = _model(content["model"], tensors, path, model)
        fit = _recalled(content, tensors, built, path)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        if isinstance(error, BadArgument):
            raise
        raise BadSave(
            f"{path} cannot be read back: {error!r}. It was not written by this library, or by another state of it."
        ) from error
    return fit if data is None else _attached(fit, data, path)


def _model(config: dict[str, Any], tensors: dict[str, Tensor], path: Path, given: nn.Module | None) -> nn.Module:
    """The model at θ̂: built again, or the one given once it is known to be the same."""
    kind = config["kind"]
    if kind in ("regression", "density", "mixture", "preference"):
        if given is not None:
            raise BadArgument(f"{path} holds a {kind}, which needs no model: th.load({str(path)!r}).")
        built: nn.Module = _built(config, tensors, path)
        set_theta(built, tensors["theta"])
        return built
    name = config["name"]
    if given is None:
        raise BadArgument(
            f"{path} holds a fit of {name!r}, which is code, and code is not saved: th.load({str(path)!r}, model={name})."
        )
    if kind == "custom":
        wanted = config["parameters"]
        if not isinstance(given, Custom) or _constraints(given) != wanted:
            found = _constraints(given) if isinstance(given, Custom) else type(given).__name__
            raise BadArgument(
                f"{path} holds a fit of {name!r} with the parameters {_shown(wanted)}; the model given has {_shown(found)}."
            )
        built = copy.deepcopy(given)
        set_theta(built, tensors["theta"])
        return built
    if type(given).__name__ != name:
        raise BadArgument(f"{path} holds a fit of a {name}; the model given is a {type(given).__name__}.")
    shapes = _shapes(given)
    if shapes != config["shapes"]:
        differ = [n for n in {**shapes, **config["shapes"]} if shapes.get(n) != config["shapes"].get(n)]
        first = differ[0]
        raise BadArgument(
            f"{path} holds a fit of a {name} whose tensor {first!r} has the shape {config['shapes'].get(first)}; that of the model given has "
            f"{shapes.get(first)} ({len(differ)} tensors differ)."
        )
    given = copy.deepcopy(given)
    given.load_state_dict({n: tensors[f"model.{n}"] for n in shapes}, strict=getattr(given, "keeps", "all") == "all")
    for parameter_name, parameter in given.named_parameters():
        parameter.requires_grad_(parameter_name in config["trained"])
    return given


def _built(config: dict[str, Any], tensors: dict[str, Tensor], path: Path, encoder: Any = None) -> nn.Module:
    """A model that is no code, θ not yet set. `encoder`: the one that components of a mixture share."""
    if config["kind"] == "mixture":
        parts: list[Any] = []
        for k, each in enumerate(config["components"]):
            own = {name.removeprefix(f"component.{k}."): t for name, t in tensors.items() if name.startswith(f"component.{k}.")}
            parts.append(_built(each, own, path, parts[0].encoder if parts and each["kind"] == "regression" else None))
        return Mixture(parts)
    if config["kind"] == "preference":
        return next(kind for kind in RATED if kind.__name__ == config["of"]).from_config(rich(config["settings"]))
    try:
        family = families.from_config(config["family"])
    except BadArgument as error:
        raise BadSave(f"{path} holds a family that this library does not know: {error}") from error
    if config["kind"] == "density":
        return Density(family)
    encoder = encoder or encoders.from_config(config["encoder"], tensors)
    return Regression(family, encoder, config["slots"], rich(config["fixed"]), density=config["density"])


def _shown(parameters: Any) -> str:
    if isinstance(parameters, str):
        return f"none, it is a {parameters}"
    return ", ".join(f"{name} ({kind})" if kind != "constraint" else name for name, kind, *_ in parameters)


def _recalled(content: dict[str, Any], tensors: dict[str, Tensor], model: nn.Module, path: Path) -> Fit:
    memory = dataclasses.replace(Memory(**rich(content["data"])), path=str(path))
    table = model if isinstance(model, Regression) else _regression_of(model)
    source = Forgotten(memory) if table is None else ForgottenTable(memory, table.encoder, table.family)
    weights = None if content["weights"] is None else ForgottenWeights(memory, content["weights"])
    found = None
    if "value" in tensors:
        layout = getattr(model, "layout", None)
        J = Information(tensors["A"], tensors.get("E"), tensors.get("D"), None if layout is None else layout.eliminated)
        found = Taylor(tensors["value"], tensors["gradient"], J)
    known = [LogPrior(_prior(p), model) for p in content["priors"]]
    certificate = rich(content["certificate"])
    trace = tuple((int(row[0]), *row[1:]) for row in tensors["trace"].tolist()) if "trace" in tensors else ()
    robust = _robust(content.get("robust"))
    term = LogLikelihood(model, source, weights) if robust is None else robust.of(model, source)
    chosen = rich(content["covariance"])
    spread = Spread(chosen[0], tensors["spread"], tensors["freedom"]) if "spread" in tensors else None
    objective = Recalled(term, known, memory, get_theta(model), found, tensors.get("inverse"), spread)
    fit = Fit(objective, Certificate(**certificate), trace=trace, solver=_solver(content["solver"]), call=rich(content["call"]))
    if chosen is not None:
        fit.__dict__["_errors"] = (chosen[0], chosen[1] if not isinstance(chosen[1], list) else tuple(chosen[1]))
    log_likelihood = rich(content["log_likelihood"])
    if log_likelihood is not None:
        fit._cache["log_likelihood"] = log_likelihood
    if content["criteria"] is not None:
        fit._cache["criteria"] = rich(content["criteria"])
    elif log_likelihood is not None and memory.total is not None and not objective.kinked:
        fit._cache["criteria"] = counted(objective.size, log_likelihood, memory.total)
    return fit


def _regression_of(model: nn.Module) -> Regression | None:
    """The first component of a mixture of regressions: it says how the table is read."""
    parts = list(model.components) if isinstance(model, Mixture) else list[nn.Module]()
    return next((c for c in parts if isinstance(c, Regression)), None)


def _prior(config: dict[str, Any]) -> priors.Prior:
    kind: Any = getattr(priors, str(config["prior"]), None)
    known = isinstance(kind, type) and issubclass(kind, priors.Prior)
    if not known:
        raise BadSave(f"the file holds a prior {config['prior']!r}, which this library does not know.")
    return kind(**rich(config["settings"]))


def _robust(config: dict[str, Any] | None) -> DensityPower | Trimmed | None:
    if config is None:
        return None
    kinds: dict[str, type[DensityPower] | type[Trimmed]] = {c.__name__: c for c in (DensityPower, Trimmed)}
    if config.get("robust") not in kinds:
        raise BadSave(f"the file holds a robust setting {config.get('robust')!r}, which this library does not know.")
    return kinds[config["robust"]](**rich(config["settings"]))


def _solver(config: dict[str, Any] | None) -> Any:
    return None if config is None else _SOLVERS[config["solver"]](**rich(config["settings"]))


def _attached(fit: Fit, data: Any, path: Path) -> Fit:
    """The fit over its data again, once they are known to be the same: by their fingerprint, and by the objective at θ̂."""
    recalled, model = fit.objective, fit.model
    assert isinstance(recalled, Recalled)
    memory = recalled.memory
    weights = recalled.terms[0].weights
    if isinstance(weights, ForgottenWeights):
        raise BadArgument(
            f"{path} was fitted with the weighting {weights.__name__}, which is code, and code is not saved: fit again."
        )
    table = model if isinstance(model, Regression) else _regression_of(model)
    if table is not None:
        from .data import Frame

        source: Any = Table(Frame(data), table.encoder, table.family, missing=memory.missing)
    elif isinstance(model, Density):
        from .models.density import density

        source = density(model.family, data)[1]
    else:
        source = source_of(data, model, memory.weights)
    if source.fingerprint != memory.fingerprint:
        raise DataError(
            f"these are other data than {path} was fitted to: {source.size} rows of fingerprint {source.fingerprint}, and there {memory.size} of "
            f"{memory.fingerprint}. For other data: fit.predict(data), fit.score(data)."
        )
    objective = Objective([recalled.terms[0].over(source, model)], recalled.priors)
    if recalled.found is not None:
        there, here = float(recalled.found.value), objective.value(fit.theta)
        if not abs(there - here) <= 1e-8 * (1 + abs(there)):
            raise DataError(
                f"these are other data than {path} was fitted to: the responses are the same, but the objective at the estimates is {here:.10g} "
                f"nats, and was {there:.10g}. A predictor, an offset or a weight differs."
            )
    out = Fit(objective, fit.certificate, trace=fit.trace, solver=fit.solver, call=fit.call)
    out.__dict__["_errors"] = fit._errors
    return out
