"""Stage `base`: a model from nothing, trained to predict the next token of a generated corpus, or of anyone's text (V3 section 4).

Seeds of the parts follow from the run's: weights and documents from `seed`, held-out validation documents from another stream.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from deepwright import weights
from deepwright.data import (
    CountdownCorpus,
    MixedCorpus,
    PackedStream,
    TokenStream,
    sequential,
)
from deepwright.inference.draft import acceptance_rate
from deepwright.inference.engine import Engine
from deepwright.model import Transformer
from deepwright.recipe import own_text
from deepwright.recipe.journal import TEXT, Journal
from deepwright.recipe.session import model_folder
from deepwright.recipe.settings import PretrainSettings, R1Settings
from deepwright.recipe.times import TRAINING
from deepwright.refusals import LARGEST
from deepwright.sampler import Sampling
from deepwright.tasks import Countdown, Needle
from deepwright.tasks.requests import Requests
from deepwright.text import Tokenizer, number_tokenizer
from deepwright.train.objective import Batch
from deepwright.train.pretrain import PretrainConfig, Stream, Trainer, pretrain

STAGE = "base"
Say = Callable[[str], None]
_VALIDATION = 1 << 40  # distance of the validation documents' seed from any training seed
_DRAFTED_ROWS = 16  # validation rows on which MTP drafts are judged
_SHOWN, _SHOWN_TOKENS = 4, 160  # documents of a text in the report, and how much of each
_BEGINNING, _CONTINUED = 24, 64  # tokens of held-out text, and how many the model adds
_DRAFTED_TOKENS = 3  # in a row at least: a token, its successor, and the one that is drafted


def corpus_of(
    settings: R1Settings | PretrainSettings, seed: int
) -> CountdownCorpus | MixedCorpus | Needle:
    """What pre-training reads of the run's task."""
    task, longest = settings.task.make(), settings.pretrain.length
    if isinstance(task, Needle):  # a document fills a row, between its two borders
        return dataclasses.replace(task, seed=seed, length=longest - 1)
    if not isinstance(task, Countdown):
        raise ValueError(
            f"task is {settings.task.name!r}, but pre-training has a corpus for 'countdown' and"
            " 'needle' only; --data reads a text of yours, and `deepwright rl` takes any task"
        )
    knobs = {
        field.name: getattr(settings.corpus, field.name)
        for field in dataclasses.fields(settings.corpus)
    }
    share = knobs.pop("requests")
    puzzles = CountdownCorpus(task, seed, **knobs)
    if not share:
        return puzzles
    requests = Requests(settings.task.seed, task.languages, document_seed=seed)
    return MixedCorpus([(1 - share, puzzles), (share, requests)], seed)


def tokenizer_of(settings: R1Settings | PretrainSettings) -> Tokenizer:
    """Word level: the words of the task and, where the corpus has them, of requests."""
    task = settings.task.make()
    more = (
        Requests(settings.task.seed, task.languages).tokenizer_words()
        if isinstance(task, Countdown) and settings.corpus.requests
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


@dataclass(frozen=True)
class Source:
    """What a base model reads, and what it is validated on."""

    tokenizer: Tokenizer
    stream: Stream
    validation: Tensor  # [rows, length + 1]
    model: Transformer | None = None  # that goes on; None: fresh weights
    corpus: CountdownCorpus | MixedCorpus | Needle | None = None  # generated, to be described
    about: tuple[str, ...] = ()  # sentences on a text
    shown: tuple[str, ...] = ()  # how some of its documents begin
    text_bytes: int = 0  # of the text that the targets of `validation` spell; 0: of no text
    beginnings: tuple[tuple[int, ...], ...] = ()  # that the model continues at each validation
    most_tokens: int = LARGEST  # that are worth reading


def generated(settings: R1Settings | PretrainSettings) -> Source:
    """The corpus of the run's task."""
    corpus, tokenizer = corpus_of(settings, settings.seed), tokenizer_of(settings)
    length = settings.pretrain.length
    stream = PackedStream(corpus, tokenizer, length, seed=settings.seed, carry=False)
    return Source(tokenizer, stream, validation_rows(settings, tokenizer), corpus=corpus)


def read(settings: PretrainSettings, folder: Path, say: Say) -> Source:
    """The user's own text; its tokens are made where they are not there yet."""
    text, length, model, tokenizer = settings.text, settings.pretrain.length, None, None
    if settings.start:
        model, tokenizer = weights.load(model_folder(settings.start), torch.float32)
    tokenizer, tokens, held_out = own_text.tokens_of(
        settings.data, folder, text, tokenizer, settings.tokenizer, say
    )
    stream = TokenStream(tokens, tokenizer, length, seed=settings.seed, fim_rate=text.fim_rate)
    rows = sequential(held_out, length, settings.evaluation.validation_rows)
    firsts, shown = held_out.first(text.continued), tokens.first(_SHOWN)
    return Source(
        tokenizer,
        stream,
        rows,
        model,
        about=tuple(own_text.described(tokens.manifest)),
        shown=tuple(tokenizer.decode(ids[:_SHOWN_TOKENS]) for ids in shown),
        text_bytes=own_text.bytes_of(rows, tokenizer),
        beginnings=tuple(tuple(ids[:_BEGINNING].tolist()) for ids in firsts),
        most_tokens=int(text.epochs * len(tokens)),
    )


def source_of(
    settings: R1Settings | PretrainSettings, folder: Path, say: Say = lambda sentence: None
) -> Source:
    if isinstance(settings, PretrainSettings) and settings.data:
        return read(settings, folder, say)
    return generated(settings)


def run(
    settings: R1Settings | PretrainSettings, folder: Path, journal: Journal, stage: str = STAGE
) -> tuple[Transformer, Tokenizer]:
    """Trains, or goes on training, the base model of a run (or of its student); returns it as it is at the end of the stage."""
    source = source_of(settings, folder, print)
    if stage == STAGE and source.corpus:
        journal.corpus(source.corpus)
    if stage == STAGE and source.about:
        journal.text(source.about, source.shown)
    model, trainer = train(settings, source, folder, journal, stage)
    drafts = stage == STAGE and len(model.mtp) and settings.pretrain.length >= _DRAFTED_TOKENS
    if drafts and journal.known.get("base_step") != trainer.steps:  # not done, or it has grown
        journal.facts(
            mtp_acceptance=acceptance_rate(model, source.validation[:_DRAFTED_ROWS, :-1]),
            base_step=trainer.steps,
        )
    return model, source.tokenizer


def train(
    settings: R1Settings | PretrainSettings,
    source: Source,
    folder: Path,
    journal: Journal,
    stage: str,
) -> tuple[Transformer, Trainer]:
    """The model of `source`, or a new one, trained on it as `settings.pretrain` says."""
    model = source.model or new_model(settings, source.tokenizer)
    if stage == STAGE:
        journal.start(model.config)
    config = _shortened(settings.pretrain, source.most_tokens, stage)

    def watch(step: int, model: Transformer) -> None:
        every = config.validate_every
        if source.beginnings and every and step % every == 0:
            where = {"stage": stage, "step": step, "split": "held_out", "kind": TEXT}
            journal.samples([where | one for one in _continued(source, model, settings.seed)])

    with journal.times.of(stage, TRAINING):
        return model, pretrain(
            config, model, source.stream, source.tokenizer, folder / stage, journal.tracker,
            stage=stage, validation=[Batch(rows) for rows in source.validation.split(16)],
            text_bytes=source.text_bytes, callback=watch,
        )  # fmt: skip


def _shortened(config: PretrainConfig, most: int, stage: str) -> PretrainConfig:
    """The schedule over as many tokens as are worth reading, where it asks for more."""
    schedule = config.schedule
    if schedule.total_tokens <= most:
        return config
    print(f"{stage}: {most:,} tokens instead of {schedule.total_tokens:,}: more often than text.epochs"
          " the text is not read")  # fmt: skip
    return dataclasses.replace(config, schedule=dataclasses.replace(schedule, total_tokens=most))


def _continued(source: Source, model: Transformer, seed: int) -> list[dict[str, str]]:
    """Beginnings of held-out texts, and how the model goes on with each."""
    tokenizer = source.tokenizer
    sampling = Sampling(_CONTINUED, temperature=0.8, seed=seed, stop_ids=tokenizer.stop_ids)
    found = Engine(model, tokenizer).sample(source.beginnings, sampling)
    return [
        {"prompt": tokenizer.decode(ids), "completion": tokenizer.decode(group[0].token_ids)}
        for ids, group in zip(source.beginnings, found, strict=True)
    ]
