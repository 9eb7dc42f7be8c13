"""Generations: what a language model answers to prompts as it now stands, and what the answers are worth."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.devices import device_of, move
from ..data.source import digest, evaluating, told
from ..errors import BadArgument, DataError, EmptyData, NotFinite
from ..protocols import Sampler, Samples, Truncates
from ..types import Data, ModelLike
from .autoregressive import Autoregressive
from .samplers import ContinuousBatching, Drawn
from .shared_prompts import PROMPT
from .truncated import Gap

Reward = Callable[[list[Tensor], list[Tensor]], Tensor]
Advantage = Callable[[Tensor, Tensor], Tensor]
CONSTANT = (
    20  # passes in a row whose rewards are all the same, at least, after which there is nothing to learn
)


class Generations:
    """What a language model answers to prompts, as a source that draws from the model.

    Each pass takes the next prompts in turn, draws G answers to each, and yields them as one batch of terms
    (B, T), B prompts · G:

        input, target (B, T)    tokens, and those that follow; the count is 1 where the target belongs to the answer, its end included
        prompt (B, T)           the number of the row's prompt at its tokens, −1 elsewhere: log_prob reads each once
        log_prob (B, T)         log π of each token, by the policy as it stands when they are drawn
        sampler_log_prob (B, T) by what drew them;    only where that is another programme (`language.Server`)
        reference (B, T)        of the reference;    only with one
        return (B, T)           R = r − β Σ_t (log π − log π_ref): the reward of the answer less the KL penalty, at each of its tokens
        advantage (B, T)        what `advantage` makes of R, at each of its tokens
        ended (B, T)            at the last token of an answer: it is the end (otherwise the answer was cut off at `max_new_tokens`)

    E ∇ Σ_i R_i log π(o_i) is the gradient of E r − β KL(π ‖ π_ref), whose maximum is π_ref e^{r/β}/Z.
    Advantages are multiplied by the mean length of the answers in a batch, so that a step's mean over tokens
    is a mean over answers, whatever their length.

    Answers are drawn from π itself, at temperature 1 and from all tokens: another distribution than that
    whose gradient is taken would bias it.

    Prompts of all lengths are answered together (`language.ContinuousBatching`), and each answer is drawn with random numbers of
    its own, of the seed, the pass and its place in it.

    Once every answer of many passes, to every prompt, has the same reward, there is nothing more to learn:
    without a reference, training ends there (`finished`), and the fit says so.

    Parameters
    ----------
    prompts
        token ids, (T,) each, at least one token
    reward
        (prompts, answers), lists of (T,) tokens → (B,) numbers; an answer has its end where it was drawn
    max_new_tokens
        tokens of an answer, at most
    end
        the token that ends an answer; None: all have `max_new_tokens` tokens
    num_generations
        G
    prompts_per_step
        prompts a pass; None: all
    advantage
        (R (P, G), their lengths (P, G)) → (P, G): `language.RLOO()`, `language.GroupRelative()`
    reference
        an Autoregressive, of which a frozen copy is kept; "base", the policy without its adapters
        (`language.add_lora`)
    kl_coef
        β ≥ 0, in units of reward a nat
    truncated
        the reward of every answer that was cut off, in place of its own; None: its own
    context
        tokens of prompt and answer together that the network can read; None: any number
    epochs, batch_size
        deal each pass out so many times, so many answers a step (PPO). None: whole, once
    seed
        of the draws
    sampler
        what draws the answers of an `Autoregressive`: None: `language.ContinuousBatching()`; `language.Server(…)`. With a server
        the gap between its log-probabilities and the policy's own is measured at every pass (`gap`, a `language.Gap`), and
        `language.TruncatedImportance` corrects for it. A model that is no Autoregressive draws by its own `sample`, prompts of one
        length at a time
    reuse_log_prob
        "log_prob" is what the sampler found as it drew, and no second pass over the answers is made. None: where the two are
        equal to rounding (1e-12 in float64, 1e-5 in float32), which is with a sampler of the model's own, and θ in float32 or
        better

    Raises
    ------
    BadArgument
        reuse_log_prob with a sampler whose log-probabilities are not the policy's own; a prompt without a token or
        longer than the context leaves room for
    DataError, NotFinite
        rewards of another shape, or not finite

    References
    ----------
    Ziegler et al. (2019), Fine-tuning language models from human preferences; Ahmadian et al. (2024), Back to
    basics.

    Examples
    --------
    >>> from thetahat.language import Autoregressive
    >>> model = Autoregressive(torch.nn.Embedding(5, 5))
    >>> def ones(prompts, answers):
    ...     return torch.tensor([float((a == 1).sum()) for a in answers])
    >>> few = Generations([torch.tensor([0])], ones, max_new_tokens=3, num_generations=4)
    >>> batch = next(few.batches(model))
    >>> batch.shape, batch.count.sum().item()
    ((4, 3), 12.0)
    """

    drawn = True
    size = None
    units = "token"

    def __init__(
        self,
        prompts: Sequence[Tensor | Sequence[int]],
        reward: Reward,
        *,
        max_new_tokens: int,
        end: int | None = None,
        num_generations: int = 4,
        prompts_per_step: int | None = None,
        advantage: Advantage | None = None,
        reference: Data = None,
        kl_coef: float = 0.0,
        truncated: float | None = None,
        context: int | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        seed: int = 0,
        sampler: Sampler | None = None,
        reuse_log_prob: bool | None = None,
    ):
        if sampler is not None and not isinstance(sampler, Sampler):
            raise BadArgument(
                f"sampler is a {type(sampler).__name__}. Accepted: language.ContinuousBatching(), language.Server(…), or "
                "None."
            )
        if reuse_log_prob and sampler is not None and not sampler.exact:
            raise BadArgument(
                f"reuse_log_prob=True, and the log-probabilities of {sampler!r} are not the policy's own. Accepted: "
                "False; language.TruncatedImportance weighs by the ratio of the two."
            )
        known = {
            "max_new_tokens": max_new_tokens,
            "num_generations": num_generations,
            "prompts_per_step": prompts_per_step,
            "epochs": epochs,
            "batch_size": batch_size,
        }
        for name, value in known.items():
            if value is not None and value < 1:
                raise BadArgument(f"{name}={value}. Accepted: 1 or more.")
        if batch_size is not None and epochs is None:
            raise BadArgument(f"batch_size={batch_size} deals a pass out in parts: say how often, epochs=….")
        if not 0 <= kl_coef < math.inf or (kl_coef > 0 and reference is None):
            raise BadArgument(
                f"kl_coef={kl_coef}: 0 or more, and with more than 0 a reference= from which it is measured."
            )
        self.prompts = [torch.as_tensor(p, dtype=torch.long) for p in prompts]
        if not self.prompts:
            raise EmptyData("there are no prompts.")
        for i, prompt in enumerate(self.prompts):
            if prompt.ndim != 1 or not len(prompt):
                raise BadArgument(
                    f"prompt {i} has the shape {tuple(prompt.shape)}. A prompt is (T,) tokens, one or more."
                )
            if context is not None and len(prompt) + max_new_tokens > context:
                raise BadArgument(
                    f"prompt {i} has {len(prompt)} tokens, and with an answer of {max_new_tokens} more than "
                    f"context={context}."
                )
        self.reward, self.max_new_tokens, self.end = reward, max_new_tokens, end
        self.num_generations, self.advantage = num_generations, advantage
        self.reference, self.kl_coef, self.truncated = reference, kl_coef, truncated
        self.epochs, self.batch_size, self.seed = epochs, batch_size, seed
        self.each = min(prompts_per_step or len(self.prompts), len(self.prompts))
        self.sampler = sampler or ContinuousBatching()
        self.reuse_log_prob = self.sampler.exact if reuse_log_prob is None else reuse_log_prob
        self._if_wide = reuse_log_prob is None  # of a θ in 16 bits two orders of summation differ by 1e-2
        self.generator = torch.Generator().manual_seed(seed)
        self.at = self.constant = self.passes = 0
        self.gap: Gap | None = None  # of the last pass
        self._how = ""  # how answers were drawn, where it was not as asked
        self.varied = False  # whether two answers ever had different rewards
        self._last: float | None = None
        self._pass: Batch | None = None
        self._left: list[Tensor] = []  # rows of the pass under way, a step each
        self._restored = False
        self._now: dict[str, float] = {}
        if reference not in (None, "base"):
            self.reference = copy.deepcopy(reference).requires_grad_(False)

    @property
    def fingerprint(self) -> str:
        """Of how the data arise: they have no values before they are drawn."""
        known: tuple[Any, ...] = (
            self.max_new_tokens,
            self.end,
            self.num_generations,
            self.each,
            self.kl_coef,
            self.epochs,
            self.batch_size,
            self.seed,
            self.truncated,
        )
        if not self.sampler.exact:
            known = (*known, repr(self.sampler))
        how = "/".join(map(str, (*known, told(self.advantage))))
        return hashlib.blake2b(f"{digest(*self.prompts)}/{how}".encode(), digest_size=8).hexdigest()

    # ---- what a run takes ----------------------------------------------------------------------------------

    def batches(self, model: ModelLike = None) -> Iterator[Batch]:
        """One pass, (B, T)."""
        if model is None or not isinstance(model, Samples):
            raise BadArgument(
                "generations are drawn by a language model: it must have sample and log_prob "
                "(language.Autoregressive)."
            )
        with evaluating(model), torch.no_grad():
            yield self._drawn(model)

    def minibatches(self, model: ModelLike) -> Iterator[Batch]:
        """Without end, a batch a step: passes as they are drawn, or each in parts, so many times."""
        if not self._restored:  # what another run left was drawn from another policy
            self._left = []
        self._restored = False
        while True:
            if not self._left:
                (self._pass,) = self.batches(model)
                self._left = self._order(self._pass)
            whole = self._pass
            assert whole is not None
            part = self._left.pop(0)
            yield _levelled(whole if self.epochs is None else whole[part])

    def _order(self, whole: Batch) -> list[Tensor]:
        """The rows of each step that a pass is used for."""
        n = len(whole)
        orders = [torch.randperm(n, generator=self.generator) for _ in range(self.epochs or 0)] or [
            torch.arange(n)
        ]
        return [part for order in orders for part in order.split(self.batch_size or n)]

    def state(self) -> dict[str, Tensor]:
        """What the next batches depend on; of a pass that is being used, what is left of it."""
        counts = torch.tensor([self.at, self.constant, self.varied])
        known = {
            "generator": self.generator.get_state(),
            "counts": counts,
            "passes": torch.tensor(self.passes),
        }
        known |= {
            f"now.{name}": torch.tensor(value, dtype=torch.float64) for name, value in self._now.items()
        }
        if self._last is not None:
            known["last"] = torch.tensor(self._last, dtype=torch.float64)
        if self._pass is not None and self._left:
            known |= {f"pass.{name}": t for name, t in self._pass.tensors.items()}
            known |= {"count": self._pass.count, "group": self._pass.group, "left": torch.cat(self._left)}
            known["sizes"] = torch.tensor([len(part) for part in self._left])
        return {name: t.contiguous().clone() for name, t in known.items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        self.generator.set_state(tensors["generator"])
        self.at, self.constant, varied = tensors["counts"].tolist()
        self.varied = bool(varied)
        self.passes = (
            int(tensors["passes"]) if "passes" in tensors else 0
        )  # not in files of before it was counted
        self._now = {
            name.removeprefix("now."): float(t) for name, t in tensors.items() if name.startswith("now.")
        }
        self._last = float(tensors["last"]) if "last" in tensors else None
        self._pass, self._left, self._restored = None, [], True
        if "left" in tensors:
            whole = {name.removeprefix("pass."): t for name, t in tensors.items() if name.startswith("pass.")}
            self._pass = Batch(whole, count=tensors["count"], group=tensors["group"], dims=2)
            self._left = list(tensors["left"].split(tensors["sizes"].tolist()))

    def measured(self) -> dict[str, float]:
        """Means over the answers of the last pass: reward, KL to the reference (nats an answer), length,
        and the share cut off."""
        return dict(self._now)

    @property
    def remark(self) -> str:
        """Sentences for the certificate: once all rewards have been the same for many passes, over all prompts twice at
        least; and where answers could not be drawn as asked."""
        return " ".join(said for said in (self._same, self._how) if said)

    @property
    def _same(self) -> str:
        if self.constant < max(CONSTANT, 2 * math.ceil(len(self.prompts) / self.each)):
            return ""
        why = (
            "the task is solved, or all answers are alike"
            if self.varied
            else "it never varied, so that nothing was learnt from it"
        )
        return f"The reward was {self._last:g} for every answer of the last {self.constant} passes: {why}."

    @property
    def finished(self) -> bool:
        """Whether nothing more can be learnt: all rewards are the same, and there is no divergence from a
        reference to be learnt from."""
        return bool(self._same) and self.reference is None

    # ---- draw ----------------------------------------------------------------------------------------------

    def _drawn(self, model: ModelLike) -> Batch:
        chosen = [(self.at + k) % len(self.prompts) for k in range(self.each)]
        self.at = (self.at + self.each) % len(self.prompts)
        prompts = [self.prompts[i] for i in chosen for _ in range(self.num_generations)]
        drawn = self._answers(model, chosen)
        answers = drawn.tokens
        tensors, count = _laid_out(prompts, answers)
        batch = Batch(
            tensors,
            count=count,
            group=torch.tensor(chosen).repeat_interleave(self.num_generations)[:, None].expand(count.shape),
            dims=2,
        )
        log_prob = self._log_prob(model, batch, drawn)
        lengths, cut = (
            count.sum(1),
            torch.tensor([self.end is not None and int(a[-1]) != self.end for a in answers]),
        )
        batch.tensors["ended"] = _at_last(count) & ~cut[:, None]
        reward = self._rewards(prompts, answers, cut)
        penalty = torch.zeros_like(reward)
        if self.reference is not None:
            batch.tensors["reference"] = self._of_reference(model, batch).to(log_prob.dtype)
            penalty = (log_prob - batch["reference"]).sum(1).to(reward.dtype)
        R = reward - self.kl_coef * penalty
        A = (
            R
            if self.advantage is None
            else self.advantage(
                R.view(-1, self.num_generations), lengths.view(-1, self.num_generations)
            ).reshape(-1)
        )
        batch.tensors["return"] = (R[:, None] * count).to(log_prob.dtype)
        batch.tensors["advantage"] = (A[:, None] * count).to(log_prob.dtype)
        now: dict[str, Tensor] = {"reward": reward, "length": lengths, "truncated": cut.double()} | (
            {"kl": penalty} if self.reference is not None else {}
        )
        self._now = {name: float(values.double().mean()) for name, values in now.items()}
        if self.gap is not None:
            self._now |= {
                "gap": self.gap.mean_abs,
                "gap_max": self.gap.max_abs,
                "sampler_ess": self.gap.effective,
            }
        return batch

    def _log_prob(self, model: ModelLike, batch: Batch, drawn: Drawn) -> Tensor:
        """log π of each token, (B, T); what else is known of the draws is put into the batch."""
        if drawn.kept is not None:
            batch.tensors["kept"] = spread_out(drawn.kept, batch.count).clamp(min=1)
        if self._reuses(model) and drawn.log_prob is not None:
            if model.sampling is not None and model.sampling.temperature == 0:
                raise BadArgument(
                    "temperature=0 always takes the most probable token: nothing can be learnt."
                )
            known = spread_out(drawn.log_prob, batch.count)
            batch.tensors["log_prob"] = known
            return known
        here = batch.to(device_of(model))
        if drawn.kept is None and isinstance(model, Truncates) and (kept := model.kept(here)) is not None:
            batch.tensors["kept"] = kept.cpu()
            here = batch.to(device_of(model))
        log_prob: Tensor = model.log_prob(here).cpu()
        batch.tensors["log_prob"] = log_prob
        self.gap = None
        if not self.sampler.exact:
            if drawn.log_prob is not None:
                own, theirs = log_prob, spread_out(drawn.log_prob, batch.count)
                batch.tensors["sampler_log_prob"] = theirs.to(log_prob.dtype)
                self.gap = Gap.of(own, theirs, batch.count)
            elif drawn.raw_log_prob is not None:
                own = model.raw_log_prob(here).cpu()
                self.gap = Gap.of(own, spread_out(drawn.raw_log_prob, batch.count), batch.count)
        return log_prob

    def _reuses(self, model: ModelLike) -> bool:
        """Whether log q as it was drawn stands for a second pass."""
        if not self._if_wide or not isinstance(model, torch.nn.Module):
            return self.reuse_log_prob
        kinds = {p.dtype for p in model.parameters()}
        return self.reuse_log_prob and kinds <= {torch.float32, torch.float64}

    def _of_reference(self, model: ModelLike, batch: Batch) -> Tensor:
        """log π_ref of each token, (B, T)."""
        device = device_of(model)
        if self.reference == "base":
            out: Tensor = model.base_log_prob(batch.to(device)).cpu()
            return out
        move(self.reference, device)
        with evaluating(self.reference):
            out = self.reference.log_prob(batch.to(device)).cpu()
            return out

    def _answers(self, model: ModelLike, chosen: list[int]) -> Drawn:
        """Those to one prompt one after the other."""
        seed, self.passes = (self.seed, self.passes), self.passes + 1
        if type(model).sample is Autoregressive.sample:
            drawn: Drawn = self.sampler.draw(
                model,
                [self.prompts[i] for i in chosen],
                num_generations=self.num_generations,
                max_new_tokens=self.max_new_tokens,
                end=self.end,
                seed=seed,
            )
            self._how = drawn.remark
            return drawn
        if not isinstance(self.sampler, ContinuousBatching):
            raise BadArgument(
                f"a {type(model).__name__} draws by its own sample, and sampler={self.sampler!r} is asked for. "
                "Accepted: a language.Autoregressive."
            )
        prompts = [self.prompts[i] for i in chosen for _ in range(self.num_generations)]
        out: dict[int, Tensor] = {}
        for size in sorted({len(p) for p in prompts}):
            rows = [i for i, p in enumerate(prompts) if len(p) == size]
            asked = torch.stack([prompts[i] for i in rows])
            drawn_here = model.sample(asked, self.max_new_tokens, end=self.end, generator=self.generator)
            for i, row in zip(rows, drawn_here, strict=True):
                over = torch.nonzero(row == self.end) if self.end is not None else row[:0]
                out[i] = row[: int(over[0, 0]) + 1] if len(over) else row
        return Drawn([out[i] for i in range(len(prompts))], None)

    def _rewards(self, prompts: list[Tensor], answers: list[Tensor], cut: Tensor) -> Tensor:
        reward = rewards_of(self.reward, prompts, answers)
        if self.truncated is not None:
            reward = torch.where(cut, torch.tensor(self.truncated, dtype=reward.dtype), reward)
        same = bool((reward == reward[0]).all())
        self.varied = self.varied or not same or self._last not in (None, float(reward[0]))
        self.constant = self.constant + 1 if same and self._last in (None, float(reward[0])) else int(same)
        self._last = float(reward[0])
        return reward


def rewards_of(
    reward: Reward, prompts: list[Tensor], answers: list[Tensor], name: str = "the reward"
) -> Tensor:
    """One finite number an answer, (B,), float64.

    Raises
    ------
    DataError, NotFinite
        rewards of another shape, or not finite
    """
    given = reward(prompts, answers)
    try:
        found = torch.as_tensor(given, dtype=torch.float64).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{name} gave {str(given)[:60]!r} for {len(answers)} answers: one number each."
        ) from error
    if tuple(found.shape) != (len(answers),):
        raise DataError(
            f"{name} gave the shape {tuple(found.shape)} for {len(answers)} answers: one number each."
        )
    if not bool(torch.isfinite(found).all()):
        i = int(torch.nonzero(~torch.isfinite(found))[0, 0])
        raise NotFinite(f"{name} of answer {i} is {float(found[i])} (tokens {answers[i].tolist()[:20]}).")
    return found


def spread_out(values: list[Tensor], count: Tensor) -> Tensor:
    """Values of the tokens of each answer, (T,), at the places of the terms (B, T) that count; 0 elsewhere."""
    out = torch.zeros(count.shape, dtype=values[0].dtype)
    out[count > 0] = torch.cat(values)
    return out


def _laid_out(prompts: list[Tensor], answers: list[Tensor]) -> tuple[dict[str, Tensor], Tensor]:
    """(input, target and prompt (B, T), count (B, T)): 1 at the targets that belong to an answer; what fills a row up
    has count 0. The prompt is the first row that has it, at its tokens, −1 elsewhere."""
    number: dict[tuple[int, ...], int] = {}
    T = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True)) - 1
    both = torch.zeros(2, len(prompts), T, dtype=torch.long)
    prompt = torch.full((len(prompts), T), -1)
    count = torch.zeros(len(prompts), T, dtype=torch.float64)
    for i, (p, a) in enumerate(zip(prompts, answers, strict=True)):
        whole = torch.cat([p, a])
        both[0, i, : len(whole) - 1], both[1, i, : len(whole) - 1] = whole[:-1], whole[1:]
        count[i, len(p) - 1 : len(whole) - 1] = 1
        prompt[i, : len(p)] = number.setdefault(tuple(p.tolist()), i)
    return {"input": both[0], "target": both[1], PROMPT: prompt}, count


def _at_last(count: Tensor) -> Tensor:
    """True at the last counted term of each row."""
    last = count.shape[1] - 1 - count.flip(1).argmax(1)
    return torch.arange(count.shape[1]) == last[:, None]


def _levelled(batch: Batch) -> Batch:
    """Advantages times the mean length of an answer: the mean over tokens that a step takes is then one over
    answers."""
    new = batch[...]
    new.tensors["advantage"] = batch["advantage"] * (batch.total / len(batch))
    out: Batch = new
    return out
