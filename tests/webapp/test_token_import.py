"""Id tokens from CSV: looked at first, kept in whole or not at all, each bad row named by line and column."""

from __future__ import annotations

import html

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from csms.models import IdToken
from smartcharging.models import TokenProfile
from tests.webapp.office import Office

pytestmark = pytest.mark.django_db

IMPORT = "/admin/csms/idtoken/import/"
PROCESS = "/admin/csms/idtoken/process_import/"


def entered(user) -> Client:
    client = Client()
    client.force_login(user)
    return client


def preview(client: Client, office: Office, text: str | bytes, site: int | None = None):
    content = text.encode() if isinstance(text, str) else text
    file = SimpleUploadedFile("cards.csv", content, content_type="text/csv")
    return client.post(IMPORT, {"site": site or office.site.pk, "format": "0", "import_file": file})


def confirm(client: Client, previewed):
    form = previewed.context["confirm_form"]
    return client.post(PROCESS, {name: form.initial.get(name) or "" for name in form.fields}, follow=True)


@pytest.fixture
def operator(office):
    return entered(office.cast["operator"])


GOOD = """value,profile,label,status,expires_at,type,driver
CAFE01,fleet,Van 1,accepted,2036-01-01T00:00:00Z,ISO14443,dries
CAFE02,,Visitor,Blocked,2036-01-01,,
"""


def test_a_good_file_is_shown_and_then_kept(office, operator, django_capture_on_commit_callbacks):
    shown = preview(operator, office, GOOD)
    assert not IdToken.objects.filter(value__startswith="CAFE").exists(), "a preview keeps nothing"

    with django_capture_on_commit_callbacks(execute=True):
        done = confirm(operator, shown)

    assert "2 new" in str(next(iter(done.context["messages"])))
    first, second = IdToken.objects.filter(value__startswith="CAFE").order_by("value")
    assert (first.site, first.label, first.driver.username) == (office.site, "Van 1", "dries")
    assert first.token_profile.profile.name == "fleet"
    assert (second.status, second.expires_at.isoformat()) == ("blocked", "2035-12-31T23:00:00+00:00")  # midnight there
    assert not TokenProfile.objects.filter(id_token=second).exists()


def test_semicolons_and_a_byte_order_mark_are_read_too(office, operator):
    confirm(operator, preview(operator, office, "\ufeff" + GOOD.replace(",", ";")))

    assert IdToken.objects.filter(value__startswith="CAFE").count() == 2


def test_a_second_import_changes_and_leaves_out_what_the_file_does_not_speak_of(office, operator):
    confirm(operator, preview(operator, office, "value,status\n04a1b2c3d4,blocked\nNEW,\n"))

    token = IdToken.objects.get(pk=office.token.pk)
    assert (token.value, token.status, token.label) == ("04A1B2C3D4", "blocked", "Dirk's card")
    assert token.token_profile.profile.name == "fleet"
    assert IdToken.objects.filter(value="NEW").exists()


def test_only_the_profile_changes(office, operator):
    confirm(operator, preview(operator, office, f"value,profile\n{office.token.value},\n"))

    assert not TokenProfile.objects.filter(id_token=office.token).exists()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (",fleet,accepted,", "is empty"),
        ("CAFE09,nobody,accepted,", "no user profile “nobody”"),
        ("CAFE09,,welcome,", "“welcome” is none of accepted, blocked, expired, invalid"),
        ("CAFE09,,accepted,soon", "“soon” is no moment"),
        ("CAFE01,,accepted,", "is also in line 2"),
        ("cafe01,,accepted,", "is also in line 2"),
        ("X" * 40 + ",,accepted,", "at most 36 characters"),
    ],
)
def test_one_bad_row_and_nothing_is_kept(office, operator, row, said):
    text = f"value,profile,status,expires_at\nCAFE01,,accepted,\n{row}\n"

    shown = preview(operator, office, text)

    assert "confirm_form" not in shown.context
    assert said in html.unescape(shown.content.decode())
    (bad,) = shown.context["result"].invalid_rows
    assert bad.number == 2
    assert not IdToken.objects.filter(value__istartswith="CAFE").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "The submitted file is empty"),
        ("card,label\nA,B\n", "“value” is not among them"),
        ("value,colour\nA,red\n", "Unknown column: colour"),
        (b"\xff\xfe\x00value", "trying to read file"),
        ("value\n", "No valid data"),
        ("value,label\n" + "A" * 3_000_000, "larger than"),
    ],
    ids=["empty", "no value", "unknown column", "not text", "only a heading", "huge"],
)
def test_a_file_that_is_no_list_of_cards_is_refused_in_words(office, operator, text, said):
    shown = preview(operator, office, text)

    assert shown.status_code == 200
    assert "confirm_form" not in shown.context
    assert said in html.unescape(shown.content.decode())
    assert "Traceback" not in shown.content.decode()


def test_a_file_goes_to_a_site_one_operates(office, operator):
    shown = preview(operator, office, GOOD, site=office.elsewhere.pk)

    assert "site" in shown.context["form"].errors


def test_the_second_step_cannot_be_turned_to_another_site(office, operator):
    form = preview(operator, office, GOOD).context["confirm_form"]
    body = {name: form.initial.get(name) or "" for name in form.fields}

    operator.post(PROCESS, {**body, "site": office.elsewhere.pk})

    assert not IdToken.objects.filter(value__startswith="CAFE").exists()


def test_a_file_that_became_wrong_since_the_preview_keeps_nothing(office, operator):
    shown = preview(operator, office, GOOD)
    office.profile.delete()

    done = confirm(operator, shown)

    assert "Nothing was imported" in str(next(iter(done.context["messages"])))
    assert not IdToken.objects.filter(value__startswith="CAFE").exists()


def test_a_second_confirmation_asks_for_the_file_again(office, operator):
    shown = preview(operator, office, GOOD)
    confirm(operator, shown)

    again = confirm(operator, shown)

    assert "no longer here" in str(list(again.context["messages"])[-1])


@pytest.mark.parametrize(("name", "status"), [("viewer", 403), ("driver", 302)])
def test_who_may_not_admit_cards_may_not_import_them(office, name, status):
    assert entered(office.cast[name]).get(IMPORT).status_code == status


def test_an_export_holds_ones_own_cards_and_no_formulas(office, operator):
    IdToken.objects.create(site=office.elsewhere, value="THEIRS")
    IdToken.objects.create(site=office.site, value="EVIL", label="=1+1")

    text = operator.post("/admin/csms/idtoken/export/", {"format": "0"}).content.decode()

    assert text.splitlines()[0] == "value,type,status,expires_at,group,label,driver,profile"
    assert "04A1B2C3D4" in text
    assert "fleet" in text
    assert "THEIRS" not in text
    assert "'=1+1" in text
