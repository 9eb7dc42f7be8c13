"""Fixed effects of a mixed model that the data cannot tell apart are named, in every family."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import thetahat as th
from thetahat.errors import FlatDirection

RESPONSES = {
    "normal": "y",
    "poisson": "k",
    "bernoulli": "b",
    "weibull": "Surv(t, event)",
    "cox": "Surv(t, event)",
}


def data() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    g, x = rng.integers(0, 10, 200), rng.normal(size=200)
    eta = 0.5 * x + 0.6 * rng.normal(size=10)[g]
    return pd.DataFrame(
        {
            "g": g,
            "x": x,
            "twice": 2 * x,
            "same": 3.0,
            "y": eta + rng.normal(size=200),
            "k": rng.poisson(np.exp(eta)),
            "b": (rng.uniform(size=200) < 1 / (1 + np.exp(-eta))) * 1,
            "t": np.ceil(8 * rng.exponential(np.exp(-eta))) / 8,
            "event": 1.0,
        }
    )


@pytest.mark.parametrize("family", RESPONSES)
@pytest.mark.parametrize("reml", [False, True])
def test_columns_that_are_not_told_apart_are_a_flat_direction(family: str, reml: bool) -> None:
    with pytest.raises(FlatDirection, match="Drop twice") as caught:
        th.fit(f"{RESPONSES[family]} ~ x + twice + (1 | g)", data(), family=family, reml=reml)
    direction = caught.value.certificate.directions[0]
    assert direction.keys() == {"x", "twice"}
    assert direction["x"] / direction["twice"] == pytest.approx(-2)
    with pytest.raises(FlatDirection, match="Drop same"):
        th.fit(f"{RESPONSES[family]} ~ x + same + (1 | g)", data(), family=family, reml=reml)
    assert th.fit(f"{RESPONSES[family]} ~ x + (1 | g)", data(), family=family, reml=reml).certificate.ok
