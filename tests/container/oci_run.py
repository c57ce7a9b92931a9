"""Runs a container as `docker run` would, with crun: an OCI runtime without a daemon. What Docker sets by default is written down here."""

import json
import os
import platform
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import process_trees

# Docker's default capabilities; an ordinary user has them in the bounding set only.
CAPABILITIES = [
    f"CAP_{name}" for name in
    "AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW SETFCAP SETGID SETPCAP SETUID SYS_CHROOT".split()
]  # fmt: skip
MASKED = "acpi asound interrupts kcore keys latency_stats sched_debug scsi timer_list timer_stats".split()
READ_ONLY = "bus fs irq sys sysrq-trigger".split()
# Allowed by podman's default filter; by Docker's only with CAP_SYS_ADMIN.
NAMESPACE_CALLS = set("fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_tree setns umount umount2 unshare".split())
NAMESPACE_FLAGS = 0x7E020000  # of clone: CLONE_NEW*
ENOSYS = 38
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "")


def seccomp(docker: bool) -> dict:
    """The default system-call filter of podman (a file of Debian's containers packages) as OCI wants it, or the same made as strict as Docker's
    about namespaces and mounts: unshare, mount and their like refused, clone without namespace flags only, clone3 unknown."""
    profile = json.loads(Path("/usr/share/containers/seccomp.json").read_text())
    rules = []
    for entry in profile["syscalls"]:
        only = entry.get("includes") or {}
        if only.get("caps") or ARCHITECTURE not in only.get("arches", [ARCHITECTURE]):
            continue
        names = set(entry["names"]) - (NAMESPACE_CALLS | {"clone", "clone3"} if docker else set())
        if names:
            rules.append({key: value for key, value in entry.items() if key in ("action", "args", "errnoRet")} | {"names": sorted(names)})
    if docker:
        allowed = [{"index": 0, "value": NAMESPACE_FLAGS, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]
        rules.append({"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": allowed})
        rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS})
    return {
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": 1,
        "syscalls": rules,
    }


@dataclass(frozen=True)
class Options:
    """What `docker run` options set. mounts: folder of the host -> (folder inside, "rw" or "ro"). filter: docker | podman | unconfined."""

    mounts: Mapping[Path, tuple[str, str]] = field(default_factory=dict)
    user: str = ""
    filter: str = "docker"


def specification(config: Mapping, root: Path, command: Sequence[str], options: Options) -> dict:
    """The OCI runtime's config.json for an image's configuration. Its network is an empty namespace: nothing can be fetched."""
    uid, _, gid = (options.user or config["User"]).partition(":")
    entry = list(config.get("Entrypoint") or [])
    binds = [
        {"destination": inside, "type": "bind", "source": str(source), "options": ["rbind", mode]}
        for source, (inside, mode) in options.mounts.items()
    ]
    spec: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": int(uid), "gid": int(gid or uid)},
            "args": entry + list(command or config["Cmd"]),
            "env": config["Env"],
            "cwd": config.get("WorkingDir") or "/",
            "capabilities": {"bounding": CAPABILITIES},
            "noNewPrivileges": False,
        },
        "root": {"path": str(root)},
        "hostname": "azr",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666"],
            },
            {
                "destination": "/dev/shm",
                "type": "tmpfs",
                "source": "shm",
                "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
            },
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            *binds,
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")],
            "maskedPaths": [f"/proc/{name}" for name in MASKED] + ["/sys/firmware"],
            "readonlyPaths": [f"/proc/{name}" for name in READ_ONLY],
        },
    }
    if options.filter != "unconfined":
        spec["linux"]["seccomp"] = seccomp(docker=options.filter == "docker")
    return spec


class Container:
    """A container of the image at `root`, started at once. bundle: an empty folder for its config.json and its output."""

    def __init__(self, config: Mapping, root: Path, bundle: Path, command: Sequence[str], options: Options):
        self.name = f"azr-{uuid.uuid4().hex[:12]}"
        self._state = bundle / "state"
        (bundle / "config.json").write_text(json.dumps(specification(config, root, command, options)))
        self._output = bundle / "output"
        with self._output.open("w") as out:
            command = self._crun("run", "--bundle", str(bundle), self.name)
            self._process = process_trees.Process(command, lasting=True, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)

    def _crun(self, *arguments: str) -> list[str]:
        command = ["crun", "--root", str(self._state), "--cgroup-manager=disabled", *arguments]
        if os.path.ismount("/sys/fs/cgroup/unified"):  # crun refuses such a hybrid; in a mount namespace of its own it sees none
            return ["unshare", "--mount", "sh", "-c", 'umount /sys/fs/cgroup/unified; exec "$@"', "sh", *command]
        return command

    @property
    def output(self) -> str:
        """What it has printed so far, on either stream."""
        return self._output.read_text(errors="replace")

    def wait(self, timeout: float) -> int:
        """The exit code. Raises subprocess.TimeoutExpired."""
        return self._process.wait(timeout)

    def execute(self, *command: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Another command in the running container, as `docker exec`."""
        return process_trees.run(self._crun("exec", self.name, *command), timeout=timeout)

    def signal(self, name: str) -> None:
        """Sends process 1 a signal, as `docker kill --signal`."""
        process_trees.run(self._crun("kill", self.name, name), timeout=60, check=True)

    def close(self) -> None:
        """Ends it, whatever it does."""
        if self._process.poll() is None:
            process_trees.run(self._crun("delete", "--force", self.name), timeout=60)
            self._process.wait(60)
        self._process.end()
