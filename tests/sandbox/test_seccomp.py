"""The exported filter, run by a small interpreter of BPF for both architectures: what is on the list passes, whatever else there is does not."""

import errno
import os
import socket
import struct
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_nemo.sandbox.local.seccomp import (
    ALLOWED,
    F_DUPFD,
    F_DUPFD_CLOEXEC,
    F_GETFD,
    F_GETFL,
    F_SETFD,
    FIOCLEX,
    FIONBIO,
    TCGETS,
    cell_filter,
)

try:
    import pyseccomp as seccomp
except (ImportError, RuntimeError, OSError):
    pytest.skip("libseccomp is not installed", allow_module_level=True)

MACHINES = ("x86_64", "aarch64")
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
OTHERS = {"i386": 0x40000003, "arm": 0x40000028, "riscv64": 0xC00000F3, "none": 0}
ALLOW, KILL_PROCESS = 0x7FFF0000, 0x80000000
REFUSE = 0x00050000 | errno.EPERM
X32 = 0x40000000
CONDITIONAL = {"open", "openat", "ioctl", "fcntl", "getrlimit", "prlimit64"}
OF_SCRIPTS = {"uname", "socketpair", "sendto", "recvfrom", "getsockname", "ioctl"}
# x86_64 as the kernel's table numbers them, so that the library is not asked whether the library is right.
KNOWN_NUMBERS = {"x86_64": {0: "read", 9: "mmap", 231: "exit_group"}, "aarch64": {63: "read", 222: "mmap", 94: "exit_group"}}


def verdict(machine: str, number: int, *arguments: int, architecture: int | None = None, script: bool = False) -> int:
    """What the kernel would make of a call: the BPF program of the machine's filter, executed on the call's `struct seccomp_data`."""
    words = [argument & (1 << 64) - 1 for argument in (*arguments, *[0] * 6)[:6]]
    data = struct.pack("<iIQ6Q", number, AUDIT_ARCH[machine] if architecture is None else architecture, 0, *words)
    program, at, value = instructions(machine, script), 0, 0
    while True:
        code, if_true, if_false, constant = program[at]
        at += 1
        match code:
            case 0x20:  # load a word of the call
                (value,) = struct.unpack_from("<I", data, constant)
            case 0x54:  # and
                value &= constant
            case 0x05:  # jump
                at += constant
            case 0x15:  # jump if equal, greater, greater or equal, any bit of
                at += if_true if value == constant else if_false
            case 0x25:
                at += if_true if value > constant else if_false
            case 0x35:
                at += if_true if value >= constant else if_false
            case 0x45:
                at += if_true if value & constant else if_false
            case 0x06:
                return constant
            case _:
                raise AssertionError(f"instruction {code:#x} is not known here")


@cache
def instructions(machine: str, script: bool = False) -> list[tuple[int, int, int, int]]:
    return list(struct.iter_unpack("<HBBI", cell_filter(machine, script)))


@cache
def number(machine: str, name: str) -> int:
    """Below zero where the architecture has no such call."""
    return seccomp.resolve_syscall(getattr(seccomp.Arch, machine.upper()), name)


def allowed_numbers(machine: str) -> set[int]:
    return {number(machine, name) for name in {*ALLOWED, *CONDITIONAL}}


each_machine = pytest.mark.parametrize("machine", MACHINES)


@each_machine
def test_the_filter_is_short_and_this_machines_is_the_default(machine):
    assert 40 < len(instructions(machine)) < 400
    assert cell_filter() == cell_filter(os.uname().machine)


@each_machine
def test_numbers_are_those_of_the_filters_own_architecture(machine):
    for known, name in KNOWN_NUMBERS[machine].items():
        assert number(machine, name) == known
        assert verdict(machine, known) == ALLOW


@each_machine
def test_what_is_on_the_list_is_allowed_whatever_its_arguments(machine):
    found = [name for name in ALLOWED if number(machine, name) >= 0]
    assert len(found) >= 45
    for name in found:
        for argument in (0, 1, (1 << 64) - 1):
            assert verdict(machine, number(machine, name), *[argument] * 6) == ALLOW, name


READING = (0, os.O_CLOEXEC, os.O_DIRECTORY | os.O_CLOEXEC, os.O_NONBLOCK, os.O_NOFOLLOW, os.O_PATH)
WRITING = (
    os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_RDWR, os.O_CREAT, os.O_TRUNC, os.O_APPEND, os.O_RDWR | os.O_CREAT | os.O_EXCL,
    os.O_WRONLY | os.O_CLOEXEC, os.O_TMPFILE | os.O_RDWR, os.O_PATH | os.O_CREAT,
)  # fmt: skip


@each_machine
@pytest.mark.parametrize(("name", "position"), [("open", 1), ("openat", 2)])
def test_files_are_opened_for_reading_only(machine, name, position):
    if number(machine, name) < 0:
        pytest.skip(f"{machine} has no {name}")
    for flags, expected in [(flags, ALLOW) for flags in READING] + [(flags, REFUSE) for flags in WRITING]:
        for noise in (0, (1 << 64) - 1):
            arguments = [noise] * position + [flags, noise, noise]
            assert verdict(machine, number(machine, name), *arguments) == expected, oct(flags)


@each_machine
@given(flags=st.integers(0, (1 << 64) - 1))
def test_no_flags_that_the_kernel_would_take_for_writing_pass(machine, flags):
    forbidden = os.O_ACCMODE | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    passed = verdict(machine, number(machine, "openat"), 0, 0, flags) == ALLOW
    assert not (passed and flags & 0xFFFFFFFF & forbidden)


@each_machine
def test_of_the_calls_with_many_uses_only_the_harmless_ones_pass(machine):
    def passing(name: str, position: int, values: range) -> set[int]:
        return {value for value in values if verdict(machine, number(machine, name), *[0] * position, value) == ALLOW}

    assert passing("fcntl", 1, range(1100)) == {F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC}
    assert passing("ioctl", 1, range(0x5400, 0x5500)) == {TCGETS, FIOCLEX}
    assert passing("prlimit64", 0, range(100)) == {0}  # itself
    assert passing("prlimit64", 2, range(100)) == {0}  # and no new limit
    for high in (1 << 32, 1 << 63):  # the kernel looks at 32 bits of some arguments, the filter at all
        assert verdict(machine, number(machine, "fcntl"), 3, high | 8) == REFUSE
        assert verdict(machine, number(machine, "prlimit64"), 0, 0, high) == REFUSE


@each_machine
@given(called=st.integers(0, 1200) | st.integers(-(1 << 31), (1 << 31) - 1), argument=st.integers(0, (1 << 64) - 1))
def test_no_number_that_is_not_on_the_list_is_ever_allowed(machine, called, argument):
    result = verdict(machine, called, *[argument] * 6)
    if called not in allowed_numbers(machine):
        assert result in (REFUSE, KILL_PROCESS)
    assert result in (ALLOW, REFUSE, KILL_PROCESS)


@each_machine
def test_every_number_of_the_kernels_table_outside_the_list_is_refused(machine):
    outside = set(range(1200)) - allowed_numbers(machine)
    assert {verdict(machine, called) for called in outside} == {REFUSE}


@each_machine
@given(called=st.integers(0, 1200))
def test_a_call_in_another_architectures_way_kills(machine, called):
    for architecture in [*OTHERS.values(), *(code for name, code in AUDIT_ARCH.items() if name != machine)]:
        assert verdict(machine, called, architecture=architecture) == KILL_PROCESS


@given(called=st.integers(0, 1200))
def test_a_number_of_the_x32_kind_kills(called):
    assert verdict("x86_64", X32 | called) == KILL_PROCESS


@each_machine
def test_nothing_that_starts_signals_writes_elsewhere_or_connects_is_on_the_list(machine):
    for name in (
        "fork vfork clone clone3 execve execveat kill tkill tgkill ptrace socket connect openat2 creat rename unlink mkdir memfd_create prctl seccomp "
        "setuid setrlimit process_vm_readv pidfd_open io_uring_setup bpf userfaultfd mount unshare keyctl personality perf_event_open"
    ).split():
        assert name not in ALLOWED
        if number(machine, name) >= 0:
            assert verdict(machine, number(machine, name)) == REFUSE, name


@each_machine
def test_a_script_has_six_calls_more_and_no_other(machine):
    more = {number(machine, name) for name in OF_SCRIPTS}
    for called in range(1200):
        for arguments in ((), (1, 1), (3, FIONBIO), (3, 1 << 20, 9), (1, socket.SOCK_DGRAM), (1 << 12, 1 << 12, 1 << 12, 1 << 12, 1 << 12)):
            programs, scripts = (verdict(machine, called, *arguments, script=script) for script in (False, True))
            assert programs == scripts or (called in more and (programs, scripts) == (REFUSE, ALLOW)), (called, arguments)


@each_machine
def test_a_scripts_pair_of_sockets_is_of_unix_streams_and_nothing_goes_elsewhere(machine):
    def passes(name: str, *arguments: int) -> bool:
        return verdict(machine, number(machine, name), *arguments, script=True) == ALLOW

    flags = (0, socket.SOCK_CLOEXEC, socket.SOCK_NONBLOCK, socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    assert all(passes("socketpair", socket.AF_UNIX, socket.SOCK_STREAM | flag, 0) for flag in flags)
    pairs = {(family, kind) for family in range(300) for kind in range(16) if passes("socketpair", family, kind, 0)}
    assert pairs == {(socket.AF_UNIX, socket.SOCK_STREAM)}
    assert not any(passes("socketpair", socket.AF_UNIX, socket.SOCK_STREAM, protocol) for protocol in (1, 6, 1 << 32))
    for name in ("sendto", "recvfrom"):
        assert passes(name, 3, 1 << 20, 9, 0, 0, 0)
        assert not any(passes(name, 3, 1 << 20, 9, 1 << bit, 0, 0) for bit in range(64))  # MSG_OOB is 1
        assert not any(passes(name, 3, 1 << 20, 9, 0, 1 << bit, 16) for bit in range(64))
    requests = {request for request in range(0x5400, 0x5500) if passes("ioctl", 0, request)}
    assert requests == {TCGETS, FIONBIO, FIOCLEX}
