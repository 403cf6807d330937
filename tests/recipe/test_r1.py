"""The whole job with everything tiny: stages, records and report are there; split into its stages, stopped and gone on with, it ends with the same bits."""

import json
import shutil
import tomllib

import pytest

from deepwright.cli import main
from deepwright.recipe.journal import RunTracker
from deepwright.recipe.session import model_folder
from deepwright.train.checkpoint import find_damage
from tests.recipe.mini import LINE

TINY = (
    "--quick --threads 1 --pretrain.length 48 --pretrain.schedule.total-tokens 3000 --pretrain.schedule.batch-rows 8 "
    "--pretrain.schedule.warmup-steps 2 --pretrain.checkpoint-every 4 --rl.steps 2 --rl.prompts 3 --rl.samples 3 --rl.max-tokens 24 "
    "--rl.evaluate-every 1 --rl.checkpoint-every 1 --rl.warmup-steps 1 --evaluation.problems 4 --evaluation.samples 4 "
    "--evaluation.problems-between 3 --evaluation.validation-rows 2"
).split()
ZERO = [*TINY, "--stages", "base", "zero"]
PRETRAIN_ONLY = [
    TINY[i]
    for i in range(len(TINY))
    if not (TINY[i].startswith("--rl.") or TINY[i - 1].startswith("--rl."))
]
RL_ONLY = [
    TINY[i]
    for i in range(len(TINY))
    if not (TINY[i].startswith("--pretrain.") or TINY[i - 1].startswith("--pretrain."))
]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["r1", "--run", str(folder), *ZERO]) == 0
    return folder


def weights_of(folder, stage, step):
    return (folder / stage / "checkpoints" / f"step-{step}" / "model.safetensors").read_bytes()


def last_step(folder, stage):
    return max(
        int(path.name.removeprefix("step-"))
        for path in (folder / stage / "checkpoints").glob("step-*")
    )


def test_run_folder_holds_what_a_reader_needs(done):
    settings = tomllib.loads((done / "config.toml").read_text())
    assert settings["quick"] and settings["rl"]["steps"] == 2 and settings["deepwright_version"]
    stages = {
        json.loads(line)["stage"] for line in (done / "metrics.jsonl").read_text().splitlines()
    }
    assert stages == {"base", "zero"}
    labels = [
        json.loads(line)["label"] for line in (done / "evaluations.jsonl").read_text().splitlines()
    ]
    assert labels.count("base") == labels.count("zero") == labels.count("zero requests") == 1
    assert find_damage(done / "zero" / "checkpoints" / "step-2") is None


def test_report_is_whole_and_says_that_it_proves_nothing(done):
    page = (done / "report.html").read_text()
    assert page.rstrip().endswith("</html>") and "prove nothing" in page


def test_finished_run_gone_on_with_changes_nothing(done, capsys):
    before = {path: path.read_bytes() for path in done.rglob("*.safetensors")} | {
        done / "metrics.jsonl": (done / "metrics.jsonl").read_bytes()
    }
    # by the same command, and by its name alone: what is not named is as its config.toml has it
    for line in (ZERO, []):
        capsys.readouterr()
        assert main(["r1", "--run", str(done), *line, "--resume"]) == 0
        assert {path: path.read_bytes() for path in before} == before
    said = capsys.readouterr()
    assert "stage 1 of 2: base, " in said.err and "stage 2 of 2: zero, " in said.err
    assert said.err.index("report.html") < said.err.index("stage 1 of 2")
    head, *rows = said.out.splitlines()[:3]
    assert head.split()[:2] == ["stage", "pass@1"]
    assert [row.split()[0] for row in rows] == ["Base", "R1-Zero"]


def test_the_report_can_be_opened_before_the_first_step(tmp_path, monkeypatch):
    log, there = RunTracker.log, []

    def looking(tracker, *record):
        there.append((tmp_path / "run" / "report.html").is_file())
        log(tracker, *record)

    monkeypatch.setattr(RunTracker, "log", looking)
    assert main([*LINE, "--run", str(tmp_path / "run")]) == 0
    assert there == [True] * 4


@pytest.mark.invariant
def test_stages_run_apart_end_with_the_same_bits(done, tmp_path):
    apart, step = tmp_path / "apart", last_step(done, "base")
    assert main(["pretrain", "--run", str(apart), *PRETRAIN_ONLY]) == 0
    assert weights_of(apart, "base", step) == weights_of(done, "base", step)
    zero = tmp_path / "zero"
    assert main(["rl", "--run", str(zero), "--start", str(apart), *RL_ONLY]) == 0
    assert weights_of(zero, "zero", 2) == weights_of(done, "zero", 2)


def test_budgets_are_added_to_a_finished_run(done, tmp_path):
    folder = shutil.copytree(done, tmp_path / "more")
    before, saved = (
        (folder / "evaluations.jsonl").read_bytes(),
        {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")},
    )
    assert (
        main(["r1", "--run", str(folder), *ZERO, "--resume", "--evaluation.budgets", "8", "5"]) == 0
    )
    written = (folder / "evaluations.jsonl").read_bytes()
    added = [json.loads(line) for line in written.removeprefix(before).splitlines()]
    assert written.startswith(before) and [(e["label"], e["max_tokens"]) for e in added] == [
        ("zero budget=5", 5 + 24)
    ]
    assert {path: path.stat().st_mtime_ns for path in saved} == saved


@pytest.mark.parametrize(
    ("reload", "said"),
    [
        (
            "true",
            "http://127.0.0.1:1/v1/completions did not answer: <urlopen error [Errno 111] Connection refused>",
        ),
        ("http://127.0.0.1:1/reload", "http://127.0.0.1:1/reload did not answer"),
        ("no-such-command {folder}", "the reload command 'no-such-command {folder}' did not run"),
    ],
)
def test_a_sampler_that_is_down_is_one_sentence(done, tmp_path, reload, said, capsys, monkeypatch):
    monkeypatch.setattr("deepwright.rl.server.PAUSES", (0.0, 0.0))
    served = ["--sampler.url", "http://127.0.0.1:1/v1", "--sampler.reload", reload]
    start = str(model_folder(done / "base", (".",)))
    assert main(["r1", "--run", str(tmp_path / "r"), "--start", start, *ZERO, *served]) == 2
    error = capsys.readouterr().err
    *begun, last = error.splitlines()
    assert said in last and "Traceback" not in error and not any("deepwright:" in x for x in begun)


def test_existing_run_is_not_overwritten(done, capsys):
    assert main(["r1", "--run", str(done), *ZERO]) == 2
    assert "--resume goes on with it" in capsys.readouterr().err
