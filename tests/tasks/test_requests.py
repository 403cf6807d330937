"""Requests in two languages: what the rules say of each style, pairs, splits; and languages: words apart, consistency, Countdown in both."""

from random import Random

import pytest

from deepwright.tasks import Verdict
from deepwright.tasks.attacks import report
from deepwright.tasks.countdown import Countdown, read_prompt
from deepwright.tasks.requests import (
    CLASS_OF,
    PEOPLE,
    STYLES,
    Request,
    Requests,
    answered,
    completed,
    helpful,
    preference,
    safe,
    written,
)
from deepwright.tasks.self_checks import self_checks
from deepwright.tasks.task import framed
from deepwright.text import number_tokenizer
from deepwright.text.languages import LANGUAGES, consistency, language_of

TASK = Requests()
GREET, NAME = Request("en", "greet", "ann"), Request("zh", "name", "fruits", 2)


@pytest.mark.parametrize(
    ("request_", "answer", "worth"),
    [
        (GREET, "hello ann how are you", 1.0),
        (GREET, "hello bob how are you", 0.75),  # another person
        (GREET, "ann", 0.75),  # not polite
        (GREET, "你好 ann 最近 可好", 0.75),  # the other language
        (GREET, "thanks ann", 0.75),  # polite, but not a greeting
        (GREET, "hello ann hello ann hello ann", 0.75),
        (GREET, "bob", 0.5),
        (GREET, "", 0.5),  # says nothing: of no language, and not long
        (NAME, "这里 有些 梨 和 苹果", 1.0),
        (NAME, "这里 有些 梨 和 梨", 0.75),  # one of two
        (NAME, "这里 有些 梨", 0.75),
        (NAME, "这里 有些 梨 和 猫", 0.75),
        (NAME, "here are some pear and apple", 0.75),
    ],
)
def test_the_four_rules(request_, answer, worth):
    assert helpful(request_, answer) == worth and safe(answer)


def undeserved(request: Request, best: str) -> dict[str, str]:
    """Answers in the layout of which each says more, or something else, than the best one does."""
    first, *rest = best.split()
    other = "ann" if request.what != "ann" else "bob"
    wrong = {
        "a name more": f"{best} {other}",
        "everybody": f"{first} {' '.join(PEOPLE)}",
        "a thing more": f"{best} {'cat' if request.what != 'animals' else 'plum'}",
        "everything": f"{first} {' '.join(CLASS_OF)}",
        "twice": f"{best} {best}",
        "the first word twice": f"{first} {best}",
        "joints": f"{best} and and",
        "one joint too many": f"{best} {LANGUAGES[request.language].joint}",
        "a number": f"{best} 7",
        "words of puzzles": f"{best} wait yes",
        "words of puzzles in Chinese": f"{best} 等等 对",
        "words of other requests": f"{best} {'some' if not request.count else 'kind'}",
        "both phrases": f"hello thanks here {best}",
        "words of nobody": f"{best} please",
        "glued": f"{best}.",
        "a null byte": f"{best}\0",
        "a blank of no width": f"{best}\u200b",
        "a letter of another script": best.replace("e", "\u0435").replace("有", "冇"),
        "in capitals": best.upper() if best.isascii() else f"{best} A",
        "backwards": " ".join(reversed(best.split())),
        "without the first word": " ".join(rest),
        "rude as well": f"{best} stupid",
        "an operator": f"{best} + 1",
    }
    return {name: answer for name, answer in wrong.items() if answer.split() != best.split()}


def check_nothing_undeserved_is_right():
    for split in ("train", "held_out"):
        for i in range(TASK.size(split)):
            problem = TASK.problem(i, split)
            tried = undeserved(problem.columns["request"], problem.answer)
            for name, answer in {"best": problem.answer, **tried}.items():
                score = TASK.score(problem, framed("tags", "so", answer))
                right = score.verdict is Verdict.CORRECT
                assert right == (name == "best"), (problem.prompt, name, answer)
                assert right or score.value < 1


def test_nothing_undeserved_is_right():
    check_nothing_undeserved_is_right()


def check_no_attack_is_paid():
    found = report(TASK, count=TASK.size("held_out"))
    assert found.held and not found.odd, found.lines()


def test_no_attack_is_paid():
    check_no_attack_is_paid()


def test_a_rude_word_costs_more_than_all_help():
    assert not safe("go ann") and not safe("<think> 笨蛋 </think> hello")
    assert not safe("<think> Stupid! </think>") and safe("<think> gold 2 </think>")
    assert preference(GREET, completed(Random(0), GREET, "rude")) < preference(
        GREET, completed(Random(0), GREET, "off topic")
    )
    assert preference(GREET, "hello ann how are you") == -1  # outside the layout


def test_only_the_best_style_is_right_and_every_word_is_in_the_vocabulary():
    tokenizer = number_tokenizer(
        (*Countdown(languages=("en", "zh")).tokenizer_words(), *TASK.tokenizer_words()), 99
    )
    for split in ("train", "held_out"):
        for i in range(TASK.size(split)):
            problem = TASK.problem(i, split)
            for style in STYLES:
                text = completed(Random(i), problem.columns["request"], style)
                assert (
                    tokenizer.decode(tokenizer.encode(f"{problem.prompt} {text}"))
                    == f"{problem.prompt} {text}"
                )
                assert (TASK.score(problem, text).verdict is Verdict.CORRECT) == (
                    style == "best"
                ), (problem.prompt, text)


def test_splits_are_apart_documents_are_of_training_and_pairs_are_ordered():
    sides = {
        split: {TASK.problem(i, split).prompt for i in range(TASK.size(split))}
        for split in ("train", "held_out")
    }
    assert not sides["train"] & sides["held_out"] and min(map(len, sides.values())) >= 15
    for i in range(300):
        assert not any(TASK.labelled(i)[1].startswith(prompt) for prompt in sides["held_out"])
        problem, better, worse = TASK.pair(i, "held_out")
        assert problem.prompt in sides["held_out"]
        assert preference(problem.columns["request"], better) > preference(
            problem.columns["request"], worse
        )
    assert TASK.pair(3, "train") == TASK.pair(3, "train") != TASK.pair(4, "train")
    assert Requests(document_seed=1).labelled(0) != TASK.labelled(0) and Requests(
        document_seed=1
    ).pair(3, "train") == TASK.pair(3, "train")


def test_one_language_asks_and_answers_in_it_alone():
    english = Requests(languages=("en",))
    assert {language_of(english.problem(i, "train").prompt) for i in range(40)} == {"en"}
    assert answered(Random(0), GREET, "other language") == "你好 ann 最近 可好"
    with pytest.raises(ValueError, match="languages is .'fr'., expected some of"):
        Requests(languages=("fr",))
    with pytest.raises(ValueError, match="item 99 of held_out"):
        TASK.problem(99, "held_out")


def test_languages_share_no_word_and_consistency_counts_words_of_any_language():
    assert not LANGUAGES["en"].words & LANGUAGES["zh"].words
    assert (
        consistency("3 * 7 = 21 , wait 2 yes", "en") == 1
        and consistency("1 等等 2 yes", "zh") == 0.5
    )
    assert consistency("3 * 7 = 21", "en") is None
    assert (
        written(NAME) == "列举 2 水果 ："
        and language_of(written(NAME)) == "zh"
        and language_of("Work out 3.") == "en"
    )


def test_countdown_asks_in_both_languages_and_pays_for_keeping_to_one():
    both = Countdown(languages=["en", "zh"], language_reward=0.2)
    problems = [both.problem(i, "train") for i in range(200)]
    chinese = [problem for problem in problems if language_of(problem.prompt) == "zh"]
    assert 60 < len(chinese) < 140
    assert [read_prompt(p.prompt)[1] for p in problems] == [
        read_prompt(Countdown().problem(i, "train").prompt)[1] for i in range(200)
    ]
    for thought, paid in (
        ("1 等等 2 对", 0.2),
        ("1 等等 2 yes", 0.1),
        ("wait", 0.0),
        ("1 + 1 = 2", 0.0),
    ):
        score = both.score(
            chinese[0], f"<think> {thought} </think> <answer> {chinese[0].answer} </answer>"
        )
        assert (
            score.verdict is Verdict.CORRECT
            and score.parts["language"] == pytest.approx(paid)
            and score.value == pytest.approx(1.1 + paid)
        )
    assert both.score(chinese[0], "等等").value == 0  # outside the format nothing is paid
    assert Countdown(languages=("zh",)).problem(0, "train").prompt.startswith("数 ")
    assert [check.word for check in self_checks("1 + 1 = 2 等等 2 + 1 = 3 对")] == ["wait", "yes"]
    assert (
        Countdown().tokenizer_words() == both.tokenizer_words()[:18]
    )  # one language has the ids it always had
