"""Every test and every example draws the same numbers at every run: none may pass or fail by chance.

`pytest --hypothesis-profile=explore` looks for new counterexamples; what it finds becomes an @example."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import settings

settings.register_profile("explore", deadline=None)
settings.register_profile("same", deadline=None, derandomize=True)
settings.load_profile("same")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
