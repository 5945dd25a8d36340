"""How durations are counted, so that counts of any calls can be added up and still tell percentiles. Pure.

Bucket 0 holds what took at most a millisecond, bucket n what took more than 1.03^(n-1) and at most 1.03^n. Every
duration in a bucket is told as one value, which is at most 1.5 % away from it.
"""

import math
import struct
from functools import lru_cache
from itertools import count

GROWTH = 1.03
# A histogram is one number. Of each bucket it has so many decimal digits, bucket 0 the last of them: adding numbers
# adds histograms, in a database too, as long as no bucket holds more calls than its digits can say.
DIGITS_PER_BUCKET = 12
# In groups of four, as PostgreSQL packs them.
_GROUPS = DIGITS_PER_BUCKET // 4
# How many groups follow, and the power of 10,000 of the first; sign and scale come between.
_NUMERIC_HEAD, _GROUPS_AT = struct.Struct("!Hh"), 8
_LOG_GROWTH = math.log(GROWTH)


@lru_cache(maxsize=65_536)
def bucket_of(milliseconds: int) -> int:
    """The bucket of a duration, which is not negative."""
    return 0 if milliseconds <= 1 else math.ceil(math.log(milliseconds) / _LOG_GROWTH)


def milliseconds_of(bucket: int) -> float:
    """What stands for every duration in a bucket: as far from its longest as from its shortest, in proportion."""
    return 1.0 if bucket == 0 else 2 * GROWTH**bucket / (1 + GROWTH)


def counts_in(histogram: bytes) -> dict[int, int]:
    """How many there are of each bucket, of a histogram as PostgreSQL's `numeric_send` packs it.

    Buckets that hold nothing are left out. A number in decimal would take five times as long to read.
    """
    group_count, weight = _NUMERIC_HEAD.unpack_from(histogram)
    # From the first group of a bucket to the last of one.
    lead = _GROUPS - 1 - weight % _GROUPS
    rest = -(lead + group_count) % _GROUPS
    groups = (0,) * lead + struct.unpack_from(f"!{group_count}H", histogram, _GROUPS_AT) + (0,) * rest
    triples = zip(groups[0::_GROUPS], groups[1::_GROUPS], groups[2::_GROUPS], strict=True)
    return {
        bucket: (high * 10_000 + middle) * 10_000 + low
        for bucket, (high, middle, low) in zip(count(weight // _GROUPS, -1), triples, strict=False)
        if low or middle or high
    }
