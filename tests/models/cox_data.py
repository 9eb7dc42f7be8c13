"""Small data of Cox's model, R's figures of them, and the definition of the partial likelihood written out, for the
tests of `models.cox`.

The figures are of R 4.2.2 with survival 3.5-3, e.g. coxph(Surv(time, status) ~ x + z, d, ties = "efron").
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd

from thetahat.data import Frame

SMALL = pd.DataFrame(
    {
        "time": [1.0, 1, 1, 2, 2, 3, 4, 4, 4, 4, 5, 6],
        "status": [1, 1, 0, 1, 1, 0, 1, 1, 1, 0, 1, 0],
        "x": [0.0, 2, 1, 1, 0.5, 3, 0, 1, 2, 1.5, 2.5, 1],
        "z": [1.0, 0, 1, 0, 1, 0, 0, 1, 0, 1, 1, 0],
        "w": [1.0, 2, 1, 3, 1, 2, 1, 1, 2, 1, 2, 1],
        "g": [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6],
    }
)

# ties → (log-likelihood, coefficients, covariance)
R_FITS = {
    "efron": (
        -14.0443265195,
        [-0.503762661965, 0.233583913745],
        [[0.231749146429, -0.123327532241], [-0.123327532241, 0.574711763655]],
    ),
    "breslow": (
        -14.9921146935,
        [-0.418557143752, 0.219635751206],
        [[0.2134961910031, -0.0969322019172], [-0.0969322019172, 0.5510986736508]],
    ),
    "exact": (
        -10.9165198670,
        [-0.523198202524, 0.249743723034],
        [[0.275477065004, -0.105147765634], [-0.105147765634, 0.700958927131]],
    ),
}
# robust = TRUE, cluster(g), and weights = w with robust = TRUE
R_ROBUST = {
    "efron": [[0.168306575785, -0.227692485503], [-0.227692485503, 0.582455339989]],
    "breslow": [[0.123678875862, -0.154805147876], [-0.154805147876, 0.434815795763]],
}
R_CLUSTER = {
    "efron": [[0.053683678394, -0.137064663152], [-0.137064663152, 0.558108235253]],
    "breslow": [[0.0388215777172, -0.0881140062243], [-0.0881140062243, 0.4025395880923]],
}
R_WEIGHTED = {
    "efron": (
        -27.5625500392,
        [-0.406025230495, -0.204035424160],
        [[0.106267061687, -0.105204808094], [-0.105204808094, 0.375711424594]],
    ),
    "breslow": (
        -29.0365596560788,
        [-0.355369880491, -0.161187757720],
        [[0.0870824885523, -0.0747177482127], [-0.0747177482127, 0.2922709734702]],
    ),
}


def definition(
    beta: np.ndarray,
    X: np.ndarray,
    time: np.ndarray,
    event: np.ndarray,
    entry: np.ndarray | None = None,
    stratum: np.ndarray | None = None,
    ties: str = "efron",
) -> float:
    """The partial log-likelihood as it is defined, a loop over event times, in extended precision."""
    eta = (X.astype(np.longdouble) @ np.asarray(beta, dtype=np.longdouble)).astype(np.longdouble)
    entry = np.full(len(time), -np.inf) if entry is None else entry
    stratum = np.zeros(len(time)) if stratum is None else stratum
    out = np.longdouble(0)
    for g, t in sorted({(g, t) for g, t, e in zip(stratum, time, event, strict=True) if e == 1}):
        at_risk = (stratum == g) & (entry < t) & (time >= t)
        failed = at_risk & (time == t) & (event == 1)
        d = int(failed.sum())
        out += eta[failed].sum()
        if ties == "exact":
            own = eta[at_risk]
            sums = [own[list(s)].sum() for s in itertools.combinations(range(len(own)), d)]
            out -= _log_sum(np.array(sums))
            continue
        for j in range(d):
            f = j / np.longdouble(d) if ties == "efron" else np.longdouble(0)
            rest, own = eta[at_risk & ~failed], eta[failed] + np.log(1 - f)
            out -= _log_sum(np.concatenate([rest, own]))
    return float(out)


def _log_sum(values: np.ndarray) -> np.longdouble:
    most = values.max()
    total: np.longdouble = most + np.log(np.exp(values - most).sum())
    return total


def drawn(n: int, seed: int, *, entry: bool = False, strata: int = 1, ties: float = 0.5) -> pd.DataFrame:
    """Times of a proportional hazards model, rounded so that there are ties."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    time = -np.log(rng.uniform(size=n)) * np.exp(-x @ [0.7, -0.4])
    censor = rng.exponential(2.0, size=n)
    begin = rng.uniform(0, 0.5, size=n) if entry else np.zeros(n)
    stop = np.minimum(time, censor) + begin
    stop = np.ceil(stop / ties) * ties if ties else stop
    begin = np.floor(begin / 0.1) * 0.1 - 0.05
    return pd.DataFrame(
        {
            "start": begin,
            "stop": stop,
            "event": (time <= censor).astype(float),
            "a": x[:, 0],
            "b": x[:, 1],
            "g": rng.integers(strata, size=n),
        }
    )


def written(
    data: pd.DataFrame, path: Path, *, rising: bool, by: tuple[str, ...] = (), rows: int = 7
) -> Frame:
    """The rows in order of `stop` within `by`, as a file that is too large for memory."""
    ordered = data.sort_values([*by, "stop"], ascending=[*(True for _ in by), rising], kind="stable")
    ordered.to_parquet(path / "rows.parquet", row_group_size=rows, index=False)
    return Frame(path / "rows.parquet", memory=1)
