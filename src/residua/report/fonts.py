"""Class names in any script -> fonts and names of PNG figures; a warning of missing glyphs."""

from __future__ import annotations

import contextlib
import functools
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size

BASE = "DejaVu Sans"  # comes with matplotlib; Latin, Greek, Cyrillic, Arabic letters, the marks
WIDE = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "FULLWIDTH", "IDEOGRAPHIC")


@dataclass(frozen=True)
class Lettering:
    """How the names of a report are written in its PNG figures.

    families: font families for matplotlib's per-text fallback, best first. classes: the names, or
    "class 3" where no installed font has a name's characters. warning: one sentence if any name is
    replaced.
    """

    families: tuple[str, ...]
    classes: tuple[str, ...]
    warning: str | None = None

    def name(self, label: int, width: int = 22) -> str:
        """The name of an output, cut to `width` columns; outputs beyond the classes have none."""
        known = 0 <= label < len(self.classes)
        return shorten(self.classes[label] if known else f"output {label}", width)


def lettering(classes: Sequence[str], noun: str = "class") -> Lettering:
    """Find installed fonts for the class names; searches beyond the first only where needed.

    noun: what the names are of, which replaces them where no font has their characters.
    """
    cleaned = [_visible(name) for name in classes]
    needed = frozenset(character for name in cleaned for character in name)
    families, missing = _families(needed)
    shown = tuple(
        f"{noun} {label}" if not name or missing & set(name) else name
        for label, name in enumerate(cleaned)
    )
    lost = [name for name in cleaned if missing & set(name)]
    return Lettering(families, shown, _warning(lost, missing) if lost else None)


def shorten(name: str, width: int) -> str:
    """At most `width` columns, East Asian characters counting two; the rest becomes "…"."""
    if cell_len(name) <= width:
        return name
    return set_cell_size(name, width - 1).rstrip() + "…"


def _visible(name: str) -> str:
    """Without controls and variation selectors, which have no glyph; undecoded bytes as U+FFFD."""
    shown = ""
    for character in unicodedata.normalize("NFC", name):
        category = unicodedata.category(character)
        if category != "Cc" and not "\ufe00" <= character <= "\ufe0f":
            shown += "\ufffd" if category == "Cs" else character
    return shown.strip()


def _families(needed: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Families that have the needed characters, as few as possible, and the characters none has."""
    families = [BASE]
    invisible = {c for c in needed if c.isspace() or unicodedata.category(c) == "Cf"}
    missing = needed - invisible - characters(*_base())
    if not missing:
        return (BASE,), missing
    covers = {name: missing & characters(*file) for name, file in installed().items()}
    while any(covered & missing for covered in covers.values()):
        best = max(covers, key=lambda name: (len(covers[name] & missing), name.startswith("Noto")))
        families.append(best)
        missing -= covers[best]
    return tuple(families), missing


def _base() -> tuple[str, int]:
    from matplotlib import font_manager

    return str(font_manager.findfont(BASE)), 0


def installed() -> dict[str, tuple[str, int]]:
    """Upright text families that matplotlib would use -> (file, face in it)."""
    from matplotlib import font_manager

    manager = font_manager.fontManager
    known = {entry.fname for entry in manager.ttflist}
    # matplotlib's list is a cache file without the fonts installed since
    for path in sorted(set(font_manager.findSystemFonts()) - known):
        with contextlib.suppress(Exception):  # a broken font may raise anything
            manager.addfont(path)
    plain = [
        (abs(int(entry.weight) - 400), entry.fname, getattr(entry, "index", 0), entry.name)
        for entry in manager.ttflist
        if entry.style == "normal" and entry.stretch == "normal" and str(entry.weight).isdigit()
    ]
    families: dict[str, tuple[str, int]] = {}
    for distance, path, face, name in sorted(plain):
        # Last Resort fonts have every character, each as a box; STIX are mathematics.
        if distance <= 100 and not name.replace(" ", "").startswith(
            ("LastResort", ".Last", "STIX")
        ):
            families.setdefault(name, (path, face))
    return families


@functools.cache
def characters(path: str, face: int) -> frozenset[str]:
    """The characters of a font file; none for files without outlines, such as colour emoji."""
    from fontTools.ttLib import TTFont

    try:
        with TTFont(path, fontNumber=face, lazy=True) as font:
            if not {"glyf", "CFF ", "CFF2"} & set(font.keys()):
                return frozenset()
            return frozenset(map(chr, font.getBestCmap() or {}))
    except Exception:  # a broken font file may raise anything
        return frozenset()


def _warning(names: Sequence[str], missing: Iterable[str]) -> str:
    scripts = sorted({_script(character) for character in missing})
    packages = sorted({_package(script) for script in scripts})
    first = ", ".join(names[:3]) + (" and others" if len(names) > 3 else "")
    return (
        f"No installed font has the characters ({', '.join(scripts)}) of the class names {first}, "
        "so PNG figures number these classes; report.html shows them. Install a font, "
        f"for example: apt-get install {' '.join(packages)}."
    )


def _script(character: str) -> str:
    """The first word of the character's Unicode name, which is its script for letters."""
    word = unicodedata.name(character, "").split(" ")[0].split("-")[0]
    if unicodedata.category(character)[0] == "L" and word:
        return word if word == "CJK" else word.capitalize()
    return "symbols" if word else f"U+{ord(character):04X}"


def _package(script: str) -> str:
    if script.upper() in WIDE:
        return "fonts-noto-cjk"
    return "fonts-symbola" if script == "symbols" else "fonts-noto-core"
