import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "servers"))

from retry_clock import retry_clock  # noqa: F401
from store_fixtures import buckets, environment, faults, gs, gs_faults, place, s3, s3_server  # noqa: F401
