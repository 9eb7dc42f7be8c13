"""Rows of tokens that begin alike: which of them share a prompt, so that a network reads it once.

    row 0    p p p p a a a          prompts (P, p): p p p p          answers (R, A): a a, b b, c ·  of the prompts 0, 0, 1
    row 1    p p p p b b ·                          q q · ·
    row 2    q q c · · · ·

log p of an answer's tokens is the same whether its prompt was read with it or once for all of its answers: a causal network's
keys and values of a prompt do not depend on what follows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

PROMPT = "prompt"  # of a batch: the number of each row's prompt at its tokens, −1 elsewhere, (B, T)
SAVING = 0.9  # of the tokens that are read: reading in two passes has to save a tenth to be worth its masks


@dataclass(frozen=True)
class SharedPrompts:
    """Prompts, each once, and what follows them.

    Parameters
    ----------
    prompts, lengths
        (P, p) tokens, and how many of each are real, (P,) on the CPU
    answers
        (R, A) tokens that follow the prompt of each row
    prompt_of
        (R,) the number of each row's prompt
    begin
        (R,) the length of each row's prompt

    Examples
    --------
    >>> x = torch.tensor([[1, 2, 3, 4, 5], [1, 2, 3, 6, 0], [7, 8, 9, 9, 0]])
    >>> prompt = torch.tensor([[0, 0, 0, -1, -1], [0, 0, 0, -1, -1], [1, 1, -1, -1, -1]])
    >>> asked = torch.tensor([[0, 0, 1, 1, 1], [0, 0, 1, 1, 0], [0, 1, 1, 1, 0]]).nonzero(as_tuple=True)
    >>> found = SharedPrompts.of(x, prompt, *asked)
    >>> found.prompts.tolist(), found.answers.tolist(), found.prompt_of.tolist()
    ([[1, 2, 3], [7, 8, 9]], [[4, 5], [6, 0], [9, 9]], [0, 0, 1])
    """

    prompts: Tensor
    lengths: Tensor
    answers: Tensor
    prompt_of: Tensor
    begin: Tensor

    @classmethod
    def of(cls, x: Tensor, prompt: Tensor, rows: Tensor, columns: Tensor) -> SharedPrompts | None:
        """Of tokens x (R, T), of which the features at (rows, columns) are asked for.

        prompt : (R, T) the number of the row's prompt at its tokens, −1 elsewhere

        None: there is nothing to be saved; features within a prompt are asked for; or rows of one number begin otherwise.
        """
        within = prompt >= 0
        begin = within.sum(1)
        number, prompt_of = torch.unique(prompt[:, 0], return_inverse=True)
        if not len(rows) or bool((begin == 0).any()) or bool((columns < begin[rows] - 1).any()):
            return None
        R, P = len(x), len(number)
        first = torch.full((P,), R, device=x.device).scatter_reduce(
            0, prompt_of, torch.arange(R, device=x.device), "amin"
        )
        p, A = int(begin.max()), int((columns - begin[rows]).max()) + 1
        if P * p + R * A >= SAVING * R * x.shape[1]:
            return None
        place = torch.arange(p, device=x.device)
        alike = (x[:, :p] == x[first[prompt_of], :p]) | (place >= begin[:, None])
        alike &= (begin == begin[first[prompt_of]])[:, None]
        if not bool((within[:, :p] == (place < begin[:, None])).all()) or not bool(alike.all()):
            return None
        after = begin[:, None] + torch.arange(A, device=x.device)
        answers = F.pad(x, (0, 1)).gather(1, after.clamp(max=x.shape[1]))
        return cls(x[first, :p], begin[first].cpu(), answers, prompt_of, begin)
