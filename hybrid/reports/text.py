"""How numbers look in a report."""

import math
from collections.abc import Callable

NOTHING = "–"


def number(value: float | None) -> str:
    """A number with four significant digits: 1,234,567, 0.1234, 1.2e-07; a dash for None and NaN."""
    if value is None or math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == int(value) and abs(value) < 1e12:
        return f"{int(value):,}".replace("-", "−")
    if not 1e-4 <= abs(value) < 1e9:
        return f"{value:.3g}".replace("e-", "e−").replace("e+", "e")
    decimals = max(0, 3 - math.floor(math.log10(abs(value))))
    shown = f"{value:,.{decimals}f}"
    return (shown.rstrip("0").rstrip(".") if "." in shown else shown).replace("-", "−")


def percent(value: float | None) -> str:
    """A fraction as a percentage: 12.3 %, <0.1 %; a dash for None and NaN."""
    if value is None or math.isnan(value):
        return NOTHING
    if 0 < value < 0.0005:
        return "<0.1 %"
    if 0.9995 < value < 1:
        return ">99.9 %"
    return f"{100 * value:.1f} %".replace(".0 %", " %").replace("-", "−")


def decimal(value: float | None) -> str:
    """A number between -10 and 10 with three decimals, so that a column of them lines up: 0.950, −0.010."""
    return NOTHING if value is None or math.isnan(value) else f"{value:.3f}".replace("-", "−")


def size(value: float) -> str:
    """A number of bytes: 512 B, 12.3 kB, 4.5 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


FORMATS: dict[str, Callable[..., str]] = {"number": number, "percent": percent, "decimal": decimal, "size": size}


def show(value: object, format: str = "number") -> str:
    """A table cell or chart label: numbers in the named format, booleans as yes and no, anything else as it is."""
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return FORMATS[format](value)
    return str(value)


def elide(value: object, length: int) -> str:
    """The text with its middle left out when it is longer than `length` characters."""
    shown = str(value)
    if len(shown) <= length:
        return shown
    tail = (length - 1) // 3
    return f"{shown[: length - 1 - tail]}…{shown[len(shown) - tail :]}"
