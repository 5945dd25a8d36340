"""What a development run keeps between starts, under `.tollgate/`: data, logs, spool, secrets."""

import base64
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from services.common.sealed_secrets import PRIVATE_SETTING, PUBLIC_SETTING, new_key_settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """Made once, kept in a file that only its owner can read."""

    operator_key: str
    service_token: str
    database_password: str
    provider_key_public: str
    provider_key_private: str
    webhook_key: str


@dataclass(frozen=True, slots=True)
class State:
    """The folder and what lies where in it."""

    directory: Path

    @property
    def postgres(self) -> Path:
        return self.directory / "postgres"

    @property
    def spool(self) -> Path:
        return self.directory / "spool"

    @property
    def envoy_configuration(self) -> Path:
        return self.directory / "envoy.yaml"

    @property
    def demo(self) -> Path:
        return self.directory / "demo.json"

    def log(self, name: str) -> Path:
        return self.directory / "logs" / f"{name}.log"

    def prepare(self) -> None:
        (self.directory / "logs").mkdir(parents=True, exist_ok=True)

    def secrets(self) -> Secrets:
        """The secrets of this folder, made the first time, as are those that an older run did not know."""
        path = self.directory / "secrets.json"
        kept = orjson.loads(path.read_bytes()) if path.exists() else {}
        all_of_them = asdict(_new_secrets()) | kept
        if all_of_them != kept:
            write_private(path, orjson.dumps(all_of_them, option=orjson.OPT_INDENT_2))
        return Secrets(**all_of_them)


def write_private(path: Path, content: bytes) -> None:
    """Writes a file that only its owner can read, whole or not at all."""
    draft = path.with_suffix(".new")
    draft.touch(mode=0o600)
    draft.write_bytes(content)
    draft.rename(path)


def _new_secrets() -> Secrets:
    pair = new_key_settings()
    return Secrets(
        operator_key=f"tg_{secrets.token_urlsafe(32)}",
        service_token=secrets.token_urlsafe(32),
        database_password=secrets.token_urlsafe(32),
        provider_key_public=pair[PUBLIC_SETTING],
        provider_key_private=pair[PRIVATE_SETTING],
        webhook_key=base64.b64encode(secrets.token_bytes(32)).decode(),
    )
