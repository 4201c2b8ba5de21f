"""Lists, reservations, firmware and logs of a simulated station, in the words of OCPP 1.6."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from ocpp.v16 import call, call_result

from csms.simulator.dialect import Dialect, answers

if TYPE_CHECKING:
    from csms.simulator.station import SimulatedStation


class Chores16(Dialect):
    """Mixed into the 1.6 station."""

    @answers("GetLocalListVersion")
    def on_get_local_list_version(self, **_: Any) -> Any:
        return call_result.GetLocalListVersion(self.station.chores.list_version)

    @answers("SendLocalList")
    def on_send_local_list(
        self,
        list_version: int,
        update_type: str,
        local_authorization_list: list[dict[str, Any]] | None = None,
        **_: Any,
    ) -> Any:
        entries = [(said["id_tag"], said.get("id_tag_info")) for said in local_authorization_list or []]
        return call_result.SendLocalList(
            self.station.chores.take_list(list_version, update_type == "Differential", entries)
        )

    @answers("ReserveNow")
    def on_reserve_now(
        self,
        connector_id: int,
        expiry_date: str,
        id_tag: str,
        reservation_id: int,
        parent_id_tag: str | None = None,
        **_: Any,
    ) -> Any:
        until = datetime.fromisoformat(expiry_date)
        said = self.station.chores.reserve(reservation_id, connector_id, id_tag, parent_id_tag or "", until)
        return call_result.ReserveNow(said)

    @answers("CancelReservation")
    def on_cancel_reservation(self, reservation_id: int, **_: Any) -> Any:
        known = self.station.chores.cancel(reservation_id)
        return call_result.CancelReservation("Accepted" if known else "Rejected")

    @staticmethod
    def tell_reservation(station: SimulatedStation, number: int, word: str) -> None:
        """1.6 has no word for it; the place's status says it."""

    @answers("UpdateFirmware")
    def on_update_firmware(self, location: str, **_: Any) -> Any:
        self.station.chores.update(location, None, signed=False)
        return call_result.UpdateFirmware()

    @answers("SignedUpdateFirmware")
    def on_signed_update_firmware(self, request_id: int, firmware: dict[str, Any], **_: Any) -> Any:
        self.station.chores.update(firmware["location"], request_id, signed=True)
        return call_result.SignedUpdateFirmware("Accepted")

    @staticmethod
    def tell_firmware(station: SimulatedStation, word: str, request_id: int | None) -> None:
        """Plain firmware has fewer words than signed firmware."""
        if request_id is not None:
            station.post(lambda: call.SignedFirmwareStatusNotification(word, request_id))
        else:
            station.post(lambda: call.FirmwareStatusNotification(word))

    @answers("GetDiagnostics")
    def on_get_diagnostics(self, location: str, **_: Any) -> Any:
        if self.station.chores.no_log:
            return call_result.GetDiagnostics()
        name = f"{self.station.identity}-diagnostics.txt"
        self.station.chores.send_log(location, None, name)
        return call_result.GetDiagnostics(name)

    @answers("GetLog")
    def on_get_log(self, log: dict[str, Any], log_type: str, request_id: int, **_: Any) -> Any:
        if self.station.chores.no_log:
            return call_result.GetLog("Rejected")
        name = f"{self.station.identity}-{log_type}.txt"
        self.station.chores.send_log(log["remote_location"], request_id, name)
        return call_result.GetLog("Accepted", name)

    @staticmethod
    def tell_log(station: SimulatedStation, word: str, request_id: int | None) -> None:
        if request_id is not None:
            station.post(lambda: call.LogStatusNotification(word, request_id))
            return
        plain = {"UploadFailure": "UploadFailed"}.get(word, word)
        station.post(lambda: call.DiagnosticsStatusNotification(plain))
