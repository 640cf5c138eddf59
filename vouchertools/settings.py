"""Where and who: the platform address, the tokens and the data folder.

Settings come from the environment, else from a ``.env`` file in the folder one stands in, else from one at
the top of the project: ``MEWS_PLATFORM_ADDRESS``, ``MEWS_CLIENT_TOKEN``, ``MEWS_ACCESS_TOKEN``, and, where
wanted, ``MEWS_CLIENT`` (the name that Mews sees), ``MEWS_ENTERPRISE_ID`` and ``VOUCHERTOOLS_DATA``. Blank is
as good as not set. None of the first three set means: the sandbox. ``VOUCHERTOOLS_ENV_FILE`` names another
file instead of the two; set and empty, none is read.
"""

import os
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from vouchertools.errors import SettingsError

#: The three that belong together: all of them, or none.
REQUIRED: Final = ("MEWS_PLATFORM_ADDRESS", "MEWS_CLIENT_TOKEN", "MEWS_ACCESS_TOKEN")


class Settings(BaseSettings):
    """What the environment and ``.env`` say; tokens are held as secrets and never shown."""

    model_config = SettingsConfigDict(
        env_file_encoding="utf-8-sig",
        extra="ignore",
        hide_input_in_errors=True,
        env_ignore_empty=True,
    )

    platform_address: str | None = Field(default=None, validation_alias="MEWS_PLATFORM_ADDRESS")
    client_token: SecretStr | None = Field(default=None, validation_alias="MEWS_CLIENT_TOKEN")
    access_token: SecretStr | None = Field(default=None, validation_alias="MEWS_ACCESS_TOKEN")
    client: str | None = Field(default=None, validation_alias="MEWS_CLIENT")
    enterprise_id: str | None = Field(default=None, validation_alias="MEWS_ENTERPRISE_ID")
    data: Path | None = Field(default=None, validation_alias="VOUCHERTOOLS_DATA")

    @field_validator("*", mode="before")
    @classmethod
    def _strip(cls, value: Any) -> Any:
        return value.strip() or None if isinstance(value, str) else value


def read_settings() -> Settings:
    """Read the settings.

    Raises
    ------
    SettingsError
        Some of the three required settings are there and some are not, or ``.env`` cannot be read.
    """
    # Raised outside the handler: what a failed read leaves behind holds the whole file.
    chosen = os.environ.get("VOUCHERTOOLS_ENV_FILE")
    files: dict[str, Any] = {
        "_env_file": (_project() / ".env", Path(".env")) if chosen is None else chosen or None
    }
    try:
        settings: Settings | str = Settings(**files)
    except (ValidationError, OSError, UnicodeDecodeError) as error:
        settings = str(error)
    if isinstance(settings, str):
        raise SettingsError(f"The settings cannot be read: {settings}")
    if chosen and not Path(chosen).is_file():
        raise SettingsError(
            f"VOUCHERTOOLS_ENV_FILE names {chosen}, and there is no such file. Name another, or unset it."
        )
    values = (settings.platform_address, settings.client_token, settings.access_token)
    missing = [name for name, value in zip(REQUIRED, values, strict=True) if value is None]
    if 0 < len(missing) < len(REQUIRED):
        raise SettingsError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set, though "
            f"{' and '.join(name for name in REQUIRED if name not in missing)} "
            f"{'is' if len(missing) == 2 else 'are'}. Set all three for Mews, or none for the sandbox."
        )
    return settings


def data_folder() -> Path:
    """The folder of cache, journal and exports; it need not exist yet.

    ``VOUCHERTOOLS_DATA`` where set, else ``data`` of the project one stands in: the nearest folder upwards
    that has a ``pyproject.toml`` or a ``.git``, else the current one. So a notebook in ``notebooks/`` and a
    shell at the top mean the same folder.
    """
    chosen = read_settings().data
    if chosen is not None:
        return chosen.expanduser().resolve()
    return _project() / "data"


def _project() -> Path:
    here = Path.cwd()
    for folder in (here, *here.parents):
        if any((folder / mark).exists() for mark in ("pyproject.toml", ".git")):
            return folder
    return here


def check_address(platform_address: str) -> str:
    """The platform address in its plain form: scheme, host, port, nothing behind.

    Raises
    ------
    SettingsError
        It is no web address, or plain http to anything but this machine: the tokens travel in the body.
    """
    address = platform_address.strip().rstrip("/")
    try:
        parts = urlsplit(address)
        port = parts.port
        (parts.hostname or "").encode("idna")
    except ValueError as error:
        raise SettingsError(f"The platform address cannot be read: {error}.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError("The platform address is no web address. Write it like 'https://api.mews.com'.")
    if parts.path or parts.query or parts.fragment or parts.username or parts.password:
        raise SettingsError(
            f"The platform address must end after the host: write '{parts.scheme}://{parts.hostname}"
            f"{f':{port}' if port else ''}' and no more."
        )
    if parts.scheme == "http" and not is_loopback(address):
        raise SettingsError(
            f"The platform address {address!r} is plain http, which would send the "
            "tokens unencrypted. Use https."
        )
    return f"{parts.scheme}://{parts.netloc.lower()}"


def is_loopback(address: str) -> bool:
    """Whether an address leads to this very machine."""
    host = urlsplit(address).hostname or ""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
