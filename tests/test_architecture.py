"""What holds for the repository as a whole: the public face, the floors, and what is tracked."""

import pkgutil
import re
import subprocess
import sys
import tomllib
from ipaddress import ip_address
from pathlib import Path

import vouchertools

ROOT = Path(__file__).parents[1]
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

#: Imported only where they are used: each costs more than all the rest together, or opens something.
HEAVY = {"fastapi", "itables", "jupyterlab", "matplotlib", "openpyxl", "typer", "uvicorn"}

#: Hosts that a file may name: the two platforms, documentation, and names reserved for examples.
HOSTS = re.compile(
    r"(api\.mews(-demo)?\.com|docs\.mews\.com|keepachangelog\.com|semver\.org|json-schema\.org"
    r"|127\.0\.0\.1|localhost|\[::1\]|([a-z0-9-]+\.)*(example(\.(com|org|net))?|test|invalid))$"
)


def is_nowhere(host: str) -> bool:
    """Whether a host leads nowhere outside: a number for loopback or a private net, or no host at all."""
    try:
        return not ip_address(host).is_global
    except ValueError:
        return ".." in host or re.fullmatch(r"[\d.]+", host) is not None


def tracked() -> list[Path]:
    """Every file that git tracks, as a path that exists."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).exists()]


def texts() -> dict[str, str]:
    """Every tracked file that is text, by its path; pictures in notebooks left out."""
    found = {}
    for path in tracked():
        if path.suffix in {".parquet", ".png", ".xlsx"} or path == Path(__file__):
            continue
        text = path.read_text(encoding="utf-8")
        found[path.relative_to(ROOT).as_posix()] = re.sub(r'"image/png": ".*?"', "", text)
    return found


def lines_with(pattern: str) -> list[str]:
    """Where a pattern occurs, as ``file:line: text``."""
    return [
        f"{name}:{number}: {line.strip()[:120]}"
        for name, text in texts().items()
        for number, line in enumerate(text.splitlines(), 1)
        if re.search(pattern, line)
    ]


def test_the_face_is_its_sorted_list_of_names_and_nothing_else() -> None:
    names = vouchertools.__all__
    assert names == sorted(names)
    modules = {module.name for module in pkgutil.iter_modules(vouchertools.__path__)}
    public = {name for name in vars(vouchertools) if not name.startswith("_")}
    assert public - (modules - set(names)) == {name for name in names if not name.startswith("_")}


def test_every_module_imports_only_from_lower_floors() -> None:
    # In a process of its own: it switches off every logger that is there already.
    check = "import sys, importlinter.cli as cli; sys.exit(cli.lint_imports(sys.argv[1], no_cache=True))"
    config = str(ROOT / "pyproject.toml")
    done = subprocess.run([sys.executable, "-c", check, config], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_module_has_its_floor() -> None:
    floors = CONFIG["tool"]["importlinter"]["contracts"][0]["layers"]
    placed = {name.strip(" ()") for floor in floors for name in floor.split("|")}
    package = {module.name for module in pkgutil.iter_modules(vouchertools.__path__)}
    bulk = {f"bulk.{module.name}" for module in pkgutil.iter_modules([str(ROOT / "vouchertools" / "bulk")])}
    assert (package - {"bulk"}) | bulk <= placed


def test_importing_the_package_loads_nothing_heavy() -> None:
    show = f"import sys, vouchertools; print(*sorted(set(sys.modules) & {HEAVY!r}))"
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_nothing_is_left_open() -> None:
    assert lines_with(r"\b(TODO|FIXME|XXX|HACK)\b|\bNotImplementedError\b") == []


def test_no_file_names_a_path_of_some_machine() -> None:
    assert lines_with(r"(?<![\w.~$}])/(home|root|tmp|work|Users|opt|var)/|[A-Z]:\\\\?(Users|Documents)") == []


def test_no_file_names_a_foreign_host() -> None:
    foreign = [
        f"{name}: {host}"
        for name, text in texts().items()
        for host in re.findall(r"https?://(\[::1\]|[\w.-]+)", text)
        if "." in host and not HOSTS.match(host.rstrip(".").lower()) and not is_nowhere(host)
    ]
    assert foreign == []


def test_no_file_holds_a_token_of_mews() -> None:
    assert lines_with(r"\b[0-9A-F]{32}-[0-9A-F]{31}\b") == []


def test_tracked_files_are_small_and_belong_here() -> None:
    files = tracked()
    assert [path.name for path in files if path.stat().st_size > 1_000_000] == []
    misplaced = re.compile(
        r"(^|/)(uv\.lock|\.env|__pycache__|\.venv|\.ipynb_checkpoints)(/|$)|\.(sqlite|pyc|log|db)$"
    )
    names = [path.relative_to(ROOT).as_posix() for path in files]
    assert [name for name in names if misplaced.search(name)] == []
    assert {name for name in names if name.startswith("data/")} == {
        "data/README.md",
        "data/build_sample.py",
        "data/sample.parquet",
    }


def test_the_wheel_carries_the_sample_and_the_type_marker() -> None:
    wheel = CONFIG["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"] == {"data/sample.parquet": "vouchertools/sandbox/sample.parquet"}
    assert (ROOT / "vouchertools" / "py.typed").exists()
