"""The description of the sandbox, held against the sandbox by schemathesis, and the page to try it out."""

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

EXAMPLES = 20
OPERATIONS = 6


@pytest.fixture
def mews(serve: Callable[..., Any]) -> Any:
    return serve(rate_limit=None, deleting_deleted="accepted")


def put_in_what_exists(mews: Any, case: Any) -> None:
    """Replace what no schema can say: tokens, ids that exist, intervals whose ends are in order.

    Bodies that are meant to be wrong keep all but their well-formed tokens.
    """
    body = case.body
    if not isinstance(body, dict):
        return
    for name in ("ClientToken", "AccessToken"):
        if body.get(name) and isinstance(body[name], str):
            body[name] = mews.tokens[name]
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if len(str(body)) % 2:
        case.headers["Prefer"] = "return=minimal"
    operation = case.operation.path.removeprefix("/api/connector/v1/")
    codes = mews.least["voucherCodes/delete"]["VoucherCodeIds"]
    cursors = {
        "voucherCodes/getAll": codes[0],
        "enterprises/getAll": mews.server.enterprise_ids[0],
        "services/getAll": mews.least["vouchers/getAll"]["ServiceIds"][0],
        "vouchers/getAll": mews.server.voucher_ids[0],
    }
    if body.get("Limitation", {}).get("Cursor"):
        body["Limitation"]["Cursor"] = cursors[operation]
    if body.get("UpdatedUtc"):
        body["UpdatedUtc"]["StartUtc"] = body["UpdatedUtc"]["EndUtc"]
    for item in body.get("VoucherCodeParameters", []):
        item["VoucherId"] = mews.server.voucher_ids[0]
    if operation == "voucherCodes/delete":
        body["VoucherCodeIds"] = codes


@pytest.fixture
def filled(mews: Any) -> Any:
    @schemathesis.hook("before_call")
    def fill(context: Any, case: Any, kwargs: Any) -> None:
        put_in_what_exists(mews, case)

    yield mews
    schemathesis.hooks.unregister(fill)


def test_sandbox_keeps_its_own_description(
    filled: Any, record_property: Callable[[str, object], None]
) -> None:
    config = SchemathesisConfig.from_dict(
        {
            "seed": 1,
            "generation": {"max-examples": EXAMPLES, "database": "none"},
            "phases": {"stateful": {"enabled": False}},
        }
    )
    schema = schemathesis.openapi.from_url(f"{filled.server.address}/openapi.json", config=config)
    checks: Counter[str] = Counter()
    statuses: Counter[int] = Counter()
    failures: list[str] = []
    for event in from_schema(schema).execute():
        assert not isinstance(event, events.NonFatalError | events.FatalError), event
        if isinstance(event, events.ScenarioFinished):
            for check in (check for made in event.recorder.checks.values() for check in made):
                checks[check.name] += 1
                if check.failure_info is not None:
                    failures.append(f"{event.recorder.label}: {check.failure_info.failure}")
            statuses.update(
                made.response.status_code for made in event.recorder.interactions.values() if made.response
            )
    record_property("schemathesis_checks", checks.total())
    record_property("schemathesis_failures", len(failures))
    print(f"schemathesis: {checks.total()} checks, {len(failures)} failures, {dict(statuses)}")
    assert not failures, failures[:3]
    assert checks.total() > 5000
    for check in ("response_schema_conformance", "positive_data_acceptance", "negative_data_rejection"):
        assert checks[check] > 300
    for status in (200, 204, 400, 401, 405):
        assert statuses[status] >= OPERATIONS, statuses


@pytest.mark.parametrize(("switch", "required"), [(True, True), (False, False)])
def test_description_says_whether_updated_utc_is_required(
    serve: Callable[..., Any], switch: bool, required: bool
) -> None:
    mews = serve(updated_required=switch)
    description = mews.http.get(f"{mews.server.address}/openapi.json").json()
    body = description["paths"]["/api/connector/v1/voucherCodes/getAll"]["post"]["requestBody"]
    name = body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    assert ("UpdatedUtc" in description["components"]["schemas"][name]["required"]) is required


def test_page_needs_nothing_from_elsewhere(mews: Any) -> None:
    page = mews.http.get(f"{mews.server.address}/docs")
    assert page.headers["Content-Type"].startswith("text/html")
    assert "openapi.json" in page.text
    assert not re.search(r"https?://|src=|@import", page.text)
    assert mews.server.access_token not in page.text
