"""Mixed models, smooth terms and Cox's model beside R, on the same data in one run: CPU seconds, and log-likelihoods.

    python benchmarks/mixed.py --data FOLDER [--only NAME] [--rounds 3]

FOLDER holds InstEval.csv and VerbAgg.csv of lme4; the other data are drawn. R is called by `Rscript`, with lme4, glmmTMB, mgcv and survival;
where it is absent ours run alone. Reading the file is not timed on either side. Ratios are ours over R's. CPU seconds (user and system, of
all threads) are what a busy machine leaves comparable; OMP_NUM_THREADS=1 gives both sides one thread, and --wall takes elapsed seconds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

import thetahat as th


def inst_eval(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "InstEval.csv", dtype={"s": str, "d": str, "service": str, "dept": str})


def verb_agg(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "VerbAgg.csv")


def slopes(folder: Path) -> pd.DataFrame:
    g = np.random.default_rng(0)
    n, groups = 1_000_000, 125_000
    code, x = np.repeat(np.arange(groups), n // groups), g.normal(size=n)
    y = (
        1
        + 0.5 * x
        + 0.7 * g.normal(size=groups)[code]
        + 0.3 * g.normal(size=groups)[code] * x
        + g.normal(size=n)
    )
    return pd.DataFrame({"y": y, "x": x, "g": code})


def zero_inflated(folder: Path) -> pd.DataFrame:
    g = np.random.default_rng(1)
    n = 100_000
    a, b, x, z = g.integers(0, 2000, n), g.integers(0, 100, n), g.normal(size=n), g.normal(size=n)
    mean = np.exp(0.5 + 0.3 * x + 0.2 * z + 0.5 * g.normal(size=2000)[a] + 0.3 * g.normal(size=100)[b])
    y = g.poisson(mean * g.gamma(2, 0.5, n)) * (g.random(n) > 0.2)
    return pd.DataFrame({"y": y, "x": x, "z": z, "a": a, "b": b})


def nested(folder: Path) -> pd.DataFrame:
    """800 districts of 40 schools of 6 classes of 2 pupils: 32,800 columns beside the classes."""
    g = np.random.default_rng(4)
    code = np.arange(800 * 40 * 6 * 2) // 2
    school, district = code // 6, code // 240
    x = g.normal(size=len(code))
    eta = 1 + 0.5 * x + 0.8 * g.normal(size=code[-1] + 1)[code] + 0.6 * g.normal(size=school[-1] + 1)[school]
    eta += 0.4 * g.normal(size=800)[district]
    y, k = eta + g.normal(size=len(x)), g.poisson(np.exp(0.5 * eta))
    return pd.DataFrame({"y": y, "k": k, "x": x, "district": district, "school": school, "class": code})


def crossed(folder: Path) -> pd.DataFrame:
    """200 towns of 300 patients and 200 doctors, of whom patients know three or four."""
    g = np.random.default_rng(5)
    town = g.integers(0, 200, 200_000)
    patient, doctor = town * 300 + g.integers(0, 300, len(town)), town * 200 + g.integers(0, 200, len(town))
    x = g.normal(size=len(town))
    y = 1 + 0.5 * x + 0.8 * g.normal(size=60_000)[patient] + 0.6 * g.normal(size=40_000)[doctor]
    return pd.DataFrame({"y": y + g.normal(size=len(x)), "x": x, "patient": patient, "doctor": doctor})


def curves(folder: Path, rows: int = 100_000) -> pd.DataFrame:
    g = np.random.default_rng(2)
    x = g.random((rows, 4))
    f = np.sin(6 * x[:, 0]) + (2 * x[:, 1] - 1) ** 2 + np.exp(x[:, 2])
    table = pd.DataFrame(x, columns=["a", "b", "c", "d"])
    return table.assign(y=f + g.normal(size=len(f)), k=g.poisson(np.exp(0.5 * f)))


def many_curves(folder: Path) -> pd.DataFrame:
    return curves(folder, 1_000_000)


def hazards(folder: Path) -> pd.DataFrame:
    g = np.random.default_rng(3)
    n = 1_000_000
    X = g.normal(size=(n, 10))
    t, c = g.exponential(np.exp(-X @ np.linspace(-0.5, 0.5, 10))), g.exponential(2, n)
    return pd.DataFrame(X, columns=[f"x{i}" for i in range(10)]).assign(
        time=np.minimum(t, c), event=(t <= c).astype(int)
    )


SMOOTH = "s(a, bs='cr') + s(b, bs='cr') + s(c, bs='cr') + s(d, bs='cr')"
COX = "Surv(time, event) ~ " + " + ".join(f"x{i}" for i in range(10))
TASKS = {
    "InstEval": (
        inst_eval,
        ("y ~ service*dept + (1 | s) + (1 | d)", {}),
        "lmer(y ~ service*dept + (1|s) + (1|d), transform(d, s=factor(s), d=factor(d), service=factor(service), dept=factor(dept)), REML=FALSE)",
    ),
    "VerbAgg": (
        verb_agg,
        ("r2 ~ Anger + Gender + btype + situ + (1 | id) + (1 | item)", {"family": "bernoulli"}),
        "glmer(factor(r2) ~ Anger + Gender + btype + situ + (1|id) + (1|item), d, binomial)",
    ),
    "slopes": (slopes, ("y ~ x + (x | g)", {}), "lmer(y ~ x + (x|g), d, REML=FALSE)"),
    "nested": (
        nested,
        ("y ~ x + (1 | district) + (1 | school) + (1 | class)", {}),
        "lmer(y ~ x + (1|district) + (1|school) + (1|class), d, REML=FALSE)",
    ),
    "nested_poisson": (
        nested,
        ("k ~ x + (1 | district) + (1 | school) + (1 | class)", {"family": "poisson"}),
        "glmer(k ~ x + (1|district) + (1|school) + (1|class), d, poisson)",
    ),
    "crossed": (
        crossed,
        ("y ~ x + (1 | patient) + (1 | doctor)", {}),
        "lmer(y ~ x + (1|patient) + (1|doctor), d, REML=FALSE)",
    ),
    "zero_inflated": (
        zero_inflated,
        ("y ~ x + z + (1 | a) + (1 | b)", {"family": "zero_inflated(negative_binomial)"}),
        "glmmTMB(y ~ x + z + (1|a) + (1|b), d, family=nbinom2, ziformula=~1)",
    ),
    "gam_normal": (curves, (f"y ~ {SMOOTH}", {"reml": True}), f"bam(y ~ {SMOOTH}, data=d, discrete=TRUE)"),
    "gam_poisson": (
        curves,
        (f"k ~ {SMOOTH}", {"family": "poisson", "reml": True}),
        f"bam(k ~ {SMOOTH}, data=d, family=poisson, discrete=TRUE)",
    ),
    "gam_normal_1e6": (
        many_curves,
        (f"y ~ {SMOOTH}", {"reml": True}),
        f"bam(y ~ {SMOOTH}, data=d, discrete=TRUE)",
    ),
    "gam_poisson_1e6": (
        many_curves,
        (f"k ~ {SMOOTH}", {"family": "poisson", "reml": True}),
        f"bam(k ~ {SMOOTH}, data=d, family=poisson, discrete=TRUE)",
    ),
    "cox": (hazards, (COX, {"family": "cox"}), f"coxph({COX}, d)"),
}
SCRIPT = """
suppressMessages({library(lme4); library(glmmTMB); library(mgcv); library(survival); library(jsonlite)})
d <- read.csv("FILE")
seconds <- numeric(0)
for (i in 1:ROUNDS) { t <- system.time(m <- suppressWarnings(CALL)); seconds <- c(seconds, CLOCK) }
cat(toJSON(list(seconds = seconds, logLik = as.numeric(logLik(m))), digits = 12, auto_unbox = TRUE))
"""


def ours(
    data: pd.DataFrame, formula: str, settings: dict[str, object], rounds: int, wall: bool
) -> tuple[float, float]:
    seconds, value = [], 0.0
    clock = time.perf_counter if wall else time.process_time
    for _ in range(rounds):
        start = clock()
        fit = th.fit(formula, data, **settings)
        seconds.append(clock() - start)
        value = fit.maximised
    return statistics.median(seconds), value


def theirs(data: pd.DataFrame, call: str, rounds: int, wall: bool) -> tuple[float, float] | None:
    if shutil.which("Rscript") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "d.csv"
        data.to_csv(file, index=False)
        script = SCRIPT.replace("FILE", str(file)).replace("ROUNDS", str(rounds)).replace("CALL", call)
        script = script.replace("CLOCK", 't[["elapsed"]]' if wall else "sum(t[1:2])")
        out = subprocess.run(["Rscript", "-e", script], capture_output=True, text=True, check=True).stdout
    found = json.loads(out[out.index("{") :])
    seconds = found["seconds"]
    return statistics.median(seconds if isinstance(seconds, list) else [seconds]), float(found["logLik"])


def of_pygam(name: str, data: pd.DataFrame, wall: bool) -> float | None:
    """Seconds of pyGAM, which chooses its smoothing by a search over a grid (its own default: 11 values, one for all
    terms)."""
    try:
        from pygam import LinearGAM, PoissonGAM, s
    except ImportError:
        return None
    model, response = (LinearGAM, "y") if "normal" in name else (PoissonGAM, "k")
    clock = time.perf_counter if wall else time.process_time
    start = clock()
    model(s(0) + s(1) + s(2) + s(3)).gridsearch(
        data[list("abcd")].to_numpy(), data[response].to_numpy(), progress=False
    )
    return clock() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", choices=TASKS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pygam", action="store_true", help="of smooth terms, pyGAM's seconds too")
    parser.add_argument("--wall", action="store_true", help="elapsed seconds instead of CPU seconds")
    options = parser.parse_args()
    print("| work | ours (s) | R (s) | ratio | ours, log-likelihood | R's |\n|---|---|---|---|---|---|")
    for name, (draw, (formula, settings), call) in TASKS.items():
        if options.only not in (None, name):
            continue
        data = draw(options.data)
        seconds, value = ours(data, formula, settings, options.rounds, options.wall)
        if options.pygam and name.startswith("gam"):
            print(f"pyGAM: {of_pygam(name, data, options.wall)} s", flush=True)
        peer = theirs(data, call, options.rounds, options.wall)
        if peer is None:
            print(f"| {name} | {seconds:.2f} | | | {value:.6f} | |", flush=True)
        else:
            print(
                f"| {name} | {seconds:.2f} | {peer[0]:.2f} | {seconds / peer[0]:.2f} | {value:.6f} | {peer[1]:.6f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
