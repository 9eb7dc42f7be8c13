"""A whole rollout as one graph of torch.compile: the policy and environments that are tensors, T steps of them.

    a_t = drawn(f_θ(s_t), e_t),    (s', r_t, terminated_t) = step(s_t, a_t),    s_{t+1} = s', or a first state where an episode ended

The noise e_t and the first states are drawn beforehand, by the generators and in the order of the rollout that is played step
by step: the trajectory is the same, to rounding. The loop is torch's `scan`, so that one step is compiled and not T.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..solvers.compiled import ON_CPU, compiled
from .actions import Actions
from .environments import Environments
from .policy import Policy
from .tensor_environments import TensorEnvironment, TensorVector

try:  # promised by no version of torch
    from torch._higher_order_ops.scan import scan
except ImportError:  # pragma: no cover
    scan = None  # type: ignore[assignment]


class Played(NamedTuple):
    """T steps of B environments; `earned` is the return of an episode so far, after each step."""

    state: Tensor  # (B, T, …)
    action: Tensor  # (B, T, …)
    log_prob: Tensor  # (B, T)
    reward: Tensor  # (B, T)
    next: Tensor  # (B, T, …)
    terminated: Tensor  # (B, T)
    truncated: Tensor  # (B, T)
    earned: Tensor  # (B, T)


class WholeRollout:
    """Plays T steps of all environments by one compiled call.

    Parameters
    ----------
    environments
        that are tensors, of states of floating numbers
    steps
        T
    greedy
        play the most probable action
    """

    def __init__(self, environments: Environments, steps: int, greedy: bool):
        self.environments, self.steps, self.greedy = environments, steps, greedy
        self.possible = scan is not None
        self._call: Callable[..., Any] = compiled(
            _rollout, fullgraph=True, options=ON_CPU | {"cpp_wrapper": True}
        )
        self._known: tuple[Policy, Actions, Tensor] | None = None

    @torch.no_grad()
    def __call__(self, policy: Any, generator: torch.Generator, earned: Tensor) -> Played | None:
        """What was played; None: it cannot be one graph, and nothing was done.

        Parameters
        ----------
        earned
            what the episodes under way have earned so far, (B,)
        """
        vector = self.environments.vector
        if not self.possible or not isinstance(vector, TensorVector) or not self._suits(policy, vector):
            return None
        _, actions, like = self._known or self._asked(policy, vector)
        steps, first = torch.from_numpy(vector.steps), vector.first_states(self.steps * len(earned))
        before = generator.get_state()
        noise = torch.stack([actions.noise(like, generator) for _ in range(self.steps)])
        kept = torch.zeros((), dtype=torch.int64)
        given = (vector.environment, policy, vector.limit, self.greedy)
        try:
            (state, steps, used, _), out = self._call(
                *given, (vector.state, steps, kept, earned), first, noise
            )
        except Exception as error:  # whatever torch's compiler raises of code that it cannot trace
            generator.set_state(before)
            self.possible = False
            warnings.warn(
                f"compile=True: the rollouts of {self.environments.name} cannot be one graph of torch.compile "
                f"({_line(error)}). They are played step by step.",
                stacklevel=2,
            )
            return None
        played = Played(*out)
        self.environments.went_on(played.next, played.reward, played.terminated | played.truncated)
        vector.state, vector.steps = state, steps.numpy()
        vector.begin(int(used))
        self.environments.state = vector.environment.observation(state).numpy()
        return played

    def _suits(self, policy: Any, vector: TensorVector) -> bool:
        """Whether a graph does what is done step by step: a policy that chooses as `Policy` does, of as many actions as
        there are, and states that are shown as they are."""
        if type(policy) is not Policy or any(p.device.type != "cpu" for p in policy.parameters()):
            return False
        known, environments = self._known, self.environments
        if known is not None and known[0] is policy:
            return True
        _, actions, f = self._asked(policy, vector)
        shown, sent = vector.environment.observation(vector.state), actions.taken(actions.mode(f))
        plain = environments.levels is None and not np.any(environments.offset)
        alike = shown.numpy().dtype == environments.state.dtype and sent.numpy().dtype == environments.type
        whole = environments.sizes is None or actions.outputs == int(np.sum(environments.sizes))
        self.possible = plain and alike and whole
        return self.possible

    def _asked(self, policy: Policy, vector: TensorVector) -> tuple[Policy, Actions, Tensor]:
        """The policy, its actions, and the parameters of their distribution, once."""
        self._known = (policy, *policy.parameters_of(vector.environment.observation(vector.state)))
        return self._known


def _rollout(
    environment: TensorEnvironment,
    policy: Policy,
    limit: int | None,
    greedy: bool,
    begun: tuple[Tensor, ...],
    first: Tensor,
    noise: Tensor,
) -> tuple[tuple[Tensor, ...], list[Tensor]]:
    """(state, steps of the episodes, first states that were used, returns so far), after T steps; and what was played."""

    def step(now: tuple[Tensor, ...], e: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        state, steps, used, earned = now
        shown = environment.observation(state)
        actions, f = policy.parameters_of(shown)
        action = actions.mode(f) if greedy else actions.drawn(f, e)
        moved, reward, terminated = environment.step(state, actions.taken(action))
        steps, earned = steps + 1, earned + reward
        truncated = torch.zeros_like(terminated) if limit is None else steps >= limit
        over = terminated | truncated
        place = used + over.long().cumsum(0) - 1  # of the first state of an episode that begins
        ended = over.reshape(-1, *[1] * (moved.ndim - 1))
        log_prob, following = actions.log_prob(f, action), environment.observation(moved)
        out = (shown, action, log_prob, reward.double(), following, terminated, truncated, earned)
        now = (
            torch.where(ended, first[place.clamp(min=0)], moved),
            torch.where(over, 0, steps),
            used + over.sum(),
            torch.where(over, 0.0, earned),
        )
        return tuple(t.clone() for t in now), tuple(t.clone() for t in out)  # scan takes no views

    now, out = scan(step, begun, noise)
    return now, [t.transpose(0, 1).contiguous() for t in out]


def _line(error: Exception) -> str:
    """What an error says, in a line."""
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {said}"[:200]
