"""Writes docs/notebooks/NAME.ipynb from docs/NAME.md, for each tutorial: the page is the one source.

python scripts/notebooks.py

Text is a Markdown cell, a ```python block a cell of code, a ```bash block a cell of `!thetahat …`, and a ```text block
directly below a block that cell's output, as the page has it. tests/test_docs.py runs the pages and holds their outputs;
tests/test_notebooks.py holds that the notebooks are what this script makes of them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TUTORIALS = (
    "counts binary survival mixed smooths own mixtures hmm classifier vae flows diffusion distributional gpt policies rlhf "
    "preferences distributional_rl"
).split()  # the pages under "Tutorials" in mkdocs.yml
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```\n?", re.M | re.S)
LINK = re.compile(r"(\]\()(?!https?:|#|/)([^)\s]+\))")
Cell = dict[str, Any]


def lines(text: str) -> list[str]:
    """The text as notebooks keep it: line by line, each but the last with its end."""
    return text.strip("\n").splitlines(keepends=True)


def prose(text: str) -> Cell:
    """A cell of Markdown, whose links and pictures are found from docs/notebooks."""
    return {"cell_type": "markdown", "metadata": {}, "source": lines(LINK.sub(r"\1../\2", text))}


def code(language: str, text: str) -> Cell:
    """A cell of code: a line of a shell begins with "!", and one that ends in a backslash goes on."""
    if language == "bash":
        text = re.sub(r"^(?=thetahat)", "!", text, flags=re.M)
    return {
        "cell_type": "code",
        "metadata": {},
        "execution_count": None,
        "outputs": [],
        "source": lines(text),
    }


def cells(page: str) -> list[Cell]:
    """The cells of a page, in order, each with an id of its place."""
    out: list[Cell] = []
    end = 0
    for fence in FENCE.finditer(page):
        between = page[end : fence.start()]
        if between.strip():
            out.append(prose(between))
        if fence[1] in ("python", "bash"):
            out.append(code(fence[1], fence[2]))
        elif fence[1] == "text" and not between.strip() and out and out[-1]["cell_type"] == "code":
            out[-1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": lines(fence[2])}]
        else:
            out.append(prose(fence[0]))
        end = fence.end()
    if page[end:].strip():
        out.append(prose(page[end:]))
    return [{"id": f"cell-{i}", **cell} for i, cell in enumerate(out)]


def notebook(page: str) -> str:
    """A page as a notebook of format 4.5."""
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    made = {"cells": cells(page), "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(made, ensure_ascii=False, indent=1) + "\n"


def main() -> None:
    folder = DOCS / "notebooks"
    folder.mkdir(exist_ok=True)
    for name in TUTORIALS:
        page = (DOCS / f"{name}.md").read_text(encoding="utf-8")
        (folder / f"{name}.ipynb").write_text(notebook(page), encoding="utf-8")


if __name__ == "__main__":
    main()
