"""Two real sets of vectors, made anew by their packages' names: what docs/kinds/vector.md measures.

    pip install 'wordllama==0.4.*'                             # brings tokenizers
    apt-get download wordnet-base dataset-fashion-mnist        # Debian; then dpkg-deb -x FILE.deb debian, for each
    python bench/vectors.py debian out                         # writes out/glosses.npy and out/fashion.npy

glosses: 117,659 glosses of WordNet 3.0 (Princeton's licence), each the mean of its tokens' vectors in wordllama (MIT),
256 values, made to length 1. fashion: the 70,000 pictures of Fashion-MNIST (MIT), as 784 floats from 0 to 1 each, a
usual test of searches for neighbours. Both are float32 (n, values). `--only glosses` or `fashion` makes one of them.
"""

import argparse
import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np

WORDNET = ("noun", "verb", "adj", "adv")
FASHION = ("train", "t10k")


def glosses(debian: Path) -> Iterator[str]:
    """Yield the glosses of WordNet's data files, with their examples, in the order of the files."""
    for name in WORDNET:
        path = debian / "usr/share/wordnet" / f"data.{name}"
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line.startswith("  "):  # the licence
                yield line.split("| ", 1)[1].strip()


def gloss_vectors(debian: Path) -> np.ndarray:
    """(117659, 256) float32, of length 1."""
    from importlib.util import find_spec

    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    found = find_spec("wordllama")
    assert found is not None
    assert found.origin is not None
    package = Path(found.origin).parent  # its own loader would ask the network for the tokenizer
    tokens = load_file(package / "weights/l2_supercat_256.safetensors")["embedding.weight"].astype(np.float32)
    tokenizer = Tokenizer.from_file(str(package / "tokenizers/l2_supercat_tokenizer_config.json"))
    encoded = tokenizer.encode_batch(list(glosses(debian)), add_special_tokens=False)
    vectors = np.stack([tokens[text.ids].mean(axis=0) for text in encoded])
    lengths: np.ndarray = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / lengths


def fashion_vectors(debian: Path) -> np.ndarray:
    """(70000, 784) float32 from 0 to 1; the files are MNIST's: 16 bytes of header, then one byte a pixel."""
    folder = debian / "usr/share/datasets/fashion-mnist"
    files = [gzip.decompress((folder / f"{name}-images-idx3-ubyte.gz").read_bytes())[16:] for name in FASHION]
    return np.frombuffer(b"".join(files), np.uint8).reshape(-1, 784).astype(np.float32) / 255


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("debian", type=Path, help="where the Debian packages were unpacked")
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", choices=["glosses", "fashion"])
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for name, make in (("glosses", gloss_vectors), ("fashion", fashion_vectors)):
        if given.only in (None, name):
            vectors = make(given.debian)
            np.save(given.out / f"{name}.npy", vectors)
            print(f"{name}.npy: {len(vectors):,} vectors of {vectors.shape[1]} values")


if __name__ == "__main__":
    main()
