"""Stage `zero`: R1-Zero. The base model learns to reason from rule rewards alone, without any supervised example (R1 section 2.2).

It is judged on held-out problems before and after, at the same settings, and on fewer of them in between.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from deepwright.evaluate import Evaluation, decompose, evaluate
from deepwright.inference.engine import Engine
from deepwright.model import Transformer
from deepwright.numerics import compute_dtype
from deepwright.recipe.journal import ON_THE_WAY, Journal
from deepwright.recipe.settings import R1Settings, RLSettings
from deepwright.rl.grpo import train_grpo
from deepwright.rl.outside import Handover, OutsideSampler
from deepwright.sampler import Sampler
from deepwright.tasks import Task
from deepwright.text import Tokenizer

STAGE = "zero"


def run(settings: R1Settings | RLSettings, folder: Path, journal: Journal, model: Transformer, tokenizer: Tokenizer) -> Transformer:
    """Judges the model as it comes, trains it by GRPO, judges it again, and says where the rise came from."""
    with model.computing(compute_dtype(settings.rl.compute)[0]):
        judge = Judge(settings, settings.task.judge(), _sampler(settings, folder, model, tokenizer), tokenizer, journal)
        judge.in_full("base", 0)
        config = dataclasses.replace(settings.rl, seed=settings.seed)
        train_grpo(
            config, model, tokenizer, settings.task.make(), judge.sampler, folder / STAGE, journal.tracker,
            stage=STAGE, evaluate=judge.glance, samples_path=folder / "samples.jsonl",
        )  # fmt: skip
        judge.in_full(STAGE, config.steps)
    return model


def _sampler(settings: R1Settings | RLSettings, folder: Path, model: Transformer, tokenizer: Tokenizer) -> Sampler:
    outside = settings.sampler
    if not outside.url:
        return Engine(model, tokenizer)
    handover = Handover(model, tokenizer, (folder / "handed_over").resolve(), outside.reload)
    return OutsideSampler(outside.url, outside.model, handover, key=os.environ.get("OPENAI_API_KEY", ""))


@dataclasses.dataclass(frozen=True)
class Judge:
    """Held-out problems, asked at the settings' temperatures. It leaves the run as it is; what is in the journal is not asked again."""

    settings: R1Settings | RLSettings
    task: Task
    sampler: Sampler
    tokenizer: Tokenizer
    journal: Journal

    def _measure(self, problems: int, samples: int, temperature: float) -> Evaluation:
        s = self.settings
        return evaluate(
            self.sampler, self.tokenizer, self.task, problems=min(problems, self.task.size("held_out")), samples=samples,
            max_tokens=s.rl.max_tokens, temperature=temperature, top_p=s.evaluation.top_p, seed=s.seed,
        )  # fmt: skip

    def in_full(self, stage: str, step: int) -> None:
        """At the evaluation temperature and, with fewer samples, at the other ones; each once in a run."""
        asked = self.settings.evaluation
        wanted = [(stage, asked.temperature, asked.samples)]
        wanted += [(f"{stage} T={t:g}" if t else f"{stage} greedy", t, max(1, asked.samples // 4) if t else 1) for t in asked.also]
        for label, temperature, samples in wanted:
            if self.journal.find(stage, step, label) is None:
                found = self._measure(asked.problems, samples, temperature)
                base = self.journal.find("base", 0, label.replace(stage, "base", 1))
                more = {} if base is None else {"decomposition": decompose(base, found).record()}
                self.journal.evaluation(stage, step, label, found, samples=label == stage, **more)

    def glance(self, step: int, model: Transformer) -> dict[str, float]:
        """A short evaluation now and then, for the loop's alarms as well."""
        s, found = self.settings, self.journal.find(STAGE, step, ON_THE_WAY)
        if found is None and step < s.rl.steps:
            found = self._measure(s.evaluation.problems_between, 1, s.evaluation.temperature)
            self.journal.evaluation(STAGE, step, ON_THE_WAY, found)
        return {} if found is None else {"pass_at_1": found.pass_at_1}
