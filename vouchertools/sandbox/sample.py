"""The sample: codes of real campaigns, and their vouchers in the metadata of the same Parquet file."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from vouchertools.sandbox.estate import Estate

#: When its clock starts: in the middle of its campaigns.
CLOCK = datetime(2017, 11, 10, 12, tzinfo=UTC)


def read() -> tuple[pd.DataFrame, Estate]:
    """Read the sample from the wheel, else from the checkout.

    Raises
    ------
    FileNotFoundError
        It is in neither.
    """
    from pyarrow import parquet

    here = Path(__file__).parent
    for path in (here / "sample.parquet", here.parents[1] / "data" / "sample.parquet"):
        if path.exists():
            table = parquet.read_table(path)
            return table.to_pandas(), Estate(**json.loads(table.schema.metadata[b"vouchertools"]))
    raise FileNotFoundError("The sample is neither in the package nor in data/: reinstall vouchertools.")
