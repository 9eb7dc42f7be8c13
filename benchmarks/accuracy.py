"""NIST's certified values and the separation sets: python benchmarks/accuracy.py --data FOLDER (with nist/
and separation/ in it)."""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import thetahat as th
from nist_models import MODELS

DEGREE = {
    "Norris": 1,
    "Pontius": 2,
    "NoInt1": 1,
    "NoInt2": 1,
    "Filip": 10,
    "Longley": 0,
    "Wampler1": 5,
    "Wampler2": 5,
}


def digits(value: float, certified: float) -> float:
    """−log10 of the relative error, at most 15 (NIST prints 11 for nonlinear and 15 for linear sets)."""
    if value == certified:
        return 15.0
    error = abs(value - certified) / abs(certified) if certified else abs(value)
    return min(15.0, -math.log10(error)) if math.isfinite(error) else 0.0


def read(path: Path) -> tuple[str, np.ndarray]:
    text = path.read_text()
    first, last = map(int, re.search(r"Data\s+\(lines\s+(\d+) to\s+(\d+)\)", text).groups())  # type: ignore[union-attr]
    return text, np.array(
        [[float(v) for v in line.split()] for line in text.splitlines()[first - 1 : last] if line.strip()]
    )


def linear(path: Path) -> tuple[str, float, float]:
    """(status, fewest digits of an estimate, fewest of a standard deviation)."""
    text, data = read(path)
    certified = [(float(a), float(b)) for a, b in re.findall(r"^\s+B\d+\s+(\S+)\s+(\S+)\s*$", text, re.M)]
    y, degree = data[:, 0], DEGREE[path.stem]
    columns = (
        {f"x{j}": data[:, j] for j in range(1, 7)}
        if degree == 0
        else {f"x{j}": data[:, 1] ** j for j in range(1, degree + 1)}
    )
    formula = "y ~ " + ("0 + " if path.stem.startswith("NoInt") else "") + " + ".join(columns)
    fit = th.fit(formula, {"y": y, **columns}, on_failure="return")
    p, n = len(certified), len(y)
    estimates = min(digits(v, c) for v, (c, _) in zip(fit.theta.tolist(), certified, strict=False))
    if not fit.certificate.ok:
        return fit.certificate.status, estimates, math.nan
    errors = fit.standard_errors().to_numpy()[:p] * math.sqrt(
        n / (n - p)
    )  # NIST divides by n − p, maximum likelihood by n
    return (
        fit.certificate.status,
        estimates,
        min(digits(v, c) for v, (_, c) in zip(errors, certified, strict=True)),
    )


def nonlinear(path: Path, start: int) -> tuple[str, float]:
    """(status, fewest digits of an estimate) from NIST's first or second start; the scale starts at 1."""
    text, data = read(path)
    table = np.array(
        [
            [float(v) for v in row]
            for row in re.findall(r"^\s*b\d+\s*=\s*(\S+)\s+(\S+)\s+(\S+)\s+\S+", text, re.M)
        ]
    )
    y = np.log(data[:, 0]) if path.stem == "Nelson" else data[:, 0]
    x = data[:, 1:] if path.stem == "Nelson" else data[:, 1]
    f = MODELS[path.stem]

    @th.model(b=torch.tensor(table[:, start]), sigma=th.positive(1.0))
    def model(batch, b, sigma):  # type: ignore[no-untyped-def]
        return th.families.Normal().log_prob(batch["y"], f(batch["x"], list(b)), sigma)

    fit = th.fit(model, {"y": torch.tensor(y), "x": torch.tensor(x)}, on_failure="return")
    return fit.certificate.status, min(
        digits(v, c) for v, c in zip(fit.theta.tolist(), table[:, 2], strict=False)
    )


def separation(path: Path) -> tuple[int, int, bool]:
    """(rows labelled separated, rows found, whether they are the same). Non-integer responses are rounded up:
    only y = 0 matters."""
    frame = pd.read_csv(path)
    frame["y"] = np.ceil(frame["y"])
    terms = [c for c in frame if c.startswith("x")] + [f"C({c})" for c in frame if c.startswith("id")]
    fit = th.fit("y ~ " + " + ".join(terms), frame, "poisson", on_failure="return")
    labelled, found = set(np.flatnonzero(frame["separated"] == 1).tolist()), set(fit.certificate.rows)
    return len(labelled), len(found), labelled == found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    folder = parser.parse_args().data
    out = ["# Accuracy", "", "`python benchmarks/accuracy.py --data FOLDER`", "", "## NIST StRD, linear", ""]
    out += [
        "| set | status | digits, estimates | digits, standard deviations | bar |",
        "|---|---|---|---|---|",
    ]
    for name in DEGREE:
        status, a, b = linear(folder / "nist" / f"{name}.dat")
        bar = 7.5 if name == "Filip" else 11.0
        met = a >= bar and (math.isnan(b) or b >= bar)
        out.append(
            f"| {name} | {status} | {a:.1f} | {'certified 0: refused' if math.isnan(b) else f'{b:.1f}'} | "
            f"{bar:g} {'met' if met else 'MISSED'} |"
        )
    out += [
        "",
        "## NIST StRD, nonlinear, both starts",
        "",
        "| set | start | status | digits | bar: 8, or an honest refusal |",
        "|---|---|---|---|---|",
    ]
    for name in MODELS:
        for start in (0, 1):
            status, a = nonlinear(folder / "nist" / f"{name}.dat", start)
            refused = status not in ("certified maximum", "boundary")
            verdict = "refused" if refused else "met" if a >= 8 else "MISSED"
            out.append(f"| {name} | {start + 1} | {status} | {'' if refused else f'{a:.1f}'} | {verdict} |")
    out += ["", "## Separation", "", "| set | rows labelled | rows found | the same |", "|---|---|---|---|"]
    for path in sorted((folder / "separation").glob("*.csv")):
        labelled, found, same = separation(path)
        out.append(f"| {path.stem} | {labelled} | {found} | {'yes' if same else 'NO'} |")
    text = "\n".join(out) + "\n"
    print(text)
    (Path(__file__).parent / "results" / "accuracy.md").write_text(text)


if __name__ == "__main__":
    main()
