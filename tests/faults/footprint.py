"""Memory and handles of every service: what they were, and whether they have grown."""

from dataclasses import dataclass

from tests.faults.process_tree import handle_count, memory_bytes
from tests.faults.system import System

SERVICES = ("router", "ledger", "reporting", "Envoy")
# Connections come and go; a leak adds some for every fault.
HANDLE_SLACK = 48
MEMORY_SLACK_BYTES = 96 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Footprint:
    """Of one service, all its processes together."""

    handle_count: int
    memory_bytes: int

    @classmethod
    def of(cls, system: System, service: str) -> "Footprint":
        pids = system.pids(service)
        return cls(handle_count(pids), memory_bytes(pids))

    def growth_to(self, later: "Footprint") -> str | None:
        """What has grown beyond the slack, in words."""
        handles = later.handle_count - self.handle_count
        memory = later.memory_bytes - self.memory_bytes
        if handles > HANDLE_SLACK:
            return f"{handles} more handles"
        return f"{memory >> 20} MiB more memory" if memory > MEMORY_SLACK_BYTES else None


class Footprints:
    """Held against what the first run left, when every pool had been filled once."""

    def __init__(self) -> None:
        self._first: dict[str, Footprint] = {}

    def grown(self, system: System) -> list[str]:
        """What has grown since the first time this was asked."""
        problems = []
        for service in SERVICES:
            now = Footprint.of(system, service)
            growth = self._first.setdefault(service, now).growth_to(now)
            if growth is not None:
                problems.append(f"{service} has {growth}")
        return problems
