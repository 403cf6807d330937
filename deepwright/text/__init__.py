"""Text to token ids and back: vocabularies, chat templates."""

from deepwright.text.tokenizer import Tokenizer, number_tokenizer, train_bpe

__all__ = ["Tokenizer", "number_tokenizer", "train_bpe"]
