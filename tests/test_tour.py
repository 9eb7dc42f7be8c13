"""The tour: every system runs, and agrees with what is known of its answer."""

from __future__ import annotations

import html
import io
import json
import math
from typing import Any

import pytest
from rich.console import Console

from thetahat import tour
from thetahat.errors import MissingExtra


@pytest.fixture(scope="module")
def done() -> list[tour.Row]:
    return list(tour.rows(quick=True))


def test_every_system_has_its_row(done):
    assert [row.system for row in done] == list(tour.SYSTEMS)


def test_every_known_answer_is_met(done):
    """NIST's certified values, figures of R and of the papers: the README of the shipped tables says
    whence."""
    known = [row for row in done if row.agrees is not None]
    assert len(known) == 22
    for row in known:
        assert row.agrees, row.truth
        assert row.certificate.startswith(("certified", "L-BFGS")), (
            row.system
        )  # DPO's maximum is flat along constants


def test_every_run_gains(done):
    """But for the balanced mixed model, which begins at the moments: they are its maximum."""
    for row in done:
        assert row.before is not None
        assert row.after is not None
        if row.system == "random effects":
            assert row.after >= row.before
        else:
            assert row.after > row.before, row.system


def test_the_stochastic_systems_learn_and_claim_no_certificate(done):
    """The classifier is far above chance (−2.303 nats) on images that it has not seen; the pole stands
    longer."""
    named = {row.system: row for row in done}
    classifier, reinforce = named["network classifier"], named["REINFORCE"]
    assert classifier.after > -0.5
    assert reinforce.after > 2 * reinforce.before
    for row in (classifier, reinforce):
        assert row.certificate.startswith("stochastic")


def test_the_models_of_digits_stand_in_one_true_table(done):
    """Masses of the same 397 images by six models, three of them lower bounds: all far better than 17
    levels at random."""
    comparison = tour.compared(done)
    assert set(comparison.scores) == {row.system for row in done if row.score is not None}
    for name, score in comparison.scores.items():
        assert score.measure == "mass"
        assert score.n == 397
        assert score.bits_per_dimension < 3.6 < math.log2(17)
        assert (score.kind == "lower bound") == (name in ("flow", "VAE", "diffusion")), name
        assert score.kind == "exact" or score.K > 1


def test_the_page_opens_offline_and_has_every_row(done, tmp_path):
    text = tour.page.write(done, tmp_path / "tour.html", tour.compared(done)).read_text(encoding="utf-8")
    for row in done:
        assert html.escape(row.system) in text.replace("&#39;", "&#x27;")
    for name in tour.compared(done).scores:
        assert text.count(name) >= 2  # a row of the tour, and one of the comparison
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "https://" not in text


def test_the_table_shows_every_row_and_json_takes_it(done):
    out = io.StringIO()
    Console(file=out, width=200).print(tour.render(done))
    for row in done:
        assert row.system in out.getvalue()
    again: list[dict[str, Any]] = json.loads(json.dumps([row.to_dict() for row in done]))
    assert again[0]["after"] == done[0].after
    assert math.isfinite(again[0]["before"])


def test_a_system_whose_extra_is_missing_says_so(monkeypatch):
    def absent(quick: bool) -> tour.Row:
        raise MissingExtra.named("gymnasium", "rl")

    begun: list[str] = []
    monkeypatch.setattr(
        tour, "SYSTEMS", {"linear regression": tour.SYSTEMS["linear regression"], "REINFORCE": absent}
    )
    first, second = tour.rows(begin=begun.append)
    assert begun == ["linear regression", "REINFORCE"]
    assert first.agrees
    assert second.certificate == "needs thetahat[rl]"
    assert second.before is None
    out = io.StringIO()
    shown = tour.show(console=Console(file=out, width=160))
    assert len(shown) == 2
    assert "needs thetahat[rl]" in out.getvalue()
