"""`deepwright runs`: lists, shows and compares run folders, whatever they hold."""

from __future__ import annotations

import html
import json
import os
import random
import re
import subprocess
import sys
import time

import pytest

from deepwright.cli import main
from deepwright.files import last_record
from deepwright.recipe.owner import is_owned, owning
from deepwright.report import comparison
from deepwright.report.listing import bytes_of, glance, size
from deepwright.report.records import read_run
from tests.fuzz import damaged_bytes
from tests.report.fabricated import make_recipe, make_run, write_lines
from tests.report.test_opening import make_alone
from tests.report.test_report import Balance


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A folder with runs of several kinds; the current folder is above it."""
    monkeypatch.chdir(tmp_path)
    make_recipe(tmp_path / "runs" / "whole")
    make_run(tmp_path / "runs" / "of" / "zero", 40, 40, status="stopped")
    for kind in ("sft", "pretrain"):
        (tmp_path / "runs" / kind).mkdir()
        make_alone(tmp_path / "runs" / kind, kind)
    (tmp_path / "runs" / "notes").mkdir()
    (tmp_path / "runs" / "notes" / "plan.txt").write_text("no run")
    return tmp_path / "runs"


def lines_of(capsys, *words):
    assert main(["runs", *words]) == 0
    return capsys.readouterr().out.splitlines()


def test_every_run_is_a_line(runs, capsys):
    (runs / "hurt").mkdir()
    (runs / "hurt" / "run.json").write_text('{"status": "finished", ')
    head, *lines = lines_of(capsys)
    assert head.split() == "run command stage status figures size took".split()
    by_name = {line.split()[0]: line for line in lines}
    assert list(by_name) == ["of/zero", "pretrain", "sft", "whole", "hurt"]
    assert re.search(
        r"student_by_rl +finished +align 7\d\.\d ± \d\.\d% from 8\.3%", by_name["whole"]
    )
    assert "stopped" in by_name["of/zero"] and "zero, step 40" in by_name["of/zero"]
    assert "validation loss 0.388" in by_name["sft"] and " sft " in by_name["sft"]
    assert "loss 0.375" in by_name["pretrain"] and "finished" in by_name["pretrain"]
    assert by_name["hurt"].startswith("hurt  damaged: run.json is damaged: not JSON")
    assert lines_of(capsys, "runs/of")[1].startswith("zero")
    assert lines_of(capsys, str(runs / "notes")) == [f"there is no run in {runs / 'notes'}"]


def test_a_run_that_a_kill_ended_is_not_called_running(runs):
    run = runs / "sft"
    (run / "run.json").write_text('{"status": "running"}')
    assert glance(run, "x", is_owned).status == "killed"
    with owning(run):
        assert glance(run, "x", is_owned).status == "running" and is_owned(run)
    assert not is_owned(run)


def test_no_damage_is_a_traceback(runs, capsys):
    """Bytes of every file are damaged by seed; the other runs are listed all the same."""
    folder = runs / "whole"
    names = ("config.toml", "run.json", "metrics.jsonl", "evaluations.jsonl")
    kept = {name: (folder / name).read_bytes() for name in names}
    for seed in range(24):
        name = names[seed % len(names)]
        (folder / name).write_bytes(damaged_bytes(kept[name], random.Random(seed)))
        lines = lines_of(capsys)
        assert len(lines) == 5 and any(line.startswith("whole") for line in lines)
        assert max(map(len, lines)) < 400
        (folder / name).write_bytes(kept[name])


def test_one_run_shows_its_table(runs, capsys):
    lines = lines_of(capsys, "whole")
    assert lines[1].startswith("whole") and lines[3].split()[:2] == ["stage", "pass@1"]
    assert sum(line.startswith("R1") for line in lines) == 2


def test_two_runs_are_one_page(runs, capsys):
    make_recipe(runs / "second")
    path = runs / "second" / "config.toml"
    path.write_text(path.read_text().replace("seed = 7", "seed = 8") + "[rl]\nsteps = 9\n")
    lines = lines_of(capsys, "whole", "runs/second")
    page = runs / "comparison-whole-second.html"
    assert lines[-1] == f"The comparison: {page}" and page.is_file()
    text = page.read_text()
    said = " ".join(Balance(text).text.split())
    assert "rl.steps" in said and "Settings that differ" in said and "num_hidden" not in said
    assert text.count("<figure") > 10 and text.count("<script") == 1
    lines_of(capsys, "whole", "second", "--page", "both.html")
    assert (runs.parent / "both.html").is_file()


def test_the_report_of_a_run_can_be_written_anew_elsewhere(runs, capsys):
    assert lines_of(capsys, "whole", "--page", "anew.html")[-1] == "The report: anew.html"
    text = (runs.parent / "anew.html").read_text()
    assert "The recipe, stage by stage" in text and not (runs / "whole" / "report.html").exists()


def figures_stand_beside_each_other(folder) -> None:
    """Each run's own figure in its own column, and the difference with the errors in squares."""
    for name, r1, error in (("one", 0.60, 0.03), ("two", 0.71, 0.04)):
        (folder / name).mkdir()
        write_lines(folder / name / "evaluations.jsonl", [
            {"stage": "align", "label": "align", "pass_at_1": r1, "pass_at_1_se": error}
        ])  # fmt: skip
    runs = [read_run(folder / name) for name in ("one", "two")]
    text = comparison.comparison(runs, 0.0).split('id="figures"')[1].split("</table>")[0]
    head, row = re.findall("<tr>(.*?)</tr>", text)
    cells = [
        html.unescape(re.sub("<.*?>", "", cell)).replace("\u00a0", " ")
        for cell in re.findall("<td.*?>(.*?)</td>", row)
    ]
    assert re.findall("<th.*?>(.*?)</th>", head)[2:] == ["one", "two", "difference"]
    assert cells == ["R1 (alignment) align", "pass@1", "60.0 ± 3.0%", "71.0 ± 4.0%", "+11.0 ± 5.0"]


def test_figures_stand_beside_each_other(tmp_path):
    figures_stand_beside_each_other(tmp_path)


def test_of_the_settings_those_that_differ_are_told(tmp_path):
    folders = []
    for name, text in (("a", "seed = 1\n[rl]\nsteps = 3\n"), ("b", "seed = 1\n[sft]\nx = 2\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.toml").write_text(f'run = "{name}"\n{text}')
        folders.append(read_run(tmp_path / name))
    assert comparison.differing(folders) == {"rl.steps": [3, None], "sft.x": [None, 2]}


def test_runs_of_one_name_are_told_apart(tmp_path):
    for place in ("a", "b"):
        (tmp_path / place / "r1").mkdir(parents=True)
    runs = [read_run(tmp_path / place / "r1") for place in ("a", "b")]
    assert comparison.names_of(runs) == [str(run.folder) for run in runs]
    assert comparison.names_of(runs[:1]) == ["r1"]


def test_exports(runs, capsys):
    assert lines_of(capsys, "sft", "--csv", "all.csv")[-1] == "written: all.csv"
    assert (runs.parent / "all.csv").read_text().startswith("stage,step,time,loss")
    pytest.importorskip("tensorboard")
    lines_of(capsys, "sft", "--tensorboard", "board")
    assert list((runs.parent / "board" / "sft").iterdir())


@pytest.mark.parametrize(
    "words, said",
    [
        (["nowhere"], "there is no folder nowhere"),
        (["whole", "notes"], "runs/notes is no run"),
        (["--csv", "x.csv"], "--csv is for one run, asked for was runs"),
        (["whole", "sft", "--csv", "x.csv"], "--csv is for one run"),
        (["--page", "x.html"], "--page is for one run or more"),
        (["whole", "sft", "--page", "no/x.html"], "--page is 'no/x.html', expected a file in a"),
        (["whole", "--csv", "no/x.csv"], "--csv is 'no/x.csv', expected a file in a folder"),
    ],
)
def test_what_cannot_be_asked(runs, capsys, words, said):
    assert main(["runs", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_page_of_damaged_runs_is_one_sentence(runs, capsys):
    (runs / "sft" / "evaluations.jsonl").write_text("nonsense\n")
    assert main(["runs", "whole", "sft"]) == 2
    assert "evaluations.jsonl, line 1" in capsys.readouterr().err
    assert not list(runs.glob("comparison-*"))


def test_it_answers_at_once_and_without_torch(runs):
    code = (
        "import sys; from deepwright.cli import main; main(['runs']); "
        "print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    begun = time.process_time(), os.times().children_user
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    spent = os.times().children_user - begun[1]
    assert done.stdout.splitlines()[-1] == "False False"
    assert spent < 1.0, "processor seconds; on a quiet machine it is half of that"


def test_the_last_record_is_found_from_the_end(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert last_record(path) is None
    path.write_text("")
    assert last_record(path) is None
    rows = [{"stage": "base", "step": step, "load": [0.5] * 4000} for step in range(30)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text + '{"stage": "ba')  # torn
    assert last_record(path)["step"] == 29
    path.write_text(text + '{"long": "' + "x" * 300_000 + '"}\n')
    assert set(last_record(path)) == {"long"}
    path.write_text("nonsense\n")
    with pytest.raises(ValueError, match="the last line"):
        last_record(path)


def test_sizes_are_those_of_the_files(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_bytes(b"x" * 1500)
    (tmp_path / "d").write_bytes(b"y" * 500)
    (tmp_path / "e").symlink_to("/")
    assert bytes_of(tmp_path) - (tmp_path / "e").lstat().st_size == 2000
    assert [size(n) for n in (12, 2000, 41_234_567, 5.5e9)] == ["12 B", "2 kB", "41.2 MB", "5.5 GB"]
