"""vLLM's HTTP server as a process that never outlives the run: started by vLLM's own interpreter, `python serve.py ARGUMENTS OF vllm serve`.

This folder is the one place of the project that vLLM's environment sees: Python puts a script's folder first on the path, and multiprocessing hands
that path on, so the engine's processes find `azr_weights` and `azr_guard` too. Nothing else of the project may be imported here.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
PARENT = "AZR_NEMO_PARENT"  # the process that starts the next one, handed down from each to its children
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """Has the kernel kill this process when its parent ends, however that happens; ends at once where it has ended already."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(os.environ[PARENT]):
        os._exit(1)
    os.environ[PARENT] = str(os.getpid())


# The engine's processes too: a spawned one imports this script again before anything else, and a fork forgets the setting.
os.register_at_fork(after_in_child=die_with_parent)
die_with_parent()


def main() -> None:
    from vllm.entrypoints.launchers.api_server.entry import main as serve

    sys.argv[0] = "vllm"
    serve()


if __name__ == "__main__":
    main()
