"""docs/providers-evidence.md is what the recordings and the fixtures say now."""

import pytest

from tests.evidence import COLUMNS, TARGET, Evidence, write_page
from tests.suites.dialect_suite import recordings_folder


@pytest.mark.skipif(recordings_folder() is None, reason="no recordings: set KEYSWITCH_RECORDINGS")
def test_the_page_is_fresh() -> None:
    assert TARGET.read_text(encoding="utf-8") == write_page(), "run: python -m tests.evidence"


def test_what_is_not_there_is_no_evidence() -> None:
    nothing = Evidence("{}", None, is_stream=True)
    assert not any(holds(nothing) for holds in COLUMNS.values())
