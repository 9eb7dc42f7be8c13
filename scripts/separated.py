"""Draws docs/separated.svg: what four libraries return for the slope of perfectly separated data, and our answer.

python scripts/separated.py

The likelihood of these six rows rises for ever with the slope: it has no maximum, and every finite number is the
place where a solver stopped. Ours is computed here; theirs are what they printed, each with its own defaults and
without a penalty, on one machine:

x, y = [1, 2, 3, 4, 5, 6], [0, 0, 0, 1, 1, 1]

R 4.2.2
    summary(glm(y ~ x, binomial))            slope 47.23, std. error 115264.41, converged TRUE
    Warning: "glm.fit: fitted probabilities numerically 0 or 1 occurred"
statsmodels 0.15.0
    Logit(y, add_constant(x)).fit()          slope 41.2252, std. error 42501.04, converged False
    PerfectSeparationWarning (14 times), ConvergenceWarning
    GLM(y, add_constant(x), Binomial()).fit()  slope 41.2338, std. error 25719.85, converged True
    PerfectSeparationWarning (3 times)
scikit-learn 1.9.1
    LogisticRegression(C=np.inf).fit(x, y)   slope 15.19047402, 17 iterations, no warning
glum 3.4.1
    GeneralizedLinearRegressor(family="binomial", alpha=0).fit(x, y)   slope 14.63386528, 9 iterations, no warning
"""

from __future__ import annotations

import textwrap
from html import escape
from pathlib import Path

import thetahat as th

ROOT = Path(__file__).parents[1]
PEERS = (
    ("R 4.2.2, glm", "47.2", "± 115,264", "converged: TRUE, and a warning"),
    ("statsmodels 0.15.0, Logit", "41.2", "± 42,501", "converged: False, and warnings"),
    ("scikit-learn 1.9.1, C=inf", "15.2", "", "no warning"),
    ("glum 3.4.1, alpha=0", "14.6", "", "no warning"),
)
WIDTH, MARGIN = 720, 28
STYLE = """
.card { fill: #ffffff; stroke: #d0d7de }
.panel { fill: #f6f8fa; stroke: #1a7f4b }
text { fill: #1f2328; font: 15px -apple-system, "Segoe UI", "DejaVu Sans", Arial, sans-serif }
.head { font-weight: 700 } .dim { fill: #59636e; font-size: 13.5px }
.number { font-weight: 700; font-size: 20px; text-anchor: end } .error { text-anchor: start }
.code { font: 14px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; white-space: pre }
.line { stroke: #d0d7de } .no { fill: #ffffff; stroke: #59636e; stroke-width: 1.5 } .yes { fill: #1f5fa8 }
@media (prefers-color-scheme: dark) {
  .card { fill: #0d1117; stroke: #3d444d } .panel { fill: #151b23; stroke: #3fb950 }
  text { fill: #e6edf3 } .dim { fill: #9198a1 } .line { stroke: #3d444d }
  .no { fill: #0d1117; stroke: #9198a1 } .yes { fill: #6cb0ff }
}
"""


def message() -> str:
    """What `th.fit` raises for these rows."""
    hours = {"hours": [1, 2, 3, 4, 5, 6], "passed": [0, 0, 0, 1, 1, 1]}
    try:
        th.fit("passed ~ hours", hours, family="bernoulli")
    except th.errors.NoMaximum as error:
        return f"NoMaximum: {error}"
    raise AssertionError("separated data have no maximum")


def text(x: float, y: float, words: str, kind: str = "") -> str:
    return f'<text x="{x}" y="{y}" class="{kind}">{escape(words)}</text>'


def picture() -> str:
    """The data, the four numbers, and our message below them, as a card that is legible on white and on black."""
    parts = [
        text(MARGIN, 42, "Who studied 1, 2, 3 hours failed; who studied 4, 5, 6 passed.", "head"),
        text(
            MARGIN, 64, "The likelihood of passed ~ hours has no maximum. The slope that is returned:", "dim"
        ),
    ]
    for hour in range(1, 7):
        kind = "yes" if hour > 3 else "no"
        parts.append(f'<circle cx="{WIDTH - MARGIN - 22 * (6 - hour) - 8}" cy="36" r="7" class="{kind}"/>')
    y = 104
    for who, slope, error, said in PEERS:
        parts += [text(MARGIN, y, who), text(316, y, slope, "number"), text(326, y, error, "dim error")]
        parts.append(text(424, y, said, "dim"))
        parts.append(f'<line x1="{MARGIN}" x2="{WIDTH - MARGIN}" y1="{y + 12}" y2="{y + 12}" class="line"/>')
        y += 36
    lines = textwrap.wrap(message(), 74)
    top, height = y + 12, 22 * len(lines) + 44
    parts.append(f'<rect x="{MARGIN - 10}" y="{top - 22}" width="{WIDTH - 2 * MARGIN + 20}" '
                 f'height="{height}" rx="8" class="panel"/>')  # fmt: skip
    parts.append(text(MARGIN + 4, top + 4, "thetahat: no number, but why there is none", "head"))
    parts += [text(MARGIN + 4, top + 32 + 22 * i, line, "code") for i, line in enumerate(lines)]
    tall = top + height + 2
    label = "Slopes that four libraries return for separated data, and the message of thetahat"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {tall}" width="{WIDTH}" height="{tall}" '
        f'role="img" aria-label="{label}">\n<style>{STYLE}</style>\n'
        f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{tall - 1}" rx="10" class="card"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


if __name__ == "__main__":
    (ROOT / "docs" / "separated.svg").write_text(picture(), encoding="utf-8")
