from dataclasses import asdict
from pathlib import Path

import orjson

from development.state import State


def test_secrets_are_made_once(tmp_path: Path) -> None:
    first = State(tmp_path).secrets()

    assert State(tmp_path).secrets() == first
    assert (tmp_path / "secrets.json").stat().st_mode & 0o777 == 0o600


def test_what_an_older_run_did_not_know_is_added_and_the_rest_stays(tmp_path: Path) -> None:
    older = asdict(State(tmp_path).secrets())
    del older["webhook_key"]
    (tmp_path / "secrets.json").write_bytes(orjson.dumps(older))

    secrets = asdict(State(tmp_path).secrets())

    assert asdict(State(tmp_path).secrets()) == secrets
    assert secrets.pop("webhook_key")
    assert secrets == older
