"""The whole page, and what of it needs somebody.

Each section is asked for by itself. One that cannot be told holds an `error`, and the others are there all the same.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from ae_pipeline.errors import PipelineError, first_line, without_secrets
from ae_pipeline.operation.status.files import look_at_stores, look_into_inbox, look_into_quarantine
from ae_pipeline.operation.status.machine import look_at_checkout, look_at_disks
from ae_pipeline.operation.status.models import ask_models
from ae_pipeline.operation.status.runs import AskedPrefect
from ae_pipeline.params import Params

_LONG = timedelta(days=1)
_SHORT = 200  # characters of a reason, in a sentence


def look_around(params: Params, root: Path) -> dict[str, Any]:
    """All sections, and `attention`: a sentence for each thing that needs somebody; an empty list: all is well."""
    prefect = AskedPrefect(root)
    try:
        now = datetime.now(UTC)
        page: dict[str, Any] = {
            "at": now.isoformat(timespec="seconds"),
            "checkout": _told(partial(look_at_checkout, root)),
            "models": _told(partial(ask_models, params, root)),
            "inbox": _told(partial(look_into_inbox, params, root)),
            "quarantine": _told(partial(look_into_quarantine, params, root)),
            "stores": _told(partial(look_at_stores, params, root)),
            "disks": _told(partial(look_at_disks, params, root)),
            "prefect": _told(prefect.answer),
        }
    finally:
        prefect.end()
    return {**page, "attention": attention(page, now)}


def _told(ask: Callable[[], Any]) -> Any:
    """What a section says, or why it cannot be told."""
    try:
        return ask()
    except (PipelineError, OSError) as error:
        return {"error": without_secrets(str(error) if isinstance(error, PipelineError) else first_line(error))}


def is_error(section: Any) -> bool:
    """Whether a section could not be told."""
    return isinstance(section, dict) and "error" in section


def attention(page: dict[str, Any], now: datetime) -> list[str]:
    """A sentence for each thing of the page that needs somebody."""
    return [without_secrets(sentence) for sentence in _attention(page, now)]


def _attention(page: dict[str, Any], now: datetime) -> Iterator[str]:
    for section, value in page.items():
        if is_error(value):
            yield f"{section}: {value['error']}"
    checks: dict[str, Callable[[Any], Iterator[str]]]
    checks = {"models": _of_models, "prefect": _of_prefect, "inbox": partial(_of_inbox, now=now)}
    for section, check in checks.items():
        if not is_error(page[section]):
            yield from check(page[section])
    if count := page["quarantine"].get("files"):
        yield f"{count:,} file(s) in quarantine ({page['quarantine']['folder']}): correct them, or delete them"
    for disk in page["disks"] if not is_error(page["disks"]) else ():
        if disk["little"]:
            yield f"{disk['free'] / 2**30:,.1f} GiB are left on the disk of {disk['place']}"


def _of_models(models: dict[str, Any]) -> Iterator[str]:
    drift = models["drift"]
    if drift and drift["drifted"]:
        yield "the last batch that was measured is unlike the data that the champion was trained on"


def _of_prefect(prefect: dict[str, Any]) -> Iterator[str]:
    for name, flow in prefect["flows"].items():
        last, bad = flow["last"], flow["failed_within_a_day"]
        # A batch is measured once: the next run of `monitor` is green again.
        told = last if last and last["failed"] else next(iter(bad), None) if name == "monitor" else None
        if told:
            yield f"{name}: {told['state']}, {reason(told['message'])}"
        if flow["late"]:
            yield f"{name}: {flow['late']} run(s) are late; is a worker there, and does it wait for its turn?"
    if prefect["slots"] and not prefect["workers"]:
        yield "Prefect hears of no worker: nothing is started; run `ae-pipeline serve` or `ae-pipeline worker`"
    for slot in prefect["slots"]:
        if slot["taken"] > len(slot["by"]):
            yield f"{slot['deployment']}: a slot is taken that no run holds; `ae-pipeline recover` frees it"


def _of_inbox(inbox: dict[str, Any], now: datetime) -> Iterator[str]:
    if inbox["oldest"] and now - datetime.fromisoformat(inbox["oldest"]) > _LONG:
        yield f"{inbox['waiting']:,} file(s) wait in the inbox, the first since {inbox['oldest']}"
    if inbox["unreadable"]:
        name, why = next(iter(inbox["unreadable"].items()))
        yield f"{len(inbox['unreadable']):,} file(s) of the inbox cannot be read; {name}: {why}"


def reason(message: str | None) -> str:
    """What a run said, on one line: its first line, and its last, which names the error where there is a traceback."""
    lines = [line.strip() for line in (message or "").splitlines() if line.strip()]
    text = " ... ".join(dict.fromkeys([*lines[:1], *lines[-1:]])) or "no reason was given"
    return text if len(text) <= _SHORT else f"{text[: _SHORT - 3]}..."
