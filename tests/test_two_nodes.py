"""Two nodes share an evaluation, as on a cluster. Two connected network namespaces replace the nodes."""

import os
import shutil
import signal
import subprocess
import uuid
from contextlib import ExitStack, suppress

import pytest
from conftest import TORCHRUN, assert_same_descriptors, evaluation

CABLE = "cable"
"""Name of each end in its namespace."""

ADDRESSES = ("10.77.0.1", "10.77.0.2")
"""Addresses of the two ends, only inside the namespaces."""

TIMEOUT = 120
"""Seconds: much longer than a run, and much shorter than gloo's timeout of half an hour."""

pytestmark = [
    pytest.mark.skipif(shutil.which("ip") is None, reason="iproute2's ip is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may make network namespaces"),
]


def ip(*words):
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=30)
    if done.returncode != 0:
        pytest.skip(f"no network namespaces here: ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def remove(namespace):
    """Kill the processes in a namespace, and delete the namespace with its end of the cable."""
    listed = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True)
    for process in listed.stdout.split():
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.kill(int(process), signal.SIGKILL)
    subprocess.run(["ip", "netns", "del", namespace], capture_output=True)


@pytest.fixture
def nodes():
    """The names of two network namespaces that are connected with each other only."""
    common = f"two-nodes-{uuid.uuid4().hex[:12]}"
    names = [f"{common}-{rank}" for rank in range(2)]
    with ExitStack() as stack:
        for name in names:
            stack.callback(remove, name)  # before it exists, in case of an interrupt in between
            ip("netns", "add", name)
        # Made inside the namespaces, so that it is invisible outside.
        ip("-n", names[0], "link", "add", CABLE, "type", "veth", "peer", "name", CABLE, "netns", names[1])
        for name, address in zip(names, ADDRESSES, strict=True):
            ip("-n", name, "addr", "add", f"{address}/30", "dev", CABLE)
            ip("-n", name, "link", "set", CABLE, "up")
            ip("-n", name, "link", "set", "lo", "up")
            ip("netns", "exec", name, "true")
        yield names


def run_on(nodes, folder, program):
    """Run a program on all nodes by torchrun, and return status, output and errors of each node."""
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        # Without this variable, gloo uses the address of the host name. The namespaces share the host
        # name, but not its address, which is usually 127.0.0.1.
        "GLOO_SOCKET_IFNAME": CABLE,
    }
    started = []
    try:
        for rank, node in enumerate(nodes):
            launch = [*TORCHRUN, "--nnodes", "2", "--nproc-per-node", "1", "--node-rank", str(rank)]
            launch += ["--master-addr", ADDRESSES[0]]
            with (folder / f"out{rank}").open("w") as out, (folder / f"err{rank}").open("w") as err:
                started.append(
                    subprocess.Popen(
                        ["ip", "netns", "exec", node, *launch, *program],
                        stdout=out,
                        stderr=err,
                        env=environment,
                        cwd=folder,
                    )
                )
        for process in started:
            process.wait(TIMEOUT)
    finally:
        for process in started:
            process.kill()
            process.wait()
    return [
        (process.returncode, (folder / f"out{rank}").read_text(), (folder / f"err{rank}").read_text())
        for rank, process in enumerate(started)
    ]


@pytest.mark.slow
def test_two_nodes_describe_what_one_process_does(nodes, measure, dataset, tmp_path):
    _, expected, _ = measure("--output", tmp_path / "one")
    program = evaluation(dataset, "--output", tmp_path / "two")
    (status_0, out_0, err_0), (status_1, out_1, err_1) = run_on(nodes, tmp_path, program)
    assert (status_0, status_1) == (0, 0), err_0 + err_1
    assert out_0 == expected
    assert out_1 == ""
    assert_same_descriptors(tmp_path / "one", tmp_path / "two", names="abcd")


@pytest.mark.slow
@pytest.mark.parametrize(("broken", "node"), [("c", 0), ("d", 1)])
def test_a_node_that_fails_ends_both(nodes, dataset, tmp_path, broken, node):
    # Of a, b, c and d the first node has a and c, the second b and d.
    (dataset / "jpg" / f"{broken}.png").write_bytes(b"")
    ends = run_on(nodes, tmp_path, evaluation(dataset))
    for status, out, err in ends:
        assert status == 1, err
        assert out == ""
    message = f"error: {dataset / 'jpg' / broken}.png cannot be decoded"
    assert [message in err for _, _, err in ends] == [node == 0, node == 1]
