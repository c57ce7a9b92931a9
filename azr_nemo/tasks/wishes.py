"""Randomness from outside in the proposer's prompt: operations and types drawn evenly, which the new program is asked to have.

Left to itself a proposer writes what it wrote before; what a prompt asks for changes with every prompt and costs no data. (Evol-Instruct's seeds,
PromptCoT and SPICE draw concepts or documents for the same reason; here they are what Python has.) Nothing checks whether the wish was granted.
"""

import random

OPERATIONS = (
    "a for loop", "a while loop", "a nested loop", "an early return", "a list comprehension", "a dict comprehension", "a set", "a slice with a step",
    "sorting by a key", "zip", "enumerate", "range with a step", "a running total", "counting", "a nested function", "recursion", "string methods",
    "joining and splitting", "integer division and remainder", "comparing neighbours", "swapping elements", "a stack", "a queue", "min and max",
    "any or all", "a ternary expression", "negative indices", "tuple unpacking", "grouping in a dict", "removing duplicates", "reversing",
    "bit operations", "characters and their codes", "padding text", "a nested list", "list methods that change it in place", "string formatting",
)  # fmt: skip
TYPES = (
    "an int", "two ints", "a string", "two strings", "a string and an int", "a list of ints", "a list of strings", "two lists", "a list and an int",
    "a list of tuples", "a nested list", "a dict of ints", "a dict of lists", "a tuple", "a set of ints", "a list of bools",
)  # fmt: skip


def wishes(rng: random.Random, operations: int) -> tuple[str, ...]:
    """What the function takes, and `operations` things that its body has, each drawn evenly."""
    return (rng.choice(TYPES), *rng.sample(OPERATIONS, operations)) if operations else ()
