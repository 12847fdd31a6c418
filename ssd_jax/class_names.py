"""Lists of class names, as people read them. A list's order is that of the labels."""

import textwrap
from collections.abc import Iterable, Sequence


def class_difference(
    old: Sequence[str], new: Sequence[str], *, there: str = "the checkpoint", here: str = "the data"
) -> str:
    """What differs between two lists of classes, in indented lines; empty where they are equal.

    there, here: where the old and the new list were found.
    """
    lines = [
        named(f"only in {place}", only)
        for place, names, others in ((there, old, new), (here, new, old))
        if (only := [name for name in names if name not in others])
    ]
    if not lines and list(old) != list(new):
        lines = ["  the same names in another order", named(f"in {there}", old), named(f"in {here}", new)]
    return "\n".join(lines)


def named(title: str, names: Iterable[str]) -> str:
    """``  title: a, b, c``, broken into lines of a readable length."""
    return textwrap.fill(
        f"{title}: {', '.join(names)}",
        width=110,
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
