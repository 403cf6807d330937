"""Conversations as documents: ids are those of the model's use, targets are what the assistant says with its end, anything else is refused."""

import copy
import itertools
import json

import pytest

from deepwright.data.conversations import documents_of, read_documents
from deepwright.tasks import make_task
from deepwright.text import Tokenizer, number_tokenizer
from tests.text import family as families
from tests.text.templates import CALLING, FAMILIES

SAID = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b", "reasoning_content": "first"},
    {"role": "user", "content": "c"},
    {"role": "assistant", "content": "d", "reasoning_content": "second"},
]
PLAIN = [
    {name: text for name, text in message.items() if name != "reasoning_content"}
    for message in SAID
]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory) -> dict[str, Tokenizer]:
    return {name: families.load(tmp_path_factory.mktemp(name), name) for name in FAMILIES}


def targets(tokenizer: Tokenizer, document) -> list[str]:
    """The trained stretches as text."""
    pairs = zip(document.ids_T.tolist(), document.targets_T.tolist(), strict=True)
    runs = itertools.groupby(pairs, key=lambda pair: pair[1])
    return [
        tokenizer.decode([index for index, _ in run], specials=True)
        for target, run in runs
        if target
    ]


def texts(tokenizer: Tokenizer, document) -> str:
    return tokenizer.decode(document.ids_T.tolist(), specials=True)


THOUGHT = "<think>\n{}\n</think>\n\n"


@pytest.mark.parametrize(
    "name, messages, turns, expected",
    [
        ("smollm", PLAIN, "all", [["b<|im_end|>", "d<|im_end|>"]]),
        ("llama", PLAIN, "all", [["b<|eot_id|>", "d<|eot_id|>"]]),
        ("r1", PLAIN, "last", None),  # the prompt opens a thought that the turn does not have
        ("marked", PLAIN, "all", [["b<|im_end|>", "d<|im_end|>"]]),
        ("marked", PLAIN, "last", [["d<|im_end|>"]]),
        (
            "smollm",
            SAID,
            "all",
            [[THOUGHT.format("first") + "b<|im_end|>", THOUGHT.format("second") + "d<|im_end|>"]],
        ),
        ("qwen", SAID, "all", None),  # an earlier thought disappears when a question follows
        (
            "qwen",
            SAID,
            "each",
            [[THOUGHT.format("first") + "b<|im_end|>"], [THOUGHT.format("second") + "d<|im_end|>"]],
        ),
        ("qwen", SAID, "last", [[THOUGHT.format("second") + "d<|im_end|>"]]),
        ("qwen", SAID[:2], "all", [[THOUGHT.format("first") + "b<|im_end|>"]]),
        ("r1", SAID, "each", None),
    ],
)
def test_what_is_trained_on(tokenizers, name, messages, turns, expected):
    tokenizer = tokenizers[name]
    if expected is None:
        with pytest.raises(
            ValueError, match="does not keep the prompt|changes the turn when others follow"
        ):
            documents_of({"messages": messages}, tokenizer, turns)
    else:
        documents = documents_of({"messages": messages}, tokenizer, turns)
        assert [targets(tokenizer, document) for document in documents] == expected


@pytest.mark.parametrize("name", ["smollm", "llama", "qwen", "marked"])
def test_ids_are_those_of_the_rendered_text_and_of_each_prompt(tokenizers, name):
    tokenizer = tokenizers[name]
    for end, document in zip(
        (2, 4), documents_of({"messages": PLAIN}, tokenizer, "each"), strict=True
    ):
        prompt = tokenizer.encode(tokenizer.render(PLAIN[: end - 1]))
        whole = tokenizer.encode(tokenizer.render(PLAIN[:end], False))
        ids = document.ids_T.tolist()
        assert ids == whole[: len(ids)] and ids[: len(prompt)] == prompt
        assert document.targets_T.tolist() == [False] * len(prompt) + [True] * (
            len(ids) - len(prompt)
        )
        assert (
            ids[-1] == tokenizer.eos_id and len(whole) - len(ids) <= 1
        )  # the line break after the turn is left out


def test_a_token_never_reaches_from_the_prompt_into_the_turn(tokenizers):
    messages = [PLAIN[0], {"role": "assistant", "content": "\nx"}]
    [document] = documents_of({"messages": messages}, tokenizers["smollm"])
    prompt = tokenizers["smollm"].encode(tokenizers["smollm"].render(messages[:1]))
    assert document.ids_T.tolist()[: len(prompt)] == prompt and targets(
        tokenizers["smollm"], document
    ) == ["\nx<|im_end|>"]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_completion_follows_its_prompt_untouched(tokenizers, name):
    tokenizer, completion = tokenizers[name], "why</think>\n\nb"
    [document] = documents_of({"prompt": "a", "completion": completion}, tokenizer)
    assert targets(tokenizer, document) == [completion + tokenizer.eos]
    assert texts(tokenizer, document) == tokenizer.render(PLAIN[:1]) + completion + tokenizer.eos
    [again] = documents_of(
        {"prompt": PLAIN[:1], "completion": completion + tokenizer.eos}, tokenizer
    )
    assert again.ids_T.tolist() == document.ids_T.tolist()
    assert document.ids_T.tolist().count(tokenizer.bos_id) == (
        2 + (name == "smollm") if name == "smollm" else int(name in ("llama", "r1"))
    )


def test_messages_as_completion_train_only_its_turns(tokenizers):
    [document] = documents_of({"prompt": PLAIN[:3], "completion": PLAIN[3:]}, tokenizers["smollm"])
    assert targets(tokenizers["smollm"], document) == ["d<|im_end|>"]


def test_tools_and_other_words_reach_the_template(tokenizers):
    row = {
        "messages": PLAIN,
        "tools": [{"name": "hammer"}],
        "chat_template_kwargs": {"date_string": "1 Jan"},
    }
    text = texts(tokenizers["llama"], documents_of(row, tokenizers["llama"])[0])
    assert "hammer" in text and "Today: 1 Jan" in text


def test_the_small_vocabulary_of_words():
    tokenizer = number_tokenizer(make_task("countdown").tokenizer_words(), 99)
    [document] = documents_of(
        {
            "prompt": "nums 3 4 make 7 :",
            "completion": "<think> 3 + 4 = 7 </think> <answer> 3 + 4 </answer>",
        },
        tokenizer,
    )
    assert document.ids_T[0] == tokenizer.bos_id and document.ids_T[-1] == tokenizer.eos_id
    assert int(document.targets_T.sum()) == 13 and len(document.ids_T) == 1 + 6 + 13


def test_a_template_that_ends_with_a_token_the_model_does_not_stop_at(tokenizers, tmp_path):
    folder = families.write(tmp_path, "qwen")
    for name, key in (
        ("tokenizer_config.json", "eos_token"),
        ("generation_config.json", "eos_token_id"),
    ):
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(
            json.dumps(values | {key: "<|endoftext|>" if key == "eos_token" else 0})
        )
    base = Tokenizer.load(folder)  # a base model: it ends documents, not turns
    with pytest.raises(
        ValueError,
        match=r"b<\|im_end\|>\\n', without one of the model's end tokens \['<\|endoftext\|>'\]",
    ):
        documents_of({"messages": PLAIN[:2]}, base)
    taught = base.also_stopping_at("<|im_end|>")
    assert targets(taught, documents_of({"messages": PLAIN[:2]}, taught)[0]) == [
        "<think>\n\n</think>\n\nb<|im_end|>"
    ]
    assert (base.turn_end_id, taught.turn_end_id, taught.eos_id) == (
        base.eos_id,
        taught.encode("<|im_end|>")[0],
        base.eos_id,
    )
    taught.save(tmp_path / "taught")
    assert Tokenizer.load(tmp_path / "taught").stop_ids == taught.stop_ids
    with pytest.raises(ValueError, match="cannot be an end token"):
        base.also_stopping_at("<nothing>")


def test_what_the_template_drops_is_said(tokenizers, tmp_path):
    folder = families.write(tmp_path, "r1")
    template = FAMILIES["r1"].replace(
        "<｜Assistant｜><think>\\n", "<｜Assistant｜>"
    )  # R1's first release: the prompt opens no thought
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(ValueError, match="message 1: 'first' is lost"):
        documents_of({"messages": SAID[:2]}, Tokenizer.load(folder))
    inline = [SAID[0], {"role": "assistant", "content": "why</think>b"}]
    with pytest.raises(ValueError, match="message 1: 'why' is lost"):
        documents_of({"messages": inline}, Tokenizer.load(folder))
    assert documents_of({"messages": PLAIN}, Tokenizer.load(folder))


# ---- turns that are marked untrained


def marked(*marks):
    """Each of three answers with its mark."""
    chat = []
    for n, mark in enumerate(marks):
        chat.append({"role": "user", "content": f"q{n}"})
        chat.append({"role": "assistant", "content": f"a{n}", "weight": mark})
    return {"messages": chat}


@pytest.mark.parametrize("name", ["smollm", "llama", "marked"])
@pytest.mark.parametrize(
    "marks, turns, expected",
    [
        ((1, 1, 1), "all", [["a0", "a1", "a2"]]),
        ((0, 1, 1), "all", [["a1", "a2"]]),
        ((1, 0, 1), "all", [["a0", "a2"]]),
        ((1, 0, 0), "all", [["a0"]]),
        ((1, 0, 1), "each", [["a0"], ["a2"]]),
        ((1, 1, 0), "last", [["a1"]]),
        ((0, 0, 0), "all", []),
        ((0, 0, 0), "each", []),
        ((0, 0, 0), "last", []),
    ],
)
def test_masked_turns_are_context_and_never_targets(tokenizers, name, marks, turns, expected):
    tokenizer = tokenizers[name]
    end = tokenizer.eos
    documents = documents_of(marked(*marks), tokenizer, turns)
    assert [targets(tokenizer, d) for d in documents] == [[t + end for t in ts] for ts in expected]
    for document in documents:  # all that was said before is there, and nothing after
        ids, last = document.ids_T.tolist(), targets(tokenizer, document)[-1]
        chat = [{k: v for k, v in m.items() if k != "weight"} for m in marked(*marks)["messages"]]
        whole = tokenizer.encode(tokenizer.render(chat, False))
        assert ids == whole[: len(ids)] and tokenizer.decode(ids, specials=True).endswith(last)


def test_rows_with_nothing_to_train_on_are_left_out_and_counted(tokenizers, tmp_path):
    file = tmp_path / "rows.jsonl"
    rows = [marked(0, 0), marked(0, 1), {"prompt": "a", "completion": "b", "train": False}]
    file.write_text("\n".join(map(json.dumps, rows)))
    reading = read_documents(file, tokenizers["smollm"], 1000, "each")
    assert (len(reading.documents), reading.untrained, reading.too_long) == (1, 2, 0)
    assert reading.notes() == ["2 rows in which no turn is to be trained on are left out"]
    file.write_text("\n".join(map(json.dumps, rows[::2])))
    with pytest.raises(ValueError, match="none of 0 documents .*; 2 rows have nothing to train on"):
        read_documents(file, tokenizers["smollm"], 1000)


def test_fields_that_nothing_reads_are_said_once(tokenizers, tmp_path):
    chat = [SAID[0] | {"id": 1, "mood": "kind"}, SAID[1] | {"name": "x", "mood": "dry", "score": 1}]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join([json.dumps({"messages": chat, "source": "web"})] * 3))
    reading = read_documents(file, tokenizers["smollm"], 1000)
    assert reading.notes() == [
        "nothing reads these fields of messages: mood (3 times), score (3 times)"
    ]
    [quiet] = families_of_template("{{ messages[0].mood }}", tokenizers["smollm"])
    assert "mood" not in read_documents(file, quiet, 1000).unread


def families_of_template(text, tokenizer):
    other = copy.copy(tokenizer)
    other.template += "{# " + text.replace("{{", "").replace("}}", "") + " #}"
    return [other]


# ---- tools


ARGUMENTS = {"at": 'é "x"', "n": 2, "deep": {"a": [None, True]}}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}}}  # fmt: skip


def called(arguments=ARGUMENTS, content=None, result="there", **more):
    call = {"type": "function", "id": "c1", "function": {"name": "look", "arguments": arguments}}
    return {
        "messages": [
            {"role": "user", "content": "where?"},
            {"role": "assistant", "content": content, "tool_calls": [call]},
            {"role": "tool", "name": "look", "tool_call_id": "c1", "content": result},
            {"role": "assistant", "content": "There."},
        ],
        **more,
    }


def with_template(tokenizer, template):
    other = copy.copy(tokenizer)
    other.template = template
    other.__dict__.pop("turn_end_id", None)
    return other


@pytest.fixture(scope="module")
def callers(tokenizers):
    base = {"tagged": "smollm", "added": "r1", "single": "llama", "items": "smollm"}
    return {name: with_template(tokenizers[base[name]], CALLING[name]) for name in CALLING}


JSON = json.dumps(ARGUMENTS, ensure_ascii=False)
WRITTEN = {
    "tagged": f'\n<call>\n{{"name": "look", "arguments": {JSON}}}\n</call><|im_end|>',
    "added": f"<call>function<sep>look\n{JSON}</call><｜end▁of▁sentence｜>",
    "single": f'{{"name": "look", "parameters": {JSON}}}<|eot_id|>',
    "items": '<call name="look">\n<at>é "x"</at>\n<n>2</n>\n<deep>{"a": [null, true]}</deep>\n</call><|im_end|>',
}


@pytest.mark.parametrize("name", CALLING)
@pytest.mark.parametrize("arguments", [ARGUMENTS, JSON])
@pytest.mark.parametrize("content", [None, ""])
def test_calls_are_given_in_the_form_that_the_template_takes(callers, name, arguments, content):
    documents = documents_of(called(arguments, content), callers[name], "each")
    first, second = (targets(callers[name], document) for document in documents)
    assert first == [WRITTEN[name].removeprefix("\n")]
    assert second == [("There." + callers[name].eos)]


def test_a_text_of_arguments_keeps_its_characters_where_texts_are_added(callers):
    compact = json.dumps(ARGUMENTS, separators=(",", ":"))
    [document] = documents_of(called(compact), callers["added"], "last")
    assert compact in texts(callers["added"], document)
    code = called("print(1)\n")  # an interpreter's call: no JSON at all
    assert "print(1)\n</call>" in texts(callers["added"], documents_of(code, callers["added"])[0])


def test_the_tools_are_shown_or_it_is_said(callers, tmp_path):
    file = tmp_path / "rows.jsonl"
    for tools in ([TOOL], json.dumps([TOOL])):
        file.write_text(json.dumps(called(tools=tools)) + "\n")
        reading = read_documents(file, callers["tagged"], 1000)
        assert json.dumps(TOOL) in texts(callers["tagged"], reading.documents[0])
        assert reading.notes() == []
    file.write_text(json.dumps(called(tools=[TOOL, {"name": "wait"}])) + "\n")
    reading = read_documents(file, callers["added"], 1000)  # a call itself names the other
    assert reading.notes() == ["the template does not show these tools: wait (1 times)"]


LOSING = {
    "no calls": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}",
    "the first call alone": "{% for m in messages %}<|im_start|>{{ m.content or (m.tool_calls[0].function | tojson) }}<|im_end|>{% endfor %}",
    "no arguments": "{% for m in messages %}<|im_start|>{{ m.content or m.tool_calls[0].function.name }}<|im_end|>{% endfor %}",
    "no results": "{% for m in messages if m.role != 'tool' %}<|im_start|>{{ m.content or (m.tool_calls | tojson) }}<|im_end|>{% endfor %}",
    "no words beside": "{% for m in messages %}<|im_start|>{{ (m.tool_calls | tojson) if m.tool_calls else m.content }}<|im_end|>{% endfor %}",
}
PROMPT = "{% if add_generation_prompt %}<|im_start|>{% endif %}"


@pytest.mark.parametrize("name", LOSING)
def test_what_a_template_loses_of_calls_is_refused(tokenizers, name):
    tokenizer = with_template(tokenizers["smollm"], LOSING[name] + PROMPT)
    value = called({"at": "xyz"}, "I look." if "beside" in name else None)
    if name == "the first call alone":
        second = {"function": {"name": "look", "arguments": {"at": "second"}}}
        value["messages"][1]["tool_calls"].append(second)
    lost = {"no calls": "look", "no arguments": "at", "no results": "there", "no words beside": "I look."}  # fmt: skip
    with pytest.raises(ValueError, match=f"message [12]: '{lost.get(name, 'second')}' is lost"):
        documents_of(value, tokenizer, "last" if name == "no results" else "each")
    prompt, said = value["messages"][:3], "There."
    if name in ("no calls", "no results"):  # also where they are only context
        with pytest.raises(ValueError, match="is lost"):
            documents_of({"prompt": prompt, "completion": said}, tokenizer)


@pytest.mark.parametrize(
    "value", [0, 7, -1.5, True, False, None, "", "a\nb", 'q"q', "é", [], {}, [{"a": "b"}]]
)
@pytest.mark.parametrize("name", CALLING)
def test_any_argument_is_found_again(callers, name, value):
    """Nothing that stands in a rendered turn is said to be lost, however the template writes it."""
    for arguments in ({"at": value}, json.dumps({"at": value})):
        assert documents_of(called(arguments), callers[name], "each")


# ---- files


def test_parquet_and_json_lists(callers, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")
    wait = {"type": "object", "properties": {"until": {"type": "string"}}}
    tools = [
        TOOL,
        {"type": "function", "function": {"name": "wait", "parameters": wait, "description": "d"}},
    ]
    value = called({"at": "x"}, tools=tools)
    value["messages"].insert(0, {"role": "system", "content": "s"})
    other = called({"until": "y"}, tools=tools)
    other["messages"][1]["tool_calls"][0]["function"]["name"] = "wait"
    rows = [value, other, marked(0, 1, 1)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    (tmp_path / "rows.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    expected, *others = (
        [d.ids_T.tolist() for d in read_documents(tmp_path / f"rows.{kind}", callers["tagged"], 2000).documents]
        for kind in ("jsonl", "json", "parquet")
    )  # fmt: skip
    assert len(expected) == 3 and others == [expected, expected]
    (tmp_path / "rows.csv").write_text("a")
    with pytest.raises(ValueError, match=r"expected a \.jsonl, \.json or \.parquet file"):
        read_documents(tmp_path / "rows.csv", callers["tagged"], 100)


def test_other_layouts_by_their_name(tokenizers, tmp_path):
    file = tmp_path / "rows.json"
    shared = {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
    for rows, layout in (([shared], "sharegpt"), ([{"instruction": "a", "output": "b"}], "alpaca")):
        file.write_text(json.dumps(rows))
        [document] = read_documents(file, tokenizers["smollm"], 100, "all", layout).documents
        assert targets(tokenizers["smollm"], document) == ["b<|im_end|>"]
        with pytest.raises(ValueError, match=f"rows.json, row 1: .*--layout {layout}"):
            read_documents(file, tokenizers["smollm"], 100)


@pytest.mark.parametrize(
    "row, message",
    [
        ({"text": "a"}, r"has \['text'\], expected messages, or prompt and completion"),
        ({"prompt": "a"}, "expected messages, or prompt and completion"),
        ({"messages": []}, "expected a list of at least one"),
        ({"messages": "hello"}, "expected a list of at least one"),
        ({"messages": [{"role": "user"}]}, "whose role and content are texts"),
        (
            {
                "messages": [
                    {"role": "user", "content": "a"},
                    {"role": "assistant", "content": "a", "thinking": 7},
                ]
            },
            "role and content are texts",
        ),
        ({"messages": PLAIN, "chat_template_kwargs": {"messages": []}}, "chat_template_kwargs is"),
        ({"messages": PLAIN, "chat_template_kwargs": [1]}, "chat_template_kwargs is"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "surrogates not allowed"),
        ({"messages": ["hello"]}, "whose role and content are texts"),
        ({"messages": PLAIN[:1]}, "nothing to train on"),
        ({"messages": PLAIN[1:]}, "first message is the assistant's"),
        ({"prompt": "a", "completion": " "}, "completion is empty"),
        ({"prompt": 7, "completion": "b"}, "expected a list of at least one"),
    ],
)
def test_bad_rows(tokenizers, tmp_path, row, message):
    file = tmp_path / "rows.jsonl"
    file.write_text("\n" + json.dumps({"messages": PLAIN}) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=f"rows.jsonl, line 3: .*{message}"):
        read_documents(file, tokenizers["smollm"], 1000)


def test_bad_files_and_long_documents(tokenizers, tmp_path):
    file = tmp_path / "rows.jsonl"
    for text, message in (
        ("{", "line 1: not JSON"),
        ("[1]", r"line 1: expected a JSON object"),
        ("", "none of 0 documents"),
        ("\udcff{}", "line 1: not JSON"),
    ):
        file.write_text(text, errors="surrogateescape")
        with pytest.raises(ValueError, match=message):
            read_documents(file, tokenizers["smollm"], 1000)
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": "b" * 300}]
    file.write_text("\n".join(map(json.dumps, rows)))
    reading = read_documents(file, tokenizers["smollm"], 100)
    assert len(reading.documents) == reading.too_long == 1
    assert reading.notes() == ["1 documents of more than 100 tokens are left out"]
    length = reading.documents[0].length
    assert read_documents(file, tokenizers["smollm"], length).too_long == 1
    with pytest.raises(ValueError, match="none of 2 documents has at most"):
        read_documents(file, tokenizers["smollm"], length - 1)
