"""A program cannot find in its memory what the worker did for others."""

import pytest

from azr_nemo.sandbox.executor import ExecutorUnavailable, Limits, Request
from azr_nemo.sandbox.local.pool import LocalPool

LIMITS = Limits(wall_s=30.0, cpu_s=30.0)
OTHERS = "def f(x):\n    return ['GOLD' + 'VALUE' + str(i * 7919) for i in range(20)]"
# The kernel says which pages are mapped: a bad address is EFAULT (14) for a call that reads a path there.
SCAN = r"""
import ctypes, gc, re
l = ctypes.CDLL(None, use_errno=True)
l.sbrk.restype = ctypes.c_void_p
def mapped(address):
    ctypes.set_errno(0)
    l.access(ctypes.c_void_p(address), 0)
    return ctypes.get_errno() != 14
def f(x):
    blocks = {(id(o) >> 20) + d for o in gc.get_objects() for d in (-1, 0, 1)} | {(l.sbrk(0) >> 20) - d for d in range(40)}
    found = set()
    for block in blocks:
        for page in range(block << 20, (block + 1) << 20, 4096):
            if mapped(page):
                found.update(re.findall(rb'GOLD' + rb'VALUE\d+', ctypes.string_at(page, 4096)))
    return len(found)
"""


def test_the_outputs_of_earlier_programs_cannot_be_found_in_memory():
    try:
        pool = LocalPool(workers=1, limits=LIMITS)
    except ExecutorUnavailable as error:
        pytest.skip(str(error))
    with pool:
        assert pool.submit(Request(OTHERS, ("1",))).result()[0].ok
        (outcome,) = pool.submit(Request(SCAN, ("1",))).result()
        assert outcome.value == "0"
