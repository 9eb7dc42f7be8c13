"""A function of yours, as an option names it: module:function, or file.py:function."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

from ..errors import BadArgument
from ..types import Plain


def named(text: str) -> tuple[str, str] | None:
    """(module or file, function) of module:function; None of any other text.

    Examples
    --------
    >>> named("my_rewards:short"), named("CartPole-v1"), named("module:Env-v0")
    (('my_rewards', 'short'), None, None)
    """
    path, _, name = text.rpartition(":")
    return (path, name) if path and name.isidentifier() else None


def function_of(option: str, path: str, name: str) -> Callable[..., Plain]:
    """The function.

    Raises
    ------
    BadArgument
        it cannot be imported, or is not a function
    """
    try:
        if path.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(path).stem, path)
            if spec is None or spec.loader is None or not Path(path).is_file():
                raise BadArgument(f"{option} {path}:{name}: {path} is not a file.")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            if "" not in sys.path and "." not in sys.path:
                sys.path.insert(0, "")
            module = importlib.import_module(path)
        function: Plain = getattr(module, name)
    except (ImportError, AttributeError) as error:
        raise BadArgument(f"{option} {path}:{name} cannot be imported: {error}.") from error
    if not callable(function):
        raise BadArgument(f"{option} {path}:{name} is a {type(function).__name__}, not a function.")
    found: Callable[..., Plain] = function
    return found
