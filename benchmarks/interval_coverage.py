"""How often the default 95 % interval of every family holds the truth, by simulation.

    python benchmarks/interval_coverage.py [--seconds 15] [--only NAME] [--write]

Each replicate draws x uniform on (−1, 1) and y from the family at known coefficients, fits "y ~ x", and asks
`fit.intervals()` for every estimate. Coverage between 93 and 97 % is as it should be; one outside by more
than twice its own simulation error is named in the results. A replicate whose likelihood has no maximum is
left out and counted; one whose constant ran to its boundary has no interval of that constant.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import thetahat as th
from thetahat import families as f
from thetahat.errors import FitError

Truth = Mapping[
    str, tuple[float, ...] | float
]  # coefficients of a predictor, (Intercept, x) or (x,); or the value of a constant


@dataclass(frozen=True)
class Case:
    """A family, its true parameters, how many rows, and what its rows have besides y."""

    family: f.Family
    truth: Truth
    n: int = 200
    extras: Mapping[str, float] = field(default_factory=dict)


CASES: dict[str, Case] = {
    "normal": Case(f.Normal(), {"mean": (1.0, 0.5), "scale": 0.8}),
    "normal, 10 rows": Case(f.Normal(), {"mean": (1.0, 0.5), "scale": 0.8}, n=10),
    "normal, log scale ~ x": Case(f.Normal(), {"mean": (1.0, 0.5), "scale": (-0.2, 0.5)}),
    "lognormal": Case(f.LogNormal(), {"location": (1.0, 0.5), "scale": 0.8}),
    "bernoulli": Case(f.Bernoulli(), {"mean": (0.3, 1.0)}),
    "bernoulli, probit": Case(f.Bernoulli(link="probit"), {"mean": (0.3, 0.8)}),
    "poisson": Case(f.Poisson(), {"mean": (0.5, 0.5)}),
    "binomial": Case(f.Binomial(), {"mean": (0.3, 1.0)}, extras={"trials": 6.0}),
    "beta_binomial": Case(f.BetaBinomial(), {"mean": (0.3, 1.0), "dispersion": 0.3}, extras={"trials": 8.0}),
    "negative_binomial": Case(f.NegativeBinomial(), {"mean": (1.0, 0.5), "dispersion": 0.6}),
    "negative_binomial_1": Case(f.NegativeBinomial1(), {"mean": (1.0, 0.5), "dispersion": 1.5}),
    "geometric": Case(f.Geometric(), {"mean": (1.0, 0.5)}),
    "generalized_poisson": Case(f.GeneralizedPoisson(), {"mean": (1.0, 0.5), "dispersion": 0.3}),
    "categorical": Case(f.Categorical(3), {"logit_1": (0.2, 0.8), "logit_2": (-0.3, -0.5)}),
    "ordinal": Case(f.Ordinal(3), {"location": (0.8,), "threshold_1": -0.7, "threshold_2": 0.9}),
    "student_t": Case(f.StudentT(), {"location": (1.0, 0.5), "scale": 0.8, "df": 4.0}),
    "laplace": Case(f.Laplace(), {"location": (1.0, 0.5), "scale": 0.8}),
    "asymmetric_laplace(0.9)": Case(f.AsymmetricLaplace(0.9), {"location": (1.0, 0.5), "scale": 0.2}),
    "logistic": Case(f.Logistic(), {"location": (1.0, 0.5), "scale": 0.8}),
    "hyperbolic_secant": Case(f.HyperbolicSecant(), {"location": (1.0, 0.5), "scale": 0.8}),
    "gumbel": Case(f.Gumbel(), {"location": (1.0, 0.5), "scale": 0.8}),
    "skew_normal": Case(f.SkewNormal(), {"location": (1.0, 0.5), "scale": 0.8, "shape": 4.0}, n=400),
    "huber": Case(f.Huber(), {"location": (1.0, 0.5), "scale": 0.8}),
    "von_mises": Case(f.VonMises(), {"location": (0.3, 0.5), "concentration": 2.0}),
    "exponential": Case(f.Exponential(), {"mean": (1.0, 0.5)}),
    "gamma": Case(f.Gamma(), {"mean": (1.0, 0.5), "dispersion": 0.4}),
    "inverse_gaussian": Case(f.InverseGaussian(), {"mean": (1.0, 0.5), "dispersion": 0.3}),
    "weibull": Case(f.Weibull(), {"scale": (1.0, 0.5), "shape": 1.5}),
    "loglogistic": Case(f.LogLogistic(), {"scale": (1.0, 0.5), "shape": 2.0}),
    "tweedie": Case(f.Tweedie(), {"mean": (1.0, 0.5), "dispersion": 0.7, "power": 1.5}),
    "beta": Case(f.Beta(), {"mean": (0.3, 0.8), "precision": 5.0}),
    "zero_inflated(poisson)": Case(f.ZeroInflated(f.Poisson()), {"mean": (1.0, 0.5), "inflation": 0.3}),
    "zero_inflated(negative_binomial)": Case(
        f.ZeroInflated(f.NegativeBinomial()), {"mean": (1.5, 0.5), "dispersion": 0.3, "inflation": 0.3}, n=400
    ),
    "hurdle(poisson)": Case(f.Hurdle(f.Poisson()), {"mean": (1.0, 0.5), "zero": 0.3}),
    "hurdle(lognormal)": Case(f.Hurdle(f.LogNormal()), {"location": (1.0, 0.5), "scale": 0.8, "zero": 0.3}),
    "truncated(poisson), above 0": Case(f.Truncated(f.Poisson(), low=0.0), {"mean": (0.5, 0.5)}),
}

# Not the model that is fitted: what the default interval is worth where the errors are of another kind. True
# quantiles as coefficients.
OTHER: dict[str, tuple[str, Any, Any, tuple[float, float]]] = {
    "median, normal errors": ("median", f.AsymmetricLaplace(0.5), lambda rng, x: rng.normal(size=len(x)), (1.0, 0.5)),
    "median, spread grows with x": (
        "median", f.AsymmetricLaplace(0.5), lambda rng, x: rng.normal(size=len(x)) * (1.2 + x), (1.0, 0.5)
    ),
    "median, t with 3 degrees": ("median", f.AsymmetricLaplace(0.5), lambda rng, x: rng.standard_t(3, len(x)), (1.0, 0.5)),
    "quantile 0.75, exponential errors": (
        "0.75", f.AsymmetricLaplace(0.75), lambda rng, x: rng.exponential(size=len(x)), (1.0 + np.log(4), 0.5)
    ),
}  # fmt: skip


@dataclass
class Found:
    """Hits and asked, estimate by estimate; replicates without a maximum."""

    names: list[str]
    hits: np.ndarray
    asked: np.ndarray
    failed: int = 0

    @property
    def coverage(self) -> np.ndarray:
        return self.hits / np.maximum(self.asked, 1)


def draw(case: Case, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """One data set, and the truth in the order of the fit's estimates."""
    x = rng.uniform(-1, 1, case.n)
    values, truth = [], []
    for name, spec in case.family.parameters.items():
        given = case.truth[name]
        if isinstance(given, tuple):
            eta = given[-1] * x + (given[0] if len(given) > 1 else 0.0)
            values.append(spec.link.inverse(torch.from_numpy(eta)))
            truth += list(given)
        else:
            values.append(torch.full((case.n,), given, dtype=torch.float64))
            truth.append(given)
    extras = {name: torch.full((case.n,), v, dtype=torch.float64) for name, v in case.extras.items()}
    y = case.family.sample(
        *values, generator=torch.Generator().manual_seed(int(rng.integers(2**31))), **extras
    )
    return {"y": y.numpy(), "x": x, **{n: e.numpy() for n, e in extras.items()}}, np.array(truth)


def cover(case: Case, seconds: float, most: int = 4000, seed: int = 0) -> Found:
    """Replicates until the time is up."""
    parameters: dict[str, Any] = {name: name for name in case.extras}
    parameters |= {
        n: "~ x"
        for n, v in list(case.truth.items())[1:]
        if isinstance(v, tuple) and not case.family.parameters[n].own_predictors
    }
    found, begun = Found([], np.zeros(0), np.zeros(0)), time.process_time()
    for k in range(most):
        if k >= 20 and time.process_time() - begun > seconds:
            break
        data, truth = draw(case, np.random.default_rng((seed, k)))
        _count(found, data, case.family, parameters, truth)
    return found


def cover_other(name: str, seconds: float, n: int = 200, most: int = 4000) -> Found:
    """The same of quantiles whose errors are not Laplace."""
    _, family, errors, truth = OTHER[name]
    found, begun = Found([], np.zeros(0), np.zeros(0)), time.process_time()
    for k in range(most):
        if k >= 20 and time.process_time() - begun > seconds:
            break
        rng = np.random.default_rng((1, k))
        x = rng.uniform(-1, 1, n)
        _count(found, {"x": x, "y": 1 + 0.5 * x + errors(rng, x)}, family, {}, np.array(truth))
    return found


def _count(
    found: Found, data: dict[str, np.ndarray], family: f.Family, parameters: dict[str, Any], truth: np.ndarray
) -> None:
    try:
        fit = th.fit("y ~ x", data, family, **parameters)
        ends = fit.intervals()
    except FitError:
        found.failed += 1
        return
    if not found.names and (len(ends) == len(truth) or len(truth) < len(ends)):
        found.names = list(ends.index[: len(truth)])
        found.hits, found.asked = np.zeros(len(truth)), np.zeros(len(truth))
    for j, name in enumerate(found.names):
        if name in ends.index:
            low, high = ends.loc[name]
            found.hits[j] += low <= truth[j] <= high
            found.asked[j] += 1


def run(name: str, seconds: float) -> Found:
    """One case by its name."""
    return cover(CASES[name], seconds) if name in CASES else cover_other(name, seconds)


def line(name: str, found: Found) -> str:
    n = CASES[name].n if name in CASES else 200
    shown = ", ".join(
        f"{estimate} {100 * c:.1f}" for estimate, c in zip(found.names, found.coverage, strict=True)
    )
    return f"| {name} | {n} | {int(found.asked.max(initial=0))} | {found.failed} | {shown} |"


def outside(name: str, found: Found) -> list[str]:
    """Estimates whose coverage is below 93 or above 97 % by more than twice the simulation error."""
    out = []
    for estimate, c, asked in zip(found.names, found.coverage, found.asked, strict=True):
        error = 2 * np.sqrt(0.95 * 0.05 / max(asked, 1))
        if c + error < 0.93 or c - error > 0.97:
            out.append(f"- {name}, {estimate}: {100 * c:.1f} ± {100 * error:.1f} %")
    return out


def page(results: Mapping[str, Found]) -> str:
    """benchmarks/results/coverage.md."""
    head = (
        "| family | rows | replicates | no maximum | coverage of each estimate, % |\n|---|---|---|---|---|\n"
    )
    lines = "\n".join(line(name, found) for name, found in results.items())
    said = "\n".join(each for name, found in results.items() for each in outside(name, found)) or "None."
    title = "## Outside 93 to 97 % by more than twice the simulation error"
    return f"# Coverage of the default 95 % intervals\n\n{__doc__.strip()}\n\n## Results\n\n{head}{lines}\n\n{title}\n\n{said}\n"


def main(arguments: list[str]) -> None:
    seconds = float(arguments[arguments.index("--seconds") + 1]) if "--seconds" in arguments else 15.0
    only = arguments[arguments.index("--only") + 1] if "--only" in arguments else None
    warnings.simplefilter("ignore")
    results = {}
    for name in [only] if only is not None else [*CASES, *OTHER]:
        results[name] = run(name, seconds)
        print(line(name, results[name]), *outside(name, results[name]), sep="\n", flush=True)
    if "--write" in arguments:
        (Path(__file__).parent / "results" / "coverage.md").write_text(page(results))


if __name__ == "__main__":
    main(sys.argv[1:])
