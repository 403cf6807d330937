"""How a completion is laid out: <think> a thought </think> <answer> an answer </answer>, and the words of self-checking."""

from __future__ import annotations

THINK, END_THINK, ANSWER, END_ANSWER = "<think>", "</think>", "<answer>", "</answer>"
TAGS = (THINK, END_THINK, ANSWER, END_ANSWER)
WAIT, YES = "wait", "yes"  # what an author writes after an attempt that failed, and after one that succeeded


def read_tags(completion: str) -> tuple[str, str] | str:
    """(thought, answer) of a completion that is exactly <think>..</think> <answer>..</answer>, or what is wrong with it.

    Both must hold at least one word: an empty think that passes would teach the model to answer without thinking while its
    format looks perfect. Each tag must stand once and in order, with only blanks outside: no answer before the thought,
    none repeated, nothing after. Linear in the length of the completion."""
    for tag in TAGS:
        count = completion.count(tag)
        if count != 1:
            return f"{tag} stands {count} times, expected once"
    places = [completion.index(tag) for tag in TAGS]
    if places != sorted(places):
        return "the tags are out of order"
    before, rest = completion.split(THINK)
    thought, rest = rest.split(END_THINK)
    between, rest = rest.split(ANSWER)
    answer, after = rest.split(END_ANSWER)
    if before.strip() or between.strip() or after.strip():
        return "text outside the tags"
    if not thought.strip():
        return "the thought is empty"
    if not answer.strip():
        return "the answer is empty"
    return thought, answer
