"""Data of which everything is known: the best denoisers, the densities, and the paths of the probability
flow in closed form."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MEAN = torch.tensor([0.5, -1.0, 0.2], dtype=torch.float64)
FACTOR = torch.tensor([[0.8, 0.0, 0.0], [0.5, 0.4, 0.0], [-0.3, 0.2, 1.1]], dtype=torch.float64)


class Gaussian(nn.Module):
    """x ~ N(m, C):  ε̂ = σ (α²C + σ²I)⁻¹ (z − αm),  x̂ = (z − σε̂)/α,  v̂ = αε̂ − σx̂,  û = ε̂ − x̂."""

    def __init__(self, mean: Tensor = MEAN, factor: Tensor = FACTOR, predict: str = "epsilon"):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("C", factor @ factor.T)
        self.predict, self.dimensions = predict, len(mean)

    def forward(self, z: Tensor, log_snr: Tensor) -> Tensor:
        a2, s2 = torch.sigmoid(log_snr)[:, None], torch.sigmoid(-log_snr)[:, None]
        eigen, Q = torch.linalg.eigh(self.C)
        centred = (z - a2.sqrt() * self.mean) @ Q
        epsilon = s2.sqrt() * (centred / (a2 * eigen + s2)) @ Q.T
        if self.predict == "epsilon":
            return epsilon
        x = self.mean + a2.sqrt() * (centred * eigen / (a2 * eigen + s2)) @ Q.T
        return epsilon - x if self.predict == "velocity" else a2.sqrt() * epsilon - s2.sqrt() * x

    def log_prob(self, y: Tensor, extra: float = 0.0) -> Tensor:
        """log N(y; m, C + extra·I)."""
        C = self.C + extra * torch.eye(len(self.mean), dtype=torch.float64)
        return torch.distributions.MultivariateNormal(self.mean, C).log_prob(y)

    def flow(self, z: Tensor, low: float, high: float) -> Tensor:
        """z_0 of z_1 along the probability flow: each eigenvector's coordinate keeps its quantile."""
        eigen, Q = torch.linalg.eigh(self.C)
        first, last = (torch.sigmoid(torch.tensor(each, dtype=torch.float64)) for each in (low, high))
        sd = [(a2 * eigen + 1 - a2).sqrt() for a2 in (first, last)]
        return last.sqrt() * self.mean + (((z - first.sqrt() * self.mean) @ Q) / sd[0] * sd[1]) @ Q.T


class Independent(nn.Module):
    """Pixels that are independent with probabilities p (d, L): the best logits for predict="levels" are
    log p, whatever z."""

    def __init__(self, p: Tensor):
        super().__init__()
        self.register_buffer("log_p", p.log())
        self.dimensions = len(p)

    def forward(self, z: Tensor, log_snr: Tensor) -> Tensor:
        return self.log_p.expand(len(z), -1, -1)


class Classes(nn.Module):
    """y | c ~ N(m_c, S), c with probability p_c. Of a label below C the best ε̂ is σ V⁻¹ (z − αm_c), V = α²S
    + σ²I; of the label C, no class, it is the mixture's, Σ_c p(c | z) ε̂_c."""

    def __init__(self, means: Tensor, factor: Tensor, prior: Tensor):
        super().__init__()
        self.register_buffer("means", means)
        self.register_buffer("S", factor @ factor.T)
        self.register_buffer("prior", prior)
        self.classes, self.dimensions = means.shape

    def forward(self, z: Tensor, log_snr: Tensor, label: Tensor) -> Tensor:
        a2, s2 = torch.sigmoid(log_snr)[:, None, None], torch.sigmoid(-log_snr)[:, None, None]
        V = a2 * self.S + s2 * torch.eye(self.dimensions, dtype=z.dtype)
        apart = z[:, None] - a2.sqrt() * self.means  # (n, C, d)
        each = torch.linalg.solve(V, apart.mT).mT
        posterior = torch.softmax(self.prior.log() - 0.5 * (apart * each).sum(-1), 1)
        own = torch.cat(
            [torch.eye(self.classes, dtype=z.dtype), torch.zeros(1, self.classes, dtype=z.dtype)]
        )[label]
        weight = torch.where((label < self.classes)[:, None], own, posterior)
        return s2[:, 0].sqrt() * (weight[..., None] * each).sum(1)

    def at(self, label: int, alpha: float = 1.0, extra: float = 0.0) -> torch.distributions.Distribution:
        """N(αm_c, α²S + extra I)."""
        V = alpha**2 * self.S + extra * torch.eye(self.dimensions, dtype=torch.float64)
        return torch.distributions.MultivariateNormal(alpha * self.means[label], V)

    def mixture(self, alpha: float = 1.0, extra: float = 0.0) -> torch.distributions.Distribution:
        """Σ_c p_c N(αm_c, α²S + extra I)."""
        V = alpha**2 * self.S + extra * torch.eye(self.dimensions, dtype=torch.float64)
        each = torch.distributions.MultivariateNormal(alpha * self.means, V.expand(self.classes, -1, -1))
        return torch.distributions.MixtureSameFamily(torch.distributions.Categorical(self.prior), each)
