"""Answers to prompts of unequal lengths, drawn together, each token with its log-probability.

Rows of all lengths are read together, each from its own first token (`networks.aligned`); a row that has ended gives its place
to a prompt that waits (continuous batching); a prompt is read once for all of its answers.

A token is drawn by the inverse of the distribution function at a uniform number u, which belongs to (seed, pass, answer,
place): the first v with F(v) > u. Which answers are drawn together then changes no answer.

References
----------
Yu et al. (2022), Orca: a distributed serving system for transformer-based generative models (continuous batching); Salmon et
al. (2011), Parallel random numbers: as easy as 1, 2, 3 (Philox, whose streams need no state).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.devices import device_of, widest
from ..data.source import evaluating
from ..errors import BadArgument, NotFinite
from ..protocols import Extends, ReadsRows, fact
from ..types import ModelLike
from .sampling import Sampling

PREFILL = 16384  # tokens of prompts that are read in one forward pass, at most
IDLE = 8  # ended rows are taken out once they are this share of all, 1/8: taking out copies the cache
MASK = 2**64 - 1


@dataclass(frozen=True)
class Drawn:
    """Answers, in the order of the prompts, those to one prompt one after the other; on the CPU.

    Parameters
    ----------
    tokens
        (T,) of each answer, its end included
    log_prob
        (T,) log q of each of its tokens, by what drew them; None: not known
    kept
        (T,) how many tokens the sampling left to be drawn from; None: all, or not known
    raw_log_prob
        (T,) log p of each token before temperature and truncation, where log q is not known
    remark
        a sentence on how they were drawn, where it was not as asked
    """

    tokens: list[Tensor]
    log_prob: list[Tensor] | None
    kept: list[Tensor] | None = None
    raw_log_prob: list[Tensor] | None = None
    remark: str = ""


def uniforms(seed: tuple[int, int], rows: int, length: int) -> Tensor:
    """Numbers in [0, 1), (rows, length), float64: those of a row are its own, however many rows there are.

    Examples
    --------
    >>> torch.equal(uniforms((3, 0), 5, 4)[:2], uniforms((3, 0), 2, 4))
    True
    """
    key = np.array([n & MASK for n in seed], dtype=np.uint64)
    raw = [
        np.random.Philox(key=key, counter=np.array([0, 0, 0, row], dtype=np.uint64)).random_raw(length)
        for row in range(rows)
    ]
    return torch.from_numpy((np.stack(raw) >> np.uint64(11)) * 2.0**-53)


def drawn_at(logits: Tensor, u: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor, Tensor | None]:
    """A token of each row, log q of it, and how many tokens q has.

    Parameters
    ----------
    logits
        (B, V)
    u
        (B,) in [0, 1)

    Returns
    -------
    tuple
        (B,) the first v with F(v) > u, −1 where the logits are not numbers; (B,) log q(v), 0 at temperature 0; (B,) or None: all
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    p = sampling.probabilities(logits)
    F_v = p.to(widest(p.device)).cumsum(-1)
    total = F_v[:, -1:]
    at = torch.minimum(u.to(F_v)[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    token = torch.searchsorted(F_v, at, right=True)[:, 0]  # of a probability above 0, since F steps up there
    number = torch.isfinite(total[:, 0])
    token = torch.where(number, token, 0)
    kept = sampling.kept(logits) if sampling.truncates and sampling.temperature > 0 else None
    log_q = (
        sampling.log_prob(logits, token, kept) if sampling.temperature > 0 else torch.zeros_like(logits[:, 0])
    )
    return torch.where(number, token, -1), log_q, kept


def asked(prompts: Sequence[Tensor], num_generations: int, max_new_tokens: int) -> list[Tensor]:
    """The prompts as tokens on the CPU, or what is wrong with them."""
    if num_generations < 1 or max_new_tokens < 1:
        raise BadArgument(
            f"num_generations={num_generations}, max_new_tokens={max_new_tokens}. Accepted: 1 or more."
        )
    found = [torch.as_tensor(p, dtype=torch.long).cpu() for p in prompts]
    for i, prompt in enumerate(found):
        if prompt.ndim != 1 or not len(prompt):
            raise BadArgument(
                f"prompt {i} has the shape {tuple(prompt.shape)}. A prompt is (T,) tokens, one or more."
            )
    return found


class ContinuousBatching:
    """A sampler of the model's own: prompts of all lengths together, and none waits for the longest answer.

    Its log-probabilities are those of `Autoregressive.log_prob` to the rounding of sums in another order (1e-12 in
    float64, 1e-5 in float32; models of transformers that compute norms in float32: 1e-5 in float64 too).

    A network that cannot read rows of unequal lengths from one cache (recurrent ones) is asked for prompts of one
    length at a time, and `Drawn.remark` says so. One without a cache reads its texts again for every token.

    Parameters
    ----------
    rows
        answers that are drawn at the same time, at most; None: all. Fewer take less memory; the answers are the same

    Raises
    ------
    BadArgument
        rows below 1
    NotFinite
        the network's logits are not numbers

    Examples
    --------
    >>> from thetahat.language import Autoregressive
    >>> from thetahat.networks import Transformer
    >>> model = Autoregressive(Transformer(9, layers=1, width=8, heads=1).double())
    >>> prompts = [torch.tensor([1]), torch.tensor([2, 3, 4])]
    >>> a, b = (ContinuousBatching(rows).draw(model, prompts, num_generations=2, max_new_tokens=5) for rows in (1, None))
    >>> [len(t) for t in a.tokens], all(map(torch.equal, a.tokens, b.tokens))
    ([5, 5, 5, 5], True)
    """

    exact = True

    def __init__(self, rows: int | None = None):
        if rows is not None and rows < 1:
            raise BadArgument(f"rows={rows}. Accepted: 1 or more, or None for all.")
        self.rows = rows

    def draw(
        self,
        model: ModelLike,
        prompts: Sequence[Tensor],
        *,
        num_generations: int = 1,
        max_new_tokens: int,
        end: int | None = None,
        seed: tuple[int, int] = (0, 0),
    ) -> Drawn:
        """Answers of the model under its own `sampling`.

        Parameters
        ----------
        model
            an `Autoregressive`
        prompts
            (T,) tokens each, one or more
        num_generations
            answers to each prompt
        max_new_tokens
            tokens of an answer, at most
        end
            the token that ends an answer; None: all have max_new_tokens
        seed
            two numbers (of the run, of the pass) that make the draws

        Returns
        -------
        Drawn
            prompts · num_generations answers
        """
        prompts = asked(prompts, num_generations, max_new_tokens)
        network, sampling = model.network, model.sampling or Sampling()
        with torch.no_grad(), evaluating(model):
            device = device_of(model)
            work = _Work(len(prompts) * num_generations, max_new_tokens, end, seed, sampling, device)
            remark = ""
            if isinstance(network, ReadsRows) and network.reads_rows:
                self._continuous(network, prompts, num_generations, work)
            elif isinstance(network, Extends) and fact(network, "extends", True):
                lengths = sorted({len(p) for p in prompts})
                for n in lengths:
                    _one_length(
                        network,
                        [(i, p) for i, p in enumerate(prompts) if len(p) == n],
                        num_generations,
                        work,
                    )
                if len(lengths) > 1:
                    remark = (
                        f"{_kind(network)} cannot read rows of unequal lengths from one cache: answers were drawn "
                        "for one length of prompt at a time."
                    )
            else:
                self._continuous(_Again(network), prompts, num_generations, work)
                if isinstance(network, Extends):
                    remark = f"{_kind(network)} cannot read on from a cache: its texts were read again for every token."
        return work.answers(remark)

    def _continuous(self, network: Any, prompts: list[Tensor], G: int, work: _Work) -> None:
        waiting = list(range(len(prompts) * G))
        limit = self.rows or len(waiting)
        read: dict[int, tuple[Tensor, Any]] = {}  # prompts some of whose answers still wait
        rows: list[int] = []  # the answer of each row
        logits: Tensor | None = None
        cache: Any = None
        while waiting or rows:
            free = min(limit - len(rows), len(waiting))
            if free and (not rows or free >= min(max(limit // IDLE, 1), len(waiting))):
                new, waiting = waiting[:free], waiting[free:]
                more, its = _admitted(network, prompts, new, G, read, waiting, work.device)
                logits = more if logits is None else torch.cat([logits, more])
                cache = its if cache is None else type(its).joined([cache, its])
                rows = rows + new
            assert logits is not None
            token, alive = work.step(rows, logits)
            ended = len(rows) - len(alive)
            if not alive:
                rows, logits, cache = [], None, None
                continue
            if ended and (waiting or ended * IDLE >= len(rows) or work.stale(rows)):
                rows, cache = [rows[k] for k in alive], cache[alive]
                token = token[torch.tensor(alive, device=token.device)]
            logits, cache = network.read(token[:, None], torch.ones(len(rows), dtype=torch.long), cache)


def _kind(network: Any) -> str:
    return type(fact(network, "own", network)).__name__


def _admitted(
    network: Any,
    prompts: list[Tensor],
    new: list[int],
    G: int,
    read: dict[int, tuple[Tensor, Any]],
    waiting: list[int],
    device: torch.device,
) -> tuple[Tensor, Any]:
    """(logits, cache) of new rows, whose prompts are read once each."""
    chosen = list(dict.fromkeys(row // G for row in new))
    unread = sorted((i for i in chosen if i not in read), key=lambda i: len(prompts[i]))
    while unread:
        n = 1
        while n < len(unread) and (n + 1) * len(prompts[unread[n]]) <= PREFILL:
            n += 1
        part, unread = unread[:n], unread[n:]
        lengths = torch.tensor([len(prompts[i]) for i in part])
        tokens = torch.stack([F.pad(prompts[i], (0, int(lengths.max()) - len(prompts[i]))) for i in part])
        logits, cache = network.read(tokens.to(device), lengths, None)
        for k, i in enumerate(part):
            read[i] = logits[k : k + 1], cache[[k]]
    place = {i: k for k, i in enumerate(chosen)}
    kind = type(read[chosen[0]][1])
    logits = torch.cat([read[i][0] for i in chosen])
    cache = kind.joined([read[i][1] for i in chosen])
    still = {row // G for row in waiting}
    for i in chosen:
        if i not in still:
            del read[i]
    index = [place[row // G] for row in new]
    return logits[torch.tensor(index, device=logits.device)], cache[index]


def _one_length(network: Extends, asked_for: list[tuple[int, Tensor]], G: int, work: _Work) -> None:
    """Answers to prompts of one length, which go on together until the last has ended."""
    rows = [i * G + g for i, _ in asked_for for g in range(G)]
    unread = torch.stack([p for _, p in asked_for for _ in range(G)]).to(work.device)
    cache: Any = None
    while True:
        logits, cache = network.extend(unread, cache)
        token, alive = work.step(rows, logits)
        if not alive:
            return
        unread = token[:, None]


@dataclass(frozen=True)
class _Texts:
    """Rows of a network without a cache: all of their tokens."""

    rows: list[Tensor]

    def __getitem__(self, rows: Sequence[int]) -> _Texts:
        return _Texts([self.rows[i] for i in rows])

    @classmethod
    def joined(cls, parts: Sequence[_Texts]) -> _Texts:
        return cls([row for part in parts for row in part.rows])


@dataclass(frozen=True)
class _Again:
    """A network without a cache, by the interface of one with: whole texts are read again, and what fills a row up
    comes after its last token, where a causal network does not see it."""

    network: Any

    def read(self, tokens: Tensor, lengths: Tensor, cache: _Texts | None) -> tuple[Tensor, _Texts]:
        rows = [row[:n] for row, n in zip(tokens, lengths.tolist(), strict=True)]
        if cache is not None:
            rows = [torch.cat(pair) for pair in zip(cache.rows, rows, strict=True)]
        T = max(map(len, rows))
        whole = torch.stack([F.pad(row, (0, T - len(row))) for row in rows])
        ends = torch.tensor([len(row) - 1 for row in rows], device=whole.device)
        logits = self.network(whole)[torch.arange(len(rows), device=whole.device), ends]
        return logits, _Texts(rows)


class _Work:
    """Answers as they are drawn: (R, M) tokens, log q and what was kept."""

    def __init__(
        self,
        answers: int,
        length: int,
        end: int | None,
        seed: tuple[int, int],
        sampling: Sampling,
        device: torch.device,
    ):
        self.length, self.end, self.sampling, self.device = length, end, sampling, device
        self.u = uniforms(seed, answers, length).to(widest(device)).to(device)
        self.tokens = torch.zeros(answers, length, dtype=torch.long, device=device)
        self.log_prob: Tensor | None = None
        self.kept: Tensor | None = None
        self.at = [0] * answers  # tokens of each
        self.over = [False] * answers

    def step(self, rows: list[int], logits: Tensor) -> tuple[Tensor, list[int]]:
        """(the next token of each row, which rows have not ended)."""
        place = [min(self.at[r], self.length - 1) for r in rows]
        index = torch.tensor([rows, place]).to(self.device)
        token, log_q, kept = drawn_at(logits, self.u[index[0], index[1]], self.sampling)
        if self.log_prob is None:
            self.log_prob = log_q.new_zeros(self.tokens.shape)
        if kept is not None and self.kept is None:
            self.kept = torch.zeros_like(self.tokens)
        new = [k for k, r in enumerate(rows) if not self.over[r]]
        own = torch.tensor(new).to(self.device)
        i, t = index[0][own], index[1][own]
        self.tokens[i, t], self.log_prob[i, t] = token[own], log_q[own]
        if self.kept is not None and kept is not None:
            self.kept[i, t] = kept[own]
        found = token.cpu().tolist()
        for k in new:
            if found[k] < 0:
                raise NotFinite(
                    f"the logits after token {self.at[rows[k]]} of answer {rows[k]} are not finite numbers: the "
                    "network has diverged."
                )
        for k, r in enumerate(rows):
            self.at[r] += 1
            self.over[r] |= self.at[r] >= self.length or (self.end is not None and found[k] == self.end)
        return token.clamp(min=0), [k for k, r in enumerate(rows) if not self.over[r]]

    def stale(self, rows: list[int]) -> bool:
        """Whether a row has as many tokens as an answer may have: reading on would go beyond."""
        return any(self.at[r] >= self.length for r in rows)

    def answers(self, remark: str) -> Drawn:
        tokens, out = self.tokens.cpu(), []
        for row in tokens:
            over = torch.nonzero(row == self.end) if self.end is not None else row[:0]
            out.append(row[: int(over[0, 0]) + 1].clone() if len(over) else row.clone())

        def cut(whole: Tensor | None) -> list[Tensor] | None:
            if whole is None:
                return None
            return [row[: len(a)].clone() for row, a in zip(whole.cpu(), out, strict=True)]

        return Drawn(out, cut(self.log_prob), cut(self.kept), remark=remark)
