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

from deepwright.refusals import expect
from deepwright.text.folders import library_errors
from deepwright.text.templates import PLAIN_TEMPLATE
from deepwright.text.tokenizer import Tokenizer
from deepwright.weights.gguf_names import ENDS, token_id

WHOLE = "tokenizer.huggingface.json"
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5

# llama.cpp's names for the ways to cut text: regular expressions, Hugging Face's splitter of digits, or GPT-2's own rule.
_DIGITS, _GPT2 = "single digits", "GPT-2's rule"
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_DEEPSEEK_V3 = (
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ゠-ヿ]+",
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""",
)
# Letters that have a case, of the scripts that DeepSeek's first tokenizers knew.
_CASED = (
    "A-Za-z\xb5\xc0-\xd6\xd8-\xf6\xf8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373"
    "\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5"
    "\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba"
    "\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45"
    "\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe"
    "\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc"
    "\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139"
    "\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3"
    "\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06"
    "\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3"
    "\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df"
    "\U0001e900-\U0001e943"
)
_HAN = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_LINE_BREAKS = r"[\r\n]"
_NUMBERS = r"\p{N}+"
_DEEPSEEK_LLM = (
    _LINE_BREAKS,
    rf"\s?[{_CASED}]+",
    "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
    r"\s+$",
    _HAN,
    _NUMBERS,
)
CUTS: dict[str, tuple[str, ...]] = {
    "gpt-2": (_GPT2,),
    "smollm": (_DIGITS, _GPT2),
    "llama-bpe": (_WORDS % "{1,3}",),
    "qwen2": (_WORDS % "",),
    "deepseek-v3": _DEEPSEEK_V3,
    "deepseek-llm": _DEEPSEEK_LLM,  # DeepSeek-V2 too
    "deepseek-coder": (_LINE_BREAKS, r"\s?\p{L}+", r"\s?\p{P}+", _HAN, _DIGITS),
}
_SAME = {"llama3": "llama-bpe", "llama-v3": "llama-bpe", "deepseek-r1-qwen": "qwen2"}
_ALONE = "`deepwright convert --no-tokenizer` takes the weights alone"


def read_tokenizer(fields: Mapping[str, Any]) -> Tokenizer | None:
    """The tokenizer of a file's metadata; None where it has none. Raises ValueError for a kind that is not read."""
    kind = fields.get("tokenizer.ggml.model")
    if WHOLE not in fields and kind in (None, "none", "no_vocab"):
        return None
    try:
        return _read(fields)
    except ValueError as error:
        raise ValueError(f"{error}; {_ALONE}") from error


def _read(fields: Mapping[str, Any]) -> Tokenizer:
    kind, whole = fields.get("tokenizer.ggml.model"), fields.get(WHOLE)
    if whole is None:
        expected = "gpt2: only byte-level BPE vocabularies are read"
        expect(kind == "gpt2", "tokenizer.ggml.model", kind, expected)
        backend = _rebuild(fields)
    else:
        expect(isinstance(whole, str), WHOLE, whole, "a text")
        with library_errors("the GGUF's tokenizer is damaged"):
            backend = tokenizers.Tokenizer.from_str(whole)
    ids = {name: token_id(fields, name) for name in ("bos", "padding", *ENDS)}
    if ids["eos"] is None:
        raise ValueError("the GGUF lacks the key tokenizer.ggml.eos_token_id")
    for name, index in ids.items():
        known = index is None or backend.id_to_token(index) is not None
        expect(known, f"tokenizer.ggml.{name}_token_id", index, "an id of the vocabulary")
    tokens = {
        name: None if index is None else backend.id_to_token(index) for name, index in ids.items()
    }
    template = fields.get("tokenizer.chat_template", PLAIN_TEMPLATE)
    expect(isinstance(template, str), "tokenizer.chat_template", template, "a text")
    return Tokenizer(
        backend,
        template,
        tokens["bos"],
        tokens["eos"],
        pad=tokens["padding"],
        stop_ids=[ids[name] for name in ENDS if ids[name] is not None],
        adds_bos=bool(fields.get("tokenizer.ggml.add_bos_token", _name(fields) == "llama-bpe")),
    )


def _name(fields: Mapping[str, Any]) -> str:
    """llama.cpp's name for how text is cut."""
    name = fields.get("tokenizer.ggml.pre", "")
    return _SAME.get(name, name) if isinstance(name, str) else ""


def _rebuild(fields: Mapping[str, Any]) -> tokenizers.Tokenizer:
    name = _name(fields)
    known = ", ".join([*CUTS, *_SAME])
    expect(
        name in CUTS,
        "tokenizer.ggml.pre",
        fields.get("tokenizer.ggml.pre"),
        f"one of {known}",
    )
    tokens, kinds, pairs = _vocabulary(fields)
    vocab = {token: index for index, token in enumerate(tokens) if kinds[index] != UNUSED}
    with library_errors("the GGUF's tokenizer is damaged"):
        model = models.BPE(vocab, pairs, ignore_merges=name == "llama-bpe")
        backend = tokenizers.Tokenizer(model)
        if name == "qwen2":
            backend.normalizer = normalizers.NFC()
        backend.pre_tokenizer = _pre_tokenizer(name)
        backend.decoder = decoders.ByteLevel()
        for token, index in vocab.items():
            if kinds[index] in (CONTROL, USER_DEFINED):
                special = kinds[index] == CONTROL
                backend.add_tokens([AddedToken(token, special=special, normalized=False)])
    return backend


def _vocabulary(fields: Mapping[str, Any]) -> tuple[list[str], list[int], list[tuple[str, str]]]:
    """Tokens, their kinds, and the pairs that are merged, best first."""
    tokens, kinds, merges = (
        fields.get(f"tokenizer.ggml.{key}") for key in ("tokens", "token_type", "merges")
    )
    whole = (
        _all(tokens, str)
        and _all(kinds, int)
        and _all(merges, str)
        and len(tokens) == len(kinds)
        and len(set(tokens)) == len(tokens)
        and all(merge.count(" ") == 1 for merge in merges)
    )
    if not whole:
        raise ValueError(
            "tokenizer.ggml.tokens, token_type and merges do not make a vocabulary: one of them is missing or damaged"
        )
    return tokens, kinds, [tuple(merge.split(" ")) for merge in merges]


def _all(values: Any, kind: type) -> bool:
    return isinstance(values, list) and bool(values) and all(isinstance(v, kind) for v in values)


def _pre_tokenizer(name: str) -> pre_tokenizers.PreTokenizer:
    cuts = [
        pre_tokenizers.Digits(individual_digits=True)
        if cut == _DIGITS
        else pre_tokenizers.Split(Regex(cut), "isolated")
        for cut in CUTS[name]
        if cut != _GPT2
    ]
    bytes_last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=_GPT2 in CUTS[name])
    return pre_tokenizers.Sequence([*cuts, bytes_last])


def tokenizer_fields(tokenizer: Tokenizer, vocab_size: int) -> dict[str, Any]:
    """Metadata from which llama.cpp encodes as the tokenizer does; where it cannot, only the ids of special tokens, and a warning."""
    whole = tokenizer.backend.to_str()
    values = json.loads(whole)
    fields: dict[str, Any] = {
        WHOLE: whole,
        "tokenizer.chat_template": tokenizer.template,
        "tokenizer.ggml.add_bos_token": tokenizer.adds_bos,
    }
    if more := tokenizer.stop_ids[len(ENDS) :]:
        names = [tokenizer.token(index) for index in more]
        warnings.warn(f"GGUF has room for {len(ENDS)} end tokens: {names} stay out", stacklevel=2)
    ids = dict(zip(ENDS, tokenizer.stop_ids)) | {
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
    # DeepSeek's own file takes digits apart; where no pair of digits is merged that is the same.
    if tuple(cuts) == (*_DEEPSEEK_LLM[:-1], _DIGITS) and not _merges_digits(values):
        return "deepseek-llm"
    return next((name for name, known in CUTS.items() if known == tuple(cuts)), None)


def _merges_digits(values: Mapping[str, Any]) -> bool:
    merges = values["model"]["merges"]
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in merges)
    return any(all(part.isnumeric() for part in pair) for pair in pairs)
