"""Parts of the page's server: its threads, its memory, its address, its names."""

import asyncio
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from functools import partial

import pytest
import torch
from conftest import ROOT, draw_image

pytest.importorskip("starlette")

import Search_Images
from utils.errors import UserError
from utils.program.run_command import run_command
from utils.serve.guard import is_loopback, is_own_host, own_names
from utils.serve.jobs import Jobs, Priority, UnwantedError
from utils.serve.recent import Recent
from utils.serve.server import bind


def test_the_least_recently_used_items_are_dropped():
    recent = Recent(10, len)
    for key in "abc":
        recent.add(key, key * 3)
    assert recent.get("a") == "aaa"
    recent.add("d", "dd")  # 11 in all
    assert [recent.get(key) for key in "abcd"] == ["aaa", None, "ccc", "dd"]
    recent.add("d", "dddd")  # 10 in all
    assert [recent.get(key) for key in "acd"] == ["aaa", "ccc", "dddd"]
    recent.add("e", "e" * 50)
    assert [recent.get(key) for key in "acde"] == [None, None, None, "e" * 50]
    assert len(recent) == 1


@pytest.fixture
def jobs(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    jobs = Jobs()
    yield jobs
    jobs.close()


def occupy(jobs):
    """Return a job that runs until an event is set, and the event."""
    started, end = threading.Event(), threading.Event()

    def wait():
        started.set()
        end.wait(60)

    task = asyncio.ensure_future(jobs.run(Priority.SEARCH, wait))
    return task, started, end


def test_searches_run_before_images_and_heat_maps(jobs):
    async def run():
        done = []
        first, started, end = occupy(jobs)
        await asyncio.to_thread(started.wait, 60)
        order = [Priority.HEAT_MAP, Priority.IMAGE, Priority.HEAT_MAP, Priority.SEARCH, Priority.IMAGE]
        tasks = [asyncio.ensure_future(jobs.run(priority, done.append, priority)) for priority in order]
        await asyncio.sleep(0)
        end.set()
        await asyncio.gather(first, *tasks)
        return done

    assert asyncio.run(run()) == sorted(
        [Priority.HEAT_MAP, Priority.IMAGE, Priority.HEAT_MAP, Priority.SEARCH, Priority.IMAGE]
    )


def test_a_job_that_nobody_waits_for_is_not_started(jobs):
    async def run():
        done = []
        first, started, end = occupy(jobs)
        await asyncio.to_thread(started.wait, 60)

        async def unwanted():
            return True

        with pytest.raises(UnwantedError):
            await jobs.run(Priority.IMAGE, done.append, 1, unwanted=unwanted)
        end.set()
        await first
        await jobs.run(Priority.IMAGE, done.append, 2)
        return done

    assert asyncio.run(run()) == [2]


def test_the_error_of_a_job_is_raised_and_the_next_job_runs(jobs):
    async def run():
        with pytest.raises(ZeroDivisionError):
            await jobs.run(Priority.SEARCH, lambda: 1 / 0)
        return await jobs.run(Priority.SEARCH, pow, 2, 5)

    assert asyncio.run(run()) == 32


@pytest.mark.parametrize(("threads", "jobs_at_once", "each"), [(1, 1, 1), (2, 2, 1), (8, 4, 2), (17, 4, 4)])
def test_jobs_share_the_threads_of_torch(monkeypatch, threads, jobs_at_once, each):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    taken = []
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    Jobs().close()
    assert taken == [each] * jobs_at_once


@pytest.mark.parametrize(
    ("header", "bound", "is_own"),
    [
        ("192.168.1.5:8080", "192.168.1.5", True),
        ("192.168.1.6:8080", "192.168.1.5", True),  # an address is no name of another site
        ("[fe80::1]:8080", "::", True),
        ("evil.example:8080", "0.0.0.0", False),
        ("192.168.1.5:8080", "127.0.0.1", False),
        ("192.168.1.5:8080", "::1", False),
        ("localhost@evil.example", "127.0.0.1", False),
        ("localhost:8080, evil.example", "127.0.0.1", False),
        ("localhost:", "127.0.0.1", False),
        ("127.1", "127.0.0.1", False),
        ("[::1", "127.0.0.1", False),
    ],
)
def test_hosts_by_the_address_of_the_server(header, bound, is_own):
    assert is_own_host(header, bound) == is_own


def test_a_server_for_others_has_the_name_of_its_computer(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "Attic")
    own_names.cache_clear()
    assert is_own_host("attic:8080", "0.0.0.0")
    assert is_own_host("attic.local", "0.0.0.0")
    assert not is_own_host("attic", "127.0.0.1")
    own_names.cache_clear()


def test_addresses_that_only_this_computer_reaches():
    hosts = ["127.0.0.1", "127.8.8.8", "::1", "localhost", "0.0.0.0", "::", "192.168.1.5", "attic"]
    assert [is_loopback(host) for host in hosts] == [True] * 4 + [False] * 4


def test_a_port_in_use_is_one_line_of_error(tmp_path, capsys):
    with bind("127.0.0.1", 0) as server:
        port = server.getsockname()[1]
        with pytest.raises(
            UserError, match=rf"cannot listen at 127.0.0.1, port {port} \(Address already in use\)"
        ):
            bind("127.0.0.1", port)
    with pytest.raises(
        UserError, match=r"cannot listen at 192.0.2.1, port 0 .*name another --port or --host"
    ):
        bind("192.0.2.1", 0)
    words = ["serve", "--index", str(tmp_path), "--port", "0"]
    assert run_command(lambda: Search_Images.command_line(words)) == 2
    assert capsys.readouterr().err.startswith(f"error: no index at {tmp_path}")


@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_a_missing_package_is_one_line_of_error(monkeypatch, capsys, package):
    for name in [name for name in sys.modules if name.startswith(("utils.serve.", f"{package}."))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    assert run_command(lambda: Search_Images.command_line(["serve"])) == 2
    assert (
        capsys.readouterr().err == "error: serve needs Starlette and uvicorn: pip install starlette uvicorn\n"
    )


def started(index, *options):
    """Start the command, and return its process and the address that it printed."""
    words = [sys.executable, ROOT / "Search_Images.py", "serve", "--index", index, "--port", "0", *options]
    process = subprocess.Popen(
        [*words, "--device", "cpu"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Processes that a shell starts in the background ignore SIGINT, and their children do, too.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    return process, process.stdout.readline().strip()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "message"), [(signal.SIGINT, 130, "interrupted\n"), (signal.SIGTERM, -15, "")]
)
def test_signals_end_the_server(tmp_path, number, status, message):
    for seed in range(2):
        draw_image(tmp_path / f"{seed}.png", seed)
    Search_Images.index(tmp_path, index=tmp_path / "index", S=64, device="cpu", workers=0)
    process, address = started(tmp_path / "index")
    assert address.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(f"{address}images") as answer:
        assert b'"total":2' in answer.read()
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert errors == f"the page is ready; Ctrl-C ends it\n{message}"
