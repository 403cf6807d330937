"""Judging a model on the held-out problems of a run, and reinforcement learning between two judgements: what several stages do alike."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deepwright.evaluate import Budgeted, Evaluation, decompose, evaluate
from deepwright.inference.engine import Engine
from deepwright.model import Transformer
from deepwright.numerics import compute_dtype
from deepwright.recipe.journal import ON_THE_WAY, Journal
from deepwright.recipe.settings import STUDENTS, EvaluationSettings, SamplerChoice
from deepwright.recipe.times import EVALUATION, TRAINING
from deepwright.recipe.watching import rounds, watched
from deepwright.report.figures import percent_with_error
from deepwright.rl.config import GRPOConfig
from deepwright.rl.grpo import train_grpo
from deepwright.rl.outside import KEY, Handover, OutsideSampler
from deepwright.sampler import Sampler
from deepwright.tasks import Task
from deepwright.text import Tokenizer
from deepwright.train.progress import Progress, Whole, say


@dataclass(frozen=True)
class Judge:
    """Held-out problems of `task`, asked at the settings' temperatures. It leaves the run as it is; what is in the journal is not asked again.

    `suffix` tells the evaluations on another task apart from those on the run's own."""

    asked: EvaluationSettings
    task: Task
    sampler: Sampler
    tokenizer: Tokenizer
    journal: Journal
    max_tokens: int
    seed: int
    suffix: str = ""
    transfer: Mapping[str, Task] = field(
        default_factory=dict
    )  # by the options that tell them from `task`

    def measure(
        self,
        problems: int,
        samples: int,
        temperature: float,
        ks: Sequence[int] | None = None,
        *,
        label: str = "",
    ) -> Evaluation:
        """`label` says to who watches what is asked."""
        problems = min(problems, self.task.size("held_out"))
        with watched(self.sampler, problems * samples, f"asking {label}".rstrip()) as judged:
            return evaluate(
                self.sampler, self.tokenizer, self.task, problems=problems, samples=samples, max_tokens=self.max_tokens,
                temperature=temperature, top_p=self.asked.top_p, seed=self.seed, ks=ks, judged=judged,
            )  # fmt: skip

    def in_full(self, stage: str, step: int, *, last: bool = False) -> None:
        """At the evaluation temperature and, with fewer samples, at the other ones; each once in a run. `last`: with as many samples as votes are
        asked for, and once more at each thinking budget. Then, with fewer samples, on the tasks that nothing was trained on."""
        asked, votes = self.asked, self.asked.votes if last else 0
        samples = max(asked.samples, votes)
        self._once(
            stage,
            step,
            "",
            samples,
            asked.temperature,
            [2**n for n in range(1, samples.bit_length())] if votes else None,
        )
        if self.suffix:
            return
        for t in asked.also:
            self._once(
                stage,
                step,
                f" T={t:g}" if t else " greedy",
                max(1, asked.samples // 4) if t else 1,
                t,
            )
        for budget in asked.budgets if last else ():
            closing = Budgeted(self.sampler, self.tokenizer, budget, self.max_tokens)
            limited = dataclasses.replace(
                self, sampler=closing, max_tokens=budget + self.max_tokens
            )
            limited._once(stage, step, f" budget={budget}", asked.samples, asked.temperature)
        for option, task in self.transfer.items():
            other = dataclasses.replace(
                self,
                task=task,
                suffix=f" on {option}",
                asked=dataclasses.replace(asked, problems=asked.problems_between),
            )
            other._once(stage, step, "", max(1, asked.samples // 4), asked.temperature)

    def _once(
        self,
        stage: str,
        step: int,
        name: str,
        samples: int,
        temperature: float,
        ks: Sequence[int] | None = None,
    ) -> None:
        """Measured unless the journal has it. `name` is what follows the stage in the label."""
        own = stage in STUDENTS and self.journal.find(STUDENTS[0], 0, STUDENTS[0]) is not None
        # a rise is that over the model which was pre-trained
        first = STUDENTS[0] if own else "base"
        label, of_first = (f"{which}{self.suffix}{name}" for which in (stage, first))
        if self.journal.find(stage, step, label) is None:
            with self.journal.times.of(stage, EVALUATION):
                found = self.measure(self.asked.problems, samples, temperature, ks, label=label)
            before = self.journal.find(first, 0, of_first)
            more = (
                {}
                if before is None or self.suffix
                else {"decomposition": decompose(before, found).record()}
            )
            self.journal.evaluation(stage, step, label, found, samples=label == stage, **more)
            if label == stage:
                say(f"{stage}: {_in_words(found)}")

    def on_the_way(self, stage: str, step: int) -> dict[str, float]:
        """A short evaluation, for the loop's alarms as well."""
        found = self.journal.find(stage, step, ON_THE_WAY)
        if found is None:
            problems, at = self.asked.problems_between, self.asked.temperature
            with self.journal.times.of(stage, EVALUATION):
                found = self.measure(problems, 1, at, label=f"{stage}, step {step}")
            self.journal.evaluation(stage, step, ON_THE_WAY, found)
        return {"pass_at_1": found.pass_at_1}


def _in_words(found: Evaluation) -> str:
    interval = found.intervals.get("pass@1")
    share = percent_with_error(found.pass_at_1, found.pass_at_1_se, interval=interval)
    return f"{share} right (pass@1), {found.problems} held-out problems, {found.samples} samples each"  # fmt: skip


def reinforce(
    stage: str,
    config: GRPOConfig,
    model: Transformer,
    task: Task,
    judge: Judge,
    folder: Path,
    watch: Callable[[], dict[str, float]] = dict,
    whole: Whole = lambda left, done: None,
) -> None:
    """Trains `model` by GRPO on `task` as stage `stage` of the run in `folder`, judged now and then. `watch` measures what else the alarms
    are to see; `whole` as Progress takes it."""

    def between(step: int, _: Transformer) -> dict[str, float] | None:
        return judge.on_the_way(stage, step) | watch() if step < config.steps else None

    computing = model.computing(compute_dtype(config.compute)[0])
    progress = Progress(config.steps, stage, unit="steps", whole=whole)
    shown = rounds(judge.sampler, config.prompts * config.samples)
    with judge.journal.times.of(stage, TRAINING), computing, shown:
        train_grpo(
            dataclasses.replace(config, seed=judge.seed), model, judge.tokenizer, task, judge.sampler, folder / stage, judge.journal.tracker,
            stage=stage, evaluate=between, samples_path=folder / "samples.jsonl", progress=progress,
        )  # fmt: skip


def sampler_of(
    choice: SamplerChoice, folder: Path, model: Transformer, tokenizer: Tokenizer
) -> Sampler:
    """The own engine, or the server that the settings name."""
    if not choice.url:
        return Engine(model, tokenizer)
    handover = Handover(model, tokenizer, (folder / "handed_over").resolve(), choice.reload)
    return OutsideSampler(choice.url, choice.model, handover, key=os.environ.get(KEY, ""))
