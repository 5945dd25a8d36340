"""The books as plain Python keeps them: what each call must cost, and what became of it. Pure.

A call tells the simulated provider what to report, so its usage and its price are known before it is made. Whatever
happens to the services, this is what must be in their books afterwards.
"""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

# Pico-USD per token. Written down here and not read from the price book, which is part of what is tested.
_PRICES_PICO = {
    "gpt-4o": (2_500_000, 1_250_000, 10_000_000),
    "gpt-4o-mini": (150_000, 75_000, 600_000),
}
# What a provider may do instead of answering. A client never sees such a call finish.
TROUBLES = (
    "simulate:status=503",
    "simulate:status=400",
    "simulate:body=html",
    "simulate:body=half",
    "simulate:break_after=2",
    "simulate:error_after=3",
    "simulate:end_after=3",
)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a client, and what it must cost when it succeeds."""

    # Sent along as metadata, to find its record by.
    tag: str
    model: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    streamed: bool
    # A directive that makes the provider fail. Empty for a call that must succeed.
    trouble: str = ""
    delay_ms: int = 0

    @property
    def prompt(self) -> str:
        words = [
            f"simulate:prompt={self.input_tokens}",
            f"simulate:cached={self.cached_tokens}",
            f"simulate:tokens={self.output_tokens}",
        ]
        if self.delay_ms:
            words.append(f"simulate:delay_ms={self.delay_ms}")
        return " ".join([*words, self.trouble])

    @property
    def cost_pico(self) -> int:
        input_price, cached_price, output_price = _PRICES_PICO[self.model]
        fresh_tokens = self.input_tokens - self.cached_tokens
        return fresh_tokens * input_price + self.cached_tokens * cached_price + self.output_tokens * output_price


def a_call(tag: str, dice: random.Random, *, trouble_share: float = 0.0, delay_ms: int = 0) -> Call:
    """Any call that a client may make."""
    input_tokens = dice.randint(1, 5_000)
    return Call(
        tag=tag,
        model=dice.choice(sorted(_PRICES_PICO)),
        input_tokens=input_tokens,
        cached_tokens=dice.choice((0, dice.randint(0, input_tokens))),
        output_tokens=dice.randint(4, 60),
        streamed=dice.random() < 0.4,
        trouble=dice.choice(TROUBLES) if dice.random() < trouble_share else "",
        delay_ms=delay_ms,
    )


class Ending(Enum):
    """What the client saw of a call."""

    # A whole answer, to its last byte.
    FINISHED = auto()
    # An error, an answer cut off, or nothing.
    UNFINISHED = auto()


@dataclass(frozen=True, slots=True)
class Booked:
    """A usage record as the books have it."""

    tag: str
    request_id: str
    input_tokens: int | None
    output_tokens: int | None
    # None for a record without a price.
    cost_pico: int | None
    charged_pico: int
    is_estimated: bool


@dataclass
class Model:
    """Every call of one run."""

    calls: dict[str, Call] = field(default_factory=dict)
    # The request id of the answer, by tag, of calls that a client saw finish.
    finished: dict[str, str] = field(default_factory=dict)
    # Calls whose own record was damaged on disk by the run. They may be lost, but not doubled or charged wrongly.
    damaged: set[str] = field(default_factory=set)

    def begin(self, call: Call) -> None:
        self.calls[call.tag] = call

    def end(self, call: Call, ending: Ending, request_id: str = "") -> None:
        if ending is Ending.FINISHED:
            self.finished[call.tag] = request_id

    @property
    def promised(self) -> set[str]:
        """The calls that must be in the books, once."""
        return set(self.finished) - self.damaged

    def compare(self, booked: Iterable[Booked]) -> "Comparison":
        """Holds the books to every promise."""
        by_tag: dict[str, list[Booked]] = {}
        for record in booked:
            by_tag.setdefault(record.tag, []).append(record)
        return Comparison(
            call_count=len(self.calls),
            finished_count=len(self.finished),
            lost=sorted(self.promised - set(by_tag)),
            doubled=sorted(tag for tag, records in by_tag.items() if len(records) > 1),
            invented=sorted(set(by_tag) - set(self.calls)),
            misbilled=sorted(self._misbilled(by_tag)),
        )

    def _misbilled(self, by_tag: Mapping[str, list[Booked]]) -> Iterable[str]:
        for tag, records in by_tag.items():
            call = self.calls.get(tag)
            if call is not None and not all(self._is_right(call, record) for record in records):
                yield tag

    def _is_right(self, call: Call, record: Booked) -> bool:
        if call.tag in self.promised:
            return record.request_id == self.finished[call.tag] and _is_exact(call, record)
        if record.charged_pico == 0:
            return True
        # Nobody saw it finish: what the provider did is paid once, as reported or as estimated from what was streamed.
        return record.is_estimated or _is_exact(call, record)


def _is_exact(call: Call, record: Booked) -> bool:
    usage = (record.input_tokens, record.output_tokens)
    return (
        usage == (call.input_tokens, call.output_tokens) and record.cost_pico == record.charged_pico == call.cost_pico
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How the books differ from the model: by tags, none when all is well."""

    call_count: int
    finished_count: int
    # Seen finished by a client, and not in the books.
    lost: list[str]
    # In the books more than once.
    doubled: list[str]
    # In the books, and made by nobody.
    invented: list[str]
    # In the books with other usage or another price than was due.
    misbilled: list[str]
