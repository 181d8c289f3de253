"""Numbers and words -> parts of sentences."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: "1 seed", "1,000 images". plural: if it is more than noun + s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def agreeing(number: int, singular: str, plural: str) -> str:
    """The form of a word that agrees with a number: "was" of 1, "were" of 0 and 2."""
    return singular if number == 1 else plural


def decimals(value: float, digits: int, most: float = 1.0) -> str:
    """A value with decimals; less than `most` is never rounded to it."""
    text = f"{value:.{digits}f}"
    if value < most and float(text) == most:
        text = f"{most - 10.0**-digits:.{digits}f}"
    return text


def percent(share: float, digits: int = 0) -> str:
    """A share in [0, 1] as text, never rounded up to 100 or down to 0; "n/a" if not finite."""
    if not math.isfinite(share):
        return "n/a"
    text = decimals(100 * share, digits, 100.0)
    if share > 0 and float(text) == 0:
        text = f"<{10.0**-digits:.{digits}f}"
    return f"{text} %"


def limit(share: float, digits: int) -> str:
    """A lower limit in [0, 1], rounded up, so that a value that reaches the text reaches the limit;
    with more digits where a limit below 1 would be shown as 1."""
    for places in range(digits, sys.float_info.dig + 2):
        value = math.ceil(round(share * 10.0**places, 6)) / 10.0**places
        if value < 1 or share >= 1:
            return f"{value:.{places}f}"
    return f"{1:.{digits}f}"


def at_least(share: float, digits: int) -> str:
    """`limit` as a percentage; digits: behind its point."""
    text = limit(share, digits + 2)
    return f"{100 * float(text):.{len(text) - len('0.00')}f} %"


def joined(words: Sequence[str]) -> str:
    """Words as a list in a sentence: "a", "a and b", "a, b and c"; "" for none."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
