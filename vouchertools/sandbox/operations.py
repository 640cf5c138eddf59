"""The six operations: a body that has passed its model in, the bytes of an answer or a `Refusal` out.

Every rule that needs the codes, the token's scope or a switch is here; of HTTP only the status is known.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from vouchertools.sandbox import bodies
from vouchertools.sandbox.estate import Estate, Record
from vouchertools.sandbox.store import NewRow, Row, Store, Wanted
from vouchertools.sandbox.switches import Switches
from vouchertools.sandbox.times import NEVER, add_months, show

#: The longest interval of ``UpdatedUtc``, in calendar months.
MAX_MONTHS = 3

_encode = json.JSONEncoder().encode
_UNKNOWN_FIELD = ',"Foretold":{"Nested":[null,1.5]}'


class Refusal(Exception):
    """An answer that is not a success: status, message, and headers of its own."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or {}


@dataclass(frozen=True)
class Scope:
    """What an access token reaches: enterprises by id in lower case; whether it is a portfolio token."""

    enterprise_ids: frozenset[str]
    is_portfolio: bool


@dataclass(frozen=True)
class Answer:
    """A success: its JSON, whether it is an empty page or an empty success, and the cursor it gives out."""

    content: bytes
    is_empty: bool = False
    cursor: str | None = None


@dataclass(frozen=True)
class Operation:
    """One operation: its path under the platform's root, its bodies, what carries it out."""

    name: str
    summary: str
    request: type[bodies.Envelope]
    answer: type[Any]
    run: Callable[[Any, Scope, int], Answer]
    writes: bool = False


class Operations:
    """The operations over one store and one estate."""

    def __init__(self, store: Store, estate: Estate, switches: Switches) -> None:
        self._store = store
        self._estate = estate
        self._switches = switches
        self._voucher_ids = [json.dumps(record["Id"]) for record in estate.vouchers]
        self._places: dict[str, set[int]] = {}
        for place, record in enumerate(estate.vouchers):
            self._places.setdefault(record["EnterpriseId"].lower(), set()).add(place)

    def all(self) -> list[Operation]:
        """List the operations."""
        codes_request = bodies.CodesRequest if self._switches.updated_required else bodies.CodesRequestOfToday
        return [
            Operation(
                "voucherCodes/getAll",
                "Read a page of voucher codes",
                codes_request,
                bodies.CodesAnswer,
                self.get_codes,
            ),
            Operation(
                "voucherCodes/add",
                "Add voucher codes",
                bodies.AddRequest,
                bodies.AddAnswer,
                self.add_codes,
                writes=True,
            ),
            Operation(
                "voucherCodes/delete",
                "Delete voucher codes",
                bodies.DeleteRequest,
                bodies.DeleteAnswer,
                self.delete_codes,
                writes=True,
            ),
            Operation(
                "enterprises/getAll",
                "Read a page of enterprises",
                bodies.EnterprisesRequest,
                bodies.EnterprisesAnswer,
                self.get_enterprises,
            ),
            Operation(
                "services/getAll",
                "Read a page of services",
                bodies.ServicesRequest,
                bodies.ServicesAnswer,
                self.get_services,
            ),
            Operation(
                "vouchers/getAll",
                "Read a page of vouchers",
                bodies.VouchersRequest,
                bodies.VouchersAnswer,
                self.get_vouchers,
            ),
        ]

    def get_codes(self, body: bodies.CodesRequestOfToday, scope: Scope, _stamp: int) -> Answer:
        """Answer a page of codes, newest first."""
        vouchers = self._vouchers_in(scope, body.EnterpriseIds)
        wanted_ids = dict.fromkeys(voucher.lower() for voucher in body.VoucherIds)
        places = [self._estate.place.get(voucher, -1) for voucher in wanted_ids]
        low, high = self._read_interval(body.UpdatedUtc)
        wanted = Wanted([place for place in places if place in vouchers], low, high, body.VoucherCodeIds)
        with self._store.lock:
            after = None
            if body.Limitation.Cursor is not None:
                row = self._store.find([body.Limitation.Cursor]).get(body.Limitation.Cursor.lower())
                if row is None:
                    raise Refusal(400, "Invalid Cursor: no such voucher code.")
                after = self._store.place(row)
                if not _is_wanted(row, wanted):
                    if self._switches.touched_cursor == "refused":
                        raise Refusal(400, "Invalid Cursor: the voucher code is not among those asked for.")
                    if self._switches.touched_cursor == "empty":
                        return self._codes_page([])
                    if self._switches.touched_cursor == "restart":
                        after = None
            return self._codes_page(self._store.page(wanted, after=after, count=body.Limitation.Count))

    def add_codes(self, body: bodies.AddRequest, scope: Scope, stamp: int) -> Answer:
        """Add codes, all or none."""
        vouchers = self._writable_vouchers(body.EnterpriseId, scope)
        rows: list[NewRow] = []
        seen: set[tuple[int, str]] = set()
        with self._store.transaction():
            for number, item in enumerate(body.VoucherCodeParameters):
                place = self._estate.place.get(item.VoucherId.lower())
                if place is None or place not in vouchers:
                    raise Refusal(
                        400, f"Invalid VoucherId: {item.VoucherId} of item {number} does not exist."
                    )
                if self._switches.duplicate_values == "refused":
                    if (place, item.Value) in seen or self._store.holds_active(place, item.Value):
                        raise Refusal(403, f"The voucher already has a code with the value of item {number}.")
                    seen.add((place, item.Value))
                starts = NEVER if item.ValidityStartUtc is None else item.ValidityStartUtc
                ends = NEVER if item.ValidityEndUtc is None else item.ValidityEndUtc
                rows.append((str(uuid4()), place, item.Value, starts, ends, stamp, stamp, 1))
            added = self._store.add(rows)
        return Answer(f'{{"VoucherCodes":[{self._codes_json(added)}]}}'.encode())

    def delete_codes(self, body: bodies.DeleteRequest, scope: Scope, stamp: int) -> Answer:
        """Delete codes softly, all or none."""
        vouchers = self._writable_vouchers(body.EnterpriseId, scope)
        with self._store.transaction():
            found = self._store.find(body.VoucherCodeIds)
            for code in body.VoucherCodeIds:
                row = found.get(code.lower())
                if row is None or row[2] not in vouchers:
                    raise Refusal(400, f"Invalid VoucherCodeIds: {code} does not exist.")
                if not row[8] and self._switches.deleting_deleted == "refused":
                    raise Refusal(400, f"Invalid VoucherCodeIds: {code} is already deleted.")
            self._store.change([row[1] for row in found.values() if row[8]], updated=stamp, active=0)
        return Answer(b"{}", is_empty=True)

    def get_enterprises(self, body: bodies.EnterprisesRequest, scope: Scope, _stamp: int) -> Answer:
        """Answer a page of the token's enterprises."""
        reach = _narrow(scope.enterprise_ids, body.EnterpriseIds)
        found = [record for record in self._estate.enterprises if record["Id"].lower() in reach]
        return self._records_page("Enterprises", found, self._estate.enterprises, body.Limitation)

    def get_services(self, body: bodies.ServicesRequest, scope: Scope, _stamp: int) -> Answer:
        """Answer a page of services, inactive ones too."""
        reach = _narrow(scope.enterprise_ids, body.EnterpriseIds)
        found = [record for record in self._estate.services if record["EnterpriseId"].lower() in reach]
        found = _having("Id", body.ServiceIds, found)
        return self._records_page("Services", found, self._estate.services, body.Limitation)

    def get_vouchers(self, body: bodies.VouchersRequest, scope: Scope, _stamp: int) -> Answer:
        """Answer a page of vouchers, inactive ones too; null where ``Extent`` does not ask for them."""
        if not body.Extent.Vouchers:
            return Answer(b'{"Vouchers":null,"Cursor":null}', is_empty=True)
        places = sorted(self._vouchers_in(scope, body.EnterpriseIds))
        found = _having("ServiceId", body.ServiceIds, [self._estate.vouchers[place] for place in places])
        found = _having("Id", body.VoucherIds, found)
        states = body.ActivityStates or ["Active", "Deleted"]
        found = [record for record in found if ("Active" if record["IsActive"] else "Deleted") in states]
        return self._records_page("Vouchers", found, self._estate.vouchers, body.Limitation)

    def _vouchers_in(self, scope: Scope, enterprise_ids: Sequence[str] | None) -> set[int]:
        reach = _narrow(scope.enterprise_ids, enterprise_ids)
        return set().union(*(self._places.get(enterprise, ()) for enterprise in reach))

    def _writable_vouchers(self, enterprise_id: str | None, scope: Scope) -> set[int]:
        if not scope.is_portfolio:
            return self._vouchers_in(scope, None)
        if enterprise_id is None:
            raise Refusal(400, "Invalid EnterpriseId: required with a portfolio access token.")
        if enterprise_id.lower() not in scope.enterprise_ids:
            raise Refusal(400, f"Invalid EnterpriseId: {enterprise_id} does not exist.")
        return self._vouchers_in(scope, [enterprise_id])

    def _read_interval(self, interval: bodies.Interval | None) -> tuple[int | None, int | None]:
        if interval is None:
            return None, None
        start, end = interval.StartUtc, interval.EndUtc
        if start > end:
            raise Refusal(400, "Invalid UpdatedUtc: StartUtc is later than EndUtc.")
        if end > add_months(start, MAX_MONTHS):
            raise Refusal(400, f"Invalid UpdatedUtc: longer than {MAX_MONTHS} months.")
        return start, end if self._switches.interval == "inclusive" or start == end else end - 1

    def _codes_page(self, rows: list[Row]) -> Answer:
        cursor = rows[-1][1] if rows else None
        text = f'{{"VoucherCodes":[{self._codes_json(rows)}],"Cursor":{json.dumps(cursor)}}}'
        return Answer(text.encode(), is_empty=not rows, cursor=cursor)

    def _codes_json(self, rows: Sequence[Row]) -> str:
        vouchers = self._voucher_ids
        endings = [self._ending(is_active=False), self._ending(is_active=True)]
        text = ",".join(
            f'{{"Id":"{id_}","VoucherId":{vouchers[voucher]},"Value":{_encode(value)},'
            f'"ValidityStartUtc":{show(starts)},"ValidityEndUtc":{show(ends)},'
            f'"CreatedUtc":{show(created)},"UpdatedUtc":{show(updated)}{endings[active]}'
            for _, id_, voucher, value, starts, ends, created, updated, active in rows
        )
        if self._switches.nulls == "omitted":
            records = json.loads(f"[{text}]")
            full = [
                {name: field for name, field in record.items() if field is not None} for record in records
            ]
            return json.dumps(full)[1:-1]
        return text

    def _ending(self, *, is_active: bool) -> str:
        state = f',"ActivityState":"{"Active" if is_active else "Deleted"}"'
        flag = f',"IsActive":{json.dumps(is_active)}'
        kept = {"both": state + flag, "ActivityState": state, "IsActive": flag}[self._switches.state]
        return kept + (_UNKNOWN_FIELD if self._switches.unknown_fields else "") + "}"

    def _records_page(
        self, name: str, found: list[Record], everything: list[Record], limitation: bodies.Limitation
    ) -> Answer:
        if limitation.Cursor is not None:
            order = {record["Id"].lower(): number for number, record in enumerate(everything)}
            last = order.get(limitation.Cursor.lower())
            if last is None:
                raise Refusal(400, f"Invalid Cursor: it is none of the {name}.")
            found = [record for record in found if order[record["Id"].lower()] > last]
        page = found[: limitation.Count]
        cursor = page[-1]["Id"] if page else None
        if self._switches.unknown_fields:
            page = [{**record, "Foretold": {"Nested": [None, 1.5]}} for record in page]
        return Answer(json.dumps({name: page, "Cursor": cursor}).encode(), is_empty=not page)


def _is_wanted(row: Row, wanted: Wanted) -> bool:
    in_interval = wanted.low is None or wanted.high is None or wanted.low <= row[7] <= wanted.high
    in_ids = wanted.ids is None or row[1].lower() in {code.lower() for code in wanted.ids}
    return in_interval and in_ids and row[2] in wanted.vouchers


def _narrow(reach: frozenset[str], asked: Sequence[str] | None) -> frozenset[str]:
    return reach if asked is None else reach & {enterprise.lower() for enterprise in asked}


def _having(name: str, asked: Sequence[str] | None, records: list[Record]) -> list[Record]:
    if asked is None:
        return records
    wanted = {item.lower() for item in asked}
    return [record for record in records if record[name].lower() in wanted]
