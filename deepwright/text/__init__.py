"""Text to token ids and back: vocabularies, chat templates."""

from deepwright.text.tokenizer import Tokenizer, UnknownWord, number_tokenizer, train_bpe

__all__ = ["Tokenizer", "UnknownWord", "number_tokenizer", "train_bpe"]
