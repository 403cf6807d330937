"""What a report opens with, where its time went, what its columns mean, and what a quick run does not claim."""

from __future__ import annotations

import json
import re

import pytest

from deepwright.metrics import JsonlTracker
from deepwright.report import opening, stages
from deepwright.report.charts import Bar, bars, nice_ticks, step_ticks
from deepwright.report.columns import COLUMNS, meaning
from deepwright.report.records import read_run
from deepwright.report.summary import aligned, summary
from deepwright.report.timing import timing, unassigned
from tests.report.fabricated import evaluation, make_recipe, make_run, write_lines
from tests.report.test_report import report_of
from tests.report.test_stages import cells_of


def tiles_of(text):
    found = re.findall('<div class="tile"><h3>(.*?)</h3><div class="big">(.*?)</div>', text)
    return [(title, figure.replace("\u00a0", " ")) for title, figure in found]


def test_a_page_opens_with_three_tiles_and_one_chart_before_any_table(tmp_path):
    text, _ = report_of(make_recipe(tmp_path / "run"))
    head = text.split("<main>")[1].split("<table>")[0]
    first = head.split('<section id="about">')[0]
    assert len(tiles_of(first)) == 3 and first.count("<figure") == 1 and "bars" in first
    assert first.index('class="tiles"') < first.index("<figure")


def test_the_tiles_have_the_end_of_the_recipe_first(tmp_path):
    run = read_run(make_recipe(tmp_path / "run"))
    (one, r1), (two, zero), (three, took) = tiles_of(opening.opening(run))
    assert (one, two, three) == ("R1", "R1-Zero", "Time")
    assert r1 == stages.share(run.labelled("align")).replace("\u00a0", " ")
    assert zero == stages.share(run.labelled("zero")).replace("\u00a0", " ")
    rise = run.labelled("align")["pass_at_1"] - run.labelled("base")["pass_at_1"]
    assert f"{100 * rise:+.1f} points over the base" in opening.opening(run)
    assert took == "15 min 33 s"


@pytest.mark.parametrize(
    "kind, expected",
    [
        ("pretrain", ["Training loss", "Read", "Time"]),
        ("sft", ["Validation loss", "Read", "Time"]),
        ("rl", ["Right answers", "Time", "Answer length"]),
    ],
)
def test_other_commands_have_their_own(tmp_path, kind, expected):
    make_alone(tmp_path, kind)
    text, _ = report_of(tmp_path)
    assert [title for title, _ in tiles_of(text)][:3] == expected
    assert text.split('<section id="about">')[0].count("<figure") == 1
    titles = re.findall("<figcaption><b>(.*?)</b>", text)
    assert titles.count("Accuracy") + titles.count("Loss") == 1, "what opens the page, once"


def make_alone(folder, kind):
    """A run of one command that is not r1."""
    if kind == "rl":
        make_run(folder, 0, 40)
        (folder / "config.toml").write_text('start = "models/x"\n[rl]\nsteps = 40\n')
        return
    section = {"pretrain": "[pretrain]\nlength = 8\n", "sft": 'model = "m"\ndata = "d"\n[sft]\n'}
    (folder / "config.toml").write_text(section[kind])
    (folder / "run.json").write_text(json.dumps({"seconds": 12.0, "status": "finished"}))
    tracker, stage = JsonlTracker(folder / "metrics.jsonl"), {"pretrain": "base"}.get(kind, kind)
    for step in range(1, 9):
        values = {"loss": 3.0 / step, "tokens": 100 * step, "grad_norm": 1.0, "step_seconds": 1.0}
        held = {"validation_loss": 3.1 / step} if kind == "sft" and step % 4 == 0 else {}
        tracker.log(stage, step, values | {"learning_rate": 1e-3} | held)
    asked = {"stage": "sft", "prompt": "2 + 2?", "completion": "5", "length": 1, "answer": "4"}
    if kind == "sft":
        write_lines(folder / "samples.jsonl", [
            {**asked, "step": 0}, {**asked, "step": 8, "completion": "4, after all"},
        ])  # fmt: skip


def test_a_report_of_fine_tuning_has_curves_settings_and_answers_before_and_after(tmp_path):
    make_alone(tmp_path, "sft")
    text, page = report_of(tmp_path)
    for title in ("Loss", "Gradient norm", "Learning rate"):
        assert f"<b>{title}</b>" in text
    said = " ".join(page.text.split())
    assert "starts from m and is fine-tuned on the conversations of d" in said
    assert "4, after all" in said and "in the data" in said and "settings" in said
    assert "held-out problems" not in said.split("Glossary")[0] and "pass@1" not in said
    assert 'id="zero"' not in text and 'id="corpus"' not in text


def test_bars_stand_where_their_values_are():
    one = Bar("one", 0.5, "50%", 0.4, 0.6, band=(0.2, 0.7))
    text = bars("title", [[one], [Bar("two", 0.8, "80%", 0.8, 0.8)]])
    lanes = re.findall('<div class="lane">(.*?)</div>', text)
    places = [re.findall(r"left:([\d.]+)%;width:([\d.]+)%", lane) for lane in lanes]
    top = 0.8  # the last tick
    assert [[float(x) for x in place] for place in places[0]] == [
        [0, pytest.approx(50 / top)],
        [pytest.approx(20 / top), pytest.approx(50 / top)],
        [pytest.approx(40 / top), pytest.approx(20 / top)],
    ]
    assert places[1][0] == ("0.00", "100.00") and text.count('class="group"') == 2
    assert bars("title", []) == "" and bars("title", [[]]) == ""


def test_axes_have_more_than_two_ticks_where_there_is_room():
    for low, high in ((0, 1), (0, 0.3), (0.97, 1.003), (-3, 40), (5, 5), (0, 10), (0, 2), (2, 3)):
        assert 3 <= len(nice_ticks(low, high)) <= 6, (low, high)
    for first, last in ((1, 4), (1, 40), (0, 120), (1, 1221), (3, 9000)):
        ticks = step_ticks(first, last)
        assert len(ticks) >= 3 and first <= min(ticks) and max(ticks) <= last
    assert step_ticks(1, 2) == [1, 2] and step_ticks(7, 7.5) == [7, 7.5]


# ---- where the time went


def seconds_of(said):
    sizes = {"h": 3600, "min": 60, "s": 1}
    return sum(float(n) * sizes[unit] for n, unit in re.findall(r"([\d.]+) (h|min|s)\b", said))


def the_rows_add_up_to_the_wall_time(folder) -> None:
    make_recipe(folder)
    facts = json.loads((folder / "run.json").read_text())
    facts["times"] = {
        "base": {"training": 300.2}, "zero": {"training": 200.0, "evaluation": 40.4},
        "finetune": {"sampling": 31.0, "training": 12.0}, "align": {"reward models": 25.0},
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(facts))
    head, *rows = cells_of(timing(read_run(folder)))
    assert head == ["stage", "training", "evaluation", "sampling", "reward models", "in all"]
    for row in rows[:-2]:
        assert seconds_of(row[-1]) == pytest.approx(sum(map(seconds_of, row[1:-1])), abs=2)
    *stages_and_rest, total = (seconds_of(row[-1]) for row in rows)
    assert rows[-1][0] == "wall time" and total == round(facts["seconds"])
    assert sum(stages_and_rest) == pytest.approx(total, abs=len(rows))


def test_the_rows_add_up(tmp_path):
    the_rows_add_up_to_the_wall_time(tmp_path / "run")


def test_runs_of_older_versions_are_told_from_their_records(tmp_path):
    run = read_run(make_recipe(tmp_path / "run"))
    assert run.times["align"] == {"training": 10.0}  # 20 steps of half a second
    spent = sum(sum(parts.values()) for parts in run.times.values())
    assert unassigned(run) == pytest.approx(933.0 - spent)


# ---- a quick run, columns, the terminal


def a_quick_run_claims_nothing(folder) -> None:
    make_recipe(folder)
    path = folder / "config.toml"
    path.write_text(path.read_text().replace("quick = false", "quick = true"))
    said = " ".join(report_of(folder)[1].text.split())
    assert "The recipe, stage by stage" in said
    for claim in ("published way", "as published", "Published", "Reasoning is kept"):
        assert claim not in said, claim


def test_a_quick_run_claims_nothing(tmp_path):
    a_quick_run_claims_nothing(tmp_path / "run")


def test_heads_of_columns_are_explained_in_place(tmp_path):
    text, page = report_of(make_recipe(tmp_path / "run"))
    table = text.split('<section id="recipe">')[1].split("</section>")[0]
    heads = re.findall(r'<th[^>]*title="(.*?)"[^>]*>(.*?)</th>', table)
    assert ("Mean number of tokens in an answer, with its thought.", "length") in heads
    assert "What the columns mean" in page.text and COLUMNS["requests"] in page.text
    assert meaning("T=0.6") and meaning("on count=4") and meaning("nothing of ours") == ""


def test_the_terminal_gets_the_table_in_few_aligned_lines(tmp_path):
    run = read_run(make_recipe(tmp_path / "run"))
    head, *lines = summary(run)
    assert head.split() == ["stage", "pass@1", "one", "language", "length", "requests", "training"]
    assert len(lines) == 10 and max(map(len, lines)) <= 100
    r1 = next(line for line in lines if line.startswith("R1 (alignment)"))
    assert stages.share(run.labelled("align")).replace("\u00a0", " ") in r1
    assert len(set(map(len, (line for line in lines if line.endswith(" s"))))) == 1, "one width"


def test_columns_are_aligned():
    assert aligned([["a", "1"], ["bbb", "22"]]) == ["a     1", "bbb  22"]
    assert aligned([["a", "x"], ["bbb", ""]], left=2) == ["a    x", "bbb"]


def test_the_terminal_of_a_run_without_problems_has_its_losses(tmp_path):
    make_alone(tmp_path, "sft")
    assert summary(read_run(tmp_path)) == [
        "sft: loss 0.375, validation 0.388 nats/token after 800 tokens in 8.0 s"
    ]


def test_a_page_of_one_evaluation_says_what_it_has(tmp_path):
    write_lines(tmp_path / "evaluations.jsonl", [evaluation(0.0, "base", 0)])
    assert tiles_of(report_of(tmp_path)[0])[0] == ("Base", "8.3 ± 0.8%")
