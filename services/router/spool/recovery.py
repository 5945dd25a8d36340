"""What an earlier life left in a slot, made fit to be read.

A torn tail is cut off. A damaged segment stays in its place until everything readable in it has been shipped, and is
then kept aside, named `.damaged`. A copy of a segment is kept aside at once, named `.duplicate`. Nothing here needs
free space.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path

from services.router.spool.entry import Damage, Kind
from services.router.spool.metrics import DAMAGE, RECOVERED
from services.router.spool.register import Epoch
from services.router.spool.segment import HEADER_BYTES, Segment
from services.router.spool.slot import SEGMENT_SUFFIX
from tollgate.ledger.v1.usage_pb2 import UsageRecord

log = logging.getLogger("tollgate.spool")


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A call that was begun and not finished."""

    payload: bytes
    # Where it stands; that segment must stay until the record is durable elsewhere.
    segment_number: int


@dataclass(frozen=True, slots=True)
class Recovered:
    """Everything that is there, durably. Oldest segment first."""

    segments: list[Segment]
    unfinished: list[Unfinished]
    # Finished records that the cursor does not cover.
    unsent_count: int


@dataclass(slots=True)
class _Survey:
    """What one pass over all segments finds out."""

    cursor: tuple[Epoch, int] | None
    begun: dict[str, Unfinished] = field(default_factory=dict)
    unsent_count: int = 0


def recover(directory: Path, cursor: tuple[Epoch, int] | None) -> Recovered:
    """Raises OSError when the directory or a file in it cannot be used."""
    survey = _Survey(cursor)
    damages: dict[Segment, list[Damage]] = {}
    for segment in _without_copies(_load_all(directory)):
        damages[segment] = _survey_segment(segment, survey)
        if segment.end == HEADER_BYTES:
            # Made ready and never used.
            del damages[segment]
            segment.remove()
    segments = list(damages)
    for segment in segments:
        _judge(segment, damages[segment], is_newest=segment is segments[-1])
    _report_unfinished(survey)
    return Recovered(segments, list(survey.begun.values()), survey.unsent_count)


def _load_all(directory: Path) -> list[Segment]:
    return [Segment.load(path) for path in sorted(directory.glob(f"*{SEGMENT_SUFFIX}"))]


def _without_copies(segments: list[Segment]) -> list[Segment]:
    """Of files with the same number, the one whose name agrees, or the first."""
    chosen: dict[int, Segment] = {}
    for segment in sorted(segments, key=lambda segment: (segment.number, not segment.name_agrees)):
        first = chosen.setdefault(segment.number, segment)
        if segment is not first:
            log.error("%s is a copy of %s; it is kept aside and not read", segment.path, first.path)
            segment.set_aside(".duplicate")
    return list(chosen.values())


def _survey_segment(segment: Segment, survey: _Survey) -> list[Damage]:
    """Notes what calls begin and end in the segment. Returns what is damaged, and cuts off the zeros after the end."""
    damages = []
    end = HEADER_BYTES
    for found in segment.scan():
        end = found.end
        if isinstance(found, Damage):
            damages.append(found)
            continue
        request_id = UsageRecord.FromString(found.payload).request_id
        if found.kind is Kind.STARTED:
            survey.begun[request_id] = Unfinished(found.payload, segment.number)
            continue
        survey.begun.pop(request_id, None)
        if survey.cursor is None or survey.cursor[0] != segment.header.epoch or found.sequence > survey.cursor[1]:
            survey.unsent_count += 1
    segment.truncate(end)
    return damages


def _judge(segment: Segment, damages: list[Damage], *, is_newest: bool) -> None:
    """Cuts off the torn tail of the newest segment; what else is unreadable is damage."""
    if is_newest and segment.header.epoch is not None and damages and damages[-1].is_tail:
        torn = damages.pop()
        log.warning("%s ends in %d torn bytes; they are cut off", segment.path, torn.end - torn.start)
        segment.truncate(torn.start)
    for damage in damages:
        DAMAGE.inc()
        log.error("%s is damaged from byte %d to %d; it will be kept aside", segment.path, damage.start, damage.end)
    segment.is_damaged = bool(damages) or segment.header.epoch is None
    segment.sync()
    segment.durable_end = segment.end


def _report_unfinished(survey: _Survey) -> None:
    if survey.begun:
        RECOVERED.inc(len(survey.begun))
        log.warning("%d calls had begun and not finished; they are recorded as UNKNOWN", len(survey.begun))
