"""Takes the pictures of the first page: docs/report.png and docs/tour.svg.

python scripts/screens.py [--chromium /usr/bin/chromium]

The report is that of the ships, in headless Chromium; the tour is a few of its systems, run by its quick settings, in
a terminal of 80 columns.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import tempfile
from pathlib import Path

from PIL import Image
from rich.console import Console

import thetahat as th
from thetahat import tour

ROOT = Path(__file__).parents[1]
SHIPS = "incidents ~ type + built + period + offset(log(service))"
SYSTEMS = ("Poisson, with an offset", "random effects", "GPT", "PPO, with a value function", "RLHF, by RLOO")
SIZE = (1100, 1110)  # pixels of the window; the report goes on below
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")


def report(chromium: str) -> None:
    """The top of the report of the ships; 64 colours keep the file small."""
    fit = th.fit(SHIPS, th.data.shipped("ships"), family="poisson")
    with tempfile.TemporaryDirectory() as folder:
        page, shot = Path(folder) / "report.html", Path(folder) / "report.png"
        fit.report(page)
        size = f"--window-size={SIZE[0]},{SIZE[1]}"
        command = [chromium, *FLAGS, size, f"--screenshot={shot}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        Image.open(shot).convert("RGB").quantize(64).save(ROOT / "docs" / "report.png", optimize=True)


def terminal() -> None:
    """Some systems of `thetahat tour --quick`, as a terminal of 80 columns shows them."""
    console = Console(record=True, width=80, file=io.StringIO())
    console.print(tour.render(tour.SYSTEMS[name](True) for name in SYSTEMS))
    console.save_svg(str(ROOT / "docs" / "tour.svg"), title="thetahat tour --quick")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chromium", default="chromium")
    report(parser.parse_args().chromium)
    terminal()
