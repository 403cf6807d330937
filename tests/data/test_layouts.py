"""Rows in the layouts that people have: which turns are marked untrained, what tools are, and what is refused by name."""

import json

import pytest

from deepwright.data.layouts import MARKS, conversation_of

ASKED, SAID, AGAIN = (
    {"role": "user", "content": "2 + 2?"},
    {"role": "assistant", "content": "5"},
    {"role": "assistant", "content": "4"},
)
TOOL = {"name": "look", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}}
CALL = {"name": "look", "arguments": {"at": "x"}}


def row(first=None, second=None, **more):
    """Two answers, the first of them wrong, with fields of their own."""
    return {"messages": [ASKED, SAID | (first or {}), ASKED, AGAIN | (second or {})], **more}


def trained(value):
    return conversation_of(value).trained


# ---- marks


@pytest.mark.parametrize("name", MARKS)
@pytest.mark.parametrize("no, yes", [(0, 1), (False, True), (0.0, 1.0)])
def test_a_turn_that_is_marked_untrained(name, no, yes):
    assert trained(row({name: no}, {name: yes})) == [False, False, False, True]
    assert trained(row({name: no})) == [False, False, False, True]
    assert trained(row({}, {name: yes})) == [False, True, False, True]
    assert trained(row({name: None})) == [False, True, False, True]
    conversation = conversation_of(row({name: no}, {name: yes}))
    assert all(name not in message for message in conversation.messages)
    unmarked = [ASKED | {name: no}, SAID, ASKED | {name: no}, AGAIN]
    assert trained({"messages": unmarked}) == [False, True, False, True]


@pytest.mark.parametrize(
    "more, expected",
    [
        ({"loss_mask": [0, 0, 0, 1]}, [False, False, False, True]),
        ({"loss_masks": [None, False, None, True]}, [False, False, False, True]),
        ({"weights": [0.0, 1.0, 0.0, 0.0]}, [False, True, False, False]),
        ({"train": False}, [False] * 4),
        ({"weight": 0}, [False] * 4),
        ({"weight": 1}, [False, True, False, True]),
        ({"loss": None}, [False, True, False, True]),
    ],
)
def test_marks_of_the_row(more, expected):
    assert trained(row(**more)) == expected


def test_marks_of_a_completion():
    whole = {"prompt": "a", "completion": "b"}
    assert trained(whole) == [False, True] and trained(whole | {"weight": 0}) == [False, False]
    assert trained(whole | {"loss_mask": [0, 0]}) == [False, False]
    messages = {"prompt": [ASKED, SAID | {"weight": 1}], "completion": [AGAIN | {"loss": False}]}
    assert trained(messages) == [False, False, False]


@pytest.mark.parametrize(
    "value, message",
    [
        (row({"weight": 0.5}), "message 1: weight is 0.5, expected 0 or 1"),
        (row({"weight": "0"}), "message 1: weight is '0', expected 0 or 1"),
        (row({"loss_mask": [0, 1]}), r"message 1: loss_mask is \[0, 1\], expected 0 or 1"),
        (row({"train_detail": [{"train": True}]}), "message 1: train_detail is"),
        (row({"train_on_turn": True}), "message 1: train_on_turn is True, expected one of weight"),
        (row({"no_loss": True}), "message 1: no_loss is"),
        (row({"is_masked": 1}), "message 1: is_masked is"),
        (row({"learn": False}), "message 1: learn is False"),
        (row({"enable_loss": False}), "message 1: enable_loss is False"),
        (row({"training_detail": [1]}), "message 1: training_detail is"),
        (row({"mask": True}), "message 1: mask is True"),
        (row({"weight": 1, "train": False}), "message 1 is marked both ways"),
        (row({"weight": 1}, loss_mask=[0, 0, 0, 1]), "message 1 is marked both ways"),
        (
            row(loss_mask=[0, 1, 1, 1]),
            "message 2 is marked to be trained on by the row's mark, but its role is 'user'",
        ),
        (
            {"messages": [ASKED | {"train": True}, SAID]},
            "message 0 is marked to be trained on by train, but its role",
        ),
        (row(loss_mask=[0, 1]), "loss_mask has 2 entries, expected one for each of 4 messages"),
        (row(loss_mask=[0, 0.5, 0, 1]), "loss_mask is 0.5, expected 0 or 1"),
        (row(weight=0.7), "weight is 0.7, expected 0 or 1"),
        (row(mask="User"), "mask is 'User'"),
        (row(loss_mask=[0, 0, 0, 1], weights=[0, 1, 0, 1]), "message 1: weights contradicts"),
        (
            {
                "messages": [
                    ASKED,
                    SAID | {"content": [{"type": "text", "text": "a", "train": False}]},
                ]
            },
            "a part's train is False",
        ),
    ],
)
def test_marks_that_cannot_be_followed(value, message):
    with pytest.raises(ValueError, match=message):
        conversation_of(value)


def test_marks_that_say_nothing():
    quiet = {"train_detail": [], "mask": False, "masked": None, "loss_scale": None}
    assert trained(row(quiet)) == [False, True, False, True]


# ---- contents


def test_parts_that_are_texts_are_their_text():
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two", "image_url": None}]
    [asked, _] = conversation_of({"messages": [ASKED | {"content": parts}, SAID]}).messages
    assert asked["content"] == "one two"


@pytest.mark.parametrize(
    "content, message",
    [
        ([{"type": "image_url", "image_url": {"url": "x"}}], "has the part {'image_url'"),
        ([{"type": "text", "text": "a"}, {"type": "image"}], "has the part {'type': 'image'}"),
        ([{"type": "text", "text": "a", "image": "x"}], "expected texts alone"),
        (["a"], "has the part 'a'"),
        ([], "role and content are texts"),
        ({"text": "a"}, "role and content are texts"),
        (7, "role and content are texts"),
        (None, "role and content are texts"),
    ],
)
def test_other_contents_are_refused_by_name(content, message):
    with pytest.raises(ValueError, match=f"message 0.*{message}"):
        conversation_of({"messages": [ASKED | {"content": content}, SAID]})


@pytest.mark.parametrize(
    "value, message",
    [
        (row(images=["a.png"]), r"images is \['a.png'\]"),
        (row({"audio": {"id": 1}}), "message 1: audio is"),
        (row(functions=[TOOL]), "functions is .*`tools` alone are read"),
        (row(system="be brief"), "system is 'be brief', expected it as the first of the messages"),
        (row(chat_template_kwargs="[1]"), "chat_template_kwargs is"),
        (row(chat_template_kwargs={"tools": "[]"}), "chat_template_kwargs is"),
        (row(chat_template_kwargs={"documents": "text"}), "documents is 'text', expected a list"),
    ],
)
def test_what_would_be_left_out_without_a_word(value, message):
    with pytest.raises(ValueError, match=message):
        conversation_of(value)


# ---- tools and calls


def test_tools_as_json_text():
    function = {"type": "function", "function": TOOL}
    for tools in ([function], json.dumps([function]), f"\n {json.dumps([function], indent=1)}"):
        assert conversation_of(row(tools=tools)).variables["tools"] == [function]
    for nothing in (None, [], "", "[]", "null"):
        assert conversation_of(row(tools=nothing)).variables["tools"] is None
    kwargs = conversation_of(row(chat_template_kwargs='{"enable_thinking": false}')).variables
    assert kwargs == {"tools": None, "enable_thinking": False}


@pytest.mark.parametrize(
    "tools", ["look", '{"name": "look"}', {"name": "look"}, ["look"], 7, "[1]"]
)
def test_other_tools_are_refused_by_name(tools):
    with pytest.raises(ValueError, match="tools"):
        conversation_of(row(tools=tools))


def test_arrows_nulls_leave_the_schemas_and_the_calls():
    """Every tool has the properties of all, every call the arguments of all."""
    tool = {"name": "look", "parameters": {"properties": {"at": {"type": "string", "default": None}, "n": None}}}  # fmt: skip
    declared = {"name": "wait", "parameters": {"properties": {"until": {"type": "string"}}}}
    call = {"function": {"name": "look", "arguments": {"at": "x", "until": None}}}
    wait = {"function": {"name": "wait", "arguments": {"at": None, "until": None}}}
    turn = {"role": "assistant", "content": None, "tool_calls": [call, wait]}
    found = conversation_of({"messages": [ASKED, turn], "tools": [tool, declared]})
    shown = found.variables["tools"][0]["parameters"]["properties"]
    assert shown == {"at": {"type": "string", "default": None}}
    given = [c["function"]["arguments"] for c in found.messages[1]["tool_calls"]]
    assert given == [{"at": "x"}, {"until": None}]
    alone = conversation_of({"messages": [ASKED, turn]}).messages[1]["tool_calls"]
    assert alone == [call, wait]  # nobody knows which are its own


@pytest.mark.parametrize(
    "fields",
    [
        {"content": None, "tool_calls": [CALL]},
        {"tool_calls": [{"type": "function", "function": CALL}]},
        {"content": "", "tool_calls": '[{"name": "look", "arguments": "{}"}]'},
        {"content": None, "function_call": CALL},
        {"content": "I look.", "tool_calls": [CALL | {"arguments": None}]},
    ],
)
def test_a_turn_that_calls_needs_no_words(fields):
    turn = {"role": "assistant", **fields}
    assert conversation_of({"messages": [ASKED, turn]}).trained == [False, True]


@pytest.mark.parametrize(
    "calls, message",
    [
        ("look", "tool_calls: not JSON"),
        ({"name": "look"}, "expected a list"),
        (["look"], "a tool call is 'look'"),
        ([{"function": "look"}], "a tool call is"),
        ([{"function": {"arguments": {}}}], "with the name of a function"),
        ([{"name": 7, "arguments": {}}], "with the name of a function"),
        ([CALL | {"arguments": [1]}], "its arguments, an object or JSON text"),
    ],
)
def test_other_calls_are_refused_by_name(calls, message):
    with pytest.raises(ValueError, match=f"message 1: .*{message}"):
        conversation_of(row({"tool_calls": calls}))


@pytest.mark.parametrize("older", ["auto", [CALL], {"arguments": "{}"}])
def test_the_older_form_is_read_as_strictly(older):
    turn = {"role": "assistant", "content": None, "function_call": older}
    with pytest.raises(ValueError, match="message 1: a tool call is"):
        conversation_of({"messages": [ASKED, turn]})


def test_an_empty_list_of_calls_is_no_call():
    assert "tool_calls" not in conversation_of(row({"tool_calls": []})).messages[1]


# ---- other layouts


def test_sharegpt():
    found = conversation_of(
        {
            "system": "be brief",
            "tools": [TOOL],
            "conversations": [
                {"from": "human", "value": "where?"},
                {"from": "function_call", "value": '{"name": "look", "arguments": {"at": "x"}}'},
                {"from": "observation", "value": "there"},
                {"from": "gpt", "value": "There.", "weight": 0},
                {"role": "user", "content": "sure?"},
                {"from": "gpt", "value": "Yes."},
            ],
        },
        "sharegpt",
    )
    assert [m["role"] for m in found.messages] == [
        "system", "user", "assistant", "tool", "assistant", "user", "assistant"
    ]  # fmt: skip
    assert found.trained == [False, False, True, False, False, False, True]
    assert found.messages[2]["tool_calls"] == [{"type": "function", "function": CALL}]
    assert found.variables["tools"] == [{"type": "function", "function": TOOL}]
    # LLaMA-Factory's list has an entry for each turn, none for the system prompt's column.
    marked = {"system": "s", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}  # fmt: skip
    assert conversation_of(marked | {"loss_mask": [0, 0]}, "sharegpt").trained == [False] * 3


def test_alpaca():
    found = conversation_of(
        {
            "instruction": "Add.",
            "input": "2 + 2",
            "output": "4",
            "history": [["Hello", "Hi"]],
            "system": "be brief",
        },
        "alpaca",
    )
    assert [(m["role"], m["content"]) for m in found.messages] == [
        ("system", "be brief"),
        ("user", "Hello"),
        ("assistant", "Hi"),
        ("user", "Add.\n2 + 2"),
        ("assistant", "4"),
    ]
    assert found.trained == [False, False, True, False, True]
    plain = {"instruction": "Add.", "input": "", "output": "4", "history": None, "system": None}
    assert [m["content"] for m in conversation_of(plain, "alpaca").messages] == ["Add.", "4"]


SHARED = {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
TASK = {"instruction": "a", "output": "b"}


@pytest.mark.parametrize(
    "value, layout, message",
    [
        (SHARED, "messages", "--layout sharegpt reads conversations"),
        (TASK, "messages", "--layout alpaca reads instruction and output"),
        (
            {"messages": SHARED["conversations"]},
            "messages",
            "--layout sharegpt reads from and value",
        ),
        (TASK, "sharegpt", "conversations is None, expected a list"),
        (SHARED, "alpaca", "instruction is None, expected a text"),
        (TASK | {"output": " "}, "alpaca", "output is ' ', expected a text"),
        (TASK | {"input": 7}, "alpaca", "input is 7, expected a text"),
        (TASK | {"history": [["a"]]}, "alpaca", "history is .*expected a list of pairs"),
        (TASK | {"history": [["a", 7]]}, "alpaca", "role and content are texts"),
        ({"conversations": [{"from": "owl", "value": "a"}]}, "sharegpt", "message 0 is from 'owl'"),
        ({"conversations": [{"from": ["gpt"], "value": "a"}]}, "sharegpt", "message 0 is from"),
        ({"conversations": [{"from": "gpt"}]}, "sharegpt", "role and content are texts"),
        ({"conversations": ["a"]}, "sharegpt", "role and content are texts"),
        (
            {"conversations": [{"from": "function_call", "value": "look"}]},
            "sharegpt",
            "message 0: the call: not JSON",
        ),
    ],
)
def test_rows_of_another_layout_name_it(value, layout, message):
    with pytest.raises(ValueError, match=message):
        conversation_of(value, layout)


def test_no_layout_is_guessed():
    """A row that two layouts could read is read by the one that is asked for."""
    both = {**TASK, **SHARED, "messages": [ASKED, SAID]}
    last = [conversation_of(both, layout).messages[-1]["content"] for layout in ("messages", "sharegpt", "alpaca")]  # fmt: skip
    assert last == ["5", "b", "b"]
