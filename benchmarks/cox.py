"""Cox's model on a million rows beside R's coxph and lifelines: python benchmarks/cox.py [--rows 1000000] [--results FILE].

Seeded data of ten columns, about 60 % of them events; without ties, and with times rounded so that there are 3,000
distinct ones. The time is that of the fit from a data frame, errors included, the median of several after a warm-up. R
runs where Rscript and its package survival are (without timefix, which takes times nearer than 1.5e-8 as tied),
lifelines where it can be imported. Results go to
benchmarks/results/cox.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd

import thetahat as th

HERE = Path(__file__).parent
COLUMNS = [f"x{j}" for j in range(10)]
R = """
suppressMessages(library(survival)); d <- read.csv("{path}"); s <- c()
for (i in 1:{repeats}) s <- c(s, system.time(f <- coxph(Surv(time, event) ~ {terms}, d, control = coxph.control(timefix = FALSE)))["elapsed"])
cat(format(c(median(s), f$loglik[2], coef(f)), digits = 17))
"""


def data(rows: int, ties: bool) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(rows, len(COLUMNS)))
    time_ = -np.log(rng.uniform(size=rows)) * np.exp(-X @ np.linspace(-0.5, 0.5, len(COLUMNS)))
    censored = rng.exponential(1.5, size=rows)
    seen = np.minimum(time_, censored)
    frame = pd.DataFrame(X, columns=COLUMNS)
    return frame.assign(time=np.ceil(seen * 1000) / 1000 if ties else seen, event=(time_ <= censored) * 1.0)


def ours(frame: pd.DataFrame, repeats: int) -> tuple[float, float, np.ndarray]:
    def run() -> th.Fit:
        fit = th.fit(f"Surv(time, event) ~ {' + '.join(COLUMNS)}", frame, family="cox")
        fit.standard_errors()
        return fit

    seconds, fit = timed(run, repeats)
    return seconds, fit.log_likelihood, fit.estimates.to_numpy()


def coxph(frame: pd.DataFrame, repeats: int) -> tuple[float, float, np.ndarray] | None:
    if shutil.which("Rscript") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.csv"
        frame.to_csv(path, index=False)
        script = R.format(path=path, repeats=repeats, terms=" + ".join(COLUMNS))
        said = subprocess.run(["Rscript", "-e", script], capture_output=True, text=True, check=False)
    if said.returncode:
        return None
    seconds, value, *beta = map(float, said.stdout.split())
    return seconds, value, np.array(beta)


def lifelines(frame: pd.DataFrame, repeats: int) -> tuple[float, float, np.ndarray] | None:
    if importlib.util.find_spec("lifelines") is None:
        return None
    from lifelines import CoxPHFitter

    seconds, fit = timed(lambda: CoxPHFitter().fit(frame, "time", "event"), repeats)
    return seconds, fit.log_likelihood_, fit.params_.to_numpy()


def timed(run: Callable, repeats: int) -> tuple[float, object]:  # type: ignore[type-arg]
    found = run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        found = run()
        times.append(time.perf_counter() - start)
    return median(times), found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--results", type=Path, default=HERE / "results" / "cox.md")
    arguments = parser.parse_args()
    lines = [
        "| times | who | seconds | theirs / ours | log-likelihood less ours | largest difference of coefficients |"
    ]
    lines.append("|---|---|---|---|---|---|")
    for ties in (False, True):
        frame = data(arguments.rows, ties)
        mine = ours(frame, arguments.repeats)
        what = "3,000 distinct" if ties else "all distinct"
        lines.append(f"| {what} | thetahat | {mine[0]:.2f} | | | |")
        for peer in (coxph, lifelines):
            other = peer(frame, arguments.repeats)
            if other is None:
                lines.append(f"| {what} | {peer.__name__} | not installed | | | |")
                continue
            apart = np.abs(other[2] - mine[2]).max()
            lines.append(
                f"| {what} | {peer.__name__} | {other[0]:.2f} | {other[0] / mine[0]:.1f} | {other[1] - mine[1]:.1e} | {apart:.1e} |"
            )
        print("\n".join(lines), flush=True)
    head = f"# Cox's model\n\n{arguments.rows:,} rows × {len(COLUMNS)} columns, Efron's ties. `python benchmarks/cox.py`\n\n"
    arguments.results.write_text(head + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
