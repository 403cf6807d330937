"""Rollouts: which problems a round asks, how they are sampled, and how completions become scored groups and then training rows.

Everything here is a function of (seed, round), so a resumed run asks the same problems and draws the same tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from deepwright.evaluate.scoring import completion_text, score_completions
from deepwright.refusals import expect
from deepwright.rl.advantages import require_usable
from deepwright.rl.config import GRPOConfig
from deepwright.rl.losses import Variant
from deepwright.rl.types import Group, Rollout, Row
from deepwright.sampler import Completion
from deepwright.seeds import shuffled, stream
from deepwright.tasks import Problem, Task
from deepwright.text import Tokenizer

EPOCH, SAMPLES, SPLIT = 32, 33, 34  # purposes of random streams


def problem_indices(size: int, count: int, seed: int, round_: int) -> list[int]:
    """The `count` training problems of a round: epochs over all `size` problems, each epoch in its own random order, cut into rounds."""
    expect(size > 0, "the number of training problems", size, "at least 1")
    places = range(round_ * count, (round_ + 1) * count)
    orders = {
        epoch: shuffled(stream(seed, EPOCH, epoch), range(size))
        for epoch in {place // size for place in places}
    }
    return [orders[place // size][place % size] for place in places]


def sampling_seed(seed: int, round_: int) -> int:
    """48 bits, so that no two rounds share a completion's random stream."""
    return int(stream(seed, SAMPLES, round_).random() * 2**48)


def score_rollouts(
    task: Task,
    tokenizer: Tokenizer,
    problems: Sequence[Problem],
    prompts: Sequence[Sequence[int]],
    sampled: Sequence[Sequence[Completion]],
    step: int = 0,
    steps: int = 1,
) -> list[Group]:
    """Decodes and scores [P][G] completions, all of them in one call of the task; the verifier never sees one that was cut."""
    places = [
        (problem, tuple(prompt), one)
        for problem, prompt, made in zip(problems, prompts, sampled, strict=True)
        for one in made
    ]
    texts = [completion_text(tokenizer, completion) for _, _, completion in places]
    scores = score_completions(
        task,
        [problem for problem, _, _ in places],
        [completion for _, _, completion in places],
        texts,
        step,
        steps,
    )
    rollouts = iter(
        [
            Rollout(*place, text, score)
            for place, text, score in zip(places, texts, scores, strict=True)
        ]
    )
    return [Group(tuple(next(rollouts) for _ in made)) for made in sampled]


def admitted(groups: Sequence[Group], config: GRPOConfig) -> list[Group]:
    """What of a round reaches the update: without cut completions where they are masked; the first `prompts` groups with variance where a
    round asked for more."""
    if config.truncated == "mask":
        groups = [
            Group(tuple(rollout for rollout in group.rollouts if not rollout.truncated))
            for group in groups
        ]
    if config.resample:
        groups = [group for group in groups if not group.zero_variance][: config.prompts]
    return list(groups)


def training_rows(
    groups: Sequence[Group], variant: Variant, *, drop_zero_variance: bool
) -> list[Row]:
    """Groups -> rows with advantages, weights still open.

    Left out, from the sum and from its normaliser alike: rollouts whose verifier failed, and, where asked, groups without variance (their advantage
    is exactly 0, so without a KL term they would only dilute the others). ValueError for rewards so
    large that no update can be made of them.
    """
    rows = []
    for group in groups:
        if drop_zero_variance and group.zero_variance:
            continue
        for rollout, advantage in zip(group.scored, variant.advantage(group.rewards), strict=True):
            rows.append(
                Row(
                    rollout.prompt_ids,
                    rollout.completion.token_ids,
                    rollout.completion.log_probs,
                    advantage,
                )
            )
    if variant.over_batch is not None:
        lengths = [len(row.completion_ids) for row in rows]
        advantages = variant.over_batch([row.advantage for row in rows], lengths)
        rows = [replace(row, advantage=a) for row, a in zip(rows, advantages, strict=True)]
    require_usable([row.advantage for row in rows])
    return rows


def mini_batches(
    rows: Sequence[Row], count: int, variant: Variant, seed: int, round_: int, max_tokens: int = 0
) -> list[list[Row]]:
    """Splits rows at random into `count` policy updates of nearly equal size and fixes what each token weighs in its update."""
    rows = shuffled(stream(seed, SPLIT, round_), rows) if count > 1 else list(rows)
    parts = [rows[start::count] for start in range(count)]
    return [_weighted(part, variant, max_tokens) for part in parts if part]


def _weighted(rows: Sequence[Row], variant: Variant, max_tokens: int) -> list[Row]:
    weights = variant.token_weights([len(row.completion_ids) for row in rows], max_tokens)
    return [row.with_weight(weight) for row, weight in zip(rows, weights, strict=True)]
