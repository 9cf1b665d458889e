"""Is it a bomb? One rule for all that is packed: archives, and tables whose rows share one value."""

from __future__ import annotations

from nshot.errors import UnreadableImage

# JPEG, PNG, WebP and the like are packed already and shrink by a few percent in an archive; BMP and TIFF
# without compression shrink to a tenth, drawings to a thirtieth. What shrinks to less than a hundredth is
# hardly anything but repetition, as Apache POI judges it, too. Half a gigabyte is let pass, which takes
# seconds: masks and blank pages in small archives are no attack.
_RATIO = 100
_FLOOR = 2**29
_RECORD = 2**14  # bytes that are unpacked while one empty member is read


def refuse(unpacked: int, packed: int, members: int = 0) -> None:
    """Stop where a file unpacks to much more than its size would let expect.

    Args:
        unpacked: bytes that have come out of it so far.
        packed: bytes of the file that were read for them.
        members: how many files and folders were among them: a million empty ones shrink to a megabyte.

    Raises:
        UnreadableImage: more than half a gigabyte, and more than a hundred times what was read; a member
            counts as 16 kB beside what it holds.
    """
    work = unpacked + _RECORD * members
    if work > _FLOOR and work > _RATIO * packed:
        several = f" in {members:,} members" if members else ""
        raise UnreadableImage(
            f"the rest is not read: {packed:,} bytes unpack to {unpacked:,}{several}, and images do not "
            "shrink to less than a hundredth; if that is no attack, write them to a folder and name that"
        )
