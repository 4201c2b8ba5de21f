"""The pages in a real browser: a driver on a phone, an operator at a screen that lives, keyboard, words, contrast."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from datetime import timedelta
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from csms.models import ChargingStation
from smartcharging.models import ChargingGoal
from tests.webapp import campus as world
from tests.webapp.serving import served

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

BRUSSELS = ZoneInfo("Europe/Brussels")
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
DESK = {"viewport": {"width": 1280, "height": 900}}
expect.set_options(timeout=15_000)  # a busy machine is no failure
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("Chromium is missing, and CI must look at the pages")
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGS)
        yield browser
        browser.close()


@pytest.fixture
def server() -> Iterator[str]:
    with served() as url:
        yield url


class Visit:
    """Somebody's browser window, logged in; it remembers what went wrong in the console."""

    def __init__(self, browser: Browser, url: str, user: User | None, **how: object) -> None:
        self.context: BrowserContext = browser.new_context(base_url=url, **how)
        if user is not None:
            client = Client()
            client.force_login(user)
            cookie = {"name": "sessionid", "value": client.cookies["sessionid"].value, "url": url}
            self.context.add_cookies([cookie])
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(15_000)
        self.trouble: list[str] = []
        self.page.on("console", lambda m: self.trouble.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))


@pytest.fixture
def visit(chromium: Browser, server: str) -> Iterator:
    open_ones: list[Visit] = []

    def begin(user: User | None, **how: object) -> Visit:
        open_ones.append(Visit(chromium, server, user, **how))
        return open_ones[-1]

    yield begin
    for one in open_ones:
        one.context.close()


def a_full_site() -> world.Campus:
    campus = world.campus()
    world.day_of_quarters(campus, hours=8)
    world.prices(campus)
    world.plan(campus)
    world.month_peak(campus)
    world.live_power(campus)
    world.connect(*campus.evses[:5])
    world.goal(campus, promised_wh=27_000, promise_reason="time")
    ChargingStation.objects.create(identity="NEW-1", site=campus.site)
    world.publish(campus)
    return campus


# -- the driver


def test_a_driver_changes_departure_on_a_phone(visit):
    campus = world.campus()
    world.live_power(campus)
    world.connect(campus.evses[0])
    window = visit(campus.driver, **PHONE)
    page = window.page

    page.goto("/driver/")
    page.get_by_label("Tomorrow").check()
    page.get_by_label("Departure time").fill("06:45")
    page.get_by_role("button", name="More").tap()
    page.get_by_role("button", name="Save").tap()

    expect(page.get_by_text("Noted. The plan is being made anew.")).to_be_visible()
    goal = ChargingGoal.objects.get(transaction=campus.transaction)
    leave = goal.departure.astimezone(BRUSSELS)
    assert (leave.hour, leave.minute) == (6, 45)
    assert leave.date() == timezone.now().astimezone(BRUSSELS).date() + timedelta(days=1)
    assert goal.range_km == 125
    expect(page.get_by_label("Departure time")).to_have_value("06:45")
    assert window.trouble == []


def test_a_wish_that_cannot_be_is_told_where_it_was_typed(visit):
    campus = world.campus()
    page = visit(campus.driver, **PHONE).page
    page.goto("/driver/")
    page.get_by_label("Today").check()
    page.get_by_label("Departure time").fill("00:00")
    page.get_by_role("button", name="Save").tap()
    expect(page.get_by_role("alert")).to_contain_text("Must lie in the future")
    expect(page.get_by_label("Departure time")).to_have_value("00:00")


def test_the_form_works_without_javascript(visit):
    campus = world.campus()
    page = visit(campus.driver, java_script_enabled=False, **PHONE).page
    page.goto("/driver/")
    page.get_by_label("kWh energy").check()
    page.get_by_label("How much").fill("22")
    page.get_by_label("Any time").check()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Noted.")).to_be_visible()
    assert ChargingGoal.objects.get(transaction=campus.transaction).energy_wh == 22_000


def test_the_drivers_power_follows_without_touching_the_form(visit):
    campus = world.campus()
    world.live_power(campus, 7_360)
    world.connect(campus.evses[0])
    page = visit(campus.driver, **PHONE).page
    page.goto("/driver/")
    page.get_by_label("How much").fill("77")
    world.live_power(campus, 3_700)
    expect(page.get_by_text("3.7 kW")).to_be_visible()
    expect(page.get_by_label("How much")).to_have_value("77")


def test_somebody_logs_in_with_the_keyboard_alone(visit):
    campus = world.campus()
    page = visit(None, **DESK).page
    page.goto("/accounts/login/")
    page.get_by_label("Username").focus()
    page.keyboard.type("olga")
    page.keyboard.press("Tab")
    page.keyboard.type(world.PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Campus Noord")
    assert page.url.endswith(f"/sites/{campus.site.pk}/")


# -- the operator


def test_the_dashboard_follows_a_published_picture(visit):
    campus = a_full_site()
    window = visit(campus.operator, **DESK)
    page = window.page
    page.goto(f"/sites/{campus.site.pk}/")
    expect(page.locator("#live-state")).to_contain_text("live")
    pv, grid, battery = (page.locator(f'[data-flow="{name}"]') for name in ("pv", "grid", "battery"))
    expect(pv.locator("[data-value]")).to_have_text("24.6 kW")
    expect(grid).not_to_have_class("outward")

    world.publish(campus, flows={"pv_w": -31_400.0, "grid_w": -5_000.0, "battery_w": -2_500.0}, price_eur_per_mwh=-12.0)

    expect(pv.locator("[data-value]")).to_have_text("31.4 kW")
    expect(grid.locator("[data-word]")).to_have_text("giving back")
    expect(grid).to_have_class("of-grid moving outward")
    expect(battery.locator("[data-word]")).to_have_text("discharging · 64 %")
    expect(battery).to_have_class("of-battery moving")
    expect(page.get_by_text("-1.2 ct/kWh")).to_be_visible()  # the server's part of the page follows too
    expect(page.locator(".chart canvas").first).to_be_visible()
    assert window.trouble == []


def test_what_an_operator_has_opened_stays_open_while_the_page_lives(visit):
    campus = a_full_site()
    window = visit(campus.operator, **DESK)
    page = window.page
    page.goto(f"/sites/{campus.site.pk}/")
    page.get_by_text("Why, and what would help").first.click()
    expect(page.locator("details[open]").get_by_text("27.0 kWh of 32.0 kWh will be charged by")).to_be_visible()

    ChargingGoal.objects.update(promised_wh=26_000)
    world.publish(campus)

    expect(page.locator("details[open]").get_by_text("26.0 kWh of 32.0 kWh will be charged by")).to_be_visible()
    assert window.trouble == []


def test_unknown_values_are_called_unknown_and_stand_still(visit):
    campus = a_full_site()
    page = visit(campus.operator, **DESK).page
    page.goto(f"/sites/{campus.site.pk}/")
    battery = page.locator('[data-flow="battery"]')
    expect(battery).to_have_class("of-battery moving outward")

    world.publish(campus, flows={"battery_w": None, "battery_soc": None, "pv_w": 0.0})

    expect(battery).to_have_class("of-battery unknown")
    expect(battery.locator("[data-value]")).to_have_text("unknown")
    expect(battery.locator("[data-word]")).to_have_text("")
    expect(page.locator('[data-flow="pv"]')).to_have_class("of-pv")
    expect(page.locator('[data-flow="pv"] [data-value]')).to_have_text("0 W")
    expect(page.locator("#flow desc")).to_contain_text("Battery unknown")


def test_old_values_are_told_with_their_age(visit):
    campus = a_full_site()
    page = visit(campus.operator, **DESK).page
    page.goto(f"/sites/{campus.site.pk}/")
    expect(page.locator("#live-state")).to_contain_text("live")
    expect(page.locator("#live-banner")).to_be_hidden()

    world.publish(campus, at=(timezone.now() - timedelta(minutes=3)).isoformat())

    expect(page.locator("#live-banner")).to_contain_text("No new values for 3 min")
    expect(page.locator("#live-state")).to_contain_text("not live")
    world.publish(campus)
    expect(page.locator("#live-banner")).to_be_hidden()


def test_a_lost_stream_is_told_with_the_age_of_the_data_and_opened_again(visit):
    campus = a_full_site()
    world.publish(campus, at=(timezone.now() - timedelta(minutes=2)).isoformat())
    page = visit(campus.operator, **DESK).page
    page.route("**/live/**", lambda route: route.abort())

    page.goto(f"/sites/{campus.site.pk}/")

    expect(page.locator("#live-banner")).to_contain_text("The live connection is lost. You see values of 2 min ago")
    expect(page.locator("#live-state")).to_contain_text("not live")
    page.unroute("**/live/**")
    world.publish(campus, flows={"pv_w": -1_500.0})
    expect(page.locator('[data-flow="pv"] [data-value]')).to_have_text("1.5 kW")
    expect(page.locator("#live-banner")).to_be_hidden()


def test_who_wants_no_motion_gets_none(visit):
    campus = a_full_site()
    page = visit(campus.operator, reduced_motion="reduce", **DESK).page
    page.goto(f"/sites/{campus.site.pk}/")
    stream = page.locator('[data-flow="pv"] .stream')
    expect(stream).to_have_css("animation-name", "none")


def test_an_empty_site_explains_itself(visit):
    site = world.bare_site()
    window = visit(world.operator_of(site), **PHONE)
    window.page.goto(f"/sites/{site.pk}/")
    expect(window.page.get_by_text("Nothing was measured today")).to_be_visible()
    expect(window.page.get_by_text("No charging stations yet")).to_be_visible()
    assert window.trouble == []


# -- for everybody

UNNAMED = """() => [...document.querySelectorAll('input:not([type=hidden]), select, textarea, button, a, summary')]
  .filter((e) => e.offsetParent !== null)
  .filter((e) => !((e.labels && e.labels.length && [...e.labels].some((l) => l.textContent.trim()))
    || e.getAttribute('aria-label') || e.textContent.trim()))
  .map((e) => e.outerHTML.slice(0, 120))"""

PALE = """() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgba = (css) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = css; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = ([r, g, b]) => { const f = [r, g, b].map((v) => { v /= 255;
    return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * f[0] + 0.7152 * f[1] + 0.0722 * f[2]; };
  const behind = (e) => { for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor);
    if (c[3] > 250) return c; } return rgba(getComputedStyle(document.body).backgroundColor); };
  const pale = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility() || e.closest('svg') || e.closest('.hidden-visually, .skip, script')) continue;
    const [a, b] = [light(rgba(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) pale.push(`${ratio.toFixed(2)} ${e.textContent.trim().slice(0, 40)}`);
  }
  return pale;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_readable_named_and_fits_a_small_phone(visit, scheme):
    campus = a_full_site()
    operator, driver = (
        visit(user, color_scheme=scheme, **PHONE | {"viewport": {"width": 360, "height": 740}})
        for user in (campus.operator, campus.driver)
    )
    site = f"/sites/{campus.site.pk}/"
    rounds = [
        (operator, ["/sites/", site, f"{site}report/?span=week", "/accounts/2fa/", "/accounts/password/change/"]),
        (driver, ["/driver/", "/driver/history/", "/driver/offline/"]),
    ]
    for window, paths in rounds:
        for path in paths:
            page = window.page
            page.goto(path)
            assert page.evaluate(UNNAMED) == [], path
            assert page.evaluate(PALE) == [], path
            too_wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert too_wide <= 0, f"{path} is {too_wide} px too wide"
            assert page.locator("html").get_attribute("lang") == "en"
        assert window.trouble == []


def test_the_keyboard_reaches_the_content_first(visit):
    campus = a_full_site()
    page = visit(campus.operator, **DESK).page
    page.goto(f"/sites/{campus.site.pk}/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="To the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Report")).to_be_focused()


def test_a_dutch_browser_reads_dutch(visit):
    campus = a_full_site()
    window = visit(campus.operator, locale="nl-BE", **PHONE)
    window.page.goto(f"/sites/{campus.site.pk}/")
    assert window.page.locator("html").get_attribute("lang") == "nl"
    expect(window.page.locator('[data-flow="pv"] [data-value]')).to_have_text("24,6 kW")
    expect(window.page.get_by_role("heading", name="Laadplaatsen")).to_be_visible()


def test_the_worker_shows_a_page_when_the_phone_is_offline(visit):
    campus = world.campus()
    page = visit(campus.driver, **PHONE).page
    page.goto("/driver/")
    page.evaluate("navigator.serviceWorker.ready")
    page.wait_for_function("navigator.serviceWorker.controller !== null")
    page.context.set_offline(True)
    page.goto("/driver/history/")
    expect(page.get_by_text("Your phone is offline")).to_be_visible()
