"""Alerts: one POST of JSON to a webhook, when somebody is needed. Knows no Prefect; flows/alerts.py says when.

    why = send_alert({"text": "rebuild failed: ...", "event": "failed"})      # None: it was delivered

The address may hold a secret, in its path too, as Slack's do: of it nothing but scheme and host is ever shown. Python's
own client takes it, for libraries log addresses.
"""

import base64
import http.client
import json
import os
import ssl
import threading
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import unquote, urlsplit

from ae_pipeline import __version__

ALERT_URL = "AE_ALERT_URL"
"""The environment variable with the webhook's address; unset or empty: no alerts."""
_STEP_SECONDS, _SECONDS = 5.0, 10.0
_ADVICE = f"correct {ALERT_URL}"


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A POST that is led elsewhere becomes a GET there: nobody would be told, and nothing would say so."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Never."""


def has_alerts() -> bool:
    """Whether an address is set."""
    return bool(os.environ.get(ALERT_URL, "").strip())


def send_alert(payload: dict[str, Any], seconds: float = _SECONDS) -> str | None:
    """Post a JSON object to the webhook, within so many seconds. Returns why it was not delivered; None: it was.

    Whoever runs a flow waits no longer than that, whatever the server does.
    """
    found = ["no answer came in time"]
    address = os.environ.get(ALERT_URL, "").strip()
    thread = threading.Thread(target=lambda: found.append(_post(address, payload)), daemon=True)
    thread.start()
    thread.join(seconds)
    why = found[-1]
    return f"the webhook at {_place(address)} was not told: {why}" if why else None


def _post(address: str, payload: dict[str, Any]) -> str:
    """Why it failed; "": it did not."""
    try:
        with urllib.request.build_opener(_NoRedirects).open(_request(address, payload), timeout=_STEP_SECONDS):
            return ""
    except urllib.error.HTTPError as error:
        error.close()
        return f"it answers {error.code}; {_ADVICE}, or see to the server"
    except (OSError, http.client.HTTPException) as error:  # the words of others may repeat the address
        return _words(error.reason if isinstance(error, urllib.error.URLError) else error)
    except ValueError:
        return f"that is no address beginning with http:// or https://; {_ADVICE}"


def _request(address: str, payload: dict[str, Any]) -> urllib.request.Request:
    """Raises ValueError for what is no address."""
    parts, host = urlsplit(address), _host(address)
    headers = {"Content-Type": "application/json", "User-Agent": f"ae-pipeline/{__version__}"}
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
    data, url = json.dumps(payload).encode(), parts._replace(netloc=host).geturl()
    return urllib.request.Request(url, data, headers, method="POST")  # noqa: S310 (checked)


def _words(reason: BaseException | str) -> str:
    if isinstance(reason, TimeoutError):
        return "no answer came in time"
    if isinstance(reason, ssl.SSLError):
        return "its certificate is not trusted, or it speaks no TLS"
    if isinstance(reason, http.client.InvalidURL):
        return f"that is no address; {_ADVICE}"
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror.lower()
    return "the connection fails"


def _place(address: str) -> str:
    """Scheme, host and port: all that is shown of an address."""
    try:
        return f"{urlsplit(address).scheme}://{_host(address)}"
    except ValueError:
        return f"the address in {ALERT_URL}"


def _host(address: str) -> str:
    """Host and port, without a user's name and password. Raises ValueError for what is no address."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return host if parts.port is None else f"{host}:{parts.port}"
