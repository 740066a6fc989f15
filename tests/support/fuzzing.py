"""Stores that somebody has tampered with: how they are made, and what happens to a program that reads them.

    python tests/support/fuzzing.py STORES SCRATCH SEED FIRST COUNT     # one JSON line for each input

Input number n of a seed is always the same. Most mutations put the digests right again: what stands behind a digest is
reached by whoever writes one. This file is run as a process of its own (`run_inputs`), in which an input must neither
crash the interpreter, nor hang, nor take memory or open files beyond what a store may: test_fuzz.py does some hundreds,
bench/fuzz.py as many as are asked for.
"""

import contextlib
import faulthandler
import hashlib
import json
import os
import random
import resource
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ae_pipeline.codec.header import HEADER_NAME, WEIGHTS_NAME, fingerprint
from ae_pipeline.errors import PipelineError
from ae_pipeline.files import sha256_json
from ae_pipeline.store.format.manifest import CODEC_FOLDER, MANIFEST_NAME, SNAPSHOTS_FOLDER

Files = dict[str, bytes]
HEADER, WEIGHTS = f"{CODEC_FOLDER}/{HEADER_NAME}", f"{CODEC_FOLDER}/{WEIGHTS_NAME}"
# What an input may take beyond what the process has when it has read a whole store.
MOST_BYTES = 2 << 30
MOST_SECONDS = 60
NUMBERS = [-1, 0, 1, 2, 127, 255, 256, 65_535, 10**6, 2**24, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64]
NUMBERS += [10**100, -(2**31), -(2**63), 0.5, -0.0, 1e-320, 1e38, 1e300, 1e999, float("nan")]
TEXTS = ["", "\0", "x" * 100_000, "../../etc/passwd", "/etc/passwd", "part-00000-0000000000000000.parquet", "\ud800"]
TEXTS += [
    "{}",
    "int8",
    "list",
    "binary",
    "coded",
    "id",
    "latent",
    "error",
    "\u202e\U0001f9e8",
    "0" * 64,
    "1:" + "0" * 32,
]


LINKS = "links, pipes and folders in place of files"


def make_stores(folder: Path) -> None:
    """The stores that are tampered with: all layouts, integer and text ids, a grown one, and parts without page
    checksums, compressed and not, in which changes reach Arrow's decoders.
    """
    from handmade import encode, random_codec, random_pixels, write_rows

    from ae_pipeline.params import EncodeParams
    from ae_pipeline.store.writing.appending import append_samples

    def rows(name: str, count: int, seed: int, *, text_ids: bool = False) -> Any:
        values = random.Random(seed)
        ids = [f"\u00e4{number:03d}" if text_ids else 7 * number - 20 for number in range(count)]
        return write_rows(
            folder / "rows" / f"{name}.parquet",
            random_pixels((count, 4, 4), "uint8", seed),
            id=ids,
            label=pa.array([values.choice([None, *range(-3, 10)]) for _ in range(count)], pa.int8()),
            name=[values.choice([None, "", "o'hara", "\U0001f9e8" * 9, "abc"]) for _ in range(count)],
            weight=pa.array([values.choice([None, float("nan"), -0.0, 1e-3, 7.5]) for _ in range(count)], pa.float64()),
            tags=pa.array([values.choice([None, [], ["a", None], ["b" * 40]]) for _ in range(count)]),
            box=pa.array([values.choice([None, {"x": 1, "y": None}, {"x": 2, "y": "z"}]) for _ in range(count)]),
        )

    dense, conv = folder / "dense", folder / "conv"
    random_codec(dense, (4, 4), levels=5)
    random_codec(conv, (4, 4), model_name="conv")
    encode(rows("a", 90, 1), dense, folder / "stores" / "list", row_group_rows=40)
    encode(rows("b", 60, 2, text_ids=True), conv, folder / "stores" / "binary", layout="binary", row_group_rows=25)
    encode(rows("c", 60, 5), dense, folder / "stores" / "coded", layout="coded", row_group_rows=25)
    params = EncodeParams(device="cpu", row_group_rows=30)
    for number in range(2):
        grown = [rows(f"grown{number}", 50, 3 + number)]
        append_samples(folder / "stores" / "grown", grown, dense, params, name="grown", git={})
    for name, compression in (("unchecked", "zstd"), ("uncompressed", "none")):
        copy = folder / "stores" / name
        shutil.copytree(folder / "stores" / "list", copy)
        _rewrite(copy, compression)


def _rewrite(store: Path, compression: str) -> None:
    """A store without page checksums; some columns have data pages of version 2."""
    manifest = json.loads((store / MANIFEST_NAME).read_bytes())
    for part in manifest["parts"]:
        path = store / part["name"]
        table = pq.read_table(path)
        version = "2.0" if compression == "none" else "1.0"
        pq.write_table(table, path, row_group_size=40, compression=compression, data_page_version=version)
        _sign_part(part, _pieces_of(path))
    (store / MANIFEST_NAME).write_bytes(_signed(manifest))


def _pieces_of(path: Path) -> list[bytes]:
    from ae_pipeline.store.format.verified_file import cut

    data, pieces, start = path.read_bytes(), [], 0
    for piece in cut(path):
        size = int(piece.split(":")[0])
        pieces.append(data[start : start + size])
        start += size
    return pieces


def _sign_part(part: dict[str, Any], pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    part["bytes"], part["sha256"] = len(whole), hashlib.sha256(whole).hexdigest()
    if part.get("pieces"):
        part["pieces"] = [f"{len(piece)}:{hashlib.sha256(piece).hexdigest()[:32]}" for piece in pieces]


def _signed(manifest: dict[str, Any]) -> bytes:
    manifest.pop("digest", None)
    try:
        manifest["digest"] = sha256_json(manifest)
    except ValueError:  # NaN, or half a character
        manifest["digest"] = "0" * 64
    return json.dumps(manifest).encode()


def _any_bytes(files: Files, chance: random.Random) -> tuple[Files, str]:
    name = chance.choice(sorted(files))
    data, note = change_bytes(files[name], chance)
    return {name: data}, f"{name}: {note}"


def _manifest(files: Files, chance: random.Random) -> tuple[Files, str]:
    names = [name for name in files if name == MANIFEST_NAME or name.startswith("_snapshots/")]
    name = chance.choice(sorted(names))
    values = json.loads(files[name])
    notes = [change_json(values, chance) for _ in range(chance.choice([1, 1, 1, 2, 4]))]
    return {name: _signed(values) if isinstance(values, dict) else b"[]"}, f"{name}: {'; '.join(notes)}"


def _codec(files: Files, chance: random.Random) -> tuple[Files, str]:
    values = json.loads(files[HEADER])
    notes = [change_json(values, chance) for _ in range(chance.choice([1, 1, 2, 4]))]
    return _with_codec(files, values, files[WEIGHTS]), "; ".join(notes)


def _weights(files: Files, chance: random.Random) -> tuple[Files, str]:
    data = files[WEIGHTS]
    if chance.random() < 0.3:
        data, note = change_bytes(data, chance, chance.choice([len(data), 200]))
    else:
        size = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8 : 8 + size])
        note = change_json(header, chance)
        text = json.dumps(header).encode()
        data = struct.pack("<Q", len(text)) + text + data[8 + size :]
    return _with_codec(files, json.loads(files[HEADER]), data), note


def _with_codec(files: Files, header: dict[str, Any], weights: bytes) -> Files:
    """The codec's files and a manifest that agrees with them."""
    if "weights_sha256" in header:
        header["weights_sha256"] = hashlib.sha256(weights).hexdigest()
    with contextlib.suppress(ValueError):
        header["fingerprint"] = fingerprint(header)
    text = json.dumps(header).encode()
    manifest = json.loads(files[MANIFEST_NAME])
    manifest["codec"] = {
        "fingerprint": header.get("fingerprint", ""),
        "bytes": len(text) + len(weights),
        "files": {
            name: hashlib.sha256(data).hexdigest() for name, data in ((HEADER_NAME, text), (WEIGHTS_NAME, weights))
        },
    }
    return {HEADER: text, WEIGHTS: weights, MANIFEST_NAME: _signed(manifest)}


def _footer(files: Files, chance: random.Random) -> tuple[Files, str]:
    return _part(files, chance, -1)


def _pages(files: Files, chance: random.Random) -> tuple[Files, str]:
    return _part(files, chance, None)


def _part(files: Files, chance: random.Random, place: int | None) -> tuple[Files, str]:
    """Change one piece of a part, and what the manifest says of it."""
    manifest = json.loads(files[MANIFEST_NAME])
    part = chance.choice(manifest["parts"])
    pieces, start = [], 0
    for piece in part["pieces"]:
        size = int(piece.split(":")[0])
        pieces.append(files[part["name"]][start : start + size])
        start += size
    place = chance.randrange(len(pieces) - 1) if place is None else len(pieces) - 1
    piece = pieces[place]
    if place == len(pieces) - 1:
        # Behind the row groups stands Arrow's schema, which is long.
        body, note = change_bytes(piece[:-8], chance, chance.choice([len(piece) // 2, len(piece) - 8]))
        pieces[place] = body + struct.pack("<I", len(body)) + b"PAR1"
    else:
        # Page headers stand at the beginning: half of the changes are made there.
        changed, note = change_bytes(piece, chance, chance.choice([60, len(piece)]))
        # Mostly of the length that the footer says.
        pieces[place] = changed if chance.random() < 0.1 else changed[: len(piece)].ljust(len(piece), b"\0")
    _sign_part(part, pieces)
    if chance.random() < 0.05:
        part["rows"] = chance.choice([1, 10**6, 10**9, 2**63])
        manifest["totals"]["rows"] = sum(entry["rows"] for entry in manifest["parts"])
    return {part["name"]: b"".join(pieces), MANIFEST_NAME: _signed(manifest)}, f"{part['name']} piece {place}: {note}"


KINDS = {
    "bytes of any file": _any_bytes,
    LINKS: lambda files, chance: ({}, chance.choice(sorted(files))),
    "manifest, digest renewed": _manifest,
    "codec.json, fingerprint renewed": _codec,
    "weights, digest renewed": _weights,
    "Parquet footer, digests renewed": _footer,
    "Parquet pages, digests renewed": _pages,
}


def change_bytes(data: bytes, chance: random.Random, within: int | None = None) -> tuple[bytes, str]:
    """Some bits or bytes other, more or fewer; numbers as Thrift writes them, blown up."""
    out = bytearray(data)
    within = min(within or len(out), len(out)) or 1
    how = chance.choice(["flip", "flip", "byte", "insert", "delete", "truncate", "varint", "copy", "zeros"])
    for _ in range(1 if how == "truncate" else chance.choice([1, 1, 1, 2, 8])):
        at = chance.randrange(within)
        size = chance.choice([1, 1, 2, 4, 8, 100])
        if how == "flip" and at < len(out):
            out[at] ^= 1 << chance.randrange(8)
        elif how == "byte" and at < len(out):
            out[at] = chance.choice([0, 1, 0x7F, 0x80, 0xFE, 0xFF, chance.randrange(256)])
        elif how == "insert":
            out[at:at] = chance.randbytes(size)
        elif how == "delete":
            del out[at : at + size]
        elif how == "truncate":
            del out[at:]
        elif how == "varint":
            end = at
            while end < len(out) and out[end] >= 128:
                end += 1
            out[at : end + 1] = _varint(chance.choice([0, 1, 2**31 - 1, 2**32 - 2, 2**32, 2**63, 2**64 - 1]))
        elif how == "copy":
            other = chance.randrange(len(out) or 1)
            out[at : at + size] = out[other : other + size]
        else:
            out[at : at + size] = bytes(min(size, len(out[at:])))
    return bytes(out), how


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def change_json(values: Any, chance: random.Random) -> str:  # noqa: C901 (a list of cases)
    """Change one thing somewhere in objects and lists, in place; says where."""
    (inside, key, path), (other, other_key, _) = _place(values, chance), _place(values, chance)
    how = chance.choice(["number", "number", "text", "type", "remove", "add", "swap", "nest", "repeat"])
    if how == "number":
        old = inside[key]
        near = [old + 1, old - 1, old * 2, -old] if isinstance(old, int | float) and not isinstance(old, bool) else []
        inside[key] = chance.choice(NUMBERS + near * 3)
    elif how == "text":
        old = inside[key]
        inside[key] = chance.choice([*TEXTS, *([old[:-1], old + "x", old.upper()] * 2 if isinstance(old, str) else [])])
    elif how == "type":
        inside[key] = chance.choice([None, True, False, [], {}, [None], {"a": 1}, "1", 1, 1.5])
    elif how == "remove":
        del inside[key]
    elif how == "add":
        if isinstance(inside, dict):
            inside[chance.choice(["extra", "", "__proto__", "digest", "format"])] = chance.choice(NUMBERS)
        else:
            inside.insert(key, chance.choice([*NUMBERS, *TEXTS, None]))
    elif how == "swap":
        try:
            inside[key], other[other_key] = other[other_key], inside[key]
            json.dumps(values)
        except (KeyError, IndexError, ValueError, RecursionError):
            inside[key] = None
    elif how == "nest":
        deep: Any = inside[key]
        for _ in range(chance.choice([1, 50, 400])):
            deep = [deep] if chance.random() < 0.5 else {"a": deep}
        inside[key] = deep
    else:
        inside[key] = [inside[key]] * chance.choice([0, 2, 9, 10_000])
    return f"{path} {how}"


def _place(values: Any, chance: random.Random) -> tuple[Any, Any, str]:
    """An object or list, a key in it, and the way there: every key of an object is as likely as its neighbours."""
    path = ""
    while True:
        key = chance.choice(sorted(values) if isinstance(values, dict) else range(len(values)))
        path += f".{key}"
        inner = values[key]
        if not isinstance(inner, dict | list) or not inner or chance.random() < 0.2:
            return values, key, path
        values = inner


def read_everything(store: Path) -> str:
    """A digest of all that a store says, by every way there is to read it. Raises what reading raises."""
    from ae_pipeline.codec.codec import Codec
    from ae_pipeline.store.care.verify import verify_store
    from ae_pipeline.store.format.manifest import kept_snapshots
    from ae_pipeline.store.latent_store import LatentStore
    from ae_pipeline.store.reading.decode import load_store_codec
    from ae_pipeline.store.writing.new_manifest import measure_probe

    seen = hashlib.sha256()
    verify_store(store)  # what it finds is told by other tests
    opened = LatentStore.open(store)
    stores = [opened, *(LatentStore.open(store, number) for number in kept_snapshots(opened.storage))]
    codec: Codec = load_store_codec(opened, "cpu")
    for each in stores:
        for part in each.manifest.parts:
            for rows in each.read_part(part, 1024):
                seen.update(rows.latents.tobytes() + rows.error.tobytes())
                seen.update(json.dumps(rows.attributes.to_pylist(), default=str).encode())
                seen.update(codec.decode(rows.latents[:64]).tobytes())
        some = [part.id_min for part in each.manifest.parts][:2]
        for table in (
            *each.scan(),
            *each.scan(["id"], filter="error < 0.3"),
            *each.scan(["label", "latent"], ids=some),
        ):
            seen.update(str(len(table)).encode())
            seen.update(json.dumps(table.to_pylist(), default=str).encode())
        seen.update(str((each.latent_bytes(), each.attributes_schema())).encode())
        seen.update(b"".join(rows.latents.tobytes() for rows in each.rows(on_damaged=lambda part, error: None)))
    if opened.manifest.probe is not None:
        seen.update(measure_probe(opened, opened.manifest.probe.rows).pixels_sha256.encode())
    return seen.hexdigest()


def run_inputs(stores: Path, scratch: Path, seed: int, first: int, count: int) -> Iterator[dict[str, Any]]:
    """Outcomes of inputs first ... first + count - 1, read by processes of their own; one that dies is followed by
    another, and its input reported as `crash` or `hang` with what faulthandler wrote.
    """
    done, end = first, first + count
    while done < end:
        scratch.mkdir(parents=True, exist_ok=True)
        arguments = [str(stores), str(scratch), str(seed), str(done), str(end - done)]
        errors = scratch / "stderr"
        with open(errors, "w") as stderr:
            worker = subprocess.Popen(
                [sys.executable, "-X", "faulthandler", __file__, *arguments],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, "PYTHONPATH": f"{Path(__file__).parents[2]}", "PYTHONWARNINGS": "ignore"},
            )
            with worker:
                assert worker.stdout is not None
                for line in worker.stdout:
                    yield json.loads(line)
                    done += 1
        if worker.returncode or done < end:
            text = errors.read_text(errors="replace")
            what = "hang" if "Timeout (" in text else "crash"
            yield {"input": done, "kind": "?", "outcome": what, "detail": f"{worker.returncode}: {text[-2000:]}"}
            done += 1


def _work(stores: Path, scratch: Path, seed: int, first: int, count: int) -> None:
    import torch

    torch.set_num_threads(1)
    store = scratch / "store"
    bases = sorted(path for path in stores.iterdir() if path.is_dir())
    originals: dict[str, tuple[Files, str]] = {}
    for base in bases:
        files = {str(file.relative_to(base)): file.read_bytes() for file in base.rglob("*") if file.is_file()}
        originals[base.name] = files, read_everything(base)
    opened = _watch_files(store)
    # What the process has now is the measure: memory it has taken once it keeps.
    limit = _address_space() + MOST_BYTES + (2 << 30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    baseline = _peak_bytes()
    for number in range(first, first + count):
        chance = random.Random(f"{seed}:{number}")
        name = chance.choice(sorted(originals))
        files, wanted = originals[name]
        kind = chance.choice(list(KINDS))
        changed, note = KINDS[kind](files, chance)
        shutil.rmtree(store, ignore_errors=True)
        for file, data in {**files, **changed}.items():
            (store / file).parent.mkdir(parents=True, exist_ok=True)
            (store / file).write_bytes(data)
        if kind == LINKS:
            note = _replace_file(store / note, scratch / "outside", chance)
        opened.clear()
        before, start = _peak_bytes(), time.perf_counter()
        faulthandler.dump_traceback_later(MOST_SECONDS, exit=True)
        outcome, detail = _outcome(store, "" if kind == LINKS else wanted if kind == "bytes of any file" else None)
        faulthandler.cancel_dump_traceback_later()
        strange = sorted(set(opened))
        if strange:
            outcome, detail = "other files", f"{strange[:5]}"
        if _peak_bytes() - baseline > MOST_BYTES and _peak_bytes() > before:
            outcome, detail = "memory", f"{_peak_bytes() - baseline} bytes"
        result = {
            "input": number,
            "kind": kind,
            "store": name,
            "note": note[:200],
            "outcome": outcome,
            "detail": detail,
        }
        result |= {"seconds": round(time.perf_counter() - start, 3), "grown": _peak_bytes() - baseline}
        print(json.dumps(result), flush=True)


def _replace_file(path: Path, outside: Path, chance: random.Random) -> str:
    """Put something in a file's place that is no file of the store, although it has the same bytes behind it."""
    how = chance.choice(["link", "link to a folder", "pipe", "folder", "device", "loop", "nowhere"])
    if how == "folder" and path.parent.name == SNAPSHOTS_FOLDER:
        how = "link"  # an earlier snapshot that is not there may have been removed: nobody misses it
    shutil.rmtree(outside, ignore_errors=True)
    if how == "link to a folder" and path.parent.name == CODEC_FOLDER:
        shutil.move(path.parent, outside)
        path.parent.symlink_to(outside)
        return f"{path.parent.name}: {how}"
    outside.mkdir()
    os.replace(path, outside / path.name)
    if how == "pipe":
        os.mkfifo(path)
    elif how == "folder":
        path.mkdir()
    else:
        path.symlink_to(
            {"device": Path("/dev/zero"), "loop": path, "nowhere": outside / "nothing"}.get(how, outside / path.name)
        )
    return f"{path.name}: {how}"


def _outcome(store: Path, wanted: str | None) -> tuple[str, str]:
    try:
        found = read_everything(store)
    except PipelineError as error:
        if "\n" in str(error):
            return "message", str(error)[:300]
        return "refused", f"{type(error).__name__}: {str(error)[:300]}"
    except BaseException as error:
        import traceback

        return "escaped", f"{type(error).__name__}: {str(error)[:200]} {traceback.format_exc()[-800:]}"
    if wanted is not None and found != wanted:
        return "wrong", "other rows, and nobody said so"
    return "read", ""


def _watch_files(store: Path) -> list[str]:
    """Paths that are opened from now on and are neither below the store nor the interpreter's or the system's."""
    seen: list[str] = []
    allowed = tuple(
        map(str, (store, sys.prefix, sys.base_prefix, Path(__file__).parents[2], "/proc", "/sys", "/usr", "/lib"))
    )

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" or not isinstance(arguments[0], str | bytes):
            return
        path = str(Path(os.fsdecode(arguments[0])).resolve())
        writes = arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if (writes and not path.startswith(str(store))) or not path.startswith(allowed):
            seen.append(path)

    sys.addaudithook(note)
    return seen


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    _work(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
