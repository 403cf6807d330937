"""`deepwright r1`, `pretrain` and `rl`: the stages of a run in their order, each skipped where it is already done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from deepwright import weights
from deepwright.model import Transformer
from deepwright.numerics.formats import race_held
from deepwright.recipe import (
    align,
    base,
    cold_start,
    distill,
    finetune,
    long_context,
    reasoning_rl,
    zero,
)
from deepwright.recipe.checks import check
from deepwright.recipe.journal import Journal, keeping
from deepwright.recipe.owner import Owner
from deepwright.recipe.session import (
    BASE_FIRST,
    STAGES,
    model_folder,
    open_run,
    own_base,
    use_threads,
    with_formats,
    with_start,
)
from deepwright.recipe.settings import STAGES as RECIPE
from deepwright.recipe.settings import PretrainSettings, R1Settings, RLSettings
from deepwright.recipe.stage import Recipe
from deepwright.text import Tokenizer
from deepwright.train.progress import clock, say

AFTER_ZERO = {
    module.STAGE: module for module in (cold_start, reasoning_rl, finetune, align, distill)
}
TITLES = {
    "base": "pre-training from nothing",
    "zero": "R1-Zero, reinforcement learning alone",
    "cold_start": "fine-tuning on readable samples of R1-Zero",
    "reasoning_rl": "reinforcement learning, with and without a reward for one language",
    "finetune": "fine-tuning on kept samples and general answers",
    "align": "R1, reinforcement learning for all scenarios",
    "distill": "a small student, by samples and by reinforcement learning alone",
}


def run(settings: R1Settings | PretrainSettings | RLSettings, owner: Owner) -> None:
    """Runs what the settings ask for in the folder owned. An interrupted run is marked as such and
    can be gone on with."""
    folder = owner.folder
    with keeping(owner, settings.track) as journal:
        journal.facts(number_format=race_held())
        if isinstance(settings, R1Settings):
            journal.greet(f"the R1 recipe on {settings.task.name}")
            run_stages(settings, folder, journal)
        elif isinstance(settings, PretrainSettings):
            journal.greet(
                "pre-training from nothing"
                if not settings.start
                else f"pre-training of {settings.start}"
            )
            model, _ = base.run(settings, folder, journal)
            long_context.run(settings, folder, journal, model)
        else:
            journal.greet(f"reinforcement learning alone on {settings.task.name}")
            model, tokenizer = load_start(settings.start or own_base(folder), journal)
            zero.run(settings, folder, journal, model, tokenizer)


def load_start(start: str | Path, journal: Journal) -> tuple[Transformer, Tokenizer]:
    """A model to start from, with fp32 masters whatever the folder holds."""
    model, tokenizer = weights.load(model_folder(start), torch.float32)
    journal.start(model.config)
    return model, tokenizer


def run_stages(settings: R1Settings, folder: Path, journal: Journal) -> None:
    """The stages that are asked for, in the order of the recipe."""
    asked = [stage for stage in RECIPE if stage in settings.stages]
    if settings.start:
        model, tokenizer = load_start(settings.start, journal)
    elif "base" in settings.stages:
        announce("base", asked, journal)
        model, tokenizer = base.run(settings, folder, journal)
    else:
        model, tokenizer = load_start(own_base(folder), journal)
    recipe = Recipe(settings, folder, journal, tokenizer)
    if "zero" in settings.stages:
        announce("zero", asked, journal, recipe.plan.left("zero"))
        recipe.judged(base.STAGE, 0, model)
        recipe.reinforce(zero.STAGE, model, recipe.task, settings.rl)
    del model
    for name, module in AFTER_ZERO.items():
        if name in settings.stages:
            first = "student" if name == "distill" and not settings.start else name
            announce(name, asked, journal, recipe.plan.left(first))
            module.run(recipe)


def announce(stage: str, asked: list[str], journal: Journal, left: float | None = None) -> None:
    """One line at the beginning of a stage: which of how many, what it does, how long the run has taken and still takes."""
    place = asked.index(stage)
    times = [f"{clock(journal.seconds)} so far"] if place else []
    times += [f"about {clock(left)} left"] if left is not None else []
    said = f" ({', '.join(times)})" if times else ""
    say(f"stage {place + 1} of {len(asked)}: {stage}, {TITLES[stage]}{said}")


def run_checked(
    settings: R1Settings | PretrainSettings | RLSettings, resume: bool, notes: Sequence[str] = ()
) -> None:
    """`run` in the run folder that the settings name, which is made only when nothing is left to refuse; what is to be said first is said then."""
    use_threads(settings.threads)
    order = BASE_FIRST if isinstance(settings, R1Settings) else STAGES
    settings, said = with_start(settings, resume, order=order)
    notes = [*notes, said] if said else notes
    check(settings)
    for note in notes:
        print(note, flush=True)
    settings = with_formats(settings, resume)
    with open_run(settings, resume) as owner:
        run(settings, owner)
