"""A real training step in a process of its own: prints the memory that the plan computes for it and the peak that the system saw, in bytes.

python measured_step.py '{"family": "llama", "vocab_size": 32000, ..., "micro_batch_tokens": 1024, "rows": 4, "prompt": 128, "response": 128}'
"""

import json
import re
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from azr_nemo.megatron.architecture import read_architecture
from azr_nemo.megatron.controller import MegatronEngine
from azr_nemo.models import tiny
from azr_nemo.planning.memory import memory
from azr_nemo.planning.parameters import total_parameters
from azr_nemo.planning.sizing import Layout, MicroBatch, Rollouts, Sizing, Work
from azr_nemo.selfplay.exchange import TrainingBatch
from azr_nemo.settings.schema import RunConfig

SETTINGS = ("micro_batch_tokens", "rows", "prompt", "response", "recompute")


def status(field: str) -> int:
    """A line of /proc/self/status, in bytes."""
    return int(re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M).group(1)) * 1024


def write_model(shape: dict, folder: Path) -> None:
    """A Hugging Face directory of random weights, written in a process that is not measured."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(shape.pop("family"), eos_token_id=1, bos_token_id=None, pad_token_id=0, **shape)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)


def measure(folder: Path, micro_batch_tokens: int, rows: int, prompt: int, response: int, recompute: bool) -> dict:
    config = RunConfig(platform="cpu")
    config.model.dtype, config.engine.threads = "float32", 1
    config.engine.micro_batch_tokens, config.engine.recompute = micro_batch_tokens, recompute
    base = status("VmRSS")
    engine = MegatronEngine(config, folder)
    mask = torch.ones(rows, response)
    batch = TrainingBatch(
        prompt_ids=[(row, *range(prompt - 1)) for row in range(rows)],
        response_ids=[tuple(range(response))] * rows,
        rollout_logprobs=-mask,
        mask=mask,
        advantages=mask,
        rewards=torch.zeros(rows),
        groups=torch.zeros(rows, dtype=torch.long),
        versions=torch.full((rows,), 1_000_000),  # drawn by the newest weights
    )
    phases = {"built": status("VmRSS") - base}
    for step in (1, 2):  # the first makes Adam's moments, the second has them beside the activations
        engine.update(batch)
        phases[f"step {step}"] = status("VmHWM") - base
    fitting = min(rows, max(1, micro_batch_tokens // (prompt + response - 1)))
    model = read_architecture(engine.worker.hf_config)
    size = Sizing(
        model=model,
        layout=Layout(),
        width=4,
        recompute=recompute,
        distributed_optimizer=False,
        batch=MicroBatch(fitting * (prompt + response - 1), fitting * response, prompt + response - 1),
        micro_batch_tokens=micro_batch_tokens,
        rollouts=Rollouts("torch", 1, 0.5, 0, prompt, response),
        work=Work(0, 0, 1, 0, 1, rows, rows, 1, response, response, prompt, response, response),
        nodes=1,
        gpus_per_node=0,
        capacity=0,
    )
    computed = memory(size)
    engine.close()
    return {
        "parameters": total_parameters(model), "base": base, "computed": computed.peak, "measured": phases["step 2"],
        "parts": asdict(computed), "phases": phases,
    }  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write_model(json.loads(sys.argv[2]), Path(sys.argv[3]))
    else:
        print(json.dumps(measure(Path(sys.argv[3]), **json.loads(sys.argv[2]))))
