"""The commands' arguments, as dataclasses that tyro reads, and their help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, UseAppendAction, arg, subcommand

from ..types import Plain
from .common import Common, Covariance, Data, Device
from .own import HELP, Model, Own
from .systems import SYSTEMS, System

SavedFit = Annotated[Path, arg(metavar="FIT")]

CODES = """Exit codes:
  0  certified, done
  1  the likelihood has no maximum, or the solver did not converge
  2  bad usage, or a model that cannot be built as asked
  3  bad data, or a file that cannot be read
  4  scores that no subtraction can compare
 70  an error of thetahat itself: please report it
130  interrupted"""


@dataclass(frozen=True, kw_only=True)
class Fit(Common):
    formula: Positional[Annotated[str, arg(metavar="FORMULA")]]
    """response ~ predictors: "y ~ x + C(region) + offset(log(n))", "y ~ x + (x | group) + s(z)", "Surv(time, event) ~ x" (event 1: it happened)."""
    data: Positional[Data]
    """The rows: .csv, .csv.gz, .tsv or .parquet."""
    family: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="(default: normal)")] = None
    """Family of the response: poisson, bernoulli, negative_binomial, gamma, student_t, categorical …; of Surv(time, event): weibull, cox …"""
    set: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME=VALUE")] = ()
    """A further parameter: predictors (dispersion="~ age"), a number to hold it at (df=4), or an extra's column (trials=n)."""
    reml: bool = False
    """With random effects (1 | g) or smooth terms s(x): the restricted likelihood, fixed effects integrated out too."""
    quadrature: int = 1
    """With random effects of one grouping factor: nodes of adaptive Gauss-Hermite quadrature. 1: Laplace's approximation."""
    weights: Annotated[str | None, arg(metavar="COLUMN", help_behavior_hint="")] = None
    """Column of frequency weights."""
    prior: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="NAME:SCALE")] = ()
    """Prior on the slopes: normal:2.5 (ridge), laplace:1 (lasso), student_t:2.5:df=4; normal:1:on=x* is on the coefficients that match x*."""
    robust: Annotated[str | None, arg(metavar="NAME:VALUE", help_behavior_hint="")] = None
    """Robust fit, where some rows may come from another distribution: density_power:0.5, or trimmed:0.75 (the share of rows kept)."""
    missing: Literal["drop", "raise"] = "drop"
    """Rows with a missing value: dropped and counted, or an error."""
    on_failure: Literal["raise", "return"] = "raise"
    """Without a maximum: an error, or the fit as it stands with its certificate. The exit code is 1 in either case."""
    covariance: Covariance = "auto"
    """Kind of covariance for standard errors, intervals and tests. auto: the model's default; with --by, cluster-robust."""
    by: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="COLUMN")] = ()
    """Column whose values identify clusters, for cluster-robust standard errors; given twice, two-way."""
    level: float = 0.95
    """Confidence level of the intervals."""
    save: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """Write the fit, for score, compare, sample, report and th.load. No row of the data is in it."""
    report: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """Write an HTML report that opens offline."""


@dataclass(frozen=True, kw_only=True)
class Reward(Common):
    pairs: Positional[Annotated[Path, arg(metavar="PAIRS")]]
    """A table with columns winner, loser[, tie, first, count], or a .jsonl of chosen and rejected answers."""
    count: Annotated[str | None, arg(metavar="COLUMN", help_behavior_hint="")] = None
    """Column that says how often each row of a table was observed; without it "count", where there is one."""
    network: Annotated[Path | None, arg(metavar="FOLDER", help_behavior_hint="")] = None
    """A causal language model of transformers: the reward reads its hidden states; without it words and length."""
    context: int = 512
    """Tokens that the network sees; longer prompts lose their beginning."""
    words: int = 100
    """Number of frequent words that are features of the reward, without a network."""
    held_out: float = 0.2
    """Fraction of the prompts on which a reward of text is judged."""
    prior: Annotated[float | None, arg(metavar="SCALE", help_behavior_hint="")] = None
    """Scale of a normal prior. Without it: none on ratings; on a reward of text the scale under which held-out pairs are most probable."""
    level: float = 0.95
    """Confidence level of the intervals."""
    seed: int = 0
    """Seed of the choice of held-out prompts."""
    save: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """Write the fit."""
    report: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """Write an HTML report that opens offline."""


@dataclass(frozen=True, kw_only=True)
class Score(Common):
    fit: Positional[SavedFit]
    """A fit that fit --save wrote, the folder of a run, or a folder with a language model of transformers."""
    data: Positional[Data]
    """A table with the response and the predictors; for a run such data as it was fitted to; for a language model texts."""
    model: Model = None
    """Of a fit of a likelihood of your own: the file and the name of its model (thetahat fit --model)."""
    context: Annotated[
        int | None, arg(metavar="TOKENS", help_behavior_hint="(default: 1024, or what the model reads)")
    ] = None
    """Tokens of a window, of a language model of transformers."""
    labels: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """Classes of the images, for the run of a classifier or of a model of images with classes."""
    against: Annotated[Path | None, arg(metavar="REFERENCE", help_behavior_hint="")] = None
    """Reference rows, not used in the fit, known to be good: tells which rows of DATA are improbable beside them."""
    level: float = 0.1
    """With --against: the expected share of false flags, at most."""
    samples: Annotated[int | None, arg(metavar="K", help_behavior_hint="")] = None
    """Draws an observation, where the score is a bound made of them: more are tighter."""
    device: Device = "auto"
    """Where the model of a run is computed."""
    seed: int = 0
    """Seed of those draws."""


@dataclass(frozen=True, kw_only=True)
class Compare(Common):
    fits: Positional[
        Annotated[tuple[Path, ...], arg(metavar="FIT FIT [FIT ...]", help_behavior_hint="(required)")]
    ]
    """Two or more fits that fit --save wrote, folders of runs, or language models of transformers; two folders with lm-eval's samples."""
    data: Annotated[Path | None, arg(metavar="DATA", help_behavior_hint="")] = None
    """What they are scored on, best held out: a table, text or images. lm-eval's samples have their own."""
    model: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="FILE.py:NAME")] = ()
    """Of fits of likelihoods of your own: their models, in the order of the fits; one for all, or given once for each."""
    by: Annotated[str | None, arg(metavar="FIELD", help_behavior_hint="")] = None
    """A field of lm-eval's questions whose values are clusters, such as a passage that several ask about."""
    level: float = 0.95
    """Level of the intervals of lm-eval's tasks."""
    context: Annotated[int | None, arg(metavar="TOKENS", help_behavior_hint="")] = None
    """Tokens of a window, of a language model of transformers."""
    labels: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """Classes of the images, for runs of classifiers and of models of images with classes."""
    samples: Annotated[int | None, arg(metavar="K", help_behavior_hint="")] = None
    """Draws an observation, where a score is a bound made of them."""
    device: Device = "auto"
    """Where the models of runs are computed."""
    seed: int = 0
    """Seed of those draws."""


@dataclass(frozen=True, kw_only=True)
class Predict(Common):
    fit: Positional[SavedFit]
    """A fit that fit --save wrote, or the folder of a classifier's run."""
    data: Positional[Data]
    """Rows with the predictors; images, of a classifier's run."""
    model: Model = None
    """Of a fit of a likelihood of your own: the file and the name of its model (thetahat fit --model)."""
    what: str = "mean"
    """mean, linear (the linear predictor), quantile (at --level), probabilities, or a parameter's name."""
    level: Annotated[float | None, arg(metavar="LEVEL", help_behavior_hint="")] = None
    """Level of an interval (0.95), whose ends then are the columns low and high; of --what quantile, of the quantile."""
    interval: Literal["confidence", "prediction", "plug-in"] = "confidence"
    """With --level: of the mean (confidence), or of a new response (prediction; plug-in: as if the estimates were exact)."""
    device: Device = "auto"
    """Where the model of a run is computed."""
    out: Annotated[Path | None, arg(aliases=["-o"], metavar="FILE", help_behavior_hint="")] = None
    """A new .csv or .parquet, a row for each row of DATA; without it CSV on stdout."""


@dataclass(frozen=True, kw_only=True)
class Export(Common):
    fit: Positional[SavedFit]
    """The folder of a run, or a fit of a network that was saved."""
    out: Annotated[Path, arg(aliases=["-o"], metavar="FILE", help_behavior_hint="(required)")]
    """A new .safetensors file; without that ending a new folder, which transformers loads (adapters are merged)."""
    adapters: Annotated[bool, arg(help_behavior_hint="")] = False
    """Write the adapters alone, to a folder which peft loads."""


@dataclass(frozen=True, kw_only=True)
class Sample(Common):
    fit: Positional[SavedFit]
    """A fit that fit --save wrote, or the folder of a run."""
    data: Positional[Annotated[Path | None, arg(metavar="DATA", help_behavior_hint="")]] = None
    """Rows with the predictors; nothing for a run."""
    model: Model = None
    """Of a fit of a likelihood of your own: the file and the name of its model (thetahat fit --model)."""
    draws: Annotated[int, arg(aliases=["-n"])] = 1
    """Draws of the response a row; of a run so many images, rows, or texts."""
    prompt: Annotated[str, arg(metavar="TEXT")] = "\n"
    """Text that a language model continues."""
    max_new_tokens: int = 300
    """Tokens that a language model draws."""
    temperature: float = 1.0
    """Temperature of the draws: 1 draws from the model's distribution, 0 takes the most probable token."""
    label: Annotated[int | None, arg(metavar="CLASS", help_behavior_hint="(default: each in turn)")] = None
    """The class of the images, of a model that was fitted with --labels."""
    guidance: Annotated[float | None, arg(metavar="WEIGHT", help_behavior_hint="")] = None
    """How far the draws of such a diffusion are led towards the class; 1: not at all."""
    device: Device = "auto"
    """Where the model of a run is computed."""
    seed: int = 0
    """Seed of the draws: the same seed gives the same draws."""
    out: Annotated[Path | None, arg(aliases=["-o"], metavar="FILE", help_behavior_hint="")] = None
    """A new .csv or .parquet, a column a draw; without it CSV on stdout. Images need a .png or .npy; text may have a .txt."""


@dataclass(frozen=True, kw_only=True)
class Play(Common):
    runs: Positional[
        Annotated[tuple[Path, ...], arg(metavar="RUN [RUN ...]", help_behavior_hint="(required)")]
    ]
    """The folder of a policy's run; several, of one algorithm with several seeds."""
    against: Annotated[tuple[Path, ...], arg(metavar="RUN [RUN ...]", help_behavior_hint="")] = ()
    """Runs of another algorithm: tells how probable it is that a run of the first is better."""
    episodes: Annotated[int, arg(aliases=["-n"])] = 100
    """Whole episodes, each in an environment of its own."""
    device: Device = "auto"
    """Where the policy is computed."""
    seed: int = 0
    """Seed of the environments, and of the actions with --draw."""
    draw: Annotated[bool, arg(help_behavior_hint="")] = False
    """Draw actions from the policy; without it the most probable one is taken."""


@dataclass(frozen=True, kw_only=True)
class Report(Common):
    fit: Positional[SavedFit]
    """A fit that fit --save wrote. (A run has its report.html.)"""
    data: Positional[Data]
    """The rows that it was fitted to: other rows are refused."""
    model: Model = None
    """Of a fit of a likelihood of your own: the file and the name of its model (thetahat fit --model)."""
    out: Annotated[Path | None, arg(aliases=["-o"], metavar="FILE", help_behavior_hint="")] = None
    """The HTML file; without it the fit's name, ending in .html."""


@dataclass(frozen=True, kw_only=True)
class Tour(Common):
    quick: Annotated[bool, arg(help_behavior_hint="")] = False
    """Fewer steps for the systems that are trained by stochastic gradients."""
    html: Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")] = None
    """Write the table as HTML too."""


Command = Fit | Own | Reward | System | Score | Compare | Predict | Sample | Play | Export | Report | Tour

# name → (arguments, one line, more)
COMMANDS: dict[str, tuple[Plain, str, str]] = {
    "fit": (
        Fit,
        "Fit a model to the rows of a file, by maximum likelihood.",
        """Prints the estimates, their errors, the log-likelihood and the certificate.

Without a maximum it says why there is none, and exits with 1.

Networks, each with a --help of its own (thetahat fit gpt --help):
  gpt CORPUS                 a language model
  classifier IMAGES LABELS   a convolutional network
  vae IMAGES                 a variational autoencoder
  flow TABLE                 a normalising flow
  diffusion IMAGES           a diffusion model
  policy --env NAME          a policy, by PPO, A2C or REINFORCE
  align PAIRS                a language model's adapters, by DPO or RLHF

And ratings of items, or a reward model of text:
  reward PAIRS               who was preferred to whom

And a likelihood of your own (thetahat fit --model NAME --help):
  --model FILE.py:NAME DATA  log p of a row, with latent variables or without

Examples:
  thetahat fit "y ~ x" data.csv
  thetahat fit "claims ~ age + C(region) + offset(log(n))" claims.csv \\
      --family negative_binomial --set dispersion="~ age" --by region
  thetahat fit "passed ~ hours" exam.csv --family bernoulli --prior normal:2.5
  thetahat fit "rent ~ area" flats.csv --family "asymmetric_laplace(level=0.9)"
  thetahat fit "y ~ bs(x, df=5)" data.parquet --save y.thetahat --report y.html
  thetahat fit "y ~ x" data.csv --json | jq .certificate.status""",
    ),
    "align": SYSTEMS["align"],
    "finetune": SYSTEMS["finetune"],
    "score": (
        Score,
        "The log-likelihood of rows under a saved fit.",
        """A typed number: its kind, measure and units, and its error over the rows.

Examples:
  thetahat score y.thetahat new.csv
  thetahat score runs/vae t10k-images-idx3-ubyte.gz --samples 100
  thetahat score smollm2 texts.jsonl
  thetahat score y.thetahat new.csv --against last-year.csv
  thetahat score y.thetahat new.csv --json | jq .mean""",
    ),
    "compare": (
        Compare,
        "Compare saved fits or runs on the same data, by paired differences.",
        """Refuses, with the reason, a density against a mass, other rows, other units.

Examples:
  thetahat compare poisson.thetahat nb.thetahat --data held_out.csv
  thetahat compare runs/gpt runs/gpt-2 --data held_out.txt
  thetahat compare evals/model-a evals/model-b

The last are folders that lm-eval --log_samples wrote.""",
    ),
    "predict": (
        Predict,
        "Predict the response of new rows by a saved fit.",
        """A row for each row of DATA, in its order; empty where a predictor is missing.

Examples:
  thetahat predict y.thetahat new.csv > predicted.csv
  thetahat predict y.thetahat new.csv --level 0.95 --interval prediction
  thetahat predict y.thetahat new.csv --what quantile --level 0.9
  thetahat predict runs/classifier images.npy -o classes.parquet""",
    ),
    "sample": (
        Sample,
        "Draw responses from a saved fit.",
        """Examples:
  thetahat sample y.thetahat new.csv -n 5 --seed 1 > draws.csv
  thetahat sample y.thetahat new.csv -n 1000 -o draws.parquet
  thetahat sample runs/shakespeare --prompt "ROMEO:"
  thetahat sample runs/vae -n 64 -o digits.png""",
    ),
    "play": (
        Play,
        "Let the policy of a run play, and say what it earns.",
        """Several runs (seeds) have an interquartile mean, with its interval.

Examples:
  thetahat play runs/cartpole
  thetahat play runs/ppo-* --against runs/a2c-*
  thetahat play runs/cartpole -n 1000 --seed 1 --json | jq .mean""",
    ),
    "export": (
        Export,
        "Write a network for other libraries.",
        """A .safetensors file holds the tensors; transformers or peft loads a folder.

Examples:
  thetahat export runs/gpt -o gpt.safetensors
  thetahat export runs/chat -o merged
  thetahat export runs/chat -o adapters --adapters""",
    ),
    "report": (
        Report,
        "Write the HTML report of a saved fit and its data.",
        """Calibration, residuals and profiles need the rows that were fitted.

Examples:
  thetahat report y.thetahat data.csv -o y.html""",
    ),
    "tour": (
        Tour,
        "Fit every kind of system by the one principle.",
        """Each stands beside what is known of its answer; exits with 1 if one differs.

Examples:
  thetahat tour
  thetahat tour --quick --json""",
    ),
}

# what follows `fit` in place of a formula: the systems, and what needs no run
FITS: dict[str, tuple[Plain, str, str]] = SYSTEMS | {
    "reward": (
        Reward,
        "Fit ratings of items, or a reward model of text, to preferences.",
        """Prints ratings with errors and ranks with intervals; of a reward its accuracy,
nats and calibration on prompts that it has not seen.

Examples:
  thetahat fit reward games.csv --count games
  thetahat fit reward pairs.jsonl.gz --words 200 --report reward.html""",
    ),
}

_CONFIG = (FlagCreatePairsOff, OmitArgPrefixes)


def _of_method(kind: Plain, words: Sequence[str]) -> Plain:
    """The settings of a command; where it has methods, of the one that the words name, else of the first."""
    if not isinstance(kind, dict):
        return kind
    named = [b for a, b in pairwise(words) if a == "--method"]
    named += [word.removeprefix("--method=") for word in words if word.startswith("--method=")]
    return kind.get(named[-1] if named else "", next(iter(kind.values())))


def parse(words: Sequence[str]) -> Command:
    """The command that the words name, with its arguments.

    Raises
    ------
    SystemExit
        0 after --help, 2 after a usage error, with what was wrong on stderr
    """
    if len(words) > 1 and words[0] == "fit" and words[1] in FITS:
        system, line, more = FITS[words[1]]
        description = f"{line}\n\n{more}\n\n{CODES}"
        found: Command = tyro.cli(
            _of_method(system, words),
            args=words[2:],
            prog=f"thetahat fit {words[1]}",
            description=description,
            config=_CONFIG,
        )
        return found
    if words and words[0] in COMMANDS:
        kind, line, more = COMMANDS[words[0]]
        if words[0] == "fit" and any(word.split("=")[0] == "--model" for word in words):
            kind, (line, more) = Own, HELP
        description = f"{line}\n\n{more}\n\n{CODES}"
        parsed: Command = tyro.cli(
            _of_method(kind, words),
            args=words[1:],
            prog=f"thetahat {words[0]}",
            description=description,
            config=_CONFIG,
        )
        return parsed
    commands: Any = None
    for name, (kind, line, _) in COMMANDS.items():
        kind = _of_method(kind, [])
        chosen_by: Plain = subcommand(name, description=line, prefix_name=False)
        each: Plain = Annotated[kind, chosen_by]
        commands = each if commands is None else commands | each
    description = (
        "Maximum likelihood: maximise Σ w·log p(x | θ) + log p(θ) over θ.\n\n"
        "Start with:\n"
        '  thetahat fit "y ~ x" data.csv\n'
        "  thetahat fit --help\n"
        "  thetahat --version\n\n" + CODES
    )
    chosen: Command = tyro.cli(
        commands, args=list(words), prog="thetahat", description=description, config=_CONFIG
    )
    return chosen
