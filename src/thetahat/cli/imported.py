"""A function or a model of yours, as an option names it: module:name, or file.py:name."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BadArgument
from ..types import Plain

if TYPE_CHECKING:
    from torch import nn


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
    function = _object(option, path, name)
    if not callable(function):
        raise BadArgument(f"{option} {path}:{name} is a {type(function).__name__}, not a function.")
    found: Callable[..., Plain] = function
    return found


def model_of(option: str, text: str) -> nn.Module:
    """The model that an option names: what `@th.model(…)` made of a function, or any `torch.nn.Module` with a log_prob.

    Raises
    ------
    BadArgument
        it cannot be imported, or is not a model
    """
    where = named(text)
    if where is None:
        raise BadArgument(
            f"{option} {text!r}. Accepted: FILE.py:NAME or MODULE:NAME, the name of a model in that file, such as growth.py:growth."
        )
    from torch import nn

    found = _object(option, *where)
    if isinstance(found, nn.Module):
        return found
    what = "a function" if inspect.isroutine(found) else f"a {type(found).__name__}"
    raise BadArgument(
        f"{option} {text} is {what}, not a model. Accepted: what @th.model(…) makes of a function of batch and parameters, or a "
        "torch.nn.Module with a log_prob(batch)."
    )


def _object(option: str, path: str, name: str) -> Plain:
    """What a file or a module holds under that name.

    Raises
    ------
    BadArgument
        it cannot be imported
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
        found: Plain = getattr(module, name)
    except BadArgument:
        raise
    except Exception as error:  # the code of the file can raise anything
        raise BadArgument(
            f"{option} {path}:{name} cannot be imported: {type(error).__name__}: {error}."
        ) from error
    return found
