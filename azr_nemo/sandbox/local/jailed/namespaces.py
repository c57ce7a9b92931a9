"""Own namespaces without a helper program: no network, no other processes, and a file system that holds nothing but the given folders."""

import contextlib
import ctypes
import os
import signal
import stat

NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = (
    0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_NOATIME, MS_NODIRATIME = 1, 2, 4, 8, 32, 1024, 2048
MS_BIND, MS_REC, MS_PRIVATE, MS_RELATIME = 4096, 16384, 1 << 18, 1 << 21
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
NOBODY = 65534
HOST = "sandbox"  # the name of the machine, as it is known inside
BASE = "/tmp"  # where the new root is put together; any existing folder would do

_libc = ctypes.CDLL(None, use_errno=True)


def enter_namespaces(folders: list[str], keep_fd: int) -> None:
    """Moves this process into new user, mount, network, ipc, uts and pid namespaces whose root holds `folders`, read-only. Raises OSError.

    A pid namespace begins with a child: the caller returns in that child, while the parent waits, holding none of the caller's connections
    (`keep_fd` is closed there), and ends with it.
    """
    uid, gid, host = os.getuid(), os.getgid(), HOST.encode()
    _check(_libc.unshare(NEWUSER | NEWNS | NEWNET | NEWIPC | NEWUTS | NEWPID | NEWCGROUP), "unshare")
    with contextlib.suppress(PermissionError):  # podman's default filter refuses it; then the container's name is known inside
        _check(_libc.sethostname(host, len(host)), "sethostname")
    for name, line in (("setgroups", "deny"), ("uid_map", f"{NOBODY} {uid} 1"), ("gid_map", f"{NOBODY} {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="utf-8") as file:
            file.write(line)
    _new_root(folders)
    child = os.fork()
    if child:
        os.close(keep_fd)
        os.waitpid(child, 0)
        os._exit(0)
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _new_root(folders: list[str]) -> None:
    """An empty file system with the folders bound into it becomes the root; the old one is let go."""
    _mount(None, "/", None, MS_REC | MS_PRIVATE)
    sources = {folder: os.open(folder, os.O_PATH | os.O_CLOEXEC) for folder in folders}  # may lie below BASE, which is about to be covered
    _mount("tmpfs", BASE, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    for folder, fd in sources.items():
        target = BASE + folder
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            os.makedirs(target, exist_ok=True)
        else:  # a module of one file
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.close(os.open(target, os.O_CREAT | os.O_RDONLY))
        _mount(f"/proc/self/fd/{fd}", target, None, MS_BIND | MS_REC)
        _mount(None, target, None, MS_BIND | MS_REMOUNT | MS_RDONLY | _locked_flags(target))
        os.close(fd)
    _mount(None, BASE, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
    os.chdir(BASE)
    _check(_libc.syscall(PIVOT_ROOT[os.uname().machine], b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", MNT_DETACH), "umount the old root")
    os.chdir("/")


def _locked_flags(path: str) -> int:
    """Flags that a mount brought from outside and that may not be dropped in a user namespace."""
    have = os.statvfs(path).f_flag
    flags = 0
    for bit, flag in ((2, MS_NOSUID), (4, MS_NODEV), (8, MS_NOEXEC), (1024, MS_NOATIME), (2048, MS_NODIRATIME), (4096, MS_RELATIME)):
        if have & bit:
            flags |= flag
    return flags


def drop_capabilities() -> None:
    """No capability remains in any set; the caller has set no_new_privs."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this process
    _check(_libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")


def become_nobody() -> None:
    """Switches from root to a user who owns nothing. Raises OSError."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    encoded = [text.encode() if text is not None else None for text in (source, target, kind, options)]
    result = _libc.mount(encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3])
    _check(result, f"mount on {target}")


def _check(result: int, what: str) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")
