"""Chat templates of four families: the same characters as transformers renders, one BOS, reasoning as the template has it, a closed sandbox."""

import copy
import functools
import itertools
import json

import pytest
import tokenizers

from deepwright.text import Tokenizer, metering
from deepwright.text.templates import render
from tests.text import family as families
from tests.text.template_grammar import Grammar
from tests.text.templates import (
    BOS,
    CALLING,
    CONSTRUCTS,
    EOS,
    FAMILIES,
    LLAMA,
    MARKED,
    QWEN,
    R1,
)

TOOLS = [
    {"type": "function", "function": {"name": "f<é>&'", "parameters": {"b": 1, "a": [True, None]}}}
]
CHATS = {
    "question": [{"role": "user", "content": " 2 + 2? "}],
    "system": [
        {"role": "system", "content": "brief\n"},
        {"role": "user", "content": "<b>'日本'</b> & co"},
    ],
    "answered": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "\nb \n"}],
    "inline thoughts": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "<think>\nfirst\n</think>\n\nb"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "<think>\nsecond\n</think>\n\nd"},
    ],
    "named thoughts": [
        {"role": "user", "content": "a", "name": None},
        {"role": "assistant", "content": "b", "reasoning": "first"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d", "reasoning_content": "second", "tool_calls": None},
    ],
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: families.write(tmp_path_factory.mktemp(name), name) for name in FAMILIES}


def theirs_of(folder):
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("name", FAMILIES)
def test_characters_and_ids_equal_transformers(folders, name, chat):
    ours, theirs = Tokenizer.load(folders[name]), theirs_of(folders[name])
    for prompt in (True, False):
        for more in ({}, {"tools": TOOLS}, {"enable_thinking": False}, {"date_string": "1 Jan"}):
            expected = theirs.apply_chat_template(
                CHATS[chat], tokenize=False, add_generation_prompt=prompt, **more
            )
            assert ours.render(CHATS[chat], prompt, **more) == expected
            ids = theirs.apply_chat_template(CHATS[chat], add_generation_prompt=prompt, **more)[
                "input_ids"
            ]
            assert ours.encode(ours.render(CHATS[chat], prompt, **more)) == ids


CALL = {
    "type": "function",
    "id": "c1",
    "function": {"name": "look", "arguments": {"at": "é <b>", "n": 2, "deep": {"a": [None]}}},
}
TEXT = {**CALL, "function": {"name": "look", "arguments": '{"at":"é", "n": 2}'}}
RESULT = {"role": "tool", "name": "look", "tool_call_id": "c1", "content": '{"seen": "x"}'}
CALLED = {
    "object": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "", "tool_calls": [CALL]}, RESULT, {"role": "assistant", "content": "d"}],
    "text": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "", "tool_calls": [TEXT]}, RESULT],
    "null": [{"role": "user", "content": "a"}, {"role": "assistant", "content": None, "tool_calls": [TEXT]}, RESULT, RESULT],
    "two, with words": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"},
                        {"role": "assistant", "content": "b", "tool_calls": [CALL, TEXT]}],
    "bare": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "", "tool_calls": [CALL["function"]]}],
    "parts": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
    "roles": [{"role": "developer", "content": "a"}, {"role": "ipython", "content": {"a": 1}}, {"role": "function", "content": "c"}],
}  # fmt: skip


def characters(template, messages, **more):
    """What transformers and we make of a template; None where it refuses the messages."""
    theirs = reference()
    texts = []
    for rendering in (
        lambda: theirs.apply_chat_template(
            messages, chat_template=template, tokenize=False, **more
        ),
        lambda: render(
            template,
            messages,
            **{"add_generation_prompt": False, **theirs.special_tokens_map, **more},
        )[0],
    ):
        try:
            texts.append(rendering())
        except Exception:  # the reference raises whatever jinja2 does
            texts.append(None)
    return texts


@functools.cache
def reference():
    """A tokenizer of transformers of which only the special tokens matter."""
    transformers = pytest.importorskip("transformers")
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<s>": 0, "</s>": 1}, "<s>"))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>"
    )


@pytest.mark.parametrize(
    "more", [{}, {"tools": TOOLS}, {"documents": [{"title": "t", "text": "x"}]}]
)
@pytest.mark.parametrize("template", CONSTRUCTS)
def test_every_construct_equals_transformers(template, more):
    for chat in (*CHATS.values(), *CALLED.values()):
        theirs, ours = characters(template, chat, **more)
        assert ours == theirs


@pytest.mark.parametrize("more", [{}, {"tools": TOOLS}])
@pytest.mark.parametrize("name", CALLING)
def test_tool_calls_equal_transformers_wherever_it_renders(name, more):
    for chat, prompt in itertools.product((*CALLED.values(), *CHATS.values()), (True, False)):
        theirs, ours = characters(CALLING[name], chat, add_generation_prompt=prompt, **more)
        assert theirs is None or ours == theirs


def test_a_turn_of_calls_alone_is_rendered_where_transformers_gives_up():
    """transformers takes the field away, and a template that asks whether it is null then fails."""
    theirs, ours = characters(CALLING["added"], CALLED["null"])
    assert theirs is None and ours is not None
    assert ours.startswith(
        '<s><｜User｜>a<｜Assistant｜><call>function<sep>look\n{"at":"é", "n": 2}</call></s>'
    )
    by_content = "{% for m in messages %}{{ 'x' if '</think>' in m.content else m.content + '.' }}{% endfor %}"
    theirs, ours = characters(by_content, CALLED["null"][:2])
    assert (theirs, ours) == (None, "a..")  # this one knows neither: nothing in it


def agreement(seeds):
    """How many random templates both render; all others both must refuse, or cost too much to ask."""
    chat, both = [*CHATS["answered"], {"role": "user", "content": "<a> é\n", "name": "q"}], 0
    for seed in seeds:
        template = Grammar(seed).template()
        try:
            render(template, chat, add_generation_prompt=False, bos_token="<s>", eos_token="</s>")
        except ValueError as error:
            if "more than any conversation needs" in str(error):
                continue  # transformers would go on
        theirs, ours = characters(template, chat)
        assert ours == theirs, seed
        both += ours is not None
    return both


def test_random_templates_equal_transformers(monkeypatch):
    monkeypatch.setattr(metering, "UNITS", 300_000)
    monkeypatch.setattr(metering, "MOST_UNITS", 0)
    assert agreement(range(60)) > 45


@pytest.mark.slow
def test_thousands_of_random_templates_equal_transformers(monkeypatch):
    monkeypatch.setattr(metering, "UNITS", 300_000)
    monkeypatch.setattr(metering, "MOST_UNITS", 0)
    assert agreement(range(1000, 4000)) > 2400


@pytest.mark.parametrize(
    "chat", ["inline thoughts", "named thoughts"]
)  # no token crosses a border in these
def test_generation_marks_equal_transformers(folders, chat):
    ours, theirs = Tokenizer.load(folders["marked"]), theirs_of(folders["marked"])
    out = theirs.apply_chat_template(
        CHATS[chat], return_dict=True, return_assistant_tokens_mask=True
    )
    spans = ours.assistant_spans(CHATS[chat])
    text = ours.render(CHATS[chat], False)
    assert [text[start:end] for start, end in spans] == [
        m["content"] + "<|im_end|>" for m in CHATS[chat] if m["role"] == "assistant"
    ]
    pieces, place, mask = [], 0, []
    for start, end in spans:
        pieces += [text[place:start], text[start:end]]
        place = end
    for n, ids in enumerate(ours.encode_pieces([*pieces, text[place:]])):
        mask += [n % 2] * len(ids)
    assert mask == out["assistant_masks"]
    assert Tokenizer.load(folders["qwen"]).assistant_spans(CHATS[chat]) is None


def test_marks_count_from_the_start_of_the_text_also_with_an_added_bos(tmp_path):
    folder = families.write(tmp_path, "r1")
    (folder / "chat_template.jinja").write_text(MARKED)
    tokenizer = Tokenizer.load(folder)
    text, [(start, end)] = (
        tokenizer.render(CHATS["answered"], False),
        tokenizer.assistant_spans(CHATS["answered"]),
    )
    assert text.startswith(BOS["r1"]) and text[start:end] == "\nb \n<|im_end|>"


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("model_type", [None, "llama", "qwen2", "qwen3", "deepseek_v3"])
def test_a_saved_folder_is_the_same_tokenizer_to_us_and_to_transformers(
    folders, tmp_path, name, model_type
):
    ours = Tokenizer.load(folders[name])
    ours.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    fields = ("template", "bos_id", "eos_id", "pad_id", "stop_ids", "adds_bos", "vocab_size")
    assert [getattr(again, field) for field in fields] == [getattr(ours, field) for field in fields]
    if model_type:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    theirs = theirs_of(tmp_path)
    text = "The answer\n\nis 4. <think>日本</think>"
    # transformers 5 adds what tokenizer.json adds, whatever the config says
    bos = [ours.bos_id] if name == "llama" else []
    assert (
        theirs(text)["input_ids"]
        == bos + ours.encode(text)
        == theirs_of(folders[name])(text)["input_ids"]
    )
    for chat in CHATS.values():
        assert theirs.apply_chat_template(chat, tokenize=False) == ours.render(chat, False)


def test_ends_and_beginnings_of_each_family(folders):
    tokenizers = {name: Tokenizer.load(folder) for name, folder in folders.items()}
    for name, tokenizer in tokenizers.items():
        ids = [tokenizer.backend.token_to_id(token) for token in (EOS[name], "<|endoftext|>")]
        assert tokenizer.eos_id == ids[0] and tokenizer.stop_ids == tuple(
            ids[:1] if name == "r1" else ids
        )
        assert tokenizer.pad_id == ids[1] and tokenizer.turn_end_id == ids[0]
        assert tokenizer.decode([*tokenizer.encode("4"), ids[0]]) == "4"
    assert [tokenizers[name].adds_bos for name in FAMILIES] == [False, True, False, True, False]
    assert tokenizers["qwen"].bos_id is None and tokenizers["smollm"].bos == "<|im_start|>"


@pytest.mark.parametrize("written", ["", "{{ bos_token }}", "{{ bos_token + bos_token }}"])
def test_exactly_one_bos_whether_or_not_the_template_writes_it(tmp_path, written):
    folder = families.write(tmp_path, "r1")
    body = "{% for m in messages %}{{ m.content }}{% endfor %}"
    (folder / "chat_template.jinja").write_text(written + body)
    ids = Tokenizer.load(folder).encode_prompt("4")
    bos = Tokenizer.load(folder).bos_id
    assert ids[0] == bos and ids.count(bos) == 1 and len(ids) == 2
    config = json.loads((folder / "tokenizer_config.json").read_text()) | {"add_bos_token": False}
    # now only the template decides
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert Tokenizer.load(folder).encode_prompt("4").count(bos) == (1 if written else 0)


def test_earlier_reasoning_stays_or_goes_as_the_template_has_it(folders):
    for name, chat, kept in (("qwen", "named thoughts", [0, 1]), ("qwen", "inline thoughts", [0, 1]), ("r1", "inline thoughts", [0, 0]),
                             ("smollm", "inline thoughts", [1, 1]), ("smollm", "named thoughts", [0, 0])):  # fmt: skip
        text = Tokenizer.load(folders[name]).render(CHATS[chat], False)
        assert [text.count("first"), text.count("second")] == kept, (name, chat)


def test_the_template_may_stand_in_the_config_and_there_may_be_several(tmp_path):
    folder = families.write(tmp_path, "qwen", template_in_config=True)
    assert Tokenizer.load(folder).template == QWEN
    config = json.loads((folder / "tokenizer_config.json").read_text())
    several = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": R1}]
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": several}))
    assert Tokenizer.load(folder).template == R1
    (folder / "tokenizer_config.json").write_text(
        json.dumps(config | {"chat_template": several[:1]})
    )
    with pytest.raises(ValueError, match="expected a text or one named 'default'"):
        Tokenizer.load(folder)


def test_a_template_refuses_in_its_own_words():
    with pytest.raises(ValueError, match="no ipython here"):
        render(
            LLAMA,
            [{"role": "user", "content": ""}, {"role": "ipython", "content": ""}],
            add_generation_prompt=True,
            bos_token="",
        )


@pytest.mark.parametrize(
    "hostile",
    ["{{ messages.append(1) }}", "{{ ''.__class__.__mro__ }}", "{{ messages[0].update(a=1) }}", "{{ raise_exception.__globals__.x }}",
     "{{ strftime_now.__globals__.x }}", "{% include '/etc/passwd' %}", "{{ 1 / 0 }}", "{{ 1 + 'a' }}", "{{ dict.update(messages[0], a=1) }}",
     "{% for x in range(9999999999) %}{% endfor %}", "{{ messages['a'].b.c }}", "{% generation %}", "{{ '\\ud800' }}", "{{ strftime_now(5) }}",
     "{% for None in x %}{% endfor %}", "{% break %}", "{{ raise_exception(messages) }}", "{{ dict(a=1, a=2) }}", "{{ 1[2] }}{{ x.y.z }}"],
)  # fmt: skip
def test_a_hostile_template_is_one_sentence(hostile):
    with pytest.raises(ValueError, match="chat template") as caught:
        render(hostile, CHATS["question"], add_generation_prompt=True)
    assert len(str(caught.value)) < 300 and "\n" not in str(caught.value)


def test_a_template_changes_nothing_that_it_is_given():
    chat, tools = copy.deepcopy(CALLED["object"]), copy.deepcopy(TOOLS)
    for path in ("messages", "messages[1].tool_calls[0].function.arguments", "tools[0]"):
        for attack in ("x.update({'a': 1})", "x.append(1)", "dict.update(x, {'a': 1})", "x.pop()"):
            with pytest.raises(ValueError, match="chat template"):
                render(f"{{% set x = {path} %}}{{{{ {attack} }}}}", chat, add_generation_prompt=False, tools=tools)  # fmt: skip
    assert (chat, tools) == (CALLED["object"], TOOLS)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"x" * 10_000_000, r"it has 10,000,000 characters, at most 100,000 are read"),
        (b"\x00\xff\xfe{{ a }}", "chat_template.jinja is no UTF-8 text"),
        (b"{{ " + b"(" * 20_000 + b")" * 20_000 + b" }}", "maximum recursion depth exceeded"),
        (b"{% for a in b %}" * 200 + b"{% endfor %}" * 200, "too many|maximum"),
        (b"{% if a %}" * 3000 + b"{% endif %}" * 3000, "maximum recursion depth exceeded"),
        (b"{{ 1 + }}", "unexpected 'end of print statement'"),
    ],
)
def test_a_sentence_names_the_file_of_the_template(tmp_path, content, message):
    folder = families.write(tmp_path, "qwen")
    (folder / "chat_template.jinja").write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        Tokenizer.load(folder).encode_prompt("4")
    assert str(folder / "chat_template.jinja") in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_sentence_names_the_config_that_holds_the_template(tmp_path):
    folder = families.write(tmp_path, "qwen", template_in_config=True)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps(config | {"chat_template": "{{ 1/0 }}"})
    )
    with pytest.raises(ValueError, match="tokenizer_config.json: the chat template cannot be rend"):
        Tokenizer.load(folder).encode_prompt("4")


@pytest.mark.parametrize("special, message", [
    ({"eos_token": "<nowhere>"}, "'<nowhere>' is not in the vocabulary"), ({"eos_token": None}, "eos_token is None"),
    ({"bos_token": 7}, "bos_token is 7"),
])  # fmt: skip
def test_bad_special_tokens(tmp_path, special, message):
    folder = families.write(tmp_path, "qwen")
    for other in ("special_tokens_map.json", "generation_config.json"):
        (folder / other).unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | special))
    with pytest.raises(ValueError, match=message):
        Tokenizer.load(folder)


def test_an_end_token_outside_the_vocabulary(tmp_path):
    folder = families.write(tmp_path, "qwen")
    (folder / "generation_config.json").write_text('{"eos_token_id": [7, 99999]}')
    with pytest.raises(ValueError, match="99999 is not in the vocabulary"):
        Tokenizer.load(folder)
    (folder / "generation_config.json").write_text("[1]")
    with pytest.raises(ValueError, match="expected an object"):
        Tokenizer.load(folder)


def test_pieces_are_the_whole_unless_a_token_crosses_their_border(tmp_path):
    tokenizer = families.load(tmp_path, "qwen")
    before, after = tokenizer.encode_pieces(["assistant", "\n\nThe answer"])
    assert before + after == tokenizer.encode("assistant\n\nThe answer")
    # "\n\n" is one token of this vocabulary
    before, after = tokenizer.encode_pieces(["assistant\n", "\nThe answer"])
    assert before + after != tokenizer.encode("assistant\n\nThe answer")
    assert [before, after] == [tokenizer.encode("assistant\n"), tokenizer.encode("\nThe answer")]
    assert tokenizer.encode_pieces(["", "ab", ""])[1] == tokenizer.encode("ab")
