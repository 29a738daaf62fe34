"""Metrics for Prometheus, counted so that a request costs well under a microsecond or two.

A request appends one number to an array, a batch one reference to a list. They are sorted into buckets some thousand at
a time, or when somebody asks. `prometheus_client` writes the text, and is imported by the first who asks.
"""

import threading
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfp_hybrid.preprocessing import MISSING_ID, OUT_OF_VOCABULARY_ID
from kfp_hybrid.serving.routing import Deployed, Router, Served
from kfp_hybrid.serving.servable import NUMBER, Array, Feature

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "kfp_hybrid_serving_"
SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)
PENDING = 4096  # values, or rows of features, that wait to be counted

Labels = tuple[str, ...]
Values = Mapping[Labels, float]


class Histogram:
    """Counts values by bucket.

    Args:
        bounds: upper limits of the buckets, which contain them; one more bucket has no limit.

    Attributes:
        sum: of the values.
    """

    __slots__ = ("_bounds", "_counts", "_pending", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.sum = 0.0
        self._bounds = np.array(bounds, np.float64)
        self._counts = np.zeros(len(bounds) + 1, np.int64)
        self._pending = array("d")

    def add(self, value: float) -> None:
        """Count a value."""
        self._pending.append(value)
        if len(self._pending) >= PENDING:
            self._count()

    def buckets(self) -> list[tuple[str, float]]:
        """Upper limit -> values up to it, as Prometheus wants them."""
        self._count()
        limits = [*(f"{bound:g}" for bound in self._bounds), "+Inf"]
        return list(zip(limits, np.cumsum(self._counts).tolist(), strict=True))

    def _count(self) -> None:
        values = np.array(self._pending)
        del self._pending[:]
        self.sum += float(values.sum())
        places = np.searchsorted(self._bounds, values)
        self._counts += np.bincount(places, minlength=len(self._counts))


class FeatureCounts:
    """Counts missing and unknown values by feature, from the inputs that the preprocessing made.

    Attributes:
        missing: [features], values that were missing.
        unknown: [features], values outside of the vocabulary.
    """

    def __init__(self, features: Sequence[Feature]) -> None:
        self.features = features
        self.missing = np.zeros(len(features), np.int64)
        self.unknown = np.zeros(len(features), np.int64)
        self._numbers = [i for i, feature in enumerate(features) if feature.kind == NUMBER]
        self._categories = [i for i, feature in enumerate(features) if feature.kind != NUMBER]
        self._lock = threading.Lock()  # batches are computed in several threads
        self._pending: list[Mapping[str, Array]] = []
        self._pending_rows = 0

    def add(self, inputs: Mapping[str, Array]) -> None:
        """Take note of a batch.

        Args:
            inputs: what `Preprocessing.transform` made; those of other models are passed over.
        """
        ids = inputs.get("categorical", inputs.get("bucket"))
        if ids is None:
            return
        with self._lock:
            self._pending.append(inputs)
            self._pending_rows += len(ids)
            full = self._pending_rows >= PENDING
        if full:
            self.count()

    def count(self) -> None:
        """Count what waits to be counted."""
        with self._lock:
            pending, self._pending, self._pending_rows = self._pending, [], 0
            if not pending:
                return
            if self._numbers:
                buckets = np.concatenate([inputs["bucket"] for inputs in pending])
                self.missing[self._numbers] += np.count_nonzero(buckets == MISSING_ID, axis=0)
            if self._categories:
                ids = np.concatenate([inputs["categorical"] for inputs in pending])
                self.missing[self._categories] += np.count_nonzero(ids == MISSING_ID, axis=0)
                self.unknown[self._categories] += np.count_nonzero(ids == OUT_OF_VOCABULARY_ID, axis=0)


@dataclass(frozen=True)
class _Reading:
    """A metric that is read from elsewhere when somebody asks."""

    kind: str
    name: str
    text: str
    labels: Sequence[str]
    read: Callable[[], float | Values]


class Metrics:
    """All metrics of one server; an observer of answered requests.

    Args:
        name: the name of the model.
        router: which versions there are.
    """

    def __init__(self, name: str, router: Router) -> None:
        self._name = name
        self._router = router
        self._seconds: dict[Labels, Histogram] = {}
        self._rows: Counter[Labels] = Counter()
        self._batches: dict[Labels, Histogram] = {}
        self._features: dict[str, FeatureCounts] = {}
        self._errors: Counter[Labels] = Counter()
        self._readings: list[_Reading] = []
        self._registry: CollectorRegistry | None = None

    def observe(self, served: Served) -> None:
        """Count an answered request."""
        labels = (served.servable.version, served.protocol)
        seconds = self._seconds.get(labels)
        if seconds is None:
            seconds = self._seconds[labels] = Histogram(SECONDS)
        seconds.add(served.seconds)
        self._rows[labels] += served.rows.count

    def error(self, protocol: str, code: int | str) -> None:
        """Count a request that was answered with an error.

        Args:
            protocol: as in `Served`.
            code: the status of HTTP, or the name of that of gRPC.
        """
        self._errors[protocol, str(code)] += 1

    def watch(self, deployed: Deployed) -> None:
        """Count the batches of a version and the values in them."""
        batches = self._batches.setdefault((deployed.version,), Histogram(ROWS))
        deployed.batcher.observers.append(lambda rows, seconds: batches.add(rows))
        if deployed.version not in self._features:
            self._features[deployed.version] = FeatureCounts(deployed.servable.features)
        deployed.servable.on_inputs = self._features[deployed.version].add

    def expose(
        self, kind: str, name: str, text: str, read: Callable[[], float | Values], labels: Sequence[str] = ()
    ) -> None:
        """Add a metric that is read when somebody asks.

        Args:
            kind: "counter" or "gauge".
            name: without prefix, and without the `_total` of counters.
            text: what it is.
            read: gives the number, or a number for each combination of labels.
            labels: the names of the labels.
        """
        self._readings.append(_Reading(kind, name, text, labels, read))

    def render(self) -> bytes:
        """The text that Prometheus reads; its type is `CONTENT_TYPE`."""
        from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

        if self._registry is None:
            self._registry = CollectorRegistry()
            self._registry.register(self)  # type: ignore[arg-type] # a collector is what has collect()
            ProcessCollector(registry=self._registry)
        return generate_latest(self._registry)

    def collect(self) -> Iterator["Metric"]:
        """All metrics; called by `prometheus_client`."""
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

        answered = ("version", "protocol")
        yield self._histogram("request_seconds", "Seconds from a request to its answer.", answered, self._seconds)
        yield self._histogram("batch_rows", "Rows of a batch.", ("version",), self._batches)
        info = InfoMetricFamily(PREFIX + "model", "Versions that are loaded.")
        queue: dict[Labels, float] = {}
        for role, deployed in self._router.routes.roles():
            servable = deployed.servable
            facts = {"version": servable.version, "engine": servable.engine, "sha256": servable.sha256}
            info.add_metric([], {"model": self._name, "role": role, **facts})
            queue[servable.version,] = deployed.batcher.queued_rows
        yield info
        own = [
            _Reading("counter", "rows", "Rows that were answered.", answered, lambda: self._rows),
            _Reading("counter", "errors", "Errors that were answered.", ("protocol", "code"), lambda: self._errors),
            _Reading("gauge", "queue_rows", "Rows that wait or are under way.", ("version",), lambda: queue),
            *self._feature_readings(),
        ]
        for reading in [*own, *self._readings]:
            make: Any = CounterMetricFamily if reading.kind == "counter" else GaugeMetricFamily
            family = make(PREFIX + reading.name, reading.text, labels=["model", *reading.labels])
            values = reading.read()
            for labels, value in values.items() if isinstance(values, Mapping) else [((), values)]:
                family.add_metric([self._name, *labels], value)
            yield family

    def _histogram(
        self, name: str, text: str, labels: Sequence[str], histograms: Mapping[Labels, Histogram]
    ) -> "Metric":
        from prometheus_client.metrics_core import HistogramMetricFamily

        family = HistogramMetricFamily(PREFIX + name, text, labels=["model", *labels])
        for values, histogram in list(histograms.items()):
            buckets = histogram.buckets()
            family.add_metric([self._name, *values], buckets, histogram.sum)
        return family

    def _feature_readings(self) -> list[_Reading]:
        missing: dict[Labels, float] = {}
        unknown: dict[Labels, float] = {}
        for version, counts in list(self._features.items()):
            counts.count()
            for i, feature in enumerate(counts.features):
                missing[version, feature.name] = int(counts.missing[i])
                if feature.vocabulary is not None:
                    unknown[version, feature.name] = int(counts.unknown[i])
        labels = ("version", "feature")
        return [
            _Reading("counter", "feature_missing", "Missing values.", labels, lambda: missing),
            _Reading("counter", "feature_unknown", "Values outside of the vocabulary.", labels, lambda: unknown),
        ]
