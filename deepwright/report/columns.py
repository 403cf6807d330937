"""What the heads of the report's tables mean, each in one sentence: shown where a pointer rests, and under the table for those who have none."""

from __future__ import annotations

import re

COLUMNS = {
    "stage": "A part of the recipe; the word beside its name is its folder in the run.",
    "pass@1": "Chance that one sampled answer to a held-out problem is right, with one standard error.",
    "of other runs": "Lowest and highest pass@1 of other runs with these settings.",
    "greedy": "pass@1 where the likeliest token is always taken.",
    "format": "Share of answers in the layout that was asked for, right or wrong.",
    "one language": "Share of a thought's words that are of the problem's language.",
    "length": "Mean number of tokens in an answer, with its thought.",
    "requests": "Share of answers to held-out general requests that keep every stated rule.",
    "win rate over Dev3": "How often the rules prefer R1's answer to the one before alignment; 50% is no change.",
    "training": "Time of the training steps.",
    "evaluation": "Time of the held-out evaluations.",
    "sampling": "Time of sampling what is learned from.",
    "reward models": "Time of training them.",
    "in all": "The sum of the row; the rows add up to the wall time.",
    "n": "Problems × samples of each.",
    "T": "Sampling temperature; 0 is greedy.",
    "cons": "cons@k: accuracy of the most frequent answer among k samples.",
    "pass": "pass@k: chance that at least one of k samples is right.",
    "self-check": "Share of answers that at least once call an attempt wrong and try again.",
    "cut": "Share of answers that were cut at the token limit.",
    "AIME 2024": "Competition mathematics, 30 problems, pass@1.",
    "MATH-500": "Competition mathematics, 500 problems, pass@1.",
    "LiveCodeBench": "Programming problems, pass@1.",
    "IF-Eval": "Instructions whose keeping a program can check.",
    "AlpacaEval 2": "Win rate of general answers, judged by a model.",
}
# heads that hold something of the run's
_VARYING = (
    (re.compile(r"T=[0-9.]+"), "pass@1 at this temperature."),
    (
        re.compile(r"on .+"),
        "pass@1 on problems that nothing was trained on: the same task with this option.",
    ),
)
# of a table where the same word means something else
OF_EVALUATIONS = {"evaluation": "Which model was asked, and how.", "step": "Training step."}


def meaning(head: str) -> str:
    """The sentence for a head; "" where it needs none."""
    varying = (said for pattern, said in _VARYING if pattern.fullmatch(head))
    return COLUMNS.get(head) or next(varying, "")
