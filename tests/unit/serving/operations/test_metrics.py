"""What /metrics says."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from kfp_hybrid.serving.metrics import PENDING, FeatureCounts, Histogram, Metrics
from kfp_hybrid.serving.routing import Router


@pytest.fixture
def deployed(sums, tmp_path):
    return sums.deploy(tmp_path, 7)


@pytest.fixture
def metrics(deployed):
    metrics = Metrics("sums", Router(deployed))
    metrics.watch(deployed)
    return metrics


def read(metrics):
    """Name and labels (without the model's) -> value."""
    values = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            assert sample.labels.pop("model", "sums") == "sums"
            name = sample.name.removeprefix("kfp_hybrid_serving_")
            values[(name, *(value for _, value in sorted(sample.labels.items())))] = sample.value
    return values


def predict(deployed, *requests):
    """Requests of one turn of the event loop."""

    async def answered():
        return await asyncio.gather(*(deployed.batcher.submit(rows) for rows in requests))

    return asyncio.run(answered())


def test_answered_requests_are_counted_by_version_and_protocol(sums, deployed, metrics):
    for seconds, protocol in [(0.0002, "v1"), (0.02, "v1"), (60, "grpc")]:
        metrics.observe(sums.served(deployed.servable, [1, 2], seconds=seconds, protocol=protocol))
    values = read(metrics)
    assert values["rows_total", "v1", "7"] == 4
    assert values["request_seconds_count", "v1", "7"] == 2
    assert values["request_seconds_sum", "v1", "7"] == pytest.approx(0.0202)
    assert values["request_seconds_bucket", "0.00025", "v1", "7"] == 1
    assert values["request_seconds_bucket", "0.025", "v1", "7"] == 2
    assert values["request_seconds_bucket", "10", "grpc", "7"] == 0
    assert values["request_seconds_bucket", "+Inf", "grpc", "7"] == 1


def test_reading_the_metrics_changes_nothing(sums, deployed, metrics):
    metrics.observe(sums.served(deployed.servable, [1]))
    metrics.render()
    values = read(metrics)
    assert values["request_seconds_count", "v1", "7"] == values["request_seconds_bucket", "+Inf", "v1", "7"] == 1


def test_batches_are_counted_by_their_rows(sums, deployed, metrics):
    predict(deployed, *(sums.rows_of(deployed.servable, [i, i]) for i in range(3)))
    values = read(metrics)
    assert values["batch_rows_count", "7"] == 1
    assert values["batch_rows_sum", "7"] == 6


def test_missing_and_unknown_values_are_counted_by_feature(sums, deployed, metrics):
    one = sums.rows_of(deployed.servable, [1, None, 3], ["red", "blue", None])
    two = sums.rows_of(deployed.servable, [None], ["pink"])
    predict(deployed, one, two)
    values = read(metrics)
    assert values["feature_missing_total", "x", "7"] == 2
    assert values["feature_missing_total", "colour", "7"] == 1
    assert values["feature_unknown_total", "colour", "7"] == 2
    assert ("feature_unknown_total", "x", "7") not in values


def test_errors_are_counted_by_protocol_and_code(metrics):
    for code in (400, 400, 503):
        metrics.error("v2", code)
    values = read(metrics)
    assert values["errors_total", "400", "v2"] == 2
    assert values["errors_total", "503", "v2"] == 1


def test_each_loaded_version_and_what_it_is_used_for_is_named(sums, tmp_path, deployed):
    router = Router(deployed)
    router.canary(sums.deploy(tmp_path, 8), 5)
    infos = [family for family in text_string_to_metric_families(Metrics("sums", router).render().decode())
             if family.name == "kfp_hybrid_serving_model_info"]  # fmt: skip
    labels = [sample.labels for sample in infos[0].samples]
    assert [(each["role"], each["version"], each["engine"]) for each in labels] == [
        ("primary", "7", "litert"),
        ("candidate", "8", "litert"),
    ]


def test_other_parts_of_the_server_add_what_they_count(metrics):
    metrics.expose("counter", "table_rows", "Rows.", lambda: {("hit",): 3, ("miss",): 1}, ["found"])
    metrics.expose("gauge", "waiting", "Rows.", lambda: 5)
    values = read(metrics)
    assert (values["table_rows_total", "hit"], values["table_rows_total", "miss"], values[("waiting",)]) == (3, 1, 5)


def test_the_memory_of_the_process_is_among_them(metrics):
    assert read(metrics)[("process_resident_memory_bytes",)] > 1e6


@given(st.lists(st.floats(0, 100)), st.integers(1, 5))
def test_a_histogram_counts_each_value_in_all_buckets_that_hold_it(values, reads):
    histogram = Histogram((0.5, 1, 10))
    for position, value in enumerate(values):
        histogram.add(value)
        if position % reads == 0:
            histogram.buckets()
    expected = [sum(value <= bound for value in values) for bound in (0.5, 1, 10, float("inf"))]
    assert [count for _, count in histogram.buckets()] == expected
    assert histogram.sum == pytest.approx(sum(values))


def test_what_waits_to_be_counted_is_bounded(sums, deployed):
    histogram, counts = Histogram((1,)), FeatureCounts(deployed.servable.features)
    deployed.servable.on_inputs = counts.add
    for _ in range(3):
        deployed.servable.predict({"x": [None] * PENDING, "colour": [None] * PENDING})
        assert counts._pending == []
    assert counts.missing.tolist() == [3 * PENDING, 3 * PENDING]
    for _ in range(2 * PENDING):
        histogram.add(1)
        assert len(histogram._pending) < PENDING
