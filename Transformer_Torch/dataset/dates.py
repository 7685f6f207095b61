"""Dates made by code, whose answer is known: "Wednesday, the 3rd of March, 1999" -> "1999-03-03".

They are written in many ways. A network that works gets all of them right, or all but a few. No
date is in two splits.
"""

import datetime
import random

from .pairs import Sentences

SIZES = {"train": 20_000, "validation": 1_000, "test": 1_000}
FIRST, LAST = datetime.date(1900, 1, 1), datetime.date(2099, 12, 31)
MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September",
          "October", "November", "December"]  # fmt: skip
WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
ONES = ["", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
        "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
        "nineteen"]  # fmt: skip
TENS = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
ORDINALS = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth",
            "nine": "ninth", "twelve": "twelfth", "twenty": "twentieth",
            "thirty": "thirtieth"}  # fmt: skip
WAYS = [  # d 3, th 3rd, third; m Mar, month March; y 1999, year nineteen ninety-nine; w Wed, …
    "{month} {d}, {y}", "{month} {th}, {y}", "{d} {month} {y}", "{th} {month} {y}",
    "the {th} of {month}, {y}", "the {th} of {month} {y}", "{month} the {th}, {y}",
    "{weekday}, {d} {month} {y}", "{weekday}, {month} {d}, {y}",
    "{weekday}, the {th} of {month}, {y}", "{d} {m} {y}", "{m} {d}, {y}", "{m}. {d}, {y}",
    "{w}, {d} {m} {y}", "{w} {m} {d} {y}", "{d}-{m}-{y}", "{y} {month} {d}", "{y}, {month} {th}",
    "in {y}, on the {th} of {month}", "the {third} of {month}, {y}", "{month} the {third}, {y}",
    "{weekday}, the {third} of {month} {y}", "the {third} of {month}, {year}",
    "{month} {third}, {year}", "{d} {month}, {year}",
]  # fmt: skip


def number(n: int) -> str:
    """21 -> "twenty-one", for 1 to 99."""
    return ONES[n] if n < 20 else "-".join(filter(None, (TENS[n // 10], ONES[n % 10])))


def ordinal(n: int) -> str:
    """21 -> "twenty-first", for 1 to 31."""
    *tens, last = number(n).split("-")
    return "-".join([*tens, ORDINALS.get(last, f"{last}th")])


def year(y: int) -> str:
    """1999 -> "nineteen ninety-nine", 1905 -> "nineteen oh five", 2005 -> "two thousand five"."""
    century, rest = divmod(y, 100)
    if century == 20 and rest < 10:
        return f"two thousand {number(rest)}".strip()
    if rest == 0:
        return f"{number(century)} hundred"
    return f"{number(century)} {'oh ' if rest < 10 else ''}{number(rest)}"


def suffix(n: int) -> str:
    """1st, 2nd, 3rd, 4th, …"""
    return "th" if n in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")


def write(date: datetime.date, way: str) -> str:
    """The date, written out in one of the WAYS."""
    d, month, weekday = date.day, MONTHS[date.month - 1], WEEKDAYS[date.weekday()]
    return way.format(
        d=d, th=f"{d}{suffix(d)}", third=ordinal(d), month=month, m=month[:3], weekday=weekday,
        w=weekday[:3], y=date.year, year=year(date.year),
    )  # fmt: skip


def dates(rng: random.Random, size: int) -> list[tuple[str, str]]:
    days = rng.sample(range(FIRST.toordinal(), LAST.toordinal() + 1), size)
    made = map(datetime.date.fromordinal, days)
    return [(write(date, rng.choice(WAYS)), date.isoformat()) for date in made]


def load(split: str) -> Sentences:
    """The same pairs every time."""
    pairs = dates(random.Random(0), sum(SIZES.values()))
    names = list(SIZES)
    start = sum(SIZES[name] for name in names[: names.index(split)])
    source, target = zip(*pairs[start : start + SIZES[split]], strict=True)
    return Sentences(list(source), list(target), {})
