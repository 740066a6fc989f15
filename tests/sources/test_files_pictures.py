"""The source `files` on pictures: each comes as it is, or is refused by name."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_files import as_seen, exif_of, png_bytes, png_of, tiff_of
from own_files import fetch, rows_of
from PIL import Image

from ae_pipeline.errors import DataError

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 255, (5, 4), dtype=np.uint8)
COLOUR = RANDOM.integers(0, 255, (5, 4, 3), dtype=np.uint8)
OPACITY = RANDOM.integers(0, 255, (5, 4, 4), dtype=np.uint8)
DEEP = RANDOM.integers(0, 65535, (5, 4), dtype=np.uint16)
INDEXED = np.arange(20).reshape(5, 4) % 3
PALETTE = RANDOM.integers(0, 255, (3, 3), dtype=np.uint8)


def saved(pixels, kind="PNG", mode=None, **options):
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(file, kind, **options)
    return file.getvalue()


def indexed(transparent=None):
    rows = [row.astype(np.uint8).tobytes() for row in INDEXED]
    return png_bytes(rows, (4, 5), 8, 3, palette=PALETTE.tobytes(), transparent=transparent)


def folder_of(tmp_path, data, count=12, suffix=".png"):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:02}{suffix}").write_bytes(data)
    return folder


SPELT = PALETTE[INDEXED]
KEPT = {
    "grey PNG": (saved(GREY), ".png", GREY),
    "colour PNG": (saved(COLOUR), ".PNG", COLOUR),
    "colour and opacity PNG": (saved(OPACITY), ".png", OPACITY),
    "16-bit grey PNG": (png_of(DEEP), ".png", DEEP),
    "1-bit PNG": (saved(GREY, mode="1"), ".png", np.asarray(Image.fromarray(GREY).convert("1").convert("L"))),
    "palette PNG": (indexed(), ".png", SPELT),
    "palette PNG with opacity": (
        indexed(b"\xff\x80"),
        ".png",
        np.dstack([SPELT, np.array([255, 128, 255], np.uint8)[INDEXED]]),
    ),
    "WebP": (saved(COLOUR, "WEBP", lossless=True), ".webp", COLOUR),
    "BMP": (saved(COLOUR, "BMP"), ".bmp", COLOUR),
    "grey TIFF": (saved(GREY, "TIFF"), ".tif", GREY),
    "16-bit TIFF": (tiff_of(DEEP, ">"), ".tiff", DEEP),
    "float TIFF": (tiff_of(DEEP.astype(np.float32) / 7), ".tiff", DEEP.astype(np.float32) / 7),
    "grey JPEG": (saved(GREY, "JPEG"), ".jpg", np.asarray(Image.open(io.BytesIO(saved(GREY, "JPEG"))))),
    "colour JPEG": (saved(COLOUR, "JPEG"), ".jpeg", np.asarray(Image.open(io.BytesIO(saved(COLOUR, "JPEG"))))),
    "one pixel": (saved(COLOUR[:1, :1]), ".png", COLOUR[:1, :1]),
}


@pytest.mark.parametrize("name", KEPT)
def test_a_picture_is_kept_as_it_is(name, tmp_path):
    data, suffix, pixels = KEPT[name]
    splits = fetch(tmp_path, path=folder_of(tmp_path, data, suffix=suffix))
    found = rows_of(splits)
    assert len(found) == 12
    for line, row in found:
        assert row.dtype == pixels.dtype
        np.testing.assert_array_equal(row, pixels)
        assert line["source_file"] == f"{line['id']:02}{suffix}"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation, tmp_path):
    data = png_of(COLOUR, chunks=[(b"eXIf", exif_of(orientation))])
    for _, row in rows_of(fetch(tmp_path, path=folder_of(tmp_path, data))):
        np.testing.assert_array_equal(row, as_seen(COLOUR, orientation))


DEEP_COLOUR = RANDOM.integers(0, 65535, (5, 4, 3), dtype=np.uint16)
REFUSED = {
    "CMYK": (saved(COLOUR, "JPEG", "CMYK"), ".jpg", "is CMYK"),
    "16 bits of colour": (png_of(DEEP_COLOUR), ".png", "has unsigned values of 16 bits in 3 channels"),
    "signed": (tiff_of(GREY.astype(np.int16)), ".tif", "has signed values of 16 bits"),
    "grey with transparency": (saved(GREY, mode="LA"), ".png", "is grey with transparency"),
    "grey of which one value is transparent": (
        png_of(GREY, transparent=b"\0\7"),
        ".png",
        "is grey with transparency",
    ),
    "float that is no number": (tiff_of(np.full((5, 4), np.nan, np.float32)), ".tif", "NaN or infinite"),
    "cut off": (saved(COLOUR)[:-30], ".png", "is not a readable image"),
    "empty": (b"", ".png", "is not a readable image"),
    "no picture": (b"%!PS-Adobe-3.0 EPSF-3.0\n", ".png", "is not a readable image"),
    "two pictures": (
        saved(COLOUR, "TIFF", save_all=True, append_images=[Image.fromarray(COLOUR)]),
        ".tif",
        "holds 2 images",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_kept_is_refused_by_name_or_left_out_and_listed(name, tmp_path):
    data, suffix, why = REFUSED[name]
    like = {"16 bits of colour": COLOUR}.get(name, COLOUR)
    folder = folder_of(tmp_path, saved(like))
    (folder / f"odd{suffix}").write_bytes(data)
    with pytest.raises(DataError) as caught:
        fetch(tmp_path, path=folder)
    assert f"{folder}/odd{suffix} " in str(caught.value)
    assert why in str(caught.value)
    assert str(caught.value).endswith("set source.files.skip_unreadable to true, which leaves them out")
    splits = fetch(tmp_path, path=folder, skip_unreadable=True)
    assert len(rows_of(splits)) == 12
    (left_out,) = pq.read_table(tmp_path / "raw/left_out.parquet").to_pylist()
    assert left_out["record"] == f"odd{suffix}"
    assert why in left_out["reason"]
    read = {line["source_file"]: line["read"] for line in pq.read_table(tmp_path / "raw/files.parquet").to_pylist()}
    assert read == {**{f"{number:02}.png": 1 for number in range(12)}, f"odd{suffix}": 0}


def test_the_first_five_unreadable_ones_are_named_and_all_are_counted(tmp_path):
    folder = folder_of(tmp_path, saved(COLOUR))
    for number in range(9):
        (folder / f"bad{number}.png").write_bytes(b"no")
    with pytest.raises(DataError, match=r"has 9 record\(s\) or file\(s\) that cannot be read: .*bad4.*\(and 4 more\)"):
        fetch(tmp_path, path=folder)
    fetch(tmp_path, path=folder, skip_unreadable=True)
    assert pq.read_metadata(tmp_path / "raw/left_out.parquet").num_rows == 9


@pytest.mark.parametrize("skip", [True, False])
def test_where_no_record_can_be_read_nobody_is_told_to_leave_them_out(skip, tmp_path):
    for number in range(3):
        (tmp_path / f"bad{number}.png").write_bytes(b"no")
    with pytest.raises(
        DataError, match=r"3 record\(s\) .*; no record can be read: mend them, or name others"
    ) as caught:
        fetch(tmp_path, path=tmp_path, skip_unreadable=skip)
    assert "skip_unreadable" not in str(caught.value)


def test_sizes_and_channels_that_differ_are_refused_with_their_numbers(tmp_path):
    folder = folder_of(tmp_path, saved(COLOUR))
    (folder / "grey.png").write_bytes(saved(GREY))
    (folder / "wide.png").write_bytes(saved(COLOUR[:4]))
    wanted = (
        r"has records of 3 sizes: 12 of uint8 5x4x3 \(00.png\), 1 of uint8 5x4 \(grey.png\), 1 of uint8 4x4x3 "
        r"\(wide.png\); expected one: set source.files.settings: \{tile: 32\} for pictures of several sizes"
    )
    with pytest.raises(DataError, match=wanted):
        fetch(tmp_path, path=folder, settings={"tile": "whole"})


def test_a_sub_folder_is_the_label_and_the_same_name_may_be_in_several(tmp_path):
    for label in ("cat", "dog", "owl/barn"):
        (tmp_path / "in" / label).mkdir(parents=True)
        for number in range(6):
            (tmp_path / "in" / label / f"{number}.png").write_bytes(saved(COLOUR))
    found = [line for line, _ in rows_of(fetch(tmp_path, path=tmp_path / "in", label="folder"))]
    assert {line["source_file"].rsplit("/", 1)[0] for line in found} == {"cat", "dog", "owl/barn"}
    assert all(line["label"] == line["source_file"].rsplit("/", 1)[0] for line in found)
    (tmp_path / "in/7.png").write_bytes(saved(COLOUR))
    with pytest.raises(DataError, match=r"in/7.png lies in no sub-folder that could be its label; move it into one"):
        fetch(tmp_path, path=tmp_path / "in", label="folder")


def as_hugging_face(pictures, paths=None):
    paths = paths or [f"{number}.png" for number in range(len(pictures))]
    both = [{"bytes": data, "path": path} for data, path in zip(pictures, paths, strict=True)]
    return pa.array(both, pa.struct({"bytes": pa.binary(), "path": pa.string()}))


def test_pictures_in_parquet_as_hugging_face_writes_them(tmp_path):
    tones = [np.full((5, 4, 3), number, np.uint8) for number in range(150)]
    table = pa.table(
        {"image": as_hugging_face([saved(tone) for tone in tones]), "label": [number % 3 for number in range(150)]}
    )
    for part in range(2):
        name = tmp_path / f"in/train-{part:05}-of-00002.parquet"
        name.parent.mkdir(exist_ok=True)
        pq.write_table(table.slice(part * 75, 75), name, row_group_size=20)
    found = rows_of(fetch(tmp_path, path=tmp_path / "in"))
    assert len(found) == 150
    for line, row in found:
        np.testing.assert_array_equal(row, tones[line["id"]])
        assert (line["label"], line["image_path"]) == (line["id"] % 3, f"{line['id'] % 150}.png")
        assert line["source_file"] == f"train-0000{line['id'] // 75}-of-00002.parquet"


def test_bytes_alone_are_pictures_and_a_bad_row_is_named(tmp_path):
    pictures = [saved(GREY)] * 30
    pictures[17] = b"no picture"
    pictures[21] = None
    pq.write_table(pa.table({"png": pa.array(pictures, pa.large_binary())}), tmp_path / "in.parquet")
    with pytest.raises(
        DataError, match=r"2 record.*in.parquet: row 17 \(the first one is 0\) is not a readable.*row 21"
    ):
        fetch(tmp_path, path=tmp_path / "in.parquet")
    found = rows_of(fetch(tmp_path, path=tmp_path / "in.parquet", skip_unreadable=True))
    assert [line["id"] for line, _ in found] == [number for number in range(30) if number not in (17, 21)]


def test_two_columns_of_pictures_need_a_name(tmp_path):
    column = as_hugging_face([saved(GREY)] * 12)
    pq.write_table(
        pa.table({"left": column, "right": as_hugging_face([saved(GREY[::-1])] * 12)}), tmp_path / "a.parquet"
    )
    with pytest.raises(DataError, match=r"several columns that can be records \(left, right\).*source.files.column"):
        fetch(tmp_path, path=tmp_path / "a.parquet")
    for line, row in rows_of(fetch(tmp_path, path=tmp_path / "a.parquet", column="right")):
        np.testing.assert_array_equal(row, GREY[::-1])
        assert line["left"]["bytes"] == saved(GREY)


def test_pictures_as_tensors_of_arrow_and_never_of_another_order(tmp_path):
    pictures = RANDOM.integers(0, 255, (20, 5, 4, 3), dtype=np.uint8)
    storage = pa.FixedSizeListArray.from_arrays(pa.array(pictures.ravel()), 60)
    for shape, permutation in (((5, 4, 3), None), ((5, 4, 3), [2, 0, 1])):
        kind = pa.fixed_shape_tensor(pa.uint8(), shape, permutation=permutation)
        pq.write_table(pa.table({"t": pa.ExtensionArray.from_storage(kind, storage)}), tmp_path / "t.parquet")
        if permutation:
            with pytest.raises(
                DataError, match=r"t.parquet has records .* tensors whose dimensions are stored in the order"
            ):
                fetch(tmp_path, path=tmp_path / "t.parquet")
        else:
            found = rows_of(fetch(tmp_path, path=tmp_path / "t.parquet"))
            np.testing.assert_array_equal(np.stack([row for _, row in found]), pictures)


def test_large_pictures_are_written_one_by_one(tmp_path):
    """Each is larger than what is gathered before rows are written."""
    pictures = [np.full((3500, 3500, 3), tone, np.uint8) for tone in range(3)]
    column = as_hugging_face([saved(picture, compress_level=1) for picture in pictures])
    pq.write_table(pa.table({"image": column, "tone": range(3)}), tmp_path / "in.parquet")
    for line, row in rows_of(fetch(tmp_path, path=tmp_path / "in.parquet", settings={"tile": "whole"})):
        assert (row == line["tone"]).all()
        assert line["tone"] == line["id"]


def test_a_column_is_for_files_that_have_some(tmp_path):
    with pytest.raises(DataError, match=r"00.png has no columns, found source.files.column: image; set it to null"):
        fetch(tmp_path, path=folder_of(tmp_path, saved(GREY)), column="image")
    np.save(tmp_path / "a.npy", np.stack([GREY] * 5))
    with pytest.raises(DataError, match=r"a.npy holds one array without a name, found source.files.column: image"):
        fetch(tmp_path, path=tmp_path / "a.npy", column="image")
