"""Two real sets of small pictures in colour, made anew by their packages' names: what docs/kinds/image.md measures.

    npm pack emoji-datasource-google@16                              # Apache 2.0; a file .tgz
    apt-get download colobot-common-textures visp-images-data        # Debian; dpkg-deb -x FILE.deb debian, for each
    python bench/pictures.py out --emoji emoji-datasource-google-16.0.0.tgz --debian debian

emoji: the 3,786 of 64 x 64 pixels, on white. 604 of them, of groups of which none is in the others, are the test split:
skin tones, genders and variants of one emoji are a group. As PNG files in out/emoji/train and test, and as IDX files.
tiles: of 32 x 32 pixels, at most 600 of a picture, drawn from Colobot's textures (GPL 3) and from ViSP's photographs in
colour; 27,111, and 2,000 of other pictures as test split.

IDX files are in out/emoji/idx and out/tiles/idx: `ae-pipeline init mine --source idx` reads them (source.idx.folder),
with just these test splits.
"""

import argparse
import io
import re
import struct
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

# Code points in an emoji's name that make a variant of it, or say who is meant.
_VARIANTS = {"1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff", "200d", "fe0f", "2640", "2642"}
_PERSONS = {"1f468": "person", "1f469": "person", "1f9d1": "person"}
_TEST_EMOJI, _MOST_TEST_EMOJI = 600, 610
_TILE, _TRAIN_TILES, _TEST_TILES = 32, 30_000, 2000
# By whether a picture is for testing.
_TILES_OF_ONE = {False: 600, True: 160}
_SUFFIXES = (".png", ".jpg", ".jpeg")


def emoji(package: Path) -> tuple[list[str], np.ndarray]:
    """Names and (3786, 64, 64, 3) uint8 of the package's small pictures, on white."""
    names, pictures = [], []
    with tarfile.open(package) as archive:
        for member in archive:
            if "/64/" not in member.name or not member.name.endswith(".png"):
                continue
            file = archive.extractfile(member)
            assert file is not None
            picture = Image.open(io.BytesIO(file.read())).convert("RGBA")
            white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
            white.alpha_composite(picture)
            names.append(Path(member.name).stem)
            pictures.append(np.asarray(white.convert("RGB")))
    return names, np.stack(pictures)


def held_out(names: list[str]) -> np.ndarray:
    """(n,) bool: which emoji are for testing, whole groups of them, drawn by a fixed seed."""
    groups = []
    for name in names:
        points = [_PERSONS.get(point, point) for point in name.split("-") if point not in _VARIANTS]
        groups.append("-".join(dict.fromkeys(points)) or name)
    sizes, order = Counter(groups), sorted(set(groups))
    chosen: set[str] = set()
    for place in np.random.default_rng(1).permutation(len(order)):
        count = sum(sizes[group] for group in chosen)
        if count >= _TEST_EMOJI:
            break
        if count + sizes[order[place]] <= _MOST_TEST_EMOJI:
            chosen.add(order[place])
    return np.array([group in chosen for group in groups])


def tiles(debian: Path) -> tuple[np.ndarray, np.ndarray]:
    """(27111, 32, 32, 3) and (2000, 32, 32, 3) uint8, of different pictures, and of different films."""
    found = [
        *_pictures(debian / "usr/share/games/colobot", "colobot"),
        *_pictures(debian / "usr/share/visp-images-data", "x/visp"),
    ]
    rng = np.random.default_rng(0)
    films = sorted({film for film, _ in found})
    for_test = {films[place] for place in rng.permutation(len(films))[: len(films) // 6]}
    pools: dict[bool, list[np.ndarray]] = {False: [], True: []}
    for film, picture in found:
        rows, columns = (side // _TILE for side in picture.shape[:2])
        cut = picture[: rows * _TILE, : columns * _TILE].reshape(rows, _TILE, columns, _TILE, 3)
        cut = cut.swapaxes(1, 2).reshape(-1, _TILE, _TILE, 3)
        tests = film in for_test
        cut = cut[rng.permutation(len(cut))[: _TILES_OF_ONE[tests]]]
        pools[tests].append(cut[cut.std((1, 2, 3)) > 1])
    train, test = (np.concatenate(pools[split]) for split in (False, True))
    return train[rng.permutation(len(train))[:_TRAIN_TILES]], test[rng.permutation(len(test))[:_TEST_TILES]]


def _pictures(folder: Path, name: str) -> list[tuple[str, np.ndarray]]:
    """The pictures in colour of two tiles a side or more, with what the frames of a film have in common."""
    found = []
    for path in sorted(folder.rglob("*"), key=str):
        if path.suffix.lower() not in _SUFFIXES:
            continue
        picture = Image.open(path)
        if picture.mode not in ("RGB", "RGBA", "P"):
            continue
        if picture.mode != "RGB":
            opaque = picture.convert("RGBA")
            if "visp" in name and np.asarray(opaque)[..., 3].min() < 255:
                continue
            picture = opaque.convert("RGB")
        pixels = np.asarray(picture)
        said = f"{name}/{path.relative_to(folder)}"
        if min(pixels.shape[:2]) >= 2 * _TILE:
            found.append((re.sub(r"\d+", "#", said) if "visp" in name else path.name, pixels))
    return found


def write_idx(folder: Path, splits: dict[str, np.ndarray]) -> None:
    """Images of each split as IDX, under the names that the source `idx` knows."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, images in splits.items():
        header = struct.pack(f">HBB{images.ndim}I", 0, 8, images.ndim, *images.shape)
        (folder / f"{split}-images-idx{images.ndim}-ubyte").write_bytes(header + images.tobytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--emoji", type=Path, help="the package of npm")
    parser.add_argument("--debian", type=Path, help="where the Debian packages were unpacked")
    given = parser.parse_args()
    if given.emoji:
        names, pictures = emoji(given.emoji)
        chosen = held_out(names)
        for split, which in (("train", ~chosen), ("test", chosen)):
            folder = given.out / "emoji" / split
            folder.mkdir(parents=True, exist_ok=True)
            for place in np.flatnonzero(which):
                Image.fromarray(pictures[place]).save(folder / f"{names[place]}.png")
        write_idx(given.out / "emoji/idx", {"train": pictures[~chosen], "t10k": pictures[chosen]})
        print(f"emoji: {(~chosen).sum():,} and {chosen.sum():,} pictures")
    if given.debian:
        train, test = tiles(given.debian)
        write_idx(given.out / "tiles/idx", {"train": train, "t10k": test})
        print(f"tiles: {len(train):,} and {len(test):,}")


if __name__ == "__main__":
    main()
