"""New data, encoded as a fit remembers: the levels of its categories, the constants of its transforms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import Tensor

from ..data import Batch, Source
from ..data.selection import Alignment
from ..errors import BadArgument
from ..models import Regression
from ..models.base import family_of
from ..models.given import WEIGHTS
from ..models.inputs import source_of
from ..protocols import Steers, encoder_of
from ..types import Data, ModelLike
from .outliers import alignment_of


def aligned(
    model: ModelLike, fitted: Source, data: Data, unseen: str = "raise", groups: bool = True
) -> tuple[Batch | Source, Alignment]:
    """New rows, or those that were fitted (None); and where they stand among those that were given."""
    if data is None:
        return fitted, alignment_of(fitted)
    encoder = encoder_of(model)
    if encoder is not None:
        from ..data.table import aligned_rows

        return aligned_rows(encoder, data, family_of(model), unseen=unseen, groups=groups)
    if unseen != "raise":
        raise BadArgument(f"unseen={unseen!r} is of a formula; the model is a {type(model).__name__}.")
    source = source_of(data, model, None)
    return source, alignment_of(source)


def source_like(model: ModelLike, data: Data) -> Source:
    """Other data with their response, as the model reads them."""
    if isinstance(model, Steers):
        raise BadArgument(
            "a mixed model answers this for the rows that were fitted alone: leave data= out. For new rows: fit.predict(data), and "
            "fit.score(data) for groups that were not fitted."
        )
    if isinstance(data, Source) or not isinstance(model, Regression):
        return source_of(data, model, None)
    from ..data.frame import Frame
    from ..data.table import Table

    if model.density and isinstance(data, (np.ndarray, Tensor, list)):  # as `fit` takes it
        data = {model.encoder.response.required[0]: data}
    # a score is of rows as they are, whatever they weighed in the fit
    encoder = replace(model.encoder, carried=())
    if encoder.weights == WEIGHTS:
        encoder = replace(encoder, weights=None)
    return Table(Frame(data), encoder, model.family)
