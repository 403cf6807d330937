"""Programs that deserve nothing and harm what they can.

Tried on the sandbox alone: a user's own reward might run them as they are, and so would a machine
without confinement."""

from __future__ import annotations

PROGRAMS = {
    "fork bomb": """\
import os
while True:
    os.fork()""",
    "fork bomb that leaves its session": """\
import os
while True:
    if os.fork() == 0:
        os.setsid()""",
    "endless loop": "while True: pass",
    "endless sleep": """\
import time
time.sleep(3600)""",
    "100 GB": "x = bytearray(100 << 30)",
    "endless memory": """\
x = []
while True: x.append(bytearray(1 << 20))""",
    "endless output": "while True: print('x' * 100000)",
    "network": """\
import socket
socket.create_connection(('1.1.1.1', 80), 2)
print('connected')""",
    "deletes files": """\
import shutil
for place in ('/tmp', '/home'): shutil.rmtree(place + '/deepwright-decoy')""",
    "symlink escape": """\
import os
os.symlink('/', 'x')
open('x/tmp/escaped', 'w').write('1')
open('x/etc/escaped', 'w').write('1')""",
    "fills the disk": """\
n = 0
while True:
    open(f'/tmp/{n}', 'wb').write(bytes(1 << 20))
    n += 1""",
    "kills its judge": """\
import os, signal
os.kill(os.getppid(), signal.SIGKILL)""",
    "exits at once": """\
import os
os._exit(0)""",
    "equals everything": """\
class Any:
    def __eq__(self, other): return True
    def __repr__(self): return '...'
import builtins
builtins.repr = lambda x: 'True'
def f(*a): return Any()""",
    "says that it passed": """\
print('OK')
print('passed')
raise SystemExit(0)""",
    "crashes": """\
import ctypes
ctypes.string_at(0)""",
    "fork bomb that goes on": """\
import os
while True:
    try: os.fork()
    except OSError: pass""",
    "children nobody waits for": """\
import os, signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True:
    try:
        if not os.fork():
            for _ in range(10**6): pass
            os._exit(0)
    except OSError: pass""",
    "memory of many processes": """\
import os, time
for _ in range(12):
    if not os.fork():
        x = bytearray(b'1') * (300 << 20)
        time.sleep(60)
time.sleep(60)""",
    "shared memory of the kernel": """\
import ctypes
libc = ctypes.CDLL(None)
while libc.shmget(0, 1 << 28, 0o1600) != -1: pass
raise MemoryError""",
    "memory files": """\
import os
files = []
while True:
    files.append(os.memfd_create('x'))
    os.write(files[-1], bytes(1 << 22))""",
    "a million empty files": "for n in range(10**6): open(f'/tmp/{n}', 'w').close()",
    "a million folders": """\
import os
for n in range(10**6): os.mkdir(f'/tmp/{n}')""",
    "a file of nothing": "open('/tmp/x', 'w').truncate(1 << 40)",
    "huge environment": """\
import os, sys
os.execve(sys.executable, ['python', '-c', 'pass'], {str(n): '1' * 100_000 for n in range(100)})""",
    "raises its limits": """\
import resource
resource.setrlimit(resource.RLIMIT_NPROC, (9999, 9999))""",
    "limits its judge": """\
import resource
resource.prlimit(1, resource.RLIMIT_CPU, (0, 0))""",
    "slows its judge": """\
import os
os.setpriority(os.PRIO_PROCESS, 1, 19)""",
    "looks into its judge": """\
import os
print(os.listdir('/proc/1/fd'), os.open('/proc/1/fd/3', os.O_RDWR), open('/proc/1/mem', 'r+b'))""",
    "signals everybody": """\
import os
os.kill(-1, 9)""",
    "a socket to the host": """\
import socket
socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).connect((2, 1))""",
    "a device": """\
import os
os.mknod('/tmp/disk', 0o60666, os.makedev(8, 0))
open('/tmp/disk', 'rb').read(1)""",
    "a list that holds itself": """\
x = []
x.append(x)
def f(*a): return x""",
    "numbers that hash alike": """\
x = {n * (2**61 - 1) for n in range(3000)}
def f(*a): return x""",
    "answers by itself": """\
import os
for end in range(3, 20):
    try: os.write(end, b'{"value": 2}\\n' * 9)
    except OSError: pass
os._exit(0)""",
}
