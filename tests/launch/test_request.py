"""What a launch is made of, and what it refuses, without NeMo-Run."""

import shlex
import sys
from pathlib import Path

import pytest

from azr_nemo.errors import UserError
from azr_nemo.launch import nemo_run
from azr_nemo.launch.nemo_run import Launch, prepare
from azr_nemo.settings.compose import ROOT

TINY = "recipe=tiny-1n0g-megatron"


def test_nodes_and_gpus_come_from_the_recipe_unless_they_are_given() -> None:
    prepared = prepare(Launch(("recipe=qwen2_5_14b-4n8g-megatron",)))
    assert (prepared.nodes, prepared.gpus, prepared.ranks) == (4, 8, 8)
    prepared = prepare(Launch(("recipe=qwen2_5_14b-4n8g-megatron",), nodes=2, gpus=4))
    assert (prepared.nodes, prepared.gpus, prepared.environment["AZR_RANKS"]) == (2, 4, "4")
    assert prepare(Launch((TINY,), ranks=3)).ranks == 3


def test_every_node_runs_node_sh_with_the_settings_as_they_were_given(tmp_path: Path) -> None:
    recipe = tmp_path / "my recipe.yaml"
    recipe.write_text("# @package _global_\ndefaults:\n  - override /model: tiny\n")
    command = prepare(Launch((f"recipe={recipe}", "data.seed_files=[/a b.jsonl]"))).command
    assert shlex.split(command) == [
        "bash", f"{ROOT}/launcher_scripts/slurm/node.sh", "train", f"recipe={recipe}", "data.seed_files=[/a b.jsonl]",
    ]  # fmt: skip
    assert Path(shlex.split(command)[1]).is_file()


def test_a_run_takes_this_python_and_in_a_container_that_of_the_image() -> None:
    assert prepare(Launch((TINY,))).environment["AZR_PYTHON"] == sys.executable
    assert "AZR_PYTHON" not in prepare(Launch((TINY,), container="image")).environment


def test_a_stopped_run_asks_nemo_runs_script_for_another_try_only_where_tries_are_left() -> None:
    assert prepare(Launch((TINY,), retries=2)).environment["AZR_STOPPED_CODE"] == "75"
    assert "AZR_STOPPED_CODE" not in prepare(Launch((TINY,))).environment


@pytest.mark.parametrize(
    ("launch", "sentence"),
    [
        (Launch((TINY,), executor="k8s"), "--executor k8s is unknown"),
        (Launch((TINY,), executor="local", nodes=2), "--executor local is this machine alone"),
        (Launch((TINY,), executor="local", container="x"), "--container is for --executor slurm"),
        (Launch((TINY,), nodes=0), "--nodes 0 must be at least 1"),
        (Launch((TINY,), retries=-1), "--retries -1 must be at least 0"),
        (Launch((TINY, "engine.tensor_parallel=2"), ranks=3), "1 nodes of 3 ranks cannot hold"),
        (Launch((TINY,), time="soon"), "--time soon is not a time limit"),
        (Launch((TINY,), fabric="token-ring"), "--fabric token-ring is unknown: there are efa, ethernet, infiniband, roce, slingshot"),
        (Launch((TINY,), mounts=("/a",)), "--mount /a is not SRC:DST"),
        (Launch((TINY,), container="x", home=Path("/a,b")), "--home /a,b cannot be mounted in a container"),
        (Launch((TINY, "partion=x")), "partion is not a setting"),
    ],
)
def test_what_cannot_run_is_one_sentence(launch: Launch, sentence: str) -> None:
    with pytest.raises(UserError, match="^" + sentence):
        prepare(launch)


def test_without_nemo_run_the_sentence_names_the_extra_and_the_way_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nemo_run", None)
    with pytest.raises(UserError, match=r"pip install 'azr-nemo\[launch\]', or use launcher_scripts/slurm/submit.sh"):
        nemo_run.executor(prepare(Launch((TINY,))))
