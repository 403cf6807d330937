"""Released models as folders of a few kilobytes: their own config.json and tokenizer files with
every size scaled down.

Ids of tokens move to the small vocabulary that has the same tokens; everything else is as released.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
import torch
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers

from deepwright import weights
from deepwright.config import ModelConfig
from deepwright.model import Transformer
from deepwright.weights import gguf_tokenizer

RELEASED: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "released.json").read_text(encoding="utf-8")
)
TEXTS = ["the cat said hello to you", "what is 2 + 2", "naïve 日本語\n\n  and more"]
SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "head_dim": 8, "moe_intermediate_size": 16, "n_routed_experts": 8, "num_experts_per_tok": 2,
    "kv_lora_rank": 20, "qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 10,
    "max_window_layers": 3, "first_k_dense_replace": 1,
}  # fmt: skip


def shrunk(config: Mapping[str, Any], ids: Mapping[int, int], vocab_size: int) -> dict[str, Any]:
    """A config.json with the same keys and meanings, and small sizes."""
    small = dict(config) | {name: size for name, size in SIZES.items() if name in config}
    heads, groups = config["num_attention_heads"], config.get("num_key_value_heads")
    if groups is not None:
        small["num_key_value_heads"] = 4 if groups == heads else 2
    if config.get("q_lora_rank"):
        small["q_lora_rank"] = 14
    if config.get("n_group", 1) > 1:
        small |= {"n_group": 4, "topk_group": 2}
    if "layer_types" in config:
        small["layer_types"] = config["layer_types"][:3]
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if key in config:
            small[key] = moved(config[key], ids)
    return small | {"vocab_size": vocab_size}


def moved(named: Any, ids: Mapping[int, int]) -> Any:
    if isinstance(named, list):
        return [ids.get(index, index) for index in named]
    return ids.get(named, named)


@functools.cache
def vocabulary(cuts: str, specials: tuple[str, ...]) -> str:
    """A tokenizer.json of a small BPE with these special tokens, from id 0 on, that cuts texts as
    the released one does."""
    backend = tokenizers.Tokenizer(models.BPE(ignore_merges=cuts == "llama-bpe"))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if cuts == "sentencepiece":  # Llama 2: blanks are letters, rare characters are bytes
        backend = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
        blanks = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        backend.normalizer = normalizers.Sequence(blanks)
        backend.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )  # fmt: skip
        specials, alphabet = (*specials, *(f"<0x{byte:02X}>" for byte in range(256))), []
    else:
        backend.normalizer = normalizers.NFC() if cuts == "qwen2" else None
        backend.pre_tokenizer = gguf_tokenizer._pre_tokenizer(cuts)
        backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=len(specials) + len(alphabet) + 60,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in specials],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS * 2, trainer)
    return backend.to_str()


def write_json(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")


def make(record: Mapping[str, Any], folder: Path) -> Path:
    """The folder of a record of released.json; one that is refused has no weights."""
    if "refused" in record:
        folder.mkdir(parents=True)
        write_json(folder / "config.json", record["config"])
    else:
        _make_whole(record, folder)
    for name in record.get("files", ()):
        (folder / name).write_text("{}")
    return folder


def _make_whole(record: Mapping[str, Any], folder: Path) -> None:
    tokens = record.get("tokens", {})
    specials = tuple(tokens) or ("<s>", "</s>")
    backend = tokenizers.Tokenizer.from_str(vocabulary(record.get("cuts", "gpt-2"), specials))
    ids = {index: backend.token_to_id(token) for token, index in tokens.items()}
    if not tokens:
        ids = {record["config"][f"{end}_token_id"]: n for n, end in enumerate(("bos", "eos"))}
    config = shrunk(record["config"], ids, backend.get_vocab_size())
    save_random(config, folder)
    write_json(folder / "config.json", config)
    (folder / "generation_config.json").unlink()
    if "generation" in record:
        given = record["generation"]
        named = {key: moved(given[key], ids) for key in given if key.endswith("_token_id")}
        write_json(folder / "generation_config.json", given | named)
    if "tokenizer" in record:
        write_json(folder / "tokenizer_config.json", record["tokenizer"])
        backend.save(str(folder / "tokenizer.json"))


def save_random(values: Mapping[str, Any], folder: Path, **options: Any) -> None:
    """Weights for a config.json, large enough that its details show in the logits; router biases
    too."""
    config = ModelConfig.from_hf({k: v for k, v in values.items() if k != "quantization_config"})
    draw = torch.Generator().manual_seed(0)
    model = Transformer(config, draw)
    with torch.no_grad():
        for parameter in model.parameters():
            spread = 0.25 if parameter.ndim > 1 else 0.3
            parameter.normal_(float(parameter.ndim == 1), spread, generator=draw)
        for name, buffer in model.named_buffers():
            if name.endswith("router.bias"):
                buffer.normal_(-0.2, 0.2, generator=draw)
    weights.save_model(model, folder, **options)
