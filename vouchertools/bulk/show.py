"""How plans, runs, clients and caches look: one panel in a notebook, a few lines in a terminal.

A panel answers in five seconds: what, where, how many, what is worrying, a sample. Everything that came
from outside is escaped.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Final, NamedTuple

import pandas as pd

#: Rows of a sample.
SAMPLE: Final = 5
#: Vouchers and the like listed one by one; the rest is summed up.
LISTED: Final = 8
#: Characters of a text in a sample.
LONGEST: Final = 48

_BOX: Final = "border:1px solid #8888;border-left:6px solid {};border-radius:4px;padding:8px;max-width:62em"
_TABLE: Final = "display:inline-table;margin:6px 24px 6px 0;vertical-align:top"
_LEFT: Final = 'style="text-align:left"'
_COLOURS: Final = {"bad": "#b3261e", "careful": "#b26a00", "good": "#1b6e3c", "plain": "#33628f"}


class Notice(NamedTuple):
    """One line that wants attention: how urgent (``bad``, ``careful``, ``good``, ``plain``) and its text."""

    tone: str
    text: str


class Panel(NamedTuple):
    """What is shown: title, facts by name, notices, counts by heading, a sample."""

    title: str
    facts: Mapping[str, str]
    notices: Sequence[Notice]
    counts: Mapping[str, Mapping[str, int]] = {}
    sample: pd.DataFrame = pd.DataFrame()

    @property
    def tone(self) -> str:
        """The most urgent of its notices."""
        tones = [notice.tone for notice in self.notices]
        return next((tone for tone in _COLOURS if tone in tones), "plain")

    def to_html(self) -> str:
        """As a notebook shows it."""
        facts = " &nbsp;·&nbsp; ".join(
            f"{escape(name)} <b>{escape(text)}</b>" for name, text in self.facts.items() if text
        )
        notices = "".join(
            f'<div style="color:{_COLOURS[notice.tone]}">{_MARKS[notice.tone]} {escape(notice.text)}</div>'
            for notice in self.notices
        )
        tables = "".join(
            f'<table style="{_TABLE}"><tr><th colspan="2" {_LEFT}>{escape(heading)}</th></tr>'
            f"{_html_rows(counts)}</table>"
            for heading, counts in self.counts.items()
            if counts
        )
        sample = _html_table(self.sample) if len(self.sample) else ""
        title = f'<div style="font-size:1.15em"><b>{escape(self.title)}</b></div>'
        return (
            f'<div style="{_BOX.format(_COLOURS[self.tone])}">{title}<div>{facts}</div>{notices}'
            f"<div>{tables}</div>{sample}</div>"
        )

    def to_text(self) -> str:
        """As a terminal shows it."""
        lines = [self.title]
        lines += [f"  {name}: {text}" for name, text in self.facts.items() if text]
        lines += [f"  {_MARKS[notice.tone]} {notice.text}" for notice in self.notices]
        for heading, counts in self.counts.items():
            if counts:
                lines.append(f"  {heading}")
                width = max(len(name) for name in _shorten(counts))
                lines += [f"    {name:<{width}}  {number:>9,}" for name, number in _shorten(counts).items()]
        if len(self.sample):
            lines += [f"  Sample of {len(self.sample)}"]
            lines += [f"    {line}" for line in self.sample.to_string(index=False, na_rep="").splitlines()]
        return "\n".join(lines)


_MARKS: Final = {"bad": "✖", "careful": "!", "good": "✔", "plain": "·"}


def count_by(column: Iterable[str]) -> dict[str, int]:
    """How often each text occurs, the most frequent first."""
    return {str(name): int(number) for name, number in pd.Series(list(column)).value_counts().items()}


def pick_sample(frame: pd.DataFrame) -> pd.DataFrame:
    """A few rows spread over a frame, ids cut short, times to the minute."""
    places = (
        sorted({round(i * (len(frame) - 1) / max(1, SAMPLE - 1)) for i in range(SAMPLE)})
        if len(frame)
        else []
    )
    sample = frame.iloc[places].copy()
    for name in sample.columns:
        column = sample[name]
        if isinstance(column.dtype, pd.DatetimeTZDtype):
            sample[name] = [
                "" if pd.isna(time) else time.tz_convert("UTC").strftime("%Y-%m-%d %H:%M") for time in column
            ]
        elif str(name).endswith("Id"):
            sample[name] = ["" if pd.isna(text) else shorten_id(str(text)) for text in column]
        else:
            sample[name] = ["" if pd.isna(text) else _cut(str(text)) for text in column]
    return sample


def shorten_id(id_: str) -> str:
    """The first eight characters of an id: enough to tell it from others on one screen."""
    return f"{id_[:8]}…" if len(id_) > 9 else id_


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _shorten(counts: Mapping[str, int]) -> dict[str, int]:
    if len(counts) <= LISTED + 1:
        return dict(counts)
    listed = dict(list(counts.items())[:LISTED])
    return {**listed, f"{len(counts) - LISTED:,} more": sum(counts.values()) - sum(listed.values())}


def _html_rows(counts: Mapping[str, int]) -> str:
    return "".join(
        f'<tr><td {_LEFT}>{escape(name)}</td><td style="text-align:right">{number:,}</td></tr>'
        for name, number in _shorten(counts).items()
    )


def _html_table(frame: pd.DataFrame) -> str:
    head = "".join(f"<th {_LEFT}>{escape(str(name))}</th>" for name in frame.columns)
    body = "".join(
        "<tr>" + "".join(f"<td {_LEFT}>{escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in frame.itertuples(index=False)
    )
    return f'<table style="margin-top:4px"><tr>{head}</tr>{body}</table>'
