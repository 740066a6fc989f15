"""The latent store's files: what a complete store is, and that nothing damaged or foreign is taken for one."""

import json
import re
import shutil
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from handmade import bytes_of, encode, flip_bit, random_codec, random_pixels, write_rows

from ae_pipeline.errors import CodecError, NewerFormatError, StoreError
from ae_pipeline.files import sha256_file, sha256_json
from ae_pipeline.store.format.layouts import LAYOUTS
from ae_pipeline.store.format.manifest import CODEC_FOLDER, MANIFEST_NAME, read_manifest, write_manifest
from ae_pipeline.store.format.part_writer import round_error
from ae_pipeline.store.latent_store import LatentStore


@pytest.fixture(params=LAYOUTS)
def store(request, tmp_path, synthetic_prepared, tiny_codec):
    """A store of three parts that the test may damage."""
    return encode(synthetic_prepared / "train", tiny_codec, tmp_path / "store", layout=request.param, row_group_rows=64)


@pytest.fixture
def list_store(tmp_path, synthetic_prepared, tiny_codec):
    return encode(synthetic_prepared / "train", tiny_codec, tmp_path / "store")


def read_all(store):
    """Every row, through everything that a reader checks."""
    store = LatentStore.open(store.path)
    store.codec_header()
    return [rows for part in store.manifest.parts for rows in store.read_part(part, 100)]


def change_manifest(store, change, *, keep_digest=False):
    path = store.path / MANIFEST_NAME
    values = json.loads(path.read_text(encoding="utf-8"))
    digest = values.pop("digest")
    change(values)
    values["digest"] = digest if keep_digest else sha256_json(values)
    path.write_text(json.dumps(values), encoding="utf-8")


def test_the_manifest_comes_back_as_it_was_written(store, tmp_path):
    (tmp_path / "copy").mkdir()
    write_manifest(tmp_path / "copy", store.manifest)
    assert read_manifest(tmp_path / "copy") == store.manifest
    assert (tmp_path / "copy" / MANIFEST_NAME).read_bytes() == (store.path / MANIFEST_NAME).read_bytes()


def test_the_manifest_tells_what_is_on_disk(store, tiny_codec):
    manifest = store.manifest
    files = bytes_of(store.path)
    assert set(files) == {part.name for part in manifest.parts} | {
        MANIFEST_NAME,
        f"{CODEC_FOLDER}/codec.json",
        f"{CODEC_FOLDER}/weights.safetensors",
    }
    assert store.nbytes == sum(map(len, files.values()))
    for part in manifest.parts:
        parquet = pq.ParquetFile(store.path / part.name)
        assert (part.bytes, part.sha256) == (len(files[part.name]), sha256_file(store.path / part.name))
        assert part.rows == parquet.metadata.num_rows
        assert part.name.split("-")[2] == f"{part.job[:16]}.parquet"
        assert [(column.name, column.type) for column in manifest.columns] == [
            (field.name, str(field.type)) for field in parquet.schema_arrow
        ]
    assert manifest.codec.files == {name: sha256_file(tiny_codec / name) for name in manifest.codec.files}
    assert manifest.totals.rows == 540 == sum(part.rows for part in manifest.parts)
    assert manifest.totals.bytes_in == 540 * 144
    assert manifest.totals.bytes_parts == sum(part.bytes for part in manifest.parts)


def test_the_ranges_of_ids_are_those_of_the_parts(store):
    ids = [pq.read_table(store.path / part.name, columns=["id"])["id"].to_pylist() for part in store.manifest.parts]
    assert [(part.id_min, part.id_max) for part in store.manifest.parts] == [(min(part), max(part)) for part in ids]
    assert all(before.id_max < after.id_min for before, after in pairwise(store.manifest.parts))


def test_row_groups_have_the_asked_for_rows(store):
    metadata = pq.read_metadata(store.path / store.manifest.parts[0].name)
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [64, 64, 64, 8]


def test_the_latent_bytes_are_those_of_one_column(store):
    total = 0
    for part in store.manifest.parts:
        metadata = pq.read_metadata(store.path / part.name)
        for group in range(metadata.num_row_groups):
            columns = [metadata.row_group(group).column(n) for n in range(metadata.num_columns)]
            total += sum(
                c.total_compressed_size for c in columns if c.path_in_schema in ("latent", "latent.list.element")
            )
    assert 0 < total == store.latent_bytes() < store.manifest.totals.bytes_parts


@pytest.mark.parametrize("rows", [1, 63, 64, 1000])
def test_blocks_of_any_size_hold_the_same_rows(store, rows):
    part = store.manifest.parts[0]
    blocks = list(store.read_part(part, rows))
    assert max(len(block.latents) for block in blocks) <= rows
    assert all(len(b.latents) == len(b.error) == b.attributes.num_rows for b in blocks)
    whole = np.concatenate([block.latents for block in store.read_part(part, 200)])
    assert np.array_equal(np.concatenate([block.latents for block in blocks]), whole)


def test_a_folder_that_does_not_exist_is_no_store(tmp_path):
    with pytest.raises(StoreError, match=re.escape(f"no store at {tmp_path / 'nothing'}")):
        LatentStore.open(tmp_path / "nothing")


def test_a_store_without_manifest_does_not_exist(list_store):
    (list_store.path / MANIFEST_NAME).unlink()
    with pytest.raises(StoreError, match=rf"not a complete latent store \({MANIFEST_NAME} is missing\)"):
        LatentStore.open(list_store.path)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"\xff\xfe", b"[" * 200_000, b'{"format": 1, "x": NaN}', b'{"format": 1, "x": "\\ud800"}', b"[1]"],
    ids=["empty", "truncated", "no text", "too deep", "not a number", "half a character", "a list"],
)
def test_a_manifest_that_is_no_manifest_is_a_store_error(text, list_store):
    (list_store.path / MANIFEST_NAME).write_bytes(text)
    with pytest.raises(StoreError, match=MANIFEST_NAME) as caught:
        LatentStore.open(list_store.path)
    assert "\n" not in str(caught.value)


def test_a_later_format_is_refused_by_its_number(list_store):
    change_manifest(list_store, lambda values: values.update(format=5))
    with pytest.raises(NewerFormatError, match="has format 5, expected 1, 2, 3 or 4: a later version"):
        LatentStore.open(list_store.path)


@pytest.mark.parametrize("found", [0, "1", None])
def test_what_was_never_a_format_is_refused(found, list_store):
    change_manifest(list_store, lambda values: values.update(format=found))
    with pytest.raises(StoreError, match="is not a valid manifest: format: Input should be 1, 2, 3 or 4"):
        LatentStore.open(list_store.path)


def test_a_changed_manifest_is_refused(list_store):
    change_manifest(list_store, lambda values: values["source"].update(name="other"), keep_digest=True)
    with pytest.raises(StoreError, match="was changed: its digest does not match"):
        LatentStore.open(list_store.path)


def _set(*place, to):
    def change(values):
        for key in place[:-1]:
            values = values[key]
        values[place[-1]] = to

    return change


@pytest.mark.parametrize(
    "name",
    [
        "../part-00000-0123456789abcdef.parquet",
        "/etc/passwd",
        "part-0.parquet",
        "part-00000-0123456789abcdef.parquet\n",
    ],
)
def test_a_part_name_that_leaves_the_store_is_refused(name, list_store):
    change_manifest(list_store, _set("parts", 0, "name", to=name))
    with pytest.raises(StoreError, match=r"parts\.0\.name"):
        LatentStore.open(list_store.path)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (_set("surprise", to=1), "surprise"),
        (lambda values: values.pop("parts"), "parts"),
        (_set("parts", to=[]), "parts"),
        (_set("totals", "rows", to=541), "totals.rows"),
        (_set("latent", "layout", to="pickle"), "layout"),
        (_set("latent", "size", to=0), "size"),
        (_set("parts", 0, "rows", to=-1), "rows"),
        (_set("codec", "files", to={"../codec.json": "0" * 64}), "files"),
        (lambda values: values["parts"].__setitem__(1, values["parts"][0]), "a part is listed twice"),
    ],
)
def test_a_manifest_that_does_not_hold_together_is_refused(change, place, list_store):
    change_manifest(list_store, change)
    with pytest.raises(StoreError, match="is not a valid manifest") as caught:
        LatentStore.open(list_store.path)
    assert place in str(caught.value)


def part_path(store, number=1):
    return store.path / store.manifest.parts[number].name


def refuse(store, *, naming):
    with pytest.raises(StoreError, match=re.escape(str(naming))) as caught:
        read_all(store)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_part_is_named(store):
    part_path(store).unlink()
    assert "is missing, but the manifest lists it" in refuse(store, naming=part_path(store))


@pytest.mark.parametrize("left", [0, 100, -1])
def test_a_truncated_part_is_refused(left, store):
    part_path(store).write_bytes(part_path(store).read_bytes()[:left])
    refuse(store, naming=part_path(store))


def test_the_bytes_of_another_part_are_refused(store):
    shutil.copyfile(part_path(store, 0), part_path(store, 1))
    refuse(store, naming=part_path(store, 1))


def test_another_part_of_the_same_length_is_refused(tmp_path):
    random_codec(tmp_path / "codec")
    pixels = random_pixels((40, 5, 4), "uint8")
    for number in (0, 1):
        write_rows(tmp_path / "data" / f"{number}.parquet", pixels, id=[1000 * (number + 1) + row for row in range(40)])
    store = encode(tmp_path / "data", tmp_path / "codec", tmp_path / "store", layout="binary")
    first, second = part_path(store, 0).read_bytes(), part_path(store, 1).read_bytes()
    assert len(first) == len(second)
    assert first != second
    part_path(store, 0).write_bytes(second)
    refuse(store, naming=part_path(store, 0))


@pytest.mark.slow
def test_a_flipped_bit_anywhere_in_a_part_is_refused(store):
    whole = part_path(store).read_bytes()
    for position in np.random.default_rng(0).choice(len(whole), 150, replace=False):
        flip_bit(part_path(store), position, bit=position % 8)
        refuse(store, naming=part_path(store))
        part_path(store).write_bytes(whole)
    assert sum(len(rows.latents) for rows in read_all(store)) == 540


def test_damage_that_comes_while_a_store_is_open_is_refused(store):
    opened = LatentStore.open(store.path)
    part = opened.manifest.parts[1]
    assert sum(len(rows.latents) for rows in opened.read_part(part, 100)) == part.rows
    spoil_unnoticed(part_path(store))
    with pytest.raises(StoreError, match=f"{part.name} is damaged: bytes .* were changed"):
        list(opened.read_part(part, 100))


def spoil_unnoticed(path):
    """Flip a bit that changes values and that only the checksums of pages can tell."""
    whole, table = path.read_bytes(), pq.read_table(path)
    column = pq.read_metadata(path).row_group(0).column(2)
    for back in range(1, column.total_compressed_size):
        flip_bit(path, column.data_page_offset + column.total_compressed_size - back)
        try:
            if not pq.read_table(path).equals(table):
                return
        except (pa.ArrowException, OSError):
            pass
        path.write_bytes(whole)
    pytest.fail("no such bit")


def test_page_checksums_find_a_flipped_bit_without_the_manifest(store):
    metadata = pq.read_metadata(part_path(store))
    chunks = [metadata.row_group(0).column(number) for number in range(metadata.num_columns)]
    random = np.random.default_rng(0)
    whole = part_path(store).read_bytes()
    for chunk in chunks:
        # The last bytes of a column chunk are page data, not a page header.
        last = chunk.dictionary_page_offset or chunk.data_page_offset
        last += chunk.total_compressed_size - 1
        flip_bit(part_path(store), last, bit=int(random.integers(8)))
        with pytest.raises(OSError, match="CRC checksum"):
            pq.read_table(part_path(store), page_checksum_verification=True)
        part_path(store).write_bytes(whole)


def test_a_part_with_other_rows_than_the_manifest_says_is_refused(store):
    def change(values):
        values["parts"][1]["rows"] += 1
        values["totals"]["rows"] += 1

    change_manifest(store, change)
    assert "has 200 rows, the manifest says 201" in refuse(store, naming=part_path(store))


def test_the_codec_of_another_fingerprint_is_refused(list_store, tmp_path):
    random_codec(tmp_path / "other", (12, 12), latent_size=6)
    shutil.rmtree(list_store.codec_path)
    shutil.copytree(tmp_path / "other", list_store.codec_path)
    message = refuse(list_store, naming=list_store.codec_path)
    assert f"but the store was written with {list_store.manifest.codec.fingerprint[:12]}" in message


def test_a_store_without_its_codec_is_refused(list_store):
    shutil.rmtree(list_store.codec_path)
    with pytest.raises(CodecError, match=CODEC_FOLDER):
        read_all(list_store)


def test_errors_are_rounded_to_eight_fraction_bits():
    random = np.random.default_rng(0)
    error = np.concatenate([random.uniform(0, 0.1, 5000), 10.0 ** random.uniform(-30, 5, 5000), [0.0, 1.0, 0.5]])
    error = error.astype(np.float32)
    rounded = round_error(error)
    assert rounded.dtype == np.float32
    assert np.abs(rounded - error).max(initial=0, where=error < 1) < 0.002
    assert (np.abs(rounded.astype(np.float64) - error) <= 0.002 * error).all()
    assert not (rounded.view(np.uint32) & 0x7FFF).any()
    assert np.array_equal(round_error(rounded), rounded)
    assert len(np.unique(rounded)) > 3000


def test_stored_errors_are_rounded_ones(store):
    errors = np.concatenate([rows.error for rows in read_all(store)])
    assert errors.dtype == np.float32
    assert not (errors.view(np.uint32) & 0x7FFF).any()
    assert (errors > 0).all()
