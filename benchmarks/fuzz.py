"""Random tables, formulas and families: a certified answer that an independent optimiser cannot beat, or an
exception of the library.

    python benchmarks/fuzz.py --tables 10000 --first 0 --out benchmarks/results/fuzz.md

A table is made from its number alone. What is wrong: an exception that is not the library's, a warning, an
estimate or a log-likelihood that is not a number, more than `SLOW` seconds, a prediction of another length;
and where the oracle knows the family, a log-likelihood that is not the oracle's at θ̂, or a point with a
higher one. The oracle's design is built here by hand, its log p is scipy's, and its optimiser is BFGS.
"""

from __future__ import annotations

import argparse
import collections
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import minimize
from scipy.special import expit, gammaln

import thetahat as th
from thetahat.errors import ThetahatError

SLOW = 20.0  # seconds of computing
GAIN = 1e-6  # nats, of 1 + |ℓ|, by which an oracle has to be better
NAMES = [
    "x",
    "a b",
    "Intercept",
    "scale",
    "1",
    "dispersion",
    "mean",
    "C",
    "naïve",
    "log(x)",
    "_",
    "y2",
    "x:z",
    "class",
]


@dataclass
class Case:
    """One table and what is asked of it."""

    number: int
    formula: str
    data: pd.DataFrame
    family: str
    arguments: dict[str, Any] = field(default_factory=dict)
    columns: list[np.ndarray] | None = None  # of the oracle's design; None: it has none


# ---- what is drawn -----------------------------------------------------------------------------------------


def numbers(rng: np.random.Generator, n: int) -> np.ndarray:
    """A numeric column of some type, of some size."""
    kind = rng.integers(0, 10)
    if kind == 0:
        return rng.integers(0, 2, n).astype(bool)
    if kind == 1:
        return rng.integers(-5, 6, n).astype(rng.choice(["int8", "int16", "int64"]))
    if kind == 2:
        return rng.integers(0, 9, n).astype(rng.choice(["uint8", "uint16", "uint64"]))
    if kind == 3:
        return np.full(n, rng.choice([0.0, 1.0, -3.5]))
    if kind == 4:
        return rng.normal(size=n) * 10.0 ** rng.integers(-12, 13)
    if kind == 5:
        return rng.normal(size=n).astype("float32")
    if kind == 6:
        return rng.standard_cauchy(n)
    return rng.normal(size=n)


def levels(rng: np.random.Generator, n: int) -> Any:
    """A column of categories: few or many, some rare, some that never occur."""
    k = int(rng.integers(1, 7))
    codes = np.minimum(rng.geometric(0.4, n) - 1, k - 1)
    named = [f"level {j}" for j in range(k + 1)]
    if rng.random() < 0.5:
        return pd.Categorical.from_codes(codes, categories=named)
    return np.array(named, dtype=object)[codes]


def response(rng: np.random.Generator, n: int, family: str, eta: np.ndarray) -> np.ndarray:
    """Mostly of the family's support."""
    if rng.random() < 0.04:
        return numbers(rng, n).astype(float)
    m = np.exp(np.clip(eta, -3, 4))
    draw: dict[str, Callable[[], Any]] = {
        "bernoulli": lambda: rng.random(n) < expit(eta),
        "poisson": lambda: rng.poisson(m),
        "geometric": lambda: rng.geometric(1 / (1 + m)) - 1,
        "negative_binomial": lambda: rng.poisson(m * rng.gamma(2, 0.5, n)),
        "negative_binomial_1": lambda: rng.poisson(m * rng.gamma(2, 0.5, n)),
        "generalized_poisson": lambda: rng.poisson(m * rng.gamma(3, 1 / 3, n)),
        "zero_inflated_poisson": lambda: rng.poisson(m) * (rng.random(n) < 0.7),
        "hurdle_poisson": lambda: rng.poisson(m) * (rng.random(n) < 0.7),
        "beta": lambda: np.clip(rng.beta(2, 3, n), 1e-6, 1 - 1e-6),
        "tweedie": lambda: rng.poisson(1, n) * rng.gamma(2, 1, n),
        "von_mises": lambda: rng.vonmises(0.3, 2, n),
        "ordinal": lambda: pd.Categorical(rng.integers(0, 3, n), ordered=True),
        "categorical": lambda: rng.integers(0, 3, n),
    }
    if family in draw:
        found = draw[family]()
        return found if isinstance(found, pd.Categorical) else np.asarray(found, float)
    if family in ("gamma", "exponential", "weibull", "inverse_gaussian", "lognormal", "loglogistic"):
        return m * rng.gamma(2, 0.5, n) + 1e-9
    return eta + rng.normal(size=n) * rng.choice([0.01, 1.0, 100.0])


FAMILIES = (
    "normal poisson bernoulli negative_binomial gamma student_t weibull exponential beta geometric laplace "
    "lognormal logistic gumbel "
    "inverse_gaussian negative_binomial_1 generalized_poisson zero_inflated_poisson hurdle_poisson tweedie "
    "huber skew_normal loglogistic "
    "hyperbolic_secant von_mises ordinal categorical"
).split()


def quoted(name: str) -> str:
    return name if name.isidentifier() and name not in ("C", "class") else f"`{name}`"


def case(number: int) -> Case:
    """The table of that number."""
    rng = np.random.default_rng([17, number])
    n = int(rng.choice([1, 2, 3, 5, 8, 15, 30, 80], p=[0.03, 0.04, 0.06, 0.12, 0.2, 0.2, 0.2, 0.15]))
    names = list(rng.permutation(NAMES))
    used, data, terms, design = [], {}, [], [np.ones(n)]
    for _ in range(int(rng.integers(0, 4))):
        name = str(names.pop())
        used.append(name)
        data[name] = numbers(rng, n)
        terms.append(quoted(name))
        design.append(np.asarray(data[name], float))
    plain = True
    if rng.random() < 0.35:
        name = str(names.pop())
        data[name] = levels(rng, n)
        terms.append(quoted(name))
        plain = False
    if len(terms) > 1 and rng.random() < 0.2:
        terms = [f"{terms[0]}*{terms[1]}", *terms[2:]]
        plain = False
    if terms and rng.random() < 0.08:
        terms[0] = str(
            rng.choice(["log({})", "I({}**2)", "bs({}, df=4)", "poly({}, 2)", "offset({})", "exp({})"])
        ).format(terms[0])
        plain = False
    if rng.random() < 0.1:
        terms.insert(0, "0")
        design = design[1:]
    if len(used) > 1 and rng.random() < 0.08:  # collinear
        data[used[1]] = np.asarray(data[used[0]], float) * 2
        plain = False
    family = str(rng.choice(FAMILIES))
    eta = sum((np.clip(np.nan_to_num(c), -1, 1) * rng.normal() for c in design), np.zeros(n)) * 0.6
    y = response(rng, n, family, eta)
    frame = pd.DataFrame(
        data, index=pd.RangeIndex(n) if rng.random() < 0.7 else pd.Index([f"r{i}" for i in range(n)])
    )
    frame["y"] = y
    if used and rng.random() < 0.12:
        spoilt = frame[used[0]].astype(float)
        spoilt.iloc[int(rng.integers(0, n))] = rng.choice([np.nan, np.inf])
        frame[used[0]] = spoilt
        plain = False
    arguments: dict[str, Any] = {}
    if rng.random() < 0.1:
        arguments["weights"] = "w"
        frame["w"] = rng.integers(0, 4, n).astype(float)
        plain = False
    if rng.random() < 0.15:
        kinds = (
            th.priors.Normal(2.5),
            th.priors.Laplace(1.0),
            th.priors.StudentT(1.0, df=3.0),
            th.priors.ElasticNet(1.0, 0.5),
        )
        arguments["prior"] = kinds[int(rng.integers(0, 4))]
        plain = False
    if rng.random() < 0.03 and n <= 30:
        arguments["robust"] = [th.DensityPower(0.3), th.Trimmed(0.8)][int(rng.integers(0, 2))]
        plain = False
    return Case(
        number,
        "y ~ " + (" + ".join(terms) or "1"),
        frame,
        family,
        arguments,
        design if plain and family in ORACLES else None,
    )


# ---- the oracle --------------------------------------------------------------------------------------------


def NB(y: Any, m: Any, a: Any) -> Any:
    return (
        gammaln(y + 1 / a)
        - gammaln(1 / a)
        - gammaln(y + 1)
        + y * np.log(a * m / (1 + a * m))
        - np.log1p(a * m) / a
    )


# how many further parameters, each by its logarithm; log p(y | η, log …)
ORACLES: dict[str, tuple[int, Callable[..., Any]]] = {
    "normal": (1, lambda y, e, s: stats.norm.logpdf(y, e, np.exp(s))),
    "lognormal": (1, lambda y, e, s: stats.norm.logpdf(np.log(y), e, np.exp(s)) - np.log(y)),
    "logistic": (1, lambda y, e, s: stats.logistic.logpdf(y, e, np.exp(s))),
    "gumbel": (1, lambda y, e, s: stats.gumbel_r.logpdf(y, e, np.exp(s))),
    "hyperbolic_secant": (1, lambda y, e, s: stats.hypsecant.logpdf(y, e, np.exp(s))),
    "student_t": (2, lambda y, e, s, v: stats.t.logpdf(y, np.exp(v), e, np.exp(s))),
    "bernoulli": (0, lambda y, e: y * e - np.logaddexp(0, e)),
    "poisson": (0, lambda y, e: y * e - np.exp(e) - gammaln(y + 1)),
    "geometric": (0, lambda y, e: y * e - (y + 1) * np.logaddexp(0, e)),
    "negative_binomial": (1, lambda y, e, a: NB(y, np.exp(e), np.exp(a))),
    "exponential": (0, lambda y, e: -e - y * np.exp(-e)),
    "gamma": (1, lambda y, e, d: stats.gamma.logpdf(y, np.exp(-d), scale=np.exp(e + d))),
    "weibull": (1, lambda y, e, k: stats.weibull_min.logpdf(y, np.exp(k), scale=np.exp(e))),
    "beta": (1, lambda y, e, k: stats.beta.logpdf(y, expit(e) * np.exp(k), expit(-e) * np.exp(k))),
}


def oracle(one: Case, fit: th.Fit) -> str:
    """What an independent optimiser has against the answer; nothing: ""."""
    extra, log_p = ORACLES[one.family]
    assert one.columns is not None
    X = np.column_stack(one.columns) if one.columns else np.zeros((len(one.data), 0))
    y = one.data["y"].to_numpy(float)
    p = X.shape[1] + extra
    theta = fit.theta.numpy()
    if len(theta) != p:
        return ""  # a parameter stands at its boundary: another model
    size = np.maximum(np.abs(X).max(0, initial=0.0), 1e-300)

    def value(t: np.ndarray) -> float:
        with np.errstate(all="ignore"):
            found = log_p(y, X @ t[: X.shape[1]], *t[X.shape[1] :]).sum()
        return float(found) if np.isfinite(found) else -np.inf

    here, mine = value(theta), fit.log_likelihood
    slack = GAIN * (1 + abs(mine))
    if abs(here - mine) > slack and np.isfinite(here):
        return f"log-likelihood {mine!r}, and by scipy {here!r} at the same estimates"
    if p == 0:
        return ""
    unit = np.r_[1 / size, np.ones(extra)]
    rng = np.random.default_rng(one.number)
    starts = [theta / unit, theta / unit + rng.normal(0, 0.1, p)]
    if fit.certificate.concave:
        starts.append(np.zeros(p))
    best = max(
        -minimize(lambda u: min(-value(u * unit), 1e300), s, method="BFGS", options={"maxiter": 200}).fun
        for s in starts
    )
    return f"log-likelihood {mine!r}, and BFGS finds {best!r}" if best > mine + slack else ""


# ---- the verdict -------------------------------------------------------------------------------------------


def examine(one: Case) -> tuple[str, str]:
    """(what came out, what is wrong with it, if anything)."""
    begun = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            fit = th.fit(one.formula, one.data, one.family, **one.arguments)
        except ThetahatError as error:
            spent = time.process_time() - begun
            return type(error).__name__, f"{spent:.0f} s" if spent > SLOW else ""
        except Exception as error:
            return "foreign", f"{type(error).__name__}: {str(error)[:200]}"
        spent = time.process_time() - begun
        wrong = f"{spent:.0f} s" if spent > SLOW else asked(one, fit)
    with warnings.catch_warnings():  # of scipy's own line searches
        warnings.simplefilter("ignore")
        return fit.certificate.status, wrong or (oracle(one, fit) if one.columns is not None else "")


def asked(one: Case, fit: th.Fit) -> str:
    """What is wrong with the numbers, the errors, the summary and the predictions of a fit."""
    if not (np.isfinite(fit.estimates).all() and np.isfinite(fit.log_likelihood)):
        return f"estimates {fit.estimates.to_dict()}, log-likelihood {fit.log_likelihood}"
    try:
        errors = fit.standard_errors()
        if fit.certificate.status == "certified maximum" and not np.isfinite(errors).all():
            return f"standard errors {errors.to_dict()}"
        str(fit.summary())
    except ThetahatError:
        pass
    except Exception as error:
        return f"summary: {type(error).__name__}: {str(error)[:200]}"
    try:
        predicted = fit.predict(one.data)
        if len(predicted) != len(one.data) or (
            isinstance(predicted, pd.Series) and not predicted.index.equals(one.data.index)
        ):
            return "predictions of another length or index"
    except ThetahatError:
        pass
    except Exception as error:
        return f"predict: {type(error).__name__}: {str(error)[:200]}"
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--out", type=Path)
    a = parser.parse_args()
    counts, wrong, judged = collections.Counter(), [], 0
    for number in range(a.first, a.first + a.tables):
        one = case(number)
        status, fault = examine(one)
        counts[status] += 1
        judged += one.columns is not None and status in ("certified maximum", "boundary")
        if fault:
            wrong.append((number, one.family, one.formula, fault))
            print(
                number,
                one.family,
                repr(one.formula),
                {k: str(v) for k, v in one.arguments.items()},
                status,
                "|",
                fault,
                flush=True,
            )
    lines = [
        f"# {a.tables:,} random tables, from number {a.first:,}",
        "",
        "| what came out | tables |",
        "|---|---|",
    ]
    lines += [f"| {status} | {count:,} |" for status, count in counts.most_common()]
    lines += [
        "",
        f"Of the answers {judged:,} were held against scipy's log-likelihood and its BFGS on a design made "
        "by hand.",
        "",
    ]
    lines += [
        f"Faults: {len(wrong)}.",
        "",
        *(f"- {n}: {family}, `{formula}`: {fault}" for n, family, formula, fault in wrong),
    ]
    text = "\n".join(lines).rstrip() + "\n"
    print(text)
    if a.out is not None:
        a.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
