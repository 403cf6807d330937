"""Token streams: generated corpora and anyone's text, fill-in-the-middle, packing, exact resume."""

from deepwright.data.countdown_corpus import CountdownCorpus
from deepwright.data.mixed_corpus import MixedCorpus
from deepwright.data.packing import Documents, PackedStream
from deepwright.data.token_stream import TokenStream, sequential

__all__ = [
    "CountdownCorpus",
    "Documents",
    "MixedCorpus",
    "PackedStream",
    "TokenStream",
    "sequential",
]
