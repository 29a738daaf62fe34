"""The parts of generate_statistics: merging, slices, weights, processes, and mistakes in the parameters."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_metadata.proto.v0.statistics_pb2 import DatasetFeatureStatisticsList, Histogram

from kfp_hybrid.components.data_validation.generate_statistics import chunks, generate
from kfp_hybrid.components.data_validation.generate_statistics.generate import Request, generate_statistics
from kfp_hybrid.components.data_validation.generate_statistics.options import StatisticsOptions
from kfp_hybrid.components.data_validation.generate_statistics.parallel import map_in_order
from kfp_hybrid.components.data_validation.generate_statistics.statistics import (
    EXACT_COUNTS,
    PartialStatistics,
    accumulate,
)
from kfp_hybrid.data import examples as examples_module
from kfp_hybrid.data.examples import ExamplesWriter, arrow_schema
from kfp_hybrid.step import StepError

EPSILON = 0.01  # the error of TFDV's quantiles, as a share of the rows
COLUMNS = {"number": "int64", "fraction": "double", "word": "string", "nothing": "null", "weight": "double"}
ROW = st.tuples(
    st.none() | st.integers(-(2**53), 2**53),
    st.none() | st.floats(width=32),
    st.none() | st.text(st.characters(codec="utf-8"), max_size=5),
    st.none(),
    st.floats(0.125, 100, width=32),
)
OPTIONS = StatisticsOptions(string_columns=("word",), weight_column="weight")


def to_batch(rows, columns=COLUMNS):
    arrays = zip(*rows, strict=True) if rows else [[] for _ in columns]
    return pa.RecordBatch.from_arrays(
        [pa.array(list(values), type_) for values, type_ in zip(arrays, arrow_schema(columns).types, strict=True)],
        list(columns),
    )


def write_examples(path, columns=None, **splits):
    columns = columns or COLUMNS
    with ExamplesWriter(path, columns, splits) as writer:
        for split, rows in splits.items():
            writer.write(split, to_batch(rows, columns))
    return str(path)


def load(path):
    return DatasetFeatureStatisticsList.FromString((path / "stats.pb").read_bytes()).datasets


def generate_and_load(examples, path, **parameters):
    generate_statistics(examples, str(path), Request(**parameters))
    return load(path)


def features_of(dataset):
    return {feature.path.step[0]: feature for feature in dataset.features}


def sample_rows(count, seed=1):
    random = np.random.default_rng(seed)
    return [
        (
            int(random.integers(100)),
            None if random.random() < 0.2 else random.normal(),
            f"w{random.integers(30)}",
            None,
            random.random(),
        )
        for _ in range(count)
    ]


@pytest.fixture
def small_chunks(monkeypatch):
    """Row groups of 100 rows, chunks of two of them, so that a few hundred rows make several chunks."""
    monkeypatch.setattr(examples_module, "ROW_GROUP_ROWS", 100)
    monkeypatch.setattr(chunks, "CHUNK_CELLS", 200 * len(COLUMNS))
    monkeypatch.setattr(generate, "CHUNK_CELLS", 200 * len(COLUMNS))


# Merging


def assert_same_up_to_sketch_error(one, other):
    assert one.num_examples == other.num_examples
    assert one.weighted_num_examples == pytest.approx(other.weighted_num_examples)
    ours, theirs = features_of(one), features_of(other)
    assert ours.keys() == theirs.keys()
    for name, feature in ours.items():
        assert_same_feature(feature, theirs[name], one.num_examples)


def assert_same_feature(one, other, rows):
    assert one.type == other.type
    kind = one.WhichOneof("stats")
    assert kind == other.WhichOneof("stats")
    common, other_common = getattr(one, kind).common_stats, getattr(other, kind).common_stats
    for field in ("num_non_missing", "num_missing", "min_num_values", "max_num_values", "tot_num_values"):
        assert getattr(common, field) == getattr(other_common, field)
    weighted, other_weighted = common.weighted_common_stats, other_common.weighted_common_stats
    assert weighted.num_non_missing == pytest.approx(other_weighted.num_non_missing)
    if kind == "string_stats":
        assert_same_strings(one.string_stats, other.string_stats)
    else:
        assert_same_numbers(one.num_stats, other.num_stats, rows)


def assert_same_strings(one, other):
    assert one.unique == other.unique
    assert one.avg_length == pytest.approx(other.avg_length)
    assert list(one.top_values) == list(other.top_values)
    assert one.rank_histogram == other.rank_histogram
    weights, other_weights = (
        {value.value: value.frequency for value in strings.weighted_string_stats.top_values} for strings in (one, other)
    )
    assert weights == pytest.approx(other_weights, rel=1e-5)


def assert_same_numbers(one, other, rows):
    scale = max(abs(one.min), abs(one.max), 1e-300) if np.isfinite([one.min, one.max]).all() else 1
    for field in ("min", "max", "num_zeros"):
        assert getattr(one, field) == getattr(other, field)
    for field in ("mean", "std_dev"):
        assert getattr(one, field) == pytest.approx(getattr(other, field), rel=1e-9, abs=1e-9 * scale, nan_ok=True)
    weighted, other_weighted = one.weighted_numeric_stats, other.weighted_numeric_stats
    assert weighted.mean == pytest.approx(other_weighted.mean, rel=1e-6, abs=1e-6 * scale, nan_ok=True)
    assert len(one.histograms) == len(other.histograms)
    for histogram, other_histogram in zip(one.histograms, other.histograms, strict=True):
        assert (histogram.type, histogram.num_nan) == (other_histogram.type, other_histogram.num_nan)
        if histogram.type == Histogram.STANDARD:
            cumulative, other_cumulative = (
                np.cumsum([bucket.sample_count for bucket in h.buckets]) for h in (histogram, other_histogram)
            )
            # Each side may be off by the sketch's error.
            np.testing.assert_allclose(cumulative, other_cumulative, atol=2 * EPSILON * rows + 1e-6)


@settings(deadline=None, max_examples=150)
@given(data=st.data(), rows=st.lists(ROW, min_size=1, max_size=60))
def test_parts_merged_in_any_order_equal_the_whole(data, rows):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=6), "cuts"))
    bounds = zip([0, *cuts], [*cuts, len(rows)], strict=True)
    parts = data.draw(st.permutations([rows[start:end] for start, end in bounds]), "parts")
    merged = PartialStatistics(OPTIONS)
    for part in parts:
        merged.merge(accumulate([to_batch(part)], OPTIONS))
    (ours,), (whole,) = merged.extract("train"), accumulate([to_batch(rows)], OPTIONS).extract("train")
    assert merged.rows == len(rows)
    assert_same_up_to_sketch_error(ours, whole)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**32), parts=st.integers(1, 9))
def test_quantiles_and_frequent_strings_of_many_merged_parts_stay_within_the_error_of_the_sketches(seed, parts):
    random = np.random.default_rng(seed)
    numbers = random.lognormal(0, 3, 40_000).astype(np.float32)
    words = [f"w{word}" for word in random.zipf(1.1, len(numbers)) % 50_000]
    options = StatisticsOptions(string_columns=("word",))
    columns = {"number": pa.array(numbers, pa.float64()), "word": pa.array(words)}
    batch = pa.RecordBatch.from_arrays(list(columns.values()), list(columns))
    cuts = np.sort(random.integers(0, len(words), parts - 1)).tolist()
    merged = PartialStatistics(options)
    for start, end in zip([0, *cuts], [*cuts, len(words)], strict=True):
        merged.merge(accumulate([batch.slice(start, end - start)], options))
    features = features_of(merged.extract("train")[0])

    quantiles = next(h for h in features["number"].num_stats.histograms if h.type == Histogram.QUANTILES)
    ranks = np.searchsorted(np.sort(numbers), [bucket.high_value for bucket in quantiles.buckets], side="right")
    np.testing.assert_allclose(ranks / len(numbers), np.arange(1, 11) / 10, atol=EPSILON)

    counts = Counter(words)
    assert len(counts) > EXACT_COUNTS
    strings = features["word"].string_stats
    for top in strings.top_values:
        assert counts[top.value] <= top.frequency <= counts[top.value] + len(words) / EXACT_COUNTS
    assert strings.unique == pytest.approx(len(counts), rel=0.05)


# Splits, slices, weights


def test_every_split_has_its_entry_and_an_empty_one_has_no_rows(tmp_path):
    examples = write_examples(tmp_path / "examples", train=sample_rows(50), eval=sample_rows(1), later=[])
    metadata = generate_statistics(examples, str(tmp_path / "statistics"), Request())
    datasets = load(tmp_path / "statistics")
    assert [(d.name, d.num_examples, len(d.features)) for d in datasets] == [
        ("train", 50, 5),
        ("eval", 1, 5),
        ("later", 0, 0),
    ]
    assert metadata.pop("seconds") > 0
    assert metadata == {"rows_train": 50, "rows_eval": 1, "rows_later": 0, "features": 5, "slices": 0}


def test_a_slice_has_the_statistics_of_its_rows(tmp_path):
    rows = [*sample_rows(300), (None, 1.0, None, None, 1.0)]
    examples = write_examples(tmp_path / "examples", train=rows, eval=sample_rows(3))
    datasets = generate_and_load(examples, tmp_path / "statistics", slice_columns=["word", "number"], max_slices=100)
    by_name = {dataset.name: dataset for dataset in datasets}
    assert len(by_name) == len(datasets) and [d.name for d in datasets][:3] == [
        "train",
        "train/word_w0",
        "train/word_w1",
    ]
    for split, rows_of_split in (("train", rows), ("eval", sample_rows(3))):
        expected = {f"{split}/word_{word}" for _, _, word, _, _ in rows_of_split if word is not None}
        expected |= {f"{split}/number_{number}" for number, *_ in rows_of_split if number is not None}
        assert {name for name in by_name if name.startswith(f"{split}/")} == expected
    ours = [row for row in rows if row[2] == "w7"]
    alone = write_examples(tmp_path / "alone", train=ours)
    (expected,) = generate_and_load(alone, tmp_path / "alone_statistics")
    expected.name = "train/word_w7"
    assert by_name["train/word_w7"] == expected


def test_weights_count_rows_more_than_once(tmp_path):
    columns = {"x": "double", "w": "int64"}
    rows = [(1.0, 1), (2.0, 3), (None, 2), (5.0, 0)]
    repeated = [row for row in rows for _ in range(row[1])]
    weighted = write_examples(tmp_path / "weighted", columns, train=rows)
    plain = write_examples(tmp_path / "plain", columns, train=repeated)
    (ours,) = generate_and_load(weighted, tmp_path / "ours", weight_column="w")
    (expected,) = generate_and_load(plain, tmp_path / "expected")
    assert ours.weighted_num_examples == len(repeated)
    one, other = features_of(ours)["x"].num_stats, features_of(expected)["x"].num_stats
    assert one.weighted_numeric_stats.mean == pytest.approx(other.mean)
    assert one.weighted_numeric_stats.std_dev == pytest.approx(other.std_dev)
    assert one.common_stats.weighted_common_stats.num_missing == other.common_stats.num_missing


def test_bucket_parameters_reach_the_histograms(tmp_path):
    examples = write_examples(tmp_path / "examples", train=sample_rows(500))
    (dataset,) = generate_and_load(
        examples,
        tmp_path / "statistics",
        num_top_values=3,
        num_rank_histogram_buckets=7,
        num_histogram_buckets=4,
        num_quantiles_histogram_buckets=5,
    )
    features = features_of(dataset)
    assert len(features["word"].string_stats.top_values) == 3
    assert len(features["word"].string_stats.rank_histogram.buckets) == 7
    buckets = {h.type: len(h.buckets) for h in features["number"].num_stats.histograms}
    assert buckets == {Histogram.STANDARD: 4, Histogram.QUANTILES: 5}


def test_long_distinct_texts_are_counted_under_one_name_instead_of_filling_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "TEXT_COLUMN_BYTES", 100_000)
    columns = {"text": "string", "word": "string"}
    rows = [(f"{i:04d}" * 500, f"{i % 3}" * 2000) for i in range(300)]
    (dataset,) = generate_and_load(write_examples(tmp_path / "e", columns, train=rows), tmp_path / "s")
    features = features_of(dataset)
    assert [value.value for value in features["text"].string_stats.top_values] == ["__LARGE_BYTES__"]
    assert features["text"].string_stats.unique == 300
    assert features["text"].string_stats.avg_length == 2000
    assert {value.value for value in features["word"].string_stats.top_values} == {"0" * 2000, "1" * 2000, "2" * 2000}


# Processes


def test_the_result_does_not_depend_on_the_number_of_processes(tmp_path, small_chunks):
    examples = write_examples(tmp_path / "examples", train=sample_rows(1010), eval=sample_rows(330, seed=2))
    parameters = {"slice_columns": ["word"], "weight_column": "weight"}
    for processes in (1, 2, 5):
        request = Request(processes=processes, **parameters)
        generate_statistics(examples, str(tmp_path / f"statistics{processes}"), request)
    contents = {(tmp_path / f"statistics{processes}" / "stats.pb").read_bytes() for processes in (1, 2, 5)}
    assert len(contents) == 1
    assert [d.num_examples for d in load(tmp_path / "statistics2") if "/" not in d.name] == [1010, 330]


def test_few_rows_are_not_worth_a_second_process(tmp_path, monkeypatch):
    asked = []

    def record(function, items, processes):
        asked.append(processes)
        return map(function, items)

    monkeypatch.setattr(generate, "map_in_order", record)
    examples = write_examples(tmp_path / "examples", train=sample_rows(500), eval=sample_rows(100))
    generate_statistics(examples, str(tmp_path / "statistics"), Request(processes=8))
    assert asked == [1]


def slow_for_the_first(item):
    time.sleep(0.2 if item == 0 else 0)
    return item, os.getpid()


def test_results_of_processes_come_in_the_order_of_the_items():
    results = list(map_in_order(slow_for_the_first, range(20), 3))
    assert [item for item, _ in results] == list(range(20))
    assert os.getpid() not in {process for _, process in results}


def die_at_five(item):
    if item == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_a_killed_worker_is_an_error():
    with pytest.raises(StepError, match="worker processes was killed"):
        list(map_in_order(die_at_five, range(10), 2))


def fail_at_five(item):
    if item == 5:
        raise StepError("the file of item 5 is damaged")
    return item


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_in_a_worker_is_the_error_of_the_step(processes):
    with pytest.raises(StepError, match="the file of item 5 is damaged"):
        list(map_in_order(fail_at_five, range(10), processes))


WORKERS = """
    import os, time
    from kfp_hybrid.components.data_validation.generate_statistics.parallel import map_in_order

    def work(item):
        os.write(1, f"{os.getpid()}\\n".encode())  # in one piece: both workers write to the same pipe
        time.sleep(600)

    list(map_in_order(work, range(4), 2))
"""


def test_workers_do_not_outlive_a_killed_step():
    step = subprocess.Popen([sys.executable, "-c", textwrap.dedent(WORKERS)], stdout=subprocess.PIPE, text=True)
    workers = [int(step.stdout.readline()) for _ in range(2)]
    step.kill()
    step.wait()
    deadline = time.monotonic() + 120
    while any(is_running(worker) for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(process):
    try:
        with open(f"/proc/{process}/stat") as status:
            return status.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


# Mistakes


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"slice_columns": ["wrod"]}, "slice_columns names 'wrod'; the examples have the columns number, fraction"),
        ({"slice_columns": ["fraction"]}, "slice_columns names 'fraction', a column of type double"),
        ({"slice_columns": ["number"], "max_slices": 99}, "'number', which has more than 99 values"),
        ({"weight_column": "word"}, "weight_column names 'word', a column of type string"),
        ({"weight_column": "fraction"}, r"'fraction' holds no finite number >= 0 in \d+ of 2000 rows of split 'train'"),
        ({"num_histogram_buckets": 0}, "num_histogram_buckets is 0; give a number of at least 1"),
        ({"processes": -1}, "processes is -1"),
        ({"beam_options": {"runner": "DirctRunner"}}, "not pipeline options of Apache Beam: .*DirctRunner"),
        ({"beam_options": {"direct_num_workers": "two"}}, "Apache Beam: .*invalid int value: 'two'"),
    ],
)
def test_a_mistake_in_a_parameter_is_named_and_nothing_is_written(tmp_path, parameters, message):
    examples = write_examples(tmp_path / "examples", train=sample_rows(2000))
    with pytest.raises(StepError, match=message):
        generate_statistics(examples, str(tmp_path / "statistics"), Request(**parameters))
    assert not (tmp_path / "statistics" / "stats.pb").exists()


@pytest.mark.parametrize("weight", [None, -1.0, float("nan"), float("inf")])
def test_a_row_without_a_usable_weight_is_refused(tmp_path, weight):
    examples = write_examples(tmp_path / "examples", train=[*sample_rows(10), (1, 1.0, "a", None, weight)])
    with pytest.raises(StepError, match="in 1 of 11 rows of split 'train'"):
        generate_statistics(examples, str(tmp_path / "statistics"), Request(weight_column="weight"))


def test_a_column_without_any_weight_is_refused(tmp_path):
    examples = write_examples(tmp_path / "examples", train=[(1, None, "a", None, 1.0), (2, 0.5, "b", None, 0.0)])
    with pytest.raises(StepError, match="train cannot be weighted: there is a numeric column whose values all have"):
        generate_statistics(examples, str(tmp_path / "statistics"), Request(weight_column="weight"))


def test_slices_of_the_same_name_are_refused(tmp_path):
    examples = write_examples(tmp_path / "e", {"a": "string", "a_b": "string"}, train=[("b_c", "c")])
    with pytest.raises(StepError, match="the same name, 'a_b_c'"):
        generate_statistics(examples, str(tmp_path / "statistics"), Request(slice_columns=["a", "a_b"]))


def test_a_damaged_file_is_named(tmp_path):
    examples = write_examples(tmp_path / "examples", train=sample_rows(2000))
    file = tmp_path / "examples" / "train" / "part-00000.parquet"
    content = bytearray(file.read_bytes())
    content[100:2000] = bytes(1900)  # the footer stays readable
    file.write_bytes(content)
    with pytest.raises(StepError, match=r"cannot read .*part-00000.parquet"):
        generate_statistics(examples, str(tmp_path / "statistics"), Request())
    file.unlink()
    with pytest.raises(StepError, match=r"cannot read .*part-00000.parquet"):
        generate_statistics(examples, str(tmp_path / "statistics"), Request())


def test_an_output_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path):
    examples = write_examples(tmp_path / "examples", train=sample_rows(5))
    (tmp_path / "statistics").write_text("a file where the directory should be")
    with pytest.raises(StepError, match="cannot write"):
        generate_statistics(examples, str(tmp_path / "statistics"), Request())
    (tmp_path / "other" / "stats.pb").mkdir(parents=True)
    with pytest.raises(StepError, match="cannot write"):
        generate_statistics(examples, str(tmp_path / "other"), Request())
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["stats.pb"]


def test_mistakes_are_found_before_tfdv_is_imported(tmp_path):
    examples = write_examples(tmp_path / "examples", train=sample_rows(5))
    code = textwrap.dedent(f"""
        import sys
        from kfp_hybrid.components.data_validation.generate_statistics.generate import *
        try:
            generate_statistics({examples!r}, {str(tmp_path / "s")!r}, Request(slice_columns=["wrod"]))
        except StepError:
            print(sorted(sys.modules.keys() & {{"tensorflow", "tensorflow_data_validation", "apache_beam"}}))
    """)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
