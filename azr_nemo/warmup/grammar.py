"""The small grammar of the warm start: which steps a program may take, on what kind of value, and what each step is called in words.

Variables are always named x and y first, then z and t: programs that differ only by names cannot straddle the held-out line.
In a template {v} is the value of the step before, {x} and {y} are the parameters, and the constants are {c} 1..9, {m} 2..5, {k} 1..3,
{a} and {b} letters of LETTERS, {w} one or two of them.
"""

from dataclasses import dataclass
from random import Random

LETTERS = "abcde"
WORDS = ("cat", "dog", "sun", "tree", "apple", "bird", "fish", "moon", "star", "milk", "bread", "hello", "level", "noon", "blue", "seven")


@dataclass(frozen=True)
class Step:
    """One expression: takes a value of kind `takes`, gives one of kind `gives`; `phrase` names it without its constants.

    gives "same" keeps the kind (a list stays a list of what it held); nothing follows on "any" or "bool".
    """

    takes: str
    gives: str
    template: str
    phrase: str


@dataclass(frozen=True)
class Block:
    """A loop or a branch of several lines that ends with `return {result}`; the result may be worked on by one more step."""

    takes: str
    gives: str
    lines: tuple[str, ...]
    result: str
    phrase: str


def _steps(takes: str, gives: str, rows: str) -> list[Step]:
    """Rows of `template  # phrase`, one a line."""
    split = (row.rsplit("  # ", 1) for row in rows.strip().splitlines())
    return [Step(takes, gives, template.strip(), phrase.strip()) for template, phrase in split]


STEPS: tuple[Step, ...] = (
    *_steps("int", "int", """
        {v} + {c}  # add a number
        {v} - {c}  # subtract a number
        {c} - {v}  # subtract from a number
        {v} * {m}  # multiply
        {v} % {m}  # take the remainder
        {v} // {m}  # divide and round down
        {v} * {v}  # square
        max({v}, {c})  # keep at least a number
        min({v}, {c})  # keep at most a number
        abs({v} - {c})  # take the distance to a number
        {v} if {v} > {c} else {m}  # replace small numbers
        {v} + {m} if {v} % 2 == 0 else {v} - {m}  # treat even and odd differently
        sum(range({v} % {c} + 1))  # add up the numbers below
        """),
    *_steps("int", "ints", """
        [{v}, {c}]  # put into a list
        [{v}] * {k}  # repeat in a list
        list(range({v} % 5 + {k}))  # count up
        [{v} * i for i in range({k} + 1)]  # list the multiples
        """),
    *_steps("int", "str", """
        str({v})  # write as text
        '{a}' * ({v} % {m} + 1)  # repeat a letter
        'even' if {v} % 2 == 0 else 'odd'  # name even or odd
        """),
    *_steps("int", "bool", """
        {v} > {c}  # compare with a number
        {v} % {m} == 0  # test divisibility
        """),
    *_steps("int", "tuple", """
        ({v}, {v} + {c})  # pair with a larger number
        ({v} // {m}, {v} % {m})  # pair quotient and remainder
        """),
    *_steps("str", "str", """
        {v}[::-1]  # reverse
        {v}[1:]  # drop the first letter
        {v}[:-1]  # drop the last letter
        {v}[:{k}]  # keep the first letters
        {v}[{k}:]  # drop the first letters
        {v}[-1]  # keep the last letter
        {v}[0]  # keep the first letter
        {v}[::2]  # keep every second letter
        {v} + '{w}'  # append letters
        '{w}' + {v}  # prepend letters
        {v} * 2  # double
        {v} + {v}[0]  # append the first letter
        {v}[-1] + {v}  # prepend the last letter
        {v}.upper()  # make upper case
        {v}.title()  # capitalise
        {v}.replace('{a}', '{b}')  # replace a letter
        {v}.replace('{a}', '')  # remove a letter
        ''.join(sorted({v}))  # sort the letters
        '-'.join({v})  # join with dashes
        {v}.center({c})  # centre
        """),
    *_steps("str", "int", """
        len({v})  # take the length
        {v}.count('{a}')  # count a letter
        {v}.find('{a}')  # find a letter
        len(set({v}))  # count distinct letters
        len({v}) * {m}  # multiply the length
        """),
    *_steps("str", "bool", """
        '{a}' in {v}  # test for a letter
        {v} == {v}[::-1]  # test for a palindrome
        len({v}) > {k} + 1  # test the length
        """),
    *_steps("str", "strs", """
        list({v})  # list the letters
        sorted(set({v}))  # list the distinct letters
        [i * 2 for i in {v}]  # double each letter
        [i for i in {v} if i != '{a}']  # list the letters except one
        """),
    *_steps("str", "dict", """
        {{i: {v}.count(i) for i in {v}}}  # count every letter
        """),
    *_steps("str", "tuple", """
        ({v}, len({v}))  # pair with the length
        """),
    *_steps("list", "same", """
        {v}[::-1]  # reverse
        {v}[1:]  # drop the first item
        {v}[:-1]  # drop the last item
        {v}[:{k}]  # keep the first items
        {v}[{k}:]  # drop the first items
        {v}[::2]  # keep every second item
        {v} + [{c}]  # append a number
        [{c}] + {v}  # prepend a number
        {v} + {v}[:1]  # append the first item
        """),
    *_steps("ints", "ints", """
        sorted({v})  # sort
        sorted({v}, reverse=True)  # sort downwards
        [i + {c} for i in {v}]  # add a number to each
        [i * {m} for i in {v}]  # multiply each
        [i - {c} for i in {v}]  # subtract a number from each
        [i % {m} for i in {v}]  # take each remainder
        [i * i for i in {v}]  # square each
        [i for i in {v} if i > {c}]  # keep the large items
        [i for i in {v} if i < {c}]  # keep the small items
        [i for i in {v} if i % 2 == 0]  # keep the even items
        [max(i, {c}) for i in {v}]  # keep each at least a number
        """),
    *_steps("ints", "int", """
        sum({v})  # add up
        max({v})  # take the largest
        min({v})  # take the smallest
        max({v}) - min({v})  # take the spread
        {v}[0] + {v}[-1]  # add first and last
        sum({v}) % {m}  # take the remainder of the sum
        sum(i for i in {v} if i > {c})  # add up the large items
        {v}.count({c})  # count a number
        {v}[0]  # take the first item
        {v}[-1]  # take the last item
        """),
    *_steps("list", "int", """
        len({v})  # take the length
        len({v}) + {c}  # add a number to the length
        len(set({v}))  # count distinct items
        """),
    *_steps("ints", "tuple", """
        (min({v}), max({v}))  # pair smallest and largest
        (len({v}), sum({v}))  # pair length and sum
        """),
    *_steps("ints", "bool", """
        {c} in {v}  # test for a number
        sum({v}) > {c}{c}  # test the sum
        {v} == sorted({v})  # test for order
        """),
    *_steps("strs", "str", """
        ''.join({v})  # join
        '-'.join({v})  # join with dashes
        {v}[0]  # take the first item
        max({v}, key=len)  # take the longest
        """),
    *_steps("strs", "ints", """
        [len(i) for i in {v}]  # take each length
        """),
    *_steps("strs", "strs", """
        [i[0] for i in {v}]  # take each first letter
        [i.upper() for i in {v}]  # make each upper case
        sorted({v})  # sort
        """),
    *_steps("dict", "strs", """
        list({v})  # list the keys
        """),
    *_steps("dict", "ints", """
        list({v}.values())  # list the values
        sorted({v}.values())  # sort the values
        """),
    *_steps("dict", "int", """
        sum({v}.values())  # add up the values
        len({v})  # take the length
        {v}.get('{a}', {c})  # look up a key
        """),
    *_steps("dict", "dict", """
        {{k: i + {c} for k, i in {v}.items()}}  # add a number to each value
        {{k: i for k, i in {v}.items() if i > {c}}}  # keep the large values
        """),
    *_steps("tuple", "tuple", """
        {v}[::-1]  # swap
        {v} + ({c},)  # append a number
        """),
    *_steps("tuple", "any", """
        {v}[0]  # take the first item
        {v}[1]  # take the second item
        """),
    *_steps("pair", "int", """
        {v}[0] * {v}[1]  # multiply both
        sum({v}) + {c}  # add a number to the sum
        max({v})  # take the larger
        """),
)  # fmt: skip

# Steps of two parameters: {x} and {y} of these kinds.
TWO: tuple[tuple[tuple[str, str], Step], ...] = tuple(
    (kinds, step)
    for kinds, steps in (
        (("int", "int"), _steps("two", "int", """
            {x} + {y}  # add
            {x} - {y}  # subtract
            {x} * {y}  # multiply
            max({x}, {y})  # take the larger
            min({x}, {y})  # take the smaller
            {x} * {m} + {y}  # multiply one and add
            {x} + {y} - {c}  # add and subtract a number
            abs({x} - {y})  # take the distance
            {x} if {x} > {y} else {c}  # choose by comparison
            """)),
        (("int", "int"), _steps("two", "ints", """
            [{x}, {y}]  # put both into a list
            [{y}, {x}, {c}]  # put both and a number into a list
            """)),
        (("int", "int"), _steps("two", "tuple", """
            ({x} + {y}, {x} - {y})  # pair sum and difference
            ({y}, {x})  # swap
            """)),
        (("ints", "int"), _steps("two", "ints", """
            {x} + [{y}]  # append y
            [{y}] + {x}  # prepend y
            [i + {y} for i in {x}]  # add y to each
            [i * {y} for i in {x}]  # multiply each by y
            [i for i in {x} if i > {y}]  # keep items larger than y
            [i for i in {x} if i != {y}]  # drop items equal to y
            """)),
        (("ints", "int"), _steps("two", "int", """
            sum({x}) + {y}  # add y to the sum
            {x}.count({y})  # count y
            max({x}) - {y}  # subtract y from the largest
            """)),
        (("str", "str"), _steps("two", "str", """
            {x} + {y}  # join
            {y} + {x}  # join the other way round
            {x} + '{w}' + {y}  # join with letters
            {x}[0] + {y}  # put the first letter of x before y
            {x}[::-1] + {y}  # reverse x and join
            """)),
        (("str", "str"), _steps("two", "int", """
            len({x}) + len({y})  # add the lengths
            {x}.count({y}[0])  # count the first letter of y in x
            """)),
        (("str", "small"), _steps("two", "str", """
            {x} * {y}  # repeat y times
            {x}[:{y}]  # keep y letters
            {x}[{y}:]  # drop y letters
            """)),
    )
    for step in steps
)  # fmt: skip

BLOCKS: tuple[Block, ...] = (
    Block("ints", "int", ("z = 0", "for i in {x}:", "    z += i * {m}"), "z", "add up multiples of the items"),
    Block("ints", "int", ("z = {c}", "for i in {x}:", "    z += i"), "z", "add up from a number"),
    Block("ints", "int", ("z = 0", "for i in {x}:", "    if i > {c}:", "        z += 1"), "z", "count the large items"),
    Block("ints", "int", ("z = 0", "for i in {x}:", "    if i % {m} == 0:", "        z += i"), "z", "add up the divisible items"),
    Block("ints", "ints", ("z = []", "for i in {x}:", "    z.append(i + {c})"), "z", "add a number to each"),
    Block("ints", "ints", ("z = []", "for i in {x}:", "    z.insert(0, i * {m})"), "z", "multiply each and reverse"),
    Block("ints", "ints", ("z = [0]", "for i in {x}:", "    z.append(z[-1] + i)"), "z", "add up step by step"),
    Block("int", "int", ("z = 0", "for i in range({x} % {c} + 1):", "    z += i"), "z", "add up the numbers below"),
    Block("int", "int", ("z = {x}", "while z > {c}:", "    z -= {m}"), "z", "subtract until small"),
    Block("int", "int", ("if {x} > {c}:", "    return {x} - {m}"), "{x} + {m}", "treat large and small differently"),
    Block("int", "int", ("if {x} % 2 == 0:", "    return {x} // 2"), "{x} * {m}", "halve even numbers, multiply odd ones"),
    Block("str", "str", ("if '{a}' in {x}:", "    return {x}[::-1]"), "{x} + '{w}'", "reverse when a letter is there, else append letters"),
    Block("str", "str", ("if len({x}) > {k} + 1:", "    return {x}[:{k}]"), "{x} * 2", "cut long texts, double short ones"),
    Block("str", "str", ("z = ''", "for i in {x}:", "    z = i + z + '{a}'"), "z", "reverse and add a letter each time"),
    Block("str", "str", ("z = ''", "for i in {x}:", "    if i != '{a}':", "        z += i"), "z", "remove a letter"),
    Block("str", "int", ("z = 0", "for i in {x}:", "    if i == '{a}' or i == '{b}':", "        z += {k}"), "z", "count two letters"),
    Block("str", "dict", ("z = {{}}", "for i in {x}:", "    z[i] = z.get(i, 0) + 1"), "z", "count every letter"),
    Block("ints", "int", ("if sum({x}) > {c}{c}:", "    return max({x})"), "min({x})",
          "take the largest when the sum is large, else the smallest"),
)  # fmt: skip

# What a step that takes the kind on the left also accepts: a list of numbers is a list, a pair of numbers a tuple.
ACCEPTS = {"int": ("int",), "small": ("int",), "str": ("str",), "ints": ("ints", "list"), "strs": ("strs", "list"), "dict": ("dict",)}
ACCEPTS |= {"tuple": ("tuple",), "pair": ("pair", "tuple"), "bool": (), "any": ()}


def constants(random: Random) -> dict[str, str]:
    """Values for the constants of a template."""
    a, b = random.sample(LETTERS, 2)
    return {
        "c": str(random.randint(1, 9)),
        "m": str(random.randint(2, 5)),
        "k": str(random.randint(1, 3)),
        "a": a,
        "b": b,
        "w": "".join(random.choices(LETTERS, k=random.randint(1, 2))),
    }


def value(kind: str, random: Random) -> str:
    """A literal of a parameter's kind, as source text."""
    match kind:
        case "int":
            return str(random.choices((random.randint(0, 20), random.randint(-9, -1), random.randint(21, 60)), (7, 1, 1))[0])
        case "small":
            return str(random.randint(1, 3))
        case "str":
            return repr(random.choice(WORDS) if random.random() < 0.3 else "".join(random.choices(LETTERS, k=random.randint(2, 5))))
        case "ints":
            return str([random.randint(0, 9) for _ in range(random.randint(2, 5))])
        case "strs":
            return str(random.sample(WORDS, random.randint(2, 3)))
        case "dict":
            return str({key: random.randint(0, 9) for key in random.sample(LETTERS, random.randint(2, 3))})
        case "pair":
            return f"({random.randint(0, 9)}, {random.randint(0, 9)})"
    raise ValueError(f"no literals of kind {kind!r}")
