"""A byte-level tokenizer with the special tokens of all families, and Hugging Face folders as each family's releases lay them out."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import tokenizers
from tokenizers import (
    AddedToken,
    Regex,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from deepwright.text import Tokenizer
from tests.text.templates import BOS, EOS, FAMILIES, SPECIALS

TEXT = "def add(a, b):\n\n    return a + b  # naïve 日本語\n\nassistant\n\nThe answer is 4.\n\n\nuser system wait\n"
QWEN_SPLITS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@functools.cache
def trained() -> str:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    # transformers puts them in wherever config.json says qwen2
    splits = pre_tokenizers.Split(Regex(QWEN_SPLITS), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(SPECIALS),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator([TEXT] * 3, trainer)
    backend.add_tokens(
        [
            AddedToken("<think>", special=False, normalized=False),
            AddedToken("</think>", special=False, normalized=False),
        ]
    )
    return backend.to_str()


def write(
    folder: Path, family: str, *, model_type: str | None = None, template_in_config: bool = False
) -> Path:
    """tokenizer.json, tokenizer_config.json, special_tokens_map.json, generation_config.json and, unless in the config, the template."""
    folder.mkdir(parents=True, exist_ok=True)
    backend = tokenizers.Tokenizer.from_str(trained())
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS[family],
        "eos_token": {"content": EOS[family]},
    }
    special = {"eos_token": EOS[family], "pad_token": {"content": "<|endoftext|>"}}
    ids = {token: backend.token_to_id(token) for token in SPECIALS}
    generation = {"eos_token_id": [ids[EOS[family]], ids["<|endoftext|>"]], "temperature": 0.6}
    if family == "llama":  # BOS comes from tokenizer.json's own post-processor
        bos = BOS[family]
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A $B", special_tokens=[(bos, ids[bos])]
        )
    if family == "r1":  # and here from the config
        config["add_bos_token"] = True
        generation = {"eos_token_id": ids[EOS[family]]}
    if template_in_config:
        config["chat_template"] = FAMILIES[family]
    else:
        (folder / "chat_template.jinja").write_text(FAMILIES[family], encoding="utf-8")
    backend.save(str(folder / "tokenizer.json"))
    files = {
        "tokenizer_config": config,
        "special_tokens_map": special,
        "generation_config": generation,
    }
    for name, values in files.items():
        (folder / f"{name}.json").write_text(json.dumps(values), encoding="utf-8")
    if model_type:
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return folder


def load(folder: Path, family: str) -> Tokenizer:
    return Tokenizer.load(write(folder, family))
