"""All benchmarks by one command, and one table of what came out: benchmarks/results/record.md.

    benchmarks/run [--only NAME …] [--short] [--out FOLDER] [--data FOLDER] [--mnist FOLDER] [--text FILE]
                   [--preferences FOLDER] [--table FILE COLUMN] [--sb3 PYTHON] [--peers PYTHON] [--ngboost PYTHON]
    benchmarks/run --list

The peers: pip install -c constraints.txt -r benchmarks/peers.txt. A benchmark is left out, and named in the table, where
what it needs is not given: --data a folder with r/, nist/ and separation/; --mnist the four IDX files; the interpreters
those that have Stable-Baselines3, the packages of python_peers.py and NGBoost, where this one has not. (gpu.py, for a
machine with an accelerator, is run by itself.)

How busy the machine is is measured before each benchmark and stands beside it; where others use it, speed.py counts CPU
seconds. --short tries those that have a short form, on few rows, and writes into a folder of its own: its numbers say
nothing. A whole run replaces the pages of benchmarks/results, draws docs/benchmarks.svg and counts anew in README; look at
what changed with git diff. Rows that are lost, and benchmarks that fail, stay in the table.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from machine import QUIET, busy, load, machine

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "scripts"))


@dataclass(frozen=True)
class Benchmark:
    """A script, what it is called with, and how many minutes it may take.

    In the arguments {out} is the folder of results, and {data}, {mnist} … are what the command was given: a benchmark needs
    each of those that it names. `short`: the arguments of a try; None: there is none. `page`: the file that its output
    becomes, of a script that writes none itself.
    """

    arguments: str
    minutes: float
    short: str | None = None
    page: str = ""

    def needs(self, short: bool) -> list[str]:
        text = (self.short or "") if short else self.arguments
        return [name for name in GIVEN if f"{{{name}}}" in text]


GIVEN = {
    "data": "a folder with r/, nist/ and separation/",
    "mnist": "the folder of MNIST's files",
    "text": "Tiny Shakespeare",
    "preferences": "the folder of hh-rlhf",
    "table": "FILE COLUMN: a table of numbers, and what is predicted",
    "sb3": "the interpreter that has stable-baselines3",
    "peers": "the interpreter that has the packages of python_peers.py",
    "ngboost": "the interpreter that has ngboost",
}
BENCHMARKS = {
    # beside peers
    "speed": Benchmark("--results {out}/speed.md", 180, "--rows 2000 --repeats 1 --results {out}/speed.md"),
    "hmm": Benchmark("--results {out}/hmm.md", 20),
    "cox": Benchmark("--results {out}/cox.md", 30, "--rows 2000 --repeats 1 --results {out}/cox.md"),
    "mixed": Benchmark("--data {data}", 60, page="mixed.md"),
    "python_peers": Benchmark("--data {data} --peers {peers}", 120, page="python_peers.md"),
    "profiles": Benchmark("", 10),
    "policy": Benchmark(
        "--sb3 {sb3} --results {out}/policy.md",
        30,
        "--sb3 {sb3} --seeds 1 --peer-seeds 1 --results {out}/policy.md",
    ),
    "seeds": Benchmark("--sb3 {sb3} --python {python} --results {out}/seeds.md", 30),
    "trl_steps": Benchmark(
        "--layers 6 --results {out}/trl_steps.md",
        60,
        "--layers 1 --steps 2 --times 1 --only SFT --results {out}/trl_steps.md",
    ),
    "dpo_steps": Benchmark("{preferences} --results {out}/dpo_steps.md", 60),
    "vocabulary_memory": Benchmark("--results {out}/vocabulary_memory.md", 10),
    "smollm2": Benchmark("", 10, page="smollm2.md"),
    "distributional": Benchmark("{table} --ngboost {ngboost}", 60, page="distributional.md"),
    # beside a bare loop, a lower bound, or published figures
    "steps": Benchmark("9", 20, page="steps.md"),
    "diffusion_steps": Benchmark("7", 5, "1 2", page="diffusion_steps.md"),
    "exact_trace": Benchmark("7", 5, page="exact_trace.md"),
    "startup": Benchmark("", 2),
    "streaming": Benchmark("--rows 20000000", 30, "--rows 20000 --check", page="streaming.md"),
    "gpt": Benchmark("{text} --results {out}/gpt.md", 20),
    "classifier": Benchmark("{mnist}", 20, page="classifier.md"),
    "vae": Benchmark("{mnist} --results {out}/vae.md", 90),
    "pixels": Benchmark("{mnist}", 90, page="pixels.md"),
    "bits": Benchmark("{mnist} --results {out}/bits.md", 90),
    "zoo": Benchmark("--results {out}/zoo.md", 60),
    "minatar_ppo": Benchmark("--results {out}/minatar.md", 90),
    "scale_on_paper": Benchmark("", 10, page="scale_on_paper.md"),
    # whether the answers are right
    "accuracy": Benchmark("--data {data}", 10),
    "interval_coverage": Benchmark("--write", 30),
    "fuzz": Benchmark("--tables 500 --out {out}/fuzz.md", 60, "--tables 5 --out {out}/fuzz.md"),
    "killed": Benchmark("20", 120, page="killed.md"),
    "divergence": Benchmark("", 15, page="divergence.md"),
    "shift": Benchmark("", 15, page="shift.md"),
    "priors": Benchmark("--write", 30),
    # models beside one another
    "flow": Benchmark("--results {out}/flow.md", 30),
    "diffusion": Benchmark("--results {out}/diffusion.md", 30, "--quick --results {out}/diffusion.md"),
    "distributional_rl": Benchmark("--results {out}/distributional_rl.md", 60),
    "rlhf": Benchmark("--results {out}/rlhf.md", 30),
    "dpo": Benchmark("{preferences} --results {out}/dpo.md", 60),
    "reward": Benchmark("{preferences}", 60, page="reward.md"),
}


@dataclass
class Outcome:
    """How a benchmark ended, its minutes, and how many cores others used before it."""

    name: str
    ended: str
    minutes: float | None = None
    others: float | None = None


def call(name: str, options: argparse.Namespace, out: Path) -> list[str]:
    """The command line."""
    benchmark = BENCHMARKS[name]
    text = (benchmark.short or "") if options.short else benchmark.arguments
    places = {key: getattr(options, key) for key in GIVEN} | {"out": str(out), "python": sys.executable}
    words: list[str] = []
    for word in text.split():
        words += places["table"] if word == "{table}" else [word.format(**places)]
    return [sys.executable, str(HERE / f"{name}.py"), *words]


def left_out(name: str, options: argparse.Namespace) -> str:
    """Why it cannot be run; "": it can."""
    if options.short and BENCHMARKS[name].short is None:
        return "left out: it has no short form"
    missing = [f"--{n}" for n in BENCHMARKS[name].needs(options.short) if getattr(options, n) is None]
    return f"left out: needs {', '.join(missing)}" if missing else ""


def run(name: str, options: argparse.Namespace, out: Path) -> Outcome:
    """Run it in a process group of its own, which is ended whole at the limit; its output is shown and kept."""
    why = left_out(name, options)
    if why:
        return Outcome(name, why)
    others = busy()
    command = call(name, options, out)
    if name == "speed" and (others is None or others > QUIET):
        command.append("--cpu")
    print(f"\n== {name}: {load(others)}", flush=True)
    start, limit = time.monotonic(), 60 * BENCHMARKS[name].minutes
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
        try:
            text, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return Outcome(
                name, f"stopped at its limit of {BENCHMARKS[name].minutes:g} minutes", limit / 60, others
            )
        errors.seek(0)
        last = (errors.read().strip().splitlines() or [""])[-1]
    print(text, flush=True)
    minutes = (time.monotonic() - start) / 60
    if process.returncode:
        return Outcome(name, f"failed: {last or process.returncode}".replace("|", "/"), minutes, others)
    if BENCHMARKS[name].page:
        title = f"# {name}\n\n{machine()} {load(others)}\n\n"
        (out / BENCHMARKS[name].page).write_text(title + text, encoding="utf-8")
    return Outcome(name, "done", minutes, others)


def record(outcomes: list[Outcome], out: Path, short: bool = False) -> str:
    """The page: every ratio to a peer in the results, those against us included; what failed; what was run, by this call or by one
    before."""
    from benchmark_chart import counts, ratios, tables

    found = ratios(out)
    packages = ", ".join(f"{p} {version(p)}" for p in ("thetahat", "torch", "numpy"))
    lines = [
        "# The record", "", *["**A try, on few rows: its numbers say nothing.**", ""] * short,
        f"`benchmarks/run`. {machine()} Python {platform.python_version()}, {packages}.",
        "Peers' versions: `benchmarks/peers.txt`, and beside each figure in the pages named below.", "",
        f"Our seconds over the peer's, {counts(found)[0]}; {counts(found)[1]}.", "",
        "| work | peer | ours / theirs | faster | page |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for row in found.itertuples():
        faster = "ours" if row.ratio <= 1 else "**the peer**"
        lines.append(f"| {row.work} | {row.peer} | {row.ratio:.3g} | {faster} | {row.file} |")
    failed = [r for r in tables("speed.md", out) if r.get("seconds", "").startswith("failed")]
    if failed:
        lines += ["", "Without a result, in speed.md:", "", "| work | who | |", "|---|---|---|"]
        lines += [f"| {r['work']} | {r['who']} | {r['seconds'][:160]} |" for r in failed]
    lines += [
        "", "What was run, and how many cores other processes used just before:", "",
        "| benchmark | ended | minutes | cores of others |", "|---|---|---|---|",
    ]  # fmt: skip
    new = {each.name: each for each in outcomes}
    old = {
        row["benchmark"]: row for row in tables("record.md", out) if "benchmark" in row
    }  # of a call before
    for name in BENCHMARKS:
        if name in new:
            minutes, others = ("" if x is None else f"{x:.1f}" for x in (new[name].minutes, new[name].others))
            lines.append(f"| {name} | {new[name].ended} | {minutes} | {others} |")
        elif name in old:
            lines.append("| " + " | ".join(old[name].values()) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(BENCHMARKS), metavar="NAME")
    parser.add_argument("--short", action="store_true", help="a try, on few rows")
    parser.add_argument("--list", action="store_true", help="the benchmarks, their limits and what they need")
    parser.add_argument("--out", type=Path, help="the folder of results, if not benchmarks/results")
    for name, what in GIVEN.items():
        parser.add_argument(f"--{name}", help=what, nargs=2 if name == "table" else None)
    options = parser.parse_args()
    if options.list:
        for name, b in BENCHMARKS.items():
            needs = " ".join(f"--{n}" for n in b.needs(False))
            print(
                f"{name:20s} at most {b.minutes:4g} minutes  {'short' if b.short is not None else '     '}  {needs}"
            )
        return 0
    results = HERE / "results"
    if options.short and options.out is None:
        options.out = Path(tempfile.mkdtemp(prefix="thetahat-benchmarks-"))
    out = (options.out or results).absolute()
    out.mkdir(parents=True, exist_ok=True)
    print(machine())
    outcomes = [run(name, options, out) for name in options.only or BENCHMARKS]
    page = record(outcomes, out, options.short)
    (out / "record.md").write_text(page, encoding="utf-8")
    if out == results.absolute():
        subprocess.run([sys.executable, str(HERE.parent / "scripts" / "benchmark_chart.py")], check=True)
    print(f"\n{page}\nwritten to {out / 'record.md'}")
    return int(any(each.ended.startswith(("failed", "stopped")) for each in outcomes))


if __name__ == "__main__":
    sys.exit(main())
