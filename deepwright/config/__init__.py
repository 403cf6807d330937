"""What a model is, without torch: plans, help texts and config errors must answer at once."""

from deepwright.config.architecture import DENSE, FP8_BLOCK, Llama3Scaling, ModelConfig, RopeScaling
from deepwright.config.presets import PRESETS, preset

__all__ = ["DENSE", "FP8_BLOCK", "PRESETS", "Llama3Scaling", "ModelConfig", "RopeScaling", "preset"]
