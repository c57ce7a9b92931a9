"""A Slurm cluster inside this machine, driven from outside its namespaces: submit a job, wait for what it says, take a node away."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import process_trees

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SUBMIT = ROOT / "launcher_scripts" / "slurm" / "submit.sh"
NEEDED = ("slurmctld", "slurmd", "sbatch", "munged", "ip", "unshare", "nsenter", "setpriv", "gcc")


def why_not() -> str:
    """Why no cluster can be made here; empty when one can."""
    if os.geteuid():
        return "a cluster inside this machine needs root"
    if missing := [name for name in NEEDED if not shutil.which(name)]:
        return f"no cluster without {', '.join(missing)}: make test-slurm installs Debian's packages"
    try:
        process_trees.run(["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "true"], check=True, timeout=30)
    except (subprocess.SubprocessError, OSError) as error:
        return f"this machine allows no namespaces of our own: {error}"
    return ""


class Cluster:
    """A context in which two nodes serve the partitions batch, grace and high. process_tracking: cgroup signals a step's first process only,
    as most clusters do; linuxproc signals all of them."""

    def __init__(self, folder: Path, process_tracking: str = "cgroup"):
        self.folder, self.process_tracking = folder, process_tracking
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        stub = ["gcc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", str(self.folder / "pyxis_stub.so"), str(HERE / "pyxis_stub.c")]
        process_trees.run(stub, check=True, timeout=120)
        environment = {**os.environ, "WORK": str(self.folder), "PROCTRACK": f"proctrack/{self.process_tracking}"}
        # pdeathsig: when the tests are killed, so is the cluster, with all that runs in it.
        command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child"]
        command += ["--mount-proc", "bash", str(HERE / "cluster.sh")]
        log = (self.folder / "cluster.log").open("wb")
        self._unshare = process_trees.Process(command, env=environment, lasting=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            wait_until(lambda: (self.folder / "ready").exists() or self._unshare.poll() is not None, 120, "a cluster that is ready")
            assert self._unshare.poll() is None, (self.folder / "cluster.log").read_text()
        except BaseException:
            self.__exit__()
            raise
        self._init = int(Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children").read_text().split()[0])
        return self

    def __exit__(self, *_: object) -> None:
        self._unshare.kill()  # and with it all of its namespace
        self._unshare.wait(30)
        self._unshare.end()

    def run(self, *command: str | Path, check: bool = True, timeout: float = 60, **environment: str) -> str:
        """What a command on the controller's machine prints, errors included."""
        # Without the mark: a job and a daemon outlive the command. They are the cluster's and die with its namespace.
        enter = ["nsenter", "--all", "--target", str(self._init), f"--wd={ROOT}", "env", f"--unset={process_trees.MARK}"]
        result = process_trees.run([*enter, *command], env={**self.environment, **environment}, timeout=timeout)
        assert not check or result.returncode == 0, result.stdout + result.stderr
        return result.stdout + result.stderr

    def submit(self, *settings: str, **environment: str) -> list[int]:
        """Submits by submit.sh; the jobs' numbers."""
        answer = self.run(SUBMIT, "exclusive=no", "mem=8000", *settings, timeout=240, **environment)
        return [int(line.split()[-1]) for line in answer.splitlines() if line.startswith("Submitted batch job")]

    def job(self, number: int) -> dict[str, str]:
        """What scontrol says of a job, the leader of a heterogeneous one."""
        line = self.run("scontrol", "show", "job", "--oneliner", str(number)).splitlines()[0]
        return dict(word.partition("=")[::2] for word in line.split() if "=" in word)

    def wait_for_state(self, number: int, *states: str, timeout: float = 240) -> str:
        wait_until(
            lambda: self.job(number)["JobState"] in states, timeout, lambda: f"job {number} {states}, is {self.job(number)['JobState']}"
        )
        return self.job(number)["JobState"]

    def requeued(self, number: int, times: int, timeout: float = 240) -> None:
        """Waits until a job that went back into the queue for the n-th time has started again, and spares it the two minutes that Slurm has it
        wait there. Slurm sets them when the last start's nodes are free again, which may be long after a first request to start."""
        # It may have started again already, so that nobody sees it wait.
        wait_until(lambda: int(self.job(number)["Restarts"]) >= times, timeout, f"{times} requeues")

        def started() -> bool:
            job = self.job(number)
            # With a step of the last start still in its list a job starts and waits for ever for its first one, and a node fails a job that
            # starts in the second in which it let the last start's credential go.
            left = self.run("squeue", "--noheader", "--steps", f"--jobs={number}", check=False).strip()
            if job["JobState"] == "PENDING" and job["Reason"] == "BeginTime" and not left:
                time.sleep(2)
                self.start_now(number)
            return job["JobState"] not in ("PENDING", "COMPLETING")  # completing: the last start

        wait_until(started, timeout, lambda: f"job {number} starts again, is {self.job(number)}", every=1)

    def wait_for_requeue(self, number: int, times: int, timeout: float = 120) -> None:
        wait_until(
            lambda: int(self.job(number)["Restarts"]) >= times and self.job(number)["JobState"] == "PENDING", timeout, f"{times} requeues"
        )

    def start_now(self, number: int) -> None:
        self.run("scontrol", "update", f"jobid={number}", "starttime=now", check=False)  # it may have started meanwhile

    def wait_for_nodes(self, timeout: float = 120) -> None:
        """Waits until both nodes are idle: a job that starts where Slurm still counts steps of its own last start waits for ever for its first one."""
        wait_until(
            lambda: self.run("sinfo", "--noheader", "--partition=batch", "--states=idle", "--format=%D").strip() == "2",
            timeout,
            "two idle nodes",
        )

    def preempt(self, nodes: str, *options: str) -> int:
        """A short job of the higher partition that wants all GPUs of these nodes."""
        wanted = ["--partition=high", f"--nodelist={nodes}", f"--nodes={2 if ',' in nodes else 1}", "--gres=gpu:8", "--mem=100", *options]
        return int(self.run("sbatch", *wanted, "--output=/dev/null", "--wrap=true").split()[-1])

    def lose(self, node: str) -> None:
        """Kills whatever runs on a node as a loss of power would."""
        self.run("bash", "-c", f"""
            holder=$(< {self.folder}/{node}.pid)
            network=$(readlink /proc/$holder/ns/net)
            for process in /proc/[0-9]*; do
              if [[ $(readlink $process/ns/net) == "$network" && ${{process#/proc/}} != "$holder" ]]; then kill -KILL ${{process#/proc/}}; fi
            done""")  # fmt: skip

    def bring_back(self, node: str) -> None:
        holder = (self.folder / f"{node}.pid").read_text().strip()
        self.run("nsenter", f"--target={holder}", "--net", "--uts", "slurmd", "-N", node)


def lines_of(log: str) -> list[str]:
    """The lines of a log that the tasks of several nodes write at once, each beginning with its node's name: two may stand in one line of the file."""
    return [line for line in re.split(r"\n|(?=node[12]: )", log) if line]


def wait_until(true: Callable[[], bool], timeout: float, what: str | Callable[[], str], every: float = 0.3) -> None:
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what() if callable(what) else what}"
        time.sleep(every)
