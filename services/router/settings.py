"""Everything the router reads from its environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from services.common.grpc_server import ServerSettings
from services.common.sealed_secrets import read_private_key
from services.common.settings import Environment
from services.router.faces.face_limits import FaceLimits
from services.router.routing.policy_file import PolicyFile, read_policies
from services.router.routing.providers import Provider, read_providers
from services.router.spool.settings import SpoolSettings

WORKER_COUNT_MAX = 64
# How a process ends that has said in one line what is wrong.
WRONG_SETTING = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Read once by the first process, and again, unchanged, by each worker."""

    http_address: str
    grpc: ServerSettings
    metrics_address: str
    ledger_address: str
    worker_count: int
    # How long new calls are still taken after SIGTERM, while the health says "draining".
    drain_notice_seconds: int
    spool_directory: Path
    spool: SpoolSettings
    providers: tuple[Provider, ...] = field(repr=False)
    policies: PolicyFile
    face_limits: FaceLimits
    # Where rate limits are shared. None when each worker counts for itself. May hold a password.
    redis_url: str | None = field(repr=False)
    # What a worker's response cache may hold.
    cache_bytes: int
    provider_key_private: X25519PrivateKey = field(repr=False)
    log_level: str

    @classmethod
    def read(cls, variables: Mapping[str, str] = os.environ) -> "Settings":
        """Raises SettingError naming the first one that is missing or wrong."""
        environment = Environment(variables)
        providers_file = environment.path("TOLLGATE_PROVIDERS_FILE")
        providers = read_providers(providers_file, variables)
        worker_count = environment.integer("TOLLGATE_ROUTER_WORKERS", 1, least=1, most=WORKER_COUNT_MAX)
        return cls(
            http_address=environment.address("TOLLGATE_ROUTER_HTTP_ADDRESS", "127.0.0.1:8081"),
            grpc=ServerSettings.read(
                environment, "TOLLGATE_ROUTER_GRPC_ADDRESS", "127.0.0.1:8082", reuse_port=worker_count > 1
            ),
            metrics_address=environment.address("TOLLGATE_ROUTER_METRICS_ADDRESS", "127.0.0.1:9181"),
            ledger_address=environment.address("TOLLGATE_LEDGER_ADDRESS", "127.0.0.1:8090"),
            worker_count=worker_count,
            drain_notice_seconds=environment.integer("TOLLGATE_DRAIN_NOTICE_SECONDS", 0, least=0, most=600),
            spool_directory=environment.path("TOLLGATE_SPOOL_DIRECTORY"),
            spool=SpoolSettings.read(environment),
            providers=providers,
            policies=read_policies(providers_file, {each.model for one in providers for each in one.candidates}),
            redis_url=environment.optional_text("TOLLGATE_REDIS_URL"),
            face_limits=FaceLimits(
                calls_max=environment.integer("TOLLGATE_ROUTER_CALLS_MAX", 4096, least=1, most=65_536),
                body_seconds_max=environment.integer("TOLLGATE_ROUTER_BODY_SECONDS", 60, least=1, most=3600),
                bodies_bytes_max=environment.integer("TOLLGATE_ROUTER_BODIES_MIB", 512, least=16, most=65_536) * 2**20,
                trusted_proxy_count=environment.integer("TOLLGATE_ROUTER_TRUSTED_PROXIES", 0, least=0, most=16),
            ),
            cache_bytes=environment.integer("TOLLGATE_ROUTER_CACHE_MIB", 16, least=0, most=65_536) * 2**20,
            provider_key_private=read_private_key(environment),
            log_level=environment.text("TOLLGATE_LOG_LEVEL", "INFO"),
        )
