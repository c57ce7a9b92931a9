"""Whatever is wrong is one sentence, exit code 2, and nothing is left."""

import json
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from conversion_models import edit_json, weights
from safetensors.torch import save_file

from azr_nemo import cli
from azr_nemo.conversion.convert import convert
from azr_nemo.conversion.run_checkpoint import open_checkpoint
from azr_nemo.errors import UserError
from azr_nemo.file_hashes import Written

Source = Callable[..., Path]


@pytest.fixture
def hf(source: Source, tmp_path: Path) -> Path:
    """A tiny model's directory, to be spoilt."""
    return Path(shutil.copytree(source(), tmp_path / "hf"))


def spoil(hf: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = weights(hf)
    change(tensors)
    save_file(tensors, hf / "model.safetensors", metadata={"format": "pt"})


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda hf: spoil(hf, lambda t: t.pop("lm_head.weight")),
            r"has no tensor lm_head\.weight: its files do not match its config\.json",
        ),
        (lambda hf: spoil(hf, lambda t: t.update({"model.norm.weight": torch.ones(7)})), r"model\.norm\.weight has shape \(7,\), but its"),
        (
            lambda hf: spoil(hf, lambda t: t.update({"model.norm.weight": torch.ones(32).half()})),
            r"model\.norm\.weight is torch\.float16, others",
        ),
        (lambda hf: spoil(hf, lambda t: t.update({"model.extra": torch.ones(7)})), r"holds a tensor model\.extra, which the model"),
        (lambda hf: spoil(hf, lambda t: t.update({k: v.double() for k, v in t.items()})), r"are torch\.float64: expected one of"),
        (lambda hf: cut(hf / "model.safetensors"), r"model\.safetensors cannot be read"),
        (lambda hf: (hf / "model.safetensors").unlink(), r"has no \*\.safetensors"),
        (lambda hf: (hf / "config.json").write_text("{"), r"config\.json cannot be read"),
        (lambda hf: edit_json(hf / "config.json", model_type="gpt_neox"), "architecture 'gpt_neox' is not supported: use one of llama"),
        (lambda hf: edit_json(hf / "config.json", hidden_act="gelu"), "hidden_act=gelu, which is not supported"),
        (lambda hf: (hf / "model.safetensors.index.json").write_text("[]"), r"model\.safetensors\.index\.json cannot be read"),
        (
            lambda hf: (hf / "model.safetensors.index.json").write_text(
                json.dumps({"weight_map": {"model.norm.weight": "gone.safetensors"}})
            ),
            r"gone\.safetensors cannot be read",
        ),
    ],
)
@pytest.mark.parametrize("to", ["megatron", "nemo"])
def test_a_damaged_or_unsupported_hugging_face_directory(
    hf: Path, tmp_path: Path, change: Callable[[Path], object], message: str, to: str
) -> None:
    change(hf)
    with pytest.raises(UserError, match=message):
        convert(hf, tmp_path / "out", to)
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: shutil.rmtree(c / "model"), "is not a checkpoint: it has no model/"),
        (lambda c: (c / "weights/metadata.json").unlink(), r"weights/metadata\.json is missing, so it was never completed"),
        (lambda c: (c / "weights/common.pt").unlink(), r"weights/common\.pt is missing, so it was never completed"),
        (lambda c: edit_json(c / "weights/metadata.json", sharded_backend="torch_dist"), "stored as torch_dist, not as safetensors"),
        (lambda c: cut(c / "weights/slices-00000.safetensors"), "cannot be loaded"),
        (lambda c: (c / "weights/slices-00000.safetensors").unlink(), r"0 of its slices-\*\.safetensors files are there"),
        (lambda c: save_file({"a": torch.ones(1)}, c / "weights/slices-00000.safetensors"), "cannot be loaded: 'layout'"),
        (lambda c: edit_json(c / "model/config.json", num_hidden_layers=3, layer_types=None), "has 4 layers, but its configuration says 3"),
        (lambda c: edit_json(c / "model/config.json", tie_word_embeddings=True), r"holds a tensor output_layer\.weight, which"),
    ],
)
def test_a_damaged_checkpoint(checkpoint: Path, tmp_path: Path, change: Callable[[Path], object], message: str) -> None:
    change(checkpoint)
    with pytest.raises(UserError, match=message):
        convert(checkpoint, tmp_path / "out", "hf")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def recorded(folder: Path) -> Path:
    """With the record that a run's checkpoint has."""
    hashes = {str(path.relative_to(folder)): Written.read(path).sha256 for path in folder.rglob("*") if path.is_file()}
    (folder / "state.json").write_text(json.dumps({"step": 1, "files": {}, "sha256": hashes}))
    return folder


def zero(file: Path) -> None:
    """A part of it, in the middle."""
    with file.open("r+b") as opened:
        opened.seek(file.stat().st_size // 2)
        opened.write(bytes(64))


def test_a_checkpoint_whose_bytes_are_not_what_was_written(checkpoint: Path, tmp_path: Path) -> None:
    recorded(checkpoint)
    convert(checkpoint, tmp_path / "sound", "hf")
    zero(checkpoint / "weights" / "slices-00000.safetensors")
    with pytest.raises(UserError, match=r"checkpoint is damaged: weights/slices-00000\.safetensors is not what was written"):
        convert(checkpoint, tmp_path / "out", "hf")
    with pytest.raises(UserError, match="is not what was written"), open_checkpoint(checkpoint):  # what `azr-nemo eval` reads it with
        pass
    (checkpoint / "state.json").write_text("{")
    with pytest.raises(UserError, match=r"checkpoint is damaged: its state\.json cannot be read"):
        convert(checkpoint, tmp_path / "out", "hf")
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_the_other_engine_whose_bytes_are_not_what_was_written(nemo_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "step_000001"
    run.mkdir()
    nemo_folder.rename(run / "nemo")
    recorded(run)
    spoilt = next(path for path in sorted((run / "nemo" / "model_weights").rglob("0.0*")) if path.is_file())
    zero(spoilt)
    with pytest.raises(UserError, match=f"is damaged: {spoilt.relative_to(run)} is not what was written"):
        convert(run, tmp_path / "out", "hf")


@pytest.mark.parametrize("kind", ["megatron", "nemo"])
def test_weights_that_are_not_finite_are_not_converted(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    hf = Path(shutil.copytree(source(), tmp_path / "hf"))
    spoil(hf, lambda t: t["model.layers.2.mlp.down_proj.weight"].view(-1)[7:8].fill_(float("nan")))
    with monkeypatch.context() as earlier:  # as an earlier version converted it
        for module in ("huggingface", "sharded_safetensors"):
            earlier.setattr(f"azr_nemo.megatron.{module}.require_finite", lambda tensor, *_: tensor)
        convert(hf, tmp_path / kind, kind)
    with pytest.raises(UserError, match=r"the tensor .*decoder\.layers\.mlp\.linear_fc2\.weight, layer 2, of .* is not finite"):
        convert(tmp_path / kind, tmp_path / "out", "hf")
    assert not (tmp_path / "out").exists()


def test_a_missing_file_of_several_is_counted(source: Source, tmp_path: Path) -> None:
    convert(source(), tmp_path / "checkpoint", "megatron", shard_bytes=60_000)
    (tmp_path / "checkpoint/weights/slices-00001.safetensors").unlink()
    with pytest.raises(UserError, match=r"cannot be loaded: \d of its \d files are there"):
        convert(tmp_path / "checkpoint", tmp_path / "out", "hf")


def test_a_path_that_holds_no_model(source: Source, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere does not exist"):
        convert(tmp_path / "nowhere", tmp_path / "out", "hf")
    with pytest.raises(UserError, match="holds no model: expected a Hugging Face directory"):
        convert(tmp_path, tmp_path / "out", "hf")
    (tmp_path / "weights.bin").write_bytes(b"1")
    with pytest.raises(UserError, match=r"is a file: expected a \.nemo file"):
        convert(tmp_path / "weights.bin", tmp_path / "out", "hf")
    with pytest.raises(UserError, match="is already a Hugging Face directory: choose another --to"):
        convert(source(), tmp_path / "out", "hf")
    with pytest.raises(UserError, match="--to onnx is unknown: choose hf, megatron, nemo"):
        convert(source(), tmp_path / "out", "onnx")
    with pytest.raises(UserError, match="--max-shard-gb must be more than 0"):
        convert(source(), tmp_path / "out", "nemo", shard_bytes=0)
    with pytest.raises(UserError, match="--like is for weights of NeMo"):
        convert(source(), tmp_path / "out", "nemo", like=source())


@pytest.mark.parametrize("to", ["hf", "megatron", "nemo"])
def test_what_exists_is_never_written_over(source: Source, checkpoint: Path, tmp_path: Path, to: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious").write_text("kept")
    with pytest.raises(UserError, match="out already exists: choose another name"):
        convert(checkpoint if to == "hf" else source(), out, to)
    assert [path.name for path in out.iterdir()] == ["precious"]


@contextmanager
def files_at_most(size: int) -> Iterator[None]:
    """Writing more to a file fails, as on a full disk (Python ignores the signal, so it is an OSError)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(("to", "name"), [("hf", "out"), ("megatron", "out"), ("nemo", "out"), ("nemo", "out.nemo")])
def test_a_full_disk_leaves_nothing(source: Source, checkpoint: Path, tmp_path: Path, to: str, name: str) -> None:
    with files_at_most(5_000), pytest.raises(UserError, match=f"cannot write the model to .*{name}: .*(File too large|error)"):
        convert(checkpoint if to == "hf" else source(), tmp_path / name, to)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_place_that_cannot_be_written_to(source: Source, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write the model to .*file/out: .*(File exists|[Nn]ot a directory)"):
        convert(source(), tmp_path / "file" / "out", "nemo")


def test_what_a_killed_conversion_left_is_replaced(source: Source, tmp_path: Path) -> None:
    (tmp_path / ".a.nemo.partial").mkdir()
    (tmp_path / ".checkpoint.partial").write_text("half")
    convert(source(), tmp_path / "a.nemo", "nemo")
    convert(source(), tmp_path / "checkpoint", "megatron")
    assert {path.name for path in tmp_path.iterdir()} == {"a.nemo", "checkpoint"}


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["azr-nemo", "convert", *map(str, arguments)])
    cli.main()


def test_the_command_exits_with_2_and_one_line(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        command(monkeypatch, tmp_path / "nowhere", tmp_path / "out")
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.err == f"azr-nemo: {tmp_path}/nowhere does not exist: give a model's directory or a .nemo file\n"
    assert said.out == ""


def test_the_command_says_what_it_wrote(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        command(monkeypatch, source(), tmp_path / "a.nemo", "--to", "nemo", "--verify", "--tokenizer", "/models/tokenizer")
    assert not ended.value.code
    verified, wrote = capsys.readouterr().out.splitlines()
    assert verified.startswith("verified: 51 tensors equal in name, shape, dtype (float32) and every value; logits of transformers")
    assert wrote.startswith(f"{tmp_path}/a.nemo: NeMo's, 51 tensors in float32, 0.")
    assert b"type: /models/tokenizer" in (tmp_path / "a.nemo").read_bytes()
