"""Stage `rejection`: what fine-tuning will read. Many samples of the reasoning model, of which the right and readable ones stay, and beside them
general answers that a judge lets pass (R1 section 2.3.3: 600,000 and 200,000, the latter from V3's own data and with V3 as judge).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from deepwright.recipe.harvest import KEPT, harvest, read_dropped, write_rows
from deepwright.recipe.stage import Recipe
from deepwright.tasks import Problem
from deepwright.tasks.requests import preference

STAGE, REASONING, GENERAL = "rejection", "reasoning", "general"


def run(recipe: Recipe) -> Path:
    """The file of the rows, which are drawn once in a run."""
    settings, place = recipe.settings.rejection, recipe.place(STAGE)
    if (place / KEPT).exists():
        return place / KEPT
    sampler, rest = (
        recipe.sampler(recipe.model_of("reasoning_rl", STAGE)),
        (recipe.max_tokens, recipe.seed),
    )
    rows = harvest(
        settings.reasoning, recipe.task, sampler, recipe.tokenizer, place / REASONING, *rest
    )
    if recipe.requests:
        rows += harvest(
            settings.general,
            recipe.requests,
            sampler,
            recipe.tokenizer,
            place / GENERAL,
            *rest,
            judge=by_rules,
        )
    counts = Counter[str]()
    for part in (REASONING, GENERAL)[: 2 if recipe.requests else 1]:
        counts.update(read_dropped(place / part))
    write_rows(place, rows, counts)
    return place / KEPT


def by_rules(problem: Problem, completion: str) -> str | None:
    """A judge of general answers: at most one of four rules is broken, and no rude word is said."""
    return (
        None
        if preference(problem.columns["request"], completion) >= 0.75
        else "turned down by the judge"
    )
