"""What decoding did with the images of a run, counted: one line per kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from nshot.paths import spelled

_SHOWN = 3  # variants of a kind that are named


@dataclass(slots=True)
class Noted:
    """The notes of a run. Kinds are told apart by what stands before the colon.

    Attributes:
        kinds: of each kind, how many images had each of its variants.
    """

    kinds: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, notes: Iterable[str]) -> None:
        """Count an image's notes."""
        for note in notes:
            kind, _, variant = note.partition(": ")
            self.kinds.setdefault(kind, Counter())[variant] += 1

    def lines(self) -> list[str]:
        """One sentence per kind: "12 images: colours converted to sRGB (from Display P3)"."""
        told = []
        for kind, variants in self.kinds.items():
            count = variants.total()
            named = [spelled(variant) for variant, _ in variants.most_common(_SHOWN) if variant]
            more = "; ..." if len(variants) > _SHOWN else ""
            which = f" ({'; '.join(named)}{more})" if named else ""
            told.append(f"{count:,} {'image' if count == 1 else 'images'}: {kind}{which}")
        return told
