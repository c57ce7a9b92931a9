"""Equality of numbers without a tolerance that hides what is small.

math-verify subtracts and drops what is below 1e-15 (`chop`), so that 1/2^60 is 1/2^59, and rounds decimals to six places, so that 0.0 is 1/2^60.
Exact numbers are equal here when they are; a decimal is, when it is within a millionth of the other number where six places say nothing of it.
"""

from collections.abc import Callable
from typing import Any

from math_verify import grader
from sympy import Basic, Expr, Float, Rational, Symbol

# Beyond these sizes six decimals say nothing of a rounded number: all that are smaller would be equal, and hardly any that are larger.
SMALL, LARGE, CLOSE = 1e-3, 1e9, 1e-6
DIGITS = 60
ALIKE = Rational(1, 10**40)  # of two numbers that are not rational: relative to their size
# Where two expressions are compared: no value at which a sensible formula is special.
POINTS = [Rational(*pair) for pair in ((17, 11), (-23, 13), (29, 7), (-31, 9), (5, 19), (-3, 23), (41, 3), (-47, 5))]


def numbers_agree(one: Any, other: Any) -> bool | None:
    """Whether two numbers are equal; None when they are not both numbers, or when math-verify's six places decide it."""
    if not (isinstance(one, Expr) and isinstance(other, Expr) and one.is_number and other.is_number):
        return None
    if one.has(Float) or other.has(Float):
        return _rounded_agree(one, other)
    return _exactly_equal(one, other)


def same_function(one: Any, other: Any) -> bool:
    """Whether two expressions have the same values wherever the first is real, at points chosen once and for all: 1/sqrt(n) is sqrt(1/n)."""
    if not (isinstance(one, Expr) and isinstance(other, Expr)) or one.has(Float) or other.has(Float):
        return False
    names = sorted(one.free_symbols, key=str)
    if not names or len(names) > 4 or one.free_symbols != other.free_symbols or not all(isinstance(name, Symbol) for name in names):
        return False
    compared = 0
    for shift in range(len(POINTS)):
        values = {name: POINTS[(shift + 3 * place) % len(POINTS)] for place, name in enumerate(names)}
        here, there = (each.subs(values).doit() for each in (one, other))
        if here.evalf(DIGITS).is_real:
            if not there.is_number or not _exactly_equal(here, there):
                return False
            compared += 1
    return compared >= 3


def _exactly_equal(one: Expr, other: Expr) -> bool:
    one, other = one.doit(), other.doit()
    if one == other:
        return True
    difference = one - other
    if difference.is_Rational:
        return difference == 0
    size, apart = (abs(each.evalf(DIGITS, maxn=10 * DIGITS)) for each in (one, difference))
    return bool(size.is_finite and apart.is_finite and apart <= ALIKE * size)


def _rounded_agree(one: Expr, other: Expr) -> bool | None:
    """Of numbers one of which is rounded, and of which one is very small or a rounded one very large, whether they are within a millionth."""
    sizes = [abs(each.evalf()) for each in (one, other)]
    if not all(size.is_real and size.is_finite for size in sizes) or max(sizes) == 0:
        return None
    rounded = [size for each, size in zip((one, other), sizes, strict=True) if each.has(Float)]
    if max(sizes) < SMALL or max(rounded) > LARGE:
        return bool(abs((one - other).evalf()) <= CLOSE * max(sizes))
    return None


def exact_within(library: Callable[..., bool]) -> Callable[..., bool]:
    """math-verify's comparison of numbers, asked only what is not decided here."""

    def numeric_eq(one: Basic, other: Basic, *precision: int) -> bool:
        agree = numbers_agree(one, other)
        return library(one, other, *precision) if agree is None else agree

    return numeric_eq


# math-verify calls it by this name for numbers, and for the elements of sets, tuples, intervals and matrices.
grader.sympy_numeric_eq = exact_within(grader.sympy_numeric_eq)
