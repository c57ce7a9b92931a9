"""What only the ranks of a job can find out together: that all of them answer, agree, tell the same time, see the same disk and can reduce.

Every wait has a bound. Ranks first leave word in the job's store, so that one that never comes is named before any collective could hang on it;
one that stays away from a collective is named by what the others say.
"""

import json
import os
import platform
import socket
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

import torch
import torch.distributed as dist

from azr_nemo.doctor.disk import MOST_SKEW_S, nearest_existing, trial
from azr_nemo.doctor.findings import Finding, error, warning
from azr_nemo.megatron.platform import Platform, choose_platform
from azr_nemo.settings.schema import RunConfig

PINGS = 5
SMALL, LARGE = 1, {"cpu": 1 << 22, "cuda": 1 << 26}  # fp32 numbers of an all-reduce
SLOW_BUS = {False: 50e9, True: 10e9}  # bytes a second below which a GPU job is warned, in one node and across nodes
LATENCIES = 50


@dataclass(frozen=True)
class Report:
    """What a rank says of itself. disk: why run_dir cannot be written there, or nothing. skew: of that file system's time. sees: whether the
    file that rank 0 left in run_dir is there."""

    rank: int
    host: str
    python: str
    torch: str
    megatron: str
    gpus: int
    disk: str
    skew: float
    sees: bool


class Silent(Exception):
    """These ranks did not answer."""

    def __init__(self, ranks: list[int]):
        super().__init__(str(ranks))
        self.ranks = ranks


def now() -> float:
    """This rank's time, seconds since the epoch."""
    return time.time()


class Job:
    """The job that torchrun started, as this rank sees it. bound_s: the longest wait for another rank."""

    def __init__(self, bound_s: float) -> None:
        self.bound_s = bound_s
        self.timeout = timedelta(seconds=bound_s)
        store, self.rank, self.world = next(iter(dist.rendezvous("env://", timeout=self.timeout)))
        self.store = dist.PrefixStore("doctor", store)

    def say(self, what: str, value: str = "") -> None:
        self.store.set(f"{what}/{self.rank}", value)

    def hear(self, what: str) -> list[str]:
        """What every rank said, in their order. Raises Silent with those that have not within the bound."""
        deadline = time.monotonic() + self.bound_s
        waiting = set(range(self.world))
        while waiting:
            waiting -= {rank for rank in waiting if self.store.check([f"{what}/{rank}"])}
            if waiting and time.monotonic() > deadline:
                raise Silent(sorted(waiting))
            time.sleep(0.02)
        return [self.store.get(f"{what}/{rank}").decode() for rank in range(self.world)]

    def ask_first(self, what: str) -> str:
        """What rank 0 said. Raises RuntimeError when it has not within the bound, counted from now, and its own waiting."""
        self.store.wait([f"{what}/0"], 3 * self.timeout)
        return self.store.get(f"{what}/0").decode()


def serve(config: RunConfig, seconds: float, bound_s: float) -> None:
    """The part of every rank but 0. Ends quietly when rank 0 has given up, which then says why."""
    try:
        job = Job(bound_s)
        _introduce(job, config)
        if job.ask_first("go") == "yes":
            _together(job, choose_platform(config.platform), seconds)
    except RuntimeError:
        # Rank 0 reports it, under the name of the rank that did not answer.
        os._exit(0)


def ranks(config: RunConfig, seconds: float, bound_s: float) -> Iterator[Finding]:
    """The part of rank 0: what all ranks are found to be."""
    job = Job(bound_s)
    sign = _introduce(job, config)
    try:
        reports = [Report(**json.loads(text)) for text in job.hear("report")]
    except Silent as silent:
        job.say("go", "no")
        said = {rank: job.store.get(f"host/{rank}").decode() for rank in silent.ranks if job.store.check([f"host/{rank}"])}
        yield silence("ranks", silent.ranks, said, bound_s)
        return
    finally:
        if sign:
            sign.unlink(missing_ok=True)
    yield from compare(reports)
    job.say("go", "yes")
    hosts = {report.rank: report.host for report in reports}
    try:
        skews, timing = _together(job, choose_platform(config.platform), seconds)
    except RuntimeError as problem:
        yield silence("all-reduce", _missing(job), hosts, bound_s, str(problem).splitlines()[0])
        return
    yield clocks(skews, hosts)
    yield reduction(timing, len(set(hosts.values())) > 1)


def silence(what: str, silent: list[int], hosts: dict[int, str], bound_s: float, said: str = "") -> Finding:
    """The ranks that did not answer, by number and host."""
    if not silent:
        return error(
            what, f"it broke though every rank answers: {said}", "look at the network row, and at NCCL_DEBUG=INFO or GLOO_SOCKET_IFNAME"
        )
    named = ", ".join(f"{rank} on {hosts.get(rank, 'a host that is not known')}" for rank in silent)
    mend = "look at that rank's output and node: a GPU or a mount that hangs, a firewall, or a node that torchrun does not reach"
    return error(what, f"rank {named} did not answer within {bound_s:g} s", mend)


def compare(reports: list[Report]) -> Iterator[Finding]:
    """Whether the ranks are alike and share run_dir."""
    by_host: dict[str, list[int]] = {}
    for report in reports:
        by_host.setdefault(report.host, []).append(report.rank)
    yield Finding("ranks", f"{len(reports)}: " + "; ".join(f"{host} {', '.join(map(str, numbers))}" for host, numbers in by_host.items()))
    for name in ("python", "torch", "megatron", "gpus"):
        kinds: dict[str, list[int]] = {}
        for report in reports:
            kinds.setdefault(str(getattr(report, name)), []).append(report.rank)
        if len(kinds) > 1:
            listed = "; ".join(f"{kind} on ranks {', '.join(map(str, numbers))}" for kind, numbers in kinds.items())
            yield error(f"{name} of the ranks", listed, "install the same everywhere: one image, or one environment on a shared disk")
    if broken := [report for report in reports if report.disk]:
        first = broken[0]
        found = f"rank {', '.join(str(report.rank) for report in broken)} cannot write run_dir ({first.host}: {first.disk})"
        yield error("run_dir of the ranks", found, "put run_dir on a disk that every node mounts writable")
    elif apart := [report for report in reports if not report.sees]:
        found = f"rank {', '.join(str(report.rank) for report in apart)} does not see what rank 0 writes to run_dir"
        yield error("run_dir of the ranks", found, "put run_dir on a disk that all nodes share: every rank writes its part of a checkpoint")
    else:
        skewed = max(reports, key=lambda report: abs(report.skew))
        found = f"shared and writable; its times differ by at most {1000 * abs(skewed.skew):.0f} ms"
        if abs(skewed.skew) > MOST_SKEW_S:
            yield warning(
                "run_dir of the ranks", f"{found}, on rank {skewed.rank}", "synchronise the clocks of nodes and file server (NTP)"
            )
        else:
            yield Finding("run_dir of the ranks", found)


def clocks(skews: list[tuple[float, float]], hosts: dict[int, str]) -> Finding:
    """(seconds ahead of rank 0, uncertainty) of each rank."""
    worst = max(range(len(skews)), key=lambda rank: abs(skews[rank][0]) - skews[rank][1])
    ahead, doubt = skews[worst]
    found = f"rank {worst} on {hosts[worst]} is {abs(ahead):.3f} s {'ahead of' if ahead > 0 else 'behind'} rank 0 (to within {1000 * doubt:.1f} ms)"
    if abs(ahead) - doubt > MOST_SKEW_S:
        return warning("clocks", found, "start chrony or ntpd on that node: logs and checkpoints' times would contradict each other")
    return Finding(
        "clocks", found if len(skews) > 1 and worst else f"within {1000 * max(doubt for _, doubt in skews):.1f} ms of each other"
    )


@dataclass(frozen=True)
class Reduction:
    """latency: seconds of an all-reduce of one number, the median. seconds: of one of `numbers` fp32 numbers, the mean of `count`."""

    device: str
    world: int
    latency: float
    numbers: int
    seconds: float
    count: int

    @property
    def bus(self) -> float:
        """Bytes a second that each rank sends: 2 (n - 1) / n of the message, whatever the algorithm."""
        return 4 * self.numbers * 2 * (self.world - 1) / self.world / self.seconds


def reduction(timing: Reduction, several_hosts: bool) -> Finding:
    found = (
        f"{timing.count} times {4 * timing.numbers / 2**20:.0f} MiB of fp32 on {timing.device}: {1000 * timing.seconds:.1f} ms each, "
        f"{timing.bus / 1e9:.2f} GB/s a rank; latency {1e6 * timing.latency:.0f} us"
    )
    if timing.device == "cuda" and timing.bus < SLOW_BUS[several_hosts]:
        path = "InfiniBand or RoCE (infiniband above, NCCL_IB_HCA, NCCL_SOCKET_IFNAME)" if several_hosts else "NVLink (nvidia-smi topo -m)"
        return warning("all-reduce", found, f"NCCL seems not to go over {path}: NCCL_DEBUG=INFO says which way it takes")
    return Finding("all-reduce", found)


def _introduce(job: Job, config: RunConfig) -> Path | None:
    """Says who this rank is. Rank 0 first leaves a file in run_dir for the others to find, and returns it."""
    job.say("host", socket.gethostname())
    folder = nearest_existing(Path(config.run_dir))
    disk, skew, sign = "", 0.0, None
    try:
        _, skew = trial(folder)
        if job.rank == 0:
            sign = folder / f".azr-nemo-doctor-{uuid.uuid4().hex}"
            sign.touch()
    except OSError as problem:
        disk = problem.strerror or str(problem)
    if job.rank == 0:
        job.say("sign", str(sign or ""))
    name = job.ask_first("sign")
    report = Report(
        rank=job.rank, host=socket.gethostname(), python=platform.python_version(), torch=torch.__version__, megatron=version("megatron-core"),
        gpus=torch.cuda.device_count() if torch.cuda.is_available() else 0, disk=disk, skew=skew, sees=bool(name) and Path(name).exists(),
    )  # fmt: skip
    job.say("report", json.dumps(asdict(report)))
    return sign


def _together(job: Job, where: Platform, seconds: float) -> tuple[list[tuple[float, float]], Reduction]:
    """Clocks and all-reduces. Collective. Raises RuntimeError when a rank stays away, having said so in the store."""
    try:
        if where.device.type == "cuda":
            torch.cuda.set_device(where.device)
        dist.init_process_group(
            where.backend, store=dist.PrefixStore("group", job.store), rank=job.rank, world_size=job.world, timeout=job.timeout
        )
        skews = _skews(job)
        timing = _reduce(job, where.device, seconds)
    except RuntimeError:
        job.say("end", "broken")
        raise
    job.say("end", "done")
    dist.destroy_process_group()
    return skews, timing


def _skews(job: Job) -> list[tuple[float, float]]:
    """How far each rank's clock is ahead of rank 0's: of some exchanges the shortest, halved (as NTP does)."""
    if job.rank:
        for _ in range(PINGS):
            dist.recv(torch.zeros(1, dtype=torch.float64), src=0)
            dist.send(torch.tensor([now()], dtype=torch.float64), dst=0)
        return []
    skews = [(0.0, 0.0)]
    for rank in range(1, job.world):
        best = (0.0, float("inf"))
        for _ in range(PINGS):
            answer = torch.zeros(1, dtype=torch.float64)
            before = now()
            dist.send(torch.zeros(1, dtype=torch.float64), dst=rank)
            dist.recv(answer, src=rank)
            after = now()
            doubt = (after - before) / 2
            if doubt < best[1]:
                best = (float(answer) - (before + after) / 2, doubt)
        skews.append(best)
    return skews


def _reduce(job: Job, device: torch.device, seconds: float) -> Reduction:
    small, large = torch.zeros(SMALL, device=device), torch.zeros(LARGE[device.type], device=device)
    for tensor in (small, large):  # connections are made on the first ones
        _finish(dist.all_reduce(tensor, async_op=True), device, job.bound_s)
    times = []
    for _ in range(LATENCIES):
        times.append(_timed(small, device, job.bound_s))
    once = _timed(large, device, job.bound_s)
    if job.rank == 0:
        job.say("count", str(max(1, int(seconds / once))))
    count = int(job.ask_first("count"))
    began = time.perf_counter()
    for _ in range(count):
        _finish(dist.all_reduce(large, async_op=True), device, job.bound_s)
    taken = (time.perf_counter() - began) / count
    return Reduction(device.type, job.world, sorted(times)[LATENCIES // 2], large.numel(), taken, count)


def _timed(tensor: torch.Tensor, device: torch.device, bound_s: float) -> float:
    began = time.perf_counter()
    _finish(dist.all_reduce(tensor, async_op=True), device, bound_s)
    return time.perf_counter() - began


def _finish(work: dist.Work, device: torch.device, bound_s: float) -> None:
    """Waits for a collective. Raises RuntimeError when it takes longer than the bound."""
    if device.type == "cpu":
        work.wait(timedelta(seconds=bound_s))
        return
    work.wait()  # puts the device's stream behind it, and no more
    done = torch.cuda.Event()
    done.record()
    deadline = time.monotonic() + bound_s
    while not done.query():
        if time.monotonic() > deadline:
            raise RuntimeError(f"an all-reduce did not end within {bound_s:g} s")


def _missing(job: Job) -> list[int]:
    """The ranks that say neither that they are done nor that a collective broke for them."""
    try:
        job.hear("end")
    except Silent as silent:
        return silent.ranks
    return []
