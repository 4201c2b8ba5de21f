"""What can go wrong with a device on a wire. Each message names the device or line, what was asked, and why."""

from __future__ import annotations


class DeviceError(Exception):
    """A device did not do what was asked. The message is fit to be read by an operator."""


class DeviceUnreachable(DeviceError):
    """Nobody answers: no connection, or no answer in time."""


class DeviceRefused(DeviceError):
    """The device answered with a Modbus exception. `code` 2 is an illegal address, 3 an illegal value."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class AnswerNotValid(DeviceError):
    """An answer came that is not what was asked for, or that cannot be true."""


class NotAllowed(DeviceError):
    """We refuse to do this ourselves: the device has no such ability, or it is not confirmed."""


class SettingsError(DeviceError):
    """The device's record cannot be used as it is. The message names the field and the way out."""
