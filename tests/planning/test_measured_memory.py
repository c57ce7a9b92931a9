"""The estimate of memory against the peak of resident memory of a real training step, in a process of its own."""

import json
import platform
import sys
from pathlib import Path
from typing import Any

import process_trees
import pytest
from run_server import shared

SCRIPT = Path(__file__).parent / "measured_step.py"
# The heap's holes were measured where an aligned block that was freed is not handed out again (docs/scaling.md).
GLIBC = tuple(map(int, platform.libc_ver()[1].split("."))) if platform.libc_ver()[0] == "glibc" else (0, 0)

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "large vocabulary": (
        {
            "family": "llama", "vocab_size": 64_000, "hidden_size": 448, "num_hidden_layers": 8, "num_attention_heads": 7, "num_key_value_heads": 1,
            "intermediate_size": 1216, "tie_word_embeddings": True,
        },
        {"micro_batch_tokens": 768, "rows": 3, "prompt": 128, "response": 129, "recompute": False},
    ),
    "deep, long rows": (
        {
            "family": "qwen3", "vocab_size": 8_192, "hidden_size": 640, "num_hidden_layers": 12, "num_attention_heads": 10,
            "num_key_value_heads": 2, "head_dim": 64, "intermediate_size": 1_792, "tie_word_embeddings": True,
        },
        {"micro_batch_tokens": 1536, "rows": 2, "prompt": 384, "response": 385, "recompute": False},
    ),
    "recomputed, untied": (
        {
            "family": "qwen2", "vocab_size": 24_000, "hidden_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 2,
            "intermediate_size": 1_408, "tie_word_embeddings": False,
        },
        {"micro_batch_tokens": 3072, "rows": 12, "prompt": 100, "response": 157, "recompute": True},
    ),
}  # fmt: skip


def write(shape: dict[str, Any], folder: Path) -> None:
    done = shared().start(["write", json.dumps(shape), folder], script=SCRIPT).wait(400)
    assert done.code == 0, done.output


def measure(step: dict[str, Any], folder: Path) -> dict[str, Any]:
    """In a process that nobody has forked: its memory is its own."""
    command = [sys.executable, "-W", "ignore", SCRIPT, "measure", json.dumps(step), folder]
    done = process_trees.run(command, timeout=400, env={"PATH": "/usr/bin:/bin"})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not (2, 0) < GLIBC < (2, 38), reason="the heap's holes were measured with glibc before 2.38 only")
@pytest.mark.parametrize("case", CASES)
def test_the_estimate_is_within_a_fifth_of_the_measured_peak(case: str, tmp_path: Path) -> None:
    shape, step = CASES[case]
    write(shape, tmp_path / "model")
    found = measure(step, tmp_path / "model")
    assert 20e6 < found["parameters"] < 120e6
    ratio = found["computed"] / found["measured"]
    print(f"{case}: {found['parameters'] / 1e6:.0f}M parameters, computed {found['computed'] / 1e6:.0f} MB, "
          f"measured {found['measured'] / 1e6:.0f} MB, ratio {ratio:.2f}")  # fmt: skip
    assert 0.8 < ratio < 1.2, found
