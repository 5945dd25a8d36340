"""Everything that the reporting service reads from its environment."""

from collections.abc import Mapping
from dataclasses import dataclass

from services.common.grpc_server import ServerSettings
from services.common.settings import Environment


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    server: ServerSettings
    database_url: str
    metrics_address: str
    log_level: str

    @classmethod
    def from_environ(cls, variables: Mapping[str, str]) -> "Settings":
        """Raises SettingError, naming what is missing or wrong."""
        environment = Environment(variables)
        return cls(
            server=ServerSettings.read(environment, "TOLLGATE_REPORTING_ADDRESS", "127.0.0.1:8091"),
            database_url=environment.text("TOLLGATE_DATABASE_URL"),
            metrics_address=environment.address("TOLLGATE_REPORTING_METRICS_ADDRESS", "127.0.0.1:9191"),
            log_level=environment.text("TOLLGATE_LOG_LEVEL", "INFO"),
        )
