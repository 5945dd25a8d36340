import re
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from services.common.sealed_secrets import (
    PRIVATE_SETTING,
    PUBLIC_SETTING,
    SealBrokenError,
    new_key_settings,
    open_sealed,
    read_private_key,
    read_public_key,
    seal,
)
from services.common.settings import Environment, SettingError

PRIVATE_KEY = X25519PrivateKey.generate()
ACME, GLOBEX = "0199a000-0000-7000-8000-000000000001", "0199a000-0000-7000-8000-000000000002"


def sealed(text: str = "sk-živa") -> bytes:
    return seal(text, PRIVATE_KEY.public_key(), organization_id=ACME, provider="openai")


def test_what_the_ledger_seals_the_router_opens() -> None:
    assert open_sealed(sealed(), PRIVATE_KEY, organization_id=ACME, provider="openai") == "sk-živa"


def test_the_secret_cannot_be_read_from_its_seal() -> None:
    assert b"sk-plain" not in sealed("sk-plain")


def test_the_same_secret_never_looks_the_same_twice() -> None:
    assert sealed() != sealed()


@pytest.mark.parametrize(
    ("organization_id", "provider"),
    [(GLOBEX, "openai"), (ACME, "anthropic"), (f"{ACME}\0openai", "")],
    ids=["another organization's row", "another provider's row", "the parts shifted"],
)
def test_a_seal_moved_elsewhere_does_not_open(organization_id: str, provider: str) -> None:
    with pytest.raises(SealBrokenError):
        open_sealed(sealed(), PRIVATE_KEY, organization_id=organization_id, provider=provider)


@pytest.mark.parametrize("position", [0, 31, 32, -1])
def test_an_altered_seal_does_not_open(position: int) -> None:
    altered = bytearray(sealed())
    altered[position] ^= 1

    with pytest.raises(SealBrokenError):
        open_sealed(bytes(altered), PRIVATE_KEY, organization_id=ACME, provider="openai")


def test_another_routers_key_does_not_open_it() -> None:
    with pytest.raises(SealBrokenError):
        open_sealed(sealed(), X25519PrivateKey.generate(), organization_id=ACME, provider="openai")


def test_the_command_prints_a_pair_that_fits() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "services.common.sealed_secrets"], capture_output=True, text=True, check=True
    ).stdout
    environment = Environment(dict(re.findall(r"^(\w+)=(\S+)$", printed, re.MULTILINE)))

    closed = seal("sk", read_public_key(environment), organization_id=ACME, provider="openai")

    assert open_sealed(closed, read_private_key(environment), organization_id=ACME, provider="openai") == "sk"


@pytest.mark.parametrize("value", ["tooshort", "not base64!", "ä" * 44, "A" * 88])
def test_a_broken_key_setting_is_named_and_never_shown(value: str) -> None:
    for name, read in ((PUBLIC_SETTING, read_public_key), (PRIVATE_SETTING, read_private_key)):
        with pytest.raises(SettingError) as caught:
            read(Environment(new_key_settings() | {name: value}))

        assert str(caught.value).startswith(name)
        assert value not in str(caught.value)
