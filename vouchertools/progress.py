"""Progress bars: one that says what it counts, in a terminal and in a notebook alike."""

from typing import Any


def bar(desc: str, unit: str, *, total: int | None = None, show: bool = True) -> Any:
    """A tqdm bar; with `show=False` it counts without being seen."""
    from tqdm.auto import tqdm

    return tqdm(desc=desc, unit=f" {unit}", total=total, disable=not show, mininterval=0.5, smoothing=0.05)
