"""Programs that try to deceive whoever reads their results, or to spoil what comes after them."""

# ruff: noqa: E501 (one attack a line)

from attacks import REFUSED, attack

OUTPUT = [
    attack("output and pipes", "50 MB of repr", "return 'x' * 50_000_000", ("output_too_large",)),
    attack("output and pipes", "a structure that doubles", "a = []\nfor _ in range(70): a = [a, a]\nreturn a", ("output_too_large",)),
    attack("output and pipes", "a list in itself", "a = []\na.append(a)\nreturn a", ("not_literal",)),
    attack("output and pipes", "endless nesting", "a = []\nfor _ in range(10 ** 5): a = [a]\nreturn a", ("not_literal", "crashed")),
    attack("output and pipes", "50 MB printed", "for _ in range(50): print('x' * 10 ** 6)\nreturn 2", ("ok",), value="2"),
    attack("output and pipes", "every stream closed", "import sys, os\nfor i in range(3): os.close(i)\nreturn 2", ("ok",), value="2"),
    attack("output and pipes", "the result pipe closed", "os.close(3)\nwhile True: pass", ("crashed",), head="import os"),
    attack("output and pipes", "the result pipe closed, then a result", "os.close(3)\nreturn 1", ("crashed",), head="import os"),
    attack("output and pipes", "noise on the result pipe", "os.write(3, b'x' * 60_000)", ("crashed",), head="import os"),
    attack("output and pipes", "a frame that promises 4 GB", "os.write(3, b'\\xff\\xff\\xff\\xff')\nwhile True: pass", ("crashed",), head="import os"),
    attack("output and pipes", "a trickle on the result pipe", "os.write(3, b'\\x00\\x10\\x00\\x00')\nwhile True:\n    os.write(3, b' ')\n    time.sleep(0.01)", ("timeout", "crashed"), head="import os, time"),
    attack("output and pipes", "a descriptor for every number", "n = 0\nwhile True:\n    os.dup(3)\n    n += 1", ("error", "forbidden"), head="import os"),
    attack("output and pipes", "the result pipe made not to wait", "fcntl.fcntl(3, fcntl.F_SETFL, os.O_NONBLOCK)", head="import fcntl, os"),
    attack("output and pipes", "another pipe in the result pipe's place", "os.dup2(1, 3)\nreturn 1", ("crashed", "forbidden"), head="import os"),
    attack("output and pipes", "leave in the middle of a frame", "os.write(3, b'\\x10\\x00\\x00\\x00[')\nos._exit(0)", ("crashed",), head="import os"),
    attack("output and pipes", "a million keys", "return {i: i for i in range(10 ** 6)}", ("output_too_large",)),
    attack("output and pipes", "escapes that multiply", "return '\\x00' * 7999", ("output_too_large",)),
    attack("output and pipes", "a frame with deep JSON", "b = b'[' * 40_000\nos.write(3, struct.pack('<I', len(b)) + b)", ("crashed",), head="import os, struct"),
    attack("output and pipes", "open files without end", "return [open(os.__file__) for _ in range(10 ** 4)]", ("error", "forbidden"), head="import os"),
    attack("output and pipes", "leave with success and no result", "os._exit(0)", ("crashed",), head="import os"),
    attack("output and pipes", "leave while being written", "class A:\n    def __repr__(s): os._exit(0)\nreturn A()", ("not_literal",), head="import os"),
    attack("output and pipes", "a lone surrogate", "return '\\ud800'", ("ok",), value=r"'\ud800'"),
    attack("output and pipes", "an error that floods", "raise ValueError('x' * 10 ** 8)", ("error",)),
    attack("output and pipes", "an error that exits", "class E(Exception):\n    def __str__(s): os._exit(0)\nraise E", ("crashed",), head="import os"),
    attack("output and pipes", "an error class that lies", "class M(type):\n    __name__ = property(lambda c: os._exit(0))\nclass E(Exception, metaclass=M): pass\nraise E('x')", ("error",), head="import os"),
]  # fmt: skip

STATE = [
    attack("interpreter state", "builtins replaced", "return len('ab')", ("ok",), head="import builtins\nfor n in ('repr', 'len', 'type', 'isinstance', 'str', 'compile'): setattr(builtins, n, lambda *a, **k: 42)", value="42"),
    attack("interpreter state", "a module's constant changed", "return math.pi", ("ok",), head="import math\nmath.pi = 3", value="3"),
    attack("interpreter state", "modules poisoned", "return 1", ("ok", "error", "crashed"), head="import sys\nfor n in list(sys.modules): sys.modules[n] = None", value="1"),
    attack("interpreter state", "ast and json replaced", "return 1", ("ok", "error", "crashed"), head="import ast, json\nast.parse = ast.literal_eval = json.dumps = json.JSONEncoder.encode = None", value="1"),
    attack("interpreter state", "a tracer left behind", "return 1", ("ok",), head="import sys\nsys.settrace(lambda *a: None)\nsys.setprofile(lambda *a: None)", value="1"),
    attack("interpreter state", "no recursion left", "return 1", ("ok", "error", "crashed"), head="import sys\nsys.setrecursionlimit(20)", value="1"),
    attack("interpreter state", "no builtins", "return 1", ("ok", "error", "crashed"), head="import builtins\nbuiltins.__dict__.clear()", value="1"),
    attack("interpreter state", "a small int changed in memory", "ctypes.memset(id(7) + 24, 8, 1)\nreturn 7", ("ok", "crashed", "error"), head="import ctypes"),
    attack("interpreter state", "a method of str replaced in memory", "import gc\ngc.get_referents(str.__dict__)[0]['upper'] = lambda s: 'leak'\nreturn 'a'.upper()", ("ok", "crashed", "error")),
    attack("interpreter state", "a class of the library changed", "return collections.Counter('a').total()", ("ok",), head="import collections\ncollections.Counter.total = lambda s: 42", value="42"),
    attack("interpreter state", "a codec replaced", "return 'x'", ("ok", "crashed", "error"), head="import codecs, encodings\nencodings._cache.clear()\ncodecs.register(lambda n: 1 / 0)", value="'x'"),
    attack("interpreter state", "an audit hook that refuses", "return 1", ("ok", "error", "crashed", "syntax"), head="import sys\ndef hook(*a): raise RuntimeError('leak')\nsys.addaudithook(hook)", value="1"),
    attack("interpreter state", "numbers of another precision", "return str(decimal.Decimal(1) / 3)", ("ok",), head="import decimal, random, locale\ndecimal.getcontext().prec = 3\nrandom.seed(1)", value="'0.333'"),
    attack("interpreter state", "the collector switched off and hooked", "return 1", ("ok", "error", "crashed"), head="import gc\ngc.disable()\ngc.callbacks.append(lambda *a: 1 / 0)", value="1"),
    attack("interpreter state", "streams replaced", "return 1", ("ok", "error", "crashed"), head="import sys\nsys.stdout = sys.stderr = sys.stdin = sys.__stdout__ = None\nsys.excepthook = sys.displayhook = None", value="1"),
    attack("interpreter state", "work left for the exit", "atexit.register(lambda: os.write(3, b'x' * 99))\nreturn 1", ("ok",), head="import atexit, os", value="1"),
    attack("interpreter state", "a hook on imports", "return 1", ("ok",), head="import sys\nsys.meta_path.clear()\nsys.path.clear()", value="1"),
    attack("interpreter state", "the environment", "return dict(os.environ)", ("ok",), head="import os", value="{}"),
    attack("interpreter state", "the environment through C", "return l.getenv(b'AZR_TEST_SECRET')", ("ok",), head="import ctypes\nl = ctypes.CDLL(None)\nl.getenv.restype = ctypes.c_char_p", value="None"),
    attack("interpreter state", "the command line", "return [a for a in sys.orig_argv if 'SECRET' in a]", ("ok",), head="import sys", value="[]"),
]  # fmt: skip

LIE = "class Lie({}):\n    def __repr__(s): return '7'\n    __str__ = __repr__\n    def __eq__(s, o): return True\n    def __hash__(s): return 1"
WALK = """
import gc, sys
def found():
    frame = sys._getframe()
    while frame:
        yield from frame.f_locals.values()
        yield from list(frame.f_globals.values())
        frame = frame.f_back
    yield from gc.get_objects()
"""
ACTING_NAME = "import os\nclass S(str):\n    __getitem__ = __format__ = __str__ = lambda s, *a: os._exit(0)\n"
FORGE = "def frame(*parts):\n    b = json.dumps(parts).encode()\n    return struct.pack('<I', len(b)) + b"
FORGING = [
    attack("result forging", "a repr that lies", "return Lie()", ("not_literal",), head=LIE.format("object")),
    attack("result forging", "a str that lies", "return Lie('x')", ("not_literal",), head=LIE.format("str")),
    attack("result forging", "an int that lies", "return [Lie(3)]", ("not_literal",), head=LIE.format("int")),
    attack("result forging", "a list that lies", "return {1: Lie()}", ("not_literal",), head=LIE.format("list")),
    attack("result forging", "a dict whose keys lie", "return {Lie(): 1}", ("not_literal",), head=LIE.format("object")),
    attack("result forging", "a class that claims to be int", "return A()", ("not_literal",), head="class M(type):\n    __eq__ = lambda c, o: True\n    __hash__ = lambda c: hash(int)\nclass A(metaclass=M):\n    __repr__ = lambda s: '7'\n    __class__ = int"),
    attack("result forging", "text that is no literal on the pipe", "os.write(3, frame('result', 'ok', '__import__(\"os\").getpid()', None, 0.1, 0.1))\nos._exit(0)", ("not_literal",), head="import json, os, struct\n" + FORGE),
    attack("result forging", "a status that does not exist", "os.write(3, frame('result', 'right', '7', None, 0.1, 0.1))\nos._exit(0)", ("crashed",), head="import json, os, struct\n" + FORGE),
    attack("result forging", "seconds that are no number", "os.write(3, frame('result', 'ok', '7', None, float('nan'), -1.0))\nos._exit(0)", ("crashed",), head="import json, os, struct\n" + FORGE),
    attack("result forging", "an endless time", "os.write(3, frame('result', 'ok', '7', None, 1e308, 1e308))\nos._exit(0)", ("ok",), head="import json, os, struct\n" + FORGE, value="7"),
    attack("result forging", "a value with a line and a comment", "os.write(3, frame('result', 'ok', '7 # a\\n# b', None, 0.1, 0.1))\nos._exit(0)", ("ok",), head="import json, os, struct\n" + FORGE, value="7"),
    attack("result forging", "a number that no one can write", "os.write(3, frame('result', 'ok', '0x' + 'f' * 7000, None, 0.1, 0.1))\nos._exit(0)", ("not_literal",), head="import json, os, struct\n" + FORGE),
    attack("result forging", "an infinity written as a number", "os.write(3, frame('result', 'ok', '1e999', None, 0.1, 0.1))\nos._exit(0)", ("not_literal",), head="import json, os, struct\n" + FORGE),
    attack("result forging", "a class whose name acts", "A.__name__ = S('A')\nreturn A()", ("not_literal",), head=ACTING_NAME + "class A: pass"),
    attack("result forging", "an error whose class's name acts", "A.__name__ = S('A')\nraise A", ("error",), head=ACTING_NAME + "class A(Exception): pass"),
    attack("result forging", "a dict that changes while it is read", "return D(a=1)", ("not_literal",), head="class D(dict):\n    __iter__ = lambda s: iter(())\n    __len__ = lambda s: 0"),
    attack("result forging", "a type changed in memory", "class L(list):\n    __slots__ = ()\n    __repr__ = lambda s: 'leak'\nv = L([1])\nctypes.c_void_p.from_address(id(v) + 8).value = id(list)\nreturn v", ("ok", "crashed", "not_literal"), head="import ctypes", value="[1]"),
    attack("result forging", "more results than inputs", "os.write(3, frame('result', 'error', None, 'x', 0.1, 0.1) * 9)\nos._exit(0)", ("error", "crashed"), head="import json, os, struct\n" + FORGE),
    attack("result forging", "look for another's program in frames", "return [1 for o in found() if 'ANOTHERS' + '_PROGRAM' in str(o)[:9999] and 'found' not in str(o)]", ("ok", "error", "timeout"), head=WALK, value="[]"),
    attack("result forging", "speak for the worker", "return [o.socket.send(b'x') for o in found() if type(o).__name__ == 'Control']", REFUSED, head=WALK),
    attack("result forging", "write on every descriptor but the pipe", "n = 0\nfor fd in range(4, 999):\n    try: n += os.write(fd, b'x')\n    except OSError: pass\nreturn n", ("ok",), head="import os", value="0"),
]  # fmt: skip
