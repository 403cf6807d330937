"""The parts of a report about the whole recipe, read back from the page and compared with the records of an invented run, or worked out by hand."""

import html
import json
import re

import pytest

from deepwright.report import curves, samples, stages, write_report
from deepwright.report.charts import HEIGHT
from deepwright.report.identity import describe
from deepwright.report.records import STAGES, read_run
from deepwright.report.result import headline
from deepwright.report.scaling import vote_curves
from deepwright.report.stages import BENCHMARKS, COMPARISONS, PUBLISHED, Comparison
from tests.report.fabricated import DROPPED, RECIPE, evaluation, make_recipe, make_run, write_lines
from tests.report.test_report import report_of

SEEN, UNSEEN, OPPOSITE = (
    "This run goes the published way.",
    "within two standard errors",
    "this run goes the other way",
)


def cells_of(text):
    """Rows of plain text of the first table."""
    rows = re.findall("<tr>(.*?)</tr>", text.split("<table>")[1].split("</table>")[0])
    return [
        [
            html.unescape(re.sub("<.*?>", "", cell)).replace("\u00a0", " ")
            for cell in re.findall("<t[hd].*?>(.*?)</t[hd]>", row)
        ]
        for row in rows
    ]


def said_of(run):
    return {
        lead: " ".join(sentences).replace("\u00a0", " ") for lead, sentences in stages.findings(run)
    }


def two(new, old, name="pass_at_1"):
    """A run of two stages, (stage, share, error) each."""
    return [
        {**evaluation(0.5, stage, 9), name: share, f"{name}_se": error}
        for stage, share, error in (new, old)
    ]


def test_the_table_has_every_stage_in_the_order_of_the_recipe(tmp_path):
    run = read_run(make_recipe(tmp_path / "run"))
    head, *rows = cells_of(stages.recipe(run))
    assert head == [
        "stage",
        "pass@1",
        "T=0.6",
        "greedy",
        "format",
        "one language",
        "length",
        "requests",
    ]
    assert stages.stage_table(run)[0] == [*head, "win rate over Dev3", "training"]
    assert [row[0].split()[-1] for row in rows] == list(STAGES)
    for row, stage in zip(rows[2:], RECIPE, strict=True):
        share, last, language, general = RECIPE[stage]
        full = evaluation(share, stage, last)
        figure = f"{100 * full['pass_at_1']:.1f} ± {100 * full['pass_at_1_se']:.1f}%"
        wins, spent = (
            ("84.0 ± 2.0%" if stage == "align" else ""),
            (f"{0.5 * last:.0f} s" if last > 20 else "10 s" if last else ""),
        )
        expected = [figure, "", figure, f"{100 * full['format_rate']:.1f}%", f"{100 * language:.1f}%", f"{full['mean_length']:.3g}",
                    f"{100 * general:.1f} ± 1.5%"]  # fmt: skip
        assert row[1:] == expected
        told = next(cells for cells in stages.stage_table(run)[1] if cells[0] == stage)
        assert [cell.replace("\u00a0", " ") for cell in told[-2:]] == [wins, spent]


def test_the_last_evaluation_of_a_stage_counts(tmp_path):
    write_lines(tmp_path / "evaluations.jsonl", two(("align", 0.9, 0.02), ("align", 0.4, 0.01)))
    assert cells_of(stages.recipe(read_run(tmp_path)))[1][1] == "40.0 ± 1.0%"


def test_columns_without_a_figure_are_left_out(tmp_path):
    write_lines(tmp_path / "evaluations.jsonl", two(("align", 0.4, 0.01), ("finetune", 0.3, 0.01)))
    assert cells_of(stages.recipe(read_run(tmp_path)))[0] == ["stage", "pass@1", "format", "length"]


def test_published_figures_of_the_stages_that_this_run_has(tmp_path):
    """R1 (arXiv 2501.12948, second version), table 3."""
    write_lines(
        tmp_path / "evaluations.jsonl", two(("reasoning_rl", 0.4, 0.01), ("cold_start", 0.3, 0.01))
    )
    head, *rows = cells_of(stages.recipe(read_run(tmp_path)).split("<h3>Published")[1])
    assert head[1:] == ["AIME 2024", "MATH-500", "LiveCodeBench", "IF-Eval", "AlpacaEval 2"]
    assert [row[1:] for row in rows] == [
        ["59.0", "94.2", "57.5", "71.7", "50.1"],
        ["74.0", "95.9", "63.5", "72.0", "55.8"],
    ]


@pytest.mark.parametrize(
    "change, error, word",
    [
        (0.11, 0.04, SEEN),
        (0.09, 0.04, UNSEEN),
        (-0.09, 0.04, UNSEEN),
        (-0.11, 0.04, OPPOSITE),
        (0.01, None, SEEN),
        (-0.01, None, OPPOSITE),
    ],
)
def test_a_verdict_by_hand(change, error, word):
    """0.03 and 0.04 make 0.05: two standard errors are 10 points. Without errors the sign decides, and the sentence says so."""
    one = Comparison("", "align", "zero", benchmark="AIME 2024")
    said = " ".join(stages.verdict(one, (0.5 + change, 0.03), (0.5, error)))
    assert word in said and sum(other in said for other in (SEEN, UNSEEN, OPPOSITE)) == 1
    points = f"{100 * change:+.1f}".replace("-", "\u2212")
    assert said.startswith(
        f"The difference is {points}" + ("\u00a0±\u00a05.0 points." if error else " points.")
    )
    assert ("error is not known" in said) == (
        error is None
    ) and "Published for AIME 2024: 79.8 against 77.9%." in said


def test_no_chance_difference_is_a_finding():
    assert UNSEEN in stages.verdict(COMPARISONS[0], (0.58, 0.03), (0.5, 0.04))[-1]


def test_errors_add_in_squares():
    assert "± 5.0 points" in stages.verdict(COMPARISONS[0], (0.6, 0.03), (0.5, 0.04))[0].replace(
        "\u00a0", " "
    )


def test_no_change_is_no_direction():
    assert (
        UNSEEN in " ".join(stages.verdict(COMPARISONS[0], (0.0, 0.0), (0.0, 0.0)))
        and UNSEEN in stages.verdict(COMPARISONS[0], (0.2, None), (0.2, None))[-1]
    )


def test_a_lower_published_figure_is_a_direction_too():
    fallen = Comparison("", "cold_start", "zero", benchmark="AIME 2024")  # 59.0 against 77.9
    assert (
        SEEN in stages.verdict(fallen, (0.3, 0.01), (0.6, 0.01))
        and OPPOSITE in stages.verdict(fallen, (0.6, 0.01), (0.3, 0.01))[-1]
    )


def test_every_comparison_with_a_benchmark_has_two_different_published_figures():
    for one in COMPARISONS:
        if one.benchmark:
            new, old = (
                PUBLISHED[stage][BENCHMARKS.index(one.benchmark)] for stage in (one.new, one.old)
            )
            assert new and old and new != old


def test_what_a_whole_run_says(tmp_path):
    said = said_of(read_run(make_recipe(tmp_path / "run")))
    assert len(said) == 8
    cold = said["What a cold start before reinforcement learning does:"]
    assert (
        "Published for AIME 2024: 74.0 against 77.9%." in cold
        and "Steps of reinforcement learning: 40 and 20." in cold
    )
    assert SEEN in said["What reinforcement learning alone does:"]
    assert (
        "99.0% against 87.0%" in said["What the language reward does:"]
        and "as published" in said["What the language reward does:"]
    )
    assert (
        UNSEEN in said["What alignment does to reasoning:"]
        and "Reasoning is kept, as far" in said["What alignment does to reasoning:"]
    )
    assert "in 84.0 ± 2.0% of comparisons" in said["What alignment does to general answers:"]
    assert "+34.0 ± 2.0 points" in said["What alignment does to general answers:"]
    # 50 and 20 steps of half a second
    way = said["Which way of making a small model reason is better:"]
    assert "Being taught took 25 s and reinforcement learning alone 10 s." in way


@pytest.mark.parametrize(
    "new, old, words",
    [(0.3, 0.6, "Reasoning is not kept."), (0.6, 0.3, "Reasoning is kept, and rises.")],
)
def test_lost_reasoning_is_said(tmp_path, new, old, words):
    write_lines(tmp_path / "evaluations.jsonl", two(("align", new, 0.02), ("finetune", old, 0.02)))
    assert words in said_of(read_run(tmp_path))["What alignment does to reasoning:"]


def test_more_mixing_with_the_reward_is_said(tmp_path):
    lines = two(
        ("reasoning_rl", 0.5, None), ("without_language_reward", 0.9, None), "language_consistency"
    )
    write_lines(tmp_path / "evaluations.jsonl", lines)
    assert (
        "with the reward thoughts mix languages more"
        in said_of(read_run(tmp_path))["What the language reward does:"]
    )


def test_preferred_less_than_half_the_time_is_the_other_way(tmp_path):
    (tmp_path / "run.json").write_text(
        json.dumps({"win_rate": {"after": 0.4, "standard_error": 0.01}})
    )
    assert OPPOSITE in said_of(read_run(tmp_path))["What alignment does to general answers:"]


def test_samples_kept_and_dropped(tmp_path):
    """Every count and share stands in its place, with a bar as wide; kept first, then the most frequent reason."""
    text = samples.kept(read_run(make_recipe(tmp_path / "run")))
    head, *rows = cells_of(text)
    assert head == [
        "",
        "cold start, from R1-Zero",
        "fine-tuning, reasoning",
        "fine-tuning, general requests",
    ]
    assert [row[0] for row in rows[:3]] == ["kept", "wrong", "turned down by the judge"] and rows[
        -1
    ] == ["all", "100", "200", "100"]
    for why, *shown in rows[:-1]:
        counts = [(DROPPED[place].get(why, 0), sum(DROPPED[place].values())) for place in DROPPED]
        assert shown == [f"{n} ({100 * n / total:.1f}%)" if n else "" for n, total in counts]
    assert '<s class="c3" style="width:45.0%"></s></div>90 (45.0%)' in text


def test_one_problem_by_every_stage(tmp_path):
    """First the problem that most stages answered; the last step of a stage counts; training samples do not."""

    def record(stage, step, prompt, completion, split="held_out"):
        return {
            "stage": stage,
            "step": step,
            "split": split,
            "prompt": prompt,
            "completion": completion,
            "verdict": "wrong",
            "length": 3,
        }

    asked = [record("zero", 5, "rare", "x"), *(record(stage, 9, "common", f"by {stage}") for stage in reversed(STAGES)),
               record("align", 12, "common", "at last"), record("align", 13, "common", "trained", "train")]  # fmt: skip
    write_lines(tmp_path / "samples.jsonl", asked)
    write_lines(tmp_path / "evaluations.jsonl", [evaluation(0.5, "align", 12)])
    shown = re.sub("<.*?>", "", samples.across(read_run(tmp_path)).replace("</pre>", "\n")).split(
        "More problems"
    )
    expected = [f"by {stage}" if stage != "align" else "at last" for stage in STAGES]
    assert (
        re.findall(r"(?<=wrong)by \w+|at last", shown[0]) == expected
        and "trained" not in shown[0]
        and "rare" in shown[1]
    )


def test_curves_start_at_the_model_that_a_stage_starts_from(tmp_path):
    """Both runs of reasoning have their first dot at step 0, at the cold start's figure, and the last one at their own."""
    run = read_run(make_recipe(tmp_path / "run"))
    figure = next(
        f
        for f in re.findall("<figure.*?</figure>", curves.later(run))
        if "<b>One language</b>" in f
    )
    low, high = map(float, re.search('data-y="(.*?),(.*?)"', figure).groups())
    for colour, stage in ((1, "reasoning_rl"), (6, "without_language_reward")):
        dots = [
            (int(x), low + (high - low) * (1 - int(y) / HEIGHT))
            for x, y in re.findall(rf'"dot c{colour}" d="M(\d+),(\d+)h0"', figure)
        ]
        assert [x for x, _ in dots] == [0, 500, 1000]
        assert [y for _, y in dots] == pytest.approx(
            [RECIPE["cold_start"][2], RECIPE[stage][2], RECIPE[stage][2]], abs=1 / HEIGHT
        )


def test_win_rate_goes_from_half_to_what_the_run_ended_with(tmp_path):
    figure = next(
        f
        for f in re.findall(
            "<figure.*?</figure>", curves.later(read_run(make_recipe(tmp_path / "run")))
        )
        if "Win rate" in f
    )
    assert re.findall(r"step (\d+): ([\d.]+)%", figure) == [
        ("0", "50.0"),
        ("10", "70.0"),
        ("20", "84.0"),
    ]
    assert "step 20: 84.0% ± 2.0%" in figure.replace("\u00a0", " ")


def test_every_stage_has_its_curves(tmp_path):
    run = read_run(make_recipe(tmp_path / "run"))
    titles = [
        html.unescape(title) for title in re.findall("<figcaption><b>(.*?)</b>", curves.later(run))
    ]
    assert titles == ["Accuracy", "One language", "Answer length", "Reward and its parts", "Win rate over the model before",
                      "Accuracy on the run's problems", "Accuracy", "Answer length", "Loss of fine-tuning", "Pairs and labels judged right"]  # fmt: skip


def test_the_last_stage_votes_too(tmp_path):
    assert list(vote_curves(read_run(make_recipe(tmp_path / "run")))) == [
        "base",
        "zero, step 20",
        "align, step 20",
    ]


def test_the_rise_of_zero_stays_that_of_zero(tmp_path):
    """Neither general requests, of which there are more, nor students and later stages are taken for R1-Zero's before and after."""
    short = read_run(make_run(tmp_path / "short", 40, 20))
    whole = read_run(make_recipe(tmp_path / "whole"))
    last = {
        "stage": "align",
        "step": 20,
        "label": "align",
        "decomposition": {"parts": {"x": 1.0}, "sentence": "of another stage"},
    }
    whole.evaluations.append(last)
    assert (whole.before, whole.after, whole.decomposition) == (
        short.before,
        short.after,
        short.decomposition,
    )
    assert "R1-Zero on held-out problems" in headline(
        whole
    ) and "Result on held-out problems" in headline(short)


def test_a_run_that_stops_at_zero_has_none_of_it(tmp_path):
    run = read_run(make_run(tmp_path / "run", 20, 10))
    assert (stages.recipe(run), curves.later(run), samples.kept(run), samples.across(run)) == (
        "",
        "",
        "",
        "",
    )
    text, _ = report_of(tmp_path / "run")
    assert not re.search('id="(recipe|later|kept|across)"|#(recipe|later|kept|across)"', text)


def test_a_whole_run_is_one_page(tmp_path):
    text, page = report_of(make_recipe(tmp_path / "run"))
    assert "Not yet" not in page.text and len(text) < 1_500_000
    links = re.findall('<a href="#(.*?)">', text.split("<nav>")[1].split("</nav>")[0])
    assert (
        links[0] == "recipe"
        and {"across", "later", "kept"} < set(links)
        and all(f'<section id="{link}">' in text for link in links)
    )


@pytest.mark.parametrize(
    "junk", ["text", None, [], {}, [[1]], float("nan"), -1, 1e300, pytest.param(10**400, id="huge")]
)
def test_values_of_the_wrong_kind_do_not_stop_it(tmp_path, junk):
    names = set(evaluation(0, "base", 0)) - {"stage"}
    lines = [
        evaluation(0.5, "align", 1),
        *({**evaluation(0.5, stage, 3), name: junk} for stage in STAGES for name in sorted(names)),
    ]
    write_lines(tmp_path / "evaluations.jsonl", lines)
    write_lines(
        tmp_path / "samples.jsonl",
        [{"stage": s, "step": junk, "prompt": junk, "completion": junk} for s in STAGES],
    )
    write_lines(
        tmp_path / "metrics.jsonl",
        [
            {"stage": s, "step": 1, "reward": 1, "win_rate": junk, "step_seconds": junk}
            for s in STAGES
        ],
    )
    facts = {"win_rate": junk}
    for place in DROPPED:
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "dropped.json").write_text(json.dumps({"kept": junk, "wrong": 3}))
    for win in (junk, {"after": junk, "standard_error": junk}):
        (tmp_path / "run.json").write_text(json.dumps(facts | {"win_rate": win}))
        report_of(tmp_path)


def test_text_from_files_is_only_ever_text(tmp_path):
    evil = '</script><img src=x onerror=alert(1)>"'
    folder = make_recipe(tmp_path / "run")
    (folder / "cold_start" / "dropped.json").write_text(json.dumps({evil: 3}))
    write_lines(
        folder / "samples.jsonl",
        [{"stage": s, "prompt": evil, "completion": evil, "verdict": evil} for s in STAGES],
    )
    write_lines(
        folder / "evaluations.jsonl",
        [
            {**evaluation(0.5, s, 1), "label": f"{s}{end}"}
            for s in STAGES
            for end in ("", f" {evil}")
        ],
    )
    text, page = report_of(folder)
    assert (
        "img" not in page.tags and text.count("<script") == 1 and page.text.count("alert(1)") >= 12
    )


def test_a_damaged_count_is_named(tmp_path):
    (tmp_path / "cold_start").mkdir()
    (tmp_path / "cold_start" / "dropped.json").write_text("{[")
    with pytest.raises(ValueError, match=r"cold_start/dropped\.json"):
        write_report(tmp_path)


def test_the_steps_of_every_stage_of_reinforcement_learning_are_counted(tmp_path):
    run = read_run(make_recipe(tmp_path / "run"))
    assert describe(run).endswith(
        "and 140 steps of reinforcement learning. The later stages of R1 follow."
    )  # 20, 40, 40, 20, 20
