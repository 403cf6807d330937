"""Deliberately wrong policy losses, at least one for each variant: each names the check that must reject it, and that passes without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch

from deepwright import verify
from deepwright.rl import advantages, alarms, losses, types, update
from deepwright.rl.alarms import AlarmConfig
from deepwright.rl.losses import VARIANTS
from tests.rl.test_alarms import FAULTS, healthy, rung

FORMULAS, SPLITS, PADDING = (
    "variants_equal_published_losses",
    "policy_gradient_ignores_micro_batches",
    "padding_leaves_log_probs",
)


@dataclass(frozen=True)
class Bent:
    """A variant with one of its choices replaced."""

    name: str
    variant: str
    change: dict[str, Callable]
    check: str = FORMULAS

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        patch.setitem(VARIANTS, self.variant, replace(VARIANTS[self.variant], **self.change))


@dataclass(frozen=True)
class Twin:
    """`wrong` gets what it replaces and returns the mistaken version."""

    name: str
    owner: object
    attribute: str
    wrong: Callable
    check: str = FORMULAS

    def apply(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(self.owner, self.attribute, self.wrong(vars(self.owner)[self.attribute]))


def mean_kept_in_its_own_baseline(rewards):
    return advantages.centred(rewards)


def std_with_ddof_one(rewards):
    """TRL's: a group of 3 differs by sqrt(2/3)."""
    return [
        a * ((len(rewards) - 1) / len(rewards)) ** 0.5
        for a in advantages.group_standardised(rewards)
    ]


def mean_over_completions(values, lengths):
    """Each completion counted once, however long."""
    return advantages.standardised_over_tokens(values, [1] * len(values))


def longest_of_the_update(lengths, max_tokens):
    return losses.constant(lengths, max(lengths))


def arithmetic_mean_of_ratios(terms):
    ratio_T = losses.ratio(terms)
    totals = ratio_T.new_zeros(len(ratio_T)).index_add(0, terms.rows_T, ratio_T)[terms.rows_T]
    return totals / torch.bincount(terms.rows_T)[terms.rows_T]


def root_over_all_tokens(terms):
    return torch.exp((terms.log_probs_T - terms.old_log_probs_T).mean()).expand(len(terms.rows_T))


def one_epsilon_for_both_sides(_):
    return property(lambda self: (1 - self.clip, 1 + self.clip))


def kl_averaged_before_the_weights(_):
    def clipped(terms, c, ratio_of=losses.ratio):
        rho = ratio_of(terms)
        policy = torch.minimum(
            rho * terms.advantages_T, rho.clamp(*c.interval) * terms.advantages_T
        )
        return policy - c.beta * losses.k3(terms.log_probs_T, terms.reference_log_probs_T).mean()

    return clipped


def end_token_masked_where_it_is_the_padding(original):
    def pad_rows(rows, pad_id, device="cpu"):
        batch = original(rows, pad_id, device)
        shown = batch.completion_BS & (batch.tokens_BS != pad_id)
        return replace(batch, completion_BS=shown)

    return pad_rows


def rows_numbered_by_length(original):
    """A ratio per sequence whose sequences are mixed up as soon as a micro-batch holds two."""
    return lambda rows, pad_id, device="cpu": replace(
        original(rows, pad_id, device), rows_T=torch.zeros_like(original(rows, pad_id).rows_T)
    )


TWINS = [
    Bent("std with ddof 1", "grpo", {"advantage": std_with_ddof_one}),
    Bent(
        "a token counted whatever its completion's length",
        "grpo",
        {"token_weights": losses.token_mean},
    ),
    Bent(
        "mean of the completions' means", "grpo_token_mean", {"token_weights": losses.sequence_mean}
    ),
    Bent("dapo by completions", "dapo", {"token_weights": losses.sequence_mean}),
    Bent("dr_grpo with the std after all", "dr_grpo", {"advantage": advantages.group_standardised}),
    Bent(
        "dr_grpo by the longest completion there is",
        "dr_grpo",
        {"token_weights": longest_of_the_update},
    ),
    Bent("gspo with the product without its root", "gspo", {"ratio": losses.sequence_product}),
    Bent("gspo with the mean of the ratios", "gspo", {"ratio": arithmetic_mean_of_ratios}),
    Bent(
        "gspo with one root for the whole micro-batch",
        "gspo",
        {"ratio": root_over_all_tokens},
        SPLITS,
    ),
    Bent(
        "rloo with its own reward in the baseline",
        "rloo",
        {"advantage": mean_kept_in_its_own_baseline},
    ),
    Bent("rloo token by token", "rloo", {"ratio": losses.ratio}),
    Bent("reinforce_baseline without the batch", "reinforce_baseline", {"over_batch": None}),
    Bent(
        "reinforce_baseline over completions",
        "reinforce_baseline",
        {"over_batch": mean_over_completions},
    ),
    Twin("clip_high ignored", losses.Coefficients, "interval", one_epsilon_for_both_sides),
    Twin("KL averaged before the weights", losses, "clipped", kl_averaged_before_the_weights),
    Twin(
        "end token masked where it is the padding",
        types,
        "pad_rows",
        end_token_masked_where_it_is_the_padding,
        PADDING,
    ),
    Twin(
        "sequences of a micro-batch mixed up", update, "pad_rows", rows_numbered_by_length, SPLITS
    ),
]


@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.name)
def test_twin_is_rejected(twin):
    with pytest.MonkeyPatch.context() as patch:
        twin.apply(patch)
        with pytest.raises(
            (AssertionError, RuntimeError), match=None if twin.check == PADDING else twin.check
        ):
            verify.require(twin.check)


@pytest.mark.parametrize("name", (FORMULAS, SPLITS, PADDING))
def test_check_passes_without_its_twins(name):
    verify.require(name)


def test_every_variant_has_a_twin():
    assert {twin.variant for twin in TWINS if isinstance(twin, Bent)} == VARIANTS.keys()


# --- alarms that are too deaf or too nervous


def test_an_alarm_that_looks_at_single_rounds_rings_in_a_healthy_run():
    nervous = AlarmConfig(window=2, kind_fall=0.0)
    assert any(rung(healthy(100, 0.2, seed), nervous) for seed in range(5))


def test_an_alarm_that_looks_at_the_mean_alone_misses_the_kind(monkeypatch):
    monkeypatch.setitem(
        alarms.RULES,
        "kind_falls",
        lambda records, c: None if records[-1]["accuracy"] >= records[0]["accuracy"] else "fell",
    )
    assert rung(FAULTS["kind_falls"]) == {}
