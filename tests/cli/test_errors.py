"""How a run ends that the user, the system or the lack of memory ends: one line, and an exit code that says which."""

import errno
import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
from contextlib import contextmanager, nullcontext

import pytest
import torch
from handmade import encode, random_codec, random_pixels, write_rows

from ae_pipeline.cli import address_space
from ae_pipeline.cli.options import complete_once_named
from ae_pipeline.errors import DamagedPartError, StoreError, exit_code_of
from ae_pipeline.store.reading.decode import decode_store

# Runs `ae-pipeline` with so little memory that the rows of one block cannot be had twice.
SCARCE = """
import resource, sys
import numpy, torch, pyarrow.parquet, safetensors.torch
import ae_pipeline.store.reading.decode, ae_pipeline.store.writing.encoding, ae_pipeline.cli.summary
from ae_pipeline.cli.main import app
from ae_pipeline.errors import exit_code_of
torch.nn.functional.linear(torch.ones(8, 8), torch.ones(8, 8))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = used + (int(sys.argv.pop(1)) << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.exit(exit_code_of(app))  # `main` would refuse the limit before any work
"""


def scarce(mebibytes, *arguments):
    return subprocess.run(
        [sys.executable, "-c", SCARCE, str(mebibytes), *map(str, arguments)],
        capture_output=True, text=True, check=False, env={**os.environ, "MALLOC_ARENA_MAX": "2"},
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs RLIMIT_AS and /proc")
def test_without_enough_memory_encode_and_decode_end_in_one_line_and_can_be_repeated(tmp_path):
    # A block of 1,024 rows has 25 MiB as bytes and 100 MiB as the floats that a network takes.
    random_codec(tmp_path / "codec", (160, 160), latent_size=2, hidden_size=2)
    pixels = random_pixels((4, 160, 160), "uint8").repeat(256, axis=0)
    data = tmp_path / "data.parquet"
    write_rows(data, pixels, id=list(range(1024)))
    options = ("--codec", tmp_path / "codec", "--device", "cpu", "--store", tmp_path / "store")
    assert_out_of_memory(scarce(100, "encode", data, *options))
    assert not (tmp_path / "store").exists()
    store = encode(data, tmp_path / "codec", tmp_path / "store")
    assert_out_of_memory(scarce(100, "decode", store.path, "--device", "cpu", "--out", tmp_path / "decoded"))
    assert decode_store(store, tmp_path / "decoded", device="cpu").rows == 1024
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["codec", "data.parquet", "decoded", "store"]


def assert_out_of_memory(done):
    assert done.returncode == 1, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("\r")]
    assert line.startswith("error: out of memory: ")
    assert "choose another device" in line


def raising(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nMore."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("could not create a primitive"),
        RuntimeError("can't start new thread"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        ImportError(
            "\n\nIMPORTANT: PLEASE READ THIS\n\nOriginal error was: a.so: failed to map segment from shared object"
        ),
        OSError("libcublasLt.so.13: failed to map segment from shared object"),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), "file"),
    ],
    ids=["Python", "CUDA", "CPU", "cuBLAS", "C++", "oneDNN", "thread", "library", "NumPy", "CUDA library", "system"],
)
def test_every_way_to_say_out_of_memory_is_one_line(error, capsys):
    assert exit_code_of(raising(error)) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert told.startswith("error: out of memory: ")
    assert "IMPORTANT" not in told


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs RLIMIT_AS and /proc")
def test_under_any_limit_of_addresses_encode_and_decode_end_in_one_line_or_well(tmp_path):
    random_codec(tmp_path / "codec", (28, 28), latent_size=8, model_name="conv")
    write_rows(tmp_path / "data.parquet", random_pixels((4000, 28, 28), "uint8"), id=list(range(4000)))
    store = encode(tmp_path / "data.parquet", tmp_path / "codec", tmp_path / "store")
    taken = subprocess.run([sys.executable, "-c", address_space._LOAD], capture_output=True, text=True, check=True)
    taken = int(taken.stdout) * resource.getpagesize()
    ended = set()
    for number, part in enumerate((0.1, 0.8, 1.5)):
        limit = int(part * taken) >> 10
        codes = set()
        for command, out in (
            (["encode", tmp_path / "data.parquet", "--codec", tmp_path / "codec", "--store"], tmp_path / f"s{number}"),
            (["decode", store.path, "--out"], tmp_path / f"d{number}"),
        ):
            words = shlex.join(map(str, [sys.executable, "-m", "ae_pipeline", *command, out, "--device", "cpu"]))
            done = subprocess.run(
                ["bash", "-c", f"ulimit -v {limit}; exec {words}"], capture_output=True, text=True, check=False
            )
            codes.add(done.returncode)
            assert done.returncode in (0, 1), (part, done.stderr)
            assert out.exists() == (done.returncode == 0)
            if done.returncode:
                (line,) = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("\r")]
                assert line.startswith("error: out of memory: ")
        ended.add(max(codes))
    assert ended == {0, 1}


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs RLIMIT_AS and /proc")
def test_the_limit_of_addresses_that_is_asked_for_is_enough_and_so_is_every_higher_one():
    """Arrow's own pool took a gibibyte more where it could: 4.2 GB were enough, and 5 GB were not."""

    def told(mebibytes):
        words = f"{sys.executable} -c 'import ae_pipeline.cli.address_space as a; a.require_addresses()'"
        shell = ["bash", "-c", f"ulimit -v {mebibytes << 10}; exec {words}"]
        return subprocess.run(shell, capture_output=True, text=True, check=False).stderr

    # What is taken differs from start to start: ways below and above what a start without Arrow's pool takes.
    taken = subprocess.run(
        [sys.executable, "-c", address_space._LOAD], capture_output=True, text=True, check=True,
        env={**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"},
    )  # fmt: skip
    taken = int(taken.stdout) * resource.getpagesize() >> 20
    tried = (taken + more for step in range(12) for more in (256 + 64 * step, 256 - 64 * step))
    refused = next(said for mebibytes in tried if "expected" in (said := told(mebibytes)))
    expected = int(re.search(r"expected ([\d,]+) or more", refused)[1].replace(",", ""))
    for more in (0, 600):
        assert told(expected + more) == ""


def test_a_result_that_has_its_name_is_complete_whatever_memory_is_lacking_afterwards(tmp_path, capsys):
    with complete_once_named("out", tmp_path / "out", as_json=True):
        (tmp_path / "out").write_bytes(b"result")
        raise MemoryError
    told = capsys.readouterr()
    assert json.loads(told.out) == {"out": str(tmp_path / "out")}
    assert told.err == f"note: {tmp_path / 'out'} is complete; memory was lacking to tell more of it\n"
    for place in ("out", "other"):  # was there before; is not there
        with pytest.raises(MemoryError), complete_once_named("out", tmp_path / place, as_json=True):
            raise MemoryError
    (tmp_path / "new").mkdir()
    with pytest.raises(RuntimeError, match="a bug"), complete_once_named("out", tmp_path / "new", as_json=True):
        raise RuntimeError("a bug")


@pytest.mark.slow
def test_a_disk_that_is_full_while_a_codec_is_copied_is_the_targets(tmp_path):
    """A limit of file sizes stands for it: small enough for the part, too small for the weights."""
    random_codec(tmp_path / "codec", hidden_size=4000)
    write_rows(tmp_path / "data.parquet", random_pixels((5, 5, 4), "uint8"), id=list(range(5)))
    command = "encode data.parquet --codec codec --store store --device cpu"
    done = subprocess.run(
        ["bash", "-c", f"ulimit -f 100; exec {sys.executable} -m ae_pipeline {command}"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert re.match(r"error: File too large \(\.store\.[0-9a-f]{16}\.partial/_codec/weights\.safetensors\); free", line)


def test_a_module_that_is_missing_keeps_its_traceback():
    with pytest.raises(ImportError, match="No module named"):
        exit_code_of(raising(ImportError("No module named 'torch'")))


def test_other_runtime_errors_are_ours_and_keep_their_traceback():
    with pytest.raises(RuntimeError, match="a bug"):
        exit_code_of(raising(RuntimeError("a bug")))


def test_sigterm_is_left_to_who_handles_it_already():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append("theirs"))
    try:
        assert exit_code_of(lambda: os.kill(os.getpid(), signal.SIGTERM)) == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == ["theirs"]


def test_sigterm_is_as_before_after_main():
    before = signal.getsignal(signal.SIGTERM)  # Ray's, where a test of the same process began a cluster
    assert exit_code_of(lambda: None) == 0
    assert signal.getsignal(signal.SIGTERM) == before


# What is only out of reach is not damaged: nobody is to repair it, or to read on without it.


@contextmanager
def no_file_can_be_opened():
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("reason", ["Too many open files", "Permission denied"])
def test_a_part_that_cannot_be_opened_now_is_not_damaged(reason, synthetic_prepared, tiny_codec, tmp_path):
    if reason == "Permission denied" and os.getuid() == 0:
        pytest.skip("root may read everything")
    store = encode(synthetic_prepared / "test", tiny_codec, tmp_path / "store")
    (part,) = store.manifest.parts
    list(store.scan())
    (store.path / part.name).chmod(0o000)
    with no_file_can_be_opened() if reason == "Too many open files" else nullcontext():
        with pytest.raises(StoreError, match=f"{part.name} cannot be read: .*{reason}") as caught:
            list(store.read_part(part, 10))
        skipped = []
        with pytest.raises(StoreError, match="cannot be read"):
            list(store.scan(on_damaged=lambda *damaged: skipped.append(damaged)))
    assert not isinstance(caught.value, DamagedPartError)
    assert not skipped
