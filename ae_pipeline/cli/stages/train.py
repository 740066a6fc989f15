"""Fit the autoencoder and freeze it into a codec."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from ae_pipeline.codec.devices import choose_device
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import ConfigError, PipelineError, exit_code_of, warn
from ae_pipeline.files import refuse_existing, write_csv
from ae_pipeline.params import TRAINING, Params
from ae_pipeline.provenance import git_state
from ae_pipeline.training import ranks
from ae_pipeline.training.build import build_codec, open_checkpoints, train_along, where_rows_are
from ae_pipeline.training.launching import end_with_parent, leave_error, run_ranks
from ae_pipeline.training.outlook import check_fits, look_ahead
from ae_pipeline.training.progress import epoch_progress
from ae_pipeline.training.ranks import PEER_LOST


def run(params: Params, root: Path) -> None:
    """paths.prepared/{train,validation} -> paths.codec, paths.reports/history.csv"""
    if params.train.processes > 1 and not ranks.of_several():
        given = json.dumps({"params": params.model_dump(mode="json"), "root": str(root)})
        run_ranks([sys.executable, "-m", __name__], given.encode(), params.train.processes)
        return
    with ranks.joined(choose_device(params.train.device)):
        _train(params, root)


def _train(params: Params, root: Path) -> None:
    prepared = root / params.paths.prepared
    train = SampleSet.open(prepared / "train")
    # Not after hours: what cannot work, or cannot pass, is said first.
    check_fits(params, train.spec)
    if params.codec.family == "context" and ranks.count() > 1:
        raise ConfigError("codec.family: context trains in one process: run it without torchrun")
    outlook = look_ahead(train, params)
    print(outlook.describe(), flush=True)
    warn(outlook.warnings)
    validation, codec, git = SampleSet.open(prepared / "validation"), root / params.paths.codec, git_state(root)
    refuse_existing(codec)
    checkpoints = open_checkpoints(root / params.paths.work / TRAINING, train, validation, params)
    warn(checkpoints.warnings)
    if checkpoints.goes_on:
        print(checkpoints.taken_up, flush=True)
    plan = where_rows_are(train, validation, params, checkpoints)
    if plan.mode == "stream":
        print(plan.describe(train), flush=True)
    if not ranks.is_first():
        train_along(train, validation, params, checkpoints)
        return
    with epoch_progress(params.train.epochs) as on_epoch:
        header, fitted = build_codec(train, validation, params, codec, git, on_epoch, checkpoints)
    write_csv(root / params.paths.reports / "history.csv", [asdict(epoch) for epoch in fitted.history])
    checkpoints.remove()
    ended = "stopped early" if fitted.stopped_early else "ended"
    best = f"best epoch {fitted.best_epoch}" if fitted.best else "kept as it began,"
    rounded = ""
    if integers := header.provenance.get("integers"):
        rounded = f"; {integers['loss']:.6f} after {integers['epochs']} more epochs that round the network to integers"
    print(
        f"{ended} after {len(fitted.history)} epochs; {best} with a validation loss of "
        f"{fitted.validation_loss:.6f}{rounded}; codec {header.fingerprint[:12]}"
    )
    warn(fitted.warnings)


def _as_a_rank() -> None:
    """Train as one of the processes that `run` started; what it is to do comes by standard input."""
    end_with_parent()
    given = json.loads(sys.stdin.buffer.read())
    try:
        run(Params.model_validate(given["params"]), Path(given["root"]))
    except PipelineError as error:
        if ranks.is_first():
            raise
        leave_error(str(error))
        sys.exit(1)
    except SystemExit:  # it was told to end, or lost another one: the process that started it says so
        sys.exit(PEER_LOST)


if __name__ == "__main__":
    sys.exit(exit_code_of(_as_a_rank))
