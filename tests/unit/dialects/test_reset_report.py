"""What providers tell about the windows of a plan."""

import json

import pytest

from router_service.catalog.loader import load_snapshot
from router_service.dialects.reset_report import ResetReport

NOW = 1_789_500_000.0  # 2026-09-15T19:20:00Z
PROVIDERS = load_snapshot("", source="f").providers
WINDOW = {"window": {"duration": 300, "timeUnit": "TIME_UNIT_MINUTE"}}


def report(provider: str) -> ResetReport:
    found = PROVIDERS[provider].errors.reset_report
    assert found is not None
    return found


def numbers(remaining: str, reset: str) -> dict[str, str]:
    """A window of Kimi Code, whose numbers are text."""
    return {"limit": "100", "used": str(100 - int(remaining)), "remaining": remaining, "resetTime": reset}


@pytest.mark.parametrize(
    ("provider", "answer", "seconds"),
    [
        (
            "kimi-code",
            {
                "usage": numbers("74", "2026-09-20T00:00:00Z"),
                "limits": [{**WINDOW, "detail": numbers("0", "2026-09-15T19:50:00.5Z")}],
            },
            1800.5,
        ),
        (  # both are used up: the later one decides
            "kimi-code",
            {
                "usage": numbers("0", "2026-09-15T20:20:00Z"),
                "limits": [{**WINDOW, "detail": numbers("0", "2026-09-15T19:50:00Z")}],
            },
            3600.0,
        ),
        (
            "kimi-code",
            {
                "usages": {
                    "limit_5h": {"used_ratio": 1, "reset_time": "2026-09-15T19:21:00Z"},
                    "limit_month_code": {"used_ratio": 0.2, "reset_time": "2026-10-16T00:00:00Z"},
                }
            },
            60.0,
        ),
        ("kimi-code", {"usage": numbers("3", "2026-09-15T20:20:00Z"), "limits": []}, None),
        ("kimi-code", {"usage": numbers("0", "2026-09-15T19:19:59Z")}, None),  # it has begun anew already
        ("kimi-code", {"usage": numbers("0", "soon")}, None),
        (
            "zai-coding",
            {
                "data": {
                    "limits": [
                        {"type": "TIME_LIMIT", "percentage": 12, "nextResetTime": 1_790_000_000_000},
                        {"type": "TOKENS_LIMIT", "percentage": 100, "nextResetTime": 1_789_500_090_000},
                    ]
                },
                "success": True,
            },
            90.0,
        ),
        ("bigmodel-coding", {"success": False, "msg": "no plan"}, None),
    ],
)
def test_the_last_window_that_is_used_up_decides(provider: str, answer: object, seconds: float | None) -> None:
    assert report(provider).read(json.dumps(answer).encode(), NOW) == seconds


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'"x"',
        b"null",
        b"[" * 100_000,
        b'{"usage":[1],"limits":{"a":7},"usages":"x"}',
        b'{"usage":{"remaining":"0","resetTime":true}}',
        b'{"usage":{"remaining":"0","resetTime":1e400}}',
        b'{"usage":{"remaining":"0","resetTime":99999999999999999999}}',
        b'{"usage":{"remaining":"nan","resetTime":"2026-09-15T20:20:00Z"}}',
    ],
)
def test_what_is_no_report_says_nothing(body: bytes) -> None:
    assert report("kimi-code").read(body, NOW) is None


def test_a_wait_is_bounded() -> None:
    answer = {"usage": numbers("0", "2099-01-01T00:00:00Z")}
    assert report("kimi-code").read(json.dumps(answer).encode(), NOW) == 31 * 24 * 3600


def test_where_the_reports_are() -> None:
    assert report("kimi-code").path == "/usages"
    assert not report("kimi-code").is_from_origin
    assert report("zai-anthropic").is_from_origin
    assert [PROVIDERS[name].errors.reset_report for name in ("moonshot", "zai", "bigmodel")] == [None] * 3
