"""The command line, as a user types it: results, JSON, and mistakes that end in one line."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import warm

from ae_pipeline.codec.codec import Codec
from ae_pipeline.data.samples import SampleSet


def fails_with_one_line(result, *words):
    code, out, err = result
    lines = [line for line in err.strip().splitlines() if line.startswith("error: ")]
    return code == 1 and not out and len(lines) == 1 and "Traceback" not in err and all(word in err for word in words)


def from_nothing(script, *arguments):
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **warm.COLD})


@pytest.fixture(scope="module")
def store(synthetic_prepared, tiny_codec, warm_commands, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "store"
    sys_argv = ["encode", str(synthetic_prepared / "test"), "--codec", str(tiny_codec), "--store", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "ae_pipeline", *sys_argv, "--json"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["rows"] == 150
    return folder


def test_help_names_every_command_and_loads_nothing_heavy():
    script = (
        "import sys; sys.argv = ['ae-pipeline', '--help']\n"
        "from ae_pipeline.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: print(sorted({'torch', 'mlflow', 'pyarrow', 'numpy', 'pandas'} & set(sys.modules)))"
    )
    done = from_nothing(script)
    assert done.stdout.splitlines()[-1] == "[]"
    for command in ("encode", "decode", "info", "evaluate", "stage", "publish", "summary", "mlflow-ui"):
        assert command in done.stdout


@pytest.mark.slow
def test_info_of_a_store_says_rows_bytes_codec_provenance_and_schema(ae, store):
    code, out, _ = ae("info", store)
    assert code == 0
    for word in ("rows", "bytes_out", "fingerprint", "digest", "git", "latent", "list<element: int8 not null>"):
        assert word in out
    values = json.loads(ae("info", store, "--json")[1])
    assert values["rows"] == 150
    assert values["bytes_out"] == sum(file.stat().st_size for file in store.rglob("*") if file.is_file())


def test_info_of_a_codec(ae, tiny_codec):
    values = json.loads(ae("info", tiny_codec, "--json")[1])
    assert values["latent_size"] == 6
    assert values["provenance"]["params"]["train.epochs"] == 8


@pytest.mark.slow
def test_info_does_not_load_torch(store):
    script = (
        "import sys; sys.argv = ['ae-pipeline', 'info', sys.argv[1]]\n"
        "from ae_pipeline.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: print('torch' in sys.modules)"
    )
    done = from_nothing(script, str(store))
    assert done.stdout.splitlines()[-1] == "False"


def test_decode_gives_the_rows_back(ae, store, synthetic_prepared, tiny_codec, tmp_path):
    code, out, _ = ae("decode", store, "--out", tmp_path / "decoded", "--json")
    assert code == 0
    assert json.loads(out)["rows"] == 150
    original = SampleSet.open(synthetic_prepared / "test").load()
    decoded = SampleSet.open(tmp_path / "decoded").load()
    codec = Codec.load(tiny_codec)
    assert np.array_equal(decoded.pixels, codec.decode(codec.encode(original.pixels)))
    assert decoded.attributes.equals(original.attributes)


@pytest.mark.slow
def test_evaluate_of_a_codec_and_of_its_store_agree(ae, store, synthetic_prepared, tiny_codec, tmp_path):
    data = synthetic_prepared / "test"
    of_codec = json.loads(
        ae("evaluate", data, "--codec", tiny_codec, "--train", synthetic_prepared / "train",
           "--report", tmp_path / "report", "--json")[1]
    )  # fmt: skip
    of_store = json.loads(ae("evaluate", data, "--store", store, "--json")[1])
    for name in ("mse", "psnr", "ssim", "bits_per_row", "rows"):
        assert of_store[name] == pytest.approx(of_codec[name])
    assert of_codec["pca_mse"] > 0
    assert json.loads((tmp_path / "report/metrics.json").read_text()) == of_codec
    assert (tmp_path / "report/pictures/reconstructions.png").exists()


def test_parquet_from_elsewhere_goes_through(ae, tiny_codec, tmp_path):
    rows = np.random.default_rng(0).integers(0, 256, (7, 144), dtype=np.uint8)
    table = pa.table({"name": [f"row {n}" for n in range(7)], "pixels": pa.array(rows.tolist(), pa.list_(pa.uint8()))})
    pq.write_table(table, tmp_path / "mine.parquet")
    assert ae("encode", tmp_path / "mine.parquet", "--codec", tiny_codec, "--store", tmp_path / "s")[0] == 0
    assert ae("decode", tmp_path / "s", "--out", tmp_path / "d")[0] == 0
    decoded = SampleSet.open(tmp_path / "d").load()
    assert decoded.attributes.column("name").to_pylist() == [f"row {n}" for n in range(7)]
    assert decoded.attributes.column("id").to_pylist() == list(range(7))


def test_mistakes_end_in_one_line_and_leave_nothing(ae, store, synthetic_prepared, tiny_codec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = synthetic_prepared / "test"
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.parquet").write_text("not Parquet")
    target = tmp_path / "target"
    encode = ("encode", data, "--store", target)
    assert fails_with_one_line(ae(*encode), "--codec", "--model")
    assert fails_with_one_line(ae(*encode, "--codec", tmp_path / "none"), "no codec at", "codec.json")
    assert fails_with_one_line(
        ae("encode", tmp_path / "none", "--codec", tiny_codec, "--store", target), "no data set at"
    )
    assert fails_with_one_line(
        ae("encode", tmp_path / "empty", "--codec", tiny_codec, "--store", target), "no Parquet files in"
    )
    assert fails_with_one_line(
        ae("encode", tmp_path / "text.parquet", "--codec", tiny_codec, "--store", target),
        "text.parquet",
        "not a readable",
    )
    assert fails_with_one_line(
        ae("encode", data, "--codec", tiny_codec, "--store", store, "--layout", "binary"), str(store), "exists already"
    )
    assert fails_with_one_line(
        ae("encode", data, "--codec", tiny_codec, "--store", data / "out"), f"out lies inside the data {data}"
    )
    assert fails_with_one_line(ae("decode", store, "--out", data), "exists already")
    assert fails_with_one_line(ae("decode", data, "--out", target), "_manifest.json is missing")
    assert fails_with_one_line(ae("info", tmp_path / "none"), "no store at")
    assert fails_with_one_line(
        ae("encode", data, "--codec", tiny_codec, "--store", tmp_path / "text.parquet/x"), "text.parquet"
    )
    assert fails_with_one_line(ae("evaluate", data, "--store", store, "--codec", tiny_codec), "--store goes without")
    assert fails_with_one_line(ae("stage", "traim"), "no stage 'traim'", "download")
    assert fails_with_one_line(ae("stage", "train"), "no params.yaml here")
    assert fails_with_one_line(ae("decode", store, "--out", target, "--device", "cuda"), "cuda", "it has: cpu")
    assert not target.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "text.parquet"]


def test_an_unwritable_target_is_said_in_one_line(ae, synthetic_prepared, tiny_codec):
    result = ae("encode", synthetic_prepared / "test", "--codec", tiny_codec, "--store", "/proc/store")
    assert fails_with_one_line(result, "/proc", "choose another target")


def test_wrong_options_exit_with_2_and_name_the_choices(ae, store, tmp_path):
    code, _, err = ae("decode", store, "--out", tmp_path / "x", "--device", "gpu")
    assert code == 2
    assert "cuda" in err


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a file system that is full")
@pytest.mark.usefixtures("warm_commands")
def test_a_full_disk_is_said_in_one_line(synthetic_prepared, tiny_codec, tmp_path):
    # A file size limit fails any write beyond it, as a full disk does.
    script = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "from ae_pipeline.cli.main import main\n"
        "main()\n"
    )
    target = tmp_path / "store"
    arguments = ["encode", str(synthetic_prepared / "test"), "--codec", str(tiny_codec), "--store", str(target)]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert f"{target.parent}/.store." in done.stderr
    assert "Traceback" not in done.stderr
    assert not target.exists()


def test_rows_in_sub_folders_are_not_left_out_silently(ae, synthetic_prepared, tiny_codec, tmp_path):
    result = ae("encode", synthetic_prepared, "--codec", tiny_codec, "--store", tmp_path / "store")
    assert fails_with_one_line(result, "sub-folders", "test/part-00000.parquet")
    (tmp_path / "data/more").mkdir(parents=True)
    pq.write_table(pq.read_table(synthetic_prepared / "test"), tmp_path / "data" / "a.parquet")
    pq.write_table(pq.read_table(synthetic_prepared / "test"), tmp_path / "data" / "more" / "b.parquet")
    result = ae("encode", tmp_path / "data", "--codec", tiny_codec, "--store", tmp_path / "store")
    assert fails_with_one_line(result, "more/b.parquet", "left out")


def test_nothing_is_decoded_into_a_store(ae, store):
    assert fails_with_one_line(ae("decode", store, "--out", store / "inside"), "inside the store")
    assert not (store / "inside").exists()


def test_a_store_in_place_of_a_codec_is_recognised(ae, store, synthetic_prepared, tmp_path):
    result = ae("encode", synthetic_prepared / "test", "--codec", store, "--store", tmp_path / "s")
    assert fails_with_one_line(result, str(store / "_codec"))


def test_a_model_without_a_tracking_store_makes_none(ae, synthetic_prepared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    result = ae("encode", synthetic_prepared / "test", "--model", "models:/mnist-ae@challenger", "--store", "s")
    assert fails_with_one_line(result, "no MLflow store", "MLFLOW_TRACKING_URI")
    assert not list(tmp_path.iterdir())


def test_rows_of_another_length_say_how_long_they_are(ae, tiny_codec, tmp_path):
    pq.write_table(pa.table({"pixels": [[1.0] * 50, [2.0] * 50]}), tmp_path / "sensors.parquet")
    result = ae("encode", tmp_path / "sensors.parquet", "--codec", tiny_codec, "--store", tmp_path / "s")
    assert fails_with_one_line(result, "rows have 50 values, expected 144 for uint8 12x12")


@pytest.mark.slow
@pytest.mark.usefixtures("warm_commands")
def test_ctrl_c_says_so_and_exits_with_130(synthetic_prepared, tiny_codec, tmp_path):
    script = (
        "import ae_pipeline.store.writing.commit as commit, sys\n"
        "def interrupt(*arguments, **options): raise KeyboardInterrupt\n"
        "commit.first_manifest = interrupt\n"
        "from ae_pipeline.cli.main import main\n"
        "main()\n"
    )
    arguments = ["encode", synthetic_prepared / "test", "--codec", tiny_codec, "--store", tmp_path / "store"]
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 130
    assert "interrupted" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "store").exists()


def test_version_and_check(ae, tmp_path, monkeypatch):
    assert ae("--version")[1].strip() == "0.1.0"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("source: {name: cifar}\npaths: {reports: /tmp/x}\n")
    assert fails_with_one_line(ae("check"), "2 problem(s)", "source.name", "'cifar'", "paths.reports")
    (tmp_path / "params.yaml").write_text("bench: {presets: [small, smal]}\n")
    assert fails_with_one_line(
        ae("check"), "no preset 'smal'; expected one of balanced, bold, compact, compact_balanced,"
    )


def test_a_log_says_how_far_a_run_is_with_rows_per_second(ae, synthetic_prepared, tiny_codec, tmp_path, monkeypatch):
    monkeypatch.setattr("ae_pipeline.cli.options._LINE_EVERY_S", 0.0)
    data = synthetic_prepared / "train"
    code, _, err = ae("encode", data, "--codec", tiny_codec, "--store", tmp_path / "store", "--executor", "inline")
    assert code == 0
    lines = err.splitlines()
    assert [line.split(", ")[0] for line in lines[::2]] == [
        "encode: 200 of 540 rows (37%)",
        "encode: 540 of 540 rows (100%)",
    ]
    assert all(re.search(r"[\d,]+ rows/s$", line) for line in lines)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--executor", "inline", "--workers", "2"], "--executor inline: inline has one worker, found workers: 2"),
        (["--address", "127.0.0.1:1"], "--executor threads: address is of a cluster, and threads needs none"),
        (["--memory", "1"], "--executor threads: memory is for workers with a process each, found threads"),
        (["--executor", "ray", "--address", "a:1", "--memory", "1"], "memory is for workers that are started here"),
    ],
)
def test_options_of_executors_that_do_not_fit_together_are_refused(options, said, ae, store, tmp_path):
    assert fails_with_one_line(ae("decode", store, "--out", tmp_path / "out", *options), said)


@pytest.mark.parametrize("given", [("--executor", "process"), ("--workers", "2")])
@pytest.mark.parametrize("chosen", [("--columns", "label"), ("--where", "error < 9"), ("--format", "png")])
def test_an_executor_that_would_not_be_used_is_refused(given, chosen, ae, store, tmp_path):
    result = ae("decode", store, "--out", tmp_path / "out", *given, *chosen)
    assert fails_with_one_line(result, "--executor and --workers are for a whole store", "leave them out"), result
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "library"), [("ray", "ray"), ("dask", "distributed")])
def test_an_engine_that_is_not_installed_is_named_by_its_extra(name, library, ae, store, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    result = ae("decode", store, "--out", tmp_path / "out", "--executor", name)
    assert fails_with_one_line(
        result, f"--executor {name} needs the extra `{name}`", f"pip install 'ae-pipeline[{name}]'"
    )
