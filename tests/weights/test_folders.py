"""Hugging Face folders: exact round trips, every layout on load, and refusals that name the tensor."""

import dataclasses
import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from deepwright import weights
from deepwright.config import preset
from deepwright.verify import checks_weights, require  # noqa: F401 - registers the checks
from deepwright.verify.cases import ALL_CASES, CASES, DENSE_CASES, random_model, random_tokens
from deepwright.weights.names import memory, official, stacked
from deepwright.weights.saving import official_tensors
from deepwright.weights.tensor_files import dequantize

FILE = "model.safetensors"


def saved(tmp_path, name="v3", **options):
    model = random_model(ALL_CASES[name])
    weights.save_model(model, tmp_path / "m", **options)
    return model, tmp_path / "m"


def same(a, b):
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(
        torch.equal(ours[k], theirs[k]) and ours[k].dtype == theirs[k].dtype for k in ours
    )


def rewrite(folder, change):
    """Applies `change` to the dict of tensors in a one-file folder."""
    tensors = load_file(folder / FILE)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / FILE)


@pytest.mark.parametrize(
    "name",
    [
        "folder_comes_back_bit_exact",
        "folder_opens_in_transformers",
        "multi_token_equals_transformers",
    ],
)
def test_check(name):
    require(name)


def test_names_are_a_bijection():
    """Every official tensor but the copies fills its own part, and together they fill everything."""
    for config in (
        preset("laptop"),
        CASES["v2"],
        CASES["v3 tied embedding"],
        *DENSE_CASES.values(),
    ):
        model = random_model(dataclasses.replace(config, vocab_size=61))
        filled = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}
        copies = ("embed_tokens.weight", "shared_head.head.weight")
        for name, part in official(model.config, filled):
            if not (name.startswith("model.layers.") and name.endswith(copies)):
                part += 1
        assert all(bool((count == 1).all()) for count in filled.values())


def test_shapes_and_dtypes_on_disk_are_those_of_the_model(tmp_path):
    model, folder = saved(tmp_path, "v3 two MTP modules")
    stored = {
        name: (tensor.shape, tensor.dtype) for name, tensor in load_file(folder / FILE).items()
    }
    assert stored == {
        name: (tensor.shape, torch.float32) for name, tensor in official_tensors(model)
    }


def test_stacked_experts_load(tmp_path):
    model, folder = saved(tmp_path, "v3 two MTP modules")

    def stack(tensors):
        for fused, _, parts in stacked(model.config, memory(model)):
            kinds = [
                [tensors.pop(part) for part in parts if kind in part]
                for kind in ("gate_proj", "up_proj", "down_proj")
            ]
            tensors[fused] = torch.cat(
                [torch.stack(experts) for experts in kinds if experts], dim=1
            )

    rewrite(folder, stack)
    assert same(model, weights.load_model(folder))


def test_fp8_weights_are_multiplied_by_their_block_scales(tmp_path):
    _, folder = saved(tmp_path)
    name = "model.layers.0.mlp.gate_proj.weight"
    values = (torch.randn(48, 32) * 100).to(torch.float8_e4m3fn)

    def quantise(tensors):
        tensors[name], tensors[name + "_scale_inv"] = values, torch.full((1, 1), 0.5)

    rewrite(folder, quantise)
    assert torch.equal(
        weights.load_model(folder).layers[0].ffn.gate_up.weight[:48], values.float() * 0.5
    )
    rewrite(folder, lambda tensors: tensors.pop(name + "_scale_inv"))
    with pytest.raises(ValueError, match="has no .*gate_proj.weight_scale_inv beside it"):
        weights.load_model(folder)


def test_ragged_blocks_of_scales():
    weight, scale = torch.ones(130, 257), torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    out = dequantize(weight, scale)
    assert (out[0, 127], out[0, 128], out[127, 256], out[128, 0], out[129, 256]) == (1, 2, 3, 4, 6)
    with pytest.raises(ValueError, match=r"expected \(2, 3\)"):
        dequantize(weight, scale.T)


def test_dtype_on_request_and_bias_stays_fp32(tmp_path):
    model, folder = saved(tmp_path)
    loaded = weights.load_model(folder, torch.bfloat16)
    assert loaded.embed.weight.dtype == torch.bfloat16
    assert torch.equal(loaded.layers[1].ffn.router.bias, model.layers[1].ffn.router.bias)


def test_shards_have_an_index(tmp_path):
    model, folder = saved(tmp_path, max_shard_bytes=40_000)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == {name for name, _ in official_tensors(model)}
    assert index["metadata"]["total_size"] == sum(
        t.nbytes for f in set(index["weight_map"].values()) for t in load_file(folder / f).values()
    )
    assert same(model, weights.load_model(folder))
    (folder / sorted(index["weight_map"].values())[0]).unlink()
    with pytest.raises(ValueError, match=r"model-00001-of-000\d\d.safetensors is missing"):
        weights.load_model(folder)


def test_load_into_a_model_of_another_config_is_refused(tmp_path):
    model, folder = saved(tmp_path)
    other = random_model(CASES["v3"], seed=9)
    weights.load_into(other, folder)
    assert same(model, other)
    with pytest.raises(ValueError, match="q_lora_rank None, expected 14"):
        weights.load_into(random_model(CASES["v3 query compression"]), folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("model.norm.weight"), "lacks model.norm.weight"),
        (
            lambda t: t.pop("model.layers.1.mlp.experts.3.up_proj.weight"),
            "lacks model.layers.1.mlp.experts.3.up_proj.weight",
        ),
        (
            lambda t: t.pop("model.layers.2.mlp.gate.e_score_correction_bias"),
            "e_score_correction_bias",
        ),
        (
            lambda t: t.update({"model.layers.0.self_attn.q_proj.bias": torch.ones(3)}),
            "holds model.layers.0.self_attn.q_proj.bias, which",
        ),
        (
            lambda t: t.update({"model.norm.weight": torch.ones(31)}),
            "model.norm.weight has shape (31,) in",
        ),
        (
            lambda t: t.update({"model.layers.9.norm.weight": torch.ones(31)}),
            "holds model.layers.9.norm.weight",
        ),
    ],
)
def test_contradictions_name_the_tensor(tmp_path, change, said):
    _, folder = saved(tmp_path)
    rewrite(folder, change)
    with pytest.raises(ValueError, match=".") as error:
        weights.load_model(folder)
    assert said in str(error.value)


def test_copies_may_be_absent_but_not_differ(tmp_path):
    model, folder = saved(tmp_path, "v3 two MTP modules")
    rewrite(folder, lambda t: t.pop("model.layers.3.embed_tokens.weight"))
    assert same(model, weights.load_model(folder))
    rewrite(folder, lambda t: t["model.layers.4.shared_head.head.weight"].add_(1))
    with pytest.raises(ValueError, match=r"model.layers.4.shared_head.head.weight in .* differs"):
        weights.load_model(folder)


def test_folder_written_by_transformers_has_no_mtp(tmp_path):
    transformers = pytest.importorskip("transformers")
    model, folder = saved(tmp_path, "v3 two MTP modules")
    transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).save_pretrained(
        tmp_path / "theirs"
    )
    with pytest.warns(UserWarning, match="the model is loaded without them"):
        back, tokens = weights.load_model(tmp_path / "theirs"), random_tokens(2)
    assert back.config.num_nextn_predict_layers == 0 and torch.equal(back(tokens), model(tokens))
    rewrite(folder, lambda t: t.pop("model.layers.4.eh_proj.weight"))
    # some of it is damage
    with pytest.raises(ValueError, match="lacks model.layers.4.eh_proj.weight"):
        weights.load_model(folder)


@pytest.mark.parametrize(
    "name",
    [
        "llama, llama3 stretching",
        "llama, biases everywhere",
        "qwen2",
        "qwen2, tied",
        "qwen3",
        "qwen3, yarn",
    ],
)
def test_dense_folders_of_transformers_4_and_5_load(tmp_path, name):
    """Version 5 as the installed one writes it; version 4 had rope_scaling, rope_theta and, early, a table of frequencies in the file."""
    transformers = pytest.importorskip("transformers")
    model, folder = saved(tmp_path, name)
    transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).save_pretrained(
        tmp_path / "theirs"
    )
    assert "rope_parameters" in (tmp_path / "theirs" / "config.json").read_text()
    back = weights.load_model(tmp_path / "theirs")
    assert same(model, back) and back.config == model.config
    values = json.loads((folder / "config.json").read_text())
    assert values["rope_theta"] == model.config.rope_theta and "rope_parameters" not in values
    rewrite(
        folder, lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})
    )
    assert same(model, weights.load_model(folder))


def test_a_tied_head_may_be_there_but_not_differ(tmp_path):
    model, folder = saved(tmp_path, "qwen2, tied")
    assert "lm_head.weight" not in load_file(folder / FILE)
    rewrite(folder, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    assert same(model, weights.load_model(folder))
    rewrite(folder, lambda t: t["lm_head.weight"].add_(1))
    with pytest.raises(ValueError, match="lm_head.weight in .* differs"):
        weights.load_model(folder)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        (
            "qwen2",
            lambda t: t.pop("model.layers.1.self_attn.k_proj.bias"),
            "lacks model.layers.1.self_attn.k_proj.bias",
        ),
        (
            "qwen2",
            lambda t: t.update({"model.layers.1.self_attn.o_proj.bias": torch.ones(32)}),
            "holds model.layers.1.self_attn.o_proj.bias",
        ),
        (
            "qwen3",
            lambda t: t.pop("model.layers.0.self_attn.q_norm.weight"),
            "lacks model.layers.0.self_attn.q_norm.weight",
        ),
        (
            "llama",
            lambda t: t.update({"model.layers.0.self_attn.q_norm.weight": torch.ones(8)}),
            "holds model.layers.0.self_attn.q_norm",
        ),
        ("llama", lambda t: t.pop("lm_head.weight"), "lacks lm_head.weight"),
        (
            "llama",
            lambda t: t["model.norm.weight"].fill_(float("nan")),
            "model.norm.weight in .* holds 32 numbers that are NaN or infinite",
        ),
        (
            "v3",
            lambda t: t["lm_head.weight"][3].fill_(float("inf")),
            "lm_head.weight in .* holds 32 numbers that are NaN or infinite",
        ),
    ],
)
def test_contradictions_in_dense_folders_and_numbers_that_are_none(tmp_path, name, change, said):
    _, folder = saved(tmp_path, name)
    rewrite(folder, change)
    with pytest.raises(ValueError, match=said):
        weights.load_model(folder)


def test_pickles_are_refused(tmp_path):
    _, folder = saved(tmp_path)
    (folder / FILE).rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pickle \(pytorch_model.bin\), which can run code"):
        weights.load_model(folder)


@pytest.mark.parametrize("damage", [b"", b"\x00" * 20, None])
def test_damaged_files_are_named(tmp_path, damage):
    _, folder = saved(tmp_path)
    content = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(content[: len(content) // 2] if damage is None else damage)
    with pytest.raises(ValueError, match=r"model.safetensors is damaged"):
        weights.load_model(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json is damaged"):
        weights.load_model(folder)


def test_a_failing_save_leaves_the_old_folder(tmp_path, monkeypatch):
    model, folder = saved(tmp_path)
    monkeypatch.setattr(
        "deepwright.weights.saving.write_tensors",
        lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")),
    )
    with pytest.raises(OSError, match="No space"):
        weights.save_model(random_model(CASES["v3"], seed=5), folder)
    assert os.listdir(tmp_path) == ["m"]
    assert same(model, weights.load_model(folder))


def test_a_save_killed_between_its_two_renames_is_put_back(tmp_path):
    model, folder = saved(tmp_path)
    folder.rename(tmp_path / "m.replaced")
    newer = random_model(CASES["v3"], seed=5)
    with pytest.raises(ValueError, match="max_shard_bytes"):
        weights.save_model(newer, folder, max_shard_bytes=0)
    assert same(model, weights.load_model(folder))
    weights.save_model(newer, folder)
    assert same(newer, weights.load_model(folder))
    assert os.listdir(tmp_path) == ["m"]


def test_saving_never_deletes_foreign_files(tmp_path):
    model, folder = saved(tmp_path)
    (folder / "thesis.docx").write_text("three years")
    with pytest.raises(ValueError, match="holds thesis.docx, which is no part of a model"):
        weights.save_model(model, folder)
    assert (folder / "thesis.docx").read_text() == "three years"
