"""A fit of one file: what `saving` wrote is built again, and what cannot be is said by name."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import families
from ..data import Table
from ..errors import BadArgument, BadSave, DataError, ThetahatError
from ..inference.covariance import KINDS, plain_kind
from ..inference.criteria import counted
from ..likelihood import DensityPower, LogLikelihood, LogPrior, Objective, Trimmed, priors
from ..models import HMM, Density, Mixture, Regression
from ..models.base import set_theta
from ..models.cox import STRATA, CoxRegression
from ..models.custom import Custom
from ..models.described import Described
from ..models.information import Information
from ..models.inputs import source_of
from ..models.latent import LatentModel, Unbound
from ..models.linear import linear
from ..models.mixed import Mixed
from ..models.taylor import Taylor
from ..protocols import layout_of
from ..result import Fit
from ..solvers import Certificate
from ..types import Data, ModelLike, Plain, Settings, SourceLike
from . import archive, encoders, latent, mixed
from .families import from_config as families_from_config
from .modules import build
from .saving import RATED, SOLVERS, _constraints, _content, _frozen, _shapes
from .values import checked, number, rich
from .without_rows import Forgotten, ForgottenTable, ForgottenWeights, Memory, Recalled, Spread

CODE = ("module", "custom", "latent")  # kinds of models that are given again


def load(path: str | Path, data: Data = None, *, model: nn.Module | None = None) -> Fit:
    """The fit that `save` wrote: `th.load`, of a file.

    Without its data it gives, to the last bit, the estimates, standard errors, Wald intervals and tests,
    criteria, certificate, summary, and predictions, draws and scores for new rows. With them, everything.

    Parameters
    ----------
    path
        the file
    data
        those to which it was fitted: what needs their rows (profiles, the bootstrap, the sandwich, residuals)
        then works again
    model
        the likelihood of one's own, or the network, where the fit was of one that the file does not describe;
        a list where there are several. What is given stays as it is

    Returns
    -------
    Fit

    Raises
    ------
    BadSave
        no saved fit, damaged, or of a version that this library does not read
    BadArgument
        the model is missing, is another one, or is not needed
    DataError
        the data are others than those that were fitted
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
    """Whatever goes wrong in reading a file that was written by something else is said of the file; of
    `arguments` as it is."""
    try:
        yield
    except BadSave:
        raise
    except Exception as error:  # a file can hold anything
        if arguments and isinstance(error, BadArgument):
            raise
        shown = str(error) if isinstance(error, ThetahatError) else repr(error)
        raise BadSave(
            f"{path} cannot be read back: {shown}. It was not written by this library, or by another state "
            "of it."
        ) from error


def _same(content: Settings, tensors: dict[str, Tensor], fit: Fit, path: Path) -> None:
    """Nothing, where the fit would be saved as it was read, field by field: then every field was understood.

    Raises
    ------
    BadSave
        names the first field that was not
    """
    again, own = _content(fit)
    if content["solver"] is not None and again["solver"] is not None:
        settings = (
            again["solver"]["settings"] | content["solver"]["settings"]
        )  # one that is newer than the file has its default
        content = content | {"solver": content["solver"] | {"settings": settings}}
    differs = _first_difference(content, json.loads(json.dumps(again, allow_nan=False)), "")
    if differs is not None:
        raise BadSave(f"{path} holds something at {differs} that this library does not write there.")
    for name in {**tensors, **own}:
        a, b = tensors.get(name), own.get(name)
        if (
            a is None
            or b is None
            or a.dtype != b.dtype
            or a.shape != b.shape
            or not torch.equal(a.nan_to_num(), b.nan_to_num())
        ):
            raise BadSave(
                f"{path} holds a tensor {name!r} that does not belong to the fit that it describes."
            )


def _first_difference(a: Plain, b: Plain, where: str) -> str | None:
    """Where two JSON values differ first; None: nowhere."""
    if isinstance(a, dict) and isinstance(b, dict):
        parts = [(a.get(key, _MISSING), b.get(key, _MISSING), f"{where}.{key}") for key in {**a, **b}]
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        parts = [(x, y, f"{where}[{i}]") for i, (x, y) in enumerate(zip(a, b, strict=True))]
    else:
        return None if type(a) is type(b) and a == b else where.lstrip(".") or "its description"
    return next(
        (found for x, y, place in parts if (found := _first_difference(x, y, place)) is not None), None
    )


_MISSING = object()


def described(path: Path) -> bool:
    """Whether a saved fit can be loaded without its model being given."""
    from .. import __version__

    content, _ = archive.read(path, __version__)
    further = content.get("further")
    configs = [
        content.get("model"),
        *(further["models"] if isinstance(further, dict) and "models" in further else []),
    ]
    code = [config for config in configs if isinstance(config, dict) and config.get("kind") in CODE]
    return not code or content.get("made") is not None


def _models(content: Settings, tensors: dict[str, Tensor], path: Path, given: Plain) -> list[nn.Module]:
    """The models at θ̂: built again, or those given once they are known to be the same."""
    further = content["further"]
    configs = [content["model"], *([] if further is None else further["models"])]
    code = [k for k, config in enumerate(configs) if config["kind"] in CODE]
    if given is not None and not code:
        raise BadArgument(
            f"{path} holds a {configs[0]['kind']}, which needs no model: th.load({str(path)!r})."
        )
    wanted = ", ".join(configs[k]["name"] for k in code)
    if given is None and code:
        described = (
            None
            if content["made"] is None or any(configs[k]["kind"] != "module" for k in code)
            else content["made"]
        )
        if described is None:
            needed = wanted if len(code) == 1 else f"[{wanted}]"
            raise BadArgument(
                f"{path} holds a fit of {wanted!r}, which is code, and code is not saved: "
                f"th.load({str(path)!r}, model={needed}). In a command: --model FILE.py:{configs[code[0]]['name']}."
            )
        models = build(described)
    else:
        asked = list(given) if isinstance(given, (list, tuple)) else [] if given is None else [given]
        if len(asked) != len(code):
            raise BadArgument(
                f"{path} holds a fit of {len(code)} models ({wanted}); {len(asked)} were given. Give a list "
                "of them."
            )
        models = copy.deepcopy(asked)
    out: list[nn.Module] = []
    for k, config in enumerate(configs):
        own = {
            name.removeprefix(f"{k}."): t for name, t in tensors.items() if k == 0 or name.startswith(f"{k}.")
        }
        if k in code:
            out.append(_filled(models[code.index(k)], config, own, path, given is None))
        else:
            with _whole(path):
                out.append(_built(config, own, path))
                set_theta(out[-1], own["theta"])
    return out


def _filled(
    model: nn.Module, config: Settings, tensors: dict[str, Tensor], path: Path, own: bool
) -> nn.Module:
    """A model that is code with the values of the file, once it is known to be the same. `own`: it was built
    from the file's description."""
    name = config["name"]
    if config["kind"] == "latent":
        _agree(model.custom if isinstance(model, Unbound) else model, config, path)
        latents = model if isinstance(model, Unbound) else Unbound(model, {})  # type: ignore[arg-type]
        with _whole(path, arguments=True):
            bound = latent.from_config(config, latents, tensors)
            set_theta(bound, tensors["theta"])
        return bound
    if config["kind"] == "custom":
        _agree(model, config, path)
        assert isinstance(model, Custom)
        if "family" in config:
            with _whole(path):
                model = Described(model, families_from_config(config["family"]))
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
                f"{path} holds a fit of a {name} that was changed after it was made (its tensor {first!r}): "
                f"give it, th.load({str(path)!r}, "
                "model=…)."
            )
        raise BadArgument(
            f"{path} holds a fit of a {name} whose tensor {first!r} has the shape "
            f"{config['shapes'].get(first)}; that of the model given has "
            f"{shapes.get(first)} ({len(differ)} tensors differ)."
        )
    if config.get("frozen", "") not in ("", _frozen(model)):
        raise BadArgument(
            f"{path} holds what was trained of a {name}, and not what was frozen; the frozen values of the "
            "model given are others than those "
            "of the fit. Give the network that was adapted, with the same weights."
        )
    values = {n: tensors[f"model.{n}"] for n in shapes}
    if own:
        for n, p in model.named_parameters():
            p.data = p.data.to(values[n].dtype)
    model.load_state_dict(
        values, strict=False
    )  # names that are missing share a tensor with one that is there, or are frozen
    if "weights" in config:
        model.weights = config["weights"]
    return model.eval()


def _agree(model: nn.Module, config: Settings, path: Path) -> None:
    """Refuse a likelihood of one's own that has other parameters than the file's."""
    wanted = config["parameters"]
    if isinstance(model, Custom) and _constraints(model) == wanted:
        return
    found = _constraints(model) if isinstance(model, Custom) else type(model).__name__
    raise BadArgument(
        f"{path} holds a fit of {config['name']!r} with the parameters {_shown(wanted)}; the model given has "
        f"{_shown(found)}."
    )


def _built(config: Settings, tensors: dict[str, Tensor], path: Path, encoder: Plain = None) -> nn.Module:
    """A model that is no code, θ not yet set. `encoder`: the one that components of a mixture share."""
    if config["kind"] == "mixture":
        parts: list[Plain] = []
        for k, each in enumerate(config["components"]):
            own = {
                name.removeprefix(f"component.{k}."): t
                for name, t in tensors.items()
                if name.startswith(f"component.{k}.")
            }
            parts.append(
                _built(each, own, path, parts[0].encoder if parts and each["kind"] == "regression" else None)
            )
        return Mixture(parts)
    if config["kind"] == "mixed":
        regression = _built({**config, "kind": "regression"}, tensors, path)
        if type(regression) is not Regression:
            raise BadSave(f"{path} holds random effects of a {type(regression).__name__}.")
        return mixed.from_config(config, regression)
    if config["kind"] == "hmm":
        own = {
            name.removeprefix("component."): t for name, t in tensors.items() if name.startswith("component.")
        }
        return HMM.from_config(rich(config["settings"]), _built(config["component"], own, path))
    if config["kind"] == "preference":
        return next(kind for kind in RATED if kind.__name__ == config["of"]).from_config(
            rich(config["settings"])
        )
    try:
        family = families_from_config(config["family"])
    except BadArgument as error:
        raise BadSave(f"{path} holds a family that this library does not know: {error}") from error
    if config["kind"] == "density":
        return Density(family)
    encoder = encoder or encoders.from_config(config["encoder"], tensors)
    fixed = {name: number(v, f"fixed.{name}") for name, v in rich(config["fixed"]).items()}
    slots, density = config["slots"], config["density"]
    levels, many = (
        encoder.response.levels,
        family.categories or (2 if isinstance(family, families.Bernoulli) else 0),
    )
    if levels is not None and (len(levels) != many or not many):
        raise BadSave(f"{path} holds {len(levels)} levels of a response that has {many or 'none'}.")
    if type(density) is not bool or any(
        type(slot) is not int or not 0 <= slot < len(encoder.designs) for slot in slots.values()
    ):
        raise BadSave(f"{path} holds slots {str(slots)[:60]} of {len(encoder.designs)} designs.")
    return linear(family, encoder, slots, fixed, density=density)


def _shown(parameters: Plain) -> str:
    if isinstance(parameters, str):
        return f"none, it is a {parameters}"
    return ", ".join(f"{name} ({kind})" if kind != "constraint" else name for name, kind, *_ in parameters)


def _term(config: Settings, models: list[ModelLike], path: Path) -> tuple[LogLikelihood, Memory]:
    """A term over data of which the rows are forgotten."""
    memory = dataclasses.replace(checked(Memory, rich(config["data"])), path=str(path))
    model = models[config.get("of", 0)]
    table = model if isinstance(model, Regression) else _regression_of(model)
    source = Forgotten(memory) if table is None else ForgottenTable(memory, table.encoder, table.family)
    name = config["weights"]
    if not (name is None or isinstance(name, str)):
        raise BadSave(f"the file holds {str(name)[:60]!r} instead of a weighting's name.")
    weights = None if name is None else ForgottenWeights(memory, name)
    robust = _robust(config["robust"])
    return LogLikelihood(model, source, weights) if robust is None else robust.of(model, source), memory


def _recalled(content: Settings, tensors: dict[str, Tensor], models: list[ModelLike], path: Path) -> Fit:
    model = models[0]
    further = content["further"]
    (term, memory), *rest = (
        _term(each, models, path) for each in [content, *([] if further is None else further["terms"])]
    )
    found = None
    if "value" in tensors:
        layout = layout_of(model)
        J = Information(
            tensors["A"], tensors.get("E"), tensors.get("D"), None if layout is None else layout.eliminated
        )
        found = Taylor(tensors["value"], tensors["gradient"], J)
    known = [LogPrior(_prior(p), models[p.get("of", 0)]) for p in content["priors"]]
    trace = tuple((int(row[0]), *row[1:]) for row in tensors["trace"].tolist()) if "trace" in tensors else ()
    chosen = _covariance(rich(content["covariance"]))
    spread = (
        Spread(chosen[0], tensors["spread"], tensors["freedom"])
        if "spread" in tensors and chosen is not None
        else None
    )
    own = None
    if isinstance(model, Mixed):
        own = mixed.remembered(model, tensors, memory)
    elif isinstance(model, LatentModel):
        own = latent.remembered(model, tensors, memory)
    terms = [term, *(each for each, _ in rest)]
    objective = Recalled(terms, known, memory, found, tensors.get("inverse"), spread, own)
    if spread is not None and not (
        spread.V.shape == (objective.size, objective.size) and spread.df.shape == (objective.size,)
    ):
        raise BadSave(
            f"{path} holds a covariance of shape {tuple(spread.V.shape)} of {objective.size} estimates."
        )
    certificate = checked(Certificate, rich(content["certificate"]))
    fit = Fit(
        objective,
        certificate,
        trace=trace,
        solver=_solver(content["solver"]),
        call=_call(rich(content["call"])),
    )
    if chosen is not None:
        fit.__dict__["_errors"] = chosen
    log_likelihood = rich(content["log_likelihood"])
    if log_likelihood is not None:
        fit._cache["log_likelihood"] = number(log_likelihood, "log_likelihood")
    if content["criteria"] is not None:
        fit._cache["criteria"] = {
            name: number(v, f"criteria.{name}") for name, v in rich(content["criteria"]).items()
        }
    elif log_likelihood is not None and memory.total is not None and not objective.kinked:
        fit._cache["criteria"] = counted(objective.size, log_likelihood, memory.total)
    return fit


def _covariance(chosen: Plain) -> tuple[str, str | tuple[str, ...] | None] | None:
    """The kind of covariance that was chosen for the fit, and its clusters."""
    if chosen is None:
        return None
    kind, by = chosen
    named = (
        by is None
        or isinstance(by, str)
        or (isinstance(by, tuple) and all(isinstance(name, str) for name in by))
    )
    if plain_kind(str(kind)) not in KINDS or not named:
        raise BadSave(f"the file holds {str(chosen)[:60]} instead of a kind of covariance.")
    return kind, by


def _regression_of(model: nn.Module) -> Regression | None:
    """What says how the table is read: a mixed model's own, the first component of a mixture of regressions."""
    if isinstance(model, Mixed):
        return model.regression
    parts = list(model.components) if isinstance(model, Mixture) else list[nn.Module]()
    return next((c for c in parts if isinstance(c, Regression)), None)


def _prior(config: Settings) -> priors.Prior:
    kind: Plain = getattr(priors, str(config["prior"]), None)
    known = isinstance(kind, type) and issubclass(kind, priors.Prior)
    if not known:
        raise BadSave(f"the file holds a prior {config['prior']!r}, which this library does not know.")
    out: priors.Prior = kind(**rich(config["settings"]))
    return out


def _robust(config: Settings | None) -> DensityPower | Trimmed | None:
    if config is None:
        return None
    kinds: dict[str, type[DensityPower] | type[Trimmed]] = {c.__name__: c for c in (DensityPower, Trimmed)}
    if config.get("robust") not in kinds:
        raise BadSave(
            f"the file holds a robust setting {config.get('robust')!r}, which this library does not know."
        )
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


def _call(call: Plain) -> Settings:
    if not isinstance(call, dict) or not all(isinstance(name, str) for name in call):
        raise BadSave(f"the file holds {str(call)[:60]!r} instead of the call.")
    checked(_Call, {name: value for name, value in call.items() if name in _Call.__dataclass_fields__})
    return call


def _solver(config: Settings | None) -> Plain:
    if config is None:
        return None
    settings = rich(config["settings"])
    if config["solver"] == "Stochastic" and settings["precision"] is not None:
        settings["precision"] = {"bfloat16": torch.bfloat16, "float16": torch.float16}[settings["precision"]]
    return checked(SOLVERS[config["solver"]], settings)


def _over(model: nn.Module, regression: Regression, data: Data, missing: str) -> tuple[nn.Module, Table]:
    """A model and its rows; of Cox's, where these are streamed from a file, the one that reads them in order of time."""
    from ..data import Frame
    from ..data.ordered import OrderedTable

    encoder, family = regression.encoder, regression.family
    rows = encoder.select(Frame(data), family, missing)
    if not (isinstance(model, CoxRegression) and rows.streamed(encoder.required)):
        return model, Table(rows, encoder, family, together=isinstance(model, Mixed))
    source = OrderedTable(rows, encoder, family, model.slots.get(STRATA))
    streamed = linear(family, encoder, model.slots, None, source)
    set_theta(streamed, model.coefficients.detach())
    return streamed, source


def _attached(fit: Fit, data: Data, path: Path) -> Fit:
    """The fit over its data again, once they are known to be the same: by their fingerprint, and by the
    objective at θ̂."""
    recalled, model = fit.objective, fit.model
    assert isinstance(recalled, Recalled)
    memory = recalled.memory
    if len(recalled.terms) > 1:
        raise BadArgument(
            f"{path} holds a fit of {len(recalled.terms)} terms, to which no data are attached: fit again."
        )
    weights = recalled.terms[0].weights
    if isinstance(weights, ForgottenWeights):
        raise BadArgument(
            f"{path} was fitted with the weighting {weights.__name__}, which is code, and code is not saved: "
            "fit again."
        )
    table = model if isinstance(model, Regression) else _regression_of(model)
    source: SourceLike
    if isinstance(model, HMM):
        source = model.source(data)
    elif table is not None:
        model, source = _over(model, table, data, memory.missing)
    elif isinstance(model, Density):
        from ..models.density import density

        source = density(model.family, data)[1]
    else:
        source = source_of(data, model, memory.weights)
    if source.fingerprint != memory.fingerprint:
        raise DataError(
            f"these are other data than {path} was fitted to: {source.size} rows of fingerprint "
            f"{source.fingerprint}, and there {memory.size} of "
            f"{memory.fingerprint}. For other data: fit.predict(data), fit.score(data)."
        )
    objective = Objective([recalled.terms[0].over(source, model)], recalled.priors)
    if recalled.found is not None:
        there, here = float(recalled.found.value), objective.value(fit.theta)
        if not abs(there - here) <= 1e-8 * (1 + abs(there)):
            raise DataError(
                f"these are other data than {path} was fitted to: the responses are the same, but the "
                f"objective at the estimates is {here:.10g} "
                f"nats, and was {there:.10g}. A predictor, an offset or a weight differs."
            )
    out = Fit(objective, fit.certificate, trace=fit.trace, solver=fit.solver, call=fit.call)
    out.__dict__["_errors"] = fit._errors
    return out
