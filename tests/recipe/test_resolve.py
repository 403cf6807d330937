"""Preset, TOML and options end in one tree; whatever does not fit is refused by name."""

import enum
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepwright.recipe import resolve
from deepwright.recipe.resolve import (
    SettingsError,
    fill,
    nearest,
    parse,
    read_settings,
    split_words,
    to_toml,
)


class Colour(enum.Enum):
    RED = "red"


@dataclass(frozen=True)
class Scaling:
    factor: float
    original: int = 4


@dataclass(frozen=True)
class Model:
    hidden: int
    act: Literal["silu", "gelu"] = "silu"
    rope: Scaling | None = None
    colour: Colour = Colour.RED


@dataclass(frozen=True)
class Training:
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    sizes: tuple[int, ...] = (1, 2)
    clip: float | None = None

    def __post_init__(self) -> None:
        if self.learning_rate < 0:
            raise ValueError(
                f"learning_rate is {self.learning_rate}, expected 0 or a positive number"
            )


@dataclass(frozen=True)
class Settings:
    """All of it."""

    model: Model = Model(8)
    training: Training = field(default_factory=Training)
    name: str = "x"
    quick: bool = False
    steps: int = 10


def filled(**table) -> Settings:
    return fill(Settings(), table, "f.toml")


def test_values_are_taken_and_the_rest_stays():
    got = filled(training={"learning_rate": 3, "sizes": [7]}, quick=True)
    assert got == Settings(training=Training(learning_rate=3.0, sizes=(7,)), quick=True)
    assert type(got.training.learning_rate) is float


def test_absent_section_is_made_when_it_is_whole():
    assert filled(model={"rope": {"factor": 2}}).model.rope == Scaling(2.0)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"step": 3}, "f.toml: unknown key 'step'; did you mean steps?"),
        ({"training": {"lr": 3}}, "unknown key 'training.lr'; did you mean learning_rate?"),
        ({"training": {"zzz": 3}}, "unknown key 'training.zzz'"),
        ({"steps": "3"}, "steps is '3', expected a whole number"),
        ({"steps": 3.0}, "steps is 3.0, expected a whole number"),
        ({"steps": True}, "steps is True, expected a whole number"),
        ({"quick": 1}, "quick is 1, expected true or false"),
        ({"model": {"act": "relu"}}, "model.act is 'relu', expected one of 'silu', 'gelu'"),
        ({"model": {"colour": "blue"}}, "model.colour is 'blue', expected one of 'red'"),
        ({"model": {"rope": {"original": 2}}}, "model.rope lacks 'factor'"),
        ({"model": {"rope": {"factor": 2, "x": 1}}}, "unknown key 'model.rope.x'"),
        ({"model": 3}, "model is 3, expected a section"),
        ({"training": {"betas": [0.9]}}, "training.betas is [0.9], expected [a number, a number]"),
        (
            {"training": {"sizes": [1, "2"]}},
            "training.sizes is [1, '2'], expected [a whole number, ...]",
        ),
        ({"training": {"clip": "no"}}, "training.clip is 'no', expected a number or \"None\""),
        (
            {"training": {"learning_rate": -1}},
            "f.toml: training: learning_rate is -1.0, expected 0 or a positive number",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(table, said):
    with pytest.raises(SettingsError) as caught:
        filled(**table)
    assert said in str(caught.value)


def test_sections_of_other_commands_are_left_alone_at_the_top_only():
    assert fill(Settings(), {"rl": {"steps": 1}}, "f.toml", also_known={"rl"}) == Settings()
    with pytest.raises(SettingsError, match="unknown key 'model.rl'"):
        fill(Settings(), {"model": {"rl": 1}}, "f.toml", also_known={"rl"})


@given(
    st.builds(
        Settings,
        model=st.builds(
            Model,
            hidden=st.integers(-9, 9),
            act=st.sampled_from(["silu", "gelu"]),
            rope=st.none()
            | st.builds(Scaling, factor=st.floats(allow_nan=False), original=st.integers(0, 9)),
        ),
        training=st.builds(
            Training,
            learning_rate=st.floats(0, 1e300),
            betas=st.tuples(st.floats(0, 1), st.floats(0, 1)),
            sizes=st.lists(st.integers(-5, 5), max_size=3).map(tuple),
            clip=st.none() | st.floats(0, 1),
        ),
        name=st.text(st.characters(codec="utf-8", exclude_categories=["Cs"])),
        quick=st.booleans(),
    )
)
def test_written_settings_read_back_equal(settings):
    elsewhere = Settings(Model(99, "gelu", Scaling(3.0)), Training(clip=0.5))
    assert fill(elsewhere, tomllib.loads(to_toml(settings)), "x") == settings


def test_file_lies_over_its_base(tmp_path):
    (tmp_path / "below.toml").write_text(
        'name = "below"\n[training]\nclip = 1.0\nlearning_rate = 0.5\n'
    )
    (tmp_path / "above.toml").write_text('base = "below.toml"\n[training]\nlearning_rate = 0.25\n')
    assert read_settings(tmp_path / "above.toml") == {
        "name": "below",
        "training": {"clip": 1.0, "learning_rate": 0.25},
    }


def test_bases_in_a_circle_are_refused(tmp_path):
    (tmp_path / "a.toml").write_text('base = "b.toml"\n')
    (tmp_path / "b.toml").write_text('base = "a.toml"\n')
    with pytest.raises(SettingsError, match="is its own base"):
        read_settings(tmp_path / "a.toml")


def test_broken_toml_names_file_and_place(tmp_path):
    (tmp_path / "a.toml").write_text("x = = 1\n")
    with pytest.raises(ValueError, match=r"a\.toml is not TOML: .*line 1"):
        read_settings(tmp_path / "a.toml")


def test_config_by_name_by_path_and_missing(tmp_path):
    (tmp_path / "mine.toml").write_text("")
    assert resolve.config_path(str(tmp_path / "mine.toml")) == tmp_path / "mine.toml"
    assert resolve.config_path("laptop").name == "laptop.toml"
    with pytest.raises(SettingsError, match="there is no config 'laptp'; did you mean laptop"):
        resolve.config_path("laptp")
    with pytest.raises(SettingsError, match="did you mean mine"):
        resolve.config_path(str(tmp_path / "mind.toml"))


def test_words_are_told_from_fields():
    words = split_words(
        "--config a --steps 3 --config=b.toml --resume --quick --preset v3 --dry-run".split()
    )
    assert words == resolve.Words(("a", "b.toml", "quick"), "v3", True, True, ("--steps", "3"))
    with pytest.raises(SettingsError, match="--config needs a value"):
        split_words(["--config"])


def parsed(line: str) -> Settings:
    return parse(Settings, line.split(), "deepwright x", default=Settings())


def test_options_lie_over_the_default():
    got = parsed(
        "--training.learning-rate 2 --training.betas 0 1 --model.act gelu --quick --training.clip None"
    )
    assert got == Settings(Model(8, "gelu"), Training(2.0, (0.0, 1.0)), quick=True)
    assert parsed("--training.learning_rate=2").training.learning_rate == 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--training.lr 3", "unknown option --training.lr; did you mean --training.learning-rate?"),
        ("--no-quik", "unknown option --no-quik"),
        ("--steps many", "--steps: invalid literal for int() with base 10: 'many'"),
        ("--model.act relu", "invalid choice 'relu'"),
        ("--training.betas 1", "Expected 2 values"),
        ("stray", "stray"),
        (
            "--training.learning-rate -1",
            "training: learning_rate is -1.0, expected 0 or a positive number",
        ),
    ],
)
def test_bad_options_are_one_sentence(line, said):
    with pytest.raises(SettingsError) as caught:
        parsed(line)
    assert (
        said in str(caught.value) and "\n" not in str(caught.value) and "─" not in str(caught.value)
    )


def test_help_prints_and_exits_with_0(capsys):
    with pytest.raises(SystemExit) as caught:
        parsed("--help")
    assert not caught.value.code
    assert "--training.learning-rate" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("lr", "learning-rate"),
        ("stps", "steps"),
        ("rl.step", "rl.steps"),
        ("steps", "rl.steps"),
        ("qqq", None),
    ],
)
def test_nearest_name(name, near):
    names = ["rl.steps"] if near and near.startswith("rl") else ["learning-rate", "steps", "name"]
    assert nearest(name, names) == (f"; did you mean {near}?" if near else "")


def test_nothing_is_near_nothing():
    assert nearest("x", []) == ""


def test_paths_are_texts():
    @dataclass(frozen=True)
    class WithPath:
        path: Path = Path("a")

    assert fill(WithPath(), {"path": "b"}, "f") == WithPath(Path("b"))
    assert 'path = "a"' in to_toml(WithPath())
