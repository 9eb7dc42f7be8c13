"""Families go to strict JSON and come back equal."""

import json
import math

import pytest

from thetahat import families as f
from thetahat.errors import BadArgument
from thetahat.families.base import Family
from thetahat.io.families import from_config, to_config

from ..families.examples import EXAMPLES

FAMILIES = [family for cases in EXAMPLES.values() for family, _, _ in cases]


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_every_family_survives_a_round_trip_through_strict_json(family):
    text = json.dumps(to_config(family), allow_nan=False)
    assert from_config(json.loads(text)) == family


@pytest.mark.parametrize("name", f.registry)
def test_every_registered_name_gives_a_family_that_can_be_saved(name):
    assert to_config(f.get(name))["family"] == name


def test_infinities_and_link_objects_are_kept():
    family = f.Censored(f.Truncated(f.Bernoulli(link=f.links.Scaled(0.1, math.inf)), low=0.0, high=math.inf))
    config = to_config(family)
    assert json.loads(json.dumps(config, allow_nan=False)) == config
    assert from_config(config) == family


class Unknown(Family):
    mean = f.Parameter()


def test_a_family_without_a_registered_name_cannot_be_saved_by_name():
    with pytest.raises(BadArgument, match="Unknown"):
        to_config(Unknown())
    with pytest.raises(BadArgument, match="link"):
        to_config(f.Normal(link=object()))


@pytest.mark.parametrize(
    "config",
    [
        {},
        [],
        {"family": "poisso"},
        {"family": ["poisson"]},
        {"family": "poisson", "settings": {"mean": 2.0}},
        {"family": "poisson", "settings": 3},
        {"family": "poisson", "other": 3},
        {"family": "truncated", "settings": {"low": 0.0}},
        {"family": "truncated", "settings": {"family": {"family": "normal"}, "low": {"number": "1e3"}}},
        {"family": "normal", "settings": {"link": {"link": "os.system"}}},
    ],
)
def test_what_was_never_saved_is_refused(config):
    with pytest.raises(BadArgument):
        from_config(config)
