"""The system calls that an untrusted program is refused, as a filter that the kernel runs.

Refused is what no program needs to solve a task and what has let programs out elsewhere, or what
holds memory that no limit counts: namespaces and mounts, shared memory and queues of the kernel,
memory files, key rings, looking into other processes or at their limits, sockets that are no
network's. Everything else is allowed; the name of a call on each kind of processor is its number.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_NAMESPACES = 0x7E020080  # CLONE_NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_SOCKETS = (1, 2, 10)  # AF_UNIX, AF_INET, AF_INET6
_EPERM, _ENOSYS = 1, 38

# name: (number on x86-64, number on arm64 and RISC-V)
_REFUSED = {
    "unshare": (272, 97), "setns": (308, 268), "chroot": (161, 51), "pivot_root": (155, 41),
    "mount": (165, 40), "umount2": (166, 39), "move_mount": (429, 429), "open_tree": (428, 428),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264),
    "shmget": (29, 194), "shmat": (30, 196), "semget": (64, 190), "msgget": (68, 186),
    "mq_open": (240, 180), "memfd_create": (319, 279), "memfd_secret": (447, 447),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "pidfd_getfd": (438, 438), "kcmp": (312, 272),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "migrate_pages": (256, 238), "move_pages": (279, 239), "personality": (135, 92),
    "ioprio_set": (251, 30), "fanotify_init": (300, 262), "quotactl": (179, 60),
    "swapon": (167, 224), "swapoff": (168, 225), "reboot": (169, 142), "acct": (163, 89),
    "syslog": (103, 116), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "kexec_load": (246, 104), "kexec_file_load": (320, 294),
}  # fmt: skip
# name: (number on x86-64, on the others, which argument, the only value that it may have): a
# process may set what is its own, never what belongs to the process that watches it.
_OWN = {
    "prlimit64": (302, 261, 0), "setpriority": (141, 140, 1), "sched_setparam": (142, 118, 0),
    "sched_setscheduler": (144, 119, 0), "sched_setattr": (314, 274, 0),
    "sched_setaffinity": (203, 122, 0),
}  # fmt: skip
_SOCKET, _CLONE, _CLONE3 = (41, 198), (56, 220), (435, 435)

_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1), "riscv64": (0xC00000F3, 1)}
_LOAD, _EQUAL, _ABOVE, _BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _MACHINE, _ARGUMENT = 0, 4, 16  # where they stand in what the filter is shown


@dataclass(frozen=True)
class _Step:
    """An instruction; `then` and `other` say how many to skip where its test holds or fails."""

    code: int
    value: int
    then: int = 0
    other: int = 0

    def packed(self) -> bytes:
        return struct.pack("=HBBI", self.code, self.then, self.other, self.value)


def machines() -> tuple[str, ...]:
    return tuple(_MACHINES)


def number(name: str, machine: str) -> int:
    """The number of a refused call; 0 on machines that are not known."""
    return _REFUSED[name][_MACHINES[machine][1]] if machine in _MACHINES else 0


def refusals(machine: str) -> bytes:
    """The filter for a kind of processor, as `os.uname().machine` names it; KeyError for others.

    Calls in the manner of another kind (32-bit ones on x86-64) end the program."""
    audit, column = _MACHINES[machine]
    steps = [_Step(_LOAD, _MACHINE), _Step(_EQUAL, audit, then=1), _Step(_RETURN, _KILL)]
    steps += [_Step(_LOAD, _NUMBER), _Step(_ABOVE, 0x40000000, other=1), _Step(_RETURN, _KILL)]
    for numbers in _REFUSED.values():
        steps += [_Step(_EQUAL, numbers[column], other=1), _Step(_RETURN, _REFUSE | _EPERM)]
    steps += [_Step(_EQUAL, _CLONE3[column], other=1), _Step(_RETURN, _REFUSE | _ENOSYS)]
    steps += _judged(_CLONE[column], 0, [_Step(_BITS, _NAMESPACES, then=0, other=1)])
    for x86, others, argument in _OWN.values():
        steps += _judged((x86, others)[column], argument, [_Step(_EQUAL, 0, then=1)])
    families = [
        _Step(_EQUAL, family, then=len(_SOCKETS) - place) for place, family in enumerate(_SOCKETS)
    ]
    steps += _judged(_SOCKET[column], 0, families)
    steps.append(_Step(_RETURN, _ALLOW))
    return b"".join(step.packed() for step in steps)


def _judged(number: int, argument: int, tests: list[_Step]) -> Iterator[_Step]:
    """Refuses call `number` unless one of the tests of its argument (its low 32 bits) skips that.

    The call's number is in the accumulator before and, where this was another call, after."""
    yield _Step(_EQUAL, number, other=len(tests) + 3)
    yield _Step(_LOAD, _ARGUMENT + 8 * argument)
    yield from tests
    yield _Step(_RETURN, _REFUSE | _EPERM)
    yield _Step(_RETURN, _ALLOW)
