"""Rows written without records: what they hold is what was told, on both databases."""

from __future__ import annotations

import orjson
import pytest

from csms.bulk import as_json


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ("plain", "plain"),
        ("a\x00b", "ab"),
        ("\x00\x00", ""),
        (r"a\u0000b", r"a\u0000b"),
        ("\\\x00", "\\"),
        ('"\\u0000\x00"', '"\\u0000"'),
    ],
)
def test_a_nul_is_left_out_and_one_that_is_only_written_about_is_kept(told: str, kept: str) -> None:
    assert orjson.loads(as_json({told: [told]})) == {kept: [kept]}
