"""Alerts: what a webhook gets, and what is said, and not said, where it cannot be told.

tests/flows/test_flow_operation.py has real runs that tell one.
"""

import time

import pytest
from webhook import webhook

from ae_pipeline.operation.alerts import ALERT_URL, has_alerts, send_alert

SECRET = "geheim"
PAYLOAD = {"text": "rebuild failed: größer", "event": "failed"}


@pytest.fixture
def hook(monkeypatch):
    with webhook() as hook:
        monkeypatch.setenv(ALERT_URL, f"{hook.url}/services/{SECRET}?key={SECRET}")
        yield hook


def test_a_webhook_gets_json(hook):
    assert has_alerts()
    assert send_alert(PAYLOAD) is None
    ((path, headers, payload),) = hook.posted
    assert (path, payload) == (f"/services/{SECRET}?key={SECRET}", PAYLOAD)
    assert headers["Content-Type"] == "application/json"
    assert "Authorization" not in headers


def test_user_and_password_of_an_address_become_a_login(hook, monkeypatch):
    monkeypatch.setenv(ALERT_URL, hook.url.replace("//", "//me:ge%40heim@"))
    assert send_alert(PAYLOAD) is None
    ((path, headers, _),) = hook.posted
    assert (path, headers["Authorization"]) == ("/", "Basic bWU6Z2VAaGVpbQ==")
    hook.status = 401
    assert send_alert(PAYLOAD) == (
        f"the webhook at {hook.url} was not told: it answers 401; correct AE_ALERT_URL, or see to the server"
    )


@pytest.mark.parametrize("status", [302, 404, 500])
def test_an_answer_that_is_no_success_is_said_without_the_address(status, hook):
    hook.status = status
    said = send_alert(PAYLOAD)
    assert f"the webhook at {hook.url} was not told: it answers {status}; " in said
    assert SECRET not in said
    assert not hook.followed


def test_a_webhook_that_does_not_answer_is_not_waited_for(hook):
    hook.status = None
    begun = time.monotonic()
    assert send_alert(PAYLOAD, 0.3) == f"the webhook at {hook.url} was not told: no answer came in time"
    assert time.monotonic() - begun < 3


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://127.0.0.1:9/geheim", "http://127.0.0.1:9 was not told: connection refused"),
        ("hooks.example.com/geheim", "the address in AE_ALERT_URL was not told: that is no address beginning with"),
        ("file:///geheim", "the address in AE_ALERT_URL was not told: that is no address beginning with"),
        ("http:///geheim", "the address in AE_ALERT_URL was not told: that is no address beginning with"),
        ("http://[::1/geheim", "the address in AE_ALERT_URL was not told: that is no address beginning with"),
        ("http://127.0.0.1:9/a geheim", "http://127.0.0.1:9 was not told: that is no address; correct AE_ALERT_URL"),
        ("http://127.0.0.1:geheim/", "the address in AE_ALERT_URL was not told"),
    ],
)
def test_an_address_that_leads_nowhere_is_said_without_its_secret(address, words, monkeypatch):
    monkeypatch.setenv(ALERT_URL, address)
    said = send_alert(PAYLOAD)
    assert words in said
    assert SECRET not in said
    assert "\n" not in said


def test_without_an_address_there_are_no_alerts(monkeypatch):
    monkeypatch.setenv(ALERT_URL, " ")
    assert not has_alerts()
