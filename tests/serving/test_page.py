"""The page at / in a real Chromium: images in, bars out, and no request to another machine."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving.conftest import png, serving

from residua.serving.limits import Limits
from residua.serving.service import Model
from residua.system.words import percent

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
]

PUT = """([kind, files]) => {
  const data = new DataTransfer();
  for (const [name, text] of files) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    data.items.add(new File([bytes], name, { type: "image/png" }));
  }
  const event = kind === "paste"
    ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true })
    : new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
  document.body.dispatchEvent(event);
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, client: httpx.Client) -> Iterator[Any]:
    """The page; it may write no error to its console and ask no other server for anything."""
    context = browser.new_context()
    page, problems = context.new_page(), []
    address = str(client.base_url)

    def note(text: str) -> None:
        if "status of 422" not in text:  # Chromium notes each of them
            problems.append(text)

    page.on("console", lambda message: message.type == "error" and note(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "request",
        lambda request: request.url.startswith((address, "blob:")) or problems.append(request.url),
    )
    page.goto(address)
    yield page
    context.close()
    assert problems == []


def screenshot(page: Any, name: str) -> None:
    """Save what is seen, if RESIDUA_SCREENSHOTS names a folder."""
    if folder := os.environ.get("RESIDUA_SCREENSHOTS"):
        page.screenshot(path=str(Path(folder, f"{name}.png")), full_page=True)


def wait_for(page: Any, count: int) -> None:
    """Until `count` images have their bars or their error."""
    from playwright.sync_api import expect

    expect(page.locator("#results li")).to_have_count(count)
    expect(page.locator("#results .soft")).to_have_count(0)  # "Predicting"


def test_chosen_images_get_the_predictions_of_the_server(
    page: Any, client: httpx.Client, images: list[Path]
) -> None:
    page.set_input_files("#choose", [str(file) for file in images])
    wait_for(page, 3)
    cards = page.locator("#results li")
    assert cards.locator("h2").all_inner_texts() == ["a.jpg", "b.png", "c.jpg"]
    for number, file in enumerate(images[:2]):
        kind = {"Content-Type": "image/png"}
        (row,) = client.post("/predict?top=5", content=file.read_bytes(), headers=kind).json()
        names = [entry["class"] for entry in row["top"]]
        assert cards.nth(number).locator("dt").all_inner_texts() == names
        percents = [percent(entry["probability"], 1).replace(" ", "") for entry in row["top"]]
        assert cards.nth(number).locator("dd:not(.bar)").all_inner_texts() == percents
        widths = (
            cards.nth(number)
            .locator(".bar div")
            .evaluate_all("all => all.map((x) => x.offsetWidth / x.parentElement.offsetWidth)")
        )
        expected = [entry["probability"] for entry in row["top"]]
        assert widths == pytest.approx(expected, abs=0.01)
    assert "is not an image" in cards.nth(2).locator(".error").inner_text()
    assert page.locator("#status").inner_text() == "2 of 3 images predicted"
    screenshot(page, "several")


def test_a_button_shows_where_the_evidence_is_and_the_photo_again(
    page: Any, model: Model, images: list[Path]
) -> None:
    from playwright.sync_api import expect

    page.set_input_files("#choose", str(images[0]))
    wait_for(page, 1)
    image, button = page.locator("#results img"), page.get_by_role("button", name="evidence")
    photo, best = image.get_attribute("src"), page.locator("#results dt").first.inner_text()
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    expect(image).to_have_attribute("alt", f"Heat map: the evidence for {best}")
    side = model.preprocessing.size
    page.wait_for_function(f"document.querySelector('#results img').naturalWidth === {side}")
    screenshot(page, "evidence")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "false")
    assert image.get_attribute("src") == photo


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_an_image_can_be_dropped_or_pasted(kind: str, page: Any) -> None:
    page.evaluate(PUT, [kind, [["x.png", base64.b64encode(png(30, 20)).decode()]]])
    wait_for(page, 1)
    assert page.locator("#results dt").count() == 5
    first = page.locator("#results dt").first.inner_text()
    assert page.locator("#status").inner_text().startswith(f"{first}, ")


def test_the_keyboard_reaches_every_control(page: Any, images: list[Path]) -> None:
    page.set_input_files("#choose", str(images[0]))
    wait_for(page, 1)
    page.evaluate("document.activeElement.blur()")
    reached = []
    for _ in range(5):
        page.keyboard.press("Tab")
        name = "document.activeElement.id || document.activeElement.textContent"
        reached.append(page.evaluate(name))
    assert reached == ["choose", "camera", "clear", "Show the evidence", "API"]
    page.locator("#clear").focus()
    page.keyboard.press("Enter")
    assert page.locator("#results li").count() == 0
    assert page.evaluate("document.activeElement.id") == "choose"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_everything_in_both_schemes(
    scheme: str, page: Any, images: list[Path]
) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.emulate_media(color_scheme=scheme)
    page.set_input_files("#choose", [str(file) for file in images])
    wait_for(page, 3)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    paper, ink = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
        ".map((text) => text.match(/\\d+/g).reduce((sum, part) => sum + Number(part), 0))"
    )
    assert (paper > 600 > 200 > ink) if scheme == "light" else (paper < 200 < 600 < ink)
    screenshot(page, f"phone-{scheme}")


def test_a_prediction_set_and_unknown_are_shown(page: Any) -> None:
    top = [{"class": "owl", "probability": 0.5}, {"class": "egret", "probability": 0.4}]
    rows = [
        {"file": "image1", "top": top, "error": None, "set": ["owl", "egret"], "unknown": None},
        {"file": "image1", "top": top, "error": None, "set": [], "unknown": "far from training"},
    ]
    page.route("**/predict?*", lambda route: route.fulfill(json=[rows.pop(0)]))
    for count in (1, 2):
        page.evaluate(PUT, ["drop", [["x.png", base64.b64encode(png(30, 20)).decode()]]])
        wait_for(page, count)
    unknown, with_set = page.locator("#results li").all()
    assert "Prediction set: owl, egret" in with_set.inner_text()
    assert "Unknown: far from training" in unknown.inner_text()
    assert "Prediction set" not in unknown.inner_text()
    screenshot(page, "set")


def test_the_page_waits_and_sends_again_where_the_server_is_busy(
    browser: Any, model: Model, images: list[Path]
) -> None:
    with serving(model, Limits(requests=1)) as busy:
        page = browser.new_page()
        page.goto(str(busy.base_url))
        page.set_input_files("#choose", [str(file) for file in images[:2]] * 2)
        wait_for(page, 4)
        assert page.locator("#results .error").count() == 0
        page.close()


def test_the_page_requests_a_missing_token_and_states_the_limit(
    browser: Any, model: Model, images: list[Path]
) -> None:
    with serving(model, Limits(bytes=300_000), token="geheim") as guarded:
        page = browser.new_page()
        page.goto(str(guarded.base_url))
        assert "At most 292 kB each" in page.inner_text("footer")
        assert page.locator("a").count() == 0  # a browser cannot send the token to /docs
        page.set_input_files("#choose", str(images[0]))
        wait_for(page, 1)
        assert "enter it above" in page.locator("#results .error").inner_text()
        page.keyboard.type("geheim")  # the field has the focus
        page.set_input_files("#choose", str(images[0]))
        wait_for(page, 2)
        assert page.locator("#results dt").count() == 5
        assert page.locator("#status").inner_text() == "1 of 2 images predicted"
        page.close()
