"""Words and values: the family's word orders, patterns that mean nothing, and reads as few as allowed."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meters.devices.registers import (
    ABB_SENTINELS,
    INPUT,
    SMA_SENTINELS,
    SUNSPEC_SENTINELS,
    Point,
    RegisterError,
    Type,
    decode,
    decode_points,
    encode,
    plan_blocks,
)


@pytest.mark.parametrize(
    ("type_", "order", "value", "words"),
    [
        (Type.F32, "big", 230.1, [0x4366, 0x199A]),
        (Type.F32, "little", 230.1, [0x199A, 0x4366]),
        (Type.S32, "big", -12345, [0xFFFF, 0xCFC7]),
        (Type.S32, "little", -12345, [0xCFC7, 0xFFFF]),
        (Type.U64, "big", 123456789012, [0x0000, 0x001C, 0xBE99, 0x1A14]),
        (Type.S64, "little", -9876543210, [0xE916, 0xB34F, 0xFFFD, 0xFFFF]),
        (Type.F64, "big", 1234567.5, [0x4132, 0xD687, 0x8000, 0x0000]),
        (Type.S16, "big", -500, [0xFE0C]),
    ],
)
def test_a_value_decodes_from_its_words_and_back(type_, order, value, words):
    assert decode(words, type_, order) == pytest.approx(value, rel=1e-6)
    assert list(encode(value, type_, order)) == words


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["U16", "S16", "U32", "S32", "U64", "S64"]), st.integers(-(2**63), 2**64 - 1), st.booleans())
def test_whole_numbers_survive_the_wire_or_are_refused(name, value, little):
    bits = int(name[1:])
    fits = 0 <= value < 2**bits if name[0] == "U" else -(2 ** (bits - 1)) <= value < 2 ** (bits - 1)
    order = "little" if little else "big"
    if fits:
        assert decode(encode(value, Type(name), order), Type(name), order) == value
    else:
        with pytest.raises(RegisterError):
            encode(value, Type(name), order)


@settings(max_examples=60, deadline=None)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.booleans())
def test_floats_survive_the_wire(value, little):
    order = "little" if little else "big"
    assert decode(encode(value, Type.F32, order), Type.F32, order) == value
    assert decode(encode(value, Type.F64, order), Type.F64, order) == value


@pytest.mark.parametrize(
    ("type_", "words", "sentinels"),
    [
        (Type.U32, [0xFFFF, 0xFFFF], ABB_SENTINELS),
        (Type.S32, [0x7FFF, 0xFFFF], ABB_SENTINELS),
        (Type.U64, [0xFFFF] * 4, ABB_SENTINELS),
        (Type.S16, [0x7FFF], ABB_SENTINELS),
        (Type.U32, [0xFFFF, 0xFFFF], SMA_SENTINELS),
        (Type.S32, [0x8000, 0x0000], SMA_SENTINELS),
        (Type.S16, [0x8000], SUNSPEC_SENTINELS),
        (Type.U16, [0xFFFF], SUNSPEC_SENTINELS),
        (Type.ACC32, [0, 0], SUNSPEC_SENTINELS),
        (Type.F32, [0x7FC0, 0x0000], {}),
        (Type.F32, [0x7F80, 0x0000], {}),
        (Type.F32, [0xFF7F, 0xFFFF], {}),
    ],
)
def test_a_pattern_that_means_no_value_is_none_and_never_a_number(type_, words, sentinels):
    assert Point("x", 0, type_).value(words, sentinels) is None


def test_zero_is_a_value():
    assert Point("x", 0, Type.S16).value([0], SUNSPEC_SENTINELS) == 0


def test_scale_brings_a_register_to_its_unit_and_back():
    point = Point("energy_import", 52, Type.S32, 100, word_order="little")

    assert point.value([0xE240, 0x0001]) == 12_345_600
    assert point.to_words(12_345_600) == (0xE240, 0x0001)


def test_a_value_that_does_not_fit_its_register_is_refused_by_name():
    with pytest.raises(RegisterError, match="limit_a: 70000"):
        Point("limit_a", 5004).to_words(70_000)
    with pytest.raises(RegisterError, match="no number"):
        Point("limit_a", 5004).to_words(math.nan)


def test_a_text_ends_at_its_padding_and_a_bit_is_one_bit():
    assert Point("serial", 0, Type.STR, length=4).value(encode("SOCO", Type.STR, words=4)) == "SOCO"
    assert Point("relay", 32, bit=3).value([0b1000]) == 1
    assert Point("relay", 32, bit=2).value([0b1000]) == 0
    with pytest.raises(RegisterError, match="longer"):
        encode("ABCDEFGHI", Type.STR, words=4)


def test_words_that_are_no_words_are_refused():
    with pytest.raises(RegisterError):
        decode([70_000], Type.U16)
    with pytest.raises(RegisterError):
        decode([1], Type.U32)


def test_neighbours_share_a_read_and_gaps_part_them():
    points = [Point("a", 0, Type.F32), Point("b", 2, Type.F32), Point("c", 10, Type.F32)]

    assert [(b.address, b.count) for b in plan_blocks(points)] == [(0, 4), (10, 2)]
    assert [(b.address, b.count) for b in plan_blocks(points, bridge=6)] == [(0, 12)]


def test_no_read_crosses_a_boundary_or_mixes_functions_or_optional_points():
    points = [
        Point("a", 0),
        Point("b", 1),
        Point("c", 2, optional=True),
        Point("d", 3, function=INPUT),
        Point("e", 4, function=INPUT),
    ]

    blocks = plan_blocks(points, boundaries=(1,))

    assert sorted((b.function, b.address, b.count, b.optional) for b in blocks) == [
        (3, 0, 1, False),
        (3, 1, 1, False),
        (3, 2, 1, True),
        (4, 3, 2, False),
    ]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 400), st.sampled_from(["U16", "F32", "F64"])), min_size=1, max_size=30),
    st.integers(4, 125),
    st.integers(0, 10),
)
def test_every_point_is_wholly_inside_one_block_and_no_block_is_too_long(layout, max_words, bridge):
    points = [Point(f"p{i}", a, Type(t)) for i, (a, t) in enumerate(layout)]
    covered = sorted({a for p in points for a in range(p.address, p.end)})

    blocks = plan_blocks(points, max_words=max_words, bridge=bridge)

    assert sorted(p.name for b in blocks for p in b.points) == sorted(p.name for p in points)
    for block in blocks:
        assert block.count <= max_words
        assert all(block.address <= p.address and p.end <= block.end for p in block.points)
        unknown = [a for a in range(block.address, block.end) if a not in covered]
        assert all(sum(1 for u in unknown if a <= u <= a + bridge) <= bridge for a in unknown)


def test_a_scale_factor_is_read_along_and_one_that_is_not_there_makes_no_value():
    point = Point("power", 14, Type.S16, scale_at=15)
    image = {(3, 14): 321, (3, 15): 0xFFFF}

    assert plan_blocks([point])[0].count == 2
    assert decode_points([point], image) == {"power": pytest.approx(32.1)}
    assert decode_points([point], {(3, 14): 321, (3, 15): 0x8000}) == {"power": None}
    assert decode_points([point], {(3, 14): 321}) == {}
