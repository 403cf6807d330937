"""Byte-level BPE tokenizers in GGUF's metadata: vocabulary, merges, kinds of tokens, how text is cut before merging, chat template.

A file of ours also holds tokenizer.json whole (`tokenizer.huggingface.json`, a key of the format), which is what comes back. Files of
others are rebuilt from vocabulary and merges. Left out: SentencePiece vocabularies.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from deepwright.text.templates import PLAIN_TEMPLATE
from deepwright.text.tokenizer import Tokenizer

WHOLE = "tokenizer.huggingface.json"
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5

# llama.cpp's names for the ways to cut text: regular expressions, Hugging Face's splitter of digits, or GPT-2's own rule.
_DIGITS, _GPT2 = "single digits", "GPT-2's rule"
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_DEEPSEEK = (
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ゠-ヿ]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""",
)
CUTS: dict[str, tuple[str, ...]] = {
    "gpt-2": (_GPT2,),
    "smollm": (_DIGITS, _GPT2),
    "llama-bpe": (_WORDS % "{1,3}",),
    "qwen2": (_WORDS % "",),
    "deepseek-v3": _DEEPSEEK,
}
_SAME = {"llama3": "llama-bpe", "llama-v3": "llama-bpe", "deepseek-r1-qwen": "qwen2"}


def read_tokenizer(fields: Mapping[str, Any]) -> Tokenizer | None:
    """The tokenizer of a file's metadata; None where it has none. Raises ValueError for a kind that is not read."""
    kind = fields.get("tokenizer.ggml.model")
    if WHOLE not in fields and kind in (None, "none", "no_vocab"):
        return None
    if WHOLE not in fields and kind != "gpt2":
        raise ValueError(
            f"tokenizer.ggml.model is {kind!r}, expected gpt2: only byte-level BPE vocabularies are read"
        )
    try:
        backend = (
            tokenizers.Tokenizer.from_str(fields[WHOLE]) if WHOLE in fields else _rebuild(fields)
        )
    except ValueError:
        raise
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"the GGUF's tokenizer is damaged: {error}") from error
    ids = {
        name: fields.get(f"tokenizer.ggml.{name}_token_id")
        for name in ("bos", "eos", "padding", "eot", "eom")
    }
    if ids["eos"] is None:
        raise ValueError("the GGUF lacks the key tokenizer.ggml.eos_token_id")
    unknown = [
        name
        for name, index in ids.items()
        if index is not None and backend.id_to_token(index) is None
    ]
    if unknown:
        raise ValueError(
            f"tokenizer.ggml.{unknown[0]}_token_id is {ids[unknown[0]]}, which is not in the vocabulary"
        )
    bos, eos, pad = (
        None if ids[name] is None else backend.id_to_token(ids[name])
        for name in ("bos", "eos", "padding")
    )
    adds = fields.get(
        "tokenizer.ggml.add_bos_token",
        _SAME.get(fields.get("tokenizer.ggml.pre"), fields.get("tokenizer.ggml.pre"))
        == "llama-bpe",
    )
    more = [ids[name] for name in ("eot", "eom") if ids[name] is not None]
    return Tokenizer(
        backend,
        fields.get("tokenizer.chat_template", PLAIN_TEMPLATE),
        bos,
        eos,
        pad=pad,
        stop_ids=more,
        adds_bos=adds,
    )


def _rebuild(fields: Mapping[str, Any]) -> tokenizers.Tokenizer:
    name = fields.get("tokenizer.ggml.pre", "")
    name = _SAME.get(name, name)
    if name not in CUTS:
        raise ValueError(
            f"tokenizer.ggml.pre is {name!r}, expected one of {', '.join([*CUTS, *_SAME])}"
        )
    tokens, kinds, merges = (
        fields.get(f"tokenizer.ggml.{key}") for key in ("tokens", "token_type", "merges")
    )
    if (
        not (tokens and kinds and merges)
        or len(tokens) != len(kinds)
        or any(merge.count(" ") != 1 for merge in merges)
    ):
        raise ValueError(
            "tokenizer.ggml.tokens, token_type and merges do not make a vocabulary: one of them is missing or damaged"
        )
    vocab = {token: index for index, token in enumerate(tokens) if kinds[index] != UNUSED}
    pairs = [tuple(merge.split(" ")) for merge in merges]
    backend = tokenizers.Tokenizer(models.BPE(vocab, pairs, ignore_merges=name == "llama-bpe"))
    if name == "qwen2":
        backend.normalizer = normalizers.NFC()
    cuts = [pre_tokenizers.Digits(individual_digits=True) if cut == _DIGITS else pre_tokenizers.Split(Regex(cut), "isolated")
            for cut in CUTS[name] if cut != _GPT2]  # fmt: skip
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=_GPT2 in CUTS[name])]
    )
    backend.decoder = decoders.ByteLevel()
    for token, index in vocab.items():
        if kinds[index] in (CONTROL, USER_DEFINED):
            special = AddedToken(token, special=kinds[index] == CONTROL, normalized=False)
            backend.add_special_tokens([special]) if special.special else backend.add_tokens(
                [special]
            )
    return backend


def tokenizer_fields(tokenizer: Tokenizer, vocab_size: int) -> dict[str, Any]:
    """Metadata from which llama.cpp encodes as the tokenizer does; where it cannot, only the ids of special tokens, and a warning."""
    whole = tokenizer.backend.to_str()
    values = json.loads(whole)
    fields: dict[str, Any] = {
        WHOLE: whole,
        "tokenizer.chat_template": tokenizer.template,
        "tokenizer.ggml.add_bos_token": tokenizer.adds_bos,
    }
    ids = dict(zip(("eos", "eot", "eom"), tokenizer.stop_ids)) | {
        "bos": tokenizer.bos_id,
        "padding": tokenizer.pad_id,
    }
    fields |= {
        f"tokenizer.ggml.{name}_token_id": index for name, index in ids.items() if index is not None
    }
    name = _name_of_cuts(values)
    if name is None:
        warnings.warn(
            "llama.cpp has no such tokenizer: it will take token ids, not text, with this file",
            stacklevel=2,
        )
        return fields | {"tokenizer.ggml.model": "none"}
    added = {
        token["content"]: CONTROL if token["special"] else USER_DEFINED
        for token in values["added_tokens"]
    }
    tokens, kinds = [f"[PAD{index}]" for index in range(vocab_size)], [UNUSED] * vocab_size
    for token, index in tokenizer.backend.get_vocab(with_added_tokens=True).items():
        tokens[index], kinds[index] = token, added.get(token, NORMAL)
    merges = [
        merge if isinstance(merge, str) else " ".join(merge) for merge in values["model"]["merges"]
    ]
    return fields | {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": name,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": merges,
    }


def _name_of_cuts(values: Mapping[str, Any]) -> str | None:
    """llama.cpp's name for the pre-tokenizer of a tokenizer.json; None where it has none, or where the vocabulary is no byte-level BPE."""
    pre = values["pre_tokenizer"] or {}
    steps = pre.get("pretokenizers", [pre])
    if (
        values["model"]["type"] != "BPE"
        or not steps
        or steps[-1].get("type") != "ByteLevel"
        or steps[-1]["add_prefix_space"]
    ):
        return None
    cuts = []
    for step in steps[:-1]:
        pattern = step.get("pattern", {}).get("Regex", "")
        single = step["type"] == "Digits" and step["individual_digits"]
        cuts.append(_DIGITS if single else pattern.replace("\r", r"\r").replace("\n", r"\n"))
    cuts += [_GPT2] if steps[-1]["use_regex"] else []
    return next((name for name, known in CUTS.items() if known == tuple(cuts)), None)
