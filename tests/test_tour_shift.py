"""The tour's rows of shift and divergence find what is known of their answers."""

from __future__ import annotations

import pytest

from thetahat.tour import SYSTEMS


@pytest.mark.parametrize("name", ["covariate shift", "least divergence"])
def test_a_row_agrees_with_what_is_known(name):
    row = SYSTEMS[name](True)
    assert row.system == name
    assert row.agrees
