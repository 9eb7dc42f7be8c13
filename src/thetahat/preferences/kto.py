"""KTO and BCO: a policy learns from answers that are each desirable or not, without pairs.

    r = β log π/π_ref(a|x)
    BCO      log p(label | x, a) = log σ(±(r − δ)),     + where the answer is desirable; δ is fitted with the policy
    KTO      Σ λ_y σ(±(r − z0)),                        z0 = max(0, mean of r over mismatched answers), held fixed

BCO is a likelihood of the labels: logistic regression with the reward as its offset. KTO's value is not a
log-likelihood. Its gradient is that of a weighted one, since λ ∇σ(u) = λ σ(u) ∇ log σ(u): each label weighs λ_y times
its own probability, so that labels that the policy contradicts count little.

z0 is an estimate from the answers of the batch. The objective of a batch is therefore not a sum of independent terms,
and the mean over batches is not that of all the data at once. A score takes z0 over all the answers scored.

References
----------
Ethayarajh et al. (2024), KTO: model alignment as prospect theoretic optimization (eqs. 6 to 8); Jung et al. (2024), Binary
classifier optimization for large language model alignment, whose δ is a running mean of rewards; here it maximises the
likelihood.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from ..data.batch import Batch
from ..data.devices import device_of
from ..errors import BadArgument, DataError
from ..language.autoregressive import Autoregressive
from ..likelihood import LogLikelihood, Objective
from .answers import answer_log_prob
from .dpo import Referenced
from .labelled import Labelled


class _OfLabels(Referenced):
    """What BCO and KTO share."""

    target = "label"
    answers: ClassVar[tuple[str, ...]] = ("answer",)

    def referenced(self, labelled: Labelled) -> Labelled:
        """Answers with log π_ref besides, computed once; those given stay as they are."""
        device = device_of(self)
        out = copy.copy(labelled)
        out.whole = labelled.whole[...]
        for name in self.answers:
            if name not in labelled.whole:
                continue
            with torch.no_grad(), self.compared() as reference:
                found = [answer_log_prob(reference, b.to(device), name).cpu() for b in labelled.batches()]
            out.whole.tensors[f"{name}_reference"] = torch.cat(found)
        return out


class BCO(_OfLabels):
    """The probability of the label of an answer: Bernoulli, with the implied reward in its log odds.

        log p(label | x, a) = log σ(r − δ) where it is desirable, log σ(δ − r) where it is not,      r = β log π/π_ref

    Parameters
    ----------
    policy, reference, beta
        as of `DPO`

    Examples
    --------
    >>> from thetahat.language import Bytes
    >>> policy = Autoregressive(nn.Embedding(257, 257))
    >>> data = Labelled([{"prompt": "2+2=", "completion": "4", "label": True}], Bytes(), context=16)
    >>> round(BCO(policy, copy.deepcopy(policy)).log_prob(data.whole).item(), 6)
    -0.693147
    """

    def __init__(self, policy: Autoregressive, reference: Autoregressive | None = None, beta: float = 0.1):
        super().__init__(policy, reference, beta)
        first = next(policy.parameters(), torch.zeros(()))
        self.shift = nn.Parameter(torch.zeros((), dtype=torch.promote_types(first.dtype, torch.float32)))
        self.shift.data = self.shift.data.to(first.device)

    def log_prob(self, batch: Batch) -> Tensor:
        u = self.reward(batch, "answer") - self.shift
        return logsigmoid(torch.where(batch["label"], u, -u))


class KTO(_OfLabels):
    """The probability of the label of an answer, given a reference point z0 that is estimated from mismatched answers.

        log p(label | x, a, z0) = log σ(±(r − z0)),      z0 = max(0, Σ c_j r_j / Σ c_j),  r_j of prompt j with another's answer

    It has no gradient in z0. A batch's "reference_point" is z0 where it is there (`Labelled` puts it there, of all its
    answers, for a score); else z0 is that of the batch. KTO's objective is this model weighted by `Prospect`: `kto`.

    Parameters
    ----------
    policy, reference, beta
        as of `DPO`

    Examples
    --------
    >>> from thetahat.language import Bytes
    >>> policy = Autoregressive(nn.Embedding(257, 257))
    >>> rows = [{"prompt": "2+2=", "completion": "4", "label": True}, {"prompt": "1+1=", "completion": "3", "label": False}]
    >>> model = KTO(policy, copy.deepcopy(policy))
    >>> [round(v, 6) for v in model.log_prob(Labelled(rows, Bytes(), context=16).whole).tolist()]
    [-0.693147, -0.693147]
    """

    answers = ("answer", "mismatched")
    note = "labels given the reference point z0, an estimate from the answers scored, so that the terms are not independent"

    def mismatched(self, batch: Batch) -> Tensor:
        """β log π/π_ref of each prompt with another's answer, (n,).

        Raises
        ------
        DataError
            there are none: all answers are to one prompt
        """
        if "mismatched" not in batch:
            raise DataError(
                "KTO's reference point needs answers to other prompts, and these answers are all to one. Accepted: two "
                "prompts or more, or BCO."
            )
        return self.reward(batch, "mismatched")

    @staticmethod
    def reference_point(rewards: Tensor, count: Tensor) -> Tensor:
        """z0 of the rewards of mismatched answers, ()."""
        c = count.to(rewards)
        return ((c * rewards).sum() / c.sum()).clamp(min=0)

    def log_prob(self, batch: Batch) -> Tensor:
        if "reference_point" in batch:
            z0 = batch["reference_point"]
        else:
            with torch.no_grad():
                z0 = self.reference_point(self.mismatched(batch), batch.count)
        u = self.reward(batch, "answer")
        u = u - z0.to(u)
        return logsigmoid(torch.where(batch["label"], u, -u))


@dataclass(frozen=True)
class Prospect:
    """KTO's weight: λ of the label times its probability.

        w = λ_y σ(±(r − z0)),      Σ w ∇ log σ(±(r − z0)) = ∇ Σ λ_y σ(±(r − z0))

    Parameters
    ----------
    desirable_weight, undesirable_weight
        λ_D, λ_U > 0. The paper's advice: λ_D n_D / (λ_U n_U) between 1 and 3/2

    Examples
    --------
    >>> batch = Batch({"label": torch.tensor([True, False])})
    >>> Prospect(2.0)(batch, torch.log(torch.tensor([0.5, 0.25]))).tolist()
    [1.0, 0.25]
    """

    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("desirable_weight", "undesirable_weight"):
            if not 0 < vars(self)[name] < math.inf:
                raise BadArgument(f"{name}={vars(self)[name]}. Accepted: a positive number.")

    def __call__(self, batch: Batch, log_prob: Tensor) -> Tensor:
        return self._of(batch, log_prob) * log_prob.exp()

    def losses(self, batch: Batch, log_prob: Tensor) -> Tensor:
        """KTO's published loss of each answer, λ_y − λ_y σ(±(r − z0)), (n,)."""
        return -self._of(batch, log_prob) * torch.expm1(log_prob)

    def _of(self, batch: Batch, log_prob: Tensor) -> Tensor:
        low, high = (torch.full_like(log_prob, v) for v in (self.undesirable_weight, self.desirable_weight))
        return torch.where(batch["label"], high, low)


def kto(
    policy: Autoregressive,
    labelled: Labelled,
    reference: Autoregressive | None = None,
    beta: float = 0.1,
    *,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Objective:
    """KTO's objective, for `th.maximize` with `th.Stochastic`: z0 is that of each batch.

    Not a likelihood; its gradient is that of labels weighted by `Prospect`.

    Parameters
    ----------
    policy, reference, beta
        as of `DPO`
    desirable_weight, undesirable_weight
        λ_D, λ_U > 0

    Examples
    --------
    >>> from thetahat.language import Bytes
    >>> policy = Autoregressive(nn.Embedding(257, 257))
    >>> rows = [{"prompt": "2+2=", "completion": "4", "label": True}, {"prompt": "1+1=", "completion": "3", "label": False}]
    >>> objective = kto(policy, Labelled(rows, Bytes(), context=16), copy.deepcopy(policy))
    >>> type(objective.terms[0].model).__name__
    'KTO'
    """
    model = KTO(policy, reference, beta)
    weights = Prospect(desirable_weight, undesirable_weight)
    return Objective([LogLikelihood(model, model.referenced(labelled), weights)])
