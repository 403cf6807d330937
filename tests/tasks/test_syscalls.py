"""The filter of system calls: its numbers against the kernel's headers, its steps run in turn."""

import re
import struct
from pathlib import Path

import pytest

from deepwright.tasks import syscalls

HEADERS = {
    "x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
    "aarch64": "/usr/include/asm-generic/unistd.h",
}
ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "riscv64": 0xC00000F3}


@pytest.mark.parametrize("machine", HEADERS)
def test_numbers_are_those_of_the_kernels_headers(machine):
    path = Path(HEADERS[machine])
    if not path.exists():
        pytest.skip(f"{path} is not installed")
    said = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", path.read_text()))
    column = list(HEADERS).index(machine)
    ours = {
        **syscalls._REFUSED,
        **syscalls._OWN,
        "socket": syscalls._SOCKET,
        "clone": syscalls._CLONE,
        "clone3": syscalls._CLONE3,
    }
    for name, numbers in ours.items():
        assert int(said[name]) == numbers[column], name


def decided(machine, number, *args, audit=None):
    """What the filter says of a call: a machine of five instructions, as the kernel's page says."""
    data = struct.pack("=IIQ6Q", number, audit or AUDIT[machine], 0, *args, *[0] * (6 - len(args)))
    code = syscalls.refusals(machine)
    steps = [struct.unpack_from("=HBBI", code, place) for place in range(0, len(code), 8)]
    at = accumulator = 0
    for _ in range(len(steps)):
        kind, then, other, value = steps[at]
        at += 1
        if kind == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif kind == 0x06:
            return value
        else:
            holds = {
                0x15: accumulator == value,
                0x35: accumulator >= value,
                0x45: bool(accumulator & value),
            }[kind]
            at += then if holds else other
    raise AssertionError("the filter does not end")


@pytest.mark.parametrize("machine", syscalls.machines())
def test_every_call_has_its_answer(machine):
    column = int(machine != "x86_64")
    refused = {numbers[column] for numbers in syscalls._REFUSED.values()}
    own = {numbers[column]: numbers[2] for numbers in syscalls._OWN.values()}
    socket, clone, clone3 = (
        one[column] for one in (syscalls._SOCKET, syscalls._CLONE, syscalls._CLONE3)
    )
    for number in range(500):
        expected = EPERM if number in refused else ENOSYS if number == clone3 else ALLOW
        if number == socket:  # of family 0
            expected = EPERM
        assert decided(machine, number) == expected, number
    for number, argument in own.items():
        args = [0] * argument
        assert decided(machine, number, *args, 1) == EPERM
        assert decided(machine, number, *args, 2**32 + 1) == EPERM
    for family in range(64):
        assert decided(machine, socket, family) == (ALLOW if family in (1, 2, 10) else EPERM)
    assert decided(machine, clone, 17) == ALLOW and decided(machine, clone, 0x3D0F00) == ALLOW
    for namespace in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert decided(machine, clone, namespace | 17) == EPERM
    assert decided(machine, 1, audit=0x40000003) == KILL  # a call of 32-bit code
    if machine == "x86_64":
        assert decided(machine, 0x40000000 | 272) == KILL  # and of x32


def test_a_machine_without_a_list_is_no_place_for_programs(monkeypatch):
    import os

    from deepwright.tasks import sandbox

    class Uname:
        machine = "ppc64le"

    monkeypatch.setattr(os, "uname", Uname)
    sandbox.why_not.cache_clear()
    try:
        assert sandbox.why_not("bwrap") == "no list of system calls for ppc64le"
    finally:
        sandbox.why_not.cache_clear()
