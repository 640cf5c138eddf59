"""JupyterLab as ``vouchertools lab`` starts it, in a headless Chromium, on a sandbox that the test can see.

Where Chromium or Playwright is missing these tests are skipped, saying what to install; with
``VOUCHERTOOLS_BROWSER=required``, as in CI, they fail instead. Screenshots go to the folder named by
``VOUCHERTOOLS_SCREENSHOTS``, else into one of pytest's temporary folders.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser.lab import Lab

import vouchertools as vt

ROOT = Path(__file__).parents[2]
#: For any user, root included; and a browser that talks to nobody but its page.
FLAGS = (
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
)
#: Longest that anything in the browser may take, in seconds: a machine may be busy.
PATIENCE_S = 60


def missing(what: str) -> None:
    """Skip, or fail where a browser is required."""
    word = f"{what}, so JupyterLab cannot be driven in a browser."
    if os.environ.get("VOUCHERTOOLS_BROWSER") == "required":
        pytest.fail(word)
    pytest.skip(word)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium, the system's own."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("Playwright is not installed (pip install playwright)")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        missing("Chromium is not installed (apt-get install chromium)")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def sandbox() -> Iterator[vt.Sandbox]:
    """The Mews that the notebooks talk to; its table is the truth."""
    with vt.Sandbox() as server:
        yield server


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with copies of the notebooks."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    return folder


@pytest.fixture(scope="module")
def lab_url(project: Path, sandbox: vt.Sandbox) -> Iterator[str]:
    """Start ``vouchertools lab``, and read the address that it prints."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {"CONFIG_DIR": "config", "RUNTIME_DIR": "runtime", "DATA_DIR": "jupyter"}
    environment = {
        **os.environ,
        **{f"JUPYTER_{name}": str(project / folder) for name, folder in own.items()},
        "IPYTHONDIR": str(project / "ipython"),
        "VOUCHERTOOLS_DATA": str(project / "data"),
        "MEWS_PLATFORM_ADDRESS": sandbox.address,
        "MEWS_CLIENT_TOKEN": sandbox.client_token,
        "MEWS_ACCESS_TOKEN": sandbox.access_token,
    }
    program = "from vouchertools.cli import main; main()"
    options = ["--no-browser", "--allow-root", f"--port={port}", "--ServerApp.port_retries=0"]
    with subprocess.Popen(
        [sys.executable, "-c", program, "lab", *options],
        cwd=project,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        said: list[str] = []
        ready = threading.Event()

        def listen() -> None:
            assert process.stderr is not None
            for line in process.stderr:
                said.append(line.strip())
                if f"http://127.0.0.1:{port}/" in line:
                    ready.set()
            ready.set()

        listener = threading.Thread(target=listen)
        listener.start()
        try:
            ready.wait(PATIENCE_S)
            urls = [line for line in said if line.startswith(f"http://127.0.0.1:{port}/")]
            assert urls, "\n".join(said)
            yield urls[0]
        finally:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(PATIENCE_S)
            listener.join()


@pytest.fixture
def lab(browser: Any, lab_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A fresh window on JupyterLab; how it looked at the end stays as a picture named like the test."""
    folder = os.environ.get("VOUCHERTOOLS_SCREENSHOTS")
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    context.set_default_timeout(1000 * PATIENCE_S)
    window = Lab(context.new_page(), lab_url, ROOT / folder if folder else tmp_path / "screenshots")
    yield window
    window.screenshot(request.node.name)
    context.close()
