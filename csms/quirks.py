"""The quirk layer: what real stations get wrong, by name, what is done about it, and what comes of it. Pure.

A repair is switched on by what is seen: a frame the schema refuses, a sub-protocol nobody has heard of, a boot that
never came. Each time it is counted for the station, by its name. A person may force a repair *off* for a model: then
what it would mend is refused in the standard's way, which is what a laboratory wants. Those that must be told
beforehand, because nothing shows them in time, may be forced *on*.

The first column are the ids of the product's list of quirks; capabilities (`capabilities.py`) answer the rest of it.
`docs/quirks.md` is this list, and a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from csms.capabilities import CATALOGUE, gettext_noop

_ = gettext_noop


@dataclass(frozen=True, slots=True)
class Repair:
    """One named repair. `name` is that of its counter; a `*` stands for the member or action it is about.

    It is empty where the door itself sees to it, before anybody can be counted. `off`: a person may forbid it for a
    model. `on`: it is asked for beforehand.
    """

    name: str
    quirk: str
    seen: str
    done: str
    off: bool = False
    on: bool = False

    def fits(self, counter: str) -> bool:
        return fnmatchcase(counter, self.name)


REPAIRS: tuple[Repair, ...] = (
    Repair("no_subprotocol", "Q1", _("no sub-protocol is offered"), _("taken as OCPP 1.6")),
    Repair(
        "subprotocol_spelling",
        "Q1",
        _("the sub-protocol in other case or with a suffix"),
        _("answered as it is spelled"),
    ),
    Repair(
        "",
        "Q2",
        _("it comes back in another OCPP version"),
        _("the version of each connection counts; what runs is carried over"),
    ),
    Repair(
        "identity_spelling",
        "Q3",
        _("its identity is encoded, slashed or in other case"),
        _("the known station is found"),
    ),
    Repair("", "Q4", _("the Connection header lacks “Upgrade”"), _("added; the handshake goes on")),
    Repair(
        "",
        "Q5",
        _("user name or password in another form (encoded, hex, raw bytes)"),
        _("compared in every form it may have"),
    ),
    Repair("", "Q6", _("its TLS is older than 1.2"), _("refused; use a listener that may, or plain behind a VPN")),
    Repair(
        "",
        "Q7",
        _("the connection ends without a close frame"),
        _("the station counts as gone; the newest socket owns it"),
    ),
    Repair(
        "no_boot", "Q8", _("it reconnects without a BootNotification"), _("limits are sent anew, statuses are kept")
    ),
    Repair("restless_boots", "Q8", _("it boots again and again"), _("only limits are sent until it rests")),
    Repair("empty_frame", "Q9", _("an empty frame"), _("dropped")),
    Repair(
        "malformed_frame",
        "Q9",
        _("a frame that is no OCPP-J message"),
        _("answered with the standard's error where its id can be read"),
    ),
    Repair("too_deep", "Q9", _("lists and objects nested without end"), _("answered with the standard's error")),
    Repair("byte_order_mark", "Q9", _("a byte order mark before the frame"), _("taken off"), off=True),
    Repair("stray_comma", "Q9", _("stray commas between elements"), _("left out"), off=True),
    Repair("not_utf8", "Q9", _("text that is not UTF-8"), _("read as Latin-1"), off=True),
    Repair("nul_character", "Q9", _("NUL characters in text"), _("left out")),
    Repair("type_as_text", "Q9", _("the message type as text"), _("read as a number")),
    Repair(
        "unknown_message_type", "Q9", _("a message type that does not exist"), _("answered with the standard's error")
    ),
    Repair("numeric_message_id", "Q9", _("a number as message id"), _("answered with the same number")),
    Repair("long_message_id", "Q9", _("a message id of more than 36 characters"), _("answered with the same id")),
    Repair("missing_payload", "Q9", _("no payload"), _("taken as an empty one"), off=True),
    Repair("null_payload", "Q9", _("null as payload"), _("taken as an empty one"), off=True),
    Repair("list_payload", "Q9", _("a list as payload"), _("taken as an empty one"), off=True),
    Repair("extra_element", "Q9", _("more than four elements"), _("the rest is left out"), off=True),
    Repair("action_spelling", "Q9", _("the name of the message in other case"), _("the known name"), off=True),
    Repair("extra_field", "Q10", _("fields the schema does not know"), _("left out"), off=True),
    Repair("null_field", "Q10", _("null for a field that is absent"), _("left out"), off=True),
    Repair("object_for_list", "Q10", _("one object where a list belongs"), _("a list of one"), off=True),
    Repair("list_for_object", "Q10", _("a list of one where an object belongs"), _("its one object"), off=True),
    Repair("number_for_text", "Q10", _("a number where text belongs"), _("written as text"), off=True),
    Repair("text_for_number", "Q10", _("text where a number belongs"), _("read as a number"), off=True),
    Repair("decimal_for_integer", "Q10", _("a decimal where a whole number belongs"), _("rounded"), off=True),
    Repair("word_for_boolean", "Q10", _("a word where true or false belongs"), _("read"), off=True),
    Repair("*_spelling", "Q10", _("a word of a list in other case or with spaces"), _("the list's own word"), off=True),
    Repair(
        "unknown_*", "Q10", _("a word that is on no list"), _("kept as it is; measurands nobody knows are left out")
    ),
    Repair("missing_timestamp", "Q10", _("no time"), _("the time of receipt"), off=True),
    Repair(
        "missing_*",
        "Q10",
        _("a member is missing"),
        _("filled with what its absence means; in messages of a transaction let through"),
        off=True,
    ),
    Repair(
        "odd_length",
        "Q10",
        _("text longer or shorter than the schema allows"),
        _("let through, cut where it is kept"),
        off=True,
    ),
    Repair("odd_value", "Q10", _("a value outside its bounds"), _("let through")),
    Repair("odd_type", "Q10", _("a field of the wrong type in a message of a transaction"), _("left out")),
    Repair("odd_answer", "Q10", _("an answer that does not fit its schema"), _("taken as it is")),
    Repair("mended_above", "Q10", _("several faults in one place"), _("mended together")),
    Repair(
        "refused_message",
        "Q11",
        _("a message that cannot be mended"),
        _("the standard's error, in the spelling of its version"),
    ),
    Repair("repeated_message", "Q12", _("the same message again"), _("the same answer, no second effect")),
    Repair(
        "repeated_event",
        "Q12",
        _("an event of a transaction again, under a new message id"),
        _("accepted again, kept once"),
    ),
    Repair("clock_not_set", "Q13", _("its clock was never set"), _("the time of receipt")),
    Repair("clock_ahead", "Q13", _("its clock is far ahead"), _("the time of receipt")),
    Repair("no_zone", "Q13", _("times without a zone"), _("taken as UTC")),
    Repair("odd_time", "Q13", _("times in another form"), _("read"), off=True),
    Repair("bad_time", "Q13", _("a time that is none"), _("the time of receipt")),
    Repair("no_time", "Q13", _("no time"), _("the time of receipt")),
    Repair(
        "clock_offset", "Q14", _("its clock is steadily off"), _("schedules are sent in its own time, a minute early")
    ),
    Repair(
        "remote_start_in_vain",
        "Q17",
        _("a remote start is accepted and no charge begins"),
        _("counted; nothing is repeated by itself"),
    ),
    Repair(
        "meter_trigger",
        "Q26",
        _("it sends no meter values by itself"),
        _("it is asked for them while it charges"),
        on=True,
    ),
)
"""Counters of what is mended, in the order of the list of quirks."""

FLAGS: tuple[Repair, ...] = (
    Repair(
        "start_register_rebased",
        "Q15",
        _("its register starts at 0 and then shows its whole life"),
        _("energy counts from the first reading"),
    ),
    Repair(
        "register_*",
        "Q15",
        _("a register that goes back, or below its start"),
        _("energy is never taken away; billing is marked"),
    ),
    Repair("negative_register", "Q15", _("a register below zero"), _("left out")),
    Repair("stop_before_start", "Q15", _("the stop comes before its start"), _("joined once the start is there")),
    Repair("event_after_end", "Q15", _("events after the end"), _("kept; ended stays ended")),
    Repair("missing:*", "Q16", _("numbers missing among its events"), _("listed, filled when they come late")),
    Repair("*", "Q15", _("something odd about a transaction"), _("marked on the transaction")),
)
"""Marks on transactions, which are not counted but kept with each."""

OTHERS: tuple[Repair, ...] = (
    Repair("unasked_answer", "", _("an answer nobody waits for"), _("dropped")),
    Repair("unanswered_call", "", _("no answer to a call of ours"), _("given up in time; the next one goes out")),
    Repair("gave_way", "", _("a call of ours gave way to an emergency"), _("its late answer is dropped")),
    Repair("busy", "", _("more calls than it may have open"), _("refused; it tries again")),
    Repair("flood", "", _("more messages than allowed"), _("read more slowly, then cut")),
    Repair("limit_refused", "Q18", _("a limit is refused in every way we know"), _("alarm; counted with its maximum")),
    Repair("limit_ignored", "Q21", _("a limit is accepted and not followed"), _("told in another way, then isolated")),
    Repair("resume_tried", "Q21", _("it did not go on after a pause"), _("the resume recipe, a few times")),
    Repair(
        "fail_safe_refused",
        "Q18",
        _("it takes no fail-safe limit"),
        _("alarm; counted with its maximum when nobody leads it"),
    ),
    Repair("schedule_differs", "Q22", _("its schedule says more than it was told"), _("noted; the meter decides")),
    Repair(
        "refused_*", "Q24", _("a question of our own set-up is refused"), _("remembered for the model where it may be")
    ),
    Repair("said_before_accepted", "", _("it talks before it is accepted"), _("the standard's security error")),
    Repair("database_behind", "", _("the database is behind"), _("a status was not kept")),
    Repair("car_exceeds_limit", "", _("a car plans to take more than it may"), _("noted; its limit holds")),
    Repair("too_deep", "Q9", _("a message nested too deeply"), _("refused")),
    Repair("data_transfer", "", _("a message of its maker"), _("kept in the message log")),
    Repair("security_*", "", _("a security event"), _("counted and logged")),
)
"""Counters that are no repairs."""

MODES = ("auto", "on", "off")
FORCED = tuple(r for r in REPAIRS if r.name and (r.off or r.on))


def known(counter: str) -> Repair | None:
    """What a counter means; None for one nobody has put into words."""
    exact = next((r for r in (*REPAIRS, *OTHERS) if r.name and r.name == counter), None)
    return exact or next((r for r in (*REPAIRS, *OTHERS) if r.fits(counter)), None)


def flag(name: str) -> Repair:
    """What a mark on a transaction means."""
    return next(r for r in FLAGS if r.fits(name))


def forbidden(overrides: Mapping[str, str]) -> frozenset[str]:
    """The names of repairs a person has forced off."""
    return frozenset(name for name, mode in overrides.items() if mode == "off")


def is_forbidden(counter: str, names: Iterable[str]) -> bool:
    repair = known(counter)
    return counter in names or (repair is not None and repair.name in names)


def table() -> str:
    """The list as `docs/quirks.md` shows it."""
    lines = ["| quirk | counter | what is seen | what is done |", "|---|---|---|---|"]
    for repair in sorted((*REPAIRS, *FLAGS, *OTHERS), key=_place):
        forced = " (can be forbidden)" if repair.off else " (can be asked for)" if repair.on else ""
        name = f"`{repair.name}`" if repair.name else "–"
        lines.append(f"| {repair.quirk or '–'} | {name} | {repair.seen} | {repair.done}{forced} |")
    return "\n".join(lines)


def capability_table() -> str:
    """What can be known of a model, as `docs/quirks.md` shows it."""
    lines = ["| quirk | capability | what it says | values |", "|---|---|---|---|"]
    for c in CATALOGUE:
        values = ", ".join(f"`{v}` {words}" for v, words in c.choices) or ("yes or no" if c.is_yes_or_no else "")
        lines.append(f"| {c.quirk} | `{c.name}` | {c.label}: {c.meaning} | {values or 'number or list'} |")
    return "\n".join(lines)


def _place(repair: Repair) -> tuple[int, int]:
    number = int(repair.quirk[1:]) if repair.quirk else 99
    return number, [*REPAIRS, *FLAGS, *OTHERS].index(repair)
