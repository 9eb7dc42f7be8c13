"""Sums over the rows of a design, compiled: see products.cpp for what, `compiled.py` for how Python asks."""
