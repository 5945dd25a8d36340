"""Where each part of a development run listens."""

import random
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, fields
from typing import Self

from services.common.settings import Environment

# Below what Linux gives to outgoing connections (32768 on), above what services commonly use.
UNASSIGNED_PORTS = (15_000, 32_000)
PORTS_PER_BLOCK = 200
# A router with several workers serves metrics on the ports that follow, too.
PORTS_PER_ADDRESS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """`host:port` of every part. The defaults are the documented ones."""

    front_door: str = "127.0.0.1:8080"
    admin: str = "127.0.0.1:9901"
    router_http: str = "127.0.0.1:8081"
    router_grpc: str = "127.0.0.1:8082"
    router_metrics: str = "127.0.0.1:9181"
    ledger: str = "127.0.0.1:8090"
    ledger_metrics: str = "127.0.0.1:9190"
    reporting: str = "127.0.0.1:8091"
    reporting_metrics: str = "127.0.0.1:9191"
    simulator: str = "127.0.0.1:8099"

    @classmethod
    def read(cls, environment: Environment) -> Self:
        """The defaults, but for those that a variable like TOLLGATE_FRONT_DOOR_ADDRESS names."""
        return cls(
            **{field.name: environment.address(_variable(field.name), str(field.default)) for field in fields(cls)}
        )

    @classmethod
    def free(cls) -> Self:
        """Ports that nobody uses, and no other process chooses, for tests that run beside others."""
        with ExitStack() as stack:
            ports = [_reserve_port(stack, PORTS_PER_ADDRESS) for _ in fields(cls)]
        return cls(**{field.name: f"127.0.0.1:{port}" for field, port in zip(fields(cls), ports, strict=True)})

    def in_use(self) -> list[str]:
        """The addresses that somebody listens on already, as settings."""
        addresses = {_variable(field.name): getattr(self, field.name) for field in fields(self)}
        return [f"{variable}={address}" for variable, address in addresses.items() if _is_taken(address)]


def free_address(port_count: int = 1) -> str:
    """Of a port that nobody uses and no other process chooses; with more, those that follow it are so too."""
    with ExitStack() as stack:
        return f"127.0.0.1:{_reserve_port(stack, port_count)}"


def _reserve_port(stack: ExitStack, port_count: int = 1) -> int:
    """Held until the stack ends."""
    while True:
        ports = [next(_PORTS) for _ in range(port_count)]
        # From the end of one block to the beginning of another they do not follow each other.
        if ports[-1] - ports[0] == port_count - 1:
            with suppress(OSError):
                for port in ports:
                    stack.enter_context(socket.create_server(("127.0.0.1", port)))
                return ports[0]


def _ports() -> Iterator[int]:
    """From blocks that no other process takes from: between its choice and its use nothing else holds a port."""
    with ExitStack() as claims:
        while True:
            block = _claim_block(claims)
            yield from range(block, block + PORTS_PER_BLOCK)


def _claim_block(claims: ExitStack) -> int:
    """Whose name is taken until this process ends. Where there are no such names, chance has to do."""
    blocks = list(range(*UNASSIGNED_PORTS, PORTS_PER_BLOCK))
    random.shuffle(blocks)
    for block in blocks if sys.platform == "linux" else ():
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(f"\0tollgate-ports-{block}")
        except OSError:
            name.close()
        else:
            claims.enter_context(name)
            return block
    return blocks[0]


_PORTS = _ports()


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def _variable(name: str) -> str:
    return f"TOLLGATE_{name.upper()}_ADDRESS"


def _is_taken(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((host, int(port))) == 0
