"""How figures and text are written: percentages, errors, counts, durations, and the escaping of all that comes from a file."""

from __future__ import annotations

import html
import sys
from typing import Any

MINUS, TIMES, PLUS_MINUS, ARROW, GLUE = "\u2212", "\u00d7", "\u00b1", "\u2192", "\u00a0"
TO = "\u2013"
_SUPERSCRIPT = str.maketrans(
    "-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"
)


def escape(text: Any) -> str:
    """Any value as text that is safe inside HTML elements and quoted attributes."""
    return html.escape(str(text), quote=True)


def number(value: Any) -> float | None:
    """A finite number, or None for everything else a damaged or hostile record may hold."""
    if (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and abs(value) <= sys.float_info.max
    ):
        return float(value)
    return None


def percent(value: float | None, digits: int = 1) -> str:
    return "not measured" if value is None else f"{100 * value:.{digits}f}%".replace("-", MINUS)


def percent_with_error(
    value: float | None,
    error: float | None,
    digits: int = 1,
    interval: tuple[float, float] | None = None,
) -> str:
    """`72.4 ± 1.8%`: a share with one standard error; `0.0% (95%: 0.0–3.7%)` where the error says
    nothing, as all or nothing was right, and the interval is known."""
    if value is not None and not error and interval:
        return f"{percent(value, digits)} ({percent_range(interval, digits)})"
    if value is None or error is None:
        return percent(value, digits)
    return f"{100 * value:.{digits}f}{GLUE}{PLUS_MINUS}{GLUE}{100 * error:.{digits}f}%"


def percent_range(interval: tuple[float, float], digits: int = 1) -> str:
    low, high = (f"{100 * end:.{digits}f}" for end in interval)
    return f"95%:{GLUE}{low}{TO}{high}%"


def count(value: float | None) -> str:
    """`1,886`; from a million on three digits: `6.29 M`."""
    if value is None:
        return "?"
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:,.0f}"


def compact(value: float | None) -> str:
    """Three significant digits; powers of ten beyond what reads well."""
    if value is None:
        return "null"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e6 or size < 1e-3:
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        factor = (
            ""
            if mantissa == "1.0"
            else mantissa.removesuffix(".0").replace("-", MINUS) + f"{GLUE}{TIMES}{GLUE}"
        )
        return f"{factor}10{str(int(exponent)).translate(_SUPERSCRIPT)}"
    return (f"{value:,.0f}" if size >= 1000 else f"{value:.3g}").replace("-", MINUS)


def in_unit(value: float | None, unit: str) -> str:
    """A value as it is read aloud in its unit of the glossary."""
    if value is None:
        return "null"
    if unit == "fraction":
        return percent(value)
    if unit == "tokens":
        return count(value) if value >= 1000 else compact(value)
    return compact(value)


def duration(seconds: float | None) -> str:
    """`48 s`, `5 min 12 s`, `3 h 4 min`."""
    if seconds is None:
        return "?"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def or_unknown(value: Any) -> str:
    return "unknown" if value is None else str(value)
