"""What the doctor says of a machine: found as it is, and ill where it is made so."""

import os
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig

from azr_nemo.doctor import disk, execution, hardware, recipe
from azr_nemo.doctor.checks import about_a_run
from azr_nemo.doctor.disk import room, trial, writing
from azr_nemo.doctor.findings import Finding, State
from azr_nemo.doctor.hardware import gloo, infiniband, nccl, several_nodes
from azr_nemo.models import tiny
from azr_nemo.planning.run_settings import load_settings
from azr_nemo.settings.schema import ExecutorConfig, RunConfig


def by_name(findings: Any) -> dict[str, Finding]:
    return {finding.what: finding for finding in findings}


def test_this_environment_meets_its_requirements() -> None:
    found = by_name(hardware.versions())
    assert {finding.state for finding in found.values()} == {State.OK}
    assert found["torch"].found.startswith("2.13.0")


def test_a_package_of_another_version_is_an_error_with_the_command_that_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "requires", lambda _: ["torch==1.0", "no-such-package>=2", "pebble>=99; extra == 'dev'"])
    found = [finding for finding in hardware.versions() if finding.state == State.ERROR]
    assert [(finding.what, finding.mend) for finding in found] == [
        ("torch", "pip install 'torch==1.0'"), ("no-such-package", "pip install 'no-such-package>=2'"),
    ]  # fmt: skip


def test_a_recipe_for_gpus_is_told_that_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(hardware.importlib.util, "find_spec", lambda name: None)
    found = by_name(hardware.devices(load_settings(["recipe=qwen2_5_7b-1n4g-megatron"]), about_run=True))
    assert (found["devices"].state, found["devices"].found) == (State.ERROR, "0 GPUs, but the recipe wants 4 on each node")
    assert found["transformer-engine"].state == found["tensorrt-llm"].state == State.ERROR


def test_a_machine_without_gpus_is_well_when_no_run_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware.torch.cuda, "is_available", lambda: False)
    assert {finding.state for finding in hardware.devices(RunConfig(), about_run=False)} == {State.OK}


def test_infiniband_ports_are_listed_and_one_that_is_down_is_a_warning(tmp_path: Path) -> None:
    assert infiniband(tmp_path).found == "no device"
    for device, state in (("mlx5_0", "4: ACTIVE"), ("mlx5_1", "1: DOWN")):
        port = tmp_path / device / "ports" / "1"
        port.mkdir(parents=True)
        (port / "state").write_text(state + "\n")
        (port / "rate").write_text("400 Gb/sec (4X NDR)\n")
    found = infiniband(tmp_path)
    assert found.state == State.WARNING
    assert "mlx5_0:1 4: ACTIVE, 400 Gb/sec (4X NDR)" in found.found
    assert found.mend.startswith("mlx5_1:1 is not active")
    shutil.rmtree(tmp_path / "mlx5_1")
    assert infiniband(tmp_path).state == State.OK


def test_variables_of_the_fabric_are_listed() -> None:
    assert "NCCL_IB_HCA=mlx5 UCX_TLS=rc" in nccl({"NCCL_IB_HCA": "mlx5", "UCX_TLS": "rc", "HOME": "/"}).found


def test_an_interface_that_is_not_there_is_an_error() -> None:
    found = gloo({"GLOO_SOCKET_IFNAME": "ib9"}, {"lo": "127.0.0.1", "eth0": "10.0.0.2"}, several=False)
    assert (found.state, found.mend) == (State.ERROR, "set it to one of them")
    assert "gloo takes eth0" in gloo({"GLOO_SOCKET_IFNAME": "eth0"}, {"eth0": "10.0.0.2"}, several=True).found


def test_a_name_that_means_the_loopback_is_well_alone_and_an_error_among_several_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostbyname", lambda name: "127.0.1.1")
    interfaces = {"lo": "127.0.0.1", "eth0": "10.0.0.2"}
    assert gloo({}, interfaces, several=False).state == State.OK
    found = gloo({}, interfaces, several=True)
    assert found.state == State.ERROR
    assert "GLOO_SOCKET_IFNAME" in found.mend


def test_torchruns_variables_tell_whether_there_are_several_nodes() -> None:
    assert not several_nodes({})
    assert not several_nodes({"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "8"})
    assert several_nodes({"WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8"})


def test_a_dead_server_is_named_and_with_no_other_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution.jail, "probe", list)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"  # bound, not listening: refused
        found = by_name(execution.execution(ExecutorConfig(name="sandbox_fusion", endpoints=[url], patience_s=2)))
    assert found[f"endpoint {url}"].state == State.ERROR
    assert "cannot be reached" in found[f"endpoint {url}"].found
    assert "executor.endpoints" in found[f"endpoint {url}"].mend


def test_a_durable_write_leaves_nothing_and_takes_time(tmp_path: Path) -> None:
    seconds, skew = trial(tmp_path)
    assert seconds > 0
    assert abs(skew) < 1
    assert list(tmp_path.iterdir()) == []


def test_a_run_dir_below_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = writing("run_dir", tmp_path / "file" / "run")
    assert found.state == State.ERROR
    assert "cannot be written: it is a file" in found.found


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_run_dir_without_permission_is_an_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert writing("run_dir", tmp_path / "run").state == State.ERROR


def test_a_run_dir_on_a_read_only_file_system_is_an_error() -> None:
    found = writing("run_dir", Path("/proc/azr-nemo/run"))
    assert found.state == State.ERROR
    assert "run_dir=DIR" in found.mend


def test_a_file_system_with_another_time_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = disk.time.time
    monkeypatch.setattr(disk.time, "time", lambda: real() - 100)
    found = writing("run_dir", tmp_path)
    assert found.state == State.WARNING
    assert "100.0 s after this machine's time" in found.found or "99." in found.found


def test_room_is_measured_in_checkpoints_of_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_settings(["recipe=qwen2_5_7b-1n4g-megatron"])
    one = 7_615_616_512 * 14

    def verdict(free: int) -> State:
        monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: type("usage", (), {"free": free}))
        return room(config, tmp_path).state

    config.checkpoint.keep, config.checkpoint.keep_every = 2, 0
    assert [verdict(one - 1), verdict(one), verdict(3 * one)] == [State.ERROR, State.WARNING, State.OK]


def shape(vocab: int) -> LlamaConfig:
    return LlamaConfig(vocab_size=vocab, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)


def test_a_tokenizer_larger_than_the_embedding_is_an_error() -> None:
    words = tiny.tokenizer()
    found = list(recipe.agreement(words, shape(len(words) - 1)))
    assert [finding.state for finding in found] == [State.ERROR]
    assert f"ids up to {len(words) - 1}, but the model's embedding only {len(words) - 1} rows" in found[0].found


def test_an_end_token_beyond_the_embedding_is_an_error() -> None:
    words = tiny.tokenizer()
    found = list(recipe.agreement(words, shape(len(words)), end_ids=[words.eos_token_id, 70_000]))
    assert [(finding.what, finding.state) for finding in found] == [("special tokens", State.ERROR)]
    assert "[70000]" in found[0].found


def test_a_text_that_does_not_survive_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    words = tiny.tokenizer()
    monkeypatch.setattr(words, "decode", lambda *_, **__: "something else")
    found = by_name(recipe.agreement(words, shape(len(words))))
    assert found["tokenizer"].state == State.WARNING


def test_a_recipe_is_looked_at_with_its_model_layout_and_memory() -> None:
    found = by_name(recipe.model(load_settings(["recipe=tiny-1n0g-megatron"])))
    assert {finding.state for finding in found.values()} == {State.OK}
    assert set(found) == {"layout", "memory", "model", "special tokens", "tokenizer"}
    assert "survives" in found["tokenizer"].found


def test_a_model_that_is_not_at_hand_and_a_plan_that_does_not_fit_are_errors() -> None:
    config = load_settings(["recipe=qwen2_5_7b-1n4g-megatron", "model.path=/nowhere"])
    found = by_name(recipe.model(config))
    assert "there is no such directory" in found["model"].found
    assert found["model"].state == State.ERROR
    small = by_name(recipe.model(replace(config, cluster=replace(config.cluster, gpu_memory_gb=40))))
    assert small["memory"].state == State.ERROR
    assert small["memory"].mend.startswith("nearest that does: ")


def test_a_layout_that_cannot_be_cut_is_an_error() -> None:
    found = by_name(recipe.model(load_settings(["recipe=tiny-1n0g-megatron", "engine.tensor_parallel=3"])))
    assert found["model"].state == State.ERROR
    assert "engine.tensor_parallel=3" in found["model"].found


def test_settings_of_the_executor_alone_are_no_run() -> None:
    assert not about_a_run([])
    assert not about_a_run(["executor=sandbox_fusion", "executor.endpoints=[http://x]"])
    assert about_a_run(["recipe=tiny-1n0g-megatron"])
    assert about_a_run(["run_dir=/data/run"])
