"""442 patients: ten columns, and all 64 of them, their squares and their products."""

from __future__ import annotations

from importlib import import_module

import numpy as np

import thetahat as th

ENTER = (
    "bmi",
    "s5",
    "bp",
    "s3",
    "sex",
)  # Efron et al. (2004), and R's lars: the first columns of the lasso's path


BETWEEN = (
    920.0,
    650.0,
    380.0,
    200.0,
    100.0,
)  # penalties between the path's first knots, 949, 889, 453, 316, 130 and 89


def diabetes() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], list[str]]:
    """442 patients: 10 columns of unit length beside y; all 64 of them, their squares and their products,
    standardised; the 10 names."""
    try:
        data = import_module("sklearn.datasets").load_diabetes()
    except ImportError as error:
        raise th.errors.MissingExtra.named("scikit-learn", "sklearn") from error
    names, X, y = list(data.feature_names), data.data, data.target
    every = dict(zip(names, (X / X.std(0)).T, strict=True))
    for i, first in enumerate(names):
        for second in names[i:]:
            if first != "sex" or second != "sex":  # two values: its square is itself
                product = every[first] * every[second]
                every[f"{first}_{second}"] = (product - product.mean()) / product.std()
    return dict(zip(names, X.T, strict=True)) | {"y": y}, every | {"y": (y - y.mean()) / y.std()}, names
