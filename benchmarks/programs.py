"""Programs such as a proposer writes: short functions, deterministic, without a side effect. Each works on the ten inputs of its group."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from azr_nemo.json_lines import objects

TEN = 10


@dataclass(frozen=True)
class Task:
    """A program, the argument texts it is called with, and the repr of each output."""

    program: str
    inputs: tuple[str, ...]
    expected: tuple[str, ...]


INPUTS: dict[str, tuple[str, ...]] = {
    "numbers": (
        "[1, 2, 3, 4, 5]", "[]", "[7]", "[3, 1, 2, 3, 1]", "[-5, 0, 5, 10, -10]", "[10, 9, 8, 7, 6, 5, 4, 3, 2, 1]",
        "[2, 2, 2, 2]", "[100, 1, 50, 25, 75, 60]", "[0, 0, 1]", "list(range(0, 60, 7))",
    ),
    "numbers and a number": (
        "[1, 2, 3, 4, 5], 2", "[], 3", "[7], 7", "[3, 1, 2, 3, 1], 1", "[-5, 0, 5, 10, -10], 4", "[9, 8, 7, 6, 5], 3",
        "[2, 2, 2, 2], 4", "[100, 1, 50, 25, 75, 60], 50", "[0, 0, 1], 1", "list(range(0, 60, 7)), 5",
    ),
    "text": (
        "'hello world'", "''", "'a'", "'The quick brown fox'", "'aabbbcccc'", "'A man, a plan, a canal: Panama'", "'x1y22z333'",
        "'madam'", "'one two  three   two one'", "'Zebra-apple_Mango 42!'",
    ),
    "words": (
        "['apple', 'fig', 'kiwi']", "[]", "['a']", "['b', 'a', 'b', 'c', 'a']", "['Tea', 'eat', 'ate', 'tan']", "['x' * 5, 'yy', 'zzz']",
        "['red', 'green', 'blue', 'red']", "['', 'empty', '']", "['one', 'two', 'three', 'four', 'five']", "'to be or not to be'.split()",
    ),
    "table": (
        "{'a': 1, 'b': 2}", "{}", "{'x': 0}", "{'k': 5, 'j': 5, 'i': 5}", "{'one': 1, 'three': 3, 'two': 2}", "{'p': -1, 'q': 4, 'r': -9}",
        "{'apple': 12, 'pear': 7, 'plum': 30}", "{c: i for i, c in enumerate('benchmark')}", "{'n': 100}", "{'u': 3, 'v': 8, 'w': 1, 'z': 8}",
    ),
    "number": ("10", "0", "1", "7", "28", "97", "255", "1000", "36", "64"),
}  # fmt: skip

SOURCES = {
    "numbers": '''
def f(numbers):
    total = 0
    for index, value in enumerate(numbers):
        total += value if index % 2 == 0 else -value
    return total

def f(numbers):
    seen = []
    for value in numbers:
        if value not in seen:
            seen.append(value)
    return sorted(seen, reverse=True)

def f(numbers):
    result = []
    running = 0
    for value in numbers:
        running += value
        result.append(running)
    return result

def f(numbers):
    even = [n for n in numbers if n % 2 == 0]
    odd = [n for n in numbers if n % 2]
    return {'even': sum(even), 'odd': sum(odd), 'count': len(numbers)}

def f(numbers):
    best = current = 0
    for value in numbers:
        current = max(value, current + value)
        best = max(best, current)
    return best

from collections import Counter

def f(numbers):
    counts = Counter(numbers)
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:3]
''',
    "numbers and a number": '''
def f(numbers, k):
    k = k % len(numbers) if numbers else 0
    return numbers[k:] + numbers[:k]

def f(numbers, limit):
    small, large = [], []
    for n in numbers:
        (small if n < limit else large).append(n)
    return small, large

def f(numbers, size):
    return [sum(numbers[i:i + size]) for i in range(0, len(numbers), size)]

def f(numbers, target):
    seen = {}
    for index, value in enumerate(numbers):
        if target - value in seen:
            return [seen[target - value], index]
        seen[value] = index
    return None

import heapq

def f(numbers, k):
    return heapq.nlargest(k, numbers), heapq.nsmallest(k, numbers)

def f(numbers, n):
    def power(base, exponent):
        if exponent == 0:
            return 1
        half = power(base, exponent // 2)
        return half * half * (base if exponent % 2 else 1)
    return [power(value, n % 8) % 1009 for value in numbers]
''',
    "text": '''
def f(text):
    counts = {}
    for letter in text.lower():
        if letter.isalpha():
            counts[letter] = counts.get(letter, 0) + 1
    return dict(sorted(counts.items()))

def f(text):
    letters = [c for c in text.lower() if c.isalnum()]
    return letters == letters[::-1]

def f(text):
    result = ''
    for c in text:
        if c.isupper():
            result += chr((ord(c) - 65 + 3) % 26 + 65)
        elif c.islower():
            result += chr((ord(c) - 97 + 3) % 26 + 97)
        else:
            result += c
    return result

def f(text):
    if not text:
        return ''
    result, last, count = [], text[0], 0
    for c in text:
        if c == last:
            count += 1
        else:
            result.append(f'{last}{count}')
            last, count = c, 1
    return ''.join(result) + f'{last}{count}'

import re

def f(text):
    return [int(found) for found in re.findall(r'[0-9]+', text)], re.sub(r'[^a-z]+', '-', text.lower()).strip('-')

def f(text):
    return ' '.join(word[::-1].capitalize() for word in text.split())
''',
    "words": '''
def f(words):
    groups = {}
    for word in words:
        groups.setdefault(''.join(sorted(word.lower())), []).append(word)
    return [group for group in groups.values() if len(group) > 1]

def f(words):
    prefix = words[0] if words else ''
    for word in words[1:]:
        while not word.startswith(prefix):
            prefix = prefix[:-1]
    return prefix

from itertools import groupby

def f(words):
    ordered = sorted(words, key=lambda word: (len(word), word))
    return {length: list(group) for length, group in groupby(ordered, key=len)}

class Stack:
    def __init__(self):
        self.items = []

    def push(self, item):
        if self.items and self.items[-1] == item:
            self.items.pop()
        else:
            self.items.append(item)

def f(words):
    stack = Stack()
    for letter in ''.join(words):
        stack.push(letter)
    return ''.join(stack.items)
''',
    "table": '''
def f(table):
    return {value: sorted(k for k in table if table[k] == value) for value in table.values()}

def f(table):
    result = {}
    for index, key in enumerate(sorted(table)):
        result[key.upper()] = table[key] * (index + 1)
    return result

import json

def f(table):
    return json.loads(json.dumps(table, sort_keys=True)) | {'size': len(table)}

def f(table):
    values = sorted(table.values())
    middle = len(values) // 2
    if not values:
        return 0.0
    return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2
''',
    "number": '''
def f(n):
    result = []
    divisor = 2
    while n > 1:
        while n % divisor == 0:
            result.append(divisor)
            n //= divisor
        divisor += 1
    return result

def f(n):
    a, b = 0, 1
    for _ in range(n % 90):
        a, b = b, a + b
    return a

import math

def f(n):
    return math.isqrt(n), math.gcd(n, 36), sum(int(digit) for digit in str(n))

def f(n):
    sieve = [True] * (n + 1)
    primes = []
    for i in range(2, n + 1):
        if sieve[i]:
            primes.append(i)
            for j in range(i * i, n + 1, i):
                sieve[j] = False
    return primes[-10:]
''',
}  # fmt: skip


def builtin_tasks() -> list[Task]:
    """Every program of this file with ten inputs, the groups in turn."""
    groups = [[task_of(program, INPUTS[group]) for program in split(source)] for group, source in SOURCES.items()]
    longest = max(map(len, groups))
    return [group[place] for place in range(longest) for group in groups if place < len(group)]


def split(source: str) -> Iterator[str]:
    """The programs of a text: a paragraph with `f` ends one."""
    program = ""
    for part in source.strip("\n").split("\n\n"):
        if "def f(" in program:
            yield program
            program = ""
        program += ("\n\n" if program else "") + part
    yield program


def task_of(program: str, inputs: Sequence[str]) -> Task:
    """The task with its outputs, computed here in this process: only for programs one trusts. Raises what the program raises."""
    return Task(program, tuple(inputs), tuple(run_here(program, text) for text in inputs))


def run_here(program: str, text: str) -> str:
    """The repr of `f(text)`, in this process and without any isolation."""
    namespace: dict = {"__name__": "program"}
    exec(compile(program, "<program>", "exec"), namespace)  # noqa: S102
    return repr(eval(f"f({text}\n)", namespace))  # noqa: S307


def read_tasks(path: Path) -> list[Task]:
    """The rows {"snippet" or "code", "input"} of a JSONL file, each input ten times over; those that fail are left out, and those that print or have
    an input of several lines, which the peer reads otherwise."""
    tasks = []
    for _, row in objects(path):
        program = row["snippet"] if "snippet" in row else row["code"]
        if "print(" in program or "input(" in program or "\n" in row["input"]:
            continue
        try:
            tasks.append(task_of(program, [row["input"]] * TEN))
        except Exception:
            continue
    return tasks
