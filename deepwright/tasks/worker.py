"""What runs in a verifier process: reads JSON jobs, answers a line each. Started by `pool.py` as a script.

argv: the kind of work. stdin and stdout are moved away first, so that no verifier can read the jobs or write a verdict of its own by printing.
"""

import ast
import functools
import importlib
import importlib.util
import inspect
import json
import os
import re
import resource
import sys
import time
import warnings

_FOLDER = os.path.dirname(os.path.abspath(__file__))


def verify_math(job):
    """Whether math-verify takes `answer` for `reference`: the expression inside the box alone, and exactly one."""
    gold, pred = _parsed(job["reference"]), _parsed(job["answer"])
    if not gold:
        raise ValueError(f"math-verify cannot read the reference {job['reference'][:80]!r}")
    from math_verify import verify

    return bool(pred) and bool(verify(gold, pred, timeout_seconds=None))


def _parsed(text):
    import math_verify
    from math_verify import grader, parser

    grader.TIMEOUT_WARNING_SHOWN = parser.TIMEOUT_WARNING_SHOWN = (
        True  # its own deadlines need signals; ours is the pool's
    )
    configs = [
        math_verify.LatexExtractionConfig(boxed_match_priority=0),
        math_verify.ExprExtractionConfig(),
    ]
    return math_verify.parse(f"\\boxed{{{text}}}", extraction_config=configs, parsing_timeout=None)


@functools.lru_cache(4)
def _dataset(name, config):
    """The dataset with its scorer, in whose module `eval` reads literals alone where it would be given the answer."""
    import reasoning_gym

    dataset = reasoning_gym.create_dataset(name, **json.loads(config))
    module = sys.modules[type(dataset).__module__]
    if re.search(r"\beval\(answer", inspect.getsource(module)):
        module.eval = ast.literal_eval
    return dataset


def ask_reasoning_gym(job):
    """Without an answer: item `index` of a set. With one: the scorer's value in 0..1 for it.

    The item travels as the text of a Python literal, so that tuples stay tuples; one that is none is made again. A scorer that raises on the
    answer but not on the reference has met an answer that it cannot read: 0."""
    dataset = _dataset(job["set"], job["config"])
    if "answer" not in job:
        entry = dataset[job["index"]]
        text = repr(entry)
        try:
            same = ast.literal_eval(text) == entry
        except ValueError:
            same = False
        metadata = {
            name: value
            for name, value in entry["metadata"].items()
            if isinstance(value, (str, int, float))
        }
        answer = "" if entry["answer"] is None else str(entry["answer"])
        return {
            "question": entry["question"],
            "answer": answer,
            "metadata": metadata,
            "entry": text if same else "",
        }
    entry = ast.literal_eval(job["entry"]) if job["entry"] else dataset[job["index"]]
    try:
        return float(dataset.score_answer(job["answer"], entry))
    except Exception:
        if entry["answer"] is None or dataset.score_answer(entry["answer"], entry) < 1:
            raise
        return 0.0


@functools.lru_cache(None)
def _beside(name):
    """A module of this folder, which is on no path here: users have modules of those names."""
    spec = importlib.util.spec_from_file_location(f"deepwright_{name}", f"{_FOLDER}/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call_user(job):
    """A user's reward function by TRL's contract."""
    return _beside("reward_call").call(job, _beside("plain").decode)


KINDS = {"math": verify_math, "reasoning_gym": ask_reasoning_gym, "function": call_user}


def main():
    jobs, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    work = KINDS[sys.argv[1]]
    if package := {"math": "math_verify", "reasoning_gym": "reasoning_gym"}.get(sys.argv[1]):
        importlib.import_module(package)  # the seconds this takes belong to no job
    answers.write(b'{"ready": 1}\n')
    answers.flush()
    for line in jobs:
        job = json.loads(line)
        hard = resource.getrlimit(resource.RLIMIT_CPU)[
            1
        ]  # of the processor's time, on top of what earlier jobs took
        resource.setrlimit(
            resource.RLIMIT_CPU, (int(time.process_time() + job["seconds"]) + 2, hard)
        )
        try:
            answer = {"value": work(job)}
        except (
            BaseException
        ) as error:  # also SystemExit: whatever a verifier does, its job has failed and is named
            spent = not isinstance(error, Exception) or isinstance(
                error, (MemoryError, RecursionError)
            )
            answer = {
                "error": f"{type(error).__name__}: {str(error)[:300]}",
                "spent": spent,
            }  # spent: a fresh process is safer
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
