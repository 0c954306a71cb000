"""Rewards: text and reference in, one number out; it knows no trainer, engine or cluster.

Importing this package loads neither numpy, scipy nor math-verify: each reward fetches what it needs when it is built.
"""

from rewards.core.base import Reason, RewardError, RewardFunction, RewardRequest, RewardResult
from rewards.core.config import RewardConfig
from rewards.core.own import RewardInput
from rewards.mixed import MixedReward

__all__ = [
    "MixedReward",
    "Reason",
    "RewardConfig",
    "RewardError",
    "RewardFunction",
    "RewardInput",
    "RewardRequest",
    "RewardResult",
]
