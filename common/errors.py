"""The one kind of error that is the user's to mend, and names as a terminal may show them."""

import unicodedata

TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # the direction of writing


class UserError(Exception):
    """Something the user can put right: printed as one line, exit code 2."""

    def __str__(self) -> str:
        return printable(super().__str__())


def printable(name: object) -> str:
    r"""A name of a file, class or column on one line: "a\nb" for one with a line break in it.

    Escaped are control characters, line separators, changes of direction, and bytes that are no
    text: what could move a terminal's cursor, hide a part of the line, or stop print().
    """
    return "".join(
        c.encode("unicode_escape").decode("ascii")
        if c in TURNING or unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")
        else c
        for c in str(name)
    )
