"""config.json in and out, strictly; derived numbers against published ones. Everything here is exact."""

import dataclasses
import json
import math

import pytest

from deepwright.config import FP8_BLOCK, PRESETS, ModelConfig, RopeScaling, preset
from deepwright.model import Transformer
from deepwright.weights.names import memory, official

# As released with DeepSeek-V3 (transformers 4 spelling).
RELEASED_V3 = json.loads("""{
  "architectures": ["DeepseekV3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
  "auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV3Config"}, "aux_loss_alpha": 0.001, "bos_token_id": 0, "eos_token_id": 1,
  "ep_size": 1, "first_k_dense_replace": 3, "hidden_act": "silu", "hidden_size": 7168, "initializer_range": 0.006,
  "intermediate_size": 18432, "kv_lora_rank": 512, "max_position_embeddings": 163840, "model_type": "deepseek_v3",
  "moe_intermediate_size": 2048, "moe_layer_freq": 1, "n_group": 8, "n_routed_experts": 256, "n_shared_experts": 1,
  "norm_topk_prob": true, "num_attention_heads": 128, "num_experts_per_tok": 8, "num_hidden_layers": 61, "num_key_value_heads": 128,
  "num_nextn_predict_layers": 1, "pretraining_tp": 1, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
  "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]},
  "rms_norm_eps": 1e-06,
  "rope_scaling": {"beta_fast": 32, "beta_slow": 1, "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0,
                   "original_max_position_embeddings": 4096, "type": "yarn"},
  "rope_theta": 10000, "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "seq_aux": true, "tie_word_embeddings": false,
  "topk_group": 4, "topk_method": "noaux_tc", "torch_dtype": "bfloat16", "transformers_version": "4.33.1", "use_cache": true,
  "v_head_dim": 128, "vocab_size": 129280
}""")


def test_released_v3_is_the_preset():
    assert ModelConfig.from_hf(RELEASED_V3) == preset("v3")


def test_transformers_5_spelling_reads_the_same():
    values = {
        key: value
        for key, value in RELEASED_V3.items()
        if key not in ("rope_scaling", "rope_theta", "scoring_func", "topk_method", "torch_dtype")
    }
    rope = RELEASED_V3["rope_scaling"] | {"rope_type": "yarn", "rope_theta": 10000.0}
    values |= {
        "rope_parameters": rope,
        "dtype": "bfloat16",
        "head_dim": 64,
        "qk_head_dim": 192,
        "rope_interleave": True,
        "output_router_logits": False,
    }
    assert ModelConfig.from_hf(values) == preset("v3")


@pytest.mark.parametrize("name", PRESETS)
def test_round_trip(name):
    config = preset(name)
    assert ModelConfig.from_hf(json.loads(json.dumps(config.to_hf()))) == config


@pytest.mark.parametrize("name", [name for name, config in PRESETS.items() if not config.is_dense])
def test_transformers_reads_and_writes_it(name):
    transformers = pytest.importorskip("transformers")
    config = preset(name)
    kind = (
        transformers.DeepseekV3Config
        if config.model_type == "deepseek_v3"
        else transformers.DeepseekV2Config
    )
    written = json.loads(kind(**config.to_hf()).to_json_string(use_diff=False))
    # use_diff=False adds every default of the base class
    for noise in set(written) - set(config.to_hf()):
        if noise not in ("rope_parameters", "head_dim", "qk_head_dim"):
            del written[noise]
    assert ModelConfig.from_hf(written) == config


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"routed_scaling_facto": 1.0},
            "'routed_scaling_facto', which might change the computation; did you mean routed_scaling_factor?",
        ),
        ({"index_topk": 2048}, "unknown key 'index_topk'"),
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"hidden_size": "7168"}, "hidden_size is '7168', expected a value of type int"),
        ({"hidden_size": True}, "hidden_size is True"),
        (
            {"model_type": "mixtral"},
            "model_type is 'mixtral', expected deepseek_v3 or deepseek_v2 or llama",
        ),
        ({"model_type": "llama"}, "config.json has the unknown key"),
        ({"attention_bias": True}, "attention_bias is True, expected False"),
        ({"attention_dropout": 0.1}, "attention_dropout is 0.1"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu', expected silu"),
        ({"moe_layer_freq": 2}, "moe_layer_freq is 2"),
        (
            {"num_key_value_heads": 8},
            "num_key_value_heads is 8, expected 128 = num_attention_heads",
        ),
        (
            {"scoring_func": "softmax"},
            "scoring_func is 'softmax', expected sigmoid for deepseek_v3",
        ),
        ({"topk_method": "greedy"}, "topk_method is 'greedy'"),
        ({"n_group": 7}, "n_group is 7, expected a divisor of n_routed_experts = 256"),
        ({"topk_group": 9}, "topk_group is 9, expected at most n_group = 8"),
        ({"n_group": 256, "topk_group": 128}, "groups of at least 2 experts"),
        (
            {"num_experts_per_tok": 129},
            "num_experts_per_tok is 129, expected at most the 128 experts of 4 groups",
        ),
        ({"qk_rope_head_dim": 63}, "qk_rope_head_dim is 63, expected an even number"),
        ({"rms_norm_eps": 0.0}, "rms_norm_eps is 0.0, expected a positive number"),
        ({"num_nextn_predict_layers": -1}, "num_nextn_predict_layers is -1"),
        (
            {"max_position_embeddings": 1024},
            "max_position_embeddings is 1024, expected at least the original 4096",
        ),
        ({"quantization_config": {"quant_method": "gptq"}}, "quant_method is 'gptq', expected fp8"),
        (
            {"quantization_config": {"quant_method": "fp8", "weight_block_size": [64, 64]}},
            "weight_block_size is [64, 64]",
        ),
        (
            {"rope_scaling": {"type": "linear", "factor": 4}},
            "rope type is ['linear'], expected yarn or default",
        ),
        (
            {"rope_scaling": {"type": "yarn", "factor": 4}},
            "yarn original_max_position_embeddings is None",
        ),
        (
            {"rope_scaling": RELEASED_V3["rope_scaling"] | {"attention_factor": 2.0}},
            "unknown key 'attention_factor'",
        ),
        (
            {"rope_scaling": RELEASED_V3["rope_scaling"] | {"mscale": 0.7, "mscale_all_dim": 0}},
            "mscale, mscale_all_dim is (0.7, 0)",
        ),
        (
            {"rope_scaling": RELEASED_V3["rope_scaling"] | {"factor": 0.5}},
            "rope_scaling.factor is 0.5",
        ),
        (
            {"rope_parameters": RELEASED_V3["rope_scaling"] | {"rope_theta": 5.0}},
            "rope_theta is 10000, expected 5.0 as in rope_parameters",
        ),
    ],
)
def test_what_would_be_computed_wrongly_is_refused(change, said):
    with pytest.raises(ValueError, match=".") as error:
        ModelConfig.from_hf({**RELEASED_V3, **change})
    assert said in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        {"scoring_func": "sigmoid"},
        {"norm_topk_prob": True},
        {"num_nextn_predict_layers": 1},
        {"topk_group": 2, "topk_method": "greedy"},
    ],
)
def test_v2_refuses_what_its_readers_would_ignore(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        ModelConfig.from_hf({**preset("v2").to_hf(), **change})


# As released (transformers 4 spelling), with the number of parameters that their pages state.
RELEASED_DENSE = {
    "llama-3.2-1b": (1_235_814_400, {
        "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 128000,
        "eos_token_id": [128001, 128008, 128009], "head_dim": 64, "hidden_act": "silu", "hidden_size": 2048, "initializer_range": 0.02,
        "intermediate_size": 8192, "max_position_embeddings": 131072, "mlp_bias": False, "model_type": "llama", "num_attention_heads": 32,
        "num_hidden_layers": 16, "num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
        "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192,
                         "rope_type": "llama3"},
        "rope_theta": 500000.0, "tie_word_embeddings": True, "torch_dtype": "bfloat16", "transformers_version": "4.45.0.dev0",
        "use_cache": True, "vocab_size": 128256}),
    "qwen2.5-0.5b": (494_032_768, {
        "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151645, "hidden_act": "silu",
        "hidden_size": 896, "initializer_range": 0.02, "intermediate_size": 4864, "max_position_embeddings": 32768, "max_window_layers": 21,
        "model_type": "qwen2", "num_attention_heads": 14, "num_hidden_layers": 24, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
        "transformers_version": "4.43.1", "use_cache": True, "use_sliding_window": False, "vocab_size": 151936}),
    "qwen3-0.6b": (596_049_920, {
        "architectures": ["Qwen3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 151643,
        "eos_token_id": 151645, "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024, "initializer_range": 0.02,
        "intermediate_size": 3072, "max_position_embeddings": 40960, "max_window_layers": 28, "model_type": "qwen3",
        "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8, "rms_norm_eps": 1e-06, "rope_scaling": None,
        "rope_theta": 1000000, "sliding_window": None, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
        "transformers_version": "4.51.0", "use_cache": True, "use_sliding_window": False, "vocab_size": 151936}),
}  # fmt: skip


@pytest.mark.parametrize("name", RELEASED_DENSE)
def test_released_dense_models(name):
    parameters, values = RELEASED_DENSE[name]
    config = ModelConfig.from_hf(values)
    assert config.parameters == parameters == config.active_parameters
    assert sum(tensor.numel() for tensor in checkpoint(config).values()) == parameters
    assert ModelConfig.from_hf(json.loads(json.dumps(config.to_hf()))) == config
    transformers = pytest.importorskip("transformers")
    kind = getattr(transformers, values["architectures"][0].replace("ForCausalLM", "Config"))
    assert ModelConfig.from_hf(json.loads(kind(**values).to_json_string())) == config, (
        "the spelling of transformers 5"
    )


def test_dense_numbers_by_hand():
    """Llama 3.2 1B: two key-value heads' worth of numbers each for 8 heads of 64; every product written out."""
    llama = ModelConfig.from_hf(RELEASED_DENSE["llama-3.2-1b"][1])
    assert llama.eos_token_ids == (128001, 128008, 128009)
    assert llama.cache_bytes_per_token() == 16 * 2 * 8 * 64 * 2
    products = 16 * (2048 * (2048 + 2 * 512) + 2048 * 2048 + 3 * 2048 * 8192) + 128256 * 2048
    assert llama.forward_flops(keys=10) == 2 * products + 16 * 2 * 32 * (64 + 64) * 10
    assert ModelConfig.from_hf(RELEASED_DENSE["qwen2.5-0.5b"][1]).head_dim == 64
    assert (
        ModelConfig.from_hf(RELEASED_DENSE["qwen2.5-0.5b"][1]).attention_parameters
        == 896 * (896 + 256) + (896 + 256) + 896 * 896
    )


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("qwen2.5-0.5b", {"use_sliding_window": True}, "use_sliding_window is True, expected false"),
        ("qwen3-0.6b", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types is ['sliding_attention']"),
        ("qwen2.5-0.5b", {"attention_bias": True}, "unknown key 'attention_bias'"),
        ("qwen2.5-0.5b", {"num_key_value_heads": None}, "lacks num_key_value_heads"),
        ("qwen3-0.6b", {"head_dim": None}, "lacks head_dim"),
        ("qwen3-0.6b", {"head_dim": 127}, "head_dim is 127, expected an even number"),
        ("qwen3-0.6b", {"num_key_value_heads": 5}, "num_key_value_heads is 5, expected a divisor of num_attention_heads = 16"),
        ("qwen3-0.6b", {"n_routed_experts": 8}, "unknown key 'n_routed_experts'"),
        ("llama-3.2-1b", {"mlp_bias": True}, "mlp_bias is True, expected False"),
        ("llama-3.2-1b", {"eos_token_id": []}, "eos_token_id is (), expected at least one id"),
        ("llama-3.2-1b", {"rope_scaling": {"rope_type": "dynamic", "factor": 2}}, "rope type is ['dynamic'], expected yarn or llama3 or default"),
        ("llama-3.2-1b", {"rope_scaling": {"rope_type": "llama3", "factor": 2}}, "llama3 original_max_position_embeddings is None"),
        ("qwen3-0.6b", {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768, "mscale": 0.7,
                                         "mscale_all_dim": 0.7}}, "mscale, mscale_all_dim is (0.7, 0.7), expected 1 and 0"),
    ],
)  # fmt: skip
def test_dense_models_that_would_be_computed_wrongly_are_refused(name, change, said):
    with pytest.raises(ValueError, match=".") as error:
        ModelConfig.from_hf({**RELEASED_DENSE[name][1], **change})
    assert said in str(error.value)


def test_unused_windows_and_both_spellings_of_yarn_are_read():
    values = RELEASED_DENSE["qwen2.5-0.5b"][1]
    plain = ModelConfig.from_hf(values)
    assert (
        ModelConfig.from_hf(values | {"use_sliding_window": True, "max_window_layers": 24}) == plain
    )
    assert (
        ModelConfig.from_hf(
            values | {"use_sliding_window": True, "layer_types": ["full_attention"] * 24}
        )
        == plain
    )
    stretched = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    assert ModelConfig.from_hf(values | {"rope_scaling": stretched}).rope_scaling == RopeScaling(
        4.0, 32768
    )


@pytest.mark.parametrize(
    "change",
    [{"kv_lora_rank": 16}, {"q_lora_rank": 3}, {"n_group": 2}, {"num_nextn_predict_layers": 1}],
)
def test_fields_of_the_other_family_are_refused(change):
    with pytest.raises(ValueError, match=f"{next(iter(change))} is .* for llama"):
        dataclasses.replace(ModelConfig.from_hf(RELEASED_DENSE["llama-3.2-1b"][1]), **change)
    with pytest.raises(ValueError, match="num_key_value_heads is 2, expected 0 for deepseek_v3"):
        dataclasses.replace(preset("laptop"), num_key_value_heads=2)


def test_unknown_preset_suggests():
    with pytest.raises(ValueError, match="did you mean laptop"):
        preset("labtop")


@pytest.mark.parametrize(
    ("name", "total", "blocks", "with_head", "active"),
    [
        ("v3", 671_026_419_200, 35_698_939_392, 36_625_618_432, 37_552_297_472),
        ("v2", 235_741_434_880, 20_327_224_320, 20_851_512_320, 21_375_800_320),
        ("v2-lite", 15_706_484_224, 2_241_719_808, 2_451_435_008, 2_661_150_208),
        ("benchmark", 17_958_512, 5_506_672, 7_603_824, 9_700_976),
    ],
)
def test_parameter_totals(name, total, blocks, with_head, active):
    config = preset(name)
    assert config.parameters == total
    assert (config.active_block_parameters, config.active_parameters) == (blocks, active)
    assert config.active_block_parameters + config.embedding_parameters == with_head


def test_parts_of_v3():
    v3 = preset("v3")
    assert v3.attention_parameters == 187_107_328
    assert v3.expert_parameters == 44_040_192
    assert v3.router_parameters == 1_835_264
    assert (v3.block_parameters(0), v3.block_parameters(3)) == (583_483_392, 11_507_286_272)
    assert v3.mtp_parameters == 11_610_068_224
    # the "685B" of the model card
    assert v3.parameters + v3.mtp_parameters + 2 * v3.embedding_parameters == 684_489_845_504


def checkpoint(config):
    """Every tensor of the Hugging Face folder, without memory behind it."""
    return dict(official(config, memory(Transformer(config, device="meta"))))


def test_v3_checkpoint_is_as_released():
    """91,991 tensors, 688,574,839,360 bytes: matrices of the blocks in FP8 with an FP32 scale for each 128 x 128, biases FP32, the rest BF16."""
    stored, count, size = checkpoint(preset("v3")), 0, 0
    for name, tensor in stored.items():
        quantised = (
            tensor.ndim == 2
            and (".self_attn." in name or ".mlp." in name)
            and not name.endswith("mlp.gate.weight")
        )
        scales = math.prod(-(-n // FP8_BLOCK) for n in tensor.shape) if quantised else 0
        count += 1 + quantised
        size += (
            tensor.numel()
            * (1 if quantised else 4 if name.endswith("e_score_correction_bias") else 2)
            + 4 * scales
        )
    assert (count, size) == (91_991, 688_574_839_360)
    assert stored["model.layers.0.self_attn.kv_a_proj_with_mqa.weight"].shape == (576, 7168)
    assert stored["model.layers.61.eh_proj.weight"].shape == (7168, 14336)
    assert stored["model.layers.60.mlp.gate.e_score_correction_bias"].shape == (256,)


@pytest.mark.parametrize("name", PRESETS)
def test_a_checkpoint_adds_up_to_the_parameters(name):
    config = preset(name)
    copies = 2 * config.num_nextn_predict_layers * config.embedding_parameters
    assert (
        sum(tensor.numel() for tensor in checkpoint(config).values())
        == config.parameters + config.mtp_parameters + copies
    )


def test_tied_embedding_counts_once():
    tied = dataclasses.replace(preset("laptop"), tie_word_embeddings=True)
    assert preset("laptop").parameters - tied.parameters == tied.embedding_parameters
    assert "lm_head.weight" not in checkpoint(tied)


def test_cache_bytes():
    v3 = preset("v3")
    assert v3.cache_bytes_per_token() == 70_272
    assert v3.cache_bytes_per_token(with_mtp=True) == 71_424
    assert round(v3.cache_bytes_per_token(with_mtp=True) * 131_072 / 2**30, 2) == 8.72


def test_training_flops_of_v3_are_the_published_250_gflop():
    assert round(preset("v3").training_flops(4096, with_mtp=False) / 1e9) == 250


def test_flops_by_hand():
    """Width 4, one dense layer, one head: every product written out."""
    config = ModelConfig(
        vocab_size=10, hidden_size=4, intermediate_size=6, moe_intermediate_size=2, num_hidden_layers=1, first_k_dense_replace=1,
        num_attention_heads=1, n_routed_experts=2, n_shared_experts=0, num_experts_per_tok=1, kv_lora_rank=3, qk_nope_head_dim=5,
        qk_rope_head_dim=2, v_head_dim=4,
    )  # fmt: skip
    products = 4 * 7 + 4 * (3 + 2) + 3 * (5 + 4) + 4 * 4 + 3 * 4 * 6 + 10 * 4
    assert config.forward_flops(keys=9) == 2 * products + 2 * 9 * (7 + 4)
    assert config.training_flops(17) == 3 * config.forward_flops(9)


def test_yarn_numbers():
    assert math.isclose(preset("v3").softmax_scale, 0.1352337789, rel_tol=1e-9)
    assert math.isclose(preset("v2-lite").softmax_scale, 0.1147213868, rel_tol=1e-9)
    assert math.isclose(RopeScaling(40, 4096).magnitude(1.0), 1.3688879454, rel_tol=1e-10)
    assert math.isclose(RopeScaling(40, 4096).magnitude(0.707), 1.2608037774, rel_tol=1e-10)
    assert preset("v3").rope_scaling.rotary_magnitude == 1.0
