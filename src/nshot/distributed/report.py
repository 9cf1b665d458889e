"""How a run is coming along: a bar in a terminal, a line now and then in a log, a few lines at the end."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from nshot.distributed.plan import counted
from nshot.distributed.shards import Summary, Total
from nshot.types import Embedded, Failure

_PAUSE = 30.0  # seconds between two lines in a log


class Progress:
    """Counts images; says it on a terminal as a bar, elsewhere as a line every half a minute.

    Args:
        images: names in the plan; archives may hold more.
        say: what prints a line of a log.
        shown: whether to say anything.
        terminal: whether stderr is one; found out by default.
    """

    def __init__(
        self, images: int, say: Callable[[str], object], *, shown: bool = True, terminal: bool | None = None
    ) -> None:
        self.total = Total()
        self._images = images
        self._say = say
        self._shown = shown
        self._counted = self._kept = 0
        self._failed: Counter[str] = Counter()
        self._begun = self._told = time.monotonic()
        self._bar: Any = None
        if shown and (sys.stderr.isatty() if terminal is None else terminal):
            from tqdm import tqdm

            self._bar = tqdm(total=images, unit=" images", dynamic_ncols=True, file=sys.stderr, leave=False)

    def image(self, item: Embedded | Failure) -> None:
        """One image is done."""
        self.count(1, {item.type: 1} if isinstance(item, Failure) else {})

    def count(self, images: int, failed: dict[str, int]) -> None:
        """So many images are done, of which some failed, by kind."""
        self._counted += images
        self._failed.update(failed)
        if self._bar is not None:
            if failed:
                self._bar.set_postfix_str(kinds_of(self._failed))
            self._bar.update(images)
        elif self._shown and time.monotonic() - self._told >= _PAUSE:
            self._told = time.monotonic()
            self._say(self.line())

    def shard(self, summary: Summary, *, counted: bool = True) -> None:
        """A shard is done, or was there already."""
        self.total.add(summary)
        if not summary.made:
            self._kept += summary.rows
            if self._bar is not None:  # beside the rate, by which the time that is left is told
                self._bar.initial += summary.rows
                self._bar.n += summary.rows
                self._bar.refresh()
        elif not counted:
            self.count(summary.rows, summary.kinds)

    def line(self) -> str:
        """Such as "12,000 of 1,000,000 images, 140 per second, 1 h 58 min left, 3 failed (3 FetchError)"."""
        seconds = max(time.monotonic() - self._begun, 1e-3)
        rate, done = self._counted / seconds, self._counted + self._kept
        parts = [f"{done:,} of {max(done, self._images):,} images", f"{rate:,.0f} per second"]
        if rate > 0 and self._images > done:
            parts.append(f"{duration((self._images - done) / rate)} left")
        if self._failed:
            parts.append(f"{self._failed.total():,} failed ({kinds_of(self._failed)})")
        return ", ".join(parts)

    def close(self) -> None:
        """The bar goes."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def report(self) -> list[str]:
        """What came out, in a few lines."""
        total, seconds = self.total, time.monotonic() - self._begun
        made = f"{total.made:,} made now in {duration(seconds)}"
        if self._counted:
            made += f", {self._counted / max(seconds, 1e-3):,.0f} images per second"
        lines = [f"{counted(total.shards, 'shard')}, {made}"]
        if total.failed:
            kinds = Counter(total.kinds)
            lines.append(f"{total.failed:,} of {total.rows:,} images failed: {kinds_of(kinds)}")
        lines += [f"not read: {line}" for line in total.broken]
        return lines


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if hours < 100 else f"{hours / 24:,.0f} days"


def kinds_of(kinds: Counter[str]) -> str:
    """Such as "3 FetchError, 1 UndecodableImage"."""
    return ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common())
