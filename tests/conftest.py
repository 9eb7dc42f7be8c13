"""The accelerator that is not there (`pretend`) is known to torch before the first test."""

from __future__ import annotations

from . import pretend

pretend.install()
