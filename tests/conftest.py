"""What holds for every test.

With ``ARI_GEMINI_REQUIRE_ASTERISK=1`` a run is green only if every test on a real Asterisk has run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from uuid import uuid4

import pytest
import structlog


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    """A test that ran a command has set up logging for the process, which would filter the next one's."""
    yield
    if structlog.is_configured():
        structlog.reset_defaults()


@pytest.fixture(autouse=True)
def _states_of_its_own(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that a test starts keeps its calls where neither the user nor another test has any."""
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path_factory.getbasetemp() / f"state-{uuid4().hex}"))


class AsteriskGuard:
    """Watches the tests marked ``asterisk`` and fails the run when they were left out."""

    def __init__(self) -> None:
        self.marked: set[str] = set()
        self.ran: set[str] = set()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        self.marked = {item.nodeid for item in items if item.get_closest_marker("asterisk")}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and not report.skipped:
            self.ran.add(report.nodeid)

    def complaint(self) -> str | None:
        """One line on what is missing, or None."""
        if not self.marked:
            return "no test on a real Asterisk was selected"
        if skipped := sorted(self.marked - self.ran):
            count = f"{len(skipped)} of {len(self.marked)}"
            return f"{count} tests on a real Asterisk did not run, first: {skipped[0]}"
        return None

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if exitstatus == pytest.ExitCode.OK and self.complaint():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if complaint := self.complaint():
            terminalreporter.write_line(f"ARI_GEMINI_REQUIRE_ASTERISK=1: {complaint}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("ARI_GEMINI_REQUIRE_ASTERISK") == "1" and not config.option.collectonly:
        config.pluginmanager.register(AsteriskGuard(), "asterisk-guard")
