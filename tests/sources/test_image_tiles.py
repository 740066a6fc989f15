"""Pictures of any sizes: they become tiles, and are put together again, each with its own size."""

import io
import json
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from handmade import random_codec
from image_files import as_seen, exif_of, png_bytes, png_of
from own_files import fetch, pieces_of
from PIL import ExifTags, Image

from ae_pipeline.data.json_types import KindEntry
from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.errors import DataError
from ae_pipeline.kinds import build_kind, open_kind
from ae_pipeline.kinds.image_files import size_of
from ae_pipeline.kinds.state import Form, entry_of

KIND = build_kind("image")
RANDOM = np.random.default_rng(0)
FILES = Form(sort="files")


def noise(*shape, dtype="uint8"):
    return RANDOM.integers(0, np.iinfo(dtype).max, shape, dtype=dtype)


def saved(pixels, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def state_of(*found, form=FILES, **settings):
    state = KIND.fit(form, KIND.Options.model_validate(settings), iter(found))
    entry = KindEntry.model_validate_json(entry_of("image", state).model_dump_json())
    assert open_kind(entry, "here")[1] == state
    return state


def read(data, state):
    (found,) = KIND.to_rows(pa.array([data]), str, state)
    return found


SIZES = [(1, 1), (1, 50), (50, 1), (7, 9), (8, 8), (16, 24), (33, 47)]


@pytest.mark.parametrize("most", [1, 3 * 64 * 3, 1 << 20])
@pytest.mark.parametrize("channels", [(), (3,), (4,)])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_picture_of_any_size_comes_back_from_its_tiles(size, channels, most, tmp_path, monkeypatch):
    monkeypatch.setattr("ae_pipeline.kinds.image_tiles._PIECE_BYTES", most)
    pixels = noise(*size, *channels)
    state = state_of(tile=8)
    rows, columns = pieces_of(read(saved(pixels), state), KIND, state)
    assert rows.shape == (-(-size[0] // 8) * -(-size[1] // 8), 8, 8, *channels)
    padded = np.pad(pixels, [(0, -size[0] % 8), (0, -size[1] % 8), *[(0, 0)] * len(channels)], mode="edge")
    for row, top, left in zip(rows, columns["tile_top"].to_pylist(), columns["tile_left"].to_pylist(), strict=True):
        np.testing.assert_array_equal(row, padded[top : top + 8, left : left + 8])
    pieces = [(rows[start : start + 3], columns.slice(start, 3)) for start in range(0, len(rows), 3)]
    KIND.write(pieces, tmp_path / "a.png", state)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), pixels)
    both = KIND.from_rows(np.concatenate([rows, rows]), pa.concat_tables([columns, columns]), state)
    assert [one["bytes"] for one in both.to_pylist()] == [(tmp_path / "a.png").read_bytes()] * 2
    if len(rows) > 1:
        for some in (slice(1, None), slice(None, -1), slice(None, None, -1)):
            taken = columns.take(pa.array(np.arange(len(rows))[some]))
            with pytest.raises(DataError, match="decode all rows of its record"):
                KIND.from_rows(rows[some], taken, state)
            with pytest.raises(DataError, match="decode all rows of its record"):
                KIND.write([(rows[some], taken)], tmp_path / "b.png", state)


def test_values_that_are_no_bytes_are_kept_in_tiles(tmp_path):
    deep = noise(19, 11, dtype="uint16")
    floats = deep.astype(np.float32) / 7
    file = io.BytesIO()
    Image.fromarray(floats).save(file, "TIFF")
    for data, pixels, ending in ((png_of(deep), deep, ".png"), (file.getvalue(), floats, ".tif")):
        state = state_of(tile=4)
        rows, columns = pieces_of(read(data, state), KIND, state)
        assert rows.dtype == pixels.dtype
        assert KIND.ending(state, SampleSpec(rows.shape[1:], rows.dtype.name)) == ending
        KIND.write([(rows, columns)], tmp_path / f"a{ending}", state)
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / f"a{ending}")), pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_exif_says_before_it_is_cut_or_measured(orientation):
    pixels = noise(9, 14, 3)
    state = state_of(tile=8)
    data = png_of(pixels, chunks=[(b"eXIf", exif_of(orientation))])
    rows, columns = pieces_of(read(data, state), KIND, state)
    seen = as_seen(pixels, orientation)
    assert (columns["picture_height"][0].as_py(), columns["picture_width"][0].as_py()) == seen.shape[:2]
    (found,) = KIND.from_rows(rows, columns, state).to_pylist()
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(found["bytes"]))), seen)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    for other in [data, *(saved(pixels, kind, exif=exif) for kind in ("JPEG", "WEBP", "TIFF"))]:
        assert size_of(other) == seen.shape[:2]


def test_small_pictures_of_one_size_are_whole_and_all_others_are_tiles(tmp_path):
    def paths(*sizes):
        for number, size in enumerate(sizes):
            (tmp_path / f"{number}.png").write_bytes(saved(noise(*size)))
        return [tmp_path / f"{number}.png" for number in range(len(sizes))]

    whole = {"form": FILES.model_dump(mode="json")}
    for sizes in ([(5, 4)] * 3, [(64, 64), (64, 64, 3)], [(1, 4096)]):
        state = state_of(*paths(*sizes))
        assert not KIND.makes_several(state)
        # As codecs of whole pictures always had it: their fingerprints stay.
        assert entry_of("image", state).state == whole
    for sizes in ([(5, 4), (4, 5)], [(65, 64)], [(5, 4), (5, 4), (300, 200)]):
        assert state_of(*paths(*sizes)).tile == 32
    (tmp_path / "broken.png").write_bytes(b"no")
    assert state_of(tmp_path / "broken.png", *paths((5, 4))).tile is None
    assert state_of(*paths((5, 4)), tile=16).tile == 16
    assert state_of(*paths((300, 200)), tile="whole").tile is None
    assert state_of(*paths((300, 200)), resize=[20, 30]).tile is None
    assert state_of(*paths((5, 4)), resize=[200, 300]).tile == 32
    assert state_of(noise(3, 28, 28)).tile is None
    assert state_of(noise(3, 65, 65)).tile == 32
    assert state_of(pa.array([saved(noise(5, 4)), None]), pa.array([saved(noise(4, 5))])).tile == 32


def palette_png(transparent=None):
    rows = [bytes([0, 1, 2, 1]) for _ in range(5)]
    return png_bytes(rows, (4, 5), 8, 3, palette=bytes(range(9)), transparent=transparent)


def test_pictures_of_several_colours_are_brought_to_one_and_come_back_as_what_they_were(tmp_path):
    grey, colour, opaque = noise(5, 4), noise(9, 3, 3), noise(3, 10, 4)
    pictures = {"grey": saved(grey), "rgb": saved(colour), "rgba": saved(opaque)}
    for wanted, known in (("rgb", ["grey", "rgb"]), ("rgba", ["grey", "rgb", "rgba"])):
        state = state_of(tile=8, colour=wanted)
        for name in known:
            rows, columns = pieces_of(read(pictures[name], state), KIND, state)
            assert rows.shape[1:] == (8, 8, len(wanted))
            assert set(columns["picture_colour"].to_pylist()) == {name}
            (found,) = KIND.from_rows(rows, columns, state).to_pylist()
            np.testing.assert_array_equal(
                np.asarray(Image.open(io.BytesIO(found["bytes"]))), {"grey": grey, "rgb": colour, "rgba": opaque}[name]
            )
    state = state_of(tile=8, colour="rgb")
    for data in (saved(opaque), palette_png(transparent=b"\0")):
        assert "is rgba of uint8, which `colour: rgb` has no place for; take it out, or set `colour: rgba`" in str(
            read(data, state)
        )
    assert "is grey of uint16, which `colour: rgb` has no place for" in str(
        read(png_of(noise(5, 4, dtype="uint16")), state)
    )
    assert pieces_of(read(palette_png(), state), KIND, state)[0].shape[1:] == (8, 8, 3)
    assert state_of(saved(grey), colour="rgb").tile == 32
    with pytest.raises(DataError, match="has `tile: whole` and `colour`; set one of them to null"):
        state_of(tile="whole", colour="rgb")


@pytest.mark.parametrize("pixels", [noise(9, 12), noise(9, 12, 3), noise(9, 12, 4), noise(9, 12, dtype="uint16")])
def test_pictures_are_resized_only_where_it_is_asked_for(pixels):
    state = state_of(resize=[6, 5])
    flat = np.full_like(pixels, 200)
    row = read(png_of(pixels), state)
    assert (row.shape, row.dtype) == ((6, 5, *pixels.shape[2:]), pixels.dtype)
    np.testing.assert_array_equal(read(png_of(flat), state), flat[:6, :5])
    np.testing.assert_array_equal(next(KIND.to_rows(pixels[None], str, state)), row)
    both = state_of(resize=[6, 5], tile=4)
    rows, columns = pieces_of(read(png_of(pixels), both), KIND, both)
    np.testing.assert_array_equal(KIND.to_array(rows, columns, both)[0], row)
    odd = next(KIND.to_rows(np.zeros((1, 9, 12, 2), np.int16), str, state))
    assert "which `resize` cannot take" in str(odd)


def test_columns_that_no_picture_can_have_given_are_refused():
    state = state_of(tile=8)
    rows, columns = pieces_of(read(saved(noise(9, 9)), state), KIND, state)
    for height in (0, -5, 2**31 - 1, 1 << 20):
        place = columns.column_names.index("picture_height")
        wrong = columns.set_column(place, columns.field(place), [pa.array([height] * len(rows), pa.int32())])
        with pytest.raises(DataError, match=r"restore the store|decode all rows of its record"):
            KIND.from_rows(rows, wrong, state)


def test_more_pixels_than_pillow_takes_for_harmless_are_read_as_tiles_alone(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    data = saved(noise(12, 12))
    assert "is not a readable image" in str(read(data, state_of(tile="whole")))
    assert read(data, state_of(tile=8)).rows == 4
    assert "is not a readable image" in str(read(saved(noise(15, 15)), state_of(tile=8)))


def test_sizes_may_differ_and_channels_not_unless_it_is_asked_for(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(12):
        (tmp_path / f"in/{number:02}.png").write_bytes(saved(noise(5 + number, 40 - number, 3)))
    splits = fetch(tmp_path, path=tmp_path / "in", kind="image")
    assert {split.pixels.shape[1:] for split in splits.values()} == {(32, 32, 3)}
    (tmp_path / "in/grey.png").write_bytes(saved(noise(5, 4)))
    wanted = (
        r"has records of 2 sizes: 12 of uint8 32x32x3 \(00.png\), 1 of uint8 32x32 \(grey.png\); expected one: set .*"
    )
    with pytest.raises(DataError, match=wanted + r"\{colour: rgb\}"):
        fetch(tmp_path, path=tmp_path / "in")
    splits = fetch(tmp_path, path=tmp_path / "in", settings={"colour": "rgb"})
    found = {colour for split in splits.values() for colour in split.attributes["picture_colour"].to_pylist()}
    assert found == {"grey", "rgb"}
    (tmp_path / "in/cut.png").write_bytes(saved(noise(50, 40))[:-30])
    with pytest.raises(DataError, match=r"1 record\(s\) or file\(s\) that cannot be read: .*cut.png is not a readable"):
        fetch(tmp_path, path=tmp_path / "in", settings={"colour": "rgb"})
    fetch(tmp_path, path=tmp_path / "in", settings={"colour": "rgb"}, skip_unreadable=True)


def coded(folder, shape, form, **settings):
    return random_codec(folder, shape, kind=entry_of("image", state_of(form=form, **settings)))


def test_pictures_of_many_sizes_go_into_a_store_that_grows_and_come_back(ae, tmp_path):
    coded(tmp_path / "codec", (8, 8, 3), FILES, tile=8)
    sizes = {}
    for number in range(10):
        path = tmp_path / f"data/{'ab'[number % 2]}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        sizes[f"{'ab'[number % 2]}/{number}.png"] = (5 * number + 1, 30 - number)
        path.write_bytes(saved(noise(5 * number + 1, 30 - number, 3)))
    (tmp_path / "data/a/cut.png").write_bytes(saved(noise(9, 9, 3))[:-30])
    command = ("encode", tmp_path / "data", "--codec", tmp_path / "codec", "--store", tmp_path / "store")
    code, _, err = ae(*command)
    assert (code, "a/cut.png is not a readable image" in err) == (1, True)
    code, out, _ = ae(*command, "--skip-unreadable", "--row-group-rows", 7, "--json")
    assert (code, json.loads(out)["rows"]) == (0, sum(-(-high // 8) * -(-wide // 8) for high, wide in sizes.values()))
    (part,) = (tmp_path / "store").glob("part-*")
    names = ["id", "record", "tile_top", "tile_left", "picture_height", "picture_width", "source_file"]
    assert pq.read_schema(part).names[:7] == names
    assert ae("verify", tmp_path / "store", "--deep", "--source", tmp_path / "data")[0] == 0
    whole = part.read_bytes()
    part.write_bytes(whole[:-9] + b"123456789")
    assert ae("verify", tmp_path / "store")[0] == 1
    assert ae("repair", tmp_path / "store", "--source", tmp_path / "data")[0] == 0
    assert part.read_bytes() == whole
    code, out, _ = ae("evaluate", tmp_path / "data", "--store", tmp_path / "store", "--skip-unreadable", "--json")
    assert (code, json.loads(out)["rows"]) == (0, pq.read_metadata(part).num_rows)
    (tmp_path / "more").mkdir()
    (tmp_path / "more/new.png").write_bytes(saved(noise(1, 1, 3)))
    sizes["new.png"] = (1, 1)
    assert ae("append", tmp_path / "store", tmp_path / "more")[0] == 0
    assert ae("decode", tmp_path / "store", "--out", tmp_path / "out")[0] == 0
    assert {name: np.asarray(Image.open(tmp_path / "out" / name)).shape[:2] for name in sizes} == sizes
    index = pq.read_table(tmp_path / "out/index.parquet")
    assert (index.column_names, len(index)) == (["file", "record", "source_file"], 11)
    assert ae("decode", tmp_path / "store", "--out", tmp_path / "x.parquet", "--format", "parquet")[0] == 0
    for line in pq.read_table(tmp_path / "x.parquet").to_pylist():
        assert line["image"]["bytes"] == (tmp_path / "out" / line["source_file"]).read_bytes()
    where = ("--where", "source_file = 'b/9.png'", "--out", tmp_path / "one")
    assert ae("decode", tmp_path / "store", *where)[0] == 0
    assert (tmp_path / "one/b/9.png").read_bytes() == (tmp_path / "out/b/9.png").read_bytes()
    code, _, err = ae("decode", tmp_path / "store", "--out", tmp_path / "some", "--ids", "3")
    assert (code, "decode all rows of its record" in err) == (1, True)


def test_arrays_and_tensors_of_large_pictures_are_tiles_too_and_come_back(ae, tmp_path):
    pictures = noise(7, 19, 21, 3)
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data/a.npz", photo=pictures[:4], name=np.array(list("abcd")))
    np.savez(tmp_path / "data/b.npz", photo=pictures[4:], name=np.array(list("efg")))
    form = Form(sort="array", column="photo", type="uint8")
    coded(tmp_path / "codec", (8, 8, 3), form, tile=8)
    command = ("--codec", tmp_path / "codec", "--store", tmp_path / "store", "--row-group-rows", 5)
    assert ae("encode", tmp_path / "data", *command)[0] == 0
    assert ae("decode", tmp_path / "store", "--out", tmp_path / "out")[0] == 0
    found = []
    for name in "ab":
        with np.load(tmp_path / f"out/{name}.npz") as file:
            found.append(dict(file))
    assert [one["photo"].shape for one in found] == [(4, 19, 21, 3), (3, 19, 21, 3)]
    assert "".join(found[0]["name"]) + "".join(found[1]["name"]) == "abcdefg"
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(pictures)
    (tmp_path / "table").mkdir()
    pq.write_table(pa.table({"photo": tensors, "id": list("abcdefg")}), tmp_path / "table/a.parquet", row_group_size=3)
    splits = fetch(tmp_path, path=tmp_path / "table", settings={"tile": 8})
    entry = splits["train"].kind
    assert entry.state["tile"] == 8
    random_codec(tmp_path / "tensors", (8, 8, 3), kind=entry)
    command = ("--codec", tmp_path / "tensors", "--store", tmp_path / "store2", "--row-group-rows", 5)
    assert ae("encode", tmp_path / "table", *command)[0] == 0
    assert ae("decode", tmp_path / "store2", "--out", tmp_path / "y.parquet", "--format", "parquet")[0] == 0
    table = pq.read_table(tmp_path / "y.parquet")
    assert table["id"].to_pylist() == list("abcdefg")
    again = table["photo"].combine_chunks()
    np.testing.assert_array_equal(
        (again.chunk(0) if isinstance(again, pa.ChunkedArray) else again).to_numpy_ndarray()[:4], found[0]["photo"]
    )


def test_a_large_picture_is_written_as_its_tiles_come(tmp_path):
    """Pillow has its pixels, which Python does not see; neither they nor the file are anywhere else."""
    state, side = state_of(tile=32), 1024
    rows, columns = pieces_of(read(saved(noise(side, side, 3)), state), KIND, state)
    pieces = ((rows[start : start + 64], columns.slice(start, 64)) for start in range(0, len(rows), 64))
    tracemalloc.start()
    KIND.write(pieces, tmp_path / "back.png", state)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "back.png").stat().st_size > 2 * side**2
    assert most < side**2
