"""What can be refused before a run folder exists: settings that no run survives, a task that cannot
be made, a model that is not there, a stage without the one that it starts from."""

from __future__ import annotations

import os
from collections.abc import Iterator

from deepwright.config import ModelConfig
from deepwright.recipe import base, own_text
from deepwright.recipe.session import model_folder, own_base
from deepwright.recipe.settings import PretrainSettings, R1Settings, RLSettings
from deepwright.refusals import expect
from deepwright.rl.config import GRPOConfig
from deepwright.tasks import Task, UserReward
from deepwright.train.pretrain import PretrainConfig
from deepwright.weights import read_config

NEEDS = {  # of whose models a stage starts or samples
    "zero": ("base",),
    "cold_start": ("base", "zero"),
    "reasoning_rl": ("cold_start",),
    "finetune": ("base", "reasoning_rl"),
    "align": ("finetune",),
    "distill": ("base", "reasoning_rl"),
}
TRAINED_BYTES = 12  # of a parameter at least: weight and gradient in fp32, two moments in bfloat16


def check(settings: R1Settings | PretrainSettings | RLSettings) -> None:
    """ValueError for what can be refused before a run folder exists."""
    if isinstance(settings, PretrainSettings):
        _check_text(settings)
        _check_long_context(settings)
    if getattr(settings, "data", ()):
        return
    own = settings.task.judge()
    others = settings.task.variants(settings.evaluation.transfer)
    for task in (own, *others.values()):
        task.size("held_out")  # a file is read, problems are listed: what cannot be is refused
    for option, task in others.items():
        if task == own:
            raise ValueError(
                f"evaluation.transfer has {option!r}, which makes the run's own task: expected one"
                " that nothing is trained on"
            )
    if isinstance(settings, R1Settings):
        _check_stages(settings)
    if _pretrains(settings):
        base.corpus_of(settings, settings.seed)
    else:
        _try_reward(settings.task.make())
    for name, model, config in _from_nothing(settings):
        _check_pretraining(name, model, config)
    for name, config, context in _reinforced(settings):
        expected = f"less than the model's context, which holds {context} tokens with the prompt"
        expect(config.max_tokens < context, f"{name}.max_tokens", config.max_tokens, expected)


def _check_text(settings: PretrainSettings) -> None:
    """Only where there is data its settings count."""
    if not settings.data:
        for name in ("tokenizer", "start"):
            value = getattr(settings, name)
            expect(not value, name, value, "none without --data, the text that it is for")
        return
    start = model_folder(settings.start) if settings.start else None
    if start and settings.tokenizer:
        raise ValueError(
            f"tokenizer is {settings.tokenizer!r}, but the model {start} goes on with its own"
        )
    own_text.check(settings.data, settings.tokenizer or str(start or ""), settings.text)
    model = read_config(start) if start else settings.model
    _check_pretraining("pretrain", model, settings.pretrain)


def _check_long_context(settings: PretrainSettings) -> None:
    lengths = settings.long_context.lengths
    config = read_config(model_folder(settings.start)) if settings.start else settings.model
    context = config.max_position_embeddings
    if lengths:
        expected = f"above the model's context, {context}"
        expect(lengths[0] > context, "long_context.lengths", list(lengths), expected)
        scaling = config.rope_scaling
        expect(scaling is None, "rope_scaling", scaling, "none: the model is stretched already")


def _try_reward(task: Task) -> None:
    """A reward of the user's that cannot be called is refused while nothing is loaded yet."""
    if isinstance(task, UserReward):
        task.try_once()


def _pretrains(settings: R1Settings | PretrainSettings | RLSettings) -> bool:
    return not isinstance(settings, RLSettings) and not getattr(settings, "start", "")


def _check_stages(settings: R1Settings) -> None:
    """Every stage has what it starts from: asked for as well, or in the run folder already."""
    for stage in settings.stages:
        for before in NEEDS.get(stage, ()):
            if before in settings.stages or (before == base.STAGE and settings.start):
                continue
            try:
                model_folder(settings.folder / before, (".",))
            except ValueError:
                raise ValueError(
                    f"stage {stage} starts from {before}, which is not among stages ="
                    f" {list(settings.stages)} and of which {settings.folder} holds no whole"
                    " checkpoint: add it to stages"
                ) from None


def _from_nothing(
    settings: R1Settings | PretrainSettings | RLSettings,
) -> Iterator[tuple[str, ModelConfig, PretrainConfig]]:
    """(section, model, how it is trained) of every model that the run pre-trains."""
    if not _pretrains(settings):
        return
    if "base" in getattr(settings, "stages", ("base",)):
        yield "pretrain", settings.model, settings.pretrain
    if "distill" in getattr(settings, "stages", ()):
        yield "distill.pretrain", settings.distill.model, settings.distill.pretrain


def _check_pretraining(name: str, model: ModelConfig, config: PretrainConfig) -> None:
    least, most = 2 + model.num_nextn_predict_layers, model.max_position_embeddings
    expected = f"{least} to {most}, the model's context"
    expect(least <= config.length <= most, f"{name}.length", config.length, expected)
    rows, tokens = config.schedule.batch_rows, config.schedule.total_tokens
    fits = max(1, tokens // config.length)
    expected = f"at most {fits:,} of {config.length} tokens: {tokens:,} are read in all"
    expect(rows <= fits, f"{name}.schedule.batch_rows", rows, expected)
    needed, there = model.parameters * TRAINED_BYTES, _memory()
    if needed > there:
        raise ValueError(
            f"the model of {name} has {model.parameters:,} parameters, whose training takes"
            f" {needed >> 20:,} MB, but this machine has {there >> 20:,} MB"
        )


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _reinforced(
    settings: R1Settings | PretrainSettings | RLSettings,
) -> Iterator[tuple[str, GRPOConfig, int]]:
    """(section, settings, context of the model) of every reinforcement learning in the run."""
    if isinstance(settings, PretrainSettings):
        return
    if isinstance(settings, RLSettings):
        started = model_folder(settings.start) if settings.start else own_base(settings.folder)
        yield "rl", settings.rl, read_config(started).max_position_embeddings
        return
    started = read_config(model_folder(settings.start)) if settings.start else None
    large, small = started or settings.model, started or settings.distill.model
    for stage, name, config, model in (
        ("zero", "rl", settings.rl, large),
        ("reasoning_rl", "reasoning_rl.rl", settings.reasoning_rl.rl, large),
        ("align", "align.rl", settings.align.rl, large),
        ("distill", "distill.rl", settings.distill.rl, small),
    ):
        if stage in settings.stages:
            yield name, config, model.max_position_embeddings
