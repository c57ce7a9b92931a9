"""Whole scripts that use what a program's calls may not, a pair of sockets and threads, to get further than they should."""

# One attack a line reads better than the same attack on six.
# ruff: noqa: E501

from dataclasses import dataclass


@dataclass(frozen=True)
class ScriptAttack:
    """A script and all that it may come to. stdout: what it prints, None for anything. ends: how it may end, as a status and a return code: "refused" is
    an exception of its own, "killed" a signal."""

    name: str
    source: str
    stdout: str | None = ""
    ends: tuple[str, ...] = ("finished",)
    seconds: float = 20.0

    def __str__(self) -> str:
        return self.name


REFUSED = ("refused",)
C = "import ctypes, os, socket, threading\nl = ctypes.CDLL(None, use_errno=True)\ndef must(r):\n    if r < 0: raise OSError(ctypes.get_errno(), 'refused')\n    return r\n"
PAIR = "import socket\na, b = socket.socketpair()\n"
IN_A_THREAD = "import threading\nsaid = []\ndef run():\n    try: said.append({})\n    except OSError as error: said.append(type(error).__name__)\nt = threading.Thread(target=run)\nt.start()\nt.join()\nprint(*said)"
PAIRS = """
import socket
made = []
for family in range(64):
    for kind in range(16):
        try: made.append((family, kind, [one.close() for one in socket.socketpair(family, kind)]))
        except OSError: pass
    for kind in range(16):
        try: made.append((family, kind, socket.socket(family, kind)))
        except OSError: pass
print(made)
"""
SIXTEEN = """
import threading, time
over, started = threading.Event(), []
try:
    for _ in range(1000): started.append(threading.Thread(target=over.wait)), started[-1].start()
except RuntimeError as error: print(len(started) - 1, error)
over.set()
"""
HUNDREDS_ONE_BY_ONE = """
import threading
try:
    for k in range(1000): t = threading.Thread(target=int); t.start(); t.join()
except RuntimeError: print(k)
"""
FLOOD_PAIRS = """
import socket
pairs, held = [], 0
try:
    while True:
        pairs.append(socket.socketpair())
        pairs[-1][0].setblocking(False)
        try:
            while True: held += pairs[-1][0].send(bytes(1 << 16))
        except BlockingIOError: pass
except OSError as error: print(len(pairs) < 32, held < 64 << 20, error.errno)
"""
SHARE_OUT_MEMORY = """
import threading
held, lock = [0], threading.Lock()
def take():
    mine = []
    try:
        while True:
            mine.append(bytearray(1 << 20))
            with lock: held[0] += 1
    except MemoryError: over.wait()
over = threading.Event()
threads = [threading.Thread(target=take) for _ in range(8)]
for t in threads: t.start()
import time
before = -1
while before != held[0]: before = held[0]; time.sleep(0.3)
print(64 < held[0] < 256)
over.set()
"""
SCRIPTS = [
    ScriptAttack("every family and kind of socket", PAIRS, "[(1, 1, [None, None])]\n"),
    ScriptAttack("datagrams in a pair", "import socket\nsocket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)", ends=REFUSED),
    ScriptAttack("a pair of another protocol", "import socket\nsocket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM, 1)", ends=REFUSED),
    ScriptAttack("send out of band", PAIR + "a.send(b'x', socket.MSG_OOB)", ends=REFUSED),
    ScriptAttack("receive out of band", PAIR + "b.recv(1, socket.MSG_OOB)", ends=REFUSED),
    ScriptAttack("send to an address", C + PAIR + "must(l.sendto(a.fileno(), b'x', 1, 0, b'\\1\\0\\0x', 4))", ends=REFUSED),
    ScriptAttack("send to a port", PAIR + "a.sendto(b'x', ('127.0.0.1', PORT))", ends=REFUSED),
    ScriptAttack("ask for the sender's address", PAIR + "b.recvfrom(1)", ends=REFUSED),
    ScriptAttack("hand a descriptor over", PAIR + "socket.send_fds(a, [b'x'], [0])", ends=REFUSED),
    ScriptAttack("take a descriptor", PAIR + "socket.recv_fds(b, 1, 1)", ends=REFUSED),
    ScriptAttack("connect one of a pair", PAIR + "a.connect(('127.0.0.1', PORT))", ends=REFUSED),
    ScriptAttack("connect one of a pair by name", PAIR + "a.connect('SECRET_FILE')", ends=REFUSED),
    ScriptAttack("bind one of a pair", PAIR + "a.bind('\\0x')", ends=REFUSED),
    ScriptAttack("listen on one of a pair", PAIR + "a.listen()", ends=REFUSED),
    ScriptAttack("set an option of a pair", PAIR + "a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 30)", ends=REFUSED),
    ScriptAttack("who is at the other end", PAIR + "a.getsockopt(socket.SOL_SOCKET, 17, 12)", ends=REFUSED),
    ScriptAttack("signals when a pair is ready", PAIR + "import fcntl\nfcntl.ioctl(a, 0x5452, b'\\1\\0\\0\\0')", ends=REFUSED),
    ScriptAttack("own whoever is signalled by a pair", PAIR + "import fcntl, os\nfcntl.ioctl(a, 0x8901, os.getppid().to_bytes(4, 'little'))", ends=REFUSED),
    ScriptAttack("buffers of as many pairs as there may be", FLOOD_PAIRS, "True True 24\n"),
    ScriptAttack("connect by asyncio", "import asyncio\nasyncio.run(asyncio.open_connection('127.0.0.1', PORT))", ends=REFUSED),
    ScriptAttack("serve by asyncio", "import asyncio\nasync def main():\n    try: print((await asyncio.start_server(print, '127.0.0.1', 0)).sockets)\n    except OSError: print(())\nasyncio.run(main())", "()\n"),
    ScriptAttack("run a program by asyncio", "import asyncio\nasyncio.run(asyncio.create_subprocess_exec('/bin/true'))", ends=REFUSED),
    ScriptAttack("an event loop that never ends", "import asyncio\nasyncio.new_event_loop().run_forever()", ends=("timeout",), seconds=0.3),
    ScriptAttack("name the machine", C + "must(l.sethostname(b'x', 1))", ends=REFUSED),
    ScriptAttack("read a time zone that is none", "from zoneinfo import ZoneInfo\nprint(ZoneInfo('../../../SECRET_FILE'))", ends=REFUSED),
    ScriptAttack("time zones from elsewhere", "import zoneinfo\nzoneinfo.reset_tzpath(['/etc'])\nprint(zoneinfo.ZoneInfo('passwd'))", ends=REFUSED),
    ScriptAttack("write among the time zones", "import zoneinfo\nopen(zoneinfo.TZPATH[0] + '/escape', 'w')", ends=REFUSED),
    ScriptAttack("standard input by another name", "print(open('/dev/stdin').read(), open('/dev/stdin').read())", " \n"),
    ScriptAttack("write on standard input", "f = open('/dev/stdin', 'w')\nf.write('x')\nf.flush()", ends=REFUSED),
    ScriptAttack("threads without end", SIXTEEN, "16 can't start new thread\n"),
    ScriptAttack("threads one after the other", HUNDREDS_ONE_BY_ONE, "16\n"),
    ScriptAttack("threads after those of its share, by the interpreter", "import _thread\nprint([_thread.start_new_thread(int, ()) for _ in range(16)] and 1)\n_thread.start_new_thread(int, ())", "1\n", REFUSED),
    ScriptAttack("a thread by the C library", C + "p, r = ctypes.c_void_p(), ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda x: None)\nprint(l.pthread_create(ctypes.byref(p), None, r, None))", "1\n"),
    ScriptAttack("a thread by the system call", C + "s = ctypes.create_string_buffer(1 << 16)\nmust(l.syscall(NUMBERS('clone')['clone'], 0x3d0f00, ctypes.addressof(s) + (1 << 15), 0, 0, 0))", ends=REFUSED),
    ScriptAttack("a process by the system call", C + "must(l.syscall(NUMBERS('clone')['clone'], 17, 0, 0, 0, 0))", ends=REFUSED),
    ScriptAttack("the newer system call for threads", C + "s = ctypes.create_string_buffer(88)\nmust(l.syscall(435, s, 88))", ends=REFUSED),
    ScriptAttack("fork in a thread", "import os\n" + IN_A_THREAD.format("os.fork()"), "PermissionError\n"),
    ScriptAttack("a socket in a thread", "import socket\n" + IN_A_THREAD.format("socket.socket()"), "PermissionError\n"),
    ScriptAttack("read the secret in a thread", IN_A_THREAD.format("open('SECRET_FILE').read()"), None),
    ScriptAttack("run a program in a thread", "import os\n" + IN_A_THREAD.format("os.execv('/bin/true', ['true'])"), None),
    ScriptAttack("write a file in a thread", IN_A_THREAD.format("open('/tmp/escape', 'w')"), None),
    ScriptAttack("signal the worker from a thread", "import os\n" + IN_A_THREAD.format("os.kill(os.getppid(), 0)"), "PermissionError\n"),
    ScriptAttack("threads that never end", "import threading\ndef spin():\n    while True: pass\nfor _ in range(16): threading.Thread(target=spin).start()", ends=("timeout",), seconds=0.3),
    ScriptAttack("daemons that never end", "import threading\ndef spin():\n    while True: pass\nfor _ in range(3): threading.Thread(target=spin, daemon=True).start()\nprint(1)", "1\n"),
    ScriptAttack("a thread that waits for ever", "import threading\nthreading.Thread(target=threading.Event().wait).start()", ends=("timeout",), seconds=0.3),
    ScriptAttack("memory of many threads", SHARE_OUT_MEMORY, "True\n"),
    ScriptAttack("a stack that is too large", "import sys, threading\nthreading.stack_size(1 << 40)\nsys.setrecursionlimit(10 ** 9)\nclass A: pass\nA.__repr__ = lambda s: repr(s)\nthreading.Thread(target=repr, args=(A(),)).start()", None, ("killed", "refused", "finished", "timeout")),
    ScriptAttack("end everything from a thread", "import os, threading\nt = threading.Thread(target=os._exit, args=(7,))\nt.start()\nt.join()", ends=REFUSED),
]  # fmt: skip
