"""Programs that try to get out, to spoil what comes after them, or to be paid for nothing.

Each says which outcomes are acceptable. A rung may refuse by not having a thing (error) where another forbids it, so some allow both.
"""

# One attack a line reads better than the same attack on six.
# ruff: noqa: E501

from dataclasses import dataclass

REFUSED = ("forbidden", "error")
GONE = ("crashed", "error", "memory")


@dataclass(frozen=True)
class Attack:
    """One attempt. accept: statuses that are right; value: when ok is among them, what must have come back. SECRET, SECRET_FILE and PORT in the
    program stand for a secret of the trainer's environment, a file that holds it, and a listening port."""

    family: str
    name: str
    program: str
    accept: tuple[str, ...] = REFUSED
    argument: str = "1"
    value: str | None = None

    def __str__(self) -> str:
        return f"{self.family}: {self.name}"


def attack(family: str, name: str, body: str, accept: tuple[str, ...] = REFUSED, head: str = "", value: str | None = None) -> Attack:
    """`body` is what f does."""
    lines = "\n    ".join(body.strip("\n").split("\n"))
    return Attack(family, name, f"{head}\ndef f(x):\n    {lines}\n", accept, value=value)


FILES = [
    attack("files", "read the secret file", "return open('SECRET_FILE').read()"),
    attack("files", "read /etc/passwd", "return open('/etc/passwd').read()[:20]"),
    attack("files", "read by descriptor", "return os.read(os.open('SECRET_FILE', os.O_RDONLY), 99)", head="import os"),
    attack("files", "read through /proc/self/cwd", "return open('/proc/self/cwd/SECRET_FILE').read()"),
    attack("files", "read through the standard library's folder", "return open(os.path.dirname(os.__file__) + '/../..' * 9 + 'SECRET_FILE').read()", head="import os"),
    attack("files", "list the root", "return os.listdir('/')", REFUSED + ("ok",), head="import os"),
    attack("files", "list home folders", "return os.listdir('/home')", head="import os"),
    attack("files", "read the memory of the worker", "return open(f'/proc/{os.getppid()}/mem', 'rb').read(1)", head="import os"),
    attack("files", "read the environment of init", "return open('/proc/1/environ', 'rb').read(9)"),
    attack("files", "write in the current folder", "open('escape', 'w').write('x')"),
    attack("files", "write in /tmp", "open('/tmp/escape', 'w').write('x')"),
    attack("files", "write into the standard library", "open(os.__file__, 'a').write('x')", head="import os"),
    attack("files", "make a temporary file", "tempfile.TemporaryFile().write(b'x')", head="import tempfile"),
    attack("files", "make a folder", "os.mkdir('/tmp/escape')", head="import os"),
    attack("files", "make a link", "os.symlink('/etc', '/tmp/escape')", head="import os"),
    attack("files", "delete the secret file", "os.remove('SECRET_FILE')", head="import os"),
    attack("files", "change rights", "os.chmod('SECRET_FILE', 0o777)", head="import os"),
    attack("files", "change the root", "os.chroot('/')", head="import os"),
    attack("files", "make a file in memory", "return os.memfd_create('x')", head="import os"),
    attack("files", "mount", "r = ctypes.CDLL(None, use_errno=True).mount(b'x', b'/tmp', b'tmpfs', 0, None)\nif r: raise OSError(ctypes.get_errno(), '')", head="import ctypes"),
]  # fmt: skip

NETWORK = [
    attack("network", "connect to a port", "socket.create_connection(('127.0.0.1', PORT), 2).send(b'x')", head="import socket"),
    attack("network", "send a datagram", "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', PORT))", head="import socket"),
    attack("network", "listen", "socket.create_server(('', 0))", head="import socket"),
    attack("network", "a pair of unix sockets", "socket.socketpair()", head="import socket"),
    attack("network", "an abstract unix socket", "socket.socket(socket.AF_UNIX).connect('\\0x')", head="import socket"),
    attack("network", "resolve a name", "socket.getaddrinfo('example.org', 80)", head="import socket"),
    attack("network", "fetch a page", "urllib.request.urlopen('http://127.0.0.1:PORT', timeout=2)", head="import urllib.request"),
    attack("network", "a raw netlink socket", "r = ctypes.CDLL(None, use_errno=True).socket(16, 3, 0)\nif r < 0: raise OSError(ctypes.get_errno(), '')", head="import ctypes"),
]  # fmt: skip

C = "import ctypes, os\nl = ctypes.CDLL(None, use_errno=True)\ndef must(r):\n    if r < 0: raise OSError(ctypes.get_errno(), 'refused')\n    return r"
PROCESSES = [
    attack("processes", "fork", "p = os.fork()\nif p == 0: os._exit(0)\nreturn 'forked'", head="import os"),
    attack("processes", "fork bomb", "while True: os.fork()", head="import os"),
    attack("processes", "run a program", "return subprocess.check_output(['/bin/echo', 'hi'])", head="import subprocess"),
    attack("processes", "replace itself by a program", "os.execv('/bin/sh', ['sh', '-c', 'echo'])", head="import os"),
    attack("processes", "os.system", "if os.system('true') != 0: raise OSError('no shell')", head="import os"),
    attack("processes", "start a thread", "threading.Thread(target=print).start()", head="import threading"),
    attack("processes", "signal the worker", "os.kill(os.getppid(), 0)", head="import os"),
    attack("processes", "signal everybody", "os.kill(-1, 0)", head="import os"),
    attack("processes", "signal its group", "os.killpg(0, 0)", head="import os"),
    attack("processes", "signal itself", "os.kill(os.getpid(), 0)", head="import os"),
    attack("processes", "stop itself", "signal.raise_signal(signal.SIGSTOP)", (*REFUSED, "timeout"), head="import signal"),
    attack("processes", "have the kernel signal another", "fcntl.fcntl(3, fcntl.F_SETOWN, os.getppid())", head="import fcntl, os"),
    attack("processes", "trace the worker", "must(l.ptrace(16, os.getppid(), 0, 0))", head=C),
    attack("processes", "read the worker's memory", "must(l.process_vm_readv(os.getppid(), 0, 0, 0, 0, 0))", head=C),
    attack("processes", "new namespaces", "must(l.unshare(0x10000000))", head=C),
    attack("processes", "drop the parent's death signal", "must(l.prctl(1, 0, 0, 0, 0))", head=C),
    attack("processes", "raise its limits", "resource.setrlimit(resource.RLIMIT_AS, (-1, -1))", head="import resource"),
    attack("processes", "limit the worker", "resource.prlimit(os.getppid(), resource.RLIMIT_CPU, (0, 0))", head="import resource, os"),
    attack("processes", "run first", "os.setpriority(os.PRIO_PROCESS, 0, -20)", head="import os"),
    attack("processes", "an alarm", "signal.setitimer(signal.ITIMER_REAL, 0.01)", head="import signal"),
    attack("processes", "become root", "os.setuid(0)", head="import os"),
    attack("processes", "io_uring", "must(l.syscall(425, 8, ctypes.create_string_buffer(256)))", head=C),
    attack("processes", "a bpf program", "must(l.syscall(321, 0, 0, 0))", head=C),
    attack("processes", "multiprocessing", "multiprocessing.Process(target=print).start()", head="import multiprocessing"),
]

EXHAUST = ("memory", "timeout", "crashed", "error")
RESOURCES = [
    attack("memory and CPU", "an endless loop", "while True: pass", ("timeout",)),
    attack("memory and CPU", "a loop that catches everything", "while True:\n    try:\n        while True: pass\n    except BaseException: pass", ("timeout",)),
    attack("memory and CPU", "one long call into C", "return 9 ** 9 ** 9 % 7", ("timeout", "memory")),
    attack("memory and CPU", "a pattern that backtracks", "return re.match('(a+)+$', 'a' * 60 + 'b')", ("timeout",), head="import re"),
    attack("memory and CPU", "the text of a huge int", "sys.set_int_max_str_digits(0)\nreturn len(str(1 << 50_000_000))", ("timeout", "memory"), head="import sys"),
    attack("memory and CPU", "sleep", "time.sleep(60)", ("timeout",), head="import time"),
    attack("memory and CPU", "ignored signals", "for s in range(1, 65):\n    try: signal.signal(s, signal.SIG_IGN)\n    except (OSError, ValueError): pass\nwhile True: pass", ("timeout",), head="import signal"),
    attack("memory and CPU", "wait for ever on a lock", "l = threading.Lock()\nl.acquire()\nl.acquire()", ("timeout",), head="import threading"),
    attack("memory and CPU", "10 GB at once", "return len([0] * (10 ** 10 // 8))", ("memory",)),
    attack("memory and CPU", "memory bit by bit", "a = []\nwhile True: a.append('x' * 10 ** 6 + str(len(a)))", ("memory", "timeout")),
    attack("memory and CPU", "memory, caught", "a = []\nwhile True:\n    try: a.append(bytearray(10 ** 7))\n    except MemoryError: pass", ("timeout", "memory")),
    attack("memory and CPU", "map memory", "return len(mmap.mmap(-1, 10 ** 10))", ("error", "memory"), head="import mmap"),
    attack("memory and CPU", "a wide format", "return '%2000000000d' % 1", ("memory", "error", "timeout")),
    attack("memory and CPU", "a packed bomb", "return len(zlib.decompress(b))", ("memory", "timeout"), head="import zlib\nd = zlib.compressobj(9)\nb = b''.join(d.compress(bytes(10**6)) for _ in range(1000)) + d.flush()"),
    attack("memory and CPU", "recursion", "return f(x + 1)", ("error",)),
    attack("memory and CPU", "recursion without a limit", "return f(x + 1)", EXHAUST, head="import sys\nsys.setrecursionlimit(10 ** 9)"),
    attack("memory and CPU", "recursion in C", "a = []\nfor _ in range(10 ** 6): a = [a]\nreturn repr(a)", EXHAUST, head="import sys\nsys.setrecursionlimit(10 ** 9)"),
    attack("memory and CPU", "recursion of a key", "class A: pass\nA.__repr__ = lambda s: repr(s)\nreturn repr(A())", EXHAUST, head="import sys\nsys.setrecursionlimit(10 ** 9)"),
    attack("memory and CPU", "a null pointer", "ctypes.string_at(0)", GONE, head="import ctypes"),
    attack("memory and CPU", "write over the interpreter", "ctypes.memset(id(int), 255, 400)\nreturn 1", (*GONE, "timeout"), head="import ctypes"),
    attack("memory and CPU", "broken bytecode", "f.__code__ = f.__code__.replace(co_code=b'd\\xff' * 50)\nreturn f(x)", (*GONE, "timeout")),
    attack("memory and CPU", "an endless import", "return 1", ("timeout",), head="while True: pass"),
    attack("memory and CPU", "a huge import", "return 1", ("memory",), head="a = [0] * 10 ** 10"),
    attack("memory and CPU", "a constant folded at length", "return 1", ("ok", "memory", "timeout", "syntax"), head="a = 'x' * 4000 * 4000 * 10", value="1"),
    attack("memory and CPU", "an endless finaliser", "class A:\n    def __del__(s):\n        while True: pass\nA()", ("timeout",)),
]  # fmt: skip

OUTPUT = [
    attack("output and pipes", "50 MB of repr", "return 'x' * 50_000_000", ("output_too_large",)),
    attack("output and pipes", "a structure that doubles", "a = []\nfor _ in range(70): a = [a, a]\nreturn a", ("output_too_large",)),
    attack("output and pipes", "a list in itself", "a = []\na.append(a)\nreturn a", ("not_literal",)),
    attack("output and pipes", "endless nesting", "a = []\nfor _ in range(10 ** 5): a = [a]\nreturn a", ("not_literal", "crashed")),
    attack("output and pipes", "50 MB printed", "for _ in range(50): print('x' * 10 ** 6)\nreturn 2", ("ok",), value="2"),
    attack("output and pipes", "every stream closed", "import sys, os\nfor i in range(3): os.close(i)\nreturn 2", ("ok",), value="2"),
    attack("output and pipes", "the result pipe closed", "os.close(3)\nwhile True: pass", ("crashed",), head="import os"),
    attack("output and pipes", "the result pipe closed, then a result", "os.close(3)\nreturn 1", ("crashed",), head="import os"),
    attack("output and pipes", "noise on the result pipe", "os.write(3, b'x' * 60_000)", ("crashed",), head="import os"),
    attack("output and pipes", "a frame that promises 4 GB", "os.write(3, b'\\xff\\xff\\xff\\xff')\nwhile True: pass", ("crashed",), head="import os"),
    attack("output and pipes", "a trickle on the result pipe", "os.write(3, b'\\x00\\x10\\x00\\x00')\nwhile True:\n    os.write(3, b' ')\n    time.sleep(0.01)", ("timeout", "crashed"), head="import os, time"),
    attack("output and pipes", "a frame with deep JSON", "b = b'[' * 40_000\nos.write(3, struct.pack('<I', len(b)) + b)", ("crashed",), head="import os, struct"),
    attack("output and pipes", "open files without end", "return [open(os.__file__) for _ in range(10 ** 4)]", ("error", "forbidden"), head="import os"),
    attack("output and pipes", "leave with success and no result", "os._exit(0)", ("crashed",), head="import os"),
    attack("output and pipes", "leave while being written", "class A:\n    def __repr__(s): os._exit(0)\nreturn A()", ("not_literal",), head="import os"),
    attack("output and pipes", "a lone surrogate", "return '\\ud800'", ("ok",), value=r"'\ud800'"),
    attack("output and pipes", "an error that floods", "raise ValueError('x' * 10 ** 8)", ("error",)),
    attack("output and pipes", "an error that exits", "class E(Exception):\n    def __str__(s): os._exit(0)\nraise E", ("crashed",), head="import os"),
    attack("output and pipes", "an error class that lies", "class M(type):\n    __name__ = property(lambda c: os._exit(0))\nclass E(Exception, metaclass=M): pass\nraise E('x')", ("error",), head="import os"),
]  # fmt: skip

STATE = [
    attack("interpreter state", "builtins replaced", "return len('ab')", ("ok",), head="import builtins\nfor n in ('repr', 'len', 'type', 'isinstance', 'str', 'compile'): setattr(builtins, n, lambda *a, **k: 42)", value="42"),
    attack("interpreter state", "a module's constant changed", "return math.pi", ("ok",), head="import math\nmath.pi = 3", value="3"),
    attack("interpreter state", "modules poisoned", "return 1", ("ok", "error", "crashed"), head="import sys\nfor n in list(sys.modules): sys.modules[n] = None", value="1"),
    attack("interpreter state", "ast and json replaced", "return 1", ("ok", "error", "crashed"), head="import ast, json\nast.parse = ast.literal_eval = json.dumps = json.JSONEncoder.encode = None", value="1"),
    attack("interpreter state", "a tracer left behind", "return 1", ("ok",), head="import sys\nsys.settrace(lambda *a: None)\nsys.setprofile(lambda *a: None)", value="1"),
    attack("interpreter state", "no recursion left", "return 1", ("ok", "error", "crashed"), head="import sys\nsys.setrecursionlimit(20)", value="1"),
    attack("interpreter state", "no builtins", "return 1", ("ok", "error", "crashed"), head="import builtins\nbuiltins.__dict__.clear()", value="1"),
    attack("interpreter state", "work left for the exit", "atexit.register(lambda: os.write(3, b'x' * 99))\nreturn 1", ("ok",), head="import atexit, os", value="1"),
    attack("interpreter state", "a hook on imports", "return 1", ("ok",), head="import sys\nsys.meta_path.clear()\nsys.path.clear()", value="1"),
    attack("interpreter state", "the environment", "return dict(os.environ)", ("ok",), head="import os", value="{}"),
    attack("interpreter state", "the environment through C", "return l.getenv(b'AZR_TEST_SECRET')", ("ok",), head="import ctypes\nl = ctypes.CDLL(None)\nl.getenv.restype = ctypes.c_char_p", value="None"),
    attack("interpreter state", "the command line", "return [a for a in sys.orig_argv if 'SECRET' in a]", ("ok",), head="import sys", value="[]"),
]  # fmt: skip

LIE = "class Lie({}):\n    def __repr__(s): return '7'\n    __str__ = __repr__\n    def __eq__(s, o): return True\n    def __hash__(s): return 1"
WALK = """
import gc, sys
def found():
    frame = sys._getframe()
    while frame:
        yield from frame.f_locals.values()
        yield from list(frame.f_globals.values())
        frame = frame.f_back
    yield from gc.get_objects()
"""
FORGE = "def frame(*parts):\n    b = json.dumps(parts).encode()\n    return struct.pack('<I', len(b)) + b"
FORGING = [
    attack("result forging", "a repr that lies", "return Lie()", ("not_literal",), head=LIE.format("object")),
    attack("result forging", "a str that lies", "return Lie('x')", ("not_literal",), head=LIE.format("str")),
    attack("result forging", "an int that lies", "return [Lie(3)]", ("not_literal",), head=LIE.format("int")),
    attack("result forging", "a list that lies", "return {1: Lie()}", ("not_literal",), head=LIE.format("list")),
    attack("result forging", "a dict whose keys lie", "return {Lie(): 1}", ("not_literal",), head=LIE.format("object")),
    attack("result forging", "a class that claims to be int", "return A()", ("not_literal",), head="class M(type):\n    __eq__ = lambda c, o: True\n    __hash__ = lambda c: hash(int)\nclass A(metaclass=M):\n    __repr__ = lambda s: '7'\n    __class__ = int"),
    attack("result forging", "text that is no literal on the pipe", "os.write(3, frame('result', 'ok', '__import__(\"os\").getpid()', None, 0.1, 0.1))\nos._exit(0)", ("not_literal",), head="import json, os, struct\n" + FORGE),
    attack("result forging", "a status that does not exist", "os.write(3, frame('result', 'right', '7', None, 0.1, 0.1))\nos._exit(0)", ("crashed",), head="import json, os, struct\n" + FORGE),
    attack("result forging", "seconds that are no number", "os.write(3, frame('result', 'ok', '7', None, float('nan'), -1.0))\nos._exit(0)", ("crashed",), head="import json, os, struct\n" + FORGE),
    attack("result forging", "more results than inputs", "os.write(3, frame('result', 'error', None, 'x', 0.1, 0.1) * 9)\nos._exit(0)", ("error", "crashed"), head="import json, os, struct\n" + FORGE),
    attack("result forging", "look for another's program in frames", "return [1 for o in found() if 'ANOTHERS' + '_PROGRAM' in str(o)[:9999] and 'found' not in str(o)]", ("ok", "error", "timeout"), head=WALK, value="[]"),
    attack("result forging", "speak for the worker", "return [o.socket.send(b'x') for o in found() if type(o).__name__ == 'Control']", REFUSED, head=WALK),
    attack("result forging", "write on every descriptor but the pipe", "n = 0\nfor fd in range(4, 999):\n    try: n += os.write(fd, b'x')\n    except OSError: pass\nreturn n", ("ok",), head="import os", value="0"),
]  # fmt: skip

KNOWN = "def f(x):\n    return x * 2"  # its task's output is 7, which no honest argument gives
NOT_ONE_HONEST_CALL = ("syntax", "forbidden")
ARGUMENTS = [
    Attack("grading", text, KNOWN, NOT_ONE_HONEST_CALL, text)
    for text in (
        "2) or (1", "1) and 7 or (1", "1)\n7 #", "1)\n+ (7", "1); (7", "1) if False else (7", "3.5) == f(3.5", "1) or 7 #", "1 for f in [lambda x: 7]) or f(1",
        "print('True') or 1", "(f := lambda x: 7)", "globals().update(f=lambda x: 7)", "setattr(f, '__code__', (lambda x: 7).__code__) or 1",
        "__import__('os').write(3, b'x')", "[x for x in [1] if exec('f = None')]", "().__class__", "open('/etc/passwd')",
        "ｅｖａｌ('7')", "(i for i in [1]).gi_frame.f_back.f_globals", "'{0.__globals__}'.format(f)",
        "type('T', (), {'__mul__': lambda s, o: 7})()", "f.__defaults__", "__builtins__", "1, *__import__('sys').modules",
    )
]  # fmt: skip
HONEST_OR_WRONG = [
    Attack("grading", text, KNOWN, ("ok", "error", "not_literal"), text, value)
    for text, value in (
        ("lambda: 7", None), ("7, 7", None), ("x=7", "14"), ("[7][0]", "14"), ("'7'", "'77'"), ("3.5", "7.0"), ("(7)", "14"), ("7 # 7", "14"),
        ("*[7]", "14"), ("[f for f in [7]][0]", "14"),
    )
]  # fmt: skip

ATTACKS = FILES + NETWORK + PROCESSES + RESOURCES + OUTPUT + STATE + FORGING + ARGUMENTS + HONEST_OR_WRONG
