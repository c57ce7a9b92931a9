"""Two real ranks, under torchrun and as it would start them, well and ill; and what is said of reports that no machine here could give."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import process_trees
import pytest
from run_server import Ended, ranks

from azr_nemo.doctor.findings import State
from azr_nemo.doctor.ranks import Reduction, Report, clocks, compare, reduction, silence

HERE = Path(__file__).parent


SCRIPT = HERE / "rank_job.py"


def job(ailment: str, run_dir: Path, *more: str) -> Ended:
    """How rank 0 ended, as torchrun would start it."""
    words = [ailment, "doctor", f"run_dir={run_dir}", "model=tiny", *more]
    return ranks(SCRIPT, 2, *words, first_alone=True, HOME=str(run_dir))[0]


def row(said: str, what: str) -> str:
    """The text of a row of the table, joined where it was folded."""
    lines = [line for line in said.splitlines() if line.startswith("│")]
    found, inside = [], False
    for line in lines:
        cells = [cell.strip() for cell in line.strip("│").split("│")]
        inside = cells[0] == what or (inside and not cells[0])
        if inside:
            found.append(" ".join(cells[1:]))
    return " ".join(found)


@pytest.mark.slow
def test_ranks_that_are_well_answer_reduce_and_are_printed_once(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", SCRIPT, "none", "doctor"]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(HERE.parents[1]), "HOME": str(tmp_path)}
    done = process_trees.run([*command, f"run_dir={tmp_path}", "model=tiny", "--seconds", "1"], env=environment, timeout=280)
    said = done.stdout
    assert done.returncode == 0, said + done.stderr
    assert said.count("azr-nemo doctor") == 1
    assert re.search(r"ok +2: \S+ 0, 1", row(said, "ranks"))
    assert "shared and writable" in row(said, "run_dir of the ranks")
    assert re.search(r"ok +(within|rank 1 on \S+ is 0\.\d+ s)", row(said, "clocks"))
    assert re.search(r"ok +\d+ times 16 MiB of fp32 on cpu: [\d.]+ ms each, [\d.]+ GB/s a rank; latency \d+ us", row(said, "all-reduce"))
    assert list(tmp_path.glob(".azr-nemo-doctor*")) == []


@pytest.mark.slow
def test_a_clock_that_is_ahead_is_named_with_its_rank(tmp_path: Path) -> None:
    done = job("skewed", tmp_path, "--seconds", "0")
    assert done.code == 0, done.output
    assert re.search(r"warning rank 1 on \S+ is 1(19\.\d+|20\.\d+) s ahead of rank 0", row(done.output, "clocks"))
    assert "chrony" in row(done.output, "clocks")


@pytest.mark.slow
@pytest.mark.parametrize(("ailment", "what"), [("hangs", "all-reduce"), ("absent", "ranks")])
def test_a_rank_that_does_not_answer_is_named_within_the_bound(ailment: str, what: str, tmp_path: Path) -> None:
    done = job(ailment, tmp_path, "--seconds", "0", "--bound", "20")
    assert done.code == 1, done.output
    assert re.search(r"error rank 1 on .+ did not answer within 20 s", row(done.output, what))


REPORTS = [Report(rank, f"node{rank // 2}", "3.11.7", "2.13.0", "0.16.1", 8, "", 0.01, True) for rank in range(4)]


def test_hosts_are_listed_with_their_ranks() -> None:
    assert [(one.what, one.state) for one in compare(REPORTS)] == [("ranks", State.OK), ("run_dir of the ranks", State.OK)]
    assert next(iter(compare(REPORTS))).found == "4: node0 0, 1; node1 2, 3"


def test_ranks_with_other_versions_are_errors() -> None:
    found = {one.what: one for one in compare([*REPORTS[:3], replace(REPORTS[3], torch="2.12.0", gpus=4)])}
    assert found["torch of the ranks"].state == State.ERROR
    assert found["torch of the ranks"].found == "2.13.0 on ranks 0, 1, 2; 2.12.0 on ranks 3"
    assert "8 on ranks 0, 1, 2; 4 on ranks 3" in found["gpus of the ranks"].found


def test_a_run_dir_that_is_not_shared_or_not_writable_is_an_error() -> None:
    apart = list(compare([*REPORTS[:3], replace(REPORTS[3], sees=False)]))[-1]
    assert (apart.state, apart.found) == (State.ERROR, "rank 3 does not see what rank 0 writes to run_dir")
    broken = list(compare([*REPORTS[:3], replace(REPORTS[3], disk="Read-only file system")]))[-1]
    assert (broken.state, broken.found) == (State.ERROR, "rank 3 cannot write run_dir (node1: Read-only file system)")


def test_a_file_server_with_another_time_is_a_warning() -> None:
    skewed = list(compare([*REPORTS[:3], replace(REPORTS[3], skew=-30.0)]))[-1]
    assert skewed.state == State.WARNING
    assert "on rank 3" in skewed.found


def test_a_clock_is_wrong_only_beyond_what_the_exchange_leaves_open() -> None:
    hosts = {0: "a", 1: "b"}
    assert clocks([(0.0, 0.0), (3.0, 0.001)], hosts).state == State.WARNING
    assert clocks([(0.0, 0.0), (3.0, 2.5)], hosts).state == State.OK


def test_gpus_that_do_not_go_over_their_links_are_a_warning() -> None:
    fast, slow = Reduction("cuda", 8, 2e-5, 1 << 26, 1e-3, 100), Reduction("cuda", 8, 2e-5, 1 << 26, 0.5, 10)
    assert fast.bus == pytest.approx(2**28 * 2 * 7 / 8 / 1e-3)
    assert reduction(fast, True).state == State.OK
    assert reduction(slow, True).state == reduction(slow, False).state == State.WARNING
    assert "InfiniBand" in reduction(slow, True).mend
    assert "NVLink" in reduction(slow, False).mend


def test_a_collective_that_breaks_among_living_ranks_says_so() -> None:
    found = silence("all-reduce", [], {}, 60, "Connection reset by peer")
    assert (found.state, found.found) == (State.ERROR, "it broke though every rank answers: Connection reset by peer")
