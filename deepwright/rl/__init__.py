"""Reinforcement learning by verifiable rewards: rollouts, group advantages, named losses, the GRPO loop. Sees a Sampler, not the engine."""

from deepwright.rl.config import R1_ZERO, GRPOConfig
from deepwright.rl.grpo import Learner, train_grpo

__all__ = ["R1_ZERO", "GRPOConfig", "Learner", "train_grpo"]
