"""Records of one group stay in one split: by folder, file, column or key, of every kind of file."""

import json
from collections import Counter
from itertools import combinations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from own_files import fetch
from PIL import Image

from ae_pipeline.cli.stages.prepare import run as prepare
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.data.shares import nearest_share
from ae_pipeline.data.splits import write_splits
from ae_pipeline.errors import DataError
from ae_pipeline.params import Params, PrepareParams

RANDOM = np.random.default_rng(3)


def splits_of(tmp_path, column, fetched):
    """The values of a column in each of the three splits that `prepare` writes."""
    write_splits(fetched, tmp_path / "prepared", PrepareParams())
    names = ("train", "validation", "test")
    written = {name: SampleSet.open(tmp_path / "prepared" / name).load() for name in names}
    return {name: Counter(map(str, block.attributes.column(column).to_pylist())) for name, block in written.items()}


def are_apart(splits):
    """Whether each split has something, and no two have the same."""
    return all(splits.values()) and not any(one & other for one, other in combinations(map(set, splits.values()), 2))


def speakers(path, **more):
    """20 speakers of 5 to 24 vectors each, in any order, in two files."""
    names = np.repeat(np.arange(20), np.arange(5, 25))
    RANDOM.shuffle(names)
    path.mkdir()
    for number, some in enumerate(np.split(names, [100])):
        rows = pa.FixedSizeListArray.from_arrays(pa.array(RANDOM.normal(size=4 * len(some)).astype("f4")), 4)
        table = pa.table({"vector": rows, "speaker": some, **more})
        pq.write_table(table, path / f"{number}.parquet", row_group_size=30)
    return path


def drawings(folder, names):
    """A sub-folder for each name with as many pictures as it says."""
    for name, count in names.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(RANDOM.integers(0, 255, (9, 8), dtype=np.uint8)).save(folder / name / f"{number}.png")
    return folder


# --- which are taken -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3, 0.9])
@pytest.mark.parametrize("sizes", [[1] * 40, [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5], [100, 1, 1, 1], [7, 7, 7]])
def test_no_other_group_brings_the_share_nearer(sizes, share):
    sizes = np.array(sizes)
    taken = nearest_share(sizes, share, 1)
    off = abs(sizes[taken].sum() - share * sizes.sum())
    others = sizes[~taken] if (~taken).sum() > 1 else []
    assert all(abs(sizes[taken].sum() + size - share * sizes.sum()) >= off for size in others)
    assert 1 <= taken.sum() < len(sizes)


def test_a_share_that_no_group_is_small_enough_for_gets_the_smallest_and_one_too_large_leaves_some():
    assert nearest_share([50, 30, 20], 0.01, 2).tolist() == [False, False, True]
    assert nearest_share([50, 30, 20], 0.99, 2).tolist() == [True, False, False]


# --- what makes a group ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [None, "speaker"])
def test_a_columns_values_stay_together_in_all_three_splits_and_shares_are_near(label, tmp_path, capsys):
    fetched = fetch(tmp_path, path=speakers(tmp_path / "in"), kind="vector", group="speaker", label=label)
    splits = splits_of(tmp_path, (label and "label") or "speaker", fetched)
    assert are_apart(splits)
    counts = {name: sum(found.values()) for name, found in splits.items()}
    assert sum(counts.values()) == 290
    assert abs(counts["test"] - 29) <= 3
    assert abs(counts["validation"] - 26) <= 3
    said = capsys.readouterr()
    assert f"by `speaker`, 20 groups of 5 to 24 records: {len(splits['test'])} of them, " in said.out
    assert said.err == ""
    written = json.loads((tmp_path / "prepared/groups.json").read_text())
    assert written["by"] == "speaker"
    assert written["splits"] == {
        name: {"groups": len(found), "records": counts[name]} for name, found in splits.items()
    }


def test_the_seed_draws_them_and_the_order_of_records_does_not(tmp_path):
    def drawn_for_test(seed, path):
        found = fetch(tmp_path, path=path, kind="vector", group="speaker", seed=seed)["test"]
        return set(found.attributes["speaker"].to_pylist())

    path = speakers(tmp_path / "in")
    first = drawn_for_test(0, path)
    assert first == drawn_for_test(0, path)
    assert {frozenset(drawn_for_test(seed, path)) for seed in range(4)} > {frozenset(first)}
    whole = pq.read_table(path).sort_by("speaker")
    pq.write_table(whole, tmp_path / "sorted.parquet")
    assert drawn_for_test(0, tmp_path / "sorted.parquet") == first


def test_a_folder_of_pictures_is_a_group_whole_or_in_tiles(tmp_path, capsys):
    counts = {"a": 4, "b/deep": 3, "c": 6, "d": 5, "b/flat": 4}
    path = drawings(tmp_path / "in", counts)
    for settings in ({}, {"tile": 4}):
        fetched = fetch(tmp_path, path=path, group="folder", settings=settings, test_fraction=0.2)
        splits = splits_of(tmp_path, "source_file", fetched)
        folders = {name: {file.rpartition("/")[0] for file in files} for name, files in splits.items()}
        assert are_apart(folders)
        assert set.union(*folders.values()) == set(counts)
        written = json.loads((tmp_path / "prepared/groups.json").read_text())["splits"]
        assert sum(found["records"] for found in written.values()) == 22
        assert capsys.readouterr().out.startswith("by `folder`, 5 groups of 3 to 6 records: 1 of them, ")


def test_a_file_of_many_records_or_a_key_of_its_folder_is_a_group(tmp_path):
    for number in range(5):
        (tmp_path / f"in/site=s{number // 2}").mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / f"in/site=s{number // 2}/{number}.npy", RANDOM.normal(size=(6, 3)).astype("f4"))
    for group, column, many in (("source_file", "source_file", 5), ("site", "site", 3)):
        splits = splits_of(tmp_path, column, fetch(tmp_path, path=tmp_path / "in", kind="vector", group=group))
        assert are_apart(splits)
        assert len(set.union(*map(set, splits.values()))) == many


def test_columns_taken_together_and_an_array_beside_the_vectors(tmp_path):
    table = pq.read_table(speakers(tmp_path / "in"))
    numbers = np.stack(table.column("vector").to_pylist())
    alone = table.drop_columns("vector").append_column("x", pa.array(numbers[:, 0]))
    pq.write_table(alone, tmp_path / "x.parquet")
    together = fetch(tmp_path, path=tmp_path / "x.parquet", kind="vector", column=["x"], group="speaker")
    assert are_apart(splits_of(tmp_path, "speaker", together))
    np.savez(tmp_path / "x.npz", vector=numbers, speaker=table.column("speaker").to_numpy())
    arrays = fetch(tmp_path, path=tmp_path / "x.npz", kind="vector", group="speaker")
    assert are_apart(splits_of(tmp_path, "speaker", arrays))
    # The same values under the same seed are drawn, wherever they stand.
    assert set(arrays["test"].attributes["speaker"].to_pylist()) == set(
        together["test"].attributes["speaker"].to_pylist()
    )


def test_categories_texts_dates_and_the_own_layout(tmp_path):
    names = pa.array(["a", "b", "c", "d"] * 5)
    days = pa.array(np.repeat(np.arange(5), 4).astype("datetime64[D]"))
    rows = pa.array([bytes([number] * 4) for number in range(20)], pa.binary(4))
    table = pa.table({"pixels": rows, "name": names.dictionary_encode(), "day": days})
    stated = table.replace_schema_metadata({"ae_pipeline.samples": json.dumps({"shape": [2, 2], "dtype": "uint8"})})
    pq.write_table(stated, tmp_path / "own.parquet")
    for group in ("name", "day"):
        fetched = fetch(tmp_path, path=tmp_path / "own.parquet", group=group)
        assert are_apart(splits_of(tmp_path, group, fetched))


# --- what is refused, and said ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "why"),
    [
        ("nothing", "has no column `nothing` for the group; set source.files.group to folder, source_file, speaker"),
        ("vector", "has no column `vector` for the group"),
        (
            "half",
            r"`half` makes 2 group\(s\) of the records: a \(100 records\), b \(190 records\); expected at least 3",
        ),
        ("source_file", r"`source_file` makes 2 group\(s\)"),
        ("folder", "lies in no sub-folder that could be its group; move it into one, or set source.files.group to"),
        ("lists", r"has in `lists` values of type list<.*>, which make no groups; take a column of texts or numbers"),
        ("holes", r"has no value in row 1 \(the first one is 0\) of `holes`, which says its group; fill it in"),
        ("floats", r"has no value in row 2 .* of `floats`"),
        ("id", "has in `id` another value for each record; set source.files.group to folder, source_file, speaker"),
    ],
)
def test_what_makes_no_groups_is_refused_with_advice(group, why, tmp_path):
    path = speakers(tmp_path / "in")
    for number, file in enumerate(sorted(path.iterdir())):
        table = pq.read_table(file)
        more = {
            "half": ["ab"[number]] * len(table),
            "lists": [[1]] * len(table),
            "holes": ["x", None, *["y"] * (len(table) - 2)],
            "floats": [1.0, 2.0, float("nan"), *[3.0] * (len(table) - 3)],
            "id": [1000 * number + row for row in range(len(table))],
        }
        for name, values in more.items():
            table = table.append_column(name, pa.array(values))
        pq.write_table(table, file)
    with pytest.raises(DataError, match=why):
        fetch(tmp_path, path=path, kind="vector", column="vector", group=group)


def test_a_folder_called_so_beside_a_column_called_so_is_not_chosen_between(tmp_path):
    path = speakers(tmp_path / "in")
    for file in path.iterdir():
        pq.write_table(pq.read_table(file).rename_columns(["vector", "folder"]), file)
    with pytest.raises(DataError, match=r"has a column `folder`, which source.files.group could mean as well"):
        fetch(tmp_path, path=path, kind="vector", group="folder")


def test_a_share_that_whole_groups_cannot_have_is_warned_of(tmp_path, capsys):
    path = drawings(tmp_path / "in", {"a": 5, "b": 5, "c": 6})
    fetch(tmp_path, path=path, group="folder")
    warned = "warning: the test split has 31.2% of the records, where source.files.test_fraction asks for 10.0%"
    assert warned in capsys.readouterr().err
    params = Params.model_validate({"source": {"name": "files", "files": {"path": str(path), "group": "folder"}}})
    params = params.model_copy(update={"paths": params.paths.model_copy(update={"raw": "raw"})})
    prepare(params, tmp_path)
    said = capsys.readouterr()
    assert "split by `folder`: train 1 group (" in said.out
    assert "the validation split has " in said.err
    assert "where prepare.validation_fraction asks for 10.0%" in said.err


def test_groups_of_which_nothing_can_be_read_leave_too_few_to_validate_and_that_is_said(tmp_path):
    path = drawings(tmp_path / "in", {"a": 3, "b": 3, "c": 3})
    test = fetch(tmp_path, path=path, group="folder")["test"].attributes["source_file"].to_pylist()
    broken = next(name for name in "abc" if not test[0].startswith(name))
    for file in (path / broken).iterdir():
        file.write_bytes(file.read_bytes()[:30])
    fetched = fetch(tmp_path, path=path, group="folder", skip_unreadable=True)
    with pytest.raises(
        DataError, match=r"all of one group by `folder`, expected at least 2: .*; set source.files.group"
    ):
        write_splits(fetched, tmp_path / "prepared", PrepareParams())
