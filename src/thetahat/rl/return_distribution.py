"""The distribution of the return, given a state and an action: as masses on atoms (C51) or as quantiles
(QR-DQN, IQN).

    Z(s, a) = R + γ R' + γ² R'' + …,      Z(s, a) ~ R + γ Z(s', a')        (Bellman's equation for the whole distribution)

What is observed is the right-hand side: `data.Replay` plays, and makes of each transition a sample of it, the
"target" of the batch, with a frozen copy of the model (`projected`). Each model here says how probable that
is, and nothing else is maximised.

References
----------
Bellemare, Dabney and Munos (2017), A distributional perspective on reinforcement learning; Dabney, Rowland,
Bellemare and Munos (2018), Distributional reinforcement learning with quantile regression; Dabney, Ostrovski,
Silver and Munos (2018), Implicit quantile networks.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.batch import Batch
from ..data.devices import sent
from ..errors import BadArgument, ModelError
from ..models.base import Model, applied, unpadded
from .masks import best


class ReturnDistribution(Model):
    """A distribution over finitely many returns for each action; `act` takes the action with the best of
    them.

    A subclass says `distribution(state)` and `log_prob(batch)`, and with `masses` what the latter takes.
    `risk` is None (actions are valued by the mean of their return) or a level α (by its mean in the worst α
    of cases), both where it acts and in the action that the target follows.
    """

    target = "target"

    def __init__(self, network: nn.Module, risk: float | None):
        super().__init__()
        if not isinstance(network, nn.Module):
            raise BadArgument(
                f"{type(self).__name__}(network): network is {type(network).__name__}, not a torch.nn.Module."
            )
        if risk is not None and not 0 < risk <= 1:
            raise BadArgument(f"risk={risk}. Accepted: a level in (0, 1], or None for the mean.")
        self.network, self.risk = network, risk

    @abstractmethod
    def distribution(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """(returns, their masses), (…, A, K) each."""

    def masses(self, returns: Tensor, mass: Tensor) -> Tensor:
        """What `log_prob` takes for its target, (n, K), of returns (n, K) and their masses: here the returns
        themselves."""
        return returns

    @torch.no_grad()
    def projected(
        self,
        reward: Tensor,
        discount: Tensor,
        following: Tensor,
        terminated: Tensor,
        action: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """What Bellman's right-hand side says of the return of each transition, (n, K): the data, without
        gradient.

        Parameters
        ----------
        reward, discount
            (n,), Σ_{j<k} γʲ R_j and γᵏ, after k steps
        following
            (n, …), the state then; nothing is to come from it where `terminated`, (n,)
        action
            (n,), taken there; None: the one that this model takes
        mask
            (n, A), actions that are allowed there; None: all
        """
        values, mass = self.distribution(following)
        if action is None:
            worth = (mass * values).sum(-1) if self.risk is None else self.worth(following)
            action = best(worth, mask)
        kept = torch.where(terminated, torch.zeros_like(discount), discount).to(values.dtype)
        returns = reward.to(values.dtype)[..., None] + kept[..., None] * _of_action(values, action)
        return self.masses(returns, _of_action(mass, action))

    @torch.no_grad()
    def q(self, state: Tensor) -> Tensor:
        """E Z(s, a), (…, A)."""
        values, mass = self.distribution(state)
        return (mass * values).sum(-1)

    @torch.no_grad()
    def cvar(self, state: Tensor, level: float) -> Tensor:
        """The mean of Z(s, a) in the worst `level` of cases, (…, A)."""
        return conditional_value_at_risk(*self.distribution(state), level)

    def worth(self, state: Tensor) -> Tensor:
        """What `act` makes as large as can be, (…, A): q, or the CVaR at `risk`."""
        return self.q(state) if self.risk is None else self.cvar(state, self.risk)

    def act(
        self,
        state: Tensor,
        generator: torch.Generator | None = None,
        *,
        greedy: bool = True,
        mask: Tensor | None = None,
    ) -> np.ndarray:
        """The best action at each state, (n,), of those that the mask, (n, A), allows. There is nothing to draw: what
        explores is `Replay`."""
        return best(self.worth(state), mask).cpu().numpy()

    def _arranged(self, f: Tensor, leading: tuple[int, ...], K: int) -> Tensor:
        """The network's output (…, A·K) as (…, A, K)."""
        if tuple(f.shape[:-1]) != leading or f.shape[-1] % K or not f.shape[-1]:
            shown = ", ".join(map(str, leading))
            raise ModelError(
                f"the network gives a tensor of shape {tuple(f.shape)} for states of {leading}. Accepted: "
                f"({shown}, A·{K}), A actions."
            )
        out: Tensor = f.unflatten(-1, (-1, K))
        return out


class C51(ReturnDistribution):
    """Masses on K fixed returns: a categorical likelihood of a target that is itself a distribution.

        log p(m | s, a) = Σ_k m_k log p_k(s, a),      p(s, a) = softmax f(s)_a,      z_k = low + kΔ,   Δ = (high − low)/(K − 1)

    m is the mass of R + γZ(s', a') projected on the atoms: each return between two of them is shared so that
    its mean stays, and those beyond the ends go to the ends. The maximum is p = E m; Σ_k m_k log p_k is −KL(m
    ‖ p) − H(m).

    Parameters
    ----------
    network
        s (…, d) → (…, A·K); for numbered states, `nn.Embedding(S, A·K)`
    low, high
        the returns between which the atoms lie; what is worth less or more than that cannot be told from the
        ends
    atoms
        K
    risk
        α of the CVaR by which actions are chosen; None: the mean

    Raises
    ------
    BadArgument
        low is not below high, atoms < 2, or risk outside (0, 1]
    ModelError
        the network's output does not match the terms

    References
    ----------
    Bellemare, Dabney and Munos (2017), A distributional perspective on reinforcement learning, algorithm 1.

    Examples
    --------
    >>> model = C51(nn.Linear(4, 2 * 5), 0.0, 10.0, atoms=5)
    >>> reward, discount = torch.tensor([1.0]), torch.tensor([0.5])
    >>> model.projected(reward, discount, torch.zeros(1, 4), torch.tensor([True])).round(decimals=3).tolist()
    [[0.6000000238418579, 0.4000000059604645, 0.0, 0.0, 0.0]]
    """

    measure = "mass"
    atoms: Tensor

    def __init__(
        self, network: nn.Module, low: float, high: float, atoms: int = 51, *, risk: float | None = None
    ):
        super().__init__(network, risk)
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise BadArgument(f"low={low}, high={high}. Accepted: finite numbers, low < high.")
        if atoms < 2:
            raise BadArgument(f"atoms={atoms}. Accepted: 2 or more.")
        self.low, self.high = float(low), float(high)
        self.register_buffer("atoms", torch.linspace(self.low, self.high, atoms))

    def logits(self, state: Tensor) -> Tensor:
        """f(s), (…, A, K)."""
        f = applied(self.network, state)
        return self._arranged(f, tuple(f.shape[:-1]), len(self.atoms))

    def distribution(self, state: Tensor) -> tuple[Tensor, Tensor]:
        mass = torch.softmax(self.logits(state), -1)
        return self.atoms.to(mass).expand_as(mass), mass

    def log_prob(self, batch: Batch) -> Tensor:
        """Σ_k m_k log p_k(s, a) of each term, (n,); the target m (n, K)."""
        f = self._arranged(applied(self.network, batch["state"]), batch.shape, len(self.atoms))
        out = (batch["target"] * torch.log_softmax(_of_action(f, batch["action"]), -1)).sum(-1)
        return unpadded(out, batch)

    def masses(self, returns: Tensor, mass: Tensor) -> Tensor:
        """m, (n, K): the masses of the returns projected on the atoms."""
        return project(returns, mass, self.low, self.high, len(self.atoms))


class Quantiles(ReturnDistribution):
    """Returns at levels τ_k, each with mass 1/N. A subclass says `distribution(state)` and `log_prob(batch)`;
    the target is of samples."""

    measure = "density"

    def __init__(self, network: nn.Module, levels: int, kappa: float, risk: float | None):
        super().__init__(network, risk)
        if levels < 1:
            raise BadArgument(f"levels={levels}. Accepted: 1 or more.")
        if not 0 <= kappa < math.inf:
            raise BadArgument(f"kappa={kappa}. Accepted: 0 (the check loss itself) or a positive number.")
        self.levels, self.kappa = levels, float(kappa)

    def _composite(self, batch: Batch, theta: Tensor, tau: Tensor) -> Tensor:
        """Σ_k (1/M) Σ_j log p(y_j | θ_k, τ_k), (n,): θ (n, N), τ (n, N) or (N,), y the target, (n, M)."""
        each = log_quantile(batch["target"].unsqueeze(-2), theta.unsqueeze(-1), tau.unsqueeze(-1), self.kappa)
        return unpadded(each.mean(-1).sum(-1), batch)


class QRDQN(Quantiles):
    """Quantiles of the return at N fixed levels: each is the maximum likelihood of an asymmetric Laplace
    distribution.

        log p(y | s, a) = Σ_k (1/M) Σ_j log p(y_j | θ_k(s, a), τ_k),      τ_k = (2k − 1)/2N
        log p(y | θ, τ) = −log C(τ, κ) − |τ − 1[y < θ]| · h_κ(y − θ),     h_κ(u) = u²/2κ where |u| ≤ κ, |u| − κ/2 beyond

    y_j = R + γθ_j(s', a') are samples of Bellman's right-hand side, M of them, each of weight 1/M. At κ = 0
    the density is `families.AsymmetricLaplace(τ)` of unit scale, and its maximum the τ-quantile; κ > 0 rounds
    its peak off (and moves the maximum towards the mean on the scale of κ).

    Parameters
    ----------
    network
        s (…, d) → (…, A·N); for numbered states, `nn.Embedding(S, A·N)`
    levels
        N
    kappa
        κ, in units of the return
    risk
        α of the CVaR by which actions are chosen; None: the mean

    Raises
    ------
    BadArgument, ModelError
        as in `C51`

    References
    ----------
    Dabney, Rowland, Bellemare and Munos (2018), Distributional reinforcement learning with quantile
    regression, eqs. 8 to 10.

    Examples
    --------
    >>> model = QRDQN(nn.Embedding(3, 2 * 8), levels=8)
    >>> tuple(model.q(torch.arange(3)).shape), model.tau.tolist()[:2]
    ((3, 2), [0.0625, 0.1875])
    """

    tau: Tensor

    def __init__(
        self, network: nn.Module, levels: int = 50, *, kappa: float = 1.0, risk: float | None = None
    ):
        super().__init__(network, levels, kappa, risk)
        self.register_buffer("tau", midpoints(levels))

    def distribution(self, state: Tensor) -> tuple[Tensor, Tensor]:
        f = applied(self.network, state)
        values = self._arranged(f, tuple(f.shape[:-1]), self.levels)
        return values, torch.full_like(values, 1 / self.levels)

    def log_prob(self, batch: Batch) -> Tensor:
        """The log-likelihood of the target's samples (n, M), summed over levels, (n,)."""
        f = self._arranged(applied(self.network, batch["state"]), batch.shape, self.levels)
        return self._composite(batch, _of_action(f, batch["action"]), self.tau.to(f))


class IQN(Quantiles):
    """The quantile function of the return, at every level: τ is an input of the network.

        θ_τ(s) = head(ψ(s) ∘ φ(τ)),      φ(τ) = relu(b + W (cos πiτ)_{i=0…C−1})
        log p(y | s, a) = Σ_k (1/M) Σ_j log p(y_j | θ_{τ_k}(s, a), τ_k),      τ_k ~ Uniform(0, 1), drawn anew at each call

    with the density of `QRDQN`. What is asked of it is answered at the midpoints (2k − 1)/2M of M equal parts
    of (0, 1): the mean, the target's samples, and for CVaR_α those of (0, α).

    Parameters
    ----------
    features
        ψ, s (…, d) → (…, width)
    head
        (…, width) → (…, A)
    width
        of ψ(s) and φ(τ)
    levels
        N, drawn for each term of a step
    samples
        M
    cosines
        C
    kappa, risk
        as in `QRDQN`
    seed
        of W and b

    Raises
    ------
    BadArgument, ModelError
        as in `C51`

    References
    ----------
    Dabney, Ostrovski, Silver and Munos (2018), Implicit quantile networks for distributional reinforcement
    learning, eqs. 3 and 4.

    Examples
    --------
    >>> model = IQN(nn.Embedding(3, 16), nn.Linear(16, 2), 16, samples=32)
    >>> [tuple(each.shape) for each in model.distribution(torch.arange(3))]
    [(3, 2, 32), (3, 2, 32)]
    """

    kind: ClassVar[str] = "estimate"  # of the sum over all levels, from N of them
    harmonics: Tensor

    def __init__(
        self,
        features: nn.Module,
        head: nn.Module,
        width: int,
        *,
        levels: int = 16,
        samples: int = 32,
        cosines: int = 64,
        kappa: float = 1.0,
        risk: float | None = None,
        seed: int = 0,
    ):
        super().__init__(features, levels, kappa, risk)
        for name, value in (("width", width), ("samples", samples), ("cosines", cosines)):
            if value < 1:
                raise BadArgument(f"{name}={value}. Accepted: 1 or more.")
        self.head, self.samples = head, samples
        self.embedding = nn.utils.skip_init(nn.Linear, cosines, width)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for p in self.embedding.parameters():
                p.uniform_(-1 / math.sqrt(cosines), 1 / math.sqrt(cosines), generator=generator)
        self.register_buffer("harmonics", math.pi * torch.arange(cosines))

    def quantiles(self, state: Tensor, tau: Tensor) -> Tensor:
        """θ_τ(s, a), (…, A, N), at levels (…, N) or (N,)."""
        device = self.harmonics.device
        psi, tau = applied(self.network, sent(state, device)), sent(tau, device)
        if psi.shape[-1] != self.embedding.out_features:
            raise ModelError(f"features have {psi.shape[-1]} columns; width={self.embedding.out_features}.")
        phi = F.relu(
            self.embedding(torch.cos(tau.to(psi.dtype)[..., None] * self.harmonics.to(psi.dtype)))
        )  # (…, N, width)
        out: Tensor = self.head(psi.unsqueeze(-2) * phi).transpose(-1, -2).to(state.device)
        return out

    def distribution(self, state: Tensor) -> tuple[Tensor, Tensor]:
        values = self.quantiles(state, midpoints(self.samples))
        return values, torch.full_like(values, 1 / self.samples)

    @torch.no_grad()
    def cvar(self, state: Tensor, level: float) -> Tensor:
        """(1/α) ∫_0^α θ_τ dτ, (…, A), α the level."""
        return self.quantiles(state, level * midpoints(self.samples)).mean(-1)

    def log_prob(self, batch: Batch, generator: torch.Generator | None = None) -> Tensor:
        """The log-likelihood of the target's samples (n, M), summed over levels drawn from the generator or
        torch's own, (n,)."""
        y = batch["target"]
        tau = torch.rand((*batch.shape, self.levels), generator=generator, dtype=y.dtype, device=y.device)
        theta = self.quantiles(batch["state"], tau)
        if tuple(theta.shape[:-2]) != batch.shape:
            raise ModelError(
                f"features and head give a tensor of shape {tuple(theta.shape)} for terms of shape "
                f"{batch.shape}."
            )
        return self._composite(batch, _of_action(theta, batch["action"]), tau)


# ---- the arithmetic of distributions -----------------------------------------------------------------------


def project(returns: Tensor, mass: Tensor, low: float, high: float, K: int) -> Tensor:
    """Mass on returns anywhere, moved to K even atoms from low to high so that it stays whole, and its mean
    with it inside the ends.

        m_k = Σ_j p_j · max(0, 1 − |[z_j] − z_k| / Δ),      [z] = z between low and high

    Parameters
    ----------
    returns, mass
        z and p, (…, J)

    Returns
    -------
    Tensor
        (…, K)

    References
    ----------
    Bellemare, Dabney and Munos (2017), A distributional perspective on reinforcement learning, eq. 7.

    Examples
    --------
    >>> project(torch.tensor([0.5, 2.0, 9.0]), torch.tensor([0.5, 0.25, 0.25]), 0.0, 2.0, 3).tolist()
    [0.25, 0.25, 0.5]
    """
    place = ((returns.clamp(low, high) - low) * ((K - 1) / (high - low))).clamp(0, K - 1)
    below = place.floor()
    share = place - below  # 0 where a return lies on an atom, which then takes all of it
    at = below.long()
    out = torch.zeros((*returns.shape[:-1], K), dtype=mass.dtype, device=mass.device)
    out.scatter_add_(-1, at, mass * (1 - share))
    return out.scatter_add_(-1, (at + 1).clamp(max=K - 1), mass * share)


def log_quantile(y: Tensor, theta: Tensor, tau: Tensor, kappa: float) -> Tensor:
    """The log density whose negative is the (Huber-smoothed) check loss, with its normaliser.

    log p(y | θ, τ) = −log C(τ, κ) − |τ − 1[y < θ]| · h_κ(y − θ),      h_κ(u) = u²/2κ where |u| ≤ κ, |u| − κ/2 beyond
    C(τ, κ) = c(τ) + c(1 − τ),      c(t) = √(πκ/2t)·erf √(κt/2) + e^(−κt/2)/t;      C(τ, 0) = 1/(τ(1 − τ))
    """
    u = y - theta
    size = u.abs()
    if kappa > 0:
        inner = size.clamp(max=kappa)
        size = inner * (size - inner / 2) / kappa

    def c(t: Tensor) -> Tensor:
        return (
            torch.sqrt(math.pi * kappa / (2 * t)) * torch.erf(torch.sqrt(kappa * t / 2))
            + torch.exp(-kappa * t / 2) / t
        )

    tau = tau.clamp(1e-6, 1 - 1e-6)  # a drawn level may be 0, where there is no density
    return -torch.log(c(tau) + c(1 - tau)) - torch.where(u < 0, 1 - tau, tau) * size


def conditional_value_at_risk(values: Tensor, mass: Tensor, level: float) -> Tensor:
    """The mean in the worst `level` of cases, (…,), of masses (…, K) on values (…, K).

        CVaR_α = (1/α) ∫_0^α F⁻¹(u) du

    References
    ----------
    Rockafellar and Uryasev (2000), Optimization of conditional value-at-risk.

    Examples
    --------
    >>> conditional_value_at_risk(torch.tensor([10.0, -4.0, 1.0]), torch.tensor([0.5, 0.1, 0.4]), 0.2).item()
    -1.5
    """
    values, order = values.sort(-1)
    mass = mass.gather(-1, order)
    before = mass.cumsum(-1) - mass
    taken = (level - before).clamp(min=0).minimum(mass)
    return (taken * values).sum(-1) / level


def midpoints(N: int) -> Tensor:
    """(2k − 1)/2N, k = 1 … N: the levels at which N values are nearest to a distribution, in Wasserstein's
    distance."""
    return (2 * torch.arange(N) + 1) / (2 * N)


def _of_action(values: Tensor, action: Any) -> Tensor:
    """(…, K) of (…, A, K)."""
    index = torch.as_tensor(action, device=values.device).long()[..., None, None]
    return values.gather(-2, index.expand(*index.shape[:-1], values.shape[-1])).squeeze(-2)
