"""The page for a terminal: what needs attention first, then a few lines for each section."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

from ae_pipeline.operation.status.page import is_error, reason

_LABEL = 12
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def format_page(page: dict[str, Any]) -> str:
    """About thirty lines."""
    now = datetime.fromisoformat(page["at"])
    lines = [f"{page['checkout'].get('folder', '')}  {_minute(page['at'])} UTC"]
    lines += ["", "needs attention", *(f"  - {sentence}" for sentence in page["attention"])]
    if not page["attention"]:
        lines[1:] = ["", "all is well"]
    lines.append("")
    for label, section, tell in _SECTIONS:
        told = ["cannot be told, see above"] if is_error(page[section]) else list(tell(page[section], now))
        lines += [f"{'' if number else label:<{_LABEL}}{line}" for number, line in enumerate(told)]
    return "\n".join(line.rstrip() for line in lines)


def _champion(models: dict[str, Any], _: datetime) -> Iterator[str]:
    champion, challenger = models["champion"], models["challenger"]
    if champion is None:
        yield "none yet; `ae-pipeline compare --promote` makes one of the challenger"
    else:
        yield f"{models['model']} {_version(champion)}"
        yield f"  {champion['how']} {_minute(champion['since'])} by {champion['by']}: {reason(champion['why'])}"
    if challenger is None:
        yield "no challenger yet: nothing was published"
    elif champion is None or challenger["version"] != champion["version"]:
        yield f"challenger {_version(challenger)}"
    else:
        yield "the challenger is the same version"


def _version(version: dict[str, Any]) -> str:
    numbers = []
    if version["mse"] is not None:
        numbers.append(f"MSE {version['mse']:.6g}")
    if version["bits_per_row"] is not None:
        numbers.append(f"{version['bits_per_row']:,.0f} bits per row")
    return f"version {version['version']}" + (f": {', '.join(numbers)}" if numbers else "")


def _drift(models: dict[str, Any], _: datetime) -> Iterator[str]:
    drift = models["drift"]
    if drift is None:
        yield "no batch has been measured"
        return
    values = ", ".join(
        f"{what} {drift[f'{what}_drift']:.3f} of {drift[f'{what}_threshold']:.3f}" for what in ("error", "latent")
    )
    yield f"last batch {'DRIFTED' if drift['drifted'] else 'as trained on'}: {values} allowed"


def _flows(prefect: dict[str, Any], now: datetime) -> Iterator[str]:
    for name, flow in prefect["flows"].items():
        last = flow["last"]
        if last is None:
            yield f"{name:<22}has not run"
        else:
            yield f"{name:<22}{last['state']:<10} {_ago(last['ended'], now):>10}  {reason(last['message'])}"
        for run in flow["at_work"]:
            yield f"{'':<22}{run['state']:<10} {_ago(run['began'], now):>10}  {run['name']}"
        others = [run for run in flow["failed_within_a_day"] if last is None or run["name"] != last["name"]]
        if others:
            text = f"failed {len(others)} more time(s) within a day, last: {reason(others[0]['message'])}"
            yield f"{'':<22}{text}"


def _slots(prefect: dict[str, Any], now: datetime) -> Iterator[str]:
    if not prefect["slots"]:
        yield "no deployment with slots; `ae-pipeline serve`, or `prefect deploy --all`, sends them"
    taken = [slot for slot in prefect["slots"] if slot["taken"] or slot["by"]]
    if prefect["slots"] and not taken:
        yield f"none of {sum(slot['of'] for slot in prefect['slots'])} is taken"
    for slot in taken:
        runs = [f"{run['name']} ({run['state']}, {run['process'] or 'no process yet'})" for run in slot["by"]]
        yield f"{slot['deployment']}: {slot['taken']} of {slot['of']}, by {', '.join(runs) or 'no run'}"
    heard = [f"{worker['name']} ({_ago(worker['heard'], now)})" for worker in prefect["workers"]]
    yield f"workers: {', '.join(heard) or 'none'}"


def _checkout(checkout: dict[str, Any], _: datetime) -> Iterator[str]:
    yield from checkout["at_work"] or ["nobody is at work in the folder"]


def _inbox(inbox: dict[str, Any], now: datetime) -> Iterator[str]:
    since = f", the first since {_ago(inbox['oldest'], now)}" if inbox["oldest"] else ""
    names = f" ({', '.join(inbox['files'])}{', ...' if inbox['waiting'] > len(inbox['files']) else ''})"
    yield f"{inbox['waiting']:,} file(s) waiting in {inbox['location']}{since}{names if inbox['files'] else ''}"


def _quarantine(quarantine: dict[str, Any], now: datetime) -> Iterator[str]:
    yield f"{quarantine['files']:,} file(s) in {quarantine['folder']}"
    for file in quarantine["newest"]:
        yield f"  {file['file']} ({_ago(file['since'], now)}): {reason(file['reason'])}"


def _stores(stores: list[dict[str, Any]], now: datetime) -> Iterator[str]:
    if not stores:
        yield "none yet"
    for store in stores:
        week = store["last_seven_days"]
        yield (
            f"{store['store']}  {store['rows']:,} rows, {_bytes(store['bytes'])} "
            f"({store['bytes_in'] / store['bytes']:.1f} times smaller), snapshot {store['snapshot']:,}, "
            f"grew {_ago(store['grew'], now)}"
        )
        yield (
            f"  last seven days: {week['rows']:,} rows, {_bytes(week['bytes'])} in {week['snapshots']:,} snapshot(s); "
            f"{store['parts']:,} parts in all"
        )


def _disks(disks: list[dict[str, Any]], _: datetime) -> Iterator[str]:
    for disk in disks:
        share = disk["free"] / max(disk["total"], 1)
        yield f"{disk['place']}: {_bytes(disk['free'])} free of {_bytes(disk['total'])} ({share:.0%})"


_SECTIONS: tuple[tuple[str, str, Callable[[Any, datetime], Iterator[str]]], ...] = (
    ("champion", "models", _champion),
    ("flows", "prefect", _flows),
    ("slots", "prefect", _slots),
    ("at work", "checkout", _checkout),
    ("inbox", "inbox", _inbox),
    ("quarantine", "quarantine", _quarantine),
    ("stores", "stores", _stores),
    ("drift", "models", _drift),
    ("disk", "disks", _disks),
)


def _minute(moment: str) -> str:
    return moment[:16].replace("T", " ")


def _ago(moment: str | None, now: datetime) -> str:
    """`3 h ago`; `-` where the time is not known."""
    if moment is None:
        return "-"
    past = now - datetime.fromisoformat(moment)
    for unit, name in ((timedelta(days=1), "d"), (timedelta(hours=1), "h"), (timedelta(minutes=1), "min")):
        if past >= 2 * unit:
            return f"{past // unit} {name} ago"
    return f"{max(0, past // timedelta(seconds=1))} s ago"


def _bytes(number: float) -> str:
    for unit in _UNITS:
        if number < 1000 or unit == _UNITS[-1]:
            return f"{number:,.0f} {unit}" if unit == "B" else f"{number:,.1f} {unit}"
        number /= 1000
    raise AssertionError
