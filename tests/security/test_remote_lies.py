"""No outcome of a program makes a server's answer unreadable: an executor that is thought dead would end the run."""

from collections.abc import Iterator

import pytest
from servers import OurServer

from azr_nemo.sandbox.executor import Limits, Request
from azr_nemo.sandbox.fusion import FusionExecutor

LIMITS = Limits(wall_s=10.0, cpu_s=10.0)
FORGE = """
import json, os, struct
def frame(*parts):
    body = json.dumps(parts, separators=(',', ':')).encode()
    return struct.pack('<I', len(body)) + body
def f(x):
    os.write(3, {})
    os._exit(0)
"""


@pytest.fixture(scope="module")
def remote() -> Iterator[FusionExecutor]:
    with OurServer() as server:
        if not server.url:
            pytest.skip(server.first_line)
        with FusionExecutor([server.url], LIMITS, concurrency=1, attempts=1, patience_s=30.0) as executor:
            yield executor


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("def f(x):\n    raise ValueError(chr(0xd800) + 'x')", "error"),  # half a character, which UTF-8 cannot write
        ("class E(Exception):\n    pass\nE.__name__ = 'E\\x00'.replace('\\x00', chr(0xdfff))\ndef f(x):\n    raise E", "error"),
        ("def f(x):\n    return chr(0xd800)", "ok"),
        (FORGE.format("frame('result', 'ok', '7', None, 1e308, 1e308) * 2"), "ok"),
        (FORGE.format("frame('result', 'error', None, chr(0xd800) * 999, 0.1, 0.1)"), "error"),
        (FORGE.format("frame('result', 'ok', json.dumps(chr(0xd800), ensure_ascii=False), None, 0.1, 0.1) * 2"), "not_literal"),
        (FORGE.format("frame('result', 'ok', '1e999', None, 0.1, 0.1) * 2"), "not_literal"),
    ],
)
def test_the_answer_is_read_whatever_the_program_said(remote, program, status):
    for deterministic in (False, True):
        (outcome,) = remote.submit(Request(program, ("1",), deterministic=deterministic)).result(timeout=60)
        assert outcome.status == status, outcome
        assert outcome.wall_s + outcome.cpu_s < 60
        f"{outcome.error}{outcome.value}".encode()
