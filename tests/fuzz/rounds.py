"""How long a fuzz test runs: a moment in `make test`, at length in `make fuzz`; seeds stay."""

from __future__ import annotations

import os
import random


def rounds(short: int, long: int = 100_000) -> int:
    """Inputs to try: ``short`` of them, or with NSHOT_FUZZ set that share of ``long``."""
    share = os.environ.get("NSHOT_FUZZ")
    return short if not share else max(short, round(long * float(share)))


def mutated(data: bytes, source: random.Random) -> bytes:
    """The bytes with a few flipped, cut, doubled, overwritten with extremes, or swapped."""
    changed = bytearray(data)
    for _ in range(source.choice((1, 1, 1, 2, 5))):
        if not changed:
            return bytes(changed)
        place = source.randrange(min(len(changed), source.choice((64, 1024, 10**9))))
        match source.randrange(8):
            case 0:
                del changed[place:]
            case 1 | 2:
                changed[place] ^= 1 << source.randrange(8)
            case 3:
                changed[place] = source.randrange(256)
            case 4:
                changed[place : place + 4] = source.choice(
                    (b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80")
                )
            case 5:
                del changed[place : place + source.randrange(1, 60)]
            case 6:
                piece = changed[place : place + source.randrange(1, 200)]
                changed[place:place] = piece * source.choice((1, 1, 20))
            case 7:
                other = source.randrange(len(changed))
                changed[place : place + 8], changed[other : other + 8] = (
                    changed[other : other + 8],
                    changed[place : place + 8],
                )
    return bytes(changed)
