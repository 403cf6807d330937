"""Deliberately wrong dense models, each rejected by a named check (see test_twins.py)."""

import re

import pytest
import torch

from deepwright import numerics
from deepwright.model import grouped_attention, layers, rope
from deepwright.weights import saving
from tests.broken.test_twins import Twin, cached_one_position_ahead, causal, must_pass


def heads_dealt_out_to_groups(original):
    """Query head h with key head h mod K: right only where each has its own."""

    def attend(q_BSHd, k_BTKd, v_BTKd, *rest):
        order = torch.arange(q_BSHd.shape[2]).view(-1, k_BTKd.shape[2]).t().flatten()
        out = original(q_BSHd[:, :, order], k_BTKd, v_BTKd, *rest)
        return torch.empty_like(out).index_copy(2, order, out)

    return attend


def pairs_of_neighbours(original):
    return lambda x, turn, interleave: original(x, turn, not interleave)


def rotated_before_the_norm(original):
    """A norm without weights commutes with a rotation; one with weights does not."""

    def forward(self, x, positions, turn, cache=None, form=None, branch=None):
        if not self.config.qk_norm:
            return original(self, x, positions, turn, cache, form, branch)
        norms, after = (self.q_norm, self.k_norm), grouped_attention.rotate
        with pytest.MonkeyPatch.context() as patch:
            queue = iter(norms)
            patch.setattr(
                grouped_attention,
                "rotate",
                lambda x, turn, interleave: next(queue)(after(x, turn, interleave)),
            )
            self.q_norm = self.k_norm = torch.nn.Identity()
            try:
                return original(self, x, positions, turn, cache, form, branch)
            finally:
                self.q_norm, self.k_norm = norms

    return forward


def bias_forgotten(_):
    return lambda self, x: (
        numerics.linear(x, self.weight) + (0 if self.bias is None else 0 * self.bias)
    )


def stretching_ignored(_):
    return lambda f, s: f


def stretched_everywhere(_):
    return lambda f, s: f / s.factor


def values_first_in_the_cache(original):
    """Stored [k | v], read [v | k]: only a cache shows it."""

    def attend(q, keys, scale, positions):
        if isinstance(keys, torch.Tensor):
            return original(q, torch.cat(keys.chunk(2, dim=-1)[::-1], dim=-1), scale, positions)
        entries = torch.cat(keys.entries_UE.chunk(2, dim=-1)[::-1], dim=-1)
        return original(q, numerics.PagedKeys(entries, keys.table_BM, keys.block), scale, positions)

    return attend


def key_rows_saved_as_value_rows(original):
    swapped = {"k_proj": "v_proj", "v_proj": "k_proj"}
    return lambda c, ours: (
        (re.sub("[kv]_proj", lambda m: swapped[m[0]], name), part)
        for name, part in original(c, ours)
    )


ATTENTION = grouped_attention.GroupedAttention
TWINS = [
    Twin(
        "heads dealt out to groups",
        "network_equals_transformers",
        numerics,
        "grouped_attention",
        heads_dealt_out_to_groups,
    ),
    Twin(
        "rotary pairs of neighbours",
        "network_equals_transformers",
        grouped_attention,
        "rotate",
        pairs_of_neighbours,
    ),
    Twin(
        "rotated before the norm",
        "network_equals_transformers",
        ATTENTION,
        "forward",
        rotated_before_the_norm,
    ),
    Twin("bias forgotten", "network_equals_transformers", layers.Linear, "forward", bias_forgotten),
    Twin(
        "llama3 stretching ignored",
        "network_equals_transformers",
        rope,
        "_llama3",
        stretching_ignored,
    ),
    Twin(
        "llama3 stretching everywhere",
        "network_equals_transformers",
        rope,
        "_llama3",
        stretched_everywhere,
    ),
    Twin(
        "values first in the cache",
        "chunked_equals_whole",
        numerics,
        "cached_grouped_attention",
        values_first_in_the_cache,
    ),
    Twin(
        "cached mask off by one",
        "chunked_equals_whole",
        causal,
        "attention_at",
        cached_one_position_ahead,
    ),
    Twin(
        "values first in the engine's cache",
        "greedy_tokens_equal_transformers",
        numerics,
        "cached_grouped_attention",
        values_first_in_the_cache,
    ),
    Twin(
        "key rows saved as value rows",
        "folder_opens_in_transformers",
        saving,
        "official",
        key_rows_saved_as_value_rows,
    ),
]


@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.name)
def test_twin_is_rejected(twin):
    twin.must_be_rejected()


@pytest.mark.parametrize("name", sorted({twin.check for twin in TWINS}))
def test_check_passes_without_its_twins(name):
    must_pass(name)
