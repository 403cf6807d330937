"""Wrong twins of conversations and metering: mistakes made elsewhere, and the test that must then fail."""

import functools
import tracemalloc

import pytest
from jinja2 import nodes

from deepwright.data import conversations, layouts
from deepwright.text import metered_jinja, metering, template_hooks, templates, tool_calls
from tests.broken.patched import must_reject
from tests.data import test_conversations, test_layouts
from tests.text import family as families
from tests.text import test_metering, test_templates, test_tool_calls
from tests.text.templates import CALLING, FAMILIES


def loaded(folder):
    return {name: families.load(folder / name, name) for name in FAMILIES}


def callers(folder):
    base, made = (
        {"tagged": "smollm", "added": "r1", "single": "llama", "items": "smollm"},
        loaded(folder),
    )
    return {n: test_conversations.with_template(made[base[n]], CALLING[n]) for n in CALLING}


def told(check):
    """With compiled templates forgotten, and whatever a check raises as an assertion."""

    @functools.wraps(check)
    def checked(*folder):
        templates._compile.cache_clear()
        try:
            check(*folder)
        except (ValueError, pytest.fail.Exception) as error:
            raise AssertionError(str(error)) from None
        finally:
            templates._compile.cache_clear()

    return checked


def marks(folder):
    for name in ("smollm", "marked"):
        test_conversations.test_masked_turns_are_context_and_never_targets(
            loaded(folder), name, (1, 0, 1), "all", [["a0", "a2"]]
        )


def row_marks():
    test_layouts.test_marks_of_the_row({"loss_mask": [0, 0, 0, 1]}, [False, False, False, True])


def odd_marks():
    test = test_layouts.test_marks_that_cannot_be_followed
    test(test_layouts.row({"weight": 0.5}), "message 1: weight is 0.5")


def left_out(folder):
    test_conversations.test_rows_with_nothing_to_train_on_are_left_out_and_counted(loaded(folder / "t"), folder)  # fmt: skip


def lost_calls(folder):
    test_conversations.test_what_a_template_loses_of_calls_is_refused(
        loaded(folder),
        "no calls",
    )


def lost_results(folder):
    test_conversations.test_what_a_template_loses_of_calls_is_refused(
        loaded(folder),
        "no results",
    )


def forms(folder):
    for arguments in (test_conversations.ARGUMENTS, test_conversations.JSON):
        for name in ("tagged", "added"):
            test_conversations.test_calls_are_given_in_the_form_that_the_template_takes(
                callers(folder), name, arguments, None
            )


def null_content():
    test_templates.test_a_turn_of_calls_alone_is_rendered_where_transformers_gives_up()


def tools():
    test_layouts.test_tools_as_json_text()


def arrow(folder):
    test_conversations.test_parquet_and_json_lists(callers(folder / "t"), folder)


def schemas():
    test_layouts.test_arrows_nulls_leave_the_schemas_and_the_calls()


def found_again():
    for text, lost in (("look x n 2", "at"), ("look at x n", "2")):
        test_tool_calls.test_every_name_and_value_is_looked_for(text, lost)


def ends(name):
    """A small allowance, so that the twin, which ignores it, ends as well."""

    def check():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(metering, "UNITS", 80_000)
            patch.setattr(metering, "MOST_UNITS", 0)
            test_metering.ends_soon(SMALL[name])

    return check


SMALL = {
    "turns": "{% for i in range(9999) %}{% set x = i %}{% endfor %}" * 3,
    "text": ("{% set x %}" + "x" * 3000 + "{% endset %}") * 30,
    "made": "{% set x = range(9000) | list %}",
    "shared": "{% set x = [1] %}" + "{% set x = [x, x] %}" * 14,
    "compared": "{% set x = range(1500) | list %}" + "{% if x == [x] %}{% endif %}" * 3,
    "back": "{{ [-10 ** 9] | map('+turn') | list }}{% for i in range(99999) %}{% endfor %}",
}


def predicted():
    """Refused before it takes the memory."""
    tracemalloc.start()
    try:
        test_metering.ends_soon("{{ 'ab'.ljust(90000000) }}")
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def transparent():
    for template in test_templates.CONSTRUCTS[:18]:
        for chat in test_templates.CHATS.values():
            theirs, ours = test_templates.characters(template, chat)
            assert ours == theirs


def own_spans_last(original):
    """As long as only the first turns could be context, these were the last ones."""

    def spans(text, messages, trained, tokenizer, variables):
        marked = tokenizer.assistant_spans(messages, **variables)
        if marked is None:
            return original(text, messages, trained, tokenizer, variables)
        return marked[-len(trained) :]

    return spans


def last_turn_always(original):
    def parts(conversation, turns):
        last = len(conversation.messages) - 1
        return original(conversation, turns) or [(conversation.messages, [last])]

    return parts


def unhooked(_):
    return lambda self, node: self.generic_visit(node)


def as_texts(_):
    def visit(self, node):
        return nodes.Concat(
            [node.left, node.right], lineno=node.lineno, environment=node.environment
        )

    return visit


def branches_emptied(original):
    def visit(self, node):
        node = original(self, node)
        del node.body[0]
        return node

    return visit


def callable_hooks(_):
    plain = metered_jinja.ImmutableSandboxedEnvironment.call_filter
    return lambda self, *args, **kwargs: plain(self, *args, **kwargs)


def members_once(_):
    def size(value, most=None):
        return 8 * len(value) if hasattr(value, "__len__") else 8

    return size


Hooks, Environment = template_hooks._Hooks, metered_jinja.MeteredEnvironment
TWINS = {
    "turns of weight 0 trained on": (marks, layouts, "_trained", lambda _: lambda *_: True),
    "a row's marks not read": (row_marks, layouts, "_row_marks", lambda _: lambda row, n: [None] * n),
    "half a weight": (odd_marks, layouts, "_mark", lambda _: lambda name, value: bool(value)),
    "the last spans": (marks, conversations, "_spans", own_spans_last),
    "nothing to train on": (left_out, conversations, "_parts", last_turn_always),
    "calls lost": (lost_calls, conversations, "lost_in", lambda _: lambda text, message: None),
    "results lost": (lost_results, conversations, "_check_context", lambda _: lambda *_: None),
    "calls as in the file": (forms, tool_calls, "_forms", lambda _: lambda messages: [messages]),
    "objects for everyone": (forms, tool_calls, "_as_text", lambda _: lambda arguments: arguments),
    "nulls dropped for good": (null_content, templates, "_given", lambda original: (
        lambda message, content: original(message, templates.missing))),
    "tools passed on as text": (tools, layouts, "tools_of", lambda _: lambda value: value),
    "Arrow's nulls kept": (arrow, conversations, "_without_nulls", lambda _: lambda value: value),
    "a schema's nulls kept": (
        schemas, tool_calls, "_without_null_properties", lambda _: lambda schema: schema),
    "all nulls of a schema dropped": (
        schemas, tool_calls, "_without_null_properties", lambda _: conversations._without_nulls),
    "a call's name is enough": (found_again, tool_calls, "_leaves", lambda _: lambda value: ()),
    "turns not counted": (ends("turns"), Hooks, "visit_For", unhooked),
    "text in a block not counted": (ends("text"), Hooks, "visit_AssignBlock", unhooked),
    "what is made is free": (ends("made"), metering.Meter, "made", lambda _: lambda self, value: value),
    "nothing predicted": (predicted, metered_jinja, "METHODS", lambda _: {}),
    "members once": (ends("shared"), metering, "size", members_once),
    "comparisons free": (ends("compared"), Hooks, "visit_Compare", unhooked),
    "the counter callable": (ends("back"), Environment, "call_filter", callable_hooks),
    "sums as texts": (transparent, Hooks, "_sum", as_texts),
    "branches emptied": (transparent, Hooks, "visit_If", branches_emptied),
}  # fmt: skip


@pytest.mark.parametrize("name", TWINS)
def test_twin_is_rejected(name, tmp_path):
    pytest.importorskip("transformers")
    check, *twin = TWINS[name]
    must_reject(told(check), *twin, tmp_path)
