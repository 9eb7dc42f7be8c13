"""The accelerator that is not there (`pretend`) is known to torch before the first test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from thetahat.kernels import compiled

from . import pretend

pretend.install()

LEVELS = {0: "any processor", 1: "AVX2", 2: "AVX-512"}


@pytest.fixture(params=[0, 1, 2], ids=LEVELS.get)
def level(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each set of instructions for which the compiled sums are built, as far as this processor has it."""
    found = compiled.library()
    if found is None:
        pytest.skip("installed without a compiler")
    best = found.thetahat_level()
    if request.param > best:
        pytest.skip(f"this processor does not have {LEVELS[request.param]}")
    found.thetahat_set_level(request.param)
    yield
    found.thetahat_set_level(best)
