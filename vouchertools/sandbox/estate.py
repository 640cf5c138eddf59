"""Enterprises, services and vouchers: given as records or frames, or made up. They never change.

An estate is three lists of records in the shape of the API. A voucher's place in the list is how the store
knows it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from uuid import NAMESPACE_URL, uuid5

import pandas as pd

Record: TypeAlias = dict[str, Any]

CHAIN_ID = str(uuid5(NAMESPACE_URL, "vouchertools:chain"))
TIME_ZONE = "Europe/Prague"


@dataclass(frozen=True)
class Estate:
    """What the sandbox's hotels are and sell.

    Attributes
    ----------
    enterprises, services, vouchers
        Records in the shape of the API; the first enterprise is the one of the single-enterprise token.
    place
        Of each voucher by its id in lower case, its place in ``vouchers``.
    """

    enterprises: list[Record]
    services: list[Record]
    vouchers: list[Record]
    place: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        places = {record["Id"].lower(): number for number, record in enumerate(self.vouchers)}
        object.__setattr__(self, "place", places)

    def to_records(self) -> dict[str, list[Record]]:
        """Return the three lists under their names."""
        return {"enterprises": self.enterprises, "services": self.services, "vouchers": self.vouchers}


def make_estate(code_voucher_ids: Iterable[str], vouchers: pd.DataFrame | None, *, now: str) -> Estate:
    """Make up whatever of an estate is not given.

    Parameters
    ----------
    code_voucher_ids
        Vouchers that codes belong to; those that ``vouchers`` lacks go to the first enterprise.
    vouchers
        Columns ``Id``, and as far as known ``Name``, ``ServiceId``, ``EnterpriseId``, ``EnterpriseName``,
        ``TimeZone`` (of the enterprise), ``Type``, ``IsActive``. Where ``EnterpriseId`` is missing there is
        one enterprise for each time zone. Enterprises come in the order of their first voucher.
    now
        What the records' timestamps say.

    Raises
    ------
    ValueError
        No ``Id``, an id twice, or an enterprise in two time zones.
    """
    given: list[Record] = [] if vouchers is None else _to_records(vouchers)
    known = [str(record["Id"]).lower() for record in given]
    if len(set(known)) < len(known):
        raise ValueError("vouchers holds an Id twice.")
    missing = dict.fromkeys(voucher for voucher in code_voucher_ids if voucher.lower() not in set(known))
    enterprises: dict[str, Record] = {}
    services: dict[str, Record] = {}
    made: list[Record] = []
    zones: dict[str, str] = {}
    for record in given + [{"Id": voucher} for voucher in missing]:
        enterprise_id = record.get("EnterpriseId")
        zone = record.get("TimeZone")
        if enterprise_id is None:
            first = next(iter(enterprises), None)
            unnamed = zones.get(zone) if zone else first
            enterprise_id = unnamed or _make_id("enterprise", len(enterprises))
        enterprise = enterprises.setdefault(
            enterprise_id,
            _enterprise(enterprise_id, len(enterprises), record.get("EnterpriseName"), zone, now),
        )
        if zone and enterprise["TimeZoneIdentifier"] != zone:
            raise ValueError(f"vouchers puts enterprise {enterprise_id} in two time zones.")
        zones.setdefault(enterprise["TimeZoneIdentifier"], enterprise_id)
        service_id = record.get("ServiceId") or _make_id("service", enterprise_id)
        services.setdefault(service_id, _service(service_id, enterprise_id, now))
        made.append(_voucher(record, service_id, enterprise_id, len(made), now))
    while len(enterprises) < 2:
        enterprise_id = _make_id("enterprise", len(enterprises))
        enterprises[enterprise_id] = _enterprise(enterprise_id, len(enterprises), None, None, now)
        service_id = _make_id("service", enterprise_id)
        services[service_id] = _service(service_id, enterprise_id, now)
    return Estate(list(enterprises.values()), list(services.values()), made)


def _to_records(vouchers: pd.DataFrame) -> list[Record]:
    if "Id" not in vouchers.columns:
        raise ValueError("vouchers has no column Id.")
    records = vouchers.to_dict("records")
    return [
        {str(name): value for name, value in record.items() if not _is_missing(value)} for record in records
    ]


def _is_missing(value: object) -> bool:
    return value is None or value is pd.NA or value != value


def _make_id(kind: str, name: object) -> str:
    return str(uuid5(NAMESPACE_URL, f"vouchertools:{kind}:{name}"))


def _enterprise(enterprise_id: str, number: int, name: str | None, zone: str | None, now: str) -> Record:
    return {
        "Id": enterprise_id,
        "Name": name or f"Hotel {number + 1}",
        "ChainId": CHAIN_ID,
        "TimeZoneIdentifier": zone or TIME_ZONE,
        "CreatedUtc": now,
        "UpdatedUtc": now,
    }


def _service(service_id: str, enterprise_id: str, now: str) -> Record:
    return {
        "Id": service_id,
        "EnterpriseId": enterprise_id,
        "IsActive": True,
        "CreatedUtc": now,
        "UpdatedUtc": now,
        "Names": {"en-US": "Accommodation"},
        "Data": {"Discriminator": "Bookable", "Value": {}},
    }


def _voucher(record: Record, service_id: str, enterprise_id: str, number: int, now: str) -> Record:
    is_active = bool(record.get("IsActive", True))
    return {
        "Id": str(record["Id"]),
        "ServiceId": service_id,
        "EnterpriseId": enterprise_id,
        "Name": record.get("Name") or f"Voucher {number + 1}",
        "Type": record.get("Type") or "Public",
        "CreatedUtc": now,
        "UpdatedUtc": now,
        "CompanyId": None,
        "TravelAgencyId": None,
        "OccupiableIntervalStartUtc": None,
        "OccupiableIntervalEndUtc": None,
        "ExternalIdentifier": None,
        "IsActive": is_active,
        "ActivityState": "Active" if is_active else "Deleted",
    }
