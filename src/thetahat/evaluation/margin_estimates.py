"""Estimates that are functions of θ̂, with their gradients: what predictions, comparisons, slopes and means are, and linear
combinations of them.

    Var â = G V Gᵀ,      G = ∂a/∂θ at θ̂,      (â − null) / √Var â  against Student's t or the normal

Source: Oehlert (1992), A note on the delta method.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..errors import BadArgument
from ..inference.covariance import Covariance
from ..inference.hypotheses import parse
from ..inference.tests import Test, wald
from .adjustment import check, p_values, quantile

NUMBERS = ("estimate", "standard_error", "statistic", "df", "p_value", "low", "high")
PAIRS = ("pairwise", "reference", "sequential")
LARGEST = 10_000  # estimates of one covariance
CELLS = 2**26  # of a matrix of differences
Back = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Estimates:
    """(m,) estimates.

    Parameters
    ----------
    labels
        a row an estimate: what it is of
    value
        (m,), on the scale on which hypotheses are
    G
        (m, p), its gradient in θ
    V
        the covariance of θ̂
    title
        what they are, in words
    null
        the value that the statistic is against
    ends
        (m, 2), intervals that were made on another scale; None: symmetric ones
    back
        value → what is reported, element by element; None: itself
    adjust
        of `adjustment`
    means
        k, of which these are differences
    families
        (m,), which are adjusted together; None: all
    """

    labels: pd.DataFrame
    value: Tensor
    G: Tensor
    V: Covariance
    title: str
    null: float = 0.0
    ends: Tensor | None = None
    back: Back | None = None
    adjust: str | None = None
    means: int = 1
    families: np.ndarray | None = None

    @property
    def names(self) -> list[str]:
        """What each is called in a hypothesis, besides b1, b2, …: its labels, joined."""
        shown = [c for c in self.labels.columns if self.labels[c].astype(str).nunique() > 1]
        shown = shown or list(self.labels.columns[:1])
        if not shown:
            return [f"b{i + 1}" for i in range(len(self.value))]
        return [" ".join(map(_text, row)) for row in self.labels[shown].itertuples(index=False, name=None)]

    @property
    def none(self) -> float:
        """The reported value of no effect: 0 of differences, 1 of ratios."""
        if self.back is None:
            return self.null
        return float(self.back(torch.tensor(self.null, dtype=torch.float64)))

    def table(self, level: float) -> pd.DataFrame:
        """The labels, and columns `NUMBERS`."""
        error = self.V.diagonal(self.G).sqrt()
        df = self.V.freedom(self.G).numpy()
        statistic = ((self.value - self.null) / error).numpy()
        reach, p = np.empty(len(df)), np.empty(len(df))
        for own in self._families():
            reach[own] = quantile(level, df[own], self.adjust, self.means)
            p[own] = p_values(statistic[own], df[own], self.adjust, self.means)
        half = torch.from_numpy(reach) * error
        low, high = (self.value - half, self.value + half) if self.ends is None else self.ends.unbind(1)
        value = self.value
        if self.back is not None:
            error = error * _slope(self.back, value)
            value, low, high = self.back(value), self.back(low), self.back(high)
            low, high = torch.minimum(low, high), torch.maximum(low, high)
        numbers = dict(
            zip(
                NUMBERS,
                (value.numpy(), error.numpy(), statistic, df, p, low.numpy(), high.numpy()),
                strict=True,
            )
        )
        return self.labels.reset_index(drop=True).assign(**numbers)

    def _families(self) -> list[np.ndarray]:
        if self.families is None:
            return [np.arange(len(self.value))]
        return [np.flatnonzero(self.families == f) for f in np.unique(self.families)]

    def combined(self, M: Tensor, labels: pd.DataFrame, title: str, **changes: object) -> Estimates:
        """M a, with M of (r, m)."""
        M = M.to(torch.float64)
        out = replace(
            self, labels=labels, value=M @ self.value, G=M @ self.G, title=title, null=0.0, ends=None
        )
        return replace(out, **changes)  # type: ignore[arg-type]

    def test(self, hypothesis: str | Sequence[str] | np.ndarray, adjust: str | None) -> Estimates:
        """Linear combinations and their tests.

        Parameters
        ----------
        hypothesis
            "b1 = b2", "b1 - 2*b3 = 1", a list of such; one of `PAIRS`; or a matrix, (m,) or (r, m)

        Raises
        ------
        BadArgument
            what cannot be read, or a matrix of another width
        """
        check(adjust)
        m = len(self.value)
        if isinstance(hypothesis, str) and hypothesis in PAIRS:
            return self.pairs(hypothesis, adjust)
        if adjust == "tukey":
            raise BadArgument(
                "adjust='tukey' is of all pairwise differences. Accepted: 'holm', 'bonferroni', 'sidak', None."
            )
        if not isinstance(hypothesis, str) and not _texts(hypothesis):
            M = np.atleast_2d(np.asarray(hypothesis, dtype=np.float64))
            if M.ndim != 2 or M.shape[1] != m:
                raise BadArgument(
                    f"the hypothesis is a matrix of shape {np.shape(hypothesis)}. Accepted: a column for each of "
                    f"the {m} estimates, or a text such as 'b1 = b2'."
                )
            labels = pd.DataFrame({"hypothesis": [f"row {i + 1}" for i in range(len(M))]})
            title = f"Linear combinations{self._scale}"
            return self.combined(torch.from_numpy(M), labels, title, adjust=adjust, back=None, means=1)
        asked = [hypothesis] if isinstance(hypothesis, str) else list(hypothesis)
        found = [self._restriction(text) for text in asked]
        R, r = (torch.from_numpy(np.concatenate([f[i] for f in found])) for i in (0, 1))
        texts = [t for f in found for t in f[2]]
        out = self.combined(
            R,
            pd.DataFrame({"hypothesis": texts}),
            f"Hypotheses{self._scale}",
            adjust=adjust,
            back=None,
            means=1,
        )
        return replace(out, value=out.value - r)

    @property
    def _scale(self) -> str:
        return "" if self.back is None else ", before the estimates are mapped back"

    def _restriction(self, text: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
        m = len(self.value)
        numbers = [f"b{i + 1}" for i in range(m)]
        names = self.names if len(set(self.names)) == m and not set(self.names) & set(numbers) else []
        parsed = parse(text, [*numbers, *names])
        R = parsed.R[:, :m] + (parsed.R[:, m:] if names else 0.0)
        return (
            R,
            parsed.r,
            [text.strip()] if len(R) == 1 else [f"{text.strip()} ({i + 1})" for i in range(len(R))],
        )

    def pairs(self, kind: str, adjust: str | None) -> Estimates:
        """Differences: "pairwise" (each with each later one, first − second), "reference" (others − the first),
        "sequential" (each − the one before)."""
        if len(self.value) < 2:
            raise BadArgument("there is one estimate, and a difference is of two.")
        if adjust == "tukey" and kind != "pairwise":
            adjust = "sidak"
        m = len(self.value)
        count = m * (m - 1) // 2 if kind == "pairwise" else m - 1
        if count * m > CELLS:
            raise BadArgument(f"{m:,} estimates have {count:,} differences: too many. Average them, by=.")
        M, first, second = differences(m, kind)
        names = self.names
        labels = pd.DataFrame(
            {"contrast": [f"{names[i]} - {names[j]}" for i, j in zip(first, second, strict=True)]}
        )
        adjust = adjust if len(M) > 1 else None
        return self.combined(
            M, labels, f"Differences{self._scale}", back=None, adjust=adjust, means=len(self.value)
        )

    def covariance(self) -> Tensor:
        """G V Gᵀ, (m, m).

        Raises
        ------
        BadArgument
            too many estimates for such a matrix
        """
        if len(self.value) > LARGEST:
            raise BadArgument(
                f"the covariance of {len(self.value):,} estimates is a matrix that does not fit ({LARGEST:,} are "
                "accepted). Average them, by=."
            )
        return self.V.of(self.G)

    def joint(self) -> Test:
        """Wald's test that all are equal to their null; of estimates that are sums of others (all pairs of means), of as many
        as are independent."""
        miss, V = self.value - self.null, self.covariance()
        own = independent(miss, V)
        return wald(
            "all are equal to " + (f"{self.null:g}" if self.null else "0"),
            miss[own],
            V[own][:, own],
            float(self.V.freedom(self.G).min()),
        )


def independent(miss: Tensor, V: Tensor) -> list[int]:
    """Which estimates, of covariance V, the others follow from: all of them, unless the others do.

    Examples
    --------
    >>> V = torch.tensor([[2.0, 1.0, -1.0], [1.0, 2.0, 1.0], [-1.0, 1.0, 2.0]])  # a − b, a − c, b − c
    >>> independent(torch.tensor([1.0, 3.0, 2.0]), V), independent(torch.tensor([1.0, 3.0, 0.0]), V)
    ([0, 1], [0, 1, 2])
    """
    kept: list[int] = []
    for i in range(len(V)):
        if not kept:
            kept = [i] if float(V[i, i]) > 0 else kept
            continue
        share = torch.linalg.solve(V[kept][:, kept], V[kept, i])
        left = float(V[i, i] - V[kept, i] @ share)
        if left > 1e-10 * float(V[i, i]):
            kept.append(i)
        elif float((miss[i] - share @ miss[kept]).abs()) > 1e-6 * float(V[i, i]) ** 0.5:
            return list(range(len(V)))  # two that contradict each other: no test
    return kept or list(range(len(V)))


def differences(m: int, kind: str) -> tuple[Tensor, list[int], list[int]]:
    """The matrix of differences of m values, and which less which.

    Examples
    --------
    >>> differences(3, "sequential")[0].tolist()
    [[-1.0, 1.0, 0.0], [0.0, -1.0, 1.0]]
    """
    if kind == "pairwise":
        pairs = [(i, j) for i in range(m) for j in range(i + 1, m)]
    elif kind == "reference":
        pairs = [(i, 0) for i in range(1, m)]
    elif kind == "sequential":
        pairs = [(i + 1, i) for i in range(m - 1)]
    else:
        raise BadArgument(f"{kind!r} is not known. Accepted: {', '.join(map(repr, PAIRS))}.")
    M = torch.zeros(len(pairs), m, dtype=torch.float64)
    for row, (i, j) in enumerate(pairs):
        M[row, i], M[row, j] = 1.0, -1.0
    return M, [i for i, _ in pairs], [j for _, j in pairs]


def _texts(hypothesis: object) -> bool:
    return isinstance(hypothesis, (list, tuple)) and all(isinstance(t, str) for t in hypothesis)


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) and math.isfinite(value) else str(value)


def _slope(back: Back, value: Tensor) -> Tensor:
    with torch.enable_grad():
        leaf = value.detach().clone().requires_grad_()
        return torch.autograd.grad(back(leaf).sum(), leaf)[0].abs()
