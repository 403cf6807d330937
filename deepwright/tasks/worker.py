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
import random
import re
import resource
import sys
import time
import warnings

_FOLDER = os.path.dirname(os.path.abspath(__file__))


def verify_math(job):
    """Whether the two expressions of each of the job's `pairs` (how, answer, reference) agree.

    Read by math-verify's parser, compared here: exactly, and the same whichever stands first."""
    return [_agree(*pair) for pair in job["pairs"]]


def _agree(how, answer, reference):
    """`how`: "equal"; "within N": to N decimal places; "proportional" or "positive": but for a
    factor that is a number (greater than 0); "sets": as sets of numbers."""
    complex_too = any(
        re.search(r"(?<![A-Za-z])i(?![A-Za-z])", text) for text in (answer, reference)
    )
    gold, pred = _parsed(reference, complex_too), _parsed(answer, complex_too)
    if gold is None:
        raise ValueError(f"math-verify cannot read the reference {reference[:80]!r}")
    if pred is None:
        return False
    if how == "sets":
        return _same_sets(pred, gold)
    import sympy

    if not all(isinstance(one, sympy.Expr) for one in (gold, pred)):
        return bool(gold == pred)
    if how.startswith("within "):
        return _near(pred, gold, int(how.partition(" ")[2]))
    return _equal(pred, gold) if how == "equal" else _in_proportion(pred, gold, how == "positive")


@functools.lru_cache(512)
def _parsed(text, complex_too):
    """A sympy object with exact numbers, or None where the parser cannot read the text."""
    import sympy
    from latex2sympy2_extended import latex2sympy2 as reader

    nothing = reader.NormalizationConfig(False, False, False, False, "none", False)
    letters = reader.ConversionConfig(lowercase_symbols=False)
    try:
        found = reader.latex2sympy(
            text, is_real=not complex_too, normalization_config=nothing, conversion_config=letters
        )
    except MemoryError:
        raise  # says nothing about the text, and the process is spent
    except Exception:
        return None
    if not isinstance(found, sympy.Basic):
        return None
    decimals = {one: sympy.Rational(str(one)) for one in found.atoms(sympy.Float)}
    unknown = {one: sympy.Symbol(str(one)) for one in found.atoms(sympy.core.function.AppliedUndef)}
    found = found.xreplace(decimals | unknown)
    imaginary = {one: sympy.I for one in found.free_symbols if one.name == "i"}
    return found if found.has(sympy.Sum, sympy.Product) else found.xreplace(imaginary)


def _equal(one, other):
    """Whether two expressions agree to hundreds of digits: numbers so, others at points."""
    if not one.free_symbols | other.free_symbols:
        return one == other or _vanishes((one - other).evalf(20, maxn=400))
    ratios = _ratios(one, other)
    return one == other or (bool(ratios) and all(abs(ratio - 1) < _NOISE for ratio in ratios))


def _in_proportion(one, other, positive):
    """Whether one is a number other than 0 times the other, at each of some points."""
    ratios = _ratios(one, other)
    if not ratios or any(abs(ratio / ratios[0] - 1) >= _NOISE for ratio in ratios):
        return False
    return bool(ratios[0].is_real and ratios[0] > 0) if positive else True


_DIGITS, _NOISE = 320, 1e-300  # of a value at a point; what its rounding leaves of a ratio


def _ratios(one, other):
    """one / other at points; [] where one has a value and the other none, or is 0.

    The points are the same whichever stands first. Where all letters are positive both must have a
    value; with one of them negative, which tells |x| from x, both must be real to count."""
    import sympy

    whole = one.has(sympy.Sum, sympy.Product) or other.has(sympy.Sum, sympy.Product)
    names = sorted({symbol.name for symbol in one.free_symbols | other.free_symbols})
    positive = [{name: _value(name, k, whole) for name in names} for k in range(4)]
    negative = [positive[0] | {name: -positive[0][name]} for name in names[:8] if not whole]
    ratios = []
    for place in positive + negative:
        a, b = _at(one, place), _at(other, place)
        if place in negative and not (a is not None and b is not None and a.is_real and b.is_real):
            continue
        if a is None or b is None or (a == 0) != (b == 0):
            return []
        ratios.append((a / b).evalf(_DIGITS) if a != 0 else 1 + a)
    return ratios


def _value(name, k, whole):
    """A number between 0 and 3 that follows from the letter; `whole`: one of 3 to 9, for sums."""
    import sympy

    if whole:
        return sympy.Integer(3 + random.Random(f"{name} {k}").randrange(7))
    draw = random.Random(f"{name} {k}").randrange
    return sympy.Rational(draw(10**5, 10**6), draw(4 * 10**5, 10**6))


def _at(expression, place):
    """The number that an expression is at a point; None where it is none."""
    import sympy

    values = {symbol: place[symbol.name] for symbol in expression.free_symbols}
    if expression.has(sympy.Sum, sympy.Product):
        expression, values = expression.subs(values).doit(), {}
    try:
        value = expression.evalf(_DIGITS, subs=values)
    except (ArithmeticError, ValueError):  # mpmath at a pole
        return None
    if not value.is_number or value.is_finite is False or value.has(sympy.nan, sympy.zoo):
        return None
    return sympy.Integer(0) if _vanishes(value) else value


def _vanishes(value):
    """Whether what evalf made of something is 0, or has not one digit that is certain."""
    return all(part == 0 or getattr(part, "_prec", 53) == 1 for part in value.as_real_imag())


def _near(answer, reference, places):
    """Whether a decimal of so many places is the reference rounded or cut, or as a double."""
    import sympy

    if answer.free_symbols or reference.free_symbols:
        return False
    off, exact = (answer - reference).evalf(20, maxn=400), reference.evalf(20)
    if not off.is_real or not exact.is_real:
        return False
    step = sympy.Rational(1, 10**places)
    cut = abs(off) < step and bool(off < 0) == bool(exact > 0)
    printed = abs(answer * 10**places) < 10**17 and abs(off) <= abs(exact) / 2**52
    return bool(2 * abs(off) <= step or cut or printed)


def _same_sets(one, other):
    """math-verify on sets and relations, with its comparison of numbers replaced by ours."""
    from math_verify import grader

    def equal(a, b, *_):
        return _equal(a, b)

    grader.sympy_numeric_eq, grader.sympy_symbolic_eq = equal, equal
    grader.TIMEOUT_WARNING_SHOWN = True  # its own deadlines need signals; ours is the pool's
    return bool(
        grader.verify(other, one, timeout_seconds=None)
        or grader.verify(one, other, timeout_seconds=None)
    )


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
