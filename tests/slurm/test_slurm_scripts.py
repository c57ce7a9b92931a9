"""The scripts without a cluster: shellcheck, the commands that submit.sh prints, and what it refuses."""

import shlex
import shutil
import subprocess
from pathlib import Path

import process_trees
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "launcher_scripts" / "slurm"
ALL = sorted([*SCRIPTS.glob("*.sh"), *SCRIPTS.glob("*.sbatch"), *SCRIPTS.glob("env/*.sh"), *Path(__file__).parent.glob("*.sh")])
TINY = "recipe=tiny-1n0g-megatron"


def submit(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return process_trees.run([SCRIPTS / "submit.sh", *arguments], cwd=cwd, timeout=200)


def commands(*arguments: str, cwd: Path = ROOT) -> list[list[str]]:
    result = submit(*arguments, "--dry-run", cwd=cwd)
    assert result.returncode == 0, result.stderr
    return [shlex.split(line) for line in result.stdout.splitlines()]


def refused(*arguments: str) -> str:
    result = submit(*arguments, "--dry-run")
    assert result.returncode == 2, result.stdout + result.stderr
    assert not result.stdout
    assert len(result.stderr.splitlines()) == 1, result.stderr
    return result.stderr.strip()


def options(path: Path) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in path.read_text().splitlines() if line.startswith("#SBATCH ")]


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="no shellcheck here: apt-get install shellcheck")
def test_shellcheck_has_nothing_to_say() -> None:
    result = process_trees.run(["shellcheck", "-x", *ALL], cwd=SCRIPTS, timeout=120)
    assert not result.stdout


@pytest.mark.parametrize("path", [path for path in ALL if path.parent.name != "env" and path.name != "job.sh"], ids=lambda path: path.name)
def test_every_script_ends_at_its_first_error(path: Path) -> None:
    assert "set -euo pipefail" in path.read_text().splitlines()


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.name)
def test_every_script_is_bash_that_parses(path: Path) -> None:
    process_trees.run(["bash", "-n", path], check=True, timeout=20)


def test_batch_scripts_ask_for_a_signal_before_the_limit_and_a_place_in_the_queue() -> None:
    for name in ("azr.sbatch", "azr-hetero.sbatch"):
        assert {"--signal=B:USR1@300", "--requeue", "--open-mode=append", "--ntasks-per-node=1"} <= set(options(SCRIPTS / name))
    first, second = " ".join(options(SCRIPTS / "azr-hetero.sbatch")).split("hetjob")
    assert "--requeue" in first
    assert "--requeue" in second


def test_nodes_and_gpus_come_from_the_recipe() -> None:
    (command,) = commands("recipe=qwen2_5_14b-4n8g-megatron")
    assert {"--nodes=4", "--gpus-per-node=8", "AZR_RANKS=8"} <= set(command)
    (command,) = commands("recipe=qwen2_5_14b-4n8g-megatron", "nodes=8")
    assert {"--nodes=8", "--gpus-per-node=8"} <= set(command)
    (command,) = commands(TINY)
    assert {"--nodes=1", "AZR_RANKS=1"} <= set(command)
    assert not any(word.startswith("--gpus") for word in command)


def test_a_command_carries_every_knob_and_keeps_settings_whole() -> None:
    (command,) = commands(
        TINY, "nodes=2", "gpus=4", "partition=gpu", "account=team", "qos=long", "time=12:00:00", "signal=600", "retries=2", "fabric=efa",
        "container=reg#a/b:1", "mounts=/a:/a,/b:/b", "name=mine", "log=/logs/%j.out", "cpus=16", "mem=0", "sbatch=--mail-type=END --comment=x",
        "selfplay.steps=9", "data.seed_files=[/a b/c.jsonl]",
    )  # fmt: skip
    script = command.index(str(SCRIPTS / "azr.sbatch"))
    before, after = command[:script], command[script + 1 :]
    assert before[: before.index("sbatch")] == [
        "env", f"AZR_HOME={ROOT}", "AZR_RANKS=4", "AZR_REQUEUE=yes", "AZR_RETRIES=2", "AZR_FABRIC=efa", "AZR_CONTAINER=reg#a/b:1",
        "AZR_MOUNTS=/a:/a,/b:/b",
    ]  # fmt: skip
    assert {
        "--nodes=2", "--gpus-per-node=4", "--ntasks-per-node=1", "--partition=gpu", "--account=team", "--qos=long", "--time=12:00:00",
        "--signal=B:USR1@600", "--job-name=mine", "--output=/logs/%j.out", "--cpus-per-task=16", "--mem=0", "--mail-type=END",
        "--comment=x", "--exclusive", "--export=ALL",
    } <= set(before)  # fmt: skip
    assert after == [TINY, "selfplay.steps=9", "data.seed_files=[/a b/c.jsonl]"]


def test_a_chain_is_one_command_a_link_and_its_links_do_not_requeue() -> None:
    links = commands(TINY, "chain=3")
    assert len(links) == 3
    assert links[0] == links[1] == links[2]
    assert {"--dependency=singleton", "AZR_REQUEUE=no"} <= set(links[0])


def test_a_heterogeneous_job_has_a_group_without_gpus_first() -> None:
    (command,) = commands(
        TINY, "hetero=yes", "nodes=2", "gpus=8", "sandbox_nodes=3", "sandbox_cpus=32", "sandbox_partition=cpu", "partition=gpu"
    )
    colon = command.index(":")
    sandbox, trainer = command[:colon], command[colon:]
    assert {"--nodes=3", "--cpus-per-task=32", "--partition=cpu"} <= set(sandbox)
    assert not any(word.startswith("--gpus") for word in sandbox)
    assert {"--nodes=2", "--gpus-per-node=8", "--partition=gpu", str(SCRIPTS / "azr-hetero.sbatch")} <= set(trainer)


def test_a_recipe_file_is_found_from_wherever_the_job_runs(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("# @package _global_\ndefaults:\n  - override /model: tiny\ncluster:\n  nodes: 3\n")
    (command,) = commands("recipe=mine.yaml", cwd=tmp_path)
    assert f"recipe={tmp_path / 'mine.yaml'}" in command
    assert {"--nodes=3", "--job-name=azr-mine"} <= set(command)


def test_quotes_in_options_of_sbatch_hold_words_together_and_nothing_in_them_is_run(tmp_path: Path) -> None:
    said = f"""--comment="my run" --mail-user='a b' --x=a\\ b --y=$(touch {tmp_path}/ran) `touch {tmp_path}/ran` *"""
    (command,) = commands(TINY, f"sbatch={said}")
    words = ["--comment=my run", "--mail-user=a b", "--x=a b", "--y=$(touch", f"{tmp_path}/ran)", "`touch", f"{tmp_path}/ran`", "*"]
    start = command.index(words[0])
    assert command[start : start + len(words)] == words
    assert not (tmp_path / "ran").exists()


def test_settings_reach_the_run_as_they_were_typed() -> None:
    (command,) = commands(TINY, "run_dir=/x/p(1) é,b#c='d'/$e")
    assert command[-1] == "run_dir=/x/p(1) é,b#c='d'/$e"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "recipe=NAME is missing"),
        ([TINY, "partion=x"], "partion is not a setting"),
        (["recipe=nonesuch"], "recipe=nonesuch is unknown"),
        ([TINY, "nodes=two"], "nodes=two is not a whole number"),
        ([TINY, "nodes=0"], "nodes=0 must be at least 1"),
        ([TINY, "requeue=maybe"], "requeue=maybe: say yes or no"),
        ([TINY, "fabric=token-ring"], "fabric=token-ring is unknown: there are efa ethernet infiniband roce slingshot"),
        ([TINY, "gpus=3", "engine.tensor_parallel=2"], "1 nodes of 3 ranks cannot hold"),
        ([TINY, 'sbatch=--comment="my run'], 'sbatch=--comment="my run: a quote is not closed'),
        ([TINY, "fast"], "fast is neither KEY=VALUE nor --dry-run"),
    ],
)
def test_what_cannot_run_is_refused_in_a_sentence_before_it_is_queued(arguments: list[str], sentence: str) -> None:
    assert refused(*arguments).startswith(f"submit.sh: {sentence}")


def test_help_lists_every_key_that_is_understood() -> None:
    text = submit("--help").stdout
    understood = (SCRIPTS / "submit.sh").read_text().split("nodes=* |", 1)[1].split(")\n")[0]
    keys = {"nodes", *(word.rstrip("=*") for word in understood.replace("\\", " ").replace("|", " ").split())}
    assert len(keys) > 25
    assert not [key for key in keys if f"{key}=" not in text]


def test_scripts_outside_a_job_or_a_checkout_say_so(tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin"}
    for name in ("azr.sbatch", "azr-hetero.sbatch"):
        result = process_trees.run(["bash", SCRIPTS / name], env=environment, timeout=20)
        assert result.returncode
        assert "submit it with sbatch" in result.stderr
        result = process_trees.run(["bash", SCRIPTS / name], env={**environment, "AZR_HOME": str(tmp_path)}, timeout=20)
        assert result.returncode == 2
        assert f"AZR_HOME={tmp_path} is not a checkout" in result.stderr
    settings = {**environment, "AZR_HOME": str(ROOT), "AZR_FABRIC": "token-ring"}
    result = process_trees.run(["bash", SCRIPTS / "node.sh", "train"], env=settings, timeout=20)
    assert result.returncode == 2
    assert "AZR_FABRIC=token-ring: there is no" in result.stderr
