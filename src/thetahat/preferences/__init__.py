"""Preferences: P(a is preferred to b) = σ(r_a − r_b), of items, of features, of answers (Bradley and Terry
1952).

    comparisons, rankings, pairs, token_pairs, features      who was preferred to whom: the data
    bradley_terry, plackett_luce                             ratings of items, rewards linear in features
    ratings             items and answers with standard errors and ranks;   agreement: how often a model says what people said
    reward, embedding   reward models: a network's scalar of an answer
    dpo                 r = β log π(a) / π_ref(a): the policy itself is the reward model (Rafailov et al. 2023)
    beyond_dpo          other likelihoods of the same pairs: IPO, ORPO
    frontier            reward and gold reward of policies against their divergence, beside best-of-n
    labelled, kto       answers that are each desirable or not, without pairs: BCO's likelihood, KTO's objective

Read in this order. Built on the spine, `language` and `rl`.
"""

from .agreement import Judgement, judge
from .beyond_dpo import IPO, Chosen, OddsRatio, orpo
from .bradley_terry import BradleyTerry
from .comparisons import Preferences
from .dpo import DPO
from .embedding import embedded
from .features import Words
from .frontier import Frontier, best_of_n, frontier
from .kto import BCO, KTO, Prospect, kto
from .labelled import Labelled
from .pairs import Pair, Pairs
from .plackett_luce import PlackettLuce
from .rankings import Rankings
from .ratings import ratings, rewards
from .reward import Reward
from .token_pairs import TokenPairs

__all__ = [
    "BCO",
    "DPO",
    "IPO",
    "KTO",
    "BradleyTerry",
    "Chosen",
    "Frontier",
    "Judgement",
    "Labelled",
    "OddsRatio",
    "Pair",
    "Pairs",
    "PlackettLuce",
    "Preferences",
    "Prospect",
    "Rankings",
    "Reward",
    "TokenPairs",
    "Words",
    "best_of_n",
    "embedded",
    "frontier",
    "judge",
    "kto",
    "orpo",
    "ratings",
    "rewards",
]
