"""Python packages of mixed models, smooth terms and Cox's model beside this one, on the same data.

    python benchmarks/python_peers.py --data FOLDER --peers PYTHON [--only WORK ...] [--limit 180]

FOLDER holds InstEval.csv and VerbAgg.csv of lme4; the other data are those of mixed.py, drawn. PYTHON is an interpreter that has the peers, so
that their dependencies need not agree with ours. Each fit is a process of its own, with one thread; its seconds are CPU seconds, without
reading the data and importing the package, but with the standard errors of the coefficients. A fit under ten seconds is done twice, and the
second counts. A fit that takes more than the limit is ended: "more than 180 s" is a result, as is an error, of which the first line is printed.
"Error" is the root mean square distance to the truth that drew the data: of the fitted mean (smooth terms) or of the coefficients (Cox). A
ratio is ours over the peer's. R's bam runs by `Rscript` where there is one, once, the covariance of its coefficients with the fit.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SMOOTH = "s(a, bs='cr') + s(b, bs='cr') + s(c, bs='cr') + s(d, bs='cr')"
COVARIATES = [f"x{i}" for i in range(10)]
CROSSED = {"InstEval": ("s", "d"), "VerbAgg": ("id", "item")}
FIXED = {"InstEval": "y ~ service*dept", "VerbAgg": "r ~ Anger + Gender + btype + situ"}
MIXED = {work: FIXED[work] + "".join(f" + (1 | {g})" for g in groups) for work, groups in CROSSED.items()}
SLOPES = "y ~ x + (x | g)"
RESPONSE = {"normal": "y", "poisson": "k"}


@dataclass
class Fit:
    """A fit that is to be timed, and what is asked of it afterwards, untimed."""

    run: Callable[[], Any]
    value: Callable[[Any], float | None]
    fitted: Callable[[Any], Any] | None = None
    remark: str = ""


@dataclass
class Task:
    """The work, the family of smooth terms where it has them, the data, and the packages that are asked."""

    work: str
    kind: str
    peers: list[str]
    rows: int | None = None
    family: str = "normal"


LMM = ["glmm", "mixedlm", "interlace-lme", "lme-python", "statsmodels"]
GAM = ["gamfit", "mgcv-rust", "pygam"]
TASKS = {
    "cox": Task("Cox, 1e6 × 10, Efron", "cox", ["coxstream", "lifelines"]),
    "gam_normal": Task("four s(), 1e5 rows, normal", "gam", GAM, 100_000),
    "gam_poisson": Task("four s(), 1e5 rows, Poisson", "gam", GAM, 100_000, "poisson"),
    "VerbAgg": Task("VerbAgg, Bernoulli, two crossed factors", "VerbAgg", LMM),
    "InstEval": Task("InstEval, ML, two crossed factors", "InstEval", LMM),
    "slopes": Task("random slopes, 1e6 rows, ML", "slopes", LMM, 1_000_000),
    "gam_normal_1e6": Task("four s(), 1e6 rows, normal", "gam", GAM, 1_000_000),
    "gam_poisson_1e6": Task("four s(), 1e6 rows, Poisson", "gam", GAM, 1_000_000, "poisson"),
    "slopes_1e5": Task("random slopes, 1e5 rows, ML", "slopes", LMM, 100_000),
}
AGAIN = 10.0  # a fit of fewer seconds is done twice: the first of a process also loads what it needs
# The standard errors of the coefficients belong to the work: some compute them with the fit, others when they are asked for.
ERRORS: dict[str, Callable[[Any], Any]] = {
    "thetahat": lambda m: m.standard_errors(),
    "glmm": lambda m: m.se,
    "mixedlm": lambda m: m.vcov(),
    "interlace-lme": lambda m: m.fe_bse,
    "lme-python": lambda m: m.std_errors,
    "statsmodels": lambda m: m.bse_fe,
    "gamfit": lambda m: m.summary(),
    "mgcv-rust": lambda m: m.vcov_,
    "pygam": lambda m: m.statistics_["se"],
    "coxstream": lambda m: m.standard_errors_,
    "lifelines": lambda m: m.standard_errors_,
}
MODULES = {"interlace-lme": "interlace", "lme-python": "lme_python", "mgcv-rust": "mgcv_rust"}


# What each package is asked: in its own documented words, with its own defaults where the work does not say otherwise.


def of_thetahat(task: Task, d: pd.DataFrame, th: Any) -> Fit:
    formula, settings = {
        "InstEval": (MIXED["InstEval"], {}),
        "VerbAgg": (MIXED["VerbAgg"], {"family": "bernoulli"}),
        "slopes": (SLOPES, {}),
        "gam": (f"{RESPONSE[task.family]} ~ {SMOOTH}", {"family": task.family, "reml": True}),
        "cox": ("Surv(time, event) ~ " + " + ".join(COVARIATES), {"family": "cox"}),
    }[task.kind]
    fitted = {"gam": lambda m: m.predict(d), "cox": lambda m: m.estimates}.get(task.kind)
    remark = "restricted log-likelihood" if task.kind == "gam" else ""
    return Fit(lambda: th.fit(formula, d, **settings), lambda m: m.maximised, fitted, remark)


def of_glmm(task: Task, d: pd.DataFrame, glmm: Any) -> Fit:
    if task.kind == "VerbAgg":
        return Fit(lambda: glmm.fit(d, MIXED["VerbAgg"], "binomial"), lambda m: m.loglik)
    formula = MIXED.get(task.kind, SLOPES)
    return Fit(
        lambda: glmm.fit(d, formula, reml=False, satterthwaite=False),
        lambda m: m.loglik,
        remark="without Satterthwaite's degrees of freedom",
    )


def of_mixedlm(task: Task, d: pd.DataFrame, mixedlm: Any) -> Fit:
    def value(m: Any) -> float:
        return float(m.logLik().value)

    if task.kind == "VerbAgg":
        binomial = mixedlm.families.Binomial()
        return Fit(lambda: mixedlm.glmer(MIXED["VerbAgg"], d, family=binomial), value)
    return Fit(lambda: mixedlm.lmer(MIXED.get(task.kind, SLOPES), d, REML=False), value)


def of_interlace(task: Task, d: pd.DataFrame, interlace: Any) -> Fit:
    def value(m: Any) -> float:
        return float(m.llf)

    if task.kind == "slopes":
        return Fit(lambda: interlace.fit("y ~ x", d, random=["(1 + x | g)"], method="ML"), value)
    fixed, groups = FIXED[task.kind], list(CROSSED[task.kind])
    if task.kind == "VerbAgg":
        return Fit(lambda: interlace.glmer(fixed, d, family="binomial", groups=groups), value)
    return Fit(lambda: interlace.fit(fixed, d, groups=groups, method="ML"), value)


def of_lme_python(task: Task, d: pd.DataFrame, lme: Any) -> Fit:
    polars = importlib.import_module("polars")
    table = polars.DataFrame({name: d[name].to_list() for name in d})
    if task.kind == "VerbAgg":
        return Fit(lambda: lme.glmer(MIXED["VerbAgg"], table, "binomial"), lambda m: m.log_likelihood)
    formula = MIXED.get(task.kind, SLOPES)
    return Fit(lambda: lme.lmer(formula, table, reml=False), lambda m: m.log_likelihood)


def of_statsmodels(task: Task, d: pd.DataFrame, _: Any) -> Fit:
    """Crossed factors as its documentation has them: all rows one group, each factor a variance component."""
    if task.kind == "VerbAgg":
        raise NotImplementedError(
            "not possible: its binomial mixed model is Bayesian, without maximum likelihood"
        )
    api = importlib.import_module("statsmodels.formula.api")
    if task.kind == "slopes":
        return Fit(
            lambda: api.mixedlm("y ~ x", d, groups="g", re_formula="~x").fit(reml=False), lambda m: m.llf
        )
    d = d.assign(all=1)
    parts = {g: f"0 + C({g})" for g in CROSSED[task.kind]}
    return Fit(
        lambda: api.mixedlm(
            FIXED[task.kind], d, groups="all", vc_formula=parts, re_formula="0", use_sparse=True
        ).fit(reml=False),
        lambda m: m.llf,
    )


def of_gamfit(task: Task, d: pd.DataFrame, gamfit: Any) -> Fit:
    y = RESPONSE[task.family]
    d = d[[*"abcd", y]]
    family = "gaussian" if task.family == "normal" else "poisson"
    return Fit(
        lambda: gamfit.fit(d, f"{y} ~ s(a) + s(b) + s(c) + s(d)", family=family),
        lambda m: m.log_likelihood() if callable(m.log_likelihood) else m.log_likelihood,
        lambda m: m.predict(d),
        "log-likelihood of the penalised fit; its own basis",
    )


def of_mgcv_rust(task: Task, d: pd.DataFrame, mgcv_rust: Any) -> Fit:
    X, y = d[list("abcd")], d[RESPONSE[task.family]].astype(float)
    family = "gaussian" if task.family == "normal" else "poisson"
    return Fit(
        lambda: mgcv_rust.Gam(family=family, method="REML").fit(X, y),
        lambda m: None,
        lambda m: m.predict(X),
        "cr, k = 10, as ours; no log-likelihood reported",
    )


def of_pygam(task: Task, d: pd.DataFrame, pygam: Any) -> Fit:
    model = pygam.LinearGAM if task.family == "normal" else pygam.PoissonGAM
    terms = pygam.s(0) + pygam.s(1) + pygam.s(2) + pygam.s(3)
    X, y = d[list("abcd")].to_numpy(), d[RESPONSE[task.family]].to_numpy()
    return Fit(
        lambda: model(terms).gridsearch(X, y, progress=False),
        lambda m: float(m.statistics_["loglikelihood"]),
        lambda m: m.predict(X),
        "gridsearch, one smoothing parameter of 11 values; log-likelihood of the penalised fit",
    )


def of_coxstream(task: Task, d: pd.DataFrame, coxstream: Any) -> Fit:
    t, e, X = d["time"].to_numpy(), d["event"].to_numpy(), d[COVARIATES].to_numpy()
    return Fit(
        lambda: coxstream.CoxStream().fit(t, e, X),
        lambda m: None,
        lambda m: m.coef_,
        "no log-likelihood reported",
    )


def of_lifelines(task: Task, d: pd.DataFrame, lifelines: Any) -> Fit:
    return Fit(
        lambda: lifelines.CoxPHFitter().fit(d, "time", "event"),
        lambda m: m.log_likelihood_,
        lambda m: m.params_,
    )


ASKED: dict[str, Callable[[Task, pd.DataFrame, Any], Fit]] = {
    "thetahat": of_thetahat,
    "glmm": of_glmm,
    "mixedlm": of_mixedlm,
    "interlace-lme": of_interlace,
    "lme-python": of_lme_python,
    "statsmodels": of_statsmodels,
    "gamfit": of_gamfit,
    "mgcv-rust": of_mgcv_rust,
    "pygam": of_pygam,
    "coxstream": of_coxstream,
    "lifelines": of_lifelines,
}


def truth(task: Task, d: pd.DataFrame) -> Any:
    """What drew the data: the mean of each row (`curves` of mixed.py) or Cox's coefficients (`hazards`)."""
    if task.kind == "cox":
        return np.linspace(-0.5, 0.5, len(COVARIATES))
    f = np.sin(6 * d["a"]) + (2 * d["b"] - 1) ** 2 + np.exp(d["c"])
    return np.asarray(f if task.family == "normal" else np.exp(0.5 * f))


def timed(run: Callable[[], Any], errors: Callable[[Any], Any]) -> tuple[Any, float]:
    start = time.process_time()
    model = run()
    errors(model)
    return model, time.process_time() - start


def fit_here(package: str, task: Task, file: Path, limit: int, memory: int) -> dict[str, Any]:
    """In a process of its own: read, import, and then the fit under the limit of CPU seconds."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (memory << 30, memory << 30))
    with np.load(file) as columns:
        d = pd.DataFrame({name: columns[name] for name in columns.files})
    asked = ASKED[package](task, d, importlib.import_module(MODULES.get(package, package)))
    end = int(time.process_time()) + limit + 1
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (end, most))
    model, first = timed(asked.run, ERRORS[package])
    resource.setrlimit(resource.RLIMIT_CPU, (most, most))
    seconds = first
    if first < AGAIN:
        model, seconds = timed(asked.run, ERRORS[package])
    value = asked.value(model)
    result: dict[str, Any] = {"seconds": seconds, "first": first, "value": value, "remark": asked.remark}
    if asked.fitted is not None:
        off = np.asarray(asked.fitted(model), dtype=float) - truth(task, d)
        result["error"] = float(np.sqrt(np.mean(off**2)))
    return result


def fit_there(python: str, package: str, name: str, file: Path, limit: int, memory: int) -> dict[str, Any]:
    """The same in the interpreter `python`; elapsed seconds are limited too, at four times those of the CPU."""
    command = [python, __file__, "--fit", package, "--only", name, "--file", str(file)]
    command += ["--limit", str(limit), "--memory", str(memory)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    environment |= {"POLARS_MAX_THREADS": "1"}
    more = {"remark": f"more than {limit} s"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=4 * limit, check=False
        )
    except subprocess.TimeoutExpired:
        return more
    if done.returncode == -signal.SIGXCPU:
        return more
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        ended = (done.stderr.strip().splitlines() or ["no message"])[0]
        return {"remark": f"ended with status {done.returncode}: {ended}"}
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def data_of(task: Task, mixed: Any, folder: Path) -> pd.DataFrame:
    if task.kind == "gam":
        return mixed.curves(folder, task.rows)
    if task.kind == "VerbAgg":
        table = mixed.verb_agg(folder).astype({"id": str})
        return table.assign(r=(table["r2"] == "Y").astype(float)).drop(columns=["resp", "mode", "r2"])
    if task.kind == "InstEval":
        columns = ["s", "d", "service", "dept", "y"]
        return mixed.inst_eval(folder)[columns].astype({"y": float})
    if task.kind == "slopes":
        return mixed.slopes(folder)[: task.rows]  # whole groups: 8 rows each
    return mixed.hazards(folder)


def version(python: str, package: str) -> str:
    ask = f"import importlib.metadata as m; print(m.version({package!r}))"
    done = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "absent"


def line(work: str, package: str, found: dict[str, Any], ours: float | None) -> str:
    seconds = found.get("seconds")
    ratio = "" if None in (seconds, ours) else f"{ours / seconds:.3g}"
    value, error = found.get("value"), found.get("error")
    return " | ".join(
        [
            f"| {work}",
            package,
            "" if seconds is None else f"{seconds:.2f}",
            f"{found['first']:.2f}" if "first" in found else "",
            "" if value is None else f"{value:.6f}",
            "" if error is None else f"{error:.5f}",
            ratio,
            f"{found['remark']} |",
        ]
    )


def compare(name: str, options: argparse.Namespace) -> None:
    import mixed

    task = TASKS[name]
    data = data_of(task, mixed, options.data)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "data.npz"
        texts = data.select_dtypes(exclude="number")
        np.savez(file, **{c: data[c].to_numpy(dtype=str if c in texts else None) for c in data})
        limits = (name, file, options.limit, options.memory)
        found = fit_there(sys.executable, "thetahat", *limits)
        ours = found.get("seconds")
        print(line(task.work, "ours", found, None), flush=True)
        for package in [peer for peer in task.peers if options.packages is None or peer in options.packages]:
            known = version(options.peers, package)
            if known == "absent":
                found = {"remark": "not installed"}
            else:
                found = fit_there(options.peers, package, *limits)
            print(line(task.work, f"{package} {known}", found, ours), flush=True)
    if task.kind == "gam" and "R" in (options.packages or ["R"]) and shutil.which("Rscript"):
        family = "" if task.family == "normal" else ", family=poisson"
        call = f"bam({RESPONSE[task.family]} ~ {SMOOTH}, data=d{family}, discrete=TRUE)"
        seconds, value = mixed.theirs(data, call, 1, False)
        remark = "log-likelihood of the penalised fit"
        found = {"seconds": seconds, "value": value, "remark": remark}
        print(line(task.work, "R, mgcv::bam(discrete=TRUE)", found, ours), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--peers", default=sys.executable, help="the interpreter that has the peers")
    parser.add_argument("--only", choices=TASKS, nargs="+", default=list(TASKS))
    parser.add_argument("--packages", choices=[*ASKED, "R"], nargs="+", help="only these, besides ours")
    parser.add_argument("--limit", type=int, default=180, help="CPU seconds of one fit")
    parser.add_argument("--memory", type=int, default=8, help="GiB of address space of one process")
    parser.add_argument("--fit", choices=ASKED, help="in the process of one fit: its package")
    parser.add_argument("--file", type=Path, help="in the process of one fit: its data")
    options = parser.parse_args()
    if options.fit:
        try:
            task = TASKS[options.only[0]]
            found = fit_here(options.fit, task, options.file, options.limit, options.memory)
        except Exception as error:
            first = (str(error).strip().splitlines() or [""])[0]
            found = {"remark": f"{type(error).__name__}: {first}"}
        print(json.dumps(found), flush=True)
        return
    print(
        "| work | package | seconds | first fit | log-likelihood | error | ratio | remark |\n|---|---|---|---|---|---|---|---|"
    )
    for name in options.only:
        compare(name, options)


if __name__ == "__main__":
    main()
