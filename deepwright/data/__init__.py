"""Token streams: corpora that every machine has, fill-in-the-middle, packing, exact resume."""

from deepwright.data.countdown_corpus import CountdownCorpus
from deepwright.data.mixed_corpus import MixedCorpus
from deepwright.data.packing import Documents, PackedStream

__all__ = ["CountdownCorpus", "Documents", "MixedCorpus", "PackedStream"]
