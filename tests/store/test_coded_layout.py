"""A store of the layout `coded`: to its readers one of `binary` latents, and no less safe."""

import re
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from grown import append, few, rewrite_manifest
from handmade import bytes_of, encode, flip_bit, random_codec, random_pixels, write_rows

from ae_pipeline.codec.codec import Codec
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import DamagedPartError, DataError, StoreError
from ae_pipeline.files import sha256_file
from ae_pipeline.store.care.repair import repair_store
from ae_pipeline.store.care.verify import verify_store
from ae_pipeline.store.format import entropy_coding, part_writer
from ae_pipeline.store.format.entropy_coding import compress
from ae_pipeline.store.format.layouts import LATENT
from ae_pipeline.store.format.verified_file import cut
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.reading.decode import decode_rows, decode_store

ROWS = 250


def make(folder, *, latent_size=5, levels=16, row_group_rows=64):
    """The same data in both layouts: two parts, of several row groups each."""
    random_codec(folder / "codec", latent_size=latent_size, levels=levels)
    for part in range(2):
        ids = [f"row {1000 * part + row}" for row in range(ROWS)]
        labels = [None if row % 9 == 0 else row % 5 for row in range(ROWS)]
        pixels = random_pixels((ROWS, 5, 4), "uint8", part)
        write_rows(folder / "data" / f"{part}.parquet", pixels, id=ids, label=labels)
    return [
        encode(folder / "data", folder / "codec", folder / layout, layout=layout, row_group_rows=row_group_rows)
        for layout in ("coded", "binary")
    ]


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return make(tmp_path_factory.mktemp("coded"))


@pytest.fixture
def copy(stores, tmp_path):
    """A copy of the coded store that may be damaged."""
    return LatentStore.open(shutil.copytree(stores[0].path, tmp_path / "store"))


@pytest.fixture
def data(stores):
    return [SampleSet.open(path) for path in sorted((stores[0].path.parent / "data").iterdir())]


def scanned(store, **options):
    none = store.schema().empty_table().select(options.get("columns") or store.schema().names)
    return pa.concat_tables([none.replace_schema_metadata(None), *store.scan(**options)])


# Rows are those of `binary`


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"columns": ["latent"]},
        {"columns": ["error", "latent", "id"], "filter": "label = 3"},
        {"columns": ["latent"], "ids": ["row 1003", "row 7", "row 1249"]},
        {"filter": "label IS NULL AND error > 0.1", "ids": [f"row {row}" for row in range(90)]},
        {"columns": ["id", "label"], "filter": "label = 250"},
        {"columns": ["id"]},
    ],
    ids=["all", "latents", "filter", "ids", "both", "none", "no latents"],
)
def test_chosen_rows_are_those_of_binary(options, stores):
    coded, binary = (scanned(store, **options) for store in stores)
    assert coded.equals(binary)


def test_a_condition_on_latents_chooses_the_rows_that_it_chooses_in_binary(stores):
    wanted = next(stores[1].scan())["latent"][70 - 64]
    coded, binary = (scanned(store, filter=pc.field("latent") == wanted) for store in stores)
    assert coded.equals(binary)
    assert len(coded)


def test_the_rows_have_the_schema_of_binary_whatever_the_file_has(stores):
    coded, binary = stores
    assert coded.schema().equals(binary.schema())
    assert coded.schema().field(LATENT).type == pa.binary(5)
    assert [column.type for column in coded.manifest.columns] == ["string", "int64", "binary", "float"]


@pytest.mark.parametrize("rows", [1, 7, 64, 100, 100_000])
def test_blocks_of_a_part_are_those_of_binary(rows, stores):
    coded, binary = ([*store.read_part(store.manifest.parts[1], rows)] for store in stores)
    assert [len(block.latents) for block in coded][:-1] == [rows] * (len(coded) - 1)
    for name in ("latents", "error"):
        assert np.array_equal(*(np.concatenate([getattr(block, name) for block in some]) for some in (coded, binary)))
    assert pa.concat_tables(block.attributes for block in coded) == pa.concat_tables(
        block.attributes for block in binary
    )


def test_chosen_rows_decode_to_the_bytes_that_they_have_among_all(stores, tmp_path):
    coded, binary = stores
    whole = decode_store(coded, tmp_path / "decoded", device="cpu").load()
    decode_store(binary, tmp_path / "other", device="cpu")
    assert bytes_of(tmp_path / "decoded") == bytes_of(tmp_path / "other")
    (block,) = decode_rows(coded, ids=["row 1100", "row 3"], device="cpu")
    assert block.attributes["id"].to_pylist() == ["row 3", "row 1100"]
    assert np.array_equal(block.pixels, whole.pixels[[3, ROWS + 100]])


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"row_group_rows": 1}, {"latent_size": 1}, {"levels": 256}, {"levels": 2}, {"row_group_rows": 10_000}],
    ids=str,
)
def test_stores_of_all_shapes_hold_the_rows_of_binary(options, tmp_path):
    coded, binary = make(tmp_path, **options)
    assert scanned(coded).equals(scanned(binary))
    assert verify_store(coded.path).whole
    groups = [parquet.metadata.num_row_groups for part in coded.manifest.parts for parquet in [opened(coded, part)]]
    assert groups == [-(-ROWS // options.get("row_group_rows", 64))] * 2


def opened(store, part):
    with store.open_part(part) as parquet:
        return parquet


def test_a_dimension_that_is_always_the_same_comes_back(tmp_path):
    codec = random_codec(tmp_path / "codec")
    pixels = np.repeat(random_pixels((1, 5, 4), "uint8"), 40, axis=0)
    samples = write_rows(tmp_path / "rows.parquet", pixels, id=list(range(40)))
    store = encode(samples, tmp_path / "codec", tmp_path / "store", layout="coded", row_group_rows=16)
    (first, *_), latents = codec.encode(pixels), store.to_latents(scanned(store))
    assert (latents == first).all()
    with store.open_part(store.manifest.parts[0]) as parquet:
        stream = pq.ParquetFile(store.path / store.manifest.parts[0].name).read_row_group(0)[LATENT][0].as_py()
        assert len(stream) == 7 * 3
        assert parquet.read_row_group(0)[LATENT].type == pa.binary(3)


# What is written


def test_the_same_data_gives_the_same_bytes(stores, tmp_path):
    coded, folder = stores[0], stores[0].path.parent
    again = encode(folder / "data", folder / "codec", tmp_path / "again", layout="coded", row_group_rows=64)
    assert [part.sha256 for part in again.manifest.parts] == [part.sha256 for part in coded.manifest.parts]


def test_the_first_row_of_a_row_group_has_the_stream_and_the_others_nothing(stores):
    coded, _ = stores
    for part in coded.manifest.parts:
        parquet = pq.ParquetFile(coded.path / part.name)
        latents = Codec.load(coded.path / "_codec").encode  # of the data, to compare with
        pixels = SampleSet.open(coded.path.parent / "data" / part.shard.file).load().pixels
        for group in range(parquet.num_row_groups):
            first, *others = parquet.read_row_group(group)[LATENT].to_pylist()
            assert first == compress(latents(pixels[64 * group : 64 * (group + 1)]))
            assert set(others) == {b""}


def test_row_groups_that_readers_would_refuse_are_not_written(stores, tmp_path, monkeypatch):
    monkeypatch.setattr(part_writer, "MOST_ROW_GROUP_BYTES", 5 * 64 - 1)
    codec, data = (stores[0].path.parent / name for name in ("codec", "data"))
    with pytest.raises(DataError, match=r"of 64 rows take 320 bytes.* at most 319 .*row_group_rows to less than 64"):
        encode(data, codec, tmp_path / "store", layout="coded", row_group_rows=64)
    assert not (tmp_path / "store").exists()
    encode(data, codec, tmp_path / "store", layout="coded", row_group_rows=63)


# A store's life


def test_what_is_appended_is_coded_too(tmp_path):
    random_codec(tmp_path / "codec")
    for layout in ("coded", "binary"):
        for number in (1, 2):
            append(tmp_path / layout, [few(tmp_path, number)], tmp_path / "codec", layout=layout, row_group_rows=8)
    coded, binary = (LatentStore.open(tmp_path / layout) for layout in ("coded", "binary"))
    assert coded.manifest.snapshot == 2
    assert scanned(coded).equals(scanned(binary))
    assert scanned(LatentStore.open(coded.path, 1)).equals(scanned(coded).slice(0, 30))
    assert verify_store(coded.path).whole


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: flip_bit(path, 900)], ids=["lost", "bit"])
def test_a_damaged_part_is_named_and_comes_back_byte_for_byte(damage, copy, stores, data):
    name = copy.manifest.parts[1].name
    damage(copy.path / name)
    (found,) = verify_store(copy.path).damaged
    assert (found.file, found.rows) == (name, ROWS)
    with pytest.raises(DamagedPartError):
        list(copy.scan())
    assert len(pa.concat_tables(copy.scan(on_damaged=lambda part, error: None))) == ROWS
    assert repair_store(copy.path, data, device="cpu", git={}).files == [name]
    assert bytes_of(copy.path) == bytes_of(stores[0].path)


# Made to harm


def replace_streams(store, change):
    """Let `change` have the column of latents of the first part's first row group; digests agree with what it made."""
    part = store.manifest.parts[0]
    path = store.path / part.name
    old = pq.ParquetFile(path)
    groups = [old.read_row_group(number) for number in range(old.num_row_groups)]
    values = pa.array(change(groups[0][LATENT].to_pylist()), pa.binary())
    groups[0] = groups[0].set_column(2, old.schema_arrow.field(LATENT), values)
    with pq.ParquetWriter(path, old.schema_arrow, compression="zstd") as writer:
        for group in groups:
            writer.write_table(group)

    def agree(values):
        values["parts"][0] |= {"bytes": path.stat().st_size, "sha256": sha256_file(path), "pieces": cut(path)}

    rewrite_manifest(store.path, agree)
    return LatentStore.open(store.path)


def refusal(store):
    """The message of every way to read it."""
    ways = [
        lambda: list(store.scan()),
        lambda: list(store.scan([LATENT], ids=["row 3"])),
        lambda: list(store.read_part(store.manifest.parts[0], 10)),
        lambda: list(decode_rows(store, ids=["row 3"], device="cpu")),
    ]
    messages = set()
    for way in ways:
        with pytest.raises(DamagedPartError) as found:
            way()
        messages.add(str(found.value))
    (message,) = messages
    (damage,) = verify_store(store.path).damaged
    assert damage.file == store.manifest.parts[0].name
    assert len(pa.concat_tables(store.scan(["id", "error"]))) == 2 * ROWS  # without latents all is well
    return message


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda rows: [rows[0][:-1], *rows[1:]], "has not the lengths"),
        (lambda rows: [b"", *rows[1:]], "too short"),
        (lambda rows: [b"\xff" * 40, *rows[1:]], "has not the lengths"),
        (
            lambda rows: [rows[0][:35] + bytes(len(rows[0]) - 35), *rows[1:]],
            "does not end|cannot be decompressed",
        ),
        (lambda rows: [rows[0], b"x", *rows[2:]], "other rows than the first"),
        (lambda rows: rows[::-1], "other rows than the first"),
        (lambda rows: [rows[0]] * len(rows), "other rows than the first"),
        (lambda rows: [compress(np.ones((63, 5), np.int8).cumsum(0, np.int8)), *rows[1:]], "does not end after"),
        (lambda rows: [compress(np.zeros((64, 4), np.int8)), *rows[1:]], "too short"),
        (lambda rows: [compress(np.zeros((64, 6), np.int8)), *rows[1:]], "has not the lengths"),
    ],
    ids=["short", "empty", "garbage", "zeros", "others", "last", "repeated", "fewer rows", "fewer", "more"],
)
def test_what_is_no_stream_is_a_damaged_part(change, reason, copy):
    assert re.search(reason, refusal(replace_streams(copy, change)))


def test_a_part_that_is_written_again_unchanged_is_read(copy, stores):
    """So what the test above refuses is what it changed."""
    assert scanned(replace_streams(copy, lambda rows: rows)).equals(scanned(stores[0]))


def test_latents_beyond_the_levels_are_found_by_verify(copy):
    changed = replace_streams(copy, lambda rows: [compress(np.full((64, 5), 9, np.int8)), *rows[1:]])
    (damage,) = verify_store(changed.path).damaged
    assert "latents that are not from -8 to 7" in damage.reason


def test_more_than_a_row_group_may_hold_is_refused_before_it_is_allocated(copy, monkeypatch):
    monkeypatch.setattr(entropy_coding, "MOST_ROW_GROUP_BYTES", 319)
    with pytest.raises(DamagedPartError, match="latents would take 320 bytes, at most 319 are allowed"):
        list(copy.scan())


@pytest.mark.parametrize("size", [2**20, 2**31, 2**62])
def test_a_manifest_with_another_latent_size_is_refused(size, copy):
    rewrite_manifest(copy.path, lambda values: values["latent"].update(size=size))
    store = LatentStore.open(copy.path)
    with pytest.raises(DamagedPartError, match=r"too short|would take|no column"):
        list(store.scan())
    with pytest.raises(StoreError):
        list(decode_rows(store, device="cpu"))


def test_a_layout_that_is_not_known_is_refused_by_name(copy):
    rewrite_manifest(copy.path, lambda values: values["latent"].update(layout="interleaved"))
    with pytest.raises(
        StoreError, match=r"latent\.layout: Input should be 'list', 'binary', 'packed', 'coded' or 'stream'"
    ):
        LatentStore.open(copy.path)


def test_a_store_of_another_layout_than_its_manifest_says_is_refused(copy):
    rewrite_manifest(copy.path, lambda values: values["latent"].update(layout="binary"))
    with pytest.raises(DamagedPartError, match=r"its columns are not .*, latent \(fixed_size_binary\[5\]\)"):
        list(LatentStore.open(copy.path).scan())
