"""README and docs: every block of Python and every command runs, and prints what the page says that it
prints.

A page is one programme: its ```python and ```bash blocks run in order, in one namespace, in an empty folder.
A ```text block directly below one is its output, to the character but for white space, "...", and numbers
below 10⁻⁶, which are rounding. A block whose first line is "# needs NAME, NAME" runs where these packages (or commands)
are installed.
"""

from __future__ import annotations

import contextlib
import doctest
import importlib
import importlib.util
import inspect
import io
import re
import shlex
import shutil
import types
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest

import thetahat as th
from thetahat.cli import main

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if page.name != "examples.md"),
]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.M | re.S)
ROUNDING = re.compile(r"\d(\.\d+)?e[-−](0[6-9]|[1-9]\d+)")
LOOSE = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


@dataclass(frozen=True)
class Block:
    """A ```python or ```bash block, and the ```text block directly below it if there is one."""

    code: str
    line: int
    output: str | None
    language: str = "python"


def blocks(text: str) -> list[Block]:
    """Every ```python and ```bash block of a page, in order."""
    fences = list(FENCE.finditer(text))
    out = []
    for i, fence in enumerate(fences):
        if fence[1] in ("python", "bash"):
            below = fences[i + 1] if i + 1 < len(fences) else None
            adjoins = (
                below is not None and below[1] == "text" and not text[fence.end() : below.start()].strip()
            )
            output = below[2] if below is not None and adjoins else None
            out.append(Block(fence[2], text[: fence.start(2)].count("\n"), output, fence[1]))
    return out


def alike(said: str, printed: str) -> bool:
    said, printed = (ROUNDING.sub("0", text) for text in (said, printed))
    return doctest.OutputChecker().check_output(said, printed, LOOSE)


def command(lines: str) -> None:
    """Run lines of `thetahat …`; one ends with 0, or with what a comment behind it says: `# exits with 1`."""
    for line in lines.replace("\\\n", " ").strip().splitlines():
        words = shlex.split(line, comments=True)
        assert words[0] == "thetahat", f"{line!r}: only thetahat is run here"
        expected = re.search(r"# exits with (\d+)", line)
        assert main(words[1:]) == (int(expected[1]) if expected else 0), line


def lacks(code: str) -> bool:
    """Whether a block says that it needs a package or a command that is not installed."""
    needs = re.match(r"# needs ([\w, ]+)\n", code)
    names = [] if needs is None else needs[1].split(", ")
    return any(importlib.util.find_spec(name) is None and shutil.which(name) is None for name in names)


def run(page: Path) -> None:
    """Run a page; an error names the line of the page, a wrong output shows both."""
    namespace: dict[str, object] = {"__name__": f"page_{page.stem}"}
    for block in blocks(page.read_text(encoding="utf-8")):
        if lacks(block.code):
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            if block.code.startswith(
                "# needs "
            ):  # the warnings of a package that this one does not have are its own
                warnings.simplefilter("default")
            if block.language == "bash":
                command(block.code)
            else:
                exec(compile("\n" * block.line + block.code, str(page), "exec", dont_inherit=True), namespace)
        if block.output is not None and not alike(block.output, printed.getvalue()):
            pytest.fail(
                f"{page.name}, line {block.line}: the page says\n{block.output}\nand the code "
                f"prints\n{printed.getvalue()}"
            )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_runs_and_prints_what_the_page_says(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pages are the library's promises: a reader may copy any of them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "88")
    run(page)


def test_a_wrong_output_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n", encoding="utf-8")
    with pytest.raises(pytest.fail.Exception, match="the code prints\n2"):
        run(page)


def test_a_block_that_needs_what_is_not_installed_is_not_run(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    code = "```python\n# needs {}\nprint(1)\n```\n\n```text\n2\n```\n"
    page.write_text(code.format("no_such_package, torch"), encoding="utf-8")
    run(page)
    page.write_text(code.format("torch, python3"), encoding="utf-8")
    with pytest.raises(pytest.fail.Exception, match="the code prints\n1"):
        run(page)


def test_an_error_names_the_line_of_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A page\n\n```python\nx = 1\nraise ValueError(x)\n```\n", encoding="utf-8")
    with pytest.raises(ValueError, match="1") as error:
        run(page)
    assert error.traceback[-1].lineno + 1 == 5


# ---- the reference leaves nothing public out ---------------------------------------------------------------


def documented() -> set[str]:
    """Every object that a page of the reference writes out (`::: path.to.object`)."""
    text = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").glob("*.md"))
    return set(re.findall(r"^::: ([\w.]+)$", text, re.M))


def public() -> dict[str, object]:
    """Every name of `thetahat.__all__` and of the packages in it, and every entry of every registry: path →
    object, once an object."""
    found: dict[str, object] = {}
    packages = [
        th,
        *(getattr(th, name) for name in th.__all__ if isinstance(getattr(th, name), types.ModuleType)),
    ]
    for package in packages:
        names = getattr(package, "__all__", None) or [
            n for n, v in vars(package).items() if inspect.isclass(v) and v.__module__ == package.__name__
        ]
        for name in [n for n in names if not n.startswith("_")]:
            each = getattr(package, name)
            if inspect.isclass(each) or inspect.isfunction(each):
                found[f"{package.__name__}.{name}"] = each
    for registry in (th.families.registry, th.families.wrappers, th.families.tables):
        for each in registry.values():
            found[f"{each.__module__}.{each.__qualname__}"] = each
    return found


def resolve(path: str) -> object:
    """The object that a path of the reference names: an attribute of its module, or of a class or module
    in it."""
    module, _, name = path.rpartition(".")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError:
        return getattr(resolve(module), name)
    return getattr(found, name) if hasattr(found, name) else importlib.import_module(path)


def test_the_reference_leaves_nothing_public_out() -> None:
    """Every class and function that `__all__` or a registry names is written out on a page of
    docs/reference."""
    written = {id(resolve(path)) for path in documented()}
    missing = sorted({path for path, each in public().items() if id(each) not in written})
    assert not missing, f"docs/reference lacks {missing}"


@pytest.mark.parametrize("path", sorted(documented()))
def test_what_the_reference_names_exists_and_says_what_it_is(path: str) -> None:
    each = resolve(path)
    assert inspect.getdoc(each), f"{path} has no docstring"


def test_every_page_is_in_the_navigation() -> None:
    """mkdocs.yml lists every page, once."""
    listed = re.findall(r"[\w/]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("nav:")[1])
    pages = sorted(str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md"))
    assert sorted(listed) == pages


# ---- how pages look ----------------------------------------------------------------------------------------

WIDTH = 88  # characters of a line of code that no page has to scroll


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_line_of_code_overflows(page: Path) -> None:
    code = [
        (b.line + i + 1, line) for b in blocks(page.read_text()) for i, line in enumerate(b.code.split("\n"))
    ]
    assert not [(at, line) for at, line in code if len(line) > WIDTH]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_pictures_of_a_page_exist(page: Path) -> None:
    """The file of every relative link; the heading too, where it names one."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text)):
        file, _, heading = target.partition("#")
        if not file or re.match(r"\w+:", file):
            continue
        found = page.parent / file
        assert found.exists(), f"{page.name} links to {target}"
        if heading:
            lines = re.findall(r"^#+ (.*)$", found.read_text(encoding="utf-8"), re.M)
            slugs = {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", line).strip().lower()) for line in lines}
            assert heading in slugs, f"{page.name} links to {target}"


def test_no_level_of_the_navigation_has_more_than_eight_entries() -> None:
    entries: dict[str, int] = {}
    path: list[str] = []
    for line in (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("nav:\n")[1].splitlines():
        depth = (len(line) - len(line.lstrip())) // 4
        path = [*path[:depth], line.strip()]
        above = " / ".join(path[:-1])
        entries[above] = entries.get(above, 0) + 1
    assert max(entries.values()) <= 8, entries
    assert len(entries) > 10
