"""What choices are made of: lengths of a task's prompts and answers in the model's tokens, of documents, and the machine. Nothing is sampled."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence

import torch

from deepwright.data.conversations import Document
from deepwright.evaluate.scoring import prompt_ids
from deepwright.recipe.choices import DataFacts, Machine, TaskFacts
from deepwright.refusals import expect
from deepwright.tasks import Task, UserReward
from deepwright.tasks.task import ChatTask, reference_completion
from deepwright.text import Tokenizer
from deepwright.text.thoughts import THINK

LOOKED_AT = 32  # training problems


def task_facts(task: Task, tokenizer: Tokenizer) -> TaskFacts:
    """From the first training problems. ValueError where there are none."""
    task = task.task if isinstance(task, UserReward) else task
    size = task.size("train")
    expect(size > 0, f"the number of training problems of {task.name}", size, "at least 1")
    problems = [task.problem(i, "train") for i in range(min(LOOKED_AT, size))]
    prompts = [len(prompt_ids(tokenizer, problem)) for problem in problems]
    questions = [len(tokenizer.encode(problem.prompt)) for problem in problems]
    answers = [len(tokenizer.encode(reference_completion(task, one))) for one in problems]
    shown = any(turn["role"] == "assistant" for one in problems for turn in one.messages)
    tags = not isinstance(task, ChatTask) or task.layout == "tags"
    return TaskFacts(
        prompt=round(statistics.fmean(prompts)),
        longest_prompt=max(prompts),
        question=round(statistics.fmean(questions)),
        answer=max(answers),
        shown=shown,
        thinks=tags or THINK in tokenizer.template,
        train=size,
        held_out=task.size("held_out"),
    )


def document_facts(documents: Sequence[Document]) -> DataFacts:
    return DataFacts(len(documents), max(document.length for document in documents))


def this_machine() -> Machine:
    """As many cores as torch has threads."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(torch.get_num_threads(), memory, torch.cuda.is_available())
