"""From a command line to the settings of a training command: those of the run that it goes on with, those of a config, or chosen for the model and the task.

A run that is gone on with (--resume, without a config that ships) takes every setting that is not named from its own config.toml, so nothing is chosen
twice. `rl` chooses where --start or --task is named and no config that ships, `pretrain` where --start is; `sft` always.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import deepwright
from deepwright.files import read_toml
from deepwright.recipe.choices import Choice, rl_choices, sft_choices, text_choices
from deepwright.recipe.facts import document_facts, task_facts, this_machine
from deepwright.recipe.r1 import run_checked
from deepwright.recipe.resolve import (
    VERSION_KEY,
    Words,
    config_path,
    fill,
    nested,
    read_settings,
    resolve,
    to_toml,
    written,
)
from deepwright.recipe.session import CONFIG, kept_settings, use_threads, with_start
from deepwright.recipe.settings import (
    COMMANDS,
    SECTIONS,
    RunSettings,
    resolve_for,
    task_words,
)
from deepwright.recipe.sft import SFTSettings, read_material, require_named, run_sft
from deepwright.refusals import flatten
from deepwright.weights import load_tokenizer, read_config

S = TypeVar("S", bound=RunSettings)
KINDS: dict[str, type[RunSettings]] = {**COMMANDS, "sft": SFTSettings}
OWN = {
    "r1": "stages",
    "pretrain": "pretrain",
    "rl": "rl",
    "sft": "sft",
}  # what tells whose run it is


@dataclass(frozen=True)
class Prepared:
    """What a command line comes to: settings, those of them that were chosen, and the work."""

    settings: RunSettings
    choices: Sequence[Choice]
    work: Callable[[bool, Sequence[str]], Any]  # is told whether to resume, and what to say first

    def run(self, resume: bool) -> None:
        self.work(resume, self.lines)

    @property
    def lines(self) -> list[str]:
        """What was chosen and why, for a person; none where nothing was."""
        lines = [f"  {one.setting} = {written(one.value)}: {one.reason}" for one in self.choices]
        return ["Chosen here; what you name wins:", *lines] if lines else []

    def toml(self) -> str:
        """The resolved settings, what was chosen with its reasons before them, as comments."""
        return "".join(f"# {line}\n" for line in self.lines) + to_toml(self.settings)


def prepare(command: str, words: Words) -> Prepared:
    """The settings of a training command, and what it does with them. ValueError for what cannot be."""
    if command == "sft":
        return _prepare_sft(words)
    words = task_words(words)
    chooses = command == "rl" and _names_its_own(words)
    asked = resolve_for(command, words, usual=not chooses)
    if kept := _kept(command, words, asked.folder):
        asked = _over(asked, kept, asked.folder / CONFIG, words)
    elif chooses or (command == "pretrain" and _goes_on(words)):
        settings, choices = (_chosen_rl if chooses else _chosen_text)(asked, words)
        return Prepared(settings, choices, partial(run_checked, settings))
    return Prepared(asked, (), partial(run_checked, asked))


def _chosen_rl(asked: Any, words: Words) -> tuple[Any, list[Choice]]:
    task = asked.task.make()
    if not asked.start:
        raise ValueError(
            "start is missing, expected the folder of a model: deepwright rl --start FOLDER --task NAME"
        )
    use_threads(asked.threads)
    started, _ = with_start(asked, resume=False)
    model, tokenizer = read_config(started.start), load_tokenizer(started.start)
    facts = task_facts(task, tokenizer)
    choices = rl_choices(asked, _named(words), model, facts, this_machine())
    return _over(asked, _table(choices), "the choices", words), choices


def _chosen_text(asked: Any, words: Words) -> tuple[Any, list[Choice]]:
    use_threads(asked.threads)
    started, _ = with_start(asked, resume=False)
    choices = text_choices(asked, _named(words), read_config(started.start), this_machine())
    return _over(asked, _table(choices), "the choices", words), choices


def _prepare_sft(words: Words) -> Prepared:
    if words.preset:
        raise ValueError(
            f"--preset {words.preset} chooses a model, but sft takes the one that it is given"
        )
    asked = resolve(SFTSettings(), words, "deepwright sft", SFTSettings.__doc__ or "")
    if kept := _kept("sft", words, asked.folder):
        settings = require_named(_over(asked, kept, asked.folder / CONFIG, words))
        return Prepared(settings, (), partial(run_sft, settings))
    require_named(asked)
    use_threads(asked.threads)
    started, _ = with_start(asked, resume=False, field="model")
    model, material = read_config(started.model), read_material(asked, started.model)
    facts = document_facts(material.documents)
    choices = sft_choices(asked, _named(words), model, facts, this_machine())
    settings = _over(asked, _table(choices), "the choices", words)
    return Prepared(settings, choices, partial(run_sft, settings, material=material))


# ---- what lies under what the user names


def _over(asked: S, table: Mapping[str, Any], where: Path | str, words: Words) -> S:
    """What the words say over the settings of a table; the run folder is the one that they name."""
    under = dataclasses.replace(fill(type(asked)(), table, str(where)), run=asked.run)
    others = SECTIONS if type(asked) in COMMANDS.values() else ()
    return resolve(under, words, "deepwright", also_known=others)


def _kept(command: str, words: Words, folder: Path) -> dict[str, Any]:
    """The settings of the run that is gone on with, where they are to be taken: nothing that ships
    was named, and the run is one of this command."""
    ships = words.preset or any(map(_ships, words.configs))
    if not words.resume or ships or not (folder / CONFIG).is_file():
        return {}
    table = {name: value for name, value in kept_settings(folder).items() if name != VERSION_KEY}
    fields = {field.name for field in dataclasses.fields(KINDS[command])}
    return table if OWN[command] in table and table.keys() <= fields else {}


def _names_its_own(words: Words) -> bool:
    """Whether a model or a task is named, and no config that ships or stands on another one."""
    if any(map(_ships, words.configs)):
        return False
    return any(name in ("start", "task.name") for name in _named(words))


def _goes_on(words: Words) -> bool:
    """Whether a model is named that goes on with a text, and no config that ships."""
    return "start" in _named(words) and not any(map(_ships, words.configs))


def _ships(config: str) -> bool:
    """Whether a config comes with the package, or goes on from another file."""
    path = config_path(config).resolve()
    package = Path(deepwright.__file__).resolve().parent
    ours = (package / "configs", package.parent / "configs")
    return path.parent in ours or "base" in read_toml(path)


def _named(words: Words) -> set[str]:
    """The dotted names of all settings that files and options name."""
    names = {
        name for config in words.configs for name in flatten(read_settings(config_path(config)))
    }
    for word in words.rest:
        if word.startswith("--"):
            path, _, last = word[2:].partition("=")[0].replace("-", "_").rpartition(".")
            names |= {f"{path}.{name}".lstrip(".") for name in (last, last.removeprefix("no_"))}
    return names


def _table(choices: Sequence[Choice]) -> dict[str, Any]:
    return nested({one.setting: one.value for one in choices})
