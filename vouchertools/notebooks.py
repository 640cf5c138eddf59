"""Notebooks: opened in JupyterLab, and turned into reports that one file holds.

A report is what a notebook says and shows, without its code. It needs no network, no script and no Jupyter.
"""

import contextlib
import importlib.util
import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final

from vouchertools.errors import InputError
from vouchertools.files import replace_file

#: The notebook that a newcomer sees.
FIRST: Final = "00-start-here.ipynb"

# A question about news from the internet, over everybody's first notebook.
_DISABLED: Final = ("@jupyterlab/apputils-extension:announcements",)
#: Longest that one cell of a report may take.
_CELL_S: Final = 3600


def find_notebooks() -> Path:
    """Find the folder of notebooks of the project that one stands in, else of the one that this is part of.

    Raises
    ------
    InputError
        There is none.
    """
    for folder in (Path.cwd(), *Path.cwd().parents, Path(__file__).resolve().parents[1]):
        if (folder / "notebooks" / FIRST).exists():
            return folder / "notebooks"
    raise InputError(
        "There are no notebooks here. Go into a clone of the project first; they are in its notebooks folder."
    )


def run_lab(options: Sequence[str] = ()) -> None:
    """Run JupyterLab in this process, open at the first notebook, until it is stopped.

    Parameters
    ----------
    options
        For JupyterLab itself, such as ``--no-browser``.

    Raises
    ------
    InputError
        There are no notebooks, or no JupyterLab.
    """
    folder = find_notebooks()
    _require("jupyterlab", "vouchertools lab")
    with _settings():
        from jupyterlab.labapp import main

        start = [f"--ServerApp.root_dir={folder}", f"--LabApp.default_url=/lab/tree/{FIRST}"]
        quiet = ["--log-level=WARN", "--LabApp.log_level=WARN", "-y"]  # -y: stop at once on Ctrl+C
        main([*start, *quiet, *options])


def write_report(notebook: Path, path: Path, *, run: bool = False) -> None:
    """Write what a notebook says and shows, without its code, into one HTML file for its owner alone.

    Parameters
    ----------
    notebook
        The notebook; it stays as it is.
    path
        The file to write.
    run
        Whether to run the notebook first; else the report shows what was stored when it was saved.

    Raises
    ------
    InputError
        There is no such notebook, it has never been run, a cell fails, or nbconvert is not installed.
    OSError
        The file cannot be written.
    """
    _require("nbconvert", "vouchertools report")
    import nbformat
    from nbconvert import HTMLExporter

    try:
        content = nbformat.read(notebook, as_version=4)
    except FileNotFoundError as error:
        raise InputError(f"There is no notebook {notebook}.") from error
    except (AttributeError, ValueError, nbformat.ValidationError) as error:
        raise InputError(f"{notebook} is no notebook that can be read.") from error
    if run:
        _run(content, notebook)
    elif not any(cell.get("outputs") for cell in content.cells):
        raise InputError(f"{notebook} has no results yet. Run it in JupyterLab and save it, or add --run.")
    exporter: Any = HTMLExporter(
        exclude_input=True, exclude_input_prompt=True, exclude_output_prompt=True, anchor_link_text=""
    )
    title = {"metadata": {"name": _title(content) or notebook.stem}}
    html, _ = exporter.from_notebook_node(_without_widgets(content), resources=title)
    # The page of a notebook brings scripts for formulas and widgets; a report has neither, and stays offline.
    html = re.sub(r"<script\b.*?</script>", "", html, flags=re.DOTALL)

    def write(file: IO[bytes]) -> None:
        file.write(html.encode())

    replace_file(path, write)


@contextlib.contextmanager
def _settings() -> Iterator[None]:
    """Settings of JupyterLab for this one start."""
    known = os.environ.get("JUPYTER_CONFIG_PATH")
    with tempfile.TemporaryDirectory(prefix="vouchertools-lab-") as folder:
        page = Path(folder) / "labconfig" / "page_config.json"
        page.parent.mkdir()
        page.write_text(json.dumps({"disabledExtensions": dict.fromkeys(_DISABLED, True)}), encoding="utf-8")
        os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(filter(None, [folder, known]))
        try:
            yield
        finally:
            if known is None:
                del os.environ["JUPYTER_CONFIG_PATH"]
            else:
                os.environ["JUPYTER_CONFIG_PATH"] = known


def _require(module: str, command: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise InputError(
            f"JupyterLab is not installed here. In the project, 'uv run {command}' brings it along; "
            "without uv: pip install jupyterlab ipywidgets 'itables[widget]'."
        )


def _run(content: Any, notebook: Path) -> None:
    """Run every cell in the notebook's own folder, as JupyterLab does."""
    from nbconvert.preprocessors import CellExecutionError, ExecutePreprocessor

    try:
        # Else ipykernel warns that it listens on this machine without encryption.
        quiet = ["--log-level=ERROR"]
        ExecutePreprocessor(timeout=_CELL_S, extra_arguments=quiet).preprocess(
            content, {"metadata": {"path": str(notebook.resolve().parent)}}
        )
    except CellExecutionError as error:
        raise InputError(
            f"{notebook} stops with {error.ename}: {error.evalue} Open it in JupyterLab and run it there."
        ) from error


def _title(content: Any) -> str:
    """The first heading."""
    text = "\n".join(cell.source for cell in content.cells if cell.cell_type == "markdown")
    found = re.search(r"^# (.+)$", text, flags=re.MULTILINE)
    return found[1].strip() if found else ""


def _without_widgets(content: Any) -> Any:
    """Leave out what lives only in JupyterLab, grids and bars, and what was said on standard error."""
    for cell in content.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _is_live(output)]
    return content


def _is_live(output: Any) -> bool:
    return output.get("name") == "stderr" or "application/vnd.jupyter.widget-view+json" in output.get(
        "data", {}
    )
