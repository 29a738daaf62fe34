"""The statistics of generate_statistics against those of TFDV's own paths, on the same data."""

import csv

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from tensorflow_metadata.proto.v0.statistics_pb2 import (
    DatasetFeatureStatistics,
    DatasetFeatureStatisticsList,
    FeatureNameStatistics,
    Histogram,
)

from kfp_hybrid.components.data_validation.generate_statistics import chunks, generate
from kfp_hybrid.components.data_validation.generate_statistics.generate import Request, generate_statistics
from kfp_hybrid.components.data_validation.generate_statistics.statistics import EXACT_COUNTS
from kfp_hybrid.data import examples as examples_module
from kfp_hybrid.data.csv import read_csv
from kfp_hybrid.data.examples import ExamplesWriter
from kfp_hybrid.step import StepError

ROWS = 6000
EPSILON = 0.01  # the error of TFDV's quantiles, as a share of the rows


def mixed_columns(rows=ROWS, seed=11):
    """Columns as text, one for each peculiarity of the CSV path."""
    random = np.random.default_rng(seed)

    def some(texts, missing):
        return ["" if random.random() < missing else text for text in texts]

    return {
        "integer": some(map(str, random.integers(-500, 500, rows)), 0.1),
        "large_integer": [str(number) for number in random.integers(-(2**62), 2**62, rows)],
        "beyond_64_bits": ["7"] * (rows - 1) + ["9223372036854775808"],
        "flag": some(["0", "1"] * (rows // 2), 0),
        "fraction": some((f"{number:.7g}" for number in random.lognormal(3, 2, rows)), 0.3),
        "exponent": [f"{number:e}" for number in random.normal(0, 1e-30, rows)],
        "not_finite": ["nan", "inf", "-inf", *(f"{number:.3f}" for number in random.normal(5, 1, rows - 3))],
        "late_fraction": [*(str(i % 50) for i in range(rows - 1)), "0.5"],
        "late_string": [*(str(i % 50) for i in range(rows - 1)), "n/a"],
        "mostly_missing": [*([""] * (rows - 2)), "3", "4"],
        "always_missing": [""] * rows,
        "constant": ["x"] * rows,
        "word": some((f"w{word}" for word in random.zipf(1.4, rows) % 90), 0.2),
        "many_words": [f"word {word}" for word in random.zipf(1.2, rows) % 3000],
        "identifier": [f"id-{i:x}-{number:x}" for i, number in enumerate(random.integers(0, 2**40, rows))],
        "unicode": [["Zürich", "東京", "🛫 прилёт", "e\u0301", "\u200b"][i] for i in random.integers(0, 5, rows)],
        "quoted": [['say "hi"', "a,b", " padded ", "'", "1;2"][i] for i in random.integers(0, 5, rows)],
        "looks_like_something": [["NA", "null", "true", "2013-01-01", "None"][i] for i in random.integers(0, 5, rows)],
        "very_long": [
            ["a", "b" * 1024, "c" * 1025, "d" * 100_000, "ü" * 3000][i % 5 if i < 50 else 0] for i in range(rows)
        ],
    }


def write_csv(path, columns):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def ours_from_csv(path, **parameters):
    """Our statistics of a CSV file, by way of an examples artifact."""
    schema, batches = read_csv(path)
    examples, statistics = path.with_suffix(".examples"), path.with_suffix(".statistics")
    with ExamplesWriter(examples, {field.name: type_name(field.type) for field in schema}) as writer:
        for batch in batches:
            writer.write("train", batch)
    generate_statistics(str(examples), str(statistics), Request(**parameters))
    return DatasetFeatureStatisticsList.FromString((statistics / "stats.pb").read_bytes())


def type_name(arrow_type):
    return next(name for name, type_ in examples_module.TYPES.items() if type_ == arrow_type)


def tfdv_from_csv(path, **options):
    return tfdv.generate_statistics_from_csv(str(path), stats_options=tfdv.StatsOptions(**options))


def features_of(dataset: DatasetFeatureStatistics):
    return {feature.path.step[0]: feature for feature in dataset.features}


def assert_same_statistics(ours, theirs):
    """Equal but for rounding and for the error that the sketches state."""
    assert ours.num_examples == theirs.num_examples
    assert ours.weighted_num_examples == pytest.approx(theirs.weighted_num_examples)
    one, other = features_of(ours), features_of(theirs)
    assert list(one) == list(other)
    for name in one:
        assert one[name].type == other[name].type, name
        assert one[name].WhichOneof("stats") == other[name].WhichOneof("stats"), name
        if one[name].WhichOneof("stats") == "string_stats":
            assert_same_strings(name, one[name].string_stats, other[name].string_stats, ours.num_examples)
        else:
            assert_same_numbers(name, one[name].num_stats, other[name].num_stats, ours.num_examples)


def assert_same_common(name, ours, theirs):
    for field, value in theirs.ListFields():
        if field.name not in ("weighted_common_stats", "num_values_histogram"):
            assert getattr(ours, field.name) == value, (name, field.name)
    assert len(ours.num_values_histogram.buckets) == len(theirs.num_values_histogram.buckets)
    for field, value in theirs.weighted_common_stats.ListFields():
        assert getattr(ours.weighted_common_stats, field.name) == pytest.approx(value, rel=1e-6), (name, field.name)


def assert_same_strings(name, ours, theirs, rows):
    assert_same_common(name, ours.common_stats, theirs.common_stats)
    assert ours.unique == theirs.unique, name
    assert ours.avg_length == pytest.approx(theirs.avg_length), name
    if theirs.unique <= EXACT_COUNTS:
        assert list(ours.top_values) == list(theirs.top_values), name
        assert ours.rank_histogram == theirs.rank_histogram, name
    else:
        for one, other in zip(ours.top_values, theirs.top_values, strict=True):
            assert other.frequency <= one.frequency <= other.frequency + rows / EXACT_COUNTS, name
    weighted = {value.value: value.frequency for value in theirs.weighted_string_stats.top_values}
    if weighted and theirs.unique <= EXACT_COUNTS:
        top = ours.weighted_string_stats.top_values
        assert {value.value: value.frequency for value in top} == pytest.approx(weighted, rel=1e-5), name


def assert_same_numbers(name, ours, theirs, rows):
    assert_same_common(name, ours.common_stats, theirs.common_stats)
    for field in ("min", "max", "num_zeros"):
        assert getattr(ours, field) == getattr(theirs, field), name
    for field in ("mean", "std_dev"):
        assert getattr(ours, field) == pytest.approx(getattr(theirs, field), rel=1e-9, nan_ok=True), name
    one, other = ours.weighted_numeric_stats, theirs.weighted_numeric_stats
    for field in ("mean", "std_dev"):
        assert getattr(one, field) == pytest.approx(getattr(other, field), rel=1e-6, nan_ok=True), name
    assert len(ours.histograms) == len(theirs.histograms), name
    for mine, histogram in zip(ours.histograms, theirs.histograms, strict=True):
        assert_same_histogram(name, mine, histogram, rows)


def assert_same_histogram(name, ours, theirs, rows):
    assert (ours.type, ours.num_nan, len(ours.buckets)) == (theirs.type, theirs.num_nan, len(theirs.buckets)), name
    if ours.type == Histogram.STANDARD:
        np.testing.assert_allclose(edges(ours), edges(theirs), rtol=1e-12, err_msg=name)
        np.testing.assert_allclose(cumulative(ours), cumulative(theirs), atol=2 * EPSILON * rows, err_msg=name)
    else:
        np.testing.assert_allclose(cumulative(ours), cumulative(theirs), atol=2 * EPSILON * rows, err_msg=name)


def edges(histogram):
    return [histogram.buckets[0].low_value, *(bucket.high_value for bucket in histogram.buckets)]


def cumulative(histogram):
    return np.cumsum([bucket.sample_count for bucket in histogram.buckets])


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """The mixed columns as a CSV file, TFDV's statistics of it, and ours from several chunks in two processes."""
    path = write_csv(tmp_path_factory.mktemp("mixed") / "data.csv", mixed_columns())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examples_module, "ROW_GROUP_ROWS", 700)
        patch.setattr(chunks, "CHUNK_CELLS", 1400 * len(mixed_columns()))
        patch.setattr(generate, "CHUNK_CELLS", 1400 * len(mixed_columns()))
        ours = ours_from_csv(path, processes=2)
    return tfdv_from_csv(path), ours


def test_statistics_agree_with_tfdv_on_mixed_columns(mixed):
    theirs, ours = mixed
    assert_same_statistics(ours.datasets[0], theirs.datasets[0])


def test_types_are_those_of_tfdv(mixed):
    theirs, ours = mixed
    kinds = FeatureNameStatistics.Type
    found = {name: kinds.Name(feature.type) for name, feature in features_of(ours.datasets[0]).items()}
    assert found == {name: kinds.Name(feature.type) for name, feature in features_of(theirs.datasets[0]).items()}
    assert found["late_fraction"] == "FLOAT" and found["late_string"] == "STRING" and found["flag"] == "INT"


def test_quantiles_are_within_the_error_of_the_sketch(mixed):
    _, ours = mixed
    for name in ("integer", "fraction", "exponent"):
        values = np.sort(np.array([text for text in mixed_columns()[name] if text], np.float32))
        histograms = features_of(ours.datasets[0])[name].num_stats.histograms
        quantiles = next(h for h in histograms if h.type == Histogram.QUANTILES)
        for share, edge in zip(np.arange(11) / 10, edges(quantiles), strict=True):
            lowest = np.searchsorted(values, np.float32(edge), side="left") / len(values)
            highest = np.searchsorted(values, np.float32(edge), side="right") / len(values)
            assert lowest - EPSILON <= share <= highest + EPSILON, (name, share)


def test_the_inferred_schema_is_the_same(mixed):
    theirs, ours = mixed
    for infer_shape in (False, True):
        schema = tfdv.infer_schema(ours, infer_feature_shape=infer_shape)
        assert schema == tfdv.infer_schema(theirs, infer_feature_shape=infer_shape)
    domains = {domain.name: set(domain.value) for domain in schema.string_domain}
    assert "d" * 100_000 in domains["very_long"]
    assert "🛫 прилёт" in domains["unicode"]


def test_validation_finds_the_same_anomalies(mixed, tmp_path):
    theirs, ours = mixed
    schema = tfdv.infer_schema(theirs)
    tfdv.get_feature(schema, "integer").presence.min_fraction = 1.0
    tfdv.get_domain(schema, "word").value.remove("w1")
    tfdv.get_feature(schema, "unicode").drift_comparator.infinity_norm.threshold = 0.01
    tfdv.get_feature(schema, "integer").drift_comparator.jensen_shannon_divergence.threshold = 0.01
    changed = mixed_columns(rows=2000, seed=5)
    changed["integer"] = [f"{number:.2f}" for number in np.random.default_rng(3).normal(0, 9, 2000)]
    changed["unicode"] = ["Zürich" if i % 3 else "neu" for i in range(2000)]
    changed["additional"] = changed.pop("constant")
    path = write_csv(tmp_path / "changed.csv", changed)
    now, our_now = tfdv_from_csv(path), ours_from_csv(path)
    anomalies = tfdv.validate_statistics(now, schema, previous_statistics=theirs)
    our_anomalies = tfdv.validate_statistics(our_now, schema, previous_statistics=ours)
    assert {"integer", "word", "unicode", "constant", "additional"} <= set(anomalies.anomaly_info)
    assert our_anomalies == anomalies
    assert tfdv.validate_statistics(ours, tfdv.infer_schema(theirs)).anomaly_info == {}


def test_one_row(tmp_path):
    path = write_csv(tmp_path / "one.csv", {"i": ["3"], "f": ["0.1"], "s": ["ü"], "none": [""]})
    theirs, ours = tfdv_from_csv(path), ours_from_csv(path)
    assert_same_statistics(ours.datasets[0], theirs.datasets[0])
    assert tfdv.infer_schema(ours) == tfdv.infer_schema(theirs)


def test_no_rows(tmp_path):
    path = write_csv(tmp_path / "none.csv", {"i": [], "s": []})
    theirs, ours = tfdv_from_csv(path), ours_from_csv(path)
    assert ours.datasets[0].name == "train"
    ours.datasets[0].ClearField("name")
    assert ours == theirs
    schema = tfdv.infer_schema(theirs)
    assert tfdv.infer_schema(ours) == schema
    assert tfdv.validate_statistics(ours, schema) == tfdv.validate_statistics(theirs, schema)


def test_quoted_line_ends_which_tfdv_reads_from_examples_only(tmp_path):
    random = np.random.default_rng(2)
    columns = {
        "address": [["1 Main St\nSpringfield", "a\r\nb", "plain", '"\n"'][i] for i in random.integers(0, 4, 500)],
        "number": [str(number) for number in random.integers(0, 50, 500)],
        "fraction": [f"{number:.4f}" for number in random.normal(0, 1, 500)],
    }
    path = write_csv(tmp_path / "lines.csv", columns)
    with tf.io.TFRecordWriter(str(tmp_path / "lines.tfrecord")) as writer:
        for address, number, fraction in zip(*columns.values(), strict=True):
            features = {
                "address": tf.train.Feature(bytes_list=tf.train.BytesList(value=[address.encode()])),
                "number": tf.train.Feature(int64_list=tf.train.Int64List(value=[int(number)])),
                "fraction": tf.train.Feature(float_list=tf.train.FloatList(value=[float(fraction)])),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    theirs = tfdv.generate_statistics_from_tfrecord(str(tmp_path / "lines.tfrecord"))
    ours = ours_from_csv(path)
    in_order = sorted(theirs.datasets[0].features, key=lambda feature: list(columns).index(feature.path.step[0]))
    del theirs.datasets[0].features[:]
    theirs.datasets[0].features.extend(in_order)
    assert_same_statistics(ours.datasets[0], theirs.datasets[0])
    assert sorted_features(tfdv.infer_schema(ours)) == sorted_features(tfdv.infer_schema(theirs))


def sorted_features(schema):
    return sorted(text_format.MessageToString(feature) for feature in schema.feature)


@pytest.fixture(scope="module")
def weighted_csv(tmp_path_factory):
    random = np.random.default_rng(4)
    columns = {
        "carrier": [["UA", "AA", "9E", ""][i] for i in random.integers(0, 4, 900)],
        "hour": [str(hour) for hour in random.integers(5, 12, 900)],
        "delay": [f"{delay:.2f}" if delay > -1 else "" for delay in random.normal(0, 1, 900)],
        "weight": [f"{weight:.3f}" for weight in random.uniform(0.1, 4, 900)],
    }
    return write_csv(tmp_path_factory.mktemp("weighted") / "weighted.csv", columns)


@pytest.fixture(scope="module")
def sliced_by_tfdv(weighted_csv):
    slicers = [tfdv.experimental_get_feature_value_slicer({column: None}) for column in ("carrier", "hour")]
    theirs = tfdv_from_csv(weighted_csv, weight_feature="weight", experimental_slice_functions=slicers)
    return {dataset.name: dataset for dataset in theirs.datasets}


@pytest.mark.parametrize("beam_options", [{}, {"runner": "DirectRunner", "direct_num_workers": 1.0}])
def test_weighted_and_sliced_statistics_agree_with_tfdv_here_and_on_a_beam_runner(
    weighted_csv, sliced_by_tfdv, beam_options
):
    parameters = {"slice_columns": ["carrier", "hour"], "weight_column": "weight", "beam_options": beam_options}
    ours = ours_from_csv(weighted_csv, **parameters).datasets
    hours = sorted({int(name.removeprefix("hour_")) for name in sliced_by_tfdv if name.startswith("hour_")})
    names = [f"carrier_{carrier}" for carrier in ("9E", "AA", "UA")] + [f"hour_{hour}" for hour in hours]
    assert [dataset.name for dataset in ours] == ["train", *(f"train/{name}" for name in names)]
    assert len(sliced_by_tfdv) == len(ours)
    for dataset in ours:
        theirs = sliced_by_tfdv[dataset.name.removeprefix("train/").replace("train", "All Examples")]
        assert_same_statistics(dataset, theirs)


def test_a_beam_runner_gives_every_split_its_entry(tmp_path):
    with ExamplesWriter(tmp_path / "examples", {"word": "string", "none": "null"}, ["train", "eval", "later"]) as w:
        schema = examples_module.arrow_schema({"word": "string", "none": "null"})
        for split, words in (("train", ["a", "b", None]), ("eval", ["c"])):
            w.write(split, pa.RecordBatch.from_arrays([pa.array(words), pa.nulls(len(words))], schema=schema))
    for name, options in (("here", {}), ("beam", {"runner": "DirectRunner"})):
        generate_statistics(str(tmp_path / "examples"), str(tmp_path / name), Request(beam_options=options))
    here, beam = ((tmp_path / name / "stats.pb").read_bytes() for name in ("here", "beam"))
    assert DatasetFeatureStatisticsList.FromString(here) == DatasetFeatureStatisticsList.FromString(beam)
    assert [path.name for path in (tmp_path / "beam").iterdir()] == ["stats.pb"]


def test_a_pipeline_that_fails_on_a_beam_runner_is_an_error_and_leaves_nothing(tmp_path):
    path = write_csv(tmp_path / "data.csv", {"word": [f"w{i}" for i in range(3000)]})
    ours_from_csv(path)
    file = tmp_path / "data.examples" / "train" / "part-00000.parquet"
    content = bytearray(file.read_bytes())
    content[100:2000] = bytes(1900)  # the footer stays readable
    file.write_bytes(content)
    with pytest.raises(StepError, match=r"Beam's \w+ failed: .*; the log above says where"):
        request = Request(beam_options={"runner": "DirectRunner"})
        generate_statistics(str(tmp_path / "data.examples"), str(tmp_path / "beam"), request)
    assert list((tmp_path / "beam").iterdir()) == []
