"""The tokenizer files of a Hugging Face folder -> a Tokenizer that gives the ids which transformers
gives.

Which tokens begin and end a text stands in up to five files, which are reconciled here. Padding and
truncation that were saved into tokenizer.json are somebody's call, not the vocabulary's, and are
left out. Left out too: folders whose vocabulary stands in other files than tokenizer.json, tokens
that are named but stand in no vocabulary (transformers appends them).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from deepwright.files import about, read_json, read_text
from deepwright.refusals import expect, quoted, words_of
from deepwright.text.templates import PLAIN_TEMPLATE
from deepwright.text.tokenizer import Tokenizer

OTHER_FILES = {  # what a vocabulary may stand in instead, and who reads it
    "tokenizer.model": "SentencePiece",
    "tiktoken.model": "tiktoken and code of its own",
    "tekken.json": "Mistral's own code",
    "vocab.json": "transformers' slow tokenizers",
}
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def load(folder: Path) -> Tokenizer:
    """What `Tokenizer.load` promises."""
    if not (folder / "tokenizer.json").is_file():
        other = next((name for name in OTHER_FILES if (folder / name).is_file()), None)
        raise ValueError(
            f"{folder} has no tokenizer.json"
            + (f": its vocabulary is in {other}, for {OTHER_FILES[other]}" if other else "")
        )
    said = _read_names(folder)
    with about(folder):
        return _build(folder, said)


def _build(folder: Path, said: Mapping[str, Any]) -> Tokenizer:
    backend = read_backend(folder / "tokenizer.json")
    _add_tokens(backend, said.get("added_tokens_decoder"))
    files = ("generation_config.json", "config.json")
    ends, begins = (
        {file: _ids(folder / file, f"{name}_token_id") for file in files} for name in ("eos", "bos")
    )
    tokens = {name: _content(said, f"{name}_token") for name in ("bos", "eos", "pad", "unk")}
    if tokens["pad"] is not None and backend.token_to_id(tokens["pad"]) is None:
        tokens["pad"] = None  # added by whoever batched with padding, which nothing here does
    if tokens["eos"] is None:
        tokens["eos"] = _named_by_id(backend, ends)
    template, template_file = _read_template(folder, said)
    tokenizer = Tokenizer(
        backend,
        template,
        stop_ids=[index for ids in ends.values() for index in ids],
        adds_bos=_adds_bos(backend, tokens["bos"], said),
        **tokens,
    )
    tokenizer.template_file = str(template_file)
    for file in files:
        for name, found in (("eos", ends), ("bos", begins)):
            tokenizer.check_named(name, found[file], file)
    return tokenizer


def _read_names(folder: Path) -> dict[str, Any]:
    """special_tokens_map.json and, before it, tokenizer_config.json; either may be missing."""
    said: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            values = read_json(folder / name)
            said |= {key: value for key, value in values.items() if value is not None}
    return said


def read_backend(path: Path) -> tokenizers.Tokenizer:
    with library_errors(f"{path} is no tokenizer"):
        backend = tokenizers.Tokenizer.from_file(str(path))
    backend.no_padding()  # before anything is encoded: a saved length may be any number
    backend.no_truncation()
    return backend


@contextmanager
def library_errors(what: str) -> Iterator[None]:
    """ValueError "WHAT: ..." for what `tokenizers` raises: bare Exceptions, and panics, which are
    none."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        raise ValueError(f"{what}: {words_of(error)}") from None


def _add_tokens(backend: tokenizers.Tokenizer, listed: Any) -> None:
    """Tokens of tokenizer_config.json's `added_tokens_decoder` that tokenizer.json lacks, or has
    with other flags."""
    where = "tokenizer_config.json: added_tokens_decoder"
    expect(
        listed is None or isinstance(listed, Mapping), where, listed, "an object of ids and tokens"
    )
    tokens: dict[int, AddedToken] = {}
    for index, token in (listed or {}).items():
        usual = index.isascii() and index.isdigit() and len(index) < 10
        usual = usual and isinstance(token, Mapping) and isinstance(token.get("content"), str)
        expect(usual, where, {index: token}, "ids and tokens with a content")
        flags = {name: token[name] for name in _FLAGS if isinstance(token.get(name), bool)}
        tokens[int(index)] = AddedToken(token["content"], **flags)
    with library_errors(where):
        backend.add_tokens([tokens[index] for index in sorted(tokens)])
    for index, token in tokens.items():
        found = backend.token_to_id(token.content)
        expect(found == index, f"{where}: the id of {quoted(token.content)}", index, f"{found}")


def _ids(path: Path, key: str) -> tuple[int, ...]:
    """The id, or ids, that a file names; none where there is no file."""
    named = read_json(path).get(key) if path.is_file() else None
    ids = named if isinstance(named, list) else [] if named is None else [named]
    usual = all(type(index) is int and 0 <= index < 2**31 for index in ids)
    expect(usual, f"{path.name}: {key}", named, "an id of the vocabulary, or a list of them")
    return tuple(ids)


def _named_by_id(backend: tokenizers.Tokenizer, ends: Mapping[str, tuple[int, ...]]) -> str:
    """The end token of a tokenizer that names none: the first that the model's files name."""
    first = next((ids[0] for ids in ends.values() if ids), None)
    token = None if first is None else backend.id_to_token(first)
    expect(token is not None, "tokenizer_config.json: eos_token", None, "the token's text")
    return str(token)


def _adds_bos(backend: tokenizers.Tokenizer, bos: str | None, said: Mapping[str, Any]) -> bool:
    """BOS is wanted where tokenizer_config.json says so, or where tokenizer.json itself adds it."""
    if bos is None:
        return False
    with library_errors("tokenizer.json cannot encode 'a'"):
        alone, added = (backend.encode("a", add_special_tokens=add).ids for add in (False, True))
    # an empty text would not tell it from an end that is the same token
    first = [backend.token_to_id(bos)]
    return said.get("add_bos_token") is True or (added[:1] == first != alone[:1])


def _content(said: Mapping[str, object], key: str) -> str | None:
    """A special token stands in tokenizer_config.json as text or as an object with "content"."""
    token = said.get(key)
    text = token.get("content") if isinstance(token, Mapping) else token
    usual = token is None or isinstance(text, str)
    expect(usual, f"tokenizer_config.json: {key}", token, "the token's text")
    return None if token is None else str(text)


def _read_template(folder: Path, said: Mapping[str, Any]) -> tuple[str, Path]:
    """-> (template, the file that holds it). A file of its own goes before the config, which may
    hold several by name. Without any, messages stand one after the other."""
    config, own = folder / "tokenizer_config.json", folder / "chat_template.jinja"
    if own.is_file():
        return read_text(own), own
    given = said.get("chat_template") or PLAIN_TEMPLATE
    entries = (
        [entry for entry in given if isinstance(entry, Mapping)] if isinstance(given, list) else []
    )
    named = [entry.get("template") for entry in entries if entry.get("name") == "default"]
    template = named[0] if named else given
    expect(
        isinstance(template, str),
        "tokenizer_config.json: chat_template",
        given,
        "a text or one named 'default'",
    )
    return template, config
