"""Nodes with nothing in common but a network and an object store: whatever the network does, the parts are the same."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_specs import PART_ROWS
from device_specs import wait_for
from net_nodes import HELPERS, MODEL, PLACE, RAY_PORT, NetNodes, Node, faketime_library, net_nodes, why_not
from score_runs import short_rows, write_lines

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "nodes of their own"),
]

ROWS = 160
PARTS = ROWS // PART_ROWS
DAY = 86_400


class Network:
    """Three nodes: a head without CPUs for workers, and two that score."""

    def __init__(self, nodes: NetNodes, model: Path) -> None:
        self.nodes = nodes
        self.head, self.first, self.second = nodes.nodes
        self.address = f"{self.head.address}:{RAY_PORT}"
        for node in nodes.nodes:
            node.take(model, MODEL)

    def start(self) -> None:
        """Start Ray on all of them."""
        self.head.start_ray(None, cpus=0)
        for node in (self.first, self.second):
            node.start_ray(self.head)
        wait_for(lambda: self.nodes_alive() >= 3)

    def nodes_alive(self) -> int:
        """How many nodes the cluster believes in."""
        return (
            self.head.run("ray", "status", f"--address={self.address}").partition("Recent failures")[0].count(" node_")
        )

    def restart(self, node: Node) -> None:
        """Start Ray on a node again, as its supervisor would."""
        node.run("sh", "-c", "ray stop --force > /dev/null 2>&1 || true")
        node.start_ray(self.head)

    def problems(self, out: str) -> bytes:
        """The problems of a run so far."""
        return b"".join(self.nodes.objects(f"{out}/", "problems").values())

    def drive(self, node: Node, out: str, pause: float = 0.4, stall: float = 120.0) -> subprocess.Popen[str]:
        """Start a run on a node; no node has marks of an earlier one."""
        for one in self.nodes.nodes:
            one.run("sh", "-c", f"rm -f {PLACE}/*")
        program = ("python", f"{HELPERS}/net_driver.py", "s3://bucket/rows.jsonl", f"s3://bucket/{out}", self.address)
        return node.start(*program, pause, stall, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def works(self, node: Node, out: str) -> bool:
        """Whether a node scores, and some parts are there."""
        return self.nodes.parts(f"{out}/") >= 2 and node.files("worker-*") != []

    def finished(self, driver: subprocess.Popen[str], out: str) -> str:
        """Wait for the end of a run that must end well; gives what it said."""
        said, _ = driver.communicate()
        print(said)
        assert driver.returncode == 0, said
        assert f"scored {ROWS} rows" in said
        assert self.nodes.parts(f"{out}/") == PARTS
        return said


@pytest.fixture(scope="module")
def network(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    folder = tmp_path_factory.mktemp("network")
    with net_nodes(3, folder) as nodes:
        nodes.put("rows.jsonl", write_lines(folder / "rows.jsonl", short_rows(ROWS)).read_bytes())
        network = Network(nodes, model)
        network.start()
        yield network


@pytest.fixture(scope="module")
def wanted(network: Network) -> dict[str, bytes]:
    """The parts of one process on one node."""
    arguments = ("s3://bucket/rows.jsonl", "--model", MODEL, "--device", "cpu", "--part-rows", PART_ROWS)
    network.head.run("donod-fast", "score", *arguments, "--out", "s3://bucket/wanted", "-q")
    found = network.nodes.objects("wanted/")
    assert len(found) == PARTS
    return found


def test_nodes_without_a_common_disk_write_the_bytes_of_one_process(network: Network, wanted: dict[str, bytes]) -> None:
    arguments = ("s3://bucket/rows.jsonl", "--model", MODEL, "--device", "cpu", "--part-rows", PART_ROWS)
    engine = ("--engine", "ray", "--address", network.address, "--ray-workers", 2)
    print(network.head.run("donod-fast", "score", *arguments, "--out", "s3://bucket/calm", *engine))
    assert network.nodes.objects("calm/") == wanted
    print(network.head.run("donod-fast", "status", "s3://bucket/calm"))
    assert network.second.run("sh", "-c", "ls /dev/shm /tmp").find("pytest") == -1  # what is here is not there


def test_slow_lossy_links_change_no_byte(network: Network, wanted: dict[str, bytes]) -> None:
    slow = {"delay": 0.1, "rate": 1e6, "loss": 0.01}  # 200 ms there and back
    with network.first.slow(**slow), network.second.slow(**slow):
        network.finished(network.drive(network.head, "slow", pause=0.0, stall=600.0), "slow")
    assert network.nodes.objects("slow/") == wanted


def test_a_node_that_is_cut_off_and_given_back_changes_no_byte(network: Network, wanted: dict[str, bytes]) -> None:
    driver = network.drive(network.head, "cut", pause=1.0, stall=60.0)
    wait_for(lambda: network.works(network.first, "cut") or driver.poll() is not None)
    network.first.cut()
    try:
        wait_for(lambda: b"a worker was lost" in network.problems("cut") or driver.poll() is not None)
    finally:
        network.first.give_back()
    network.restart(network.first)  # a raylet that was declared dead ends: its supervisor starts another
    assert "a worker was lost" in network.finished(driver, "cut")
    assert network.nodes.objects("cut/") == wanted


def test_a_node_that_is_cut_off_for_a_moment_changes_no_byte(network: Network, wanted: dict[str, bytes]) -> None:
    driver = network.drive(network.head, "moment", pause=0.5)
    for parts in (1, 4, 8):
        wait_for(lambda parts=parts: network.nodes.parts("moment/") >= parts or driver.poll() is not None)
        network.second.cut()
        time.sleep(1.0)  # less than it takes to notice
        network.second.give_back()
    network.finished(driver, "moment")
    assert network.nodes.objects("moment/") == wanted


def test_where_the_driver_is_cut_off_the_same_command_resumes(network: Network, wanted: dict[str, bytes]) -> None:
    driver = network.drive(network.first, "driver", pause=1.0, stall=30.0)
    wait_for(lambda: network.nodes.parts("driver/") >= 2 or driver.poll() is not None)
    network.first.cut()
    wait_for(lambda: network.nodes_alive() < 3 or driver.poll() is not None)
    network.first.give_back()
    network.restart(network.first)
    said, _ = driver.communicate()
    print(said)
    assert driver.returncode != 0
    assert 2 <= network.nodes.parts("driver/") < PARTS
    while True:
        again = network.drive(network.head, "driver", pause=0.0)
        said, _ = again.communicate()
        if "is in use" not in said:
            break
        time.sleep(5.0)  # the lock of the driver that was cut off is taken over after two minutes
    print(said)
    assert again.returncode == 0 and f"scored {ROWS} rows" in said and ", 0 done before" not in said
    assert network.nodes.objects("driver/") == wanted


@pytest.mark.skipif(faketime_library() is None, reason="other clocks need Debian's package libfaketime")
def test_clocks_that_differ_by_days_change_nothing(network: Network, wanted: dict[str, bytes]) -> None:
    for node, seconds in ((network.first, -DAY), (network.second, DAY)):
        node.shift_clock(seconds)
        network.restart(node)
    try:
        dates = [int(node.run("date", "+%s")) for node in (network.first, network.head, network.second)]
        assert dates[1] - dates[0] > DAY // 2 < dates[2] - dates[1]
        driver = network.drive(network.head, "skewed", pause=0.5)
        wait_for(lambda: network.nodes.parts("skewed/") >= 2 or driver.poll() is not None)
        for node in (network.first, network.second):
            arguments = ("s3://bucket/rows.jsonl", "--model", MODEL, "--device", "cpu", "--part-rows", PART_ROWS)
            assert "is in use" in node.run("donod-fast", "score", *arguments, "--out", "s3://bucket/skewed", code=5)
        network.finished(driver, "skewed")
        assert network.nodes.objects("skewed/") == wanted
    finally:
        for node in (network.first, network.second):
            node.shift_clock(0)
            network.restart(node)
