"""Deepwright: the DeepSeek-V3 / DeepSeek-R1 system as one small package.

    import deepwright as dw
    model, tokenizer = dw.load(folder)
    dw.Engine(model, tokenizer).generate(["..."], dw.Sampling(max_tokens=64))

A lazy facade (PEP 562): a name is imported when it is first asked for, so that `import deepwright`, `--help` and a config error
answer at once, without torch. Everything that is not named here is reached by its module.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepwright.config import ModelConfig
    from deepwright.inference.engine import Engine
    from deepwright.sampler import Completion, Sampling
    from deepwright.weights import load, load_model, save

__version__ = "0.1.0"

_HOME = {
    "ModelConfig": "deepwright.config",
    "Sampling": "deepwright.sampler",
    "Completion": "deepwright.sampler",
    "load": "deepwright.weights",
    "load_model": "deepwright.weights",
    "save": "deepwright.weights",
    "Engine": "deepwright.inference.engine",
}

__all__ = [
    "Completion",
    "Engine",
    "ModelConfig",
    "Sampling",
    "__version__",
    "load",
    "load_model",
    "save",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'deepwright' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value  # asked once
    return value


def __dir__() -> list[str]:
    return __all__
