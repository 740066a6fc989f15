"""A workspace whose codec keeps every value: its presets, what is refused before anything runs, and its stages."""

import json

import numpy as np
import pytest
from contexts import pictures, random_context_codec
from handmade import write_rows
from PIL import Image
from ruamel.yaml import YAML

from ae_pipeline.cli.preflight import preflight
from ae_pipeline.cli.stages import run_stage
from ae_pipeline.codec.context.saving import load_packed, packed
from ae_pipeline.errors import ConfigError
from ae_pipeline.experiments.presets import preset_names, preset_params
from ae_pipeline.params import Params, load_params
from ae_pipeline.store.latent_store import LatentStore

CONTEXT = {"codec": {"family": "context"}, "encode": {"layout": "stream", "row_group_rows": 1500}}
SIDES = (12, 12)


@pytest.fixture
def ours(pytestconfig):
    return (pytestconfig.rootpath / "params.yaml").read_text()


def write(path, values):
    with path.open("w") as file:
        YAML().dump(values, file)


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_the_same_after_any_other(name):
    fresh = preset_params(name)
    for other in ("exact", "balanced"):
        after = preset_params(name, preset_params(other))
        assert (after.codec.family, after.encode.layout) == (fresh.codec.family, fresh.encode.layout)


def test_a_preset_of_autoencoders_undoes_one_of_exact_codecs(ae, ours, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(ours)
    assert ae("preset", "exact", "--params", path)[0] == 0
    found = load_params(path)
    assert (found.codec.family, found.encode.layout, found.encode.row_group_rows) == ("context", "stream", 1500)
    code, out, _ = ae("preset", "balanced", "--params", path)
    found = load_params(path)
    assert (found.codec.family, found.encode.layout, found.encode.row_group_rows) == ("autoencoder", "binary", 10_000)
    assert (code, 'codec.family: "autoencoder"' in out, "encode.row_group_rows: 10000" in out) == (0, True, True)


def test_a_workspace_from_before_there_were_families_takes_presets_of_autoencoders(ae, ours, tmp_path):
    path = tmp_path / "params.yaml"
    newer = ("codec:", "  family:", "  max_error:")
    path.write_text("".join(line for line in ours.splitlines(True) if not line.startswith(newer)))
    assert ae("preset", "balanced", "--params", path)[0] == 0
    assert load_params(path).train.latent_size == 30
    code, _, error = ae("preset", "exact", "--params", path)
    assert (code, "has no codec.family; add it there with any value" in error) == (1, True)


def test_what_cannot_go_together_is_said_before_anything_runs(ae, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "params.yaml", {"encode": {"layout": "stream"}})
    code, _, error = ae("check")
    assert (code, "encode.layout: stream needs codec.family: context, found autoencoder" in error) == (1, True)
    write(tmp_path / "params.yaml", {**CONTEXT, "sweep": {"space": ["train.latent_size=2,3"]}})
    code, _, error = ae("sweep")
    assert (code, "a sweep looks for the smallest autoencoder" in error) == (1, True)
    sound = {**CONTEXT, "source": {"name": "files", "files": {"kind": "audio", "path": str(tmp_path)}}}
    with pytest.raises(ConfigError, match=r"codec.family: context takes pictures, but source.files.kind is audio"):
        preflight(Params.model_validate(sound), tmp_path)


@pytest.mark.parametrize(
    ("size", "mode", "settings", "why"),
    [
        ((100, 75), "L", {}, None),
        ((100, 75), "L", {"tile": 32}, None),
        (
            (100, 75),
            "L",
            {"tile": "whole"},
            r"samples are uint8 75x100; cut them into tiles \(with the source `files`, ",
        ),
        ((100, 75), "L", {"tile": 128}, r"samples are uint8 128x128; .* source.files.settings: \{tile: 32\}\), or set"),
        ((100, 30), "L", {}, r"samples are uint8 30x100; .* source.files.settings: \{tile: 32\}\), or set it to auto"),
        ((100, 75), "RGB", {}, r"samples are uint8 32x32x3; set it to autoencoder, and encode.layout to binary"),
    ],
)
def test_pictures_that_no_context_codec_takes_are_refused_before_they_are_read(size, mode, settings, why, tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(3):
        Image.new(mode, size, number).save(tmp_path / f"in/{number}.png")
    files = {"kind": "image", "path": str(tmp_path / "in"), "settings": settings}
    params = Params.model_validate({**CONTEXT, "source": {"name": "files", "files": files}})
    if why is None:
        preflight(params, tmp_path)
        return
    with pytest.raises(ConfigError, match=why):
        preflight(params, tmp_path)


def test_a_first_record_that_cannot_be_read_is_left_to_the_stage_that_reads_all(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/0.png").write_bytes(b"none")
    Image.new("L", (8, 8)).save(tmp_path / "in/1.png")
    files = {"kind": "image", "path": str(tmp_path / "in")}
    preflight(Params.model_validate({**CONTEXT, "source": {"name": "files", "files": files}}), tmp_path)


@pytest.mark.parametrize("rows", [58_255, 1_000_000])
def test_a_stream_has_no_more_rows_than_memory_is_for(rows, ae, tmp_path):
    random_context_codec(tmp_path / "codec", SIDES)
    write_rows(tmp_path / "rows.parquet", pictures(20, SIDES), id=list(range(20)))
    options = ("--codec", tmp_path / "codec", "--store", tmp_path / "store", "--row-group-rows")
    code, _, error = ae("encode", tmp_path / "rows.parquet", *options, rows)
    said = f"--row-group-rows: {rows}, but at most 58254 rows of 144 values are in a stream; set it to 1500"
    assert (code, said in error, (tmp_path / "store").exists()) == (1, True, False)
    assert ae("encode", tmp_path / "rows.parquet", *options, 58_254)[0] == 0


@pytest.mark.parametrize("damage", [lambda stream: stream[:-4], lambda stream: stream + b"more"])
def test_weights_that_end_early_or_go_on_are_refused(damage, tmp_path):
    import torch
    from contexts import random_networks

    networks = random_networks(SIDES)
    stream = packed(networks.state_dict()).numpy().tobytes()
    with pytest.raises(ValueError, match="networks of another size"):
        load_packed(random_networks(SIDES), {"packed": torch.frombuffer(bytearray(damage(stream)), dtype=torch.uint8)})


@pytest.mark.slow
@pytest.mark.parametrize("kept", ["drawn", "noise"])
def test_the_stages_make_a_store_that_has_every_value(kept, tmp_path, capsys):
    noise = np.random.default_rng(0)
    for number, (name, count) in enumerate((("train", 600), ("validation", 40), ("test", 60))):
        rows = pictures(count, SIDES, number)
        if kept == "noise":
            rows = noise.integers(0, 256, rows.shape, np.uint8)
        (tmp_path / "data/prepared").mkdir(parents=True, exist_ok=True)
        first = 1000 * number
        write_rows(tmp_path / f"data/prepared/{name}", rows, id=list(range(first, first + count)))
    train = {"epochs": 4, "batch_size": 32, "learning_rate": 0.004, "device": "cpu"}
    params = Params.model_validate({**CONTEXT, "train": train, "evaluate": {"gate": {"beat_pca": False}}})
    for stage in ("train", "evaluate", "encode"):
        run_stage(stage, params, tmp_path)
    metrics = json.loads((tmp_path / "reports/metrics.json").read_text())
    assert (metrics["mse"], metrics["max_error"]) == (0, 0)
    assert "pca_mse" not in metrics
    assert ("keep them by zstd" in capsys.readouterr().err) == (kept == "noise")
    for name in params.encode.data_sets:
        assert LatentStore.open(tmp_path / "data/latents" / name).codec_header().max_error == 0
