"""Which model an audit was given, by what was given with it: a network with a scheduler or an SDE, a flow, a
distribution, a function."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ..data.batch import Batch
from ..data.devices import device_of, widest
from ..errors import BadArgument, ModelError
from ..models.base import Model
from ..protocols import kind_of, measure_of
from ..types import Plain
from .discrete import PREDICTIONS, VARIANCES, DiscreteDiffusion, checked, dtype_of
from .evaluated import Evaluated, OfChain, OfDensity, OfMass
from .images import Images
from .probability_flow import ProbabilityFlow
from .published import SDE, Steps, by_bound, by_flow, continuous, loss
from .scaling import Scaling

EXACT = 256  # dimensions up to which the trace of a probability flow is exact by default


@dataclass(frozen=True)
class Options:
    """What `audit` was called with besides model and images; the names are its own."""

    scheduler: Plain = None
    sde: SDE | None = None
    method: str | None = None
    prediction_type: str | None = None
    variance_type: str | None = None
    draws: int = 2
    times: int | None = None
    probes: int | None = None
    tolerance: float = 1e-5
    batch_size: int = 100

    def __post_init__(self) -> None:
        """An option that would have no effect is refused, not ignored."""
        if self.scheduler is not None and self.sde is not None:
            raise BadArgument("scheduler= and sde= are both given. Accepted: one of them.")
        if self.sde is not None and not isinstance(self.sde, SDE):
            raise BadArgument(f"sde={self.sde!r}. Accepted: th.generative.VP, SubVP or VE.")
        methods = ("discrete", "bound", "flow") if self.sde is None else ("flow", "bound")
        types = PREDICTIONS if self.sde is None else (*PREDICTIONS, "score")
        for name, value, accepted in (
            ("method", self.method, methods if self.network else ()),
            ("prediction_type", self.prediction_type, types if self.network else ()),
            ("variance_type", self.variance_type, VARIANCES),
        ):
            if value is not None and value not in accepted:
                listed = ", ".join(map(repr, accepted)) or "None, without scheduler= and sde="
                raise BadArgument(f"{name}={value!r}. Accepted: {listed}.")
        effective: tuple[tuple[str, Plain, str], ...] = (
            ("variance_type", self.variance_type, "discrete"),
            ("times", self.times, "discrete"),
            ("probes", self.probes, "flow"),
        )
        for name, option, only in effective:
            if option is not None and self.used != only:
                raise BadArgument(
                    f"{name}={option!r} has an effect with method={only!r} alone. Accepted: None."
                )
        if self.draws < 2 or self.batch_size < 1 or (self.probes is not None and self.probes < 0):
            raise BadArgument(
                f"draws={self.draws}, batch_size={self.batch_size}, probes={self.probes}. Accepted: 2 or more draws, 1 or "
                "more images, 0 or more probes."
            )

    @property
    def network(self) -> bool:
        """Whether the model is a network with a process."""
        return self.scheduler is not None or self.sde is not None

    @property
    def used(self) -> str | None:
        """The method; None without a process."""
        if self.method is not None or not self.network:
            return self.method
        return "discrete" if self.sde is None else "flow"


def opened(model: Plain, images: Images, scaling: Scaling | None, options: Options) -> Evaluated:
    """The model in the form in which it is scored."""
    if scaling is None:
        return OfMass(model, options.draws)
    if not options.network:
        return of_density(model, scaling, images.shape, options.draws)
    if not callable(model):
        raise BadArgument(f"model is {type(model).__name__}. Accepted: a network, called with (x, t).")
    shape = (1, *images.shape) if len(images.shape) == 2 else images.shape
    if options.sde is not None:
        return of_process(model, options.sde, options.prediction_type or "score", scaling, shape, options)
    predicted = _prediction(options.scheduler, options.prediction_type)
    bar = checked(getattr(options.scheduler, "alphas_cumprod", options.scheduler), predicted)
    if options.used != "discrete":
        return of_process(model, Steps(bar), predicted, scaling, shape, options)
    if scaling.slope is None or scaling.offset is None or not bool((scaling.slope > 0).all()):
        raise BadArgument(
            f"scaling: {scaling.sentence}. Accepted of a diffusion of T steps: slope · y + offset, with a slope above 0."
        )
    chain = DiscreteDiffusion(
        model,
        bar,
        levels=images.levels,
        prediction_type=predicted,
        variance_type=options.variance_type or _variance(options.scheduler),
        clip=_clip(options.scheduler),
        shift=-scaling.offset / scaling.slope,
        scale=1 / scaling.slope,
        shape=shape,
        times=options.times,
    )
    return OfChain(chain, options.draws)


def _setting(scheduler: Plain, name: str) -> Plain:
    """Of a scheduler's config, an object or a mapping; None where it has none."""
    config = getattr(scheduler, "config", None)
    return config.get(name) if isinstance(config, dict) else getattr(config, name, None)


def _prediction(scheduler: Plain, prediction_type: str | None) -> str:
    own = _setting(scheduler, "prediction_type")
    if own is None and prediction_type is None:
        raise BadArgument(
            "prediction_type: the scheduler does not say what the network gives. Accepted: "
            f"{', '.join(map(repr, PREDICTIONS))}."
        )
    if own is not None and prediction_type is not None and own != prediction_type:
        raise BadArgument(f"prediction_type={prediction_type!r}, and the scheduler's own is {own!r}.")
    return str(prediction_type if own is None else own)


def _variance(scheduler: Plain) -> str:
    own = str(_setting(scheduler, "variance_type") or VARIANCES[0]).removesuffix("_log")
    if own not in VARIANCES:
        raise BadArgument(
            f"variance_type: the scheduler's is {own!r}. Accepted: {', '.join(map(repr, VARIANCES))}."
        )
    return own


def _clip(scheduler: Plain) -> float | None:
    return (
        float(_setting(scheduler, "clip_sample_range") or 1.0) if _setting(scheduler, "clip_sample") else None
    )


def of_process(
    network: Plain,
    process: SDE,
    prediction_type: str,
    scaling: Scaling,
    shape: tuple[int, ...],
    options: Options,
) -> OfDensity:
    """A network with a continuous process, by its probability flow ("flow") or its variational bound."""
    diffusion = continuous(network, process, prediction_type, shape)

    def training(x: Tensor, generator: torch.Generator) -> Tensor:
        return loss(diffusion, process, x, generator)

    if options.used == "bound":
        return OfDensity(
            lambda x, generator: by_bound(diffusion, process, x, generator),
            training,
            scaling,
            f"continuous-time variational bound, {process.sentence}",
            options.draws,
        )
    exact = options.probes == 0 or (options.probes is None and math.prod(shape) <= EXACT)
    probes = None if exact else options.probes or 1
    flow = ProbabilityFlow(diffusion, probes=probes, tolerance=options.tolerance)
    trace = "exact trace" if probes is None else f"{probes} probe{'s' * (probes > 1)} of the trace"
    return OfDensity(
        lambda x, generator: by_flow(flow, process, x, generator),
        training,
        scaling,
        f"probability flow, {process.sentence}, {trace}",
        options.draws,
    )


def of_density(model: Plain, scaling: Scaling, shape: tuple[int, ...], draws: int) -> OfDensity:
    """A flow of zuko, a distribution of torch, a model of this library, or a function of x."""
    name = getattr(model, "__name__", type(model).__name__)
    if isinstance(model, Model):
        known: Any = model
        exact = kind_of(model) == "exact"

        def log_prob_of(x: Tensor, generator: torch.Generator) -> Tensor:
            batch = Batch({"y": x.to(device_of(known), dtype_of(known) or x.dtype)})
            found: Tensor = known.log_prob(batch) if exact else known.log_prob(batch, generator)
            return found

        sentence = f"{'exact density' if exact else kind_of(model) + ' of the density'} of {name}"
        return OfDensity(log_prob_of, None, scaling, sentence, draws)
    held = model
    if isinstance(model, nn.Module) and not hasattr(model, "log_prob"):
        try:
            held = model()
        except TypeError as error:
            raise BadArgument(
                f"model: {name} is a network, whose calling convention an audit cannot guess. Accepted: with "
                "scheduler= (diffusers) or sde= (score_sde); a flow of zuko without context; an object with "
                "log_prob(x); a function of x."
            ) from error
    log_prob = getattr(held, "log_prob", held)
    if not callable(log_prob):
        raise BadArgument(
            f"model is {type(model).__name__}. Accepted: a network with scheduler= or sde=, a flow, a distribution, an "
            "object with log_prob(x), a function of x."
        )
    distribution = held if isinstance(held, Distribution) else None
    own = dtype_of(model) or _dtype(distribution)
    flat = distribution is None or len(distribution.batch_shape + distribution.event_shape) < 2

    def log_density(x: Tensor, generator: torch.Generator) -> Tensor:
        device = device_of(model) if isinstance(model, nn.Module) else x.device
        seen = (x if flat else x.reshape(len(x), *shape)).to(device, own or widest(device))
        try:
            value = log_prob(seen)
        except (ValueError, RuntimeError, TypeError) as error:
            raise ModelError(
                f"model: log p of images of shape {tuple(seen.shape)} failed: {error}"
            ) from error
        if distribution is not None and not distribution.event_shape and value.shape == seen.shape:
            value = value.reshape(len(x), -1).sum(1)  # of each number by itself
        if not isinstance(value, Tensor) or value.shape != (len(x),):
            what = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ModelError(
                f"model: log p of {len(x)} images of shape {tuple(seen.shape[1:])} is {what}. Accepted: one number an "
                "image, (n,)."
            )
        return value.detach()

    return OfDensity(log_density, None, scaling, f"exact density of {name}", draws)


def of_mass(model: Plain) -> bool:
    """Whether a model of this library already says the mass of whole numbers."""
    return isinstance(model, Model) and measure_of(model) == "mass"


def _dtype(distribution: Plain) -> torch.dtype | None:
    """Of the first floating tensor that a distribution holds, also within others."""
    for value in vars(distribution).values() if isinstance(distribution, Distribution) else ():
        if isinstance(value, Tensor) and value.is_floating_point():
            return value.dtype
        inner = _dtype(value)
        if inner is not None:
            return inner
    return None
