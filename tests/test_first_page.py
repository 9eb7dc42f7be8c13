"""The pictures of README are in step with the library and with the results that are committed."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{name}_script", ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_of_separated_data_has_the_message_that_the_library_gives() -> None:
    drawn = (ROOT / "docs" / "separated.svg").read_text(encoding="utf-8")
    assert drawn == script("separated").picture(), "run python scripts/separated.py"


def test_the_slopes_in_the_picture_are_those_of_the_calls_written_above_them() -> None:
    """scripts/separated.py: each library's output, quoted in its docstring, rounded to what is drawn."""
    module = script("separated")
    printed = [float(x) for x in re.findall(r"slope ([\d.]+)", module.__doc__)]
    drawn = [float(slope) for _, slope, _, _ in module.PEERS]
    assert sorted(drawn) == sorted({round(x, 1) for x in printed})
    assert all(f"{slope}" in README for slope in drawn)


def test_readme_counts_the_ratios_of_the_chart_and_those_against_us() -> None:
    module = script("benchmark_chart")
    found = module.ratios()
    assert all(said in README for said in module.counts(found)), "run python scripts/benchmark_chart.py"


def test_the_counts_in_readme_are_renewed_with_the_chart() -> None:
    """Three ratios written here, two of them above 1; and the words around the counts stay."""
    module = script("benchmark_chart")
    found = module.pd.DataFrame({"ratio": [0.5, 1.5, 2.0]})
    new = module.renewed(README, found)
    assert "for 3 pairs of work and peer" in new
    assert "ours is slower in two of them" in new
    assert module.renewed(new, module.ratios()) == README
