"""Reports of whole, running, empty and hostile runs: well-formed, self-contained, of bounded size, and saying what is missing."""

import html.parser
import json
import re
import subprocess
import sys

import pytest

from deepwright.metrics import JsonlTracker
from deepwright.report import write_report
from deepwright.report.charts import Line, nice_ticks, plot, thin
from deepwright.report.figures import compact, count, duration, percent_with_error
from deepwright.report.records import moving_average, read_run
from tests.report.fabricated import evaluation, make_run, write_lines

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Balance(html.parser.HTMLParser):
    """Every opened element is closed in order; collects visible text, attributes and elements."""

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.attributes, self.tags = [], "", [], set()
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data + " "


def report_of(folder):
    path = write_report(folder)
    assert path == folder / "report.html" and not list(folder.glob("*.draft"))
    text = path.read_text(encoding="utf-8")
    return text, Balance(text)


def test_report_of_a_whole_run(tmp_path):
    text, page = report_of(make_run(tmp_path / "made-up"))
    assert "Not yet" not in page.text and "finished" in page.text
    said = " ".join(page.text.split())  # also turns non-breaking spaces into spaces
    for words in (
        "went from 8.3 ± 0.8% to",
        "cons@16",
        "n = 300 × 16",
        "search +45.5 points",
        "no wait",
        "searches 34.0%",
        "accepts 64.0% greedy and 81.0% sampled over 2,032 positions",
    ):
        assert words.lower() in said.lower(), words
    assert "base T=0.6" in said and "Quick run" not in said
    assert len(text) < 1_500_000


def test_all_or_nothing_right_has_an_interval_where_its_error_says_nothing(tmp_path):
    folder = make_run(tmp_path / "nothing", 80, 40)
    path = folder / "evaluations.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        if record["label"] in ("base", "zero"):
            low, high = (0.0, 0.0127) if record["label"] == "base" else (0.9873, 1.0)
            record |= {"pass_at_1": float(record["label"] == "zero"), "pass_at_1_se": 0.0}
            record["by_kind"] = {"few": [0.0, 100], "many": [record["pass_at_1"], 200]}
            record["intervals"] = {"pass@1": [low, high], "cons@16": "damaged"}
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    text, page = report_of(folder)
    assert "(95%:\u00a00.0–1.3%)" in text and "(95%:\u00a098.7–100.0%)" in text
    assert "(95%:\u00a00.0–3.7%)" in text, "of 100 problems of a kind"
    assert "±\u00a00.0" not in page.text


def test_nothing_is_fetched_from_anywhere(tmp_path):
    text, page = report_of(make_run(tmp_path / "made-up", 80, 40))
    assert not re.search(r"https?://|//\w+\.\w+|@import|url\(", text)
    for name, value in page.attributes:
        assert name not in ("src", "srcset", "action") and (
            name != "href" or value.startswith(("#", "data:,"))
        )


def test_size_is_bounded_in_long_runs(tmp_path):
    text, _ = report_of(make_run(tmp_path / "long", 1000, 200))
    assert len(text.encode()) < 1_500_000
    folder = make_run(tmp_path / "wide", 5, 5)  # V3's 58 layers of 256 experts
    tracker = JsonlTracker(folder / "metrics.jsonl")
    for step in (6, 7):
        tracker.log(
            "base",
            step,
            {
                "expert_load": [
                    [(7 * expert + layer) % 11 for expert in range(256)] for layer in range(58)
                ]
            },
        )
    assert len(report_of(folder)[0].encode()) < 1_500_000


def test_report_of_an_empty_folder_says_what_is_missing(tmp_path):
    _, page = report_of(tmp_path)
    assert page.text.count("Not yet") >= 7 and "What this does not show" in page.text


@pytest.mark.parametrize(
    "missing",
    [
        "config.toml",
        "run.json",
        "metrics.jsonl",
        "evaluations.jsonl",
        "samples.jsonl",
        "corpus.json",
    ],
)
def test_any_file_may_be_missing(tmp_path, missing):
    folder = make_run(tmp_path / "run", 30, 10)
    (folder / missing).unlink()
    report_of(folder)


def test_report_of_a_run_in_its_first_step(tmp_path):
    JsonlTracker(tmp_path / "metrics.jsonl").log("base", 1, {"loss": 4.8, "tokens": 4096})
    # still being written
    (tmp_path / "metrics.jsonl").open("a").write('{"stage": "base", "step": 2, "lo')
    text, page = report_of(tmp_path)
    assert "4,096 tokens" in page.text and "running" in page.text and 'data-running="1"' in text
    assert "it starts when pre-training has ended" in page.text


def test_report_between_base_and_reinforcement_learning(tmp_path):
    write_lines(tmp_path / "evaluations.jsonl", [evaluation(0.0, "base", 0)])
    _, page = report_of(tmp_path)
    assert "Before reinforcement learning" in page.text and "below is the base model" in page.text


def test_a_run_of_one_stage_does_not_speak_of_the_other(tmp_path):
    (tmp_path / "config.toml").write_text("[pretrain]\nlength = 8\n")
    text, page = report_of(tmp_path)
    assert (
        'id="base"' in text
        and 'id="zero"' not in text
        and "#zero" not in text
        and "reinforcement learning alone" not in page.text
    )
    (tmp_path / "config.toml").write_text('start = "runs/first"\n[rl]\nsteps = 8\n')
    text, page = report_of(tmp_path)
    assert (
        'id="zero"' in text
        and 'id="corpus"' not in text
        and "starts from runs/first and learns" in page.text
    )
    # the settings of r1 have a model and its pre-training also where neither is used
    model = "[model]\nnum_hidden_layers = 4\nn_routed_experts = 8\nnum_experts_per_tok = 2\n"
    (tmp_path / "config.toml").write_text(
        f'start = "models/open"\n[pretrain]\nlength = 8\n[rl]\nsteps = 8\n{model}'
    )
    text, page = report_of(tmp_path)
    assert 'id="zero"' in text and 'id="base"' not in text and 'id="corpus"' not in text
    assert "starts from models/open and learns" in page.text and "routed experts" not in page.text


def test_quick_runs_say_that_they_prove_nothing(tmp_path):
    _, page = report_of(make_run(tmp_path / "quick", 5, 5, quick=True))
    assert page.text.count("prove nothing") == 2  # at the top, and under what this does not show


def test_text_from_files_is_only_ever_text(tmp_path):
    evil = "</pre></div><script>alert(1)</script><img src=x onerror='alert(2)'>\" onmouseover=\"alert(3) &amp; \ud800"
    folder = make_run(tmp_path / "<b>evil", 20, 10, status="<i onload=x>")
    sample = {"prompt": evil, "completion": evil, "verdict": evil, "value": evil, "length": evil}
    write_lines(
        folder / "samples.jsonl",
        [{"stage": "base", "step": 1, **sample}, {"stage": "zero", "step": 9, **sample}],
    )
    split = {
        **evaluation(0.5, "zero", 5),
        "decomposition": {"parts": {evil: 0.4, "x": evil}, "sentence": evil},
    }
    hostile = {
        **evaluation(0.9, "zero", 10),
        "label": evil,
        "task": evil,
        "temperature": 1.0,
        "by_kind": {evil: [0.5, 10], "x": evil},
    }
    write_lines(
        folder / "evaluations.jsonl",
        [{**evaluation(0, "base", 0), "label": evil, "by_kind": {evil: [0.1, 9]}}, split, hostile],
    )
    (folder / "corpus.json").write_text(
        json.dumps(
            {
                "title": evil,
                "paragraphs": [evil],
                "shares": {evil: 0.5, "x": evil},
                "samples": [evil],
            }
        )
    )
    (folder / "run.json").write_text(
        json.dumps({"command": evil, "machine": evil, "seed": evil, "status": evil})
    )
    text, page = report_of(folder)
    assert text.count("<script") == 1 and "img" not in page.tags
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert page.text.count("alert(1)") >= 8  # shown, not run


@pytest.mark.parametrize(
    "junk",
    [
        "text",
        None,
        [],
        {},
        [[1]],
        {"4": "x"},
        float("nan"),
        -1,
        1e300,
        pytest.param(10**400, id="huge"),
    ],
)
def test_values_of_the_wrong_kind_do_not_stop_a_report(tmp_path, junk):
    names = set(evaluation(0, "base", 0)) - {"stage"}
    records = [
        {**evaluation(0.5, stage, 3), name: junk}
        for name in sorted(names)
        for stage in ("base", "zero")
    ]
    write_lines(tmp_path / "evaluations.jsonl", records)
    write_lines(
        tmp_path / "samples.jsonl",
        [{"stage": s, "step": junk, "prompt": junk, "completion": junk} for s in ("base", "zero")],
    )
    write_lines(
        tmp_path / "metrics.jsonl",
        [{"stage": "zero", "step": 1, "accuracy": junk, "expert_load": junk, "time": junk}],
    )
    (tmp_path / "corpus.json").write_text(
        json.dumps({"title": junk, "paragraphs": junk, "shares": junk, "samples": junk})
    )
    report_of(tmp_path)


def test_damaged_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere is not a folder"):
        write_report(tmp_path / "nowhere")
    for name in ("config.toml", "run.json"):
        (tmp_path / name).write_text("{[")
        with pytest.raises(ValueError, match=name):
            write_report(tmp_path)
        (tmp_path / name).unlink()


def test_values_that_are_not_finite_are_counted(tmp_path):
    tracker = JsonlTracker(tmp_path / "metrics.jsonl")
    tracker.log("zero", 1, {"kl": float("nan"), "entropy": float("inf"), "accuracy": 0.5})
    assert "2 logged values were not finite" in report_of(tmp_path)[1].text


def test_before_and_after_are_compared_like_with_like(tmp_path):
    small = {**evaluation(0.0, "base", 0), "problems": 50}
    cold = {**evaluation(0.3, "base", 0), "temperature": 0.6, "problems": 900}
    last_cold = {**evaluation(1.0, "zero", 40), "temperature": 0.6}
    records = [
        small,
        cold,
        evaluation(0.0, "base", 0),
        evaluation(0.5, "zero", 20),
        evaluation(0.9, "zero", 40),
        last_cold,
    ]
    write_lines(tmp_path / "evaluations.jsonl", records)
    run = read_run(tmp_path)
    assert run.before == records[2] and run.after == records[4]


def test_of_a_repeated_step_the_last_record_counts(tmp_path):
    tracker = JsonlTracker(tmp_path / "metrics.jsonl")
    for step, value in ((1, 0.1), (3, 0.3), (2, 0.9), (2, 0.2)):
        tracker.log("zero", step, {"accuracy": value})
    assert read_run(tmp_path).series("zero", "accuracy") == [(1, 0.1), (2, 0.2), (3, 0.3)]


def test_thinning_keeps_spikes_ends_and_order():
    points = [(step, 1.0) for step in range(5000)]
    points[1234], points[3210] = (1234, 9.0), (3210, -9.0)
    kept = thin(points, 200)
    assert (
        len(kept) <= 200
        and points[1234] in kept
        and points[3210] in kept
        and kept[-1] == points[-1]
    )
    assert kept == sorted(kept)
    assert thin(points[:50], 200) == points[:50]


def test_ticks_are_round_few_and_enclose():
    for low, high in (
        (0, 1),
        (0, 0.0003),
        (0.97, 1.003),
        (-3, 40),
        (12345, 98765),
        (0, 7e9),
        (5, 5),
    ):
        ticks = nice_ticks(low, high)
        assert (
            2 <= len(ticks) <= 6 and ticks[0] <= low + 1e-9 and ticks[-1] >= high - 1e-9 * abs(high)
        )


def test_moving_average_looks_back_only():
    assert moving_average([(1, 1.0), (2, 3.0), (3, 5.0)], 2) == [(1, 1.0), (2, 2.0), (3, 4.0)]


def test_figures_are_written_with_care():
    assert percent_with_error(0.7236, 0.018) == "72.4\u00a0±\u00a01.8%"
    assert (
        percent_with_error(0.5, None) == "50.0%"
        and percent_with_error(None, None) == "not measured"
    )
    assert percent_with_error(0.0, 0.0, interval=(0.0, 0.037)) == "0.0% (95%:\u00a00.0–3.7%)"
    assert percent_with_error(1.0, None, interval=(0.72, 1.0)) == "100.0% (95%:\u00a072.0–100.0%)"
    assert percent_with_error(0.5, 0.1, interval=(0.3, 0.7)) == "50.0\u00a0±\u00a010.0%"
    assert [count(n) for n in (1886, 6.29e6, 671e9)] == ["1,886", "6.29 M", "671 B"]
    assert [compact(x) for x in (0, 0.0213, 4e-4, 1e-5, -2.5, 12345.6)] == [
        "0",
        "0.0213",
        "4\u00a0×\u00a010⁻⁴",
        "10⁻⁵",
        "\u22122.5",
        "12,346",
    ]
    assert [duration(s) for s in (3.14, 48, 312, 11040)] == [
        "3.1 s",
        "48 s",
        "5 min 12 s",
        "3 h 4 min",
    ]


def test_a_curve_without_points_is_no_figure():
    assert plot("empty", [Line("nothing", [])]) == ""
    Balance(
        plot(
            "one point",
            [Line("a", [(1, 0.5)]), Line("b", [(1, 0.5)], style="dots", errors=[0.1])],
            unit="fraction",
        )
    )
    Balance(plot("constant", [Line("a", [(1, 0.0), (2, 0.0)])], log=True))


def test_reports_load_neither_torch_nor_matplotlib():
    code = "import sys, deepwright.report; print(sorted({'torch', 'matplotlib', 'numpy'} & set(sys.modules)))"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )
