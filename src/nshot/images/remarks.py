"""What a person should hear about a listing: how it was read, what was passed over, what has no label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from nshot.images.kinds import Skipped
from nshot.images.notes import Noted
from nshot.types import Embedded, Failure


@dataclass(slots=True)
class Remarks:
    """Filled while images are listed; ``news`` and ``counts`` say it.

    Attributes:
        notes: how something was read, each once, in the order in which it was met.
        skipped: files that are no images, by kind.
        unlabelled: rows or images without a label, by what stands in its place; they are left out.
        decoded: what decoding did with the images, by kind.
        kept: names of the tables' columns that go along with their images.
    """

    notes: list[str] = field(default_factory=list)
    skipped: Skipped = field(default_factory=Skipped)
    unlabelled: Counter[str] = field(default_factory=Counter)
    decoded: Noted = field(default_factory=Noted)
    kept: list[str] = field(default_factory=list)
    _told: int = 0

    def note(self, text: str) -> None:
        """Remember a sentence, once."""
        if text not in self.notes:
            self.notes.append(text)

    def start(self) -> None:
        """A listing begins afresh: what it counts is counted anew."""
        self.skipped.kinds.clear()
        self.unlabelled.clear()
        self.decoded.kinds.clear()

    def noting(self, items: Iterable[Embedded | Failure]) -> Iterator[Embedded | Failure]:
        """The embedded images as they come, while what decoding did with them is counted."""
        for item in items:
            self.decoded.add(item.notes)
            yield item

    def news(self) -> list[str]:
        """The notes that were not asked for yet."""
        fresh = self.notes[self._told :]
        self._told = len(self.notes)
        return fresh

    def counts(self) -> list[str]:
        """What was passed over: a sentence on images without label, one on files that are no images."""
        lines = []
        if self.unlabelled:
            kinds = ", ".join(f"{count:,} {what}" for what, count in self.unlabelled.most_common())
            count = self.unlabelled.total()
            lines.append(
                f"{count:,} {'image has' if count == 1 else 'images have'} no label and "
                f"{'is' if count == 1 else 'are'} left out ({kinds})"
            )
        if self.skipped:
            lines.append(str(self.skipped))
        return lines + self.decoded.lines()
