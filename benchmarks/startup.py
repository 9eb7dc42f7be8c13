"""How long a new process takes: python benchmarks/startup.py. `import thetahat` beside `import torch`; and to the summary of its first
fit, a logistic regression of 1,000 × 5, beside statsmodels (where it is installed)."""

from __future__ import annotations

import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from statistics import median

BAR, FIRST = 1.3, 1 / 5
DATA = """
import numpy as np, pandas as pd
r = np.random.default_rng(0)
d = pd.DataFrame({f"x{j}": r.normal(size=1000) for j in range(5)} | {"y": (r.random(1000) < 0.5).astype(float)})
"""
OURS = DATA + 'import thetahat as th; str(th.fit("y ~ x0 + x1 + x2 + x3 + x4", d, "bernoulli").summary())'
THEIRS = (
    DATA
    + 'import statsmodels.formula.api as s; str(s.logit("y ~ x0 + x1 + x2 + x3 + x4", d).fit(disp=0).summary())'
)


def seconds(code: str, repeats: int = 9) -> float:
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        times.append(time.perf_counter() - start)
    return median(times[1:])


def rows(ours: tuple[str, float], theirs: tuple[str, float], bar: float) -> str:
    ratio = ours[1] / theirs[1]
    met = "met" if ratio <= bar else "MISSED"
    return f"| {ours[0]} | {ours[1]:.3f} | {ratio:.2f} | {bar:g} {met} |\n| {theirs[0]} | {theirs[1]:.3f} | | |\n"


def main() -> None:
    text = (
        "# Start-up\n\n`python benchmarks/startup.py`, interpreter's start included, median of nine\n\n"
        "| a new process | seconds | ratio | bar |\n|---|---|---|---|\n"
    ) + rows(("import thetahat", seconds("import thetahat")), ("import torch", seconds("import torch")), BAR)
    if find_spec("statsmodels"):
        text += rows(
            ("first fit and summary, thetahat", seconds(OURS)),
            ("first fit and summary, statsmodels", seconds(THEIRS)),
            FIRST,
        )
    print(text)
    (Path(__file__).parent / "results" / "startup.md").write_text(text)


if __name__ == "__main__":
    main()
