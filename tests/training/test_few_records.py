"""A handful of clips that have little in common: training makes the codec worse, and then it stays as it began."""

import wave

import numpy as np
import pytest
from own_files import fetch

from ae_pipeline.codec.codec import Codec
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.data.splits import write_splits
from ae_pipeline.experiments.presets import preset_params
from ae_pipeline.params import PrepareParams
from ae_pipeline.training.build import build_codec

RATE = 8000


@pytest.fixture
def tones(tmp_path):
    """The prepared splits of 12 pure tones of half a second, two semitones apart."""
    (tmp_path / "in").mkdir()
    at = np.arange(RATE // 2) / RATE
    for number in range(12):
        samples = 0.3 * np.sin(2 * np.pi * 220 * 2 ** (number / 6) * at)
        with wave.open(str(tmp_path / f"in/{number:02d}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes((samples * 32767).astype("<i2").tobytes())
    splits = fetch(tmp_path, path=tmp_path / "in", kind="audio")
    return write_splits(splits, tmp_path / "prepared", PrepareParams())


def test_pure_tones_have_a_codec_that_is_worth_something_at_frequencies_it_never_heard(tones, tmp_path):
    params = preset_params("sound")
    params = params.model_copy(update={"train": params.train.model_copy(update={"epochs": 2, "batch_size": 16})})
    header, fitted = build_codec(
        tones["train"], tones["validation"], params, tmp_path / "codec", {}, lambda epoch: None
    )
    assert fitted.best_epoch == 0
    assert all(epoch.validation_loss > fitted.untrained for epoch in fitted.history)
    assert "as a cosine transform: the codec is that, untrained" in fitted.warnings[0]
    assert header.provenance["metrics"]["best_epoch"] == 0
    assert header.provenance["metrics"]["best_validation_loss"] == fitted.untrained
    rows = SampleSet.open(tmp_path / "prepared/test").load().pixels
    codec = Codec.load(tmp_path / "codec")
    lost = np.square(codec.decode(codec.encode(rows)) - rows).mean() / np.square(rows - rows.mean(0)).mean()
    assert lost < 0.01
