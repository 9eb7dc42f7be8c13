"""What `import thetahat` loads. Times are benchmarks' business: here stands only what must not be loaded for
nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import thetahat

HEAVY = """pandas pyarrow narwhals formulaic scipy rich tyro altair vl_convert jinja2 safetensors
           sklearn statsmodels gymnasium polars matplotlib zuko transformers torch._dynamo torch._inductor""".split()


def _loaded_after(code: str) -> set[str]:
    """The modules that a fresh interpreter has after running code."""
    out = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys, json\nprint(json.dumps(list(sys.modules)))"],
        capture_output=True,
    )
    assert out.returncode == 0, out.stderr.decode()
    return set(json.loads(out.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    return _loaded_after("import thetahat as th; th.fit, th.models, th.solvers, th.families")


@pytest.mark.parametrize("name", HEAVY)
def test_importing_thetahat_does_not_load(name: str, loaded: set[str]) -> None:
    """`import torch` itself is the measure: what it does not need, `import thetahat` does not load."""
    assert name not in loaded


def test_the_modules_watched_are_the_ones_that_are_used_later() -> None:
    """A fit of a table does load what the import did not: the list above watches names that exist."""
    loaded = _loaded_after(
        "import thetahat as th; th.fit('y ~ x', {'y': [0.9, 2.1, 2.9, 4.2], 'x': [0.0, 1.0, 2.0, 3.0]})"
    )
    assert {"pandas", "formulaic", "scipy"} <= loaded
    assert not {"sklearn", "gymnasium", "altair", "polars"} & loaded


@pytest.mark.parametrize("name", thetahat.__all__)
def test_every_public_name_can_be_had(name: str) -> None:
    assert getattr(thetahat, name) is not None


def test_importing_thetahat_or_reading_arguments_does_not_load_torch() -> None:
    """A name is loaded when it is asked for: `thetahat --help` answers without torch."""
    assert "torch" not in _loaded_after("import thetahat")
    for words in (["--help"], ["fit", "--help"], ["fit", "gpt", "--help"], ["--version"]):
        code = f"import contextlib, io\nfrom thetahat.cli import main\nwith contextlib.redirect_stdout(io.StringIO()):\n    main({words!r})"
        assert not {"torch", "pandas", "scipy"} & _loaded_after(code), words


def test_fit_is_the_function_whatever_is_imported() -> None:
    import thetahat.fitting

    assert thetahat.fit is thetahat.fitting.fit


def test_an_unknown_name_is_refused_by_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'fits'"):
        _ = thetahat.fits  # type: ignore[attr-defined]
