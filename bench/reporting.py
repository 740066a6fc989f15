"""What the scripts in bench/ share: machine line, Markdown tables, `--out`, tiled data sets, quick codecs.

Not a benchmark itself. Heavy imports stand inside the functions, so that a parent process stays small (`memory.py`).
"""

import os
import platform
import shutil
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Idle threads of GNU OpenMP spin, which slows a busy machine down; the command line sets the same. torch must not have
# been imported yet.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# name: (model, latent size, options that differ from the defaults)
NETWORKS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "784-448-224-32, integers": ("dense", 32, {}),
    "784-448-224-32, floats": ("dense", 32, {"activation": "silu"}),
    "784-128-784, integers": ("dense", 128, {"hidden_sizes": [], "output_activation": "linear"}),
    "784-128-784, floats": ("dense", 128, {"hidden_sizes": [], "latent_activation": "relu", "latent_norm": "none"}),
    "conv 16, 32, latent 32, integers": ("conv", 32, {}),
    "conv 16, 32, latent 32, floats": ("conv", 32, {"activation": "silu"}),
}


def machine_line() -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = f", load {os.getloadavg()[0]:.1f} at the end" if hasattr(os, "getloadavg") else ""
    return (
        f"{_cpu_model()}, {cores} cores{load}; Python {platform.python_version()}, torch {version('torch')}, "
        f"pyarrow {version('pyarrow')}; {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    )


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def table(columns: list[str], rows: list[list[Any]]) -> str:
    lines = [columns, ["---"] * len(columns), *([str(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def report(title: str, tables: list[str], notes: list[str], out: Path | None) -> None:
    """Print title, tables, notes and machine as Markdown; write the same to `out`."""
    text = "\n\n".join([f"## {title}", *tables, *notes, machine_line()]) + "\n"
    print(text, flush=True)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")


def tile(split: Path, folder: Path, rows: int) -> int:
    """Fill `folder` with hard links to the split's largest shards in turn, `rows` rows or more; return how many.

    Ids repeat from tile to tile; nothing that is measured depends on them.
    """
    import pyarrow.parquet as pq

    sizes = {file: pq.read_metadata(file).num_rows for file in sorted(split.glob("*.parquet"))}
    if not sizes:
        raise SystemExit(f"no *.parquet files in {split}; run `dvc repro prepare`, or name the folder with --prepared")
    shards = [file for file, size in sizes.items() if size == max(sizes.values())]
    folder.mkdir(parents=True)
    made = 0
    while made < rows:
        shard = shards[(made // sizes[shards[0]]) % len(shards)]
        link = folder / f"part-{made // sizes[shard]:05d}.parquet"
        try:
            link.hardlink_to(shard)
        except OSError:  # another file system
            shutil.copyfile(shard, link)
        made += sizes[shard]
    return made


def network(name: str) -> tuple[str, int, dict[str, Any]]:
    """Model, latent size and all options of a name in NETWORKS, or of a preset."""
    from ae_pipeline.experiments.presets import preset_params
    from ae_pipeline.params.options import ModelParams

    if name in NETWORKS:
        kind, latent_size, changed = NETWORKS[name]
        return kind, latent_size, {**getattr(ModelParams(), kind).model_dump(), **changed}
    params = preset_params(name)
    return params.model.name, params.train.latent_size, params.model.options


def quick_codec(name: str, split: Path, folder: Path) -> None:
    """Write a codec that was trained for seconds: enough for decoded rows to compress as they usually do."""
    import pyarrow.parquet as pq

    from ae_pipeline.data.samples import SampleSet
    from ae_pipeline.params import Params
    from ae_pipeline.training.build import build_codec

    kind, latent_size, options = network(name)
    train = {"latent_size": latent_size, "epochs": 3, "device": "cpu", "autocast": False}
    params = Params.model_validate({"model": {"name": kind, kind: options}, "train": train})
    few = folder.parent / "few.parquet"
    pq.write_table(pq.read_table(min(split.glob("*.parquet"))).slice(0, 8192), few)
    samples = SampleSet.open(few)
    if name in NETWORKS or (params.may_be_integer and samples.spec.dtype == "uint8"):
        build_codec(samples, samples, params, folder, {}, lambda epoch: None)
    else:
        untrained_codec(params, samples, folder)
    few.unlink()


def untrained_codec(params: Any, samples: Any, folder: Path) -> None:
    """Write a codec in floats as its network begins, of `params` for rows like `samples`: as fast as a trained one."""
    import numpy as np
    import torch

    from ae_pipeline.codec.arithmetic import scale_pixels
    from ae_pipeline.codec.codec import freeze, save_codec
    from ae_pipeline.codec.quantiser import Quantiser
    from ae_pipeline.models import build_model
    from ae_pipeline.training.batches import fit_scaling

    name, spec, scaling = params.model.name, samples.spec, fit_scaling(samples)
    model = freeze(build_model(name, spec.shape, params.train.latent_size, params.model.options), name)
    pixels = torch.from_numpy(samples.load().pixels.astype(np.float32))
    with torch.inference_mode():
        quantiser = Quantiser.fit(model.encode(scale_pixels(pixels, scaling)), 256)
    save_codec(
        folder, model=model, model_name=name, quantiser=quantiser, spec=spec, scaling=scaling, provenance={},
        kind=samples.kind,
    )  # fmt: skip
