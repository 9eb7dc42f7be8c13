"""Draws docs/separated.svg: what four libraries return for the slope of perfectly separated data, and our answer; and
docs/walk.svg, Newton's method on its way to a maximum that is not there, step by step.

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

import math
import textwrap
from collections.abc import Callable
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


# ---- the walk ------------------------------------------------------------------------------------------------

STEPS, EACH, LAST = 14, 0.9, 6.0  # of Newton's method, seconds of each, of the message
MOVING = """
.curve { fill: none; stroke: #1f5fa8; stroke-width: 2.5 } .ridge { fill: none; stroke: #59636e; stroke-width: 1.5 }
.top { stroke: #1a7f4b; stroke-width: 1.5; stroke-dasharray: 5 4 } .axis { stroke: #59636e; stroke-width: 1 }
.here { fill: #c2570c } .been { fill: #c2570c; fill-opacity: 0.35 } .green { fill: #1a7f4b } .small { font-size: 13px }
@media (prefers-color-scheme: dark) {
  .curve { stroke: #6cb0ff } .ridge, .axis { stroke: #9198a1 } .top { stroke: #3fb950 } .green { fill: #3fb950 }
  .here, .been { fill: #f0883e }
}
@media (prefers-reduced-motion: reduce) { .frame, .been, .last { animation: none !important } }
"""


def newton(steps: int = STEPS) -> list[tuple[float, float]]:
    """(slope, log-likelihood in nats) of each step of Newton's method from 0 on the six rows, centred at 3½ hours, where the
    intercept stays 0 by symmetry."""
    x = [hour - 3.5 for hour in range(1, 7)]
    slope, out = 0.0, []
    for _ in range(steps):
        far = [math.exp(-slope * abs(v)) for v in x]  # every row is on its own side
        out.append((slope, -sum(map(math.log1p, far))))
        gradient = sum(abs(v) * e / (1 + e) for v, e in zip(x, far, strict=True))
        slope += gradient / sum(v * v * e / (1 + e) ** 2 for v, e in zip(x, far, strict=True))
    return out


def keyframes(name: str, begin: float, end: float) -> str:
    """Seen from one second of the cycle to another."""
    whole = STEPS * EACH + LAST
    seen = [(0.0, begin <= 0), (begin / whole, True), (end / whole, end >= whole), (1.0, end >= whole)]
    stops = "".join(f"{100 * at:.2f}%{{opacity:{int(on)}}}" for at, on in dict(seen).items())
    return f"@keyframes {name}{{{stops}}} .{name}{{animation:{name} {whole:g}s step-end infinite}}\n"


def path(f: Callable[[float], float], low: float, high: float, x: Callable[[float], float]) -> str:
    at = [low + (high - low) * i / 60 for i in range(61)]
    return "M" + "L".join(f"{x(v):.1f} {f(v):.1f}" for v in at)


def walk() -> str:
    """An animation without a script, in CSS: the fitted probabilities and the log-likelihood at each step, then our message.
    A reader who asks for no motion, and a programme that draws none, have the last picture."""
    found, tall = newton(), 400
    end = math.ceil(found[-1][0] + 1)

    def hour(v: float) -> float:
        return 52 + 46 * (v - 0.5)

    def height(p: float) -> float:
        return 236 - 140 * p

    def across(b: float) -> float:
        return 400 + 284 * b / end

    def up(value: float) -> float:
        return 96 + 140 * value / found[0][1]

    def ridge(b: float) -> float:
        return up(-sum(math.log1p(math.exp(-b * abs(v - 3.5))) for v in range(1, 7)))

    def probability(slope: float) -> Callable[[float], float]:
        return lambda v: height(1 / (1 + math.exp(-slope * (v - 3.5))))

    style, parts = STYLE + MOVING, [text(MARGIN, 42, "Newton's method on six separated rows", "head")]
    parts += [
        text(MARGIN, 66, "probability of passing, by hours", "dim"),
        text(392, 66, "log-likelihood, by slope", "dim"),
        '<line x1="40" x2="340" y1="236" y2="236" class="axis"/><line x1="400" x2="684" y1="236" y2="236" class="axis"/>',
        f'<path d="{path(ridge, 0, end, across)}" class="ridge"/>',
        '<line x1="400" x2="684" y1="96" y2="96" class="top"/>',
        text(520, 88, "0 nats: never reached", "small green"),
        *(text(hour(v) - 4, 256, str(v), "dim") for v in range(1, 7)),
        *(text(across(b) - 4, 256, str(b), "dim") for b in range(0, end, 4)),
    ]
    whole = STEPS * EACH + LAST
    for k, (slope, value) in enumerate(found):
        begin, after = k * EACH, (k + 1) * EACH
        style += keyframes(f"f{k}", begin, after) + keyframes(f"t{k}", after, whole)
        dot = f'cx="{across(slope):.1f}" cy="{up(value):.1f}"'
        said = f"step {k}: slope {slope:.2f}, {value:.2g} nats".replace("-", "−")
        parts.append(f'<circle {dot} r="4" class="been t{k}"/>')
        parts.append(
            f'<g class="frame f{k}" opacity="0"><path d="{path(probability(slope), 0.6, 6.4, hour)}" class="curve"/>'
            f'<circle {dot} r="6" class="here"/>{text(MARGIN, 300, said, "head")}'
            f"{text(MARGIN, 324, 'Each step is uphill, and none is the last.', 'dim')}</g>"
        )
    lines = textwrap.wrap(message().split(" Every larger")[0], 74)
    style += keyframes("last", STEPS * EACH, whole)
    body = "".join(text(MARGIN + 4, 334 + 20 * i, line, "code") for i, line in enumerate(lines))
    parts.append(
        f'<g class="last"><path d="M{hour(0.6):.1f} {height(0)}H{hour(3.5):.1f}V{height(1)}H{hour(6.4):.1f}" class="curve"/>'
        f'<rect x="{MARGIN - 10}" y="280" width="{WIDTH - 2 * MARGIN + 20}" height="{46 + 20 * len(lines)}" rx="8" class="panel"/>'
        f"{text(MARGIN + 4, 308, 'thetahat: no number, but why there is none', 'head')}{body}</g>"
    )
    for v in range(1, 7):
        kind = "yes" if v > 3 else "no"
        parts.append(f'<circle cx="{hour(v):g}" cy="{height(v > 3):g}" r="6" class="{kind}"/>')
    label = "Newton's method on separated data: at each step the slope is larger, and the likelihood rises for ever"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {tall}" width="{WIDTH}" height="{tall}" '
        f'role="img" aria-label="{label}">\n<style>{style}</style>\n'
        f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{tall - 1}" rx="10" class="card"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


if __name__ == "__main__":
    (ROOT / "docs" / "walk.svg").write_text(walk(), encoding="utf-8")
    (ROOT / "docs" / "separated.svg").write_text(picture(), encoding="utf-8")
