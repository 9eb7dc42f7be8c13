"""DPO: a language model as its own reward model. Its preferences are Bradley and Terry's, with r = β log
π/π_ref."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ..data.batch import Batch
from ..data.devices import device_of
from ..data.source import evaluating
from ..errors import BadArgument
from ..language.adapters import adapted_by, without
from ..language.autoregressive import Autoregressive
from ..models.base import Model
from ..types import ModelLike
from .answers import answer_log_prob, pair_log_prob
from .token_pairs import TokenPairs


class Referenced(Model):
    """A policy and the reference that it is compared with: r = β log π(a|x)/π_ref(a|x) of an answer.

    Parameters
    ----------
    policy, reference, beta
        as of `DPO`

    Examples
    --------
    >>> from thetahat.language import Bytes
    >>> policy = Autoregressive(torch.nn.Embedding(257, 257))
    >>> pairs = TokenPairs([{"prompt": "2+2=", "chosen": "4", "rejected": "five"}], Bytes(), context=16)
    >>> DPO(policy, copy.deepcopy(policy)).reward(pairs.whole, "chosen").tolist()
    [0.0]
    """

    measure = "mass"
    keeps = "free"

    def __init__(self, policy: Autoregressive, reference: Autoregressive | None = None, beta: float = 0.1):
        super().__init__()
        if not isinstance(policy, Autoregressive) or not isinstance(reference, Autoregressive | None):
            raise BadArgument(
                f"{type(self).__name__}(policy, reference): both are Autoregressive; received "
                f"{type(policy).__name__}, {type(reference).__name__}."
            )
        if not beta > 0:
            raise BadArgument(f"beta={beta}. Accepted: beta > 0.")
        if reference is None and not adapted_by(policy):
            raise BadArgument(
                "without a reference the policy needs adapters, which are left out for it: "
                "language.add_lora(network)."
            )
        if reference is policy:
            raise BadArgument("the reference is the policy itself and would move with it: give a copy.")
        self.policy, self.beta = policy, beta
        self.reference = (
            None if reference is None else copy.deepcopy(reference).requires_grad_(False).train(False)
        )

    def train(self, mode: bool = True) -> Self:
        """The reference stays in evaluation mode."""
        super().train(mode)
        if self.reference is not None:
            self.reference.train(False)
        return self

    @contextmanager
    def compared(self) -> Iterator[Autoregressive]:
        """π_ref, in evaluation mode: its own model, or the policy without its adapters."""
        model: ModelLike = self.policy if self.reference is None else self.reference
        off: AbstractContextManager[Any] = without(self.policy) if self.reference is None else nullcontext()
        with off, evaluating(model):
            yield model

    def reward(self, batch: Batch, which: str) -> Tensor:
        """r = β log π/π_ref of the answers under a name, (n,); "NAME_reference" holds log π_ref where it is known."""
        now = answer_log_prob(self.policy, batch, which)
        if f"{which}_reference" in batch:
            before = batch[f"{which}_reference"]
        else:
            with torch.no_grad(), self.compared() as reference:
                before = answer_log_prob(reference, batch, which)
        out: Tensor = self.beta * (now - before.to(now.dtype))
        return out


class DPO(Referenced):
    """The probability that one answer is preferred to another, by a policy that is optimal for the reward it
    implies.

        log p(a ≻ b | x) = log σ(d),      d = β [log π(a|x)/π_ref(a|x) − log π(b|x)/π_ref(b|x)]
        with noise ε:      log[(1 − ε) σ(d) + ε σ(−d)]: a share ε of the pairs has been turned round

    π_ref e^{r/β}/Z is the policy that maximises E r − β KL(π ‖ π_ref), so r = β log π/π_ref + β log Z(x), and
    log Z cancels in a difference.

    Reads the tensors of `preferences.TokenPairs`; where a batch has "chosen_reference" and
    "rejected_reference" (`referenced`), log π_ref is not computed again.

    Parameters
    ----------
    policy
        π, an `Autoregressive`
    reference
        π_ref, of which a frozen copy is kept that is never in training; None: the policy without its adapters
        (`language.add_lora`)
    beta
        β > 0, in units of reward a nat
    label_smoothing
        ε in [0, ½)

    References
    ----------
    Rafailov et al. (2023), Direct preference optimization; Mitchell (2023), A note on DPO with noisy
    preferences, for labels that are turned round with probability ε; there log σ is mixed, here the
    probabilities are, which is the likelihood of such labels.

    Examples
    --------
    >>> from thetahat.language import Bytes
    >>> policy, reference = (Autoregressive(torch.nn.Embedding(257, 257)) for _ in range(2))
    >>> _ = reference.load_state_dict(policy.state_dict())
    >>> pairs = TokenPairs([{"prompt": "2+2=", "chosen": "4", "rejected": "five"}], Bytes(), context=16)
    >>> round(DPO(policy, reference).log_prob(pairs.whole).item(), 6)  # before anything is learnt each answer is as good as the other
    -0.693147
    """

    target = "preference"

    def __init__(
        self,
        policy: Autoregressive,
        reference: Autoregressive | None = None,
        beta: float = 0.1,
        label_smoothing: float = 0.0,
    ):
        super().__init__(policy, reference, beta)
        if not 0 <= label_smoothing < 0.5:
            raise BadArgument(f"label_smoothing={label_smoothing}. Accepted: label_smoothing in [0, 0.5).")
        self.label_smoothing = label_smoothing

    def implied(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """r = β log π/π_ref of the chosen and of the rejected answers, (n,) each."""
        now = self._answers(self.policy, batch)
        if "chosen_reference" in batch:
            before = batch["chosen_reference"], batch["rejected_reference"]
        else:
            before = self.of_reference(batch)
        chosen, rejected = (self.beta * (a - b.to(a.dtype)) for a, b in zip(now, before, strict=True))
        return chosen, rejected

    @torch.no_grad()
    def of_reference(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """log π_ref of the chosen and of the rejected answers, (n,) each."""
        with self.compared() as reference:
            return self._answers(reference, batch)

    def _answers(self, model: Autoregressive, batch: Batch) -> tuple[Tensor, Tensor]:
        """log π of both answers given the prompt, (n,) each, in one pass."""
        return pair_log_prob(model, batch)

    def log_prob(self, batch: Batch) -> Tensor:
        chosen, rejected = self.implied(batch)
        d = chosen - rejected
        if self.label_smoothing == 0:
            return logsigmoid(d)
        keep, turn = torch.log(
            torch.tensor([1 - self.label_smoothing, self.label_smoothing], dtype=d.dtype, device=d.device)
        )
        return torch.logaddexp(keep + logsigmoid(d), turn + logsigmoid(-d))

    def referenced(self, pairs: TokenPairs) -> TokenPairs:
        """Pairs with log π_ref of their answers besides, computed once; those given stay as they are."""
        device = device_of(self)
        found = [[t.cpu() for t in self.of_reference(batch.to(device))] for batch in pairs.batches()]
        out = copy.copy(pairs)
        out.whole = pairs.whole[...]
        for i, name in enumerate(("chosen_reference", "rejected_reference")):
            out.whole.tensors[name] = torch.cat([each[i] for each in found])
        return out
