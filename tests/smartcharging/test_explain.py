"""One charge explained: facts to words and data, a row a case; and every code the engine can give has a sentence."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

import smartcharging.engine
from smartcharging.engine import limits
from smartcharging.engine.explain.causes import CLAUSES, cause_of
from smartcharging.engine.explain.explain import Explanation, explain_charge
from smartcharging.engine.explain.facts import Course, Ended, Facts, FreePlace, Given, Wish
from smartcharging.engine.explain.remedies import Remedies, remedies
from smartcharging.engine.explain.told import SENTENCES
from smartcharging.engine.plan import answer
from smartcharging.engine.plan import solve as planning
from smartcharging.engine.plan.problem import PeakCharge
from smartcharging.engine.plan.program import Program
from smartcharging.engine.plan.solve import solve
from smartcharging.engine.snapshot import Mode, Narrowing
from tests.smartcharging.planning_worlds import ON_L1, battery, car, day, one_circuit, two_rows

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
ENGINE = Path(smartcharging.engine.__path__[0])


def at(clock: str) -> datetime:
    hour, minute = clock.split(":")
    return NOON.replace(hour=int(hour), minute=int(minute))


def said(explanation: Explanation) -> dict[str, list[str]]:
    """Each part in plain words, as a face without a language would fill it in."""
    return {
        part: [_filled(line) for line in getattr(explanation, part)] for part in ("now", "promise", "limits", "helps")
    }


def _filled(line) -> str:
    values = {name: _shown(name, value) for name, value in line.values.items()}
    values |= {
        "rate": values.get("taken_a", values.get("taken_w")),
        "most": values.get("limit_a", values.get("limit_w")),
        "words": values.get("words", ""),
    }
    if line.cause is not None:
        values["cause"] = line.cause.clause % {"circuit": line.cause.circuit, "words": line.cause.said}
    return (line.message % values).strip()


def _shown(name: str, value) -> str:
    if isinstance(value, datetime):
        return f"{value:%H:%M}"
    unit = name.rpartition("_")[2]
    if unit == "share":
        return f"{100 * value:.0f} %"
    units = {"a": "A", "w": "W", "kwh": "kWh", "eur": "EUR", "minutes": "min"}
    return f"{value} {units[unit]}" if unit in units else str(value)


AT_ROW = Given(8.0, "limit:hall 2:L1", "hall 2", "L1")
BY_PLAN = Given(0.0, "plan")
WISH = Wish(40_000, at("17:00"), promised_wh=40_000)
SHORT = Wish(40_000, at("17:00"), 31_000, "limit:hall 2:L1@2026-01-05T11:00Z/2026-01-05T16:15Z")
LATE = Wish(40_000, at("17:00"), 31_000, "time")


def course(*power_kw: float, **more) -> Course:
    """Hourly slots from noon on."""
    prices = np.array(more.pop("eur_per_kwh", []), dtype=float)
    return Course(NOON, 3600, 1000 * np.array(power_kw, dtype=float), made_at=NOON, eur_per_kwh=prices, **more)


STEADY = course(5.5, 5.5, 5.5, 5.5, 2, 0)
FACTS = Facts(
    now=NOON, given=AT_ROW, measured_a=8.0, power_w=5_520, max_w=11_040, charged_wh=7_000, wish=SHORT, course=STEADY
)
REMEDY = Remedies(leave_at=at("18:00"), room_after_w=11_040, raise_a=14)

NOW = [
    ("a full circuit until the plan's hour", FACTS, ["Charging with 8.0 A because hall 2 is full until about 16:15."]),
    (
        "a full circuit until the plan gives more",
        replace(FACTS, wish=WISH, course=course(5.5, 5.5, 11, 11)),
        ["Charging with 8.0 A because hall 2 is full until about 14:00."],
    ),
    (
        "a full circuit without a plan",
        replace(FACTS, course=None),
        ["Charging with 8.0 A because hall 2 is full."],
    ),
    (
        "a DC place speaks of power",
        replace(FACTS, dc=True, given=replace(AT_ROW, limit_w=22_000), power_w=21_800, course=None),
        ["Charging with 21800 W because hall 2 is full."],
    ),
    (
        "a car that takes less than it may",
        replace(FACTS, given=Given(16.0, "uses less")),
        ["Charging with 8.0 A of the 16.0 A it may take.", limits.SENTENCES["uses less"]],
    ),
    (
        "a car that waits for its hour",
        replace(FACTS, given=BY_PLAN, power_w=0.0, measured_a=0.0),
        ["May take nothing now.", "Follows the plan."],
    ),
    (
        "a car that is full",
        replace(FACTS, given=Given(6.0, "car full"), power_w=0.0, measured_a=0.0),
        ["May take 6.0 A, and takes nothing now.", "The car asks for nothing more."],
    ),
    (
        "a meter of the place that is silent",
        replace(FACTS, given=Given(16.0, "station maximum"), power_w=None, measured_a=None),
        ["May take 16.0 A; what it takes is not known.", "At the maximum of the station or the car."],
    ),
    (
        "waiting for others",
        replace(FACTS, given=Given(0.0, "waits for others"), power_w=0.0),
        ["May take nothing yet.", "Rises as soon as other cars have lowered their current."],
    ),
    (
        "paused for want of room",
        replace(FACTS, given=Given(0.0, limits.paused("hall 2", 1)), power_w=0.0),
        ["Paused: the minimum current does not fit at hall 2 on L2."],
    ),
    (
        "fire",
        replace(FACTS, given=Given(0.0, "fire: panel"), power_w=0.0),
        ["Switched off: fire alarm. panel"],
    ),
    (
        "a silent meter",
        replace(FACTS, given=Given(6.0, "meter stale: main"), measured_a=6.0, power_w=4_140),
        ["Charging with 6.0 A.", "The meter of main is silent, so a safe current holds."],
    ),
    (
        "no sun",
        replace(FACTS, given=Given(0.0, "no surplus"), power_w=0.0, mode=Mode.SURPLUS),
        ["May take nothing now.", "Waits for solar surplus."],
    ),
    (
        "a station out of reach",
        replace(FACTS, connected=False, given=Given(8.0, "unreachable")),
        ["Charging with 8.0 A.", SENTENCES["away"]],
    ),
    ("a fault", replace(FACTS, faulted=True), ["The station reports a fault."]),
    ("nobody decided yet", replace(FACTS, given=None), ["Nothing is decided for this place yet."]),
    ("a card that may not charge", replace(FACTS, authorized=False), ["This card may not charge here."]),
    ("a car that sleeps on", replace(FACTS, must_replug=True), ["Charging does not go on after a pause."]),
    ("a free place", Facts(NOON, charging=False, plugged=False), ["No car is plugged in."]),
    ("a place that is closed", Facts(NOON, charging=False, in_service=False), ["This place is out of service."]),
    ("a car without a charge", Facts(NOON, charging=False), ["A car is plugged in, but no charge has begun."]),
    (
        "a charge that is over",
        replace(FACTS, ended=Ended(at("16:40")), charged_wh=25_000),
        ["Ended at 16:40 with 25.0 kWh of 40.0 kWh."],
    ),
    (
        "a charge that is over and had no wish",
        replace(FACTS, ended=Ended(at("16:40")), wish=None),
        ["Ended at 16:40 with 7.0 kWh."],
    ),
    ("a code nobody knows", replace(FACTS, given=Given(8.0, "moon phase")), ["Charging with 8.0 A.", "moon phase"]),
]

PROMISE = [
    (
        "less than was asked",
        FACTS,
        ["31.0 kWh of 40.0 kWh will be charged by 17:00."],
    ),
    (
        "less than was asked is not reached, however fast it went so far",
        replace(FACTS, charged_wh=20_000),
        ["31.0 kWh of 40.0 kWh will be charged by 17:00."],
    ),
    (
        "all of it, and when",
        replace(FACTS, wish=replace(WISH, energy_wh=20_000, promised_wh=20_000)),
        ["All 20.0 kWh will be charged by 17:00.", "Reached at about 14:22."],  # 13 kWh at 5.5 kW
    ),
    (
        "all of it without a departure",
        replace(FACTS, wish=Wish(20_000, None, 20_000)),
        ["All 20.0 kWh will be charged.", "Reached at about 14:22."],
    ),
    (
        "a start that waits, and its cost",
        replace(
            FACTS, given=BY_PLAN, power_w=0.0, wish=WISH, course=course(0, 11, 11, 11, eur_per_kwh=[0.3, 0.1, 0.1, 0.2])
        ),
        [
            "All 40.0 kWh will be charged by 17:00.",
            "It begins at about 13:00.",
            "Reached at about 16:00.",
            "What is still to come costs the site about 4.4 EUR.",
        ],
    ),
    (
        "a price that is not known is no cost",
        replace(FACTS, wish=None, course=course(11, 11, eur_per_kwh=[0.3, None])),
        [SENTENCES["no goal"], "As much as fits: about 22.0 kWh more is planned."],
    ),
    (
        "as much as possible",
        replace(FACTS, wish=Wish(None, at("15:30"))),
        ["As much as fits until 15:30: about 19.25 kWh more."],
    ),
    ("what was asked is there", replace(FACTS, charged_wh=40_000), ["The 40.0 kWh asked for are charged."]),
    (
        "a departure that has passed",
        replace(FACTS, wish=replace(SHORT, departure=at("11:00"))),
        ["The departure at 11:00 has passed with 7.0 kWh of 40.0 kWh; it goes on charging."],
    ),
    ("no goal and no plan", replace(FACTS, wish=None, course=None), [SENTENCES["no goal"], SENTENCES["no plan"]]),
    (
        "free for everybody",
        replace(FACTS, wish=None, course=None, card_known=False),
        [SENTENCES["nobody"], SENTENCES["no plan"]],
    ),
    ("a wish that waits for its plan", replace(FACTS, wish=Wish(40_000), course=None), [SENTENCES["no plan"]]),
    (
        "an old plan",
        replace(FACTS, course=replace(STEADY, valid=False)),
        ["31.0 kWh of 40.0 kWh will be charged by 17:00.", "The plan of 12:00 no longer holds; it is made anew."],
    ),
    (
        "a plan by rule",
        replace(FACTS, course=replace(STEADY, by_rule=True)),
        ["31.0 kWh of 40.0 kWh will be charged by 17:00.", "Planned by simple rules: as soon as possible."],
    ),
    (
        "a driver who often leaves early",
        replace(FACTS, course=replace(STEADY, leaves_early_share=0.214)),
        [
            "31.0 kWh of 40.0 kWh will be charged by 17:00.",
            "The driver may be gone half an hour before (a chance of 21 %), so waiting is weighed.",
        ],
    ),
    (
        "a driver who hardly ever does",
        replace(FACTS, course=replace(STEADY, leaves_early_share=0.03)),
        ["31.0 kWh of 40.0 kWh will be charged by 17:00."],
    ),
    ("nobody is promised anything at a free place", Facts(NOON, charging=False), []),
]

LIMITS = [
    (
        "a circuit now, and in the plan",
        replace(FACTS, course=replace(STEADY, remedies=REMEDY)),
        [
            "hall 2 holds it back until about 16:15, on L1.",
            "9.0 kWh will be missing: hall 2 is full (11:00–16:15).",
            "From 16:15 on it could take about 11040 W.",
        ],
    ),
    (
        "power that is full",
        replace(FACTS, given=Given(8.0, "limit:grid:W"), wish=None, course=None),
        ["grid holds it back now, by its power."],
    ),
    (
        "time only",
        replace(FACTS, wish=LATE, given=Given(16.0, "station maximum")),
        ["9.0 kWh will be missing: there is not enough time before departure."],
    ),
    (
        "an order",
        replace(FACTS, wish=WISH, given=Given(0.0, "grid operator: 50 %", "grid", "W")),
        ["Limited by the grid operator: 50 %"],
    ),
    ("nothing", replace(FACTS, wish=WISH, given=Given(16.0, "station maximum")), []),
    ("what was asked is there", replace(FACTS, charged_wh=40_000, given=Given(6.0, "car full")), []),
    (
        "a charge that ended early",
        replace(FACTS, ended=Ended(at("16:40")), charged_wh=25_000),
        [
            "9.0 kWh could not be promised: hall 2 is full.",
            "It ended 20 min before the departure that was named.",
        ],
    ),
    ("a charge that got all", replace(FACTS, ended=Ended(at("17:10")), charged_wh=40_000), []),
]

HELPS = [
    (
        "later, or more at the circuit, or elsewhere, or less",
        replace(
            FACTS,
            course=replace(STEADY, remedies=REMEDY),
            elsewhere=(FreePlace("CS-004", "hall 1", 7_360), FreePlace("CS-005", "hall 3", 22_000)),
        ),
        [
            "Leaving at 18:00 would give all of it, as planned now.",
            "14 A more per phase at hall 2 from 11:00 to 16:15 would give all of it.",
            "Asking for 31.0 kWh would be met.",
            "CS-005 at hall 3 is free and has room for 11040 W now.",
        ],
    ),
    (
        "a cable for three phases",
        replace(
            FACTS,
            wish=LATE,
            given=Given(16.0, "station maximum"),
            course=replace(STEADY, remedies=Remedies(three_phases=True)),
        ),
        ["A car and a cable for three phases would give all of it.", "Asking for 31.0 kWh would be met."],
    ),
    (
        "an old plan helps nobody",
        replace(FACTS, course=replace(STEADY, valid=False, remedies=REMEDY)),
        ["Asking for 31.0 kWh would be met."],
    ),
    ("nothing", replace(FACTS, wish=WISH), ["Nothing needs to be done."]),
    (
        "in a hurry",
        replace(FACTS, wish=WISH, given=BY_PLAN, power_w=0.0, room_w=20_000),
        ["Nothing needs to be done.", "Choosing “as fast as possible” lets it take the room there is now."],
    ),
    (
        "in a hurry without room",
        replace(FACTS, wish=WISH, given=BY_PLAN, power_w=0.0, room_w=3_000),
        ["Nothing needs to be done."],
    ),
    (
        "sun that is to come",
        replace(
            FACTS, wish=None, mode=Mode.SURPLUS, given=Given(0.0, "no surplus"), power_w=0.0, course=course(0, 0, 4, 4)
        ),
        ["Solar surplus for it is expected from about 14:00.", "Choosing “by plan” lets it use the grid too."],
    ),
    (
        "sun that is not",
        replace(FACTS, wish=None, mode=Mode.SURPLUS, given=Given(0.0, "no surplus"), power_w=0.0, course=course(0, 0)),
        ["No solar surplus is expected for it in this plan.", "Choosing “by plan” lets it use the grid too."],
    ),
    (
        "too little sun for a wish",
        replace(FACTS, mode=Mode.SURPLUS, given=Given(8.0, "surplus"), wish=replace(LATE, promise_reason="surplus")),
        ["Choosing “by plan” lets it use the grid too.", "Asking for 31.0 kWh would be met."],
    ),
    (
        "a little patience",
        replace(FACTS, wish=None, given=Given(0.0, "minimum time off")),
        ["It gets more by itself within minutes."],
    ),
    (
        "the end of an order",
        replace(FACTS, wish=None, given=Given(0.0, "fire: panel")),
        ["It gets more by itself when that is over."],
    ),
    (
        "a meter",
        replace(FACTS, wish=None, given=Given(6.0, "meter stale: main")),
        ["The meter of main must be heard again."],
    ),
    ("somebody who looks", replace(FACTS, connected=False, wish=None), ["The station or the car must be looked at."]),
    (
        "the car itself",
        replace(FACTS, wish=None, given=Given(6.0, "car full")),
        ["The car itself holds it back, or it is full."],
    ),
    ("the plug", replace(FACTS, wish=None, must_replug=True), ["The plug must be taken out and put in again."]),
    ("another card", replace(FACTS, wish=None, authorized=False), ["It needs a card that is known here."]),
    ("a card", Facts(NOON, charging=False), ["Hold a card at the station, or start it from the page."]),
    ("nobody at a free place", Facts(NOON, charging=False, plugged=False), []),
]


@pytest.mark.parametrize(
    ("part", "facts", "words"),
    [
        pytest.param(part, facts, words, id=f"{part}: {name}")
        for part, rows in (("now", NOW), ("promise", PROMISE), ("limits", LIMITS), ("helps", HELPS))
        for name, facts, words in rows
    ],
)
def test_facts_become_words(part, facts, words):
    assert said(explain_charge(facts))[part] == words


def test_the_same_is_told_as_data():
    facts = replace(FACTS, course=replace(STEADY, remedies=REMEDY))

    told = explain_charge(facts)

    assert told.now[0].values == {
        "taken_a": 8.0,
        "limit_a": 8.0,
        "circuit": "hall 2",
        "phase": "L1",
        "reason": "limit:hall 2:L1",
        "ends_at": at("16:15"),
    }
    assert told.promise[0].values == {
        "promised_kwh": 31.0,
        "wanted_kwh": 40.0,
        "share": 0.775,
        "departure": at("17:00"),
    }
    assert told.limits[1].values == {
        "missing_kwh": 9.0,
        "reason": SHORT.promise_reason,
        "circuit": "hall 2",
        "phase": "L1",
        "starts_at": at("11:00"),
        "ends_at": at("16:15"),
    }
    assert (told.helps[0].code, told.helps[0].values["minutes"]) == ("leave_later", 60)


# --- every code has a sentence ----------------------------------------------------------------------------------------


def reasons_in(source: str) -> Iterator[str]:
    """What a file of the live layer says as a reason: given to `_say`, or put where reasons are kept."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "_say":
            yield from _constants(node.args[1])
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any("reason" in ast.unparse(t).lower() or "MAXIMUM" in ast.unparse(t) for t in targets):
                yield from _constants(node.value)
        elif isinstance(node, ast.Call) and "reasons" in ast.unparse(node.func):
            for given in node.args:
                yield from _constants(given)


def _constants(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(v.value if isinstance(v, ast.Constant) else "L1" for v in node.values)
    elif isinstance(node, ast.IfExp):
        yield from [*_constants(node.body), *_constants(node.orelse)]
    elif isinstance(node, ast.List | ast.ListComp | ast.BinOp | ast.BoolOp | ast.Tuple):
        for child in ast.iter_child_nodes(node):
            yield from _constants(child)


LIVE = (*(ENGINE / "live").glob("*.py"), ENGINE / "limits.py")


def test_every_reason_of_the_live_layer_has_a_sentence():
    found = {r for file in LIVE for r in reasons_in(file.read_text()) if r}
    found |= {limits.reason_of(Narrowing(rank, words)) for rank in limits.Rank for words in ("", "words", "peak")}
    found |= {limits.paused("row", column) for column in range(4)} | {limits.paused_at_station()}

    assert {"waits for others", "no surplus", "minimum time on", "station maximum", "free", "fail-safe"} <= found
    assert {r for r in found if limits.code_of(r) == "other"} == set()


def test_every_reason_of_the_plan_has_a_clause():
    grid = one_circuit(16, limit_w=10_000)
    problem = day(
        car("1", 50, 11, group=1, group_max_a=5_000 / 690),
        car("2", 50, 11, group=1, group_max_a=5_000 / 690),
        car("3", 50, 11, phases=ON_L1, mode=Mode.SURPLUS),
        grid=grid,
        pv_kw=5,
        battery=battery(),
        peak_eur_per_kw=5,
        charges=(PeakCharge("access_power", 5.0),),
    )
    program = Program(problem)
    names = set(program.import_names[0])
    for rows in program.constraints:
        names |= set() if rows.equal else set(rows.label or (rows.name,))
    said = (inspect.getsource(answer.causes), inspect.getsource(planning._rule_reason))
    plain = {node.value for source in said for node in ast.walk(ast.parse(source)) if _is_word(node)}

    assert {"import_limit", "group", "surplus", "month_peak", "access_power", "limit:grid:L1", "limit:grid"} <= names
    assert {"time", "power", "value", "rule"} <= plain
    assert {n for n in names | plain if cause_of(n).code not in CLAUSES} == set()


def _is_word(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier()


@pytest.mark.parametrize(
    ("reason", "code", "circuit", "phase", "hours"),
    [
        ("time", "time", "", "", None),
        ("limit:row 1:L2@2026-01-05T16:00Z/2026-01-05T17:00Z", "limit", "row 1", "L2", ("16:00", "17:00")),
        ("limit:grid@2026-01-05T16:00Z/2026-01-05T17:00Z", "limit", "grid", "", ("16:00", "17:00")),
        ("limit:a:b@c", "limit", "a:b", "", None),
        ("limit:a@b:L3@2026-01-05T16:00Z/2026-01-05T17:00Z", "limit", "a@b", "L3", ("16:00", "17:00")),
        ("import_limit@2026-01-05T16:00Z/2026-01-05T17:00Z", "import_limit", "", "", ("16:00", "17:00")),
        ("a new one@nowhere", "a new one", "", "", None),
    ],
)
def test_a_code_of_the_plan_is_taken_apart(reason, code, circuit, phase, hours):
    cause = cause_of(reason)

    assert (cause.code, cause.circuit, cause.phase, cause.said) == (code, circuit, phase, reason)
    assert (cause.starts_at, cause.ends_at) == ((at(hours[0]), at(hours[1])) if hours else (None, None))


def test_every_sentence_is_used_and_none_is_missing():
    told = (ENGINE / "explain" / "explain.py").read_text()
    unused = {
        code for code in SENTENCES if f'"{code}"' not in told and f'"{code.removesuffix("_some_time")}"' not in told
    }
    assert {code for code in unused if not code.endswith(("_until", "_some_time"))} == set()


# --- what would help is enough ----------------------------------------------------------------------------------------


def short_days():
    """Days on which car 1 falls short, by what keeps it."""
    row = {"grid": two_rows(row_a=16, grid_a=100), "slots": 12}
    return {
        "time": day(car("1", 50, 10, last=4), slots=12),
        "a full row": day(car("1", 40, 11, last=4, node=1), car("2", 40, 11, last=4, node=1, priority=3), **row),
        "a full row for a while": day(
            car("1", 40, 11, last=4, node=1), car("2", 22, 11, last=2, node=1, priority=3), **row
        ),
        "a building at the connection": day(
            car("1", 30, 10, last=4), slots=12, grid=one_circuit(1000, limit_w=12_000), building_kw=[8] * 4 + [2] * 8
        ),
        "one phase": day(car("1", 20, 3.68, last=4, phases=ON_L1), slots=12, grid=one_circuit(32)),
    }


@pytest.mark.parametrize("name", sorted(short_days()))
def test_leaving_as_late_as_is_said_gives_all_of_it(name):
    problem = short_days()[name]
    result = solve(problem)
    found = remedies(problem, result)["1"]
    assert result.shortfall_wh["1"] > 0
    assert found.leave_at is not None

    first, *others = problem.sessions
    slot = int((found.leave_at - problem.start) / timedelta(seconds=problem.slot_s))
    fixed = {"value_eur_per_kwh": 100.0}  # whatever the others want, they had it without this
    later = solve(replace(problem, sessions=(replace(first, last_slot=slot, **fixed), *others)))
    sooner = solve(replace(problem, sessions=(replace(first, last_slot=slot - 1), *others)))

    assert later.shortfall_wh["1"] == 0
    assert sum(later.shortfall_wh.values()) <= sum(result.shortfall_wh.values())
    assert sum(sooner.shortfall_wh.values()) > sum(later.shortfall_wh.values())


def test_the_circuit_raised_by_what_is_said_gives_all_of_it_and_by_less_does_not():
    problem = short_days()["a full row for a while"]
    result = solve(problem)
    cause, found = cause_of(result.shortfall_reason["1"]), remedies(problem, result)["1"]
    assert cause.circuit == "row 1"
    assert found.raise_a is not None

    def short_with(more_a: float) -> float:
        rows = two_rows(row_a=16, grid_a=100)
        circuits = tuple(
            replace(c, limit_a=tuple(a + more_a for a in c.limit_a)) if c.name == "row 1" else c for c in rows.circuits
        )
        return solve(replace(problem, grid=replace(rows, circuits=circuits))).shortfall_wh["1"]

    assert short_with(found.raise_a) == 0
    assert short_with(found.raise_a - 1.01) > 0


def test_the_connection_is_raised_in_watts():
    problem = short_days()["a building at the connection"]
    found = remedies(problem, solve(problem))["1"]
    assert (found.raise_a, found.raise_w) == (None, 3_500)  # 30 kWh in 4 h are 7.5 kW beside 8 of 12


def test_three_phases_are_named_only_where_they_are_enough():
    enough = short_days()["one phase"]
    tight = replace(enough, grid=one_circuit(5))
    assert remedies(enough, solve(enough))["1"].three_phases
    assert not remedies(tight, solve(tight))["1"].three_phases
    three = short_days()["time"]
    assert not remedies(three, solve(three))["1"].three_phases


def test_room_after_the_limit_is_what_the_car_could_take_then():
    problem = short_days()["a full row for a while"]
    result = solve(problem)
    found = remedies(problem, result)["1"]
    assert result.shortfall_reason["1"].startswith("limit:row 1")
    assert found.room_after_w == pytest.approx(11_000, abs=50)


def test_where_nothing_falls_short_there_is_nothing_to_remedy():
    problem = day(car("1", 10, 10))
    assert remedies(problem, solve(problem)) == {}
