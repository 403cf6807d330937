"""A fuzz test that lets everything pass proves nothing: each way to misbehave is found, and
named."""

import pytest

from tests import fuzz
from tests.fuzz import survive, try_one

MODULE = "tests.broken.misbehaving"


@pytest.mark.parametrize(("check", "said"), [
    ("traceback", "KeyError: 'weight_map'"), ("of_a_library", "UnicodeDecodeError"), ("nameless", "names no file"),
    ("long_sentence", "a sentence of 813 characters"), ("hang", "it hangs"), ("busy", "opened after 1 s"),
    ("memory", "MemoryError"), ("mapped", "names no file: .Errno 12"), ("killed", "it died: SIGSEGV"), ("ended", "it died: exit 3"),
])  # fmt: skip
def test_misbehaviour_is_found(check, said, monkeypatch):
    monkeypatch.setattr(fuzz, "GRACE", 6.0 if check == "hang" else 200.0)  # the machine may be busy
    with pytest.raises(AssertionError, match=f"{check}, case 7: .*({said})"):
        survive(MODULE, [check], [7], seconds=0.5, memory=1 << 29, workers=1)


def test_a_process_that_dies_does_not_take_the_other_cases_with_it():
    with pytest.raises(AssertionError, match="ended, case 0(.|\n)*killed, case 1"):
        survive(MODULE, ["ended", "right", "killed"], range(2), workers=1)
    outcomes = survive(MODULE, ["right"], range(20), workers=2)
    assert outcomes["right", "opened"] + outcomes["right", "refused"] == 20
    assert len(outcomes) == 2


def test_one_case_alone_shows_where():
    with pytest.raises(KeyError):
        try_one(MODULE, "traceback", 0)
    with pytest.raises(AssertionError, match="names no file"):
        try_one(MODULE, "nameless", 0)
    assert {try_one(MODULE, "right", case)[:6] for case in range(9)} == {"opened", "refuse"}
