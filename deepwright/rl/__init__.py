"""Reinforcement learning by verifiable rewards: rollouts, group advantages, named losses, the GRPO loop. Sees a Sampler, not the engine."""

from deepwright.rl.alarms import AlarmConfig
from deepwright.rl.config import PRESETS, R1_ZERO, GRPOConfig
from deepwright.rl.grpo import Learner, train_grpo

__all__ = ["PRESETS", "R1_ZERO", "AlarmConfig", "GRPOConfig", "Learner", "train_grpo"]
