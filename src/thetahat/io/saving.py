"""A fit in one file: safetensors for θ̂ and J, strict JSON for everything else, versioned, with a checksum over every byte.

    thetahat fit, version 1
        theta                       θ̂, unconstrained
        model.*                     in its place, the parameters and buffers of a network
        encoder.*                   the codes of categorical terms
        value, gradient, A, E, D    the objective at θ̂ to second order: from these come standard errors and intervals
        trace                       of the run
        fit                         JSON: model, family, encodings, certificate, call, log-likelihood, fingerprint and units of the data

No pickle, and no row of the data; category levels, spline knots, and the centres of transforms are there, since new rows cannot be encoded
without them. The library's own networks and models are described (`made`); other code is not saved: a likelihood or a network of one's own
is given again to `load`. Loading runs nothing from the file: expressions of a formula are let through only if they are made of columns,
numbers, arithmetic and functions that formulas know. What was read is put into words again, and has to be what the file holds, field by field.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import families
from ..data import Table
from ..errors import BadArgument, BadSave, DataError, FitError, ThetahatError
from ..fit import Fit
from ..inference.bread import Inverse, bread
from ..inference.covariance import KINDS
from ..inference.criteria import counted
from ..language.adapters import adapted_by
from ..likelihood import DensityPower, LogLikelihood, LogPrior, Objective, Trimmed, priors
from ..models import Density, Mixture, Regression
from ..models.base import get_theta, set_theta
from ..models.custom import Custom
from ..models.given import source_of
from ..models.information import Information
from ..models.taylor import Taylor
from ..preferences.bradley_terry import BradleyTerry
from ..preferences.plackett_luce import PlackettLuce
from ..solvers import DENSE, EM, LBFGS, Certificate, ClosedForm, GaussNewton, Newton, Proximal, Stochastic
from . import archive, encoders
from .modules import build, describe
from .values import checked, number, plain, rich
from .without_rows import Forgotten, ForgottenTable, ForgottenWeights, Memory, Recalled, Spread

RATED = (BradleyTerry, PlackettLuce)  # of items or features: plain values make them again
_SOLVERS: dict[str, Any] = {c.__name__: c for c in (ClosedForm, GaussNewton, Newton, LBFGS, EM, Proximal, Stochastic)}


# ---- save --------------------------------------------------------------------------------------------------------------------


def save(fit: Fit, path: str | Path) -> Path:
    """Write a fit to one file, aside first and then renamed: a crash leaves the old file or the new one, never half of one.

    Parameters
    ----------
    fit : of one or several terms: every model of theirs is kept
    path : usually named .thetahat; another file than a saved fit is not overwritten

    Returns
    -------
    Path

    Raises
    ------
    BadArgument : the fit holds something that is not saved (a family that is not registered), or the path is another file's
    NotWritten : the disk is full
    BadFormula : the formula calls something that a loaded formula may not

    >>> import tempfile, thetahat as th
    >>> fit = th.fit("y ~ x", {"y": [0.9, 2.1, 2.9, 4.2], "x": [0.0, 1.0, 2.0, 3.0]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     again = th.load(fit.save(f"{folder}/line.thetahat"))
    >>> bool((again.standard_errors() == fit.standard_errors()).all())
    True
    """
    from .. import __version__

    path = Path(path)
    content, tensors = _content(fit)
    archive.write(path, content, tensors, __version__)
    return path


def _content(fit: Fit) -> tuple[dict[str, Any], dict[str, Tensor]]:
    terms, models = fit.objective.terms, _models_of(fit.objective)
    configs: list[dict[str, Any]] = []
    tensors: dict[str, Tensor] = {}
    for k, model in enumerate(models):
        config, own = _model_config(model)
        own |= {} if config["kind"] == "module" else {"theta": get_theta(model)}
        configs.append(config)
        tensors |= {_placed(k, name): t for name, t in own.items()}
    tensors |= _second_order(fit)
    spread = _spread(fit)
    if spread is not None:
        tensors |= {"spread": spread.V, "freedom": spread.df}
    if fit.trace:
        tensors["trace"] = torch.tensor([[float(v) for v in row] for row in fit.trace], dtype=torch.float64)
    counts = (
        not fit.objective.kinked and fit.robust is None
    )  # whether the parameters of a maximum of the likelihood can be counted
    networks = [model for model, config in zip(models, configs, strict=True) if config["kind"] == "module"]
    first, *further = (_term_config(fit, term, models) for term in terms)
    return {
        "model": configs[0],
        **first,
        "further": {"models": configs[1:], "terms": further} if further else None,
        "made": describe(networks) if networks else None,
        "priors": [_prior_config(p, models) for p in fit.objective.priors],
        "covariance": None if spread is None and fit._errors[0] is None else plain([fit.covariance_chosen[0], fit._errors[1]]),
        "certificate": plain(fit.certificate.to_dict(), "the certificate"),
        "solver": _solver_config(fit.solver),
        "call": plain({k: str(v) if isinstance(v, Path) else v for k, v in fit.call.items()}, "the call"),
        "log_likelihood": _known(fit, "log_likelihood"),
        "criteria": plain(fit.criteria) if counts and "A" in tensors and fit.certificate.ok else None,
    }, tensors


def _models_of(objective: Objective) -> list[Any]:
    """Every model of the terms, once, in their order."""
    return list({id(term.model): term.model for term in objective.terms}.values())


def _placed(k: int, name: str) -> str:
    """The name of a tensor of the k-th model."""
    return name if k == 0 else f"{k}.{name}"


def _term_config(fit: Fit, term: LogLikelihood, models: list[Any]) -> dict[str, Any]:
    """A term, of the model with that number: how it was weighted, and what is remembered of its data."""
    k = next(k for k, model in enumerate(models) if model is term.model)
    weights = None if term.weights is None else getattr(term.weights, "__name__", None) or str(term.weights)
    memory = plain(dataclasses.asdict(_memory(fit, term)))
    return {**({"of": k} if k else {}), "weights": weights, "robust": _robust_config(term.robust), "data": memory}


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
    label = getattr(model, "weights", None)  # whether θ is an average, for its scores
    labelled = {"weights": label} if isinstance(label, str) else {}
    labelled |= {"frozen": _frozen(model)} if _keeps_free(model) else {}
    return {"kind": "module", "name": type(model).__name__, "shapes": _shapes(model), "trained": trained, **labelled}, state


def _constraints(model: Custom) -> list[list[Any]]:
    """Name, constraint, shape, and the ends of an interval, of each parameter."""
    ends = {n: [getattr(c, "low", None), getattr(c, "high", None)] for n, c in model.constraints.items()}
    return [[n, type(c).__name__.lower(), list(model.theta[n].shape), plain(ends[n])] for n, c in model.constraints.items()]


def _shapes(model: nn.Module) -> dict[str, list[int]]:
    return {name: list(t.shape) for name, t in _state(model).items()}


def _state(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, each once where two names share it; of a model that keeps what is free alone, its parameters that are moved."""
    every, seen = {}, set()
    for name, t in model.state_dict().items():
        place = (t.data_ptr(), t.shape, t.stride(), t.dtype)
        if t.numel() and place in seen:
            continue  # tied to one before
        seen.add(place)
        every[name] = t
    if not _keeps_free(model):
        return every
    free = {name for name, p in model.named_parameters() if p.requires_grad}
    return {n: t for n, t in every.items() if n in free}


def _keeps_free(model: nn.Module) -> bool:
    """Whether what is frozen is given again with the network, and is not in the file: low-rank adapters of a network, a reference."""
    return getattr(model, "keeps", "all") == "free" or bool(adapted_by(model))


def _frozen(model: nn.Module) -> str:
    """The fingerprint of all that is not in the file."""
    free = {name for name, p in model.named_parameters() if p.requires_grad}
    digest = hashlib.blake2b(digest_size=16)
    for name, t in sorted(model.state_dict().items()):
        if name not in free:
            digest.update(f"{name} {t.dtype} {tuple(t.shape)}".encode())
            digest.update(t.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy() if t.numel() else b"")
    return digest.hexdigest()


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


def _memory(fit: Fit, term: LogLikelihood) -> Memory:
    source = term.source
    if isinstance(source, Forgotten | ForgottenTable):
        return dataclasses.replace(source.memory, path="")
    total = _known(fit, "observations") if len(fit.objective.terms) == 1 else None
    tokenizer, shape, levels = (getattr(source, name, None) for name in ("tokenizer", "shape", "levels"))
    memory = Memory(
        path="",
        source=type(source).__name__,
        size=source.size,
        total=total,
        fingerprint=None if source.size is None else source.fingerprint,
        units=source.units,
        tokenizer=None if tokenizer is None else tokenizer.to_config(),
        context=getattr(source, "context", None) if tokenizer is not None else None,
        shape=tuple(int(n) for n in shape) if levels is not None and shape is not None else None,
        levels=None if levels is None or shape is None else int(levels),
        drawn=bool(getattr(source, "drawn", False)),
    )
    if isinstance(source, Table):
        return dataclasses.replace(
            memory, name=source.frame.name, dropped=source.dropped, missing=source.missing, streamed=source.streamed
        )
    return dataclasses.replace(memory, weights=fit.call.get("weights"))


def _prior_config(term: LogPrior, models: list[Any]) -> dict[str, Any]:
    k = next((k for k, model in enumerate(models) if model is term.model), None)
    if k is None:
        raise BadArgument("a prior on a model that no term of the likelihood has is not saved.")
    kind = type(term.prior)
    if getattr(priors, kind.__name__, None) is not kind:
        raise BadArgument(f"a prior of the type {kind.__name__} is code and is not saved. Saved are those of th.priors.")
    return {
        **({"of": k} if k else {}),
        "prior": kind.__name__,
        "settings": plain({f.name: getattr(term.prior, f.name) for f in dataclasses.fields(term.prior)}),
    }


def _robust_config(robust: DensityPower | Trimmed | None) -> dict[str, Any] | None:
    return None if robust is None else {"robust": type(robust).__name__, "settings": plain(dataclasses.asdict(robust))}


def _solver_config(solver: Any) -> dict[str, Any] | None:
    """Settings without files and sources of this machine: the checkpoint, held-out data that were given."""
    if type(solver).__name__ not in _SOLVERS:
        return None
    settings = {f.name: getattr(solver, f.name) for f in dataclasses.fields(solver)}
    if isinstance(solver, Stochastic):
        held = solver.held_out if isinstance(solver.held_out, (int, float)) else None
        precision = None if solver.precision is None else str(solver.precision).removeprefix("torch.")
        settings |= {"checkpoint": None, "held_out": held, "precision": precision}
    return {"solver": type(solver).__name__, "settings": plain(settings)}


# ---- load --------------------------------------------------------------------------------------------------------------------


def load(path: str | Path, data: Any = None, *, model: nn.Module | None = None) -> Fit:
    """The fit that `save` wrote: `th.load`, of a file.

    Without its data it gives, to the last bit, the estimates, standard errors, Wald intervals and tests, criteria, certificate,
    summary, and predictions, draws and scores for new rows. With them, everything.

    Parameters
    ----------
    path : the file
    data : those to which it was fitted: what needs their rows (profiles, the bootstrap, the sandwich, residuals) then works again
    model : the likelihood of one's own, or the network, where the fit was of one that the file does not describe; a list where there are
        several. What is given stays as it is

    Returns
    -------
    Fit

    Raises
    ------
    BadSave : no saved fit, damaged, or of a version that this library does not read
    BadArgument : the model is missing, is another one, or is not needed
    DataError : the data are others than those that were fitted
    """
    from .. import __version__

    path = Path(path)
    content, tensors = archive.read(path, __version__)
    with _whole(path, arguments=True):
        models = _models(content, tensors, path, model)
    with _whole(path):
        fit = _recalled(content, tensors, models, path)
        _same(content, tensors, fit, path)
    return fit if data is None else _attached(fit, data, path)


@contextmanager
def _whole(path: Path, arguments: bool = False) -> Iterator[None]:
    """Whatever goes wrong in reading a file that was written by something else is said of the file; of `arguments` as it is."""
    try:
        yield
    except BadSave:
        raise
    except Exception as error:  # a file can hold anything
        if arguments and isinstance(error, BadArgument):
            raise
        shown = str(error) if isinstance(error, ThetahatError) else repr(error)
        raise BadSave(
            f"{path} cannot be read back: {shown}. It was not written by this library, or by another state of it."
        ) from error


def _same(content: dict[str, Any], tensors: dict[str, Tensor], fit: Fit, path: Path) -> None:
    """Nothing, where the fit would be saved as it was read, field by field: then every field was understood.

    Raises
    ------
    BadSave : names the first field that was not
    """
    again, own = _content(fit)
    differs = _first_difference(content, json.loads(json.dumps(again, allow_nan=False)), "")
    if differs is not None:
        raise BadSave(f"{path} holds something at {differs} that this library does not write there.")
    for name in {**tensors, **own}:
        a, b = tensors.get(name), own.get(name)
        if a is None or b is None or a.dtype != b.dtype or a.shape != b.shape or not torch.equal(a.nan_to_num(), b.nan_to_num()):
            raise BadSave(f"{path} holds a tensor {name!r} that does not belong to the fit that it describes.")


def _first_difference(a: Any, b: Any, where: str) -> str | None:
    """Where two JSON values differ first; None: nowhere."""
    if isinstance(a, dict) and isinstance(b, dict):
        parts = [(a.get(key, _MISSING), b.get(key, _MISSING), f"{where}.{key}") for key in {**a, **b}]
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        parts = [(x, y, f"{where}[{i}]") for i, (x, y) in enumerate(zip(a, b, strict=True))]
    else:
        return None if type(a) is type(b) and a == b else where.lstrip(".") or "its description"
    return next((found for x, y, place in parts if (found := _first_difference(x, y, place)) is not None), None)


_MISSING = object()


def described(path: Path) -> bool:
    """Whether a saved fit can be loaded without its model being given."""
    from .. import __version__

    content, _ = archive.read(path, __version__)
    further = content.get("further")
    configs = [content.get("model"), *(further["models"] if isinstance(further, dict) and "models" in further else [])]
    code = [config for config in configs if isinstance(config, dict) and config.get("kind") in ("module", "custom")]
    return not code or content.get("made") is not None


def _models(content: dict[str, Any], tensors: dict[str, Tensor], path: Path, given: Any) -> list[nn.Module]:
    """The models at θ̂: built again, or those given once they are known to be the same."""
    further = content["further"]
    configs = [content["model"], *([] if further is None else further["models"])]
    code = [k for k, config in enumerate(configs) if config["kind"] in ("module", "custom")]
    if given is not None and not code:
        raise BadArgument(f"{path} holds a {configs[0]['kind']}, which needs no model: th.load({str(path)!r}).")
    wanted = ", ".join(configs[k]["name"] for k in code)
    if given is None and code:
        described = None if content["made"] is None or any(configs[k]["kind"] == "custom" for k in code) else content["made"]
        if described is None:
            needed = wanted if len(code) == 1 else f"[{wanted}]"
            raise BadArgument(
                f"{path} holds a fit of {wanted!r}, which is code, and code is not saved: th.load({str(path)!r}, model={needed})."
            )
        models = build(described)
    else:
        asked = list(given) if isinstance(given, (list, tuple)) else [] if given is None else [given]
        if len(asked) != len(code):
            raise BadArgument(
                f"{path} holds a fit of {len(code)} models ({wanted}); {len(asked)} were given. Give a list of them."
            )
        models = copy.deepcopy(asked)
    out: list[nn.Module] = []
    for k, config in enumerate(configs):
        own = {name.removeprefix(f"{k}."): t for name, t in tensors.items() if k == 0 or name.startswith(f"{k}.")}
        if k in code:
            out.append(_filled(models[code.index(k)], config, own, path, given is None))
        else:
            with _whole(path):
                out.append(_built(config, own, path))
                set_theta(out[-1], own["theta"])
    return out


def _filled(model: Any, config: dict[str, Any], tensors: dict[str, Tensor], path: Path, own: bool) -> nn.Module:
    """A model that is code with the values of the file, once it is known to be the same. `own`: it was built from the file's description."""
    name = config["name"]
    if config["kind"] == "custom":
        wanted = config["parameters"]
        if not isinstance(model, Custom) or _constraints(model) != wanted:
            found = _constraints(model) if isinstance(model, Custom) else type(model).__name__
            raise BadArgument(
                f"{path} holds a fit of {name!r} with the parameters {_shown(wanted)}; the model given has {_shown(found)}."
            )
        set_theta(model, tensors["theta"])
        return model
    if type(model).__name__ != name:
        raise BadArgument(f"{path} holds a fit of a {name}; the model given is a {type(model).__name__}.")
    trained = set(config["trained"])
    for parameter_name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter_name in trained)
    shapes = _shapes(model)
    if shapes != config["shapes"]:
        differ = [n for n in {**shapes, **config["shapes"]} if shapes.get(n) != config["shapes"].get(n)]
        first = differ[0]
        if own:
            raise BadSave(
                f"{path} holds a fit of a {name} that was changed after it was made (its tensor {first!r}): give it, th.load({str(path)!r}, "
                "model=…)."
            )
        raise BadArgument(
            f"{path} holds a fit of a {name} whose tensor {first!r} has the shape {config['shapes'].get(first)}; that of the model given has "
            f"{shapes.get(first)} ({len(differ)} tensors differ)."
        )
    if config.get("frozen", "") not in ("", _frozen(model)):
        raise BadArgument(
            f"{path} holds what was trained of a {name}, and not what was frozen; the frozen values of the model given are others than those "
            "of the fit. Give the network that was adapted, with the same weights."
        )
    values = {n: tensors[f"model.{n}"] for n in shapes}
    if own:
        for n, p in model.named_parameters():
            p.data = p.data.to(values[n].dtype)
    model.load_state_dict(values, strict=False)  # names that are missing share a tensor with one that is there, or are frozen
    if "weights" in config:
        model.weights = config["weights"]
    return model.eval()


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
    fixed = {name: number(v, f"fixed.{name}") for name, v in rich(config["fixed"]).items()}
    slots, density = config["slots"], config["density"]
    levels, many = encoder.response.levels, getattr(family, "k", None) or (2 if isinstance(family, families.Bernoulli) else 0)
    if levels is not None and (len(levels) != many or not many):
        raise BadSave(f"{path} holds {len(levels)} levels of a response that has {many or 'none'}.")
    if type(density) is not bool or any(type(slot) is not int or not 0 <= slot < len(encoder.designs) for slot in slots.values()):
        raise BadSave(f"{path} holds slots {str(slots)[:60]} of {len(encoder.designs)} designs.")
    return Regression(family, encoder, slots, fixed, density=density)


def _shown(parameters: Any) -> str:
    if isinstance(parameters, str):
        return f"none, it is a {parameters}"
    return ", ".join(f"{name} ({kind})" if kind != "constraint" else name for name, kind, *_ in parameters)


def _term(config: dict[str, Any], models: list[Any], path: Path) -> tuple[LogLikelihood, Memory]:
    """A term over data of which the rows are forgotten."""
    memory = dataclasses.replace(checked(Memory, rich(config["data"])), path=str(path))
    model = models[config.get("of", 0)]
    table = model if isinstance(model, Regression) else _regression_of(model)
    source = Forgotten(memory) if table is None else ForgottenTable(memory, table.encoder, table.family)
    name = config["weights"]
    if not (name is None or isinstance(name, str)):
        raise BadSave(f"the file holds {str(name)[:60]!r} in the place of a weighting's name.")
    weights = None if name is None else ForgottenWeights(memory, name)
    robust = _robust(config["robust"])
    return LogLikelihood(model, source, weights) if robust is None else robust.of(model, source), memory


def _recalled(content: dict[str, Any], tensors: dict[str, Tensor], models: list[Any], path: Path) -> Fit:
    model = models[0]
    further = content["further"]
    (term, memory), *rest = (_term(each, models, path) for each in [content, *([] if further is None else further["terms"])])
    found = None
    if "value" in tensors:
        layout = getattr(model, "layout", None)
        J = Information(tensors["A"], tensors.get("E"), tensors.get("D"), None if layout is None else layout.eliminated)
        found = Taylor(tensors["value"], tensors["gradient"], J)
    known = [LogPrior(_prior(p), models[p.get("of", 0)]) for p in content["priors"]]
    trace = tuple((int(row[0]), *row[1:]) for row in tensors["trace"].tolist()) if "trace" in tensors else ()
    chosen = _covariance(rich(content["covariance"]))
    spread = Spread(chosen[0], tensors["spread"], tensors["freedom"]) if "spread" in tensors and chosen is not None else None
    objective = Recalled([term, *(each for each, _ in rest)], known, memory, found, tensors.get("inverse"), spread)
    if spread is not None and not (spread.V.shape == (objective.size, objective.size) and spread.df.shape == (objective.size,)):
        raise BadSave(f"{path} holds a covariance of shape {tuple(spread.V.shape)} of {objective.size} estimates.")
    certificate = checked(Certificate, rich(content["certificate"]))
    fit = Fit(objective, certificate, trace=trace, solver=_solver(content["solver"]), call=_call(rich(content["call"])))
    if chosen is not None:
        fit.__dict__["_errors"] = chosen
    log_likelihood = rich(content["log_likelihood"])
    if log_likelihood is not None:
        fit._cache["log_likelihood"] = number(log_likelihood, "log_likelihood")
    if content["criteria"] is not None:
        fit._cache["criteria"] = {name: number(v, f"criteria.{name}") for name, v in rich(content["criteria"]).items()}
    elif log_likelihood is not None and memory.total is not None and not objective.kinked:
        fit._cache["criteria"] = counted(objective.size, log_likelihood, memory.total)
    return fit


def _covariance(chosen: Any) -> tuple[str, str | tuple[str, ...] | None] | None:
    """The kind of covariance that was chosen for the fit, and its clusters."""
    if chosen is None:
        return None
    kind, by = chosen
    named = by is None or isinstance(by, str) or (isinstance(by, tuple) and all(isinstance(name, str) for name in by))
    if kind not in KINDS or not named:
        raise BadSave(f"the file holds {str(chosen)[:60]} in the place of a kind of covariance.")
    return kind, by


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


@dataclasses.dataclass(frozen=True)
class _Call:
    """What a fit was asked for, as far as this library reads it again: of a mapping that may hold more."""

    data: str | None = None
    missing: str = "drop"
    formula: str = ""
    family: str = ""
    model: str = ""
    robust: str = ""
    command: str = ""
    weights: str | None = None
    parameters: dict[str, str | int | float | None] = dataclasses.field(default_factory=dict)


def _call(call: Any) -> dict[str, Any]:
    if not isinstance(call, dict) or not all(isinstance(name, str) for name in call):
        raise BadSave(f"the file holds {str(call)[:60]!r} in the place of the call.")
    checked(_Call, {name: value for name, value in call.items() if name in _Call.__dataclass_fields__})
    return call


def _solver(config: dict[str, Any] | None) -> Any:
    if config is None:
        return None
    settings = rich(config["settings"])
    if config["solver"] == "Stochastic" and settings["precision"] is not None:
        settings["precision"] = torch.bfloat16
    return checked(_SOLVERS[config["solver"]], settings)


def _attached(fit: Fit, data: Any, path: Path) -> Fit:
    """The fit over its data again, once they are known to be the same: by their fingerprint, and by the objective at θ̂."""
    recalled, model = fit.objective, fit.model
    assert isinstance(recalled, Recalled)
    memory = recalled.memory
    if len(recalled.terms) > 1:
        raise BadArgument(f"{path} holds a fit of {len(recalled.terms)} terms, to which no data are attached: fit again.")
    weights = recalled.terms[0].weights
    if isinstance(weights, ForgottenWeights):
        raise BadArgument(
            f"{path} was fitted with the weighting {weights.__name__}, which is code, and code is not saved: fit again."
        )
    table = model if isinstance(model, Regression) else _regression_of(model)
    if table is not None:
        from ..data import Frame

        source: Any = Table(Frame(data), table.encoder, table.family, missing=memory.missing)
    elif isinstance(model, Density):
        from ..models.density import density

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
