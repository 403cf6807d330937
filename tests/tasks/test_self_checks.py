"""Reading chains of thought, against chains read by hand."""

import time

from deepwright.tasks.self_checks import SelfCheck, Tally, self_checks, tally


def test_attempts_verdicts_and_equations_by_hand():
    chain = "<think> 3 * 7 = 21 , 21 + 1 = 22 wait 3 * 7 = 20 , 20 - 1 = 19 yes 7 - 3 = 4 </think> <answer> ( 3 * 7 ) - 1 </answer>"
    assert self_checks(chain) == [
        SelfCheck(22, "wait", (True, True)),
        SelfCheck(19, "yes", (False, True)),
        SelfCheck(4, None, (True,)),
    ]
    counts = tally(self_checks(chain), 22)
    assert counts == Tally(yes_unequal=1, wait_equal=1, equations=5, equations_right=4)
    assert (
        counts.yes_rate_when_equal == 0
        and counts.wait_rate_when_unequal == 0
        and counts.equation_accuracy == 0.8
    )


def test_tallies_add_up_and_rates_of_nothing_are_none():
    right = tally(self_checks("1 + 1 = 2 yes 1 + 2 = 3 wait"), 2)
    assert right + right == Tally(yes_equal=2, wait_unequal=2, equations=4, equations_right=4)
    assert (right.yes_rate_when_equal, right.wait_rate_when_unequal) == (1, 1)
    assert (
        Tally().yes_rate_when_equal
        is Tally().wait_rate_when_unequal
        is Tally().equation_accuracy
        is None
    )


def test_what_is_no_attempt_is_passed_over():
    assert (
        self_checks("")
        == self_checks("wait wait yes")
        == self_checks("awaiting yesterday 3 * = 4")
        == []
    )
    assert self_checks("6 / 3 = 2 wait 1 / 0 = 0 wait") == [
        SelfCheck(2, "wait", (True,)),
        SelfCheck(0, "wait", (False,)),
    ]
    assert self_checks("1 + 1 = 1234567890 yes") == []


def test_long_chains_cost_linear_time():
    for text in (
        "1 + 1 = 2 wait " * 50_000,
        "9" * 1_000_000,
        "1 + 1 = " * 100_000,
        "wait" * 200_000,
    ):
        start = time.process_time()
        self_checks(text)
        assert time.process_time() - start < 2  # about a tenth of it in practice
