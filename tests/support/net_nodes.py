"""Machines that share nothing but a network: each is a set of namespaces, with an address and a disk of its own.

A node has its own network, processes, host name, ``/tmp`` and ``/dev/shm``. A bridge in another namespace joins the
nodes, so the network of this machine stays as it is. One node holds the object store. It needs root and iproute2.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from xml.etree import ElementTree

from device_specs import wait_for

HELPERS = str(Path(__file__).parent)
STORE_PORT = 5000
RAY_PORT = 6379
PLACE = "/tmp/place"  # where the scorers of a node leave their marks
MODEL = "/tmp/model"

# A cut is noticed after about ten seconds, not after a minute.
HEALTH = (
    '{"health_check_initial_delay_ms": 1000, "health_check_period_ms": 1000, "health_check_timeout_ms": 3000,'
    ' "health_check_failure_threshold": 3}'
)

_NETWORK = "198.18.77"  # of the range for benchmarks (RFC 2544)
_NEW_NETWORK = 0x40000000
_STARTS = 10
_REAPER = """
import os, signal
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
print("up", flush=True)
while True:
    try:
        os.wait()
    except ChildProcessError:
        signal.sigtimedwait([signal.SIGCHLD], 0.5)
"""

T = TypeVar("T")


@cache
def why_not() -> str:
    """Why such nodes cannot be made here; "" if they can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "nodes of their own need Linux and root"
    missing = [tool for tool in ("ip", "unshare", "nsenter") if shutil.which(tool) is None]
    if missing:
        return f"nodes of their own need {', '.join(missing)} (iproute2, util-linux)"
    name = f"df{os.getpid()}try"
    done = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"no network namespace can be made here: {done.stderr.strip()}"
    tried = ["ip", "netns", "exec", name, "unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "true"]
    done = subprocess.run(tried, capture_output=True, text=True, check=False)
    _ip("netns", "del", name)
    return f"no namespaces can be made here: {done.stderr.strip()}" if done.returncode else ""


def faketime_library() -> Path | None:
    """The library that shifts a process's clock (Debian's libfaketime), if it is installed."""
    return next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)


class Node:
    """A machine of its own.

    Attributes:
        name: its host name.
        address: its IPv4 address.
    """

    def __init__(self, name: str, number: int, tag: str) -> None:
        self.name, self.address = name, f"{_NETWORK}.{number}"
        self.namespace, self._port = f"{tag}{name}", f"{tag}p{number}"
        self._switch = f"{tag}switch"
        self._shift = 0
        self._processes: list[subprocess.Popen[str]] = []
        _ip("netns", "add", self.namespace)
        _ip("link", "add", "eth0", "netns", self.namespace, "type", "veth", "peer", self._port, "netns", self._switch)
        self.give_back()
        _ip("-n", self._switch, "link", "set", self._port, "master", "bridge")
        for command in (
            ["addr", "add", f"{self.address}/24", "dev", "eth0"],
            ["link", "set", "lo", "up"],
            ["link", "set", "eth0", "up"],
        ):
            _ip("-n", self.namespace, *command)
        mounts = "mount -t tmpfs tmpfs /dev/shm && mount -t tmpfs tmpfs /tmp && mkdir -p /tmp/home " + PLACE
        self._init = subprocess.Popen(
            [
                *("ip", "netns", "exec", self.namespace, "unshare", "--mount", "--pid", "--uts", "--ipc", "--fork"),
                *("--kill-child", "--mount-proc", "sh", "-c", f'{mounts} && hostname {name} && exec "$0" -c "$1"'),
                *(sys.executable, _REAPER),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._init.stdout is not None and self._init.stdout.readline() == "up\n", f"node {name} did not start"
        children = Path(f"/proc/{self._init.pid}/task/{self._init.pid}/children").read_text().split()
        self._first = children[0]

    # --- its processes

    def start(self, *arguments: object, environment: Mapping[str, str] = {}, **options: Any) -> subprocess.Popen[str]:
        """Start a program on this node, as a user of the machine would."""
        own = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": "/tmp/home",
            "PYTHONPATH": HELPERS,
            "AWS_ENDPOINT_URL": f"http://{_NETWORK}.1:{STORE_PORT}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
            "RAY_worker_register_timeout_seconds": "600",
            **environment,
        }
        if self._shift:
            library = faketime_library()
            assert library is not None
            own |= {"LD_PRELOAD": str(library), "FAKETIME": f"{self._shift:+d}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        process = subprocess.Popen(
            ["nsenter", "-t", self._first, "--net", "--mount", "--pid", "--uts", "--ipc", "--wd=/"]
            + [str(argument) for argument in arguments],
            env=own,
            text=True,
            **options,
        )
        self._processes.append(process)
        return process

    def run(self, *arguments: object, code: int = 0, environment: Mapping[str, str] = {}, **options: Any) -> str:
        """Run a program on this node, and give what it printed to either stream."""
        process = self.start(
            *arguments, environment=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options
        )
        said, _ = process.communicate()
        assert process.returncode == code, (arguments, process.returncode, said)
        return str(said)

    def take(self, source: Path, target: str) -> None:
        """Copy a folder to this node's own disk."""
        packing = subprocess.Popen(["tar", "-C", source, "-c", "."], stdout=subprocess.PIPE)
        self.run("sh", "-c", f"mkdir -p {target} && tar -C {target} -x", stdin=packing.stdout)
        assert packing.wait() == 0

    def files(self, pattern: str) -> list[str]:
        """Names of the files in ``PLACE`` that match a shell pattern."""
        return self.run("sh", "-c", f"cd {PLACE} && ls -d {pattern} 2>/dev/null || true").split()

    # --- its network and its clock

    def cut(self) -> None:
        """Take it off the network: packets vanish, and nobody is told."""
        _ip("-n", self._switch, "link", "set", self._port, "down")

    def give_back(self) -> None:
        """Connect it to the network again."""
        _ip("-n", self._switch, "link", "set", self._port, "up")

    @contextmanager
    def slow(self, delay: float, rate: float, loss: float) -> Iterator[None]:
        """Have a slow cable for a while: seconds, bits per second, and the share of frames that are lost."""
        shown = subprocess.run(
            ["ip", "-n", self.namespace, "-j", "link", "show", "eth0"], capture_output=True, check=True
        )
        card = json.loads(shown.stdout)[0]["address"]
        arguments = (self.namespace, "slow0", self._switch, f"{self._port}s", delay, rate, loss)
        cable = subprocess.Popen(
            [sys.executable, f"{HELPERS}/slow_cable.py", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert cable.stdin is not None and cable.stdout is not None and cable.stdout.readline() == "up\n"
        _ip("-n", self._switch, "link", "set", f"{self._port}s", "master", "bridge", "up")
        self._move_address("eth0", "slow0", card)
        try:
            yield
        finally:
            self._move_address("slow0", "eth0", card)
            cable.stdin.close()
            cable.wait()

    def _move_address(self, old: str, new: str, card: str) -> None:
        """Use another device from now on. The others see the same addresses, and connections live on."""
        _ip("-n", self.namespace, "addr", "flush", "dev", old)
        _ip("-n", self.namespace, "link", "set", old, "down")
        _ip("-n", self.namespace, "link", "set", new, "address", card)
        _ip("-n", self.namespace, "addr", "add", f"{self.address}/24", "dev", new)
        _ip("-n", self.namespace, "link", "set", new, "up")

    def shift_clock(self, seconds: int) -> None:
        """Let programs that are started from now on see another time."""
        self._shift = seconds

    def in_its_network(self, call: Callable[[], T]) -> T:
        """Make a call in a thread of this process that is in the node's network."""
        found: list[T | BaseException] = []

        def inside() -> None:
            try:
                with Path(f"/run/netns/{self.namespace}").open("rb") as namespace:
                    if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _NEW_NETWORK):
                        raise OSError(ctypes.get_errno(), "setns")
                found.append(call())
            except BaseException as error:
                found.append(error)

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        if isinstance(found[0], BaseException):
            raise found[0]
        return found[0]

    # --- Ray

    def start_ray(self, head: Node | None = None, cpus: int = 1) -> None:
        """Start Ray here: as the head, or as a node of another's cluster.

        Ray gives a node 30 seconds to start. On a busy machine it is tried again, as a supervisor would.
        """
        where = ["--head", f"--port={RAY_PORT}", "--include-dashboard=false", f"--system-config={HEALTH}"]
        if head is not None:
            where = [f"--address={head.address}:{RAY_PORT}"]
        common = [f"--node-ip-address={self.address}", f"--num-cpus={cpus}", "--num-gpus=0"]
        common += ["--object-store-memory=80000000", "--disable-usage-stats"]
        for _ in range(_STARTS):
            started = self.start("ray", "start", *where, *common, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            said, _ = started.communicate()
            if started.returncode == 0:
                return
            self.run("sh", "-c", "ray stop --force > /dev/null 2>&1 || true")
        raise AssertionError(said)

    def processes(self, name: str) -> list[str]:
        """Command lines of the node's processes with this name in them."""
        return [line for line in self.run("ps", "-eo", "args=").splitlines() if name in line and "ps -eo" not in line]

    def switch_off(self) -> None:
        """End everything on it at once."""
        with suppress(ProcessLookupError):
            os.kill(int(self._first), signal.SIGKILL)
        self._init.wait()
        for process in self._processes:
            process.wait()
        _ip("netns", "del", self.namespace)


class NetNodes:
    """A store and some nodes on a network of their own.

    Attributes:
        store: the node of the object store, at ``s3://bucket``.
        nodes: the others.
        url: the store's URL, as any node sees it.
    """

    def __init__(self, count: int, folder: Path) -> None:
        self._tag = f"df{os.getpid() % 100_000}"
        _ip("netns", "add", f"{self._tag}switch")
        _ip("-n", f"{self._tag}switch", "link", "add", "bridge", "type", "bridge")
        _ip("-n", f"{self._tag}switch", "link", "set", "bridge", "up")
        self.store = Node("store", 1, self._tag)
        self.nodes = [Node(f"node{number}", number, self._tag) for number in range(2, count + 2)]
        self.url = f"http://{self.store.address}:{STORE_PORT}"
        self._log = (folder / "store.log").open("w")
        self.store.start("moto_server", "-H", "0.0.0.0", "-p", STORE_PORT, stdout=self._log, stderr=self._log)
        wait_for(self._answers)
        self._ask("PUT", "bucket")

    def _answers(self) -> bool:
        try:
            self._ask("GET", "")
        except OSError:
            return False
        return True

    def _ask(self, method: str, path: str, content: bytes | None = None) -> bytes:
        kind = {"Content-Type": "application/octet-stream", "Authorization": "AWS test:test"}  # any will do
        request = urllib.request.Request(f"{self.url}/{path}", content, kind, method=method)

        def answered() -> bytes:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return bytes(answer.read())

        return self.store.in_its_network(answered)

    def put(self, name: str, content: bytes) -> str:
        """Write an object; returns its URL."""
        self._ask("PUT", f"bucket/{name}", content)
        return f"s3://bucket/{name}"

    def names(self, prefix: str) -> list[str]:
        """Names of the objects under a prefix, without it."""
        answer = ElementTree.fromstring(self._ask("GET", f"bucket?list-type=2&prefix={prefix}"))
        return sorted(
            str(element.text).removeprefix(prefix)
            for element in answer.iter()
            if element.tag.rpartition("}")[2] == "Key"
        )

    def objects(self, prefix: str, what: str = "part-") -> dict[str, bytes]:
        """Contents of the objects under a prefix whose names begin with ``what``."""
        return {
            name: self._ask("GET", f"bucket/{prefix}{name}") for name in self.names(prefix) if name.startswith(what)
        }

    def parts(self, prefix: str) -> int:
        """How many parts a folder has."""
        return sum(name.startswith("part-") for name in self.names(prefix))

    def switch_off(self) -> None:
        """End all nodes."""
        for node in [*self.nodes, self.store]:
            node.switch_off()
        _ip("netns", "del", f"{self._tag}switch")
        self._log.close()


@contextmanager
def net_nodes(count: int, folder: Path) -> Iterator[NetNodes]:
    """Nodes that end with the context."""
    nodes = NetNodes(count, folder)
    try:
        yield nodes
    finally:
        nodes.switch_off()


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (arguments, done.stderr)
