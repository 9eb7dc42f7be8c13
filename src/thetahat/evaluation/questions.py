"""What evaluation can be asked of a fit: scores of other data, predictions, draws, residuals, calibration,
outliers. Each is computed when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..data import Batch, Source
from ..errors import BadArgument
from ..inference.questions import Inference
from ..models import Regression
from ..models.base import family_of
from ..models.given import source_of
from ..protocols import Draws, Tightened, encoder_of
from ..types import Data

if TYPE_CHECKING:
    import pandas as pd

    from ..data.selection import Alignment
    from .calibration_error import CalibrationError
    from .excess import Excess
    from .score import Score
    from .surprise import Surprise


class Evaluation(Inference):
    """How good the fit is, and what it says of data."""

    def score(self, data: Data = None, *, samples: int | None = None, seed: int = 0) -> Score:
        """The log-likelihood of data (None: those fitted), with its kind, measure, units and fingerprint.

        Parameters
        ----------
        samples
            K, draws an observation of a model whose value is a bound; None: as many as in the fit. More are
            tighter
        seed
            of those draws: the same for two models gives them common ones
        """
        from . import score

        model = self.model
        if samples is not None:
            if not isinstance(model, Tightened):
                raise BadArgument(
                    f"samples={samples}: the score of {type(model).__name__} is not made of draws."
                )
            model = model.tightened(samples)
        generator = torch.Generator().manual_seed(seed)
        return score.score(
            model, self.source if data is None else self._source_like(data), generator=generator
        )

    def surprise(
        self, new: Data, reference: Data, *, level: float = 0.1, samples: int | None = None, seed: int = 0
    ) -> Surprise:
        """Which new rows the fit finds surprising beside reference rows that it has not seen: conformal
        p-values, a test, flagged rows.

        Parameters
        ----------
        level
            the expected share of flags that are false
        samples, seed
            as of `score`
        """
        from . import surprise

        return surprise.surprise(self, reference, new, level=level, samples=samples, seed=seed)

    def excess(self) -> Excess:
        """KL(data ‖ fit), how far the fit is from the best possible, where the entropy of its data can be
        told; else why it cannot."""
        from . import excess

        return excess.excess(self.model, self.source)

    def compare(self, other: Inference, data: Data = None) -> Any:
        """Paired comparison with another fit on the same data; refused, with the reason, where it would be
        false."""
        from . import compare

        return compare.compare({"this": self, "other": other}, data)

    def predict(
        self,
        data: Data = None,
        what: str = "mean",
        *,
        level: float | None = None,
        kind: str = "confidence",
        covariance: str | None = None,
        by: str | Sequence[str] | None = None,
    ) -> np.ndarray | pd.Series | pd.DataFrame:
        """Predictions for new rows, or for those fitted: one for each row that was given, in its order, NaN
        where a value is missing.

        Of a pandas table a Series (or a data frame) with the table's index; else an array (or a data frame
        with row numbers). A row that the fit left out because its response is missing, or its weight 0, is
        NaN too.

        Parameters
        ----------
        what
            "mean", "linear" (the first parameter's η), "quantile" (at `level`), "probabilities", or a
            parameter's name
        level
            with it, a data frame with columns value, low, high; kind "confidence" (of the prediction),
            "prediction" (of a new y)
        """
        from . import predict

        plain = level is None or kind == "plug-in" or what == "quantile"
        V = None if plain else self._prepared(covariance, by)
        rows, alignment = self._aligned(data)
        found = predict.predict(self.objective, self.theta, rows, what, level=level, kind=kind, covariance=V)
        out: np.ndarray | pd.Series | pd.DataFrame = alignment(found)
        return out

    def sample(self, n: int | None = None, data: Data = None, *, seed: int = 0) -> np.ndarray:
        """Draws of y from the fitted model: n for each row of data (None: one each), shape (rows,) or (n,
        rows), NaN as in `predict`.

        Of a model without predictors that draws whole observations (images), n of them (None: one), (n, …).
        """
        from . import predict

        if isinstance(self.model, Draws):
            if data is not None:
                raise BadArgument(
                    f"{type(self.model).__name__} draws whole observations, and takes no data: sample(n)."
                )
            with torch.no_grad():
                return (
                    self.model.draw(1 if n is None else n, generator=torch.Generator().manual_seed(seed))
                    .cpu()
                    .numpy()
                )
        rows, alignment = self._aligned(data)
        drawn = predict.sample(self.model, rows, n, seed=seed)
        return alignment(drawn) if n is None else np.moveaxis(alignment(np.moveaxis(drawn, 1, 0)), 0, 1)

    def residuals(self, kind: str = "quantile", *, seed: int = 0) -> np.ndarray | pd.Series:
        """Of each row: "quantile" (randomised for counts; standard normal if the model is true), "response",
        "pearson", "deviance".

        One for each row that was given, in its order and with its index, as `predict` does: NaN where the fit
        left the row out.
        """
        from . import residuals
        from .outliers import alignment_of

        out: np.ndarray | pd.Series = alignment_of(self.source)(
            residuals.residuals(self.model, self.source, kind, seed=seed)
        )
        return out

    def calibration(
        self, data: Data = None, *, bins: int = 10, level: float = 0.95, at: float | None = None
    ) -> pd.DataFrame:
        """Predicted against observed means, in bins of equal numbers: columns predicted, observed, low, high,
        n. None: the data fitted.

        Parameters
        ----------
        at
            of censored times, P(T ≤ at) is predicted, and Kaplan and Meier's observed; None: at the median of
            the times of events
        """
        from . import calibration

        source = self.source if data is None else self._source_like(data)
        return calibration.calibration(self.model, source, bins=bins, level=level, at=at)

    def calibration_error(
        self,
        data: Data = None,
        *,
        of: str = "top",
        bins: int = 15,
        level: float = 0.95,
        draws: int = 999,
        seed: int = 0,
    ) -> CalibrationError:
        """How far a classifier's probabilities are from what happened, root mean square, with an interval.
        None: the data fitted.

        Parameters
        ----------
        of
            "top", the most probable category's probability; "classes", each category's
        """
        from . import calibration_error

        source = self.source if data is None else self._source_like(data)
        return calibration_error.calibration_error(
            self.model, source, of=of, bins=bins, level=level, draws=draws, seed=seed
        )

    def outliers(self, most: int | None = 10) -> pd.DataFrame:
        """The rows that the fit finds least probable, worst first: columns weight (in the fit), surprise
        (−log p, nats), observed, expected.

        Parameters
        ----------
        most
            how many; None: all rows
        """
        from . import outliers

        return outliers.outliers(self.objective, self.theta, most)

    @property
    def kept(self) -> np.ndarray:
        """The rows that a trimmed fit kept: their labels in the index of a pandas table, else their
        numbers from 0."""
        from . import outliers

        out: np.ndarray = self._cached("kept", lambda: outliers.kept(self.objective, self.theta)).copy()
        return out

    def influence(self) -> pd.DataFrame:
        """Of each row that was given: leverage, and Cook's distance; NaN where the fit left the row out."""
        if self.robust is not None:
            raise BadArgument(
                "leverage and Cook's distance are those of maximum likelihood. What each row weighs under "
                f"{self.robust}: fit.outliers(None)."
            )
        from . import residuals
        from .outliers import alignment_of

        out: pd.DataFrame = alignment_of(self.source)(residuals.influence(self.objective, self.theta))
        return out

    def effects(
        self,
        variables: Sequence[str] | None = None,
        *,
        covariance: str | None = None,
        by: str | Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """Average marginal effects on the mean: dE[y]/dx for numbers, differences from the reference for
        categories, with errors."""
        from . import effects

        return effects.effects(self.objective, self.theta, variables, kind=self._prepared(covariance, by))

    def _rows(self, data: Data) -> Batch | Source:
        """New rows, encoded as the fit remembers; or the fit's own."""
        return self._aligned(data)[0]

    def _aligned(self, data: Data) -> tuple[Batch | Source, Alignment]:
        """New rows, encoded as the fit remembers, or the fit's own; and where they stand among those that
        were given."""
        from .outliers import alignment_of

        if data is None:
            return self.source, alignment_of(self.source)
        encoder = encoder_of(self.model)
        if encoder is not None:
            from ..data.table import aligned_rows

            return aligned_rows(encoder, data, family_of(self.model))
        source = source_of(data, self.model, None)
        return source, alignment_of(source)

    def _source_like(self, data: Data) -> Source:
        """Other data, encoded as the fit remembers, response included."""
        if isinstance(data, Source) or not isinstance(self.model, Regression):
            return source_of(data, self.model, None)
        from ..data.frame import Frame
        from ..data.table import Table

        if self.model.density and isinstance(data, (np.ndarray, Tensor, list)):  # as `fit` takes it
            data = {self.model.encoder.response.required[0]: data}
        # a score is of rows as they are, whatever they weighed in the fit
        return Table(Frame(data), replace(self.model.encoder, carried=()), self.model.family)
