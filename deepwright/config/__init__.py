"""What a model is, without torch: plans, help texts and config errors must answer at once."""

from deepwright.config.architecture import FP8_BLOCK, ModelConfig
from deepwright.config.families import DENSE
from deepwright.config.presets import PRESETS, preset
from deepwright.config.rope import Llama3Scaling, RopeScaling

__all__ = ["DENSE", "FP8_BLOCK", "PRESETS", "Llama3Scaling", "ModelConfig", "RopeScaling", "preset"]
