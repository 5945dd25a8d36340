"""The floor: an Envoy with one thread that proxies to the simulated provider and does nothing else."""

import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import orjson

_EXTENSIONS = "type.googleapis.com/envoy.extensions"
READY_SECONDS_MAX = 10


@contextmanager
def running_envoy(directory: Path, listen: str, upstream: str) -> Iterator[int]:
    """Its process id."""
    configuration = directory / "envoy.json"
    configuration.write_bytes(_configuration(listen, upstream))
    command = ["envoy", "-c", str(configuration), "--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    with (directory / "envoy.log").open("wb") as log:
        process = subprocess.Popen([str(Path(sys.executable).parent / command[0]), *command[1:]], stderr=log)
    try:
        deadline = time.monotonic() + READY_SECONDS_MAX
        while time.monotonic() < deadline:
            with suppress(OSError), urllib.request.urlopen(f"http://{listen}/health", timeout=1):
                break
            time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def _configuration(listen: str, upstream: str) -> bytes:
    manager = {
        "@type": f"{_EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "proxy",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "provider", "timeout": "0s"}}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "router",
                "typed_config": {"@type": f"{_EXTENSIONS}.filters.http.router.v3.Router"},
            }
        ],
    }
    listener = {
        "name": "front",
        "address": _address(listen),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    endpoint = {"endpoint": {"address": _address(upstream)}}
    limits = {"max_connections": 10000, "max_pending_requests": 10000, "max_requests": 10000}
    cluster = {
        "name": "provider",
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {"cluster_name": "provider", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    return orjson.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}})


def _address(address: str) -> dict[str, object]:
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}
