"""Answers to an abduction task that try to be paid without an honest call: nothing here may ever make the value 7."""

# ruff: noqa: E501 (one kind of trick a line)

from attacks import Attack

# Its task's output is 7, which no honest argument that is an int gives.
KNOWN = """
import math
LOG = []
class Box:
    def title(self): return 2
def log(): return LOG
def f(x): return x * Box().title() + len(LOG)
"""
NOT_ONE_HONEST_CALL = ("syntax", "forbidden")


def arguments(name: str, *texts: str, accept: tuple[str, ...] = NOT_ONE_HONEST_CALL, value: str | None = None) -> Attack:
    return Attack("grading", name, KNOWN, accept, texts, value)


GRADING = [
    arguments("a second call", "2) or (1", "1) and 7 or (1", "3.5) == f(3.5", "1 for f in [lambda x: 7]) or f(1", "1)(2", "1) + f(2"),
    arguments("an operator after the call", "1) or 7 #", "1) if False else (7", "1)\n+ (7", "1).real + (7", "1)[0:7] or (7", "1) == (1"),
    arguments("a statement after the call", "1)\n7 #", "1); (7", "1)\nf = lambda x: 7 #", "1)\rprint(7", "1)\x0c;(7", "0)\n1 == (1", "1) # \u2028\n7 or (1"),
    arguments("an assignment", "(f := lambda x: 7)", "x := 1", "[y := 7]", "(lambda: (f := 7))()", "[(f := 7) for _ in [1]]"),
    arguments("a builtin that acts", "print('True') or 1", "globals().update(f=lambda x: 7)", "setattr(f, '__code__', (lambda x: 7).__code__) or 1", "__import__('os').write(3, b'x')", "open('/etc/passwd')", "type('T', (), {'__mul__': lambda s, o: 7})()", "breakpoint()", "__builtins__", "1, *__import__('sys').modules"),
    arguments("an attribute", "().__class__", "f.__defaults__", "(i for i in [1]).gi_frame.f_back.f_globals", "'{0.__globals__}'.format(f)", "'{f.__globals__}'.format_map(dict(f=f))", "f'{f.__globals__}'", "math.__dict__", "f'{1:{f.__code__}}'"),
    arguments("a name that is bound elsewhere", "[x for x in [1] if exec('f = None')]", "[[0 for exec in []], exec('1')]", "[[0 for math in []], math]", "3 + len([0 for LOG in []]) * len([math.append(1) for math in [LOG]])", "(lambda globals: 1, globals())", "[y for y in open for open in []]", "(lambda eval=eval: 1)(1)"),
    arguments("a target that is no name", "len([0 for Box.title in [lambda s: 7]])", "2 + len([0 for log()[0:] in [[1]]])", "len([1 for [x, Box.title] in [(1, lambda s: 7)]])", "len([0 for math in [Box] for math.title in [lambda s: 7]])"),
    arguments("a method that changes what the program keeps", "log().append(1) or 3", "2 + len([x.append(1) for x in [log()]])", "2 + len([math.extend([1]) for math in [log()]])", "log().insert(0, 1) or 3", "(lambda x: x.append(1) or 3)(log())"),
    arguments("look-alikes", "ｅｖａｌ('7')", "2） or （1", "1；7", "\u2070", "ｏｐｅｎ('x')", "1\u200b) or (1"),
    arguments("a starred lie", "*open('x')", "**globals()", "*[7 for f in [1] if vars()]"),
    *(
        arguments(text, text, accept=("ok", "error", "not_literal"), value=value)
        for text, value in (
            ("lambda: 7", None), ("7, 7", None), ("x=7", "14"), ("[7][0]", "14"), ("'7'", "'77'"), ("3.5", "7.0"), ("*[7]", "14"), ("True", "2"),
            ("[f for f in [7]][0]", "14"), ("f(1)", "4"), ("7 # ) or (1", "14"), ("'2) or (1'", "'2) or (12) or (1'"),
        )
    ),
]  # fmt: skip
