"""Keys of other people's config.json: inert ones change nothing, those with one harmless value must
have it."""

from pathlib import Path

import pytest

from deepwright.config import ModelConfig
from deepwright.config.families import ARCHITECTURES, OTHERS
from deepwright.config.keys import FIXED, FIXED_LATENT, INERT, REASONS
from tests.models.tiny import RELEASED

LLAMA = RELEASED["meta-llama/Llama-2-7b-hf"]["config"]
QWEN = RELEASED["Qwen/Qwen2.5-0.5B"]["config"]
V3 = RELEASED["deepseek-ai/DeepSeek-V3"]["config"]
CHECKED = ("architectures", "quantization_config")  # inert as fields, but looked at
PAGE = Path(__file__).parents[2] / "docs" / "models.md"


@pytest.mark.parametrize("key", [key for key in REASONS if key not in CHECKED])
def test_inert_keys_change_nothing(key):
    for values in (LLAMA, QWEN, V3):
        for value in (True, 7, "x", [1], None):
            assert ModelConfig.from_hf(values | {key: value}) == ModelConfig.from_hf(values)


@pytest.mark.parametrize("key", ["mergekit_version", "axolotl_version", "llamafactory_version"])
def test_the_stamp_of_any_tool_changes_nothing_if_it_is_a_text(key):
    assert ModelConfig.from_hf(QWEN | {key: "0.1.2"}) == ModelConfig.from_hf(QWEN)
    for value in (2, True, ["1"], {}):
        with pytest.raises(ValueError, match=f"unknown key '{key}', which might"):
            ModelConfig.from_hf(QWEN | {key: value})


def test_an_activation_by_its_other_name():
    assert ModelConfig.from_hf(LLAMA | {"hidden_act": "swish"}) == ModelConfig.from_hf(LLAMA)


@pytest.mark.parametrize("key", {**FIXED, **FIXED_LATENT})
def test_keys_with_one_harmless_value(key):
    values = V3 if key in FIXED_LATENT else LLAMA
    expected, meaning = (FIXED | FIXED_LATENT)[key]
    assert ModelConfig.from_hf(values | {key: expected}) == ModelConfig.from_hf(values)
    other = {False: True, True: False}.get(expected, 0.3) if isinstance(expected, bool) else "other"
    with pytest.raises(ValueError, match=f"{key} is {other!r}, expected .*: {meaning} is not"):
        ModelConfig.from_hf(values | {key: other})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"use_mrope": True}, "use_mrope is True, expected False"),
        ({"rope_interleaved": True}, "rope_interleaved is True, expected False: rotary pairs side by side"),
        ({"no_rope_layers": [1, 1, 1, 0]}, "layers without rotary positions"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "architectures is .*, expected LlamaForCausalLM"),
        ({"architectures": ["LlamaModel"]}, "other classes have another head, or none"),
        ({"thinker_config": {}}, "config.json has a thinker_config: its model_type, 'llama', wraps"),
        ({"rope_scaling": [1]}, r"rope_scaling is \[1\], expected an object"),
        ({"rope_scaling": {"type": {}}}, r"rope type is \[{}\]"),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, "rope type is .'linear'."),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "every channel is rotated"),
        ({"rope_theta": [1]}, "rope_theta is .1., expected a value of type float"),
        ({"rope_theta": float("inf")}, "rope_theta is inf, expected a number below"),
        ({"rope_theta": 10**400}, "rope_theta is a whole number of 1,329 bits, expected"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan"),
        ({"hidden_size": 2**31}, "hidden_size is 2147483648, expected a whole number below 2147483648"),
        ({"num_hidden_layers": -(2**70)}, "num_hidden_layers is a whole number of 71 bits"),
        ({"eos_token_id": [1, "a"]}, "eos_token_id is .1, 'a'., expected whole numbers"),
        ({"eos_token_id": -1}, "eos_token_id is -1, expected 0 or a positive number"),
        ({"eos_token_id": True}, "eos_token_id is True"),
        ({"bos_token_id": [1]}, "bos_token_id is .1."),
        ({"layer_types": "full_attention"}, "layer_types is 'full_attention', expected a list"),
        ({"layer_types": [[]]}, "layer_types is ...., expected full_attention"),
        ({"use_sliding_window": True, "sliding_window": 4096, "max_window_layers": "28"}, "use_sliding_window is True"),
        ({"quantization_config": "fp8"}, "quantization_config is 'fp8', expected an object"),
        ({"quantization_config": {"load_in_8bit": True}}, "quant_method is 'bitsandbytes'"),
        ({"quantization_config": {"quant_method": "mxfp4"}}, "quant_method is 'mxfp4'"),
        ({"model_type": ["llama"]}, "model_type is .'llama'., expected"),
        ({"x" * 10_000: 1}, "the unknown key '" + "x" * 190),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_sentence(change, said):
    with pytest.raises(ValueError, match=said) as error:
        ModelConfig.from_hf(LLAMA | change)
    assert len(str(error.value)) < 500


def test_the_two_spellings_of_stretching_must_agree():
    same = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 1024}
    both = LLAMA | {"rope_scaling": same, "rope_parameters": same | {"rope_theta": 10000.0}}
    assert ModelConfig.from_hf(both).rope_scaling.factor == 8.0
    both["rope_scaling"] = same | {"factor": 4.0}
    with pytest.raises(ValueError, match="rope_parameters and rope_scaling .* contradict"):
        ModelConfig.from_hf(both)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_ids_that_a_file_does_not_name_are_not_filled_in(kind):
    """transformers would take its class's ids (Llama: 1 and 2), whatever vocabulary the model
    has."""
    name = {
        "llama": "meta-llama/Llama-2-7b-hf",
        "qwen2": "Qwen/Qwen2.5-0.5B",
        "qwen3": "Qwen/Qwen3-0.6B",
    }
    name |= {
        "deepseek_v3": "deepseek-ai/DeepSeek-V3",
        "deepseek_v2": "deepseek-ai/DeepSeek-V2-Lite-Chat",
    }
    values = {k: v for k, v in RELEASED[name[kind]]["config"].items() if "_token_id" not in k}
    config = ModelConfig.from_hf(values)
    assert config.eos_token_id is config.bos_token_id is None and config.eos_token_ids == ()
    assert ModelConfig.from_hf(config.to_hf()) == config


def test_the_page_of_models_is_true():
    """docs/models.md names every model tried, every key with its reason, every type that is
    refused."""
    page = PAGE.read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    for name, record in RELEASED.items():
        [row] = [row for row in rows if row.startswith(f"| {name} |")]
        if "refused" in record:
            assert row.startswith(f"| {name} | no | ")
        else:
            kind = record["config"]["model_type"]
            assert row.startswith(
                f"| {name} | {'weights' if 'tokenizer_refused' in record else 'yes'} | {kind}"
            )
    for reason, keys in INERT.items():
        [row] = [row for row in rows if reason in row]
        assert all(f"`{key}`" in row for key in keys)
    for key, (expected, meaning) in (FIXED | FIXED_LATENT).items():
        assert any(f"`{key}`" in row and meaning in row and f"`{expected}`" in row for row in rows)
    for kind, reason in OTHERS.items():
        assert any(f"`{kind}`" in row and reason in row for row in rows)
