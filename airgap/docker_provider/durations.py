"""Durations as Go writes them ("1m30s") and as Docker takes them (nanoseconds)."""

import re
from typing import Final

SECOND: Final = 10**9
_UNITS: Final = {"h": 3600 * SECOND, "m": 60 * SECOND, "s": SECOND, "ms": 10**6, "us": 10**3, "µs": 10**3, "ns": 1}
_NUMBER: Final = r"\d+(?:\.\d*)?|\.\d+"
_UNIT: Final = "h|ms|m|us|µs|ns|s"
PATTERN: Final = rf"0|(?:(?:{_NUMBER})(?:{_UNIT}))+"
"""Regular expression of the accepted texts."""


def nanoseconds(text: str) -> int:
    """The duration of a text that matches PATTERN."""
    return round(sum(float(number) * _UNITS[unit] for number, unit in re.findall(f"({_NUMBER})({_UNIT})", text)))


def text(duration: int) -> str:
    """The text of a duration in nanoseconds, as Go's Duration.String gives it."""
    if duration == 0:
        return "0s"
    if duration < SECOND:
        unit = next(unit for unit in ("ms", "µs", "ns") if duration >= _UNITS[unit])
        return f"{_decimal(duration, _UNITS[unit])}{unit}"
    minutes, rest = divmod(duration, 60 * SECOND)
    hours, minutes = divmod(minutes, 60)
    head = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{head}{_decimal(rest, SECOND)}s"


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    return f"{whole}.{rest:0{len(str(unit)) - 1}d}".rstrip("0") if rest else str(whole)
