"""A folder in an object store, as a tree of folders that may be labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nshot.errors import SourceError
from nshot.images import stored
from nshot.images.kinds import left_behind, no_image
from nshot.images.tables import LABEL_COLUMNS
from nshot.objects import Place, StoreFailure


@dataclass(slots=True)
class InStore:
    """A folder in an object store; each level is listed when it is first asked for.

    Attributes:
        place: its URL, without a slash at the end.
    """

    place: str
    _level: tuple[list[str], list[str]] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """Its own name."""
        return self.place.rpartition("/")[2]

    def _listed(self) -> tuple[list[str], list[str]]:
        """The names of the folders and of the objects right in it."""
        if self._level is None:
            place = Place.of(self.place)
            try:
                folders, objects = place.level()
            except StoreFailure as error:
                raise SourceError(f"{self.place}/ cannot be listed: {error}") from error
            names = [meta.key.rpartition("/")[2] for meta in objects]
            self._level = folders, [name for name in names if name]
        return self._level

    def folders(self) -> Sequence[InStore]:
        """The folders in it, without hidden ones and what an operating system leaves."""
        names = self._listed()[0]
        return [InStore(f"{self.place}/{n}") for n in names if not n.startswith(".") and not left_behind(n)]

    def files(self) -> Sequence[str]:
        """The objects right in it."""
        return self._listed()[1]

    def below(self, endings: tuple[str, ...]) -> Sequence[str]:
        """The names within it of all objects below with such an ending, by name."""
        start = f"{Place.of(self.place).key}/".removeprefix("/")
        try:
            names = (meta.key.removeprefix(start) for meta in Place.of(self.place).listing())
            return [each for each in names if each.lower().endswith(endings) and not _hidden(each)]
        except StoreFailure as error:
            raise SourceError(f"{self.place}/ cannot be listed: {error}") from error

    def says_labels(self, table: str) -> bool:
        """Whether a table right in it has a column of labels."""
        return bool(stored.open_table(f"{self.place}/{table}").known(LABEL_COLUMNS))

    def left_behind(self) -> Sequence[str]:
        """What an operating system left beside the folders."""
        return [name for name in self._listed()[0] if left_behind(name) and not name.startswith(".")]

    def holds_images(self) -> bool:
        """Whether an object below may be an image; the listing ends at the first."""
        try:
            below = (meta.key for meta in Place.of(self.place).listing() if meta.size)
            return any(not _hidden(key) and no_image(key) is None for key in below)
        except StoreFailure as error:
            raise SourceError(f"{self.place}/ cannot be listed: {error}") from error


def _hidden(key: str) -> bool:
    return any(part.startswith(".") or left_behind(part) for part in key.split("/"))
