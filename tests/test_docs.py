"""What the README and the notebooks say is so."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer.main

import vouchertools as vt
import vouchertools.cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
WORDS = ["code", "voucher", "window", "interval", "page", "walk", "watermark", "status"]
WORDS += ["plan", "run", "batch", "outcome", "journal", "undo"]


def code_cells(notebook: Path) -> list[dict[str, Any]]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def compared(cell: dict[str, Any]) -> bool:
    skipped = {"nbval-skip", "nbval-ignore-output"} & set(cell["metadata"].get("tags", []))
    return not skipped


def shows(cell: dict[str, Any]) -> bool:
    """Whether a cell prints or ends in an expression, so that there is something to compare."""
    source = "".join(cell["source"]).rstrip()
    last = ast.parse(source).body[-1]
    return "print(" in source or (isinstance(last, ast.Expr) and not source.endswith(";"))


def test_the_readmes_python_runs_as_it_stands() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    names: dict[str, Any] = {}
    exec(compile(example, "README.md", "exec"), names)
    try:
        assert len(names["codes"]) == 6633
        assert len(names["vouchers"]) == 29
    finally:
        names["client"].close()


def test_duckdb_reads_the_cache_as_the_readme_says(capsys: pytest.CaptureFixture[str]) -> None:
    with vt.Sandbox() as sandbox, sandbox.client() as client:
        vt.Cache().refresh(client, sandbox.voucher_ids, progress=False)
    with vt.Sandbox() as other, other.client() as another:  # its codes are not counted too
        vt.Cache().refresh(another, other.voucher_ids, progress=False)
    (example,) = (block for block in re.findall(r"```py\n(.*?)```", README, flags=re.S) if "duckdb" in block)
    exec(compile(example, "README.md", "exec"), {"vt": vt, "client": client})
    shown = capsys.readouterr().out
    assert "6031" in shown
    assert "602" in shown


def test_the_readme_knows_every_command_and_no_other() -> None:
    commands = set(typer.main.get_command(vouchertools.cli.app).commands)  # type: ignore[attr-defined]
    assert set(re.findall(r"(?:`|run |    )vouchertools ([a-z]+)", README)) == commands


def test_ci_runs_the_two_commands_of_the_readme() -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    for command in ("pip install uv && uv run vouchertools demo", "uv run pytest"):
        assert f"    {command}\n" in README
        assert command in ci
    assert ci[-1] == "uv run pytest"


def test_the_readme_shows_what_the_reading_benchmark_measured() -> None:
    found = json.loads((ROOT / "tests" / "benchmarks" / "reading.json").read_text(encoding="utf-8"))
    calm, slow, limited = found["no_latency"], found["latency"], found["limited"]
    for label, name in {"vouchertools": "ours", "loop": "loop", "dlt": "dlt"}.items():
        cells = [
            label,
            f"{calm[name]['requests']}",
            f"{calm[name]['wall_s']:.2f}",
            f"{slow[name]['wall_s']:.1f}",
            f"{calm[name]['cpu_s']:.2f}",
            f"{calm[name]['peak_mib']:.0f}",
        ]
        assert f"| {' | '.join(cells)} |" in README
    wide, refresh, reading = slow["ours, 32 workers"], found["refresh"]["refresh"], found["reading"]
    memory = [f"{figure:,}" for figure in found["memory"].values()]
    for said in (
        f"| {wide['requests']} | | {wide['wall_s']:.1f} | | {wide['peak_mib']:.0f} |",
        f"{limited['wall_s']:.0f} s; the limit allows {limited['least_s']:.0f} s. "
        f"{limited['requests']:,} requests, none refused |",
        f"{refresh['requests']} requests, {refresh['wall_s']:.1f} s |",
        f"{reading['read_cache']['wall_s']:.2f} s; `pandas.read_parquet` of the same files "
        f"{reading['read_parquet']['wall_s']:.2f} s |",
        f"{memory[1]} bytes a code ({memory[0]} at half a million, {memory[2]} at two million) |",
    ):
        assert said in README
    runs = [*calm.values(), *slow.values(), limited, *found["refresh"].values(), *reading.values()]
    assert all(run["refused"] == 0 and run.get("equal", True) for run in runs)


def test_the_readme_defines_every_word() -> None:
    assert [word for word in WORDS if f"| *{word}* |" not in README] == []


def test_links_between_documents_lead_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), ROOT / "data" / "README.md"]:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_env_example_names_the_settings_of_the_readme() -> None:
    names = set(re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env.example").read_text(encoding="utf-8"), flags=re.M))
    assert names == set(re.findall(r"`((?:MEWS|VOUCHERTOOLS)_[A-Z_]+)`", README.split("## Settings")[1]))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_compared_cell_that_shows_something_has_its_output_stored(notebook: Path) -> None:
    bare = [
        "".join(cell["source"])
        for cell in code_cells(notebook)
        if compared(cell) and shows(cell) and not cell["outputs"]
    ]
    assert bare == []
    assert [cell for cell in code_cells(notebook) if cell["execution_count"] is None] == []


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_compares_something(notebook: Path) -> None:
    assert sum(bool(cell["outputs"]) for cell in code_cells(notebook) if compared(cell)) >= 3


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_notebook_shows_a_token_an_address_or_an_error(notebook: Path) -> None:
    text = json.dumps([output for cell in code_cells(notebook) for output in cell["outputs"]])
    text = re.sub(r'"(image/png|model_id)": ".*?"', "", text)
    assert re.findall(r"https?://[^\"\\ ]+|[0-9A-Fa-f]{32}|\"output_type\": \"error\"|stderr", text) == []


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_cell_is_a_dozen_lines_at_most(notebook: Path) -> None:
    assert [cell["source"] for cell in code_cells(notebook) if len(cell["source"]) > 12] == []


def test_notebooks_begin_with_00_and_are_numbered_without_gaps() -> None:
    assert NOTEBOOKS, "there are no notebooks"
    assert [path.name[:3] for path in NOTEBOOKS] == [f"{number:02d}-" for number in range(len(NOTEBOOKS))]
