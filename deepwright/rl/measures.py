"""What a round of rollouts says about the policy: glossary metrics from scored groups. Nothing here enters a gradient; alarms and the temperature read it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from deepwright.evaluate.reasoning import analyse, habits
from deepwright.rl.advantages import deviation, mean
from deepwright.rl.types import Group, Rollout
from deepwright.tasks import Task

MORE_PARTS = ("language", "helpful", "safe")  # of a reward, where a task or a stage pays them
RUN = 8  # tokens; shorter runs recur in any text
LEAST_JUDGED = 16  # one completion in so many must have been judged before a round counts as lost


class VerifierFailed(ValueError):
    """The verifier failed on every completion that a round asked it about."""


def failures(groups: Sequence[Group]) -> str:
    """On how many completions the verifier failed, and how on the first; "" where on none."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    failed = [rollout for rollout in rollouts if not rollout.scored]
    if not failed:
        return ""
    return f"the verifier failed on {len(failed)} of {len(rollouts)} completions: {failed[0].score.detail}"


def rollout_metrics(task: Task, groups: Sequence[Group]) -> dict[str, float]:
    """Means over the rollouts whose verifier did not fail. VerifierFailed where it failed on all that it was asked about (those that were cut it never
    sees), unless that was next to none: a run without rewards must not look like a bad model."""
    everything = [rollout for group in groups for rollout in group.rollouts]
    scored = [rollout for rollout in everything if rollout.scored]
    failed = [rollout for rollout in everything if not rollout.scored]
    judged = any(rollout.scored and not rollout.truncated for rollout in everything)
    if failed and not judged and LEAST_JUDGED * len(failed) >= len(everything):
        cut = f" that were not cut, of {len(everything)}" if scored else ""
        raise VerifierFailed(
            f"the verifier of task {task.name!r} failed on all {len(failed)} completions{cut}: {failed[0].score.detail}"
        )
    rewards = [rollout.score.value for rollout in scored]
    lengths = [rollout.length for rollout in everything]
    return {
        "reward": mean(rewards),
        "reward_std": deviation(rewards),
        "reward_accuracy": _part(scored, "accuracy"),
        "reward_format": _part(scored, "format"),
        **{
            f"reward_{name}": _part(scored, name)
            for name in MORE_PARTS
            if any(name in rollout.score.parts for rollout in scored)
        },
        "accuracy": statistics.fmean(rollout.correct for rollout in scored),
        "format_rate": statistics.fmean(rollout.score.formatted for rollout in scored),
        "mean_length": statistics.fmean(lengths),
        "max_length": max(lengths),
        **_mean_lengths(scored),
        **_by_kind(scored),
        "repetition": statistics.fmean(
            repeated_share(rollout.completion.token_ids) for rollout in everything
        ),
        "truncated_rate": statistics.fmean(rollout.truncated for rollout in everything),
        "zero_variance_rate": statistics.fmean(group.zero_variance for group in groups),
        "completions": len(everything),
        "completion_tokens": sum(lengths),
        "verifier_failures": len(everything) - len(scored),
        **_self_checks(task, scored),
    }


def repeated_share(token_ids: Sequence[int]) -> float:
    """Share of the runs of eight tokens that stood before in the same completion; 0 where it is shorter than one."""
    runs = len(token_ids) - RUN + 1
    return (
        1 - len({tuple(token_ids[start : start + RUN]) for start in range(runs)}) / runs
        if runs > 0
        else 0.0
    )


def _by_kind(scored: Sequence[Rollout]) -> dict[str, float]:
    """Accuracy of each kind of problem, where a round has several: a mean can rise while one of them falls."""
    kinds = {
        kind: [r.correct for r in scored if r.problem.kind == kind]
        for kind in sorted({r.problem.kind for r in scored})
    }
    return (
        {f"accuracy/{kind}": statistics.fmean(right) for kind, right in kinds.items()}
        if len(kinds) > 1
        else {}
    )


def _part(scored: Sequence[Rollout], name: str) -> float:
    return mean([rollout.score.parts.get(name, 0.0) for rollout in scored])


def _mean_lengths(scored: Sequence[Rollout]) -> dict[str, float]:
    lengths = {
        name: [r.length for r in scored if r.correct is right]
        for name, right in (("correct", True), ("wrong", False))
    }
    return {
        f"mean_length_{name}": statistics.fmean(values)
        for name, values in lengths.items()
        if values
    }


def _self_checks(task: Task, scored: Sequence[Rollout]) -> dict[str, float]:
    read = [(analyse(task, rollout.problem, rollout.text), rollout.correct) for rollout in scored]
    described = [(reasoning, right) for reasoning, right in read if reasoning is not None]
    if not described:
        return {}
    found = habits(described)
    values = {
        "self_check_rate": found.self_check_rate,
        "self_checks_per_answer": found.self_checks_per_answer,
        "correct_with_self_check": found.accuracy_with_self_check,
        "correct_without_self_check": found.accuracy_without_self_check,
        "turned_right_rate": found.turned_right_rate,
        "language_consistency": found.language_consistency,
    }
    return {name: value for name, value in values.items() if value is not None}
