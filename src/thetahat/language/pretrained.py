"""A causal language model of transformers as a network: what it can do is tried, not assumed.

Documents of one row are kept apart by their positions alone: each counts from 0, and transformers itself
builds of that the mask of each kind of layer (full, sliding window, chunks). A mask that is built here would
replace the window's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import BadArgument, ModelError
from ..networks.aligned import Aligned
from ..networks.causality import SMALL, TOLERANCE, redrawn
from ..types import Plain

WINDOW = 64  # the widest window or chunk of attention that a trial exceeds
TRIED = 3  # tokens that a trial of a cache reads on
GROWING = ("dynamic", "longrope")  # kinds of rotary frequencies that follow the longest row of a batch
WINDOWS = (
    "sliding_window",
    "attention_chunk_size",
    "attention_window_size",
    "window_size",
    "local_attention",
)
UNABLE = (
    TypeError,
    ValueError,
    RuntimeError,
    IndexError,
    AttributeError,
)  # what a model of another kind raises
CAPS = ("final_logit_softcapping", "logits_soft_cap")  # of a configuration: a bound on its logits


class Pretrained(nn.Module):
    """Tokens (B, T) → logits of the next token (B, T, V), by any causal language model of transformers
    (Llama, GPT-2, Qwen …).

    `linear` says whether the logits are one matrix times the last hidden state (then a large vocabulary is
    never held whole); `masks` whether documents in one row can be kept apart: their hidden states in one row
    are those of rows of their own; `extends` whether keys and values of what was read can be kept, with the logits
    of the whole row (else it is read again); `shares_prompts` whether a prompt can be read once for several answers;
    `limit` how many positions it has, None where there is no limit.

    Parameters
    ----------
    own
        AutoModelForCausalLM.from_pretrained(…), or one built from a configuration

    Raises
    ------
    BadArgument
        it is not a language model; later: a row is longer than the positions that it has, or documents that
        it cannot keep apart
    ModelError
        it sees the future: a position's hidden state changes with a later token
    """

    def __init__(self, own: nn.Module):
        super().__init__()
        head: Any = own.get_output_embeddings() if isinstance(own, _OfTransformers) else None
        if head is None:
            raise BadArgument(
                f"a {type(own).__name__} is not a causal language model of transformers: it has no output "
                "embeddings."
            )
        self.own: Plain = own
        self.vocabulary = int(head.weight.shape[0])
        self.limit, self.limited_by = _limit(own)
        self.linear, self.masks = self._tried()
        self._rows: bool | None = None
        self._extends: bool | None = None
        self._shares: bool | None = None

    @property
    def lm_head(self) -> nn.Linear:
        out: nn.Linear = self.own.get_output_embeddings()
        return out

    def features(self, tokens: Tensor, documents: Tensor | None = None) -> Tensor:
        """The last hidden state, (B, T, D); documents (B, T): a position sees its own alone, and is
        counted from its beginning."""
        return _hidden(self.own, tokens, self._positions(tokens, documents))

    def forward(self, tokens: Tensor, documents: Tensor | None = None) -> Tensor:
        out: Tensor = self.own(input_ids=tokens, use_cache=False, **self._positions(tokens, documents)).logits
        return out

    def extend(self, tokens: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Logits of the token after these, (B, V), and the keys and values so far; of a model that cannot keep
        them, the tokens."""
        if not self.extends:
            whole = tokens if cache is None else torch.cat([cache, tokens], 1)
            return self(whole)[:, -1], whole
        if self.limit is not None:
            self._inside(tokens.shape[1] + (0 if cache is None else int(cache.get_seq_length())))
        out = self.own(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return out.logits[:, -1], out.past_key_values

    @property
    def reads_rows(self) -> bool:
        """Whether rows of unequal lengths can read on from one cache: their logits are those of rows alone. Tried once."""
        if self._rows is None:
            self._rows = self._tried_cache(_equal_rows)
        return self._rows

    @property
    def extends(self) -> bool:
        """Whether a row can be read on from its own cache (`extend`). Tried once."""
        if self._extends is None:
            self._extends = self._tried_cache(_equal_extended)
        return self._extends

    @property
    def shares_prompts(self) -> bool:
        """Whether a prompt can be read once for several answers (`features_after`). Tried once."""
        if self._shares is None:
            self._shares = self._tried_cache(_equal_shared)
        return self._shares

    def read(self, tokens: Tensor, lengths: Tensor, cache: Aligned | None) -> tuple[Tensor, Aligned]:
        """Logits of the token after each row's last, (B, V), and what was read (`protocols.ReadsRows`)."""
        self._inside(int(lengths.max()) if cache is None else tokens.shape[1] + int(cache.lengths.max()))
        return _read(self.own, tokens, lengths, cache)

    def features_after(self, prompts: Tensor, lengths: Tensor, answers: Tensor, prompt_of: Tensor) -> Tensor:
        """Features of each prompt's last token and of the answers' tokens, (R, 1 + A, D)
        (`protocols.SharesPrompts`)."""
        self._inside(answers.shape[1] + int(lengths.max()))
        return _hidden_after(self.own, prompts, lengths, answers, prompt_of)

    def _positions(self, tokens: Tensor, documents: Tensor | None) -> dict[str, Tensor]:
        """The position of each token in its document, where there are several."""
        if documents is None:
            self._inside(tokens.shape[1])
            return {}
        if not self.masks:
            raise BadArgument(
                f"{type(self.own).__name__} cannot keep documents of one row apart. Accepted: "
                "layout='padded'."
            )
        positions = _within(documents)
        if self.limit is not None:
            self._inside(1 + int(positions.max()))
        return {"position_ids": positions}

    def _inside(self, length: int) -> None:
        if self.limit is not None and length > self.limit:
            raise BadArgument(
                f"{length} tokens are given to a {type(self.own).__name__}, which {self.limited_by}. "
                f"Accepted: rows of at most {self.limit} tokens "
                f"(context={self.limit})."
            )

    @torch.no_grad()
    def _tried(self) -> tuple[bool, bool]:
        """(logits = W h?, documents apart?) by a trial, of a small network in a copy whose weights are moved:
        its first ones hide much."""
        small = sum(p.numel() for p in self.own.parameters()) <= SMALL
        own: Plain = redrawn(self.own) if small else self.own
        modes = {m: m.training for m in own.modules()}
        own.eval()
        try:
            return self._found(own)
        finally:
            for m, mode in modes.items():
                m.training = mode

    @torch.no_grad()
    def _tried_cache(self, equal: Callable[[Plain, list[Tensor]], bool]) -> bool:
        """A trial of a cache on rows of several lengths, the first wider than any window."""
        small = sum(p.numel() for p in self.own.parameters()) <= SMALL
        own: Plain = redrawn(self.own) if small else self.own
        longest = min((self.limit or 2 * WINDOW) - TRIED, 5 + min(_reach(own.config), WINDOW))
        if longest < 2:
            return False
        generator, device = torch.Generator().manual_seed(0), self.lm_head.weight.device
        rows = [
            torch.randint(self.vocabulary, (n + TRIED,), generator=generator).to(device)
            for n in (longest, 1, longest // 2)
        ]
        modes = {m: m.training for m in own.modules()}
        own.eval()
        try:
            return equal(own, rows)
        except UNABLE:
            return False  # a cache of another kind, no positions to be given, no mask over a cache
        finally:
            for m, mode in modes.items():
                m.training = mode

    def _found(self, own: Plain) -> tuple[bool, bool]:
        head = own.get_output_embeddings()
        generator = torch.Generator().manual_seed(0)
        longest = min(self.limit or WINDOW, 5 + min(_reach(own.config), WINDOW))
        lengths = [longest, 1, max(longest - 1, 1)]
        tokens = torch.randint(self.vocabulary, (1, sum(lengths)), generator=generator).to(head.weight.device)
        parts = tokens.split(lengths, 1)
        alone = [_hidden(own, part, {}) for part in parts]
        first, cut = parts[0], longest // 2
        later = first.clone()
        later[:, cut:] = (later[:, cut:] + 1) % self.vocabulary
        if (
            self.vocabulary > 1
            and longest > 1
            and not _equal(alone[0][:, :cut], _hidden(own, later, {})[:, :cut])
        ):
            raise ModelError(
                f"{type(own).__name__} sees the future: its hidden state at position {cut - 1} or before "
                f"changes with tokens at position {cut} and "
                "later. Accepted: a causal language model (of BERT and its kin: config.is_decoder=True)."
            )
        capped = any(_said(own.config, name) is not None for name in CAPS)
        logits = own(input_ids=first, use_cache=False).logits
        linear = not capped and _equal(head(alone[0]), logits)
        documents = torch.arange(3, device=tokens.device).repeat_interleave(
            torch.tensor(lengths, device=tokens.device)
        )[None]
        try:
            packed = _hidden(own, tokens, {"position_ids": _within(documents)})
        except UNABLE:  # no such argument, or positions of the row are what it has
            return linear, False
        return linear, _equal(packed, torch.cat(alone, 1))


def _equal_rows(own: Plain, rows: list[Tensor]) -> bool:
    """Whether rows that are read together, and then on, have the logits of each alone."""
    lengths = torch.tensor([len(r) - TRIED for r in rows])
    longest = int(lengths.max())
    first = [F.pad(r[:-TRIED], (0, longest - len(r) + TRIED)) for r in rows]
    logits, cache = _read(own, torch.stack(first), lengths, None)
    found = [logits]
    for t in range(-TRIED, 0):
        logits, cache = _read(own, torch.stack([r[t] for r in rows])[:, None], lengths, cache)
        found.append(logits)
    return _equal(torch.stack(found, 1), _alone(own, rows))


def _equal_extended(own: Plain, rows: list[Tensor]) -> bool:
    """Whether a row that is read on from its cache has the logits of the row alone."""
    row, cache, found = rows[0], None, []
    for part in (row[:-TRIED], *row[-TRIED:].split(1)):
        out = own(input_ids=part[None], past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = out.past_key_values
        found.append(out.logits[0, -1])
    return cache is not None and _equal(torch.stack(found), _alone(own, rows[:1])[0])


def _equal_shared(own: Plain, rows: list[Tensor]) -> bool:
    """Whether answers that are read after their prompts, two to each, have the hidden states of the rows alone."""
    lengths = torch.tensor([len(r) - TRIED for r in rows])
    prompts = [F.pad(r[:-TRIED], (0, int(lengths.max()) - len(r) + TRIED)) for r in rows]
    answers = torch.stack([each for r in rows for each in (r[-TRIED:], r[-TRIED:].flip(0))])
    of = torch.arange(len(rows), device=answers.device).repeat_interleave(2)
    found = _hidden_after(own, torch.stack(prompts), lengths, answers, of)
    whole = [torch.cat([rows[i][:-TRIED], a]) for i, a in zip(of.tolist(), answers, strict=True)]
    return _equal(found, torch.stack([_hidden(own, r[None], {})[0, -TRIED - 1 :] for r in whole]))


def _alone(own: Plain, rows: list[Tensor]) -> Tensor:
    """The logits of the last 1 + TRIED places of each row, read alone."""
    return torch.stack(
        [own(input_ids=r[None], use_cache=False).logits[0, len(r) - TRIED - 1 :] for r in rows]
    )


def _read(own: Plain, tokens: Tensor, lengths: Tensor, cache: Aligned | None) -> tuple[Tensor, Aligned]:
    """Rows of unequal lengths, by a cache that keeps every position of every layer: a window is the mask's."""
    if cache is None:
        from transformers.cache_utils import DynamicCache

        ends, place = torch.unique(lengths - 1, return_inverse=True)
        out = own(
            input_ids=tokens,
            past_key_values=DynamicCache(),
            use_cache=True,
            logits_to_keep=ends.to(tokens.device),
        )
        rows = torch.arange(len(tokens), device=tokens.device)
        layers = [(layer.keys, layer.values) for layer in out.past_key_values.layers]
        logits = out.logits[rows, place.to(tokens.device)]
        return logits, Aligned.of(layers, lengths, tokens[:, :0])
    out = own(input_ids=tokens, use_cache=True, logits_to_keep=1, **_onward(tokens, cache))
    layers = [(layer.keys, layer.values) for layer in out.past_key_values.layers]
    return out.logits[:, -1], Aligned(layers, cache.lengths + tokens.shape[1], tokens[:, :0])


def _onward(tokens: Tensor, cache: Aligned) -> dict[str, Plain]:
    """What a model of transformers needs to read on from a cache."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    T, held = tokens.shape[1], cast(Plain, DynamicCache)()
    for keys, values in cache.layers:
        layer: Plain = cast(Plain, DynamicLayer)()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        held.layers.append(layer)
    positions = (cache.lengths[:, None] + torch.arange(T)).to(tokens.device)
    given: dict[str, Plain] = {"past_key_values": held, "position_ids": positions}
    return given if cache.full else given | {"attention_mask": cache.seen(T).long().to(tokens.device)}


def _hidden_after(own: Plain, prompts: Tensor, lengths: Tensor, answers: Tensor, prompt_of: Tensor) -> Tensor:
    """The last hidden state of each prompt's last token and of the answers' tokens, (R, 1 + A, D)."""
    from transformers.cache_utils import DynamicCache

    below = _below(own)
    out = below(input_ids=prompts, past_key_values=DynamicCache(), use_cache=True)
    rows = torch.arange(len(prompts), device=prompts.device)
    ends: Tensor = out.last_hidden_state[rows, lengths.to(prompts.device) - 1]
    ends = ends.index_select(0, prompt_of)[:, None]
    if not answers.shape[1]:
        return ends
    layers = [(layer.keys, layer.values) for layer in out.past_key_values.layers]
    cache = Aligned.of(layers, lengths, prompts[:, :0])[prompt_of]
    after: Tensor = below(input_ids=answers, use_cache=True, **_onward(answers, cache)).last_hidden_state
    return torch.cat([ends, after], 1)


def _below(own: Plain) -> Plain:
    """The model without its output matrix; Llama 4 calls its base by a name that it lacks."""
    return own.base_model if own.base_model is not own else own.model


def _hidden(own: Plain, tokens: Tensor, given: dict[str, Tensor]) -> Tensor:
    """The last hidden state, (B, T, D)."""
    out: Tensor = _below(own)(input_ids=tokens, use_cache=False, **given).last_hidden_state
    return out


def _within(documents: Tensor) -> Tensor:
    """The position of each token in its document, (B, T)."""
    place = torch.arange(documents.shape[1], device=documents.device)
    begins = torch.ones_like(documents, dtype=torch.bool)
    begins[:, 1:] = documents[:, 1:] != documents[:, :-1]
    return place - torch.where(begins, place, 0).cummax(1).values


def _equal(a: Tensor, b: Tensor) -> bool:
    """To the rounding of sums in another order (of float32 at best: transformers computes norms and angles in
    it)."""
    tolerance = max(TOLERANCE.get(a.dtype, 2e-2), 1e-5)
    return bool((a - b).abs().amax() <= tolerance * b.abs().amax())


def is_pretrained(network: object) -> bool:
    """Whether a network is a model of transformers."""
    return isinstance(network, _OfTransformers)


@runtime_checkable
class _OfTransformers(Protocol):
    config: Plain

    def get_output_embeddings(self) -> nn.Module | None: ...


def _said(config: Plain, name: str) -> Plain:
    """A setting of a model of transformers, by whichever of its names; None where it has none such."""
    return getattr(config, name, None)


def _reach(config: Plain) -> int:
    """The widest window or chunk of attention that the configuration names, 0 without."""
    found = [_said(config, name) for name in WINDOWS]
    return max((n for n in found if isinstance(n, int)), default=0)


def _limit(own: Plain) -> tuple[int | None, str]:
    """(how many positions the model has, why), None: as many as are asked for."""
    config = own.config
    most = _said(config, "max_position_embeddings")
    tables = [(name, m.weight) for name, m in own.named_modules() if isinstance(m, nn.Embedding)]
    tables += [(name, b) for name, b in own.named_buffers() if b.ndim == 2]
    named = [t for name, t in tables if "wpe" in name or "pos" in name.rpartition(".")[2]]
    if most is not None and any(len(t) >= most for t in named):
        return int(most), f"has embeddings of {most} positions"
    rope = _said(config, "rope_parameters") or {}
    for each in [r for r in rope.values() if isinstance(r, dict)] or [
        rope
    ]:  # of each kind of layer, or of all
        known = (
            each.get("original_max_position_embeddings"),
            _said(config, "original_max_position_embeddings"),
            most,
        )
        first = next((n for n in known if n is not None), None)
        if each.get("rope_type") in GROWING and first is not None:
            why = f"beyond {first} positions has rotary frequencies ({each['rope_type']}) that follow the longest row of a batch"
            return int(first), f"{why}: log p of one row would depend on the others"
    return None, ""
