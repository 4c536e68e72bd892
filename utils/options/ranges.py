"""Valid ranges of the scripts' numbers, for their parsers and for those who call them from Python."""

import argparse
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from models.regions import MOST_LEVELS
from utils.errors import UserError
from utils.files.reading import parse_number
from utils.text import brief

WHOLE = re.compile(r"[+-]?[0-9]+")
"""A whole number as it is typed: the digits 0 to 9, without underscores."""

MOST_DIGITS = 30
"""Digits of a whole number, leading zeros left out, beyond which it is out of every range."""


@dataclass(frozen=True)
class Range:
    """Valid numbers of an option, from `least` to `most`; also the type of its argument in a parser."""

    least: float
    most: float
    whole: bool = True
    excludes_least: bool = False
    excludes_most: bool = False

    @property
    def span(self) -> str:
        """Range in words, such as `1 to 30`."""
        if self.excludes_least:
            return f"greater than {self.least}, {self.most} at most"
        return f"{self.least} to {'less than ' if self.excludes_most else ''}{self.most}"

    def holds(self, value: object) -> bool:
        """Return whether a value is a number, not a bool or nan, in this range."""
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        return (
            self.least <= value <= self.most
            and not (self.excludes_least and value == self.least)
            and not (self.excludes_most and value == self.most)
        )

    def expected(self) -> str:
        """Return what a value must be, for a message."""
        between = "" if self.excludes_least else "from "
        return f"a {'whole ' if self.whole else ''}number {between}{self.span}"

    def __call__(self, text: str) -> float:
        """Return the number that a word of the command line stands for.

        Raises:
            ArgumentTypeError: it stands for none in this range.
        """
        word = text.strip()
        number: float | None = None
        if self.whole and WHOLE.fullmatch(word) and len(word.lstrip("+-0")) <= MOST_DIGITS:
            number = int(word[0].strip("0123456789") + (word.lstrip("+-0") or "0"))
        elif not self.whole:
            with suppress(ValueError):
                number = parse_number(word)
        if not self.holds(number):
            raise argparse.ArgumentTypeError(f"{brief(text)} is not {self.expected()}")
        return number


PIXELS = Range(1, 32_768)
COUNT = Range(1, 10**9)
NEIGHBOURS = Range(0, 10**6)

RANGES: dict[str, Range] = {
    "S": PIXELS,
    "L": Range(1, MOST_LEVELS),
    "batch_size": Range(1, 65_536),
    "workers": Range(0, 1024),
    "seed": Range(0, 2**32 - 1),
    "scales": Range(0, 16, whole=False, excludes_least=True),
    "qe": NEIGHBOURS,
    "dba": NEIGHBOURS,
    "diffusion": NEIGHBOURS,
    "alpha": Range(0, 100, whole=False),
    "diffusion_alpha": Range(0, 1, whole=False, excludes_most=True),
    "top": COUNT,
    "box": Range(-1_000_000, 1_000_000, whole=False),
    "min_side": PIXELS,
    "components": COUNT,
    "samples": COUNT,
    "save_every": Range(0, 10**9, whole=False),
    "iterations": COUNT,
    "accumulate": Range(1, 10**6),
    "lr": Range(0, 1000, whole=False, excludes_least=True),
    "momentum": Range(0, 1, whole=False, excludes_most=True),
    "weight_decay": Range(0, 1000, whole=False),
    "checkpoint_every": COUNT,
    "val_images": COUNT,
    "crop": PIXELS,
    "resize": PIXELS,
    "max_files": Range(1, 10**12),
    "max_bytes": Range(1, 10**18),
}
"""Range of each option, by its name in Python; `scales`, `box` and `resize` are lists of such numbers."""

LENGTHS = {"scales": range(1, 101), "box": range(4, 5), "resize": range(2, 3)}
"""How many numbers the options that are lists hold."""

OPTIONAL = frozenset({"batch_size", "workers", "components", "samples", "box"})
"""Options that may be None."""


def check_numbers(options: Mapping[str, object]) -> None:
    """Check the numbers among a script's options, given by the options' names.

    Raises:
        UserError: a value is not in its option's range.
    """
    for name, value in options.items():
        valid = RANGES.get(name)
        if valid is None or (value is None and name in OPTIONAL):
            continue
        if name not in LENGTHS:
            if not valid.holds(value):
                raise UserError(f"{name} {brief(value)} is not {valid.expected()}")
        elif not _is_list(value, LENGTHS[name]) or not all(valid.holds(item) for item in value):
            lengths = LENGTHS[name]
            many = lengths[0] if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]}"
            kind = "whole numbers" if valid.whole else "numbers"
            raise UserError(f"{name} {brief(value)} is not a list of {many} {kind}, each {valid.span}")


def _is_list(value: object, lengths: range) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and len(value) in lengths
