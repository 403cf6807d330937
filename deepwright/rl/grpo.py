"""Group Relative Policy Optimization (DeepSeekMath section 4; DeepSeek-R1 section 2.2), on-policy by default: sample, score, compare within groups, update.

The loop sees a Sampler and a Task, not an engine. Problems, samples and mini-batches are functions of (seed, step) and nothing decided reads the clock,
so a run that is killed at any moment and started again ends with the same bits. Left out: value model, reward model, process rewards, replay of the
sampler's expert choices (the engine shares the trainer's model and keeps no record of them; their gap is measured at every step instead). MTP modules
get no gradient and stay as they were.
"""

from __future__ import annotations

import copy
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from deepwright.evaluate.scoring import prompt_ids
from deepwright.files import STEPS, append_records, rewind_records
from deepwright.metrics import Tracker
from deepwright.model import Transformer
from deepwright.rl.alarms import AlarmConfig, Alarms
from deepwright.rl.config import GRPOConfig
from deepwright.rl.measures import VerifierFailed, failures, rollout_metrics
from deepwright.rl.rollout import (
    admitted,
    mini_batches,
    problem_indices,
    sampling_seed,
    score_rollouts,
    training_rows,
)
from deepwright.rl.types import Group, Row
from deepwright.rl.update import accumulate_gradient, update_metrics, with_old, with_reference
from deepwright.sampler import Completion, NotFinite, Sampler, Sampling
from deepwright.tasks import Task
from deepwright.tasks.task import paid
from deepwright.text import Tokenizer
from deepwright.train.checkpoint import (
    Checkpoint,
    check_settings,
    latest_checkpoint,
    remove_checkpoints_after,
    save_checkpoint,
    taking_over,
)
from deepwright.train.objective import update_biases
from deepwright.train.optimizer import Optimizer, TrainingDiverged, is_finite, require_finite
from deepwright.train.progress import INTERRUPTED, Progress, StopRequest

# Settings that may differ between the two halves of a resumed run: they change what is kept or shown, or results by rounding only.
FREE_SETTINGS = (
    "micro_batch_tokens",
    "evaluate_every",
    "checkpoint_every",
    "keep",
    "shown_samples",
)
# who was told of an alarm may go on with another policy
FREE_SETTINGS += tuple(f"alarms.{field.name}" for field in fields(AlarmConfig))
# May be raised: a finished run goes on, at the rates that a run of the new length has there.
GROWING_SETTINGS = ("steps",)
LOSSES = ("loss",)
REFERENCE = "reference."  # prefix of the reference's tensors in a checkpoint
MOST_CHECKED = 20_000  # training problems whose prompts are measured before the first step
PAUSED = 3  # exit code of a run that an alarm has stopped
ENTROPY_ROUNDS, TEMPERATURE_STEP = 3, 1.05  # how entropy_target moves the temperature

Evaluate = Callable[[int, Transformer], Mapping[str, float] | None]


@dataclass
class Learner:
    """A policy in training: the model, its optimizer, the reference (only with a KL term) and the number of updates made."""

    config: GRPOConfig
    model: Transformer
    step: int = 0

    def __post_init__(self) -> None:
        self.optimizer = Optimizer(self.model, self.config.optimizer)
        self.reference = (
            copy.deepcopy(self.model).requires_grad_(False) if self.config.beta else None
        )
        self.alarms = Alarms(self.config.alarms)

    @property
    def finished(self) -> bool:
        return self.step >= self.config.steps

    @property
    def round(self) -> int:
        return self.step // self.config.mini_batches

    @property
    def now(self) -> GRPOConfig:
        """The settings of this round: those of the run, moved by its records alone. After a roll-back other problems and samples are drawn, at half
        the learning rate each time: the same ones would end in the same place."""
        c, records, backs = self.config, self.alarms.records, self.alarms.roll_backs
        if backs:
            c = replace(c, seed=c.seed + (backs << 32), learning_rate=c.learning_rate / 2**backs)
        if c.entropy_target is None or not records:
            return c
        # A round in which no group had variance trained on nothing and has no entropy: as good as none.
        entropy = statistics.fmean(
            record.get("entropy") or 0.0 for record in records[-ENTROPY_ROUNDS:]
        )
        hot = records[-1].get("temperature") or c.temperature
        power = (entropy < c.entropy_target) - (entropy > 2 * c.entropy_target)
        return replace(
            c,
            temperature=min(max(hot * TEMPERATURE_STEP**power, c.temperature), c.hottest),
        )

    def learn(self, groups: Sequence[Group]) -> dict[str, float]:
        """All policy updates of one round. Returns metrics; those per token are left out where no group had anything to teach."""
        c, groups = self.now, admitted(groups, self.config)
        rows = training_rows(groups, c.chosen, drop_zero_variance=c.zero_variance == "drop")
        parts = mini_batches(rows, c.mini_batches, c.chosen, c.seed, self.round, c.max_tokens)
        parts = [self._with_fixed_log_probs(part) for part in parts]
        done = [self._update(part, self.step + number) for number, part in enumerate(parts, 1)]
        self.step += c.mini_batches
        if c.reference_refresh and self.step % c.reference_refresh == 0:
            self.reference.load_state_dict(self.model.state_dict())
        trained = sum(not (group.zero_variance and c.zero_variance == "drop") for group in groups)
        values = {
            "groups": trained,
            "learning_rate": c.learning_rate_at(self.step),
            "skipped_steps": self.optimizer.skipped,
        }
        if done:
            values["grad_norm"] = sum(norm for _, norm in done) / len(done)
            values |= update_metrics([record for record, _ in done])
        return values

    def _with_fixed_log_probs(self, rows: list[Row]) -> list[Row]:
        """What must be known before the first update moves the policy. One on-policy update needs no pi_old: it is the policy itself."""
        c = self.now
        # before the policy's choice of experts is on the rows: the reference makes its own
        if self.reference is not None:
            rows = with_reference(
                self.reference, rows, c.temperature, c.micro_batch_tokens, c.pack_groups
            )
        if c.mini_batches > 1:
            rows = with_old(
                self.model,
                rows,
                c.temperature,
                c.micro_batch_tokens,
                c.replay_routing,
                c.pack_groups,
            )
        return rows

    def _update(self, rows: list[Row], step: int) -> tuple[Any, float]:
        c = self.now
        loads: dict[int, Tensor] = {}
        record = accumulate_gradient(
            self.model,
            rows,
            c.chosen,
            c.coefficients,
            c.temperature,
            c.micro_batch_tokens,
            loads,
            c.pack_groups,
        )
        update = self.optimizer.step(c.learning_rate_at(step), step)
        if c.bias_speed and update.applied:
            update_biases(self.model, loads, c.bias_speed)
        return record, update.grad_norm

    def tensors(self) -> dict[str, Tensor]:
        reference = {} if self.reference is None else self.reference.state_dict()
        return self.optimizer.tensors() | {
            REFERENCE + name: tensor for name, tensor in reference.items()
        }

    def state(self) -> dict[str, Any]:
        counters = {"step": self.step, **self.optimizer.counts()}
        return {
            "counters": counters,
            "settings": asdict(self.config),
            "alarms": self.alarms.state(),
        }

    def resume(self, checkpoint: Checkpoint) -> None:
        """Takes over weights, moments, reference and counters. ValueError when the run was started with other settings."""
        check_settings(checkpoint, asdict(self.config), FREE_SETTINGS, GROWING_SETTINGS)
        checkpoint.load_model_into(self.model)
        reference = {
            name.removeprefix(REFERENCE): t
            for name, t in checkpoint.tensors.items()
            if name.startswith(REFERENCE)
        }
        moments = {
            name: tensor
            for name, tensor in checkpoint.tensors.items()
            if not name.startswith(REFERENCE)
        }
        if self.reference is not None:
            self.reference.load_state_dict(reference)
        self.optimizer.load(moments, checkpoint.state["counters"])
        self.step = checkpoint.state["counters"]["step"]
        self.alarms = Alarms.from_state(self.config.alarms, checkpoint.state["alarms"])


def train_grpo(
    config: GRPOConfig,
    model: Transformer,
    tokenizer: Tokenizer,
    task: Task,
    sampler: Sampler,
    run_dir: str | Path,
    tracker: Tracker,
    *,
    stage: str = "zero",
    evaluate: Evaluate | None = None,
    progress: Progress | None = None,
    samples_path: str | Path | None = None,
) -> Learner:
    """Trains `model` in place for `config.steps` updates; continues from the last whole checkpoint of `run_dir` if there is one.

    `sampler` must sample from `model` itself as it changes. `evaluate(step, model)` may return metrics for that step's record and must leave the model as
    it is; after a resume or a roll-back it may be called again for a step it has seen. `samples_path` defaults to run_dir/samples.jsonl. SIGINT or
    SIGTERM finishes the round, saves, and raises SystemExit(130); an alarm whose policy is to pause does the same with SystemExit(3). Alarms are
    appended to run_dir/alarms.jsonl. The first failure of the verifier is said at once; VerifierFailed, with the steps before saved, where it fails on all
    that a round asks. Raises ValueError (settings that contradict the checkpoint), CheckpointError, TrainingDiverged.
    """
    learner, values, task = Learner(config, model), {}, paid(task)
    samples_path = Path(samples_path or Path(run_dir) / "samples.jsonl")
    progress = progress or Progress(config.steps, stage, unit="steps")
    saved = _start_or_resume(learner, run_dir, tracker, samples_path, stage, progress)
    if not learner.finished:
        check_prompts(task, tokenizer, model.config.max_position_embeddings)
    _rewind_alarms(learner, run_dir)
    if config.alarms.policy == "roll_back" and not learner.step:
        saved = _save(learner, run_dir, tokenizer, tracker)  # somewhere to go back to
    paused, told = False, False
    with StopRequest() as stop, progress:
        while not (learner.finished or stop.asked or paused):
            try:
                groups, values = collect(learner.now, task, tokenizer, sampler, learner.round)
            except VerifierFailed as error:
                if saved != learner.step:
                    saved = _save(learner, run_dir, tokenizer, tracker)
                raise _ended(error, stage, saved, run_dir) from None
            if not told and (failure := failures(groups)):
                progress.say(f"{stage}, step {learner.step + 1}: {failure}")
                told = True
            begun = time.perf_counter()
            values |= learner.learn(groups)
            values["update_seconds"] = time.perf_counter() - begun
            if evaluate and (
                learner.finished
                or (config.evaluate_every and learner.step % config.evaluate_every == 0)
            ):
                values |= _timed(evaluate, learner.step, model)
            tracker.log(stage, learner.step, values | {"step_seconds": _seconds(values)})
            write_samples(samples_path, stage, learner.step, groups, config.shown_samples)
            progress.advance(config.mini_batches, _summary(values))
            if begun_alarms := learner.alarms.step(values):
                _write_alarms(learner, begun_alarms, run_dir, stage, progress)
                if (
                    config.alarms.policy == "roll_back"
                    and learner.alarms.roll_backs < config.alarms.roll_backs
                ):
                    learner = _roll_back(learner, run_dir, tracker, samples_path, stage, progress)
                    saved = learner.step
                    continue
                paused = config.alarms.policy != "warn" and not learner.finished
            if learner.step % config.checkpoint_every == 0 and is_finite(values, LOSSES):
                saved = _save(learner, run_dir, tokenizer, tracker)
        if learner.finished:
            require_finite(values, LOSSES, learner.step)
        if saved != learner.step and is_finite(values, LOSSES):
            saved = _save(learner, run_dir, tokenizer, tracker)
        if stop.asked or paused:
            why = "was interrupted" if stop.asked else "was paused by an alarm"
            progress.say(
                f"{stage} {why} after step {saved} and is saved in {run_dir}; the same command with --resume continues it"
            )
            raise SystemExit(INTERRUPTED if stop.asked else PAUSED)
    return learner


def _ended(error: VerifierFailed, stage: str, saved: int, run_dir: str | Path) -> VerifierFailed:
    """The same, and where the run stands."""
    kept = f"; step {saved} is saved in {run_dir}" if saved else ""
    return VerifierFailed(
        f"{stage} stops after step {saved}, for nothing can be learned: {error}{kept}; put it right and"
        " go on with --resume"
    )


def check_prompts(task: Task, tokenizer: Tokenizer, context: int) -> None:
    """ValueError for the first conversation that leaves no room for an answer, before any step: met hours later it would end every resume as well."""
    for i in range(min(task.size("train"), MOST_CHECKED)):
        problem = task.problem(i, "train")
        if not problem.messages:  # a task with a word list of its own, whose prompts are short
            return
        if (tokens := len(prompt_ids(tokenizer, problem))) >= context:
            raise ValueError(
                f"training problem {i} has a prompt of {tokens} tokens, the context holds {context}: {problem.prompt[:60]!r}"
            )


def collect(
    config: GRPOConfig, task: Task, tokenizer: Tokenizer, sampler: Sampler, round_: int
) -> tuple[list[Group], dict[str, float]]:
    """The scored groups of one round, of further batches of prompts too where they are asked for, and what was measured on all of them."""
    groups: list[Group] = []
    where = round_ * config.mini_batches, config.steps
    rollout_seconds, begun = 0.0, time.perf_counter()
    # rounds that no other round will ask
    for batch in range(round_, round_ + config.rounds * (config.resample + 1), config.rounds):
        asked = [
            task.problem(i, "train")
            for i in problem_indices(task.size("train"), config.prompts, config.seed, batch)
        ]
        prompts = [prompt_ids(tokenizer, problem) for problem in asked]
        seed = sampling_seed(config.seed, batch)
        sampling = Sampling(
            config.max_tokens,
            config.temperature,
            stop_ids=tokenizer.stop_ids,
            n=config.samples,
            seed=seed,
        )
        before = time.perf_counter()
        sampled = _sampled(sampler, prompts, sampling, round_ * config.mini_batches + 1)
        rollout_seconds += time.perf_counter() - before
        groups += score_rollouts(task, tokenizer, asked, prompts, sampled, *where)
        if len(admitted(groups, config)) >= config.prompts:
            break
    values = rollout_metrics(task, groups)
    values |= {
        "rollout_seconds": rollout_seconds,
        "reward_seconds": time.perf_counter() - begun - rollout_seconds,
    }
    values |= {
        "temperature": config.temperature,
        "rollout_tokens_per_second": values["completion_tokens"] / rollout_seconds,
    }
    return groups, values


def _sampled(
    sampler: Sampler, prompts: Sequence[Sequence[int]], sampling: Sampling, step: int
) -> list[list[Completion]]:
    """What the policy says before update `step`. TrainingDiverged where it gives no numbers."""
    try:
        groups = sampler.sample(prompts, sampling)
        if not all(math.isfinite(p) for group in groups for one in group for p in one.log_probs):
            raise NotFinite("a sampled token has a log-probability that is not finite")
    except NotFinite as error:
        raise TrainingDiverged(f"step {step}: {error}; lower the learning rate") from None
    return groups


def write_samples(path: Path, stage: str, step: int, groups: Sequence[Group], count: int) -> None:
    """Appends the first rollout of the first `count` groups: a fixed choice, so that nobody picks the pretty ones."""
    shown = [
        {
            "stage": stage,
            "step": step,
            "split": "train",
            "kind": rollout.problem.kind,
            "prompt": rollout.problem.prompt,
            "completion": rollout.text,
            "length": rollout.length,
            "value": rollout.score.value,
            "verdict": rollout.score.verdict.value,
        }
        | ({"logged": dict(rollout.score.logged)} if rollout.score.logged else {})
        for rollout in (group.rollouts[0] for group in groups[:count])
    ]
    append_records(path, shown, plain=True)


def _write_alarms(
    learner: Learner, alarms: Mapping[str, str], run_dir: str | Path, stage: str, progress: Progress
) -> None:
    Path(run_dir).mkdir(exist_ok=True)  # before the first checkpoint there is none
    where = {"stage": stage, "step": learner.step, "roll_backs": learner.alarms.roll_backs}
    for name, sentence in alarms.items():
        progress.say(f"alarm at step {learner.step} ({name}): {sentence}")
        record = where | {"alarm": name, "sentence": sentence}
        append_records(Path(run_dir) / "alarms.jsonl", [record], plain=True)


def _rewind_alarms(learner: Learner, run_dir: str | Path) -> None:
    """Drops alarms that the run will ring again; those before a roll-back that counts stay."""
    reached = (learner.alarms.roll_backs, learner.step)
    if (path := Path(run_dir) / "alarms.jsonl").exists():
        fields = STEPS | {"roll_backs": int}
        rewind_records(
            path, lambda record: (record["roll_backs"], record["step"]) > reached, fields
        )


def _roll_back(
    learner: Learner,
    run_dir: str | Path,
    tracker: Tracker,
    samples_path: Path,
    stage: str,
    progress: Progress,
) -> Learner:
    """A learner at the newest checkpoint from before the alarm's window. A kill on the way leaves an older checkpoint, from which the same steps lead
    to the same alarm."""
    c = learner.config
    remove_checkpoints_after(run_dir, learner.step - c.alarms.window * c.mini_batches)
    again = Learner(c, learner.model)
    _start_or_resume(again, run_dir, tracker, samples_path, stage, progress)
    again.alarms.roll_backs = learner.alarms.roll_backs + 1
    return again


def _save(learner: Learner, run_dir: str | Path, tokenizer: Tokenizer, tracker: Tracker) -> int:
    tracker.flush()  # before the checkpoint: records up to it must not be lost
    save_checkpoint(
        run_dir,
        learner.step,
        learner.model,
        tokenizer,
        learner.tensors(),
        learner.state(),
        learner.config.keep,
    )
    return learner.step


def _start_or_resume(
    learner: Learner,
    run_dir: str | Path,
    tracker: Tracker,
    samples_path: Path,
    stage: str,
    progress: Progress,
) -> int:
    checkpoint = latest_checkpoint(run_dir)
    if checkpoint:
        with taking_over(checkpoint):
            learner.resume(checkpoint)
        progress.start_at(learner.step)
        progress.say(f"{stage} continues after step {learner.step}")
    if hasattr(tracker, "rewind"):
        tracker.rewind(stage, learner.step)
    os.makedirs(samples_path.parent, exist_ok=True)
    rewind_records(
        samples_path, lambda record: record["stage"] == stage and record["step"] > learner.step
    )
    return learner.step


def _timed(evaluate: Evaluate, step: int, model: Transformer) -> dict[str, float]:
    begun = time.perf_counter()
    values = dict(evaluate(step, model) or {})
    return values | {"evaluation_seconds": time.perf_counter() - begun}


def _seconds(values: Mapping[str, float]) -> float:
    return sum(values[name] for name in ("rollout_seconds", "reward_seconds", "update_seconds"))


def _summary(values: Mapping[str, float]) -> str:
    text = f"accuracy {values['accuracy']:.3f} | format {values['format_rate']:.2f} | length {values['mean_length']:.0f}"
    return text + (
        f" | self-checks {values['self_check_rate']:.2f}" if "self_check_rate" in values else ""
    )
