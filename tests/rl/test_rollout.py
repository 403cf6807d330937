"""Which problems are asked, how completions become rewards and rows, and what the settings refuse."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, fields, replace

import pytest

from deepwright.metrics import check_names
from deepwright.rl import R1_ZERO, GRPOConfig
from deepwright.rl.losses import VARIANTS
from deepwright.rl.measures import rollout_metrics
from deepwright.rl.rollout import problem_indices, sampling_seed, score_rollouts, training_rows
from deepwright.sampler import Completion, StopReason
from deepwright.tasks import Verdict
from tests.rl.fakes import TOKENIZER, SayYes

EOS = TOKENIZER.eos_id


def completion(text: str, stop: StopReason = StopReason.STOP) -> Completion:
    ids = TOKENIZER.encode(text) + ([EOS] if stop is StopReason.STOP else [])
    return Completion(tuple(ids), (-0.5,) * len(ids), stop)


def groups_of(*texts: list[str], task: SayYes | None = None):
    task = task or SayYes()
    problems = [task.problem(i, "train") for i in range(len(texts))]
    prompts = [TOKENIZER.encode_prompt(problem.prompt) for problem in problems]
    return score_rollouts(
        task,
        TOKENIZER,
        problems,
        prompts,
        [[completion(text) for text in group] for group in texts],
    )


def test_problem_order_is_a_function_of_seed_and_round_and_shows_each_problem_once_an_epoch():
    rounds = [problem_indices(10, 4, seed=3, round_=r) for r in range(5)]
    assert rounds == [problem_indices(10, 4, seed=3, round_=r) for r in range(5)]
    flat = [i for indices in rounds for i in indices]
    assert Counter(flat[:10]) == Counter(flat[10:]) == Counter(range(10))
    assert flat[:10] != flat[10:] and flat[:10] != list(range(10))
    assert rounds != [problem_indices(10, 4, seed=4, round_=r) for r in range(5)]


def test_every_round_samples_from_its_own_streams():
    seeds = [sampling_seed(seed, r) for seed in range(3) for r in range(100)]
    assert len(set(seeds)) == 300 and all(0 <= seed < 2**48 for seed in seeds)


def test_exactly_one_bos_and_the_stop_token_is_not_shown_to_the_verifier():
    [group] = groups_of(["yes", "no"])
    assert group.rollouts[0].prompt_ids.count(TOKENIZER.bos_id) == 1
    assert [r.text for r in group.rollouts] == ["yes", "no"]
    assert [r.score.verdict for r in group.rollouts] == [Verdict.CORRECT, Verdict.WRONG]
    assert group.rollouts[0].completion.token_ids[-1] == EOS  # but it is trained on


def test_a_completion_that_hit_its_limit_is_wrong_whatever_it_says():
    task, problem = SayYes(), SayYes().problem(0, "train")
    [group] = score_rollouts(
        task,
        TOKENIZER,
        [problem],
        [[0]],
        [[completion("yes", StopReason.LENGTH), completion("yes")]],
    )
    cut = group.rollouts[0]
    assert cut.truncated and cut.score.value == 0 and cut.score.verdict is Verdict.WRONG
    assert cut.score.parts == {"accuracy": 0.0} and not cut.score.formatted
    assert cut.text == "yes"


def test_a_round_is_scored_in_one_call_without_the_cut_ones_and_in_order():
    class Together(SayYes):
        def score_many(self, problems, completions):
            calls.append((len(problems), completions))
            return [self.score(*one) for one in zip(problems, completions, strict=True)]

    calls, task = [], Together()
    sampled = [
        [completion("yes"), completion("yes", StopReason.LENGTH)],
        [completion("no no"), completion("no")],
    ]
    groups = score_rollouts(
        task,
        TOKENIZER,
        [task.problem(0, "train"), task.problem(1, "train")],
        [[0], [0, 3]],
        sampled,
    )
    assert calls == [(3, ["yes", "no no", "no"])]
    assert [[r.score.value for r in group.rollouts] for group in groups] == [[1.5, 0], [0, 0.5]]
    assert [r.prompt_ids for r in groups[1].rollouts] == [(0, 3), (0, 3)]


def test_groups_without_variance_are_dropped_or_kept_as_asked():
    groups = groups_of(["yes", "no", "no"], ["no", "no", "no"])
    assert [group.zero_variance for group in groups] == [False, True]
    dropped = training_rows(groups, VARIANTS["grpo"], drop_zero_variance=True)
    kept = training_rows(groups, VARIANTS["grpo"], drop_zero_variance=False)
    assert len(dropped) == 3 and len(kept) == 6
    assert [row.advantage for row in kept[3:]] == [0.0, 0.0, 0.0]
    # rewards 1.5, 0.5, 0.5: mean 5/6, population std sqrt(2)/3
    assert [row.advantage for row in dropped] == pytest.approx(
        [2**0.5, -(0.5**0.5), -(0.5**0.5)], rel=1e-5
    )


def test_a_failed_verifier_is_no_wrong_answer():
    groups = groups_of(["yes", "no", "3 3"], task=SayYes(broken="3"))
    assert groups[0].rewards == [1.5, 0.5]
    rows = training_rows(groups, VARIANTS["grpo"], drop_zero_variance=True)
    assert [row.advantage for row in rows] == pytest.approx([1, -1], rel=1e-5)
    values = rollout_metrics(SayYes(), groups)
    assert values["verifier_failures"] == 1 and values["accuracy"] == 0.5
    with pytest.raises(ValueError, match=r"failed on all 2 completions.*out of order"):
        rollout_metrics(SayYes(), groups_of(["3 3", "3"], task=SayYes(broken="3")))


def test_rollout_metrics_by_hand():
    values = rollout_metrics(SayYes(), groups_of(["yes", "no no"], ["no", "no"]))
    check_names(list(values))
    assert values["accuracy"] == 0.25 and values["format_rate"] == 0.75
    assert values["accuracy/even"] == 0.5 and values["accuracy/odd"] == 0.0
    assert values["reward"] == pytest.approx((1.5 + 0 + 0.5 + 0.5) / 4)
    assert values["reward_accuracy"] == 0.25 and values["reward_format"] == pytest.approx(1.5 / 4)
    assert (
        values["mean_length"] == 2.25
        and values["max_length"] == 3
        and values["completion_tokens"] == 9
    )
    assert values["mean_length_correct"] == 2 and values["mean_length_wrong"] == pytest.approx(
        7 / 3
    )
    assert values["zero_variance_rate"] == 0.5 and values["truncated_rate"] == 0
    # a task that cannot be read for self-checks is not described
    assert "self_check_rate" not in values


def test_r1_zero_settings_are_the_published_ones():
    assert R1_ZERO.prompts * R1_ZERO.samples == 8192 and R1_ZERO.mini_batches == 16
    assert (
        R1_ZERO.beta,
        R1_ZERO.clip,
        R1_ZERO.samples,
        R1_ZERO.learning_rate,
        R1_ZERO.reference_refresh,
    ) == (0.001, 10, 16, 3e-6, 400)
    assert R1_ZERO.variant == "grpo" and R1_ZERO.temperature == 1
    assert {R1_ZERO.learning_rate_at(step) for step in (1, 5000, 10_400)} == {3e-6}


def test_learning_rate_warms_up_stays_and_decays_to_its_ratio():
    config = GRPOConfig(
        steps=100, learning_rate=1.0, warmup_steps=4, constant_until=0.4, final_ratio=0.25
    )
    assert [config.learning_rate_at(step) for step in (1, 4, 40, 70, 100)] == pytest.approx(
        [0.25, 1, 1, 0.625, 0.25]
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"samples": 1}, "samples is 1"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"variant": "grppo"}, "did you mean grpo"),
        ({"clip": 0.2}, "clip is 0.2 with mini_batches 1"),
        ({"mini_batches": 2}, "clip is None with mini_batches 2"),
        (
            {"mini_batches": 4, "clip": 0.2, "steps": 10},
            "steps is 10, expected a multiple of mini_batches",
        ),
        ({"reference_refresh": 5}, "with beta 0 there is no reference"),
        ({"constant_until": 1.0}, "nothing decays"),
        ({"zero_variance": "ignore"}, "'drop' or 'keep'"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ({"prompts": 0}, "prompts is 0"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        replace(GRPOConfig(), **change)


def test_each_departure_from_r1_zero_is_listed_with_its_reason():
    labels = (
        "prompts x samples",
        "updates per round",
        "learning rate",
        "KL coefficient",
        "loss",
        "zero-variance groups",
        "max length",
    )
    assert all(label in GRPOConfig.__doc__ for label in labels)
    listed = {
        "prompts",
        "samples",
        "mini_batches",
        "beta",
        "variant",
        "zero_variance",
        "max_tokens",
    }
    listed |= {"learning_rate", "constant_until", "final_ratio", "warmup_steps"}
    listed |= {"clip", "reference_refresh"}  # follow from updates per round and KL
    mechanical = {"steps", "micro_batch_tokens", "checkpoint_every", "optimizer", "seed"}
    ours, theirs = asdict(GRPOConfig()), asdict(R1_ZERO)
    differing = {
        field.name for field in fields(GRPOConfig) if ours[field.name] != theirs[field.name]
    }
    assert differing <= listed | mechanical
