"""Generalised variance inflation factors.

    GVIF_T = det R_T · det R_rest / det R,      R the correlation of the estimates (the intercept left out)

how much larger the confidence ellipsoid of a term's coefficients is, squared, than with columns orthogonal to the others'. Of
one column it is 1/(1 − R²_j); GVIF^(1/2q), q the coefficients, compares terms of different size with √VIF.

References
----------
Fox and Monette (1992), Generalized collinearity diagnostics, J. Amer. Statist. Assoc. 87 (R's car::vif).
"""

from __future__ import annotations

import pandas as pd
import torch

from ..errors import BadArgument
from ..likelihood import Objective
from .covariance import Covariance
from .terms import model_terms


def vif(objective: Objective, covariance: Covariance, parameter: str | None = None) -> pd.DataFrame:
    """A row a term: gvif, degrees_of_freedom, and gvif^(1/2df).

    Parameters
    ----------
    objective
        at θ̂
    covariance
        V of θ̂
    parameter
        of the family, whose terms they are; None: its first

    Raises
    ------
    BadArgument
        fewer than two terms

    Examples
    --------
    >>> import thetahat as th
    >>> fit = th.fit("loss ~ air_flow + water_temperature + acid", th.data.shipped("stackloss"))
    >>> fit.vif()["gvif"].round(4).to_dict()
    {'air_flow': 2.9065, 'water_temperature': 2.5726, 'acid': 1.3336}
    """
    terms = model_terms(objective, parameter, "vif")
    if len(terms) < 2:
        raise BadArgument(
            f"vif says what terms lose by one another, and the formula has {len(terms)}. Two or more are needed."
        )
    places = [i for term in terms for i in term.places]
    G = torch.zeros(len(places), objective.size, dtype=torch.float64)
    G[torch.arange(len(places)), places] = 1.0
    V = covariance.of(G)
    scale = V.diagonal().sqrt()
    R = V / scale[:, None] / scale
    rows, start, whole = [], 0, torch.linalg.slogdet(R).logabsdet
    for term in terms:
        own = torch.zeros(len(places), dtype=torch.bool)
        own[start : start + len(term.places)] = True
        start += len(term.places)
        parts = [torch.linalg.slogdet(R[at][:, at]).logabsdet for at in (own, ~own)]
        gvif, df = float(torch.exp(parts[0] + parts[1] - whole)), len(term.places)
        rows.append({"gvif": gvif, "degrees_of_freedom": df, "gvif^(1/2df)": gvif ** (1 / (2 * df))})
    return pd.DataFrame(rows, index=pd.Index([t.name for t in terms], name="term"))
