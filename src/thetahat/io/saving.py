"""A fit in one file: safetensors for θ̂ and J, strict JSON for everything else, versioned, with a checksum
over every byte.

    thetahat fit, version 1
        theta                       θ̂, unconstrained
        model.*                     in its place, the parameters and buffers of a network
        encoder.*                   the codes of categorical terms
        value, gradient, A, E, D    the objective at θ̂ to second order: from these come standard errors and intervals
        trace                       of the run
        modes.*, factor.* …         of a mixed model, what is known of its rows (`io.mixed`); of latent variables (`io.latent`)
        fit                         JSON: model, family, encodings, certificate, call, log-likelihood, fingerprint and units of the data

No pickle, and no row of the data; category levels, spline knots (of a thin plate spline the different values
of its variable, up to 2000), the effects of groups, and the centres of transforms are there,
since new rows cannot be encoded without them. The library's own networks and models are described (`made`);
other code is not saved: a likelihood or a network of one's own is given again to `load`. Loading runs nothing
from the file: expressions of a formula are let through only if they are made of columns, numbers, arithmetic
and functions that formulas know. What was read is put into words again, and has to be what the file holds,
field by field.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..data import Table
from ..data.devices import device_of
from ..errors import BadArgument, FitError
from ..inference.bread import Inverse, bread
from ..language.adapters import adapted_by
from ..likelihood import DensityPower, LogLikelihood, LogPrior, Objective, Trimmed, priors
from ..models import HMM, Density, Mixture, Regression
from ..models.base import Model, get_theta
from ..models.custom import Custom, Interval
from ..models.described import Described
from ..models.latent import LatentModel
from ..models.mixed import Mixed
from ..models.sparse_rows import SparseRows
from ..preferences.bradley_terry import BradleyTerry
from ..preferences.plackett_luce import PlackettLuce
from ..protocols import (
    HasContext,
    HasWeights,
    is_drawn,
    is_separable,
    layout_of,
    levels_of,
    shape_of,
    tokenizer_of,
)
from ..solvers import EM, LBFGS, BaumWelch, ClosedForm, GaussNewton, Newton, Proximal, Stochastic
from ..solvers.choice import DENSE
from ..types import ModelLike, Plain, Settings, SolverLike, fields_of, given_fields, shown_as
from . import archive, encoders, latent, mixed
from .families import to_config as families_to_config
from .modules import describe
from .values import plain
from .without_rows import Forgotten, ForgottenTable, Memory, Recalled, Spread

if TYPE_CHECKING:
    from ..result import Fit

RATED = (BradleyTerry, PlackettLuce)  # of items or features: plain values make them again
SOLVERS: Settings = {
    c.__name__: c for c in (BaumWelch, ClosedForm, GaussNewton, Newton, LBFGS, EM, Proximal, Stochastic)
}


# ---- save --------------------------------------------------------------------------------------------------


def save(fit: Fit, path: str | Path) -> Path:
    """Write a fit to one file, aside first and then renamed: a crash leaves the old file or the new one,
    never half of one.

    Parameters
    ----------
    fit
        of one or several terms: every model of theirs is kept
    path
        usually named .thetahat; another file than a saved fit is not overwritten

    Returns
    -------
    Path

    Raises
    ------
    BadArgument
        the fit holds something that is not saved (a family that is not registered), or the path is another
        file's
    NotWritten
        the disk is full
    BadFormula
        the formula calls something that a loaded formula may not

    Examples
    --------
    >>> import tempfile, thetahat as th
    >>> fit = th.fit("y ~ x", {"y": [0.9, 2.1, 2.9, 4.2], "x": [0.0, 1.0, 2.0, 3.0]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     again = th.load(fit.save(f"{folder}/line.thetahat"))
    >>> bool((again.standard_errors() == fit.standard_errors()).all())
    True
    """
    from .. import __version__

    path = Path(path)
    content, tensors = _content(fit if device_of(fit.model).type == "cpu" else fit.to("cpu"))
    archive.write(path, content, tensors, __version__)
    return path


def _content(fit: Fit) -> tuple[Settings, dict[str, Tensor]]:
    terms, models = fit.objective.terms, _models_of(fit.objective)
    configs: list[Settings] = []
    tensors: dict[str, Tensor] = {}
    for k, model in enumerate(models):
        config, own = _model_config(model)
        own |= {} if config["kind"] == "module" else {"theta": get_theta(model)}
        configs.append(config)
        tensors |= {_placed(k, name): t for name, t in own.items()}
    tensors |= _second_order(fit)
    if isinstance(fit.model, Mixed):
        tensors |= mixed.tensors_of(fit.objective)
    elif isinstance(fit.model, LatentModel):
        tensors |= latent.tensors_of(fit.objective, DENSE)
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
        "covariance": None
        if spread is None and fit._errors[0] is None
        else plain([fit.covariance_chosen[0], fit._errors[1]]),
        "certificate": plain(fit.certificate.to_dict(), "the certificate"),
        "solver": _solver_config(fit.solver),
        "call": plain({k: str(v) if isinstance(v, Path) else v for k, v in fit.call.items()}, "the call"),
        "log_likelihood": _known(fit, "log_likelihood"),
        "criteria": plain(fit.criteria) if counts and "A" in tensors and fit.certificate.ok else None,
    }, tensors


def _models_of(objective: Objective) -> list[ModelLike]:
    """Every model of the terms, once, in their order."""
    return list({id(term.model): term.model for term in objective.terms}.values())


def _placed(k: int, name: str) -> str:
    """The name of a tensor of the k-th model."""
    return name if k == 0 else f"{k}.{name}"


def _term_config(fit: Fit, term: LogLikelihood, models: list[ModelLike]) -> Settings:
    """A term, of the model with that number: how it was weighted, and what is remembered of its data."""
    k = next(k for k, model in enumerate(models) if model is term.model)
    weights = None if term.weights is None else shown_as(term.weights)
    memory = plain(dataclasses.asdict(_memory(fit, term)))
    if not memory["lacking"]:  # files of before it was known have none
        del memory["lacking"]
    return {
        **({"of": k} if k else {}),
        "weights": weights,
        "robust": _robust_config(term.robust),
        "data": memory,
    }


def _model_config(model: nn.Module) -> tuple[Settings, dict[str, Tensor]]:
    """What is needed to build the model again, or to know the model that is given again."""
    if isinstance(model, Mixed):
        config, tensors = _model_config(model.regression)
        return config | {"kind": "mixed", **mixed.to_config(model)}, tensors
    if isinstance(model, LatentModel):
        config, _ = _model_config(model.custom)
        own, tensors = latent.to_config(model)
        return config | {"kind": "latent", **own}, tensors
    if not is_separable(model):
        raise BadArgument(
            f"a {type(model).__name__} is not saved: what it says of a row depends on the other rows. Keep the call and the "
            "data, and fit again."
        )
    if isinstance(model, Regression):
        encoder, tensors = encoders.to_config(model.encoder)
        config = {
            "family": families_to_config(model.family),
            "encoder": encoder,
            "slots": model.slots,
            "density": model.density,
        }
        return {"kind": "regression", "fixed": plain(model.fixed), **config}, tensors
    if isinstance(model, Density):
        return {"kind": "density", "family": families_to_config(model.family)}, {}
    if isinstance(model, Mixture) and all(isinstance(c, (Density, Regression)) for c in model.components):
        parts = [_model_config(c) for c in model.components]
        own = {f"component.{k}.{name}": t for k, (_, found) in enumerate(parts) for name, t in found.items()}
        return {"kind": "mixture", "components": [part for part, _ in parts]}, own
    if isinstance(model, HMM):
        part, own = _model_config(model.components[0])
        return {"kind": "hmm", "component": part, "settings": plain(model.to_config())}, {
            f"component.{name}": t for name, t in own.items()
        }
    if type(model) in RATED and model.scorer is None:
        return {"kind": "preference", "of": type(model).__name__, "settings": plain(model.to_config())}, {}
    if isinstance(model, Custom):
        known = {"family": families_to_config(model.family)} if isinstance(model, Described) else {}
        told = {"kind": "custom", "name": model.function.__name__, "parameters": _constraints(model)}
        return told | known, {}
    state = {f"model.{name}": t.detach().cpu() for name, t in _state(model).items()}
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    label = (
        model.weights if isinstance(model, HasWeights) else None
    )  # whether θ is an average, for its scores
    labelled: Settings = {"weights": label} if isinstance(label, str) else {}
    labelled |= {"frozen": _frozen(model)} if _keeps_free(model) else {}
    return {
        "kind": "module",
        "name": type(model).__name__,
        "shapes": _shapes(model),
        "trained": trained,
        **labelled,
    }, state


def _constraints(model: Custom) -> list[list[Plain]]:
    """Name, constraint, shape, and the ends of an interval, of each parameter."""
    ends = {
        n: [c.low, c.high] if isinstance(c, Interval) else [None, None] for n, c in model.constraints.items()
    }
    return [
        [n, type(c).__name__.lower(), list(model.theta[n].shape), plain(ends[n])]
        for n, c in model.constraints.items()
    ]


def _shapes(model: nn.Module) -> dict[str, list[int]]:
    return {name: list(t.shape) for name, t in _state(model).items()}


def _state(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, each once where two names share it; of a model that keeps what is free
    alone, its parameters that are moved."""
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
    """Whether what is frozen is given again with the network, and is not in the file: low-rank adapters of a
    network, a reference."""
    return (isinstance(model, Model) and model.keeps == "free") or bool(adapted_by(model))


def _frozen(model: nn.Module) -> str:
    """The fingerprint of all that is not in the file."""
    free = {name for name, p in model.named_parameters() if p.requires_grad}
    digest = hashlib.blake2b(digest_size=16)
    for name, t in sorted(model.state_dict().items()):
        if name not in free:
            digest.update(f"{name} {t.dtype} {tuple(t.shape)}".encode())
            digest.update(
                t.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy() if t.numel() else b""
            )
    return digest.hexdigest()


def _second_order(fit: Fit) -> dict[str, Tensor]:
    """The objective at θ̂ to second order, where its information can be written out and means something."""
    layout = layout_of(fit.model)
    if (len(fit.theta) if layout is None else layout.kept) > DENSE or fit.certificate.status == "stochastic":
        return {}
    if isinstance(fit.objective, Recalled) and fit.objective.found is None:
        return {}
    found = fit.objective.taylor(fit.theta, order=2)
    J = found.information
    assert J is not None
    if isinstance(J.E, SparseRows):
        return {}
    parts = {"value": found.value, "gradient": found.gradient, "A": J.A, "E": J.E, "D": J.D}
    try:
        factor = bread(fit.objective)
        parts["inverse"] = factor.matrix if isinstance(factor, Inverse) else None
    except FitError:
        pass  # no covariance here, none there
    return {name: t for name, t in parts.items() if t is not None}


ROWLESS = ("observed", "expected", "ols", "conditional")  # covariances that a fit has without its rows


def _spread(fit: Fit) -> Spread | None:
    """The covariance of the fit's own kind, where it needs the rows; None where there is none, or it could
    not be held."""
    kind, by = fit.covariance_chosen
    if kind in ROWLESS or fit.certificate.status == "stochastic" or len(fit.theta) > DENSE:
        return None
    if isinstance(fit.objective, Recalled):
        out: Spread | None = fit.objective.spread
        return out
    try:
        prepared = fit._prepared(kind, by)
    except (FitError, BadArgument):
        return None
    every = torch.eye(len(fit.theta), dtype=torch.float64)
    return Spread(kind, prepared.of(every), prepared.freedom(every))


def _known(fit: Fit, what: str) -> Plain:
    """A number that is known, or can be had by a pass over data that end; None of a stochastic fit that
    was not asked for it."""
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
    tokenizer, shape, levels = tokenizer_of(source), shape_of(source), levels_of(source)
    memory = Memory(
        path="",
        source=type(source).__name__,
        size=source.size,
        total=total,
        fingerprint=None if source.size is None else source.fingerprint,
        units=source.units,
        tokenizer=None if tokenizer is None else tokenizer.to_config(),
        context=source.context if tokenizer is not None and isinstance(source, HasContext) else None,
        shape=tuple(int(n) for n in shape) if levels is not None and shape is not None else None,
        levels=None if levels is None or shape is None else int(levels),
        drawn=is_drawn(source),
    )
    if isinstance(source, Table):
        return dataclasses.replace(
            memory,
            name=source.frame.name,
            dropped=source.dropped,
            lacking=source.lacking,
            missing=source.missing,
            streamed=source.streamed,
        )
    return dataclasses.replace(memory, weights=fit.call.get("weights"))


def _prior_config(term: LogPrior, models: list[ModelLike]) -> Settings:
    k = next((k for k, model in enumerate(models) if model is term.model), None)
    if k is None:
        raise BadArgument("a prior on a model that no term of the likelihood has is not saved.")
    kind = type(term.prior)
    if getattr(priors, kind.__name__, None) is not kind:
        raise BadArgument(
            f"a prior of the type {kind.__name__} is code and is not saved. Saved are those of th.priors."
        )
    return {
        **({"of": k} if k else {}),
        "prior": kind.__name__,
        "settings": plain(given_fields(term.prior)),
    }


def _robust_config(robust: DensityPower | Trimmed | None) -> Settings | None:
    return (
        None
        if robust is None
        else {"robust": type(robust).__name__, "settings": plain(dataclasses.asdict(robust))}
    )


def _solver_config(solver: SolverLike) -> Settings | None:
    """Settings without files and sources of this machine: the checkpoint, held-out data that were given."""
    settings = fields_of(solver) if type(solver).__name__ in SOLVERS else {}
    if not settings or any(
        callable(value) for value in settings.values()
    ):  # an optimiser of one's own is code
        return None
    if isinstance(solver, Stochastic):
        held = solver.held_out if isinstance(solver.held_out, (int, float)) else None
        precision = None if solver.precision is None else str(solver.precision).removeprefix("torch.")
        settings |= {"checkpoint": None, "held_out": held, "precision": precision, "device": None}
    return {"solver": type(solver).__name__, "settings": plain(settings)}
