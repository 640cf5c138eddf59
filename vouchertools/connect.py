"""Connecting: to Mews with the settings, or to the sandbox without; the one place that knows both."""

from typing import Any

from vouchertools.client import Client
from vouchertools.contract import require_ids
from vouchertools.errors import InputError
from vouchertools.sandbox import Server
from vouchertools.settings import read_settings


class Sandbox(Server):
    """A local Mews to try things out on: a real HTTP server on this machine; use it as a context manager.

    Takes what ``vouchertools.sandbox.Server`` takes: codes and vouchers to serve (none: real campaign codes
    of 2017), a port, a clock, and switches for everything that the contract leaves open.

    Examples
    --------
    >>> with Sandbox() as sandbox, sandbox.client() as client:
    ...     len(client.vouchers())
    29
    """

    def __init__(self, codes: Any = None, vouchers: Any = None, **options: Any) -> None:
        try:
            super().__init__(codes, vouchers, **options)
        except ValueError as error:
            raise InputError(str(error)) from None

    def client(self, *, portfolio: bool = False, **options: Any) -> Client:
        """A client of this sandbox.

        Parameters
        ----------
        portfolio
            With the portfolio access token, which sees all enterprises, instead of the first enterprise's.
        **options
            As ``vt.Client`` takes them.
        """
        token = self.portfolio_token if portfolio else self.access_token
        return Client(self.address, self.client_token, token, **options)


class _EmbeddedClient(Client):
    """A client of a sandbox that lives and ends with it."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        super().__init__(sandbox.address, sandbox.client_token, sandbox.access_token)

    def close(self) -> None:
        super().close()
        self._sandbox.stop()


def connect() -> Client:
    """Connect to Mews with the ``MEWS_*`` settings; without any, to a fresh sandbox.

    The settings come from the environment or from ``.env``. The sandbox holds real campaign codes of 2017,
    its clock starts at 2017-11-10 12:00 UTC, and nothing done there reaches any hotel. Which one it is, is
    printed.

    Returns
    -------
    Client
        Also a context manager. The sandbox ends with its client.

    Raises
    ------
    SettingsError
        The settings are half set or unsafe.
    ApiError
        The address is not one of Mews and gives no answer.
    """
    settings = read_settings()
    if settings.platform_address is None or settings.client_token is None or settings.access_token is None:
        sandbox = Sandbox()
        sandbox.start()
        print("No MEWS_* settings: this is the embedded sandbox. Nothing done here reaches a hotel.")
        return _EmbeddedClient(sandbox)
    if settings.enterprise_id is not None:
        require_ids([settings.enterprise_id], "MEWS_ENTERPRISE_ID")
    client = Client(
        settings.platform_address,
        settings.client_token,
        settings.access_token,
        client=settings.client,
        enterprise_id=settings.enterprise_id,
    )
    print(f"Connected to {client.environment}.")
    return client
