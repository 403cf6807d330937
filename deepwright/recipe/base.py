"""Stage `base`: a model from nothing, trained to predict the next token of a generated corpus (V3 section 4).

Seeds of the parts follow from the run's: weights and documents from `seed`, held-out validation documents from another stream.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from deepwright.data import CountdownCorpus, MixedCorpus, PackedStream
from deepwright.inference.draft import acceptance_rate
from deepwright.model import Transformer
from deepwright.recipe.journal import Journal
from deepwright.recipe.settings import PretrainSettings, R1Settings
from deepwright.recipe.times import TRAINING
from deepwright.tasks import Countdown
from deepwright.tasks.requests import Requests
from deepwright.text import Tokenizer, number_tokenizer
from deepwright.train.pretrain import pretrain

STAGE = "base"
_VALIDATION = 1 << 40  # distance of the validation documents' seed from any training seed
_DRAFTED_ROWS = 16  # validation rows on which MTP drafts are judged
_DRAFTED_TOKENS = 3  # in a row at least: a token, its successor, and the one that is drafted


def countdown(settings: R1Settings | PretrainSettings) -> Countdown:
    task = settings.task.make()
    if not isinstance(task, Countdown):
        raise ValueError(
            f"task is {settings.task.name!r}, but pre-training has a corpus for 'countdown' only; `deepwright rl` takes any task"
        )
    return task


def corpus_of(settings: R1Settings | PretrainSettings, seed: int) -> CountdownCorpus | MixedCorpus:
    knobs = {
        field.name: getattr(settings.corpus, field.name)
        for field in dataclasses.fields(settings.corpus)
    }
    share, task = knobs.pop("requests"), countdown(settings)
    puzzles = CountdownCorpus(task, seed, **knobs)
    if not share:
        return puzzles
    requests = Requests(settings.task.seed, task.languages, document_seed=seed)
    return MixedCorpus([(1 - share, puzzles), (share, requests)], seed)


def tokenizer_of(settings: R1Settings | PretrainSettings) -> Tokenizer:
    """Word level: the words of the task and, where the corpus has them, of requests."""
    task = countdown(settings)
    more = (
        Requests(settings.task.seed, task.languages).tokenizer_words()
        if settings.corpus.requests
        else ()
    )
    return number_tokenizer((*task.tokenizer_words(), *more), task.largest_number)


def new_model(settings: R1Settings | PretrainSettings, tokenizer: Tokenizer) -> Transformer:
    """Fresh weights; the vocabulary is the tokenizer's, whatever the config says."""
    ids = {
        "vocab_size": tokenizer.vocab_size,
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
    }
    return Transformer(
        dataclasses.replace(settings.model, **ids), torch.Generator().manual_seed(settings.seed)
    )


def validation_rows(settings: R1Settings | PretrainSettings, tokenizer: Tokenizer) -> Tensor:
    unseen = corpus_of(settings, settings.seed + _VALIDATION)
    return PackedStream(unseen, tokenizer, settings.pretrain.length, carry=False).batch(
        settings.evaluation.validation_rows
    )


def run(
    settings: R1Settings | PretrainSettings, folder: Path, journal: Journal, stage: str = STAGE
) -> tuple[Transformer, Tokenizer]:
    """Trains, or goes on training, the base model of a run (or of its student); returns it as it is at the end of the stage."""
    tokenizer = tokenizer_of(settings)
    model = new_model(settings, tokenizer)
    corpus = corpus_of(settings, settings.seed)
    if stage == STAGE:
        journal.start(model.config)
        journal.corpus(corpus)
    stream = PackedStream(
        corpus, tokenizer, settings.pretrain.length, seed=settings.seed, carry=False
    )
    validation = validation_rows(settings, tokenizer)
    with journal.times.of(stage, TRAINING):
        trainer = pretrain(
            settings.pretrain, model, stream, tokenizer, folder / stage, journal.tracker,
            stage=stage, validation=list(validation.split(16)),
        )  # fmt: skip
    drafts = stage == STAGE and len(model.mtp) and settings.pretrain.length >= _DRAFTED_TOKENS
    if drafts and "mtp_acceptance" not in journal.known:
        journal.facts(
            mtp_acceptance=acceptance_rate(model, validation[:_DRAFTED_ROWS, :-1]),
            base_step=trainer.steps,
        )
    return model, tokenizer
