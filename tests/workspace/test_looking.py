"""`ae-pipeline inspect`: what is said of data without training on them, and which settings are chosen for them."""

import json
import wave

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from handmade import write_rows
from PIL import Image

from ae_pipeline.data.pixels import SampleSpec
from ae_pipeline.errors import ConfigError, DataError
from ae_pipeline.experiments.presets import preset_params
from ae_pipeline.kinds import build_kind
from ae_pipeline.models import build_model
from ae_pipeline.sources.own_files.listing import list_files
from ae_pipeline.sources.own_files.places.at_hand import AtHand
from ae_pipeline.sources.own_files.readers import open_reader
from ae_pipeline.workspace.looking.choice import Expected, choose, within_minutes
from ae_pipeline.workspace.looking.found import find as find_in
from ae_pipeline.workspace.looking.guess import guess_kind, kind_of_bytes
from ae_pipeline.workspace.looking.klt import Klt
from ae_pipeline.workspace.looking.look import look
from ae_pipeline.workspace.looking.outlook import Speed, codec_bytes
from ae_pipeline.workspace.looking.report import describe, duration, trouble, verdict
from ae_pipeline.workspace.looking.sampling import plan, read, rows_of
from ae_pipeline.workspace.looking.worth import measure_worth

RANDOM = np.random.default_rng(0)
VECTORS = RANDOM.normal(size=(300, 8))


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def find(path):
    return find_in(AtHand(path))


def picture(path, shape=(6, 5, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RANDOM.integers(0, 255, shape, dtype=np.uint8)).save(path)
    return path


def table(path, **columns):
    pq.write_table(pa.table(columns), path)
    return str(path)


def lists(**changes):
    found = [list(row) for row in VECTORS]
    for place, value in changes.items():
        found[int(place[1:])] = value
    return found


def sound(path, seconds=0.2, rate=8000):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(RANDOM.integers(-999, 999, int(seconds * rate), dtype=np.int16).astype("<i2").tobytes())


# --- which kind ------------------------------------------------------------------------------------------------------


def test_the_kind_is_guessed_by_endings_columns_shapes_and_first_bytes(tmp_path):
    np.save(tmp_path / "vectors.npy", VECTORS)
    np.save(tmp_path / "pictures.npy", np.zeros((5, 4, 3), np.uint8))
    np.savez(tmp_path / "with.npz", x=VECTORS, label=np.arange(300))
    png = picture(tmp_path / "photos/a.png").read_bytes()
    sound(tmp_path / "a.wav")
    wav = (tmp_path / "a.wav").read_bytes()
    table("hf.parquet", image=[{"bytes": png, "path": "a.png"}] * 3, label=[1, 2, 3])
    table("sounds.parquet", clip=[None, wav])
    table("lists.parquet", v=lists())
    table("numbers.parquet", a=[1.0, 2.0], b=[1, None], c=["x", "y"])
    table("words.parquet", id=[1, 2], text=["so", "it"])
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    (tmp_path / "page.txt").write_text("words")
    found = {
        name: guess_kind(find(name)).kind
        for name in (
            *("vectors.npy", "pictures.npy", "with.npz", "photos", "a.wav", "hf.parquet", "sounds.parquet"),
            *("lists.parquet", "numbers.parquet", "words.parquet", "rows.csv", "page.txt"),
        )
    }
    assert list(found.values()) == [
        *("vector", "image", "vector", "image", "audio", "image", "audio", "vector", "table", "text", "table", "text")
    ]
    assert kind_of_bytes(png) == "image"
    assert kind_of_bytes(b"RIFF\0\0\0\0AVI ") is None
    assert guess_kind(find("hf.parquet")).why == "by the column `image` of struct<bytes: binary, path: string>"


def test_what_is_not_clear_is_said_with_what_is_there_and_what_to_do(tmp_path):
    picture(tmp_path / "mixed/a.png")
    sound(tmp_path / "mixed/b.wav")
    (tmp_path / "empty").mkdir()
    picture(tmp_path / "hidden/.a.png")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/a.xyz").write_bytes(b"1")
    (tmp_path / "idx").mkdir()
    (tmp_path / "idx/train-images-idx3-ubyte").write_bytes(b"1")
    table("two.parquet", v=lists(), w=lists(), n=[1] * 300)
    for path, words in {
        "mixed": r"1 picture \(a.png\), 1 sound \(b.wav\); name those of one sort by a glob, 'mixed/\*\*/\*.png' or",
        "empty": r"^there are no files at empty; name a file",
        "hidden": r"but .a.png, and no data goes by such names",
        "gone": r"^there is no gone; ",
        "other": r"1 other file \(a.xyz\), which no kind reads; expected pictures \(.png, ",
        "idx": r"`ae-pipeline init FOLDER --data idx --source idx`",
        "two.parquet": r"several columns that can be records: v \(vector, .*, w \(vector.*; say which with --column",
    }.items():
        with pytest.raises(DataError, match=words):
            guess_kind(find(path))
    assert guess_kind(find("mixed/*.png")).kind == "image"
    assert guess_kind(find("two.parquet"), column="w").kind == "vector"
    with pytest.raises(DataError, match="has no column `x`; name one of v, w, n"):
        guess_kind(find("two.parquet"), column="x")
    with pytest.raises(DataError, match="of which the kind `vector` reads none; expected"):
        guess_kind(find("mixed"), "vector")
    for kind, words in {"sound": "no kind 'sound'; expected one of image", "text": "the kind 'text' is not"}.items():
        with pytest.raises(ConfigError, match=words):
            guess_kind(find("two.parquet"), kind)


# --- what is there ---------------------------------------------------------------------------------------------------


def test_pictures_are_counted_by_size_and_what_is_wrong_by_its_reason(tmp_path):
    for number in range(20):
        picture(tmp_path / f"photos/cats/{number}.png")
    whole = (tmp_path / "photos/cats/3.png").read_bytes()
    (tmp_path / "photos/again.png").write_bytes(whole)
    (tmp_path / "photos/cut 1.png").write_bytes(whole[:80])
    (tmp_path / "photos/cut 2.png").write_bytes(whole[:90])
    picture(tmp_path / "photos/small.png", (2, 2))
    (tmp_path / "photos/.hidden").write_bytes(b"1")
    (tmp_path / "photos/README.txt").write_text("mine")
    found = look("photos")
    assert (found.files, found.records, found.tally.readable, found.rows) == (24, 24, 22, 22)
    assert [count for _, count in found.tally.sizes.most_common()] == [21, 1]
    assert found.tally.repeated == 1
    assert [reason.records for reason in found.left_out] == [2]
    assert [(reason.records, "small.png is uint8 " in reason.example) for reason in found.refused] == [(1, True)]
    assert found.passed_over == (".hidden",)
    assert "1 file(s) that the kind does not read (README.txt): move them elsewhere" in found.problems[0]
    text = describe(found)
    for line in ("21 of uint8 ", "passed over", "cats (source.files.label: folder"):
        assert line in text
    assert "ae-pipeline init" not in text
    assert len(list(trouble(found))) == 3


def test_missing_and_infinite_values_are_counted_and_other_columns_named(tmp_path):
    bad = lists(_5=None, _7=[float("nan"), *VECTORS[7][1:]], _9=[float("inf"), *VECTORS[9][1:]])
    found = look(table(tmp_path / "a.parquet", v=bad, name=[None, *["x"] * 299], w=[1.5] * 300))
    assert dict(found.tally.missing) == {"": 3, "name": 1, "w": 0}
    assert [reason.records for reason in found.left_out] == [1]
    assert [reason.records for reason in found.refused] == [2]
    assert found.tally.readable == 297
    assert found.columns == {"id": "int64", "source_file": "string", "name": "string", "w": "double"}
    assert found.problems == []


def test_ids_that_are_there_twice_and_outliers_are_told(tmp_path):
    found = look(table(tmp_path / "a.parquet", v=lists(), id=[*range(298), 5, 6]))
    assert [(reason.records, reason.can_be_left_out) for reason in found.refused] == [(2, False)]
    assert "has the id 5, which another one has, too" in found.refused[0].example
    assert found.notes == []
    far = VECTORS.astype(np.float32)
    far[17, 3] = 1e9
    np.save(tmp_path / "far.npy", far)
    found = look("far.npy")
    assert "of the range by which values are scaled" in found.notes[0]
    assert "note  " in describe(found)


def test_of_many_records_some_from_everywhere_are_looked_at(tmp_path):
    rows = np.arange(2 * 4000, dtype=np.float32).reshape(-1, 2)
    np.save(tmp_path / "a.npy", rows)
    pq.write_table(pa.table({"v": pa.array(list(rows))}), tmp_path / "a.parquet", row_group_size=250)
    kind = build_kind("vector")
    for name in ("a.npy", "a.parquet"):
        listing = list_files(name, kind.suffixes)
        reader = open_reader(listing, kind, None, tmp_path)
        for most, expected in ((400, 400), (4000, 4000)):
            blocks = [block for one in plan(reader, listing.files, most) for block in read(reader, one)]
            firsts = [row[0] / 2 for block in blocks for row in rows_of(block, reader)]
            assert 0.9 * expected < len(firsts) < 1.1 * expected + 25
            assert len(set(firsts)) == len(firsts)
            # The first half of what is looked at is spread over all, too: a look may end early.
            for seen in (firsts, firsts[: len(firsts) // 2]):
                assert min(seen) < 1000 < 3000 < max(seen)
    many = look("a.npy")
    many.records = 9000
    assert "9,000; what follows is of 4,000 of them, spread over all" in describe(many)


def test_a_record_that_is_refused_hides_no_other(tmp_path):
    rows = VECTORS.copy()
    rows[[2, 250], 0] = np.nan
    np.save(tmp_path / "a.npy", rows)
    found = look("a.npy")
    assert (found.tally.records, found.tally.readable) == (300, 298)
    assert [reason.records for reason in found.refused] == [2]
    assert found.refused[0].example.startswith("a.npy: row 2 (the first one is 0) has values that are NaN")
    write_rows(tmp_path / "b.parquet", np.zeros((9, 4, 4), np.uint8))
    found = look("b.parquet", "vector")
    assert [(reason.records, "shape [9, 4, 4]" in reason.example) for reason in found.refused] == [(9, True)]


def test_records_of_several_rows_are_counted_as_records_and_rows(tmp_path):
    pytest.importorskip("soundfile")
    for number in range(4):
        sound(tmp_path / f"{number}.wav", 0.2 + number / 10)
    found = look("*.wav")
    assert (found.guess.kind, found.records) == ("audio", 4)
    assert found.rows == found.tally.rows > 40
    assert len(found.tally.kept()) == found.rows
    assert "Opus is better" in describe(found)
    sound(tmp_path / "z.wav", rate=16_000)
    found = look("*.wav")
    assert "2 rates" in found.fit_problem
    assert found.choice.preset == "sound"
    assert not found.nothing_can_be_read


def test_tables_are_recognised_by_their_columns(tmp_path, ae):
    table(tmp_path / "a.parquet", a=[1.0, 2.0], b=[1, None], c=["x", "y"])
    code, out, err = ae("inspect", "a.parquet")
    assert (code, err) == (0, "")
    for words in ("table, by the columns", "2\n", "b (int64), 1 missing", "keeps every number within a bound"):
        assert words in out
    (tmp_path / "b.csv").write_text("a,b\n1,2\n")
    code, out, err = ae("inspect", "b.csv")
    assert (code, "the kind `table` reads Parquet alone: write the data as Parquet" in out) == (0, True)
    code, _, err = ae("init", "ws", "--data", "b.csv")
    assert (code, "trained on b.csv: the kind `table` reads Parquet alone; write the data as Parquet" in err) == (
        1,
        True,
    )
    assert not (tmp_path / "ws").exists()


def test_pictures_of_several_sizes_are_tiles_with_their_own_preset(tmp_path):
    for number in range(12):
        picture(tmp_path / f"p/{number}.png", (40 + number, 70, 3))
    found = look("p")
    assert (found.tiled, found.records, found.rows) == (True, 12, 72)
    assert (found.choice.preset, found.choice.params.evaluate.gate.beat_pca) == ("tiles", False)
    assert found.worth.break_even is None
    assert "AVIF of whole pictures (a guess)" in describe(found)


@pytest.mark.parametrize(
    ("shape", "latents", "words"), [((64, 64, 3), 1024, ""), ((40, 60, 3), 640, " for 40 x 60 x 3")]
)
def test_small_pictures_in_colour_have_a_preset_of_their_own(shape, latents, words, tmp_path):
    random = np.random.default_rng(0)
    np.save(tmp_path / "p.npy", random.integers(0, 255, (40, *shape), np.uint8))
    found = look("p.npy", kind="image")
    params = found.choice.params
    assert (found.choice.preset, params.train.latent_size, params.train.mirror) == ("icons", latents, True)
    assert f"preset `icons`{words}: for small pictures in colour" in describe(found)
    # One for each channel of latents and the weights, a byte each, are few.
    assert 50_000 < codec_bytes(params, found.tally.spec, latents) < 65_000


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 10, 3), (2, 9, 4), (3, 40, 3), (1, 700, 3), (65, 63, 3), (100, 9, 4)])
def test_the_preset_for_small_pictures_can_be_built_for_every_shape(shape):
    spec = SampleSpec(shape, "uint8")
    params = choose("image", spec, 50, None).params
    assert params.train.latent_size <= max(1, spec.size - 1)
    build_model(params.model.name, shape, params.train.latent_size, params.model.options)


def test_rows_that_are_too_large_to_try_are_told(tmp_path):
    np.save(tmp_path / "large.npy", np.zeros((2, 4_400_000), np.uint8))
    found = look("large.npy")
    assert found.speed is None
    assert "rows have 4,400,000 values, for which no training is tried here" in describe(found)


def test_files_that_cannot_be_opened_are_one_group(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.parquet").write_bytes(b"nothing")
    table(tmp_path / "whole.parquet", v=lists())
    found = look("*.parquet")
    assert (found.records, found.tally.readable) == (303, 300)
    assert [reason.records for reason in found.left_out] == [3]


def test_where_all_is_broken_the_reason_stands_above_an_error(tmp_path, ae):
    for number in range(3):
        picture(tmp_path / f"p/{number}.png").write_bytes(b"nothing")
    code, out, err = ae("inspect", "p")
    assert code == 1
    assert "3 records: p/" in out
    assert err == "error: no record of p can be read; above stands why\n"
    np.save(tmp_path / "none.npy", np.zeros((0, 4), np.float32))
    code, out, err = ae("inspect", "none.npy")
    assert code == 1
    assert "0 record(s) are too few" in out
    assert ae("inspect", "gone")[::2] == (
        1,
        "error: there is no gone; give a file, a folder or a glob such as photos/**/*.png\n",
    )


def test_a_program_reads_the_same(tmp_path, ae):
    np.save(tmp_path / "v.npy", VECTORS)
    values = json.loads(ae("inspect", "v.npy", "--json")[1])
    assert (values["kind"], values["records"], values["looked_at"], values["preset"]) == ("vector", 300, 300, "vector")
    assert values["sizes"] == [{"shape": [8], "dtype": "float32", "records": 300}]
    assert values["worth"]["pays"] is False
    assert values["settings"]["train.latent_size"] == 7


# --- what is chosen --------------------------------------------------------------------------------------------------


def low_rank(rows, values, rank=6):
    mixed = RANDOM.normal(size=(rows, rank)) @ RANDOM.normal(size=(rank, values))
    return (0.5 + 0.05 * mixed + 0.002 * RANDOM.normal(size=(rows, values))).astype(np.float32)


def test_pca_takes_the_bits_that_theory_says():
    """Independent Gaussians of one variance take log2(variance / theta) / 2 bits each, and a quarter of a bit more."""
    rows = RANDOM.normal(0, 0.1, (8000, 16)).astype(np.float32)
    weight = 1e-5
    found = Klt(rows, 0.0, 1.0).at(weight)
    theta = weight * 16 / (2 * np.log(2))
    assert found.components == 16
    assert found.mse == pytest.approx(theta, rel=0.05)
    assert found.bits / 16 == pytest.approx(np.log2(0.01 / theta) / 2 + 0.254, abs=0.03)
    coarse = Klt(rows, 0.0, 1.0).at_error(2 * theta, weight)
    assert coarse.bits == pytest.approx(found.bits - 8, abs=0.5)
    assert Klt(low_rank(500, 900), 0.0, 1.0).at(weight).components == 6
    assert Klt(low_rank(500, 900), 0.0, 1.0).without_rate(6) == pytest.approx(4e-6, rel=0.1)


@pytest.mark.parametrize(
    ("preset", "shape", "size"),
    [("compact_balanced", (28, 28), 44_354), ("balanced", (28, 28), 850_676), ("vector", (256,), 675_103)],
)
def test_the_codecs_bytes_are_those_of_measured_ones(preset, shape, size):
    """The table of docs/choosing.md, and one of glosses in docs/kinds/vector.md, where 254 of 256 latents were used."""
    spec = SampleSpec(shape, "uint8" if len(shape) == 2 else "float32")
    assert codec_bytes(preset_params(preset), spec, 254) == pytest.approx(size, rel=0.02)


def test_few_rows_get_the_small_codec_and_very_many_the_large_one():
    spec = SampleSpec((28, 28), "uint8")
    klt = Klt(low_rank(600, 784, 200), 0.0, 1.0)
    few, many = (choose("image", spec, rows, klt) for rows in (5000, 10**9))
    assert (few.preset, many.preset) == ("compact_balanced", "balanced")
    assert few.params.train.batch_size == 64
    assert choose("image", spec, 60_000, klt).params.train.batch_size == 256
    assert few.params.train.rate_weight == preset_params("compact_balanced").train.rate_weight
    assert "codec counted" in few.reasons[0]


def test_settings_fit_the_rows_and_the_gate_can_be_passed():
    narrow = choose("vector", SampleSpec((8,), "float32"), 300, Klt(VECTORS, -4, 8)).params
    assert (narrow.train.latent_size, narrow.train.batch_size, narrow.evaluate.gate.beat_pca) == (7, 16, False)
    wide = choose("vector", SampleSpec((9000,), "float32"), 300, None).params
    assert not wide.model.options["linear_path"]
    klt = Klt(low_rank(400, 2500, 60), 0.0, 1.0)
    large = choose("image", SampleSpec((50, 50), "uint8"), 4000, klt).params
    assert large.train.rate_weight == pytest.approx(2.9e-5 * 784 / 2500, rel=0.02)
    assert large.train.latent_size == 12
    assert not choose("image", SampleSpec((64, 64, 3), "uint8"), 4000, None).params.evaluate.gate.beat_pca
    unknown = choose("somebodys", SampleSpec((3,), "float32"), 9, None)
    assert (unknown.preset, unknown.params.model.name) == (None, "dense")


def test_a_training_that_takes_long_gets_fewer_epochs():
    choice = choose("vector", SampleSpec((8,), "float32"), 300, None)
    assert within_minutes(choice, Speed(1e-6), 1_000_000).params.train.epochs == 60
    assert within_minutes(choice, Speed(1e-5), 1_000_000).params.train.epochs == 30
    assert within_minutes(choice, Speed(4e-5), 1_000_000).params.train.epochs == 7
    assert within_minutes(choice, Speed(1e-3), 1_000_000).params.train.epochs == 3
    assert [duration(seconds) for seconds in (5, 70, 400, 9000)] == [
        *("a minute or less", "about 1 minute", "about 7 minutes", "about 2 hours")
    ]


def test_rows_from_which_on_a_codec_pays_are_its_bytes_by_the_bits_saved():
    rows = low_rank(400, 64)
    spec, klt = SampleSpec((64,), "float32"), Klt(rows, 0.0, 1.0)
    ours = Expected(10.0, klt.at(1e-5).mse, 50_000)
    worth = measure_worth(ours, spec, rows, klt, 1e-5, 1010.0, "image")
    found = {other.name: other for other in worth.alternatives}
    assert found["the files as they are"].pays_from == 400
    pca = found["PCA at equal error"]
    assert pca.pays_from == -(-8 * (50_000 - pca.codec_bytes) // (pca.bits - 10.0))
    assert worth.break_even == max(other.pays_from for other in worth.alternatives)
    never = measure_worth(Expected(5000.0, ours.mse, 10), spec, rows, klt, 1e-5, None, "image")
    assert never.break_even is None


def test_of_pictures_that_are_all_the_same_nothing_is_expected(tmp_path):
    for number in range(8):
        Image.new("L", (16, 16), 77).save(tmp_path / f"{number}.png")
    assert "not known: there are too few rows, or they are all alike" in describe(look(str(tmp_path)))


def test_noise_does_not_pay_however_much_there_is(tmp_path):
    np.save(tmp_path / "noise.npy", RANDOM.integers(0, 255, (200, 12, 12), dtype=np.uint8))
    found = look("noise.npy")
    assert found.worth.break_even is None
    assert verdict(found).startswith("probably not: ")
    np.save(tmp_path / "wide.npy", RANDOM.normal(size=(40, 3000)).astype(np.float32))
    assert verdict(look("wide.npy")).startswith("probably not: rows have little in common, and ")
