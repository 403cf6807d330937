"""`deepwright sft` and `deepwright data preview`: a model fine-tuned on a file of conversations, and what it will see of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
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
from deepwright.recipe.journal import RunTracker
from deepwright.recipe.requests import PreviewRequest
from deepwright.recipe.resolve import Words, resolve
from deepwright.recipe.session import model_folder, open_run, use_threads, with_formats
from deepwright.recipe.settings import RunSettings
from deepwright.text import Tokenizer
from deepwright.train.sft import SFTConfig, describe, sft


@dataclass(frozen=True)
class SFTSettings(RunSettings):
    """Fine-tunes a model on conversations; the loss is on what the assistant says alone."""

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


def resolve_sft(words: Words) -> SFTSettings:
    """TOML files, then options."""
    if words.preset:
        raise ValueError(
            f"--preset {words.preset} chooses a model, but sft takes the one that it is given"
        )
    settings = resolve(SFTSettings(), words, "deepwright sft", SFTSettings.__doc__ or "")
    for name, what in (("model", "the folder of one"), ("data", "a file of conversations")):
        if not getattr(settings, name):
            raise ValueError(
                f"{name} is missing, expected {what}: deepwright sft FOLDER --data FILE.jsonl"
            )
    return settings


def run_sft(settings: SFTSettings, resume: bool, say: Callable[[str], None] = print) -> Path:
    """Trains and returns the folder of the last checkpoint. Data and model are read before the run folder is made."""
    use_threads(settings.threads)
    model, tokenizer = weights.load(model_folder(settings.model), torch.float32)
    tokenizer = tokenizer.also_stopping_at(settings.end) if settings.end else tokenizer
    length = min(settings.sft.length, model.config.max_position_embeddings)
    documents, held_out = (
        _read(file, tokenizer, length, settings.turns, settings.layout, say) if file else []
        for file in (settings.data, settings.validation)
    )
    say(describe(documents, settings.sft))
    settings = with_formats(settings, resume)
    with open_run(settings, resume) as owner:
        trainer = sft(
            settings.sft,
            model,
            tokenizer,
            documents,
            owner.folder,
            RunTracker(owner.folder, owner.check),
            seed=settings.seed,
            validation=held_out,
        )
    done = settings.folder / "checkpoints" / f"step-{trainer.steps}"
    say(f"The model: {done}")
    return done


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
