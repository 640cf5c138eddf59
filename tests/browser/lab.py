"""What one does in JupyterLab: open, run, look."""

from pathlib import Path
from textwrap import dedent
from typing import Any

import nbformat


class Lab:
    """One JupyterLab and one page of a browser on it."""

    def __init__(self, page: Any, url: str, screenshots: Path) -> None:
        self.page = page
        self.url = url
        self._screenshots = screenshots

    def open(self, name: str) -> None:
        """Open a notebook and wait for its kernel."""
        self.page.goto(self.url.replace("00-start-here.ipynb", name) + "&reset")
        self.page.get_by_text("| Idle").wait_for()

    def menu(self, *names: str) -> None:
        """Choose from the menus."""
        for name in names:
            self.page.get_by_role("menuitem", name=name, exact=True).click()

    def wait_until_run(self) -> None:
        """Wait until no cell is waiting or at work."""
        self.page.wait_for_function(
            """() => {
                const prompts = [...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")];
                return prompts.some((each) => /\\d/.test(each.innerText))
                    && !prompts.some((each) => each.innerText.includes("*"));
            }"""
        )
        self.page.get_by_text("| Idle").wait_for()

    def run_all(self) -> None:
        """Choose Run All Cells, and wait for the last one."""
        self.menu("Run", "Run All Cells")
        self.wait_until_run()

    def cell(self, number: int) -> Any:
        """The code cell of that number, from 0; it is brought into view."""
        found = self.page.locator(".jp-Notebook .jp-CodeCell").nth(number)
        found.scroll_into_view_if_needed()
        return found

    def errors(self) -> list[str]:
        """What cells that failed show, and whatever else came by standard error."""
        shown = '.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.stderr"]'
        return list(self.page.locator(shown).all_inner_texts())

    def screenshot(self, name: str, part: Any = None) -> None:
        """Leave a picture of the page, or of a part of it."""
        self._screenshots.mkdir(parents=True, exist_ok=True)
        (part or self.page).screenshot(path=self._screenshots / f"{name}.png")


def write_notebook(path: Path, *sources: str) -> None:
    """Write a notebook of code cells that were never run."""
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    content = nbformat.v4.new_notebook(metadata={"kernelspec": kernel})
    content.cells = [nbformat.v4.new_code_cell(dedent(source).strip()) for source in sources]
    nbformat.write(content, path)
