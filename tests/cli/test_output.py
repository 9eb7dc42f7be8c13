"""The command's streams: a disk that is full, a reader that has left, --json when the words are wrong;
each ends with a code and a sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from thetahat.cli import main

needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("data") / "a.csv"
    path.write_text("y,x\n1,2\n2,3\n2,5\n4,4\n")
    return str(path)


@needs_full
@pytest.mark.parametrize("words", [["fit"], ["fit", "--json"], ["--version"], ["--help"]], ids=" ".join)
def test_a_full_disk_under_stdout_is_said_on_stderr_with_exit_code_3(table, monkeypatch, capsys, words):
    if words[0] == "fit":
        words = ["fit", "y ~ x", table, *words[1:]]
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(words) == 3
        monkeypatch.undo()
    assert capsys.readouterr().err == "standard output: No space left on device.\n"


@needs_full
def test_a_full_disk_under_stderr_does_not_cost_the_answer(table, monkeypatch, capsys):
    for words, code, key in (
        (["fit", "y ~ x", table, "--json"], 0, "estimates"),
        (["fit", "y ~ z", table, "--json"], 3, "error"),
    ):
        full = Path("/dev/full").open("w")  # noqa: SIM115
        monkeypatch.setattr(sys, "stderr", full)
        assert main(words) == code
        monkeypatch.undo()
        with suppress(OSError):
            full.close()
        assert key in json.loads(capsys.readouterr().out)


def test_a_reader_that_has_left_ends_the_command_without_a_traceback(table):
    """stdout is a pipe whose other end is closed before the command writes: a process of its own, to its very
    end."""
    script = "import sys; from thetahat.cli import main; sys.exit(main())"
    reader, writer = os.pipe()
    os.close(reader)
    ran = subprocess.run(
        [sys.executable, "-c", script, "fit", "y ~ x", table],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    assert (ran.returncode, ran.stderr) == (141, "")


@pytest.mark.parametrize(
    "words",
    [
        ["fit", "y ~ x", "a.csv", "--nonsense"],
        ["fit", "y ~ x"],
        ["fit", "gpt", "a.txt", "--steps", "many"],
        ["fit", "y ~ x", "a.csv", "--missing", "maybe"],
        ["score"],
        ["nothing"],
    ],
)
def test_a_usage_error_with_json_is_one_json_document(words, capsys):
    assert main([*words, "--json"]) == 2
    out, err = capsys.readouterr()
    error = json.loads(out)["error"]
    assert error["type"] == "Usage"
    assert len(error["message"]) > 10
    assert err


@pytest.mark.parametrize(
    "words", [["fit", "y ~ x", "{long}.csv"], ["score", "{long}", "{d}"], ["report", "{long}", "{d}"]]
)
def test_a_name_that_is_too_long_is_a_sentence(table, capsys, words):
    assert main([word.format(long="n" * 300, d=table) for word in words]) in (2, 3)
    err = capsys.readouterr().err
    assert "too long" in err
    assert "Traceback" not in err
