"""``pytest -p pykeyupdate.testing --rekey-everything``: a suite under changing keys.

Every TLS connection that the tests or what they test make through ``ssl`` then gets new
sending keys with each record. What a program does wrong under key updates, or its
peers do, shows as a failing test.
"""

from typing import Any, Optional

import pytest

from ._installation import install, uninstall
from ._policy import RekeyPolicy
from ._stats import totals

_OPTION = "--rekey-everything"
_KEY = "pykeyupdate"  # of what a worker of pytest-xdist reports
_PLUGIN = f"{__name__}.report"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.getgroup("pykeyupdate").addoption(
        _OPTION,
        action="store_true",
        help="change the keys of every TLS connection with each record",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Install managed connections before the tests are imported."""
    if config.getoption(_OPTION):
        policy = RekeyPolicy(
            sent_records=1, min_interval_seconds=0.0, on_impossible="ignore"
        )
        install(policy=policy, limits=None)
        config.pluginmanager.register(_Report(), _PLUGIN)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Put ``ssl`` back."""
    if config.pluginmanager.get_plugin(_PLUGIN) is not None:
        uninstall()


class _Report:
    """Counts connections and key updates, also those of pytest-xdist's workers."""

    def __init__(self) -> None:
        self._workers = [0, 0, 0]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Have a worker send its counts to the process that reports."""
        output: Optional[dict[str, Any]] = getattr(session.config, "workeroutput", None)
        if output is not None:
            output[_KEY] = _counts()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Add the counts of a worker."""
        counts = getattr(node, "workeroutput", {}).get(_KEY, (0, 0, 0))
        self._workers = [sum(both) for both in zip(self._workers, counts)]

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say how many connections and key updates there were."""
        opened, sent, received = map(sum, zip(self._workers, _counts()))
        terminalreporter.section("pykeyupdate")
        terminalreporter.line(
            f"{opened} ends of TLS connections, {sent} key updates sent, {received} "
            "received"
        )
        if not sent:
            terminalreporter.line(
                "No keys changed: no TLS 1.3 connection was made through ssl in this "
                "process"
            )


def _counts() -> tuple[int, int, int]:
    """Return ends opened, updates sent, updates received."""
    now = totals()
    return now.opened, now.counts.key_updates_sent, now.counts.key_updates_received
