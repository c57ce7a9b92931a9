"""A real vLLM that serves chat completions of the tiny model on this machine's CPU, asked by tests in environments that have no torch."""

import os
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import process_trees

from azr_nemo.models import tiny

ROOT = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("AZR_VLLM_PYTHON") or ROOT / ".venv-vllm" / "bin" / "python")
START_S = 900.0
LONGEST = 4096  # tokens; the tiny model's own 1,024 are less than a prompt, most of whose characters are a token each
TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"  # it has none of its own
OF_TESTS = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")  # this project's modules are not vLLM's, and each start would compile vLLM anew
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
ON_CPU = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false"}


class VllmChat:
    """Serves the model `tiny`, with random weights of vLLM's own, at `url` until the block ends. folder: for the model and the server's log."""

    def __init__(self, folder: Path):
        self._model, self._log = folder / "tiny", folder / "vllm.log"
        words = tiny.tokenizer()
        words.chat_template = TEMPLATE
        words.save_pretrained(self._model)
        config = tiny.config(words)
        config.architectures, config.max_position_embeddings = ["LlamaForCausalLM"], LONGEST
        config.save_pretrained(self._model)
        with socket.socket() as tried:
            tried.bind(("127.0.0.1", 0))
            self._port = tried.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}/v1"

    def __enter__(self) -> Self:
        command = [
            PYTHON, ROOT / "azr_nemo" / "rollout" / "vllm" / "inside" / "serve.py", "--host", "127.0.0.1", "--port", str(self._port),
            "--model", self._model, "--served-model-name", "tiny", "--load-format", "dummy", "--dtype", "float32", "--max-model-len", str(LONGEST),
            "--enforce-eager", "--kv-cache-memory-bytes", str(64 << 20), "--max-num-seqs", "8", "--generation-config", "vllm",
            "--disable-uvicorn-access-log",
        ]  # fmt: skip
        kept = {name: value for name, value in os.environ.items() if name not in OF_TESTS}
        with open(self._log, "w") as file:
            own = {**kept, **OFFLINE, **ON_CPU, "AZR_NEMO_PARENT": str(os.getpid())}
            self._process = process_trees.Process(command, env=own, stdout=file, stderr=file)
        deadline = time.monotonic() + START_S
        with httpx.Client(trust_env=False, timeout=5) as client:  # one: each new one reads certificates
            while not self._answers(client):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self._process.end()
                    raise RuntimeError(f"vLLM did not start ({self._process.returncode}): {self._log.read_text()[-3000:]}")
                time.sleep(0.3)
        return self

    def _answers(self, client: httpx.Client) -> bool:
        try:
            return client.get(f"{self.url.removesuffix('/v1')}/health").status_code == 200
        except httpx.TransportError:
            return False

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.end()
