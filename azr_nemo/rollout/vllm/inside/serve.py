"""vLLM's HTTP server as a process that never outlives the run: started by vLLM's own interpreter, `python serve.py ARGUMENTS OF vllm serve`.

This folder is the one place of the project that vLLM's environment sees: Python puts a script's folder first on the path, and multiprocessing hands
that path on, so the engine's processes find `azr_weights` and `azr_guard` too. Nothing else of the project may be imported here.
"""

import ctypes
import multiprocessing
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)
_parent = 0


def die_with(parent: int) -> None:
    """Has the kernel kill this process when its parent ends, however that happens; ends at once where it has ended already."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _before_fork() -> None:
    global _parent
    _parent = os.getpid()


# The engine's processes too, whether forked or spawned: a spawned one imports this script again, and a fork forgets the setting.
os.register_at_fork(before=_before_fork, after_in_child=lambda: die_with(_parent))
if __name__ == "__main__":
    die_with(int(os.environ["AZR_NEMO_PARENT"]))
elif (spawned_by := multiprocessing.parent_process()) is not None and spawned_by.pid is not None:
    die_with(spawned_by.pid)


def main() -> None:
    from vllm.entrypoints.launchers.api_server.entry import main as serve

    sys.argv[0] = "vllm"
    serve()


if __name__ == "__main__":
    main()
