"""Entropy, cross-entropy and divergence, in nats, with what is known of their error.

    H(p) = −E_p log p,      H(p, q) = −E_p log q = H(p) + KL(p ‖ q),      KL(p ‖ q) = E_p log(p/q) ≥ 0

H(p, q) with p the data is the mean negative log-likelihood of q. Its first part does not depend on q, so that
to maximise a likelihood is to minimise KL(data ‖ model), and the data's entropy is the bound that no model
can pass.

p and q may each be

    a distribution   a family and its parameters, ("gamma", (2.5, 0.3)) or ("gamma", {"mean": 2.5, "dispersion": 0.3}); a fit or a model
    a sample         an array, (n,) or (n, d); a column of text; a `Source`

References
----------
Kullback and Leibler (1951), On information and sufficiency; Cover and Thomas (2006), Elements of Information
Theory, 2nd ed.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
from torch import Tensor

from ..data.batch import concatenate
from ..data.source import Source
from ..errors import BadArgument, EmptyData
from ..protocols import Scored, target_of
from ..types import Data, Distribution, Plain
from . import neighbours
from .expectations import Nats, expected, is_distribution, model_and_source
from .score import score

DRAWS = 20_000
METHODS = ("plug_in", "miller_madow", "neighbours")


def entropy(
    p: Distribution,
    *,
    given: Plain = None,
    method: str | None = None,
    data: Data = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Nats:
    """H(p) = −E_p log p: of a distribution, or of whatever a sample was drawn from.

    Parameters
    ----------
    p
        a distribution or a sample
    given
        x, as many rows: H(y | x) = H(x, y) − H(x), both discrete or both continuous; or Σ_g n_g/n · H(y in
        group g), x discrete alone
    method
        of a sample: "plug_in", H of the shares observed; "miller_madow", that plus (values − 1) / 2n, which
        it lacks on average; "neighbours", of a density. None: the second for what is discrete, the third for
        numbers of which none repeats
    data
        the rows at which a fit with predictors is asked; the mean over them is the answer
    draws, seed
        of a distribution that can only be drawn from

    Returns
    -------
    Nats
        The variance of the discrete ones is (Σ p log² p − H²)/n + (values − 1)/2n², p the true shares.

    Raises
    ------
    BadArgument
        numbers some of which repeat and some are fractions: discrete or rounded, that is not known here

    References
    ----------
    Miller (1955), Note on the bias of information estimates; Harris (1975), The statistical estimation of
    entropy in the non-parametric case (the variance); see `neighbours`.

    Examples
    --------
    >>> print(entropy(("bernoulli", (0.5,))))
    entropy 0.693147 nats (1 bits): a sum
    >>> print(entropy(["a", "b", "a", "b"], method="plug_in"))
    entropy 0.693147 ± 0.18 nats (1 bits): the shares of 2 values in 4 rows
    """
    if is_distribution(p):
        return replace(expected(p, None, data, draws, seed), what="entropy")
    if method not in (None, *METHODS):
        raise BadArgument(f"method={method!r}. Accepted: {', '.join(map(repr, METHODS))}, None.")
    y, count = _sample(p)
    x = None if given is None else _sample(given)[0]
    if x is not None and len(x) != len(y):
        raise BadArgument(f"given has {len(x)} rows, and the sample {len(y)}.")
    n = len(y) if count is None else float(count.sum())
    discrete = [
        _discrete(each, method, name, n)
        for each, name in ((y, "the sample"), (x, "given"))
        if each is not None
    ]
    what = "entropy" if x is None else "conditional entropy"
    if discrete == [True, False]:
        raise BadArgument(
            "the sample is discrete and what is given has a density: that is not estimated here. Fit a "
            "classifier."
        )
    if discrete[0]:
        return _shares(y, x, count, method or "miller_madow", what)
    if count is not None:
        raise BadArgument(
            "rows with counts of their own repeat, and of a density none would: the neighbours have no "
            "influence."
        )
    return _by_neighbours(y, x, what, grouped=discrete == [False, True])


def cross_entropy(
    p: Distribution, q: Distribution, *, data: Data = None, draws: int = DRAWS, seed: int = 0
) -> Nats:
    """H(p, q) = −E_p log q: the nats that q needs for an observation of p.

    Parameters
    ----------
    p
        a distribution; or data, of which it is the mean negative log-likelihood under q
    q
        a distribution
    data, draws, seed
        as of `entropy`

    Raises
    ------
    BadArgument
        a mass and a density; a q that is not known exactly

    Examples
    --------
    >>> print(cross_entropy(("bernoulli", (0.5,)), ("bernoulli", (0.25,))))
    cross-entropy 0.836988 nats (1.208 bits): a sum
    """
    if is_distribution(p):
        return replace(expected(p, q, data, draws, seed, own=False), what="cross-entropy")
    found = q.score(p) if isinstance(q, Scored) else score(*model_and_source(q, p))
    method = f"the mean of {found.n:g} rows" + (
        "" if found.kind == "exact" else f", by a {found.kind} of the log-likelihood"
    )
    return Nats(
        -found.mean,
        found.standard_error,
        method,
        "cross-entropy",
        "" if found.measure == "mass" else found.units,
    )


def kl(p: Distribution, q: Distribution, *, data: Data = None, draws: int = DRAWS, seed: int = 0) -> Nats:
    """KL(p ‖ q) = E_p log(p/q): by a formula where there is one, else by a sum or an integral, else by draws
    from p.

    Parameters
    ----------
    p, q
        two distributions; or two samples of numbers, by the distances to their neighbours
    data, draws, seed
        as of `entropy`

    Returns
    -------
    Nats
        ∞ where q gives probability zero to what p allows.

    Raises
    ------
    BadArgument
        a mass and a density; a sample and a distribution (see `lack_of_fit.lack_of_fit`)

    Examples
    --------
    >>> print(kl(("poisson", (2.0,)), ("poisson", (3.0,))))
    KL 0.18907 nats (0.2728 bits): a formula
    >>> print(kl(("normal", (0.0, 1.0)), ("laplace", (0.0, 1.0))))
    KL 0.0720932 nats (0.104 bits): an integral
    """
    kinds = is_distribution(p), is_distribution(q)
    if kinds == (True, True):
        return replace(expected(p, q, data, draws, seed), what="KL")
    if kinds == (False, False):
        x, y = (neighbours.columns(_sample(each)[0], name) for each, name in ((p, "p"), (q, "q")))
        if x.shape[1] != y.shape[1]:
            raise BadArgument(f"p has {x.shape[1]} columns and q {y.shape[1]}.")
        value, error = neighbours.divergence(x, y)
        return Nats(
            value,
            error,
            f"{neighbours.K} nearest neighbours of {len(x)} rows among them and among {len(y)}",
            "KL",
        )
    raise BadArgument(
        "of KL(p ‖ q) one is a sample and the other a distribution. How far a fit is from the best possible: "
        "fit.lack_of_fit(), or "
        "cross_entropy(sample, fit) less entropy(sample)."
    )


# ---- of samples --------------------------------------------------------------------------------------------


def _sample(p: Distribution) -> tuple[np.ndarray, np.ndarray | None]:
    """What was observed, (n,) or (n, d), and how often (None: once each)."""
    if isinstance(p, Source):
        whole = concatenate(list(p.batches()))
        target = target_of(p)
        y = whole[target] if target in whole else next(iter(whole.values()))
        return y.numpy(), whole.count.numpy() if whole.counted else None
    array = (
        p.to_numpy()
        if hasattr(p, "to_numpy")
        else np.asarray(p.detach().cpu() if isinstance(p, Tensor) else p)
    )
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
            f"{repeats:g} of the {n:g} rows of {what} repeat others, and not all are whole numbers: are they "
            "discrete, or rounded? Say "
            "method='plug_in' if each value is one of few; of rounded numbers there is no entropy to be had "
            "from a sample."
        )
    return repeats > 0


def codes(x: np.ndarray) -> np.ndarray:
    """Which of the distinct rows each row is, (n,)."""
    columns = x.reshape(len(x), -1)
    out = pd.factorize(columns[:, 0])[0].astype(np.int64)
    for column in columns.T[1:]:
        if len(out) and out[-1] == len(out) - 1:  # they rise as they appear: every row is distinct already
            break
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
    second = (
        spare / (2 * n**2)
        # of uniform shares the first-order variance is, on average, that of the truth and twice this; of
        # others
        # less
    )
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
        local = (
            neighbours.local_entropy(own)
            if x is None
            else neighbours.local_within(own, codes(x), "the sample")
        )
        method += "" if x is None else ", each among those of its group"
        return Nats(
            float(local.mean()), math.sqrt(local.var(ddof=1) / n + neighbours.noise(n, d)), method, what
        )
    given = np.asarray(x, dtype=np.float64).reshape(n, -1)
    neighbours.columns(np.hstack([given, own]), "the sample with what is given")
    local = neighbours.local_conditional(own, given)
    extra = max(neighbours.noise(n, d + given.shape[1]), 0.0)
    return Nats(float(local.mean()), math.sqrt(local.var(ddof=1) / n + extra), method, what)
