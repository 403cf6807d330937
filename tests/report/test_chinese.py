"""The Chinese page: nothing that the page says is without a translation, and what is looked up is what a reader sees."""

import json
import re

import pytest

from deepwright.evaluate.decomposition import Decomposition
from deepwright.metrics import GLOSSARY
from deepwright.recipe.journal import _CORPUS_TEXT
from deepwright.report import chinese as lookup
from deepwright.report.chinese import ENTRIES, SAID_BY_SCRIPT, chinese, texts, translations
from deepwright.report.comparison import comparison, names_of
from deepwright.report.page import page
from deepwright.report.records import read_run
from deepwright.tasks import Verdict
from tests.report.fabricated import make_recipe, make_run, write_lines
from tests.report.test_opening import make_alone
from tests.report.test_report import report_of

WORDS = re.compile("[A-Za-z]{2}")
CHINESE = re.compile("[\u4e00-\u9fff\uff08]")  # a letter, or the bracket of a text that has none
CARRIED_OVER = re.compile(
    r"pass@1|cons@\{0\}|cons|pass|R1-Zero|AIME 2024|MATH-500|LiveCodeBench|IF-Eval|AlpacaEval 2"
)


def strings_in(value):
    """Every text in a nested value, and the names of kinds and parts."""
    if isinstance(value, dict):
        named = [set(value[table]) for table in ("shares", "parts", "by_kind") if table in value]
        return set().union(*named, *map(strings_in, value.values()))
    return (
        set().union(*map(strings_in, value))
        if isinstance(value, list)
        else {value}
        if isinstance(value, str)
        else set()
    )


def data_of(run):
    """What the run's files say in their own words: it stays as it is."""
    return set().union(
        *map(strings_in, (run.config, run.facts, run.evaluations, run.samples, run.corpus))
    )


def body_of(run):
    return page(run, 1e9).split("<body")[1].split("<script>")[0]


HALF_DONE = re.compile(r"(?:\b[a-z]{2,} ){3}")  # three English words in a row


def half_translated(run):
    """Translations that carry over an English sentence: a pattern has swallowed one that no other knows."""
    said = {text: chinese(text) for text in texts(body_of(run))}
    return [
        text
        for text, own in said.items()
        if own and HALF_DONE.search(own) and text.strip() not in data_of(run)
    ]


def english_left(run):
    """Texts of a run's page that have no Chinese and are not the run's own words."""
    return [
        text
        for text in texts(body_of(run))
        if WORDS.search(text) and not chinese(text) and text.strip() not in data_of(run)
    ]


@pytest.mark.parametrize(
    "kind",
    [
        "whole",
        "zero",
        "quick and running",
        "first step",
        "before",
        "nothing",
        "started elsewhere",
        "not finite",
        "fine-tuning",
        "pre-training alone",
    ],
)
def test_every_text_of_a_page_has_a_translation(tmp_path, kind):
    folder = tmp_path / "run"
    folder.mkdir()
    if kind in ("whole", "not finite"):
        make_recipe(folder)
    if kind == "zero":
        make_run(folder, 200, 120)
    if kind == "quick and running":
        make_run(folder, 5, 5, quick=True, status="running")
    if kind in ("fine-tuning", "pre-training alone"):
        make_alone(folder, "sft" if kind == "fine-tuning" else "pretrain")
    if kind == "before":
        make_run(folder, 40, 0)
    if kind == "first step":
        write_lines(
            folder / "metrics.jsonl", [{"stage": "base", "step": 1, "loss": 4.8, "tokens": 4096}]
        )
    if kind == "started elsewhere":
        (folder / "config.toml").write_text('start = "runs/first"\n[rl]\nsteps = 8\n')
        (folder / "run.json").write_text(
            '{"parameters": 7, "active_parameters": 5, "model_type": "llama"}'
        )
    if kind == "not finite":
        with (folder / "metrics.jsonl").open("a") as file:
            bad = {
                "stage": "zero",
                "step": 20,
                "verifier_failures": 3,
                "kl": 0.1,
                "clip_fraction": 0.1,
                "not_finite": 2,
            }
            file.write(
                json.dumps(bad)
                + '\n{"stage": "base", "step": 40, "skipped_steps": 2, "expert_load": ['
                + f"{[1] * 70}"
                + "]}\n"
            )
    assert english_left(read_run(folder)) == []
    assert half_translated(read_run(folder)) == []


def test_what_a_reader_sees():
    """Text and labels alike; not code, names, and hints. So the check above can fail."""
    assert texts('<p>Brand new <b>words</b></p><svg aria-label="a chart"><path data-label="a curve"/></svg>') == [
        "Brand new ", "words", "a chart", "a curve",
    ]  # fmt: skip
    assert texts(
        '<pre>code <mark>wait</mark></pre><code>more</code><dd translate="no">a name</dd><title>a hint</title><i>seen</i>'
    ) == ["seen"]
    assert lookup.chinese("Brand new words.") is None


def test_every_metric_has_its_sentence_and_unit():
    assert [
        m.name
        for m in GLOSSARY.values()
        if not chinese(m.sentence) or (WORDS.search(m.unit) and not chinese(m.unit))
    ] == []


def test_what_other_parts_of_the_package_write_is_known():
    """The journal's text on the corpus, both forms of the sentence on the rise, verdicts."""
    paragraphs = _CORPUS_TEXT.replace("\n\n", "\0").replace("\n", " ").split("\0")
    rises = [
        Decomposition(before=0.1, after=0.5, format=0.1, guessing=0.1, searching=s)
        for s in (0.2, None)
    ]
    names = [name for rise in rises for name in rise.parts]
    assert [
        text
        for text in (
            *paragraphs,
            *names,
            *(rise.sentence for rise in rises),
            *(v.value for v in Verdict),
        )
        if not chinese(text)
    ] == []


def test_entries_are_chinese_and_have_the_gaps_of_their_keys():
    for entry, found in ENTRIES.items():
        assert CHINESE.search(found) or CARRIED_OVER.fullmatch(entry), entry
        assert sorted(re.findall(r"\{\d\}", entry)) == sorted(re.findall(r"\{\d\}", found)), entry
        assert "{0}" in entry or "{" not in entry, entry


@pytest.mark.parametrize(
    "text, expected",
    [
        ("Accuracy", "正确率"),
        ("step 12", "第 12 步"),
        ("12 tokens", "12 个词元"),
        ("zero, step 6", "zero，第 6 步"),
        ("Not yet: no step has been timed.", "尚无：还没有任何一步计时。"),
        (
            "It is one run. Only the held-out figures are results.",
            "这只是一次运行。只有留出题的数字才是结果。",
        ),
        ("1 min 16 s so far", "目前 1 分 16 秒"),
        ("+9.7 points", "+9.7 个百分点"),
        ("{0.__class__} tokens", "{0.__class__} 个词元"),  # what varies is never read as an entry
        ("", None),
        (" ", None),
    ],
)
def test_lookup_by_hand(text, expected):
    assert chinese(text) == expected


def test_lookup_of_the_closest_entry():
    assert lookup.chinese("Expert load, step 580") == "专家负载，第 580 步"


def test_a_text_is_translated_whole_or_not_at_all():
    assert lookup.chinese("It is one run. Nobody translated this.") is None


def test_blanks_around_a_text_stay():
    assert lookup.chinese("12 tokens ") == "12 个词元 "


def test_a_long_text_is_not_held_against_entries_with_gaps():
    assert chinese("a" * 5000 + " tokens") is None


def test_the_page_carries_its_words_and_no_text_breaks_out_of_its_script(tmp_path):
    evil = "</script><script>alert(1)</script>"
    folder = make_run(tmp_path / "run", 20, 20)
    lines = [json.loads(line) for line in (folder / "evaluations.jsonl").read_text().splitlines()]
    lines[1]["label"] = f"base {evil}"
    write_lines(folder / "evaluations.jsonl", lines)
    text, _ = report_of(folder)
    carried = json.loads(re.search("<script>var chinese = (.*);\n", text)[1])
    expected = translations(body_of(read_run(folder)))
    assert {text for text in carried if "UTC" not in text} == {
        text for text in expected if "UTC" not in text
    }
    assert set(SAID_BY_SCRIPT) <= set(carried) and any(evil in found for found in carried.values())
    assert text.count("<script") == 1 and text.count("</script>") == 1


def test_the_switch_names_both_languages_in_themselves(tmp_path):
    text, _ = report_of(make_run(tmp_path / "run", 5, 5))
    assert (
        '<html lang="en">' in text
        and '<a href="#en" lang="en" translate="no">English</a><a href="#zh" lang="zh" translate="no">中文</a>'
        in text
    )
    assert not re.search('id="(en|zh)"', text)  # a part of that name would be scrolled to


def test_every_text_of_a_comparison_has_a_translation(tmp_path):
    for kind in ("sft", "pretrain"):
        (tmp_path / kind).mkdir()
        make_alone(tmp_path / kind, kind)
    runs = [read_run(make_recipe(tmp_path / name)) for name in ("first", "second")]
    runs += [read_run(tmp_path / kind) for kind in ("sft", "pretrain")]
    for some in (runs, runs[:2]):
        body = comparison(some, 1e9).split("<body")[1].split("<script>")[0]
        own = set().union(*map(data_of, some), names_of(some))
        left = [text for text in texts(body) if WORDS.search(text) and not chinese(text)]
        assert [text for text in left if text.strip() not in own] == []
