"""How long `import thetahat` takes against `import torch`: python benchmarks/startup.py."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

BAR = 1.3


def seconds(module: str, repeats: int = 9) -> float:
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
        times.append(time.perf_counter() - start)
    return median(times[1:])


def main() -> None:
    a, b = seconds("thetahat"), seconds("torch")
    text = (
        "# Start-up\n\n`python benchmarks/startup.py`, interpreter's start included, median of nine\n\n"
        "| import | seconds | ratio | bar |\n|---|---|---|---|\n"
        f"| thetahat | {a:.3f} | {a / b:.2f} | {BAR:g} {'met' if a / b <= BAR else 'MISSED'} |\n| torch | "
        f"{b:.3f} | | |\n"
    )
    print(text)
    (Path(__file__).parent / "results" / "startup.md").write_text(text)


if __name__ == "__main__":
    main()
