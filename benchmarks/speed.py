"""Speed against the peers: python benchmarks/speed.py [work …] [--repeats 5] [--rows N] [--cpu] [--results FILE].

Every contestant runs in a process of its own (so that its peak memory is its own), on the same seeded data,
one warm-up run and then the median of several. Accuracy is compared as the largest difference of coefficients
to ours, or else of the log-likelihoods, relative. --rows takes so many rows of every work, --cpu counts seconds of
CPU instead of those of the wall: for a machine that does other things besides. Results of all works go to
benchmarks/results/speed.md. The peers, in the versions that are compared: pip install -c constraints.txt -r benchmarks/peers.txt
"""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

import numpy as np

from machine import machine

HERE = Path(__file__).parent
GLM = {"glum": 1 / 8, "sklearn_newton": 1 / 4, "sklearn_lbfgs": 1 / 4, "statsmodels": 1 / 40, "gram": 3}
FIXED_EFFECTS = {"pyfixest": 1 / 2}
AHEAD = 1.0
BARS = {  # work → peer → the largest ratio ours/peer that was set as the bar
    "logistic": GLM,
    "poisson": GLM,
    "claims": {"glum": 1 / 4},
    "claims, 5,000 levels": {"glum": 1 / 15},
    "negative binomial": {"statsmodels": 1 / 5},
    "student t": {"statsmodels_generic": 1 / 30},
    "small logistic": {"statsmodels_summary": 1 / 5},
    "gamma": {"glum": AHEAD, "sklearn_newton": AHEAD, "statsmodels_gamma": AHEAD},
    "Tweedie, power 1.5": {"glum": AHEAD, "sklearn_newton": AHEAD, "statsmodels_tweedie": AHEAD},
    "Tweedie, power estimated": {"statsmodels_tweedie": AHEAD},
    "ordinal": {"statsmodels_ordinal": AHEAD},
    "multinomial": {"sklearn_newton": AHEAD, "sklearn_lbfgs": AHEAD, "statsmodels_multinomial": AHEAD},
    "quantile": {
        "statsmodels_quantile": AHEAD,
        "pyfixest_quantile": AHEAD,
        "quantreg": AHEAD,
        "sklearn_quantile": AHEAD,
    },
    "zero-inflated negative binomial": {"statsmodels_zero_inflated": 1 / 5},
    "hurdle negative binomial": {"statsmodels_hurdle": 1 / 5},
    "two fixed effects, linear": FIXED_EFFECTS,
    "two fixed effects, Poisson": FIXED_EFFECTS,
    "three fixed effects, linear": FIXED_EFFECTS,
    "three fixed effects, Poisson": FIXED_EFFECTS,
    "difficult panel, linear": FIXED_EFFECTS,
    "difficult panel, Poisson": FIXED_EFFECTS,
}
OWN_BAR = 1 / 10  # Student's t as a likelihood of one's own
REPEATS = {
    "statsmodels": 2, "statsmodels_generic": 2, "statsmodels_helped": 2, "glum": 3, "sklearn_quantile": 1,
}  # fmt: skip
PACKAGES = {  # what a contestant's name begins with → the package whose version is written beside it
    "sklearn": "scikit-learn",
    "gram": "numpy",
}


def contests() -> tuple[dict, dict]:
    """Of all works: what makes the data, and who contends."""
    import works
    import works_effects
    import works_families

    modules = (works, works_families, works_effects)
    return (
        {name: make for module in modules for name, make in module.WORKS.items()},
        {name: who for module in modules for name, who in module.CONTESTS.items()},
    )


def release(contestant: str) -> str:
    """The version of the package that it is of; "": it is not installed."""
    first = contestant.split("_")[0]
    if first == "quantreg" and shutil.which("Rscript"):
        ask = 'cat("R", as.character(packageVersion("quantreg")))'
        return subprocess.run(["Rscript", "-e", ask], capture_output=True, text=True, check=False).stdout
    try:
        return version(PACKAGES.get(first, first))
    except PackageNotFoundError:
        return ""


def memory(peak: bool = False) -> int:
    """Bytes of this process now, from which on peaks count; or at its peak since."""
    gc.collect()
    status = Path("/proc/self/status").read_text().splitlines()
    found = {line.split(":")[0]: line.split(":")[1] for line in status}
    if not peak:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak begins anew
    return int(found["VmHWM" if peak else "VmRSS"].split()[0]) * 1024


def one(work: str, contestant: str, repeats: int, rows: int | None, cpu: bool) -> None:
    """In a child process: time it, print JSON."""
    import warnings

    sys.path.append(
        sys.path.pop(0)
    )  # this folder last: its coverage.py is not the package that numba imports
    works, contestants = contests()
    warnings.simplefilter("ignore")
    run = next(c for c in contestants[work] if c.__name__ == contestant)
    # a small one first: what a library loads is not what it needs for the data
    with suppress(Exception):
        run(works[work](2000))
    data = works[work]() if rows is None else works[work](rows)
    clock = time.process_time if cpu else time.perf_counter
    before, times = memory(), []
    for _ in range(repeats + 1):
        start = clock()
        coefficients, value, *own = run(data)  # own: the seconds of a fit that runs in another process
        times.append(own[0] if own else clock() - start)
    print(
        json.dumps(
            {
                "seconds": median(times[1:]),
                "memory": memory(peak=True) - before,
                "coefficients": list(map(float, coefficients)),
                "value": value,
            }
        )
    )


def contest(work: str, options: argparse.Namespace) -> list[dict]:
    rows = []
    for run in contests()[1][work]:
        name = run.__name__
        repeats = min(options.repeats, REPEATS.get(name, options.repeats))
        call = [sys.executable, __file__, "--one", work, name, "--repeats", str(repeats)]
        call += ["--cpu"] * options.cpu + (["--rows", str(options.rows)] if options.rows else [])
        rows.append({"work": work, "who": name, "version": release(name)})
        try:
            child = subprocess.run(call, capture_output=True, text=True, check=False, timeout=options.limit)
            lines = child.stderr.strip().splitlines() or [f"ended with {child.returncode}"]
            found = {"error": lines[-1]} if child.returncode else json.loads(child.stdout.splitlines()[-1])
        except subprocess.TimeoutExpired:
            found = {"error": f"not done within {options.limit:g} s"}
        rows[-1] |= found
        if "error" in found:
            print(f"{work:32s} {name:26s} {found['error']}", flush=True)
        else:
            print(
                f"{work:32s} {name:26s} {found['seconds']:9.3f} s  {found['memory'] / 2**20:8.0f} MiB",
                flush=True,
            )
    return rows


def distance(ours: dict, theirs: dict) -> str:
    """The largest difference of the coefficients that both have, or of the log-likelihoods, relative."""
    k = min(len(theirs["coefficients"]), len(ours["coefficients"]))
    if k:
        a, b = np.array(ours["coefficients"][:k]), np.array(theirs["coefficients"][:k])
        return f"{np.abs(a - b).max():.1e}"
    if ours["value"] is None or theirs["value"] is None:
        return ""
    return f"log-likelihood, relative: {abs(theirs['value'] / ours['value'] - 1):.1e}"


def table(rows: list[dict]) -> str:
    out = [
        "| work | who | version | seconds | ours / theirs | bar | memory over the data, MiB | largest difference of "
        "coefficients |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for work in dict.fromkeys(r["work"] for r in rows):
        group = [r for r in rows if r["work"] == work]
        ours = group[0]
        for r in group:
            if "error" in r:
                error = r["error"].replace("|", "/")
                out.append(f"| {work} | {r['who']} | {r['version']} | failed: {error} | | | | |")
                continue
            if "error" in ours:  # nothing to compare with
                out.append(f"| {work} | {r['who']} | {r['version']} | {r['seconds']:.4f} | | | | |")
                continue
            own = r["who"].startswith("thetahat")
            ratio = ours["seconds"] / r["seconds"]
            bar = BARS.get(work, {}).get(r["who"])
            difference = "" if own or r["who"] == "gram" else distance(ours, r)
            shown = "" if own else f"{ratio:.3f}"
            met = "" if bar is None else f"{bar:.3g} {'met' if ratio <= bar else 'MISSED'}"
            if r["who"] == "thetahat_own":
                generic = next(
                    (q for q in group if q["who"] == "statsmodels_generic" and "seconds" in q), None
                )
                if generic:
                    mine = r["seconds"] / generic["seconds"]
                    shown, met = (
                        f"{mine:.3f} of statsmodels_generic",
                        f"{OWN_BAR:.3g} {'met' if mine <= OWN_BAR else 'MISSED'}",
                    )
            out.append(
                f"| {work} | {r['who']} | {r['version']} | {r['seconds']:.4f} | {shown} | {met} | {r['memory'] / 2**20:.0f} | "
                f"{difference} |"
            )
    return "\n".join(out)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("works", nargs="*")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", type=int, help="of every work; for a try")
    parser.add_argument("--cpu", action="store_true", help="CPU seconds instead of elapsed seconds")
    parser.add_argument("--limit", type=float, default=1800, help="seconds of one contestant")
    parser.add_argument("--results", type=Path, help="a file for the table")
    parser.add_argument("--one", nargs=2)
    options = parser.parse_args()
    if options.one:
        one(*options.one, options.repeats, options.rows, options.cpu)
        return
    known = contests()[1]
    unknown = [work for work in options.works if work not in known]
    if unknown:
        parser.error(f"there is no work {unknown[0]!r}. Works: {', '.join(known)}.")
    rows = [row for work in options.works or known for row in contest(work, options)]
    text = table(rows)
    print(text)
    whole = not options.works and options.rows is None
    file = options.results or (HERE / "results" / "speed.md" if whole else None)
    if file:
        clock = "CPU seconds" if options.cpu else "Elapsed seconds"
        head = f"# Speed\n\n{machine()} {clock}. Each row a process of its own; median of several runs after one warm-up.\n"
        file.write_text(f"{head}`python benchmarks/speed.py`\n\n{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
