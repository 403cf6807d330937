"""Tokenizers behind one class: those of Hugging Face folders, and two kinds of our own, number-aware words and byte-level BPE.

All are `tokenizers` objects saved as a Hugging Face folder, so that transformers' AutoTokenizer gives equal ids. In our own, special
tokens come first: BOS is 0, EOS is 1, padding is EOS as in DeepSeek-V3's own tokenizer. `encode` adds no special
token: BOS and EOS are put by whoever packs documents or renders a conversation, in one place each.
A model may have no BOS, and may end with one of several tokens: `eos_id` is the one its tokenizer names, `stop_ids` are all of them.
Left out: folders without tokenizer.json, merging with other vocabularies, randomly splitting punctuation-and-newline tokens in training.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers

from deepwright.files import read_json
from deepwright.refusals import expect, quoted
from deepwright.text.templates import (
    ASSISTANT,
    DEEPSEEK_TEMPLATE,
    PLAIN_TEMPLATE,
    USER,
    Spans,
    marks_generation,
    render,
)

BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
FIM_BEGIN, FIM_HOLE, FIM_END = "<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"
UNKNOWN = "<unk>"

# Numbers in groups of at most three digits, words with their leading blank, punctuation joined with the line breaks after it.
_BPE_SPLITS = (r"\p{N}{1,3}", r" ?\p{L}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+")


class UnknownWord(ValueError):
    """A text has a `word` that is not in a vocabulary of words."""

    def __init__(self, word: str) -> None:
        expected = "words known to this tokenizer, separated by blanks"
        super().__init__(f"{word!r} is not in the vocabulary: expected {expected}")
        self.word = word


class Tokenizer:
    """Text <-> token ids. Immutable after it is made; equal files make equal tokenizers."""

    def __init__(self, backend: tokenizers.Tokenizer, template: str, bos: str | None = BOS, eos: str = EOS, *, pad: str | None = None,
                 unk: str | None = None, stop_ids: Sequence[int] = (), adds_bos: bool = False) -> None:  # fmt: skip
        """`stop_ids`: ends beside `eos`. `adds_bos`: the model wants BOS before every text, whether or not its template writes it."""
        ids = {token: backend.token_to_id(token) for token in (bos, eos, pad) if token is not None}
        vocabulary = backend.get_vocab(with_added_tokens=True)
        self.vocab_size: int = 1 + max(vocabulary.values(), default=-1)  # every id is below it
        for token in [
            *(token for token, index in ids.items() if index is None),
            *(i for i in stop_ids if backend.id_to_token(i) is None),
        ]:
            raise ValueError(
                f"special token {quoted(token)} is not in the vocabulary of {len(vocabulary)} "
                "entries"
            )
        backend.no_padding()
        backend.no_truncation()
        self.backend, self.template, self.bos, self.eos, self.pad, self.unk = (
            backend,
            template,
            bos,
            eos,
            pad or eos,
            unk,
        )
        self.bos_id: int | None = None if bos is None else ids[bos]
        self.eos_id: int = ids[eos]
        self.pad_id: int = ids[self.pad]
        self.stop_ids: tuple[int, ...] = tuple(dict.fromkeys((self.eos_id, *stop_ids)))
        self.adds_bos = adds_bos and bos is not None
        self.template_file = ""  # where the template was read, for messages
        self._words = _plain_words(backend)
        self._unknown_id = None if self._words is None else backend.token_to_id(UNKNOWN)

    @cached_property
    def _literal(self) -> tokenizers.Tokenizer:
        """A second copy that reads special tokens in a text as ordinary characters."""
        literal = tokenizers.Tokenizer.from_str(self.backend.to_str())
        literal.encode_special_tokens = True
        return literal

    def encode(self, text: str, *, specials: bool = True) -> list[int]:
        """Ids of `text`; nothing is added. With `specials` false, special tokens spelled out in the text are ordinary
        characters, so that a document cannot forge a border. UnknownWord for a word outside the vocabulary."""
        if self._words is not None and not specials:
            return self._encode_words(text)
        encoding = (self.backend if specials else self._literal).encode(
            text, add_special_tokens=False
        )
        if self._unknown_id is not None and self._unknown_id in encoding.ids:
            start, end = encoding.offsets[encoding.ids.index(self._unknown_id)]
            raise UnknownWord(text[start:end])
        return encoding.ids

    def _encode_words(self, text: str) -> list[int]:
        """Blank-separated words straight from the table: several times faster than the backend, and equal to it."""
        words = self._words
        try:
            return [words[word] for word in text.split()]
        except KeyError as error:
            raise UnknownWord(error.args[0]) from None

    @property
    def words(self) -> tuple[str, ...] | None:
        """What a vocabulary of words can read beside its special tokens, by their ids; None where the
        vocabulary is of another kind, which reads any text."""
        return (
            None if self._words is None else tuple(sorted(self._words, key=self._words.__getitem__))
        )

    def decode(self, ids: Sequence[int], *, specials: bool = False) -> str:
        """Text of `ids`. A leading BOS and trailing end tokens are borders, not content, and are left out unless `specials`;
        special tokens in the middle stay visible, so that a checker sees that they are there."""
        ids = list(ids)
        if not specials:
            start = 1 if ids[:1] == [self.bos_id] else 0
            end = len(ids)
            while end > start and ids[end - 1] in self.stop_ids:
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

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        /,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """The text of a conversation of {"role", "content"} messages, with exactly one BOS where the model wants one.

        `variables` are the template's own (tools, enable_thinking ...). Reasoning of earlier turns
        stays or goes as the template has it. ValueError naming the template's file where it cannot
        be rendered (see `templates.render`)."""
        return self._render(messages, add_generation_prompt, variables)[0]

    def assistant_spans(
        self, messages: Sequence[Mapping[str, Any]], /, **variables: Any
    ) -> Spans | None:
        """Places in `render(messages, False)` that the template marks by `{% generation %}`; None where it has no such mark."""
        return (
            self._render(messages, False, variables)[1] if marks_generation(self.template) else None
        )

    def _render(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool,
        variables: Mapping[str, Any],
    ) -> tuple[str, Spans]:
        named = {
            "bos_token": self.bos,
            "eos_token": self.eos,
            "pad_token": self.pad,
            "unk_token": self.unk,
        }
        named = {name: token for name, token in named.items() if token is not None}
        named |= {**variables, "add_generation_prompt": add_generation_prompt}
        try:
            text, spans = render(self.template, messages, **named)
        except ValueError as error:
            where = f"{self.template_file}: " if self.template_file else ""
            raise ValueError(f"{where}{error}") from None
        once = self._with_one_bos(text)
        moved = len(once) - len(text)
        return once, [(start + moved, end + moved) for start, end in spans]

    def _with_one_bos(self, text: str) -> str:
        if self.bos is None:
            return text
        while text.startswith(2 * self.bos):
            text = text[len(self.bos) :]
        return self.bos + text if self.adds_bos and not text.startswith(self.bos) else text

    @cached_property
    def turn_end_id(self) -> int:
        """The end token that the template writes after an assistant's turn; `eos_id` where it writes none."""
        turn = [{"role": "user", "content": ""}, {"role": "assistant", "content": ""}]
        written = self.encode(self.render(turn, add_generation_prompt=False))
        return next((index for index in reversed(written) if index in self.stop_ids), self.eos_id)

    def also_stopping_at(self, token: str) -> Tokenizer:
        """This tokenizer with one more end token."""
        index = self.backend.token_to_id(token)
        if index is None:
            raise ValueError(f"{token!r} is not in the vocabulary, so it cannot be an end token")
        other = copy.copy(self)
        other.__dict__.pop("turn_end_id", None)
        other.stop_ids = tuple(dict.fromkeys((*self.stop_ids, index)))
        return other

    def encode_pieces(self, pieces: Sequence[str]) -> list[list[int]]:
        """Ids of a text that is given in pieces, piece by piece, so that no token crosses a border between them.

        Together they are the ids of the whole text, unless a token of these crosses a border: then each piece is encoded by itself,
        as it is when a model continues the pieces before it. ValueError where the vocabulary cannot do that without changing the text."""
        apart = [self.encode(piece) for piece in pieces]
        if self._words is not None:  # its words end where a piece ends
            return apart
        whole, heads = (
            self.encode("".join(pieces)),
            [self.encode(text) for text in accumulate(pieces)],
        )
        if all(whole[: len(head)] == head for head in heads):
            return [head[len(before) :] for before, head in pairwise([[], *heads])]
        if self.decode([*chain.from_iterable(apart)], specials=True) != self.decode(
            whole, specials=True
        ):
            raise ValueError(
                f"a token of this vocabulary crosses the border after {pieces[0][-20:]!r}"
            )
        return apart

    def encode_prompt(self, prompt: str) -> list[int]:
        """Ids that a model continues after one user message."""
        return self.encode(self.render([{"role": "user", "content": prompt}]))

    def save(self, folder: str | Path) -> None:
        """Writes tokenizer.json, tokenizer_config.json and chat_template.jinja. End tokens go into
        generation_config.json where there are several, or where it is there already."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": self.bos,
            "eos_token": self.eos,
            "pad_token": self.pad,
            "add_bos_token": self.adds_bos,
            "add_eos_token": False,
            "clean_up_tokenization_spaces": False,
        }
        config |= {} if self.unk is None else {"unk_token": self.unk}
        (folder / "tokenizer.json").write_text(self.backend.to_str(pretty=True), encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(
            json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        (folder / "chat_template.jinja").write_text(self.template, encoding="utf-8")
        generation = _read_if_there(folder / "generation_config.json")
        if len(self.stop_ids) > 1 or generation:
            ends = list(self.stop_ids)
            generation["eos_token_id"] = ends if len(ends) > 1 else ends[0]
            (folder / "generation_config.json").write_text(
                json.dumps(generation, indent=2, sort_keys=True) + "\n", encoding="utf-8"
            )

    @staticmethod
    def load(folder: str | Path) -> Tokenizer:
        """Opens a Hugging Face folder, ours or another's (one that has tokenizer.json). End tokens
        are the tokenizer's own and those that generation_config.json and config.json name; a file
        that names an ordinary word instead is refused."""
        from deepwright.text.folders import load

        return load(Path(folder))

    def check_named(self, name: str, ids: Sequence[int], where: str = "the model's config") -> None:
        """ValueError where `where` begins ("bos") or ends ("eos") texts otherwise than this
        tokenizer, and by a token that also stands inside of them. Several tokens may well end a
        text: a base model's document, a chat model's turn."""
        own = self.bos_id if name == "bos" else self.eos_id
        wrong = [index for index in ids if index not in self._added]
        if own is not None and own not in ids and wrong:
            named = quoted(list(ids) if len(ids) > 1 else ids[0])
            word, end = (quoted(self.backend.id_to_token(index)) for index in (wrong[0], own))
            raise ValueError(
                f"{name}_token_id is {named} in {where}, the ordinary token {word}, expected the "
                f"tokenizer's {own}, {end}: write it there"
            )

    @cached_property
    def _added(self) -> frozenset[int]:
        """Ids of tokens that are matched as a whole, before the text around them is cut."""
        return frozenset(self.backend.get_added_tokens_decoder())


def _read_if_there(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _plain_words(backend: tokenizers.Tokenizer) -> dict[str, int] | None:
    """The word table of a word-level vocabulary, special tokens left out; None for other kinds."""
    if not isinstance(backend.model, models.WordLevel):
        return None
    special = {token.content for token in backend.get_added_tokens_decoder().values()}
    return {word: index for word, index in backend.get_vocab().items() if word not in special}


def number_tokenizer(words: Sequence[str], largest: int) -> Tokenizer:
    """Word level on blanks: every word of `words` and every whole number 0..largest is one token.

    The order is specials, words as given, numbers: ids depend on the arguments alone."""
    expect(largest >= 0, "largest", largest, "a whole number >= 0")
    numbers = [str(n) for n in range(largest + 1)]
    taken = set(numbers) | {BOS, EOS, UNKNOWN}
    for word in words:
        if word.split() != [word] or word in taken:
            raise ValueError(
                f"word {word!r}: expected different words without blanks, none of them a number or special token"
            )
        taken.add(word)
    specials = [BOS, EOS, UNKNOWN]
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
    expect(
        vocab_size >= least,
        "vocab_size",
        vocab_size,
        f"at least {least}: 256 bytes and {len(specials)} special tokens",
    )
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = _our_splits()
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[_special(token) for token in specials],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return Tokenizer(backend, DEEPSEEK_TEMPLATE)


def _our_splits() -> pre_tokenizers.PreTokenizer:
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in _BPE_SPLITS]
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([*splits, bytes_])


def splits_as_ours(tokenizer: Tokenizer) -> bool:
    """Whether a text is cut into words as by `train_bpe`, and nothing is changed before that."""
    ours = tokenizers.Tokenizer(models.BPE())
    ours.pre_tokenizer = _our_splits()
    wanted, found = (json.loads(one.to_str()) for one in (ours, tokenizer.backend))
    same = all(wanted[part] == found[part] for part in ("pre_tokenizer", "normalizer"))
    return same and found["model"]["type"] == "BPE"


def _special(token: str) -> AddedToken:
    """`normalized` false: matched in the raw text, never inside a longer word that was changed before."""
    return AddedToken(token, special=True, normalized=False)
