"""A Parquet file larger than memory would like: python benchmarks/streaming.py [--rows 20000000] [--columns
20] [--folder DIR] [--cox].

Writes the file, fits a logistic regression to it (--cox: Cox's model, of rows in rising order of time) with standard
errors in a process of its own, and prints seconds and peak memory. With --check it also fits the same rows in memory
(small --rows) and compares to 1e-9. To sort the rows of --cox, the writing process holds them all.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CHUNK = 500_000
SECONDS, LIMIT = 10, 2**29  # the bars, of the rows and columns by default


def write(path: Path, rows: int, columns: int) -> None:
    rng = np.random.default_rng(0)
    beta = rng.normal(size=columns) / np.sqrt(columns)
    names = [f"x{j}" for j in range(columns)]
    writer = None
    for start in range(0, rows, CHUNK):
        n = min(CHUNK, rows - start)
        X = rng.normal(size=(n, columns))
        y = (rng.random(n) < 1 / (1 + np.exp(0.5 - X @ beta))).astype(np.float64)
        block = pa.table({**{name: X[:, j] for j, name in enumerate(names)}, "y": y})
        writer = writer or pq.ParquetWriter(path, block.schema, compression="none")
        writer.write_table(block, row_group_size=131_072)
    assert writer is not None
    writer.close()


def write_times(path: Path, rows: int, columns: int) -> None:
    """About 60 % events, no ties, in rising order."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((rows, columns))
    seen = rng.exponential(np.exp(-X @ np.linspace(-0.5, 0.5, columns)))
    censored = rng.exponential(1.5, rows)
    event = (seen <= censored).astype(np.float64)
    until = np.minimum(seen, censored)
    order = np.argsort(until)
    writer = None
    for start in range(0, rows, CHUNK):
        own = order[start : start + CHUNK]
        block = pa.table(
            {**{f"x{j}": X[own, j] for j in range(columns)}, "time": until[own], "event": event[own]}
        )
        writer = writer or pq.ParquetWriter(path, block.schema, compression="none")
        writer.write_table(block, row_group_size=131_072)
    assert writer is not None
    writer.close()


def peak() -> int:
    """Bytes of this process at most. What getrusage gives of it begins at the peak of the process that started it."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def fit(path: Path, columns: int, memory: int, cox: bool) -> dict:
    import thetahat as th

    start, cpu = time.perf_counter(), time.process_time()
    left, family = ("Surv(time, event)", "cox") if cox else ("y", "bernoulli")
    formula = f"{left} ~ " + " + ".join(f"x{j}" for j in range(columns))
    result = th.fit(formula, th.data.Frame(path, memory=memory), family)
    errors = result.standard_errors()
    return {
        "seconds": time.perf_counter() - start,
        "cpu": time.process_time() - cpu,
        "peak": peak(),
        "streamed": result.source.streamed,
        "passes": result.certificate.passes,
        "certificate": str(result.certificate),
        "estimates": result.theta.tolist(),
        "errors": errors.tolist(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--columns", type=int, default=20)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--cox", action="store_true")
    parser.add_argument("--child", nargs=2)
    arguments = parser.parse_args()
    if arguments.child:
        path, memory = arguments.child
        print(json.dumps(fit(Path(path), arguments.columns, int(memory), arguments.cox)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder) / "rows.parquet"
        (write_times if arguments.cox else write)(path, arguments.rows, arguments.columns)
        size = path.stat().st_size

        def run(memory: int) -> dict:
            command = [
                sys.executable,
                __file__,
                "--columns",
                str(arguments.columns),
                "--child",
                str(path),
                str(memory),
                *(["--cox"] if arguments.cox else []),
            ]
            return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

        streamed = run(2**20)
        print(
            f"{arguments.rows:,} rows x {arguments.columns} columns, {size / 2**30:.2f} GiB on disk: "
            f"{streamed['seconds']:.1f} s ({streamed['cpu']:.1f} s of CPU), ",
            end="",
        )
        print(
            f"peak memory {streamed['peak'] / 2**30:.2f} GiB "
            f"(bars: {SECONDS} s {'met' if streamed['seconds'] <= SECONDS else 'MISSED'}, "
            f"{LIMIT / 2**30:g} GiB {'met' if streamed['peak'] <= LIMIT else 'MISSED'})"
        )
        print(f"streamed: {streamed['streamed']}; {streamed['passes']} passes; {streamed['certificate']}")
        if arguments.check:
            whole = run(2**40)
            for what in ("estimates", "errors"):
                a, b = np.array(streamed[what]), np.array(whole[what])
                print(
                    f"{what}: largest relative difference to the same rows in memory "
                    f"{np.abs(a / b - 1).max():.1e} (bar 1e-9)"
                )


if __name__ == "__main__":
    main()
