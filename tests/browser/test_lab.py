"""What an analyst does in JupyterLab: open, run, look, sort, search, pick with the mouse, delete that."""

from pathlib import Path

from browser.lab import Lab, write_notebook

import vouchertools as vt

#: The cells of a clean-up by hand; that with the grid, and that where the deleting begins.
CLEAN_UP = [
    """
    import vouchertools as vt

    client = vt.connect()
    vouchers = client.vouchers()
    codes = vt.fetch(client, vouchers)
    codes["Status"] = vt.status(codes, as_of=client.now(), tz=vouchers)
    """,
    "axes = vt.plot_status(codes, as_of=client.now(), tz=vouchers, vouchers=vouchers)",
    """
    picker = vt.pick(codes[codes["Status"] == "expired"])
    picker
    """,
    """
    plan = vt.plan_delete(picker.selection, reason="picked by hand", tz=vouchers)
    plan
    """,
    """
    run = vt.apply_plan(client, plan, confirm=len(plan))
    run
    """,
    """
    after = vt.fetch(client, vouchers)
    after.loc[after["Id"].isin(plan.frame["Id"]), ["Value", "ActivityState"]]
    """,
]
GRID, PLAN, RUN, AFTER = 2, 3, 4, 5


def test_a_newcomer_sees_tables_and_charts_after_one_run_all(lab: Lab) -> None:
    lab.open("00-start-here.ipynb")
    assert lab.page.get_by_text("Would you like to get notified").count() == 0
    lab.run_all()
    assert lab.errors() == []
    charts = lab.page.locator(".jp-RenderedImage img")
    tables = lab.page.locator(".jp-RenderedHTMLCommon table.dataframe")
    assert charts.count() >= 1
    assert tables.count() >= 3
    charts.last.scroll_into_view_if_needed()
    assert charts.last.evaluate("image => image.complete && image.naturalWidth") > 500
    lab.screenshot("00-start-here")


def test_what_is_picked_with_the_mouse_is_deleted_and_nothing_else(
    lab: Lab, sandbox: vt.Sandbox, project: Path
) -> None:
    write_notebook(project / "notebooks" / "clean-up.ipynb", *CLEAN_UP)
    before = sandbox.codes().set_index("Id")
    lab.open("clean-up.ipynb")

    lab.run_all()
    assert ["No codes are selected" in error for error in lab.errors()] == [True]

    grid = lab.cell(GRID).locator(".itables_anywidget")
    rows = grid.locator("tbody tr")
    found = grid.locator(".dt-info")
    sort = grid.get_by_role("columnheader", name="Value").locator(".dtcc-button_order")
    sort.click()
    sort.click()
    values = sorted(before.loc[before.index.isin(expired(sandbox)), "Value"], reverse=True)
    assert [text.split("\t")[0] for text in rows.all_inner_texts()] == values[:10]

    rows.nth(1).click()
    rows.nth(3).click()
    grid.get_by_role("searchbox").fill("SPRING")
    lab.page.wait_for_function("() => document.querySelector('.dt-info').innerText.includes('found in')")
    rows.nth(2).click()
    searched = rows.nth(2).inner_text().split("\t")[0]
    assert "SPRING" in searched
    grid.get_by_role("searchbox").fill("")
    rows.nth(3).click()
    picked = {values[1], searched}
    assert "2 picked" in found.inner_text()
    lab.cell(PLAN).locator(".jp-InputArea-editor").click()
    lab.menu("Run", "Run Selected Cell and All Below")
    lab.wait_until_run()
    assert lab.errors() == []
    lab.cell(GRID).evaluate("cell => cell.scrollIntoView()")
    lab.screenshot("pick-and-plan")
    lab.cell(RUN).evaluate("cell => cell.scrollIntoView()")
    lab.screenshot("run")
    assert {line.split("\t")[1] for line in lab.cell(AFTER).locator("tbody tr").all_inner_texts()} == picked

    after = sandbox.codes().set_index("Id")
    changed = before.index[before["ActivityState"] != after.loc[before.index, "ActivityState"]]
    assert set(before.loc[changed, "Value"]) == picked
    assert len(changed) == 2
    assert len(after) == len(before)


def test_a_grid_shows_markup_and_blanks_as_they_are(lab: Lab, project: Path) -> None:
    values = ["<img src=x onerror=\"document.title='taken over'\">", "  two  blanks "]
    write_notebook(
        project / "notebooks" / "odd.ipynb",
        f"import pandas as pd\nimport vouchertools as vt\nvt.pick(pd.DataFrame({{'Value': {values!r}}}))",
    )
    lab.open("odd.ipynb")
    lab.run_all()
    cells = lab.page.locator(".itables_anywidget tbody td")
    cells.nth(1).wait_for()
    assert cells.evaluate_all("cells => cells.map((each) => each.textContent)") == values
    assert cells.locator("img").count() == 0
    assert cells.first.evaluate("cell => getComputedStyle(cell).whiteSpace") == "pre"
    assert "taken over" not in lab.page.title()


def test_all_that_is_found_is_picked_unless_it_is_too_much(lab: Lab, project: Path) -> None:
    write_notebook(
        project / "notebooks" / "many.ipynb",
        """
        import pandas as pd
        import vouchertools as vt
        from vouchertools import picker

        picker.MAX_PICKED = 3
        chosen = vt.pick(pd.DataFrame({"Value": ["A1", "A2", "B1", "B2", "A3"]}))
        chosen
        """,
        "list(chosen.selection['Value'])",
    )
    lab.open("many.ipynb")
    lab.run_all()
    pick_all = lab.page.get_by_role("button", name="Pick all found")
    pick_all.click()
    lab.page.get_by_text("5 codes are too many to be picked at once").wait_for()
    found = lab.page.locator(".itables_anywidget .dt-info")
    assert "picked" not in found.inner_text()
    lab.page.locator(".itables_anywidget").get_by_role("searchbox").fill("A")
    found.get_by_text("found in 5").wait_for()
    pick_all.click()
    found.get_by_text("3 picked").wait_for()
    lab.cell(1).locator(".jp-InputArea-editor").click()
    lab.page.keyboard.press("Control+Enter")
    lab.cell(1).get_by_text("['A1', 'A2', 'A3']").wait_for()


def expired(sandbox: vt.Sandbox) -> "set[str]":
    """Ids of the codes that are expired by the sandbox's clock."""
    with sandbox.client() as client:
        vouchers = client.vouchers()
        codes = vt.fetch(client, vouchers, progress=False)
        return set(codes["Id"][vt.status(codes, as_of=client.now(), tz=vouchers) == "expired"])
