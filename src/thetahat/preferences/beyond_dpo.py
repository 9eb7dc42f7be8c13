"""Other likelihoods of the same pairs: IPO, which does not run to certainty, and ORPO, which needs no reference.

    IPO      log p = log Normal(h | 1/2β, ½),      h = log π/π_ref(a|x) − log π/π_ref(b|x)
    ORPO     Σ (1/T_a) log π(a|x)  +  λ Σ log σ(log odds π(a|x) − log odds π(b|x)),      odds = P/(1 − P),  P = π(answer|x)^{1/T}

IPO's maximum over labels of probability p is h = (2p − 1)/2β, which is finite where every label agrees; DPO's is
h = log(p/(1 − p))/β, which then is not. ORPO is two likelihoods that add: of the answers that were chosen, each weighed by
one over its length, and of the preferences, with the log odds as rewards.

References
----------
Azar et al. (2024), A general theoretical paradigm to understand learning from human preferences (eq. 17); Hong, Lee and
Thorne (2024), ORPO: monolithic preference optimization without reference model (eqs. 4 to 7).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ..data.batch import Batch
from ..errors import BadArgument
from ..language.autoregressive import Autoregressive
from ..likelihood import LogLikelihood, Objective
from ..models.base import Model
from .answers import answer_log_prob, pair_log_prob
from .dpo import DPO
from .token_pairs import TokenPairs


class IPO(DPO):
    """The pairs of `DPO` under a normal distribution of the difference of log ratios around 1/2β.

    Parameters
    ----------
    policy, reference
        as of `DPO`
    beta
        β > 0, in units of 1/nat: a larger one keeps nearer to the reference

    Examples
    --------
    >>> from thetahat.language import Bytes
    >>> policy = Autoregressive(torch.nn.Embedding(257, 257))
    >>> pairs = TokenPairs([{"prompt": "2+2=", "chosen": "4", "rejected": "five"}], Bytes(), context=16)
    >>> import copy
    >>> round(IPO(policy, copy.deepcopy(policy), beta=0.5).log_prob(pairs.whole).item(), 4)      # −(0 − 1)² − ½ log π
    -1.5724
    """

    measure = "density"

    def __init__(self, policy: Autoregressive, reference: Autoregressive | None = None, beta: float = 0.1):
        super().__init__(policy, reference, beta)

    def log_prob(self, batch: Batch) -> Tensor:
        chosen, rejected = self.implied(batch)
        h = (chosen - rejected) / self.beta
        return -(h - 1 / (2 * self.beta)).square() - 0.5 * math.log(math.pi)


class OddsRatio(Model):
    """The probability that one answer is preferred to another, with the log odds of their mean token as rewards.

        log p(a ≻ b | x) = log σ(o_a − o_b),      o = m − log(1 − e^m),  m the mean nats a token of the answer

    Examples
    --------
    >>> from thetahat.language import Bytes
    >>> policy = Autoregressive(torch.nn.Embedding(257, 257))
    >>> _ = torch.nn.init.zeros_(policy.network.weight)
    >>> pairs = TokenPairs([{"prompt": "2+2=", "chosen": "4", "rejected": "five"}], Bytes(), context=16)
    >>> round(OddsRatio(policy).log_prob(pairs.whole).item(), 6)
    -0.693147
    """

    measure = "mass"
    target = "preference"

    def __init__(self, policy: Autoregressive):
        super().__init__()
        if not isinstance(policy, Autoregressive):
            raise BadArgument(
                f"OddsRatio(policy): received {type(policy).__name__}. Accepted: an Autoregressive."
            )
        self.policy = policy

    def log_prob(self, batch: Batch) -> Tensor:
        a, b = (
            log_prob / _length(batch, which)
            for log_prob, which in zip(pair_log_prob(self.policy, batch), ("chosen", "rejected"), strict=True)
        )
        return logsigmoid(_log_odds(a) - _log_odds(b))


class Chosen(Model):
    """log π(a | x) of the answer that was preferred.

    Examples
    --------
    >>> from thetahat.language import Bytes
    >>> policy = Autoregressive(torch.nn.Embedding(257, 257))
    >>> pairs = TokenPairs([{"prompt": "2+2=", "chosen": "4", "rejected": "five"}], Bytes(), context=16)
    >>> tuple(Chosen(policy).log_prob(pairs.whole).shape)
    (1,)
    """

    measure = "mass"
    target = "preference"

    def __init__(self, policy: Autoregressive):
        super().__init__()
        self.policy = policy

    def log_prob(self, batch: Batch) -> Tensor:
        return answer_log_prob(self.policy, batch, "chosen")


@dataclass(frozen=True)
class PerToken:
    """One over the length of the chosen answer."""

    def __call__(self, batch: Batch, log_prob: Tensor) -> Tensor:
        return 1 / _length(batch, "chosen").to(log_prob.dtype)


@dataclass(frozen=True)
class Times:
    """A constant weight."""

    by: float

    def __call__(self, batch: Batch, log_prob: Tensor) -> Tensor:
        return torch.full_like(log_prob, self.by)


def orpo(policy: Autoregressive, pairs: TokenPairs, weight: float = 0.1) -> Objective:
    """ORPO's objective, for `th.maximize`.

    Parameters
    ----------
    weight
        λ > 0 of the preferences beside the chosen answers

    Examples
    --------
    >>> from thetahat.language import Bytes
    >>> policy = Autoregressive(torch.nn.Embedding(257, 257))
    >>> pairs = TokenPairs([{"prompt": "2+2=", "chosen": "4", "rejected": "five"}], Bytes(), context=16)
    >>> [type(term.model).__name__ for term in orpo(policy, pairs).terms]
    ['Chosen', 'OddsRatio']
    """
    if not 0 < weight < math.inf:
        raise BadArgument(f"weight={weight}. Accepted: a positive number.")
    return Objective(
        [
            LogLikelihood(Chosen(policy), pairs, PerToken()),
            LogLikelihood(OddsRatio(policy), pairs, Times(weight)),
        ]
    )


def _length(batch: Batch, which: str) -> Tensor:
    out: Tensor = batch[f"{which}_mask"].sum(1)
    return out


def _log_odds(m: Tensor) -> Tensor:
    """m − log(1 − e^m), m < 0, without loss where e^m is near 0 or 1 (Mächler 2012)."""
    m = m.clamp(max=-1e-7)
    near = m > -math.log(2)
    left = torch.where(near, torch.log(-torch.expm1(m)), torch.log1p(-torch.exp(torch.where(near, -1.0, m))))
    return m - left
