"""Made data, seeded, that several tests fit."""

from __future__ import annotations

import numpy as np
import pandas as pd


def counts(n: int = 300, seed: int = 1) -> pd.DataFrame:
    """Overdispersed counts y and 0/1 responses b with two predictors, two crossed groupings and a numeric
    response z."""
    rng = np.random.default_rng(seed)
    x, w = rng.normal(size=n), rng.normal(size=n)
    g, h = rng.integers(0, 25, n), rng.integers(0, 12, n)
    shift = rng.normal(scale=0.3, size=25)[g] + rng.normal(scale=0.3, size=12)[h]
    mean = np.exp(0.4 + 0.5 * x - 0.3 * w + shift)
    return pd.DataFrame(
        {
            "y": rng.poisson(mean * rng.gamma(2.0, 0.5, n)).astype(float),
            "b": (rng.random(n) < 1 / (1 + np.exp(-(0.2 + 0.8 * x - 0.5 * w + shift)))).astype(float),
            "z": 1.0 + 0.7 * x - 0.2 * w + shift + rng.normal(size=n) * (0.5 + 0.3 * np.abs(x)),
            "x": x,
            "w": w,
            "g": g,
            "h": h,
            "c": rng.integers(1, 4, n).astype(float),
            "region": np.array(["a", "b", "c"])[rng.integers(0, 3, n)],
        }
    )
