"""Two gateways that people know, each installed into a folder of its own and run beside ours.

Both do less than ours here. LiteLLM's proxy checks its master key and computes what a call costs; its own keys, limits
and spend logs need a database of its own and are off. Portkey's gateway has neither keys nor records.
"""

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from development.addresses import port_of

INSTALLED = Path(__file__).parents[1] / ".benchmarks"
# Pinned, so that a figure can be had again.
LITELLM = "litellm[proxy]==1.100.5"
# What it asks for next to it admits newer servers, with which it answers every stream with a 500.
PORTKEY = "@portkey-ai/gateway@1.15.2 @hono/node-server@1.3.3"
LITELLM_KEY = "sk-benchmark"
INSTALL_SECONDS_MAX = 300
READY_SECONDS_MAX = 60


class NotAvailableError(Exception):
    """Why a gateway cannot be measured here."""


@contextmanager
def running_litellm(directory: Path, listen: str, upstream: str) -> Iterator[int]:
    """One worker; its process id. Raises NotAvailableError."""
    folder = _installed("litellm", LITELLM, _install_litellm)
    configuration = directory / "litellm.yaml"
    configuration.write_text(f"""
model_list:
  - model_name: gpt-4o
    litellm_params: {{model: openai/gpt-4o, api_base: "http://{upstream}/openai/v1", api_key: simulated}}
general_settings: {{master_key: {LITELLM_KEY}}}
""")
    options = ["--config", str(configuration), "--num_workers", "1", "--telemetry", "False"]
    command = [str(folder / "bin" / "litellm"), "--host", "127.0.0.1", "--port", str(port_of(listen)), *options]
    # Or it asks the network for prices.
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    with _running(command, environment, f"http://{listen}/health/liveliness", directory / "litellm.log") as pid:
        yield pid


@contextmanager
def running_portkey(directory: Path, listen: str, upstream: str) -> Iterator[int]:
    """Its process id. Raises NotAvailableError. It listens on every address, and cannot be told otherwise."""
    folder = _installed("portkey", PORTKEY, _install_portkey)
    program = folder / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    command = ["node", str(program), f"--port={port_of(listen)}", "--headless"]
    environment = {"NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": upstream.partition(":")[0]}
    with _running(command, environment, f"http://{listen}/", directory / "portkey.log") as pid:
        yield pid


def portkey_headers(upstream: str) -> dict[str, str]:
    """What each call must say, as it has no configuration."""
    return {"x-portkey-provider": "openai", "x-portkey-custom-host": f"http://{upstream}/openai/v1"}


def _installed(name: str, package: str, install: Callable[[Path], None]) -> Path:
    """The folder it is in, made the first time, whole or not at all."""
    folder, stamp = INSTALLED / name, INSTALLED / name / "package"
    if stamp.exists() and stamp.read_text() == package:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    install(folder)
    stamp.write_text(package)
    return folder


def _install_litellm(folder: Path) -> None:
    _run([sys.executable, "-m", "venv", str(folder)])
    _run([str(folder / "bin" / "pip"), "install", "--quiet", "--only-binary", ":all:", LITELLM])


def _install_portkey(folder: Path) -> None:
    # No package gets to run anything while it is installed.
    options = ["--ignore-scripts", "--legacy-peer-deps", "--no-audit", "--no-fund"]
    _run(["npm", "install", "--prefix", str(folder), *options, *PORTKEY.split()])


def _run(command: Sequence[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS_MAX)
    except FileNotFoundError:
        raise NotAvailableError(f"there is no {command[0]} here") from None
    except subprocess.TimeoutExpired:
        raise NotAvailableError(f"{command[0]} took more than {INSTALL_SECONDS_MAX} s to install it") from None
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise NotAvailableError(f"it cannot be installed: {last}") from None


@contextmanager
def _running(command: Sequence[str], environment: Mapping[str, str], url: str, log_path: Path) -> Iterator[int]:
    with log_path.open("wb") as log:
        try:
            process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log)
        except FileNotFoundError:
            raise NotAvailableError(f"there is no {command[0]} here") from None
    try:
        _wait_until_ready(process, url, log_path)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log_path: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS_MAX
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), urllib.request.urlopen(url, timeout=1):  # noqa: S310 our own address
            return
        time.sleep(0.1)
    lines = log_path.read_text(errors="replace").strip().splitlines() or ["it says nothing"]
    raise NotAvailableError(f"it does not start: {lines[-1]}")
