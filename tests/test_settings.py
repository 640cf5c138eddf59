"""Settings: from where, half set, unsafe."""

from pathlib import Path
from typing import Any

import pytest

from vouchertools.errors import SettingsError
from vouchertools.settings import REQUIRED, check_address, data_folder, is_loopback, read_settings

ADDRESS = "https://api.mews.com"
FULL = dict(zip(REQUIRED, (ADDRESS, "client-token", "access-token"), strict=True))


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Any:
    def set_all(values: dict[str, str]) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return set_all


def plain() -> tuple[str | None, str | None, str | None]:
    settings = read_settings()
    client, access = settings.client_token, settings.access_token
    return (
        settings.platform_address,
        client.get_secret_value() if client else None,
        access.get_secret_value() if access else None,
    )


def write_env(folder: Path, values: dict[str, str], *, encoding: str = "utf-8") -> None:
    text = "".join(f"{name}={value}\n" for name, value in values.items())
    (folder / ".env").write_bytes(text.encode(encoding))


def test_nothing_set_means_the_sandbox() -> None:
    assert plain() == (None, None, None)


@pytest.mark.parametrize("blank", ["", "   ", "\t"])
def test_blank_is_as_good_as_not_set(env: Any, blank: str) -> None:
    env(dict.fromkeys((*REQUIRED, "MEWS_CLIENT", "MEWS_ENTERPRISE_ID"), blank))
    assert plain() == (None, None, None)
    settings = read_settings()
    assert (settings.client, settings.enterprise_id) == (None, None)


def test_the_template_copied_as_it_is_means_the_sandbox(tmp_path: Path) -> None:
    template = Path(__file__).parents[1] / ".env.example"
    (tmp_path / ".env").write_bytes(template.read_bytes())
    assert plain() == (None, None, None)


def test_blanks_and_line_ends_around_settings_are_not_part_of_them(env: Any) -> None:
    env({name: f"  {value}\r\n" for name, value in FULL.items()})
    assert plain() == tuple(FULL.values())


@pytest.mark.parametrize("missing", REQUIRED)
@pytest.mark.parametrize("blank", [None, "", " "])
def test_half_set_settings_name_what_is_missing_and_show_no_token(
    env: Any, missing: str, blank: str | None
) -> None:
    env({name: value for name, value in FULL.items() if name != missing})
    if blank is not None:
        env({missing: blank})
    with pytest.raises(SettingsError, match=f"^{missing} is not set, though .* are") as caught:
        read_settings()
    assert "-token" not in str(caught.value)


@pytest.mark.parametrize("only", REQUIRED)
def test_one_setting_alone_names_both_that_are_missing(env: Any, only: str) -> None:
    env({only: FULL[only]})
    with pytest.raises(SettingsError, match=f"are not set, though {only} is"):
        read_settings()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_file_is_read_with_or_without_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    write_env(tmp_path, FULL, encoding=encoding)
    assert plain() == tuple(FULL.values())


def test_another_env_file_can_be_named_and_an_empty_name_means_none(tmp_path: Path, env: Any) -> None:
    write_env(tmp_path, FULL)
    (tmp_path / "other").mkdir()
    write_env(tmp_path / "other", FULL | {"MEWS_ACCESS_TOKEN": "another"})
    env({"VOUCHERTOOLS_ENV_FILE": str(tmp_path / "other" / ".env")})
    access_token = read_settings().access_token
    assert access_token is not None
    assert access_token.get_secret_value() == "another"
    env({"VOUCHERTOOLS_ENV_FILE": ""})
    assert read_settings().access_token is None


def test_an_env_file_that_is_named_and_not_there_is_an_error(env: Any, tmp_path: Path) -> None:
    env({"VOUCHERTOOLS_ENV_FILE": str(tmp_path / "other.env")})
    with pytest.raises(
        SettingsError, match=r"VOUCHERTOOLS_ENV_FILE names .*other\.env, and there is no such"
    ):
        read_settings()


def test_the_environment_wins_over_the_file(tmp_path: Path, env: Any) -> None:
    write_env(tmp_path, FULL)
    env({"MEWS_ACCESS_TOKEN": "other"})
    assert plain() == (ADDRESS, "client-token", "other")


def test_a_notebook_folder_finds_the_file_at_the_top_of_its_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text("")
    write_env(tmp_path, FULL)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert plain() == tuple(FULL.values())
    write_env(tmp_path / "notebooks", {"MEWS_ACCESS_TOKEN": "nearer"})
    assert plain() == (ADDRESS, "client-token", "nearer")


def test_a_file_outside_the_project_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_env(tmp_path, FULL)
    (tmp_path / "project" / ".git").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    assert plain() == (None, None, None)


def test_a_file_of_another_encoding_is_a_clear_error_that_keeps_its_content_to_itself(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"MEWS_ACCESS_TOKEN=access-token\nMEWS_CLIENT=H\xf4tel\n")
    with pytest.raises(SettingsError, match="cannot be read") as caught:
        read_settings()
    assert "access-token" not in str(caught.value)
    assert caught.value.__context__ is None


def test_settings_show_no_token(env: Any) -> None:
    env(FULL)
    settings = read_settings()
    shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert "-token" not in shown
    assert ADDRESS in shown


def test_a_notebook_and_a_shell_mean_the_same_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VOUCHERTOOLS_DATA")
    assert data_folder() == tmp_path / "data"
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "notebooks" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "notebooks" / "deep")
    assert data_folder() == tmp_path / "data"
    assert not (tmp_path / "data").exists()


def test_the_data_folder_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("VOUCHERTOOLS_DATA", "~/codes")
    assert data_folder() == tmp_path / "codes"
    monkeypatch.setenv("VOUCHERTOOLS_DATA", "here")
    assert data_folder() == tmp_path / "here"


@pytest.mark.parametrize(
    ("given", "plain_form"),
    [
        (ADDRESS, ADDRESS),
        (f" {ADDRESS}/ \n", ADDRESS),
        ("HTTPS://API.Mews.com", ADDRESS),
        (f"{ADDRESS}?", ADDRESS),
        (f"{ADDRESS}#", ADDRESS),
        ("https://api.mews.com:8443", "https://api.mews.com:8443"),
        ("http://localhost:8765", "http://localhost:8765"),
        ("http://127.0.0.1:8765/", "http://127.0.0.1:8765"),
        ("http://127.8.8.8", "http://127.8.8.8"),
        ("http://[::1]:8765", "http://[::1]:8765"),
    ],
)
def test_an_address_is_brought_to_its_plain_form(given: str, plain_form: str) -> None:
    assert check_address(given) == plain_form


@pytest.mark.parametrize(
    "address",
    [
        "http://api.mews.com",
        "http://127.0.0.1.example.org",
        "http://localhost.example.org",
        "http://0.0.0.0:8765",
        "http://192.168.0.1",
        "http://2130706433",
        "http://[::ffff:10.0.0.1]",
    ],
)
def test_plain_http_is_for_this_machine_only(address: str) -> None:
    with pytest.raises(SettingsError, match="plain http"):
        check_address(address)
    assert not is_loopback(address)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("api.mews.com", "is no web address"),
        ("0123ABCD" * 4 + "-" + "4567CDEF" * 4, "is no web address"),
        ("ftp://api.mews.com", "is no web address"),
        ("https://", "is no web address"),
        ("https://:443", "is no web address"),
        ("", "is no web address"),
        ("https://api.mews.com:eighty", "cannot be read"),
        ("https://api.mews.com:99999", "cannot be read"),
        ("https://[::1", "cannot be read"),
        ("https://example..test", "cannot be read"),
        (f"https://{'a' * 64}.com", "cannot be read"),
        ("https://api.mews.com/api/connector/v1", "must end after the host: write 'https://api.mews.com'"),
        ("https://api.mews.com:8443/x", "write 'https://api.mews.com:8443'"),
        ("https://api.mews.com?x=1", "must end after the host"),
        ("https://api.mews.com#x", "must end after the host"),
        ("https://user:secret@api.mews.com", "must end after the host"),
        ("http://127.0.0.1@api.mews.com", "must end after the host"),
        ("http://api.mews.com\\@127.0.0.1", "must end after the host"),
    ],
)
def test_an_address_that_cannot_be_used_says_why_without_repeating_what_may_be_a_token(
    address: str, message: str
) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        check_address(address)
    assert "secret" not in str(caught.value)
    assert "E0D439EE" not in str(caught.value)
