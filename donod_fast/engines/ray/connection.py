"""Connect to a Ray cluster, or start one that ends with the run; without its output and usage statistics."""

from __future__ import annotations

import logging
import math
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from donod_fast.engines.ray.settings import RaySettings
from donod_fast.errors import InputError

log = logging.getLogger(__name__)

_OBJECT_STORE_BYTES = 128 << 20  # of a cluster started here; only descriptions of tasks go through it
_ANSWER_SECONDS = 10.0
_REGISTER_SECONDS = "600"  # for a worker to start; on a busy machine Ray's 60 do not suffice, and it starts another

# A server of HTTP/2, such as Ray's, answers this at once.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_SETTINGS_FRAME = 4


def import_ray() -> Any:
    """Ray, with its usage statistics off.

    Raises:
        InputError: it is not installed.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # also for what it starts
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # or, under `uv run`, it uploads the current folder
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise InputError(f"the engine ray needs Ray ({error}); pip install 'donod-fast[ray]'") from error
    return ray


@contextmanager
def connected(settings: RaySettings) -> Iterator[None]:
    """Connect to the cluster of ``settings`` for the duration of the context.

    A cluster that is started here is stopped afterwards; any other cluster keeps running. A connection that this
    process already has is used and kept.

    Raises:
        InputError: Ray is not installed, or the cluster does not answer.
    """
    ray = import_ray()
    with ExitStack() as stack:
        stack.enter_context(_quiet(ray))
        if not ray.is_initialized():
            _connect(ray, settings)
            stack.callback(ray.shutdown)
        elif settings.address not in (None, "auto", here := ray.get_runtime_context().gcs_address):
            raise InputError(f"address {settings.address}: this process is connected to {here} already")
        yield


def worker_resources(settings: RaySettings, device: str | None) -> tuple[float, float]:
    """CPUs and GPUs of a worker, once connected; ``device`` is that of the scorer, None to choose.

    Raises:
        InputError: no node can hold a worker, or the device does not match the GPUs.
    """
    ray = import_ray()
    kind = (device or "auto").partition(":")[0]
    gpus = settings.gpus_per_worker
    if gpus is None:
        gpus = 0.0 if kind == "cpu" or ray.cluster_resources().get("GPU", 0.0) < 1 else 1.0
    if kind not in ("auto", "cpu", "cuda") or (kind == "cpu" and gpus) or (kind == "cuda" and not gpus):
        raise InputError(f"device {device} does not go with {gpus:g} GPUs for each worker")
    wanted = {"CPU": settings.cpus_per_worker, "GPU": gpus}
    fitting = workers_that_fit(wanted)
    if not fitting:
        raise InputError(
            f"no node of the cluster can hold a worker of {_listed(wanted)}; it has: "
            + "; ".join(f"{where}: {_listed(total)}" for where, total in _nodes())
        )
    if fitting < settings.workers:
        log.warning("only %d of %d workers of %s fit into the cluster now", fitting, settings.workers, _listed(wanted))
    return settings.cpus_per_worker, gpus


def workers_that_fit(wanted: Mapping[str, float]) -> int:
    """How many workers the present nodes could hold if they were free."""
    fitting = 0
    for _, total in _nodes():
        shares = [int((total.get(name, 0.0) + 1e-6) / amount) for name, amount in wanted.items() if amount]
        fitting += min(shares, default=1_000)
    return fitting


def node_name(ray: Any) -> str:
    """The node that this process runs on."""
    return f"node {ray.util.get_node_ip_address()} ({ray.get_runtime_context().get_node_id()[:8]})"


def _nodes() -> list[tuple[str, Mapping[str, float]]]:
    nodes = [node for node in import_ray().nodes() if node["Alive"]]
    return [(f"node {node['NodeManagerAddress']}", node["Resources"]) for node in nodes]


def _listed(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{resources.get(name, 0.0):g} {name}" for name in ("CPU", "GPU"))


def _connect(ray: Any, settings: RaySettings) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if settings.address is None:
        options |= {
            "address": "local",
            "num_cpus": max(1, math.ceil(settings.workers * settings.cpus_per_worker)),
            "object_store_memory": _OBJECT_STORE_BYTES,
            "include_dashboard": False,
        }
    else:
        options["address"] = settings.address
        if settings.address != "auto":
            _probe(settings.address)
    try:
        with _environment(RAY_BACKEND_LOG_LEVEL="fatal", RAY_worker_register_timeout_seconds=_REGISTER_SECONDS):
            ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError, AssertionError, OSError) as error:
        ray.shutdown()
        what = "start Ray here" if settings.address is None else f"connect to the Ray cluster at {settings.address}"
        raise InputError(f"cannot {what}: {first_line(error)}{_token_hint(settings)}") from error


def _token_hint(settings: RaySettings) -> str:
    """The remedy if the cluster may require a token that this process did not send; "" otherwise.

    `ray start` requires a token as soon as the user has one, and each local `ray.init` creates one. A driver that is
    given an address sends the token only if RAY_AUTH_MODE=token. This package does not set it: a driver with a token
    can connect to a cluster without tokens, but then its actors never start (tried with Ray 2.60).
    """
    if settings.address in (None, "auto") or "RAY_AUTH_MODE" in os.environ:
        return ""
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    token = Path(named) if named else Path.home() / ".ray" / "auth_token"
    if "RAY_AUTH_TOKEN" not in os.environ and not token.is_file():
        return ""
    where = "RAY_AUTH_TOKEN" if "RAY_AUTH_TOKEN" in os.environ else str(token)
    return f"; if the cluster requires the token in {where}, set RAY_AUTH_MODE=token"


def _probe(address: str) -> None:
    """Check that Ray answers at an address. Ray itself would try for minutes.

    Raises:
        InputError: it does not.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise InputError(f"address {address!r} is no HOST:PORT; give that of the cluster, or auto")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_SECONDS) as connection:
            if os.environ.get("RAY_USE_TLS", "0") in ("0", ""):
                connection.sendall(_PREFACE)
                answer = b""
                while len(answer) < 4 and (more := connection.recv(16)):
                    answer += more
                if len(answer) < 4 or answer[3] != _SETTINGS_FRAME:
                    raise OSError("what listens there is not Ray")
    except (OSError, OverflowError) as error:
        raise InputError(
            f"no Ray cluster answers at {address} ({error}); `ray start --head` prints the address of one"
        ) from error


@contextmanager
def _quiet(ray: Any) -> Iterator[None]:
    """Keep Ray's own messages off the terminal; the driver reports what matters."""
    import ray._private.worker as driver

    data = logging.getLogger("ray.data")
    level = data.level
    data.setLevel(logging.CRITICAL)
    printing = getattr(driver, "print_to_stdstream", None)
    if printing is not None:
        driver.print_to_stdstream = lambda report, *_, **__: log.debug("ray: %s", report.get("lines"))
    try:
        yield
    finally:
        data.setLevel(level)
        if printing is not None:
            driver.print_to_stdstream = printing


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Set environment variables for a while, unless the user has set them."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            with suppress(KeyError):
                del os.environ[name]


def first_line(error: Exception) -> str:
    """The first line of an error of Ray's."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


__all__ = ["connected", "first_line", "import_ray", "node_name", "worker_resources", "workers_that_fit"]
