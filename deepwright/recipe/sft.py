"""`deepwright sft` and `deepwright data preview`: a model fine-tuned on a file of conversations, and what it will see of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.console import Console
from rich.text import Text

from deepwright import weights
from deepwright.data.conversations import Document, Turns, read_documents
from deepwright.data.layouts import Layout
from deepwright.inference.engine import Engine
from deepwright.model import Transformer
from deepwright.recipe.estimate import fine_tuning
from deepwright.recipe.journal import Journal, keeping
from deepwright.recipe.requests import PreviewRequest
from deepwright.recipe.session import (
    model_folder,
    open_run,
    use_threads,
    with_formats,
    with_start,
)
from deepwright.recipe.settings import RunSettings
from deepwright.recipe.times import SAMPLING, TRAINING
from deepwright.sampler import Sampling
from deepwright.text import Tokenizer
from deepwright.train.checkpoint import by_step
from deepwright.train.sft import STAGE, SFTConfig, describe, require_ends, require_fit, sft

SHOWN_DOCUMENTS, SHOWN_TOKENS = 4, 96  # asked before and after, and how long an answer may be


@dataclass(frozen=True)
class SFTSettings(RunSettings):
    """Fine-tunes a model on conversations; the loss is on what the assistant says alone. What is not named of rate, epochs, batch and format is chosen
    for the model, the documents and the machine, and said with its reason."""

    # the model: a checkpoint, or a run folder
    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")] = ""
    data: str = ""  # conversations: a .jsonl, .json or .parquet file
    validation: str = ""  # others that are never trained on, for a validation loss
    layout: Layout = "messages"  # of the rows of both files; docs/data.md shows them
    # what the assistant says: all in one document, one document for each, the last alone
    turns: Turns = "all"
    # a token that ends a turn beside those of the model, where its template writes another
    end: str = ""
    run: str = "sft"  # name of a folder under runs/, or a path
    sft: SFTConfig = SFTConfig()

    @property
    def grows(self) -> tuple[str, ...]:
        return ("sft.epochs",)


@dataclass(frozen=True)
class Material:
    """What a fine-tuning reads: documents to train on, held-out ones, and what to say of the files."""

    tokenizer: Tokenizer
    documents: list[Document]
    held_out: list[Document]
    notes: list[str]


def require_named(settings: SFTSettings) -> SFTSettings:
    """ValueError where there is no model or no data."""
    for name, what in (("model", "the folder of one"), ("data", "a file of conversations")):
        if not getattr(settings, name):
            raise ValueError(
                f"{name} is missing, expected {what}: deepwright sft FOLDER --data FILE.jsonl"
            )
    return settings


def read_material(settings: SFTSettings, folder: str) -> Material:
    """The files, in the tokens of the model in `folder`, whose weights are not read."""
    place = model_folder(folder)
    config, tokenizer = weights.read_config(place), weights.load_tokenizer(place)
    tokenizer = tokenizer.also_stopping_at(settings.end) if settings.end else tokenizer
    length = min(settings.sft.length, config.max_position_embeddings)
    notes: list[str] = []
    documents, held_out = (
        _read(file, tokenizer, length, settings.turns, settings.layout, notes.append)
        if file
        else []
        for file in (settings.data, settings.validation)
    )
    return Material(tokenizer, documents, held_out, notes)


def run_sft(
    settings: SFTSettings,
    resume: bool,
    notes: Sequence[str] = (),
    say: Callable[[str], None] = print,
    material: Material | None = None,
) -> Path:
    """Trains and returns the folder of the last checkpoint. Data and model are read before the run folder is made; data that was read is handed in."""
    use_threads(settings.threads)
    settings, started = with_start(settings, resume, field="model")
    material = material or read_material(settings, settings.model)
    for note in (*notes, *[started] * bool(started), *material.notes):
        say(note)
    documents, held_out = material.documents, material.held_out
    say(describe(documents, settings.sft))
    model, _ = weights.load(model_folder(settings.model), torch.float32)
    require_ends(documents, material.tokenizer)  # before a run folder is made
    require_fit([*documents, *held_out], model.config)
    settings = with_formats(settings, resume)
    with open_run(settings, resume) as owner, keeping(owner, settings.track) as journal:
        journal.start(model.config)
        journal.greet(f"fine-tuning on {settings.data}")
        if not by_step(owner.folder):
            say(fine_tuning(settings.sft, model, documents))
        shown = Shown(journal, material.tokenizer, (held_out or documents)[:SHOWN_DOCUMENTS])
        shown.answer(model, 0)
        with journal.times.of(STAGE, TRAINING):
            trainer = sft(
                settings.sft,
                model,
                material.tokenizer,
                documents,
                owner.folder,
                journal.tracker,
                seed=settings.seed,
                validation=held_out,
            )
        shown.answer(model, trainer.steps)
    done = settings.folder / "checkpoints" / f"step-{trainer.steps}"
    say(f"The model: {done}")
    return done


@dataclass(frozen=True)
class Shown:
    """Conversations whose first answer is asked of the model before and after, for the report; nothing is measured on them."""

    journal: Journal
    tokenizer: Tokenizer
    documents: Sequence[Document]

    def answer(self, model: Transformer, step: int) -> None:
        """Writes the likeliest answers, once for each step."""
        asked = [self._prompt(document) for document in self.documents]
        if not asked or self.journal.has_samples(STAGE, step):
            return
        stops = self.tokenizer.stop_ids
        sampling = Sampling(SHOWN_TOKENS, 0.0, stop_ids=stops)
        with self.journal.times.of(STAGE, SAMPLING):
            found = Engine(model, self.tokenizer).sample([prompt for prompt, _ in asked], sampling)
        self.journal.samples([
            {"stage": STAGE, "step": step, "prompt": self._text(prompt), "completion": self._text(one.token_ids),
             "length": len(one.token_ids), "answer": self._text(answer)}
            for (prompt, answer), (one,) in zip(asked, found, strict=True)
        ])  # fmt: skip

    def _prompt(self, document: Document) -> tuple[list[int], list[int]]:
        """What stands before the first token that is trained on, and the first answer."""
        ids, targets = document.ids_T.tolist(), document.targets_T.tolist()
        start = max(targets.index(True), 1)
        end = next((i for i in range(start, len(ids)) if not targets[i]), len(ids))
        return ids[:start], ids[start:end]

    def _text(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, specials=True)


def _read(
    file: str,
    tokenizer: Tokenizer,
    length: int,
    turns: Turns,
    layout: Layout,
    say: Callable[[str], None],
) -> list[Document]:
    reading = read_documents(file, tokenizer, length, turns, layout)
    for note in reading.notes():
        say(f"{file}: {note}")
    return reading.documents


def preview(request: PreviewRequest, console: Console | None = None) -> None:
    """Prints documents as they are trained on: targets green on a terminal, and everywhere between ⟦ and ⟧."""
    console = console or Console(highlight=False, soft_wrap=True)
    tokenizer = weights.load_tokenizer(model_folder(request.model))
    tokenizer = tokenizer.also_stopping_at(request.end) if request.end else tokenizer

    def say(note: str) -> None:
        console.print(note, markup=False)

    documents = _read(request.file, tokenizer, request.length, request.turns, request.layout, say)
    for place, document in enumerate(documents[: request.rows]):
        console.print(
            f"document {place}: {len(document.ids_T)} tokens, {int(document.targets_T.sum())} targets",
            style="bold",
        )
        console.print(_drawn(tokenizer, document))
    console.print(
        describe(documents, dataclasses.replace(SFTConfig(), length=request.length)), markup=False
    )


def _drawn(tokenizer: Tokenizer, document: Document) -> Text:
    """Rendered text, ids and mask."""
    ids, targets, drawn = document.ids_T.tolist(), document.targets_T.tolist(), Text("text ")
    for target, run in groupby(zip(ids, targets, strict=True), key=lambda pair: pair[1]):
        shown = tokenizer.decode([index for index, _ in run], specials=True)
        drawn.append(f"⟦{shown}⟧" if target else shown, "green" if target else "dim")
    for name, values in (("ids ", ids), ("mask", map(int, targets))):
        drawn.append(f"\n{name}")
        for value, target in zip(values, targets, strict=True):
            drawn.append(f" {value}", "green" if target else "dim")
    return drawn
