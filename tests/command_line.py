"""`azr-nemo` as a user types it, in this process: for commands that end soon and leave nothing behind. Others run in forks (`run_server`)."""

import contextlib
import io
import os
import subprocess
import sys
import warnings
from unittest import mock

from azr_nemo.cli import main


def azr(*words: object) -> subprocess.CompletedProcess[str]:
    """Exit code and output, as of a process whose output is no terminal."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    arguments = ["azr-nemo", *map(str, words)]
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        stack.enter_context(mock.patch.object(sys, "argv", arguments))
        stack.enter_context(mock.patch.dict(os.environ, COLUMNS="80"))
        stack.enter_context(warnings.catch_warnings())
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())
