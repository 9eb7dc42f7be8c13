"""Policies: a policy-gradient step is a weighted maximum-likelihood step on the policy's own rollouts.

    ∇E[R] = E[Σ_t w_t ∇log π(a_t | s_t)],      w_t a return less a baseline, or PPO's clipped ratio times an advantage

    environments        gymnasium's, many at once;   masks: the actions that they allow;   wrapping: stacked frames, Atari
    tensor_environments environments that are tensors;   classic_control: gymnasium's classic controls as such
    snapshot            their states, to go on where a run ended
    rollouts            episodes of the policy as it stands: the data;   reward_scale: rewards over their spread
    actions, policy     π(a | s), and the value of a state
    returns             REINFORCE's weights (Williams 1992);   advantage: GAE, A2C, PPO (Schulman et al. 2016, 2017)
    stack, seeds        several seeds trained together, each as it is alone
    replay              transitions of all policies so far: the data of value distributions
    performance         what is said of an algorithm over several runs (Agarwal et al. 2021)
    return_distribution C51, QR-DQN, IQN: the distribution of the return (Bellemare et al. 2017)

Read in this order. Built on the spine alone.
"""

from ..made import record
from . import performance
from .actions import Discrete, MultiDiscrete, SquashedNormal
from .advantage import GAE, Advantage, Clipped
from .policy import Policy, Value
from .replay import Replay
from .return_distribution import C51, IQN, QRDQN
from .returns import RewardToGo
from .rollouts import Rollouts
from .seeds import stacked
from .stack import Seeds
from .tensor_environments import TensorEnvironment

record(C51, IQN, QRDQN, Discrete, MultiDiscrete, Policy, Seeds, SquashedNormal, Value)

__all__ = [
    "C51",
    "GAE",
    "IQN",
    "QRDQN",
    "Advantage",
    "Clipped",
    "Discrete",
    "MultiDiscrete",
    "Policy",
    "Replay",
    "RewardToGo",
    "Rollouts",
    "Seeds",
    "SquashedNormal",
    "TensorEnvironment",
    "Value",
    "performance",
    "stacked",
]
