"""What docs/shift.md says of the two-sample test: its size where there is one population, its power where
there are two.

python benchmarks/shift.py     three minutes of one core
"""

from __future__ import annotations

import numpy as np
from tabulate import tabulate

from thetahat.evaluation.shift import two_sample

DRAWS, PERMUTATIONS = 400, 19
CASES = {"one population": 0.0, "shifted by 0.3": 0.3, "shifted by 0.6": 0.6}


def rejected(shift: float, draws: int) -> float:
    """How often p ≤ 1/20 of 60 reference and 40 new rows of two columns, the first of which is shifted."""
    found = []
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        old = {"x": rng.normal(size=60), "z": rng.normal(size=60)}
        new = {"x": rng.normal(shift, 1.0, 40), "z": rng.normal(size=40)}
        found.append(two_sample(old, new, permutations=PERMUTATIONS, seed=seed).p_value <= 0.05)
    return float(np.mean(found))


if __name__ == "__main__":
    rows = [
        [name, draws, rejected(shift, draws)]
        for (name, shift), draws in zip(CASES.items(), (DRAWS, 100, 100), strict=True)
    ]
    print(tabulate(rows, ["", "pairs of tables", "p ≤ 0.05"], floatfmt=".3f", tablefmt="github"))
