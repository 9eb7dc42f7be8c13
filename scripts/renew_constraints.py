"""Writes constraints.txt anew: the newest of everything in a fresh environment, torch as it is pinned.

python scripts/renew_constraints.py && make test docs
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
PINNED = ("torch",)  # its builds differ by platform: it is moved by hand
EXTRAS = "dev,docs,bench"


def main() -> None:
    """Install without the constraints, but for the pinned ones, and write what came, sorted, under the file's
    own heading."""
    path = ROOT / "constraints.txt"
    old = path.read_text(encoding="utf-8").splitlines()
    heading = [line for line in old if line.startswith("#")]
    pinned = [line for line in old if re.split("[=<>]", line)[0] in PINNED]
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        pip = [str(Path(folder) / ("Scripts" if sys.platform == "win32" else "bin") / "python"), "-m", "pip"]
        held = Path(folder) / "held.txt"
        held.write_text("\n".join(pinned) + "\n", encoding="utf-8")
        subprocess.run([*pip, "install", "--quiet", "-c", str(held), "-e", f"{ROOT}[{EXTRAS}]"], check=True)
        frozen = subprocess.run(
            [*pip, "freeze", "--exclude-editable"], check=True, capture_output=True, text=True
        ).stdout
    found = [
        line for line in frozen.splitlines() if re.split("[=<>]", line)[0] not in PINNED and " @ " not in line
    ]
    path.write_text("\n".join([*heading, *sorted([*found, *pinned], key=str.lower)]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
