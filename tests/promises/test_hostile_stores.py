"""Stores made to harm who reads them: small files that ask for gigabytes, footers that crash Arrow, links.

All of them agree with their digests, and must be refused before anything is allocated, with an error that says why.
"""

import hashlib
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from handmade import bytes_of, change_header, encode, random_codec, random_pixels, write_rows
from typer.testing import CliRunner

import ae_pipeline.codec.codec
from ae_pipeline.cli.main import app
from ae_pipeline.codec.codec import Codec, freeze, save_codec
from ae_pipeline.codec.header import Scaling
from ae_pipeline.codec.quantiser import Quantiser
from ae_pipeline.data.parquet import limits as parquet_limits
from ae_pipeline.data.parquet.limits import chunk_range, chunk_size, read_footer
from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import CodecError, DamagedPartError, DataError, PipelineError, StoreError
from ae_pipeline.files import sha256_json, write_json
from ae_pipeline.models import build_model
from ae_pipeline.models.conv import Options as ConvOptions
from ae_pipeline.params import EncodeParams
from ae_pipeline.store.care.repair import repair_store
from ae_pipeline.store.care.vacuum import vacuum_store
from ae_pipeline.store.care.verify import verify_store
from ae_pipeline.store.format import verified_file as pieces
from ae_pipeline.store.format.manifest import CODEC_FOLDER, MANIFEST_NAME, SNAPSHOTS_FOLDER
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.writing.appending import append_samples

ROWS = 50
TEXT = 1  # column of the store


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "codec"
    random_codec(folder)
    return folder


@pytest.fixture(scope="module")
def sound(codec, tmp_path_factory):
    """One part of three row groups, with the columns id, text, number, latent and error."""
    folder = tmp_path_factory.mktemp("sound")
    pixels = random_pixels((ROWS, 5, 4), "uint8")
    columns = {"id": list(range(ROWS)), "text": ["abc"] * ROWS, "number": [7] * ROWS}
    return encode(write_rows(folder / "rows.parquet", pixels, **columns), codec, folder / "store", row_group_rows=20)


@pytest.fixture
def store(sound, tmp_path):
    """A copy that may be changed."""
    return LatentStore.open(shutil.copytree(sound.path, tmp_path / "store"))


@pytest.fixture
def small_limit(monkeypatch):
    """Row groups of at most 100 kB."""
    monkeypatch.setattr(parquet_limits, "MOST_ROW_GROUP_BYTES", 100_000)
    monkeypatch.setattr(pieces, "MOST_ROW_GROUP_BYTES", 100_000)


def change_manifest(store, change):
    """With a digest that fits again; not checked."""
    path = store.path / MANIFEST_NAME
    values = json.loads(path.read_bytes())
    change(values)
    values.pop("digest")
    write_json(path, {**values, "digest": sha256_json(values)})
    return store.path


def replace_part(store, data, sizes):
    """Other bytes in the place of the part, in pieces of these sizes, and a manifest that agrees with them."""

    def change(values):
        starts = np.cumsum([0, *sizes])
        digests = [pieces.digest(data[start : start + size]) for start, size in zip(starts, sizes, strict=False)]
        values["parts"][0] |= {
            "pieces": [f"{size}:{digest}" for size, digest in zip(sizes, digests, strict=True)],
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }

    (store.path / store.manifest.parts[0].name).write_bytes(data)
    return LatentStore.open(change_manifest(store, change))


def rewrite_part(store, texts=None, **options):
    """The part written again by pyarrow, without page checksums, some options or the column `text` other."""
    table = pq.read_table(store.path / store.manifest.parts[0].name)
    if texts is not None:
        table = table.set_column(TEXT, "text", texts if isinstance(texts, pa.DictionaryArray) else pa.array(texts))
    file = io.BytesIO()
    pq.write_table(table, file, **{"compression": "zstd", "row_group_size": 20, **options})
    metadata = pq.read_metadata(file)
    places = [(group, column) for group in range(metadata.num_row_groups) for column in range(metadata.num_columns)]
    cuts = [0, *(chunk_range(metadata, *place)[1] for place in places), len(file.getvalue())]
    if texts is not None:
        kind = str(pq.read_schema(file).field(TEXT).type)
        change_manifest(store, lambda values: values["columns"][TEXT].update(type=kind))
    return replace_part(LatentStore.open(store.path), file.getvalue(), np.diff(cuts).tolist())


def refused(store):
    """With which message the column `text` is refused, as it must be by every way to read it."""
    (part,) = store.manifest.parts
    ways = [
        lambda: list(store.read_part(part, 7)),
        lambda: list(store.scan()),
        lambda: list(store.scan(["text"])),
        lambda: list(store.scan(["text"], filter="number = 7")),
        lambda: list(store.scan(ids=[3])),
        lambda: list(store.rows()),
    ]
    messages = set()
    for way in ways:
        with pytest.raises(DamagedPartError) as found:
            way()
        messages.add(str(found.value))
    assert list(store.scan(on_damaged=lambda part, error: None)) == []
    return min(messages, key=lambda message: ("text" not in message, message))


def test_a_part_that_pyarrow_wrote_again_is_read(store):
    """So what the other tests refuse is what they changed."""
    assert [len(table) for table in rewrite_part(store, [str(row) for row in range(ROWS)]).scan()] == [20, 20, 10]


# What a part may ask for


def test_one_long_text_that_all_rows_repeat_is_refused_before_it_is_repeated(store, small_limit):
    bomb = rewrite_part(store, ["x" * 10_000] * ROWS)
    assert bomb.manifest.parts[0].bytes < 6000
    assert "column text would take" in refused(bomb)


@pytest.mark.parametrize(
    "nest",
    [lambda text: [text], lambda text: {"a": text}, lambda text: [{"b": [text, None]}, None]],
    ids=["list", "struct", "both"],
)
def test_texts_in_lists_and_structs_are_counted_too(nest, store, small_limit):
    assert "would take" in refused(rewrite_part(store, [nest("x" * 10_000)] * ROWS))


@pytest.mark.parametrize("nest", [lambda text: text, lambda text: [text]], ids=["text", "list"])
def test_texts_are_counted_and_not_guessed_by_the_longest(nest, store, small_limit):
    texts = [nest("x" * 10_000), *[nest("y")] * (ROWS - 1)]
    assert pa.concat_tables(rewrite_part(store, texts).scan())["text"].to_pylist() == texts


def test_a_page_that_decompresses_to_much_is_refused(store, small_limit):
    bomb = rewrite_part(store, ["x" * 10_000] * ROWS, use_dictionary=False)
    assert bomb.manifest.parts[0].bytes < 6000
    assert "column text would take 200" in refused(bomb)


def test_columns_that_are_too_large_together_are_refused(store, monkeypatch):
    bomb = rewrite_part(store, [f"{row:01000d}" for row in range(ROWS)])
    monkeypatch.setattr(pieces, "MOST_ROW_GROUP_BYTES", 20_300)
    with pytest.raises(DamagedPartError, match=r"row group 0 would take 2[0-9]{4} bytes in memory"):
        list(bomb.read_part(bomb.manifest.parts[0], 1000))
    assert len(list(bomb.scan(["number", "error"]))) == 3


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"compression": "snappy"}, "compressed with SNAPPY, expected zstd"),
        ({"compression": "gzip"}, "compressed with GZIP, expected zstd"),
        ({"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}}, "an encoding that latent stores"),
    ],
    ids=["snappy", "gzip", "delta"],
)
def test_what_no_writer_of_stores_uses_is_refused(options, reason, store):
    assert reason in refused(rewrite_part(store, **options))


def text_chunk(store):
    """Data and footer of the first row group's `text`; its first page header begins kind, uncompressed, compressed."""
    path = store.path / store.manifest.parts[0].name
    metadata = read_footer(path)
    start, end = chunk_range(metadata, 0, TEXT)
    return path.read_bytes()[start:end], metadata


@pytest.mark.parametrize("size", [2**31 - 1, 2**31, 2**62])
def test_the_size_that_a_page_header_states_is_looked_at_first(size, store):
    data, metadata = text_chunk(store)
    assert data[0] == data[2] == 0x15
    assert chunk_size(data, metadata, 0, TEXT) < 1000
    with pytest.raises(ValueError, match=r"text would take [0-9]+ bytes in row group 0, at most 536870912 are allowed"):
        chunk_size(data[:3] + varint(2 * size) + data[4:], metadata, 0, TEXT)


def test_a_page_with_more_values_than_the_row_group_has_rows_is_refused(store):
    data, metadata = text_chunk(store)
    # The data page's own header: field 5, a struct whose field 1 is the number of values, 20 as a zigzag varint.
    changed = re.sub(rb"\x1c\x15\x28\x15", b"\x1c\x15" + varint(2 * (2**31 - 1)) + b"\x15", data)
    assert changed != data
    with pytest.raises(ValueError, match=f"column text has {2**31 - 1} values in row group 0, expected 20"):
        chunk_size(changed, metadata, 0, TEXT)


@pytest.mark.parametrize("rows", [1, 2**31 - 1, 2**62])
def test_a_manifest_with_other_rows_than_the_footer_is_refused(rows, store):
    def change(values):
        values["parts"][0]["rows"] = values["totals"]["rows"] = rows

    assert f"has {ROWS} rows, the manifest says {rows}" in refused(LatentStore.open(change_manifest(store, change)))


def test_latents_of_other_lengths_are_refused(store):
    path = store.path / store.manifest.parts[0].name
    table = pq.read_table(path)
    ragged = pa.array([[1] * (2 + row % 3) for row in range(ROWS)], table.schema.field("latent").type)
    file = io.BytesIO()
    pq.write_table(table.set_column(3, table.schema.field("latent"), ragged), file, compression="zstd")
    path.write_bytes(file.getvalue())
    sizes = [int(piece.split(":")[0]) for piece in pieces.cut(path)]
    bomb = replace_part(store, file.getvalue(), sizes)
    with pytest.raises(DamagedPartError, match="rows of other lengths than 3"):
        list(bomb.read_part(bomb.manifest.parts[0], 10))
    with pytest.raises(DamagedPartError, match="rows of other lengths than 3"):
        list(bomb.rows())


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        (
            lambda columns: columns[:-1],
            "error: float, the manifest says id: int64, text: string, number: int64, latent",
        ),
        (
            lambda columns: [*columns[:2], {"name": "number", "type": "int8"}, *columns[3:]],
            "text: string, number: int8",
        ),
        (lambda columns: [columns[1], columns[0], *columns[2:]], "the manifest says text: string, id: int64"),
    ],
    ids=["missing", "type", "order"],
)
def test_columns_that_are_not_the_manifests_are_refused(columns, reason, store):
    change_manifest(store, lambda values: values.update(columns=columns(values["columns"])))
    with pytest.raises(DamagedPartError, match=re.escape(reason)):
        list(LatentStore.open(store.path).read_part(store.manifest.parts[0], 10))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda values: values["parts"][0].update(id_max="a"), "ids are integers in some parts and strings in others"),
        (lambda values: values["columns"].append(values["columns"][0]), "two columns have one name"),
        (lambda values: values["latent"].update(row_group_rows=10**9), "latent.row_group_rows"),
    ],
    ids=["ids", "columns", "row groups"],
)
def test_a_manifest_that_contradicts_itself_is_refused(change, reason, store):
    with pytest.raises(StoreError, match=reason):
        LatentStore.open(change_manifest(store, change))


@pytest.mark.parametrize("section", ["latent", "samples"])
def test_a_codec_of_other_sizes_than_the_manifest_says_is_refused(section, store):
    changes = {"latent": lambda values: values["latent"].update(levels=15)}
    changes["samples"] = lambda values: values["samples"].update(shape=[4, 5])
    with pytest.raises(StoreError, match="for other samples or latents than the manifest says"):
        LatentStore.open(change_manifest(store, changes[section])).codec_header()


def test_texts_that_are_no_utf_8_are_damage_and_never_get_into_a_store(store, codec, tmp_path):
    wrong = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(struct.pack("<ii", 0, 2)), pa.py_buffer(b"\xff\xfe")]
    )
    texts = pa.concat_arrays([wrong] * ROWS)
    assert "UTF8" in refused(rewrite_part(store, texts))
    samples = write_rows(tmp_path / "rows.parquet", random_pixels((ROWS, 5, 4), "uint8"), text=texts)
    with pytest.raises(DataError, match=r"rows.parquet is damaged: .*UTF8"):
        encode(samples, codec, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_an_encoder_writes_no_row_group_that_readers_would_refuse(codec, tmp_path, small_limit):
    pixels = random_pixels((ROWS, 5, 4), "uint8")
    samples = write_rows(tmp_path / "rows.parquet", pixels, text=["x" * 10_000] * ROWS)
    with pytest.raises(DataError, match=r"rows.parquet: .*; set encode.row_group_rows to less than 10000"):
        encode(samples, codec, tmp_path / "store")
    assert sum(len(table) for table in encode(samples, codec, tmp_path / "store", row_group_rows=5).scan()) == ROWS


def test_a_message_names_the_option_of_the_command_that_was_called(codec, sound, tmp_path, small_limit):
    pixels = random_pixels((ROWS, 5, 4), "uint8")
    columns = {"id": list(range(ROWS)), "text": ["x" * 10_000] * ROWS, "number": [7] * ROWS}
    write_rows(tmp_path / "rows.parquet", pixels, **columns)
    shutil.copytree(sound.path, tmp_path / "store")
    data, given = str(tmp_path / "rows.parquet"), ["--codec", str(codec)]
    commands = {
        "; set --row-group-rows to less than 10000": ["encode", data, *given, "--store", str(tmp_path / "new")],
        "; set `ae-pipeline encode`'s --row-group-rows to less than 20": ["append", str(tmp_path / "store"), data],
        "; set `ae-pipeline encode`'s --row-group-rows to less": ["evaluate", data, *given],
    }
    for words, command in commands.items():
        found = CliRunner().invoke(app, [*command, "--device", "cpu"])
        assert isinstance(found.exception, DataError)
        assert words in str(found.exception)
        assert "encode.row" not in str(found.exception)
    advised = ["encode", data, *given, "--store", str(tmp_path / "new"), "--row-group-rows", "5", "--device", "cpu"]
    assert CliRunner().invoke(app, advised).exit_code == 0


READ_AND_TELL_PEAK = """
import resource, sys
from pathlib import Path
from ae_pipeline.errors import DamagedPartError
from ae_pipeline.store.latent_store import LatentStore
sound, bomb = (LatentStore.open(Path(path)) for path in sys.argv[1:])
list(sound.scan()), list(sound.rows())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    list(bomb.scan())
except DamagedPartError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, error)
"""


@pytest.mark.slow
def test_memory_stays_small_when_a_real_bomb_is_refused(sound, store):
    """A text of 15 MB, which each of 50 rows has, in a file of some kilobytes."""
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * ROWS, pa.int32()), pa.array(["x" * 15_000_000]))
    bomb = rewrite_part(store, texts, store_schema=False, row_group_size=ROWS)
    assert bomb.manifest.parts[0].bytes < 20_000
    command = [sys.executable, "-c", READ_AND_TELL_PEAK, sound.path, bomb.path]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    kibibytes, message = done.stdout.split(maxsplit=1)
    assert "column text would take 765" in message
    assert int(kibibytes) < 300 << 10


# Footers


def varint(value):
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def deep_footer(depth):
    """A Parquet file of a schema whose groups lie one in the other, and no rows."""
    group = b"\x35\x02\x18\x01a\x15\x02\x00"  # optional, called a, one child
    items = b"\x48\x01r\x15\x02\x00" + group * depth + b"\x15\x02\x25\x02\x18\x01a\x00"
    body = b"\x15\x02\x19\xfc" + varint(depth + 2) + items + b"\x16\x00\x19\x0c\x00"
    return b"PAR1" + body + struct.pack("<I", len(body)) + b"PAR1"


@pytest.mark.parametrize(
    ("depth", "reason"),
    [(101, "nested deeper than 100 levels"), (3_000, "nested deeper"), (100_000, "schema has more than 10000 items")],
)
def test_a_schema_that_would_crash_arrow_is_refused_in_stores_and_in_data(depth, reason, store, tmp_path):
    data = deep_footer(depth)
    bomb = replace_part(store, data, [len(data)])
    with pytest.raises(DamagedPartError, match=reason):
        next(bomb.scan())
    (tmp_path / "rows.parquet").write_bytes(data)
    with pytest.raises(DataError, match=f"not a readable Parquet file: .*{reason}"):
        SampleSet.open(tmp_path / "rows.parquet")


def test_a_footer_of_many_row_groups_is_read():
    file = io.BytesIO()
    pq.write_table(pa.table({"a": range(10_050)}), file, row_group_size=1)
    assert read_footer(file).num_row_groups == 10_050


# Codecs


def deep_codec(folder, side):
    """One channel from the image down to one value and up again: a kilobyte of weights for any size of image."""
    options = ConvOptions(channels=[1] * (side - 1).bit_length(), latent_norm="none")
    model = freeze(build_model("conv", (side, side), 1, dict(options)).eval(), "conv")
    quantiser = Quantiser(16, torch.ones(1), torch.zeros(1))
    arguments = {"model_name": "conv", "quantiser": quantiser, "scaling": Scaling(offset=0.0, scale=255.0)}
    save_codec(folder, model=model, spec=SampleSpec((side, side), "uint8"), provenance={}, **arguments)
    return folder


def test_a_small_codec_of_gigantic_rows_is_refused(tmp_path):
    bomb = deep_codec(tmp_path / "codec", 40_000)
    assert sum(map(len, bytes_of(bomb).values())) < 10_000
    with pytest.raises(CodecError, match="computes 1600000000 values per row, at most 134217728 are supported"):
        Codec.load(bomb)


def test_rows_that_are_large_are_computed_few_at_a_time(tmp_path):
    codec = Codec.load(deep_codec(tmp_path / "codec", 3000))
    assert codec.block_rows == (1 << 26) // 3000**2 == 7
    assert codec.decode(np.array([[3]], np.int8)).shape == (1, 3000, 3000)


@pytest.mark.parametrize("model_name", ["dense", "conv", "patches"])
def test_smaller_blocks_change_nothing_but_memory(model_name, tmp_path, monkeypatch):
    usual = random_codec(tmp_path / "codec", model_name=model_name)
    monkeypatch.setattr(ae_pipeline.codec.codec, "_MOST_BLOCK_VALUES", 300)
    few = Codec.load(tmp_path / "codec")
    assert few.block_rows < 16 < usual.block_rows
    pixels = random_pixels((100, 5, 4), "uint8", 3)
    latents, error = few.encode_block(pixels, measure=True)
    assert np.array_equal(latents, few.encode(pixels))
    assert np.array_equal(few.decode(latents), few.decode_block(latents))
    assert np.array_equal(few.decode(latents)[41:42], few.decode(latents[41:42]))
    assert np.allclose(error, usual.encode_block(pixels, measure=True)[1], rtol=1e-3)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_weights_that_make_no_numbers_make_no_warning(dtype, tmp_path):
    random_codec(tmp_path / "codec", dtype=dtype)
    change_header(tmp_path / "codec", scaling__scale=1e300, scaling__offset=-1e300)
    assert Codec.load(tmp_path / "codec").decode(np.zeros((3, 3), np.int8)).shape == (3, 5, 4)


# Links and other things that are no files of the store


def read_all(place):
    store = LatentStore.open(place)
    Codec.load(store.codec_path).decode(next(store.rows()).latents)


PARTS = ["part", MANIFEST_NAME, f"{CODEC_FOLDER}/codec.json", f"{CODEC_FOLDER}/weights.safetensors"]


@pytest.mark.parametrize("how", ["link", "pipe", "folder"])
@pytest.mark.parametrize("name", PARTS)
def test_what_is_no_file_of_the_store_is_not_opened(name, how, store, tmp_path):
    path = store.path / (store.manifest.parts[0].name if name == "part" else name)
    outside = tmp_path / "outside"
    os.replace(path, outside)
    {"link": lambda: path.symlink_to(outside), "pipe": lambda: os.mkfifo(path), "folder": path.mkdir}[how]()
    with pytest.raises(PipelineError, match="is a link" if how == "link" else "is no regular file"):
        read_all(store.path)


def test_a_linked_folder_of_the_codec_is_not_followed(store, tmp_path):
    shutil.move(store.path / CODEC_FOLDER, tmp_path / "outside")
    (store.path / CODEC_FOLDER).symlink_to(tmp_path / "outside")
    with pytest.raises(StoreError, match=r"codec.json is a link"):
        read_all(store.path)


def test_a_store_may_itself_be_reached_by_a_link(store, tmp_path):
    (tmp_path / "link").symlink_to(store.path)
    read_all(tmp_path / "link")


@pytest.fixture
def grown(sound, codec, tmp_path):
    """Two snapshots, and the data of the second one."""
    samples = [write_rows(tmp_path / f"{n}.parquet", random_pixels((20, 5, 4), "uint8", n)) for n in range(3)]
    append = partial(append_samples, codec_path=codec, params=EncodeParams(device="cpu"), name="x", git={})
    append(tmp_path / "grown", [samples[0]])
    append(tmp_path / "grown", [samples[1]])
    return tmp_path / "grown", samples, append


@pytest.mark.parametrize("name", [CODEC_FOLDER, SNAPSHOTS_FOLDER])
def test_nothing_is_written_or_removed_through_a_linked_folder(name, grown, tmp_path):
    store, samples, append = grown
    outside = tmp_path / "outside"
    shutil.move(store / name, outside)
    (outside / ".precious.tmp").write_bytes(b"precious")
    (store / name).symlink_to(outside)
    before = bytes_of(outside)
    for action in (
        lambda: append(store, [samples[2]]),
        lambda: vacuum_store(store),
        lambda: repair_store(store, samples, git={}),
    ):
        with pytest.raises(StoreError, match=f"{name} is a link"):
            action()
    assert bytes_of(outside) == before


def test_nothing_is_written_through_a_link_in_a_temporary_files_place(grown, tmp_path):
    store, samples, append = grown
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    for name in (MANIFEST_NAME, f"{SNAPSHOTS_FOLDER}/2.json"):
        place = store / name
        place.with_name(f".{place.name}.{os.getpid()}.tmp").symlink_to(precious)
    append(store, [samples[2]])
    assert precious.read_bytes() == b"precious"
    assert LatentStore.open(store).manifest.totals.rows == 60


def test_a_link_in_the_place_of_a_left_part_is_not_taken_up(grown, tmp_path):
    store, samples, append = grown
    shutil.copytree(store, tmp_path / "copy")
    name = append(tmp_path / "copy", [samples[2]]).parts[0].name
    (store / name).symlink_to(tmp_path / "copy" / name)
    assert append(store, [samples[2]]).parts[0].name == name
    assert not (store / name).is_symlink()
    assert bytes_of(store) == bytes_of(tmp_path / "copy")


# Numbers that somebody would count up to


@pytest.mark.slow
@pytest.mark.parametrize("snapshot", [999_999, 10**6, 2**63])
def test_a_high_number_of_a_snapshot_takes_no_time(snapshot, grown):
    store, _, _ = grown
    change_manifest(LatentStore.open(store), lambda values: values.update(snapshot=snapshot, parent=snapshot - 1))
    if snapshot > 999_999:
        with pytest.raises(StoreError, match="snapshot: Input should be less than or equal to 999999"):
            LatentStore.open(store)
        return
    damaged = {damage.file: damage.reason for damage in verify_store(store).damaged}
    assert damaged["_snapshots/102.json"] == "is missing, as 999,997 in all are"
    assert vacuum_store(store).kept == [snapshot]
    assert verify_store(store).whole


def test_a_manifest_with_a_high_number_beside_a_damaged_one_takes_no_memory(grown):
    store, _, _ = grown
    (store / SNAPSHOTS_FOLDER / "999999999.json").write_bytes((store / SNAPSHOTS_FOLDER / "1.json").read_bytes())
    (store / MANIFEST_NAME).unlink()
    assert not verify_store(store).whole
