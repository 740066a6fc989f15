"""How often does another processor encode or decode to another integer?

    python bench/portability.py --codec data/codec --prepared data/prepared --out bench/results/portability.md

Encodes and decodes the test split in processes of their own, each with one thing changed: the instructions that torch's
element-wise functions use (ATEN_CPU_CAPABILITY), those of oneDNN's matrix products and convolutions
(ONEDNN_MAX_CPU_ISA), those of MKL, the number of threads, the place of a row in its block; and, where there is one, on
the GPU. All decode the same latents, those of the first line. Latents and pixels that differ from the first line's are
counted, in millionths; the largest difference is in steps of the integers. The probe is the digest over the first 256
decoded rows that a store's manifest has: "as written" if it is the first line's.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from reporting import NETWORKS, quick_codec, report, table

PROBE_ROWS = 256
ISA = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
# name: (environment, what the child does otherwise)
VARIANTS: dict[str, tuple[dict[str, str], str]] = {
    "this machine": ({}, ""),
    "again": ({}, ""),
    "7 threads": ({"OMP_NUM_THREADS": "7", "MKL_NUM_THREADS": "7"}, ""),
    "rows in reverse order": ({}, "reverse"),
    "element-wise functions: AVX2": ({"ATEN_CPU_CAPABILITY": "avx2"}, ""),
    "element-wise functions: SSE2": ({"ATEN_CPU_CAPABILITY": "default"}, ""),
    "products: AVX2": ({"ONEDNN_MAX_CPU_ISA": "AVX2"}, ""),
    "products: AVX": ({"ONEDNN_MAX_CPU_ISA": "AVX"}, ""),
    "products: SSE4.1": ({"ONEDNN_MAX_CPU_ISA": "SSE41"}, ""),
    "all AVX2": (dict(zip(ISA, ("avx2", "AVX2", "AVX2"), strict=True)), ""),
    "all SSE": (dict(zip(ISA, ("default", "SSE41", "SSE4_2"), strict=True)), ""),
    "products by MKL": ({}, "mkl"),
    "products by MKL, AVX2": ({"MKL_ENABLE_INSTRUCTIONS": "AVX2"}, "mkl"),
    "CUDA": ({}, "cuda"),
}


def child(codec_folder: Path, split: Path, latents: Path, target: Path, otherwise: str) -> None:
    """Encode and decode all rows; write both as NumPy files. `latents` is what to decode, if it is there."""
    import numpy as np

    from ae_pipeline.codec.codec import Codec
    from ae_pipeline.data.samples import SampleSet
    from ae_pipeline.models.layers import linear

    linear.HAS_ONEDNN = linear.HAS_ONEDNN and otherwise != "mkl"
    codec = Codec.load(codec_folder, "cuda" if otherwise == "cuda" else "cpu")
    pixels = SampleSet.open(split).load().pixels
    turn = -1 if otherwise == "reverse" else 1
    q = codec.encode(np.ascontiguousarray(pixels[::turn]))[::turn]
    given = np.load(latents) if latents.exists() else q
    decoded = codec.decode(np.ascontiguousarray(given[::turn]))[::turn]
    np.save(target / "latents.npy", q)
    np.save(target / "pixels.npy", decoded)


def run(name: str, codec: Path, split: Path, first: Path, work: Path) -> Path:
    environment, otherwise = VARIANTS[name]
    target = work / name
    target.mkdir(parents=True)
    arguments = ["--child", otherwise or "plain", "--codec", codec, "--prepared", split, "--work", target]
    subprocess.run(
        [sys.executable, __file__, *arguments, "--latents", first / "latents.npy"],
        env={**os.environ, **environment},
        check=True,
    )
    return target


def compare(name: str, first: Path, target: Path) -> list[Any]:
    import numpy as np

    def load(folder: Path, what: str) -> Any:
        return np.load(folder / f"{what}.npy").astype(np.int64)

    cells: list[Any] = [name]
    for what in ("latents", "pixels"):
        difference = np.abs(load(target, what) - load(first, what))
        rows = np.count_nonzero(difference.reshape(len(difference), -1).any(axis=1))
        cells += [f"{1e6 * np.count_nonzero(difference) / difference.size:.2f}", f"{rows}", f"{difference.max()}"]
    digests = [hashlib.sha256(load(folder, "pixels")[:PROBE_ROWS].tobytes()).digest() for folder in (first, target)]
    return [*cells, "as written" if digests[0] == digests[1] else "differs"]


def measure(codec: Path, split: Path, work: Path) -> list[list[Any]]:
    import torch

    first = work / next(iter(VARIANTS))
    names = [name for name in VARIANTS if name != "CUDA" or torch.cuda.is_available()]
    return [compare(name, first, run(name, codec, split, first, work)) for name in names]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", type=Path, default=Path("data/prepared"))
    parser.add_argument("--codec", type=Path, default=Path("data/codec"))
    parser.add_argument("--work", type=Path, help="where temporary data goes")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--latents", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.codec, args.prepared, args.latents, args.work, args.child)
        return
    columns = [
        "",
        "latents differing, per million",
        "rows",
        "at most",
        "pixels differing, per million",
        "rows",
        "at most",
    ]
    tables = []
    with tempfile.TemporaryDirectory(dir=args.work, prefix=".bench-") as temporary:
        conv = next(name for name, (kind, _, _) in NETWORKS.items() if kind == "conv")
        quick_codec(conv, args.prepared / "train", Path(temporary) / "conv")
        for title, codec in ((f"`{args.codec}`", args.codec), (conv, Path(temporary) / "conv")):
            lines = measure(codec, args.prepared / "test", Path(temporary) / f"of {len(tables)}")
            tables.append(f"### {title}\n\n{table([*columns, 'probe'], lines)}")
    report(
        "Portability: the test split on other instructions",
        tables,
        ["No GPU was there: CUDA not measured."] * ("CUDA" not in tables[0])
        + [f"`python bench/portability.py --codec {args.codec} --prepared {args.prepared}`"],
        args.out,
    )


if __name__ == "__main__":
    main()
