"""The pictures of README are in step with the library and with the results that are committed."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

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


def test_the_animation_of_separated_data_is_drawn_by_its_script() -> None:
    """Newton's steps are uphill, to the slope at which glum stops too; the last picture is the library's message."""
    module = script("separated")
    drawn = (ROOT / "docs" / "walk.svg").read_text(encoding="utf-8")
    assert drawn == module.walk(), "run python scripts/separated.py"
    assert len(drawn) < 300_000
    slopes, values = zip(*module.newton(), strict=True)
    assert list(slopes) == sorted(slopes)
    assert list(values) == sorted(values)
    assert values[0] == pytest.approx(-6 * np.log(2))
    assert slopes[9] == pytest.approx(14.63386528, rel=1e-8)  # glum 3.4.1, after 9 iterations
    assert values[-1] < 0
    assert "NoMaximum: the likelihood has no maximum" in drawn


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
    said = module.said(found, module.missed())
    assert all(words in README for words in said), "run python scripts/benchmark_chart.py"


def test_the_counts_in_readme_are_renewed_with_the_chart() -> None:
    """Three ratios written here, two of them above 1, four bars of five missed and none of three; and the words around the counts stay."""
    module = script("benchmark_chart")
    found = module.pd.DataFrame({"ratio": [0.5, 1.5, 2.0]})
    new = module.renewed(README, found, ((4, 5), (0, 3)))
    assert "for 3 pairs of work and peer" in new
    assert "ours is slower in two of them" in new
    assert "four of 5 comparisons of regressions and none of 3 of hidden Markov models fall short" in new
    assert module.renewed(new, module.ratios(), module.missed()) == README


def test_the_bars_that_are_missed_are_counted_in_the_table_of_the_run(tmp_path: Path) -> None:
    """A row without a bar is no comparison with one."""
    lines = [
        "| work | who | bar |",
        "|---|---|---|",
        "| a | us |  |",
        "| a | b | 0.2 MISSED |",
        "| a | c | 6 met |",
    ]
    (tmp_path / "speed.md").write_text("\n".join(lines), encoding="utf-8")
    assert script("benchmark_chart").missed(tmp_path) == ((1, 2), (0, 0))
