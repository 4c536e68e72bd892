"""Files with any content give a valid value or a UserError, and no loader hangs or takes all memory.

The short form runs the same examples each time. The long form, `pytest tests/test_fuzz_readers.py
-s --fuzz-seconds 3600`, draws new examples until the time is over and prints each failure with its seed.
"""

import faulthandler
import resource
import signal
import sys
import tempfile
import time
import traceback
from contextlib import contextmanager
from itertools import count, cycle
from pathlib import Path

import hypothesis
import pytest
from fuzzed_files import KINDS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import changed_bytes, changed_tree

from utils.errors import UserError

SECONDS = 10
"""Time limit of one example."""

SHORT_EXAMPLES, LONG_EXAMPLES = 25, 300
MOST_FINDINGS = 5
"""Failures of one kind of file after which the long form skips it."""

MEMORY = 4 << 30
"""Bytes that the process may allocate in the long form."""


class TooSlow(BaseException):
    """Raised at the time limit; no Exception, so that readers do not turn it into a UserError."""


@contextmanager
def limited_time():
    def stop(*_):
        raise TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    # for C code, which signals do not interrupt
    faulthandler.dump_traceback_later(6 * SECONDS, exit=True, file=sys.__stderr__)
    try:
        yield
    except TooSlow as slow:
        frames = "".join(traceback.format_tb(slow.__traceback__)[-4:])
        raise AssertionError(f"loading takes more than {SECONDS} seconds:\n{frames}") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        faulthandler.cancel_dump_traceback_later()


def attempt(kind, changed):
    """Load a folder of valid files, some of them replaced."""
    with tempfile.TemporaryDirectory() as name:
        for path, data in (kind.files | changed).items():
            (Path(name) / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(name) / path).write_bytes(data)
        with limited_time():
            try:
                kind.load(Path(name))
            except UserError as error:
                assert str(error)


def changes(kind):
    """Return a strategy of replacements for the valid files of a kind."""
    others = [other.files[other.file] for other in KINDS.values()]
    data, tree = kind.files[kind.file], kind.tree()
    of_bytes = changed_bytes(data, others).map(lambda changed: {kind.file: changed})
    if tree is None:
        return of_bytes
    return st.one_of(of_bytes, changed_tree(tree, kind.values()).map(kind.with_tree))


def fuzz(kind, examples, seed=None):
    @settings(
        max_examples=examples,
        derandomize=seed is None,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(changes(kind))
    def any_change_is_an_error_for_the_user(changed):
        attempt(kind, changed)

    if seed is not None:
        any_change_is_an_error_for_the_user = hypothesis.seed(seed)(any_change_is_an_error_for_the_user)
    any_change_is_an_error_for_the_user()


@pytest.mark.parametrize("name", KINDS)
def test_a_valid_file_is_read(name, tmp_path):
    KINDS[name].make(tmp_path)
    KINDS[name].load(tmp_path)


@pytest.mark.parametrize("name", KINDS)
def test_a_changed_file_gives_a_legal_value_or_an_error_for_the_user(name):
    fuzz(KINDS[name], SHORT_EXAMPLES)


@pytest.mark.long_fuzz
def test_no_changed_file_does_harm_for_as_long_as_wished(request, capsys):
    end = time.monotonic() + request.config.getoption("--fuzz-seconds")
    findings = dict.fromkeys(KINDS, 0)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, limits[1]))
    rounds = count(time.time_ns() % 10**9)
    try:
        for name, seed in zip(cycle(KINDS), rounds, strict=False):
            if time.monotonic() > end or min(findings.values()) >= MOST_FINDINGS:
                break
            if findings[name] >= MOST_FINDINGS:
                continue
            try:
                fuzz(KINDS[name], LONG_EXAMPLES, seed)
            except BaseException:
                findings[name] += 1
                with capsys.disabled():
                    print(f"\n{name}, seed {seed}:\n{traceback.format_exc()}", flush=True)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert not any(findings.values()), {name: number for name, number in findings.items() if number}
