"""Draws docs/benchmarks.svg from the tables of benchmarks/results: seconds of ours over seconds of a peer.

python scripts/benchmark_chart.py

Nothing is typed in here: the rows are those of speed.md, python_peers.md and hmm.md (seconds) and of trl_steps.md (tokens
a second), with every peer that finished. Right of 1 ours is slower.
"""

from __future__ import annotations

import re
from pathlib import Path

import altair as alt
import pandas as pd

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
NAMES = {  # the works and contestants of benchmarks/works.py, in words
    "logistic": "logistic regression, 1e6 × 30",
    "poisson": "Poisson regression, 1e6 × 30",
    "claims": "Poisson regression of claims, 678,000 rows",
    "claims, 5,000 levels": "the same, a factor of 5,000 levels",
    "sklearn_newton": "scikit-learn, newton-cholesky",
    "sklearn_lbfgs": "scikit-learn, lbfgs",
    "statsmodels_generic": "statsmodels, GenericLikelihoodModel",
    "statsmodels_helped": "statsmodels, with derivatives given",
    "statsmodels_summary": "statsmodels, with its summary",
    "small logistic": "logistic regression, 1000 × 5",
    "student t": "Student's t regression",
}
NOT_PEERS = {"gram"}  # a lower bound: the time of one cross-product a step


def tables(file: str) -> list[dict[str, str]]:
    """The rows of the tables of a results file, by their headings."""
    rows, heading = [], []
    for line in (RESULTS / file).read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            heading = []
        elif not heading:
            heading = cells
        elif not set(line) <= set("|- :"):
            rows.append(dict(zip(heading, cells, strict=True)))
    return rows


def ratios() -> pd.DataFrame:
    """work, peer, ratio: our seconds over the peer's."""
    out = []
    for row in tables("speed.md"):
        found = re.match(r"[\d.]+", row["ours / theirs"])
        if found and row["who"] not in NOT_PEERS and not row["who"].startswith("thetahat"):
            out.append((row["work"], row["who"], float(found[0])))
    out += [
        (row["work"], row["package"], float(row["ratio"]))
        for row in tables("python_peers.md")
        if row["ratio"]
    ]
    for row in (row for row in tables("hmm.md") if "hmmlearn" in row):
        work, peer = f"HMM: {row['work']}", f"hmmlearn, {row['hmmlearn']}"
        out.append((work, peer, float(row["ours / theirs"])))
    for row in tables("trl_steps.md"):
        out.append((f"{row['']} of a Llama, 6 layers", "TRL 1.16.0", 1 / float(row["ratio"])))
    frame = pd.DataFrame(out, columns=["work", "peer", "ratio"])
    return frame.assign(work=frame["work"].replace(NAMES), peer=frame["peer"].replace(NAMES))


def chart(frame: pd.DataFrame) -> alt.LayerChart:
    """A row a comparison, on a logarithmic scale; 1 is drawn."""
    frame = frame.assign(
        row=frame["work"] + " · " + frame["peer"],
        who=(frame["ratio"] <= 1).map({True: "ours is faster", False: "the peer is faster"}),
        one=1.0,
        label=frame["ratio"].map("{:.2g}".format),
    )
    x = alt.X(
        "ratio", scale=alt.Scale(type="log", domain=[0.004, 6]), title="our seconds / the peer's seconds"
    )
    x.axis = alt.Axis(values=[0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5], format="~g")
    y = alt.Y("row", sort=list(frame["row"]), title=None, axis=alt.Axis(labelLimit=420))
    colour = alt.Color(
        "who", title=None, scale=alt.Scale(domain=["ours is faster", "the peer is faster"],
                                           range=["#1f5fa8", "#c2570c"]), legend=alt.Legend(orient="top"))  # fmt: skip
    base = alt.Chart(frame).encode(x=x, y=y)
    bars = base.mark_rule(strokeWidth=5, opacity=0.8).encode(x2="one", color=colour)
    dots = base.mark_circle(size=50, opacity=1).encode(color=colour)
    one = alt.Chart(pd.DataFrame({"x": [1.0]})).mark_rule(color="#444").encode(x="x")
    layers = alt.layer(bars, dots, one).properties(width=330, height=alt.Step(15), background="white")
    return layers.configure_view(stroke=None).configure_axis(labelFontSize=11, titleFontSize=11, grid=True)


if __name__ == "__main__":
    chart(ratios()).save(ROOT / "docs" / "benchmarks.svg")
