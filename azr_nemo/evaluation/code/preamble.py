"""What a contest solution may use without importing it. It is executed before the solution and apart from it: a docstring and imports from
`__future__` stay the first statements of theirs."""

STARRED = "string re datetime collections heapq bisect copy math random statistics itertools functools operator io sys json builtins typing".split()
PLAIN = "string re datetime collections heapq bisect copy math random statistics itertools functools operator io sys json".split()
# The jail has no /dev: what is opened by these names is the stream that the process has.
STREAMS = """
def open(file, *arguments, **named):
    streams = {"/dev/stdin": 0, "/proc/self/fd/0": 0, "/dev/fd/0": 0, "/dev/stdout": 1, "/dev/stderr": 2}
    number = streams.get(file) if isinstance(file, str) else None
    return io.open(file, *arguments, **named) if number is None else io.open(number, *arguments, **named, closefd=False)
"""
PREAMBLE = "\n".join(
    [
        *(f"from {name} import *" for name in STARRED),
        *(f"import {name}" for name in PLAIN),
        "sys.setrecursionlimit(50000)",
        "quit = exit",
        STREAMS,
    ]
)


def preceded(code: str) -> str:
    """A script that executes the preamble and then the code, in one namespace but each as it stands."""
    return f"{PREAMBLE}\nexec(compile({code!r}, 'main.py', 'exec', dont_inherit=True))\n"
