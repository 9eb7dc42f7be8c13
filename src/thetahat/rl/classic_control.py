"""The classic controls as tensors: gymnasium's dynamics, of all environments of a batch at once.

    CartPole-v1   Acrobot-v1   MountainCar-v0   MountainCarContinuous-v0   Pendulum-v1

Each computes what gymnasium's own does, operation by operation in the same order and precision: from the same state
and action the same observation to the last digit of its type (float32), the same reward and the same end. Only first
states are drawn by another generator.

References
----------
Barto, Sutton and Anderson (1983), Neuronlike adaptive elements that can solve difficult learning control problems;
Sutton (1996), Generalization in reinforcement learning; Moore (1990), Efficient memory-based learning for robot
control. The constants are those of Towers et al. (2024), Gymnasium.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..types import Space


@dataclass(frozen=True)
class CartPole:
    """A pole on a cart that is pushed left or right.

        ẍ = f − m l θ̈ cos θ / M,    θ̈ = (g sin θ − f cos θ) / (l (4/3 − m cos² θ / M)),    f = (±10 + m l θ̇² sin θ) / M

    by Euler's method, 0.02 s a step; state (x, ẋ, θ, θ̇). Terminated where |x| > 2.4 or |θ| > 12°.

    Parameters
    ----------
    sutton_barto_reward
        −1 at the end and 0 before it; False: 1 a step
    """

    sutton_barto_reward: bool = False
    max_episode_steps: ClassVar[int] = 500
    g: ClassVar[float] = 9.8
    m: ClassVar[float] = 0.1
    M: ClassVar[float] = 0.1 + 1.0
    l: ClassVar[float] = 0.5  # half of the pole
    ml: ClassVar[float] = 0.1 * 0.5
    tau: ClassVar[float] = 0.02

    @property
    def observation_space(self) -> Space:
        from gymnasium.spaces import Box

        high = np.array([2 * 2.4, np.inf, 2 * _DEGREES_12, np.inf], dtype=np.float32)
        return Box(-high, high, dtype=np.float32)

    @property
    def action_space(self) -> Space:
        return _discrete(2)

    def reset(self, n: int, generator: torch.Generator) -> Tensor:
        return _uniform((n, 4), -0.05, 0.05, generator)

    def observation(self, state: Tensor) -> Tensor:
        return state.float()

    def step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        velocity, angle, spin = state[:, 1], state[:, 2], state[:, 3]
        cos, sin = torch.cos(angle), torch.sin(angle)
        force = (action.double() - 0.5) * 20.0  # −10 and 10, exactly
        f = (force + self.ml * spin.square() * sin) / self.M
        twist = (self.g * sin - cos * f) / (self.l * (4.0 / 3.0 - self.m * cos.square() / self.M))
        push = f - self.ml * twist * cos / self.M
        state = state + self.tau * torch.stack((velocity, push, spin, twist), 1)
        terminated = (state[:, 0].abs() > 2.4) | (state[:, 2].abs() > _DEGREES_12)
        reward = -terminated.double() if self.sutton_barto_reward else torch.ones_like(velocity)
        return state, reward, terminated


@dataclass(frozen=True)
class _Valley:
    """What the two mountain cars share: state and observation (position, velocity), at rest at the bottom at first."""

    goal_velocity: float = 0.0

    @property
    def observation_space(self) -> Space:
        from gymnasium.spaces import Box

        low, high = np.array([-1.2, -0.07], dtype=np.float32), np.array([0.6, 0.07], dtype=np.float32)
        return Box(low, high, dtype=np.float32)

    def reset(self, n: int, generator: torch.Generator) -> Tensor:
        position = _uniform((n, 1), -0.6, -0.4, generator)
        return torch.cat((position, torch.zeros_like(position)), 1)

    def observation(self, state: Tensor) -> Tensor:
        return state.float()


@dataclass(frozen=True)
class MountainCar(_Valley):
    """A car in a valley whose engine is too weak to climb the right hill at once; state (position, velocity).

        v ← v + 0.001 (a − 1) − 0.0025 cos 3x,    x ← x + v,    a ∈ {0, 1, 2}

    within |v| ≤ 0.07 and −1.2 ≤ x ≤ 0.6; the left wall stops it. Terminated where x ≥ 0.5 and v ≥ goal_velocity; −1 a step.
    """

    max_episode_steps: ClassVar[int] = 200

    @property
    def action_space(self) -> Space:
        return _discrete(3)

    def step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, v = state.unbind(1)
        v = v + ((action - 1).double() * 0.001 + torch.cos(3 * x) * -0.0025)
        v = v.clamp(-0.07, 0.07)
        x = (x + v).clamp(-1.2, 0.6)
        v = torch.where((x == -1.2) & (v < 0), 0.0, v)
        terminated = (x >= 0.5) & (v >= self.goal_velocity)
        return torch.stack((x, v), 1), torch.full_like(x, -1.0), terminated


@dataclass(frozen=True)
class MountainCarContinuous(_Valley):
    """The same car with a throttle, a ∈ [−1, 1].

        v ← v + 0.0015 a − 0.0025 cos 3x,    x ← x + v

    Terminated where x ≥ 0.45 and v ≥ goal_velocity; 100 there, less 0.1 a² a step.

    gymnasium computes in float32, in which it keeps the state; not so the cosine, nor a first state. Sums of two
    numbers of float32 are rounded as there when they are made in float64 and rounded then.
    """

    max_episode_steps: ClassVar[int] = 999

    @property
    def action_space(self) -> Space:
        return _box(1.0)

    def step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, v = state.unbind(1)
        a = action[:, 0]
        fresh = x != x.float()  # only a first state has more digits than float32
        slope = 0.0025 * torch.cos(torch.where(fresh, 3 * x, (3 * x.float()).double()))
        # numpy rounds the force before the difference, unless it was cut off at ±1 and so is a Python number
        inside = (a * 0.0015 - slope.float()).double()
        outside = (a.double().clamp(-1.0, 1.0) * 0.0015 - slope).float().double()
        v = v + torch.where(a.abs() > 1, outside, inside)
        v = v.float().clamp(-0.07, 0.07)
        x = (x + v).float().clamp(-1.2, 0.6)
        v = torch.where((x == _LEFT) & (v < 0), 0.0, v)
        terminated = (x >= 0.45) & (v >= self.goal_velocity)
        reward = 100.0 * terminated.double() - a.double().square() * 0.1
        return torch.stack((x, v), 1).double(), reward, terminated


@dataclass(frozen=True)
class Pendulum:
    """A pendulum to be swung up and held by a torque u, |u| ≤ 2; state (θ, θ̇), 0 is upright.

        θ̇ ← θ̇ + (3g/2 sin θ + 3u) 0.05,    θ ← θ + 0.05 θ̇,    reward −(θ² + 0.1 θ̇² + 0.001 u²) before the step, θ in [−π, π)

    within |θ̇| ≤ 8. Shown: (cos θ, sin θ, θ̇). Never terminated.
    """

    g: float = 10.0
    max_episode_steps: ClassVar[int] = 200

    @property
    def observation_space(self) -> Space:
        from gymnasium.spaces import Box

        high = np.array([1.0, 1.0, 8.0], dtype=np.float32)
        return Box(-high, high, dtype=np.float32)

    @property
    def action_space(self) -> Space:
        return _box(2.0)

    def reset(self, n: int, generator: torch.Generator) -> Tensor:
        high = torch.tensor([math.pi, 1.0], dtype=torch.float64)
        return _uniform((n, 2), -high, high, generator)

    def observation(self, state: Tensor) -> Tensor:
        angle, spin = state.unbind(1)
        return torch.stack((torch.cos(angle), torch.sin(angle), spin), 1).float()

    def step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        angle, spin = state.unbind(1)
        u = action[:, 0].clamp(-2.0, 2.0)  # float32, as are 0.001 u² and 3u
        bent = torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
        cost = bent.square() + 0.1 * spin.square() + 0.001 * u.square()
        spin = spin + (3 * self.g / 2 * torch.sin(angle) + 3.0 * u) * 0.05
        spin = spin.clamp(-8.0, 8.0)
        state = torch.stack((angle + spin * 0.05, spin), 1)
        return state, -cost, torch.zeros_like(spin, dtype=torch.bool)


@dataclass(frozen=True)
class Acrobot:
    """Two links that hang down, with a torque τ ∈ {−1, 0, 1} at the joint between them; state (θ₁, θ₂, θ̇₁, θ̇₂).

        θ̈₂ = (τ + d₂/d₁ φ₁ − θ̇₁² sin θ₂ / 2 − φ₂) / (5/4 − d₂²/d₁),    θ̈₁ = −(d₂ θ̈₂ + φ₁) / d₁

    with Sutton and Barto's d and φ, by one step of Runge and Kutta's method of order 4 over 0.2 s. Shown: cosine and
    sine of both angles, and the velocities. Terminated where the tip is a link's length above the first joint; −1 a step
    until then.
    """

    max_episode_steps: ClassVar[int] = 500

    @property
    def observation_space(self) -> Space:
        from gymnasium.spaces import Box

        high = np.array([1.0, 1.0, 1.0, 1.0, 4 * np.pi, 9 * np.pi], dtype=np.float32)
        return Box(-high, high, dtype=np.float32)

    @property
    def action_space(self) -> Space:
        return _discrete(3)

    def reset(self, n: int, generator: torch.Generator) -> Tensor:
        return _uniform((n, 4), -0.1, 0.1, generator).float().double()

    def observation(self, state: Tensor) -> Tensor:
        angles = state[:, :2]
        turned = torch.stack((torch.cos(angles), torch.sin(angles)), 2).flatten(1)
        return torch.cat((turned, state[:, 2:]), 1).float()

    def step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        torque, dt = action.double() - 1.0, 0.2
        k1 = self._slope(state, torque)
        k2 = self._slope(state + dt / 2 * k1, torque)
        k3 = self._slope(state + dt / 2 * k2, torque)
        k4 = self._slope(state + dt * k3, torque)
        state = state + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        angles = _wrapped(state[:, :2])
        one, two = angles.unbind(1)
        spins = (
            state[:, 2].clamp(-4 * math.pi, 4 * math.pi),
            state[:, 3].clamp(-9 * math.pi, 9 * math.pi),
        )
        terminated = -torch.cos(one) - torch.cos(two + one) > 1.0
        return torch.stack((one, two, *spins), 1), terminated.double() - 1.0, terminated

    def _slope(self, state: Tensor, torque: Tensor) -> Tensor:
        """(θ̇₁, θ̇₂, θ̈₁, θ̈₂): masses, lengths and moments of inertia are 1, centres of mass at 0.5, and multiplying by
        them changes no digit."""
        one, two, spin1, spin2 = state.unbind(1)
        cos2, sin2 = torch.cos(two), torch.sin(two)
        d1 = 0.25 + (1.25 + 2 * 0.5 * cos2) + 1.0 + 1.0
        d2 = (0.25 + 0.5 * cos2) + 1.0
        phi2 = 0.5 * 9.8 * torch.cos(one + two - math.pi / 2)
        phi1 = (
            -0.5 * spin2.square() * sin2
            - 2 * 0.5 * spin2 * spin1 * sin2
            + 1.5 * 9.8 * torch.cos(one - math.pi / 2)
            + phi2
        )
        twist2 = (torque + d2 / d1 * phi1 - 0.5 * spin1.square() * sin2 - phi2) / (
            0.25 + 1.0 - d2.square() / d1
        )
        return torch.stack((spin1, spin2, -(d2 * twist2 + phi1) / d1, twist2), 1)


CLASSIC: dict[str, type] = {
    "CartPole-v1": CartPole,
    "Acrobot-v1": Acrobot,
    "MountainCar-v0": MountainCar,
    "MountainCarContinuous-v0": MountainCarContinuous,
    "Pendulum-v1": Pendulum,
}

_DEGREES_12 = 12 * 2 * math.pi / 360
_LEFT = float(np.float32(-1.2))


def _wrapped(angle: Tensor) -> Tensor:
    """Within [−π, π], by whole turns: as many as it takes."""
    turn = 2 * math.pi
    while bool((angle > math.pi).any()):
        angle = torch.where(angle > math.pi, angle - turn, angle)
    while bool((angle < -math.pi).any()):
        angle = torch.where(angle < -math.pi, angle + turn, angle)
    return angle


def _uniform(
    shape: tuple[int, ...], low: Tensor | float, high: Tensor | float, generator: torch.Generator
) -> Tensor:
    drawn = torch.rand(shape, dtype=torch.float64, device=generator.device, generator=generator)
    return low + (high - low) * drawn


def _discrete(n: int) -> Space:
    from gymnasium.spaces import Discrete

    return Discrete(n)


def _box(most: float) -> Space:
    from gymnasium.spaces import Box

    return Box(-most, most, (1,), np.float32)
