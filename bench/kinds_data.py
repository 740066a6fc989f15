"""The made data of kinds.py, of realistic sizes, and the small codecs and settings that go with it. Not a script.

Each call runs in a process of its own (`elsewhere`), so that the process that measures stays small.
"""

import io
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

# For each kind: the preset whose network is timed; and a smaller network of the same model, for memory: what memory
# takes for rows and records does not depend on the width of a layer, but the time of the measurement does.
PRESETS = {"image": "compact_balanced", "tiles": "tiles", "vector": "vector", "audio": "sound"}
SMALL: dict[str, tuple[int, dict[str, Any]]] = {
    "image": (36, {}),
    "tiles": (64, {"encoder_channels": [8, 8], "decoder_channels": [8, 8, 8]}),
    "vector": (32, {"hidden_sizes": [32]}),
    "audio": (32, {"encoder_channels": [8, 8], "decoder_channels": [8, 8]}),
}
VALUES, RATE, SECONDS = 128, 16_000, 10
BESIDE = 6  # small records beside the one that is small or huge: a data set is split into three
# Pixels a side, vectors in the one row group, seconds.
ONE = {"tiles": (512, 10_000), "vector": (100_000, 1_000_000), "audio": (360, 3600)}
FEW = {"image": 5000, "tiles": 12, "vector": 50_000, "audio": 10}


def elsewhere(function: Callable[..., None], *arguments: Any) -> None:
    """Call a function of this module in a new process: what it imports and makes is gone afterwards."""
    child = get_context("spawn").Process(target=function, args=arguments)
    child.start()
    child.join()
    if child.exitcode:
        raise SystemExit(f"{function.__name__} failed")


def picture(height: int, width: int, seed: int) -> np.ndarray:
    """(height, width, 3) uint8: soft colours with a little noise, which no compressor takes away."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (-(-height // 16) + 1, -(-width // 16) + 1, 3), np.uint8)
    made = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, 16):
        # A strip at a time: a picture of 100 megapixels is 300 MB once.
        strip = np.repeat(np.repeat(coarse[top // 16 : top // 16 + 1], 16, 0), 16, 1)[: height - top, :width] // 2 + 60
        made[top : top + 16] = strip + rng.integers(0, 12, strip.shape, np.uint8)
    return made


def clip(seconds: int, seed: int) -> Iterator[np.ndarray]:
    """Float64 samples of one channel, a second each: a tone that wanders, its overtones, and noise."""
    rng = np.random.default_rng(seed)
    phase = 0.0
    for _ in range(seconds):
        steps = phase + np.cumsum(np.full(RATE, 2 * np.pi * rng.uniform(100, 300) / RATE))
        phase = float(steps[-1])
        tones = sum(np.sin(steps * number) / number for number in (1, 2, 3, 5))
        yield np.clip(rng.uniform(0.02, 0.2) * tones + rng.normal(0, 0.01, RATE), -1, 1)


def make_case(kind: str, case: str, folder: Path) -> None:
    """Write a data set to `folder`/mine, and settings to `folder`/params.yaml; `case`: few, many, small or huge."""
    data = folder / "mine"
    data.mkdir(parents=True)
    if case in ("few", "many"):
        _MAKERS[kind](data, FEW[kind] * (10 if case == "many" else 1), None)
    else:
        _MAKERS[kind](data, 0 if kind == "vector" else BESIDE, ONE[kind][case == "huge"])
    _write_params(kind, folder)


def _write_params(kind: str, folder: Path) -> None:
    import yaml

    from ae_pipeline.experiments.presets import preset_params

    name = "image" if kind == "tiles" else kind
    params = preset_params(PRESETS[kind]).model_dump(mode="json")
    params["source"]["name"] = "files"
    params["source"]["files"] |= {"path": "mine", "kind": name, "test_fraction": 0.2}
    params["prepare"]["validation_fraction"] = 0.2
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def _pictures_in_a_table(data: Path, records: int, one: int | None) -> None:  # noqa: ARG001
    """Hugging Face's form: Parquet with the bytes of PNG files, 32 x 32 pixels each."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = [_png(picture(32, 32, seed)) for seed in range(1000)]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    with pq.ParquetWriter(data / "pictures.parquet", pa.schema({"image": kind})) as writer:
        for start in range(0, records, len(files)):
            rows = [{"bytes": file, "path": f"{start + place}.png"} for place, file in enumerate(files)]
            writer.write_table(pa.table({"image": pa.array(rows, kind)}))


def _png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _pictures(data: Path, records: int, one: int | None) -> None:
    for number in range(records):
        (data / f"{number:04d}.png").write_bytes(_png(picture(384, 512, number)))
    if one:
        (data / "one.png").write_bytes(_png(picture(one, one, records)))


def _vectors(data: Path, records: int, one: int | None) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    mix = rng.normal(size=(VALUES // 4, VALUES)).astype(np.float32)
    kind = pa.list_(pa.float32(), VALUES)
    total, group = (one, one) if one else (records, 10_000)
    blocks = []
    with pq.ParquetWriter(data / "vectors.parquet", pa.schema({"vector": kind})) as writer:
        for _ in range(0, total, 10_000):
            rows = rng.normal(size=(10_000, len(mix))).astype(np.float32) @ mix
            rows += rng.normal(scale=0.1, size=rows.shape).astype(np.float32)
            blocks.append(pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), type=kind))
            if sum(map(len, blocks)) == group:
                writer.write_table(pa.table({"vector": pa.chunked_array(blocks)}), row_group_size=group)
                blocks = []


def _clips(data: Path, records: int, one: int | None) -> None:
    import soundfile

    lengths = [(f"{number:04d}", SECONDS) for number in range(records)] + ([("one", one)] if one else [])
    for seed, (name, seconds) in enumerate(lengths):
        with soundfile.SoundFile(data / f"{name}.wav", "w", RATE, 1, "PCM_16") as file:
            for piece in clip(seconds, seed):
                file.write(piece)


_MAKERS = {"image": _pictures_in_a_table, "tiles": _pictures, "vector": _vectors, "audio": _clips}


def make_codec(kind: str, workspace: Path, folder: Path) -> None:
    """A codec of the kind's model, small, for the rows that `workspace` has prepared."""
    from reporting import untrained_codec

    from ae_pipeline.data.samples import SampleSet
    from ae_pipeline.data.splits import first_rows
    from ae_pipeline.params import load_params
    from ae_pipeline.training.build import build_codec

    params = load_params(workspace / "params.yaml")
    name = params.model.name
    latent_size, options = SMALL[kind]
    network = getattr(params.model, name).model_copy(update=options)
    train = params.train.model_copy(update={"epochs": 2, "latent_size": latent_size, "device": "cpu"})
    params = params.model_copy(
        update={"model": params.model.model_copy(update={name: network}), "train": train},
    )
    few = workspace / "few"
    few.mkdir()
    samples = first_rows(SampleSet.open(workspace / "data/prepared/train"), 2000, few)
    if kind == "image":
        build_codec(samples, samples, params, folder, {}, lambda epoch: None)  # one in integers
    else:
        untrained_codec(params, samples, folder)
