"""A source or a model is one file and its options beside it: written into a copy of the package, all find it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]

SOURCE = '''"""Source `ramps`: pictures that grow brighter from left to right."""

from pathlib import Path

import numpy as np

from ae_pipeline.data.idx import write_idx
from ae_pipeline.sources.idx import IMAGES, LABELS, IdxFiles


class Ramps(IdxFiles):
    """uint8 8x8."""

    def __init__(self, *, rows: int):
        self._rows = rows

    def fetch(self, raw: Path) -> None:
        for number, (split, rows) in enumerate((("train", self._rows), ("test", self._rows // 2))):
            random = np.random.default_rng(number)
            pictures = random.uniform(0, 30, (rows, 8, 1)) * np.arange(8) + random.uniform(0, 10, (rows, 8, 8))
            write_idx(raw / IMAGES[split], pictures.astype(np.uint8))
            write_idx(raw / LABELS[split], np.zeros(rows, np.uint8))


SOURCE = Ramps
'''
SOURCE_OPTIONS = '''"""Options of the source `ramps`."""

from ae_pipeline.params.base import Count, Section


class Options(Section):
    """How many pictures there are."""

    rows: Count = 300
'''

MODEL = '''"""Model `narrow`: fully connected, with one hidden layer."""

from ae_pipeline.models import dense
from ae_pipeline.models.narrow_options import Options


class Narrow(dense.DenseAutoencoder):
    """See `Options`."""

    def __init__(self, sample_shape: tuple[int, ...], latent_size: int, options: Options):
        shared = options.model_dump(exclude={"width"})
        super().__init__(sample_shape, latent_size, dense.Options(hidden_sizes=[options.width], **shared))
        self._options = options.model_dump()


MODEL = Narrow
'''
MODEL_OPTIONS = '''"""Options of the model `narrow`."""

from ae_pipeline.params.base import Activation, Fraction, ModelOptions, Norm, Output, Size


class Options(ModelOptions):
    """Options of `Narrow`."""

    width: Size = 16
    hidden_norm: Norm = "batch"
    activation: Activation = "relu"
    latent_norm: Norm = "batch"
    output_activation: Output = "sigmoid"
    dropout: Fraction = 0.0

    before = {"width": 9}
'''


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A copy of the package and its tests, with one source and one model more."""
    folder = tmp_path_factory.mktemp("house")
    for name in ("ae_pipeline", "tests"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "pyproject.toml", folder)
    for name, text in {"ramps": SOURCE, "ramps_options": SOURCE_OPTIONS}.items():
        (folder / f"ae_pipeline/sources/{name}.py").write_text(text)
    for name, text in {"narrow": MODEL, "narrow_options": MODEL_OPTIONS}.items():
        (folder / f"ae_pipeline/models/{name}.py").write_text(text)
    return folder


def run(house, code, *arguments, cwd=None):
    environment = {**os.environ, "PYTHONPATH": str(house)}
    return subprocess.run(
        [sys.executable, *code, *arguments],
        cwd=cwd or house,
        env=environment,
        text=True,
        capture_output=True,
        check=False,
    )


def test_params_know_both_and_their_options_without_torch(house, tmp_path):
    (tmp_path / "params.yaml").write_text("{source: {name: ramps, ramps: {row: 5}}, model: {name: narow}}")
    script = (
        "import sys; from pathlib import Path; from ae_pipeline.params import Params, load_params\n"
        "chosen = {'source': {'name': 'ramps', 'ramps': {'rows': 5}}, 'model': {'name': 'narrow'}}\n"
        "params = Params.model_validate(chosen)\n"
        "print(params.source.options, params.model.options['width'], params.used('source'))\n"
        "try: load_params(Path('params.yaml'))\n"
        "except Exception as error: print(error)\n"
        "print({'torch', 'numpy', 'pyarrow'} & sys.modules.keys())\n"
    )
    done = run(house, ["-c", script], cwd=tmp_path)
    found, wrong, heavy = done.stdout.splitlines()
    assert found == "{'rows': 5} 16 {'source.name': 'ramps', 'source.ramps.rows': 5}"
    assert "source.ramps.row: unknown key (known: rows)" in wrong
    assert (
        "model.name: Input should be 'dense', 'conv', 'conv1d', 'grid', 'narrow' or 'patches', found 'narow'" in wrong
    )
    assert heavy == "set()"


@pytest.mark.slow
def test_the_stages_take_both_and_the_header_of_the_codec_holds_the_model(house, tmp_path):
    params = {
        "source": {"name": "ramps", "ramps": {"rows": 200}},
        "model": {"name": "narrow", "narrow": {"width": 12}},
        "train": {"latent_size": 3, "epochs": 20, "batch_size": 16, "device": "cpu"},
        "encode": {"device": "cpu"},
        "evaluate": {"gate": {"beat_pca": False}},
    }
    YAML().dump(params, tmp_path / "params.yaml")
    script = (
        "from pathlib import Path\n"
        "from ae_pipeline.cli.stages import run_stage; from ae_pipeline.params import load_params\n"
        "from ae_pipeline.codec.header import Model, read_header\n"
        "params = load_params(Path('params.yaml'))\n"
        "for stage in ('download', 'prepare', 'train', 'evaluate', 'encode', 'decode'):\n"
        "    run_stage(stage, params, Path())\n"
        "header = read_header(Path('data/codec')); print(header.model.name, header.model.options['width'])\n"
        "print(Model.model_validate({'name': 'narrow', 'latent_size': 3, 'options': {}}).arguments['width'])\n"
    )
    done = run(house, ["-c", script], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["narrow 12", "9"]


@pytest.mark.slow
def test_the_contracts_run_on_both(house):
    contracts = "tests/house/test_contracts.py"
    done = run(house, ["-m", "pytest", "-p", "no:cacheprovider", "-q", contracts, "-k", "ramps or narrow"])
    assert done.returncode == 0, done.stdout[-3000:]
    assert done.stdout.splitlines()[0].count(".") > 15


def test_one_source_more_makes_no_other_sources_data_stale_and_one_model_more_no_codec():
    entries = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text())["stages"]

    def code_of(stage):
        (listed,) = [item["code.json"] for item in entries[stage]["params"] if isinstance(item, dict)]
        return listed

    for stage in ("download", "prepare"):
        assert "ae_pipeline/sources/${source.name}" in code_of(stage)
        assert "ae_pipeline/sources" not in code_of(stage)
    for stage in ("train", "encode", "decode"):
        assert "ae_pipeline/models/${model.name}" in code_of(stage)
        assert "ae_pipeline/models" not in code_of(stage)
