"""Token pairs: prompts and two answers each, as token ids for a language model. What DPO and reward models
are fitted to."""

from __future__ import annotations

import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.source import Tensors, digest
from ..errors import BadArgument, DataError, EmptyData, UnknownLevel
from ..language.tokenizers import Tokenizer
from ..types import Data
from .pairs import Pair, Pairs, Text

Row = tuple[list[int], list[int], list[int]]  # prompt, chosen, rejected


class TokenPairs(Tensors):
    """Pairs of answers to prompts as token ids, each answer closed by the tokenizer's end.

    The tensors, n pairs, T the longest that occurs:

        "chosen", "rejected"                    (n, T) long     prompt, answer, end; then padding, by an id that means nothing
        "chosen_mask", "rejected_mask"          (n, T) bool     True at the tokens of the answer, its end included: those that are scored
        "chosen_length", "rejected_length"      (n,) long       how many tokens are real
        "margin" (n,) float64, "tie" (n,) bool  where the pairs name them (a margin that is not named is 0)

    A batch's `group` is the prompt. The end of an answer is real and scored although padding may have the
    same id: the masks and lengths tell. A prompt without text is the end token alone, as at the beginning of
    a document. `dropped` names the pairs left out.

    Parameters
    ----------
    pairs
        `Pairs`, or what it reads
    tokenizer
        of the language model; None where the pairs are token ids already (then nothing closes an answer but
        what they hold)
    context
        T, tokens of prompt and answer together at most
    overlong
        pairs that do not fit: "raise", naming the first; "drop"; or "cut" (the prompt loses its beginning,
        the same for both answers; pairs whose answers do not fit with one token of prompt are dropped)
    block
        pairs a batch

    Raises
    ------
    DataError
        prompt or answer too long, or an answer or a prompt without a token
    UnknownLevel
        an id the tokenizer lacks

    Examples
    --------
    >>> from thetahat.language import Bytes
    >>> source = TokenPairs([{"prompt": "2+2=", "chosen": "4", "rejected": "five"}], Bytes(), context=16)
    >>> source.whole["chosen"].tolist(), source.whole["chosen_mask"].sum().item(), source.whole["rejected_length"].tolist()
    ([[50, 43, 50, 61, 52, 256, 256, 256, 256]], 2, [9])
    """

    def __init__(
        self,
        pairs: Data,
        tokenizer: Tokenizer | None = None,
        context: int = 512,
        *,
        overlong: str = "raise",
        block: int = 16,
    ):
        if overlong not in ("raise", "drop", "cut"):
            raise BadArgument(f"overlong={overlong!r}. Accepted: 'raise', 'drop', 'cut'.")
        if context < 2:
            raise BadArgument(f"context={context}. Accepted: 2 or more, a token of prompt and one of answer.")
        self.pairs = pairs if isinstance(pairs, Pairs) else Pairs(pairs)
        self.tokenizer, self.context, self.dropped = tokenizer, context, []
        rows: list[Row] = []
        kept: list[int] = []
        for i, pair in enumerate(self.pairs):
            row = _fitted(self._ids(pair), context, overlong, pair.where)
            if row is None:
                self.dropped.append(pair.where)
            else:
                rows.append(row)
                kept.append(i)
        if not rows:
            raise EmptyData(f"none of the {len(self.pairs)} pairs fits in context={context} tokens.")
        self.kept = [self.pairs[i] for i in kept]
        group = torch.tensor(self.pairs.group)[kept]
        super().__init__(Batch(self._tensors(rows), group=group), target="preference", block=block)

    @property
    def fingerprint(self) -> str:
        """Of the ids that are scored and what they are conditioned on, however they are padded."""
        if self._fingerprint is None:
            parts = []
            for name in ("chosen", "rejected"):
                length = self.whole[f"{name}_length"]
                real = torch.arange(self.whole[name].shape[1]) < length[:, None]
                parts += [self.whole[name][real], length, self.whole[f"{name}_mask"].sum(1)]
            extra = [self.whole[name] for name in ("margin", "tie") if name in self.whole]
            self._fingerprint = digest(*parts, *extra)
        return self._fingerprint

    # ---- text to ids ---------------------------------------------------------------------------------------

    def _ids(self, pair: Pair) -> Row:
        end = [] if self.tokenizer is None or self.tokenizer.end is None else [self.tokenizer.end]
        prompt = self._encoded(pair.prompt, pair.where) or list(end)
        chosen, rejected = (
            self._encoded(answer, pair.where) + end for answer in (pair.chosen, pair.rejected)
        )
        for name, found in (("prompt", prompt), ("answer 'chosen'", chosen), ("answer 'rejected'", rejected)):
            if not found:
                raise DataError(
                    f"{pair.where}: the {name} has no token. A tokenizer with an end token lets it be empty."
                )
        return prompt, chosen, rejected

    def _encoded(self, text: Text, where: str) -> list[int]:
        if isinstance(text, str):
            if self.tokenizer is None:
                raise BadArgument(f"{where} holds text: give the tokenizer of the language model.")
            return [int(t) for t in self.tokenizer.encode(text)]
        if self.tokenizer is not None and text and max(text) >= self.tokenizer.vocabulary:
            raise UnknownLevel(
                f"{where}: the token {max(text)} is none of the {self.tokenizer.vocabulary} of the tokenizer."
            )
        return list(text)

    def _tensors(self, rows: list[Row]) -> dict[str, Tensor]:
        pad = 0 if self.tokenizer is None or self.tokenizer.end is None else self.tokenizer.end
        T = max(len(p) + max(len(a), len(b)) for p, a, b in rows)
        out: dict[str, Tensor] = {}
        for which, name in ((1, "chosen"), (2, "rejected")):
            before = torch.tensor([len(row[0]) for row in rows])
            length = before + torch.tensor([len(row[which]) for row in rows])
            tokens = torch.full((len(rows), T), pad)
            for i, row in enumerate(rows):
                tokens[i, : length[i]] = torch.tensor(row[0] + row[which])
            place = torch.arange(T)
            mask = (place >= before[:, None]) & (place < length[:, None])
            out |= {name: tokens, f"{name}_mask": mask, f"{name}_length": length}
        if any(p.margin is not None for p in self.kept):
            out["margin"] = torch.tensor([p.margin or 0.0 for p in self.kept], dtype=torch.float64)
        if any(p.tie is not None for p in self.kept):
            out["tie"] = torch.tensor([bool(p.tie) for p in self.kept])
        return out


def _fitted(row: Row, context: int, overlong: str, where: str) -> Row | None:
    """The row within the context; None: it is dropped."""
    prompt, chosen, rejected = row
    answer = max(len(chosen), len(rejected))
    if len(prompt) + answer <= context:
        return row
    if overlong == "raise":
        what = (
            f"the prompt alone has {len(prompt)}"
            if len(prompt) >= context
            else f"the prompt has {len(prompt)}, the answer {answer}"
        )
        raise DataError(
            f"{where} does not fit in context={context} tokens: {what}. Give a longer context, "
            "overlong='drop', or overlong='cut'."
        )
    room = context - answer
    return (prompt[-room:], chosen, rejected) if overlong == "cut" and room > 0 else None
