"""Action masks: which actions an environment allows where it now stands.

An environment gives them with each state, info["action_mask"] (as gymnasium's Taxi-v3), or has a method
action_masks() (as sb3-contrib asks for): K entries of a Discrete space, of a MultiDiscrete one Σ K_j, one part
after the other. What is not allowed has probability 0, π(a) ∝ m_a e^{f_a}, when an action is drawn, when it is
learnt from, and in the greedy choice.

References
----------
Huang and Ontañón (2022), A closer look at invalid action masking in policy gradient algorithms.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import BadArgument, DataError
from ..types import Named, Plain, Settings, name_of

Array = np.ndarray


class Masks:
    """Reads and checks the masks of environments.

    Parameters
    ----------
    name
        of the environment, for messages
    vector
        of gymnasium
    sizes
        how many actions there are: K, or (K_1, …, K_k); None: they are not counted
    same_step
        a new episode begins in the step that ended the last one
    """

    def __init__(self, name: str, vector: Plain, sizes: Plain, same_step: bool):
        self.name, self.same_step = name, same_step
        self.parts = None if sizes is None else [int(K) for K in np.atleast_1d(sizes)]
        self.by_method = _has_method(vector)
        if self.by_method and same_step:
            raise BadArgument(
                f"{name} has action_masks() and begins a new episode in the step that ended the last one, so that "
                "the mask of the last state cannot be read. Accepted: info['action_mask'], or another autoreset_mode."
            )

    def read(
        self, vector: Plain, info: Named, over: Array, before: Array | None, first: bool
    ) -> Array | None:
        """The mask of each environment, (B, A), or None where the environment gives none.

        Parameters
        ----------
        over
            (B,), episodes that have ended: no action follows, and a mask without an action is accepted
        before
            kept where no mask comes: of environments that were not touched
        first
            this is the first that is read of a new episode of all
        """
        rows: Plain
        if "action_mask" in info:
            rows, there = info["action_mask"], np.asarray(info.get("_action_mask", np.ones(len(over), bool)))
        elif self.by_method:
            rows, there = vector.call("action_masks"), np.ones(len(over), dtype=bool)
        elif before is not None and not first:
            rows, there = before, np.zeros(len(over), dtype=bool)
        else:
            return None
        if self.parts is None:
            raise BadArgument(
                f"{self.name} gives an action mask, and its actions are numbers in a box. Accepted: masks of Discrete, "
                "MultiDiscrete and MultiBinary actions."
            )
        if before is None and not first:
            raise DataError(f"{self.name} gave an action mask with a step, and none when the episode began.")
        out = np.ones((len(over), sum(self.parts)), dtype=bool)
        for i in range(len(over)):
            if there[i]:
                out[i] = self._row(rows[i], i, bool(over[i]))
            elif not over[i]:
                raise DataError(f"{self.name} gave no action mask for environment {i}, and gave one before.")
        return out

    def _row(self, given: Plain, i: int, over: bool) -> Array:
        """One environment's mask, (A,)."""
        assert self.parts is not None
        parts = given if isinstance(given, (list, tuple)) else [given]
        row = np.concatenate([np.ravel(part) for part in parts])
        if len(row) != sum(self.parts):
            several = "" if len(self.parts) == 1 else f" ({' + '.join(map(str, self.parts))})"
            raise DataError(
                f"{self.name} gave an action mask of {len(row)} entries in environment {i}. Accepted: "
                f"{sum(self.parts)}{several}, one for each action."
            )
        if row.dtype.kind not in "biuf" or not np.isin(row, (0, 1)).all():
            raise DataError(
                f"{self.name} gave the action mask {row.tolist()} in environment {i}. Accepted: true and false, or 1 and 0."
            )
        row = row.astype(bool)
        some = [bool(part.any()) for part in np.split(row, np.cumsum(self.parts)[:-1])]
        if not all(some):
            if not over:
                which = "" if len(self.parts) == 1 else f" of part {some.index(False)}"
                raise DataError(
                    f"{self.name} gave an action mask that allows no action{which} in environment {i}. Accepted: a mask "
                    "that allows at least one; where none is left the episode has to end."
                )
            row = np.ones_like(row)  # nothing follows: what is sent is ignored
        return row

    def check(self, mask: Array, action: Array, over: Array) -> None:
        """Nothing, where each action that counts is allowed.

        Raises
        ------
        BadArgument
        """
        assert self.parts is not None
        at = np.asarray(action).reshape(len(mask), -1) + np.cumsum([0, *self.parts[:-1]])
        bad = ~np.take_along_axis(mask, at, 1).all(1) & ~over
        if bad.any():
            i = int(np.argmax(bad))
            allowed = [np.flatnonzero(m).tolist() for m in np.split(mask[i], np.cumsum(self.parts)[:-1])]
            raise BadArgument(
                f"action {np.asarray(action)[i].tolist()} was chosen in environment {i}, and the mask of {self.name} "
                f"does not allow it there. Allowed: {allowed[0] if len(allowed) == 1 else allowed}."
            )


def masked(f: Tensor, mask: Tensor) -> Tensor:
    """f, (…, A), −∞ where the mask is false: softmax then shares the probability among what is allowed.

    Examples
    --------
    >>> torch.softmax(masked(torch.zeros(3), torch.tensor([True, False, True])), -1).tolist()
    [0.5, 0.0, 0.5]
    """
    if f.shape[-1] != mask.shape[-1]:
        raise BadArgument(
            f"mask of shape {tuple(mask.shape)} for {f.shape[-1]} actions. Accepted: one entry for each action."
        )
    return f.masked_fill(~mask.to(device=f.device, dtype=torch.bool), -torch.inf)


def empty(mask: Tensor, parts: Sequence[int]) -> Tensor:
    """Whether no action is allowed, in one part at least, (…,)."""
    return torch.stack([~part.any(-1) for part in mask.to(torch.bool).split(list(parts), -1)]).any(0)


def best(worth: Tensor, mask: Tensor | None) -> Tensor:
    """The action of the greatest worth, (…, A), of those that the mask allows, (…,).

    Raises
    ------
    BadArgument
        it allows none
    """
    if mask is None:
        return worth.argmax(-1)
    refuse_empty(mask, [worth.shape[-1]])
    return masked(worth, mask).argmax(-1)


def refuse_empty(mask: Tensor, parts: Sequence[int]) -> None:
    """Nothing, where every mask allows an action.

    Raises
    ------
    BadArgument
    """
    if mask.shape[-1] == sum(parts) and bool(empty(mask, parts).any()):
        raise BadArgument(
            "mask allows no action. Accepted: at least one true entry, in each part of a MultiDiscrete."
        )


def given(mask: Array | None, method: Callable[..., Plain], of: str) -> Settings:
    """The mask as an argument of a method that chooses actions; nothing where the environment gives none.

    Raises
    ------
    BadArgument
        there is a mask and the method does not take one
    """
    if mask is None:
        return {}
    known = inspect.signature(method).parameters
    if "mask" not in known and not any(p.kind is p.VAR_KEYWORD for p in known.values()):
        owner = type(getattr(method, "__self__", None)).__name__
        raise BadArgument(
            f"{of} gives an action mask, and {owner}.{name_of(method)} takes none. Accepted: a method with the argument "
            "mask=None, (n, A); or an environment without masks."
        )
    return {"mask": torch.from_numpy(mask)}


def drawn(mask: Array, generator: torch.Generator) -> Array:
    """An allowed action of each environment, each as probable as any other, (B,)."""
    weight = torch.from_numpy(mask).to(torch.float64)
    out: Array = torch.multinomial(weight, 1, generator=generator).squeeze(-1).numpy()
    return out


def _has_method(vector: Plain) -> bool:
    """Whether one environment has action_masks(), beneath its wrappers."""
    from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

    inner = vector.unwrapped
    if not isinstance(inner, (AsyncVectorEnv, SyncVectorEnv)):
        return False
    return bool(inner.call("has_wrapper_attr", "action_masks")[0])
