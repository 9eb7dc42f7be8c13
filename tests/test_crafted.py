"""Files that somebody else wrote: whatever their fields hold, `load` says which is wrong, or the fit answers;
nothing else is ever raised."""

from __future__ import annotations

import contextlib
import copy
import json
import random
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import thetahat as th
from thetahat.errors import BadSave, ThetahatError
from thetahat.io import archive

R = np.random.default_rng(0)
FRAME = {
    "y": R.normal(size=50),
    "n": R.poisson(2.0, 50),
    "x": R.uniform(1, 2, 50),
    "g": R.choice(list("abc"), 50),
    "w": R.integers(1, 4, 50).astype(float),
}


def fits() -> dict[str, Callable[[], th.Fit]]:
    normal = th.priors.Normal(2.0)
    network = th.models.Conditional(th.families.Normal(), th.networks.mlp(1, 4, 2))
    rows = {"x": torch.tensor(FRAME["x"])[:, None].float(), "y": torch.tensor(FRAME["y"]).float()}
    return {
        "regression": lambda: th.fit("y ~ bs(x, df=4) + g", FRAME, prior=normal),
        "counts": lambda: th.fit(
            "n ~ x * g + offset(log(x))", FRAME, "negative_binomial", weights="w", on_failure="return"
        ),
        "categories": lambda: th.fit("g ~ x", FRAME, "categorical"),
        "density": lambda: th.fit(th.families.get("student_t"), FRAME["y"]),
        "mixed": lambda: th.fit("n ~ x + (x || g) + (1 | w)", FRAME, "poisson", on_failure="return"),
        "smooth": lambda: th.fit("y ~ s(x, k=5) + (1 | w)", FRAME, reml=True, on_failure="return"),
        "network": lambda: th.fit(network, rows, solver=th.Stochastic(steps=3, held_out=0.2)),
    }


@pytest.fixture(scope="module", params=fits())
def saved(request, tmp_path_factory) -> Path:
    return fits()[request.param]().save(tmp_path_factory.mktemp("saved") / "a.thetahat")


JUNK: list[Any] = [
    *(
        None,
        True,
        -1,
        0,
        1,
        7,
        10**30,
        1e308,
        -0.5,
        "",
        "x",
        "y ~ x",
        "__import__('os').system('ls')",
        [],
        {},
        [[]],
        [None],
        [1, "a"],
    ),
    *(
        {"~": "float", "v": "nan"},
        {"~": "tuple", "v": []},
        {"~": "array", "dtype": "float64", "shape": [10**9], "v": []},
        {"~": "map"},
    ),
    *(
        {"~": "date", "v": "0000-00-00"},
        {"~": "interval", "v": [1, 0], "closed": "up"},
        {"~": "timestamp", "v": "9" * 40, "unit": "s"},
    ),
    *(
        "\x00",
        "é" * 300,
        [[1] * 50] * 50,
        {"family": "poisson"},
        {"family": "truncated", "settings": {"family": {"family": "truncated"}}},
    ),
    json.loads("[" * 300 + "]" * 300),
]


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Every place in a JSON value."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield from places(each, (*path, key))


def changed(
    content: dict[str, Any], tensors: dict[str, Any], rng: random.Random
) -> tuple[dict[str, Any], dict[str, Any]]:
    """One or two fields, or a tensor, replaced, dropped or added."""
    content, tensors = copy.deepcopy(content), dict(tensors)
    for _ in range(rng.choice([1, 1, 2])):
        if rng.random() < 0.25:
            name = rng.choice(sorted(tensors))
            t = tensors[name]
            how = rng.randrange(7)
            if how == 0:
                del tensors[name]
            elif how == 6:
                tensors["extra"] = torch.zeros(2)
            else:
                tensors[name] = [
                    t.reshape(-1)[: max(t.numel() - 1, 0)],
                    t.float(),
                    torch.full_like(t, -1),
                    t[None],
                    t.long(),
                ][how - 1]
            continue
        path = rng.choice(list(places(content)))
        inner: Any = content
        for key in path[:-1]:
            inner = inner[key]
        how = rng.randrange(4)
        if how == 0 and isinstance(inner, dict):
            del inner[path[-1]]
        elif how == 1 and isinstance(inner, dict):
            inner["unknown"] = rng.choice(JUNK)
        elif how == 2 and isinstance(inner[path[-1]], (int, float)) and not isinstance(inner[path[-1]], bool):
            inner[path[-1]] = rng.choice([0, -1, 10**9, inner[path[-1]] + 1, -inner[path[-1]]])
        else:
            inner[path[-1]] = copy.deepcopy(rng.choice(JUNK))
    return content, tensors


def asked(fit: th.Fit, folder: Path) -> None:
    """What a reader asks first; an error of the library is an answer."""
    new = {name: FRAME[name][:3] for name in ("x", "g", "w", "y", "n")}
    questions: list[Callable[[], Any]] = [
        lambda: repr(fit),
        lambda: str(fit.summary()),
        lambda: fit.summary()._repr_html_(),
        lambda: fit.estimates,
        lambda: fit.standard_errors(),
        lambda: fit.intervals(),
        lambda: fit.predict(new),
        lambda: fit.predict(new, level=0.9),
        lambda: fit.predict(new, level=0.9, groups="average"),
        lambda: fit.random_effects(),
        lambda: fit.smooths(),
        lambda: fit.curve("s(x)"),
        lambda: fit.sample(2, new),
        lambda: fit.score(new),
        lambda: fit.save(folder / "again.thetahat"),
    ]
    for question in questions:
        with contextlib.suppress(ThetahatError):
            question()


@pytest.mark.parametrize("seed", range(60))
def test_a_crafted_file_is_refused_by_name_or_its_fit_answers(saved, tmp_path, seed):
    """The checksum holds, as it does for whoever writes files on purpose; 420 files of seven kinds here,
    thousands in benchmarks/crafted.py."""
    content, tensors = archive.read(saved, "test")
    content, tensors = changed(content, tensors, random.Random(seed))
    path = tmp_path / "b.thetahat"
    archive.write(path, content, tensors, "test")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            fit = th.load(path)
        except BadSave:
            return
        asked(fit, tmp_path)


def test_damage_anywhere_is_found(saved, tmp_path):
    """200 random bytes, each changed alone."""
    raw, rng = saved.read_bytes(), random.Random(1)
    path = tmp_path / "b.thetahat"
    for _ in range(200):
        at = rng.randrange(len(raw))
        path.write_bytes(raw[:at] + bytes([raw[at] ^ rng.randrange(1, 256)]) + raw[at + 1 :])
        with pytest.raises(BadSave):
            th.load(path)
