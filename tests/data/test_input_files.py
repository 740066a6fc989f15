"""No file of a data set is passed over without a word: endings, folders key=value, leftovers, names in no UTF-8."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from handmade import encode, random_codec, random_pixels, write_rows

from ae_pipeline.data.parquet.reader import read_tables
from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import DataError
from ae_pipeline.files import sha256_file, sha256_json
from ae_pipeline.store.reading.decode import decode_store
from ae_pipeline.store.writing.appending import append_samples

SPEC = SampleSpec((5, 4), "uint8")
ENDINGS = [
    "a.parquet",
    "B.PARQUET",
    "c.pq",
    "d.parq",
    "e.Pq",
    "f.parquet.snappy",
    "part-00000",
    "data.bin",
    "h.parquet.gz",
]
LEFTOVERS = [
    "_SUCCESS",
    "_metadata",
    ".a.parquet.crc",
    "a.parquet.crc",
    "_started_1",
    ".DS_Store",
    "Thumbs.db",
    "a.parquet.dvc",
]


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files") / "codec"
    random_codec(folder, SPEC.shape)
    return folder


def rows_file(path, number=0, rows=3, **columns):
    """A file of rows that no other number has."""
    ids = list(range(100 * number, 100 * number + rows))
    write_rows(path, random_pixels((rows, *SPEC.shape), "uint8", seed=number), id=ids, **columns)
    return path


def ids_of(samples):
    return samples.load().attributes["id"].to_pylist()


# --- endings and leftovers ------------------------------------------------------------------------------------------


def test_parquet_files_are_read_whatever_they_are_called(tmp_path):
    for number, name in enumerate(ENDINGS):
        rows_file(tmp_path / name, number)
    samples = SampleSet.open(tmp_path)
    assert samples.files == tuple(sorted(tmp_path / name for name in ENDINGS))
    assert sorted(ids_of(samples)) == [100 * number + row for number in range(len(ENDINGS)) for row in range(3)]
    assert samples.left_out is None


def test_a_folder_with_nothing_but_leftovers_is_refused_naming_them(tmp_path):
    rows_file(tmp_path / "_a.parquet")
    with pytest.raises(
        DataError, match=r"no Parquet files in \S+ \(1 file or folder in \S+ left out, .*: _a\.parquet\)"
    ):
        SampleSet.open(tmp_path)


def test_what_writers_leave_beside_their_files_is_left_out_and_said(ae, codec, tmp_path):
    """By encode, append, evaluate, and by the check before originals are deleted."""
    data, store = tmp_path / "data", tmp_path / "store"
    rows_file(data / "a.parquet", 1)
    rows_file(data / "_hidden.parquet", 2)
    (data / "_temporary").mkdir()
    for name in LEFTOVERS:
        (data / name).write_bytes(b"PAR1")
    names = sorted([*LEFTOVERS, "_hidden.parquet", "_temporary/"])
    said = f"10 files or folders in {data} left out, as no data goes by such names: {', '.join(names)}"
    for command in (
        ("encode", data, "--codec", codec, "--store", store),
        ("append", store, data),
        ("evaluate", data, "--codec", codec, "--device", "cpu"),
        ("evaluate", data, "--store", store),
    ):
        code, out, err = ae(*command)
        assert code == 0, err
        assert said in err
        assert said not in out
    code, out, _ = ae("verify", store, "--deep", "--source", data)
    assert code == 0
    assert said in out
    code, out, _ = ae("verify", store, "--deep", "--source", data, "--json")
    assert json.loads(out)["deep"]["left_out"] == [said]
    next(store.glob("part-*")).unlink()
    code, _, err = ae("repair", store, "--source", data)
    assert code == 0
    assert said in err


@pytest.mark.parametrize("name", ["labels.csv", "README.md", "empty", "image.png", "link", "pipe"])
def test_what_is_no_parquet_is_refused_by_name(ae, codec, tmp_path, name):
    data = tmp_path / "data"
    rows_file(data / "a.parquet", 1)
    if name == "pipe":
        os.mkfifo(data / name)
    elif name == "link":
        (data / name).symlink_to(tmp_path / "nowhere.parquet")
    else:
        (data / name).write_text("" if name == "empty" else "a,b\n")
    code, _, err = ae("encode", data, "--codec", codec, "--store", tmp_path / "store")
    assert (code, err.count("\n")) == (1, 1)
    assert f"{data} has files that are not Parquet ({name}), which would be left out; move them elsewhere" in err
    assert ("read with a codec that was trained on such files" in err) == (name == "image.png")


def test_a_file_that_is_called_parquet_and_is_none_is_refused(tmp_path):
    rows_file(tmp_path / "a.parquet", 1)
    (tmp_path / "b.PQ").write_text("id,pixels\n")
    with pytest.raises(DataError, match=r"b\.PQ is not a readable Parquet file"):
        SampleSet.open(tmp_path)


def test_links_are_followed_but_not_in_circles(tmp_path):
    rows_file(tmp_path / "elsewhere" / "a.parquet", 1)
    data = tmp_path / "data"
    (data / "k=1").mkdir(parents=True)
    (data / "k=1" / "a.parquet").symlink_to(tmp_path / "elsewhere" / "a.parquet")
    (data / "k=2").symlink_to(tmp_path / "elsewhere")
    assert SampleSet.open(data).load().attributes["k"].to_pylist() == ["1"] * 3 + ["2"] * 3
    (data / "k=1" / "j=1").symlink_to(data)
    with pytest.raises(DataError, match=r"j=1 is a link to a folder that it lies in"):
        SampleSet.open(data)


# --- folders key=value ----------------------------------------------------------------------------------------------


@pytest.fixture
def hive(tmp_path):
    """Two partitions with files of one name and the same bytes, and others."""
    folder = tmp_path / "hive"
    rows_file(folder / "year=2020/site=007/part-0.parquet", 1)
    rows_file(folder / "year=2021/site=007/part-0.parquet", 1)
    rows_file(folder / "year=2021/site=__HIVE_DEFAULT_PARTITION__/part-0.PQ", 2)
    rows_file(folder / "year=2021/site=a%2Fb%20%C3%A9/part-0.parquet", 3)
    (folder / "_SUCCESS").touch()
    return folder


KEYS = [("2020", "007"), ("2021", "007"), ("2021", None), ("2021", "a/b é")]


def test_keys_of_folders_become_columns_of_text(ae, codec, hive, tmp_path):
    assert ae("encode", hive, "--codec", codec, "--store", tmp_path / "store")[0] == 0
    assert ae("decode", tmp_path / "store", "--out", tmp_path / "out.parquet")[0] == 0
    rows = pq.read_table(tmp_path / "out.parquet", columns=["id", "year", "site"])
    assert rows.schema.field("year").type == rows.schema.field("site").type == pa.string()
    assert list(zip(rows["year"].to_pylist(), rows["site"].to_pylist(), strict=True)) == [
        keys for keys in KEYS for _ in range(3)
    ]
    # As pyarrow has them, told that they are text.
    names = pa.schema([("year", pa.string()), ("site", pa.string())])
    expected = ds.dataset(hive, partitioning=ds.partitioning(names, flavor="hive"), exclude_invalid_files=True)
    expected = expected.to_table(columns=["id", "year", "site"]).sort_by([("year", "ascending"), ("id", "ascending")])
    found = rows.sort_by([("year", "ascending"), ("id", "ascending")])
    assert found.to_pydict() == expected.to_pydict()
    assert (
        ae("decode", tmp_path / "store", "--out", tmp_path / "one", "--where", "site = '007' AND year > '2020'")[0] == 0
    )
    assert SampleSet.open(tmp_path / "one").rows == 3


def test_rows_of_two_partitions_are_two_shards_though_their_files_have_the_same_bytes(ae, codec, hive, tmp_path):
    store = tmp_path / "store"
    assert ae("encode", hive, "--codec", codec, "--store", store)[0] == 0
    code, out, _ = ae("info", store, "--json")
    assert (code, json.loads(out)["rows"]) == (0, 12)
    assert ae("append", store, hive)[1].endswith("nothing added: the store holds all of this data already\n")
    assert ae("verify", store, "--deep", "--source", hive)[0] == 0
    parts = sorted(store.glob("part-*"))
    whole = [part.read_bytes() for part in parts]
    for part in parts[:2]:
        part.unlink()
    assert ae("repair", store, "--source", hive)[0] == 0
    assert [part.read_bytes() for part in parts] == whole
    rows_file(hive / "year=2022/site=1/part-0.parquet", 1)
    code, out, _ = ae("verify", store, "--deep", "--source", hive)
    assert code == 1
    assert "3 rows of the data: do not delete them" in out
    assert "has other bytes" not in out
    assert "added_rows" in ae("append", store, hive)[1]
    assert ae("verify", store, "--deep", "--source", hive)[0] == 0


def test_a_partition_alone_is_not_the_rows_of_the_whole(ae, codec, hive, tmp_path):
    """Its key is not in its path, so nothing says that these are those rows."""
    store = tmp_path / "store"
    assert ae("encode", hive, "--codec", codec, "--store", store)[0] == 0
    code, _, err = ae("verify", store, "--deep", "--source", hive / "year=2020")
    assert code == 1
    assert "give the folder above `year=2020`, whose key is a column in the store" in err
    code, _, err = ae("append", store, hive / "year=2020")
    assert code == 1
    assert "give the folder above `year=2020`, whose key is a column there" in err


def test_what_identifies_shards_is_documented_and_unchanged_where_there_are_no_keys(hive, tmp_path):
    file = rows_file(tmp_path / "plain" / "a.parquet", 5)
    plain = SampleSet.open(file.parent)
    assert plain.shard_digest(plain.shards[0]) == sha256_json([sha256_file(file), [0]])
    assert plain.digest == sha256_json([["a.parquet", sha256_file(file)]])
    samples = SampleSet.open(hive)
    first = hive / "year=2020/site=007/part-0.parquet"
    keys = [["year", "2020"], ["site", "007"]]
    assert samples.shard_digest(samples.shards[0]) == sha256_json([sha256_file(first), [0], keys])
    assert samples.file_name(first) == "year=2020/site=007/part-0.parquet"
    assert len({samples.shard_digest(shard) for shard in samples.shards}) == 4


def test_a_store_says_the_folders_of_its_files(codec, hive, tmp_path):
    store = encode(SampleSet.open(hive), codec, tmp_path / "store")
    assert store.manifest.parts[0].shard.file == "year=2020/site=007/part-0.parquet"
    decoded = decode_store(store, tmp_path / "decoded", device="cpu")
    assert decoded.load().attributes["site"].to_pylist()[:6] == ["007"] * 6


@pytest.mark.parametrize(
    ("column", "folder", "same"),
    [
        (pa.array([7, 7, 7]), "month=07", True),
        (pa.array([7, 7, 8]), "month=7", False),
        (pa.array([7, 7, None]), "month=7", False),
        (pa.array(["07"] * 3), "month=07", True),
        (pa.array(["7"] * 3), "month=07", False),
        (pa.array(["07"] * 3).dictionary_encode(), "month=07", True),
        (pa.array([None] * 3, pa.int8()), "month=__HIVE_DEFAULT_PARTITION__", True),
        (pa.array([7] * 3), "month=July", False),
    ],
    ids=lambda value: str(value.type).split(",")[0] if isinstance(value, pa.Array) else str(value),
)
def test_a_key_that_a_column_has_too_must_say_the_same(tmp_path, column, folder, same):
    rows_file(tmp_path / folder / "a.parquet", 1, month=column)
    samples = SampleSet.open(tmp_path)
    if same:
        assert samples.load().attributes["month"].to_pylist() == column.to_pylist()
        assert samples.shard_digest(samples.shards[0]) == sha256_json([sha256_file(samples.files[0]), [0]])
    else:
        with pytest.raises(DataError, match=r"a\.parquet: its column `month` has other values than the key"):
            samples.load()


REFUSED = {
    "k=1/a.parquet b.parquet": "b.parquet in no folder key=value; give all files the same keys",
    "k=1/a.parquet j=1/b.parquet": "lies in folders for k, but",
    "k=1/j=1/a.parquet k=2/b.parquet": "lies in folders for k, but",
    "k=1/k=2/a.parquet": "is the second folder of its path for the key `k`",
    "id=1/a.parquet": "has folders id=..., but `id` is a column of every row",
    "LABEL=1/a.parquet": "a column `label`, which is the same name to programs that read names without case",
    "more/b.parquet a.parquet": "has files in sub-folders (more/b.parquet), whose rows would be left out",
    "k=1/more/deep/b.parquet k=1/a.parquet": "has files in sub-folders (k=1/more/deep/b.parquet)",
    "=1/b.parquet": "has files in sub-folders (=1/b.parquet)",
}


@pytest.mark.parametrize("files", REFUSED)
def test_folders_that_do_not_fit_are_refused_by_name(tmp_path, files):
    for number, name in enumerate(files.split()):
        rows_file(tmp_path / name, number, label=[1, 2, 3])
    with pytest.raises(DataError) as caught:
        SampleSet.open(tmp_path)
    assert REFUSED[files] in str(caught.value)


def test_keys_that_differ_by_case_or_are_reserved_are_refused(codec, tmp_path):
    for folder, reason in (
        ("a=1/A=2", "columns `a` and `A` differ only by case"),
        ("Error=1", "only by case from `error`"),
    ):
        rows_file(tmp_path / folder / folder / "x.parquet", 1)
        with pytest.raises(DataError, match=reason):
            encode(SampleSet.open(tmp_path / folder), codec, tmp_path / "store")


def test_an_empty_folder_hides_nothing(tmp_path):
    rows_file(tmp_path / "a.parquet", 1)
    (tmp_path / "empty" / "er").mkdir(parents=True)
    assert SampleSet.open(tmp_path).left_out is None
    (tmp_path / "empty" / ".gitkeep").touch()
    samples = SampleSet.open(tmp_path)
    assert ids_of(samples) == [100, 101, 102]
    assert samples.left_out.endswith(": empty/.gitkeep")


# --- names that are no UTF-8 ----------------------------------------------------------------------------------------


takes_bytes = pytest.mark.skipif(sys.platform == "darwin", reason="macOS takes names in UTF-8 only")


def not_utf8(folder, name=b"caf\xe9"):
    return Path(os.fsdecode(os.fsencode(folder) + b"/" + name))


@pytest.mark.slow
@takes_bytes
@pytest.mark.parametrize("name", [b"caf\xe9.parquet", b"caf\xe9/a.parquet", b"caf\xe9/caf\xe9.parquet"], ids=repr)
@pytest.mark.parametrize("given", ["file", "folder"])
def test_data_whose_path_is_no_utf8_is_data(ae, codec, tmp_path, name, given):
    """Encode, append, evaluate, verify and repair: as under any other name."""
    plain = rows_file(tmp_path / "plain.parquet", 1)
    file = not_utf8(tmp_path / "data", name)
    file.parent.mkdir(parents=True)
    shutil.copy(plain, file)
    data, store = file if given == "file" else file.parent, tmp_path / "store"
    for command in (
        ("encode", data, "--codec", codec, "--store", store),
        ("append", store, data),
        ("evaluate", data, "--store", store),
        ("evaluate", data, "--codec", codec),
        ("verify", store, "--deep", "--source", data),
    ):
        code, _, err = ae(*command)
        assert code == 0, err
    (part,) = store.glob("part-*")
    whole = part.read_bytes()
    part.unlink()
    assert ae("repair", store, "--source", data)[0] == 0
    assert part.read_bytes() == whole
    shard = json.loads((store / "_manifest.json").read_bytes())["parts"][0]["shard"]
    assert shard["file"] == file.name.replace("\udce9", "\\xe9")
    code, _, err = ae("append", store, rows_file(tmp_path / "more.parquet", 2), data)
    assert code == 0, err
    np.testing.assert_array_equal(SampleSet.open(data).load().pixels, SampleSet.open(plain).load().pixels)


@takes_bytes
def test_what_is_wrong_with_such_data_is_said_in_one_line(ae, codec, tmp_path):
    file = not_utf8(tmp_path, b"caf\xe9.parquet")
    for content, reason in ((b"hello", "is not a readable Parquet file"), (None, "no data set at")):
        if content:
            file.write_bytes(content)
        else:
            file.unlink()
        code, out, err = ae("encode", file, "--codec", codec, "--store", tmp_path / "store")
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert reason in err
        assert "caf\\xe9.parquet" in err
        err.encode()


@takes_bytes
def test_a_key_that_is_no_utf8_is_refused_by_name(tmp_path):
    folder = not_utf8(tmp_path, b"k=caf\xe9")
    shutil.copytree(rows_file(tmp_path / "plain/a.parquet", 1).parent, folder)
    shutil.rmtree(tmp_path / "plain")
    with pytest.raises(DataError, match=r"its name is no UTF-8, and cannot be a column's; rename it"):
        SampleSet.open(tmp_path)
    folder.rename(tmp_path / "k=caf%E9")
    with pytest.raises(DataError, match=r"its name is no UTF-8"):
        SampleSet.open(tmp_path)


@takes_bytes
def test_old_times_and_missing_lists_are_found_in_such_files_too(tmp_path):
    table = pa.table(
        {
            "t": pa.array([253402214400000000, None], pa.timestamp("us")),
            "pixels": pa.array([[1] * 20, None], pa.list_(pa.uint8(), 20)),
        }
    )
    file = not_utf8(tmp_path, b"caf\xe9.parquet")
    with open(file, "wb") as target:
        pq.write_table(table, target, use_deprecated_int96_timestamps=True)
    samples = SampleSet.open(file, SPEC)
    assert samples.changed_by == {"int96": "us"}
    with pytest.raises(DataError, match="no pixels in row 1"):
        samples.load()


@takes_bytes
def test_many_files_are_opened_one_after_the_other_and_closed(tmp_path):
    """Files that Arrow is given open are not closed by it."""
    for number in range(20):
        shutil.copy(rows_file(tmp_path / "plain.parquet", number), not_utf8(tmp_path, b"%d\xe9.parquet" % number))
    before = len(list(Path("/dev/fd").iterdir()))
    samples = SampleSet.open(tmp_path)
    assert len(samples.load().pixels) == 63
    assert len(list(Path("/dev/fd").iterdir())) == before


@takes_bytes
def test_an_append_through_python_names_such_a_data_set(codec, tmp_path):
    from ae_pipeline.params import EncodeParams

    file = not_utf8(tmp_path, b"caf\xe9.parquet")
    shutil.copy(rows_file(tmp_path / "plain.parquet", 1), file)
    params = EncodeParams(device="cpu")
    done = append_samples(tmp_path / "store", [SampleSet.open(file)], codec, params, name=file.name, git={})
    assert done.store.manifest.source.name == "caf\\xe9.parquet"


def test_a_row_group_is_not_read_as_a_whole(tmp_path):
    """However many rows a writer put into one, and compressed or not: noise is not."""
    values = np.random.default_rng(0).normal(size=(40_000, 64)).astype(np.float32)
    path = tmp_path / "large.parquet"
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), 64)
    pq.write_table(pa.table({"values": column}), path, row_group_size=len(values))
    before, most = pa.total_allocated_bytes(), 0
    for _ in read_tables(path, None, 1000, "ns"):
        most = max(most, pa.total_allocated_bytes() - before)
    assert pq.read_metadata(path).num_row_groups == 1
    assert most < values.nbytes // 2
