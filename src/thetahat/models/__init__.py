"""p(data | θ): one readable file a model."""

from ..made import record
from .actions import Discrete, MultiDiscrete, SquashedNormal
from .autoregressive import Autoregressive
from .base import Model
from .bound import Bound
from .conditional import Conditional
from .density import Density
from .dequantised import Dequantised
from .diffusion import Diffusion
from .dpo import DPO
from .flow import Flow
from .fully_visible import FullyVisible
from .mixture import Mixture
from .policy import Policy, Value
from .preference import BradleyTerry
from .probability_flow import ProbabilityFlow
from .ranking import PlackettLuce
from .regression import Regression
from .return_distribution import C51, IQN, QRDQN
from .schedule import Cosine, Linear, Schedule
from .tempered import Tempered
from .vae import VAE

record(Autoregressive, Conditional, Diffusion, FullyVisible, Policy, ProbabilityFlow, Tempered, VAE, Value)
record(C51, IQN, QRDQN, Discrete, MultiDiscrete, SquashedNormal)
record(Flow, by=("spline", "affine"))
record(Cosine, Linear, suffix="Schedule")

__all__ = [
    "DPO",
    "C51",
    "IQN",
    "QRDQN",
    "VAE",
    "Autoregressive",
    "Bound",
    "BradleyTerry",
    "Conditional",
    "Density",
    "Dequantised",
    "Diffusion",
    "Flow",
    "FullyVisible",
    "Mixture",
    "Model",
    "PlackettLuce",
    "Policy",
    "ProbabilityFlow",
    "Regression",
    "Schedule",
    "Tempered",
    "Value",
]
