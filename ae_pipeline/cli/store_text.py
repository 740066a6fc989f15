"""What `verify`, `repair` and `vacuum` tell people: what is damaged, what it costs, and what to do next."""

from typing import Any

from ae_pipeline.store.care.repair import Repaired
from ae_pipeline.store.care.vacuum import Vacuum
from ae_pipeline.store.care.verify import Verified
from ae_pipeline.store.format.manifest import CODEC_FOLDER, MANIFEST_NAME, SNAPSHOTS_FOLDER

_MOST = 20
_MADE_ANEW = (
    "the store holds the rows of the given data; what only the lost manifest knew is gone (who wrote it, and the name "
    "of the data set: now named `rebuilt` unless it could still be read)"
)


def format_verified(verified: Verified, compared: dict[str, Any] | None) -> str:
    """Lines: the store, each damaged file, notices, the result, and the next step."""
    lines = [f"{'store':<12}{verified.store}"]
    if verified.snapshot is not None:
        earlier = f", earlier ones: {', '.join(map(str, verified.earlier_snapshots))}" * bool(
            verified.earlier_snapshots
        )
        lines.append(f"{'snapshot':<12}{verified.snapshot}{earlier} (format {verified.format})")
        lines.append(f"{'checked':<12}{verified.parts:,} parts, {verified.rows:,} rows, codec, manifests")
    lines.append(f"{'decoding':<12}{verified.decoding}")
    lines += _several("damaged", [damage.describe() for damage in verified.damaged])
    if compared:
        lines += _deep(compared)
    lines += _several("notice", verified.notices)
    return "\n".join([*lines, *_result(verified, compared)])


def format_repaired(done: Repaired) -> str:
    """Lines: what was given back, what was replaced, what could not be."""
    lines = [f"{'store':<12}{done.store}"]
    if not (done.files or done.made_anew or done.replaced or done.failed):
        return "\n".join([*lines, f"{'result':<12}nothing is damaged; nothing was changed"])
    lines += _several("given back", done.files)
    lines += _several("made anew", done.made_anew)
    lines += _several("new bytes", [f"{old} is now {new}" for old, new in done.replaced.items()])
    lines += _several("failed", [f"{name}: {reason}" for name, reason in done.failed.items()])
    if done.replaced:
        lines.append(f"{'snapshot':<12}{done.snapshot}; earlier ones are gone, for they listed what was lost")
    if MANIFEST_NAME in done.made_anew:
        lines.append(f"{'notice':<12}{_MADE_ANEW}")
    counted = f"{len(done.files)} files given back byte for byte"
    counted += f", {len(done.made_anew)} made anew" * bool(done.made_anew)
    counted += f", {len(done.replaced)} with new bytes" * bool(done.replaced)
    lines.append(f"{'result':<12}{counted}, {len(done.failed)} still damaged")
    return "\n".join(lines)


def format_vacuumed(done: Vacuum, *, dry_run: bool) -> str:
    """Lines: what is removed and what is kept."""
    word = "would remove" if dry_run else "removed"
    lines = [f"{'store':<12}{done.store}", *_several(word, done.files)]
    kept = ", ".join(map(str, done.kept))
    return "\n".join([*lines, f"{'result':<12}{word} {len(done.files)} files, {done.bytes:,} bytes; kept: {kept}"])


def _deep(compared: dict[str, Any]) -> list[str]:
    lines = [f"{'deep':<12}{compared['identical']:,} parts, encoded again from the data, are the same byte for byte"]
    different = [f"{name}: {reason}" for name, reason in compared["different"].items()]
    rounded = [
        f"{name}: this machine rounds {number:,} latents to the next integer, which is no damage"
        for name, number in compared["rounded"].items()
    ]
    lines += _several("different", different)
    lines += _several("rounding", rounded)
    lines += _several(
        "same rows", [f"{name}: same rows, though the file has other bytes" for name in compared["same_rows"]]
    )
    renewed = compared["renewed"]
    reasons = [
        f"{name}: {renewed[name]} was changed since it was encoded"
        if name in renewed
        else f"{name}: its data was not given"
        for name in compared["not_compared"]
    ]
    lines += _several("not compared", reasons)
    lines += _several("left out", compared["left_out"])
    if compared["rows_not_in_store"]:
        lines.append(f"{'not in store':<14}{compared['rows_not_in_store']:,} rows of the data: do not delete them")
    return lines


def _result(verified: Verified, compared: dict[str, Any] | None) -> list[str]:
    if verified.damaged:
        lost = "unknown" if verified.rows_lost is None else f"{verified.rows_lost:,} of {verified.rows:,}"
        return [
            f"{'result':<12}DAMAGED: {len(verified.damaged)} files; rows that cannot be read: {lost}",
            f"{'next':<12}{_next_step(verified)}",
        ]
    if compared and compared["different"]:
        return [
            f"{'result':<12}NOT THE DATA: {len(compared['different'])} parts are undamaged, but made from other data",
            f"{'next':<12}keep the data, and encode it into a new store",
        ]
    if compared and compared["rows_not_in_store"]:
        step = f"keep the data; ae-pipeline append {verified.store} adds what is missing"
        if compared["renewed"]:
            step = (
                "find out which files were changed or damaged since they were encoded, and restore them: appended, "
                f"their rows would be there twice; ae-pipeline append {verified.store} is for new data only"
            )
        return [
            f"{'result':<12}NOT ALL OF THE DATA: the store is whole, but rows of the data are not in it",
            f"{'next':<12}{step}",
        ]
    missed = len(compared["not_compared"]) if compared else 0
    but = f", but {missed:,} of {verified.parts:,} parts were not compared with the data" if missed else ""
    return [f"{'result':<12}whole{but}"]


def _next_step(verified: Verified) -> str:
    files = [damage.file for damage in verified.damaged]
    earlier = [name for name in files if name.startswith(f"{SNAPSHOTS_FOLDER}/")]
    if earlier == files:
        return f"no row is lost; ae-pipeline vacuum {verified.store} does without the earlier snapshots"
    command = f"ae-pipeline repair {verified.store}"
    if any(name.startswith(CODEC_FOLDER) for name in files):
        command += " --codec <a copy of the codec>"
    if MANIFEST_NAME in files:
        return f"{command} with --source for each data set of the store, in the order in which they were added"
    if any(name.startswith("part-") for name in files):
        command += " --source <the data that was encoded>"
        command += "; until then, decode with --skip-damaged reads the rest" * (verified.rows_lost != verified.rows)
    return command


def _several(label: str, items: list[str]) -> list[str]:
    """One line each, the label on the first; a long list is cut (--json has all)."""
    shown = items[:_MOST]
    if len(items) > _MOST:
        shown.append(f"... and {len(items) - _MOST:,} more (--json lists all)")
    width = max(12, len(label) + 2)
    return [f"{label if number == 0 else '':<{width}}{item}" for number, item in enumerate(shown)]
