"""A clean environment for every test: nobody's tokens, nobody's data folder, no window."""

import os
import signal
import tempfile
from pathlib import Path

import matplotlib
import pytest

#: What may be said to the tests themselves.
OURS = {"VOUCHERTOOLS_BROWSER", "VOUCHERTOOLS_SCREENSHOTS"}


def pytest_configure(config: pytest.Config) -> None:
    """Clean what notebooks and sub-processes inherit, before anything is collected."""
    for name in {name for name in os.environ if name.startswith(("MEWS_", "VOUCHERTOOLS_"))} - OURS:
        del os.environ[name]
    folder = tempfile.TemporaryDirectory(prefix="vouchertools-tests-")
    config.add_cleanup(folder.cleanup)
    os.environ["VOUCHERTOOLS_DATA"] = folder.name
    os.environ["VOUCHERTOOLS_ENV_FILE"] = ""  # a developer's own .env is not for tests and their notebooks
    matplotlib.use("Agg")
    # A shell that starts the tests in the background lets them ignore Ctrl-C, and some of them press it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every test stand in a folder of its own, where no ``.env`` lies, with a data folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VOUCHERTOOLS_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("VOUCHERTOOLS_ENV_FILE")
