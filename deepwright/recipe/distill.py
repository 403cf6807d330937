"""Stage `distill`: a small dense student learns from the kept samples alone, without reinforcement learning (R1 section 2.4).

Beside it the same student with reinforcement learning only, for the comparison of R1 section 4.1: `distill.rl.steps` is to be set so that the steps of
both take about the same time, which the report shows."""

from __future__ import annotations

import dataclasses

from deepwright.recipe import base, rejection
from deepwright.recipe.settings import STUDENTS
from deepwright.recipe.stage import Recipe

STUDENT, STAGE, BY_RL = STUDENTS


def run(recipe: Recipe) -> None:
    """Pre-trains the student where the run pre-trains its base (else it starts from the same one), then teaches it in both ways."""
    settings = recipe.settings.distill
    origin = "base" if recipe.settings.start else STUDENT
    if origin == STUDENT:
        student = dataclasses.replace(
            recipe.settings, model=settings.model, pretrain=settings.pretrain
        )
        recipe.judged(STUDENT, 0, base.run(student, recipe.folder, recipe.journal, STUDENT)[0])
    recipe.fine_tune(STAGE, recipe.model_of(origin, STAGE), rejection.run(recipe), settings.sft)
    if settings.compare:
        recipe.reinforce(BY_RL, recipe.model_of(origin, BY_RL), recipe.task, settings.rl)
