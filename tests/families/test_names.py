"""Names of families: those of other software, settings in brackets, and what the messages list."""

from __future__ import annotations

import re

import pytest

from thetahat.errors import BadArgument
from thetahat.families import AsymmetricLaplace, Hurdle, NegativeBinomial
from thetahat.families.base import Family
from thetahat.families.other_names import OTHERS
from thetahat.families.registry import NONPARAMETRIC, get


@pytest.mark.parametrize(
    ("said", "ours"),
    [
        ("gaussian", "'normal'"),
        ("quasipoisson", "'poisson' with standard errors"),
        ("zinb", r"'zero_inflated\(negative_binomial\)'"),
        ("logit", "'bernoulli'"),
        ("Logistic regression", "'bernoulli'"),
        ("multinomial", "'categorical'"),
        ("quantile(0.9)", r"'asymmetric_laplace\(level=0.5\)'"),
        ("poison", "'poisson'"),
    ],
)
def test_a_name_of_other_software_is_answered_by_ours(said: str, ours: str) -> None:
    with pytest.raises(BadArgument, match=f"Nearest: {ours}"):
        get(said)


def test_every_name_that_is_suggested_is_a_family() -> None:
    for text in OTHERS.values():
        name = re.search("'(.*?)'", text.replace("link='probit'", ""))
        assert name is not None
        assert name[1] in NONPARAMETRIC or isinstance(get(name[1]), Family)


def test_the_list_of_families_holds_the_wrappers() -> None:
    with pytest.raises(BadArgument, match=r"zero_inflated\(…\), hurdle\(…\)"):
        get("nothing like it")


def test_settings_in_brackets_are_those_of_the_class() -> None:
    assert get("asymmetric_laplace(level=0.9)") == AsymmetricLaplace(level=0.9)
    assert get("hurdle(negative_binomial(link='log'))") == Hurdle(NegativeBinomial(link="log"))
    with pytest.raises(BadArgument, match=r"unexpected keyword argument 'q'.*link, level"):
        get("asymmetric_laplace(q=0.9)")
    with pytest.raises(BadArgument, match="cannot be read"):
        get("poisson(link=__import__('os'))")
