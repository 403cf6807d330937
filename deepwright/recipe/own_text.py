"""Pre-training on anyone's text: which tokenizer reads it, where its tokens are kept, what a model is
validated on. Also `deepwright data tokenize`.

A run makes its tokens once, in its folder; a folder of `data tokenize` is read where it lies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from deepwright.data.texts import Texts, expected_bytes
from deepwright.data.tokens import (
    Tokens,
    digest_of,
    is_tokens,
    read_manifest,
    write_tokens,
)
from deepwright.files import about
from deepwright.recipe.requests import TokenizeRequest
from deepwright.recipe.session import model_folder
from deepwright.recipe.settings import TextSettings
from deepwright.refusals import expect
from deepwright.text import Tokenizer, train_bpe
from deepwright.train.progress import Progress
from deepwright.weights import load_tokenizer

TOKENS = "tokens"  # folder in a run
TRAIN = "train:"  # a vocabulary of so many entries, made of the text itself
USUAL_TOKENIZER = f"{TRAIN}8192"
LISTED = 1000  # files that a folder of tokens names
TRAINED_ON = 1 << 26  # bytes of text at most, every n-th document of a larger one


def check(data: tuple[str, ...], tokenizer: str, text: TextSettings) -> None:
    """ValueError for what can be refused before a run folder exists: files that are not there, the
    first document of each, a tokenizer that is none."""
    if ready := ready_made(data):
        made_by = read_manifest(ready)["tokenizer"]
        own = not tokenizer or digest_of(load_tokenizer(model_folder(tokenizer))) == made_by
        expect(own, "tokenizer", tokenizer, f"none, or the one that made {ready}")
        return
    for file in text.texts(data).files:
        with about(file):
            next(iter(text.texts((str(file),))), None)
    if asked_size(tokenizer) is None:
        load_tokenizer(model_folder(tokenizer))


def ready_made(data: tuple[str, ...]) -> Path | None:
    """The folder of tokens that `data` is; None where it is text."""
    folders = [Path(path) for path in data if is_tokens(path)]
    if folders and len(data) > 1:
        raise ValueError(
            f"data is {list(data)}, of which {folders[0]} holds tokens: expected it alone, or text"
        )
    return folders[0] if folders else None


def asked_size(tokenizer: str) -> int | None:
    """8192 of "train:8192"; None where a model is named. ValueError for another number."""
    name = tokenizer or USUAL_TOKENIZER
    if not name.startswith(TRAIN):
        return None
    size = name.removeprefix(TRAIN)
    whole = size.isascii() and size.isdecimal() and 300 <= int(size) <= 1 << 20
    expect(whole, "tokenizer", tokenizer, "a folder, or train:N with N from 300 to 1048576")
    return int(size)


def tokenizer_for(texts: Texts, name: str, say: Callable[[str], None]) -> Tokenizer:
    """The tokenizer of a folder, or one that is trained on the text (with fill-in-the-middle
    tokens)."""
    size = asked_size(name)
    if size is None:
        return load_tokenizer(model_folder(name))
    say(f"training a tokenizer of {size:,} tokens on the text")
    every = -(-expected_bytes(texts.files) // TRAINED_ON)
    made = train_bpe(_some(texts, every), size)
    if made.vocab_size < size:
        say(f"the text has too few different words for {size:,} tokens: {made.vocab_size:,}")
    return made


def _some(texts: Texts, every: int) -> Iterator[str]:
    for number, text in enumerate(texts):
        if number % every == 0:
            yield text.text


def tokenize(
    data: tuple[str, ...],
    folder: Path,
    text: TextSettings,
    tokenizer: Tokenizer | None = None,
    name: str = "",
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Makes the folder of tokens of `data`, by `tokenizer` or the one that `name` asks for. Returns
    its manifest."""
    texts = text.texts(data)
    tokenizer = tokenizer or tokenizer_for(texts, name, say)
    files = texts.files
    facts = {"files": [str(file) for file in files[:LISTED]], "column": text.column}
    with Progress(expected_bytes(files), "tokenising", unit="bytes") as progress:

        def watch(characters: int) -> None:
            progress.advance(min(characters, progress.total - progress.done))

        return write_tokens(
            texts, tokenizer, folder, held_out=text.held_out, facts=facts, watch=watch
        )


def tokenize_for(request: TokenizeRequest) -> str:
    """`deepwright data tokenize`: makes the folder, and says what it holds."""
    text = TextSettings(request.column, request.longest, request.held_out)
    check(request.data, request.tokenizer, text)
    manifest = tokenize(request.data, Path(request.out), text, name=request.tokenizer)
    return f"{request.out}: {' '.join(described(manifest))}"


def described(manifest: dict[str, Any]) -> list[str]:
    """What a folder of tokens holds, in three sentences."""
    train, held_out = manifest["train"], manifest["held_out"]
    size, tokens = (train[name] + held_out[name] for name in ("bytes", "tokens"))
    documents = train["documents"] + held_out["documents"]
    twins = f"{manifest['duplicates']:,} that stood there once more are left out"
    words = f"{manifest['vocabulary']:,} different ones, {size / tokens:.2f} bytes each"
    return [
        f"{size / 1e6:,.1f} MB of text in {documents:,} different documents; {twins}.",
        f"They are {tokens:,} tokens of {words}.",
        f"{held_out['documents']:,} of the documents, of {held_out['tokens']:,} tokens, are held out.",
    ]


def tokens_of(
    data: tuple[str, ...],
    folder: Path,
    text: TextSettings,
    tokenizer: Tokenizer | None,
    name: str,
    say: Callable[[str], None] = print,
) -> tuple[Tokenizer, Tokens, Tokens]:
    """(tokenizer, tokens to train on, held-out ones) of a run: made in its folder where they are
    not there yet. ValueError where `tokenizer`, a model's, is not the one that made them."""
    place = ready_made(data) or folder / TOKENS
    if not is_tokens(str(place)):
        tokenize(data, place, text, tokenizer, name, say)
    tokens = Tokens(place)
    if tokenizer is not None and digest_of(tokenizer) != tokens.manifest["tokenizer"]:
        raise ValueError(
            f"{place} was made with another tokenizer than the model's, whose tokens are other"
            " words: tokenise the text again with the model's folder as --tokenizer"
        )
    say(" ".join(described(tokens.manifest)))
    return tokenizer or Tokenizer.load(place), tokens, Tokens(place, "held_out")


def bytes_of(rows: Tensor, tokenizer: Tokenizer) -> int:
    """UTF-8 bytes of the text that the targets of contiguous rows [rows, length + 1] spell, without
    BOS and EOS. A character that the rows cut in two counts as a few bytes more or less."""
    ids = rows[:, 1:].flatten().tolist()
    borders = {tokenizer.bos_id, *tokenizer.stop_ids}
    text = tokenizer.decode([index for index in ids if index not in borders], specials=True)
    return len(text.encode(errors="replace"))
