"""Envoy's configuration for other addresses than the default ones."""

from pathlib import Path
from typing import Any

import yaml

from development.addresses import Addresses

ROOT = Path(__file__).resolve().parents[1]
CONFIGURATION = ROOT / "gateway-envoy" / "envoy.yaml"

# A node of a YAML document; what it holds is Envoy's business.
Node = dict[str, Any]


def render(configuration: Path, addresses: Addresses) -> str:
    """The configuration with these addresses, and with absolute paths, so that it works from any directory."""
    document: Node = yaml.safe_load(configuration.read_text())
    resources = document["static_resources"]
    cluster_addresses = {
        "reporting": addresses.reporting,
        "ledger": addresses.ledger,
        "router_grpc": addresses.router_grpc,
        "router_http": addresses.router_http,
    }
    document["admin"]["address"] = _address(addresses.admin)
    (listener,) = resources["listeners"]
    listener["address"] = _address(addresses.front_door)
    for cluster in resources["clusters"]:
        cluster["load_assignment"] = _one_endpoint(cluster["name"], cluster_addresses[cluster["name"]])
    _make_paths_absolute(listener)
    return yaml.safe_dump(document, sort_keys=False)


def _address(host_and_port: str) -> Node:
    host, _, port = host_and_port.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}


def _one_endpoint(cluster_name: str, host_and_port: str) -> Node:
    endpoint = {"endpoint": {"address": _address(host_and_port)}}
    return {"cluster_name": cluster_name, "endpoints": [{"lb_endpoints": [endpoint]}]}


def _make_paths_absolute(listener: Node) -> None:
    (chain,) = listener["filter_chains"]
    (connection_manager,) = chain["filters"]
    for virtual_host in connection_manager["typed_config"]["route_config"]["virtual_hosts"]:
        for route in virtual_host["routes"]:
            body: Node = route.get("direct_response", {}).get("body", {})
            if "filename" in body:
                body["filename"] = str(ROOT / body["filename"])
    for http_filter in connection_manager["typed_config"]["http_filters"]:
        configuration: Node = http_filter["typed_config"]
        if "proto_descriptor" in configuration:
            configuration["proto_descriptor"] = str(ROOT / configuration["proto_descriptor"])
        if "default_source_code" in configuration:
            source: Node = configuration["default_source_code"]
            configuration["default_source_code"] = {"filename": str(ROOT / source["filename"])}
