"""What README.md and docs/ show is run: their commands and snippets, in order, on 150 small pictures in place of MNIST.

Blocks with a mark (documents.NEEDS) are not run; test_documents.py checks that their commands and options exist.
"""

import shlex
import shutil

import numpy as np
import pytest
from documents import DOCUMENTS, ROOT, blocks, not_in, run_line, without_numbers
from handmade import encode, write_rows

from ae_pipeline.data.samples import SampleSet

PAGES = [name for name in DOCUMENTS if any(block.runs for block in blocks(name, "console", "sh", "python"))]


@pytest.fixture
def folder(tmp_path, monkeypatch, synthetic_prepared, tiny_codec):
    """A checkout in which `make run` has run, as far as the documents look: other rows, ids and labels as MNIST has."""
    rows = SampleSet.open(synthetic_prepared / "test").load().pixels
    columns = {"id": list(range(60_000, 60_000 + len(rows))), "label": [row % 10 for row in range(len(rows))]}
    write_rows(tmp_path / "data/prepared/test/part-00000.parquet", rows, **columns)
    shutil.copytree(synthetic_prepared / "train", tmp_path / "data/prepared/train")
    shutil.copytree(tiny_codec, tmp_path / "data/codec")
    encode(tmp_path / "data/prepared/test", tmp_path / "data/codec", tmp_path / "data/latents/test")
    write_rows(tmp_path / "new.parquet", rows, **columns)
    write_rows(tmp_path / "more.parquet", rows[:60][::-1], id=list(range(60)), label=[1] * 60)
    np.save(tmp_path / "train.npy", rows[:90])
    np.save(tmp_path / "test.npy", rows[90:])
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "tests/golden", tmp_path / "tests/golden")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("document", PAGES)
def test_what_a_document_shows_can_be_done(document, folder, ae, capsys):
    for block in blocks(document, "console", "sh", "python"):
        where = f"{document}:{block.line}"
        if not block.runs:
            continue
        if block.language == "python":
            assert document != "README.md" or len(block.text.splitlines()) <= 8
            exec(compile(block.text, where, "exec"), {})
            shown = [line[2:] for line in block.text.splitlines() if line.startswith("# ")]
            assert not_in(shown, capsys.readouterr().out) == [], where
            continue
        for command, shown in block.commands():
            output = _run(command, folder, ae)
            assert not_in(shown, output) == [], f"{where}: {command}"


def _run(command, folder, ae):
    words = shlex.split(command, comments=True)
    if words[:1] != ["ae-pipeline"]:
        return run_line(command, folder)
    code, out, err = ae(*words[1:])
    assert code == 0, f"{command}: {err}"
    return out


def test_output_that_is_not_shown_as_it_is_would_be_found():
    assert not_in(["rows  10,000", "...", "result  whole"], "rows  150\nparts 1\nresult  whole\n") == []
    assert not_in(["result  whole", "rows  10,000"], "rows  150\nresult  whole\n") == ["rows  10,000"]
    assert not_in(["rows_in  10"], "rows  150\n") == ["rows_in  10"]
    assert without_numbers("[63604] (1, 28, 28) uint8") == without_numbers("[3, 17, 99] (3, 12, 12) uint8")
    assert without_numbers("decoding (AVX512)") == without_numbers("decoding (DEFAULT)")
