"""JupyterLab starts on the notebooks, and a report is what a notebook shows, on one page."""

import json
import os
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest

import vouchertools as vt
from vouchertools import cli, notebooks

ROOT = Path(__file__).parents[1]


def write_notebook(*sources: str, heading: str = "# Codes & more") -> Path:
    """Write a notebook of one heading and some cells, never run, into the folder one stands in."""
    content = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python"}})
    content.cells = [nbformat.v4.new_markdown_cell(heading), *map(nbformat.v4.new_code_cell, sources)]
    path = Path("mine.ipynb")
    nbformat.write(content, path)
    return path


class Page(HTMLParser):
    """What a page loads or runs: scripts, and addresses outside itself."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "iframe", "link"}:
            self.outside.append(tag)
        self.outside += [
            value for name, value in attributes if name == "src" and value and not value.startswith("data:")
        ]


def test_a_report_holds_what_a_notebook_says_and_shows_and_none_of_its_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = ROOT / "notebooks" / notebooks.FIRST
    assert cli.run(["report", str(source)]) == 0
    path = Path("data/00-start-here.html")
    assert f"Report: {path}" in capsys.readouterr().out
    html = path.read_text(encoding="utf-8")
    for shown in ("<title>Start here</title>", "Autumn 2017 Loyalty 18", "data:image/png;base64,"):
        assert shown in html
    cells = json.loads(source.read_text(encoding="utf-8"))["cells"]
    code = [line for cell in cells if cell["cell_type"] == "code" for line in cell["source"] if "=" in line]
    assert [line for line in code if line.strip() in html] == []
    assert "import vouchertools" not in html


def test_a_report_loads_nothing_and_runs_nothing() -> None:
    notebooks.write_report(ROOT / "notebooks" / notebooks.FIRST, Path("report.html"))
    html = Path("report.html").read_text(encoding="utf-8")
    assert Page(html).outside == []
    assert re.findall(r"@import|url\((?!['\"]?data:)[^)]*\)", html) == []


def test_a_report_is_for_its_owner_alone() -> None:
    notebooks.write_report(ROOT / "notebooks" / notebooks.FIRST, Path("report.html"))
    assert Path("report.html").stat().st_mode & 0o077 == 0


def test_a_report_can_run_the_notebook_first_and_leaves_it_as_it_is() -> None:
    path = write_notebook("print('codes:', 6 * 7)")
    before = path.read_bytes()
    assert cli.run(["report", str(path), "--run", "--to", "out/report.html"]) == 0
    html = Path("out/report.html").read_text(encoding="utf-8")
    assert "codes: 42" in html
    assert "<title>Codes &amp; more</title>" in html
    assert path.read_bytes() == before


def test_a_report_leaves_grids_bars_and_standard_error_out() -> None:
    path = write_notebook("1")
    content = nbformat.read(path, as_version=4)
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "0"}, "text/plain": "<a grid>"}
    content.cells[1].outputs = [
        nbformat.v4.new_output("stream", name="stderr", text="75% done"),
        nbformat.v4.new_output("display_data", data=view),
        nbformat.v4.new_output("stream", name="stdout", text="kept"),
    ]
    nbformat.write(content, path)
    notebooks.write_report(path, Path("report.html"))
    html = Path("report.html").read_text(encoding="utf-8")
    assert "kept" in html
    assert "75% done" not in html
    assert "a grid" not in html


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (lambda: Path("missing.ipynb"), "There is no notebook missing.ipynb"),
        (lambda: write_notebook("1"), "has no results yet"),
        (lambda: (Path("other.ipynb").write_text("{]"), Path("other.ipynb"))[1], "is no notebook"),
        (lambda: (Path("list.ipynb").write_text("[1]"), Path("list.ipynb"))[1], "is no notebook"),
    ],
)
def test_what_gives_no_report_is_one_clear_line(
    prepare: Any, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["report", str(prepare()), "--to", "report.html"]) == 1
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1
    assert not Path("report.html").exists()


def test_a_cell_that_fails_leaves_no_report_and_says_how(capsys: pytest.CaptureFixture[str]) -> None:
    path = write_notebook("print('shown')", "raise KeyError('Value')")
    assert cli.run(["report", str(path), "--run", "--to", "report.html"]) == 1
    assert "mine.ipynb stops with KeyError: 'Value'" in capsys.readouterr().err
    assert not Path("report.html").exists()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Stand in for JupyterLab: what it is started with, and what its settings say by then."""
    seen: list[dict[str, Any]] = []

    def main(options: list[str]) -> None:
        folder = Path(os.environ["JUPYTER_CONFIG_PATH"].split(os.pathsep)[0])
        page = json.loads((folder / "labconfig" / "page_config.json").read_text(encoding="utf-8"))
        seen.append({"options": options, "page": page, "folder": folder})

    monkeypatch.setitem(sys.modules, "jupyterlab.labapp", SimpleNamespace(main=main))
    return seen


def test_lab_opens_the_first_notebook_and_passes_options_on(started: list[dict[str, Any]]) -> None:
    assert cli.run(["lab", "--no-browser", "--port", "8899"]) == 0
    options = started[0]["options"]
    assert f"--ServerApp.root_dir={ROOT / 'notebooks'}" in options
    assert "--LabApp.default_url=/lab/tree/00-start-here.ipynb" in options
    assert options[-3:] == ["--no-browser", "--port", "8899"]


@pytest.mark.parametrize("known", [None, "mine"])
def test_lab_asks_nobody_about_news_and_leaves_no_settings_behind(
    known: str | None, started: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JUPYTER_CONFIG_PATH", raising=False)
    if known is not None:
        monkeypatch.setenv("JUPYTER_CONFIG_PATH", known)
    cli.run(["lab"])
    assert started[0]["page"] == {
        "disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}
    }
    assert not started[0]["folder"].exists()
    assert os.environ.get("JUPYTER_CONFIG_PATH") == known


def test_lab_outside_a_project_says_where_the_notebooks_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(notebooks, "__file__", str(tmp_path / "site" / "vouchertools" / "notebooks.py"))
    assert cli.run(["lab"]) == 1
    assert "notebooks" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["lab"], ["report", str(ROOT / "notebooks" / notebooks.FIRST)]])
def test_without_jupyterlab_the_error_says_how_to_get_it(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert cli.run(command) == 1
    assert "JupyterLab is not installed here" in capsys.readouterr().err


def test_a_client_says_where_it_leads_and_hides_its_tokens() -> None:
    with vt.Sandbox() as sandbox, sandbox.client() as client:
        environment = client.environment
        shown = client._repr_html_()
        assert f"Client of {environment}" in shown
        assert "nothing done here reaches a hotel" in shown
        for token in (sandbox.client_token, sandbox.access_token):
            assert token not in shown


def test_a_client_of_a_hotel_warns_that_writes_are_real() -> None:
    with vt.Client("https://api.mews.com", "A" * 40, "B" * 40) as client:
        shown = client._repr_html_()
    assert "Client of production" in shown
    assert "What is written here is real" in shown
    assert "A" * 10 not in shown
    assert "B" * 10 not in shown


def test_a_cache_says_what_it_holds_and_lets_no_markup_through() -> None:
    cache = vt.Cache("<b>cache")
    assert "Nothing is cached yet" in cache._repr_html_()
    with vt.Sandbox() as sandbox, sandbox.client() as client:
        cache.refresh(client, client.vouchers(), progress=False)
        environment = client.environment
    shown = cache._repr_html_()
    assert "&lt;b&gt;cache" in shown
    assert "<b>cache" not in shown
    assert re.search(rf"{environment}</td><td[^>]*>29</td>", shown)
