"""Every Mews voucher code in pandas: read completely, judged exactly, changed safely."""

from vouchertools.cache import Cache
from vouchertools.client import Client
from vouchertools.connect import Sandbox, connect
from vouchertools.errors import VoucherToolsError
from vouchertools.export import export
from vouchertools.fetch import fetch
from vouchertools.plot import plot_status
from vouchertools.status import status
from vouchertools.summary import summarize

__all__ = [
    "Cache",
    "Client",
    "Sandbox",
    "VoucherToolsError",
    "connect",
    "export",
    "fetch",
    "plot_status",
    "status",
    "summarize",
]
