"""Longer work of the demo: its stations keep a list of the cards, and new firmware waits to be rolled out to them."""

from __future__ import annotations

from django.core.files.base import ContentFile

from csms.firmware_images import digest_of
from csms.workflow_models import FirmwareImage, FirmwareRollout, LocalListPolicy
from meters.models import Site

VENDOR, VERSION = "Laadplein demo", "1.1"
IMAGE = b"simulated firmware 1.1\n" + bytes(200_000)


def fill(site: Site) -> None:
    """What is there already stays as people left it."""
    LocalListPolicy.objects.get_or_create(site=site)
    if FirmwareImage.objects.filter(site=site).exists():
        return
    digest = digest_of([IMAGE])
    image = FirmwareImage(site=site, vendor=VENDOR, version=VERSION, sha256=digest.hex, size=digest.size)
    image.file.save(f"simulated-{VERSION}.bin", ContentFile(IMAGE))
    FirmwareRollout.objects.create(image=image, site=site, name=f"Firmware {VERSION}", at_once=3)
