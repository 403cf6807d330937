"""Runs inside the confinement: gives up all privileges, starts a program, watches it to its end.

`sandbox.py` starts this text with `python -c`, so it imports nothing of the package; its arguments
are two file descriptors: the job (marshal: what to run, and how), and a socket to the judge, which
the program does not inherit. One line on it says how everything ended:

    ended STATUS    the program ended by itself; negative: by that signal
    stopped WHY     it overstepped a limit; it alone is to blame
    failed WHY      something else went wrong, and nothing follows about the program

Where the launcher is the first process of its own process namespace, its end is everybody's, and
nothing in there can end, stop or look into it. It leaves when the judge hangs up.
"""

import contextlib
import ctypes
import marshal
import os
import resource
import select
import signal
import sys
import time

_LIBC = ctypes.CDLL(None, use_errno=True)
_TICK = os.sysconf("SC_CLK_TCK")
_NO_NEW_PRIVILEGES, _SECCOMP, _DUMPABLE, _DROP_BOUNDING = 38, 22, 4, 24  # for prctl
_READ_ONLY, _NO_SUID, _NO_DEVICES, _REMOUNT, _BIND, _ALL_BELOW = 1, 2, 4, 32, 4096, 16384
_KEPT = {1 << n: 1 << n for n in (1, 2, 3, 10, 11)} | {4096: 1 << 21}  # of statvfs, for mount
_DETACH = 2


class Clock:
    """Time that the program had: what passes while no processor was free for it is not its own."""

    def __init__(self, now, tick):
        self.begun = self.seen = now
        self.tick, self.own = tick, 0.0

    def advance(self, now, waited, ready, running):
        """`waited`: seconds since the last call that a thread of the program, the one for which it
        is most, was ready and had no processor. `ready`: how many of its threads have one or wait
        for one now; `running`: how many of the whole machine, with this process. Threads share
        alike, so what the program's own take from each other is its own time."""
        passed, self.seen = now - self.seen, now
        late = passed - 2 * self.tick  # this process itself was not let run, or the machine slept
        others = max(0, running - ready - 1)
        share = others / (others + ready - 1) if ready > 1 else 1.0
        self.own += passed - share * min(passed, max(waited, late, 0.0))


class Wait:
    """How long a thread was ready without a processor. The kernel tells when the wait is over: one
    that still lasts is seen by nothing having happened, and not counted again afterwards."""

    def __init__(self):
        self.before, self.ahead = (0, 0), 0.0

    def since(self, ran, waited, ready, passed):
        """`ran`, `waited`: nanoseconds so far. Of the seconds that `passed` since the last call."""
        (ran_before, waited_before), self.before = self.before, (ran, waited)
        risen = (waited - waited_before) / 1e9
        if ready and not risen and ran == ran_before:
            self.ahead += passed
            return passed
        risen, self.ahead = max(0.0, risen - self.ahead), 0.0
        return risen


class Watched:
    """The processes of a program: what they use, read from /proc."""

    def __init__(self, child, everybody):
        self.child, self.everybody = child, everybody
        self.waits, self.count = {}, 1

    def processes(self):
        if not self.everybody:
            return [str(self.child)]
        return [name for name in os.listdir("/proc") if name.isdigit() and name != "1"]

    def look(self, passed):
        """Of the `passed` seconds since the last look, how long a thread waited for a processor
        (or a disk), and how many are ready; processor seconds so far; bytes of memory."""
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        used, memory = ended.ru_utime + ended.ru_stime, 0
        waited, ready, waits = 0.0, 0, {}
        found = self.processes()
        self.count = len(found)
        for pid in found:
            try:
                fields = _fields(f"/proc/{pid}")
                used += sum(map(int, fields[11:15])) / _TICK
                memory += int(fields[21]) * resource.getpagesize()
                tasks = [pid] if fields[17] == "1" else os.listdir(f"/proc/{pid}/task")
                for task in tasks:
                    state = _fields(f"/proc/{pid}/task/{task}")[0]
                    ran, delay = _read(f"/proc/{pid}/task/{task}/schedstat").split()[:2]
                    waits[task] = self.waits.get(task) or Wait()
                    since = waits[task].since(int(ran), int(delay), state == "R", passed)
                    waited = max(waited, passed if state == "D" else since)
                    ready += state == "R"
            except (OSError, IndexError):  # it ended meanwhile
                continue
        self.waits = waits
        return waited, ready, used, memory

    def share(self):
        """Bytes of memory, pages that several processes share counted once; None if not known."""
        total = 0
        for pid in self.processes():
            try:
                lines = _read(f"/proc/{pid}/smaps_rollup").splitlines()
                total += sum(int(line.split()[1]) << 10 for line in lines if line[:4] == "Pss:")
            except ProcessLookupError:
                continue
            except OSError:
                return None
        return total


def _fields(place):
    """What stands behind the name in a stat file: state first."""
    return _read(f"{place}/stat").rpartition(")")[2].split()


def _running():
    """How many threads of the whole machine have a processor or wait for one."""
    try:
        return int(_read("/proc/loadavg").split()[3].partition("/")[0])
    except (OSError, ValueError, IndexError):
        return 0


def _read(path):
    with open(path) as file:
        return file.read()


def enclose(root, shown, devices, scratch, pivot_root):
    """The file system that bubblewrap would have made: `root` is an empty folder, `shown` can be
    read in it, `devices` used, and /tmp holds `scratch` bytes."""
    _mount("sandbox", root, "tmpfs", _NO_SUID, "mode=755,size=1m")
    os.mkdir(f"{root}/tmp")
    os.mkdir(f"{root}/proc")
    _mount("scratch", f"{root}/tmp", "tmpfs", _NO_SUID | _NO_DEVICES, f"mode=1777,size={scratch}")
    for path in (*shown, *devices):
        folder = path if os.path.isdir(path) else os.path.dirname(path)
        os.makedirs(root + folder, exist_ok=True)
        if not os.path.isdir(path):
            open(root + path, "x").close()
        _mount(path, root + path, None, _BIND | _ALL_BELOW)
    open_to_all = {f"{root}/tmp", *(root + path for path in devices)}
    places = [line.split()[4] for line in _read("/proc/self/mountinfo").splitlines()]
    for place in places:
        if place.startswith(f"{root}/") and place not in open_to_all:
            flags = os.statvfs(place).f_flag
            kept = sum(given for known, given in _KEPT.items() if flags & known)
            _mount("none", place, None, _REMOUNT | _BIND | _READ_ONLY | _NO_SUID | kept)
    _mount("proc", f"{root}/proc", "proc", _NO_SUID | _NO_DEVICES)
    _mount("none", root, None, _REMOUNT | _BIND | _READ_ONLY | _NO_SUID)
    os.chdir(root)
    if _LIBC.syscall(pivot_root, b".", b".") or _LIBC.umount2(b".", _DETACH):
        raise OSError(ctypes.get_errno(), "pivot_root")
    os.chdir("/tmp")


def _mount(source, place, kind, flags, options=""):
    words = [word and word.encode() for word in (source, place, kind)]
    if _LIBC.mount(*words, ctypes.c_ulong(flags), options.encode()):
        raise OSError(ctypes.get_errno(), f"mount {place}: {os.strerror(ctypes.get_errno())}")


def give_up(uid):
    """Becomes a user of its own where it may, and drops every capability for good."""
    for capability in range(64):
        _LIBC.prctl(_DROP_BOUNDING, capability, 0, 0, 0)
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    if _LIBC.capset(header, (ctypes.c_uint32 * 6)()):
        raise OSError(ctypes.get_errno(), "capset")
    lines = _read("/proc/self/status").splitlines()
    kept = [line for line in lines if line[:3] == "Cap" and int(line.split()[1], 16)]
    if kept:
        raise PermissionError(f"kept {kept}")


class _Filter(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def begin(job, line):
    """Forks the program, which gets its limits in its own process; returns its id."""
    child = os.fork()
    if child:
        return child
    try:
        limits = job["limits"]
        for name, value in limits.items():
            resource.setrlimit(getattr(resource, name), (value, value))
        if _LIBC.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "no_new_privs")
        if steps := job["refusals"]:
            rules = _Filter(len(steps) // 8, steps)
            if _LIBC.prctl(_SECCOMP, 2, ctypes.byref(rules), 0, 0):
                raise OSError(ctypes.get_errno(), "seccomp")
        os.execv(job["argv"][0], job["argv"])
    except BaseException as error:
        say(line, f"failed {type(error).__name__}: {error}")
    os._exit(127)


def say(line, text):
    with contextlib.suppress(OSError):  # the judge hung up
        os.write(line, text.replace("\n", " ")[:2000].encode() + b"\n")


def watch(child, job, line, alone):
    """The line that says how the program ended."""
    poller, tick = select.poll(), job["tick"]
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    poller.register(reader, select.POLLIN)
    poller.register(line, 0)
    clock, watched, killed = Clock(time.monotonic(), tick), Watched(child, alone), _killed()
    while True:
        events = dict(poller.poll(tick * 1000))
        if line in events:
            os._exit(0)
        if reader in events:
            os.read(reader, 4096)
        status = _reaped(child)
        if status is not None:
            if status and _killed() > killed:
                return "failed the machine ran out of memory"
            return f"ended {status}"
        now = time.monotonic()
        if now - clock.seen >= tick and (said := _judged(job, clock, watched, now, alone)):
            return said


def _reaped(child):
    """The program's status once it has ended; orphans of its making are buried on the way."""
    status = None
    while True:
        try:
            pid, ended = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == child:
            status = os.waitstatus_to_exitcode(ended)


def _judged(job, clock, watched, now, alone):
    """What to say of a program that runs on; '' where nothing is to be said yet."""
    waited, ready, used, memory = watched.look(now - clock.seen)
    clock.advance(now, waited, ready, _running())
    if watched.count > job["processes"]:
        return f"stopped more than {job['processes']} processes"
    files, size = _scratch() if alone else (0, 0)
    if files > job["files_most"]:
        return f"stopped more than {job['files_most']} files"
    if memory + size > job["memory"]:
        shared = watched.share()
        if shared is None or shared + size > job["memory"]:
            return f"stopped more than {job['memory'] >> 20} MB of memory"
    if job["cpu_seconds"] and used >= job["cpu_seconds"]:
        return f"stopped out of processor time ({job['cpu_seconds']} s)"
    if not job["seconds"]:
        return ""
    if clock.own >= job["seconds"]:
        return f"stopped out of time ({job['seconds']:g} s)"
    if now - clock.begun >= job["patience"] * job["seconds"]:
        given = f"{clock.own:.1f} of {job['seconds']:g} s in {now - clock.begun:.0f} s"
        return f"failed the machine was too busy: the program got {given}"
    return ""


def _scratch():
    """Files in /tmp, and their bytes."""
    place = os.statvfs("/tmp")
    return place.f_files - place.f_ffree, (place.f_blocks - place.f_bfree) * place.f_frsize


def _killed():
    """How many processes the kernel has ended for want of memory since it started."""
    try:
        lines = _read("/proc/vmstat").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def main(given, line):
    for descriptor in (given, line):
        os.set_inheritable(descriptor, False)
    try:
        with open(given, "rb") as file:
            job = marshal.load(file)
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")  # where memory runs out, the kernel ends this first
        if job["enclosed"]:
            enclose(*job["enclosed"])
        if job["confined"]:
            give_up(job["uid"])
        for name, content in job["files"].items():
            os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
            with open(name, "wb") as file:
                file.write(content)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        child = begin(job, line)
        _LIBC.prctl(_DUMPABLE, 0, 0, 0, 0)  # nobody looks into this process, though of its user
        alone = os.getpid() == 1
        said = watch(child, job, line, alone)
        if not alone and not said.startswith("ended"):
            os.kill(child, signal.SIGKILL)
    except BaseException as error:
        said = f"failed {type(error).__name__}: {error}"
    say(line, said)
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
