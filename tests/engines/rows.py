"""Rows, models of them, and what is asked of every engine: the same as of the rows in memory."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import thetahat as th
from thetahat.data.partitions import Partitions

EXACT = th.Newton(
    tolerance=1e-12
)  # both to rounding, so that 1e-10 is of the sums and not of where a solver stops

MODELS = {  # formula, family, solver
    "poisson, interaction": ("y ~ x + z + g * h", "poisson", EXACT),
    "logistic, text": ("answer ~ x + log(w) + g", "bernoulli", EXACT),
    "normal": ("t ~ x + z + g", "normal", None),
    "two parameters": ("y ~ x + C(g, contr.sum)", "negative_binomial", EXACT),
    "gamma": ("w ~ x + offset(z)", "gamma", EXACT),
    "ordinal": ("level ~ x + z", "ordinal", EXACT),
}
ERRORS = [
    (None, None),
    ("observed", None),
    ("expected", None),
    ("sandwich", None),
    ("HC1", None),
    ("cluster", "id"),
    ("cluster", ["id", "g"]),
]


def rows(n: int = 3000, seed: int = 0) -> pd.DataFrame:
    """Rows of all kinds of columns, some of them missing."""
    rng = np.random.default_rng(seed)
    out = pd.DataFrame(
        {"x": rng.normal(size=n), "z": rng.uniform(-1, 1, n), "w": rng.gamma(2.0, 1.0, n) + 0.01}
    )
    out["g"], out["h"] = rng.choice(list("abcd"), n), rng.choice(["u", "v", "w"], n)
    out["id"] = rng.integers(0, 40, n)
    eta = 0.4 * out["x"] - 0.3 * out["z"] + 0.5 * (out["g"] == "b")
    out["y"] = rng.poisson(np.exp(eta))
    out["t"] = 3 + eta + rng.normal(size=n)
    out["answer"] = np.where(rng.uniform(size=n) < 1 / (1 + np.exp(-eta)), "yes", "no")
    out["level"] = pd.cut(eta + rng.logistic(size=n), [-np.inf, -1, 1, np.inf], labels=False).astype("int64")
    out["times"] = rng.integers(0, 4, n)
    out.loc[rng.uniform(size=n) < 0.02, "z"] = np.nan
    return out


def check_model(engine: Partitions, frame: pd.DataFrame, name: str) -> None:
    """Estimates, errors of every kind, criteria, tests and the certificate are those of the rows in memory."""
    formula, family, solver = MODELS[name]
    here, there = (th.fit(formula, data, family, solver=solver) for data in (frame, engine))
    np.testing.assert_allclose(there.theta, here.theta, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(there.log_likelihood, here.log_likelihood, rtol=1e-12)
    assert there.certificate.status == here.certificate.status
    assert there.certificate.standard_errors < 1e-8
    assert list(there.names) == list(here.names)
    assert (there.source.rows, there.source.dropped) == (here.source.rows, here.source.dropped)
    for kind, by in ERRORS:
        np.testing.assert_allclose(
            there.standard_errors(kind, by=by),
            here.standard_errors(kind, by=by),
            rtol=1e-9,
            err_msg=f"{kind} {by}",
        )
    clustered = [fit.degrees_of_freedom("cluster", by="id") for fit in (there, here)]
    np.testing.assert_array_equal(*clustered)
    for key, value in here.criteria.items():
        np.testing.assert_allclose(there.criteria[key], value, rtol=1e-10, err_msg=key)
    assert f"{engine.name}, streamed" in str(there.summary())


def check_frequencies(engine: Partitions, frame: pd.DataFrame) -> None:
    """Frequency weights, of which some are 0, and a prior."""
    settings = {"family": "poisson", "weights": "times", "solver": EXACT, "prior": th.priors.Normal(2.0)}
    here, there = (th.fit("y ~ x + g", data, **settings) for data in (frame, engine))
    np.testing.assert_allclose(there.theta, here.theta, rtol=1e-10)
    assert there.observations == here.observations == frame["times"].sum()


def check_budget(engine: Callable[[pd.DataFrame], Partitions], few: pd.DataFrame, many: pd.DataFrame) -> None:
    """What comes back depends on the parameters, the partitions and a sample of fixed size, not on the rows: the same to a
    tenth for eight times as many, and a tenth of these rows' own bytes."""
    returned = []
    for frame in (few, many):
        source = engine(frame)
        th.fit("y ~ x + z + g", source, "poisson").standard_errors("cluster", by="id")
        returned.append(source.bytes_returned)
    assert len(many) == 8 * len(few)
    assert abs(returned[1] / returned[0] - 1) < 0.1
    assert returned[1] < 0.1 * many.memory_usage(deep=True).sum()


def check_refusals(engine: Partitions) -> None:
    """What takes the rows themselves names what is accepted; an error on a worker is the library's own, with its row."""
    fit = th.fit("y ~ x", engine, "poisson")
    for ask in (fit.predict, fit.score, fit.residuals, lambda: fit.standard_errors("HC3")):
        with pytest.raises(th.errors.DataError, match=f"stay in the {engine.name}.*'cluster'"):
            ask()
    with pytest.raises(th.errors.BadArgument, match=r"'CR2'.*stay in an engine"):
        fit.standard_errors("CR2", by="id")
    for formula in ("y ~ s(x)", "y ~ x + (1 | g)", "Surv(w, y) ~ x"):
        with pytest.raises(th.errors.DataError, match=f"stay in the {engine.name}"):
            th.fit(formula, engine, "poisson" if formula[0] == "y" else "weibull")
    with pytest.raises(th.errors.BadFormula, match=r"scale\(x\).*learns from all rows"):
        th.fit("y ~ scale(x)", engine, "poisson")
    with pytest.raises(th.errors.OutOfSupport, match=r"row 0: t = .*Poisson"):
        th.fit("t ~ x", engine, "poisson")
    with pytest.raises(th.errors.UnknownColumn, match="Nearest: 'answer'"):
        th.fit("anwser ~ x", engine, "bernoulli")
    with pytest.raises(th.errors.UnknownColumn, match="'town'"):
        fit.standard_errors("cluster", by="town")
    with pytest.raises(th.errors.BadArgument, match="Filter them there"):
        th.fit("y ~ x", engine, "poisson", subset="x > 0")


def check_no_maximum(engine: Partitions) -> None:
    """Separated rows, and collinear columns, have no certificate here either."""
    with pytest.raises(th.errors.FitError):
        th.fit("I(1 * (x > 0)) ~ x", engine, "bernoulli")
    with pytest.raises(th.errors.FlatDirection, match=r"I\(2 \* x\)"):
        th.fit("y ~ x + I(2 * x)", engine, "poisson")


class Slowly:
    """The same work, in half a second a partition, by a process that leaves its number for as long as it is at it."""

    def __init__(self, work, folder: Path):
        self.work, self.folder = work, folder

    def __call__(self, k, parts):
        busy = self.folder / str(os.getpid())
        busy.touch()
        time.sleep(0.5)
        found = self.work(k, parts)
        busy.unlink()
        return found


def check_killed(engine: Callable[[pd.DataFrame], Partitions], folder: Path) -> None:
    """SIGKILL to a worker in the middle of its partition, in the fourth pass of a fit: the same bits, and the work of that
    process was never finished."""
    undisturbed = th.fit("y ~ x + z + g", engine(rows()), "poisson").theta
    source, passes, killed = engine(rows()), 0, []
    run = source.run

    def kill_one() -> None:
        busy: list[Path] = []
        until = time.monotonic() + 60
        while not busy and time.monotonic() < until:
            time.sleep(0.05)
            busy = list(folder.iterdir())
        killed.append(int(busy[0].name))
        os.kill(killed[0], signal.SIGKILL)

    def watched(work, columns):
        nonlocal passes
        passes += 1
        if passes != 4:
            return run(work, columns)
        threading.Thread(target=kill_one).start()
        return run(Slowly(work, folder), columns)

    source.run = watched
    disturbed = th.fit("y ~ x + z + g", source, "poisson").theta
    assert len(killed) == 1
    assert passes > 4
    assert [path.name for path in folder.iterdir()] == [str(killed[0])]
    assert bool((disturbed == undisturbed).all())
