"""Hidden Markov models of 100,000 rows and three normal states, beside hmmlearn: the time to the same log-likelihood.

The peer is hmmlearn's GaussianHMM in both of its implementations ("log", its default, and "scaling"), without its priors on
variances, until a step gains less than 10⁻³ nats: from our first guess, and from its own ten (random_state = 0 … 9), of which it
keeps the best. Ours is `th.fit` from the same guess, and as it is called, with its ten starts and its certificate. And one
evaluation of the log-likelihood, and one E-step. hmmlearn is not among this library's dependencies: `pip install hmmlearn`.

    python benchmarks/hmm.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hmmlearn.hmm import GaussianHMM

import thetahat as th
from thetahat.models.base import set_theta
from thetahat.solvers import BaumWelch

BAR = 1 / 5
N = 100_000
A = np.array([[0.95, 0.03, 0.02], [0.05, 0.90, 0.05], [0.02, 0.08, 0.90]])
MEAN, VARIANCE = np.array([-1.0, 0.5, 2.0]), np.array([0.5, 1.0, 0.7])


def simulated(n: int = N, seed: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    above, uniform, z = np.cumsum(A, 1), rng.random(n), np.zeros(n, dtype=int)
    for t in range(1, n):
        z[t] = np.searchsorted(above[z[t - 1]], uniform[t])
    return rng.normal(MEAN[z], np.sqrt(VARIANCE[z]))


def timed(call: Callable[[], Any], times: int = 3) -> tuple[float, Any]:
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        out = call()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)), out


def peer(y: np.ndarray, implementation: str, start: np.ndarray | None = None, seed: int = 0) -> GaussianHMM:
    settings: dict[str, Any] = {"init_params": ""} if start is not None else {"random_state": seed}
    model = GaussianHMM(
        3,
        covariance_type="diag",
        n_iter=10_000,
        tol=1e-3,
        implementation=implementation,
        covars_prior=0,
        covars_weight=0,
        **settings,
    )
    if start is not None:
        model.startprob_, model.transmat_ = start[:3], start[3:12].reshape(3, 3)
        model.means_, model.covars_ = start[12::2][:, None].copy(), start[13::2][:, None] ** 2
    return model.fit(y[:, None])


def main() -> None:
    y = simulated()
    hmm = th.models.HMM(3, "normal", initial="free")
    model, source = hmm.bound({"y": y})
    theta = model.start(source)
    start = model.natural(theta).numpy()
    set_theta(model, theta)
    batch = next(iter(source.batches()))
    value, found = timed(lambda: model.passed(batch, backward=False), 7)
    steps, _ = timed(lambda: model.passed(batch).counts(), 7)
    one, ours = timed(lambda: th.fit(hmm, {"y": y}, solver=BaumWelch(begin=theta)))
    ten, whole = timed(lambda: th.fit(hmm, {"y": y}))
    rows = [
        f"hidden Markov model, {N:,} rows, 3 normal states, one thread; `python benchmarks/hmm.py`",
        "",
        f"maximum: {whole.log_likelihood:.4f} nats ({whole.certificate.status}, {whole.certificate.nats:.1e} nats from it)",
        "",
        "| work | thetahat, s | hmmlearn | its seconds | ours / theirs | bar | its log-likelihood less ours |",
        "|---|---|---|---|---|---|---|",
    ]

    def row(work: str, own: float, name: str, theirs: float, gap: float | None) -> None:
        ratio = own / theirs
        said = "" if gap is None else f"{gap:+.2g}"
        met = "met" if ratio <= BAR else "MISSED"
        rows.append(f"| {work} | {own:.3f} | {name} | {theirs:.3f} | {ratio:.2f} | {BAR:g} {met} | {said} |")

    for name in ("log", "scaling"):
        at = GaussianHMM(3, covariance_type="diag", implementation=name)
        at.startprob_, at.transmat_ = start[:3], start[3:12].reshape(3, 3)
        at.means_, at.covars_ = start[12::2][:, None], start[13::2][:, None] ** 2
        seconds, score = timed(lambda at=at: at.score(y[:, None]), 7)
        row("log-likelihood at one θ", value, name, seconds, score - float(found.log_c.sum()))
        seconds, _ = timed(lambda at=at: at._fit_scaling(y[:, None]) if at.implementation == "scaling" else at._fit_log(y[:, None]), 7)  # fmt: skip
        row("E-step", steps, name, seconds, None)
        seconds, fitted = timed(lambda name=name: peer(y, name, start))
        row("fit, from one guess", one, name, seconds, fitted.score(y[:, None]) - ours.log_likelihood)
        seconds, tried = timed(lambda name=name: [peer(y, name, seed=i) for i in range(10)], 1)
        best = max(each.score(y[:, None]) for each in tried)
        row("fit, from ten guesses", ten, name, seconds, best - whole.log_likelihood)
    text = "\n".join(rows) + "\n"
    print(text)
    (Path(__file__).parent / "results" / "hmm.md").write_text(
        "# Hidden Markov models\n\n" + text, encoding="utf-8"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
