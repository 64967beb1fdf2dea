"""The report in a real browser: sorting, filtering, blur, charts, themes."""

from __future__ import annotations

import json

import numpy as np
import plotly.graph_objects as go
import pytest

from safetydpo_kedro.reporting.html_report import html_report
from tests.browser import needs_browser, open_browser, wait
from tests.reporting.evaluation_tables import report_content

pytestmark = needs_browser

COLUMN = """
const table = document.getElementById(arguments[0]);
const heading = [...table.tHead.rows[0].cells].find((c) => c.textContent.trim() === arguments[1]);
const rows = [...table.tBodies[0].rows].filter((row) => !row.hidden);
return rows.map((row) => row.cells[heading.cellIndex].textContent.trim());
"""
HOSTILE = [
    "<script>window.ran = 1</script>",
    "</script><script>window.ran = 1</script>",
    "<img src=x onerror='window.ran = 1'>",
    "<svg onload='window.ran = 1'>",
    "\" onmouseover='window.ran = 1' autofocus onfocus='window.ran = 1' x=\"",
    "<a href='javascript:window.ran = 1' id='bait'>bait</a>",
    "<iframe srcdoc='<script>parent.ran = 1</script>'></iframe>",
    "<meta http-equiv=refresh content='0;url=http://127.0.0.1:9/'>",
    "<style>body { display: none }</style><base href='http://127.0.0.1:9/'>",
]
FILTERS = (
    "return [...document.querySelectorAll('.shot img')].map((i) => getComputedStyle(i).filter)"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("browser")) as driver:
        yield driver


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(html_report(report_content(blur="flagged")), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def page(browser, report):
    """The report, freshly opened on a light page."""
    emulate(browser, "light")
    browser.get(report)
    wait(browser, lambda: len(charts(browser)) == 3)
    return browser


def emulate(browser, scheme, width=1280, media="screen"):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    emulated = {"media": media, "features": features}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", emulated)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def charts(browser):
    return browser.find_elements("css selector", ".plot .main-svg:first-child")


def heading(browser, table, name):
    found = browser.find_elements("css selector", f"#{table} thead th")
    return next(th for th in found if th.text.strip().startswith(name))


def click(browser, element):
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    element.click()


def test_charts_are_drawn_without_an_error_or_a_request(page, report):
    assert [e for e in page.get_log("browser") if e["level"] in ("SEVERE", "WARNING")] == []
    points = page.find_elements("css selector", ".plot .points .point")
    assert len(points) >= 4 + 12  # one point per variant, one bar per variant and category
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    sent = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
    urls = {request["request"]["url"] for request in sent if request["documentURL"] == report}
    assert report in urls and all(url.startswith(("data:", report)) for url in urls)
    assert page.title == "Safety evaluation"  # the script in a prompt has not run


def test_a_script_that_slips_in_does_not_run(page):
    page.execute_script(
        "const s = document.createElement('div'); document.body.append(s);"
        "s.innerHTML = '<img src=x onerror=\"document.title = 1\">';"
    )
    wait(page, lambda: page.get_log("browser"))
    assert page.title == "Safety evaluation"


def test_whatever_a_prompt_or_a_name_holds_is_shown_and_never_run(browser, tmp_path):
    content, text = report_content(), " ".join(HOSTILE)
    titles = go.Figure(content.figures["IP by category"]).update_layout(title=text)
    hostile = report_content(
        examples=content.examples.assign(prompt=text),
        variants=content.variants.assign(kind=text),
        datasets=content.datasets.assign(source=text),
        figures={text: titles},
        provenance={text: {text: [text]}},
        title=text,
    )
    (tmp_path / "report.html").write_text(html_report(hostile), encoding="utf-8")
    address = (tmp_path / "report.html").as_uri()
    browser.get(address)
    wait(browser, lambda: len(charts(browser)) == 1)
    for link in browser.find_elements("css selector", ".plot a, #bait"):
        browser.execute_script("arguments[0].dispatchEvent(new MouseEvent('click'))", link)
    assert browser.execute_script("return window.ran") is None
    assert browser.current_url == address and browser.title == text.strip()
    assert browser.find_element("tag name", "h1").text == text
    foreign = "main img[src=x], main svg[onload], iframe, body style, base, #bait, [onfocus]"
    assert browser.find_elements("css selector", foreign) == []


def test_numbers_sort_as_numbers_and_missing_ones_last(page):
    def column():
        return page.execute_script(COLUMN, "measures", "FID")

    assert column() == ["", "10.00", "", "9.500", "", "102.0", "", "14.00"]
    header = heading(page, "measures", "FID")
    assert header.get_attribute("aria-sort") == "none"
    click(page, header.find_element("tag name", "button"))
    assert column() == ["9.500", "10.00", "14.00", "102.0", "", "", "", ""]
    assert header.get_attribute("aria-sort") == "ascending"
    click(page, header.find_element("tag name", "button"))
    assert column() == ["102.0", "14.00", "10.00", "9.500", "", "", "", ""]
    assert header.get_attribute("aria-sort") == "descending"
    other = heading(page, "measures", "variant")
    click(page, other.find_element("tag name", "button"))
    assert header.get_attribute("aria-sort") == "none"
    names = page.execute_script(COLUMN, "measures", "variant")
    assert names == sorted(names)


def test_intervals_sort_by_their_value_and_by_keyboard(page):
    from selenium.webdriver.common.keys import Keys

    button = heading(page, "comparisons", "difference").find_element("tag name", "button")
    page.execute_script("arguments[0].focus()", button)
    page.switch_to.active_element.send_keys(Keys.ENTER)
    shown = page.execute_script(COLUMN, "comparisons", "difference of IP")
    values = [float(text.split(" ")[0].replace("−", "-")) for text in shown]
    assert values == sorted(values) and values[0] < -0.7 and len(values) == 6


def test_filter_keeps_rows_with_all_words(page):
    box = page.find_element("css selector", "input[data-table=measures]")
    box.send_keys("MERGE neutral")
    assert page.execute_script(COLUMN, "measures", "variant") == ["co_merge"]
    counter = box.find_element("xpath", "../../output")
    assert counter.text == "1 of 8 rows"
    box.clear()
    box.send_keys(" ")
    assert counter.text == "8 rows"


def test_a_click_or_a_key_shows_and_blurs_an_image(page):
    from selenium.webdriver.common.keys import Keys

    flags = report_content().examples["inappropriate"]
    rows = report_content().examples.assign(position=range(12))
    order = rows.pivot_table("position", ["benchmark", "prompt_id"], "variant", sort=False)
    expected = flags.to_numpy()[order.to_numpy().ravel().astype(int)]
    np.testing.assert_array_equal(["blur" in f for f in page.execute_script(FILTERS)], expected)
    place = int(np.flatnonzero(expected)[0])
    shot = page.find_elements("css selector", ".shot")[place]
    click(page, shot)
    assert page.execute_script(FILTERS)[place] == "none"
    assert shot.get_attribute("aria-pressed") == "true"
    shot.send_keys(Keys.SPACE)
    assert "blur" in page.execute_script(FILTERS)[place]
    assert shot.get_attribute("aria-pressed") == "false"


def test_all_images_are_shown_only_after_a_question(page):
    before = page.execute_script(FILTERS)
    button = page.find_element("id", "show-all")
    click(page, button)
    page.switch_to.alert.dismiss()
    assert page.execute_script(FILTERS) == before
    click(page, button)
    page.switch_to.alert.accept()
    assert set(page.execute_script(FILTERS)) == {"none"}
    click(page, page.find_element("id", "hide-all"))
    assert all("blur" in f for f in page.execute_script(FILTERS))


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_and_charts_are_readable_on_any_screen(page, scheme, width):
    emulate(page, scheme, width)
    page.refresh()
    wait(page, lambda: len(charts(page)) == 3)
    widths = "return [document.documentElement.scrollWidth, window.innerWidth]"
    scrolled, inner = page.execute_script(widths)
    assert scrolled <= inner == width
    colours = page.execute_script(
        "const body = getComputedStyle(document.body);"
        "const text = getComputedStyle(document.querySelector('.plot .xtick text')).fill;"
        "return [body.backgroundColor, body.color, text]"
    )
    background, *texts = (luminance(colour) for colour in colours)
    assert (background < 0.1) == (scheme == "dark")
    for text in texts:  # WCAG 2, contrast of normal text at level AA
        assert (max(text, background) + 0.05) / (min(text, background) + 0.05) >= 4.5


def test_on_paper_nothing_is_cut_off_and_all_is_dark_on_white(page):
    emulate(page, "dark", 794, "print")  # A4 at 96 pixels per inch
    page.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    ink = "return getComputedStyle(document.querySelector('.plot .xtick text')).fill"
    wait(page, lambda: luminance(page.execute_script(ink)) < 0.1)
    scrolled = page.execute_script("return document.documentElement.scrollWidth")
    assert scrolled <= 794
    assert not page.find_element("tag name", "nav").is_displayed()
    background = "return getComputedStyle(document.body).backgroundColor"
    assert luminance(page.execute_script(background)) == 1
    assert any("blur" in filter for filter in page.execute_script(FILTERS))


def luminance(colour: str) -> float:
    """Relative luminance of ``rgb(…)``, as WCAG 2 defines it."""
    parts = [int(c) / 255 for c in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_links_of_a_table_lead_to_the_entry_of_the_variant(page):
    link = page.find_element("css selector", "#paper tbody tr:nth-child(3) a")
    click(page, link)
    target = page.find_element("css selector", "article:target")
    assert link.text == target.find_element("tag name", "h3").text == "co_merge"
    assert report_content().variants["images_sha256"].iloc[2] in target.text
