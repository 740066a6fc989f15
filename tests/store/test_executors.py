"""One place where shards are worked on: order, little at hand, one error ends all, and the same bytes whoever works."""

import pickle
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch
from handmade import bytes_of, encode, random_codec, random_pixels, write_rows

from ae_pipeline.codec.codec import Codec
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import CodecError
from ae_pipeline.evaluation.drift.fit import fit_reference
from ae_pipeline.params.operation import DriftParams
from ae_pipeline.store import executors
from ae_pipeline.store.executors import EXECUTORS, run_shards
from ae_pipeline.store.executors.lent import lent
from ae_pipeline.store.reading.decode import decode_store

CPU = torch.device("cpu")
EVERY = pytest.mark.parametrize("name", EXECUTORS)


@pytest.fixture(autouse=True)
def workers(monkeypatch):
    monkeypatch.setattr(executors, "cpu_count", lambda: 3)


@pytest.fixture
def executor(name, monkeypatch):
    monkeypatch.setattr(executors, "EXECUTOR", name)


@EVERY
@pytest.mark.usefixtures("executor")
def test_results_have_the_order_of_the_items_whichever_is_finished_first():
    def job(item):
        time.sleep(0.02 if item % 4 == 0 else 0)
        return item * item

    seen = []
    found = run_shards(job, range(40), 40, CPU, lambda place, result: seen.append((place, result)))
    assert found == [item * item for item in range(40)]
    assert sorted(seen) == list(enumerate(found))
    assert run_shards(job, range(0), 0, CPU) == []


@EVERY
@pytest.mark.usefixtures("executor")
def test_few_items_are_at_hand_and_fewer_in_work(name):
    asked, finished, working, most_at_hand, most_working = 0, 0, 0, 0, 0
    lock = threading.Lock()

    def items():
        nonlocal asked, most_at_hand
        for item in range(200):
            with lock:
                asked += 1
                most_at_hand = max(most_at_hand, asked - finished)
            yield item

    def job(item):
        nonlocal working, most_working, finished
        with lock:
            working += 1
            most_working = max(most_working, working)
        time.sleep(0.001)
        with lock:
            working -= 1
            finished += 1

    run_shards(job, items(), 200, CPU)
    assert most_working == (3 if name == "threads" else 1)
    assert most_at_hand <= 2 * 3 + 1


@EVERY
@pytest.mark.usefixtures("executor")
def test_the_first_error_cancels_the_rest_and_is_the_one_raised():
    begun, working = [], set()

    def job(item):
        begun.append(item)
        working.add(item)
        try:
            if item == 5:
                raise ValueError("the fifth")
            time.sleep(0.05)
            if item > 5:
                raise ValueError("a later one")
        finally:
            working.remove(item)

    with pytest.raises(ValueError, match="the fifth"):
        run_shards(job, range(1000), 1000, CPU)
    assert not working  # whoever cleans up has the place for itself
    assert len(begun) < 20


@EVERY
@pytest.mark.usefixtures("executor")
def test_an_error_of_who_asked_cancels_the_rest():
    begun, working = [], set()

    def job(item):
        begun.append(item)
        working.add(item)
        time.sleep(0.01)
        working.remove(item)

    def done(place, result):
        raise KeyError("no place for progress")

    with pytest.raises(KeyError, match="no place"):
        run_shards(job, range(1000), 1000, CPU, done)
    assert not working
    assert len(begun) < 20


@EVERY
@pytest.mark.usefixtures("executor")
def test_ctrl_c_ends_it():
    begun = []

    def job(item):
        begun.append(item)
        if item == 3:
            signal.raise_signal(signal.SIGINT)  # the main thread gets it
        time.sleep(0.05)

    with pytest.raises(KeyboardInterrupt):
        run_shards(job, range(1000), 1000, CPU)
    assert len(begun) < 20


@EVERY
@pytest.mark.usefixtures("executor")
def test_jobs_run_on_one_torch_thread_and_the_number_before_comes_back():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        assert run_shards(lambda item: torch.get_num_threads(), range(8), 8, CPU) == [1] * 8
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def train(synthetic_prepared):
    return SampleSet.open(synthetic_prepared / "train")


def test_every_executor_encodes_and_decodes_to_the_same_bytes(train, tiny_codec, tmp_path, monkeypatch):
    found = {}
    for name in EXECUTORS:
        monkeypatch.setattr(executors, "EXECUTOR", name)
        store = encode(train, tiny_codec, tmp_path / name)
        decode_store(store, tmp_path / f"{name}-decoded", device="cpu")
        found[name] = bytes_of(store.path), bytes_of(tmp_path / f"{name}-decoded")
    assert all(pair == found["inline"] for pair in found.values())


def test_every_executor_fits_the_same_reference_of_drift(synthetic_prepared, tiny_codec, monkeypatch):
    splits = [SampleSet.open(synthetic_prepared / name) for name in ("train", "test")]
    found = []
    for name in EXECUTORS:
        monkeypatch.setattr(executors, "EXECUTOR", name)
        found.append(fit_reference(tiny_codec, *splits, DriftParams(), 0, device="cpu"))
    assert all(reference == found[0] for reference in found)


class ByProcess:
    """What an executor of processes will be: jobs and items go there and back as bytes."""

    def __init__(self, pool):
        self.pool, self.largest = pool, 0

    def __call__(self, job, items, workers):  # noqa: ARG002 (one is enough)
        for place, item in enumerate(items):
            sent = pickle.dumps((job, item))
            self.largest = max(self.largest, len(sent))
            yield place, pickle.loads(self.pool.submit(run_pickled, sent).result())


def run_pickled(sent):
    job, item = pickle.loads(sent)
    return pickle.dumps(job(item))


@pytest.mark.slow
def test_jobs_can_be_done_by_another_process(train, synthetic_prepared, tiny_codec, tmp_path, monkeypatch):
    def everything(folder):
        store = encode(train, tiny_codec, folder / "store")
        decode_store(store, folder / "decoded", device="cpu")
        splits = [SampleSet.open(synthetic_prepared / name) for name in ("train", "test")]
        return bytes_of(folder), fit_reference(tiny_codec, *splits, DriftParams(), 0, device="cpu")

    here = everything(tmp_path / "here")
    # Forking a process that has threads can hang; a new one has no codec that was lent to this one.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        by_process = ByProcess(pool)
        monkeypatch.setitem(EXECUTORS, "process", by_process)
        monkeypatch.setattr(executors, "EXECUTOR", "process")
        assert everything(tmp_path / "there") == here
    assert by_process.largest < 10_000


def test_what_is_sent_does_not_grow_with_the_number_of_shards(tmp_path):
    pixels = random_pixels((2, 5, 4), "uint8")
    sent = []
    for count in (2, 40):
        for number in range(count):
            write_rows(tmp_path / str(count) / f"{number:02d}.parquet", pixels, id=[0, 1])
        samples = SampleSet.open(tmp_path / str(count))
        samples.digest  # noqa: B018 (known digests of files are sent, too)
        sent.append(len(pickle.dumps(samples.only(samples.shards[1]))))
    assert sent[1] <= sent[0] + 10


@EVERY
@pytest.mark.usefixtures("executor")
def test_rows_outside_the_codecs_range_are_counted_wherever_they_are_read(tmp_path, random_floats):
    folder, codec = random_floats
    samples = SampleSet.open(folder)
    watch = samples.watch_range(codec.header.scaling)
    encode(samples, tmp_path / "codec", tmp_path / "store")
    assert "rows: 3 of 60 rows have values outside" in watch.warnings("rows")[0]


@pytest.fixture
def random_floats(tmp_path):
    """Three shards of 20 rows, one row of each far outside the range of their codec."""
    codec = random_codec(tmp_path / "codec", dtype="float32")
    for number in range(3):
        pixels = random_pixels((20, 5, 4), "float32", seed=number).clip(-1, 1)
        pixels[number] = 100
        write_rows(tmp_path / "rows" / f"{number}.parquet", pixels, id=list(range(20)))
    return tmp_path / "rows", codec


def test_a_codec_that_changed_meanwhile_is_not_taken_by_another_process(tmp_path):
    random_codec(tmp_path / "codec")
    with lent(Codec.load(tmp_path / "codec")) as borrowed:
        there = pickle.loads(pickle.dumps(borrowed))
        assert there.codec() is borrowed.codec()
    (tmp_path / "codec").rename(tmp_path / "old")
    random_codec(tmp_path / "codec", seed=1)
    with pytest.raises(CodecError, match="changed while it was being used; run the same command again"):
        there.codec()
