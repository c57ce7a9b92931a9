"""The command line: `azr-nemo COMMAND`, one module for each group of commands. Errors that the user can mend are one sentence and exit code 2."""

import os
import sys
import warnings

from azr_nemo.cli import cluster, evaluation, look, models, runs, sandbox  # noqa: F401 - each registers its commands
from azr_nemo.cli.app import app
from azr_nemo.errors import UserError
from azr_nemo.sandbox.executor import ExecutorUnavailable


def main() -> None:
    """Entry point of `azr-nemo`."""
    # Megatron says at import what it does without CUDA packages; `azr-nemo doctor` says it better.
    warnings.filterwarnings("ignore", category=UserWarning, module="megatron")
    # Megatron calls collectives by names that torch has begun to replace.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # of a store that is gone torch prints frames of C++; the sentence says it better
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")  # the libraries' bars would tear ours
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # models are local directories; nothing is looked up behind the user's back
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # a locale without a letter must not end a run
    try:
        app()
    except (UserError, ExecutorUnavailable) as error:
        print(f"azr-nemo: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("azr-nemo: stopped; nothing was lost that a checkpoint held, the same command goes on from there", file=sys.stderr)
        sys.exit(130)
