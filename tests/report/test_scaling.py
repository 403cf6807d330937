"""The two charts of inference-time scaling, read back from their SVG and compared with the records; and where they must not appear."""

import math
import re

import pytest

from deepwright.report import write_report
from deepwright.report.charts import HEIGHT, WIDTH
from deepwright.report.records import by_count, read_run
from deepwright.report.scaling import scaling
from tests.report.fabricated import evaluation, make_run, write_lines
from tests.report.test_report import Balance, report_of

THINKING = {
    "base": {16: (0.05, 0.01), 32: (0.08, 0.012), 128: (0.09, None)},
    "zero": {16: (0.1, 0.02), 64: (0.5, 0.03), 128: (0.75, 0.02)},
}


def records(points=THINKING, step=40):
    """Evaluations under budgets, largest budget first, each once with a wrong figure before the one that counts."""
    for stage, found in points.items():
        for budget in sorted(found, reverse=True):
            for value in ((0.99, 0.001), found[budget]):
                one = {
                    **evaluation(0.5, stage, step if stage == "zero" else 0),
                    "label": f"{stage} budget={budget}",
                }
                yield one | {"pass_at_1": value[0], "pass_at_1_se": value[1]}


def run_of(folder, *lines):
    write_lines(folder / "evaluations.jsonl", list(lines))
    return read_run(folder)


def charts_of(html):
    """[(title, its colour-to-name legend, its figure)] of a section."""
    figures = re.findall(r"<figure.*?</figure>", html, re.DOTALL)
    return [
        (
            re.search("<b>(.*?)</b>", f)[1],
            dict(re.findall(r'<u class="line (c\d)"></u>(.*?)</li>', f)),
            f,
        )
        for f in figures
    ]


def drawn(figure, colour):
    """[(across, value, low, high)] of the dots of a colour, as shares of the box without its margins of 2%; no error bar: low and high are None."""
    bars = {
        int(x): (int(low), int(high))
        for x, low, high in re.findall(rf'"error {colour}" d="M(\d+),(\d+)V(\d+)M', figure)
    }
    found = [
        tuple(map(int, dot)) for dot in re.findall(rf'"dot {colour}" d="M(\d+),(\d+)h0"', figure)
    ]
    return [
        (
            (x / WIDTH - 0.02) / 0.96,
            1 - y / HEIGHT,
            *(1 - bar / HEIGHT if bar else None for bar in bars.get(x, (0, 0))),
        )
        for x, y in found
    ]


def test_accuracy_against_budget(tmp_path):
    """Every point and error bar stands where the figures say, on a log2 axis."""
    (title, names, figure) = charts_of(scaling(run_of(tmp_path, *records())))[0]
    assert title == "Accuracy against thinking budget" and sorted(names.values()) == [
        "base",
        "zero, step 40",
    ]
    top = 0.8  # the highest bar ends at 0.77
    assert re.findall(r'bottom:([\d.]+)%">([\d.]+)%', figure)[-1] == ("100.0", "80")
    for colour, name in names.items():
        expected = THINKING[name.split(",")[0]]
        points = drawn(figure, colour)
        assert [round(16 * 8**x) for x, *_ in points] == sorted(expected)
        for (x, value, low, high), (budget, (accuracy, error)) in zip(
            points, sorted(expected.items()), strict=True
        ):
            assert x == pytest.approx(math.log2(budget / 16) / 3, abs=0.5 / WIDTH)
            assert value == pytest.approx(accuracy / top, abs=0.6 / HEIGHT)
            assert (low is None) == (error is None)
            if error is not None:
                assert (low, high) == pytest.approx(
                    ((accuracy - error) / top, (accuracy + error) / top), abs=0.6 / HEIGHT
                )
        path = re.search(rf'"line {colour}" d="M(.*?)h0"', figure)[1].split("L")
        assert path == [
            f"{round((0.02 + 0.96 * x) * WIDTH)},{round((1 - value) * HEIGHT)}"
            for x, value, *_ in points
        ]
    marks = re.findall(r'left:([\d.]+)%">(\d+)</i>', figure)
    assert marks == [("2.00", "16"), ("34.00", "32"), ("66.00", "64"), ("98.00", "128")]
    assert "zero, step 40, 64 tokens of thought: 50.0\u00a0±\u00a03.0%" in figure


def test_accuracy_against_votes(tmp_path):
    """cons@k before and after, with pass@1 as the vote of one."""
    before, after = evaluation(0.0, "base", 0), evaluation(0.9, "zero", 40)
    ((title, names, figure),) = charts_of(scaling(run_of(tmp_path, before, after)))
    assert title == "Accuracy against number of votes" and names == {
        "c6": "base",
        "c1": "zero, step 40",
    }
    for colour, one in (("c6", before), ("c1", after)):
        wanted = [one["pass_at_1"], one["cons_at_k"]["4"], one["cons_at_k"]["16"]]
        points = drawn(figure, colour)
        assert [x for x, *_ in points] == [0, 0.5, 1]
        assert [value for _, value, *_ in points] == pytest.approx(wanted, abs=0.6 / HEIGHT)
        assert all(high > value > low for _, value, low, high in points)


def test_budgets_stay_out_of_the_headline(tmp_path):
    """Figures of shortened thoughts are not those of the model: neither before nor after, nor dots of the accuracy curve."""
    before, after = evaluation(0.0, "base", 0), evaluation(0.9, "zero", 40)
    wider = [{**one, "problems": 9000} for one in records()]
    run = run_of(tmp_path, *wider, before, after, *wider)
    assert run.before == before and run.after == after and run.held_out == [before, after]


def test_a_model_has_one_colour_in_both_charts(tmp_path):
    (_, thinking, _), (_, voting, _) = charts_of(
        scaling(run_of(tmp_path, *records(), evaluation(0, "base", 0), evaluation(1, "zero", 40)))
    )
    assert thinking == voting == {"c6": "base", "c1": "zero, step 40"}


def test_the_section_is_there_only_with_something_to_draw(tmp_path):
    plain = {**evaluation(0.0, "base", 0), "cons_at_k": {}}
    one_budget = [*records({"base": {16: (0.05, 0.01)}})]
    trained_on = [{**one, "split": "train"} for one in records()]
    for lines in (
        [],
        [plain],
        one_budget,
        trained_on,
        [{**one, "label": "base budget=0"} for one in records()],
    ):
        assert scaling(run_of(tmp_path, *lines)) == ""
        text, _ = report_of(tmp_path)
        assert '"scaling"' not in text and "#scaling" not in text
    text, page = report_of(make_run(tmp_path / "whole", 20, 20))
    assert (
        '<a href="#scaling">' in text
        and '<section id="scaling">' in text
        and "Inference-time scaling" in page.text
    )
    assert "thinking budget" not in text  # that run has none


def test_a_run_with_both_is_one_well_formed_page(tmp_path):
    folder = make_run(tmp_path / "run", 20, 40)
    with (folder / "evaluations.jsonl").open("a") as file:
        write_lines(tmp_path / "more", list(records()))
        file.write((tmp_path / "more").read_text())
    _, page = report_of(folder)
    # the second in the table of all evaluations
    assert "Accuracy against thinking budget" in page.text and "zero budget=64" in page.text
    assert re.search(r"went from 8.3.±.0.8% to (?!75)", page.text)


@pytest.mark.parametrize(
    "junk", ["text", None, [], {}, {"4": "x", "0": 0.5, "²": 0.5}, float("nan"), -1, 1e300]
)
def test_values_of_the_wrong_kind_do_not_stop_it(tmp_path, junk):
    lines = [
        {**one, name: junk}
        for one in [*records(), evaluation(0, "base", 0)]
        for name in ("label", "step", "pass_at_1", "pass_at_1_se")
    ]
    lines += [
        {**evaluation(0.5, stage, 0), name: junk}
        for stage in ("base", "zero")
        for name in ("cons_at_k", "cons_at_k_se", "pass_at_1")
    ]
    Balance(scaling(run_of(tmp_path, *lines)))
    write_report(tmp_path)


def test_labels_are_only_ever_text(tmp_path):
    evil = '<img src=x onerror=alert(1)>"'
    html = scaling(
        run_of(
            tmp_path,
            *(
                {**one, "label": f"{evil} budget={budget}"}
                for budget, one in enumerate(records(), 1)
            ),
        )
    )
    assert "img" not in Balance(html).tags and "onerror" in html


def test_names_of_votes_that_are_no_counts_are_left_out():
    odd = {"": 0.1, "x": 0.2, "0": 0.3, "9" * 5000: 0.4, "\u0663": 0.5, "4": 0.6, "16": 0.7}
    assert by_count({"cons_at_k": odd}, "cons_at_k") == {4: 0.6, 16: 0.7}
    assert by_count({"cons_at_k": [1]}, "cons_at_k") == by_count(None, "cons_at_k") == {}
