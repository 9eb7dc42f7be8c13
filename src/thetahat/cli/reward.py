"""`thetahat fit reward PAIRS`: ratings of items from a table of who was preferred to whom, or a reward model
of text from pairs of answers.

PAIRS.csv, .parquet          winner, loser[, tie, first, count]: Bradley–Terry ratings, and ranks with intervals
PAIRS.jsonl, .jsonl.gz       chosen, rejected[, prompt, margin]: a reward that is linear in the frequent words and the length of an
                             answer, or in the features of a language model; judged on prompts that it has not seen
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import preferences
from ..errors import BadArgument
from ..types import Settings
from .arguments import Reward
from .pretrained import causal_model, pretrained_tokenizer
from .screen import Screen, may_write, plain_text

if TYPE_CHECKING:
    import pandas as pd

    from ..preferences.agreement import Judgement
    from ..preferences.comparisons import Preferences
    from ..preferences.pairs import Pairs
    from ..result import Fit

SCALES = (0.01, 0.03, 0.1, 0.3, 1.0)  # of the prior on coefficients, among which the pairs choose


@dataclass(frozen=True)
class Rated:
    """What was found: it prints itself.

    Parameters
    ----------
    fit
        the fit
    table
        a row an item (`preferences.ratings`), or a row a coefficient: estimate, standard_error, z
    judgement
        of pairs held out; None for ratings of items
    note
        what was left out, and which prior was chosen
    """

    fit: Fit
    table: pd.DataFrame
    judgement: Judgement | None = None
    note: str = ""

    def __str__(self) -> str:
        shown = _items(self.table) if self.judgement is None else _strongest(self.table)
        return "\n\n".join(
            str(part) for part in (shown, self.judgement, self.note, self.fit.certificate) if part
        )

    def to_dict(self) -> Settings:
        """Plain values, for JSON."""
        out: Settings = {
            "table": self.table.reset_index().to_dict("records"),
            "certificate": self.fit.certificate.to_dict(),
            "note": self.note,
        }
        j = self.judgement
        if j is not None:
            c = j.calibration
            out["held_out"] = {
                "pairs": j.pairs,
                "accuracy": {"value": j.accuracy, "low": j.low, "high": j.high},
                "level": j.level,
            }
            out["held_out"] |= {
                "score": j.score.to_dict(),
                "calibration_error": {"value": c.value, "low": c.low, "high": c.high},
            }
        return out


def rated(command: Reward, screen: Screen) -> int:
    for path, endings in ((command.save, ()), (command.report, (".html", ".htm"))):
        may_write(path, [command.pairs], endings)
    with screen.busy("fitting"):
        found = reward(command)
    screen.show(plain_text(str(found)), found.to_dict())
    for path, write in ((command.save, found.fit.save), (command.report, found.fit.report)):
        if path is not None:
            write(path)
            screen.note(f"wrote {path}")
    return 0 if found.fit.certificate.ok else 1


def reward(asked: Reward) -> Rated:
    """Ratings of items, or a reward model of text: by what the file holds.

    Without a prior there is none on ratings; on coefficients other than the length's it is the one of
    `SCALES` that pairs held out of the fit find most probable. Identical answers, and answers that do not fit
    in the context, are left out and counted.

    Raises
    ------
    DataError
        pairs that cannot be used, by line or row
    NoMaximum
        an item that never lost, by name, and no prior
    """
    name = asked.pairs.name
    if name.endswith((".jsonl", ".jsonl.gz")):
        if asked.count is not None:
            raise BadArgument(
                f"--count {asked.count} is a column of a table of items, and {name} holds answers."
            )
        return _text(asked)
    if asked.network is not None:
        raise BadArgument(
            f"{name} is a table of items, for which there is no network. Accepted with one: .jsonl of "
            "answers."
        )
    return _table(asked)


def _table(asked: Reward) -> Rated:
    from ..data.frame import Frame
    from ..fitting import fit
    from ..likelihood.priors import Normal
    from ..preferences.bradley_terry import BradleyTerry
    from ..preferences.comparisons import Preferences

    frame = Frame(str(asked.pairs))
    named: Settings = {name: name for name in ("tie", "first") if name in frame.columns}
    count = asked.count or ("count" if "count" in frame.columns else None)
    games = Preferences("winner", "loser", count, data=frame, **named)
    unread = [name for name in frame.columns if name not in ("winner", "loser", count, *named)]
    assert games.items is not None
    tied = "tie" in games.whole and bool(games.whole["tie"].any())
    model = BradleyTerry(
        items=games.items,
        ties="davidson" if tied else None,
        first="first" in named,
        reference=asked.prior is None,
    )
    found = fit(model, games, prior=None if asked.prior is None else Normal(asked.prior))
    extra = [name for name in found.names if name in ("first", "log_ties")]
    note = "".join(
        f"{name}: {found.estimates[name]:.4f} ± {found.standard_errors()[name]:.4f}\n" for name in extra
    )
    note += f"columns that were not read: {', '.join(unread)}" if unread else ""
    return Rated(found, preferences.ratings(found, level=asked.level), note=note.strip())


def _text(asked: Reward) -> Rated:
    from ..fitting import fit
    from ..likelihood.priors import Normal
    from ..preferences.bradley_terry import BradleyTerry
    from ..preferences.features import Words
    from ..preferences.pairs import Pairs

    if not 0 < asked.held_out < 1 or asked.words < 1:
        raise BadArgument(
            f"--held-out {asked.held_out:g}, --words {asked.words}. Accepted: a fraction in (0, 1), and 1 or "
            "more."
        )
    pairs = Pairs(asked.pairs, identical="drop")
    train, test = pairs.split(asked.held_out, seed=asked.seed)
    left = [f"{len(pairs.dropped)} pairs of identical answers"] if pairs.dropped else []
    if asked.network is None:
        counted = Words.of(train, asked.words)
        fitted, judged = train.described(counted), test.described(counted)
    else:
        fitted, judged, gone = _embedded(train, test, asked.network, asked.context)
        left += [f"{gone} pairs that do not fit in {asked.context} tokens"] if gone else []
    assert fitted.features is not None
    differs = bool((fitted.whole["winner"][:, -1] != fitted.whole["loser"][:, -1]).any())
    on = [name for name in fitted.features if name != "length" or not differs]
    scales = SCALES if asked.prior is None else (asked.prior,)
    found = fit(BradleyTerry(features=fitted.features), fitted, prior=Normal(scales[-1], on=on))
    note = f"left out: {'; '.join(left)}\n" if left else ""
    note += (
        ""
        if differs
        else "length: no two answers of a pair differ in it, so that only the prior speaks of it\n"
    )
    if asked.prior is None:
        choice = found.choose_prior([Normal(scale, on=on) for scale in scales], folds=5, seed=asked.seed)
        found, note = (
            choice.fit,
            note
            + f"prior: Normal({choice.scale:g}) on all{' but the length' if differs else ''}, by pairs held out",
        )
    judgement = preferences.judge(found, judged, level=asked.level)
    found = found._with(measured=(_measured(judgement),))
    return Rated(found, _coefficients(found), judgement, note.strip())


def _measured(j: Judgement) -> dict[str, float]:
    """What the report says of pairs held out."""
    known = {"accuracy": j.accuracy, "accuracy_low": j.low, "accuracy_high": j.high}
    known |= {"nats_a_pair": j.score.mean, "nats_a_pair_error": j.score.standard_error}
    c = j.calibration
    return known | {"miscalibration": c.value, "miscalibration_low": c.low, "miscalibration_high": c.high}


def _coefficients(found: Fit) -> pd.DataFrame:
    import pandas as pd

    error = found.standard_errors()
    table = pd.DataFrame({"estimate": found.estimates, "standard_error": error, "z": found.estimates / error})
    return table.rename_axis("feature").sort_values("z", ascending=False)


def _embedded(train: Pairs, test: Pairs, folder: Path, context: int) -> tuple[Preferences, Preferences, int]:
    """Both parts by the mean hidden state over each answer, in units of its spread among the pairs fitted,
    and by length."""
    import numpy as np

    from ..language.pretrained import Pretrained
    from ..preferences.comparisons import Preferences
    from ..preferences.embedding import embedded
    from ..preferences.token_pairs import TokenPairs

    llama = Pretrained(causal_model(folder))
    tokenizer = pretrained_tokenizer(folder)
    parts, gone = [], 0
    for pairs in (train, test):
        tokens = TokenPairs(pairs, tokenizer, context, overlong="cut")
        gone += len(tokens.dropped)
        length = [
            tokens.whole[f"{w}_mask"].sum(1, keepdim=True).double().numpy() / 100
            for w in ("chosen", "rejected")
        ]
        parts.append(
            (*(h.numpy() for h in embedded(llama, tokens, "mean")), *length, tokens.whole.group.numpy())
        )
    scale = np.std(parts[0][0] - parts[0][1], axis=0)
    names = [*(f"h{i}" for i in range(len(scale))), "length"]
    sides = [
        Preferences(np.hstack([c / scale, lc]), np.hstack([r / scale, lr]), group=group, features=names)
        for c, r, lc, lr, group in parts
    ]
    return sides[0], sides[1], gone


def _items(table: pd.DataFrame) -> str:
    """rating ± error, Elo ± error, rank (low to high)."""
    import pandas as pd

    shown = pd.DataFrame(
        {
            "rating": [f"{r:.3f} ± {e:.3f}" for r, e in zip(table.rating, table.standard_error, strict=True)],
            "Elo": [f"{r:.0f} ± {e:.0f}" for r, e in zip(table.elo, table.elo_error, strict=True)],
            "rank": [
                f"{r} ({a} to {b})" for r, a, b in zip(table["rank"], table.low, table.high, strict=True)
            ],
        },
        index=table.index.rename(None),
    )
    return shown.to_string()


def _strongest(table: pd.DataFrame, many: int = 8) -> str:
    """What speaks most for an answer, and what most against."""
    shown = table if len(table) <= 2 * many else table.iloc[[*range(many), *range(-many, 0)]]
    cut = (
        ""
        if len(table) <= 2 * many
        else f"\n(of {len(table)} features: the {many} that speak most surely for an answer, and against)"
    )
    return shown.rename_axis(None).to_string(float_format="{:.3f}".format) + cut
