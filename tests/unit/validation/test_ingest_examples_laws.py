"""What must hold for any input; found counterexamples are shrunk by hypothesis."""

import csv
import io

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from kfp_hybrid.components.data_processing.ingest_examples.ingest import Request, ingest_examples
from kfp_hybrid.components.data_processing.ingest_examples.row_hash import hash_rows
from kfp_hybrid.data.examples import Examples

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15

VALUES = st.one_of(st.just(""), st.integers(-5, 5).map(str), st.text(max_size=20).filter(lambda text: "\0" not in text))
TEXTS = st.one_of(st.none(), st.text(max_size=40))


def mix(value):
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & MASK
    return value ^ value >> 31


def hash_text(data):
    """The definition in row_hash.py, word by word."""
    words = [int.from_bytes(data[start : start + 8], "little") for start in range(0, len(data), 8)]
    return (mix(len(data)) + sum(mix((word + (index + 1) * GOLDEN) & MASK) for index, word in enumerate(words))) & MASK


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=10), st.integers(0, 5))
def test_the_hash_is_the_one_that_is_documented(rows, skipped):
    rows = rows[: len(rows)]
    columns = {name: pa.array([row[index] for row in rows], pa.string()) for index, name in enumerate("ba")}
    sliced = {name: array.slice(min(skipped, len(rows))) for name, array in columns.items()}
    expected = []
    for row in rows[min(skipped, len(rows)) :]:
        value = 0
        for text in (row[1], row[0]):  # in the order of the names
            value = mix((value + hash_text((text or "").encode()) + GOLDEN) & MASK)
        expected.append(value)
    assert hash_rows(sliced).tolist() == expected


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(-(2**53) + 1, 2**53 - 1)), max_size=10))
def test_integers_hash_alike_as_integers_numbers_and_texts(values):
    as_texts = pa.array([None if value is None else str(value) for value in values], pa.string())
    expected = hash_rows({"x": as_texts}).tolist()
    assert hash_rows({"x": pa.array(values, pa.int64())}).tolist() == expected
    assert hash_rows({"x": pa.array(values, pa.float64())}).tolist() == expected


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(width=64), max_size=10))
def test_other_numbers_hash_by_their_bytes(values):
    hashes = hash_rows({"x": pa.array(values, pa.float64())}).tolist()
    for value, found in zip(values, hashes, strict=True):
        if not value.is_integer() or abs(value) >= 2**53:
            canonical = np.array([np.nan if value != value else value], "<f8").tobytes()
            assert found == mix((hash_text(canonical) + GOLDEN) & MASK)


def test_the_hash_is_evenly_spread():
    """A chi-squared test over 64 cells for keys that resemble each other; 103.4 is the 0.1 % point of 63 degrees."""
    for keys in (range(100_000), [f"key-{i:09d}" for i in range(100_000)], [i / 8 + 0.125 for i in range(100_000)]):
        hashes = hash_rows({"x": pa.array(keys)})
        for cells in (hashes >> np.uint64(58), hashes & np.uint64(63)):
            counts = np.bincount(cells.astype(np.int64), minlength=64)
            assert ((counts - 100_000 / 64) ** 2).sum() / (100_000 / 64) < 103.4


def write_csv(path, rows, line_end="\n"):
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=line_end, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *rows])
    path.write_bytes(text.getvalue().encode())


def split_of_rows(examples):
    """(split, row) of every row, values as text."""
    return sorted(
        (split, repr(sorted(row.items())))
        for split in examples.splits
        for batch in examples.batches(split)
        for row in batch.to_pylist()
    )


def ingest(path, source, **parameters):
    ingest_examples(str(path), Request(source=str(source), max_bad_fraction=1.0, **parameters))
    return Examples.open(path)


RATIOS = st.sampled_from(
    [{"train": 0.8, "eval": 0.2}, {"x": 1.0}, {"a": 0.25, "b": 0.25, "c": 0.5}, {"a": 0.0, "b": 1.0}]
)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(VALUES, VALUES), max_size=30),
    broken=st.lists(st.sampled_from(["1", "1,2,3", '"open', "\ud800,x"]), max_size=5),
    ratios=RATIOS,
    keys=st.sampled_from([[], ["a"], ["b", "a"]]),
)
def test_every_row_is_in_exactly_one_place(tmp_path_factory, rows, broken, ratios, keys):
    folder = tmp_path_factory.mktemp("law")
    write_csv(folder / "a.csv", rows)
    with (folder / "a.csv").open("ab") as file:
        file.write("".join(f"{row}\n" for row in broken).encode(errors="surrogatepass"))
    examples = ingest(folder / "examples", folder / "a.csv", split_ratios=ratios, key_columns=keys)
    assert sum(split.rows for split in examples.splits.values()) == len(rows)
    assert examples.quarantine.rows == len(broken)
    counted = sum(batch.num_rows for split in examples.splits for batch in examples.batches(split))
    assert counted == len(rows)
    assert sum(batch.num_rows for batch in examples.quarantined()) == len(broken)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=30), spans=st.sets(st.integers(-5, 5), min_size=1))
def test_excluded_rows_are_the_ones_of_no_split(tmp_path_factory, rows, spans):
    folder = tmp_path_factory.mktemp("law")
    rows = [(key if key.lstrip("-").isascii() and key.lstrip("-").isdigit() else "", text) for key, text in rows]
    write_csv(folder / "a.csv", [*rows, ("5", "kept")])
    spans = sorted(spans | {5})
    examples = ingest(folder / "examples", folder / "a.csv", split_column="a", split_values={"kept": spans})
    kept = sum(key != "" and int(key) in spans for key, _ in rows) + 1
    assert examples.rows("kept") == kept
    assert examples.excluded == len(rows) + 1 - kept


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=30), data=st.data(), ratios=RATIOS)
def test_neither_order_nor_files_nor_line_ends_move_a_row(tmp_path_factory, rows, data, ratios):
    folder = tmp_path_factory.mktemp("law")
    (folder / "many").mkdir()
    shuffled = data.draw(st.permutations(rows))
    cut = data.draw(st.integers(0, len(rows)))
    write_csv(folder / "one.csv", rows)
    write_csv(folder / "many" / "1.csv", shuffled[:cut], "\r\n")
    write_csv(folder / "many" / "2.csv", shuffled[cut:])
    one = ingest(folder / "a", folder / "one.csv", split_ratios=ratios)
    many = ingest(folder / "b", folder / "many", split_ratios=ratios)
    assert split_of_rows(one) == split_of_rows(many)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(VALUES, VALUES), min_size=2, max_size=30), ratios=RATIOS)
def test_a_row_keeps_its_split_when_other_rows_change_the_types(tmp_path_factory, rows, ratios):
    folder = tmp_path_factory.mktemp("law")
    half = len(rows) // 2
    write_csv(folder / "half.csv", rows[:half])
    write_csv(folder / "all.csv", rows)
    counts = []
    for name in ("half", "all"):
        examples = ingest(folder / name, folder / f"{name}.csv", split_ratios=ratios)
        counts.append({split: examples.rows(split) for split in examples.splits})
    write_csv(folder / "rest.csv", rows[half:])
    rest = ingest(folder / "rest", folder / "rest.csv", split_ratios=ratios)
    assert all(counts[1][split] == counts[0][split] + rest.rows(split) for split in rest.splits)
