"""The bodies on paper: what each operation takes and answers, as pydantic models.

They refuse what the contract refuses, field by field, and describe themselves to OpenAPI.
Names are the API's own. Rules that need the codes, the tokens or two fields at once are in ``operations.py``.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from vouchertools.sandbox.times import parse_utc

MAX_ITEMS = 1000
MAX_VALUE_LENGTH = 128

_HEX = "[0-9a-fA-F]"
Uuid = Annotated[
    str,
    StringConstraints(pattern=f"^{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}$"),
    WithJsonSchema({"type": "string", "format": "uuid"}),
]
Instant = Annotated[int, PlainValidator(parse_utc), WithJsonSchema({"type": "string", "format": "date-time"})]
Uuids = Annotated[list[Uuid], Field(min_length=1, max_length=MAX_ITEMS)]
#: JSON has one kind of number: 10.0 is a whole one too.
Count = Annotated[
    int,
    Field(ge=1, le=MAX_ITEMS),
    BeforeValidator(lambda n: int(n) if isinstance(n, float) and n.is_integer() else n),
]
Text = Annotated[str, StringConstraints(min_length=1)]


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class Limitation(_Body):
    """How many items to answer, and after which one."""

    Count: Count
    Cursor: Uuid | None = None


class Interval(_Body):
    """A time interval of at most three months."""

    StartUtc: Instant
    EndUtc: Instant


class Extent(_Body):
    """Which lists to answer."""

    Vouchers: bool = False


class Envelope(_Body):
    """What every body carries."""

    model_config = ConfigDict(
        json_schema_extra={
            "dependentRequired": {"LanguageCode": ["CultureCode"], "CultureCode": ["LanguageCode"]}
        }
    )

    ClientToken: Text
    AccessToken: Text
    Client: Text
    LanguageCode: str = ""
    CultureCode: str = ""
    MaskedAccessToken: str | None = None
    MaskedClientToken: str | None = None

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        given = {"LanguageCode", "CultureCode"} & self.model_fields_set
        if len(given) == 1:
            raise ValueError(f"{given.pop()} needs the other of LanguageCode and CultureCode")
        return self


class EnterprisesRequest(Envelope):
    """Body of ``enterprises/getAll``."""

    Limitation: Limitation
    EnterpriseIds: Uuids | None = None


class ServicesRequest(EnterprisesRequest):
    """Body of ``services/getAll``."""

    ServiceIds: Uuids | None = None


class VouchersRequest(EnterprisesRequest):
    """Body of ``vouchers/getAll``."""

    Extent: Extent
    ServiceIds: Uuids
    VoucherIds: Uuids | None = None
    ActivityStates: Annotated[list[Literal["Active", "Deleted"]], Field(min_length=1)] | None = None


class CodesRequestOfToday(EnterprisesRequest):
    """Body of ``voucherCodes/getAll`` where ``UpdatedUtc`` is optional."""

    VoucherIds: Uuids
    UpdatedUtc: Interval | None = None
    VoucherCodeIds: Uuids | None = None


class CodesRequest(CodesRequestOfToday):
    """Body of ``voucherCodes/getAll``."""

    UpdatedUtc: Interval


class CodeParameters(_Body):
    """One code to add."""

    VoucherId: Uuid
    Value: Annotated[str, Field(min_length=1, max_length=MAX_VALUE_LENGTH)]
    ValidityStartUtc: Instant | None = None
    ValidityEndUtc: Instant | None = None


class AddRequest(Envelope):
    """Body of ``voucherCodes/add``."""

    EnterpriseId: Uuid | None = None
    VoucherCodeParameters: Annotated[list[CodeParameters], Field(min_length=1, max_length=MAX_ITEMS)]


class DeleteRequest(Envelope):
    """Body of ``voucherCodes/delete``."""

    EnterpriseId: Uuid | None = None
    VoucherCodeIds: Uuids


class Code(BaseModel):
    """A voucher code."""

    Id: Uuid
    VoucherId: Uuid
    Value: str | None = None
    ValidityStartUtc: Instant | None = None
    ValidityEndUtc: Instant | None = None
    CreatedUtc: Instant | None = None
    UpdatedUtc: Instant | None = None
    ActivityState: Literal["Active", "Deleted"] | None = None
    IsActive: bool | None = None


class CodesAnswer(BaseModel):
    """A page of voucher codes."""

    VoucherCodes: Annotated[list[Code], Field(max_length=MAX_ITEMS)]
    Cursor: Uuid | None


class AddAnswer(BaseModel):
    """The codes that were created."""

    VoucherCodes: Annotated[list[Code], Field(max_length=MAX_ITEMS)]


class DeleteAnswer(BaseModel):
    """Nothing: the codes are deleted."""


class Enterprise(BaseModel):
    """An enterprise: a hotel."""

    Id: Uuid
    Name: str
    ChainId: Uuid
    TimeZoneIdentifier: str


class EnterprisesAnswer(BaseModel):
    """A page of enterprises."""

    Enterprises: list[Enterprise]
    Cursor: Uuid | None


class Service(BaseModel):
    """A service of an enterprise."""

    Id: Uuid
    EnterpriseId: Uuid
    IsActive: bool
    Names: dict[str, str]
    Data: dict[str, Any]


class ServicesAnswer(BaseModel):
    """A page of services."""

    Services: list[Service]
    Cursor: Uuid | None


class Voucher(BaseModel):
    """A voucher: what its codes open."""

    Id: Uuid
    ServiceId: Uuid
    EnterpriseId: Uuid
    Name: str
    Type: Literal["Public", "PartnerCompany", "TravelAgency"]
    CreatedUtc: Instant
    UpdatedUtc: Instant
    IsActive: bool


class VouchersAnswer(BaseModel):
    """A page of vouchers; null where ``Extent`` does not ask for them."""

    Vouchers: list[Voucher] | None
    Cursor: Uuid | None


class Problem(BaseModel):
    """A refusal."""

    Message: str
    RequestId: Uuid | None = None
    Details: Any = None
