"""A configuration is exchanged as a whole or not at all."""

from datetime import date
from pathlib import Path

import pytest

from router_service.catalog.loader import ConfigurationError, load_file
from router_service.catalog.reload import Configuration
from tests.unit.catalog.example import EXAMPLE


def test_a_sound_file_replaces_the_snapshot(tmp_path: Path) -> None:
    file = tmp_path / "keyswitch.yaml"
    file.write_text(EXAMPLE)
    configuration = Configuration(file, lambda: date(2026, 11, 21))
    first = configuration.current
    assert configuration.reload() is False
    assert configuration.current is first
    file.write_text(EXAMPLE.replace("500", "600"))
    assert configuration.reload() is True
    assert configuration.current.organizations["demo"].markup_basis_points == 600
    assert first.organizations["demo"].markup_basis_points == 500
    assert configuration.current.revision != first.revision


def test_a_broken_file_leaves_the_last_good_one(tmp_path: Path) -> None:
    file = tmp_path / "keyswitch.yaml"
    file.write_text(EXAMPLE)
    configuration = Configuration(file)
    good = configuration.current
    file.write_text(EXAMPLE.replace("auth: bearer", "auth: basic"))
    assert configuration.reload() is False
    assert configuration.current is good
    assert [problem.path for problem in configuration.problems] == ["providers.practice.auth"]
    file.unlink()
    assert configuration.reload() is False
    assert configuration.current is good
    assert "there is no such file" in configuration.problems[0].message
    file.write_text(EXAMPLE)
    assert configuration.reload() is False
    assert configuration.problems == ()
    assert configuration.current.revision == good.revision


def test_without_a_good_file_there_is_nothing_to_hold(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="KEYSWITCH_CONFIG"):
        Configuration(tmp_path / "none.yaml")


@pytest.mark.parametrize(("content", "message"), [(b"\xff\xfe", "is not UTF-8 text"), (None, "cannot be read")])
def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "keyswitch.yaml"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=message):
        load_file(file)


def test_a_byte_order_mark_is_no_matter(tmp_path: Path) -> None:
    file = tmp_path / "keyswitch.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + EXAMPLE.encode())
    assert load_file(file).find_model("echo") is not None
