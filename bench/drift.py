"""How often does drift alarm for nothing, and what does it find?

    python bench/drift.py --codec data/codec --prepared data/prepared --out bench/results/drift.md

In each of `--splits` rounds the test split is halved at random: thresholds are calibrated on one half, and batches
are taken from the other, which neither codec nor thresholds have seen. False alarms are counted on batches that share
no row with each other within a round; the halves of different rounds do share rows. Detection is the share of ten
batches in each of 20 rounds that are found, drawn with replacement.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reporting import report, table

SIZES = (50, 100, 200, 500, 1000, 2000, 5000)
_BATCHES = 10
_DETECTING = 20


def disturbances() -> dict[str, Callable[[Any, Any], Any]]:
    """(n, 28, 28) uint8 images and a random generator to images of the same form."""
    import numpy as np

    def noisy(sigma: float) -> Callable[[Any, Any], Any]:
        return lambda images, random: np.clip(
            np.rint(images + random.normal(0, 255 * sigma, images.shape)), 0, 255
        ).astype(np.uint8)

    def blurred(images: Any, _: Any) -> Any:
        shifted = [np.roll(images.astype(np.float32), step, axis) for axis in (1, 2) for step in (-1, 1)]
        return np.rint((images + sum(shifted)) / 5).astype(np.uint8)

    return {
        "inverted": lambda images, _: 255 - images,
        "transposed": lambda images, _: np.ascontiguousarray(images.transpose(0, 2, 1)),
        "shifted by 4 pixels": lambda images, _: np.roll(images, 4, 2),
        "shifted by 2 pixels": lambda images, _: np.roll(images, 2, 2),
        "shifted by 1 pixel": lambda images, _: np.roll(images, 1, 2),
        "noise, sigma 0.2": noisy(0.2),
        "noise, sigma 0.05": noisy(0.05),
        "blurred over 5 pixels": blurred,
        "contrast 0.8": lambda images, _: np.rint(images * np.float32(0.8)).astype(np.uint8),
        "contrast 0.9": lambda images, _: np.rint(images * np.float32(0.9)).astype(np.uint8),
    }


class Encoded:
    """Latents and errors of all test images, as they are and disturbed. A row's do not depend on its neighbours."""

    def __init__(self, codec: Any, pixels: Any, labels: Any):
        import numpy as np

        from ae_pipeline.codec.codec import BLOCK_ROWS
        from ae_pipeline.codec.devices import one_torch_thread

        random = np.random.default_rng(0)
        self.rows = {"undisturbed": (None, None)}
        self.labels = labels
        named = {"undisturbed": lambda images, _: images, **disturbances()}
        with one_torch_thread():
            for name, disturb in named.items():
                changed = disturb(pixels, random)
                starts = range(0, len(changed), BLOCK_ROWS)
                blocks = [codec.encode_block(changed[start : start + BLOCK_ROWS], measure=True) for start in starts]
                self.rows[name] = tuple(np.concatenate(column) for column in zip(*blocks, strict=True))

    def batches(self, unseen: Any, size: int, random: Any) -> dict[str, tuple[Any, Any]]:
        """One batch of each kind, from the rows `unseen`."""
        import numpy as np

        drawn = random.choice(unseen, size)
        latents, error = self.rows["undisturbed"]
        found = {name: (rows[0][drawn], rows[1][drawn]) for name, rows in self.rows.items() if name != "undisturbed"}
        for name in ("inverted", "shifted by 4 pixels"):
            tenth = np.arange(size) % 10 == 0
            q, e = self.rows[name]
            found[f"1 row in 10 {name}"] = (
                np.where(tenth[:, None], q[drawn], latents[drawn]),
                np.where(tenth, e[drawn], error[drawn]),
            )
        ones = unseen[self.labels[unseen] == 1]
        found["only digit 1"] = tuple(values[random.choice(ones, size)] for values in (latents, error))
        more = np.where(np.arange(size) % 10 == 0, random.choice(ones, size), drawn)
        found["digit 1 doubled, 11% to 20%"] = latents[more], error[more]
        no_zeros = random.choice(unseen[self.labels[unseen] != 0], size)
        found["no digit 0"] = latents[no_zeros], error[no_zeros]
        return found


def fit(half: Any, pixels: Any, args: argparse.Namespace, seed: int) -> Any:
    import pyarrow as pa

    from ae_pipeline.data.pixels import SampleSpec
    from ae_pipeline.data.samples import SampleSet, ShardWriter
    from ae_pipeline.evaluation.drift.fit import fit_reference
    from ae_pipeline.params.operation import DriftParams

    with tempfile.TemporaryDirectory() as folder:
        attributes = pa.table({"id": half})
        spec = SampleSpec(pixels.shape[1:], pixels.dtype.name)
        with ShardWriter(Path(folder, "half.parquet"), attributes.schema, spec) as writer:
            writer.write(attributes, pixels[half])
        held_out = SampleSet.open(Path(folder))
        return fit_reference(args.codec, SampleSet.open(args.prepared / "train"), held_out, DriftParams(), seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codec", type=Path, default=Path("data/codec"))
    parser.add_argument("--prepared", type=Path, default=Path("data/prepared"))
    parser.add_argument("--splits", type=int, default=60)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    import numpy as np

    from ae_pipeline.codec.codec import Codec
    from ae_pipeline.data.samples import SampleSet
    from ae_pipeline.evaluation.drift.measure import measure
    from ae_pipeline.params.operation import DriftParams

    test = SampleSet.open(args.prepared / "test").load()
    pixels = test.pixels.copy()
    encoded = Encoded(Codec.load(args.codec), pixels, test.attributes["label"].to_numpy())
    latents, error = encoded.rows["undisturbed"]
    undisturbed: dict[int, list[Any]] = {size: [] for size in SIZES}
    found: dict[str, dict[int, list[bool]]] = {}
    for split in range(args.splits):
        random = np.random.default_rng(split)
        order = random.permutation(len(pixels))
        half, unseen = np.sort(order[: len(order) // 2]), order[len(order) // 2 :]
        reference = fit(half, pixels, args, split)
        for size in SIZES:
            for start in range(0, len(unseen) - size + 1, size):
                batch = unseen[start : start + size]
                undisturbed[size].append(measure(reference, latents[batch], error[batch]))
            for _ in range(_BATCHES if split < _DETECTING else 0):
                for name, rows in encoded.batches(unseen, size, random).items():
                    drift = measure(reference, *rows)
                    found.setdefault(name, {}).setdefault(size, []).append(drift.drifted)
    write(undisturbed, found, DriftParams().confidence, args)


def write(undisturbed: Any, found: Any, confidence: float, args: argparse.Namespace) -> None:
    import numpy as np

    lines = []
    for size, drifts in undisturbed.items():
        alarms = sum(drift.drifted for drift in drifts)
        by = [
            sum(getattr(d, f"{name}_drift") > getattr(d, f"{name}_threshold") for d in drifts)
            for name in ("error", "latent")
        ]
        means = [
            f"{np.mean([getattr(drift, name) for drift in drifts]):.3f}"
            for name in ("error_drift", "error_threshold", "latent_drift", "latent_threshold")
        ]
        share = f"{alarms / len(drifts):.2%}"
        lines.append([f"{size:,}", f"{len(drifts):,}", alarms, share, *by, *means])
    columns = ["rows", "batches", "false alarms", "share", "by error", "by latents"]
    means = ["mean error_drift", "threshold", "mean latent_drift", "threshold"]
    detected = [
        [name, *(f"{np.mean(by_size[size]):.0%}" for size in SIZES)]
        for name, by_size in sorted(found.items(), key=lambda item: -float(np.mean(list(item[1].values()))))
    ]
    report(
        f"Drift: {args.splits} random halves of the test split, confidence {confidence}",
        [table([*columns, *means], lines), table(["found", *(f"{size:,} rows" for size in SIZES)], detected)],
        [
            f"Expected: false alarms of at most {1 - confidence:.1%}. Detection: of "
            f"{_BATCHES * min(_DETECTING, args.splits)} batches each."
        ],
        args.out,
    )


if __name__ == "__main__":
    main()
