"""Run folders: never overwritten, gone on with only by the same settings; the model in a folder is found by reading alone."""

import dataclasses

import pytest

from deepwright.recipe import session
from deepwright.recipe.session import CONFIG, model_folder
from deepwright.recipe.settings import R1Settings


def open_run(settings: R1Settings, resume: bool):
    """Opens a run and lets go of it."""
    with session.open_run(settings, resume) as owner:
        return owner.folder


@pytest.fixture
def settings(tmp_path):
    return R1Settings(run=str(tmp_path / "runs" / "a"))


def test_new_run_gets_its_settings(settings):
    folder = open_run(settings, resume=False)
    assert folder == settings.folder and 'scoring_func = "sigmoid"' in (folder / CONFIG).read_text()
    assert [path.name for path in folder.iterdir()] == [CONFIG]


def test_existing_run_is_not_started_again(settings):
    open_run(settings, resume=False)
    with pytest.raises(
        ValueError, match="exists: --resume goes on with it, --run NAME starts another"
    ):
        open_run(settings, resume=False)


def test_resume_starts_what_is_not_there_and_goes_on_with_what_is(settings):
    assert open_run(settings, resume=True) == open_run(settings, resume=True)


def changed(settings: R1Settings, **rl) -> R1Settings:
    return dataclasses.replace(settings, rl=dataclasses.replace(settings.rl, **rl))


def test_resume_with_other_settings_is_refused_by_name(settings):
    open_run(settings, resume=False)
    with pytest.raises(ValueError, match=r"was started with rl.steps = 150, asked for now is 149"):
        open_run(changed(settings, steps=149), resume=True)


def test_a_run_may_grow_but_not_below_what_stands_on_it(settings):
    folder = open_run(settings, resume=False)
    open_run(changed(settings, steps=151), resume=True)
    (folder / "cold_start").mkdir()
    with pytest.raises(ValueError, match=r"was started with rl.steps = 151, asked for now is 152"):
        open_run(changed(settings, steps=152), resume=True)


def test_votes_are_part_of_a_finished_figure_and_stay(settings):
    open_run(settings, resume=False)
    told = dataclasses.replace(settings.evaluation, budgets=(8,))
    open_run(dataclasses.replace(settings, evaluation=told), resume=True)
    with pytest.raises(
        ValueError, match="was started with evaluation.votes = 0, asked for now is 64"
    ):
        open_run(
            dataclasses.replace(settings, evaluation=dataclasses.replace(told, votes=64)),
            resume=True,
        )


def test_what_only_changes_rounding_or_what_is_kept_may_change(settings):
    open_run(settings, resume=False)
    told = dataclasses.replace(settings.rl.alarms, policy="off")
    folder = open_run(changed(settings, keep=5, micro_batch_tokens=99, alarms=told), resume=True)
    assert "micro_batch_tokens = 99" in (folder / CONFIG).read_text()


def test_what_a_kill_leaves_before_the_settings_is_no_run(tmp_path):
    folder = tmp_path / "run"
    (folder / "base" / "checkpoints" / ".draft-step-1").mkdir(parents=True)
    for name in (".lock", "config.toml.draft", "base/run.json.draft"):
        (folder / name).write_text("half")
    try:
        open_run(R1Settings(run=str(folder)), resume=False)
    except ValueError as error:
        raise AssertionError("refused for ever") from error


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: folder.touch(), "is a file"),
        (lambda folder: folder.symlink_to("nowhere"), "is a link to nothing"),
        (lambda folder: folder.symlink_to(folder), "is a link to nothing"),
        (lambda folder: (folder / CONFIG).mkdir(parents=True), "config.toml is missing"),
        (lambda folder: folder.mkdir() or (folder / ".lock").mkdir(), "Is a directory"),
        (lambda folder: folder.mkdir() or (folder / ".lock").symlink_to("x"), "symbolic links"),
    ],
)
def test_what_is_no_folder_for_a_run(tmp_path, make, said):
    folder = tmp_path / "run"
    make(folder)
    with pytest.raises((ValueError, OSError), match=said):
        open_run(R1Settings(run=str(folder)), resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_run_below_a_file_is_an_error_that_names_it(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        open_run(R1Settings(run=str(tmp_path / "file" / "run")), resume=True)


def test_a_link_to_a_folder_is_that_folder(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "run").symlink_to("there")
    open_run(R1Settings(run=str(tmp_path / "run")), resume=False)
    assert (tmp_path / "there" / CONFIG).is_file()


def test_folder_of_something_else_is_left_alone(settings):
    settings.folder.mkdir(parents=True)
    (settings.folder / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty and has no config.toml"):
        open_run(settings, resume=True)


def checkpoint(folder, step, whole=True):
    place = folder / "checkpoints" / f"step-{step}"
    (place / "trainer").mkdir(parents=True)
    (place / "config.json").write_text("{}")
    if whole:
        (place / "trainer" / "manifest.json").write_text("{}")
    return place


def test_last_whole_checkpoint_of_the_latest_stage_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "deepwright.recipe.session.find_damage",
        lambda place: None if (place / "trainer" / "manifest.json").exists() else "torn",
    )
    base = checkpoint(tmp_path / "base", 100)
    assert model_folder(tmp_path) == base
    nine, ten = checkpoint(tmp_path / "zero", 9), checkpoint(tmp_path / "zero", 10)
    checkpoint(tmp_path / "zero", 11, whole=False)
    draft = tmp_path / "zero" / "checkpoints" / ".draft-step-12"
    draft.mkdir()
    with pytest.warns(UserWarning, match=r"step-11 is damaged \(torn\) and is skipped"):
        assert model_folder(tmp_path) == ten
    assert model_folder(nine) == nine
    assert model_folder(tmp_path, stages=("base",)) == base
    assert draft.exists(), "a run that is going on may be writing it"


def test_folder_without_a_model(tmp_path):
    with pytest.raises(ValueError, match="there is no folder"):
        model_folder(tmp_path / "no")
    with pytest.raises(ValueError, match="holds no model: expected a config.json"):
        model_folder(tmp_path)
