"""A jinja2 sandbox in which templates pay for what they do (`metering.py`).

Calls, filters and tests pay by themselves; what has no place to do so (a loop, a comparison, a sum)
gets one put into the parsed template (`template_hooks.py`). Left out is what hands out random text
or bytes (`lipsum`, `encode`), which no chat template has a use for.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from types import BuiltinMethodType
from typing import Any

import jinja2
from jinja2.runtime import LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError
from jinja2.utils import missing

from deepwright.text.metering import (
    CALL,
    FILTERS,
    LONG_CALL,
    MEMBER,
    METHODS,
    MOST_BITS,
    Meter,
    formatted,
    size,
)
from deepwright.text.template_hooks import HOOKS, hooked

_LAZY = {"map", "reject", "rejectattr", "select", "selectattr"}  # call another for each item
_UNCOUNTED = {"attr", "count", "d", "default", "first", "items", "last", "length"}  # give a part
_COMPARE = {
    "in", "==", "eq", "equalto", "!=", "ne", ">", "gt", "greaterthan", ">=", "ge",
    "<", "lt", "lessthan", "<=", "le", "lower", "upper",
}  # fmt: skip
_REFUSED = {"encode", "to_bytes"}  # methods
_OF_DICTS = frozenset(dir(dict))
_ADDED = ("_loop_vars", "_block_vars")  # to the keywords of a call, by jinja2


class Namespace(jinja2.utils.Namespace):
    """As transformers has it: no names with an underscore in front. Printed without its values,
    which may be others of its kind, over and over."""

    def __init__(*args: Any, **named: Any) -> None:
        self, *given = args
        jinja2.utils.Namespace.__init__(self)
        for name, value in dict(*given, **named).items():
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise SecurityError(f"a namespace with the name {name!r:.60}")
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<Namespace>"


class MeteredEnvironment(ImmutableSandboxedEnvironment):
    """Renders what `template` makes, with a meter in the context's `eval_ctx`."""

    intercepted_binops = frozenset({"*", "**", "%", "//"})

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        metered = {n: _filter(n, f) for n, f in self.filters.items() if n not in _UNCOUNTED}
        compared = {name: _test(self.tests[name]) for name in _COMPARE}
        self.filters = {**self.filters, **metered, **HOOKS, "tojson": _to_json}
        self.tests = {**self.tests, **compared}
        self.globals["namespace"] = Namespace
        del self.globals["lipsum"]

    def template(self, text: str) -> jinja2.Template:
        with warnings.catch_warnings():  # of Python, about {{ 1[2] }} and '\\i' and the like
            warnings.simplefilter("ignore")
            return self.from_string(hooked(self.parse(text)))

    def getattr(self, obj: Any, attribute: str) -> Any:
        """The fields of messages, namespaces and loops, nearly all that templates ask for, without
        jinja2's way through the attributes of any object: that pays for the counting."""
        if type(obj) is dict and attribute not in _OF_DICTS:
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        if type(obj) in (Namespace, LoopContext) and not attribute.startswith("_"):
            value = getattr(obj, attribute, missing)
            return self.undefined(obj=obj, name=attribute) if value is missing else value
        return super().getattr(obj, attribute)

    def call_filter(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """By `map` and its like."""
        if name in HOOKS:
            raise SecurityError(f"no filter named {name!r}")
        return super().call_filter(name, *args, **kwargs)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """The names are jinja2's: a template's own keywords may have any other."""
        meter = __context.eval_ctx.meter
        if type(__obj) is BuiltinMethodType:  # safe by how it was reached, and often called
            for name in _ADDED:
                kwargs.pop(name, None)
            args = _pay_for_method(meter, __obj.__self__, __obj.__name__, args, kwargs)
            return meter.made(__obj(*args, **kwargs))
        meter.spend(LONG_CALL)
        method = getattr(__obj, "__wrapped__", __obj)  # `format` is wrapped by jinja2
        owner = getattr(method, "__self__", None)
        if isinstance(owner, str):
            args = _pay_for_method(meter, owner, method.__name__, args, _given(kwargs))
        elif not isinstance(__obj, Macro) or __obj.catch_varargs or __obj.catch_kwargs:
            for value in (*args, *_given(kwargs).values()):  # may be put together
                meter.scan(value)
        return meter.made(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        meter = context.eval_ctx.meter
        meter.spend(CALL)
        if operator == "%" and isinstance(left, str):
            meter.spend(formatted(left, right))
        elif isinstance(left, int) and isinstance(right, int):
            own = left.bit_length()
            bits = {"*": own + right.bit_length(), "**": own * abs(right)}.get(operator, own)
            if bits > MOST_BITS:
                raise SecurityError(f"a whole number of more than {MOST_BITS:,} bits")
        elif operator == "*":
            times, other = (left, right) if isinstance(left, int) else (right, left)
            meter.spend((1 + abs(times)) * size(other) if isinstance(times, int) else 0)
        return meter.made(super().call_binop(context, operator, left, right))


def _pay_for_method(
    meter: Meter, owner: Any, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Any, ...]:
    """-> the arguments, with those that can be read only once read into lists."""
    if name in _REFUSED:
        raise SecurityError(f"{name} is not offered")
    if not isinstance(owner, str):
        meter.spend(CALL)
        for value in args if isinstance(owner, dict) else (owner, *args):
            meter.scan(value)
        return args
    meter.spend(CALL + (len(owner) >> 5))
    if name in METHODS:
        args = tuple(list(meter.each(a)) if isinstance(a, Iterator) else a for a in args)
        meter.spend(METHODS[name](owner, *args, **kwargs))
    return args


def _given(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if name not in _ADDED}


def _filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that pays for what it reads and for what it makes."""
    passes = getattr(function, "jinja_pass_arg", None)
    prediction = FILTERS.get(name)
    item = 5 * CALL if name in _LAZY else MEMBER

    @jinja2.pass_context
    def metered(context: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        meter = context.eval_ctx.meter
        meter.spend(CALL)
        steps = item * _steps((*args, *kwargs.values())) if args or kwargs else item
        if type(value) is str and item == MEMBER:
            meter.spend(len(value) >> 3)
        elif isinstance(value, Iterator):
            value = meter.each(value, steps)
            value = value if prediction is None else list(value)
        elif hasattr(value, "__len__"):
            meter.spend(steps * len(value))
        if prediction is not None:
            meter.spend(prediction(value, *args, **kwargs))
        if passes is None:
            return meter.made(function(value, *args, **kwargs))
        return meter.made(function(_passed(passes.name, context), value, *args, **kwargs))

    return metered


def _steps(values: tuple[Any, ...]) -> int:
    """Of the longest way to an attribute ("a.b.c") that could be meant."""
    return 1 + max((v.count(".") for v in values if isinstance(v, str)), default=0)


def _passed(what: str, context: Any) -> Any:
    return {"context": context, "eval_context": context.eval_ctx}.get(what, context.environment)


def _test(function: Callable[..., Any]) -> Callable[..., Any]:
    @jinja2.pass_context
    def metered(context: Any, *values: Any) -> Any:
        for value in values:
            context.eval_ctx.meter.scan(value)
        return function(*values)

    return metered


@jinja2.pass_context
def _to_json(
    context: Any,
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """jinja2's own filter escapes HTML. With an indent the text is written piece by piece."""
    meter = context.eval_ctx.meter
    meter.spend(LONG_CALL if indent is None else 4 * LONG_CALL)
    if separators is not None:
        meter.spend(size(value) * size(separators))
    options = {"indent": indent, "separators": separators, "sort_keys": sort_keys}
    encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, **options)
    if indent is None:
        return meter.made(encoder.encode(value))
    pieces, text = encoder.iterencode(value), ""
    while some := "".join(islice(pieces, 1000)):
        text = meter.made(text + some)
    return text
