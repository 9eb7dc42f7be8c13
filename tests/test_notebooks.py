"""docs/notebooks: what scripts/notebooks.py makes of the tutorials, whose blocks tests/test_docs.py runs.

A cell of code is a block of the page, character for character, in its order: the notebook runs because the page
does.
"""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("notebooks_script", ROOT / "scripts" / "notebooks.py")
assert SPEC is not None
assert SPEC.loader is not None
script = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(script)
# the blocks that tests/test_docs.py runs, found here by a pattern of its own
BLOCK = re.compile(r"(?:^|\n)```(python|bash)\n(.*?)\n```(?=\n|$)", re.S)


@pytest.mark.parametrize("name", script.TUTORIALS)
def test_a_notebook_is_its_page(name: str) -> None:
    page = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    written = (ROOT / "docs" / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8")
    assert written == script.notebook(page), "run python scripts/notebooks.py"
    found = ["".join(c["source"]) for c in json.loads(written)["cells"] if c["cell_type"] == "code"]
    wanted = [
        code if language == "python" else re.sub("(?m)^thetahat", "!thetahat", code)
        for language, code in BLOCK.findall(page)
    ]
    assert found == wanted


def test_every_tutorial_has_a_notebook_and_a_link_to_it() -> None:
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("- Tutorials:")[1].split("- How to:")[0]
    assert len(script.TUTORIALS) > 12
    assert sorted(re.findall(r"(\w+)\.md", nav)) == sorted(script.TUTORIALS)
    for name in script.TUTORIALS:
        page = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
        assert f"(notebooks/{name}.ipynb)" in page, name


def test_outputs_links_and_formulas_of_a_page_survive() -> None:
    page = "# A\n\n    x = 1\n\nSee [b](b.md).\n\n```python\nprint(1)\n```\n\n```text\n1\n```\n\n```bash\nthetahat tour \\\n  --quick\n```\n"
    text, first, second = script.cells(page)
    assert "".join(text["source"]) == "# A\n\n    x = 1\n\nSee [b](../b.md)."
    assert first["outputs"] == [{"output_type": "stream", "name": "stdout", "text": ["1"]}]
    assert "".join(second["source"]) == "!thetahat tour \\\n  --quick"
