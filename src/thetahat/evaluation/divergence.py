"""Entropy, cross-entropy and divergence, in nats, with what is known of their error.

    H(p) = −E_p log p,      H(p, q) = −E_p log q = H(p) + KL(p ‖ q),      KL(p ‖ q) = E_p log(p/q) ≥ 0

H(p, q) with p the data is the mean negative log-likelihood of q. Its first part does not depend on q, so that to maximise a likelihood is to
minimise KL(data ‖ model), and the data's entropy is the bound that no model can pass.

p and q may each be

    a distribution   a family and its parameters, ("gamma", (2.5, 0.3)) or ("gamma", {"mean": 2.5, "dispersion": 0.3}); a fit or a model
    a sample         an array, (n,) or (n, d); a column of text; a `Source`

Source: Kullback and Leibler (1951), On information and sufficiency; Cover and Thomas (2006), Elements of Information Theory, 2nd ed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from .. import families
from ..data.batch import Batch, concatenate
from ..data.source import Source, Tensors
from ..errors import BadArgument, EmptyData
from ..families.base import Family
from ..families.censored import Censored
from ..inference import quadrature
from . import neighbours
from .kl_forms import closed_form, vector_entropy
from .rows import batches, eta_of, extras_of
from .score import score

DRAWS = 20_000
METHODS = ("plug_in", "miller_madow", "neighbours")


@dataclass(frozen=True)
class Nats:
    """A number of nats, its standard error, and how it was found.

    Parameters
    ----------
    value : nats an observation
    standard_error : 0 where the value is exact; NaN where it is not known
    method : how it was found, in words
    what : the quantity
    units : what a density is per; empty where it does not matter

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

    def __str__(self) -> str:
        error = f" ± {self.standard_error:.2g}" if self.standard_error > 0 else ""
        per = f" per {self.units}" if self.units else ""
        numbers = f"{self.value:.6g}{error} nats{per} ({self.bits:.4g} bits)".replace("-", "−")
        return f"{self.what} {numbers}: {self.method}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        error = self.standard_error if math.isfinite(self.standard_error) else None
        value = self.value if math.isfinite(self.value) else None
        return {"what": self.what, "nats": value, "standard_error": error, "method": self.method, "units": self.units}


def entropy(p: Any, *, given: Any = None, method: str | None = None, data: Any = None, draws: int = DRAWS, seed: int = 0) -> Nats:
    """H(p) = −E_p log p: of a distribution, or of whatever a sample was drawn from.

    Parameters
    ----------
    p : a distribution or a sample
    given : x, as many rows: H(y | x) = H(x, y) − H(x), both discrete or both continuous; or Σ_g n_g/n · H(y in group g), x discrete alone
    method : of a sample: "plug_in", H of the shares observed; "miller_madow", that plus (values − 1) / 2n, which it lacks on average;
        "neighbours", of a density. None: the second for what is discrete, the third for numbers of which none repeats
    data : the rows at which a fit with predictors is asked; the mean over them is the answer
    draws, seed : of a distribution that can only be drawn from

    Returns
    -------
    Nats. The variance of the discrete ones is (Σ p log² p − H²)/n + (values − 1)/2n², p the true shares.

    Raises
    ------
    BadArgument : numbers some of which repeat and some are fractions: discrete or rounded, that is not known here

    Source: Miller (1955), Note on the bias of information estimates; Harris (1975), The statistical estimation of entropy in the
    non-parametric case (the variance); see `neighbours`.

    >>> print(entropy(("bernoulli", (0.5,))))
    entropy 0.693147 nats (1 bits): a sum
    >>> print(entropy(["a", "b", "a", "b"], method="plug_in"))
    entropy 0.693147 ± 0.18 nats (1 bits): the shares of 2 values in 4 rows
    """
    if _is_distribution(p):
        return replace(_expected(p, None, data, draws, seed), what="entropy")
    if method not in (None, *METHODS):
        raise BadArgument(f"method={method!r}. Accepted: {', '.join(map(repr, METHODS))}, None.")
    y, count = _sample(p)
    x = None if given is None else _sample(given)[0]
    if x is not None and len(x) != len(y):
        raise BadArgument(f"given has {len(x)} rows, and the sample {len(y)}.")
    n = len(y) if count is None else float(count.sum())
    discrete = [_discrete(each, method, name, n) for each, name in ((y, "the sample"), (x, "given")) if each is not None]
    what = "entropy" if x is None else "conditional entropy"
    if discrete == [True, False]:
        raise BadArgument("the sample is discrete and what is given has a density: that is not estimated here. Fit a classifier.")
    if discrete[0]:
        return _shares(y, x, count, method or "miller_madow", what)
    if count is not None:
        raise BadArgument("rows with counts of their own repeat, and of a density none would: the neighbours have no say.")
    return _by_neighbours(y, x, what, grouped=discrete == [False, True])


def cross_entropy(p: Any, q: Any, *, data: Any = None, draws: int = DRAWS, seed: int = 0) -> Nats:
    """H(p, q) = −E_p log q: the nats that q needs for an observation of p.

    Parameters
    ----------
    p : a distribution; or data, of which it is the mean negative log-likelihood under q
    q : a distribution
    data, draws, seed : as of `entropy`

    Raises
    ------
    BadArgument : a mass and a density; a q that is not known exactly

    >>> print(cross_entropy(("bernoulli", (0.5,)), ("bernoulli", (0.25,))))
    cross-entropy 0.836988 nats (1.208 bits): a sum
    """
    if _is_distribution(p):
        return replace(_expected(p, q, data, draws, seed, own=False), what="cross-entropy")
    found = q.score(p) if hasattr(q, "score") else score(*_model_and_source(q, p))
    method = f"the mean of {found.n:g} rows" + ("" if found.kind == "exact" else f", by a {found.kind} of the log-likelihood")
    return Nats(-found.mean, found.standard_error, method, "cross-entropy", "" if found.measure == "mass" else found.units)


def kl(p: Any, q: Any, *, data: Any = None, draws: int = DRAWS, seed: int = 0) -> Nats:
    """KL(p ‖ q) = E_p log(p/q): by a formula where there is one, else by a sum or an integral, else by draws from p.

    Parameters
    ----------
    p, q : two distributions; or two samples of numbers, by the distances to their neighbours
    data, draws, seed : as of `entropy`

    Returns
    -------
    Nats; ∞ where q gives probability zero to what p allows.

    Raises
    ------
    BadArgument : a mass and a density; a sample and a distribution (see `excess.excess`)

    >>> print(kl(("poisson", (2.0,)), ("poisson", (3.0,))))
    KL 0.18907 nats (0.2728 bits): a formula
    >>> print(kl(("normal", (0.0, 1.0)), ("laplace", (0.0, 1.0))))
    KL 0.0720932 nats (0.104 bits): an integral
    """
    kinds = _is_distribution(p), _is_distribution(q)
    if kinds == (True, True):
        return replace(_expected(p, q, data, draws, seed), what="KL")
    if kinds == (False, False):
        x, y = (neighbours.columns(_sample(each)[0], name) for each, name in ((p, "p"), (q, "q")))
        if x.shape[1] != y.shape[1]:
            raise BadArgument(f"p has {x.shape[1]} columns and q {y.shape[1]}.")
        value, error = neighbours.divergence(x, y)
        return Nats(value, error, f"{neighbours.K} nearest neighbours of {len(x)} rows among them and among {len(y)}", "KL")
    raise BadArgument(
        "of KL(p ‖ q) one is a sample and the other a distribution. How far a fit is from the best possible: fit.excess(), or "
        "cross_entropy(sample, fit) less entropy(sample)."
    )


# ---- of distributions --------------------------------------------------------------------------------------------------------


def _is_distribution(p: Any) -> bool:
    named = isinstance(p, tuple) and len(p) == 2 and isinstance(p[0], (str, Family)) and not isinstance(p[1], str)
    return named or hasattr(p, "log_prob") or hasattr(p, "model")


def _model_and_source(q: Any, data: Any) -> tuple[Any, Source]:
    """What a score takes: a model as it is, or a family at its parameters; a Source, or an array as one."""
    source = data if isinstance(data, Source) else Tensors({"y": torch.as_tensor(np.asarray(data), dtype=torch.float64)})
    if not _is_distribution(q):
        raise BadArgument(f"a {type(q).__name__} is no distribution. Accepted: (family, parameters), a fit, a model.")
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
        log_p = self.family.log_prob(batch["y"], *values, **{name: v.expand(n) for name, v in self.own.items()})
        return torch.where(inside, log_p, -torch.inf)


def _named(p: tuple[Any, Any]) -> tuple[Family, list[Tensor], dict[str, Tensor]]:
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
        raise BadArgument(f"{family} takes {', '.join(wanted)}; received {', '.join(map(str, given)) or 'none'}.")
    tensors = {name: torch.as_tensor(v, dtype=torch.float64).reshape(-1) for name, v in given.items()}
    tensors |= {
        name: torch.tensor([d], dtype=torch.float64) for name, d in family.extras.items() if d is not None and name not in given
    }
    n = max(len(t) for t in tensors.values())
    for name, spec in family.parameters.items():
        if not bool(spec.range.contains(tensors[name]).all()):
            raise BadArgument(f"{name}={tensors[name].tolist()[0]:g} is outside the range {spec.range} of {family}'s {name}.")
    tensors = {name: t.expand(n) for name, t in tensors.items()}
    return family, [tensors[name] for name in names], {name: tensors[name] for name in family.extras}


def _rows(p: Any, data: Any) -> tuple[Family, list[Tensor], dict[str, Tensor]] | None:
    """The family of a distribution with its parameters, row by row; None of a model that has none, or is a mixture of several."""
    if isinstance(p, tuple):
        return _named(p)
    model = getattr(p, "model", p)
    if not isinstance(getattr(model, "family", None), Family) or not (hasattr(model, "eta") or hasattr(model, "theta")):
        return None
    parts = []
    with torch.no_grad():
        for batch in batches(_asked(model, data), model):
            eta = [e.detach().expand(len(batch)).to(torch.float64) for e in eta_of(model, batch)]
            if len(eta) != len(model.family.parameters):  # the K logits of a classifier: of which the family has K − 1
                eta = [e - eta[0] for e in eta[1:]]
            parts.append((eta, {n: v.expand(len(batch)) for n, v in extras_of(model, batch).items()}))
    eta = [torch.cat(each) for each in zip(*(e for e, _ in parts), strict=True)]
    extras = {name: torch.cat([x[name] for _, x in parts]) for name in parts[0][1]}
    return model.family, model.family.natural(eta), extras


def _asked(model: Any, data: Any) -> Batch | Source:
    """The rows at which a model is asked; one row of nothing, where it has no predictors."""
    if isinstance(data, (Batch, Source)):
        return data
    encoder = getattr(model, "encoder", None)
    if encoder is not None and data is not None:
        from ..data.table import new_rows

        return new_rows(encoder, data)
    if data is not None:
        return Batch({name: torch.as_tensor(np.asarray(values)) for name, values in dict(data).items()})
    if encoder is not None and encoder.predictors:
        raise BadArgument(f"{model.family} has the predictors {', '.join(encoder.predictors)}: at which rows? Give data=.")
    return Batch({"rows": torch.zeros(1, dtype=torch.float64)})


def _expected(p: Any, q: Any, data: Any, draws: int, seed: int, *, own: bool = True) -> Nats:
    """E_p[log p − log q]; without `own` E_p[−log q]; without q E_p[−log p]."""
    for each in (p, q):
        if each is not None and not _is_distribution(each):
            raise BadArgument(f"a {type(each).__name__} is no distribution. Accepted: (family, parameters), a fit, a model.")
    first, second = _rows(p, data), None if q is None else _rows(q, data)
    measures = {_measure(each) for each in (p, q) if each is not None}
    if len(measures) > 1:
        raise BadArgument(f"one distribution is a {measures.pop()} and the other a {measures.pop()}: they share no event.")
    if first is None or (q is not None and second is None):
        return _by_draws(p, q, draws, seed, own)
    family, values, extras = first
    if isinstance(family, Censored):
        raise BadArgument(f"{family} says how a row was seen besides what y is: take the divergence of {family.family}.")
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
        return _over_rows(quadrature.mean(contrast)[0, 1], "a sum" if family.measure == "mass" else "an integral")
    of_p = vector_entropy(family, values)
    apart = None if second is None else closed_form(family, values, second[0], second[1], extras)
    if of_p is not None and second is None:
        return _over_rows(of_p, "a formula")
    if of_p is not None and apart is not None:
        return _over_rows(of_p + apart, "a formula")
    return _by_draws(p, q, draws, seed, own)


def _measure(p: Any) -> str:
    return families.get(p[0]).measure if isinstance(p, tuple) else getattr(getattr(p, "model", p), "measure", "density")


def _over_rows(values: Tensor, method: str) -> Nats:
    n = len(values)
    if n == 1:
        return Nats(float(values[0]), 0.0, method, "")
    return Nats(float(values.mean()), float(values.std()) / math.sqrt(n), f"{method}, the mean over {n} rows", "")


@dataclass(frozen=True)
class _Contrast(quadrature.Rows):
    """Rows whose "scores" are 1 and log p − log q: the rule that integrates products of scores then gives E_p[log p − log q]."""

    other: tuple[Family, list[Tensor], dict[str, Tensor]] | None = None
    own: bool = True

    @classmethod
    def between(cls, family: Family, values: Sequence[Tensor], extras: dict[str, Tensor], other: Any, own: bool) -> _Contrast:
        eta = [spec.link(v).contiguous() for spec, v in zip(family.parameters.values(), values, strict=True)]
        if other is not None:
            links = other[0].parameters.values()
            other = other[0], [s.link(v).contiguous() for s, v in zip(links, other[1], strict=True)], other[2]
        return cls(family, eta, extras, [0, 1], other, own)

    def take(self, rows: Tensor) -> _Contrast:
        other = self.other and (self.other[0], [e[rows] for e in self.other[1]], {n: v[rows] for n, v in self.other[2].items()})
        some = super().take(rows)
        return _Contrast(some.family, some.eta, some.extras, [0, 1], other, self.own)

    def scores(self, y: Tensor, order: int = 1) -> tuple[Tensor, list[Tensor]]:
        log_p, _ = super().scores(y, 0)
        if order == 0:
            return log_p, []
        if self.other is None:
            return log_p, [torch.ones_like(log_p), -log_p]
        q, eta, extras = self.other
        log_q, _ = quadrature.Rows(q, eta, extras, []).scores(y, 0)
        log_q = torch.where(q.support.contains(y), log_q, -torch.inf)
        return log_p, [torch.ones_like(log_p), (log_p if self.own else 0.0) - log_q]


def _by_draws(p: Any, q: Any, draws: int, seed: int, own: bool) -> Nats:
    generator = torch.Generator().manual_seed(seed)
    models = [_model_and_source(each, np.zeros(1))[0] for each in (p, q) if each is not None]
    models = [getattr(m, "model", m) for m in models]
    for model in models:
        if getattr(model, "kind", "exact") != "exact":
            raise BadArgument(
                f"log p of a {type(model).__name__} is known by a {model.kind} only, and so is no divergence of it."
            )
        if getattr(getattr(model, "encoder", None), "predictors", ()):
            raise BadArgument(f"a {type(model).__name__} with predictors cannot be drawn from without rows.")
    y = _draw(models[0], draws, generator)
    with torch.no_grad():
        log_p, *rest = (m.log_prob(Batch({getattr(m, "target", "y"): y})).to(torch.float64) for m in models)
    value = -log_p if not rest else (log_p if own else 0.0) - rest[0]
    return Nats(float(value.mean()), float(value.std()) / math.sqrt(draws), f"{draws:,} draws", "")


def _draw(model: Any, n: int, generator: torch.Generator) -> Tensor:
    with torch.no_grad():
        if hasattr(model, "draw"):
            return model.draw(n, generator=generator)
        if isinstance(model, _Given):
            return model.family.sample(*[v.expand(n) for v in model.values], generator=generator)
        return model.sample(Batch({"y": torch.zeros(n, dtype=torch.float64)}), generator=generator)


# ---- of samples --------------------------------------------------------------------------------------------------------------


def _sample(p: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """What was observed, (n,) or (n, d), and how often (None: once each)."""
    if isinstance(p, Source):
        whole = concatenate(list(p.batches()))
        target = getattr(p, "target", "y")
        y = whole[target] if target in whole else next(iter(whole.values()))
        return y.numpy(), whole.count.numpy() if whole.counted else None
    array = p.to_numpy() if hasattr(p, "to_numpy") else np.asarray(p.detach().cpu() if isinstance(p, Tensor) else p)
    if array.ndim not in (1, 2) or len(array) == 0:
        raise EmptyData(f"a sample is an array of rows, (n,) or (n, d); received the shape {array.shape}.")
    return array, None


def _discrete(x: np.ndarray, method: str | None, what: str, n: float) -> bool:
    if x.dtype.kind != "f" and what == "given":
        return True
    if method is not None:
        return method != "neighbours"
    if x.dtype.kind != "f":
        return True
    repeats = n - len(np.unique(x, axis=0))
    if repeats and not bool((x == np.floor(x)).all()):
        raise BadArgument(
            f"{repeats:g} of the {n:g} rows of {what} repeat others, and not all are whole numbers: are they discrete, or rounded? Say "
            "method='plug_in' if each value is one of few; of rounded numbers there is no entropy to be had from a sample."
        )
    return repeats > 0


def codes(x: np.ndarray) -> np.ndarray:
    """Which of the distinct rows each row is, (n,)."""
    columns = x.reshape(len(x), -1)
    out = pd.factorize(columns[:, 0])[0].astype(np.int64)
    for column in columns.T[1:]:
        own, levels = pd.factorize(column)
        out = pd.factorize(out * len(levels) + own)[0].astype(np.int64)
    return out


def _shares(y: np.ndarray, x: np.ndarray | None, count: np.ndarray | None, method: str, what: str) -> Nats:
    """H(x, y) − H(x) of the shares observed."""
    c = np.ones(len(y)) if count is None else count.astype(np.float64)
    n = float(c.sum())
    given = np.zeros(len(y), dtype=np.int64) if x is None else codes(x)
    both = codes(np.stack([given, codes(y)], 1))
    cells, groups = np.bincount(both, c), np.bincount(given, c)
    seen = c > 0
    surprise = np.log(groups[given[seen]]) - np.log(cells[both[seen]])
    value = float((c[seen] * surprise).sum() / n)
    spare = int((cells > 0).sum() - (groups > 0).sum())
    second = spare / (2 * n**2)  # on average the first-order variance of shares is that of the truth and twice this
    variance = max(float((c[seen] * (surprise - value) ** 2).sum() / n**2) - second, second)
    values = int((cells > 0).sum())
    method_said = f"the shares of {values} {'values' if x is None else 'pairs'} in {n:g} rows"
    if method == "miller_madow":
        value, method_said = value + spare / (2 * n), f"{method_said}, Miller–Madow"
    return Nats(value, math.sqrt(variance), method_said, what)


def _by_neighbours(y: np.ndarray, x: np.ndarray | None, what: str, *, grouped: bool) -> Nats:
    own = neighbours.columns(y, "the sample")
    n, d = own.shape
    method = f"{neighbours.K} nearest neighbours of {n} rows"
    if x is None or grouped:
        local = neighbours.local_entropy(own) if x is None else neighbours.local_within(own, codes(x), "the sample")
        method += "" if x is None else ", each among those of its group"
        return Nats(float(local.mean()), math.sqrt(local.var(ddof=1) / n + neighbours.noise(n, d)), method, what)
    given = np.asarray(x, dtype=np.float64).reshape(n, -1)
    neighbours.columns(np.hstack([given, own]), "the sample with what is given")
    local = neighbours.local_conditional(own, given)
    extra = max(neighbours.noise(n, d + given.shape[1]), 0.0)
    return Nats(float(local.mean()), math.sqrt(local.var(ddof=1) / n + extra), method, what)
