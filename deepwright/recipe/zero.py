"""Stage `zero`: R1-Zero. The base model learns to reason from rule rewards alone, without any supervised example (R1 section 2.2).

It is judged on held-out problems before and after, at the same settings, and on fewer of them in between.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from deepwright.evaluate import Evaluation, decompose, evaluate
from deepwright.inference.engine import Engine
from deepwright.model import Transformer
from deepwright.recipe.journal import ON_THE_WAY, Journal
from deepwright.recipe.settings import R1Settings, RLSettings
from deepwright.rl.grpo import train_grpo
from deepwright.text import Tokenizer

STAGE = "zero"
COOLER = 0.6  # temperature of the second evaluation: R1's own protocol (R1 section 3)


def run(settings: R1Settings | RLSettings, folder: Path, journal: Journal, model: Transformer, tokenizer: Tokenizer) -> Transformer:
    """Judges the base model, trains it by GRPO, judges it again, and says where the rise came from."""
    engine = Engine(model, tokenizer)
    _judge(settings, journal, engine, tokenizer, "base", 0)
    config = dataclasses.replace(settings.rl, seed=settings.seed)
    train_grpo(
        config, model, tokenizer, settings.task, engine, folder / STAGE, journal.tracker,
        stage=STAGE, evaluate=_glance(settings, journal, engine, tokenizer), samples_path=folder / "samples.jsonl",
    )  # fmt: skip
    _judge(settings, journal, engine, tokenizer, STAGE, config.steps)
    return model


def _measure(
    settings: R1Settings | RLSettings, engine: Engine, tokenizer: Tokenizer, problems: int, samples: int, temperature: float
) -> Evaluation:
    asked = settings.evaluation
    return evaluate(
        engine, tokenizer, settings.task, problems=problems, samples=samples, max_tokens=settings.rl.max_tokens, temperature=temperature,
        top_p=asked.top_p, seed=settings.seed,
    )  # fmt: skip


def _judge(settings: R1Settings | RLSettings, journal: Journal, engine: Engine, tokenizer: Tokenizer, stage: str, step: int) -> None:
    """The full evaluation of a stage, once in a run: at the evaluation temperature and, with fewer samples, at the cooler one."""
    asked = settings.evaluation
    if journal.find(stage, step, stage) is None:
        found = _measure(settings, engine, tokenizer, asked.problems, asked.samples, asked.temperature)
        base = journal.find("base", 0, "base")
        more = {} if base is None else {"decomposition": decompose(base, found).record()}
        journal.evaluation(stage, step, stage, found, samples=True, **more)
    label = f"{stage} T={COOLER}"
    if journal.find(stage, step, label) is None:
        journal.evaluation(stage, step, label, _measure(settings, engine, tokenizer, asked.problems, max(1, asked.samples // 4), COOLER))


def _glance(settings: R1Settings | RLSettings, journal: Journal, engine: Engine, tokenizer: Tokenizer):
    """The callback of the loop: a short evaluation now and then. It leaves the run as it is."""

    def glance(step: int, model: Transformer) -> None:
        if step < settings.rl.steps and journal.find(STAGE, step, ON_THE_WAY) is None:
            found = _measure(settings, engine, tokenizer, settings.evaluation.problems_between, 1, settings.evaluation.temperature)
            journal.evaluation(STAGE, step, ON_THE_WAY, found)

    return glance
