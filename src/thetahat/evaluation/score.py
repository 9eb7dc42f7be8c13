"""A typed score: a log-likelihood that knows what kind of number it is.

    total = Σ_i c_i · v_i,      v_i = log p(x_i | θ) + log |dt/dx|_i      in nats

v_i is the log-density of what was observed (x), not of a transform of it (t): the log-determinant of the
transform is in it. c_i is how often term i was observed.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..data.batch import Batch
from ..data.source import Source
from ..errors import BadArgument, EmptyData, NotFinite
from ..families.censored import Censored
from ..likelihood.total import spread
from ..models.base import family_of
from ..models.taylor import weighted
from ..notebook import Printed
from ..printable import encoded
from ..products import fast_products
from ..protocols import (
    CountsBytes,
    HasNote,
    KnowsError,
    Steers,
    averaging_of,
    draws_of,
    is_padded,
    kind_of,
    log_determinant_of,
    measure_of,
    target_of,
    units_of,
)
from ..types import ModelLike, Settings, SourceLike

KINDS = ("exact", "lower bound", "estimate", "Laplace estimate", "quadrature")
MEASURES = ("density", "mass", "mixed", "partial")
DISCRETE = ("mass", "partial")  # that do not change with the unit of y


@dataclass(frozen=True, eq=False)
class Score(Printed):
    """log p of data under a model, one value a term, and what kind of number it is.

    Parameters
    ----------
    per_observation
        (n,) nats; −∞ where the model gives a term probability zero
    count
        (n,) how often each term was observed
    kind
        "exact", "lower bound" (log p is at least so large), "estimate" (unbiased)
    measure
        "density", "mass", "mixed" (a density with atoms), or "partial" (of which row had each event, given when
        there were events)
    units
        what a density is per
    dimensions
        how many numbers one observation holds
    fingerprint
        of the data
    K
        samples that the bound or the estimate is made of, or None
    error
        standard error of the total that comes from the model's own randomness, nats; 0 if it has none
    log_determinant
        how much of the total comes from the change of units, nats
    atoms
        (n,) where v_i is the log of a mass rather than of a density; None: not known
    group
        (n,) which independent unit each term belongs to; None: each is its own
    weights
        "raw", or "EMA" (an exponential moving average of the parameters)
    lengths
        (n,) bytes of text that each term stands for; None where it is no text
    note
        what is to be known besides: that a tokenizer changed the text

    Examples
    --------
    >>> s = Score(torch.tensor([-1.0, -3.0]), units="y", fingerprint="…")
    >>> s.total, s.mean, s.standard_error, round(s.bits, 6)
    (-4.0, -2.0, 1.0, 2.88539)
    >>> print(s)
    −2 ± 1 nats per observation (n = 2, total −4): exact log density of y
    """

    per_observation: Tensor
    count: Tensor = field(default=None)  # type: ignore[assignment]
    kind: str = "exact"
    measure: str = "density"
    units: str = "y"
    dimensions: int = 1
    fingerprint: str = ""
    K: int | None = None
    error: float = 0.0
    log_determinant: float = 0.0
    atoms: Tensor | None = None
    group: Tensor | None = None
    weights: str = "raw"
    lengths: Tensor | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BadArgument(
                f"the kind of a score is {self.kind!r}. Accepted: {', '.join(map(repr, KINDS))}."
            )
        if self.measure not in MEASURES and not self.measure.startswith("restricted likelihood"):
            raise BadArgument(
                f"the measure of a score is {self.measure!r}. Accepted: {', '.join(map(repr, MEASURES))}."
            )
        if self.count is None:
            object.__setattr__(self, "count", torch.ones_like(self.per_observation))

    @property
    def n(self) -> float:
        """Σ c_i."""
        return float(self.count.sum())

    @property
    def total(self) -> float:
        """Σ c_i v_i, nats."""
        return float(weighted(self.per_observation, self.count).sum())

    @property
    def mean(self) -> float:
        """Nats an observation."""
        return self.total / self.n

    @property
    def standard_error(self) -> float:
        """Of the mean, over independent units; NaN where it does not exist (one unit, or a term of
        probability zero)."""
        return spread(self.per_observation, self.count, self.group) / self.n

    @property
    def impossible(self) -> int:
        """How many terms that were observed have probability zero."""
        return int(((self.per_observation == -math.inf) & (self.count > 0)).sum())

    @property
    def per_dimension(self) -> float:
        """Nats a number: mean / dimensions."""
        return self.mean / self.dimensions

    @property
    def bits(self) -> float:
        """The code length of an observation: −mean / log 2. Smaller is better."""
        return -self.mean / math.log(2)

    @property
    def bits_per_dimension(self) -> float:
        """−mean / (dimensions · log 2)."""
        return self.bits / self.dimensions

    @property
    def perplexity(self) -> float:
        """exp(−mean): as uncertain as a choice among so many equally probable."""
        return math.exp(-self.mean)

    @property
    def bits_per_byte(self) -> float | None:
        """−total / (bytes · log 2): the code length of a byte of text, however it was cut into tokens; None
        where it is no text."""
        return (
            None
            if self.lengths is None
            else -self.total / (math.log(2) * float(weighted(self.lengths, self.count).sum()))
        )

    @property
    def bits_per_byte_error(self) -> float | None:
        """Its standard error over independent units (documents), as of a ratio Σ a / Σ b: that of Σ (a − r
        b), divided by Σ b.

        References
        ----------
        Cochran (1977), Sampling Techniques, 3rd ed., §6.4.
        """
        if self.lengths is None or self.bits_per_byte is None:
            return None
        residual = -self.per_observation / math.log(2) - self.bits_per_byte * self.lengths
        return spread(residual, self.count, self.group) / float(weighted(self.lengths, self.count).sum())

    @property
    def described(self) -> str:
        """The kind of number, in words: "lower bound (K = 16) of the log mass of y"."""
        samples = "" if self.K is None else f" (K = {self.K})"
        kind = "exact" if self.kind == "exact" else f"{self.kind}{samples} of the"
        what = {
            "density": "log density",
            "mass": "log mass",
            "mixed": "log density (log mass at its atoms)",
            "partial": "log partial likelihood",
        }.get(self.measure, f"log {self.measure}")
        return f"{kind} {what} of {self.units}"

    @encoded
    def __str__(self) -> str:
        noise = f", of which {_short(self.error / self.n)} is the model's own noise" if self.error else ""
        error = "" if math.isnan(self.standard_error) else f" ± {_short(self.standard_error)}"
        text = f"{_short(self.mean)}{error} nats per observation (n = {self.n:g}, total {_short(self.total)}{noise}): {self.described}"
        if self.dimensions > 1:
            text += f"; {_short(self.bits_per_dimension)} bits per dimension"
        if self.bits_per_byte is not None and self.bits_per_byte_error is not None:
            error = "" if math.isnan(self.bits_per_byte_error) else f" ± {_short(self.bits_per_byte_error)}"
            text += f"; {_short(self.bits_per_byte)}{error} bits per byte"
        if self.impossible:
            first = int(torch.nonzero((self.per_observation == -math.inf) & (self.count > 0))[0, 0])
            text += f"; {self.impossible} with probability zero, the first in row {first}"
        text += "; EMA weights" if self.weights == "EMA" else ""
        return text + (f"; {self.note}" if self.note else "")

    def to_dict(self) -> Settings:
        """Plain values, for JSON: no value of a single observation; None for what is not finite."""
        numbers = {
            "total": self.total,
            "mean": self.mean,
            "standard_error": self.standard_error,
            "per_dimension": self.per_dimension,
            "bits": self.bits,
            "bits_per_dimension": self.bits_per_dimension,
            "n": self.n,
            "error": self.error,
            "log_determinant": self.log_determinant,
        }
        if self.bits_per_byte is not None and self.bits_per_byte_error is not None:
            numbers |= {"bits_per_byte": self.bits_per_byte, "bits_per_byte_error": self.bits_per_byte_error}
        return (
            {name: value if math.isfinite(value) else None for name, value in numbers.items()}
            | {
                "kind": self.kind,
                "measure": self.measure,
                "units": self.units,
                "dimensions": self.dimensions,
                "K": self.K,
                "impossible": self.impossible,
                "fingerprint": self.fingerprint,
                "weights": self.weights,
            }
            | ({"note": self.note} if self.note else {})
        )


@torch.no_grad()
def score(model: ModelLike, source: Source, *, generator: torch.Generator | None = None) -> Score:
    """log p of every term of a source, by one pass.

    A model that draws is evaluated twice with independent draws: the value is the mean of both (a mean of
    bounds is a bound), and half their difference measures its noise, error² = Σ c² (a − b)² / 4. One that knows its
    standard error s from its draws (`protocols.KnowsError`) is evaluated once: error² = Σ c² s².

    Parameters
    ----------
    model
        says log_prob(batch); its `kind` and `measure` are the score's. A bound or an estimate that draws
        takes `generator=`
    source
        the data; its log-determinant, where it has one, is added to every density
    generator
        of a model that draws, so that two models can be scored on common draws

    Returns
    -------
    Score

    Raises
    ------
    NotFinite
        log p of a term is NaN or +∞ (−∞ is reported, not refused)
    EmptyData
        nothing was observed

    Examples
    --------
    >>> from thetahat.data import Tensors
    >>> from thetahat.families import Normal
    >>> from thetahat.models import Density
    >>> score(Density(Normal()), Tensors({"y": torch.zeros(3)})).mean
    -0.918938...
    """
    target = target_of(source)
    measure = measure_of(model)
    parts: list[tuple[Tensor, Tensor, Tensor | None]] = []
    groups: list[Tensor] = []
    lengths: list[Tensor] = []
    padded = is_padded(source)  # then what counts 0 is no observation, and its place depends on the layout
    variance, determinant, dimensions, row = 0.0, 0.0, 1, 0
    with _evaluating(model), fast_products():
        for batch in source.batches(model):
            value, noise = _log_prob(model, batch, generator)
            if isinstance(model, Steers):  # the value of all rows together, shared out among them: one unit
                batch = Batch(
                    batch.tensors,
                    count=batch.count if batch.counted else None,
                    group=torch.zeros(len(batch), dtype=torch.int64),
                )
            atoms = _atoms(model, measure, batch)
            change = _log_determinant(source, measure, batch, atoms)
            value = value if change is None else value + change
            count = batch.count.to("cpu", torch.float64).reshape(-1)
            dimensions = _dimensions(batch, target)
            seen = count > 0 if padded else slice(None)
            if batch.grouped:
                groups.append(batch.group.reshape(-1).cpu()[seen])
            elif len(batch.shape) > 1:
                groups.append((row + batch.group).reshape(-1).cpu()[seen])
            own = source.bytes(batch) if isinstance(source, CountsBytes) else None
            if own is not None:
                lengths.append(own.reshape(-1)[seen])
            value, noise, count = value[seen], noise[seen], count[seen]
            atoms, change = (None if t is None else t[seen] for t in (atoms, change))
            _refuse_nan(value, count, sum(len(v) for v, _, _ in parts))
            row += len(batch)
            determinant += 0.0 if change is None else float(weighted(change, count).sum())
            variance += float((count * noise).square().sum())
            parts.append((value, count, atoms))
    if not parts or not any(bool((count > 0).any()) for _, count, _ in parts):
        raise EmptyData("there is nothing to score: the source yielded no terms, or every count is 0.")
    unknown = any(a is None for _, _, a in parts)
    return Score(
        per_observation=torch.cat([v for v, _, _ in parts]),
        count=torch.cat([c for _, c, _ in parts]),
        kind=kind_of(model),
        measure=measure,
        units=units_of(source),
        dimensions=dimensions,
        fingerprint=source.fingerprint,
        K=draws_of(model),
        error=math.sqrt(variance),
        log_determinant=determinant,
        atoms=None if unknown else torch.cat([a for _, _, a in parts if a is not None]),
        group=torch.cat(groups) if groups else None,
        weights=averaging_of(model),
        lengths=torch.cat(lengths) if lengths else None,
        note="; ".join(each.note for each in (source, model) if isinstance(each, HasNote) and each.note),
    )


# ---- the parts ---------------------------------------------------------------------------------------------


@contextmanager
def _evaluating(model: ModelLike) -> Iterator[None]:
    """Without dropout, and as it was afterwards."""
    training = isinstance(model, nn.Module) and model.training
    if training:
        model.eval()
    try:
        yield
    finally:
        if training:
            model.train()


def _log_prob(model: ModelLike, batch: Batch, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """log p of every term, flat, float64; and the standard error of each that comes from the model's own
    draws."""
    first = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    if first is not None and first.device.type != "cpu":
        batch = batch.to(first.device)
    known = model.log_prob_with_error(batch, generator) if isinstance(model, KnowsError) else None
    if known is not None:
        value, error = (t.reshape(-1).to("cpu", torch.float64) for t in known)
        return value, error
    draws = kind_of(model) != "exact" and "generator" in inspect.signature(model.log_prob).parameters
    given: Settings = {"generator": generator} if draws else {}
    a, *rest = (
        model.log_prob(batch, **given).reshape(-1).to("cpu", torch.float64) for _ in range(2 if draws else 1)
    )
    if not rest:
        return a, torch.zeros_like(a)
    same = a == rest[0]  # both −∞ too, whose difference is none
    return torch.where(same, a, (a + rest[0]) / 2), torch.where(same, 0.0, (a - rest[0]).abs() / 2)


def _atoms(model: ModelLike, measure: str, batch: Batch) -> Tensor | None:
    """Which terms have a mass rather than a density; None where the model does not say."""
    terms = int(torch.Size(batch.shape).numel())
    if measure != "mixed":
        return torch.full((terms,), measure in DISCRETE)
    family, y = family_of(model), batch.tensors.get(target_of(model))
    if family is None or y is None:
        return None
    event = batch.tensors.get("event") if isinstance(family, Censored) else None
    inner = family.family if isinstance(family, Censored) else family
    out = (y == inner.support.low) if inner.measure == "mixed" else torch.zeros_like(y, dtype=torch.bool)
    return (out if event is None else out | (event != 1)).reshape(-1)


def _log_determinant(source: SourceLike, measure: str, batch: Batch, atoms: Tensor | None) -> Tensor | None:
    """log |dt/dx| of each term that is a density; None where nothing is to be added."""
    change = None if measure in DISCRETE else log_determinant_of(source, batch)
    if change is None:
        return None
    change = change.reshape(-1).to(torch.float64)
    if measure == "mixed" and atoms is None:
        raise BadArgument(
            f"the response is a transform ({source.units}), and the model does not say which of its terms "
            "are masses."
        )
    return change if atoms is None else torch.where(atoms, 0.0, change)


def _dimensions(batch: Batch, target: str) -> int:
    """How many numbers a term holds; 1 where an outcome is scored that the batch tells by its order (which of
    two was preferred)."""
    if target not in ("y", *batch):
        return 1
    scored = [batch[target]] if target in batch else list(batch.tensors.values())
    return sum(int(torch.Size(t.shape[len(batch.shape) :]).numel()) for t in scored)


def _refuse_nan(value: Tensor, count: Tensor, before: int) -> None:
    bad = (torch.isnan(value) | (value == math.inf)) & (count > 0)
    if bool(bad.any()):
        at = int(torch.nonzero(bad)[0, 0])
        raise NotFinite(
            f"log p of term {before + at} is {float(value[at])}: a log-probability is a number or −∞ "
            f"({int(bad.sum())} such terms)."
        )


def _short(value: float) -> str:
    return (
        f"{value:.6g}".replace("-", "−")
        if abs(value) >= 1e-4 or value == 0
        else f"{value:.2e}".replace("-", "−")
    )
