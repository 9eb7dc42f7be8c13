"""Markov decision processes with finitely many states, given by tables: environments whose returns are known
exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import BadArgument, MissingExtra, NotConverged
from ..types import Settings

Array = np.ndarray
Outcome = tuple[float, float, int | None]
Mass = tuple[Array, Array]  # values, ascending, and their masses


class FiniteMDP:
    """A Markov decision process as a table of what may come of each action in each state.

        P(r, s' | s, a)  and so  Z(s, a) = R + γ Z(S', A'),  A' ~ π(· | S'),   as a distribution, exactly

    What it is as an environment is made by calling it: `Replay(mdp)`, `Rollouts(mdp)`.

    Parameters
    ----------
    outcomes
        `outcomes[s][a]` is a list of (probability, reward, next state), the state None where it ends; as many
        actions in every state
    start
        the first state, or None: each as probable as any other

    Raises
    ------
    BadArgument
        probabilities that do not sum to 1, states that are not there, or numbers of actions that differ

    References
    ----------
    Bellemare, Dabney and Rowland (2023), Distributional Reinforcement Learning, ch. 2 and 4.

    Examples
    --------
    >>> coin = FiniteMDP([[[(0.5, 1.0, 0), (0.5, 0.0, None)]]])  # one state: with ½ a reward of 1 and once more, else the end
    >>> values, mass = coin.returns()[0][0]
    >>> values[:3].tolist(), mass[:3].tolist()
    ([0.0, 1.0, 2.0], [0.5, 0.25, 0.125])
    """

    def __init__(self, outcomes: Sequence[Sequence[Sequence[Outcome]]], start: int | None = 0):
        self.states, self.actions, self.start = len(outcomes), len(outcomes[0]) if outcomes else 0, start
        if start is not None and not 0 <= start < self.states:
            raise BadArgument(f"start={start}. Accepted: a state, 0 to {self.states - 1}, or None.")
        for s, row in enumerate(outcomes):
            if len(row) != self.actions or not row:
                raise BadArgument(f"state {s} has {len(row)} actions, state 0 has {self.actions}.")
            for a, each in enumerate(row):
                p = sum(outcome[0] for outcome in each)
                if abs(p - 1) > 1e-9 or any(outcome[0] < 0 for outcome in each):
                    raise BadArgument(
                        f"state {s}, action {a}: the probabilities sum to {p:g}. Accepted: none negative, "
                        "their sum 1."
                    )
                for _, _, following in each:
                    if following is not None and not 0 <= following < self.states:
                        raise BadArgument(
                            f"state {s}, action {a} leads to {following}. Accepted: 0 to {self.states - 1}, "
                            "or None."
                        )
        self.outcomes = outcomes

    def returns(
        self, policy: Any = None, discount: float = 1.0, *, within: float = 1e-9, rounds: int = 1000
    ) -> list[list[Mass]]:
        """The distribution of the return of each action in each state, `[s][a]` → (values, masses).

        Parameters
        ----------
        policy
            π(a | s), (S, A); None: every action as probable as any other
        discount
            γ
        within
            mass that may be missing of each; values closer than this are one

        Raises
        ------
        NotConverged
            after so many rounds of Bellman's equation more mass than that has not come to an end
        """
        pi = (
            np.full((self.states, self.actions), 1 / self.actions)
            if policy is None
            else np.asarray(policy, dtype=np.float64)
        )
        if pi.shape != (self.states, self.actions):
            raise BadArgument(f"policy has shape {pi.shape}. Accepted: ({self.states}, {self.actions}).")
        nothing: Mass = (np.zeros(0), np.zeros(0))
        found = [[nothing] * self.actions for _ in range(self.states)]
        for _ in range(rounds):
            onward = [
                _mixed([(pi[s, a], 0.0, 1.0, found[s][a]) for a in range(self.actions)], within)
                for s in range(self.states)
            ]
            end: Mass = (np.zeros(1), np.ones(1))
            found = [
                [
                    _mixed([(p, r, discount, end if s is None else onward[s]) for p, r, s in each], within)
                    for each in row
                ]
                for row in self.outcomes
            ]
            if min(mass.sum() for row in found for _, mass in row) >= 1 - within:
                return found
        raise NotConverged(
            f"after {rounds} steps an episode has not ended with a probability of more than {within:g}."
        )

    def __call__(self) -> Any:
        """A gymnasium environment."""
        try:
            import gymnasium
        except ImportError as error:
            raise MissingExtra.named("gymnasium", "rl") from error
        mdp = self

        class Finite(gymnasium.Env[Any, Any]):
            observation_space = gymnasium.spaces.Discrete(mdp.states)
            action_space = gymnasium.spaces.Discrete(mdp.actions)

            def reset(
                self, *, seed: int | None = None, options: Settings | None = None
            ) -> tuple[int, Settings]:
                super().reset(seed=seed)
                self.at = int(self.np_random.integers(mdp.states)) if mdp.start is None else mdp.start
                return self.at, {}

            def step(self, action: int) -> tuple[int, float, bool, bool, Settings]:
                each = mdp.outcomes[self.at][int(action)]
                edges = np.cumsum([outcome[0] for outcome in each])
                which = min(int(np.searchsorted(edges, self.np_random.random(), side="right")), len(each) - 1)
                _, reward, following = each[which]
                self.at = self.at if following is None else following
                return self.at, float(reward), following is None, False, {}

        return Finite()


def _mixed(parts: list[tuple[float, float, float, Mass]], within: float) -> Mass:
    """Σ p · (r + γ Z) as one distribution: parts (p, r, γ, Z)."""
    values = np.concatenate([r + discount * z for _, r, discount, (z, _) in parts])
    mass = np.concatenate([p * m for p, _, _, (_, m) in parts])
    if not len(values):
        return values, mass
    order = np.argsort(values, kind="stable")
    values, mass = values[order], mass[order]
    first = np.concatenate([[True], np.diff(values) > within])
    return values[first], np.add.reduceat(mass, np.flatnonzero(first))
