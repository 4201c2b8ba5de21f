"""Lists, reservations, firmware and logs of a simulated station, in the words of OCPP 2.0.1."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from ocpp.v201 import call, call_result

from csms.simulator.dialect import Dialect, answers

if TYPE_CHECKING:
    from csms.simulator.station import SimulatedStation


class Chores201(Dialect):
    """Mixed into the 2.0.1 station."""

    @answers("GetLocalListVersion")
    def on_get_local_list_version(self, **_: Any) -> Any:
        return call_result.GetLocalListVersion(self.station.chores.list_version)

    @answers("SendLocalList")
    def on_send_local_list(
        self,
        version_number: int,
        update_type: str,
        local_authorization_list: list[dict[str, Any]] | None = None,
        **_: Any,
    ) -> Any:
        entries = [(said["id_token"]["id_token"], said.get("id_token_info")) for said in local_authorization_list or []]
        said = self.station.chores.take_list(version_number, update_type == "Differential", entries)
        return call_result.SendLocalList(said)

    @answers("ReserveNow")
    def on_reserve_now(
        self,
        id: int,
        expiry_date_time: str,
        id_token: dict[str, Any],
        evse_id: int | None = None,
        group_id_token: dict[str, Any] | None = None,
        **_: Any,
    ) -> Any:
        until = datetime.fromisoformat(expiry_date_time)
        group = (group_id_token or {}).get("id_token", "")
        said = self.station.chores.reserve(id, evse_id or 0, id_token["id_token"], group, until)
        return call_result.ReserveNow(said)

    @answers("CancelReservation")
    def on_cancel_reservation(self, reservation_id: int, **_: Any) -> Any:
        known = self.station.chores.cancel(reservation_id)
        return call_result.CancelReservation("Accepted" if known else "Rejected")

    @staticmethod
    def tell_reservation(station: SimulatedStation, number: int, word: str) -> None:
        station.post(lambda: call.ReservationStatusUpdate(number, word))

    @answers("UpdateFirmware")
    def on_update_firmware(self, request_id: int, firmware: dict[str, Any], **_: Any) -> Any:
        signed = bool(firmware.get("signature") and firmware.get("signing_certificate"))
        self.station.chores.update(firmware["location"], request_id, signed=signed)
        return call_result.UpdateFirmware("Accepted")

    @staticmethod
    def tell_firmware(station: SimulatedStation, word: str, request_id: int | None) -> None:
        station.post(lambda: call.FirmwareStatusNotification(word, request_id))

    @answers("GetLog")
    def on_get_log(self, log: dict[str, Any], log_type: str, request_id: int, **_: Any) -> Any:
        if self.station.chores.no_log:
            return call_result.GetLog("Rejected")
        name = f"{self.station.identity}-{log_type}.txt"
        self.station.chores.send_log(log["remote_location"], request_id, name)
        return call_result.GetLog("Accepted", filename=name)

    @staticmethod
    def tell_log(station: SimulatedStation, word: str, request_id: int | None) -> None:
        station.post(lambda: call.LogStatusNotification(word, request_id))
