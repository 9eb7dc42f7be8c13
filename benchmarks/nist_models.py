"""The fourteen nonlinear models of NIST's StRD, written with torch: f(x, b)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

exp, atan, cos, sin, log10 = torch.exp, torch.atan, torch.cos, torch.sin, torch.log10


def _enso(x: Tensor, b: list[Tensor]) -> Tensor:
    out = b[0] + b[1] * cos(2 * math.pi * x / 12) + b[2] * sin(2 * math.pi * x / 12)
    for period, c, s in ((b[3], b[4], b[5]), (b[6], b[7], b[8])):
        out = out + c * cos(2 * math.pi * x / period) + s * sin(2 * math.pi * x / period)
    return out


def _gauss(x: Tensor, b: list[Tensor]) -> Tensor:
    return (
        b[0] * exp(-b[1] * x)
        + b[2] * exp(-((x - b[3]) ** 2) / b[4] ** 2)
        + b[5] * exp(-((x - b[6]) ** 2) / b[7] ** 2)
    )


MODELS: dict[str, Callable[..., Tensor]] = {
    "Misra1a": lambda x, b: b[0] * (1 - exp(-b[1] * x)),
    "Misra1b": lambda x, b: b[0] * (1 - (1 + b[1] * x / 2) ** -2),
    "Chwirut2": lambda x, b: exp(-b[0] * x) / (b[1] + b[2] * x),
    "DanWood": lambda x, b: b[0] * x ** b[1],
    "Gauss1": _gauss,
    "Kirby2": lambda x, b: (b[0] + b[1] * x + b[2] * x**2) / (1 + b[3] * x + b[4] * x**2),
    "Lanczos1": lambda x, b: b[0] * exp(-b[1] * x) + b[2] * exp(-b[3] * x) + b[4] * exp(-b[5] * x),
    "MGH09": lambda x, b: b[0] * (x**2 + x * b[1]) / (x**2 + x * b[2] + b[3]),
    "ENSO": _enso,
    "Roszman1": lambda x, b: b[0] - b[1] * x - atan(b[2] / (x - b[3])) / math.pi,
    "BoxBOD": lambda x, b: b[0] * (1 - exp(-b[1] * x)),
    "Eckerle4": lambda x, b: b[0] / b[1] * exp(-((x - b[2]) ** 2) / (2 * b[1] ** 2)),
    "Rat42": lambda x, b: b[0] / (1 + exp(b[1] - b[2] * x)),
    "Nelson": lambda x, b: b[0] - b[1] * x[:, 0] * exp(-b[2] * x[:, 1]),  # of log y
}
