"""What a reward costs in divergence: policies beside best-of-n of the reference, with a gold reward that none of them saw.

    policy       E_π r,  E_π gold,  KL(π ‖ π_ref) = E_π Σ_t log π(a_t)/π_ref(a_t)
    best of n    the answer of the largest reward among n of the reference:  KL ≤ log n − (n − 1)/n

A policy whose reward rises along the divergence while gold falls has learnt the reward's errors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.devices import device_of
from ..data.source import evaluating
from ..distributions import student
from ..errors import BadArgument, EmptyData
from ..language.autoregressive import Autoregressive
from ..language.generations import Reward, _laid_out, rewards_of
from ..language.samplers import ContinuousBatching
from ..notebook import Printed
from ..printable import encoded
from ..protocols import HasModel, Sampler
from ..types import Chart, Data

ROWS = 64  # answers that are scored at once


@dataclass(frozen=True)
class Estimate(Printed):
    """A mean with its standard error and interval; a bound or a known value has neither (NaN)."""

    value: float
    standard_error: float = math.nan
    low: float = math.nan
    high: float = math.nan

    @classmethod
    def of(cls, each: Tensor, level: float) -> Estimate:
        """The mean of independent values, (n,), and Student's interval."""
        n, mean = len(each), float(each.mean())
        error = float(each.std()) / math.sqrt(n) if n > 1 else math.nan
        half = float(student.ppf((1 + level) / 2, max(n - 1, 1))) * error
        return cls(mean, error, mean - half, mean + half)

    def __str__(self) -> str:
        text = _shown(self.value)
        if not math.isnan(self.standard_error):
            text += f" ± {_shown(self.high - self.value)}"
        return text


def _shown(value: float) -> str:
    return (f"{value:.3f}" if abs(value) < 1000 else f"{value:.4g}").replace("-", "−")


@dataclass(frozen=True)
class Point:
    """One policy, or best-of-n at one n (n of a policy: 1)."""

    name: str
    method: str
    n: int
    kl: Estimate
    reward: Estimate
    gold: Estimate | None


@dataclass(frozen=True)
class Frontier(Printed):
    """Points of reward and gold against the divergence; `print`, `to_frame()`, `plot()`.

    Parameters
    ----------
    points
        policies in the order given, then best-of-n
    prompts, answers
        how many prompts, and answers to each
    level
        of the intervals
    """

    points: tuple[Point, ...]
    prompts: int
    answers: int
    level: float

    @encoded
    def __str__(self) -> str:
        gold = self.points[0].gold is not None
        units = "prompts" if self.prompts > 1 else "answers to the one prompt"
        kind = f"{100 * self.level:g} % intervals over {units}"
        lines = [
            f"{self.prompts} {'prompts' if self.prompts > 1 else 'prompt'}, {self.answers} answers each; {kind}",
            "",
            f"{'':<18}{'KL, nats an answer':<21}{'reward':<21}{'gold' if gold else ''}".rstrip(),
        ]
        for p in self.points:
            kl = f"≤ {p.kl}" if p.method == "best of n" else str(p.kl)
            name = p.name if len(p.name) <= 16 else p.name[:15] + "…"
            lines.append(f"{name:<18}{kl:<21}{p.reward!s:<21}{'' if p.gold is None else p.gold}".rstrip())
        return "\n".join([*lines, "", "≤: an upper bound of the divergence of best-of-n, log n − (n − 1)/n"])

    def to_frame(self) -> pd.DataFrame:
        """A row a point: method, n, and of kl, reward and gold the value, its error and its interval."""
        rows = []
        for p in self.points:
            row: dict[str, Any] = {"name": p.name, "method": p.method, "n": p.n}
            for name, e in (("kl", p.kl), ("reward", p.reward), ("gold", p.gold)):
                if e is not None:
                    row |= {name: e.value, f"{name}_error": e.standard_error}
                    row |= {f"{name}_low": e.low, f"{name}_high": e.high}
            rows.append(row)
        return pd.DataFrame(rows).set_index("name")

    def plot(self) -> Chart:
        """Reward and gold against √KL, with their intervals: an Altair chart."""
        import altair as alt

        data = pd.concat(
            self.to_frame()
            .reset_index()
            .rename(columns={what: "value", f"{what}_low": "low", f"{what}_high": "high"})
            .assign(what=what)[["name", "method", "kl", "value", "low", "high", "what"]]
            for what in ("reward", "gold")
            if what == "reward" or self.points[0].gold is not None
        )
        data["root"] = data["kl"].clip(lower=0) ** 0.5
        x = alt.X("root:Q", title="√KL, of nats an answer (best of n: of its bound)")
        y, colour = (
            alt.Y("value:Q", title=None, scale=alt.Scale(zero=False)),
            alt.Color("method:N", title=None),
        )
        base = alt.Chart(data)
        dots = base.mark_line(point=True).encode(x=x, y=y, color=colour, order="root:Q", tooltip="name:N")
        bars = base.mark_rule().encode(x=x, y=alt.Y("low:Q", title=None), y2="high:Q", color=colour)
        return (
            alt.layer(bars, dots)
            .properties(width=308, height=220)
            .facet(column=alt.Column("what:N", title=None, sort=["reward", "gold"]))
            .resolve_scale(y="independent")
        )


def best_of_n(reward: Tensor, value: Tensor, n: int) -> Tensor:
    """The mean, over all subsets of n of N draws, of the value of the draw with the largest reward.

        Σ_i v_(i) C(i − 1, n − 1) / C(N, n),      v_(i) the value of the draw with the i-th smallest reward

    It is unbiased for best-of-n, and uses all N draws. Draws of equal reward are each taken as often.

    Parameters
    ----------
    reward, value
        (…, N)
    n
        from 1 to N

    Returns
    -------
    Tensor
        (…,) float64

    Raises
    ------
    BadArgument
        n outside 1 … N, or shapes that differ

    References
    ----------
    Nakano et al. (2021), WebGPT (appendix I: the estimator from more than n draws); Chen et al. (2021), Evaluating large
    language models trained on code (the same for pass@k).

    Examples
    --------
    >>> round(best_of_n(torch.tensor([1.0, 3.0, 2.0]), torch.tensor([10.0, 30.0, 20.0]), 2).item(), 3)
    26.667
    """
    N = reward.shape[-1] if reward.ndim else 0
    if not 1 <= n <= N or reward.shape != value.shape:
        raise BadArgument(
            f"n={n} of rewards of shape {tuple(reward.shape)} and values of shape {tuple(value.shape)}. Accepted: n from 1 to "
            "the number of draws, and one shape."
        )
    weights = [math.comb(i - 1, n - 1) / math.comb(N, n) for i in range(1, N + 1)]
    total = torch.cat(
        [torch.zeros(1, dtype=torch.float64), torch.tensor(weights, dtype=torch.float64).cumsum(0)]
    )
    r = reward.double().contiguous()
    ordered = r.sort(-1).values
    low, high = (torch.searchsorted(ordered, r, right=right) for right in (False, True))
    return (value.double() * (total[high] - total[low]) / (high - low)).sum(-1)


def frontier(
    policies: Mapping[str, Data],
    reward: Reward,
    gold: Reward | None,
    prompts: Sequence[Tensor | Sequence[int]],
    *,
    reference: Data,
    max_new_tokens: int,
    end: int | None = None,
    num_generations: int = 16,
    best_of: Sequence[int] = (1, 2, 4, 8, 16),
    level: float = 0.95,
    seed: int = 0,
    sampler: Sampler | None = None,
) -> Frontier:
    """Reward, gold reward and divergence of policies, and of best-of-n of the reference, each with its interval.

    Every policy, and the reference, answers every prompt num_generations times. Errors are of independent prompts: of the
    means over the answers to each. With one prompt they are of its answers (those of best-of-n by the jackknife), and say
    nothing of other prompts. Best-of-n takes the answer of the largest `reward`; its value is the mean over all subsets of n
    of the answers drawn (`best_of_n`). Its divergence is not estimated: log n − (n − 1)/n is an upper bound.

    Parameters
    ----------
    policies
        name → a fit of an `Autoregressive`, or the model itself: a policy, or one policy at several checkpoints
    reward
        (prompts, answers), lists of (T,) tokens → (B,) numbers; what the policies were trained for
    gold
        the same, of a reward that no policy was trained for; None: none
    prompts
        token ids, (T,) each; each prompt once
    reference
        π_ref, a fit or an `Autoregressive` that does not truncate (top_k, top_p)
    max_new_tokens, end
        as in `language.Generations`
    num_generations
        answers to each prompt, two or more and as many as the largest n
    best_of
        the n
    level
        of the intervals
    seed
        of the draws
    sampler
        None: `language.ContinuousBatching()`

    Returns
    -------
    Frontier

    Raises
    ------
    BadArgument
        not an Autoregressive; a prompt that occurs twice; more n than answers; a reference that truncates; a server
    DataError, NotFinite
        rewards of another shape, or not finite

    References
    ----------
    Gao, Schulman and Hilton (2023), Scaling laws for reward model overoptimization; Beirami et al. (2024), Theoretical
    guarantees on the best-of-n alignment policy (log n − (n − 1)/n is an upper bound of the divergence, not its value).

    Examples
    --------
    >>> policy, reference = (Autoregressive(torch.nn.Embedding(5, 5)) for _ in range(2))
    >>> ones = lambda prompts, answers: torch.tensor([float((a == 1).sum()) for a in answers])
    >>> found = frontier({"policy": policy}, ones, None, [[0], [1]], reference=reference, max_new_tokens=3, best_of=[1, 4])
    >>> list(found.to_frame().index)
    ['policy', 'best of 1', 'best of 4']
    """
    asked = _asked(prompts)
    base = _model(reference, "reference")
    if base.sampling is not None and base.sampling.truncates:
        raise BadArgument(
            f"the reference draws with {base.sampling}, which gives some tokens probability 0: the divergence from it is "
            "infinite. Accepted: a reference without top_k and top_p."
        )
    if (
        not policies
        or not 0 < level < 1
        or num_generations < max(2, *best_of, 2)
        or min(best_of, default=1) < 1
    ):
        raise BadArgument(
            f"{len(policies)} policies, level={level}, num_generations={num_generations}, best_of={list(best_of)}. Accepted: "
            "one policy or more, a level between 0 and 1, and num_generations of 2 or more and at least the largest n."
        )
    drawing = sampler or ContinuousBatching()
    if not drawing.exact:
        raise BadArgument(f"{drawing!r} draws from another model than the policies. Accepted: None.")

    def answered(model: Autoregressive, number: int) -> list[Tensor]:
        """Reward, gold and log π/π_ref of each answer, (P, G) each; gold of size 0 where there is none."""
        drawn = drawing.draw(
            model,
            asked,
            num_generations=num_generations,
            max_new_tokens=max_new_tokens,
            end=end,
            seed=(seed, number),
        )
        whole = [p for p in asked for _ in range(num_generations)]
        worth = rewards_of(reward, whole, drawn.tokens)
        true = torch.empty(0) if gold is None else rewards_of(gold, whole, drawn.tokens, "the gold reward")
        ratio = _log_ratio(model, base, whole, drawn.tokens)
        return [v.view(len(asked), -1) if v.numel() else v for v in (worth, true, ratio)]

    points = []
    for i, (name, policy) in enumerate(policies.items()):
        worth, true, ratio = answered(_model(policy, name), i + 1)
        g = _mean(true, level) if true.numel() else None
        points.append(Point(str(name), "policy", 1, _mean(ratio, level), _mean(worth, level), g))
    worth, true, _ = answered(base, 0)
    for n in best_of:
        bound = Estimate(math.log(n) - (n - 1) / n)
        r = _best(worth, worth, n, level)
        g = _best(worth, true, n, level) if true.numel() else None
        points.append(Point(f"best of {n}", "best of n", n, bound, r, g))
    return Frontier(tuple(points), len(asked), num_generations, level)


def _asked(prompts: Sequence[Tensor | Sequence[int]]) -> list[Tensor]:
    asked = [torch.as_tensor(p, dtype=torch.long).cpu() for p in prompts]
    if not asked:
        raise EmptyData("there are no prompts.")
    seen: dict[tuple[int, ...], int] = {}
    for i, prompt in enumerate(asked):
        first = seen.setdefault(tuple(prompt.reshape(-1).tolist()), i)
        if first != i:
            raise BadArgument(
                f"prompt {i} is prompt {first} again, and errors are of independent prompts. Accepted: each prompt once, "
                "and more answers by num_generations."
            )
    return asked


def _model(thing: Data, name: str) -> Autoregressive:
    model = thing.model if isinstance(thing, HasModel) else thing
    if not isinstance(model, Autoregressive):
        raise BadArgument(
            f"{name!r} is a {type(model).__name__}. Accepted: a language.Autoregressive, or a fit of one."
        )
    return model


@torch.no_grad()
def _log_ratio(
    policy: Autoregressive, base: Autoregressive, prompts: list[Tensor], answers: list[Tensor]
) -> Tensor:
    """Σ_t log π − log π_ref of each answer, (B,), float64, by one pass of each over the whole text."""
    out = []
    for start in range(0, len(answers), ROWS):
        rows = slice(start, start + ROWS)
        tensors, count = _laid_out(prompts[rows], answers[rows])
        batch = Batch(tensors, count=count, dims=2)
        both = []
        for model in (policy, base):
            here = batch.to(device_of(model))
            with evaluating(model):
                both.append(model.log_prob(here).cpu().double().sum(1))
        out.append(both[0] - both[1])
    return torch.cat(out)


def _mean(values: Tensor, level: float) -> Estimate:
    """Of (P, G): over prompts, or over the answers to one."""
    return Estimate.of(values.double().mean(1) if len(values) > 1 else values[0].double(), level)


def _best(reward: Tensor, value: Tensor, n: int, level: float) -> Estimate:
    """Best-of-n of (P, G): over prompts; of one prompt by the jackknife."""
    if len(reward) > 1:
        return Estimate.of(best_of_n(reward, value, n), level)
    N, whole = reward.shape[1], float(best_of_n(reward[0], value[0], n))
    if n >= N:
        return Estimate(whole)
    others = torch.tensor([[j for j in range(N) if j != i] for i in range(N)])
    pseudo = N * whole - (N - 1) * best_of_n(reward[0][others], value[0][others], n)
    found = Estimate.of(pseudo, level)
    half = found.high - found.value  # around the estimate itself, which has no bias to be taken off
    return Estimate(whole, found.standard_error, whole - half, whole + half)
