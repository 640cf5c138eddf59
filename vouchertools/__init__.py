"""Every Mews voucher code in pandas: read completely, judged exactly, changed safely."""

from vouchertools.anomalies import find_anomalies
from vouchertools.bulk.apply import apply_plan, resume_run
from vouchertools.bulk.check import check_plan
from vouchertools.bulk.plan import Plan
from vouchertools.bulk.planning import plan_add, plan_delete, plan_undo
from vouchertools.bulk.run import Run, get_run, list_runs
from vouchertools.bulk.selections import (
    deleted,
    duplicates_but_oldest,
    expired_for,
    find,
    of_voucher,
    values_in,
)
from vouchertools.bulk.values import generate_values, read_rows
from vouchertools.cache import Cache
from vouchertools.changes import compare
from vouchertools.client import Client
from vouchertools.connect import Sandbox, connect
from vouchertools.errors import VoucherToolsError
from vouchertools.export import export
from vouchertools.fetch import fetch
from vouchertools.picker import pick
from vouchertools.plot import plot_status, plot_timeline, plot_windows
from vouchertools.status import status
from vouchertools.summary import summarize
from vouchertools.timeline import timeline

__all__ = [
    "Cache",
    "Client",
    "Plan",
    "Run",
    "Sandbox",
    "VoucherToolsError",
    "apply_plan",
    "check_plan",
    "compare",
    "connect",
    "deleted",
    "duplicates_but_oldest",
    "expired_for",
    "export",
    "fetch",
    "find",
    "find_anomalies",
    "generate_values",
    "get_run",
    "list_runs",
    "of_voucher",
    "pick",
    "plan_add",
    "plan_delete",
    "plan_undo",
    "plot_status",
    "plot_timeline",
    "plot_windows",
    "read_rows",
    "resume_run",
    "status",
    "summarize",
    "timeline",
    "values_in",
]
