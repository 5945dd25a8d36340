"""Envoy and services that prove themselves to each other, with the lines that the gateway's README shows."""

import re
from pathlib import Path
from typing import Any

import yaml

from development.addresses import Addresses
from development.gateway import CONFIGURATION, render
from services.common.settings import Environment
from services.common.tls import CERTIFICATE_SETTING, CLIENT_CA_SETTING, PRIVATE_KEY_SETTING, Tls
from tests.certificates import Authority
from tests.integration.gateway.front_door import FrontDoor, envoy
from tests.integration.gateway.upstreams import services_behind


def with_tls(configuration: str, files: dict[str, str]) -> str:
    """The configuration with the README's lines in each cluster that speaks gRPC."""
    readme = CONFIGURATION.with_name("README.md").read_text()
    (lines,) = re.findall(r"```yaml\n( +transport_socket:.*?)```", readme, re.DOTALL)
    for name, path in files.items():
        lines = lines.replace(name, path)
    parsed: Any = yaml.safe_load(configuration)
    for cluster in parsed["static_resources"]["clusters"]:
        if cluster["name"] != "router_http":
            cluster.update(yaml.safe_load(lines))
    return yaml.safe_dump(parsed)


async def test_envoy_and_services_with_certificates_believe_each_other(tmp_path: Path) -> None:
    addresses, ours = Addresses.free(), Authority.make(tmp_path, "ours")
    service, door = ours.sign("service"), ours.sign("door")
    tls = Tls.read(Environment(service | {CLIENT_CA_SETTING: ours.path}))
    files = {
        "ca.pem": ours.path,
        "envoy.pem": door[CERTIFICATE_SETTING],
        "envoy.key": door[PRIVATE_KEY_SETTING],
    }
    configuration = with_tls(render(CONFIGURATION, addresses), files)

    async with services_behind(addresses, tls) as asked, envoy(configuration, addresses, tmp_path):
        answer = await FrontDoor(addresses, asked).get("/activity")

    assert answer.status == 200
