"""One person, site or study, however it is spelled: blanks, capitals, leading zeros, a spreadsheet's ``.0``."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import pandas as pd

__all__ = ["folded", "only_matches", "spelled_once", "spelling_note", "with_spelling"]

_NOBODY: Final = frozenset(
    ("", "-", "--", ".", "?", "na", "n/a", "#n/a", "n.a.", "nan", "none", "null", "nil", "unknown", "unbekannt",
     "missing", "not available", "anonymous", "anonymized", "anonymised", "anonym", "anon")
)  # fmt: skip
"""What people write where they know, or may say, nothing."""
_WHOLE: Final = re.compile(r"\+?(\d+)[.,]0+")
_DIGITS: Final = re.compile(r"\d+")


def folded(name: object) -> str | None:
    """What all spellings of one name have in common; None of a blank and of words that name nobody.

    Names that differ only in case, in blanks, in leading zeros or, of numbers, in a fraction of zero are one: two
    people taken for one make a group larger, one taken for two lies on both sides of a split.

    Examples:
        >>> {folded(name) for name in ("P00", "P00 ", "p00", "P 0")}
        {'p0'}
        >>> {folded(name) for name in ("3", "3.0", "003")}
        {'3'}
        >>> folded("N/A") is None
        True
    """
    if name is None or (isinstance(name, float) and name != name):
        return None
    # ^ is what DICOM puts between the parts of a name.
    text = "".join(unicodedata.normalize("NFKC", str(name)).split()).strip("^").casefold()
    if text in _NOBODY or " ".join(str(name).split()).casefold() in _NOBODY:
        return None
    text = whole[1] if (whole := _WHOLE.fullmatch(text)) else text
    return _DIGITS.sub(lambda digits: digits[0].lstrip("0") or "0", text)


def spelled_once(names: Iterable[object]) -> tuple[list[str | None], tuple[str, ...]]:
    """Each name as it is spelled most often (None of a blank), and in which ways those of one name differed.

    Examples:
        >>> spelled_once(["P01", "p01", "P01 ", "NA", "P2"])
        (['P01', 'P01', 'P01', None, 'P2'], ('blanks', 'capitals'))
    """
    given = [None if name is None else str(name) for name in names]
    keys = [folded(name) for name in given]
    spellings: dict[str, Counter[str]] = defaultdict(Counter)
    for key, name in zip(keys, given, strict=True):
        if key is not None and name is not None:
            spellings[key][name] += 1
    chosen = {key: _usual(counts) for key, counts in spellings.items()}
    ways = {way for counts in spellings.values() if len(counts) > 1 for way in _ways(list(counts))}
    return [None if key is None else chosen[key] for key in keys], tuple(sorted(ways))


def _usual(counts: Mapping[str, int]) -> str:
    """The commonest spelling, and of several that are as common the one that needs no trimming."""
    return min(counts, key=lambda name: (-counts[name], name != name.strip(), name)).strip()


def _ways(names: Sequence[str]) -> Iterable[str]:
    """In which ways spellings of one name differ."""
    if len({"".join(name.split()) for name in names}) < len(names):
        yield "blanks"
    names = sorted({"".join(name.split()) for name in names})
    if len({name.casefold() for name in names}) < len(names):
        yield "capitals"
    names = sorted({name.casefold() for name in names})
    if any(_WHOLE.fullmatch(name) for name in names) and len(names) > 1:
        yield "a fraction of zero"
        names = sorted({whole[1] if (whole := _WHOLE.fullmatch(name)) else name for name in names})
    if len(names) > 1:
        yield "leading zeros"


def only_matches(
    names: Iterable[str],
    others: Iterable[str],
    of_name: Callable[[str], str | None] = folded,
    of_other: Callable[[str], str | None] = folded,
) -> dict[str, str]:
    """Each name with the only other one that means the same, where no further name does.

    Args:
        names: What is looked for.
        others: Where it is looked for.
        of_name: What a name means; None means nothing.
        of_other: The same of others.

    Examples:
        >>> only_matches(["1", "2", "02"], ["0001", "0002"])
        {'1': '0001'}
    """
    asked: dict[str | None, set[str]] = defaultdict(set)
    there: dict[str | None, set[str]] = defaultdict(set)
    for name in names:
        asked[of_name(name)].add(name)
    for other in others:
        there[of_other(other)].add(other)
    return {
        next(iter(same)): next(iter(there[key]))
        for key, same in asked.items()
        if key is not None and len(same) == 1 and len(there.get(key, ())) == 1
    }


def with_spelling(table: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """A table of cases in which every patient and site has one spelling, and a note on each that had several.

    Args:
        table: With the columns ``patient`` and ``site``, text or None.
    """
    changed: dict[str, pd.Series[Any]] = {}
    notes = []
    for column in ("patient", "site"):
        names, ways = spelled_once(table[column].tolist())
        changed[column] = pd.Series(names, index=table.index, dtype=object)
        notes += [spelling_note(f"{column}s", ways, table[column].dropna().nunique(), len(set(names) - {None}))] * bool(
            ways
        )
    return table.assign(**changed), tuple(notes)


def spelling_note(noun: str, ways: Sequence[str], before: int, after: int) -> str:
    """What is said where several spellings became one; no name is in it.

    Args:
        noun: ``patients`` or ``sites``.
        ways: In which they differed.
        before: How many spellings there were.
        after: How many there are.
    """
    return f"{noun.capitalize()} that differ only in {' and '.join(ways)} are one: {before} spellings, {after} {noun}."
