"""The ledger as an operator sees it: ends that wait for him, what a charge cost, and the table for his bookkeeper."""

from __future__ import annotations

import csv
import io
from datetime import timedelta
from decimal import Decimal

import openpyxl
import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from csms.billing_models import ChargingTariff
from csms.ledger_models import UnmatchedEnd
from csms.models import Transaction
from tests.webapp.office import Office

pytestmark = pytest.mark.django_db


def entered(office: Office, name: str) -> Client:
    client = Client()
    user = office.cast[name]
    assert user is not None
    client.force_login(user)
    return client


def end_of(office: Office) -> UnmatchedEnd:
    return UnmatchedEnd.objects.get(station=office.station)


def act(client: Client, end: UnmatchedEnd, action: str, **fields: object):
    asked = {"_form_submitted": "True", **fields}
    return client.post(reverse(f"admin:csms_unmatchedend_{action}", args=[end.pk]), asked, follow=True)


def test_an_operator_attaches_an_unmatched_end_to_the_charge_it_belongs_to(office: Office) -> None:
    charge, end = office.campus.transaction, end_of(office)
    page = entered(office, "operator").get(reverse("admin:csms_unmatchedend_change", args=[end.pk]))
    assert "transactionId" in page.content.decode()

    act(entered(office, "operator"), end, "attach", charge=charge.pk)

    end.refresh_from_db()
    charge.refresh_from_db()
    assert (end.state, end.transaction, end.settled_by) == ("attached", charge, office.cast["operator"])
    assert charge.ended_at == end.at


def test_an_operator_dismisses_an_end_with_a_reason_and_only_once(office: Office) -> None:
    end = end_of(office)
    act(entered(office, "operator"), end, "dismiss", reason="")
    end.refresh_from_db()
    assert end.state == "waiting"
    act(entered(office, "operator"), end, "dismiss", reason="the fitter's test")
    again = act(entered(office, "operator"), end, "dismiss", reason="once more")
    end.refresh_from_db()
    assert (end.state, end.reason) == ("dismissed", "the fitter's test")
    assert "settled this end already" in str(next(iter(again.context["messages"])))


def test_a_viewer_looks_and_a_stranger_sees_nothing(office: Office) -> None:
    end = end_of(office)
    act(entered(office, "viewer"), end, "dismiss", reason="no")
    act(entered(office, "stranger"), end, "dismiss", reason="no")
    end.refresh_from_db()
    assert end.state == "waiting"
    listed = entered(office, "stranger").get(reverse("admin:csms_unmatchedend_changelist"))
    assert list(listed.context["cl"].result_list) == []


def test_a_charges_page_says_what_was_strange_and_what_it_cost(office: Office) -> None:
    charge = office.campus.transaction
    Transaction.objects.filter(pk=charge.pk).update(
        flags=["register_reset"], gaps=[[3, 3], [7, 9]], cost=Decimal("4.10"), currency="EUR",
        cost_lines=[{"kind": "energy", "quantity": 8.2, "unit": "kWh", "unit_price": 0.5, "amount": 4.1}],
    )  # fmt: skip
    page = entered(office, "viewer").get(reverse("admin:csms_transaction_change", args=[charge.pk])).content.decode()
    for words in ("its segments are added up", "3, 7–9", "4.10 EUR", "8.2 kWh"):
        assert words in page
    odd = entered(office, "viewer").get(reverse("admin:csms_transaction_changelist"), {"odd": "gaps"})
    assert charge.transaction_id in odd.content.decode()


def exported(office: Office, name: str, form: int) -> bytes:
    address = reverse("admin:csms_transaction_export")
    answer = entered(office, name).post(address, {"format": form})
    return b"".join(answer.streaming_content) if answer.streaming else answer.content


def test_charges_go_out_as_csv_and_as_excel(office: Office) -> None:
    charge = office.campus.transaction
    Transaction.objects.filter(pk=charge.pk).update(
        transaction_id="=1+1", ended_at=charge.started_at + timedelta(hours=1), cost=Decimal("4.10"), currency="EUR",
        tariff={"vat": 0.71, "terms": {}}, flags=["no_zone"],
    )  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(exported(office, "viewer", 0).decode())))
    assert len(rows) == 1
    row = rows[0]
    assert (row["transaction_id"], row["energy_kwh"], row["cost"], row["vat"]) == ("'=1+1", "11.4", "4.1", "0.71")
    assert row["started_at"].endswith(("+01:00", "+02:00")) and row["flags"] == "no_zone"

    sheet = openpyxl.load_workbook(io.BytesIO(exported(office, "viewer", 1))).active
    assert [c.value for c in sheet[1]][:3] == ["transaction_id", "site", "station"]
    assert sheet.max_row == 2

    assert list(csv.DictReader(io.StringIO(exported(office, "stranger", 0).decode()))) == []


def test_an_installer_writes_the_tariff_of_his_own_site(office: Office) -> None:
    tariff = ChargingTariff.objects.get(site=office.site)
    fields = {
        "site": office.site.pk, "active": "on", "currency": "EUR", "vat_percent": "21", "vat_included": "on",
        "kind": "clock", "price_per_kwh": "0.42", "market_factor": "1", "market_markup_per_kwh": "0.15",
        "start_fee": "0", "idle_fee_per_minute": "0.05", "idle_grace_minutes": "20", "minimum": "0",
        "hours-TOTAL_FORMS": "1", "hours-INITIAL_FORMS": "0", "hours-0-order": "0", "hours-0-days": "67",
        "hours-0-from_time": "22:00", "hours-0-until_time": "06:00", "hours-0-price_per_kwh": "0.20",
    }  # fmt: skip
    address = reverse("admin:csms_chargingtariff_change", args=[tariff.pk])
    entered(office, "operator").post(address, fields)
    tariff.refresh_from_db()
    assert tariff.price_per_kwh == Decimal("0.35")
    entered(office, "installer").post(address, {**fields, "hours-0-days": "68"})
    assert tariff.hours.count() == 0
    entered(office, "installer").post(address, fields)
    tariff.refresh_from_db()
    assert (tariff.price_per_kwh, tariff.hours.get().days) == (Decimal("0.42"), "67")


def test_rest_tells_the_cost_of_a_running_charge_and_of_one_that_ended(office: Office) -> None:
    charge = office.campus.transaction
    address = f"/api/v1/transactions/{charge.pk}/"
    client = entered(office, "superuser")
    running = client.get(address).json()
    assert running["cost"] is None
    assert running["running_cost"]["cost"] == pytest.approx(11.4 * 0.35, abs=0.01)
    assert running["running_cost"]["cost_lines"][0]["kind"] == "energy"
    Transaction.objects.filter(pk=charge.pk).update(
        ended_at=timezone.now(), cost=Decimal("3.99"), currency="EUR", gaps=[[1, 2]], flags=["no_zone"]
    )
    ended = client.get(address).json()
    assert (ended["cost"], ended["currency"], ended["gaps"], ended["flags"]) == (3.99, "EUR", [[1, 2]], ["no_zone"])
    assert ended["running_cost"] is None
    assert client.get("/api/v1/transactions/", {"check_before_billing": "true"}).json()["count"] == 0
