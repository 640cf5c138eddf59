"""The command line: ``vouchertools`` and a command such as ``demo``, ``fetch``, ``summary`` or ``lab``.

The commands that change codes are in ``cli_bulk.py``.

Commands say on standard output what they found, and on standard error how far they are. An error is one line,
never a traceback, and the exit code tells what kind it was.

Terms
-----
exit code
    0: done. 1: it could not be done, and the line says why. 2: the command line was not understood.
    130: interrupted. Commands that change codes also know 3: done, and something is not as planned.
"""

import contextlib
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, TypeVar

import pandas as pd
import typer
from filelock import FileLock, Timeout

import vouchertools as vt
from vouchertools import cli_bulk, notebooks
from vouchertools.cli_bulk import VoucherIds
from vouchertools.console import count, instant, short_path, table
from vouchertools.errors import InputError, VoucherToolsError
from vouchertools.export import FORMATS, require_suffix
from vouchertools.settings import data_folder

app = typer.Typer(
    name="vouchertools",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
cli_bulk.register(app)

#: The port of ``vouchertools sandbox``, the same every time so that settings stay good.
SANDBOX_PORT = 8765
#: What a chart can be written as.
_PICTURES = (".png", ".pdf", ".svg")
#: What errors advise in Python, and the same on the command line.
_ADVICE = {
    r"vt\.resume_run\(client, '([^']+)'\)": r"'vouchertools resume \1'",
    r"vt\.list_runs\(\)": "'vouchertools runs'",
    r"vt\.Cache\(path\)": "VOUCHERTOOLS_DATA=folder",
    r"allow_valid=True": "--allow-valid",
}
_STATUSES = ("valid", "future", "expired", "inverted", "deleted")
#: What typer raises for a wrong command line, whichever parser it carries.
_USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]

_T = TypeVar("_T")
Full = Annotated[bool, typer.Option("--full", help="Read everything again, not only what changed.")]
Workers = Annotated[int, typer.Option(min=1, max=32, help="How many requests may be under way at once.")]
AsOf = Annotated[str | None, typer.Option(help="Judge at this instant, such as 2024-05-01T12:00Z; else now.")]


def main() -> None:
    """Run the command line and leave with its exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line and give its exit code; every error becomes one line on standard error."""
    if "--traceback" in arguments:
        return int(app(arguments, prog_name="vouchertools", standalone_mode=False) or 0)
    try:
        return int(app(arguments or ["--help"], prog_name="vouchertools", standalone_mode=False) or 0)
    except VoucherToolsError as error:
        return _fail(_for_the_shell(str(error)))
    except _USAGE_ERROR as error:
        return _fail(_usage(error), code=2)
    except typer.Abort:
        return _fail("Stopped.", code=130)
    except OSError as error:
        place = f" at {error.filename}" if error.filename else ""
        return _fail(
            f"The system refused: {error.strerror or error}{place}. Choose a place that you may write to."
        )
    except Exception as error:
        hint = "This should not happen; 'vouchertools --traceback ...' shows where it came from."
        return _fail(f"{type(error).__name__}: {error}. {hint}")


@app.callback()
def _options(
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where an error came from.")] = False,
) -> None:
    """Every Mews voucher code: read completely, judged exactly, changed safely."""


@app.command()
def demo() -> None:
    """Read, keep, judge and draw real campaign codes, on a sandbox."""
    folder = data_folder() / "demo"
    shutil.rmtree(folder / "cache", ignore_errors=True)
    cache = vt.Cache(folder / "cache")
    with vt.Sandbox() as server, server.client() as client:
        environment = client.environment
        _say(f"Sandbox    {environment} at {server.address}: a local Mews; no hotel is touched")
        vouchers = client.vouchers()
        hotels = " and ".join(vouchers["EnterpriseName"].unique())
        _say(f"Vouchers   {count(len(vouchers), 'voucher')} of {hotels}")
        codes, seconds = _timed(lambda: cache.refresh(client, vouchers))
        _say(f"Read       {count(len(codes), 'code')} in {seconds:.2f} s, every one of them, as a DataFrame")
        codes, seconds = _timed(lambda: cache.refresh(client, vouchers, progress=False))
        _say(f"Refresh    {seconds:.2f} s: from now on only what changed is read")
    as_of = pd.Timestamp(codes.attrs["read_utc"])
    _say(f"Clock      {instant(as_of)}, the server's: status is judged at this instant\n")
    _say(_summary(codes, vouchers, as_of))
    vt.export(codes, folder / "codes.parquet")
    picture = _draw(codes, vouchers, as_of, folder / "status.png")
    _say(f"\nParquet    {short_path(folder / 'codes.parquet')}   all codes in one file")
    _say(
        f"Cache      {short_path(cache.folder(environment))}   one file a voucher, for pandas, DuckDB, Polars"
    )
    _say(f"Chart      {short_path(picture)}")
    start = "uv run vouchertools" if "UV" in os.environ else "vouchertools"
    _say(f"\nNext       {start} lab       the notebooks, which run on such a sandbox")
    _say(f"           {start} sandbox   a sandbox that stays, to point your own code at")
    _say("           README.md, 'Settings'   how to read your own hotel")


@app.command()
def fetch(voucher_ids: VoucherIds = None, full: Full = False, workers: Workers = 8) -> None:
    """Bring the cache up to date: every code, as Parquet."""
    _, codes = _pull(voucher_ids, full=full, workers=workers)
    environment = codes.attrs["environment"]
    _say(f"{count(len(codes), 'code')} of {environment} at {instant(pd.Timestamp(codes.attrs['read_utc']))}")
    _say(f"Cache: {short_path(vt.Cache(data_folder() / 'cache').folder(environment))}")


@app.command()
def summary(
    voucher_ids: VoucherIds = None,
    as_of: AsOf = None,
    plot: Annotated[
        Path | None, typer.Option(help="Also draw the chart into this file (PNG, PDF or SVG).")
    ] = None,
    full: Full = False,
    workers: Workers = 8,
) -> None:
    """Count codes by voucher and status; can draw them too."""
    given = None if as_of is None else _instant(as_of)
    if plot is not None:
        require_suffix(plot, _PICTURES)
    vouchers, codes = _pull(voucher_ids, full=full, workers=workers)
    moment = pd.Timestamp(codes.attrs["read_utc"]) if given is None else given
    _say(f"{codes.attrs['environment']} at {instant(moment)}\n")
    _say(_summary(codes, vouchers, moment))
    if plot is not None:
        _say(f"\nChart: {short_path(_draw(codes, vouchers, moment, plot))}")


@app.command()
def export(
    path: Annotated[Path, typer.Argument(help="The file to write: .parquet, .csv or .xlsx.")],
    voucher_ids: VoucherIds = None,
    mask: Annotated[
        bool, typer.Option("--mask", help="Hide the values: whoever reads a code can use it.")
    ] = False,
    full: Full = False,
    workers: Workers = 8,
) -> None:
    """Write the codes into one file: Parquet, CSV or Excel."""
    require_suffix(path, FORMATS)
    _, codes = _pull(voucher_ids, full=full, workers=workers)
    vt.export(codes, path, mask=mask)
    _say(f"{count(len(codes), 'code')} written to {short_path(path)}")


@app.command()
def sandbox(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on this machine; 0: any free one.")
    ] = SANDBOX_PORT,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over from the sample.")] = False,
) -> None:
    """Run a local Mews that keeps its codes, until Ctrl+C."""
    store = data_folder() / "sandbox.sqlite"
    store.parent.mkdir(parents=True, exist_ok=True)
    with _only_one(store):
        if fresh:
            for name in (store.name, f"{store.name}-wal", f"{store.name}-shm"):
                (store.parent / name).unlink(missing_ok=True)
        server = vt.Sandbox(port=port, store=store)
        try:
            server.start()
        except OSError as error:
            raise InputError(
                f"Port {port} cannot be used: {error}. Choose another one with --port."
            ) from error
        else:
            _serve(server, store)
        finally:
            server.stop()


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def lab(context: typer.Context) -> None:
    """Open JupyterLab on the notebooks; its own options are passed on, such as --no-browser."""
    _say(f"JupyterLab opens {notebooks.FIRST} in your browser. Ctrl+C here stops it.")
    notebooks.run_lab(context.args)


@app.command()
def report(
    notebook: Annotated[Path, typer.Argument(help="The notebook (.ipynb).")],
    to: Annotated[
        Path | None, typer.Option(help="The file to write; else named like the notebook, in the data folder.")
    ] = None,
    run: Annotated[bool, typer.Option("--run", help="Run the notebook first; it stays as it is.")] = False,
) -> None:
    """Write a notebook as one HTML page without code, to read or to print."""
    path = to or data_folder() / f"{notebook.stem}.html"
    notebooks.write_report(notebook, path, run=run)
    _say(f"Report: {short_path(path)}")


@contextlib.contextmanager
def _only_one(store: Path) -> Iterator[None]:
    lock = FileLock(f"{store}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"A sandbox is already running on {short_path(store)}. Stop it, or use that one."
        ) from None
    try:
        yield
    finally:
        lock.release()


def _serve(server: vt.Sandbox, store: Path) -> None:
    """Say how to reach a sandbox, and wait for Ctrl+C."""
    _say("# A local Mews. Put these lines into .env, or into the environment of another shell:")
    _say(f"MEWS_PLATFORM_ADDRESS={server.address}")
    _say(f"MEWS_CLIENT_TOKEN={server.client_token}")
    _say(f"MEWS_ACCESS_TOKEN={server.access_token}")
    _say(f"# Two enterprises with one token: MEWS_ACCESS_TOKEN={server.portfolio_token}")
    _say(f"# Its operations: {server.address}/docs   Its codes: {short_path(store)}   Ctrl+C stops it.")
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        _say("# Stopped; the codes are kept.")


def _pull(chosen: list[str] | None, *, full: bool, workers: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Connect, find the vouchers, bring their cache up to date; gives vouchers and codes."""
    with contextlib.redirect_stdout(sys.stderr):
        connection = vt.connect()
    with connection as client:
        vouchers = cli_bulk.choose_vouchers(client.vouchers(), chosen)
        cache = vt.Cache(data_folder() / "cache")
        return vouchers, cache.refresh(client, vouchers, full=full, workers=workers)


def _summary(codes: pd.DataFrame, vouchers: pd.DataFrame, as_of: pd.Timestamp) -> str:
    """The table of counts, in the order in which the windows begin, with a last row for all."""
    counted = vt.summarize(codes, as_of=as_of, tz=vouchers, vouchers=vouchers)
    counted = counted.sort_values(["FirstStartUtc", "Name"], na_position="last")
    zones = counted["VoucherId"].map(vouchers.set_index("Id")["TimeZone"]).fillna("UTC")
    last_day = [
        "" if pd.isna(end) else end.tz_convert(zone).strftime("%Y-%m-%d")
        for end, zone in zip(counted["LastEndUtc"], zones, strict=True)
    ]
    names = counted["Name"].fillna(counted["VoucherId"])
    shown = pd.DataFrame({"Voucher": names, **{name: counted[name] for name in (*_STATUSES, "Total")}})
    shown["Last day"] = last_day
    total = {"Voucher": "All", **shown[[*_STATUSES, "Total"]].sum().to_dict(), "Last day": ""}
    text = table(pd.concat([shown, pd.DataFrame([total])], ignore_index=True))
    without = vouchers.loc[~vouchers["Id"].isin(counted["VoucherId"]), "Name"]
    return text if without.empty else f"{text}\nWithout codes: {', '.join(without)}"


def _draw(codes: pd.DataFrame, vouchers: pd.DataFrame, as_of: pd.Timestamp, path: Path) -> Path:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    vt.plot_status(codes, as_of=as_of, tz=vouchers, vouchers=vouchers)
    path.parent.mkdir(parents=True, exist_ok=True)
    plt.savefig(path, dpi=150, bbox_inches="tight")
    return path


def _instant(text: str) -> pd.Timestamp:
    moment = pd.to_datetime(text, errors="coerce")
    if pd.isna(moment):
        raise InputError(f"--as-of {text!r} is no instant. Write it like 2024-05-01T12:00Z.")
    if moment.tzinfo is None:
        raise InputError(f"--as-of {text!r} does not say its time zone. For UTC: {moment.isoformat()}Z.")
    return moment


def _timed(act: Callable[[], _T]) -> tuple[_T, float]:
    start = time.perf_counter()
    return act(), time.perf_counter() - start


def _for_the_shell(message: str) -> str:
    for python, shell in _ADVICE.items():
        message = re.sub(python, shell, message)
    return message


def _usage(error: Exception) -> str:
    """What typer says of a wrong command line, and where the right one is described."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "vouchertools"
    return f"{str(error.format_message()).rstrip('.?')}. See '{command} --help'."  # type: ignore[attr-defined]


def _say(text: str) -> None:
    typer.echo(text)


def _fail(message: str, *, code: int = 1) -> int:
    typer.echo(f"vouchertools: {' '.join(message.split())}", err=True)
    return code
