"""The network on one device."""

from deepwright.model.cache import Cache, ContiguousCache
from deepwright.model.experts import Routing
from deepwright.model.transformer import Transformer

__all__ = ["Cache", "ContiguousCache", "Routing", "Transformer"]
