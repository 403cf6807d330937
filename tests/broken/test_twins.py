"""Deliberately wrong twins: each replaces one function by a mistake that has been made elsewhere, and names the check that must reject it.

A check that no mistake can fail shows nothing. Every twin is run twice: in place, the check must raise AssertionError; taken out, it
must pass again.
"""

import copy
import dataclasses
import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from deepwright import config, numerics, verify
from deepwright.inference import engine, paged_cache, rows
from deepwright.model import attention, experts, layers, multi_token, rope, transformer
from deepwright.numerics import pointwise
from deepwright.rl import losses, rollout, update
from deepwright.train import objective
from deepwright.verify.check import CHECKS
from deepwright.weights import saving

# the package exports a function of the same name
causal = importlib.import_module("deepwright.numerics.attention")


@dataclass(frozen=True)
class Twin:
    """`wrong` gets what it replaces and returns the mistaken version."""

    name: str
    check: str
    owner: object
    attribute: str
    wrong: Callable

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        original = vars(self.owner)[self.attribute]
        patch.setattr(self.owner, self.attribute, self.wrong(original))

    def must_be_rejected(self) -> None:
        skip_without_packages(self.check)
        with pytest.MonkeyPatch.context() as patch:
            self.apply(patch)
            with pytest.raises(AssertionError, match=self.check):
                verify.require(self.check)


def must_pass(check: str) -> None:
    skip_without_packages(check)
    verify.require(check)


def skip_without_packages(check: str) -> None:
    if CHECKS[check].missing:
        pytest.skip(f"{CHECKS[check].missing[0]} is not installed")


def bent(original, change):
    """A routing that sees another config."""
    return lambda logits, bias, c: original(logits, bias, dataclasses.replace(c, **change))


# --- routing


def zero_for_excluded_groups(original):
    return lambda choice, c: original(choice, c).nan_to_num(neginf=0.0)


def best_expert_scores_its_group(original):
    def limit_groups(choice, c):
        return original(choice, dataclasses.replace(c, model_type="deepseek_v2", scoring_func="softmax", norm_topk_prob=False,
                                                    num_nextn_predict_layers=0, rope_interleave=True, topk_method="group_limited_greedy"))  # fmt: skip

    return limit_groups


def bias_in_the_weights(original):
    def route(logits, bias, c):
        ids, _, scores = original(logits, bias, c)
        chosen = (scores if bias is None else scores + bias).gather(1, ids)
        return ids, chosen / chosen.sum(-1, keepdim=True) * c.routed_scaling_factor, scores

    return route


def weights_by_taking_the_bias_off_again(original):
    def route(logits, bias, c):
        ids, _, scores = original(logits, bias, c)
        chosen = ((scores + bias) - bias).gather(1, ids)  # fp32 cancels a small score to nothing
        return (
            ids,
            chosen / (chosen.sum(-1, keepdim=True) + 1e-20) * c.routed_scaling_factor,
            scores,
        )

    return route


def ties_to_the_highest_index(_):
    return lambda score, k: (
        score.shape[1] - 1 - score.flip(1).sort(dim=1, descending=True, stable=True).indices[:, :k]
    )


def router_in_low_precision(_):
    return lambda self, x: experts.route(
        numerics.linear(x.bfloat16(), self.weight.bfloat16()).float(), self.bias, self.config
    )


def shared_expert_dropped(original):
    def forward(self, x):
        twin = copy.copy(self)
        twin._modules = {**self._modules, "shared": None}
        return original(twin, x)

    return forward


def padding_counted(original):
    return lambda layer, choice, count, batch, valid: original(layer, choice, count, batch, None)


def balance_without_gradient(original):
    return lambda routing, sequences: tuple(
        x.detach().requires_grad_() for x in original(routing, sequences)
    )


# --- attention and positions


def scale_without_magnitude(_):
    return property(lambda self: self.qk_head_dim**-0.5)


def scale_by_the_value_width(original):
    return property(lambda self: original.fget(self) * (self.qk_head_dim / self.v_head_dim) ** 0.5)


def cosines_scaled_by_one_mscale(original):
    return lambda c, positions: (
        original(c, positions)
        * (c.rope_scaling.magnitude(c.rope_scaling.mscale_all_dim) if c.rope_scaling else 1.0)
    )


def ramp_upside_down(_):
    def yarn(f, width, base, s):
        ramp = 1 - torch.linspace(0, 1, len(f))
        return f / s.factor * ramp + f * (1 - ramp)

    return yarn


def half_split_pairs(original):
    return lambda x, turn, interleave: original(x, turn, not interleave)


def rotary_key_normed(original):
    """The key has no head axis; queries have."""
    return lambda x, turn, interleave: original(
        x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) if x.ndim == 3 else x,
        turn,
        interleave,
    )


def latent_norms_follow_the_config(original):
    def init(self, c, layer):
        original(self, c, layer)
        self.kv_a_norm.eps = c.rms_norm_eps

    return init


def values_before_keys(original):
    """kv_b read as [value | key]."""

    def expanded(q, kv, key, *rest):
        values = kv.shape[3] - q.shape[3] + key.shape[2]
        return original(q, torch.cat((kv[..., values:], kv[..., :values]), dim=-1), key, *rest)

    return expanded


def one_position_ahead(original):
    """Every query sees the key behind its own too."""

    def expanded(q, kv, key, *rest):
        return original(q, kv.roll(-1, 1), key.roll(-1, 1), *rest)

    return expanded


def cached_one_position_ahead(original):
    return lambda q, k, v, scale, positions: original(q, k, v, scale, positions + 1)


def gate_and_up_swapped(original):
    return lambda gate_up: original(torch.cat(gate_up.chunk(2, dim=-1)[::-1], dim=-1))


# --- MTP


def hidden_before_embedding(original):
    def merge(self, h, embedded, dtype):
        twin = copy.copy(self)
        weight = self.projection.weight
        swapped = layers.Linear(1, 1)
        swapped.weight = torch.nn.Parameter(torch.cat(weight.chunk(2, dim=1)[::-1], dim=1))
        twin._modules = {**self._modules, "projection": swapped}
        return original(twin, h, embedded, dtype)

    return merge


def token_of_the_same_position(original):
    """MTP sees token i where it should see token i + 1."""
    return lambda self, h, tokens, **options: original(self, h, tokens.roll(1, dims=1), **options)


def target_shift_off_by_one(original):
    return lambda model, h, piece, depth, tokens: original(
        model, h[:, 1:] if depth else h, piece, depth + (depth > 0), tokens
    )


# --- training and reinforcement learning


def mean_per_micro_batch(original):
    def piece_loss(model, piece, terms, tokens, share, recompute, sums):
        return (
            original(
                model, piece, terms, float(piece.target_weights().sum()), share, recompute, sums
            )
            * share
        )

    return piece_loss


def loads_counted_twice(original):
    return lambda loads, routing: (original(loads, routing), original(loads, routing))


def bias_sign_flipped(original):
    return lambda bias, load, speed: original(bias, load, -speed)


def advantage_over_the_batch(original):
    def training_rows(groups, variant, *, drop_zero_variance):
        made = original(groups, variant, drop_zero_variance=drop_zero_variance)
        everyone = variant.advantage([reward for group in groups for reward in group.rewards])
        return [
            dataclasses.replace(row, advantage=advantage)
            for row, advantage in zip(made, everyone, strict=True)
        ]

    return training_rows


def token_mean_per_micro_batch(_):
    return lambda objective_T, weights_T: -objective_T.mean()


def temperature_in_the_sampler_only(original):
    return lambda h, head, targets, temperature, *more: original(h, head, targets, 1.0, *more)


def log_probs_divided_by_temperature(original):
    def selected(h, head, targets, temperature, *more):
        log_probs, entropy = original(h, head, targets, 1.0, *more)
        return log_probs / temperature, entropy

    return selected


def log_probs_off_by_one(original):
    return lambda model, batch, *rest: original(
        model, dataclasses.replace(batch, tokens_BS=batch.tokens_BS.roll(-1, dims=1)), *rest
    )


def old_policy_not_held_fixed(original):
    """The ratio is 1 and so is the loss's value, but the gradient vanishes."""
    return lambda log_probs, batch: dataclasses.replace(
        original(log_probs, batch), old_log_probs_T=log_probs
    )


def kl_of_the_inverse_ratio(original):
    return lambda log_probs, reference: original(reference, log_probs)


def always_clipped(_):
    def clipped(terms, c, ratio_of=losses.ratio):
        return ratio_of(terms).clamp(*c.interval) * terms.advantages_T - c.beta * losses.k3(
            terms.log_probs_T, terms.reference_log_probs_T
        )

    return clipped


# --- engine and folders


def log_probs_before_temperature(original):
    def draw(logits, u, temperature, *rules):
        plain = logits.log_softmax(-1)
        ids, _ = original(logits, u, temperature, *rules)
        return ids, plain.gather(1, ids[:, None])[:, 0]

    return draw


def no_copy_on_write(_):
    return lambda self, sources, targets: None


def random_numbers_by_row(_):
    return lambda seeds, prompts, samples: torch.arange(len(seeds)) + seeds[0]


def biases_saved_as_zeros(original):
    return lambda model: (
        (name, tensor * ("correction_bias" not in name)) for name, tensor in original(model)
    )


def fused_rows_saved_up_first(original):
    swapped = {"gate_proj": "up_proj", "up_proj": "gate_proj"}
    return lambda c, ours: (
        (re.sub("gate_proj|up_proj", lambda m: swapped[m[0]], name), part)
        for name, part in original(c, ours)
    )


TWINS = [
    Twin(
        "0 instead of -inf for excluded groups",
        "choices_equal_reference",
        experts,
        "limit_groups",
        zero_for_excluded_groups,
    ),
    Twin(
        "a group scored by its best expert",
        "choices_equal_reference",
        experts,
        "limit_groups",
        best_expert_scores_its_group,
    ),
    Twin(
        "ties to the highest index",
        "choices_equal_reference",
        experts,
        "top_ids",
        ties_to_the_highest_index,
    ),
    Twin("bias in the weights", "weights_ignore_the_bias", experts, "route", bias_in_the_weights),
    Twin(
        "bias added and taken off again",
        "weights_ignore_the_bias",
        experts,
        "route",
        weights_by_taking_the_bias_off_again,
    ),
    Twin(
        "no scaling factor",
        "logits_equal_reference",
        experts,
        "route",
        lambda f: bent(f, {"routed_scaling_factor": 1.0}),
    ),
    Twin(
        "no normalisation of the weights",
        "logits_equal_reference",
        experts,
        "route",
        lambda f: bent(f, {"norm_topk_prob": False}),
    ),
    Twin(
        "router in bf16",
        "logits_equal_reference",
        experts.Router,
        "forward",
        router_in_low_precision,
    ),
    Twin(
        "shared expert dropped",
        "logits_equal_reference",
        experts.MixtureOfExperts,
        "forward",
        shared_expert_dropped,
    ),
    Twin(
        "padding counted as load", "padding_changes_nothing", transformer, "record", padding_counted
    ),
    Twin(
        "bias rule of the wrong sign",
        "balance_equals_hand_numbers",
        experts,
        "update_bias",
        bias_sign_flipped,
    ),
    Twin(
        "balance loss without gradient",
        "balance_equals_hand_numbers",
        experts,
        "_frequency_and_share",
        balance_without_gradient,
    ),
    Twin(
        "missing mscale",
        "logits_equal_reference",
        config.ModelConfig,
        "softmax_scale",
        scale_without_magnitude,
    ),
    Twin(
        "softmax scale of the value width",
        "logits_equal_reference",
        config.ModelConfig,
        "softmax_scale",
        scale_by_the_value_width,
    ),
    Twin(
        "cosines scaled by one mscale",
        "logits_equal_reference",
        transformer,
        "rotation",
        cosines_scaled_by_one_mscale,
    ),
    Twin("YaRN's ramp upside down", "logits_equal_reference", rope, "_yarn", ramp_upside_down),
    Twin(
        "half-split rotary pairs", "logits_equal_reference", attention, "rotate", half_split_pairs
    ),
    Twin("rotary key normed", "logits_equal_reference", attention, "rotate", rotary_key_normed),
    Twin(
        "latent norms with the config's epsilon",
        "network_equals_transformers",
        attention.LatentAttention,
        "__init__",
        latent_norms_follow_the_config,
    ),
    Twin(
        "values before keys",
        "logits_equal_reference",
        numerics,
        "expanded_attention",
        values_before_keys,
    ),
    Twin(
        "causal mask off by one",
        "logits_equal_reference",
        numerics,
        "expanded_attention",
        one_position_ahead,
    ),
    Twin(
        "cached mask off by one",
        "chunked_equals_whole",
        causal,
        "attention_at",
        cached_one_position_ahead,
    ),
    Twin("gate and up swapped", "logits_equal_reference", pointwise, "swiglu", gate_and_up_swapped),
    Twin(
        "MTP reads [hidden; embedding]",
        "losses_equal_reference",
        multi_token.MultiTokenModule,
        "merge",
        hidden_before_embedding,
    ),
    Twin(
        "MTP sees the token of its own position",
        "losses_equal_reference",
        transformer.Transformer,
        "mtp_hidden",
        token_of_the_same_position,
    ),
    Twin(
        "MTP target shift off by one",
        "losses_equal_reference",
        objective,
        "_token_loss",
        target_shift_off_by_one,
    ),
    Twin(
        "token mean per micro-batch in pre-training",
        "training_gradient_ignores_micro_batches",
        objective,
        "_piece_loss",
        mean_per_micro_batch,
    ),
    Twin(
        "loads counted twice",
        "loads_count_every_choice_once",
        objective,
        "add_loads",
        loads_counted_twice,
    ),
    Twin(
        "advantage over the batch",
        "variants_equal_published_losses",
        rollout,
        "training_rows",
        advantage_over_the_batch,
    ),
    Twin(
        "token mean per micro-batch in RL",
        "policy_gradient_ignores_micro_batches",
        update,
        "policy_loss",
        token_mean_per_micro_batch,
    ),
    Twin(
        "temperature only in the sampler",
        "sampled_log_probs_equal_trainers",
        update,
        "selected_log_probs",
        temperature_in_the_sampler_only,
    ),
    Twin(
        "log-probabilities divided by T",
        "policy_gradient_equals_autograd",
        update,
        "selected_log_probs",
        log_probs_divided_by_temperature,
    ),
    Twin(
        "log-probabilities off by one",
        "sampled_log_probs_equal_trainers",
        update,
        "policy_log_probs",
        log_probs_off_by_one,
    ),
    Twin(
        "old policy not held fixed",
        "policy_gradient_equals_autograd",
        update,
        "loss_terms",
        old_policy_not_held_fixed,
    ),
    Twin(
        "KL of the inverse ratio",
        "variants_equal_published_losses",
        losses,
        "k3",
        kl_of_the_inverse_ratio,
    ),
    Twin(
        "clipped without the minimum",
        "variants_equal_published_losses",
        losses,
        "clipped",
        always_clipped,
    ),
    Twin(
        "temperature missing in the engine's log-probabilities",
        "sampled_log_probs_equal_trainers",
        engine,
        "draw",
        log_probs_before_temperature,
    ),
    Twin(
        "a shared block written by two",
        "engine_equals_whole_forward",
        paged_cache.BlockPool,
        "copy",
        no_copy_on_write,
    ),
    Twin("random numbers by row", "group_equals_alone", rows, "stream_keys", random_numbers_by_row),
    Twin(
        "router biases saved as zeros",
        "folder_comes_back_bit_exact",
        saving,
        "official_tensors",
        biases_saved_as_zeros,
    ),
    Twin(
        "gate and up swapped in the file",
        "folder_opens_in_transformers",
        saving,
        "official",
        fused_rows_saved_up_first,
    ),
]


@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.name)
def test_twin_is_rejected(twin):
    twin.must_be_rejected()


@pytest.mark.parametrize("name", sorted({twin.check for twin in TWINS}))
def test_check_passes_without_its_twins(name):
    must_pass(name)


def test_there_are_enough_and_each_has_its_own_name():
    assert len({twin.name for twin in TWINS}) == len(TWINS) >= 15
