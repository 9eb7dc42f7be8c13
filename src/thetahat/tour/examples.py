"""The scripts of `examples/`, as modules: beside the repository's sources, or within the installed package."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from ..errors import BadArgument

PLACES = (Path(__file__).parents[1] / "examples", Path(__file__).parents[3] / "examples")


def folder() -> Path:
    """Where the scripts are."""
    return next(place for place in PLACES if place.is_dir())


def example(name: str) -> ModuleType:
    """A script of `examples/` by its name, executed once.

    Raises
    ------
    BadArgument
        there is none of that name

    Examples
    --------
    >>> example("linear_regression").run().agrees
    True
    """
    whole = f"thetahat_examples.{name}"
    if whole in sys.modules:
        return sys.modules[whole]
    path = folder() / f"{name}.py"
    if not path.exists():
        known = sorted(each.stem for each in folder().glob("*.py"))
        raise BadArgument(f"there is no example {name!r}. Examples: {', '.join(known)}.")
    spec = spec_from_file_location(whole, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[whole] = module_from_spec(spec)
    sys.path.insert(0, str(folder()))  # a script imports what it shares with its neighbours by their names
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[whole]
        raise
    finally:
        sys.path.remove(str(folder()))
    return module
