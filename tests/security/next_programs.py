"""Twenty programs whose outcomes are known, to run after each attack: they touch what attacks like to spoil."""

# ruff: noqa: E501 (one program a line)

import base64
import zlib

from azr_nemo.sandbox.executor import Limits, Request

PATIENT = Limits(wall_s=30.0, cpu_s=30.0)


def program(body: str, head: str = "") -> str:
    return f"{head}\ndef f(x):\n    return {body}\n"


# Program, arguments, what f returns for each; `deterministic` runs a program under both hash seeds.
CASES: list[tuple[str, tuple[str, ...], list[object]]] = [
    (program("len('ab'), math.pi, repr(x), 'leak' in globals()", "import math, builtins"), ("[1, 'a']",), [(2, 3.141592653589793, "[1, 'a']", False)]),
    (program("json.dumps(ast.literal_eval(x)), sys.getrecursionlimit()", "import json, ast, sys"), ("'[1]'", "'{}'"), [("[1]", 1000), ("{}", 1000)]),
    (program("sorted({'b', 'a', 'c'}), x"), ("1",), [(["a", "b", "c"], 1)]),
    (program("x + 1"), ("1", "-1", "10 ** 30"), [2, 0, 10**30 + 1]),
    (program("collections.Counter(x).total()", "import collections"), ("'abca'",), [4]),
    (program("str(decimal.Decimal(1) / x)", "import decimal"), ("3",), ["0." + "3" * 28]),
    (program("[random.seed(x), random.random(), random.randrange(9)][2] in range(9)", "import random"), ("5",), [True]),
    (program("re.findall(x, 'a1b22')", "import re"), (r"r'\d+'",), [["1", "22"]]),
    (program("zlib.decompress(base64.b64decode(x)).decode()", "import base64, zlib"), (repr(base64.b64encode(zlib.compress(b"hello"))),), ["hello"]),
    (program("P(x, 2)._asdict() | dataclasses.asdict(D(x))", "import collections, dataclasses\nP = collections.namedtuple('P', 'a b')\n@dataclasses.dataclass\nclass D:\n    c: int"), ("1",), [{"a": 1, "b": 2, "c": 1}]),
    (program("sys.stdout.write('x') and print(x)", "import sys"), ("1",), [None]),
    (program("dict(os.environ), os.getcwd(), os.getpid() > 1", "import os"), ("1",), [({}, "/", True)]),
    (program("[g(i) for i in range(x)]", "import functools\n@functools.cache\ndef g(n): return n if n < 2 else g(n - 1) + g(n - 2)"), ("10",), [[0, 1, 1, 2, 3, 5, 8, 13, 21, 34]]),
    (program("codecs.encode(x, 'rot13'), x.encode('utf-16-le')", "import codecs"), ("'ab'",), [("no", b"a\0b\0")]),
    (program("isinstance(x, int), type(x) is bool, 7 + 0, 'a'.upper(), id(x) == id(x)"), ("True",), [(True, True, 7, "A", True)]),
    (program("str(datetime.date(2024, 2, x) + datetime.timedelta(1)), textwrap.shorten('a b', 9)", "import datetime, textwrap"), ("28",), [("2024-02-29", "a b")]),
    (program("heapq.nsmallest(2, x) + list(itertools.islice(itertools.count(), 2)) + [bisect.bisect(x, 2)]", "import bisect, heapq, itertools"), ("[1, 2, 3]",), [[1, 2, 0, 1, 2]]),
    (program("fractions.Fraction(x, 6).numerator, statistics.mean([1, x])", "import fractions, statistics"), ("3",), [(1, 2)]),
    (program("gc.isenabled(), gc.callbacks, sys.gettrace(), sys.getprofile(), signal.getsignal(2).__class__.__name__, len(sys.meta_path) > 2", "import gc, signal, sys"), ("1",), [(True, [], None, None, "builtin_function_or_method", True)]),
    (program("len(bytearray(x << 20)), sum(range(1000)), copy.deepcopy([[1]])", "import copy"), ("8",), [(8 << 20, 499500, [[1]])]),
]  # fmt: skip

NEXT = [Request(text, inputs, PATIENT, deterministic=index == 2) for index, (text, inputs, _) in enumerate(CASES)]
EXPECTED = [[repr(value) for value in values] for _, _, values in CASES]
