"""The command, called in the folder of the file of tests (its fixture `folder`)."""

from __future__ import annotations

import pytest

from thetahat import cli


@pytest.fixture
def run(folder, monkeypatch, capsys):
    """thetahat words → (exit code, stdout, stderr), in the folder, in a terminal of 80 columns."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "80")

    def call(*words):
        capsys.readouterr()
        code = cli.main([str(w) for w in words])
        out, err = capsys.readouterr()
        return code, out, err

    return call
