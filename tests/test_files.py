"""Files appear whole or not at all."""

import os
import stat
from pathlib import Path
from typing import IO

import pytest

from vouchertools.files import replace_file


def test_a_file_appears_whole_in_folders_that_it_makes_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "codes.parquet"

    def write(file: IO[bytes]) -> None:
        file.write(b"new")

    replace_file(path, write)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["codes.parquet"]


@pytest.mark.parametrize("failure", [ValueError("half"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, failure: BaseException
) -> None:
    path = tmp_path / "codes.parquet"
    path.write_bytes(b"old")

    def write(file: IO[bytes]) -> None:
        file.write(b"ne")
        assert path.read_bytes() == b"old"
        raise failure

    with pytest.raises(type(failure)):
        replace_file(path, write)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["codes.parquet"]


def test_the_temporary_file_is_none_that_a_data_set_would_read(tmp_path: Path) -> None:
    seen: list[str] = []

    def write(file: IO[bytes]) -> None:
        seen.extend(os.listdir(tmp_path))

    replace_file(tmp_path / "codes.parquet", write)
    assert len(seen) == 1
    assert seen[0].startswith(".")
    assert seen[0].endswith(".tmp")


def test_a_folder_that_cannot_be_made_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        replace_file(tmp_path / "file" / "codes.parquet", lambda file: None)
