"""The generated corpus: training problems only, every equation true, the shares that its knobs say."""

import re
from collections import Counter
from dataclasses import replace

import pytest

from deepwright.data import CountdownCorpus
from deepwright.tasks import Problem, Verdict, make_task, self_checks
from deepwright.tasks.countdown import read_prompt
from deepwright.text import number_tokenizer

TASK = make_task("countdown", seed=1)
CORPUS = CountdownCorpus(TASK, seed=5)
TOKENIZER = number_tokenizer(TASK.tokenizer_words(), TASK.largest_number)
N = 20_000
DOCUMENTS = [CORPUS.labelled(i) for i in range(N)]
PROMPTED = [
    (kind, *re.match(r"(nums .*? make \d+ :) (.*)$", text).groups())
    for kind, text in DOCUMENTS
    if kind != "facts"
]


def near(share, wanted, n):
    """Five standard deviations of a share counted over n independent items: a chance of 6e-7 to fail wrongly."""
    return abs(share - wanted) <= 5 * (wanted * (1 - wanted) / n) ** 0.5


def test_held_out_problems_never_occur():
    held_out = {(puzzle.numbers, puzzle.target) for puzzle in TASK.puzzles["held_out"]}
    seen = set()
    for _, prompt, _ in PROMPTED:
        numbers, target = read_prompt(prompt)
        seen.add((tuple(sorted(numbers)), target))
    assert not seen & held_out and len(seen) > 0.99 * TASK.size("train")


def test_every_equation_is_true_and_every_fact_is_seen():
    facts = Counter()
    for kind, text in DOCUMENTS:
        found = re.findall(r"\d+ [-+*] \d+ = \d+", text)
        facts.update(found if kind == "facts" else [])
        assert all(
            right for check in self_checks(text) for right in check.equations_right
        ) and text.count("=") == len(found)
    assert set(facts) == set(TASK.equations)  # about 15 times each in this sample
    assert all(
        eval(left) == int(right) for left, right in (fact.split(" = ") for fact in TASK.equations)
    )


def test_marks_are_true_and_no_searcher_repeats_an_attempt():
    for kind, prompt, rest in PROMPTED:
        target = read_prompt(prompt)[1]
        checks = [check for check in self_checks(rest) if check.word]
        assert all((check.word == "yes") == (check.value == target) for check in checks)
        if kind == "searchers":
            thought = re.match(r"(?:<think> )?(.*(?:wait|yes))", rest)[1]
            attempts = re.split(r" (?:wait|yes) ?", thought)[:-1]
            assert len({unordered(attempt) for attempt in attempts}) == len(attempts) <= 14
            assert [check.word for check in checks[:-1]] == ["wait"] * (len(checks) - 1)


def unordered(attempt):
    """An attempt with the operands of + and * sorted."""
    return re.sub(
        r"(\d+) ([+*]) (\d+)", lambda m: f"{min(m[1], m[3])} {m[2]} {max(m[1], m[3])}", attempt
    )


def test_shares_are_those_of_the_knobs():
    counts = Counter(kind for kind, _ in DOCUMENTS)
    rest = N - counts["facts"]
    assert near(counts["facts"] / N, 0.12, N) and near(counts["exercises"] / rest, 0.15, rest)
    answered = rest - counts["exercises"]
    for kind, share in (("direct", 0.30), ("single", 0.25), ("searchers", 0.45)):
        assert near(counts[kind] / answered, share, answered)
    scores = [
        TASK.score(Problem(0, prompt, "", ""), text)
        for kind, prompt, text in PROMPTED
        if kind != "exercises"
    ]
    shaped = sum(score.verdict is not Verdict.MALFORMED for score in scores) / answered
    assert near(
        shaped, 0.60 * (1 - 0.30 * 0.25), answered
    )  # in the tags, less the direct ones that do not think
    assert (
        0.4 < shaped * answered / rest < 0.55
    )  # about half of what follows a prompt has the right format
    assert sum(score.verdict is Verdict.CORRECT for score in scores) / rest < 0.15


def test_half_of_the_marked_exercises_are_right():
    words = Counter(
        check.word
        for kind, _, rest in PROMPTED
        if kind == "exercises"
        for check in self_checks(rest)
    )
    assert set(words) == {"yes", "wait"} and near(words["yes"] / words.total(), 0.5, words.total())


def test_every_document_is_in_the_vocabulary_and_fits_a_row():
    assert max(len(TOKENIZER.encode(text)) + 2 for _, text in DOCUMENTS) <= 256


def test_documents_are_functions_of_seed_and_place():
    again = CountdownCorpus(make_task("countdown", seed=1), seed=5)
    assert [again.document(i) for i in (0, 999, 31)] == [DOCUMENTS[i][1] for i in (0, 999, 31)]
    assert CountdownCorpus(TASK, seed=6).document(0) != CORPUS.document(0)


def test_short_exercises_have_one_equation_and_mixed_authors_take_words_of_both_languages():
    both = replace(CORPUS, task=make_task("countdown", seed=1, languages=["en", "zh"]))
    for mixed, low, high in ((0.0, 0.0, 0.0), (0.5, 0.1, 0.4)):
        documents = [replace(both, mixed=mixed).document(i) for i in range(1000)]
        share = (
            sum(
                any(w in d for w in ("等等", "对")) and any(w in d for w in ("wait", "yes"))
                for d in documents
            )
            / 1000
        )
        assert low <= share <= high
    assert (
        0.4
        < sum("得" in d for d in documents) / sum("得" in d or "make" in d for d in documents)
        < 0.6
    )
    short = replace(CORPUS, facts=0.0, exercises=1.0, short_exercises=1.0)
    assert all(
        len(check.equations_right) == 1
        for i in range(200)
        for check in self_checks(short.document(i))
    )


def test_heuristic_searchers_need_fewer_attempts():
    def attempts(heuristic):
        corpus = replace(
            CORPUS,
            facts=0.0,
            exercises=0.0,
            direct=0.0,
            single=0.0,
            searchers=1.0,
            heuristic=heuristic,
            give_up=(0.0,),
        )
        return (
            sum(len([c for c in self_checks(corpus.document(i)) if c.word]) for i in range(1000))
            / 1000
        )

    assert attempts(1.0) < 0.8 * attempts(0.0)


@pytest.mark.parametrize("count", [2, 4])
def test_other_difficulties_have_a_corpus_too(count):
    task = make_task("countdown", count=count, largest=5, held_out=10)
    corpus = CountdownCorpus(task)
    tokenizer = number_tokenizer(task.tokenizer_words(), task.largest_number)
    for i in range(300):
        assert all(
            right for check in self_checks(corpus.document(i)) for right in check.equations_right
        )
        tokenizer.encode(corpus.document(i))


@pytest.mark.parametrize(
    "knobs, said",
    [
        ({"direct": 0.5}, "expected 1"),
        ({"tagged": 1.5}, "tagged is 1.5"),
        ({"facts_per_document": (3, 1)}, "facts_per_document is"),
        ({"give_up": ()}, "give_up"),
    ],
)
def test_bad_knobs_are_one_sentence(knobs, said):
    with pytest.raises(ValueError, match=said):
        CountdownCorpus(TASK, **knobs)
