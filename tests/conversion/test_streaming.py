"""A conversion never holds the model: what it allocates is a few tensors, or one file's worth of them."""

import json
import shutil
import sys
from pathlib import Path

import process_trees
import pytest
import torch
from conversion_models import edit_json, same_weights, weights, write_source
from safetensors.torch import save_file

from azr_nemo.conversion.pieces import pieces
from azr_nemo.megatron.architecture import read_architecture
from azr_nemo.megatron.huggingface import read_config

SHARD_MB = 16

# Samples the process's own memory while it converts: anonymous pages, which are what was allocated (pages of mapped files can be dropped), and
# all that is resident.
MEASURE = """
import json, sys, threading
from pathlib import Path
from azr_nemo.conversion.convert import convert

def memory():
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return [int(fields[name].split()[0]) / 1000 for name in ("RssAnon", "VmRSS")]

def watch():
    while not done.wait(0.01):
        peak[:] = map(max, peak, memory())

shard_mb, *paths = sys.argv[1:]
results = []
for source, out, to in zip(paths[::3], paths[1::3], paths[2::3]):
    before, peak, done = memory(), [0.0, 0.0], threading.Event()
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    convert(Path(source), Path(out), to, shard_bytes=int(shard_mb) * 10**6)
    done.set()
    thread.join()
    results.append([after - start for after, start in zip(peak, before)])
print(json.dumps(results))
"""


def write_large(folder: Path) -> float:
    """A Llama of random weights in many layers; returns its size in MB."""
    write_source(folder, "llama-tied")
    edit_json(folder / "config.json", hidden_size=512, intermediate_size=1024, num_hidden_layers=24, head_dim=128, vocab_size=2000)
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.rand(shape, generator=generator)
        for piece in pieces(read_architecture(read_config(folder)))
        for name, shape in piece.names.items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return sum(tensor.nbytes for tensor in tensors.values()) / 1e6


def write_ranks(hf: Path, actor: Path) -> None:
    """The model in the files of two of veRL's ranks, as plain tensors."""
    shutil.copytree(hf, actor / "huggingface", ignore=shutil.ignore_patterns("*.safetensors"))
    for rank in range(2):
        parts = {name: full.chunk(2)[rank].clone() for name, full in weights(hf).items()}
        torch.save(parts, actor / f"model_world_size_2_rank_{rank}.pt")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_memory_stays_far_below_the_model(tmp_path: Path) -> None:
    size = write_large(tmp_path / "hf")
    ways = [
        ("hf", "checkpoint", "megatron"),
        ("checkpoint", "from_checkpoint", "hf"),
        ("hf", "model.nemo", "nemo"),
        ("model.nemo", "from_nemo", "hf"),
        ("step", "from_verl", "hf"),
    ]
    write_ranks(tmp_path / "hf", tmp_path / "step/actor")
    paths = [part for source, out, to in ways for part in (tmp_path / source, tmp_path / out, to)]
    command = [sys.executable, "-W", "ignore", "-c", MEASURE, SHARD_MB, *paths]
    done = process_trees.run(command, timeout=580)
    assert done.returncode == 0, done.stderr
    for (source, out, _), (allocated, resident) in zip(ways, json.loads(done.stdout.splitlines()[-1]), strict=True):
        print(f"{source} -> {out}: {allocated:.0f} MB allocated, {resident:.0f} MB resident, of a model of {size:.0f} MB")
        assert allocated < 3 * SHARD_MB < size / 4
        assert resident < 1.5 * size  # the mapped source may be resident once
    assert same_weights(tmp_path / "hf", tmp_path / "from_checkpoint")
    assert same_weights(tmp_path / "hf", tmp_path / "from_nemo")
    assert same_weights(tmp_path / "hf", tmp_path / "from_verl")
