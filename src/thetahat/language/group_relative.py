"""Returns of answers to one prompt, as advantages; and what an estimate of the KL divergence does as a
penalty.

References
----------
Kool, van Hoof and Welling (2019), Buy 4 REINFORCE samples, get a baseline for free!; Shao et al. (2024),
DeepSeekMath (GRPO); Liu et al. (2025), Understanding R1-Zero-like training (what its two divisions do);
Schulman (2020), Approximating KL divergence.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.batch import Batch
from ..errors import BadArgument
from ..likelihood.weights.bounded import ROUNDING, bounded
from ..types import Weights


@dataclass(frozen=True)
class RLOO:
    """Leave one out: A_j = R_j − Σ_{k≠j} R_k / (G − 1), over the answers to one prompt.

    The baseline knows nothing of the answer that it is taken from, so E Σ A_j ∇log π(o_j) is the gradient of
    G·E R exactly.

    across : the others are all answers of the pass, to whatever prompt (REINFORCE with the mean as its
    baseline)

    Examples
    --------
    >>> RLOO()(torch.tensor([[1.0, 0.0, 0.5]]), torch.ones(1, 3)).tolist()
    [[0.75, -0.75, 0.0]]
    """

    across: bool = False

    def __call__(self, R: Tensor, lengths: Tensor) -> Tensor:
        """A, (P, G), of R (P, G)."""
        each = R.reshape(1, -1) if self.across else R
        G = each.shape[1]
        if G < 2:
            raise BadArgument("a baseline of the other answers needs two or more: group=2, or across=True.")
        return ((each - each.mean(1, keepdim=True)) * (G / (G - 1))).reshape(R.shape)


@dataclass(frozen=True)
class GroupRelative:
    """GRPO: A_j = (R_j − mean R) / sd R over the answers to one prompt, divided by the answer's length.

    Both divisions bias the gradient, and can be left out. `by_std`: prompts whose answers are worth about the
    same (too easy, too hard) weigh as much as the others. `by_length`: a long wrong answer is blamed less a
    token than a short one, so wrong answers grow longer. Without both it is (G − 1)/G of RLOO.

    Parameters
    ----------
    by_std, by_length
        divide

    Examples
    --------
    >>> GroupRelative(by_length=False)(torch.tensor([[1.0, 0.0, 0.0, 1.0]]), torch.ones(1, 4))
    tensor([[ 0.8660, -0.8660, -0.8660,  0.8660]])
    """

    by_std: bool = True
    by_length: bool = True

    def __call__(self, R: Tensor, lengths: Tensor) -> Tensor:
        """A, (P, G), of R (P, G), and the lengths of the answers."""
        if R.shape[1] < 2:
            raise BadArgument("GroupRelative compares answers to one prompt: group=2 or more.")
        A = R - R.mean(1, keepdim=True)
        if self.by_std:
            spread = R.std(1, keepdim=True)
            same = spread <= ROUNDING * R.abs().amax(1, keepdim=True)
            A = torch.where(same, 0.0, A / torch.where(same, 1.0, spread))
        return A * (lengths.mean() / lengths) if self.by_length else A


ESTIMATORS = ("k1", "k2", "k3")


def kl_estimate(log_prob: Tensor, reference: Tensor, estimator: str = "k1") -> Tensor:
    """An estimate of KL(π ‖ π_ref) from each draw of π, with d = log π − log π_ref:

        k1 = d                          unbiased;             its gradient has expectation 0: as a penalty it does nothing
        k2 = d²/2                       biased;               its gradient is that of KL(π ‖ π_ref)
        k3 = e^{−d} − 1 + d             unbiased, positive;   its gradient is that of KL(π_ref ‖ π)

    (the gradients of the estimates at draws held fixed, in expectation over them). A draw is what log p is
    of: of a sequence's log p the divergence is the sequence's, of a token's it is that token's, given those
    before it as they were drawn.

    Examples
    --------
    >>> kl_estimate(torch.tensor(-1.0), torch.tensor(-1.5), "k3").item() > 0
    True
    """
    d = log_prob - reference
    if estimator == "k1":
        return d
    if estimator == "k2":
        return bounded(0.5 * d.square())
    if estimator == "k3":
        return bounded(bounded(torch.expm1(-d)) + d)
    raise BadArgument(f"estimator={estimator!r}. Accepted: {', '.join(map(repr, ESTIMATORS))}.")


@dataclass(frozen=True)
class Penalised:
    """A weighting, less a penalty on the divergence from a reference beside the reward (not within it).

        w = weighting − β·k'(d),      k' the derivative of the estimate k(d) in log π:   1 (k1),   d (k2),   1 − e^{−d} (k3)

    Terms are tokens, so the divergence is each token's, given those before it: what a token does to the
    divergence of later ones is left out, as GRPO leaves it out. The divergence of whole answers belongs in
    the reward: `language.Generations(…, kl=β)`.

    Reads "reference" of the batch.

    Parameters
    ----------
    weighting
        (batch, log_prob) → weights
    beta
        β ≥ 0
    estimator
        "k2", for the gradient of KL(π ‖ π_ref); "k3" (GRPO's), for that of KL(π_ref ‖ π); "k1" does nothing
        in expectation
    """

    weighting: Weights
    beta: float
    estimator: str = "k2"

    def __post_init__(self) -> None:
        if self.beta < 0 or self.estimator not in ESTIMATORS:
            raise BadArgument(
                f"beta={self.beta}, estimator={self.estimator!r}. Accepted: 0 or more, and one of "
                f"{', '.join(map(repr, ESTIMATORS))}."
            )

    def __call__(self, batch: Batch, log_prob: Tensor) -> Tensor:
        if "reference" not in batch:
            raise BadArgument(
                "Penalised measures from a reference, and the batch has none: language.Generations(…, "
                "reference=…)."
            )
        d = log_prob - batch["reference"]
        slope = {"k1": torch.ones_like(d), "k2": d, "k3": -bounded(torch.expm1(-d))}[self.estimator]
        scale = (
            batch.total / len(batch) if len(batch.shape) > 1 else 1.0
        )  # as the advantages: a mean over answers
        return bounded(self.weighting(batch, log_prob) - bounded(self.beta * scale * slope))
