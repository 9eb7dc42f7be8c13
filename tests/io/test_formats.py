"""A file that an earlier release wrote is read by every later one: one of each kind is kept in `formats/`,
KIND.VERSION.thetahat."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import thetahat as th
from thetahat.io.archive import VERSION

FORMATS = Path(__file__).parent / "formats"
FILES = sorted(FORMATS.glob("*.thetahat"))
NETWORK = [-0.42351627349853516, -0.23846998810768127]  # its outputs at x = 0.5 and 2.5
KNOWN = {  # as they were printed when the files were written
    "table": (
        -7.528151552659249,
        "certified maximum",
        [-1.1680915842633333, 0.6172251585015588, 0.3239770133172634],
    ),
    "mixture": (-0.4878107472922678, "certified maximum", [0.0, 0.15000000000000002, -2.191013317336941]),
    "mixed": (
        -101.70210117514927,
        "certified maximum",
        [0.4875622881160183, -0.25474492647849156, 0.5093678071149972],
    ),
    "smooth": (
        -66.81925306028296,
        "boundary",
        [2.0265, 1.6501989755748636, -0.41760258959395624],
    ),
    "ratings": (-10.14367220919022, "certified maximum", [-0.8932908869512458, -1.5188533952670191]),
}
PREDICTED = {  # of known groups
    "mixed": [5.198332441097504, 1.7681900568488425],
    "smooth": [2.49444582186389, 2.9679591121219255],
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_of_every_version_is_read(path: Path) -> None:
    """The numbers are those that the library printed when it wrote the file."""
    kind = path.name.split(".")[0]
    fit = th.load(path)
    if kind == "network":
        outputs = fit.model.network(torch.tensor([[0.5], [2.5]]))
        np.testing.assert_allclose(outputs.detach().numpy().ravel(), NETWORK, rtol=1e-6)
        return
    value, status, theta = KNOWN[kind]
    assert (fit.log_likelihood, fit.certificate.status) == (value, status)
    assert fit.theta.tolist()[:3] == theta
    if kind in PREDICTED:
        new = {"x": [0.2, 0.7], "g": ["b", "e"], "h": [1, 3]}
        np.testing.assert_allclose(fit.predict(new), PREDICTED[kind], rtol=1e-12)


def test_every_kind_of_file_of_this_version_is_kept() -> None:
    assert {f"{kind}.{VERSION}" for kind in [*KNOWN, "network"]} <= {path.stem for path in FILES}


def test_a_saved_fit_may_be_read_by_whom_any_new_file_may_be_read(tmp_path: Path) -> None:
    """The mode of a file that Python itself opens: the umask decides."""
    (tmp_path / "plain").touch()
    saved = th.fit("y ~ 1", {"y": [1.0, 2.0, 4.0]}).save(tmp_path / "a.thetahat")
    assert saved.stat().st_mode == (tmp_path / "plain").stat().st_mode
