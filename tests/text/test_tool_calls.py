"""What a template does to tool calls: the form that it takes, and whether anything of them is lost."""

import pytest

from deepwright.text.tool_calls import lost_in, named, rendered, stands_in

CALL = {"type": "function", "function": {"name": "look", "arguments": {"at": "x", "n": 2}}}
TEXT = {"type": "function", "function": {"name": "look", "arguments": '{"at":"x","n":2}'}}


def turn(call, content=None):
    return [{"role": "assistant", "content": content, "tool_calls": [call]}]


def arguments_of(messages):
    return messages[0]["tool_calls"][0]["function"]["arguments"]


@pytest.mark.parametrize(
    "writes, expected",
    [
        (lambda function: f"{function['name']} {function['arguments']['at']} at n 2", {"at": "x", "n": 2}),
        (lambda function: "look " + function["arguments"], '{"at":"x","n":2}'),
        (lambda function: f"look {function['arguments']}", '{"at":"x","n":2}'),
    ],
)  # fmt: skip
def test_objects_first_and_texts_where_they_are_added_or_printed(writes, expected):
    def render(messages):
        try:
            return writes(messages[0]["tool_calls"][0]["function"])
        except TypeError as error:
            raise ValueError(str(error)) from None

    messages, text = rendered(turn(TEXT), render)
    assert arguments_of(messages) == expected and text == render(messages)


def test_a_turn_without_words_is_tried_both_ways():
    def render(messages):  # one that looks for calls where there are no words at all
        return "look at x n 2" if messages[0]["content"] is None else "<end>"

    for content in (None, ""):
        messages, text = rendered(turn(CALL, content), render)
        assert text == "look at x n 2" and messages[0]["content"] is None
    assert rendered(turn(CALL, "I look."), render)[1] == "<end>"  # words are never taken away


def test_what_loses_calls_in_every_form_is_given_back_as_it_is():
    messages, text = rendered(turn(CALL), lambda messages: "nothing")
    assert text == "nothing" and arguments_of(messages) == {"at": "x", "n": 2}
    assert lost_in(text, messages[0]) == "look"


def test_a_template_that_takes_no_form_says_why():
    def render(messages):
        raise ValueError(f"no {type(arguments_of(messages)).__name__}")

    with pytest.raises(ValueError, match="no dict; no str"):
        rendered(turn(CALL), render)


def test_messages_without_calls_are_left_alone():
    messages = [{"role": "user", "content": None}]
    assert rendered(messages, lambda given: str(given is messages)) == (messages, "True")


@pytest.mark.parametrize(
    "text, lost",
    [
        ('look {"at": "x", "n": 2}', None),
        ("look(at='x', n=2)", None),
        ("<look><at>x</at><n>2</n></look>", None),
        ('{"at": "x", "n": 2}', "look"),
        ("look x n 2", "at"),
        ("look at n 2", "x"),
        ("look at x n", "2"),
    ],
)
def test_every_name_and_value_is_looked_for(text, lost):
    assert lost_in(text, turn(CALL)[0]) == lost
    older = {"role": "assistant", "function_call": CALL["function"]}
    assert lost_in(text, older) == lost


@pytest.mark.parametrize(
    "value, written, missing",
    [
        ('a "b"', r"a \"b\"", 'a "b'),
        ("é", r"\u00e9", "e"),
        (" x ", "x", "y"),
        ("a\nb", r"a\nb", "ab"),
        (True, "true", "yes"),
        (True, "True", "1"),
        (None, "null", "-"),
        (1.5, "1.5", "1,5"),
        ({"b": [{"c": "d"}]}, "b c d", "b d"),
    ],
)
def test_values_as_templates_write_them(value, written, missing):
    call = {"function": {"name": "f", "arguments": {"k": value}}}
    assert lost_in(f"f k {written}", turn(call)[0]) is None
    assert lost_in(f"f k {missing}", turn(call)[0]) is not None


def test_arguments_that_are_no_json():
    call = {"function": {"name": "python", "arguments": "print(1)\n"}}
    assert lost_in("python print(1)", turn(call)[0]) is None
    assert lost_in("python print", turn(call)[0]) == "print(1)\n"
    assert stands_in("", "") and not stands_in("a", "")


def test_names_of_tools():
    assert [named(t) for t in (CALL, CALL["function"], {}, {"function": 7})] == ["look", "look", None, None]  # fmt: skip
