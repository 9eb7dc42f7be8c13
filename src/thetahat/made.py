"""What a class was called with, remembered: by it `io.modules` describes a network in a file, and builds it
again."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from .types import Plain, Settings

KINDS: dict[str, type] = {}
NAMES: dict[type, str] = {}  # their names in files


def record(*kinds: type[Any], by: Sequence[str] = (), suffix: str = "") -> None:
    """From now on, instances of these classes remember what they were called with.

    Parameters
    ----------
    by
        constructors of theirs besides
    suffix
        of their names in files, where torch has a layer of the same name
    """
    for kind in kinds:
        KINDS[kind.__name__ + suffix], NAMES[kind] = kind, kind.__name__ + suffix
        kind.__init__ = _remembering(kind, kind.__init__)
        for name in by:
            setattr(kind, name, classmethod(_made_by(name, getattr(kind, name).__func__)))


def _remembering(kind: type, init: Callable[..., None]) -> Callable[..., None]:
    signature = inspect.signature(init)

    @functools.wraps(init)
    def remembering(self: object, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        if type(self) is kind:
            self.__dict__["_made"] = ("", called_with(signature, self, args, kwargs), own_of(self))

    return remembering


def _made_by(name: str, construct: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(construct)

    @functools.wraps(construct)
    def remembering(cls: type, *args: Any, **kwargs: Any) -> Any:
        made = construct(cls, *args, **kwargs)
        if type(made) in NAMES:
            made.__dict__["_made"] = (name, called_with(signature, cls, args, kwargs), own_of(made))
        return made

    return remembering


def called_with(signature: inspect.Signature, first: Plain, args: Any, kwargs: Any) -> Settings:
    bound = signature.bind(first, *args, **kwargs).arguments
    return {
        name: v for name, v in list(bound.items())[1:] if name != "generator"
    }  # values drawn with it come from the file


def own_of(thing: Plain) -> Settings:
    """The plain attributes of its own. One that was set by hand later (`model.K = 50`) is not in the call,
    which then describes nothing."""
    own = {name: v for name, v in vars(thing).items() if isinstance(v, (int, float, str, tuple, type(None)))}
    return {
        name: v for name, v in own.items() if not name.startswith("_") and name not in ("training", "weights")
    }
