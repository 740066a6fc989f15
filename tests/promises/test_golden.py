"""Stores of every released format version still open, and docs/store-format.md says enough to decode them."""

import ast
import json
import re
import runpy
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from documents import DOCUMENTS, blocks
from handmade import bytes_of, encode, random_codec, random_pixels, write_rows
from safetensors.numpy import load_file

from ae_pipeline.codec.codec import Codec
from ae_pipeline.codec.header import CodecHeader, fingerprint
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.files import sha256_file, sha256_json
from ae_pipeline.models.dense import Options as DenseOptions
from ae_pipeline.store.format.manifest import Manifest
from ae_pipeline.store.format.part_writer import RESERVED
from ae_pipeline.store.latent_store import LatentStore
from ae_pipeline.store.reading.decode import decode_store, load_store_codec

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
DOC = DOCUMENTS["docs/store-format.md"].read_text(encoding="utf-8")
STORES = sorted(path.parent.name for path in GOLDEN.glob("*/_manifest.json"))


@pytest.fixture(params=STORES)
def store(request):
    return LatentStore.open(GOLDEN / request.param)


def expected_of(store):
    return json.loads((GOLDEN / f"{store.path.name}.expected.json").read_text(encoding="utf-8"))


def test_every_released_format_is_kept():
    newest = [f"store-v2{kind}" for kind in ("", "-bytes", "-coded", "-context", "-conv", "-integer", "-patches")]
    assert ["store-v1", "store-v1-conv", *newest, "store-v3-joined", "store-v4"] == STORES
    assert [LatentStore.open(GOLDEN / name).manifest.format for name in STORES] == [1, 1, 2, 2, 2, 2, 2, 2, 2, 3, 4]
    assert [LatentStore.open(GOLDEN / name).codec_header().format for name in STORES] == [
        *(1, 1, 1, 3, 1, 4, 1, 2, 2, 2, 2)
    ]
    assert sum(len(data) for data in bytes_of(GOLDEN).values()) < 280_000


def test_an_old_store_opens_with_the_rows_that_were_put_in(store):
    expected = expected_of(store)
    rows = [rows for part in store.manifest.parts for rows in store.read_part(part, 7)]
    assert [value for block in rows for value in block.attributes["id"].to_pylist()] == expected["ids"]
    assert [value for block in rows for value in block.attributes["label"].to_pylist()] == expected["labels"]
    assert np.concatenate([block.latents for block in rows]).tolist() == expected["latents"]
    assert np.concatenate([block.error for block in rows]).tolist() == expected["errors"]


def test_an_old_store_decodes_to_the_same_pixels(store, tmp_path):
    expected = expected_of(store)
    decoded = decode_store(store, tmp_path / "decoded", device="cpu").load()
    # Another processor may round a pixel of a float codec the other way.
    difference = decoded.pixels.reshape(len(expected["pixels"]), -1).astype(np.int64) - expected["pixels"]
    assert np.abs(difference).max() <= (0 if store.codec_header().is_integer else 1)
    assert (difference == 0).mean() > 0.99
    assert decoded.attributes["id"].to_pylist() == expected["ids"]


def test_old_digests_are_still_computed_alike(store):
    manifest = json.loads((store.path / "_manifest.json").read_text(encoding="utf-8"))
    digest = manifest.pop("digest")
    assert sha256_json(manifest) == digest
    header = json.loads((store.codec_path / "codec.json").read_text(encoding="utf-8"))
    assert fingerprint(header) == header["fingerprint"] == store.manifest.codec.fingerprint
    assert all(sha256_file(store.path / part.name) == part.sha256 for part in store.manifest.parts)


@pytest.mark.slow
def test_the_script_that_made_the_stores_still_makes_such_ones(tmp_path):
    runpy.run_path(str(GOLDEN / "make.py"))["make"](tmp_path)
    for name in STORES[2:]:  # of the newest format
        new, old = (LatentStore.open(folder / name).manifest for folder in (tmp_path, GOLDEN))
        assert (new.columns, new.samples, new.latent) == (old.columns, old.samples, old.latent)
        assert [part.rows for part in new.parts] == [part.rows for part in old.parts]


# The document, taken at its word.


def example(number=0):
    return blocks("docs/store-format.md", "python")[number].text


def test_the_example_in_integers_decodes_a_row_exactly(monkeypatch):
    monkeypatch.chdir(ROOT)
    names = {}
    exec(compile(example(1), "store-format.md", "exec"), names)
    expected = json.loads((GOLDEN / "store-v2-integer.expected.json").read_text(encoding="utf-8"))["pixels"][3]
    assert names["pixels"].reshape(-1).tolist() == expected


def test_the_example_of_segments_finds_a_row(monkeypatch):
    monkeypatch.chdir(ROOT)
    names = {}
    exec(compile(example(2), "store-format.md", "exec"), names)
    (part,) = names["parts"]
    assert part.startswith("part-00002-")
    assert names["rows"]["id"].to_pylist() == [202]


def test_the_example_of_the_document_decodes_a_row(monkeypatch):
    block = example()
    imported = {
        alias.name for node in ast.walk(ast.parse(block)) if isinstance(node, ast.Import) for alias in node.names
    }
    imported |= {node.module for node in ast.walk(ast.parse(block)) if isinstance(node, ast.ImportFrom)}
    assert imported == {"json", "pathlib", "numpy", "pyarrow.parquet", "safetensors.numpy"}
    monkeypatch.chdir(ROOT)
    names = {}
    exec(compile(block, "store-format.md", "exec"), names)
    expected = json.loads((GOLDEN / "store-v2.expected.json").read_text(encoding="utf-8"))["pixels"][20 + 3]
    assert (names["pixels"].shape, names["pixels"].dtype) == ((6, 6), np.uint8)
    assert np.abs(names["pixels"].reshape(-1).astype(int) - expected).max() <= 1


def test_the_example_decodes_a_store_with_the_default_activation(tmp_path):
    options = DenseOptions(hidden_sizes=[7, 5], activation="silu")
    random_codec(tmp_path / "codec", options=dict(options))
    rows = random_pixels((20, 5, 4), "uint8")
    for number in (1, 2):
        write_rows(tmp_path / f"data/{number}.parquet", rows, id=list(range(20)), label=list(range(20)))
    store = encode(tmp_path / "data", tmp_path / "codec", tmp_path / "store")
    names = {}
    exec(compile(example().replace("tests/golden/store-v2", store.location), "store-format.md", "exec"), names)
    decode_store(store, tmp_path / "decoded", device="cpu")
    expected = SampleSet.open(tmp_path / "decoded").load().pixels[20 + 3]
    assert np.abs(names["pixels"].astype(int) - expected).max() <= 1


def transposed_convolution(image, weight, bias, size):
    """Written out as in the document: `image` (channels, height, width)."""
    out = np.zeros((weight.shape[1], *size), np.float32) + bias[:, None, None]
    for a in range(image.shape[1]):
        for b in range(image.shape[2]):
            for u in range(3):
                for v in range(3):
                    y, x = 2 * a + u - 1, 2 * b + v - 1
                    if 0 <= y < size[0] and 0 <= x < size[1]:
                        out[:, y, x] += image[:, a, b] @ weight[:, :, u, v]
    return out


ACTIVATIONS = {"relu": lambda v: np.maximum(v, 0), "silu": lambda v: v / (1 + np.exp(-v))}


def test_a_convolutional_row_decodes_as_the_document_says():
    store = GOLDEN / "store-v1-conv"
    codec = json.loads((store / "_codec" / "codec.json").read_text(encoding="utf-8"))
    weights = {
        name: value.astype(np.float32) for name, value in load_file(store / "_codec/weights.safetensors").items()
    }
    activation = ACTIVATIONS[codec["model"]["options"]["activation"]]
    channels = codec["model"]["options"]["channels"]
    sizes = [tuple(codec["samples"]["shape"][:2])]
    for _ in channels:
        sizes.append(tuple((size + 1) // 2 for size in sizes[-1]))
    (part,) = store.glob("part-*")
    latents = pq.read_table(part)["latent"].to_pylist()
    expected = json.loads((GOLDEN / "store-v1-conv.expected.json").read_text(encoding="utf-8"))["pixels"]
    for latent, pixels in zip(latents, expected, strict=True):
        q = np.frombuffer(latent, np.int8).astype(np.float32)
        z = np.float32(codec["quantiser"]["zero_point"]) + np.float32(codec["quantiser"]["scale"]) * q
        image = activation(weights["from_latent.0.weight"] @ z + weights["from_latent.0.bias"])
        image = image.reshape(channels[-1], *sizes[-1])
        for j in reversed(range(len(channels))):
            image = transposed_convolution(image, weights[f"up.conv{j}.weight"], weights[f"up.conv{j}.bias"], sizes[j])
            image = activation(image) if j else 1 / (1 + np.exp(-image))
        value = image.transpose(1, 2, 0) * np.float32(codec["scaling"]["scale"]) + codec["scaling"]["offset"]
        assert np.abs(np.clip(np.round(value), -32768, 32767).reshape(-1) - pixels).max() <= 1


def test_a_row_of_patches_decodes_as_the_document_says():
    store = GOLDEN / "store-v2-patches"
    codec = json.loads((store / "_codec" / "codec.json").read_text(encoding="utf-8"))
    weights = {name: value.astype(np.int64) for name, value in load_file(store / "_codec/weights.safetensors").items()}
    options, (height, width, channels) = codec["model"]["options"], codec["samples"]["shape"]
    size, (rows, columns) = options["patch_size"], (3, 2)

    def layer(name, product):
        bias, shift = (weights[f"{name}.{key}"] for key in ("bias", "shift"))
        return np.rint((product + bias) / 2.0**shift).clip(0, 255).astype(np.int64)

    (part,) = store.glob("part-*")
    expected = json.loads((GOLDEN / "store-v2-patches.expected.json").read_text(encoding="utf-8"))["pixels"]
    for latent, pixels in zip(pq.read_table(part)["latent"].to_pylist(), expected, strict=True):
        v = layer("from_latent", weights["from_latent.weight"] @ np.frombuffer(latent, np.int8).astype(np.int64))
        image = v.reshape(rows, columns, options["decoder_channels"][0])
        for j in range(len(options["decoder_channels"])):
            weight, padded = weights[f"decoder.conv{j}.weight"], np.pad(image, ((1, 1), (1, 1), (0, 0)))
            sums = [
                [
                    sum(weight[:, :, u, v] @ padded[a + u, b + v] for u in range(3) for v in range(3))
                    for b in range(columns)
                ]
                for a in range(rows)
            ]
            image = layer(f"decoder.conv{j}", np.array(sums))
        decoded = [
            image[y // size, x // size, ((y % size) * size + x % size) * channels + c]
            for y in range(height) for x in range(width) for c in range(channels)
        ]  # fmt: skip
        assert decoded == pixels


@pytest.mark.parametrize("model", [Manifest, CodecHeader], ids=lambda model: model.__name__)
def test_the_document_names_every_key(model):
    keys = set(re.findall(r"[a-z_0-9]+", " ".join(re.findall(r"`([^`\n]+)`", DOC))))
    schema = model.model_json_schema()
    parts = [schema, *schema["$defs"].values()]
    assert {name for part in parts for name in part.get("properties", {})} <= keys


def test_the_document_names_every_tensor_and_reserved_column(store):
    names = {re.sub(r"\d+", "#", name) for name in load_file(store.codec_path / "weights.safetensors")}
    if store.codec_header().format == 3:  # beside each tensor its scales: "Weights of a byte"
        names = {name.removesuffix(".scale") for name in names}
    if store.codec_header().format == 4:
        inside = load_store_codec(store, "cpu").streams._masks._networks.state_dict()
        assert names == {"packed"}
        assert all(f"`{name.removeprefix('layers.').split('.')[0]}`" in DOC for name in inside)
        names = set()
    documented = {re.sub(r"\d+|<[jk]>", "#", name) for name in re.findall(r"`([a-z_]+\.[a-z0-9<>]+)", DOC)}
    documented |= {name.removesuffix(".weight") for name in documented}
    assert all({name, name.rsplit(".", 1)[0]} & documented for name in names)
    assert all(f"`{name}`" in DOC for name in RESERVED)


def test_an_old_codec_still_encodes(store):
    codec = load_store_codec(store, "cpu")
    expected = np.array(expected_of(store)["pixels"], codec.spec.dtype).reshape(-1, *codec.spec.shape)
    latents = codec.encode(expected)
    lowest = -(store.manifest.latent.levels // 2)
    assert latents.min() >= lowest
    assert latents.max() < lowest + store.manifest.latent.levels
    assert isinstance(codec, Codec)
