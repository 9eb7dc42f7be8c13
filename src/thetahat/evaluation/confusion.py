"""Confusion: how often each category was taken for each.

C_ab = Σ_i c_i 1[y_i = a] 1[argmax_k p(k | x_i) = b]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from ..errors import BadArgument
from ..models import Conditional, Regression
from ..protocols import Categories
from ..types import Data, ModelLike
from .fitted_values import batches, family_for, levels_of, parameters_of, response_of

if TYPE_CHECKING:
    from ..result import Fit


def classifies(model: ModelLike) -> bool:
    """Whether the model gives each row the probabilities of categories, or of 0 and 1."""
    if not isinstance(model, (Conditional, Regression)):
        return False
    return isinstance(model.family, Categories) or model.family.support.binary


def confusion(fit: Fit, data: Data = None) -> pd.DataFrame:
    """Counts of observations by their category (rows) and by the most probable one (columns); of a binary response the
    one of probability over ½.

    Parameters
    ----------
    data
        what `fit.predict` takes; None: the data that were fitted, which flatters

    Returns
    -------
    pandas.DataFrame
        (K, K); its attribute `attrs["accuracy"]` is the share on the diagonal

    Raises
    ------
    BadArgument
        the response is not a category

    Examples
    --------
    >>> import thetahat as th
    >>> rows = {"y": ["a", "a", "b", "b", "a", "b"], "x": [0.0, 1.0, 2.0, 3.0, 2.5, 0.5]}
    >>> confusion(th.fit("y ~ x", rows, family="categorical")).to_numpy().tolist()
    [[2, 1], [1, 2]]
    """
    from .new_data import aligned

    model = fit.model
    family = family_for(model, "a confusion matrix")
    if not classifies(model):
        raise BadArgument(f"the response of {family} is not a category: it has no confusion matrix.")
    rows = fit.source if data is None else aligned(model, fit.source, data)[0]
    truth, guess, count = [], [], []
    with torch.no_grad():
        for batch in batches(rows, model):
            parameters = parameters_of(model, batch)
            if isinstance(family, Categories):
                most = family.probabilities(*parameters).argmax(-1)
            else:
                most = (family.expectation(*parameters) > 0.5).long()
            guess.append(most.cpu())
            truth.append(response_of(model, batch).long().cpu())
            count.append(batch.count.double().cpu())
    a, b, c = torch.cat(truth).numpy(), torch.cat(guess).numpy(), torch.cat(count).numpy()
    names = list(levels_of(model) or range(int(max(a.max(), b.max())) + 1))
    table = np.zeros((len(names), len(names)))
    np.add.at(table, (a, b), c)
    whole = table if (table != np.round(table)).any() else table.astype(np.int64)
    out = pd.DataFrame(
        whole, index=pd.Index(names, name="category"), columns=pd.Index(names, name="most probable")
    )
    out.attrs["accuracy"] = float(np.trace(table) / table.sum())
    return out
