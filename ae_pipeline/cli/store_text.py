"""What `verify`, `repair`, `compact` and `vacuum` tell people: what is damaged, what it costs, and what to do next."""

from ae_pipeline.store.care.compaction import Compacted
from ae_pipeline.store.care.findings import Compared, Repaired, Verified
from ae_pipeline.store.care.vacuum import Vacuum
from ae_pipeline.store.format.entries import MANIFEST_NAME

_MOST = 20
_MADE_ANEW = (
    "the store holds the rows of the given data; what only the lost manifest knew is gone (who wrote it, and the name "
    "of the data set: now named `rebuilt` unless it could still be read)"
)


def format_verified(verified: Verified) -> str:
    """Lines: the store, each damaged file, notices, the result, and the next step."""
    lines = [f"{'store':<12}{verified.store}"]
    if verified.snapshot is not None:
        others = ", ".join(map(str, verified.earlier_snapshots))
        earlier = f", earlier ones: {others}" if others else ""
        lines.append(f"{'snapshot':<12}{verified.snapshot}{earlier} (format {verified.format})")
        lines.append(f"{'checked':<12}{verified.parts:,} parts, {verified.rows:,} rows, codec, manifests")
    lines.append(f"{'decoding':<12}{verified.decoding}")
    lines += _several("damaged", [damage.describe() for damage in verified.damaged])
    lines += _several("missing", verified.missing)
    if verified.deep:
        lines += _deep(verified.deep)
    lines += _several("notice", verified.notices)
    lines.append(f"{'result':<12}{verified.result}")
    if verified.next_step:
        lines.append(f"{'next':<12}{verified.next_step}")
    return "\n".join(lines)


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


def format_compacted(done: Compacted, *, dry_run: bool) -> str:
    """Lines: the store, what was joined, what was left as it is, and what to do for the space."""
    lines = [f"{'store':<12}{done.store}"]
    lines += _several("left", [f"{name}: {reason}" for name, reason in done.left.items()])
    if not done.joined:
        rule = "small parts that stand side by side are joined once the others have as many rows as the largest"
        why = f"nothing to join: {rule if done.parts > 1 else 'the store has one part'}"
        why = "nothing was joined" if done.left else why
        return "\n".join([*lines, f"{'result':<12}{why}"])
    word = "would join" if dry_run else "joined"
    sizes = "" if done.bytes_after is None else f", {done.bytes_before:,} bytes into {done.bytes_after:,}"
    lines.append(f"{'result':<12}{word} {done.joined:,} parts into {done.into:,}: {done.rows:,} rows{sizes}")
    lines.append(f"{'parts':<12}{done.parts:,}")
    if not dry_run:
        kept = "earlier snapshots still need the former files; `ae-pipeline vacuum` removes both"
        lines.append(f"{'snapshot':<12}{done.snapshot}; {kept}")
    return "\n".join(lines)


def format_vacuumed(done: Vacuum, *, dry_run: bool) -> str:
    """Lines: what is removed and what is kept."""
    word = "would remove" if dry_run else "removed"
    lines = [f"{'store':<12}{done.store}", *_several(word, done.files)]
    kept = ", ".join(map(str, done.kept))
    return "\n".join([*lines, f"{'result':<12}{word} {len(done.files)} files, {done.bytes:,} bytes; kept: {kept}"])


def _deep(compared: Compared) -> list[str]:
    lines = [f"{'deep':<12}{compared.identical:,} parts, encoded again from the data, are the same byte for byte"]
    rounded = "this machine rounds {:,} latents to the next integer, which is no damage"
    missing = {name: _why_not_compared(name, compared) for name in compared.not_compared}
    for label, reasons in (
        ("different", compared.different),
        ("rounding", {name: rounded.format(number) for name, number in compared.rounded.items()}),
        ("same rows", dict.fromkeys(compared.same_rows, "same rows, though the file has other bytes")),
        ("not compared", missing),
    ):
        lines += _several(label, [f"{name}: {reason}" for name, reason in reasons.items()])
    lines += _several("left out", compared.left_out)
    if compared.rows_not_in_store:
        lines.append(f"{'not in store':<14}{compared.rows_not_in_store:,} rows of the data: do not delete them")
    return lines


def _why_not_compared(name: str, compared: Compared) -> str:
    if name in compared.renewed:
        return f"{compared.renewed[name]} was changed since it was encoded"
    if name in compared.partly:
        return f"only part of its data was given: the rows of {compared.partly[name]:,} of its files were compared"
    return "its data was not given"


def _several(label: str, items: list[str]) -> list[str]:
    """One line each, the label on the first; a long list is cut (--json has all)."""
    shown = items[:_MOST]
    if len(items) > _MOST:
        shown.append(f"... and {len(items) - _MOST:,} more (--json lists all)")
    width = max(12, len(label) + 2)
    return [f"{label if number == 0 else '':<{width}}{item}" for number, item in enumerate(shown)]
