"""What docs/divergence.md says of the entropy of samples: whence the constant in its standard error, and how
often intervals hold the truth.

python benchmarks/divergence.py            coverage and bias, two minutes of one core
python benchmarks/divergence.py constants  n·Var of the mean of d·log ε on a torus, where log p is constant:
`neighbours.SHARED`
"""

from __future__ import annotations

import math
import sys

import numpy as np
from scipy.spatial import cKDTree
from tabulate import tabulate

from thetahat.evaluation.divergence import entropy
from thetahat.evaluation.neighbours import SHARED, K

LOG_2PIE = math.log(2 * math.pi * math.e)
TRUTHS = {
    "normal": (lambda g, n: g.normal(size=n), LOG_2PIE / 2),
    "exponential": (lambda g, n: g.exponential(size=n), 1.0),
    "uniform": (lambda g, n: g.random(n), 0.0),
    "normal, d = 2": (lambda g, n: g.normal(size=(n, 2)), LOG_2PIE),
    "normal, d = 3": (lambda g, n: g.normal(size=(n, 3)), 1.5 * LOG_2PIE),
    "uniform square": (lambda g, n: g.random((n, 2)), 0.0),
}


def coverage(draws: int = 400) -> None:
    rows = []
    for name, (draw, H) in TRUTHS.items():
        for n in (300, 2000):
            rng = np.random.default_rng(0)
            found = [entropy(draw(rng, n)) for _ in range(draws)]
            apart = np.array([f.value - H for f in found])
            errors = np.array([f.standard_error for f in found])
            rows.append(
                [
                    name,
                    n,
                    apart.mean(),
                    apart.std(),
                    errors.mean(),
                    f"{np.mean(np.abs(apart) < 1.96 * errors):.1%}",
                ]
            )
    print(
        tabulate(
            rows,
            ["density", "n", "bias", "spread", "standard error", "95 % intervals"],
            floatfmt=".4f",
            tablefmt="github",
        )
    )


def constants(draws: int = 6000, n: int = 300) -> None:
    rng = np.random.default_rng(2)
    for d, used in SHARED.items():
        v = np.empty(draws)
        for i in range(draws):
            x = rng.random((n, d))
            v[i] = d * np.log(cKDTree(x, boxsize=1).query(x, K + 1, p=np.inf)[0][:, K]).mean()
        print(f"d = {d}: {n * v.var():.3f} ± {n * v.var() * math.sqrt(2 / draws):.3f} (used: {used})")


if __name__ == "__main__":
    constants() if sys.argv[1:] == ["constants"] else coverage()
