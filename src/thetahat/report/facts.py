"""Facts: what a report says of a fit, gathered once from the fit's own methods; summary, HTML and JSON are
three faces of it.

A category of many levels, or a network's weight, is one `Fold`, so that the report of ten million
coefficients is as short as that of ten.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..data import Table
from ..data.response import Response
from ..distributions import student
from ..errors import BadArgument, FitError, ThetahatError
from ..evaluation.lack_of_fit import LackOfFit, lack_of_fit
from ..families.cox import Cox
from ..families.ordinal import Ordinal
from ..inference.covariance import importance, plain_kind
from ..io.without_rows import Recalled
from ..likelihood import DensityPower
from ..likelihood.priors import Jeffreys
from ..likelihood.weights import Importance
from ..models import HMM, Mixture, Regression
from ..models.base import family_of, names_of
from ..models.cox import CoxRegression
from ..models.custom import Constraint, Custom
from ..models.latent import LatentModel
from ..models.mixed import Mixed
from ..models.random_effects import Random, RandomEffects
from ..models.regression import Predictor
from ..models.sequences import Sequences
from ..models.series import OneGroup, Series
from ..protocols import (
    HasNote,
    HasReplicas,
    OfRows,
    Working,
    is_drawn,
    kind_of,
    layout_of,
    maximised_of,
    measure_of,
)
from ..solvers.certificate import Certificate
from ..solvers.choice import DENSE
from ..threads import one_thread
from ..types import OF_SEED, ModelLike, Plain, Settings, shown_as
from .formatting import count, join, number, plural, probability

if TYPE_CHECKING:
    from ..result import Fit

LARGE = 1000  # values of a network's θ up to which it is shown like any other
TENSORS = 6  # of a network, with a line each
FOLD = 24  # levels of a category, or entries of a tensor, up to which each has a line of its own
LINES = 60  # lines of one block
LONG = 32  # characters of a tensor's name
NAMED = 4  # coefficients that a prior names one by one
SEEN = {
    1: "events",
    0: "right-censored",
    2: "left-censored",
    3: "in an interval",
}  # the codes of families.Censored


@dataclass(frozen=True)
class Line:
    """One estimate. `z` and `p` are those of Wald's test that it is zero; None where that means nothing.
    `df` is that of Student's t, to which z is referred; None: the normal."""

    name: str
    estimate: float
    standard_error: float | None = None
    low: float | None = None
    high: float | None = None
    z: float | None = None
    p: float | None = None
    df: float | None = None


@dataclass(frozen=True)
class Fold:
    """Many estimates in one line: how many, and from where to where."""

    name: str
    size: int
    low: float
    high: float
    kind: str = "levels"

    def __str__(self) -> str:
        if self.size == 1:
            return f"{self.name}: {number(self.low, 3)}"
        return f"{self.name}: {count(self.size)} {self.kind}, from {number(self.low, 3)} to {number(self.high, 3)}"


@dataclass(frozen=True)
class Joint:
    """Wald's test that all coefficients of a category are zero; None where its covariance is singular (fewer
    clusters than levels)."""

    name: str
    statistic: float | None
    df: int
    p: float | None
    df_error: float | None = None

    def __str__(self) -> str:
        said = "not available: the covariance of these coefficients is singular"
        if self.statistic is not None:
            which = f"χ²({self.df})" if self.df_error is None else f"F({self.df}, {number(self.df_error)})"
            said = f"{which} = {number(self.statistic)}, p = {probability(self.p)}"
        return f"(joint Wald test): {said}"


@dataclass(frozen=True)
class Block:
    """Estimates that belong together: a family parameter's coefficients, or the constants."""

    title: str
    note: str
    tested: bool
    items: tuple[Line | Fold | Joint, ...]

    @property
    def folded(self) -> bool:
        return any(isinstance(item, Fold) for item in self.items)


@dataclass(frozen=True)
class Measured:
    """What was measured besides: a return, a reward; with a standard error or an interval where it has one.
    `where`: on what."""

    name: str
    value: float
    where: str
    error: float | None = None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        interval = "" if self.low is None else f" ({number(self.low)} to {number(self.high)})"
        return number(self.value) + ("" if self.error is None else f" ± {number(self.error, 2)}") + interval


@dataclass(frozen=True)
class Facts:
    """What is said of a fit, in the order in which it is said."""

    title: str
    model: tuple[tuple[str, str], ...]
    data: tuple[tuple[str, str], ...]
    blocks: tuple[Block, ...]
    lines: tuple[Line, ...]
    level: float
    errors: str  # what the standard errors come from
    reference: str  # the distribution of an estimate over its error
    without: str  # why there are none, or empty
    log_likelihood: float
    observations: float
    kind: str
    measure: str
    units: str
    criteria: dict[str, float]
    certificate: Certificate
    counted: float | None = (
        None  # under a prior: the effective number of parameters, which the criteria count
    )
    criteria_notes: tuple[str, ...] = ()  # what AIC and BIC are of, where it is not plain
    lack_of_fit: LackOfFit | None = None  # how far from the best possible, where that can be told
    measured: tuple[Measured, ...] = ()

    def to_dict(self) -> Settings:
        """Plain values for JSON: every estimate, folded or not; a number that is not finite is null."""
        return {
            "title": self.title,
            "model": dict(self.model),
            "data": dict(self.data),
            "level": self.level,
            "standard_errors": self.errors or None,
            "reference": self.reference or None,
            "estimates": [
                {k: _finite(v) for k, v in dataclasses.asdict(line).items()} for line in self.lines
            ],
            "tests": [
                {k: _finite(v) for k, v in dataclasses.asdict(item).items()}
                for block in self.blocks
                for item in block.items
                if isinstance(item, Joint)
            ],
            "log_likelihood": {
                "nats": _finite(self.log_likelihood),
                "kind": self.kind,
                "measure": self.measure,
                "units": self.units,
                "observations": _finite(self.observations),
            },
            "criteria": {name: _finite(value) for name, value in self.criteria.items()},
            "effective_parameters": self.counted,
            "lack_of_fit": None if self.lack_of_fit is None else self.lack_of_fit.to_dict(),
            "measured": {
                m.name: {k: _finite(v) for k, v in vars(m).items() if k != "name" and v is not None}
                for m in self.measured
            },
            "certificate": _plain(self.certificate.to_dict()),
        }


def gather(
    fit: Fit, *, level: float = 0.95, covariance: str | None = None, by: str | Sequence[str] | None = None
) -> Facts:
    """Everything that a report says of a fit, asked of its methods once.

    Parameters
    ----------
    level
        of the intervals
    covariance, by
        of the standard errors, as in `Fit.covariance`

    Returns
    -------
    Facts
        where there are no standard errors (nothing certified, or too many parameters) it says why.
    """
    if (level, covariance, by) == (0.95, None, None) and ("facts", fit._errors) in fit._cache:
        out: Facts = fit._cache["facts", fit._errors]
        return out
    if covariance is not None or by is not None:
        fit = fit.with_covariance(covariance, by=by)
    with one_thread(fit.objective.few):
        return _gathered(fit, level)


def _gathered(fit: Fit, level: float) -> Facts:
    table, without = errors_of(fit, level)
    network = is_network(fit)
    lines = [] if network else lines_of(fit, table)
    kind, by = fit.covariance_chosen
    clustered = f", clusters of {by if isinstance(by, str) else join(list(by))}" if by else ""
    criteria = {} if without or fit.robust is not None else fit.criteria
    return Facts(
        title=title(fit),
        model=tuple(describe_model(fit)),
        data=tuple(describe_data(fit)),
        blocks=_tensors(fit) if network else tuple(_blocks(fit, lines, table is not None)),
        lines=tuple(lines),
        level=level,
        errors="" if table is None else KINDS.get(plain_kind(kind), kind).replace("HAC", kind) + clustered,
        reference=""
        if table is None
        else _reference(kind, table[:, 3]) + _unbounded(fit, table) + _of_smooths(fit),
        without=without,
        log_likelihood=math.nan if network else known(fit, "log_likelihood"),
        observations=math.nan if network else known(fit, "observations"),
        kind=kind_of(fit.model),
        measure=measure_of(fit.model).split(" (")[0],
        units=_bare(fit.source.units),
        criteria={
            name: value for name, value in criteria.items() if name == "TIC" or not importance(fit.objective)
        },
        counted=fit.effective_parameters
        if criteria and any(not isinstance(p.prior, OfRows) for p in fit.objective.priors)
        else None,
        criteria_notes=tuple(_criteria_notes(fit)) if criteria else (),
        certificate=fit.certificate,
        lack_of_fit=None if without else _lack_of_fit(fit),
        measured=tuple(_measured(fit.measured)),
    )


def errors_of(fit: Fit, level: float) -> tuple[np.ndarray | None, str]:
    """Standard error, low, high and degrees of freedom of each estimate, (p, 4); None, and why there are none."""
    without = why_not(fit)
    if without:
        return None, without
    try:
        ends = fit.intervals(level)
        errors, df = fit.standard_errors().to_numpy(), fit.degrees_of_freedom().to_numpy()
        return np.column_stack([errors, ends["low"].to_numpy(), ends["high"].to_numpy(), df]), ""
    except FitError as error:
        return None, str(error)


BESIDE = (
    "_error",
    "_low",
    "_high",
)  # what stands beside a quantity that was measured: its standard error, its interval


def _measured(lines: Sequence[Mapping[str, float]]) -> Iterator[Measured]:
    """The last of each, those whose error is known first: they were measured apart from the run."""
    last: dict[str, float] = {}
    for line in lines:
        last |= line
    where = "along the run, as it was last" if "step" in last else "on data held out"
    names = [
        n for n in last if n != "step" and not n.endswith((*BESIDE, "/log_likelihood")) and OF_SEED not in n
    ]  # which the certificate says; those of each of several seeds are told by their middle
    for name in sorted(names, key=lambda name: not any(name + end in last for end in BESIDE)):
        yield Measured(
            name.replace("_", " ").replace("/", " "),
            last[name],
            where,
            *(last.get(name + end) for end in BESIDE),
        )


def known(fit: Fit, what: str) -> float:
    """A number of the fit; NaN of a loaded one that was saved before anybody asked for it: it takes the
    data."""
    try:
        out: float = getattr(fit, what)
        return out
    except BadArgument:
        if isinstance(fit.objective, Recalled):
            return math.nan
        raise


def _criteria_notes(fit: Fit) -> Iterator[str]:
    """What AIC, BIC and p are of, where a reader could take them for others."""
    model, family = fit.model, family_of(fit.model)
    if isinstance(model, RandomEffects) and model.reml:
        yield (
            "AIC, AICc and BIC are of the restricted likelihood: they compare fits with the same fixed effects. For others fit with "
            "reml=False."
        )
    if any(isinstance(p.prior, Jeffreys) for p in fit.objective.priors):
        yield (
            "Under Firth's prior the likelihood is often far from a parabola, and Wald's intervals and p are poor. Those of the profile: "
            "fit.intervals(kind='profile'), fit.test('x = 0', 'likelihood_ratio')."
        )
    if isinstance(family, Cox):
        yield "BIC and AICc count the events, not the rows."
    if isinstance(family, Working):
        yield family.working


def _lack_of_fit(fit: Fit) -> LackOfFit | None:
    """How far the fit is from the best possible; None where that cannot be told."""
    term = fit.objective.terms[0]
    if len(fit.objective.terms) > 1 or term.weights is not None or term.robust is not None:
        return None
    try:
        return lack_of_fit(fit.model, fit.source)
    except ThetahatError:  # it says why, to who asks: fit.lack_of_fit()
        return None


KINDS = {
    "observed": "observed information",
    "conditional": "given the variances",
    "expected": "expected (Fisher) information",
    "ols": "s²(XᵀX)⁻¹, s² with n − p",
    "sandwich": "sandwich (robust)",
    "HC0": "sandwich (robust), HC0",
    "HC1": "sandwich (robust), HC1",
    "HC2": "sandwich (robust), HC2",
    "HC3": "sandwich (robust), HC3",
    "cluster": "sandwich, summed by cluster",
    "CR2": "sandwich by cluster, corrected for leverage (CR2)",
    "CR3": "sandwich by cluster, corrected for leverage (CR3)",
    "HAC": "sandwich, correlated over time (HAC)",
    "sparsity": "sandwich of quantile regression (Hendricks and Koenker)",
    "bootstrap": "bootstrap",
}


def _reference(kind: str, df: np.ndarray) -> str:
    """What intervals and p are found from."""
    finite = df[np.isfinite(df)]
    if not len(finite):
        return "normal, on the scale of the link"
    low, high = (
        f"{v:.0f}" if v == round(v) else f"{v:.1f}" for v in (float(finite.min()), float(finite.max()))
    )
    shown = (
        f"t, {low} degrees of freedom"
        if low == high
        else f"t, {low} to {high} degrees of freedom (Satterthwaite)"
    )
    return f"{shown}; of the scale, χ²" if kind == "ols" else f"{shown}, on the scale of the link"


def _unbounded(fit: Fit, table: np.ndarray) -> str:
    """What is said of standard deviations from which 0 is not excluded."""
    if not isinstance(fit.model, RandomEffects):
        return ""
    names, boundary = list(fit.estimates.index), fit.certificate.boundary
    own = [i for i in range(len(fit.model.coefficients), len(names)) if names[i] not in boundary]
    if not any(table[i, 1] == 0 and math.isnan(table[i, 2]) for i in own):
        return ""
    return (
        ". A standard deviation whose interval would reach 0 has no upper end here: fit.variance_components() has its profile "
        "interval"
    )


def why_not(fit: Fit) -> str:
    """Why a fit has no standard errors; empty if it has."""
    if fit.certificate.status not in ("certified maximum", "boundary"):
        return "Standard errors belong to a certified maximum, and this is none."
    if fit.objective.kinked:
        return "No standard errors: under a prior with a kink the maximum has no curvature at zero. fit.bootstrap() shows how the estimates vary."
    if fit.robust is not None and isinstance(fit.objective, Recalled) and fit.objective.spread is None:
        return "The standard errors of a robust fit need the rows that were fitted: th.load(path, data=…)."
    layout = layout_of(fit.model)
    size = layout.kept if layout is not None and len(fit.objective.terms) == 1 else len(fit.theta)
    if size > DENSE:
        return f"The information of {count(size)} parameters is not written out, so there are no standard errors."
    return ""


# ---- the model and the data in words -----------------------------------------------------------------------


def title(fit: Fit) -> str:
    """What was maximised, as its formula or its name."""
    model = fit.model
    if isinstance(model, Mixed):
        return f"{title_of(model.regression)}{_random_text(model, model.regression.predictors[0].parameter)}"
    if isinstance(model, Regression):
        return title_of(model)
    if isinstance(model, Custom):
        return f"{model.function.__name__}({', '.join(model.constraints)})"
    if isinstance(model, LatentModel):
        return f"{model.custom.function.__name__}({', '.join([*model.custom.constraints, *model.latents])})"
    if isinstance(model, Mixture):
        return f"mixture of {plural(model.k, 'component')}"
    if isinstance(model, HMM):
        return f"hidden Markov model of {plural(model.k, 'state')}"
    return kind_of_model(model)


def title_of(model: Regression) -> str:
    response = _bare(model.encoder.response.expression)
    if model.density or not model.predictors:
        return f"{response} ~ 1"
    return f"{response} ~ {model.predictors[0].design.formula}"


def _random_text(model: Mixed, parameter: str) -> str:
    """The random and smooth terms of one parameter, as a formula has them."""
    return "".join(
        f" + {text}" for text in dict.fromkeys(r.text for r in model.random if r.parameter == parameter)
    )


_FIRST = {"stationary": "has the stationary distribution", "free": "is estimated"}


def kind_of_model(model: ModelLike) -> str:
    """A model by its class; a stack by that of its members."""
    if isinstance(model, HasReplicas):
        return f"{type(model.get_submodule('member')).__name__} of each of {plural(model.replicas, 'seed')}"
    return type(model).__name__


def describe_model(fit: Fit) -> Iterator[tuple[str, str]]:
    """(label, text): family, links and predictors; further terms; priors; the solver."""
    model = fit.model
    mixed = model if isinstance(model, Mixed) else None
    model = model if mixed is None else mixed.regression
    if isinstance(model, Regression):
        yield "family", f"{_short(model.family)} ({_measure(model.measure)})"
        for p in model.predictors:
            predictors = "a constant" if p.design.constant else p.design.formula
            if mixed is not None:
                random = _random_text(mixed, p.parameter)
                predictors = p.design.formula + random if random else predictors
            link = "" if str(p.spec.link) == "identity" else f", {p.spec.link} link"
            yield model.label(p.parameter), f"{predictors}{link}"
            if p.design.dropped:
                yield "left out", f"{join(list(p.design.dropped))}: sums of the columns before"
        if isinstance(model, CoxRegression) and model.strata is not None:
            yield "strata", f"{model.strata}, each with a baseline hazard of its own"
        for name, value in model.fixed.items():
            limit = fit.certificate.boundary.get(name)
            yield (
                name,
                f"held at {value:g}" if limit is None else f"at its boundary, where the model is {limit}",
            )
        for name, column in model.encoder.extras.items():
            yield name, f"column {column}" if isinstance(column, str) else f"{column:g}"
        if mixed is not None:
            yield from describe_mixed(mixed)
    elif isinstance(model, Mixture):
        kinds = [_component(c) for c in model.components]
        for kind in dict.fromkeys(kinds):
            yield "components", f"{kinds.count(kind)} of {kind} ({_measure(model.measure)})"
    elif isinstance(model, HMM):
        yield "states", f"{model.k} of {_component(model.components[0])} ({_measure(model.measure)})"
        moves = "constants" if model.transition is None else f"logits of {model.transition}"
        yield "transitions", f"{moves}; the first state {_FIRST[model.initial]}"
    else:
        doc = (model.__doc__ or "").strip().splitlines() if isinstance(model, (Custom, LatentModel)) else []
        own = (
            "a likelihood of one's own"
            if isinstance(model, (Custom, LatentModel))
            else f"a model of {plural(len(fit.theta), 'parameter')}"
        )
        yield "model", f"{own} ({_measure(measure_of(model))})" + (f": {doc[0]}" if doc else "")
    if isinstance(model, LatentModel):
        yield "latent", "; ".join(_latent(model, r) for r in model.random)
        yield from describe_mixed(model)
    for term in fit.objective.terms[1:]:
        where = "the same data" if term.source is fit.source else f"a {term.source.units} each"
        yield "further term", f"{kind_of_model(term.model)}, on {where}"
    for term in fit.objective.terms:
        if term.weights is not None:
            told = shown_as(term.weights)
            if isinstance(term.weights, Importance) and term.source.size is not None:
                worth, rows = term.weights.effective(term.source)
                told += f", by which {plural(rows, 'row')} weigh like {number(worth)}"
            yield "weights", told
    if fit.robust is not None:
        yield "maximised", _robust(fit)
    if maximised_of(model):
        yield "maximised", _in_place(fit)
    for prior in fit.objective.priors:
        chosen, named = prior.prior, prior.prior.on
        shown = _short(
            dataclasses.replace(chosen, on=None)
            if isinstance(named, (list, tuple)) and len(named) > NAMED
            else chosen
        )
        yield "prior", f"{shown} on {plural(len(chosen.coordinates(prior.model)), 'coefficient')}"


def _latent(model: LatentModel, r: Random) -> str:
    """What is latent, and of which groups."""
    if not isinstance(r.structure, Series):
        return f"{' and '.join(r.effects)} of each {r.label}, normal"
    latent = model.latents[r.parameter]
    of_each = f" of each {r.label}" if latent.by else ""
    return (
        f"{r.parameter} along {latent.along}{of_each}, {r.structure.what} of {count(r.structure.width)} steps"
    )


def describe_mixed(model: RandomEffects) -> Iterator[tuple[str, str]]:
    """(label, text): the groups, and how the random effects are integrated out."""
    groups = dict.fromkeys(
        (r.label, model.groupings[r.source].size)
        for r in model.random
        if not r.smooth and not isinstance(model.groupings[r.source], OneGroup)
    )
    if groups:
        yield "groups", ", ".join(f"{count(n)} of {label}" for label, n in groups)
    ways = {
        "exact": "integrated out exactly",
        "Laplace estimate": "integrated out by Laplace's approximation",
    }
    way = ways.get(model.kind, f"integrated out by adaptive Gauss–Hermite quadrature, {model.points} nodes")
    yield "random effects", way + ("; fixed effects too (restricted likelihood, REML)" if model.reml else "")


def _robust(fit: Fit) -> str:
    """What a robust fit maximised, and its value."""
    if isinstance(fit.robust, DensityPower):
        return f"Σ H_β of the density power divergence, β = {fit.robust.beta:g}, in the place of the log-likelihood: {number(fit.maximised, 6)}"
    assert fit.robust is not None
    assert fit.source.size is not None
    n = fit.source.size
    what = f"log p of the {count(fit.robust.rows(n))} most probable of {plural(n, 'row')}"
    if fit.robust.reweight is not None:
        what += ", and then of all within the cut-off"
    return f"{what}: {number(fit.maximised, 6)} nats"


def _in_place(fit: Fit) -> str:
    """What a model was trained by in the place of its log p, and how large log p itself is."""
    what = "the bound on log p" if kind_of(fit.model) == "lower bound" else "log p"
    if fit.certificate.trend is None:
        return f"{maximised_of(fit.model)}; {what} is fit.score(data)"
    _, best, error = fit.certificate.trend
    known = f" ± {number(error, 2)}" if math.isfinite(error) else ""
    return f"{maximised_of(fit.model)}; {what} is {number(best)}{known} nats a term, held out"


def _component(model: ModelLike) -> str:
    if isinstance(model, Regression):
        response, first = _bare(model.encoder.response.expression), model.predictors[0].design.formula
        return f"{response} ~ {first}, {_short(model.family)}"
    return _short(family_of(model) or type(model).__name__)


def _levels(fit: Fit, response: Response) -> str:
    """The levels of a response: in their order, or with the code of each."""
    levels = list(response.levels or ())
    if isinstance(family_of(fit.model), Ordinal):
        shown = " < ".join(map(str, levels[:8]))
    else:
        shown = ", ".join(f"{code} = {level}" for code, level in enumerate(levels[:8]))
    return f"{response.expression}: {shown}" + (" …" if len(levels) > 8 else "")


def describe_data(fit: Fit) -> Iterator[tuple[str, str]]:
    """(label, text): where the rows come from, how many were used and dropped, what they weigh."""
    source = fit.source
    if isinstance(source, Table):
        encoder = source.encoder
        yield "data", source.frame.name + (", streamed" if source.streamed else "")
        kept = f"{plural(source.rows, 'row')} used"
        most = sorted(source.lacking.items(), key=lambda item: -item[1])
        lacking = [f"{name} ({count(rows)})" for name, rows in most[:6]]
        lacking += [f"{len(most) - 6} other columns"] if len(most) > 6 else []
        needs = f" in {join(lacking)}" if lacking else ""
        dropped = (
            f"{plural(source.dropped, 'row')} dropped for a missing value{needs}"
            if source.dropped
            else "no rows dropped"
        )
        subset = source.frame.subset
        outside = "" if subset is None else f", {plural(int((~subset).sum()), 'row')} outside the subset"
        yield "rows", f"{kept}, {dropped}{outside}"
        for name, origin in encoder.dates.items():
            yield "dates", f"{name} is in days since {origin.removesuffix('T00:00:00')}"
        if source.events:
            yield (
                "events",
                ", ".join(
                    f"{count(n)} {SEEN[code]}"
                    for code, n in sorted(source.events.items(), key=lambda e: e[0] != 1)
                ),
            )
        if encoder.weights is not None:
            yield "weights", f"column {encoder.weights}, frequencies that sum to {count(source.total)}"
        if encoder.response.levels is not None:
            yield "response", _levels(fit, encoder.response)
        return
    if isinstance(source, Sequences):
        many = len(source.labels)
        named = "" if source.sequence is None else f", named by {source.sequence}"
        yield "data", "an array" if source.frame is None else source.frame.name
        lost = f", {count(source.missing)} of them without y, which is summed over" if source.missing else ""
        yield "rows", f"{plural(source.size, 'row')} in {plural(many, 'sequence')}{named}{lost}"
        return
    size = source.size
    kind = getattr(source, "kind", type(source).__name__).lower()
    if is_drawn(source):
        yield (
            "data",
            kind
            + (f" of {source.name}" if hasattr(source, "name") else "")
            + ", drawn from the model as it was trained",
        )
        return
    yield "data", f"{kind}, {'without an end' if size is None else plural(size, 'row')}"
    if isinstance(source, HasNote) and source.note:
        yield "text", source.note
    counted = math.nan if size is None or is_network(fit) else known(fit, "observations")
    if not math.isnan(counted) and counted != size:
        yield "weights", f"frequencies that sum to {count(counted)}"


def _short(settings: Plain) -> str:
    """A frozen dataclass as it would be written: fields that stand at their defaults left out."""
    if not dataclasses.is_dataclass(settings) or isinstance(settings, type):
        return str(settings)
    shown = []
    for each in dataclasses.fields(settings):
        if not each.init:
            continue
        value = vars(settings)[each.name]
        if each.name.startswith("_") or value is None or value == each.default:
            continue
        shown.append(f"{each.name}={_short(value) if dataclasses.is_dataclass(value) else value}")
    return type(settings).__name__ + (f"({', '.join(shown)})" if shown else "")


def _bare(name: str) -> str:
    """A column's name without the backticks of a formula."""
    return name[1:-1] if name.count("`") == 2 and name[0] == name[-1] == "`" else name


def _measure(measure: str) -> str:
    named = {"mixed": "density with atoms", "partial": "partial likelihood, not comparable with a full one"}
    return named.get(measure, measure if measure.startswith("restricted") else f"probability {measure}")


# ---- the estimates -----------------------------------------------------------------------------------------


def lines_of(fit: Fit, table: np.ndarray | None) -> list[Line]:
    """One line an estimate; `table` holds standard error, low, high and degrees of freedom."""
    constant = [a or b for a, b in zip(constants(fit), unpenalised(fit), strict=True)]
    out = []
    for i, (name, estimate) in enumerate(zip(fit.names, fit.estimates.to_numpy(), strict=True)):
        if table is None:
            out.append(Line(name, float(estimate)))
            continue
        error, low, high, df = (float(v) for v in table[i])
        z = None if constant[i] or not error > 0 else float(estimate) / error
        p = None if z is None else 2 * float(student.sf(abs(z), df))
        out.append(Line(name, float(estimate), error, low, high, z, p, df if math.isfinite(df) else None))
    return out


def _of_smooths(fit: Fit) -> str:
    if not any(unpenalised(fit)):
        return ""
    return ". A row of a smooth term is its unpenalised part alone: its test is in fit.smooths()"


def unpenalised(fit: Fit) -> list[bool]:
    """Which estimates are of a smooth term's unpenalised part: 0 there does not mean that there is no curve."""
    names = (
        {name for c in fit.model.encoder.smooths for name in c.names}
        if isinstance(fit.model, Mixed)
        else set()
    )
    return [name.rpartition(": ")[2] in names for name in fit.names]


def constants(fit: Fit) -> list[bool]:
    """Which estimates live in a range of their own (a scale, a probability), where zero is no hypothesis."""
    return _constants(fit.model, len(fit.names))


def _constants(model: ModelLike, size: int) -> list[bool]:
    if isinstance(model, Mixture):
        own = (
            _constants(c, len(names_of(c))) if isinstance(c, Regression) else [True] * len(names_of(c))
            for c in model.components
        )
        return [True] * model.k + [each for part in own for each in part]
    if isinstance(model, HMM):
        parts = [_constants(c, len(names_of(c))) for c in model.states]
        logits = model.chain.sizes[1] if model.chain.columns else 0
        return [True] * (model.heads - logits) + [False] * logits + [each for part in parts for each in part]
    if isinstance(model, Regression):
        return model.constants
    if isinstance(model, Mixed):
        return [*model.regression.constants, *[True] * (size - len(model.regression.constants))]
    if isinstance(model, LatentModel):
        of_function = _constants(model.custom, len(names_of(model.custom)))
        return [*of_function, *[True] * (size - len(of_function))]
    if isinstance(model, Custom):
        values = model.values()
        return [
            type(c) is not Constraint
            for name, c in model.constraints.items()
            for _ in range(values[name].numel())
        ]
    return [False] * size


def is_network(fit: Fit) -> bool:
    """Whether θ is so large, and trained by stochastic ascent, that neither its entries nor another pass over
    the data are wanted unasked.

    So it is where the data were drawn from the model: another pass would play again.
    """
    drawn = any(is_drawn(term.source) for term in fit.objective.terms)
    return drawn or (fit.certificate.status in ("stochastic", "not converged") and len(fit.theta) > LARGE)


def _tensors(fit: Fit) -> tuple[Block, ...]:
    """A network's θ: how many values, and between which they lie, tensor by tensor; of each term's model."""
    models = list({id(term.model): term.model for term in fit.objective.terms}.values())
    return tuple(
        _tensors_of(model, "θ" if len(models) == 1 else f"θ of {kind_of_model(model)}") for model in models
    )


def _tensors_of(model: ModelLike, title: str) -> Block:
    every = [(name, p.detach()) for name, p in model.named_parameters() if p.requires_grad]
    if (
        max((len(name) for name, _ in every), default=0) > LONG
    ):  # what all names begin with is left out, up to a dot
        parts = [name.split(".") for name, _ in every]
        shared = sum(
            itertools.accumulate((len(set(each)) == 1 for each in zip(*parts, strict=False)), operator.mul)
        )
        every = [(".".join(part[shared:]), p) for part, (_, p) in zip(parts, every, strict=True)]
    shown = [Fold(name, p.numel(), float(p.min()), float(p.max()), "values") for name, p in every]
    if len(shown) > TENSORS:
        rest = shown[TENSORS:]
        size, low, high = sum(f.size for f in rest), min(f.low for f in rest), max(f.high for f in rest)
        shown = [*shown[:TENSORS], Fold(f"{len(rest)} tensors more", size, low, high, "values")]
    return Block(
        title,
        f"{count(sum(p.numel() for _, p in every))} values in {plural(len(every), 'tensor')}",
        False,
        tuple(shown),
    )


def _blocks(fit: Fit, lines: list[Line], tested: bool) -> Iterator[Block]:
    model = fit.model
    constant = constants(fit)
    mixed = model if isinstance(model, RandomEffects) else None
    fixed = len(constant) if mixed is None else len(constant) - len(mixed.effect_names())
    model = mixed.regression if isinstance(mixed, Mixed) else model
    if isinstance(model, Regression):
        for j, p in enumerate(model.predictors):
            if p.size and not constant[p.start]:
                items = tuple(_predictor_items(fit, p, lines, tested))
                name = p.parameter if j == 0 and not p.spec.own_predictors else model.label(p.parameter)
                yield Block(
                    name, "" if str(p.spec.link) == "identity" else f"{p.spec.link} scale", True, items
                )
    else:
        items = tuple(_tensor_items(fit, lines, [not c and i < fixed for i, c in enumerate(constant)]))
        if items:
            yield Block("parameters", "", True, items)
    if mixed is not None:
        yield Block("random effects", "standard deviations and correlations", False, tuple(lines[fixed:]))
        constant = [c and i < fixed for i, c in enumerate(constant)]
    left = tuple(_tensor_items(fit, lines, constant))
    if left:
        yield Block("other parameters", "on their own scale", False, left)


def _predictor_items(
    fit: Fit, predictor: Predictor, lines: list[Line], tested: bool
) -> Iterator[Line | Fold | Joint]:
    """A predictor's own lines in the order of the formula: columns, and each category with its test below it."""
    first = predictor.start + predictor.size - sum(size for _, _, size in predictor.terms)
    if first - predictor.start > LINES:
        yield from _shortened(lines[predictor.start : first], "coefficients")
    terms = {
        start: (size, term.term)
        for (_, start, size), term in zip(predictor.terms, predictor.design.coded, strict=True)
    }
    order = predictor.start + predictor.design.as_written
    for place in order[(order < first) | np.isin(order, list(terms))].tolist():
        if place < first:
            yield from [lines[place]] if first - predictor.start <= LINES else []
        else:
            yield from _category(fit, lines, place, *terms[place], tested)


def _category(
    fit: Fit, lines: list[Line], start: int, size: int, name: str, tested: bool
) -> Iterator[Line | Fold | Joint]:
    """The levels of one term, or one line for many of them, and the test of all."""
    own = lines[start : start + size]
    if size > FOLD:
        yield _fold(name, own, "levels")
        return
    yield from own
    if tested and size > 1:
        yield _joint(fit, name, own)


def _joint(fit: Fit, name: str, lines: list[Line]) -> Joint:
    try:
        found = fit.test([f"{line.name} = 0" for line in lines])
    except BadArgument:  # more levels than clusters
        return Joint(name, None, len(lines), None)
    return Joint(name, float(found.statistic), int(found.df or 0), float(found.p_value), found.df_error)


def _tensor_items(fit: Fit, lines: list[Line], wanted: list[bool]) -> Iterator[Line | Fold]:
    """Lines of a model without predictors; the entries name[0], name[1] … of a long tensor are folded."""
    groups: dict[str, list[Line]] = {}
    for line, take in zip(lines, wanted, strict=True):
        if take:
            name, bracket, _ = line.name.rpartition("[")
            whole = isinstance(fit.model, Regression) or not bracket or not line.name.endswith("]")
            groups.setdefault(line.name if whole else name, []).append(line)
    folded: list[Line | Fold] = []
    for name, own in groups.items():
        folded += [_fold(name, own, "values")] if len(own) > FOLD else own
    if len(folded) <= LINES:
        yield from folded
        return
    yield from folded[:LINES]
    rest = {item.name for item in folded[LINES:]}
    yield _fold(
        "the rest",
        [line for name, own in groups.items() for line in own if name in rest or line.name in rest],
        "values",
    )


def _shortened(lines: list[Line], kind: str) -> Iterator[Line | Fold]:
    yield from lines[:LINES]
    if len(lines) > LINES:
        yield _fold("the rest", lines[LINES:], kind)


def _fold(name: str, lines: list[Line], kind: str) -> Fold:
    values = [line.estimate for line in lines]
    return Fold(name, len(lines), min(values), max(values), kind)


# ---- plain values ------------------------------------------------------------------------------------------


def _finite(value: Plain) -> Plain:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value: Plain) -> Plain:
    """Tuples to lists, infinities to null, throughout."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return _finite(value.item() if isinstance(value, np.generic) else value)
