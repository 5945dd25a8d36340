"""What stops a start is said in one clear line."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from development.addresses import Addresses

SECONDS = 150


def run_stack(directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    free = Addresses.free()
    addresses = {f"TOLLGATE_{name.upper()}_ADDRESS": getattr(free, name) for name in Addresses.__dataclass_fields__}
    return subprocess.run(
        [sys.executable, "-m", "development"],
        env=os.environ | addresses | {"TOLLGATE_STATE_DIRECTORY": str(directory)} | environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def assert_one_line(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for part in parts:
        assert part in done.stderr


def test_a_port_in_use_is_one_clear_line(state_directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run_stack(state_directory, TOLLGATE_FRONT_DOOR_ADDRESS=address)

    assert_one_line(done, address, "in use", "TOLLGATE_FRONT_DOOR_ADDRESS")


@pytest.mark.parametrize("url", ["nonsense", "mysql://root@localhost/x", "postgresql://nobody@127.0.0.1:1/x"])
def test_a_broken_database_url_is_one_clear_line(state_directory: Path, url: str) -> None:
    done = run_stack(state_directory, TOLLGATE_DATABASE_URL=url)

    assert_one_line(done, "DATABASE")


def test_a_missing_provider_key_is_one_clear_line(state_directory: Path) -> None:
    providers = state_directory / "providers.toml"
    providers.write_text(
        '[[providers]]\nname = "openai"\nformat = "openai"\nbase_url = "http://127.0.0.1:1/v1"\n'
        'api_key_variable = "KEY_THAT_NOBODY_SET"\nmodels = ["gpt-4o"]\n'
    )

    done = run_stack(state_directory, TOLLGATE_PROVIDERS_FILE=str(providers))

    assert_one_line(done, "KEY_THAT_NOBODY_SET")
