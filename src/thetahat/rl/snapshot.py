"""Snapshots: what an environment holds, as plain values that a checkpoint keeps and a fresh environment takes
back. No pickle, and no code.

The objects of an environment (its wrappers, spaces, generators of random numbers) are walked attribute by
attribute. Numbers, texts, arrays, containers and states of generators are written down; functions, classes
and modules are code, and the fresh environment has its own. What has a state that cannot be read (a simulator
in C, a process, a window) makes the whole one that cannot be kept, and is named.
"""

from __future__ import annotations

import base64
import enum
import functools
import json
import random
import re
import sys
import types
from collections import OrderedDict, deque

import numpy as np
import torch

from ..errors import ThetahatError
from ..types import Plain, Settings

CODE = (
    type,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.ModuleType,
    functools.partial,
    enum.Enum,
    np.dtype,
)
CODE += (re.Pattern, range, slice, type(Ellipsis), type(NotImplemented))  # type: ignore[assignment]
CONTAINERS: dict[str, type] = {c.__name__: c for c in (list, tuple, set, frozenset, deque, dict, OrderedDict)}
BITS = {
    c.__name__: c
    for c in (np.random.PCG64, np.random.PCG64DXSM, np.random.MT19937, np.random.Philox, np.random.SFC64)
}
FIXED = "gymnasium.envs.registration"  # what an environment was made of: the same in a fresh one
ABSENT = object()


class Opaque(ThetahatError):
    """An object whose state cannot be read."""


class Other(ThetahatError):
    """A snapshot of another object."""


def taken(root: Plain) -> bytes:
    """What an object and all that it holds are, in JSON.

    Raises
    ------
    Opaque
        part of it has a state that cannot be read; the message names it

    Examples
    --------
    >>> class Clock:
    ...     def __init__(self): self.t, self.random = 0, np.random.default_rng(0)
    >>> one, other = Clock(), Clock()
    >>> one.t, drawn = 7, one.random.random()
    >>> given_back(other, taken(one))
    >>> other.t, other.random.random() == one.random.random()
    (7, True)
    """
    return json.dumps(_Walk().written(root, type(root).__name__)).encode()


def given_back(root: Plain, kept: bytes) -> None:
    """Put into an object, made as the other was, what that one held.

    Raises
    ------
    Other
        the object has other parts than the one that was written down
    """
    _Walk().read(json.loads(kept), root, type(root).__name__)


class _Walk:
    """One walk over objects: `seen` numbers them, so that what is held twice stays one."""

    def __init__(self) -> None:
        self.seen: dict[int, int] = {}
        self.held: list[Plain] = []

    # ---- to plain values -----------------------------------------------------------------------------------

    def written(self, value: Plain, where: str) -> Plain:
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is bytes:
            return {"bytes": value.hex()}
        if type(value) is float:
            return {"float": value.hex()}
        if isinstance(value, np.generic):
            return {"scalar": _array(np.asarray(value))}
        if isinstance(value, CODE) or type(value).__module__ == FIXED:
            return {"code": type(value).__name__}
        if id(value) in self.seen:
            return {"again": self.seen[id(value)]}
        self.seen[id(value)] = len(self.held)
        self.held.append(value)
        if isinstance(value, np.ndarray) and value.dtype.kind in "biufcSU":
            return {"array": _array(value)}
        if type(value) is torch.Tensor:
            return {"tensor": _array(value.detach().cpu().numpy())}
        if isinstance(value, torch.Generator):
            return {"torch": _array(value.get_state().numpy())}
        if isinstance(value, np.random.Generator):
            own = value.bit_generator
            if type(own).__name__ not in BITS:
                raise Opaque(f"{where} draws by a {type(own).__name__}")
            return {"generator": type(own).__name__, "state": self.written(own.state, where)}
        if isinstance(value, (np.random.RandomState, random.Random)):
            stands: Plain = (
                value.get_state(legacy=False)
                if isinstance(value, np.random.RandomState)
                else value.getstate()
            )
            return {"random": type(value).__name__, "state": self.written(stands, where)}
        if type(value) in CONTAINERS.values():
            return self._contained(value, where)
        if isinstance(value, tuple) and hasattr(value, "_make"):
            return {"named": [self.written(each, f"{where}[{i}]") for i, each in enumerate(value)]}
        if not _plain(type(value)) or not hasattr(value, "__dict__"):
            raise Opaque(f"{where} is a {type(value).__module__}.{type(value).__name__}")
        holds = {name: self.written(each, f"{where}.{name}") for name, each in vars(value).items()}
        return {"object": f"{type(value).__module__}.{type(value).__qualname__}", "holds": holds}

    def _contained(self, value: Plain, where: str) -> Plain:
        if isinstance(value, dict):
            pairs = [[self.written(k, where), self.written(v, f"{where}[{k!r}]")] for k, v in value.items()]
            return {"container": type(value).__name__, "pairs": pairs}
        most = value.maxlen if isinstance(value, deque) else None
        items = [self.written(each, f"{where}[{i}]") for i, each in enumerate(value)]
        return {"container": type(value).__name__, "items": items, "most": most}

    # ---- and back ------------------------------------------------------------------------------------------

    def read(self, kept: Plain, live: Plain, where: str) -> Plain:
        """The value that was written, `live` what stands in its place."""
        if not isinstance(kept, dict):
            return kept
        if "float" in kept:
            return float.fromhex(kept["float"])
        if "bytes" in kept:
            return bytes.fromhex(kept["bytes"])
        if "scalar" in kept:
            return _of_array(kept["scalar"])[()]
        if "code" in kept:
            if live is ABSENT or type(live).__name__ != kept["code"]:
                raise Other(f"{where} is not a {kept['code']}")
            return live
        if "again" in kept:
            return self.held[kept["again"]]
        place = len(self.held)
        self.held.append(None)
        if "object" in kept:
            if f"{type(live).__module__}.{type(live).__qualname__}" != kept["object"]:
                raise Other(f"{where} is not a {kept['object']}")
            self.held[place] = live
            own = live.__dict__
            for name, each in kept["holds"].items():
                own[name] = self.read(each, own.get(name, ABSENT), f"{where}.{name}")
            for name in set(own) - set(kept["holds"]):
                del own[name]
            return live
        out = self._made(kept, live, where, place)
        self.held[place] = out
        return out

    def _made(self, kept: Settings, live: Plain, where: str, place: int) -> Plain:
        if "array" in kept:
            return _of_array(kept["array"])
        if "tensor" in kept:
            return torch.from_numpy(_of_array(kept["tensor"]))
        if "torch" in kept:
            return torch.Generator().set_state(torch.from_numpy(_of_array(kept["torch"])))
        if "generator" in kept:
            own = BITS[kept["generator"]]()
            own.state = self.read(kept["state"], ABSENT, where)
            return np.random.Generator(own)
        if "random" in kept:
            out: Plain = np.random.RandomState() if kept["random"] == "RandomState" else random.Random()
            state = self.read(kept["state"], ABSENT, where)
            (out.set_state if kept["random"] == "RandomState" else out.setstate)(state)
            return out
        if "named" in kept:
            if not hasattr(type(live), "_make"):
                raise Other(f"{where} is not a named tuple")
            return type(live)._make(
                self.read(v, live[i], f"{where}[{i}]") for i, v in enumerate(kept["named"])
            )
        kind = CONTAINERS[kept["container"]]
        if "pairs" in kept:
            found: Plain = kind()
            self.held[place] = found
            for k, v in kept["pairs"]:
                name = self.read(k, ABSENT, where)
                before = live.get(name, ABSENT) if isinstance(live, dict) else ABSENT
                found[name] = self.read(v, before, f"{where}[{name!r}]")
            return found
        before = list(live) if isinstance(live, (list, tuple, deque)) else []
        every = [
            self.read(v, before[i] if i < len(before) else ABSENT, f"{where}[{i}]")
            for i, v in enumerate(kept["items"])
        ]
        return deque(every, kept["most"]) if kind is deque else kind(every)


def _plain(kind: type) -> bool:
    """Whether all that an object of this class holds is in its attributes: it is written in Python,
    outside the standard library."""
    if kind.__module__.partition(".")[0] in sys.stdlib_module_names - {"__main__"}:
        return False
    inits = [vars(c)["__init__"] for c in kind.__mro__[:-1] if "__init__" in vars(c)]
    own = [vars(c)["__new__"] for c in kind.__mro__[:-1] if "__new__" in vars(c)]
    return all(isinstance(each, (types.FunctionType, staticmethod)) for each in [*inits, *own])


def _array(value: np.ndarray) -> list[Plain]:
    return [
        value.dtype.str,
        list(value.shape),
        base64.b64encode(np.ascontiguousarray(value).tobytes()).decode(),
    ]


def _of_array(kept: list[Plain]) -> np.ndarray:
    dtype, shape, raw = kept
    return np.frombuffer(base64.b64decode(raw), dtype=np.dtype(dtype)).reshape(shape).copy()
