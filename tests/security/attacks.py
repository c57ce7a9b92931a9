"""Programs that try to get out of the jail or to use more than their share.

Each says which outcomes are acceptable. A rung may refuse by not having a thing (error) where another forbids it, so some allow both.
"""

# One attack a line reads better than the same attack on six.
# ruff: noqa: E501

import re
from dataclasses import dataclass

REFUSED = ("forbidden", "error")
GONE = ("crashed", "error", "memory")


@dataclass(frozen=True)
class Attack:
    """One attempt, or several of a kind: each argument is one. accept: statuses that are right; value: when ok is among them, what must have come
    back. SECRET_FILE and PORT in the program stand for a file of the trainer's and a listening port, NUMBERS('a b') for a dict of the numbers that
    system calls have here. machine: the only one it is made for."""

    family: str
    name: str
    program: str
    accept: tuple[str, ...] = REFUSED
    arguments: tuple[str, ...] = ("1",)
    value: str | None = None
    machine: str = ""

    def __str__(self) -> str:
        return f"{self.family}: {self.name}"


def attack(
    family: str, name: str, body: str, accept: tuple[str, ...] = REFUSED, head: str = "", value: str | None = None, machine: str = ""
) -> Attack:
    """`body` is what f does."""
    lines = "\n    ".join(body.strip("\n").split("\n"))
    return Attack(family, name, f"{head}\ndef f(x):\n    {lines}\n", accept, value=value, machine=machine)


TRY = """
import ctypes
l = ctypes.CDLL(None, use_errno=True)
def refused(number, *arguments):
    ctypes.set_errno(0)
    return l.syscall(number, *arguments) == -1 and ctypes.get_errno() == 1
def f(x):
    return [name for name, number in NUMBERS('{}').items() if not refused(number, 0, 0, 0, 0, 0, 0)]
"""


def system_calls(family: str, name: str, calls: str) -> Attack:
    """Every one of these system calls must fail with EPERM before the kernel looks at its arguments."""
    return Attack(family, name, TRY.format(calls), ("ok",), value="[]")


def fitted(program: str, secret_file: str, port: int) -> str:
    """The program with a world's file, port and numbers of system calls."""
    program = program.replace("SECRET_FILE", secret_file).replace("PORT", str(port))
    return re.sub(r"NUMBERS\('(.*?)'\)", lambda found: repr(numbers(found[1].split())), program)


def numbers(names: list[str]) -> dict[str, int]:
    import pyseccomp

    found = {name: pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name) for name in names}
    return {name: number for name, number in found.items() if number >= 0}  # below zero: not on this machine


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
    attack("files", "read where its own root leads", "return open('/proc/self/root/SECRET_FILE').read()"),
    attack("files", "a name for a file, then read", "d = os.open('SECRET_FILE', os.O_PATH)\nreturn os.read(d, 9)", head="import os"),
    attack("files", "open for reading and cut", "os.open('SECRET_FILE', os.O_RDONLY | os.O_TRUNC)", head="import os"),
    attack("files", "load it as a library", "ctypes.CDLL('SECRET_FILE')", head="import ctypes"),
    attack("files", "import from the trainer's folder", "sys.path.insert(0, os.path.dirname('SECRET_FILE'))\nreturn importlib.import_module('secret_module').SECRET", head="import importlib, os, sys"),
    attack("files", "execute a file", "return runpy.run_path('SECRET_FILE')", head="import runpy"),
    attack("files", "write through a shared mapping", "d = os.open(os.__file__, os.O_RDONLY)\nmmap.mmap(d, 9, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)[0] = 1", head="import mmap, os"),
    attack("files", "a pipe with a name", "os.mkfifo('/tmp/escape')", head="import os"),
    attack("files", "another's descriptors", "return os.listdir(f'/proc/{os.getppid()}/fd') + [open(f'/proc/{os.getppid()}/maps').read(1)]", head="import os"),
    system_calls("files", "every call that makes, moves or changes a file", "creat mknod mknodat mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 link linkat symlink symlinkat truncate ftruncate fallocate chmod fchmod fchmodat chown fchown lchown fchownat utime utimes utimensat futimesat setxattr lsetxattr fsetxattr removexattr memfd_create memfd_secret copy_file_range sendfile splice tee vmsplice pwrite64 pwritev pwritev2 sync syncfs fsync flock"),
    system_calls("files", "every other way to a file", "openat2 open_by_handle_at name_to_handle_at readlink readlinkat getxattr lgetxattr fgetxattr listxattr chdir fchdir chroot mount umount2 move_mount open_tree fsopen fsmount fspick mount_setattr pivot_root statfs fstatfs inotify_init inotify_init1 fanotify_init quotactl acct swapon uselib lookup_dcookie umask"),
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
    system_calls("network", "every call of sockets", "socket socketpair bind listen accept accept4 connect getsockname getpeername sendto recvfrom sendmsg recvmsg sendmmsg recvmmsg setsockopt getsockopt shutdown io_uring_setup io_uring_enter io_uring_register epoll_create epoll_create1 eventfd2 pipe pipe2 mq_open msgget semget shmget shmat sethostname setdomainname"),
    attack("network", "a socket of the kernel's ciphers", "socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)", head="import socket"),
    attack("network", "a raw netlink socket", "r = ctypes.CDLL(None, use_errno=True).socket(16, 3, 0)\nif r < 0: raise OSError(ctypes.get_errno(), '')", head="import ctypes"),
]  # fmt: skip

C = "import ctypes, os\nl = ctypes.CDLL(None, use_errno=True)\ndef must(r):\n    if r < 0: raise OSError(ctypes.get_errno(), 'refused')\n    return r"
# Maps a page that may be written and executed, and calls what it writes there.
MACHINE_CODE = "import mmap\nm = mmap.mmap(-1, 4096, prot=7)\nm.write(bytes.fromhex('{}'))\nreturn ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))()"
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
    attack("processes", "spawn", "os.posix_spawn('/bin/true', ['true'], {})", head="import os"),
    attack("processes", "vfork", "must(l.vfork())", head=C),
    attack("processes", "a signal when the pipe is ready", "fcntl.fcntl(3, 10, 9)", head="import fcntl"),
    attack("processes", "type on the terminal", "fcntl.ioctl(0, 0x5412, b'x')", head="import fcntl"),
    system_calls(
        "processes",
        "every call that makes a process or signals one",
        "fork vfork clone clone3 execve execveat kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_open pidfd_send_signal pidfd_getfd ptrace process_vm_readv process_vm_writev process_madvise process_mrelease kcmp setsid setpgid wait4 waitid alarm setitimer timer_create timerfd_create signalfd4",
    ),
    system_calls(
        "processes",
        "every call that changes what it may do",
        "setuid setgid setreuid setregid setresuid setresgid setgroups setfsuid setfsgid capset prctl arch_prctl personality seccomp unshare setns setrlimit setpriority ioprio_set sched_setscheduler sched_setparam sched_setattr sched_setaffinity mlock mlockall",
    ),
    system_calls(
        "processes",
        "doors into the kernel",
        "keyctl add_key request_key bpf perf_event_open userfaultfd init_module finit_module delete_module kexec_load reboot syslog iopl ioperm modify_ldt settimeofday clock_settime adjtimex clock_adjtime mbind migrate_pages move_pages set_mempolicy remap_file_pages landlock_create_ruleset vhangup nfsservctl membarrier pkey_alloc get_kernel_syms",
    ),
    attack("processes", "a call by a number of the x32 kind", "return l.syscall(0x40000000 | 39)", ("crashed",), head=C, machine="x86_64"),
    attack("processes", "a call in the way of 32 bits", MACHINE_CODE.format("b8140000 00cd80c3"), ("crashed",), head=C, machine="x86_64"),
    attack(
        "processes",
        "machine code of its own that forks",
        MACHINE_CODE.format("b8390000 000f05c3"),
        ("ok",),
        head=C,
        value="-1",
        machine="x86_64",
    ),
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
    attack("memory and CPU", "a handler for the end of its time", "signal.signal(signal.SIGXCPU, lambda *a: None)\nwhile True: pass", ("timeout",), head="import signal"),
    attack("memory and CPU", "recursion in a reader", "return len(json.loads('[' * 10 ** 6))", EXHAUST, head="import json, sys\nsys.setrecursionlimit(10 ** 9)"),
    attack("memory and CPU", "recursion in a copy", "a = []\nfor _ in range(10 ** 5): a = [a]\nreturn copy.deepcopy(a)", (*EXHAUST, "not_literal"), head="import copy, sys\nsys.setrecursionlimit(10 ** 9)"),
    attack("memory and CPU", "recursion in the compiler", "return eval('-' * 10 ** 6 + '1')", (*EXHAUST, "syntax")),
    attack("memory and CPU", "a pattern that grows", "return re.compile('(?:a{1,999}){1,999}' * 99).match('a' * 999)", EXHAUST, head="import re"),
    attack("memory and CPU", "a number of endless digits", "return decimal.Decimal(2) ** decimal.Decimal('0.5')", EXHAUST, head="import decimal\ndecimal.getcontext().prec = decimal.MAX_PREC\ndecimal.getcontext().Emax = decimal.MAX_EMAX"),
    attack("memory and CPU", "keys that all collide", "class K:\n    def __hash__(s): return 1\nreturn len({K(): i for i in range(10 ** 6)})", ("timeout",)),
    attack("memory and CPU", "a text that grows at every replacement", "a = 'aa'\nwhile True: a = a.replace('a', 'aaaa')", ("memory", "timeout")),
    attack("memory and CPU", "an iterator without end", "return list(itertools.count())", ("memory", "timeout"), head="import itertools"),
    attack("memory and CPU", "a zip bomb", "return len(zipfile.ZipFile(b).read('x'))", ("memory", "timeout", "error"), head="import io, zipfile\nb = io.BytesIO()\nwith zipfile.ZipFile(b, 'w', zipfile.ZIP_DEFLATED) as z: z.writestr('x', bytes(150 << 20))"),
    attack("memory and CPU", "a hundred thousand mappings", "return len([mmap.mmap(-1, 4096) for _ in range(10 ** 5)])", ("error", "memory", "timeout"), head="import mmap"),
    attack("memory and CPU", "a stack of alternate making", "a = ctypes.create_string_buffer(9)\nctypes.memmove(ctypes.addressof(a) + (1 << 40), a, 9)", GONE, head="import ctypes"),
    attack("memory and CPU", "an endless finaliser", "class A:\n    def __del__(s):\n        while True: pass\nA()", ("timeout",)),
]  # fmt: skip
