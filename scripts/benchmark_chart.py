"""Draws docs/benchmarks.svg from the tables of benchmarks/results: seconds of ours over seconds of a peer.

python scripts/benchmark_chart.py

The counts in README's words about it are renewed too.

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
PACKAGES = {"sklearn": "scikit-learn"}  # of a contestant such as sklearn_quantile that has no words above
KINDS = (
    "SFT",
    "DPO",
    "GRPO",
)  # the rows of trl_steps.md's own table; what was written below it was run apart
COUNTS = "none one two three four five six seven eight nine ten eleven twelve".split()


def tables(file: str, folder: Path = RESULTS) -> list[dict[str, str]]:
    """The rows of the tables of a results file, by their headings; none, where the file is not there."""
    rows, heading = [], []
    path = folder / file
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            heading = []
        elif not heading:
            heading = cells
        elif not set(line) <= set("|- :"):
            rows.append(dict(zip(heading, cells, strict=True)))
    return rows


def ratios(folder: Path = RESULTS) -> pd.DataFrame:
    """work, peer, ratio: our seconds over the peer's; and the file that it is of."""
    out = []
    for row in tables("speed.md", folder):
        found = re.match(r"[\d.]+", row["ours / theirs"])
        if found and row["who"] not in NOT_PEERS and not row["who"].startswith("thetahat"):
            first, _, rest = row["who"].partition("_")
            peer = NAMES.get(row["who"], PACKAGES.get(first, first) if rest else first)
            out.append((row["work"], peer, float(found[0]), "speed.md"))
    out += [
        (row["work"], row["package"], float(row["ratio"]), "python_peers.md")
        for row in tables("python_peers.md", folder)
        if row["ratio"]
    ]
    for row in (row for row in tables("hmm.md", folder) if "hmmlearn" in row):
        work, peer = f"HMM: {row['work']}", f"hmmlearn, {row['hmmlearn']}"
        out.append((work, peer, float(row["ours / theirs"]), "hmm.md"))
    for row in (row for row in tables("trl_steps.md", folder) if row[""] in KINDS):
        work = f"{row['']} of a Llama, 6 layers"
        out.append((work, "TRL 1.16.0", 1 / float(row["ratio"]), "trl_steps.md"))
    frame = pd.DataFrame(out, columns=["work", "peer", "ratio", "file"])
    return frame.assign(work=frame["work"].replace(NAMES), peer=frame["peer"].replace(NAMES))


Short = tuple[int, int]


def missed(folder: Path = RESULTS) -> tuple[Short, Short]:
    """How many comparisons are short of our own bar for speed, and how many have one: of regressions, of hidden Markov models."""
    found = []
    for file in ("speed.md", "hmm.md"):
        bars = [row["bar"] for row in tables(file, folder) if row.get("bar")]
        found.append((sum(bar.endswith("MISSED") for bar in bars), len(bars)))
    return found[0], found[1]


def counts(frame: pd.DataFrame) -> tuple[str, str]:
    """How many ratios there are, and how many of them are against us."""
    slower = int((frame["ratio"] > 1).sum())
    return f"for {len(frame)} pairs of work and peer", f"ours is slower in {worded(slower)} of them"


def said(frame: pd.DataFrame, short: tuple[Short, Short]) -> tuple[str, str, str]:
    """What README says of the chart and of our bars: `counts`, and how many comparisons fall short."""
    regressions, chains = short
    return (
        *counts(frame),
        f"{worded(regressions[0])} of {regressions[1]} comparisons of regressions and {worded(chains[0])} of {chains[1]} of hidden "
        "Markov models fall short",
    )


def worded(n: int) -> str:
    return COUNTS[n] if n < len(COUNTS) else str(n)


PATTERNS = (
    r"for \d+ pairs of work and peer",
    r"ours is slower in \w+ of them",
    r"\w+ of \d+ comparisons of regressions and \w+ of \d+ of hidden Markov models fall short",
)


def renewed(text: str, frame: pd.DataFrame, short: tuple[Short, Short]) -> str:
    """The text of README with those counts."""
    for pattern, new in zip(PATTERNS, said(frame, short), strict=True):
        text = re.sub(pattern, new, text)
    return text


def chart(frame: pd.DataFrame) -> alt.LayerChart:
    """A row a comparison, on a logarithmic scale; 1 is drawn."""
    frame = frame.assign(
        row=frame["work"] + " · " + frame["peer"],
        who=(frame["ratio"] <= 1).map({True: "ours is faster", False: "the peer is faster"}),
        one=1.0,
        label=frame["ratio"].map("{:.2g}".format),
    )
    low, high = min(0.004, 0.8 * frame["ratio"].min()), max(6.0, 1.2 * frame["ratio"].max())
    x = alt.X(
        "ratio", scale=alt.Scale(type="log", domain=[low, high]), title="our seconds / the peer's seconds"
    )
    ticks = [a * 10.0**b for b in range(-4, 4) for a in (1, 2, 5) if low <= a * 10.0**b <= high and b >= -2]
    x.axis = alt.Axis(values=ticks, format="~g")
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
    found = ratios()
    chart(found).save(ROOT / "docs" / "benchmarks.svg")
    readme = ROOT / "README.md"
    readme.write_text(renewed(readme.read_text(encoding="utf-8"), found, missed()), encoding="utf-8")
