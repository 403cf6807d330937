"""Stage `zero`: R1-Zero. The base model learns to reason from rule rewards alone, without any supervised example (R1 section 2.2).

It is judged on held-out problems before and after, at the same settings, and on fewer of them in between.
"""

from __future__ import annotations

from pathlib import Path

from deepwright.model import Transformer
from deepwright.numerics import compute_dtype
from deepwright.recipe.estimate import expected
from deepwright.recipe.journal import Journal
from deepwright.recipe.judge import Judge, reinforce, sampler_of
from deepwright.recipe.settings import RLSettings
from deepwright.text import Tokenizer

STAGE = "zero"


def run(
    settings: RLSettings, folder: Path, journal: Journal, model: Transformer, tokenizer: Tokenizer
) -> None:
    """`deepwright rl`: judges the model as it comes, trains it by GRPO, judges it again, and says where the rise came from. The whole recipe does
    the same through `Recipe.reinforce`."""
    sampler = sampler_of(settings.sampler, folder, model, tokenizer)
    asked, task = settings.evaluation, settings.task
    judge = Judge(
        asked,
        task.judge(),
        sampler,
        tokenizer,
        journal,
        settings.rl.max_tokens,
        settings.seed,
        transfer=task.variants(asked.transfer),
    )
    paid = settings.task.make()
    with model.computing(compute_dtype(settings.rl.compute)[0]):
        if not settings.sampler.url and journal.find("base", 0, "base") is None:
            print(expected(settings, model, tokenizer, paid), flush=True)
        judge.in_full("base", 0)
        reinforce(STAGE, settings.rl, model, paid, judge, folder)
        judge.in_full(STAGE, settings.rl.steps, last=True)
