"""Data flows one way: each folder imports, at run time, only those before it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "thetahat"

# Later may import earlier. `fit` conducts; `__init__` only gathers names.
ORDER = "types printable notebook errors allocation memory threads distributions products kernels defaults protocols files data".split()
ORDER += "families made networks models likelihood solvers inference".split()
FACES = [
    "report",
    "io",
    "margins",
    "fit_effects",
    "fit_tests",
    "fit_tables",
    "result",
    "nonparametric",
    "fitting",
    "sklearn",
    "tour",
    "cli",
]  # may import anything
ORDER += ["evaluation", "generative", "language", "rl", "preferences", *FACES, "__init__"]
SYSTEMS = {
    "generative": set(),
    "language": set(),
    "rl": set(),
    "preferences": {"language", "rl"},
}  # which others each may import
MODULES = sorted(ROOT.rglob("*.py"))


def layer_of(name: str) -> str:
    """The folder below thetahat that a file is in, or its own name if it lies directly there."""
    return name.removesuffix(".py")


def imported(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """(line, layer) of each import of thetahat's own at run time, wherever it stands; `package` are the
    folders of the file."""
    if isinstance(tree, ast.If) and "TYPE_CHECKING" in ast.unparse(tree.test):
        for node in tree.orelse:
            yield from imported(node, package)
        return
    if isinstance(tree, ast.Import):
        for alias in tree.names:
            parts = alias.name.split(".")
            if parts[0] == "thetahat":
                yield tree.lineno, parts[1] if len(parts) > 1 else "__init__"
        return
    if isinstance(tree, ast.ImportFrom):
        parts = (tree.module or "").split(".") if tree.module else []
        if tree.level == 0:
            if not parts or parts[0] != "thetahat":
                return
            parts = parts[1:]
        else:
            parts = [*package[: len(package) - tree.level + 1], *parts][1:]
        for alias in tree.names:
            yield tree.lineno, parts[0] if parts else alias.name
        return
    for child in ast.iter_child_nodes(tree):
        yield from imported(child, package)


def package_of(path: Path) -> tuple[str, ...]:
    return ("thetahat", *path.relative_to(ROOT).parts[:-1])


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_the_folders_before_its_own(path: Path) -> None:
    """The spine, data → families → networks → models → likelihood → solvers → inference → evaluation; a
    folder a system; then the faces."""
    layer = layer_of(path.relative_to(ROOT).parts[0])
    allowed = [*ORDER[: ORDER.index(layer) + 1], "__version__"]
    if layer in FACES:
        allowed = [*ORDER, "__version__"]
    elif layer in SYSTEMS:
        allowed = [name for name in allowed if name not in SYSTEMS or name == layer or name in SYSTEMS[layer]]
    found = imported(ast.parse(path.read_text(encoding="utf-8")), package_of(path))
    wrong = [f"line {line}: {name}" for line, name in found if layer_of(name) not in allowed]
    assert not wrong, f"{path.relative_to(ROOT)} is of {layer!r} and imports {wrong}"


@pytest.mark.parametrize(
    ("name", "known"), [("types", set()), ("printable", {"types"}), ("errors", {"printable", "types"})]
)
def test_printable_errors_and_types_import_nothing_else_of_the_library(name: str, known: set[str]) -> None:
    path = ROOT / f"{name}.py"
    assert {
        n for _, n in imported(ast.parse(path.read_text(encoding="utf-8")), package_of(path)) if n != name
    } <= known


def test_the_reader_of_imports_sees_every_form() -> None:
    """Relative, absolute, inside a function, of the whole package: all are read; what only the type
    checker sees is not."""
    source = """
from ..data.batch import Batch
from . import loop
from .. import families
import thetahat.report.html
from thetahat.cli import main
def f():
    from ..inference import covariance
if TYPE_CHECKING:
    from ..result import Fit
"""
    found = [name for _, name in imported(ast.parse(source), ("thetahat", "solvers"))]
    assert found == ["data", "solvers", "families", "report", "cli", "inference"]
