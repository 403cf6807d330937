"""Stage `cold_start`: a few thousand readable samples of R1-Zero, and the base model fine-tuned on them (R1 section 2.3.1)."""

from __future__ import annotations

from deepwright.recipe.harvest import KEPT, harvest
from deepwright.recipe.stage import Recipe
from deepwright.recipe.times import SAMPLING

STAGE = "cold_start"


def run(recipe: Recipe) -> None:
    """Samples from `zero`, keeps what is right and readable, fine-tunes `base`."""
    settings, folder = recipe.settings.cold_start, recipe.place(STAGE)
    teacher = recipe.model_of("zero", STAGE)
    with recipe.journal.times.of(STAGE, SAMPLING):
        harvest(
            settings.harvest,
            recipe.task,
            recipe.sampler(teacher),
            recipe.tokenizer,
            folder,
            recipe.max_tokens,
            recipe.seed,
        )
    recipe.fine_tune(STAGE, recipe.model_of("base", STAGE), folder / KEPT, settings.sft)
