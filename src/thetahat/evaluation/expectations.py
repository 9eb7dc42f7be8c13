"""E_p of log p and log q, by whatever road there is: a formula, a sum, an integral, draws from p; and the
number that comes of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .. import families
from ..data.batch import Batch
from ..data.source import Source, Tensors
from ..errors import BadArgument
from ..families.base import Family
from ..families.censored import Censored
from ..families.integration import Rows
from ..inference import quadrature
from ..models.base import family_of
from ..models.conditional import Conditional
from ..models.density import Density
from ..models.regression import Regression
from ..notebook import Printed
from ..printable import encoded
from ..protocols import Draws, HasLogProb, HasModel, encoder_of, kind_of, measure_of, target_of
from ..types import Data, Distribution, ModelLike, Plain, Settings
from .fitted_values import batches, eta_of, extras_of
from .kl_forms import closed_form, vector_entropy


@dataclass(frozen=True)
class Nats(Printed):
    """A number of nats, its standard error, and how it was found.

    Parameters
    ----------
    value
        nats an observation
    standard_error
        0 where the value is exact; NaN where it is not known
    method
        how it was found, in words
    what
        the quantity
    units
        what a density is per; empty where it does not matter

    Examples
    --------
    >>> print(Nats(math.log(2), 0.0, "a sum", "entropy"))
    entropy 0.693147 nats (1 bits): a sum
    """

    value: float
    standard_error: float
    method: str
    what: str
    units: str = ""

    @property
    def bits(self) -> float:
        """value / log 2."""
        return self.value / math.log(2)

    def __float__(self) -> float:
        return self.value

    @encoded
    def __str__(self) -> str:
        error = f" ± {self.standard_error:.2g}" if self.standard_error > 0 else ""
        per = f" per {self.units}" if self.units else ""
        numbers = f"{self.value:.6g}{error} nats{per} ({self.bits:.4g} bits)".replace("-", "−")
        return f"{self.what} {numbers}: {self.method}"

    def to_dict(self) -> Settings:
        """Plain values, for JSON."""
        error = self.standard_error if math.isfinite(self.standard_error) else None
        value = self.value if math.isfinite(self.value) else None
        return {
            "what": self.what,
            "nats": value,
            "standard_error": error,
            "method": self.method,
            "units": self.units,
        }


def is_distribution(p: Distribution) -> bool:
    named = (
        isinstance(p, tuple) and len(p) == 2 and isinstance(p[0], (str, Family)) and not isinstance(p[1], str)
    )
    return named or isinstance(p, (HasLogProb, HasModel))


def model_and_source(q: Distribution, data: Data) -> tuple[ModelLike, Source]:
    """What a score takes: a model as it is, or a family at its parameters; a Source, or an array as one."""
    source = (
        data
        if isinstance(data, Source)
        else Tensors({"y": torch.as_tensor(np.asarray(data), dtype=torch.float64)})
    )
    if not is_distribution(q):
        raise BadArgument(
            f"a {type(q).__name__} is not a distribution. Accepted: (family, parameters), a fit, a model."
        )
    return (_Given(*_named(q)) if isinstance(q, tuple) else q), source


class _Given:
    """A family at given parameters, as a model: nothing of it is estimated."""

    kind = "exact"

    def __init__(self, family: Family, values: list[Tensor], extras: dict[str, Tensor]):
        self.family, self.values, self.own, self.measure = family, values, extras, family.measure

    def log_prob(self, batch: Batch) -> Tensor:
        n = len(batch)
        inside = self.family.in_support(batch["y"], **{name: v.expand(n) for name, v in self.own.items()})
        values = [v.expand(n) for v in self.values]
        log_p = self.family.log_prob(
            batch["y"], *values, **{name: v.expand(n) for name, v in self.own.items()}
        )
        return torch.where(inside, log_p, -torch.inf)


def _named(p: tuple[str | Family, Plain]) -> tuple[Family, list[Tensor], dict[str, Tensor]]:
    """The family, its parameters and its extras, each (n,)."""
    family, given = families.get(p[0]), p[1]
    names = list(family.parameters)
    if not isinstance(given, Mapping):
        given = [given] if np.ndim(given) == 0 else given
        if len(given) != len(names):
            raise BadArgument(f"{family} has the parameters {', '.join(names)}; received {len(given)}.")
        given = dict(zip(names, given, strict=True))
    wanted = [*names, *(name for name, default in family.extras.items() if default is None)]
    unknown = [name for name in given if name not in (*names, *family.extras)]
    missing = [name for name in wanted if name not in given]
    if unknown or missing:
        raise BadArgument(
            f"{family} takes {', '.join(wanted)}; received {', '.join(map(str, given)) or 'none'}."
        )
    tensors = {name: torch.as_tensor(v, dtype=torch.float64).reshape(-1) for name, v in given.items()}
    tensors |= {
        name: torch.tensor([d], dtype=torch.float64)
        for name, d in family.extras.items()
        if d is not None and name not in given
    }
    n = max(len(t) for t in tensors.values())
    for name, spec in family.parameters.items():
        if not bool(spec.range.contains(tensors[name]).all()):
            raise BadArgument(
                f"{name}={tensors[name].tolist()[0]:g} is outside the range {spec.range} of {family}'s "
                f"{name}."
            )
    tensors = {name: t.expand(n) for name, t in tensors.items()}
    return family, [tensors[name] for name in names], {name: tensors[name] for name in family.extras}


def _rows(p: Distribution, data: Data) -> tuple[Family, list[Tensor], dict[str, Tensor]] | None:
    """The family of a distribution with its parameters, row by row; None of a model that has none, or is a
    mixture of several."""
    if isinstance(p, tuple):
        return _named(p)
    model = p.model if isinstance(p, HasModel) else p
    if family_of(model) is None or not isinstance(model, (Conditional, Density, Regression)):
        return None
    parts = []
    with torch.no_grad():
        for batch in batches(_asked(model, data), model):
            eta = [e.detach().expand(len(batch)).to(torch.float64) for e in eta_of(model, batch)]
            if len(eta) != len(
                model.family.parameters
            ):  # the K logits of a classifier: of which the family has K − 1
                eta = [e - eta[0] for e in eta[1:]]
            parts.append((eta, {n: v.expand(len(batch)) for n, v in extras_of(model, batch).items()}))
    eta = [torch.cat(each) for each in zip(*(e for e, _ in parts), strict=True)]
    extras = {name: torch.cat([x[name] for _, x in parts]) for name in parts[0][1]}
    return model.family, model.family.natural(eta), extras


def _asked(model: ModelLike, data: Data) -> Batch | Source:
    """The rows at which a model is asked; one row of nothing, where it has no predictors."""
    if isinstance(data, (Batch, Source)):
        return data
    encoder = encoder_of(model)
    if encoder is not None and data is not None:
        from ..data.table import new_rows

        return new_rows(encoder, data, family_of(model))
    if data is not None:
        return Batch({name: torch.as_tensor(np.asarray(values)) for name, values in dict(data).items()})
    if encoder is not None and encoder.predictors:
        raise BadArgument(
            f"{model.family} has the predictors {', '.join(encoder.predictors)}: at which rows? Give data=."
        )
    return Batch({"rows": torch.zeros(1, dtype=torch.float64)})


def expected(
    p: Distribution, q: Distribution, data: Data, draws: int, seed: int, *, own: bool = True
) -> Nats:
    """E_p[log p − log q]; without `own` E_p[−log q]; without q E_p[−log p]."""
    for each in (p, q):
        if each is not None and not is_distribution(each):
            raise BadArgument(
                f"a {type(each).__name__} is not a distribution. Accepted: (family, parameters), a fit, a model."
            )
    first, second = _rows(p, data), None if q is None else _rows(q, data)
    measures = {_measure(each) for each in (p, q) if each is not None}
    if len(measures) > 1:
        raise BadArgument(
            f"one distribution is a {measures.pop()} and the other a {measures.pop()}: they share no event."
        )
    if first is None or (q is not None and second is None):
        return _by_draws(p, q, draws, seed, own)
    family, values, extras = first
    if isinstance(family, Censored):
        raise BadArgument(
            f"{family} also says how each row was observed: take the divergence of {family.family}."
        )
    if second is not None and len(second[1][0]) != len(values[0]):
        n = max(len(values[0]), len(second[1][0]))
        values, extras = [v.expand(n) for v in values], {k: v.expand(n) for k, v in extras.items()}
        second = second[0], [v.expand(n) for v in second[1]], {k: v.expand(n) for k, v in second[2].items()}
    if second is not None and family.length != second[0].length:
        raise BadArgument(f"{family} and {second[0]} describe vectors of other lengths.")
    form = None if second is None or not own else closed_form(family, values, second[0], second[1], extras)
    if form is not None:
        return _over_rows(form, "a formula")
    if family.length is None:
        contrast = _Contrast.between(family, values, extras, second, own)
        return _over_rows(
            quadrature.mean(contrast)[0, 1], "a sum" if family.measure == "mass" else "an integral"
        )
    of_p = vector_entropy(family, values)
    apart = None if second is None else closed_form(family, values, second[0], second[1], extras)
    if of_p is not None and second is None:
        return _over_rows(of_p, "a formula")
    if of_p is not None and apart is not None:
        return _over_rows(of_p + apart, "a formula")
    return _by_draws(p, q, draws, seed, own)


def _measure(p: Distribution) -> str:
    return (
        families.get(p[0]).measure
        if isinstance(p, tuple)
        else measure_of(p.model if isinstance(p, HasModel) else p)
    )


def _over_rows(values: Tensor, method: str) -> Nats:
    n = len(values)
    if n == 1:
        return Nats(float(values[0]), 0.0, method, "")
    return Nats(
        float(values.mean()), float(values.std()) / math.sqrt(n), f"{method}, the mean over {n} rows", ""
    )


@dataclass(frozen=True)
class _Contrast(Rows):
    """Rows whose "scores" are 1 and log p − log q: the rule that integrates products of scores then gives
    E_p[log p − log q]."""

    other: tuple[Family, list[Tensor], dict[str, Tensor]] | None = None
    own: bool = True

    @classmethod
    def between(
        cls, family: Family, values: Sequence[Tensor], extras: dict[str, Tensor], other: Plain, own: bool
    ) -> _Contrast:
        eta = [spec.link(v).contiguous() for spec, v in zip(family.parameters.values(), values, strict=True)]
        if other is not None:
            links = other[0].parameters.values()
            other = other[0], [s.link(v).contiguous() for s, v in zip(links, other[1], strict=True)], other[2]
        return cls(family, eta, extras, [0, 1], other, own)

    def take(self, rows: Tensor) -> _Contrast:
        other = self.other and (
            self.other[0],
            [e[rows] for e in self.other[1]],
            {n: v[rows] for n, v in self.other[2].items()},
        )
        some = super().take(rows)
        return _Contrast(some.family, some.eta, some.extras, [0, 1], other, self.own)

    def scores(self, y: Tensor, order: int = 1) -> tuple[Tensor, list[Tensor]]:
        log_p, _ = super().scores(y, 0)
        if order == 0:
            return log_p, []
        if self.other is None:
            return log_p, [torch.ones_like(log_p), -log_p]
        q, eta, extras = self.other
        log_q, _ = Rows(q, eta, extras, []).scores(y, 0)
        log_q = torch.where(q.support.contains(y), log_q, -torch.inf)
        return log_p, [torch.ones_like(log_p), (log_p if self.own else 0.0) - log_q]


def _by_draws(p: Distribution, q: Distribution, draws: int, seed: int, own: bool) -> Nats:
    generator = torch.Generator().manual_seed(seed)
    models = [model_and_source(each, np.zeros(1))[0] for each in (p, q) if each is not None]
    models = [m.model if isinstance(m, HasModel) else m for m in models]
    for model in models:
        if kind_of(model) != "exact":
            raise BadArgument(
                f"log p of a {type(model).__name__} is known by a {model.kind} only, and its divergences are "
                "not defined."
            )
        encoder = encoder_of(model)
        if encoder is not None and encoder.predictors:
            raise BadArgument(f"a {type(model).__name__} with predictors cannot be drawn from without rows.")
    y = _draw(models[0], draws, generator)
    with torch.no_grad():
        log_p, *rest = (m.log_prob(Batch({target_of(m): y})).to(torch.float64) for m in models)
    value = -log_p if not rest else (log_p if own else 0.0) - rest[0]
    return Nats(float(value.mean()), float(value.std()) / math.sqrt(draws), f"{draws:,} draws", "")


def _draw(model: ModelLike, n: int, generator: torch.Generator) -> Tensor:
    with torch.no_grad():
        if isinstance(model, Draws):
            return model.draw(n, generator=generator)
        if isinstance(model, _Given):
            return model.family.sample(*[v.expand(n) for v in model.values], generator=generator)
        out: Tensor = model.sample(Batch({"y": torch.zeros(n, dtype=torch.float64)}), generator=generator)
        return out
