"""The system-call filters of a cell: what pure computation needs, and nothing that reaches another process, a file to write or the network."""

import errno
import os
import socket
from functools import cache
from typing import Any

from azr_nemo.sandbox.executor import ExecutorUnavailable

ALLOWED = """
read readv write writev close fstat lstat stat newfstatat statx lseek pread64 getdents64 access faccessat faccessat2 getcwd
mmap munmap mprotect mremap madvise brk
rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack restart_syscall
getpid getppid gettid getuid geteuid getgid getegid getrusage times
getrandom clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time
futex sched_yield set_robust_list rseq poll ppoll select pselect6
exit exit_group
""".split()
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
TCGETS, FIONBIO, FIOCLEX = 0x5401, 0x5421, 0x5451
UNKNOWN = -1
F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC = 0, 1, 2, 3, 1030


@cache
def cell_filter(machine: str = "", script: bool = False) -> bytes:
    """The filter as a BPF program: an allow-list; everything else fails with EPERM, and calls in another architecture's way kill.

    machine: as `uname -m` says, x86_64 or aarch64; empty for this machine's. script: for whole scripts, which may do what asyncio and uuid ask for.
    Raises ExecutorUnavailable when libseccomp is not installed.
    """
    try:
        import pyseccomp as seccomp
    except (ImportError, RuntimeError, OSError):
        raise ExecutorUnavailable(
            "the executor's jail needs libseccomp.so.2: install it (Debian and Ubuntu: apt-get install libseccomp2), "
            "or accept an open sandbox with executor.allow_unjailed=true"
        ) from None
    program = seccomp.SyscallFilter(defaction=seccomp.ERRNO(errno.EPERM))
    program.set_attr(seccomp.Attr.ACT_BADARCH, seccomp.KILL_PROCESS)  # not only one of a script's threads
    if machine and machine != os.uname().machine:
        program.add_arch(getattr(seccomp.Arch, machine.upper()))
        program.remove_arch(seccomp.Arch.NATIVE)
    for name, *conditions in _rules(seccomp) + (_script_rules(seccomp) if script else []):
        # The library wants this machine's number for a call and translates it to the filter's architecture, or skips it there.
        number = seccomp.resolve_syscall(seccomp.Arch.NATIVE, name)
        if number != UNKNOWN:  # newer than the library
            program.add_rule(seccomp.ALLOW, number, *conditions)
    with open(os.memfd_create("filter"), "w+b") as file:  # a full disk must not matter
        program.export_bpf(file)
        file.seek(0)
        return file.read()


def _rules(seccomp: Any) -> list[tuple]:
    equal, masked = seccomp.EQ, seccomp.MASKED_EQ
    rules: list[tuple] = [(name,) for name in ALLOWED]
    rules += [("open", seccomp.Arg(1, masked, WRITING, 0)), ("openat", seccomp.Arg(2, masked, WRITING, 0))]
    rules += [("ioctl", seccomp.Arg(1, equal, request)) for request in (TCGETS, FIOCLEX)]
    # Other commands of fcntl can have the kernel send a signal to any process of the same user.
    rules += [("fcntl", seccomp.Arg(1, equal, command)) for command in (F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC)]
    # Reading limits, not setting them.
    return [*rules, ("getrlimit",), ("prlimit64", seccomp.Arg(0, equal, 0), seccomp.Arg(2, equal, 0))]


def _script_rules(seccomp: Any) -> list[tuple]:
    """A connected pair of streams within the process, on which an event loop wakes itself, and the machine's name and kernel."""
    equal, masked = seccomp.EQ, seccomp.MASKED_EQ
    kind = 0xFFFFFFFF & ~(socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    # No flags and no address: out-of-band data was a way into the kernel, and a packet with an address would leave the pair.
    plain = [seccomp.Arg(3, equal, 0), seccomp.Arg(4, equal, 0)]
    return [
        ("uname",),
        ("socketpair", seccomp.Arg(0, equal, socket.AF_UNIX), seccomp.Arg(1, masked, kind, socket.SOCK_STREAM), seccomp.Arg(2, equal, 0)),
        ("sendto", *plain),
        ("recvfrom", *plain),
        ("getsockname",),
        ("ioctl", seccomp.Arg(1, equal, FIONBIO)),
    ]
