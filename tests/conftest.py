"""Rules for the whole suite."""

import os
import re
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from support.agent_logs import LOGS

# No test measures time. In CI examples are drawn alike in every run of one commit; at a desk each run
# tries something new.
settings.register_profile(
    "edgefleet",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("edgefleet")

TESTS = Path(__file__).parent
LEFT_OPEN = 40  # descriptors of caches and of fixtures of a wider scope
LOG_CHARS = 8_000  # of each log, in the report of a failed test
MAY_BE_SKIPPED = re.compile(
    "h2spec (needs Go|could not be built)|PyTorch is missing|TensorFlow is missing|the detector is not here|the OIDC provider is not here"
)
FAST = frozenset(
    {
        "agent",
        "base",
        "client",
        "http1",
        "http2",
        "protocol",
        "rollout",
        "scripts",
        "security",
        "testing",
        "web",
    }
)
"""The directories whose tests need no other process: pure cores and units."""
WHOLE = frozenset(
    {"arch", "cli", "demo", "docs", "examples", "hub", "journey", "optimize", "serving", "sim"}
)
"""The directories whose tests run programs, stores or models."""
NOT_FAST = frozenset(
    {
        "agent/test_changes.py",  # mypy
        "agent/test_crash_models.py",
        "agent/test_crash_sweep.py",
        "agent/test_hang.py",
        "agent/test_process.py",
        "agent/test_supervisor.py",
        "client/test_real_hub.py",
        "http2/test_h2spec.py",
        "rollout/test_changes.py",  # mypy
        "rollout/test_overdue.py",
        "web/test_browser.py",
        "web/test_oidc_browser.py",
        "web/test_real_hub.py",
    }
)
"""Modules of FAST directories that start processes, or take seconds for each test."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of FAST directories, but for those of NOT_FAST modules and slow ones."""
    for item in items:
        place = item.path.relative_to(TESTS)
        is_slow = any(item.iter_markers("slow")) or any(item.iter_markers("browser"))
        if place.parts[0] in FAST and place.as_posix() not in NOT_FAST and not is_slow:
            item.add_marker(pytest.mark.fast)


@pytest.fixture(autouse=True)
def _closes_its_descriptors() -> Generator[None]:
    """Fail a test that leaves many descriptors open: a process that runs many such tests runs out."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    yield
    left = len(list(Path("/proc/self/fd").iterdir())) - before
    assert left <= LEFT_OPEN, f"{left} descriptors are left open"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the logs that agents wrote during a failed test: they say why a trial ended as it did."""
    report = yield
    if report.failed:
        for log in LOGS:
            if log.exists() and log.stat().st_mtime >= call.start:
                report.sections.append((f"log of {log.parent.name}", log.read_text()[-LOG_CHARS:]))
    return report


def _avoidable(reporter: pytest.TerminalReporter) -> list[pytest.TestReport]:
    """The skipped tests, but for those that need sources which this machine cannot fetch."""
    skipped = reporter.stats.get("skipped", [])
    return [one for one in skipped if not MAY_BE_SKIPPED.search(str(one.longrepr))]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = _avoidable(terminalreporter)
    if skipped and os.environ.get("EDGEFLEET_TESTS_NO_SKIP") == "1":
        terminalreporter.write_line("Skipped, where nothing may be skipped:", red=True)
        for report in skipped:
            terminalreporter.write_line(f"  {report.nodeid}: {report.longrepr[2]}")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    forbidden = os.environ.get("EDGEFLEET_TESTS_NO_SKIP") == "1" and exitstatus == 0
    if forbidden and reporter is not None and _avoidable(reporter):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
