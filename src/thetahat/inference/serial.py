"""Scores that are correlated over time: heteroskedasticity and autocorrelation consistent (HAC) covariances.

    K = Σ_{|l| ≤ L} (1 − |l|/(L + 1)) Σ_t u_t u_{t−l}ᵀ,      u_t = Σ_{i at time t} c_i w_i s_i

Bartlett's weights keep K positive semidefinite. With one row a time it is Newey and West's; with several, a panel's, Driscoll and
Kraay's, which allows any correlation of the rows of one time. The sandwich J⁻¹ K J⁻¹ has no further factor. L is given, "HAC:4", or
⌊4 (T/100)^{2/9}⌋ for T times.

References
----------
Newey and West (1987), A simple, positive semi-definite, heteroskedasticity and autocorrelation consistent covariance matrix,
Econometrica 55; Newey and West (1994) (the lag); Driscoll and Kraay (1998), Consistent covariance matrix estimation with spatially
dependent panel data, Rev. Econ. Stat. 80.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..errors import BadArgument
from ..likelihood import Information, Objective
from ..protocols import ScoresInOrder
from .cluster_scores import sharing, unit_scores
from .meat import codes_of, numbered


def lag_of(kind: str) -> int | None:
    """L of "HAC:4"; None of "HAC".

    Raises
    ------
    BadArgument
        what follows the colon is not a whole number

    Examples
    --------
    >>> lag_of("HAC:4"), lag_of("HAC")
    (4, None)
    """
    _, colon, lag = kind.partition(":")
    if colon and not lag.isdecimal():
        raise BadArgument(f"covariance {kind!r}: the lag is a whole number, such as 'HAC:4', or 'HAC' alone.")
    return int(lag) if colon else None


def automatic(T: int) -> int:
    """⌊4 (T/100)^{2/9}⌋."""
    return int(4 * (T / 100) ** (2 / 9))


def meat(objective: Objective, kind: str, times: np.ndarray | None = None) -> Information:
    """K of the sandwich.

    Parameters
    ----------
    kind
        "HAC", or "HAC:L"
    times
        one label a row, which numbers, dates or text order; None: the rows are in their order of time

    Raises
    ------
    BadArgument
        a lag that is not shorter than the series, or rows that are streamed in an order of their own
    """
    codes = order(objective, times)
    T = int(codes.max()) + 1
    lag = lag_of(kind)
    lag = automatic(T) if lag is None else lag
    if lag >= T:
        raise BadArgument(
            f"covariance {kind!r}: the lag is {lag}, and there are {T} times. Accepted: less than {T}."
        )
    U = torch.zeros(T, objective.size, dtype=torch.float64)
    for terms in sharing(objective):
        units = unit_scores(objective, terms)
        for start, batch in numbered(objective, terms[0]):
            U.index_add_(0, torch.from_numpy(codes[start : start + len(batch)]), units(batch))
    return Information(bartlett(U, lag))


def order(objective: Objective, times: np.ndarray | None) -> np.ndarray:
    """The number of each row's time, from 0, in the order of time."""
    if any(isinstance(t.scored, ScoresInOrder) for t in objective.terms):
        raise BadArgument(
            "covariance='HAC' needs rows in the order of a time of their own, and these are streamed in an order that their "
            "likelihood asks for. Accepted: 'HC0', 'HC1', 'cluster'."
        )
    if times is None:
        sizes = {terms[0].source.size for terms in sharing(objective)}
        if len(sizes) != 1 or None in sizes:
            raise BadArgument(
                "covariance='HAC' needs rows in the order of time: the terms have sources of other sizes."
            )
        return np.arange(sizes.pop() or 0)
    codes_of(objective, times)  # one label a row, none of them missing
    return np.asarray(pd.factorize(np.asarray(times).reshape(-1), sort=True)[0])


def bartlett(U: Tensor, lag: int) -> Tensor:
    """K of scores U, (T, p): the second moments of their moving sums over L + 1 times, zeros before and after them.

        K = 1/(L + 1) Σ_t m_t m_tᵀ,      m_t = Σ_{j = 0 … L} u_{t−j}

    A pair of times l apart is in L + 1 − l of those sums, so that these are Bartlett's weights; and K is positive semidefinite.

    Examples
    --------
    >>> bartlett(torch.ones(3, 1), 1).item()  # 3 + 2 · ½ · 2
    5.0
    """
    edge = U.new_zeros(lag, U.shape[1])
    sums = torch.cat([edge, U, edge]).unfold(0, lag + 1, 1).sum(-1)  # (T + L, p)
    return sums.T @ sums / (lag + 1)
