"""One place where shards are worked on: order, little at hand, one error ends all, and the same bytes whoever works."""

import pickle
import signal
import threading
import time
from contextlib import ExitStack

import pytest
import torch
from handmade import bytes_of, random_codec, random_pixels, write_rows

from ae_pipeline.codec.codec import Codec
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import CodecError
from ae_pipeline.params import EncodeParams
from ae_pipeline.params.operation import ExecuteParams
from ae_pipeline.store import executors
from ae_pipeline.store.care.deep import verify_deep
from ae_pipeline.store.care.repair import repair_store
from ae_pipeline.store.care.verify import verify_store
from ae_pipeline.store.executors import IN_THIS_PROCESS, run_shards
from ae_pipeline.store.executors.engines import kept
from ae_pipeline.store.executors.lent import lent
from ae_pipeline.store.reading.decode import decode_store
from ae_pipeline.store.writing.appending import append_samples
from ae_pipeline.store.writing.encoding import encode_samples
from ae_pipeline.store.writing.shards import plan_jobs, run_jobs

CPU = torch.device("cpu")
EVERY = pytest.mark.parametrize("name", IN_THIS_PROCESS)


def of(name, **settings):
    return ExecuteParams(name=name, **settings)


@pytest.fixture(autouse=True)
def workers(monkeypatch):
    monkeypatch.setattr(executors, "cpu_count", lambda: 3)


@EVERY
def test_results_have_the_order_of_the_items_whichever_is_finished_first(name):
    def job(item):
        time.sleep(0.02 if item % 4 == 0 else 0)
        return item * item

    seen = []
    found = run_shards(job, range(40), 40, CPU, lambda place, result: seen.append((place, result)), execute=of(name))
    assert found == [item * item for item in range(40)]
    assert sorted(seen) == list(enumerate(found))
    assert run_shards(job, range(0), 0, CPU, execute=of(name)) == []


def test_parts_for_a_folder_that_is_gone_are_made_there_all_the_same(tmp_path):
    codec = random_codec(tmp_path / "codec")
    samples = write_rows(tmp_path / "rows/0.parquet", random_pixels((30, 5, 4), "uint8"), id=list(range(30)))
    jobs = plan_jobs([(samples, samples.shards[0])], codec.fingerprint, EncodeParams())
    (part,) = run_jobs(jobs, codec, tmp_path / "gone", lambda rows: None).parts
    assert (tmp_path / "gone" / part.name).stat().st_size == part.bytes


@EVERY
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

    run_shards(job, items(), 200, CPU, execute=of(name))
    assert most_working == (3 if name == "threads" else 1)
    assert most_at_hand <= 2 * 3 + 1


@EVERY
def test_the_first_error_cancels_the_rest_and_is_the_one_raised(name):
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
        run_shards(job, range(1000), 1000, CPU, execute=of(name))
    assert not working  # whoever cleans up has the place for itself
    assert len(begun) < 20


@EVERY
def test_an_error_of_who_asked_cancels_the_rest(name):
    begun, working = [], set()

    def job(item):
        begun.append(item)
        working.add(item)
        time.sleep(0.01)
        working.remove(item)

    def done(place, result):
        raise KeyError("no place for progress")

    with pytest.raises(KeyError, match="no place"):
        run_shards(job, range(1000), 1000, CPU, done, execute=of(name))
    assert not working
    assert len(begun) < 20


@EVERY
def test_ctrl_c_ends_it(name):
    begun = []

    def job(item):
        begun.append(item)
        if item == 3:
            signal.raise_signal(signal.SIGINT)  # the main thread gets it
        time.sleep(0.05)

    with pytest.raises(KeyboardInterrupt):
        run_shards(job, range(1000), 1000, CPU, execute=of(name))
    assert len(begun) < 20


@EVERY
def test_jobs_run_on_one_torch_thread_and_the_number_before_comes_back(name):
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        assert run_shards(lambda item: torch.get_num_threads(), range(8), 8, CPU, execute=of(name)) == [1] * 8
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def train(synthetic_prepared):
    return SampleSet.open(synthetic_prepared / "train")


# Clusters of two workers are in test_executor_faults.py: each takes seconds to start.
PROCESSES = [of("process", workers=2), of("dask", workers=1), of("ray", workers=1)]


@pytest.fixture(scope="module")
def shared():
    """Workers of each kind that the tests of this file share: starting them is what takes time."""
    with ExitStack() as stack:
        for execute in PROCESSES:
            stack.enter_context(kept(execute))
        yield


def everything(folder, train, codec, execute):
    """A store that is encoded, grows and is repaired, verified and decoded; its bytes and those of its rows."""
    data, cpu = train.files[0].parent, {"device": "cpu"}
    first = SampleSet.open(train.files[0])
    options = {"name": "x", "git": {}, "execute": execute}
    store = encode_samples(first, codec, folder / "store", EncodeParams(**cpu), **options)
    store = append_samples(store.path, [train], codec, EncodeParams(**cpu), **options).store
    damaged = store.path / store.manifest.parts[1].name
    damaged.write_bytes(b"no part")
    assert verify_store(store.path, execute=execute).damaged_files == {damaged.name}
    assert repair_store(store.path, [train], git={}, execute=execute, **cpu).files == [damaged.name]
    verified = verify_deep(store.path, verify_store(store.path), [data], "cpu", lambda rows: None, execute)
    assert (verified.whole, verified.deep.identical) == (True, 3)
    decode_store(store, folder / "decoded", execute=execute, **cpu)
    return bytes_of(folder)


@pytest.fixture(scope="module")
def expected(synthetic_prepared, tiny_codec, tmp_path_factory):
    train = SampleSet.open(synthetic_prepared / "train")
    return everything(tmp_path_factory.mktemp("expected"), train, tiny_codec, of("inline"))


@pytest.mark.slow
@pytest.mark.parametrize("execute", [of("threads", workers=2), *PROCESSES], ids=lambda execute: execute.name)
@pytest.mark.usefixtures("shared")
def test_every_executor_gives_the_same_bytes(execute, train, tiny_codec, tmp_path, expected):
    assert everything(tmp_path, train, tiny_codec, execute) == expected


@pytest.mark.slow
@pytest.mark.usefixtures("shared")
def test_what_was_seen_in_other_processes_is_told_here(tmp_path, random_floats):
    folder, codec = random_floats
    for execute in (of("threads"), PROCESSES[0]):
        samples = SampleSet.open(folder)
        watch = samples.watch_range(codec.header.scaling)
        options = {"name": "x", "git": {}, "execute": execute}
        encode_samples(samples, tmp_path / "codec", tmp_path / execute.name, EncodeParams(device="cpu"), **options)
        assert "rows: 3 of 60 rows have values outside" in watch.warnings("rows")[0]


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
