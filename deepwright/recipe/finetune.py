"""Stage `finetune`: the base model, once more from its beginning, fine-tuned on reasoning and general data (R1 section 2.3.3)."""

from __future__ import annotations

from deepwright.recipe import rejection
from deepwright.recipe.stage import Recipe
from deepwright.recipe.times import SAMPLING

STAGE = "finetune"


def run(recipe: Recipe) -> None:
    with recipe.journal.times.of(STAGE, SAMPLING):
        kept = rejection.run(recipe)
    recipe.fine_tune(STAGE, recipe.model_of("base", STAGE), kept, recipe.settings.finetune)
