"""Runs in a worker: calls a user's reward function as TRL calls it.

By keyword, with what its signature takes of: prompts, completions, completion_ids, the columns of
the rows, trainer_state, log_extra(column, values) and log_metric(name, value). A coroutine is
awaited. Modules beside its file are imported as in a script of that folder.
"""

import asyncio
import functools
import importlib.util
import inspect
import itertools
import math
import os
import sys

SHOWN = 2000  # characters of a logged value


class TrainerState:
    """What is known of Transformers' object of that name."""

    is_world_process_zero = is_local_process_zero = True

    def __init__(self, step, steps):
        self.global_step, self.max_steps = step, steps

    def __getattr__(self, name):
        known = "global_step, max_steps, is_world_process_zero, is_local_process_zero"
        raise AttributeError(f"trainer_state has no {name!r} here, only {known}")


class Log:
    """What the function logs: a value of each completion in a column, or one of all of them."""

    def __init__(self, count):
        self.count, self.columns, self.metrics = count, {}, {}

    def extra(self, column, values):
        values = list(itertools.islice(values, self.count + 1))
        if len(values) != self.count:
            raise ValueError(f"log_extra({column!r}) has not a value for each of {self.count}")
        self.columns[str(column)] = [_shown(value) for value in values]

    def metric(self, name, value):
        self.metrics.setdefault(str(name), []).append(float(value))

    def of_each(self):
        """For each completion what was logged about it, and the means of what was about all."""
        means = {name: _shown(sum(all) / len(all)) for name, all in self.metrics.items()}
        rows = range(self.count)
        return [{name: values[i] for name, values in self.columns.items()} | means for i in rows]


def call(job, decode):
    """{"rewards": numbers, null and other things' descriptions, "logged": of each completion}, or
    {"not a list": what it returned}."""
    given = {name: [decode(one) for one in values] for name, values in job["columns"].items()}
    given |= {"completion_ids": list(map(_bytes, job["given"]["completions"])), **job["given"]}
    count = len(given["completions"])
    log, state = Log(count), TrainerState(job["step"], job["steps"])
    given |= {"trainer_state": state, "log_extra": log.extra, "log_metric": log.metric}
    function = _function(job["path"], job["name"])
    rewards = function(**taken(function, given))
    if inspect.isawaitable(rewards):
        rewards = asyncio.run(_awaited(rewards))
    if isinstance(rewards, (str, bytes, dict, set)) or not hasattr(rewards, "__iter__"):
        return {"not a list": type(rewards).__name__}
    rewards = list(itertools.islice(rewards, count + 1))
    return {"rewards": [number(one) for one in rewards], "logged": log.of_each()}


def _bytes(completion):
    """What stands for the tokens of a text that nothing has sampled."""
    text = completion if isinstance(completion, str) else completion[-1]["content"]
    return list(text.encode("utf-8", "replace"))


@functools.lru_cache(8)
def _function(path, name):
    sys.path.insert(0, os.path.dirname(path))
    spec = importlib.util.spec_from_file_location("user_reward", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["user_reward"] = module  # where dataclasses look for their annotations
    spec.loader.exec_module(module)
    function = getattr(module, name)
    if not callable(function):
        raise TypeError(f"{name} is a {type(function).__name__}, expected a function")
    return function


def taken(function, given):
    """The arguments that a function takes by name; all where it has **columns."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # built in: it says nothing of its arguments
        return given
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return given
    return {one.name: given[one.name] for one in parameters if one.name in given}


async def _awaited(rewards):
    return await rewards


def number(one):
    """A reward: a finite number (Python's, numpy's, torch's), None, or a description."""
    try:
        if isinstance(one, (str, bytes)):
            raise TypeError
        value = None if one is None else float(one)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return f"{type(one).__name__} {str(one)[:40]!r}"
    return value if value is None or math.isfinite(value) else str(value)


def _shown(value):
    """A logged value as JSON holds it."""
    if value is None or isinstance(value, (bool, int)):
        return value
    plain = number(value)
    return plain if isinstance(plain, float) else str(value)[:SHOWN]
