"""How far the probabilities that a classifier says are from how often it happens.

    δ_b = E[hit − p | bin b],      Δ² = Σ_b w_b δ_b²,      w_b = n_b / N

p is the probability said of the most probable category (or of each), hit whether it was the one, a bin holds
rows of nearly equal p, equally many. The mean d̄_b of a bin is off by chance, so that Σ w_b d̄_b² and Σ w_b
|d̄_b|, the expected calibration error, are too large, the more so the more bins there are, and never 0. What
chance adds to the squares is known, and is taken off:

    D = Σ_b w_b (d̄_b² − v_b),      v_b = s_b² / n_b,      E[D] = Δ²

References
----------
Kumar, Liang and Ma (2019), Verified uncertainty calibration, §4 (the debiased estimator; here v_b is the
variance of hit − p itself); Guo et al. (2017), On calibration of modern neural networks (top label); Nixon et
al. (2019), Measuring calibration in deep learning (equal-mass bins, by category).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse

from ..data.batch import Batch
from ..data.source import Source
from ..errors import BadArgument
from ..notebook import Printed
from ..printable import encoded
from ..protocols import Categories, Pairwise
from ..types import ModelLike
from .calibration import binned, check, seen
from .fitted_values import batches, family_for, mean_of, parameters_of, response_of

OF = ("top", "classes")
CELLS = 2**22  # resampled counts held at once
MANY = 50_000  # rows above which the sums of the bins are drawn from their normal limit
SPREAD = 100  # rows of a bin over which Σ d² must be spread for that


@dataclass(frozen=True)
class CalibrationError(Printed):
    """How far said probabilities are from what happened, root mean square, and between which values that
    lies.

    Parameters
    ----------
    value
        √max(D, 0), between 0 and 1: free of the upward bias of the plain one
    low, high
        the interval of Δ
    level
        of it
    squared
        D itself, without bias, and below 0 in about half of all samples if the calibration is perfect
    expected
        Σ_b w_b |d̄_b|, the expected calibration error as it is commonly told: too large by what chance adds
    of
        which probability
    bins
        how many there were, of all categories together
    """

    value: float
    low: float
    high: float
    level: float
    squared: float
    expected: float
    of: str
    bins: int

    @encoded
    def __str__(self) -> str:
        return (
            f"{self.value:.4f} ({100 * self.level:g}% interval {self.low:.4f} to {self.high:.4f}), root "
            f"mean square, of {self.of}, "
            f"{self.bins} bins; expected {self.expected:.4f} with its bias"
        )


def calibration_error(
    model: ModelLike,
    source: Batch | Source,
    *,
    of: str = "top",
    bins: int = 15,
    level: float = 0.95,
    draws: int = 999,
    seed: int = 0,
) -> CalibrationError:
    """The debiased root-mean-square calibration error, by bins of equal numbers.

    The interval inverts a test: a Δ is in it if D is between the quantiles of c + 2√c Σ w u e + Σ w (e² − v),
    c = Δ², u the direction of d̄ scaled to Σ w u² = 1, e the errors of the bins' means in rows drawn with
    replacement. Of more than 50,000 rows the sums of such draws come from their normal limit, where no bin's rest
    on a few rows. So its lower end is 0 wherever perfect calibration could have given D: in (1 + level)/2 of
    all samples, if the calibration is perfect.

    Parameters
    ----------
    model
        at θ̂, of a category or of {0, 1}; or of preferences, where a category is an outcome of the pair
        ("top" alone: which of the two is called first is arbitrary; of a pair with equal odds, half of each
        is what happened)
    source
        with the response
    of
        "top", the most probable category (of two, the second's probability); "classes", each category's,
        every category alike: Δ² is then the mean over categories
    bins
        of each category
    level, draws, seed
        of the interval

    Raises
    ------
    BadArgument
        the response is not a category

    References
    ----------
    Kumar, Liang and Ma (2019), Verified uncertainty calibration, §4.
    """
    check(bins, level)
    if of not in OF:
        raise BadArgument(f"of={of!r}. Accepted: {', '.join(map(repr, OF))}.")
    said, hit, count = (
        _judged(model, source, of) if isinstance(model, Pairwise) else _forecasts(model, source, of)
    )
    name = (
        "each category"
        if of == "classes"
        else "P(second category)"
        if said.shape[1] == 1
        else "the most probable category"
    )
    if of == "top" and said.shape[1] > 1:
        top = said.argmax(1, keepdims=True)
        said, hit = np.take_along_axis(said, top, 1), np.take_along_axis(hit, top, 1)
    codes, last = [], 0
    for j in range(said.shape[1]):
        codes.append(last + binned(said[:, j], count, bins))
        last = int(codes[-1].max()) + 1
    table = _Table(np.stack(codes, 1), hit - said, count)
    mean, v = table.moments(count[:, None])
    w, mean, v = table.weight, mean[:, 0], v[:, 0]
    D = float(w @ (mean**2 - v))
    size = float(np.sqrt(w @ mean**2))
    u = mean / size if size > 0 else np.ones_like(mean)
    slope, centre = [], []
    rng, n = np.random.default_rng(seed), round(float(count.sum()))
    for drawn, spread in table.resampled(rng, n, count, draws):
        error = drawn - mean[:, None]
        slope.append(2 * (w * u) @ error)
        centre.append(w @ (error**2 - spread))
    low, high = _inverted(D, np.concatenate(slope), np.concatenate(centre), level)
    return CalibrationError(
        float(np.sqrt(max(D, 0.0))), low, high, level, D, float(w @ np.abs(mean)), name, len(w)
    )


def _forecasts(
    model: ModelLike, source: Batch | Source, of: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Said probabilities and what happened, (n, K), and counts, (n,); of two categories the second alone, (n,
    1)."""
    family = family_for(model, "probabilities")
    parts = []
    for batch in batches(source, model):
        y = response_of(model, batch).numpy()
        if isinstance(family, Categories):
            p = family.probabilities(*parameters_of(model, batch)).double().numpy()
        elif family.support.binary and family.has("expectation"):
            mean = mean_of(model, batch).double().numpy()
            p = np.stack([1 - mean, mean], 1)
        else:
            raise BadArgument(
                f"{family} does not describe a category, so no probability of one is off. See `calibration`."
            )
        hit = (y[:, None] == np.arange(p.shape[1])).astype(np.float64)
        if p.shape[1] == 2:
            p, hit = p[:, 1:], hit[:, 1:]
        parts.append((p, hit, batch.count.double().numpy()))
    said, hit, count = (np.concatenate(each) for each in zip(*parts, strict=True))
    kept = seen(count)
    return said[kept], hit[kept], count[kept]


def _judged(model: Pairwise, source: Batch | Source, of: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same of pairs: winner, neither, loser, (n, 3)."""
    if of != "top":
        raise BadArgument(f"of={of!r}: the outcomes of a pair have no order of their own. Accepted: 'top'.")
    parts = []
    for batch in batches(source, model):
        p = model.probabilities(batch).double().numpy()
        tie = np.asarray(batch["tie"]) if "tie" in batch else np.zeros(len(p), dtype=bool)
        hit = np.stack([~tie, tie, np.zeros_like(tie)], 1).astype(np.float64)
        even = (p[:, 0] == p[:, 2]) & ~tie
        hit[even] = [0.5, 0.0, 0.5]
        parts.append((p, hit, batch.count.double().numpy()))
    said, hit, count = (np.concatenate(each) for each in zip(*parts, strict=True))
    kept = seen(count)
    return said[kept], hit[kept], count[kept]


class _Table:
    """Sums over the bins of hit − p and its square, for any counts of the rows.

    Parameters
    ----------
    codes
        (n, K), the bin of each row for each category, all bins numbered through
    difference
        (n, K), hit − p
    count
        (n,)
    """

    def __init__(self, codes: np.ndarray, difference: np.ndarray, count: np.ndarray):
        n, K = codes.shape
        M = int(codes.max()) + 1
        rows, columns = codes.T.reshape(-1), np.tile(np.arange(n), K)
        d = difference.T.reshape(-1)
        self.sums = [
            scipy.sparse.csr_array((x, (rows, columns)), shape=(M, n)) for x in (np.ones_like(d), d, d**2)
        ]
        self.weight = self.sums[0] @ count / (count.sum() * K)

    def moments(self, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """d̄_b and v_b, (M, R), of counts (n, R). A bin of one row has no variance; one of none is
        perfect."""
        return self._of_sums(*(s @ counts for s in self.sums))

    def resampled(
        self, rng: np.random.Generator, n: int, count: np.ndarray, draws: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """`moments` of n rows drawn with replacement, portion by portion, `draws` in all.

        The sums of the bins, s = A c with c multinomial(n, p), have mean n A p and covariance n (A diag(p) Aᵀ − A p pᵀ Aᵀ).
        Of many rows they are drawn from the normal of these moments, at the cost of one pass over the rows.
        """
        p = count / count.sum()
        if len(count) <= MANY or not self._spread_out(count):
            for many in _portions(draws, max(1, CELLS // len(count))):
                yield self.moments(rng.multinomial(n, p, size=many).T.astype(np.float64))
            return
        A = scipy.sparse.vstack(self.sums, format="csr")
        centre = A @ p
        covariance = n * ((A * p) @ A.T).toarray() - n * np.outer(centre, centre)
        size, turn = np.linalg.eigh(covariance)
        root = turn * np.sqrt(np.maximum(size, 0.0))
        for many in _portions(draws, max(1, CELLS // len(centre))):
            drawn = n * centre[:, None] + root @ rng.standard_normal((len(centre), many))
            yield self._of_sums(*np.split(drawn, 3))

    def _spread_out(self, count: np.ndarray) -> bool:
        """Whether in each bin Σ d² is of so many rows that sums of resampled rows are nearly normal: (Σ d²)² / Σ d⁴ is their
        number where all d are alike."""
        square = self.sums[2] @ count
        fourth = self.sums[2].power(2) @ count
        return bool((square**2 >= SPREAD * fourth).all())

    def _of_sums(self, n: np.ndarray, total: np.ndarray, square: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = total / np.maximum(n, 1)
        spread = np.maximum(square - n * mean**2, 0.0) / np.maximum(n - 1, 1)
        return mean, np.where(n > 1, spread / np.maximum(n, 1), 0.0)


def _inverted(D: float, slope: np.ndarray, centre: np.ndarray, level: float) -> tuple[float, float]:
    """The smallest and the largest Δ in [0, 1] of which D is no surprise, from a grid of Δ refined once."""

    def inside(delta: np.ndarray) -> np.ndarray:
        drawn = delta[:, None] ** 2 + delta[:, None] * slope + centre
        bounds = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=1)
        out: np.ndarray = (bounds[0] <= D) & (bounds[1] >= D)
        return out

    step = 1 / 400
    grid = np.linspace(0, 1, 401)
    found = grid[inside(grid)]
    if len(found) == 0:
        # narrower than a step, or below everything that chance gives at 0
        near = np.sqrt(max(D, 0.0))
        fine = np.linspace(max(near - step, 0), min(near + step, 1), 401)
        found = fine[inside(fine)]
        return (float(found.min()), float(found.max())) if len(found) else (float(near), float(near))
    ends = []
    for end, sign in ((found.min(), -1), (found.max(), 1)):
        fine = np.clip(end + sign * np.linspace(0, step, 51), 0, 1)
        good = fine[inside(fine)]
        ends.append(float(good.min() if sign < 0 else good.max()) if len(good) else float(end))
    return ends[0], ends[1]


def _portions(whole: int, most: int) -> list[int]:
    return [min(most, whole - at) for at in range(0, whole, most)]
