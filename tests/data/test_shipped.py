"""The tables that come with the package are those of their sources."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

import thetahat as th
from thetahat.data.shipped import FOLDER, shipped

TABLES = sorted(path.stem for path in FOLDER.glob("*.csv"))
R = {
    "Intercept": -6.40590,
    "type[T.B]": -0.54334,
    "type[T.C]": -0.68740,
    "type[T.D]": -0.07596,
    "type[T.E]": 0.32558,
    "built[T.1965-69]": 0.69714,
    "built[T.1970-74]": 0.81843,
    "built[T.1975-79]": 0.45343,
    "period[T.1975-79]": 0.38447,
}


def test_the_ships_give_the_estimates_and_the_deviance_of_r() -> None:
    """R, MASS::ships: glm(incidents ~ type + factor(year) + factor(period) + offset(log(service)), poisson,
    subset = service > 0): the estimates above, residual deviance 38.69505 on 25 degrees of freedom (McCullagh
    and Nelder, 1989, §6.3.2: 38.7)."""
    fit = th.fit(
        "incidents ~ type + built + period + offset(log(service))", shipped("ships"), family="poisson"
    )
    assert fit.estimates.to_dict() == pytest.approx(R, abs=5e-6)
    y = torch.tensor(pd.read_csv(shipped("ships"))["incidents"], dtype=torch.float64)
    saturated = float(th.families.Poisson().log_prob(y, y).sum())
    assert 2 * (saturated - fit.log_likelihood) == pytest.approx(38.69505, abs=5e-6)
    assert len(y) - len(fit.estimates) == 25


@pytest.mark.parametrize("name", TABLES)
def test_the_readme_says_where_a_table_is_from(name: str) -> None:
    """Source, licence, and every column, in the file beside the tables; the docstring names it too."""
    section = (FOLDER / "README.md").read_text(encoding="utf-8").split(f"## {name}.csv")[1].split("\n## ")[0]
    assert "Source" in section
    for column in pd.read_csv(shipped(name)).columns:
        assert f"`{column}`" in section
    assert name in str(shipped.__doc__)


def test_an_unknown_table_is_refused_with_the_names_of_those_there_are() -> None:
    with pytest.raises(th.errors.BadArgument, match=r"'titanic' comes with the package\. There are: .*ships"):
        shipped("titanic")
