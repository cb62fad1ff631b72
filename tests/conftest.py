"""Rules for the whole suite."""

import os

import pytest
from hypothesis import HealthCheck, settings

# No test measures time. In CI examples are drawn alike in every run of one commit; at a desk each run
# tries something new.
settings.register_profile(
    "edgefleet",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("edgefleet")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped and os.environ.get("EDGEFLEET_TESTS_NO_SKIP") == "1":
        terminalreporter.write_line("Skipped, where nothing may be skipped:", red=True)
        for report in skipped:
            terminalreporter.write_line(f"  {report.nodeid}: {report.longrepr[2]}")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    forbidden = os.environ.get("EDGEFLEET_TESTS_NO_SKIP") == "1" and exitstatus == 0
    if forbidden and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
