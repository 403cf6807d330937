"""Deepwright: the DeepSeek-V3 / DeepSeek-R1 system as one small package.

    import deepwright as dw
    model, tokenizer = dw.load("runs/r1")
    print(dw.chat(model, tokenizer, "nums 3 7 1 make 20 :").text)

A lazy facade (PEP 562): a name is imported when it is first asked for, so that `import deepwright`, `--help` and a config error
answer at once, without torch. Everything that is not named here is reached by its module.
"""

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deepwright.config import ModelConfig
    from deepwright.inference.engine import Engine
    from deepwright.recipe.chat import chat
    from deepwright.recipe.session import load, load_model
    from deepwright.sampler import Completion, Sampling
    from deepwright.weights import save

__version__ = "0.1.0"

# Spins of an idle OpenMP thread before it sleeps. The usual 300,000 keep a core busy that another program could use: with one such program beside
# it a run on two cores was ten times slower than with these; alone the difference is within the noise. OpenMP reads the variable while torch is
# loaded, so it is set here, before anything of ours can do that. Who imports torch first sets it by hand.
SPINS_VARIABLE, SPINS = "GOMP_SPINCOUNT", "2000"
SPINS_LATE = "torch" in sys.modules and SPINS_VARIABLE not in os.environ
os.environ.setdefault(SPINS_VARIABLE, SPINS)

_HOME = {
    "ModelConfig": "deepwright.config",
    "Sampling": "deepwright.sampler",
    "Completion": "deepwright.sampler",
    "chat": "deepwright.recipe.chat",
    "load": "deepwright.recipe.session",
    "load_model": "deepwright.recipe.session",
    "save": "deepwright.weights",
    "Engine": "deepwright.inference.engine",
}

__all__ = [
    "Completion",
    "Engine",
    "ModelConfig",
    "Sampling",
    "__version__",
    "chat",
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
