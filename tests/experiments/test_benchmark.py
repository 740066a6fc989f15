"""The benchmark's parts: mosaics, image codecs, what counts."""

import lzma
import sys

import numpy as np
import pytest
from handmade import encode, random_pixels, write_rows
from own_files import fetch
from PIL import Image

from ae_pipeline.codec.codec import Codec
from ae_pipeline.codec.header import Scaling
from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.data.splits import write_splits
from ae_pipeline.errors import ConfigError
from ae_pipeline.experiments.benchmark.image_codecs import (
    Grid,
    measure_image_codecs,
    shared_prefix,
    why_no_images,
)
from ae_pipeline.experiments.benchmark.image_formats import FORMATS, decode_image, encode_image
from ae_pipeline.experiments.benchmark.lossless import measure_lossless
from ae_pipeline.experiments.benchmark.pca import codec_bytes, column_bits, measure_pca
from ae_pipeline.experiments.benchmark.points import take_rows
from ae_pipeline.experiments.benchmark.run import _fitting
from ae_pipeline.experiments.presets import FOR_VECTORS, preset_names, preset_params
from ae_pipeline.params import EncodeParams, PrepareParams
from ae_pipeline.params.operation import BenchParams
from ae_pipeline.store.format.layouts import LAYOUTS, QUICK

CPU = EncodeParams(device="cpu")
BYTES = Scaling(offset=0.0, scale=255.0)
FAST = BenchParams(presets=["balanced"], image_effort="fast", single_files=6, pca_sizes=[2, 6, 500], pca_levels=[16])


def rows_of(tmp_path, pixels):
    samples = write_rows(tmp_path / "rows.parquet", pixels, id=list(range(len(pixels))))
    return take_rows(samples, len(pixels), BYTES, tmp_path / "taken")


@pytest.fixture
def synthetic(synthetic_prepared, tmp_path):
    return take_rows(SampleSet.open(synthetic_prepared / "test"), 150, BYTES, tmp_path / "taken")


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
@pytest.mark.parametrize("most_side", [8192, 20, 3])
def test_a_mosaic_gives_every_image_back(channels, most_side):
    images = random_pixels((23, 5, 4, *channels), "uint8")
    grid = Grid.of(23, 5, 4, most_side)
    assert max(grid.lines * 5, grid.columns * 4) <= max(most_side, 5)
    back = []
    for start in range(0, 23, grid.images):
        picture = grid.join(images[start : start + grid.images])
        assert picture.shape[2:] == channels
        back.append(grid.cut(picture, images.shape[1:]))
    assert (np.concatenate(back)[:23] == images).all()


def test_a_shared_prefix_is_that_of_all_files():
    assert shared_prefix([b"headABC", b"headAx", b"headB"]) == 4
    assert shared_prefix([b"head", b"head"]) == shared_prefix([b"head", b"header"]) == 4
    assert shared_prefix([b"a", b"b"]) == shared_prefix([b"alone"]) == 0


@pytest.mark.parametrize(("shape", "dtype"), [((8,), "uint8"), ((8, 8, 2), "uint8"), ((8, 8), "float32")])
def test_rows_that_are_no_images_are_told_and_left_out(shape, dtype, tmp_path):
    assert why_no_images(SampleSpec((8, 8, 3), "uint8")) is None
    points, left_out = measure_image_codecs(rows_of(tmp_path, random_pixels((4, *shape), dtype)), FAST)
    assert points == []
    assert SampleSpec(shape, dtype).describe() in left_out[0]


def test_presets_for_images_are_left_out_of_other_rows_before_any_training():
    presets = {name: preset_params(name) for name in preset_names()}
    fit, reasons = _fitting(presets, SampleSpec((12,), "uint8"))
    assert set(fit) == {"small", "balanced", "fine", "sound", *FOR_VECTORS}
    assert "preset compact: model.name: patches needs samples of shape height x width" in "; ".join(reasons)
    with pytest.raises(ConfigError, match=r"none of the presets compact is for samples of uint8 12: .*choose others"):
        _fitting({"compact": presets["compact"]}, SampleSpec((12,), "uint8"))


def test_a_codec_that_is_not_installed_is_told_and_left_out(synthetic, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    monkeypatch.setitem(sys.modules, "brotli", None)
    (why,) = [form.missing() for form in FORMATS if form.plugin]
    assert "ae-pipeline[alternatives]" in why
    points, (left_out,) = measure_lossless(synthetic)
    assert left_out.startswith("brotli:")
    assert "brotli" not in {found.family for found in points}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_image_codecs_count_what_pillow_writes(form, channels, tmp_path):
    if form.missing():
        pytest.skip(form.missing())
    smooth = np.linspace(0, 255, 30 * 12 * 10 * max(1, *channels, 1)).astype(np.uint8).reshape(30, 12, 10, *channels)
    rows = rows_of(tmp_path, smooth)
    points, _ = measure_image_codecs(rows, FAST)
    families = {f"{form.name} {kind}" for kind in ("mosaic", "files", "files, header once")}
    found = [each for each in points if each.family in families]
    assert {each.family for each in found} == families
    settings = {setting.name: setting for setting in form.settings("fast", channels != (3,))}
    for each in found:
        if each.family.endswith("files"):
            chosen = rows.pixels[np.linspace(0, 29, 6).round().astype(int)]
            files = [encode_image(image, form, settings[each.setting]) for image in chosen]
            assert each.bits_per_row == 8 * sum(map(len, files)) / 6
            back = np.stack([decode_image(file, form, grey=channels != (3,)) for file in files]).reshape(chosen.shape)
            assert each.mse == pytest.approx(((back / 255 - chosen / 255) ** 2).mean(), rel=1e-4, abs=1e-12)
        if settings[each.setting].options.get("lossless"):
            assert (each.mse, each.psnr) == (0, None)


def test_lossless_streams_are_those_of_the_raw_rows_and_come_back(synthetic):
    points = {found.name: found for found in measure_lossless(synthetic)[0]}
    raw = synthetic.pixels.tobytes()
    assert points["xz 9e"].bits_per_row == 8 * len(lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME)) / 150
    assert {found.mse for found in points.values()} == {0}
    assert {"zstd", "xz", "Parquet"} <= {found.family for found in points.values()}


@pytest.mark.slow
def test_pca_loses_what_the_other_components_hold_and_pays_for_its_basis_once(synthetic, synthetic_prepared):
    train = SampleSet.open(synthetic_prepared / "train")
    points = measure_pca(synthetic, train, FAST, CPU, layouts=[*QUICK, "packed"])
    assert "packed" in {found.setting.split()[-1] for found in points}  # as codecs that were trained for it get it
    known, x = (flat.reshape(len(flat), -1) / 255 for flat in (train.load().pixels, synthetic.pixels))
    components = np.linalg.svd(known - known.mean(axis=0), full_matrices=False)[2]
    lost = {}
    for found in points:
        size = int(found.setting.split()[0])
        kept = components[:size]
        projected = ((x - known.mean(axis=0)) @ kept.T @ kept + known.mean(axis=0)).clip(0, 1)
        lost.setdefault(size, []).append(found.mse - ((projected - x) ** 2).mean())
        assert found.codec_bytes == codec_bytes(size, 144) == 144 * size + 2 * 144 + 12 * size
        assert found.measured_rows == 150
        assert found.store_bits_per_row > found.bits_per_row
    # 500 are cut to the 144 that there are; the quantiser takes its share, the finest one hardly any.
    assert set(lost) == {2, 6, 144}
    assert min(map(min, lost.values())) > -2e-5
    assert max(map(min, lost.values())) < 1e-3


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_column_in_memory_takes_what_it_takes_in_a_store(layout, tiny_codec, synthetic, tmp_path):
    store = encode(synthetic.samples, tiny_codec, tmp_path / "store", layout=layout)
    latents = Codec.load(tiny_codec).encode(synthetic.pixels)
    assert column_bits(latents, layout, 10_000) == 8 * store.latent_bytes() / 150


def test_fewer_rows_are_the_first_ones(synthetic_prepared, tmp_path):
    samples = SampleSet.open(synthetic_prepared / "test")
    rows = take_rows(samples, 40, BYTES, tmp_path / "rows")
    whole = samples.load()
    assert (rows.pixels == whole.pixels[:40]).all()
    assert rows.samples.load().attributes.equals(whole.attributes.slice(0, 40))


@pytest.mark.parametrize("colour", [None, "rgb"])
def test_image_codecs_get_the_pictures_that_rows_are_tiles_of(colour, tmp_path, monkeypatch):
    form = next(form for form in FORMATS if form.name == "WebP")
    monkeypatch.setattr("ae_pipeline.experiments.benchmark.image_codecs.FORMATS", (form,))
    (tmp_path / "in").mkdir()
    pictures = [random_pixels((9 + number, 20 - number, 3), "uint8") for number in range(12)]
    pictures[3] = pictures[3][..., 0] if colour else pictures[3]
    for number, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(tmp_path / f"in/{number:02}.png")
    settings = {"tile": 8, "colour": colour}
    splits = fetch(tmp_path, path=tmp_path / "in", settings=settings, test_fraction=0.8)
    test = write_splits(splits, tmp_path / "prepared", PrepareParams(validation_fraction=0.4))["test"]
    names = dict.fromkeys(test.load().attributes["source_file"].to_pylist())
    wanted = [pictures[int(name[:2])] for name in names]
    wanted = [np.dstack([pixels] * 3) if pixels.ndim == 2 else pixels for pixels in wanted]
    rows = take_rows(test, 10_000, BYTES, tmp_path / "taken")
    assert rows.pictures.pixels == sum(pixels.shape[0] * pixels.shape[1] for pixels in wanted)
    for found, pixels in zip(rows.pictures.pictures, wanted, strict=True):
        np.testing.assert_array_equal(found, pixels)
    np.testing.assert_array_equal(rows.pictures.rows_of(rows.pictures.pictures), rows.pixels)
    points, _ = measure_image_codecs(rows, FAST)
    lossless = next(point for point in points if point.name == "WebP lossless, whole pictures")
    setting = next(setting for setting in form.settings("fast", False) if setting.name == "lossless")
    files = [encode_image(pixels, form, setting) for pixels in wanted]
    assert (lossless.mse, lossless.bits_per_row) == (0, 8 * sum(map(len, files)) / len(rows))
    assert {point.family for point in points} == {"WebP whole pictures", "WebP whole pictures, header once"}
    # A limit leaves whole pictures, and the first one at least.
    tiles = [-(-pixels.shape[0] // 8) * -(-pixels.shape[1] // 8) for pixels in wanted]
    for most, count in ((1, 1), (tiles[0], 1), (sum(tiles[:3]) + 1, 3), (sum(tiles) - 1, len(tiles) - 1)):
        some = take_rows(test, most, BYTES, tmp_path / f"taken{most}")
        assert (len(some), len(some.pictures.pictures)) == (sum(tiles[:count]), count)
