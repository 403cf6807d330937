"""`deepwright r1`, `pretrain` and `rl`: the stages of a run in their order, each skipped where it is already done."""

from __future__ import annotations

import contextlib
from collections import Counter
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
from deepwright.recipe.journal import Journal
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
from deepwright.recipe.settings import PretrainSettings, R1Settings, RLSettings
from deepwright.recipe.stage import Recipe
from deepwright.recipe.use import with_error
from deepwright.text import Tokenizer

AFTER_ZERO = {
    module.STAGE: module for module in (cold_start, reasoning_rl, finetune, align, distill)
}


def run(settings: R1Settings | PretrainSettings | RLSettings, owner: Owner) -> None:
    """Runs what the settings ask for in the folder owned. An interrupted run is marked as such and
    can be gone on with."""
    folder, journal = owner.folder, Journal(owner.folder, owner.check)
    journal.facts(number_format=race_held())
    try:
        if isinstance(settings, R1Settings):
            run_stages(settings, folder, journal)
        elif isinstance(settings, PretrainSettings):
            model, _ = base.run(settings, folder, journal)
            long_context.run(settings, folder, journal, model)
        else:
            model, tokenizer = load_start(settings.start or own_base(folder), journal)
            zero.run(settings, folder, journal, model, tokenizer)
    except BaseException:
        with contextlib.suppress(OSError, ValueError):  # what ended the run is to be said, not that
            journal.finish("stopped")  # its folder is gone or the disk full
        raise
    journal.finish("finished")
    for line in summary(journal):
        print(line)
    print(f"The report: {folder / 'report.html'}")


def load_start(start: str | Path, journal: Journal) -> tuple[Transformer, Tokenizer]:
    """A model to start from, with fp32 masters whatever the folder holds."""
    model, tokenizer = weights.load(model_folder(start), torch.float32)
    journal.start(model.config)
    return model, tokenizer


def run_stages(settings: R1Settings, folder: Path, journal: Journal) -> None:
    """The stages that are asked for, in the order of the recipe."""
    if settings.start:
        model, tokenizer = load_start(settings.start, journal)
    elif "base" in settings.stages:
        model, tokenizer = base.run(settings, folder, journal)
    else:
        model, tokenizer = load_start(own_base(folder), journal)
    recipe = Recipe(settings, folder, journal, tokenizer)
    if "zero" in settings.stages:
        recipe.judged(base.STAGE, 0, model)
        recipe.reinforce(zero.STAGE, model, recipe.task, settings.rl)
    del model
    for name, module in AFTER_ZERO.items():
        if name in settings.stages:
            module.run(recipe)


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


def summary(journal: Journal) -> list[str]:
    """MTP's drafts, then held-out figures, one line for each full evaluation."""
    lines = []
    if drafted := journal.known.get("mtp_acceptance"):
        lines.append(
            f"MTP drafts of the base model: {drafted['greedy']:.0%} equal its own greedy choice, {drafted['sampled']:.0%} would be accepted at T = 1"
        )
    full = journal.full_evaluations()
    often = Counter(e["label"] for e in full)  # more than once where a finished run went on
    for e in full:
        name = e["label"] + (f", step {e['step']}" if often[e["label"]] > 1 else "")
        votes = "".join(
            f", cons@{k} {value:.3f}"
            for k, value in e["cons_at_k"].items()
            if k == max(e["cons_at_k"], key=int)
        )
        checks = (
            "" if e["self_check_rate"] is None else f", self-checks in {e['self_check_rate']:.0%}"
        )
        error = e["pass_at_1_se"]
        interval = None if error else e.get("intervals", {}).get("pass@1")
        pass_at_1 = with_error(e["pass_at_1"], error, interval)
        lines.append(
            f"{name:<12} held-out pass@1 {pass_at_1}{votes}, mean length {e['mean_length']:.0f}{checks}"
        )
        if "decomposition" in e and e["label"] == e["stage"] not in ("base", "student"):
            lines.append(f"{'':<12} {e['decomposition']['sentence']}")
    return lines
