"""Names and levels that a terminal would act on, or that XML does not know, are shown by their number
wherever text leaves."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest

import thetahat as th
from thetahat.cli import main
from thetahat.printable import everywhere, in_json, printable

NASTY = "x\x1b[2J\x00\x9b31m\u202e\u2066\u2028\x07"
UNSEEN = [c for c in map(chr, range(0x250)) if not c.isprintable() and c not in "\t\n\xa0"]
UNSEEN += list(
    "\u061c\u200b\u200e\u200f\u2028\u2029\u202a\u202e\u2066\u2069\ufeff\ufffe\uffff\ud800\U000e0041"
)


@pytest.fixture(scope="module")
def frame() -> dict[str, np.ndarray]:
    r = np.random.default_rng(0)
    levels = np.array(["a\x1b]0;title\x07", "b\u202e", "<script>alert(1)</script>"])
    return {"y": r.normal(size=60), NASTY: r.normal(size=60), "g": levels[r.integers(0, 3, 60)]}


@pytest.fixture(scope="module")
def fit(frame) -> th.Fit:
    return th.fit(f"y ~ `{NASTY}` + g", frame)


def clean(text: str) -> bool:
    return not any(c in text for c in UNSEEN)


@pytest.mark.parametrize("c", UNSEEN, ids=ascii)
def test_a_character_that_a_terminal_acts_on_or_that_is_not_seen_is_shown_as_python_writes_it(c):
    """Python's own escape is the oracle; it writes a carriage return as \\r, which is \\x0d."""
    if c == "\r":
        assert printable(c) == "\\x0d"
        return
    assert printable(f"a{c}b") == "a" + c.encode("unicode_escape").decode() + "b"


def test_text_of_every_language_is_left_as_it_is():
    for text in ("é θ β₁", "日本語", "עברית العربية हिन्दी", "🙂 👩\u200d🚀", "a\tb\nc", "\xa0"):
        assert printable(text) is text
    kept = {"a": (1, "b", [None]), "c": 2.0}
    assert everywhere(kept) is kept


def test_json_keeps_the_name_and_shows_a_terminal_nothing():
    document = json.dumps({NASTY: "\U000e0041\ufffe"}, ensure_ascii=False)
    assert clean(in_json(document))
    assert json.loads(in_json(document)) == json.loads(document)


def test_what_a_fit_prints_holds_no_control_character(fit, frame):
    shown = [str(fit.summary()), str(fit.certificate)]
    shown += [str(th.compare({NASTY: fit, "b": fit})), fit.summary()._repr_html_()]
    for text in shown:
        assert clean(text), ascii(text)
    assert "x\\x1b[2J\\x00" in shown[0]


@pytest.mark.parametrize("what", ["estimates", "calibration", "residuals", "profile", "trace"])
def test_a_chart_of_nasty_names_is_well_formed(fit, tmp_path, what):
    """The chart renderer ends the process on a control character: it never meets one."""
    fit.plot(what).save(str(tmp_path / "a.svg"))
    ET.parse(tmp_path / "a.svg")


def test_the_report_of_nasty_names_holds_no_control_character_and_no_script(fit, tmp_path):
    page = fit.report(tmp_path / "a.html").read_text(encoding="utf-8")
    assert clean(page)
    assert "<script" not in page


def test_the_command_shows_no_control_character_on_any_of_its_streams(frame, tmp_path, capsys):
    """A CSV whose header and cells hold escape sequences: table, JSON, saved fit, report, and an error that
    names a column."""
    path = tmp_path / "a.csv"
    pd.DataFrame(frame).rename(columns={NASTY: NASTY.replace("\x00", "")}).to_csv(path, index=False)
    name = NASTY.replace("\x00", "")
    for words in (
        ["fit", f"y ~ `{name}` + g", str(path), "--report", str(tmp_path / "a.html")],
        ["fit", f"y ~ `{name}` + g", str(path), "--json"],
        ["fit", "y ~ nothing", str(path)],
        ["fit", "y ~ nothing", str(path), "--json"],
    ):
        assert main(words) == (3 if "nothing" in words[1] else 0)
        out, err = capsys.readouterr()
        assert clean(out)
        assert clean(err)
        if words[-1] == "--json":
            json.loads(out)
