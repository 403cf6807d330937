"""Sizes are compared with what the files hold before anything is looped over or allocated, and said
in one sentence."""

import json
import struct
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from deepwright import weights
from deepwright.weights import gguf_files, loading
from deepwright.weights.gguf_files import read_gguf
from tests.models import gguf_bytes, tiny
from tests.models.damage import gguf_file

pytestmark = pytest.mark.filterwarnings("ignore:.*holds no tensor of the MTP modules")
V3, LLAMA = "deepseek-ai/DeepSeek-V3", "unsloth/Llama-3.2-1B-Instruct"
V2_LITE = "deepseek-ai/DeepSeek-V2-Lite-Chat"
HUGE = 2**31 - 1
COUNTS = (
    "num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size", "num_attention_heads", "num_key_value_heads",
    "head_dim", "moe_intermediate_size", "n_routed_experts", "n_shared_experts", "num_nextn_predict_layers", "kv_lora_rank",
    "q_lora_rank", "qk_nope_head_dim", "v_head_dim", "first_k_dense_replace", "max_position_embeddings",
)  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("sizes")
    return {
        name: tiny.make(tiny.RELEASED[name], root / str(n)) for n, name in enumerate((V3, LLAMA))
    }


@pytest.fixture
def nothing_is_allocated(monkeypatch):
    gguf_file(V2_LITE), gguf_file(LLAMA)  # made before, kept

    def refuse(model):
        raise AssertionError("memory was asked for")

    monkeypatch.setattr(loading, "allocate", refuse)
    monkeypatch.setattr(gguf_files, "allocate", refuse)


def changed(folder, target, **change):
    """The folder with another config.json."""
    for path in folder.iterdir():
        (target / path.name).symlink_to(path)
    values = json.loads((folder / "config.json").read_text())
    (target / "config.json").unlink()
    (target / "config.json").write_text(json.dumps(values | change))
    return target


# no tensor has these: only nonsense is refused
UNBOUND = ("max_position_embeddings", "context_length")


@pytest.mark.parametrize(
    ("name", "key", "size"),
    [
        (name, key, size)
        for name in (V3, LLAMA)
        for key in COUNTS
        for size in (HUGE, 2**31, 2**63, 2 * 10**6)
        if key in tiny.RELEASED[name]["config"] and (key not in UNBOUND or size > HUGE)
    ],
)
def test_a_count_of_config_json_is_not_believed(
    folders, tmp_path, name, key, size, nothing_is_allocated
):
    folder, start = changed(folders[name], tmp_path, **{key: size}), time.process_time()
    with pytest.raises(ValueError, match=f"{tmp_path}") as error:
        weights.load_model(folder)
    assert time.process_time() - start < 2 and len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_hidden_layers": HUGE}, "a model of 2,147,483,647 layers is described, but there are 4"),
        ({"num_nextn_predict_layers": HUGE}, "a model of 2,147,483,650 layers is described, but there are 4"),
        ({"n_routed_experts": 2**30, "num_experts_per_tok": 2}, "1,073,741,824 routed experts is described, but there are 8"),
        ({"hidden_size": HUGE}, r"a model of [\d,]+ parameters is described, but there are [\d,]+$"),
        ({"vocab_size": 259}, r"weight has shape \(302, 32\) in .* expected \(259, 32\) from config.json"),
    ],
)  # fmt: skip
def test_the_sentence_says_what_is_there(folders, tmp_path, change, said, nothing_is_allocated):
    with pytest.raises(ValueError, match=said):
        weights.load_model(changed(folders[V3], tmp_path, **change))


DENSE_KEYS = (
    "block_count", "embedding_length", "feed_forward_length", "attention.head_count", "attention.head_count_kv",
    "attention.key_length", "attention.value_length", "rope.dimension_count", "context_length",
)  # fmt: skip
LATENT_KEYS = (
    "expert_count", "expert_feed_forward_length", "attention.kv_lora_rank", "leading_dense_block_count",
    "expert_shared_count", "attention.key_length_mla", "attention.value_length_mla",
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "key", "size"),
    [
        (name, key, size)
        for name, keys in ((V2_LITE, DENSE_KEYS + LATENT_KEYS), (LLAMA, DENSE_KEYS))
        for key in keys
        for size in (HUGE, 2**31, 2**63 - 1, 0)
        if key not in UNBOUND or size != HUGE
    ],
)
def test_a_count_of_gguf_metadata_is_not_believed(tmp_path, name, key, size, nothing_is_allocated):
    original = gguf_file(name)
    arch = original.fields["general.architecture"][1]
    assert f"{arch}.{key}" in original.fields
    fields = original.fields | {f"{arch}.{key}": (gguf_bytes.U64, size)}
    (tmp_path / "m.gguf").write_bytes(gguf_bytes.File(fields, original.tensors).to_bytes())
    start = time.process_time()
    with pytest.raises(ValueError, match="m.gguf") as error:
        read_gguf(tmp_path / "m.gguf")
    assert len(str(error.value)) < 500 and time.process_time() - start < 2


def test_a_model_that_does_not_fit_into_memory_is_one_sentence(folders, monkeypatch):
    def no_memory(model, device):
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"
        )

    monkeypatch.setattr(torch.nn.Module, "to_empty", no_memory)
    with pytest.raises(
        ValueError, match=r"there is not enough memory for a model of [\d,]+ parameters"
    ):
        weights.load_model(folders[LLAMA])


# ---- safetensors


def rewritten(folder, target, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    for path in folder.iterdir():
        if path.suffix != ".safetensors":
            (target / path.name).symlink_to(path)
    save_file(tensors, target / "model.safetensors")
    return target


NORM = "model.norm.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.update({NORM: torch.ones(32, dtype=torch.int64)}), f"{NORM} in .*: its type is 'I64', expected F64 or F32"),
        (lambda t: t.update({NORM: torch.ones(32, dtype=torch.bool)}), f"{NORM} in .*: its type is 'BOOL'"),
        (lambda t: t.update({NORM: torch.ones(32, dtype=torch.complex64)}), f"{NORM} in .*: its type is 'C64'"),
        (lambda t: t.update({NORM: torch.ones(32).to(torch.float8_e5m2)}), f"{NORM} in .*: its type is 'F8_E5M2'"),
        (lambda t: t.update({NORM: torch.tensor(1.0)}), f"{NORM} has shape .. in"),
        (lambda t: t.update({NORM: torch.ones(1, 1, 1, 32)}), f"{NORM} has shape .1, 1, 1, 32."),
        (lambda t: t.update({"y" * 5000: torch.ones(1)}), "holds yyy"),
        (lambda t: t.update({"model.layers.2147483648.norm.weight": torch.ones(1)}), "holds model.layers.2147483648.norm"),
    ],
)  # fmt: skip
def test_tensors_that_no_model_has(folders, tmp_path, change, said, nothing_is_allocated):
    with pytest.raises(ValueError, match=said) as error:
        weights.load_model(rewritten(folders[LLAMA], tmp_path, change))
    assert len(str(error.value)) < 800


def test_numbers_too_large_for_a_sum_are_no_damage(folders, tmp_path):
    folder = rewritten(folders[LLAMA], tmp_path, lambda t: t[NORM].fill_(3e38))
    assert torch.isfinite(weights.load_model(folder).norm.weight).all()


@pytest.mark.parametrize("length", [0, 1, 2**20, 2**31, 2**62, 2**64 - 1])
def test_a_header_of_absurd_length(folders, tmp_path, length):
    folder = rewritten(folders[LLAMA], tmp_path, lambda t: None)
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", length) + data[8:])
    with pytest.raises(ValueError, match=r"model.safetensors is damaged or no safetensors file"):
        weights.load_model(folder)


# ---- what else lies in a folder


def test_a_folder_of_the_hubs_cache_opens(folders, tmp_path):
    """Its files are links to `blobs/` beside the folder, under names that are checksums."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for n, path in enumerate(folders[LLAMA].iterdir()):
        (blobs / f"{n:064x}").write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(Path("../../blobs") / f"{n:064x}")
    assert weights.load(snapshot)[0].config == weights.load_model(folders[LLAMA]).config


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ("null", "holds None, expected an object"),
        ("[]", "holds .., expected an object"),
        ("7", "holds 7, expected an object"),
        ('"x"', "holds 'x', expected an object"),
        ("{}", "weight_map is None, expected an object of tensors"),
        ('{"weight_map": null}', "weight_map is None"),
        ('{"weight_map": []}', "weight_map is .., expected"),
        ('{"weight_map": {}}', "weight_map is .., expected"),
        ('{"weight_map": {"a": null}}', "weight_map is .*, expected"),
        ('{"weight_map": {"a": 3}}', "weight_map is .*, expected"),
        ('{"weight_map": {"a": "../m.safetensors"}}', "a file is '../m.safetensors', expected a .safetensors file in the same"),
        ('{"weight_map": {"a": "/etc/passwd"}}', "a file is '/etc/passwd'"),
        ('{"weight_map": {"a": "config.json"}}', "a file is 'config.json'"),
        ('{"weight_map": {"a": "x/../m.safetensors"}}', "a file is 'x/../m.safetensors'"),
        ('{"weight_map": {"a": ""}}', "a file is ''"),
        ('{"weight_map": {"a": "model-1.safetensors"}}', "take away the one that is not the model's"),
        ("[" * 100_000, "is damaged: not JSON"),
        ('{"weight_map": ' + '{"a":' * 100_000, "is damaged: not JSON"),
        ("\ud800", "is damaged: not JSON"),
    ],
)  # fmt: skip
def test_an_index_of_another_shape(folders, tmp_path, index, said):
    folder = rewritten(folders[LLAMA], tmp_path, lambda t: None)
    path = folder / "model.safetensors.index.json"
    path.write_bytes(index.encode("utf-8", "surrogatepass"))
    with pytest.raises(ValueError, match=said) as error:
        weights.load_model(folder)
    assert "model.safetensors.index.json" in str(error.value) and len(str(error.value)) < 500


def test_a_link_that_leads_to_something_else(folders, tmp_path):
    folder = rewritten(folders[LLAMA], tmp_path, lambda t: None)
    (tmp_path / "elsewhere").write_text("secret")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(
        ValueError,
        match="model.safetensors is '.*elsewhere', expected a link to a .safetensors file",
    ):
        weights.load_model(folder)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("model.safetensors")  # round and round
    with pytest.raises(ValueError, match="has neither model.safetensors nor"):
        weights.load_model(folder)


def test_one_tensor_in_two_files(folders, tmp_path):
    folder = rewritten(folders[LLAMA], tmp_path, lambda t: None)
    for name in ("a", "b"):
        (folder / f"{name}.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    (folder / "model.safetensors").unlink()
    named = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(named))
    with pytest.raises(ValueError, match="stands in both a.safetensors and b.safetensors"):
        weights.load_model(folder)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"adapter_config.json": '{"base_model_name_or_path": "Qwen/Qwen2.5-7B"}', "adapter_model.safetensors": ""},
         "holds a LoRA adapter .* of 'Qwen/Qwen2.5-7B': merge it into that model"),
        ({"adapter_config.json": "[]"}, "adapter_config.json holds .., expected an object"),
        ({"x-Q4_K_M.gguf": ""}, "holds GGUF alone .x-Q4_K_M.gguf.: name the file itself, .*x-Q4_K_M.gguf"),
        ({"params.json": "{}", "consolidated.00.pth": ""}, "in the layout of their makers .params.json."),
        ({"pytorch_model.bin": ""}, "as a pickle .pytorch_model.bin., which can run code"),
        ({"tf_model.h5": ""}, "weights for other software .tf_model.h5."),
        ({}, "config.json is missing"),
    ],
)  # fmt: skip
def test_folders_that_are_something_else(tmp_path, files, said):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=said):
        weights.load_model(tmp_path)
