"""From words to settings: preset -> TOML files -> `--section.field value`, into one tree of frozen dataclasses. No torch.

Strict throughout: a key, a value or a type that does not fit is refused by name, with the nearest name that exists. The resolved
tree is written back as TOML that resolves to the same tree again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import io
import itertools
import json
import math
import os
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import tomli_w

import deepwright
from deepwright.files import read_toml
from deepwright.refusals import JSON_WORDS, LARGEST, describe, expect, flatten, nearest, quoted

S = TypeVar("S")
NONE = "None"  # TOML has no null; this word stands for it where a field may be None, as on the command line
MOST_BASES = 20  # files of which each is the base of the one before
VERSION_KEY = "deepwright_version"  # written for the reader of a run folder, not read back


class SettingsError(ValueError):
    """Something in a TOML file or on the command line that its user can put right."""


@dataclass(frozen=True)
class Words:
    """What stands on the command line besides fields: which files to read, and what to do with the result."""

    configs: tuple[str, ...]
    preset: str | None
    resume: bool
    dry_run: bool
    rest: tuple[str, ...]  # for tyro


WORDS = ("config", "preset", "quick", "resume", "dry-run")
WORDS_HELP = """Fields are set in this order, later ones win: --preset NAME (the model), --config NAME_OR_FILE (may be repeated),
--section.field VALUE. Also: --quick (the same as --config quick), --resume (go on where the run folder stopped),
--dry-run (print the resolved settings and stop)."""


def split_words(args: Sequence[str]) -> Words:
    """Takes --config, --preset, --quick, --resume and --dry-run out of a command line."""
    configs: list[str] = []
    preset, resume, dry_run = None, False, False
    rest: list[str] = []
    queue = list(args)
    while queue:
        word, _, value = queue.pop(0).partition("=")
        if word in ("--config", "--preset"):
            if not value and not queue:
                raise SettingsError(f"{word} needs a value")
            value = value or queue.pop(0)
            configs += [value] if word == "--config" else []
            preset = value if word == "--preset" else preset
        elif word == "--quick":
            configs.append("quick")
        elif word == "--resume":
            resume = True
        elif word == "--dry-run":
            dry_run = True
        else:
            rest.append(f"{word}={value}" if value else word)
    return Words(tuple(configs), preset, resume, dry_run, tuple(rest))


# ---- TOML in


def config_path(name: str) -> Path:
    """A file as given, or `laptop` for the configs/laptop.toml that comes with the package."""
    package = Path(deepwright.__file__).parent
    tried = (
        [Path(name)]
        if name.endswith(".toml")
        else [
            folder / f"{name}.toml" for folder in (package / "configs", package.parent / "configs")
        ]
    )
    for path in tried:
        if path.is_file():
            return path
    there = sorted({path.stem for candidate in tried for path in candidate.parent.glob("*.toml")})
    raise SettingsError(
        f"there is no config {name!r}"
        + (nearest(Path(name).stem, there) or f" (there are: {', '.join(there) or 'none'})")
    )


def read_settings(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The tables of a file, laid over those of the file that its `base = "..."` names (relative to it)."""
    if path.resolve() in above:
        raise SettingsError(f"{path} is its own base, by way of {above[-1].name}")
    if len(above) > MOST_BASES:
        raise SettingsError(f"{path} is base number {len(above)} of {above[0]}, expected a few")
    table = read_toml(path)
    base = table.pop("base", None)
    if base is None:
        return table
    if not isinstance(base, str) or not (path.parent / base).is_file():
        raise SettingsError(
            f"{path}: base is {quoted(base)}, expected the path of a TOML file from it"
        )
    return overlay(read_settings(path.parent / base, (*above, path.resolve())), table)


def overlay(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(below)
    for key, value in above.items():
        both[key] = (
            overlay(both[key], value)
            if isinstance(value, Mapping) and isinstance(both.get(key), Mapping)
            else value
        )
    return both


def fill(
    settings: S,
    table: Mapping[str, Any],
    where: str,
    also_known: Iterable[str] = (),
    prefix: str = "",
) -> S:
    """`settings` with the fields of a TOML table. `also_known` names top-level sections that other commands read."""
    fields, hints = (
        [f.name for f in dataclasses.fields(settings)],
        typing.get_type_hints(type(settings)),
    )  # type: ignore[arg-type]
    changes = {}
    for key, value in table.items():
        if key not in fields:
            if not prefix and key in {VERSION_KEY, *also_known}:
                continue
            unknown = quoted(prefix + key)
            raise SettingsError(f"{where}: unknown key {unknown}{nearest(key, fields)}")
        changes[key] = convert(value, hints[key], getattr(settings, key), where, prefix + key)
    try:
        return dataclasses.replace(settings, **changes)  # type: ignore[type-var]
    except (
        ValueError
    ) as error:  # from the section's own checks, which do not know where its values came from
        raise SettingsError(
            f"{where}: {prefix.rstrip('.')}{': ' if prefix else ''}{error}"
        ) from None


def convert(value: Any, hint: Any, current: Any, where: str, key: str) -> Any:
    """One TOML value as the type that its field is declared to have; `current` is what the field holds so far."""
    options = (
        typing.get_args(hint)
        if typing.get_origin(hint) in (typing.Union, types.UnionType)
        else (hint,)
    )
    if type(None) in options and value == NONE:
        return None
    for option in options:
        if dataclasses.is_dataclass(option) and isinstance(value, Mapping):
            return fill_or_make(option, value, current, where, key)
        fitted = fit(value, option)
        if fitted is not None:
            return fitted
    expected = describe(hint, _TOML_WORDS)
    raise SettingsError(f"{where}: {key} is {quoted(value)}, expected {expected}")


def fill_or_make(kind: Any, value: Mapping[str, Any], current: Any, where: str, key: str) -> Any:
    if isinstance(current, kind):
        return fill(current, value, where, prefix=f"{key}.")
    missing = [
        f.name
        for f in dataclasses.fields(kind)
        if f.default is f.default_factory is dataclasses.MISSING and f.name not in value
    ]
    if missing:
        raise SettingsError(f"{where}: {key} lacks {missing[0]!r}")
    needed = {f.name: value[f.name] for f in dataclasses.fields(kind) if f.name in value}
    hints = typing.get_type_hints(kind)
    made = kind(
        **{
            name: convert(v, hints[name], None, where, f"{key}.{name}")
            for name, v in needed.items()
        }
    )
    return fill(made, value, where, prefix=f"{key}.")


def fit(value: Any, kind: Any) -> Any:
    """`value` as `kind`, or None when it does not fit. An int is a float; a list is a tuple; a bool is not a number."""
    if typing.get_origin(kind) is typing.Literal:
        return value if value in typing.get_args(kind) else None
    if typing.get_origin(kind) is tuple:
        return fit_tuple(value, typing.get_args(kind))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return next((member for member in kind if value in (member.value, member.name)), None)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < LARGEST else None
    if kind is Path:
        return Path(value) if isinstance(value, str) else None
    return value if type(value) is kind else None


def fit_tuple(value: Any, kinds: tuple[Any, ...]) -> tuple[Any, ...] | None:
    if not isinstance(value, list):
        return None
    kinds = (kinds[0],) * len(value) if len(kinds) == 2 and kinds[1] is ... else kinds
    if len(kinds) != len(value):
        return None
    items = tuple(fit(item, kind) for item, kind in zip(value, kinds, strict=True))
    return None if any(item is None for item in items) else items


_TOML_WORDS = {**JSON_WORDS, str: "a text in quotes", Path: "a path", type(None): f'"{NONE}"'}


# ---- TOML out


def to_table(settings: Any) -> Any:
    """A settings tree as plain TOML values."""
    if dataclasses.is_dataclass(settings):
        return {
            field.name: to_table(getattr(settings, field.name))
            for field in dataclasses.fields(settings)
        }
    if isinstance(settings, (tuple, list)):
        return [to_table(item) for item in settings]
    if isinstance(settings, enum.Enum):
        return settings.value
    return NONE if settings is None else str(settings) if isinstance(settings, Path) else settings


def written(value: Any) -> str:
    """One value as TOML has it, on one line."""
    return json.dumps(to_table(value), ensure_ascii=False)


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{"rl.steps": 3} -> {"rl": {"steps": 3}}, as TOML values: the inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *sections, last = name.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = to_table(value)
    return tree


def to_toml(settings: Any) -> str:
    """The resolved settings, with the version that resolved them. `fill` reads them back into an equal tree."""
    return tomli_w.dumps({VERSION_KEY: deepwright.__version__, **to_table(settings)})


# ---- the command line


def check_options(names: Iterable[str], args: Sequence[str]) -> None:
    """Refuses an option that names no field, before tyro sees it: we can say which name is near."""
    names = [name.replace("_", "-") for name in names]
    for arg in args:
        name = arg.removeprefix("--").partition("=")[0].replace("_", "-")
        if not re.match(r"--[a-z]", arg) or name in ("help", *names):
            continue
        path, _, last = name.rpartition(".")
        if f"{path}.{last.removeprefix('no-')}".lstrip(".") not in names:
            raise SettingsError(
                f"unknown option {arg.partition('=')[0]}{nearest(name, [*names, *WORDS]).replace('mean ', 'mean --')}"
            )


def parse(
    kind: type[S],
    args: Sequence[str],
    prog: str,
    *,
    default: S | None = None,
    description: str | None = None,
) -> S:
    """A `kind` from the command line, over `default` if there is one. tyro's boxed messages become one sentence; --help prints and exits."""
    import tyro

    names = (
        [field.name for field in dataclasses.fields(kind)]
        if default is None
        else flatten(to_table(default))
    )  # type: ignore[arg-type]
    check_options(names, args)
    given = {} if default is None else {"default": default}
    said = io.StringIO()
    # for help, which is as wide as the terminal
    asks = any(arg in ("-h", "--help") for arg in args)
    try:
        with contextlib.redirect_stderr(said), contextlib.nullcontext() if asks else _one_line():
            settings = tyro.cli(
                kind,
                args=list(args),
                prog=prog,
                description=description,
                config=(tyro.conf.AvoidSubcommands,),
                **given,
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise SettingsError(
            one_sentence(said.getvalue()) or "the command line cannot be read"
        ) from None
    check_numbers(settings)
    return settings


@contextlib.contextmanager
def _one_line() -> Iterator[None]:
    """tyro breaks its sentences, also within words and numbers, at the width that it finds here."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "10000"
    try:
        yield
    finally:
        os.environ.pop("COLUMNS")
        os.environ |= {} if before is None else {"COLUMNS": before}


# Counts of things that are in memory together; with more of them no machine gets through a step.
AT_ONCE = ("prompts", "samples", "n", "problems", "problems_between", "per_problem", "votes",
           "pairs", "validation_rows", "batch", "batch_rows", "batch_rows_start")  # fmt: skip
MOST_AT_ONCE = 1_000_000


def check_numbers(settings: Any) -> None:
    """ValueError naming a setting that is no finite number, or more of AT_ONCE than any machine
    bears."""
    for name, value in flatten(to_table(settings)).items():
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, float):
                expect(math.isfinite(number), name, number, "a finite number")
            if isinstance(number, int):
                expect(abs(number) < LARGEST, name, number, "a number below 2^63")
                most = MOST_AT_ONCE if name.rpartition(".")[2] in AT_ONCE else LARGEST
                expect(number <= most, name, number, f"at most {most:,}: they are held in memory")


def one_sentence(box: str) -> str:
    """The message inside tyro's box, without the frame (of dashes where the terminal knows no
    other) and without what stands below the rule that ends it."""
    lines = [line.strip("│ ╭╮╰╯") for line in box.splitlines()[1:]]
    below = itertools.dropwhile(_is_rule, lines)
    message = " ".join(itertools.takewhile(lambda line: not _is_rule(line), below))
    return re.sub(r"^Error parsing ([A-Z]\w*: )?", "", message).removesuffix(".")


def _is_rule(line: str) -> bool:
    return set(line) <= {"─", "-"}


def resolve(
    settings: S, words: Words, prog: str, description: str = "", also_known: Iterable[str] = ()
) -> S:
    """Lays the TOML files and then the command line over `settings` (defaults, with the preset already in)."""
    for name in words.configs:
        path = config_path(name)
        settings = fill(settings, read_settings(path), str(path), also_known)
    return parse(
        type(settings),
        words.rest,
        prog,
        default=settings,
        description=f"{description}\n\n{WORDS_HELP}",
    )
