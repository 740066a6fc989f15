"""The champion: which version of the registered model is in production. Moved deliberately, and every move recorded.

A move is three steps: an entry in the history (a tag of the registered model) as pending, the alias, the entry as
done. A process that ends in between, and an alias that somebody moved in MLflow's pages, are settled by the next call.
"""

import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ae_pipeline.codec.header import read_header
from ae_pipeline.data.samples import SampleSet
from ae_pipeline.errors import ConfigError, TrackingError
from ae_pipeline.files import json_bytes
from ae_pipeline.operation.champion.history import (
    PROMOTED,
    ROLLED_BACK,
    Entry,
    champion_before,
    deliberate_departure,
    now,
)
from ae_pipeline.operation.champion.registered_model import RegisteredModel, find_model, open_model
from ae_pipeline.operation.tracking.connection import find_run
from ae_pipeline.operation.tracking.workspace import check_prepared
from ae_pipeline.params import Params

if TYPE_CHECKING:
    from ae_pipeline.operation.champion.comparison import Verdict

LONGEST_WHY = 1000
_ATTEMPTS = 3


@dataclass(frozen=True)
class Outcome:
    """What a comparison found and, by `evaluate_and_promote`, did."""

    model: str
    champion: str | None
    """Version at the time of the comparison."""
    challenger: str
    verdict: "Verdict"
    run_id: str | None
    """The challenger's run; null: it was deleted."""
    artifact: str | None
    """Where the verdict is logged in that run; null: it is not."""
    entry: Entry | None
    """The promotion; null: the champion stayed."""

    def describe(self) -> str:
        """The verdict for people, condition by condition."""
        champion = f"version {self.champion}" if self.champion else "none"
        lines = [f"{self.model}: champion {champion}, challenger version {self.challenger}", self.verdict.reason]
        lines += [f"  {'ok ' if item.holds else 'NO '} {item.name}: {item.text}" for item in self.verdict.conditions]
        if self.entry is not None:
            lines.append(f"version {self.entry.version} is champion now")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "verdict": self.verdict.as_dict()}


def promote(params: Params, root: Path, version: str | None, why: str, by: str) -> Entry:
    """Make a version (None: the challenger) champion, whatever a comparison says.

    Raises TrackingError if there is no such version, it is champion already, or its codec cannot be fetched.
    """
    _check_why(why)
    with open_model(params, root, "promote") as model:
        return model.move(version or model.challenger, PROMOTED, by=by, why=why)


def rollback(params: Params, root: Path, why: str, by: str) -> Entry:
    """Make the champion before the current one champion again; once more goes one more back.

    Raises TrackingError if there is none, or its version was deleted.
    """
    _check_why(why)
    with open_model(params, root, "rollback") as model:
        version = champion_before(model.entries)
        if version is None:
            champion = model.champion  # raises if it was lost
            raise TrackingError(
                f"{model.name} had no champion before {f'version {champion}' if champion else 'this'}; "
                "`ae-pipeline promote VERSION` chooses one (`ae-pipeline history` shows what was)"
            )
        return model.move(version, ROLLED_BACK, by=by, why=why)


def history(params: Params, root: Path) -> list[Entry]:
    """Every move of the alias, oldest first. Raises TrackingError if there was a champion of which it knows nothing."""
    with open_model(params, root, "history") as model:
        return model.entries if model.entries or model.champion is None else []


def champion_version(params: Params, root: Path) -> str | None:
    """The version in production; None before the first promotion, also where nothing has been published yet.

    Raises TrackingError if there was a champion and it was lost.
    """
    with find_model(params, root, "") as model:
        return model.champion


def compare(params: Params, root: Path, *, held_out: Path | None = None) -> Outcome:
    """Compare champion and challenger on held-out rows (default: the test split); nothing is moved or logged.

    Raises TrackingError if there is no challenger, or the champion was lost; see `compare_codecs` for the others.
    """
    return _compare(params, root, held_out)[0]


def evaluate_and_promote(params: Params, root: Path, *, by: str, held_out: Path | None = None) -> Outcome:
    """Compare, log the verdict with the challenger's run and version, and promote the challenger if it holds.

    A challenger that a person took the alias from is not promoted again: that person may promote it by hand. The
    comparison does not hold the lock; if another process moved an alias meanwhile, it is made again.
    """
    for _ in range(_ATTEMPTS):
        outcome, seen = _compare(params, root, held_out)
        with open_model(params, root, "compare --promote") as model:
            if seen == (model.entries, model.challenger):
                return _act(model, outcome, by)
    raise TrackingError(
        f"champion or challenger of {params.registered_model} changed {_ATTEMPTS} times while they were compared; "
        "run this again when nobody else moves them"
    )


def _compare(params: Params, root: Path, held_out: Path | None) -> tuple[Outcome, tuple[list[Entry], str]]:
    """The comparison, and what it was of: history and challenger."""
    from ae_pipeline.operation.champion.comparison import compare_codecs  # torch, which moving an alias does not need

    if held_out is None:
        check_prepared(params, root)
    with tempfile.TemporaryDirectory() as folder:
        with open_model(params, root, "compare") as model:
            entries, old, new = model.entries, model.champion, model.challenger
            champion = model.fetch(old, Path(folder, "champion")) if old else None
            challenger = model.fetch(new, Path(folder, "challenger"))
            run = find_run(model.client, model.version(new).run_id)
        verdict = compare_codecs(
            champion,
            challenger,
            SampleSet.open(held_out or root / params.paths.prepared / "test", read_header(challenger).spec),
            params.promotion,
            params.encode,
            gate=params.evaluate.gate,
            evaluated=run.data.metrics if run else {},
        )
    departure = deliberate_departure(entries, new)
    if departure is not None and old != new:
        text = (
            f"version {new} was champion until {departure.at}, when version {departure.version} was "
            f"{departure.action} by {departure.by} ({departure.why}); only a person moves it back: "
            f"`ae-pipeline promote {new} --why ...`"
        )
        verdict = verdict.withheld("not_taken_back", text)
    run_id = run.info.run_id if run else None
    return Outcome(params.registered_model, old, new, verdict, run_id, None, None), (entries, new)


def _act(model: RegisteredModel, outcome: Outcome, by: str) -> Outcome:
    """Log the verdict, then promote if it says so."""
    verdict, version = outcome.verdict, outcome.challenger
    if version == outcome.champion:
        return outcome  # the tags of the version tell how it became champion
    artifact = None
    if outcome.run_id is not None:
        artifact = f"promotion/verdict-{outcome.champion or 'none'}-{version}.json"
        values = {**replace(outcome, artifact=artifact).as_dict(), "at": now(), "by": by}
        model.client.log_text(outcome.run_id, json_bytes(values).decode(), artifact)
        model.client.log_text(outcome.run_id, verdict.as_markdown(), artifact.replace(".json", ".md"))
    tags = {
        "promotion.verdict": "promote" if verdict.promote else "keep the champion",
        "promotion.reason": verdict.reason[:LONGEST_WHY],
        "promotion.champion": outcome.champion or "none",
        "promotion.at": now(),
        "promotion.by": by,
    }
    for key, value in tags.items():
        model.client.set_model_version_tag(model.name, version, key, value)
    entry = None
    if verdict.promote:
        why = verdict.reason[:LONGEST_WHY]
        # Without a run there is no artifact; the tags of the version hold the verdict.
        entry = model.move(version, PROMOTED, by=by, why=why, verdict=artifact or "promotion.reason")
    return replace(outcome, artifact=artifact, entry=entry)


def _check_why(why: str) -> None:
    if not why.strip() or len(why) > LONGEST_WHY:
        raise ConfigError(
            f"--why has {len(why.strip())} characters, expected 1 to {LONGEST_WHY}; say why in a sentence"
        )
