"""Stage `rejection`: what fine-tuning will read. Many samples of the reasoning model, of which the right and readable ones stay, and beside them
general answers that a judge lets pass (R1 section 2.3.3: 600,000 and 200,000, the latter from V3's own data and with V3 as judge).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from deepwright.files import read_json, read_records
from deepwright.recipe.harvest import DROPPED, KEPT, harvest, write_rows
from deepwright.recipe.stage import Recipe
from deepwright.tasks import Problem
from deepwright.tasks.requests import preference

STAGE, REASONING, GENERAL = "rejection", "reasoning", "general"


def run(recipe: Recipe) -> list[dict[str, Any]]:
    """The rows, drawn once in a run."""
    settings, place = recipe.settings.rejection, recipe.place(STAGE)
    if (place / KEPT).exists():
        return read_records(place / KEPT)
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
    counts = sum(
        (
            Counter(read_json(place / part / DROPPED))
            for part in (REASONING, GENERAL)
            if (place / part).exists()
        ),
        Counter(),
    )
    write_rows(place, rows, counts)
    return rows


def by_rules(problem: Problem, completion: str) -> str | None:
    """A judge of general answers: at most one of four rules is broken, and no rude word is said."""
    return (
        None
        if preference(problem.columns["request"], completion) >= 0.75
        else "turned down by the judge"
    )
