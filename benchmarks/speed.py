"""Speed against the peers: python benchmarks/speed.py [work …] [--repeats 5].

Every contestant runs in a process of its own (so that its peak memory is its own), on the same seeded data,
one warm-up run and then the median of several. Accuracy is compared as the largest difference of coefficients
to ours. Results go to benchmarks/results/speed.md.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np

HERE = Path(__file__).parent
BARS = {  # work → peer → the largest ratio ours/peer that was set as the bar
    "logistic": {
        "glum": 1 / 5,
        "sklearn_newton": 1 / 2,
        "sklearn_lbfgs": 1 / 2,
        "statsmodels": 1 / 40,
        "gram": 6,
    },
    "poisson": {
        "glum": 1 / 5,
        "sklearn_newton": 1 / 2,
        "sklearn_lbfgs": 1 / 2,
        "statsmodels": 1 / 40,
        "gram": 6,
    },
    "claims": {"glum": 1 / 2},
    "claims, 5,000 levels": {"glum": 1 / 10},
    "negative binomial": {"statsmodels": 1 / 5},
    "student t": {"statsmodels_generic": 1 / 30},
    "small logistic": {"statsmodels_summary": 1},
}
OWN_BAR = 1 / 10  # Student's t as a likelihood of one's own
REPEATS = {"statsmodels": 2, "statsmodels_generic": 2, "statsmodels_helped": 2, "glum": 3}


def one(work: str, contestant: str, repeats: int) -> None:
    """In a child process: time it, print JSON."""
    import warnings

    from works import CONTESTS, WORKS

    warnings.simplefilter("ignore")
    run = next(c for c in CONTESTS[work] if c.__name__ == contestant)
    data = WORKS[work]()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        coefficients, value = run(data)
        times.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        json.dumps(
            {
                "seconds": median(times[1:]),
                "memory": (peak - before) * 1024,
                "coefficients": list(map(float, coefficients)),
                "value": value,
            }
        )
    )


def contest(work: str, repeats: int) -> list[dict]:
    from works import CONTESTS

    rows = []
    for run in CONTESTS[work]:
        name = run.__name__
        child = subprocess.run(
            [
                sys.executable,
                __file__,
                "--one",
                work,
                name,
                "--repeats",
                str(min(repeats, REPEATS.get(name, repeats))),
            ],
            capture_output=True,
            text=True,
            cwd=HERE,
            check=False,
        )
        if child.returncode:
            rows.append({"work": work, "who": name, "error": child.stderr.strip().splitlines()[-1]})
            continue
        rows.append({"work": work, "who": name} | json.loads(child.stdout.splitlines()[-1]))
        print(
            f"{work:24s} {name:22s} {rows[-1]['seconds']:9.3f} s  {rows[-1]['memory'] / 2**20:8.0f} MiB",
            flush=True,
        )
    return rows


def table(rows: list[dict]) -> str:
    out = [
        "| work | who | seconds | ours / theirs | bar | memory over the data, MiB | largest difference of "
        "coefficients |",
        "|---|---|---|---|---|---|---|",
    ]
    for work in dict.fromkeys(r["work"] for r in rows):
        group = [r for r in rows if r["work"] == work]
        ours = group[0]
        for r in group:
            if "error" in r:
                out.append(f"| {work} | {r['who']} | failed: {r['error']} | | | | |")
                continue
            own = r["who"].startswith("thetahat")
            ratio = ours["seconds"] / r["seconds"]
            bar = BARS.get(work, {}).get(r["who"])
            difference = ""
            if not own and len(r["coefficients"]) and r["who"] != "gram":
                k = min(len(r["coefficients"]), len(ours["coefficients"]))
                a, b = np.array(ours["coefficients"][:k]), np.array(r["coefficients"][:k])
                difference = f"{np.abs(a - b).max():.1e}"
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
                f"| {work} | {r['who']} | {r['seconds']:.4f} | {shown} | {met} | {r['memory'] / 2**20:.0f} | "
                f"{difference} |"
            )
    return "\n".join(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("works", nargs="*")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--one", nargs=2)
    arguments = parser.parse_args()
    if arguments.one:
        one(*arguments.one, arguments.repeats)
        return
    sys.path.insert(0, str(HERE))
    from works import CONTESTS

    rows = [row for work in arguments.works or CONTESTS for row in contest(work, arguments.repeats)]
    text = table(rows)
    print(text)
    if not arguments.works:
        head = "# Speed\n\nA machine of 2 cores and 24 GiB. Each row a process of its own; median of several runs after one warm-up.\n"
        head += "`python benchmarks/speed.py`\n\n"
        (HERE / "results" / "speed.md").write_text(head + text + "\n")


if __name__ == "__main__":
    main()
