"""Answers that another programme drew: how far its probabilities are from the trainer's own, and the weights that correct for it.

    d_t = log π(a_t) − log π_sampler(a_t),      E_sampler[e^{Σ_t d_t} f(a)] = E_π[f(a)]

An inference server multiplies in another order and precision than the trainer, and may hold older weights. The gap d is
measured, not assumed.

References
----------
Ionides (2008), Truncated importance sampling; Yao et al. (2025), Your efficient RL framework secretly brings you off-policy RL
training (the gap between an inference engine and a trainer; weights a token, truncated).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..data.batch import Batch
from ..errors import BadArgument
from ..likelihood.weights.bounded import bounded
from ..printable import encoded
from ..protocols import Measured
from ..types import Weights

LEVELS = ("token", "sequence")


@dataclass(frozen=True)
class Gap:
    """The difference d = log π − log π_sampler at the tokens that a sampler drew.

    Parameters
    ----------
    tokens, answers
        how many
    mean
        of d, nats a token; −mean estimates KL(π_sampler ‖ π) a token
    mean_abs, max_abs
        of |d|
    ratio
        mean of e^d over tokens: 1 in expectation, where π gives no token more than π_sampler can draw
    sequence_ratio
        mean of e^{Σ d} over answers
    effective
        (Σ w)² / Σ w² of w = e^{Σ d}: how many answers of π the answers are worth

    Examples
    --------
    >>> print(Gap.of(torch.log(torch.tensor([[0.5, 0.2]])), torch.log(torch.tensor([[0.4, 0.2]]))))
    2 tokens of 1 answers
    log π − log π_sampler    mean 0.1116, mean |d| 0.1116, largest |d| 0.2231 nats a token
    mean ratio               1.1250 a token, 1.2500 an answer
    effective sample size    1.0 answers
    """

    tokens: int
    answers: int
    mean: float
    mean_abs: float
    max_abs: float
    ratio: float
    sequence_ratio: float
    effective: float

    @classmethod
    def of(cls, log_prob: Tensor, sampler: Tensor, count: Tensor | None = None) -> Gap:
        """Of log π and log π_sampler, (B, T) each; what has count 0 is left out.

        Raises
        ------
        BadArgument
            the shapes differ, or nothing is counted
        """
        drawn = torch.ones_like(log_prob, dtype=torch.bool) if count is None else count > 0
        if log_prob.shape != sampler.shape or log_prob.ndim != 2 or not bool(drawn.any()):
            raise BadArgument(
                f"log π of shape {tuple(log_prob.shape)}, of the sampler {tuple(sampler.shape)}, {int(drawn.sum())} tokens "
                "counted. Accepted: (B, T) both, one token or more."
            )
        d = torch.where(drawn, log_prob.double() - sampler.double(), 0.0)
        n, each = int(drawn.sum()), d.sum(1)
        w = torch.exp(each - each.max())  # the effective number does not depend on the scale
        return cls(
            tokens=n,
            answers=len(d),
            mean=float(d.sum()) / n,
            mean_abs=float(d.abs().sum()) / n,
            max_abs=float(d.abs().max()),
            ratio=float(torch.exp(d)[drawn].mean()),
            sequence_ratio=float(torch.exp(each).mean()),
            effective=float(w.sum().square() / w.square().sum()),
        )

    @encoded
    def __str__(self) -> str:
        return (
            f"{self.tokens} tokens of {self.answers} answers\n"
            f"log π − log π_sampler    mean {self.mean:.4f}, mean |d| {self.mean_abs:.4f}, "
            f"largest |d| {self.max_abs:.4f} nats a token\n"
            f"mean ratio               {self.ratio:.4f} a token, {self.sequence_ratio:.4f} an answer\n"
            f"effective sample size    {self.effective:.1f} answers"
        )


@dataclass(frozen=True)
class TruncatedImportance:
    """A weighting, times the truncated ratio of the trainer's probability to the sampler's.

        w = weighting · min(c, ρ),      ρ_t = π(a_t) / π_sampler(a_t)   (level="token"),      ρ = Π_t ρ_t   (level="sequence")

    π is the trainer's own at the θ that drew ("log_prob" of the batch), so that the ratio of a later θ to it stays what
    `rl.Clipped` makes of it. With level="sequence" and c = ∞ the expected step is the policy gradient exactly; a token's ratio
    leaves out those of the tokens before it, which is a bias, of less variance. A smaller c is more bias and less variance.
    Weights are detached, as all are.

    Reads "log_prob" and "sampler_log_prob" of the batch: `language.Generations(…, sampler=language.Server(…))`.

    Parameters
    ----------
    weighting
        (batch, log_prob) → weights: `rl.Advantage()`, `rl.Clipped()`, `language.Penalised(…)`
    cap
        c > 0; math.inf: no truncation
    level
        "token" or "sequence"

    Raises
    ------
    BadArgument
        a batch without the log-probabilities of what drew it

    References
    ----------
    Ionides (2008), Truncated importance sampling; Yao et al. (2025), Your efficient RL framework secretly brings you off-policy
    RL training.

    Examples
    --------
    >>> from thetahat.rl import Advantage
    >>> own, theirs = torch.log(torch.tensor([[0.6, 0.2]])), torch.log(torch.tensor([[0.2, 0.4]]))
    >>> batch = Batch({"advantage": torch.ones(1, 2), "log_prob": own, "sampler_log_prob": theirs}, dims=2)
    >>> TruncatedImportance(Advantage(), cap=2.0)(batch, batch["log_prob"])
    tensor([[2.0000, 0.5000]])
    >>> TruncatedImportance(Advantage(), cap=2.0, level="sequence")(batch, batch["log_prob"])
    tensor([[1.5000, 1.5000]])
    """

    weighting: Weights
    cap: float = 2.0
    level: str = "token"
    _last: list[Tensor] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.cap > 0 or self.level not in LEVELS:
            raise BadArgument(
                f"cap={self.cap}, level={self.level!r}. Accepted: a number above 0, and one of "
                f"{', '.join(map(repr, LEVELS))}."
            )

    def __call__(self, batch: Batch, log_prob: Tensor) -> Tensor:
        missing = [name for name in ("log_prob", "sampler_log_prob") if name not in batch]
        if missing:
            raise BadArgument(
                f"TruncatedImportance needs {' and '.join(map(repr, missing))} in the batch: language.Generations(…, "
                "sampler=…) of a sampler that gives the log-probabilities it drew with. A server that gives those of "
                "the raw model, under a temperature, top_k or top_p, does not: start it with "
                "--logprobs-mode processed_logprobs."
            )
        drawn = batch.count > 0
        d = torch.where(drawn, batch["log_prob"] - batch["sampler_log_prob"], 0.0)
        if self.level == "sequence":
            d = d.sum(-1, keepdim=True).expand(d.shape)
        ratio = bounded(torch.exp(d))
        self._last[:] = [ratio[drawn].detach()]
        return bounded(self.weighting(batch, log_prob) * ratio.clamp(max=self.cap).to(log_prob.dtype))

    def measured(self) -> dict[str, float]:
        """Of the last step: sampler_ratio, the mean of ρ over tokens, and truncated_share, of those above c; and what the
        weighting measures."""
        found = dict(self.weighting.measured()) if isinstance(self.weighting, Measured) else {}
        if not self._last or not self._last[0].numel():
            return found
        ratio = self._last[0]
        return found | {
            "sampler_ratio": float(ratio.mean()),
            "truncated_share": float((ratio > self.cap).double().mean()),
        }
