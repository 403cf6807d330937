"""What a run measures: one glossary (name, unit, sentence) for every number that is logged, and the tracker that writes it down.

A record is one JSON line {"stage", "step", "time", <metric>: <value>, ...}. A name that is not in the glossary is refused, so nobody has to
guess what a number means. JSON has no NaN: a value that is not finite is written as null and counted in the record as "not_finite".
Other tools are told of each record by a `Mirror` (trackers.py: TensorBoard). No torch here.
"""

from __future__ import annotations

import difflib
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from deepwright.files import append_records, cut_torn_line, naming, rewind_records


@dataclass(frozen=True)
class Metric:
    """One measured quantity: the name under which it is logged, its unit, and what it means in one plain sentence."""

    name: str
    unit: str
    sentence: str


def _metrics(*rows: tuple[str, str, str]) -> dict[str, Metric]:
    return {name: Metric(name, unit, sentence) for name, unit, sentence in rows}


TRAINING = _metrics(
    (
        "loss",
        "nats/token",
        "What is minimised: in pre-training the mean negative log-likelihood of the next token.",
    ),
    (
        "total_loss",
        "nats/token",
        "The whole objective that is differentiated: next-token loss plus weighted MTP and balance losses.",
    ),
    ("grad_norm", "norm", "Length of the gradient over all parameters before clipping."),
    ("learning_rate", "1", "Step size given to the optimiser at this step."),
    (
        "skipped_steps",
        "steps",
        "Updates left out so far because the loss or the gradient was not finite.",
    ),
    ("step_seconds", "s", "Wall time of the whole step."),
)
BASE = _metrics(
    (
        "mtp_loss",
        "nats/token",
        "Mean negative log-likelihood of the token after the next, predicted by the MTP modules.",
    ),
    ("mtp_weight", "1", "Weight of the MTP loss in the objective at this step."),
    (
        "mtp_acceptance",
        "fraction",
        "Share of the MTP module's draft tokens that the main model would itself have chosen.",
    ),
    (
        "balance_loss",
        "1",
        "Sequence-wise balance loss before its weight; 1 in each layer where a sequence uses all experts equally.",
    ),
    ("validation_loss", "nats/token", "Next-token loss on documents that are never trained on."),
    (
        "bits_per_byte",
        "bits/byte",
        "The same loss in bits, divided by the bytes of the held-out text: whatever the tokenizer.",
    ),
    (
        "validation_loss_ema",
        "nats/token",
        "Validation loss of the exponential moving average of the weights.",
    ),
    ("tokens", "tokens", "Tokens trained on so far."),
    ("tokens_per_second", "tokens/s", "Training tokens divided by wall time of this step."),
    ("batch_tokens", "tokens", "Tokens in this step's batch."),
    ("bias_speed", "1", "How much a router bias moves at each step towards an equal load."),
    (
        "max_vio",
        "1",
        "How far the busiest expert's load is above the mean load, relative to it, averaged over layers (0: balanced).",
    ),
    (
        "max_vio_global",
        "1",
        "The same as max_vio, with loads summed over the whole validation set.",
    ),
    (
        "expert_load",
        "fraction",
        "Share of a layer's routed tokens that each expert received: one list for each MoE layer.",
    ),
    ("dead_experts", "experts", "Experts over all layers that received no token."),
    ("bias_range", "1", "Largest minus smallest router bias, averaged over layers."),
    (
        "checker_yes",
        "fraction",
        "Of the judged attempts whose value is the target, the share that the model accepts.",
    ),
    (
        "checker_no",
        "fraction",
        "Of the judged attempts whose value is not the target, the share that the model turns down.",
    ),
)
ZERO = _metrics(
    ("reward", "points", "Mean rule reward of this step's completions."),
    ("reward_std", "points", "Standard deviation of the reward over all completions of this step."),
    ("reward_accuracy", "points", "The part of the mean reward that was paid for right answers."),
    (
        "reward_format",
        "points",
        "The part of the mean reward that was paid for keeping the format.",
    ),
    (
        "reward_language",
        "points",
        "The part of the mean reward that was paid for thoughts in the language of the prompt.",
    ),
    (
        "reward_helpful",
        "points",
        "The part of the mean reward that the reward model of helpfulness paid.",
    ),
    ("reward_safe", "points", "The part of the mean reward that the reward model of safety paid."),
    (
        "language_consistency",
        "fraction",
        "Words of the prompt's language among all words of a thought, averaged over thoughts with words.",
    ),
    (
        "accuracy",
        "fraction",
        "Share of this step's training completions whose final answer is right; accuracy/KIND of one kind of problem.",
    ),
    ("format_rate", "fraction", "Share of completions that keep the asked format, right or wrong."),
    ("mean_length", "tokens", "Mean number of tokens in a completion, the stop token included."),
    ("max_length", "tokens", "Length of the longest completion."),
    ("mean_length_correct", "tokens", "Mean length of the completions whose answer is right."),
    ("mean_length_wrong", "tokens", "Mean length of the completions whose answer is not right."),
    (
        "repetition",
        "fraction",
        "Mean share of a completion's runs of eight tokens that stood in it before.",
    ),
    (
        "truncated_rate",
        "fraction",
        "Share of completions that were cut at the token limit before they ended by themselves.",
    ),
    (
        "self_check_rate",
        "fraction",
        "Share of completions that at least once call an attempt wrong and try again.",
    ),
    (
        "self_checks_per_answer",
        "checks",
        "Mean number of times a completion calls an attempt wrong and tries again.",
    ),
    ("correct_with_self_check", "fraction", "Accuracy among the completions with a self-check."),
    ("correct_without_self_check", "fraction", "Accuracy among the completions without one."),
    (
        "turned_right_rate",
        "fraction",
        "Share of completions whose first attempt was wrong and whose answer is right.",
    ),
    (
        "entropy",
        "nats/token",
        "Mean entropy of the next-token distribution at the sampled positions: how undecided the policy is.",
    ),
    (
        "kl",
        "nats/token",
        "Estimated divergence of the policy from the reference model (0 where there is none).",
    ),
    (
        "ratio_mean",
        "1",
        "Mean of the new policy's token probability divided by the sampling policy's.",
    ),
    ("ratio_max", "1", "Largest such ratio of the step."),
    (
        "clip_fraction",
        "fraction",
        "Share of tokens whose ratio was clipped, so that they give no gradient.",
    ),
    (
        "log_prob_gap_mean",
        "nats",
        "Mean absolute difference of sampler's and trainer's log-probabilities for the same tokens.",
    ),
    ("log_prob_gap_max", "nats", "Largest such difference of the step."),
    (
        "zero_variance_rate",
        "fraction",
        "Share of groups whose completions all earned the same reward and so teach nothing.",
    ),
    ("advantage_std", "1", "Standard deviation of the advantages that enter the loss."),
    (
        "groups",
        "groups",
        "Prompts of this step that were trained on, after groups without variance were dropped.",
    ),
    ("completions", "completions", "Completions sampled at this step."),
    ("completion_tokens", "tokens", "Tokens sampled at this step."),
    ("rollout_tokens_per_second", "tokens/s", "Sampled tokens divided by the time spent sampling."),
    ("temperature", "1", "Sampling temperature, also applied in the loss."),
    ("rollout_seconds", "s", "Time spent sampling completions."),
    ("reward_seconds", "s", "Time spent scoring them."),
    ("update_seconds", "s", "Time spent on forward and backward passes and the optimiser."),
    ("evaluation_seconds", "s", "Time spent on held-out evaluation at this step."),
    (
        "verifier_failures",
        "completions",
        "Completions for which the check itself failed; they are left out, never counted as wrong.",
    ),
)
EVALUATION = _metrics(
    (
        "pass_at_1",
        "fraction",
        "Chance that one sample is right; the standard error takes the samples of a problem as one cluster.",
    ),
    (
        "pass_at_k",
        "fraction",
        "Probability that at least one of k samples is right (unbiased estimate).",
    ),
    ("cons_at_k", "fraction", "Accuracy of the most frequent answer among k samples."),
    (
        "attempts_per_answer",
        "attempts",
        "Mean number of attempts that a completion makes, judged or not.",
    ),
    (
        "turned_right_share",
        "fraction",
        "Of the right answers with a self-check, the share whose first attempt was wrong.",
    ),
    ("equations_right", "fraction", "Share of all written equations that are true."),
    (
        "accuracy_with_self_check",
        "fraction",
        "Held-out accuracy among the completions with a self-check.",
    ),
    (
        "accuracy_without_self_check",
        "fraction",
        "Held-out accuracy among the completions without one.",
    ),
)
PREFERENCES = _metrics(
    (
        "reward_model_loss",
        "nats",
        "Mean negative log-likelihood of this step's preferences, or labels, under the reward model.",
    ),
    (
        "preference_accuracy",
        "fraction",
        "Share of this step's pairs that the reward model ranks right before it learns them.",
    ),
    (
        "win_rate",
        "fraction",
        "Share of held-out comparisons that another judge than the reward model decides for the policy.",
    ),
)
GLOSSARY: dict[str, Metric] = TRAINING | BASE | ZERO | EVALUATION | PREFERENCES


def check_names(names: Sequence[str]) -> None:
    """Raises ValueError for a name that the glossary lacks, and suggests the nearest one. `name/KIND` means `name` of one kind of problem."""
    for name in names:
        if name.partition("/")[0] not in GLOSSARY:
            near = difflib.get_close_matches(name, GLOSSARY, 1)
            hint = (
                f"did you mean {near[0]!r}?"
                if near
                else "add it to deepwright.metrics.GLOSSARY with a unit and a sentence"
            )
            raise ValueError(f"metric {name!r} is not in the glossary; {hint}")


class Tracker(Protocol):
    """Where training sends its numbers."""

    def log(self, stage: str, step: int, values: Mapping[str, float | list]) -> None: ...

    def flush(self) -> None: ...


class Mirror(Protocol):
    """Who is told of every record as well, for another tool; trackers.py has one."""

    def add(self, record: dict[str, Any]) -> None: ...

    def rewind(self, stage: str, step: int) -> None:
        """The records of a stage after this step were taken back."""
        ...


class JsonlTracker:
    """Appends one JSON line for each record; it is on its way to disk before `log` returns. A torn
    last line is cut off when opening. The file is opened for each record: one that is deleted, or
    whose disk is full, is an OSError that names it."""

    def __init__(self, path: str | Path, mirrors: Sequence[Mirror] = ()) -> None:
        self.path, self.mirrors = Path(path), tuple(mirrors)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        cut_torn_line(self.path)
        append_records(self.path, ())

    def log(self, stage: str, step: int, values: Mapping[str, float | list]) -> None:
        """Writes one record. Values: numbers or nested lists of numbers, under names of the glossary (ValueError otherwise)."""
        check_names(list(values))
        record, lost = {"stage": stage, "step": int(step), "time": round(time.time(), 3)}, []
        record |= {name: _clean(name, value, lost) for name, value in values.items()}
        record |= {"not_finite": len(lost)} if lost else {}
        append_records(self.path, [record], plain=True)
        for mirror in self.mirrors:
            mirror.add(record)

    def flush(self) -> None:
        with naming(self.path), self.path.open("rb") as file:
            os.fsync(file.fileno())

    def rewind(self, stage: str, step: int) -> int:
        """Drops this stage's records after `step`, as a resume from that step will write them again. Returns how many went."""
        gone = rewind_records(
            self.path, lambda record: record["stage"] == stage and record["step"] > step
        )
        for mirror in self.mirrors if gone else ():
            mirror.rewind(stage, step)
        return gone


def _clean(name: str, value: Any, lost: list[str]) -> Any:
    """A value as JSON numbers; `lost` gets the name of each that JSON cannot hold."""
    if isinstance(value, (list, tuple)):
        return [_clean(name, item, lost) for item in value]
    if isinstance(value, (str, bytes)) or not hasattr(value, "__float__"):
        raise ValueError(f"metric {name!r} is {value!r}, expected a number or a list of numbers")
    if isinstance(value, int):
        return int(value)
    if not math.isfinite(value):
        lost.append(name)
        return None
    return float(f"{float(value):.7g}")  # seven digits: more than fp32 carries, and half the file
