"""Bradley–Terry: which of two is preferred. Ratings of players, and the reward models of language models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from ..data.batch import Batch
from ..data.source import Source
from ..errors import BadArgument, ModelError
from ..models.base import Model
from ..models.information import Information
from ..models.taylor import Taylor, weighted
from ..types import Level, Named, Settings

TIES = ("davidson", "rao_kupper")


class BradleyTerry(Model):
    """The probability that the winner is preferred to the loser.

        log p(a ≻ b) = log σ(d),      d = r_a − r_b + α·h_ab,      σ(x) = 1/(1 + e⁻ˣ)

    With ties, and with a known margin m in the batch by which a was preferred:

        davidson      log p(a ≻ b) = d/2 − log Z,   log p(a ~ b) = log ν − log Z,      Z = e^(d/2) + e^(−d/2) + ν
        rao_kupper    log p(a ≻ b) = log σ(d − m),  log p(a ~ b) = log(e²ᵐ − 1) + log σ(d − m) + log σ(−d − m)
        margin        log p(a ≻ b by m) = log σ(d − m)

    Each is log-concave: with ratings linear in θ there is one maximum, or none.

    Parameters
    ----------
    scorer
        a module that gives the rating r of each item from its features, (n, …) → (n,) or (n, 1); or, of
        `TokenPairs`, from tokens (n, T) and lengths (n,), as `networks.Reward` does
    items
        in place of a scorer: a rating of its own for each item. Their number, or their names
        (`Preferences.items`)
    features
        in place of a scorer: r = x·β. Their number, or their names (`Preferences.features`)
    ties
        None, "davidson" (θ has log ν, "log_ties") or "rao_kupper" (log m, "log_threshold")
    first
        whether the item named first (white; at home) has an advantage α, "first": h is 1 if it won, −1 if it
        lost, 0 if none is first
    reference
        whether the rating of the first item is fixed at 0; without, a prior must hold them all

    Raises
    ------
    BadArgument
        not just one of scorer, items, features was given; another kind of ties
    ModelError
        the scorer does not give one number an item; the batch has ties, or lacks "first", where the model
        says otherwise

    References
    ----------
    Bradley and Terry (1952), Rank analysis of incomplete block designs: I. The method of paired comparisons;
    Davidson (1970), On extending the Bradley–Terry model to accommodate ties in paired comparison
    experiments; Rao and Kupper (1967), Ties in paired-comparison experiments; Touvron et al. (2023), Llama 2,
    eq. 2 (the margin).

    Examples
    --------
    >>> model = BradleyTerry(items=["Baltimore", "Milwaukee"])
    >>> batch = Batch({"winner": torch.tensor([1]), "loser": torch.tensor([0])})
    >>> round(model.log_prob(batch).item(), 6), model.names
    (-0.693147, ['Milwaukee'])
    """

    measure = "mass"
    target = "preference"
    pairwise = True

    def __init__(
        self,
        scorer: nn.Module | None = None,
        *,
        items: int | Sequence[Level] | None = None,
        features: int | Sequence[str] | None = None,
        ties: str | None = None,
        first: bool = False,
        reference: bool = True,
    ):
        super().__init__()
        if sum(each is not None for each in (scorer, items, features)) != 1:
            raise BadArgument(
                "BradleyTerry takes a scorer (a module), items= (how many there are, or their names), or "
                "features=: one of the three."
            )
        if ties is not None and ties not in TIES:
            raise BadArgument(f"ties={ties!r}. Accepted: None, {', '.join(map(repr, TIES))}.")
        self.items, self.features = _named(items, "item"), _named(features, "x")
        self.ties, self.first = ties, first
        self.reference = reference and items is not None
        dtype = torch.float64
        if scorer is not None:
            dtype = next((p.dtype for p in scorer.parameters()), dtype)
        elif self.items is not None:
            if len(self.items) < 2:
                raise BadArgument(f"a preference is between two items or more; received {len(self.items)}.")
            self.ratings = nn.Parameter(torch.zeros(len(self.items) - self.reference, dtype=dtype))
        elif self.features is not None:
            self.ratings = nn.Parameter(torch.zeros(len(self.features), dtype=dtype))
        if first:
            self.advantage = nn.Parameter(torch.zeros((), dtype=dtype))
        if ties is not None:
            self.log_ties = nn.Parameter(torch.zeros((), dtype=dtype))
        self.scorer = scorer

    # ---- p -------------------------------------------------------------------------------------------------

    def rating(self, item: Tensor) -> Tensor:
        """r of each item: of its features, or of its number."""
        if self.items is not None:
            if item.is_floating_point():
                raise ModelError(
                    "BradleyTerry(items=…) reads the numbers of the items, and the batch holds features. "
                    "Give a scorer, or features=."
                )
            return self.every_rating()[item]
        if self.features is not None:
            if item.shape[1:] != self.ratings.shape:
                raise ModelError(
                    f"BradleyTerry has {len(self.ratings)} features, the items of the batch "
                    f"{list(item.shape[1:])}."
                )
            return item.to(self.ratings.dtype) @ self.ratings
        assert self.scorer is not None
        known = next(self.scorer.parameters(), None)
        r = self.scorer(item.to(known.dtype) if known is not None and item.is_floating_point() else item)
        return _one_each(r, len(item))

    def _texts(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """r of the chosen and of the rejected texts of `TokenPairs`, in one pass, no wider than the
        longest."""
        assert self.scorer is not None
        length = torch.cat([batch["chosen_length"], batch["rejected_length"]])
        tokens = torch.cat([batch["chosen"], batch["rejected"]])[:, : int(length.max())]
        n = len(batch)
        r = _one_each(self.scorer(tokens, length), 2 * n)
        return r[:n], r[n:]

    def every_rating(self) -> Tensor:
        """r of every item of a table, (k,), the reference's 0 in its place."""
        return torch.cat([self.ratings.new_zeros(1), self.ratings]) if self.reference else self.ratings

    def difference(self, batch: Batch) -> Tensor:
        """d, (n,)."""
        if "winner" in batch or self.scorer is None:
            d = self.rating(batch["winner"]) - self.rating(batch["loser"])
        else:
            chosen, rejected = self._texts(batch)
            d = chosen - rejected
        return d + self.advantage * self._order(batch) if self.first else d

    def log_prob(self, batch: Batch) -> Tensor:
        return self._of(batch, self.difference(batch), self.log_ties if self.ties is not None else None)

    def probabilities(self, batch: Batch) -> Tensor:
        """That the one in "winner" is preferred, that neither is, and that the one in "loser" is, (n, 3).
        Margins are left aside."""
        with torch.no_grad():
            d = self.difference(batch)
            z = self.log_ties if self.ties is not None else None
            plain = Batch({"d": d})
            win, loss = (torch.exp(self._of(plain, each, z)) for each in (d, -d))
            return torch.stack(
                [win, (1 - win - loss).clamp(min=0) if self.ties is not None else 0 * win, loss], -1
            )

    def probability(self, batch: Batch) -> Tensor:
        """That the one in "winner" is preferred to the one in "loser", (n,)."""
        return self.probabilities(batch)[:, 0]

    def _of(self, batch: Batch, d: Tensor, z: Tensor | None) -> Tensor:
        """log p of the outcomes at differences d, (n,), and z = log ν or log m."""
        tie, margin = batch.tensors.get("tie"), batch.tensors.get("margin")
        if z is None:
            if tie is not None and bool(tie.any()):
                row = int(torch.nonzero(tie)[0, 0])
                raise ModelError(
                    f"row {row} of the batch is a tie ({int(tie.sum())} are). Give BradleyTerry(…, "
                    "ties='davidson')."
                )
            return logsigmoid(d if margin is None else d - margin.to(d.dtype))
        if margin is not None and bool((margin != 0).any()):
            raise ModelError(
                "the batch has margins, and the model ties: a margin is a threshold of its own. Give one of "
                "the two."
            )
        tied = torch.zeros_like(d, dtype=torch.bool) if tie is None else tie.bool()
        if self.ties == "davidson":
            z = z.expand_as(d)
            return torch.where(tied, z, d / 2) - torch.logsumexp(torch.stack([d / 2, -d / 2, z]), 0)
        m = torch.exp(z)
        neither = 2 * m + torch.log(-torch.expm1(-2 * m)) + logsigmoid(-d - m)
        return logsigmoid(d - m) + torch.where(tied, neither, torch.zeros_like(d))

    def _order(self, batch: Batch) -> Tensor:
        if "first" not in batch:
            raise ModelError(
                "BradleyTerry(first=True) needs to know which item was first: give Preferences(…, first=…)."
            )
        out: Tensor = batch["first"].to(self.advantage.dtype)
        return out

    # ---- θ -------------------------------------------------------------------------------------------------

    def start(self, source: Source) -> Tensor:
        """All ratings equal; a scorer's parameters as they stand."""
        parts = [p.detach().reshape(-1) for p in self.parameters() if p.requires_grad]
        return torch.cat(parts) if self.scorer is not None else torch.zeros_like(torch.cat(parts))

    @property
    def names(self) -> list[str]:
        if self.items is not None:
            own = [str(item) for item in self.items[self.reference :]]
        else:
            own = list(self.features or [])
        own += ["first"] if self.first else []
        own += [] if self.ties is None else ["log_ties" if self.ties == "davidson" else "log_threshold"]
        inside = [] if self.scorer is None else self.scorer.named_parameters(prefix="scorer")
        return own + [f"{n}[{i}]" for n, p in inside if p.requires_grad for i in range(p.numel())]

    @property
    def coefficient_names(self) -> list[str]:
        return self.names

    @property
    def slopes(self) -> list[bool]:
        """A prior is on ratings, unless it names others."""
        return [name not in ("first", "log_ties", "log_threshold") for name in self.names]

    @property
    def concave(self) -> bool:
        """log p is concave in d and z (in d and m, of which z = log m is a monotone function), and d
        linear in θ for all but deep scorers."""
        return self.scorer is None or isinstance(self.scorer, nn.Linear)

    @property
    def taylor(self) -> Callable[..., Taylor] | None:
        """Of ratings that are linear in features: with J = Aᵀ W A rather than a pass a coordinate."""
        return None if self.features is None else self._expanded

    def _expanded(
        self, batch: Batch, weight: Tensor | None, order: int = 2, precision: torch.dtype = torch.float64
    ) -> Taylor:
        A = batch["winner"].to(torch.float64) - batch["loser"].to(torch.float64)
        A = torch.cat([A, self._order(batch)[:, None]], 1) if self.first else A  # (n, q), d = A θ_d
        with torch.enable_grad():
            d = self.difference(batch).detach().requires_grad_()
            z = (
                self.log_ties.detach().expand_as(d).clone().requires_grad_()
                if self.ties is not None
                else None
            )
            eta = [d] if z is None else [d, z]
            log_prob = self._of(batch, d, z)
            value = (log_prob if weight is None else weighted(log_prob, weight)).sum()
            slope = torch.autograd.grad(value, eta, create_graph=True)
            bend = [torch.autograd.grad(s.sum(), eta, retain_graph=True) for s in slope] if order > 1 else []
        columns = [A] if z is None else [A, torch.ones_like(A[:, :1])]
        gradient = torch.cat([X.T @ s.detach() for X, s in zip(columns, slope, strict=True)])
        if order < 2:
            return Taylor(value.detach(), gradient)
        J = torch.cat(
            [
                torch.cat([X.T @ (-h[:, None] * Y) for Y, h in zip(columns, row, strict=True)], 1)
                for X, row in zip(columns, bend, strict=True)
            ]
        )
        return Taylor(value.detach(), gradient, Information((J + J.T) / 2))

    def to_config(self) -> Settings:
        """Plain values from which `from_config` makes a model without a scorer again, θ at its start."""
        kind = {"items": self.items} if self.items is not None else {"features": self.features}
        return {
            "ties": self.ties,
            "first": self.first,
            "reference": self.items is None or self.reference,
        } | kind

    @classmethod
    def from_config(cls, config: Named) -> Self:
        """The model that `to_config` wrote down.

        Examples
        --------
        >>> BradleyTerry.from_config(BradleyTerry(items=["a", "b"], ties="davidson").to_config()).names
        ['b', 'log_ties']
        """
        return cls(**config)

    # ---- what is known of the maximum ----------------------------------------------------------------------

    def recession(self, source: Source) -> tuple[str, dict[str, float], str] | None:
        """Of a table of items, the direction along which the likelihood never falls, and why; None if the
        graph of wins shows none.

        There is one maximum only if each item can be reached from each by "won against" (a tie goes both
        ways).

        References
        ----------
        Ford (1957), Solution of a ranking problem from binary comparisons.
        """
        from scipy.sparse import coo_array  # here: `import thetahat` stays near `import torch`
        from scipy.sparse.csgraph import connected_components

        if self.items is None:
            return None
        over, under, tied, decided = self._wins(source)
        if not self.reference:
            return ("flat direction", dict.fromkeys(self.names[: len(self.items)], 1.0), _UNHELD)
        k = len(self.items)
        won = coo_array((torch.ones(len(over)).numpy(), (over.numpy(), under.numpy())), shape=(k, k))
        parts, part = connected_components(won, directed=True, connection="weak")
        if parts > 1:
            apart = torch.from_numpy(part) != int(part[0])
            alone = self._listed(torch.from_numpy(part) == int(part[int(torch.nonzero(apart)[0, 0])]))
            why = f"no pair compares {alone} with the others: how far apart they are is not known. Rate them apart, or put a prior on them."
            return ("flat direction", self._direction(apart), why)
        parts, part = connected_components(won, directed=True, connection="strong")
        if parts > 1:
            return ("no maximum", *self._unbeaten(torch.from_numpy(part), over, under))
        if self.ties is not None and not (tied and decided):
            name, sign = self.names[-1 if self.scorer is None else 0], -1.0 if decided else 1.0
            why = (
                "no pair is a tie, so that fewer and fewer of them"
                if decided
                else "every pair is a tie, so that more and more of them"
            )
            return (
                "no maximum",
                {name: sign},
                f"the likelihood has no maximum: {why} make the data more probable. Leave ties= out.",
            )
        return None

    def _wins(self, source: Source) -> tuple[Tensor, Tensor, bool, bool]:
        """Who is over whom (a tie goes both ways), and whether there are ties, and decided pairs."""
        over, under, tied, decided = [], [], False, False
        for batch in source.batches(self):
            seen = batch.count > 0
            a, b = batch["winner"][seen], batch["loser"][seen]
            tie = batch["tie"][seen].bool() if "tie" in batch else torch.zeros(len(a), dtype=torch.bool)
            over += [a, b[tie]]
            under += [b, a[tie]]
            tied, decided = tied or bool(tie.any()), decided or not bool(tie.all())
        return torch.cat(over), torch.cat(under), tied, decided

    def _unbeaten(self, part: Tensor, over: Tensor, under: Tensor) -> tuple[dict[str, float], str]:
        """A set of items over which no other one ever was, or that never was over another; the smaller of the
        two."""
        top, bottom = (
            next(p for p in part.unique() if not bool(((part[to] == p) & (part[by] != p)).any()))
            for to, by in ((under, over), (over, under))
        )
        best = bool((part == top).sum() <= (part == bottom).sum())
        them = part == (top if best else bottom)
        several = int(them.sum()) > 1
        verb = (
            ("lost to the others" if best else "beat any other") if several else ("lost" if best else "won")
        )
        why = (
            f"the likelihood has no maximum: {self._listed(them)} never {verb}, so that a rating ever "
            f"{'larger' if best else 'smaller'} makes "
            "the data more probable. Put a prior on the ratings (prior=th.priors.Normal(2.5), --prior 2.5), or leave "
            f"{'them' if several else 'it'} out."
        )
        return self._direction(them, 1.0 if best else -1.0), why

    def _direction(self, them: Tensor, sign: float = 1.0) -> dict[str, float]:
        """`sign` for these items; or its opposite for the others, if the reference is among these."""
        assert self.items is not None
        if bool(them[0]):
            them, sign = ~them, -sign
        return {str(self.items[i]): sign for i in torch.nonzero(them).reshape(-1).tolist()}

    def _listed(self, them: Tensor) -> str:
        assert self.items is not None
        names = [repr(self.items[i]) for i in torch.nonzero(them).reshape(-1).tolist()]
        return ", ".join(names[:6]) + (f", … ({len(names)} items)" if len(names) > 6 else "")


_UNHELD = (
    "ratings are known up to a constant alone. Fix the first (reference=True), or give a prior on all "
    "(prior=th.priors.Normal(2.5), --prior 2.5)."
)


def _one_each(r: Tensor, n: int) -> Tensor:
    r = r.squeeze(-1) if r.ndim > 1 and r.shape[-1] == 1 else r
    if r.shape != (n,):
        raise ModelError(
            f"the scorer gives a tensor of shape {tuple(r.shape)} for {n} items. It must give one number "
            "each."
        )
    return r


def _named(given: int | Sequence[Level] | None, what: str) -> list[Level] | None:
    if given is None:
        return None
    return (
        [f"{what} {i}" if what == "item" else f"{what}{i}" for i in range(given)]
        if isinstance(given, int)
        else list(given)
    )
