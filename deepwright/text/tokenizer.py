"""Tokenizers of two kinds behind one class: number-aware words for the small tasks, byte-level BPE for real text.

Both are `tokenizers` objects saved as a Hugging Face folder, so that transformers' AutoTokenizer gives equal ids. Special
tokens come first: BOS is 0, EOS is 1, padding is EOS as in DeepSeek-V3's own tokenizer. `encode` adds no special
token: BOS and EOS are put by whoever packs documents or renders a conversation, in one place each.
Left out: merging with other vocabularies, randomly splitting punctuation-and-newline tokens in training.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers

from deepwright.text.templates import ASSISTANT, DEEPSEEK_TEMPLATE, PLAIN_TEMPLATE, USER, render

BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
FIM_BEGIN, FIM_HOLE, FIM_END = "<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"
UNKNOWN = "<unk>"

# Numbers in groups of at most three digits, words with their leading blank, punctuation joined with the line breaks after it.
_BPE_SPLITS = (r"\p{N}{1,3}", r" ?\p{L}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+")


class Tokenizer:
    """Text <-> token ids. Immutable after it is made; equal files make equal tokenizers."""

    def __init__(self, backend: tokenizers.Tokenizer, template: str, bos: str = BOS, eos: str = EOS) -> None:
        for token in (bos, eos):
            if backend.token_to_id(token) is None:
                raise ValueError(f"special token {token!r} is not in the vocabulary")
        backend.no_padding()
        backend.no_truncation()
        self.backend, self.template, self.bos, self.eos = backend, template, bos, eos
        self.bos_id: int = backend.token_to_id(bos)
        self.eos_id: int = backend.token_to_id(eos)
        self.pad_id = self.eos_id
        self.vocab_size: int = backend.get_vocab_size(with_added_tokens=True)
        self._unknown_id = backend.token_to_id(UNKNOWN)
        self._words = _plain_words(backend)
        if self._words is None:  # a second copy that reads special tokens in a text as ordinary characters
            self._literal = tokenizers.Tokenizer.from_str(backend.to_str())
            self._literal.encode_special_tokens = True

    def encode(self, text: str, *, specials: bool = True) -> list[int]:
        """Ids of `text`; nothing is added. With `specials` false, special tokens spelled out in the text are ordinary
        characters, so that a document cannot forge a border. Raises ValueError naming a word outside the vocabulary."""
        if self._words is not None and not specials:
            return self._encode_words(text)
        encoding = (self.backend if specials else self._literal).encode(text, add_special_tokens=False)
        if self._unknown_id is not None and self._unknown_id in encoding.ids:
            start, end = encoding.offsets[encoding.ids.index(self._unknown_id)]
            raise ValueError(_unknown(text[start:end]))
        return encoding.ids

    def _encode_words(self, text: str) -> list[int]:
        """Blank-separated words straight from the table: several times faster than the backend, and equal to it."""
        words = self._words
        try:
            return [words[word] for word in text.split()]
        except KeyError as error:
            raise ValueError(_unknown(error.args[0])) from None

    def decode(self, ids: Sequence[int], *, specials: bool = False) -> str:
        """Text of `ids`. A leading BOS and trailing EOS are borders, not content, and are left out unless `specials`;
        special tokens in the middle stay visible, so that a checker sees that they are there."""
        ids = list(ids)
        if not specials:
            start = 1 if ids[:1] == [self.bos_id] else 0
            end = len(ids)
            while end > start and ids[end - 1] == self.eos_id:
                end -= 1
            ids = ids[start:end]
        return self.backend.decode(ids, skip_special_tokens=False)

    def token(self, index: int) -> str:
        """The vocabulary entry with this id, as written in tokenizer.json (byte-level entries use its byte alphabet)."""
        token = self.backend.id_to_token(index)
        if token is None:
            raise ValueError(f"token id {index} is outside the vocabulary of {self.vocab_size}")
        return token

    @property
    def fim_ids(self) -> tuple[int, int, int] | None:
        """Ids of fill-in-the-middle begin, hole and end; None when this vocabulary has none."""
        ids = tuple(self.backend.token_to_id(token) for token in (FIM_BEGIN, FIM_HOLE, FIM_END))
        return None if None in ids else ids

    def render(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
        """The text of a conversation of {"role", "content"} messages, BOS included."""
        return render(self.template, messages, bos=self.bos, eos=self.eos, add_generation_prompt=add_generation_prompt)

    def encode_prompt(self, prompt: str) -> list[int]:
        """Ids that a model continues after one user message."""
        return self.encode(self.render([{"role": "user", "content": prompt}]))

    def save(self, folder: str | Path) -> None:
        """Writes tokenizer.json, tokenizer_config.json and chat_template.jinja."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": self.bos,
            "eos_token": self.eos,
            "pad_token": self.eos,
            "add_bos_token": False,
            "add_eos_token": False,
            "clean_up_tokenization_spaces": False,
        }
        (folder / "tokenizer.json").write_text(self.backend.to_str(pretty=True), encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        (folder / "chat_template.jinja").write_text(self.template, encoding="utf-8")

    @staticmethod
    def load(folder: str | Path) -> Tokenizer:
        """Opens a Hugging Face folder, ours or another's (one that has tokenizer.json)."""
        folder = Path(folder)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            if not (folder / name).is_file():
                raise ValueError(f"{folder} has no {name}")
        config = _read_json(folder / "tokenizer_config.json")
        template_file = folder / "chat_template.jinja"
        template = template_file.read_text(encoding="utf-8") if template_file.is_file() else config.get("chat_template") or PLAIN_TEMPLATE
        try:
            backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(f"{folder / 'tokenizer.json'} is no tokenizer: {error}") from None
        return Tokenizer(backend, template, bos=_content(config, "bos_token"), eos=_content(config, "eos_token"))


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None


def _unknown(word: str) -> str:
    return f"{word!r} is not in the vocabulary: expected words known to this tokenizer, separated by blanks"


def _content(config: Mapping[str, object], key: str) -> str:
    """A special token stands in tokenizer_config.json as text or as an object with "content"."""
    token = config.get(key)
    text = token.get("content") if isinstance(token, Mapping) else token
    if not isinstance(text, str):
        raise ValueError(f"tokenizer_config.json: {key} is {token!r}, expected the token's text")
    return text


def _plain_words(backend: tokenizers.Tokenizer) -> dict[str, int] | None:
    """The word table of a word-level vocabulary, special tokens left out; None for other kinds."""
    if not isinstance(backend.model, models.WordLevel):
        return None
    special = {token.content for token in backend.get_added_tokens_decoder().values()}
    return {word: index for word, index in backend.get_vocab().items() if word not in special}


def number_tokenizer(words: Sequence[str], largest: int, *, fim: bool = False) -> Tokenizer:
    """Word level on blanks: every word of `words` and every whole number 0..largest is one token.

    The order is specials, words as given, numbers: ids depend on the arguments alone."""
    if largest < 0:
        raise ValueError(f"largest is {largest}, expected a whole number >= 0")
    numbers = [str(n) for n in range(largest + 1)]
    taken = set(numbers) | {BOS, EOS, UNKNOWN}
    for word in words:
        if word.split() != [word] or word in taken:
            raise ValueError(f"word {word!r}: expected different words without blanks, none of them a number or special token")
        taken.add(word)
    specials = [BOS, EOS, UNKNOWN, *([FIM_BEGIN, FIM_HOLE, FIM_END] if fim else [])]
    vocab = {token: index for index, token in enumerate([*specials, *words, *numbers])}
    backend = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens([_special(token) for token in specials])
    return Tokenizer(backend, PLAIN_TEMPLATE)


def train_bpe(texts: Iterable[str], vocab_size: int, *, fim: bool = True) -> Tokenizer:
    """Byte-level BPE with DeepSeek's special tokens and chat form. Lossless for any text; deterministic.

    The result has `vocab_size` entries, or fewer when `texts` has too few different pairs."""
    specials = [BOS, EOS, *([FIM_BEGIN, FIM_HOLE, FIM_END] if fim else []), USER, ASSISTANT]
    least = 256 + len(specials)
    if vocab_size < least:
        raise ValueError(f"vocab_size is {vocab_size}, expected at least {least}: 256 bytes and {len(specials)} special tokens")
    backend = tokenizers.Tokenizer(models.BPE())
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in _BPE_SPLITS]
    backend.pre_tokenizer = pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[_special(token) for token in specials],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return Tokenizer(backend, DEEPSEEK_TEMPLATE)


def _special(token: str) -> AddedToken:
    """`normalized` false: matched in the raw text, never inside a longer word that was changed before."""
    return AddedToken(token, special=True, normalized=False)
