"""The device model of a simulated 2.0.1 station: its components and variables, read, written and reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from csms.simulator.metering import MEASURANDS

if TYPE_CHECKING:
    from csms.simulator.station import SimulatedStation

Place = tuple[str, int, str, str]
"""Component, EVSE (0: the station), variable, instance of the variable."""


@dataclass
class Variable:
    """`obeyed` takes a new value, and raises `ValueError` for one it cannot take."""

    value: str
    mutability: str = "ReadOnly"
    data_type: str = "string"
    unit: str | None = None
    obeyed: Callable[[str], None] | None = None
    reboot: bool = False
    most: int | None = None


def factory_variables(station: SimulatedStation) -> dict[Place, Variable]:
    def number(name: str, unit: str | None = "s", least: float = 0) -> Variable:
        def obey(value: str) -> None:
            amount = float(value)
            if amount < least:
                raise ValueError(value)
            setattr(station, name, amount)

        return Variable(f"{getattr(station, name):.0f}", "ReadWrite", "integer", unit, obey)

    def measurands(value: str) -> None:
        names = tuple(n.strip() for n in value.split(",") if n.strip())
        if not all(n in MEASURANDS for n in names):
            raise ValueError(value)
        station.measurands = names

    def truth(value: str) -> None:
        if value.lower() not in ("true", "false"):
            raise ValueError(value)

    def boolean(value: bool) -> Variable:
        return Variable(str(value).lower(), "ReadWrite", "boolean", None, truth)

    def fixed(value: object, kind: str = "string", unit: str | None = None) -> Variable:
        text = str(value).lower() if isinstance(value, bool) else str(value)
        return Variable(text, "ReadOnly", kind, unit)

    sampled = Variable(",".join(station.measurands), "ReadWrite", "MemberList", None, measurands)
    model: dict[Place, Variable] = {
        ("ChargingStation", 0, "VendorName", ""): fixed(station.vendor),
        ("ChargingStation", 0, "Model", ""): fixed(station.model),
        ("ChargingStation", 0, "SerialNumber", ""): fixed(station.identity),
        ("ChargingStation", 0, "FirmwareVersion", ""): fixed(station.firmware),
        ("ChargingStation", 0, "AvailabilityState", ""): fixed("Available", "OptionList"),
        ("ChargingStation", 0, "SupplyPhases", ""): fixed(station.phases, "integer"),
        ("OCPPCommCtrlr", 0, "HeartbeatInterval", ""): number("heartbeat_s", least=1),
        ("OCPPCommCtrlr", 0, "NetworkConfigurationPriority", ""): Variable("1", "ReadWrite", "SequenceList"),
        ("OCPPCommCtrlr", 0, "MessageAttempts", "TransactionEvent"): Variable("3", "ReadWrite", "integer"),
        ("OCPPCommCtrlr", 0, "MessageAttemptInterval", "TransactionEvent"): Variable("1", "ReadWrite", "integer", "s"),
        ("OCPPCommCtrlr", 0, "MessageTimeout", "Default"): fixed(f"{station.call_timeout_s:.0f}", "integer", "s"),
        ("OCPPCommCtrlr", 0, "WebSocketPingInterval", ""): Variable("20", "ReadWrite", "integer", "s", reboot=True),
        ("TxCtrlr", 0, "EVConnectionTimeOut", ""): number("connection_timeout_s"),
        ("TxCtrlr", 0, "TxStartPoint", ""): fixed("Authorized,EVConnected", "MemberList"),
        ("TxCtrlr", 0, "TxStopPoint", ""): fixed("Authorized,EVConnected", "MemberList"),
        ("TxCtrlr", 0, "StopTxOnInvalidId", ""): boolean(True),
        ("TxCtrlr", 0, "StopTxOnEVSideDisconnect", ""): boolean(True),
        ("AuthCtrlr", 0, "AuthorizeRemoteStart", ""): boolean(False),
        ("AuthCtrlr", 0, "LocalAuthorizeOffline", ""): boolean(True),
        ("AuthCtrlr", 0, "LocalPreAuthorize", ""): boolean(False),
        ("AuthCtrlr", 0, "OfflineTxForUnknownIdEnabled", ""): boolean(True),
        ("SampledDataCtrlr", 0, "Enabled", ""): boolean(True),
        ("SampledDataCtrlr", 0, "TxUpdatedInterval", ""): number("meter_interval_s"),
        ("SampledDataCtrlr", 0, "TxUpdatedMeasurands", ""): sampled,
        ("SampledDataCtrlr", 0, "TxStartedMeasurands", ""): Variable(MEASURANDS[0], "ReadWrite", "MemberList"),
        ("SampledDataCtrlr", 0, "TxEndedMeasurands", ""): Variable(MEASURANDS[0], "ReadWrite", "MemberList"),
        ("SampledDataCtrlr", 0, "TxEndedInterval", ""): Variable("0", "ReadWrite", "integer", "s"),
        ("AlignedDataCtrlr", 0, "Interval", ""): number("clock_aligned_s"),
        ("AlignedDataCtrlr", 0, "Measurands", ""): Variable(MEASURANDS[0], "ReadWrite", "MemberList"),
        ("SmartChargingCtrlr", 0, "Enabled", ""): fixed(True, "boolean"),
        ("SmartChargingCtrlr", 0, "ProfileStackLevel", ""): fixed(station.max_stack_level, "integer"),
        ("SmartChargingCtrlr", 0, "RateUnit", ""): fixed(",".join(u.value for u in station.units), "MemberList"),
        ("SmartChargingCtrlr", 0, "PeriodsPerSchedule", ""): fixed(48, "integer"),
        ("SmartChargingCtrlr", 0, "Entries", "ChargingProfiles"): fixed(20, "integer"),
        ("SmartChargingCtrlr", 0, "ACPhaseSwitchingSupported", ""): fixed(station.phase_switching, "boolean"),
        ("DeviceDataCtrlr", 0, "ItemsPerMessage", "GetVariables"): fixed(50, "integer"),
        ("DeviceDataCtrlr", 0, "ItemsPerMessage", "GetReport"): fixed(50, "integer"),
        ("DeviceDataCtrlr", 0, "BytesPerMessage", "GetVariables"): fixed(65_536, "integer"),
        ("LocalAuthListCtrlr", 0, "Available", ""): fixed(True, "boolean"),
        ("LocalAuthListCtrlr", 0, "Enabled", ""): boolean(True),
        ("LocalAuthListCtrlr", 0, "Entries", ""): Variable(
            "0", "ReadOnly", "integer", most=station.chores.most_entries
        ),
        ("LocalAuthListCtrlr", 0, "ItemsPerMessage", ""): fixed(station.chores.most_items, "integer"),
        ("LocalAuthListCtrlr", 0, "BytesPerMessage", ""): fixed(16_384, "integer"),
        ("ReservationCtrlr", 0, "Available", ""): fixed(True, "boolean"),
        ("ReservationCtrlr", 0, "Enabled", ""): boolean(True),
        ("OCPPCommCtrlr", 0, "FileTransferProtocols", ""): fixed("HTTP,HTTPS", "MemberList"),
        ("ClockCtrlr", 0, "DateTime", ""): fixed("", "dateTime"),
        ("SecurityCtrlr", 0, "SecurityProfile", ""): fixed(1, "integer"),
        ("SecurityCtrlr", 0, "OrganizationName", ""): Variable("Simulated", "ReadWrite"),
        ("SecurityCtrlr", 0, "BasicAuthPassword", ""): Variable(
            "", "WriteOnly", "string", None, lambda v: setattr(station, "password", v)
        ),
    }
    for n, outlet in station.outlets.items():
        power = outlet.max_w or outlet.max_a * 230 * outlet.phases
        model[("EVSE", n, "AvailabilityState", "")] = fixed("Available", "OptionList")
        model[("EVSE", n, "SupplyPhases", "")] = fixed(outlet.phases, "integer")
        model[("EVSE", n, "Power", "")] = fixed(f"{power:.0f}", "decimal", "W")
        model[("Connector", n, "ConnectorType", "")] = fixed("cCCS2" if outlet.dc else "sType2")
        model[("Connector", n, "AvailabilityState", "")] = fixed("Available", "OptionList")
    return model


def find(model: dict[Place, Variable], said: dict[str, Any]) -> tuple[str, Place | None]:
    """Look one up, without regard to case: (Accepted | UnknownComponent | UnknownVariable, where)."""
    component, variable = said["component"], said["variable"]
    name, evse = component["name"].lower(), (component.get("evse") or {}).get("id", 0)
    wanted = variable["name"].lower(), (variable.get("instance") or "").lower()
    here = [place for place in model if place[0].lower() == name and place[1] == evse]
    if not here:
        return "UnknownComponent", None
    for place in here:
        if (place[2].lower(), place[3].lower()) == wanted:
            return "Accepted", place
    return "UnknownVariable", None


def write(model: dict[Place, Variable], said: dict[str, Any]) -> str:
    """Set one variable's actual value; the attributeStatus to answer."""
    status, place = find(model, said)
    if place is None:
        return status
    if said.get("attribute_type", "Actual") != "Actual":
        return "NotSupportedAttributeType"
    variable = model[place]
    if variable.mutability == "ReadOnly":
        return "Rejected"
    try:
        if variable.obeyed is not None:
            variable.obeyed(said["attribute_value"])
        elif variable.data_type == "integer":
            int(said["attribute_value"])
    except ValueError:
        return "Rejected"
    variable.value = said["attribute_value"]
    return "RebootRequired" if variable.reboot else "Accepted"


def report(model: dict[Place, Variable], only: Callable[[Place, Variable], bool]) -> list[dict[str, Any]]:
    """The reportData of NotifyReport. A write-only value is not told."""
    found = []
    for place, variable in model.items():
        if not only(place, variable):
            continue
        component, evse, name, instance = place
        where: dict[str, Any] = {"name": component}
        if evse:
            where["evse"] = {"id": evse, "connector_id": 1} if component == "Connector" else {"id": evse}
        attribute = {"type": "Actual", "mutability": variable.mutability}
        if variable.mutability != "WriteOnly":
            attribute["value"] = variable.value
        found.append(
            {
                "component": where,
                "variable": {"name": name, "instance": instance or None},
                "variable_attribute": [attribute],
                "variable_characteristics": {
                    "data_type": variable.data_type,
                    "unit": variable.unit,
                    "max_limit": variable.most,
                    "supports_monitoring": False,
                },
            }
        )
    return found
