"""The page at / in headless Chromium: what a person sees and can do, on a large screen and a small one."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn  # noqa: F401  needs the extra server
from playwright import sync_api

from raskrank import Reranker
from serving import BEST, DOCUMENTS, QUERY, Server, serving

pytestmark = pytest.mark.filterwarnings("ignore")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
LARGE, SMALL = {"width": 1280, "height": 900}, {"width": 375, "height": 800}
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
KEY = "en-hemmelig-nokkel"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


class Page:
    """A tab, and what its browser complained of or asked other hosts for."""

    def __init__(self, context: Any, server: Server) -> None:
        self.tab = context.new_page()
        self.complaints: list[str] = []
        self.elsewhere: list[str] = []
        self.tab.on("console", lambda message: self.complaints.append(message.text))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on("request", lambda request: self.elsewhere.extend({request.url} - {_within(server.url, request.url)}))
        self.tab.goto(server.url)
        self.tab.wait_for_selector("#model:not(:empty)")

    def rank(self, query: str, documents: str) -> None:
        self.tab.fill("#query", query)
        self.tab.fill("#documents", documents)
        self.tab.keyboard.press("Control+Enter")
        self.tab.wait_for_selector("#results:not([aria-busy]) li")

    def texts(self, selector: str) -> list[str]:
        return [str(text) for text in self.tab.locator(selector).all_text_contents()]


def _within(site: str, url: str) -> str | None:
    return url if url.startswith(f"{site}/") else None


@pytest.fixture(params=[(LARGE, "light", "en-GB"), (SMALL, "dark", "nb-NO")], ids=["large", "small"])
def page(request: pytest.FixtureRequest, browser: Any, server: Server) -> Iterator[Page]:
    viewport, scheme, locale = request.param
    context = browser.new_context(
        viewport=viewport, color_scheme=scheme, locale=locale, permissions=["clipboard-read", "clipboard-write"]
    )
    made = Page(context, server)
    yield made
    assert (made.complaints, made.elsewhere) == ([], [])
    wide = made.tab.locator("body").evaluate("body => body.ownerDocument.documentElement.scrollWidth")
    assert wide <= viewport["width"]  # nothing to scroll sideways
    context.close()


def test_documents_are_ranked_with_scores(page: Page) -> None:
    page.rank(QUERY, "\n".join(DOCUMENTS))
    hits = Reranker.load().rank(QUERY, DOCUMENTS)
    assert page.texts("#results .text") == [DOCUMENTS[hit.index] for hit in hits]
    assert page.texts("#results .score") == [f"{hit.score:.4f}" for hit in hits]
    assert page.texts("#results .place") == [f"#{hit.index + 1}" for hit in hits]
    assert f"{hits.tokens} token" in page.texts("#status")[0]


def test_blank_lines_separate_documents_where_there_are_any(page: Page) -> None:
    page.rank(QUERY, "første linje\nandre linje\n\n \nandre dokument\n")
    assert sorted(page.texts("#results .text")) == ["andre dokument", "første linje\nandre linje"]


def test_the_best_part_of_a_long_document_is_marked(page: Page) -> None:
    answer, filler = "Han kan programmere i Python og Java.", "Om båter 🎉 og hav og vind. " * 200
    text = f"{filler}{answer} {filler}".strip()
    page.rank(QUERY, f"{text}\n\nKort 🎉 tekst")
    hit = Reranker.load().rank(QUERY, [text, "Kort 🎉 tekst"], long_documents="windows")[0]
    assert hit.index == 0
    assert hit.span is not None
    assert page.texts("mark") == [text[slice(*hit.span)]]
    assert "programmere i Python" in page.texts("mark")[0]
    assert page.texts("#results .text")[0] == text
    shown = page.tab.locator("#results .text").first.evaluate(
        "box => [box.getBoundingClientRect().top, box.querySelector('mark').getBoundingClientRect().top, box.clientHeight]"
    )
    assert 0 <= shown[1] - shown[0] < shown[2]  # scrolled to within its box


def test_what_is_not_read_to_its_end_is_said(page: Page) -> None:
    page.tab.uncheck("#windows")
    page.rank(QUERY, "Om båter og hav og vind. " * 400)
    assert page.texts("mark") == []
    assert page.texts(".note") in (["not read to its end"], ["ikke lest til enden"])


def test_texts_stay_texts(page: Page) -> None:
    page.rank(HOSTILE, f"{HOSTILE}\n\n{HOSTILE * 300}")
    assert page.tab.title() == "Raskrank · nano"
    assert page.tab.locator("#results img, #results script, #curl *").count() == 0
    assert HOSTILE in page.texts("#results .text")


def test_the_curl_line_gives_the_same(page: Page) -> None:
    page.rank('it\'s "quoted" \\ $HOME `x` æøå', "\n".join([*DOCUMENTS, "it's 'quoted'"]))
    (line,) = page.texts("#curl")
    done = subprocess.run(["bash", "-c", f"{line} --silent"], capture_output=True, encoding="utf-8", check=True)
    rows = json.loads(done.stdout)["results"]
    assert [f"{row['relevance_score']:.4f}" for row in rows] == page.texts("#results .score")
    page.tab.click("#copy")
    assert page.tab.evaluate("navigator.clipboard.readText()") == line


def test_it_speaks_both_languages(page: Page) -> None:
    words = {"en": ("Rank", "Documents", "3 documents in"), "nb": ("Ranger", "Dokumenter", "3 dokumenter på")}
    page.rank(QUERY, "\n".join(DOCUMENTS))
    first = page.tab.get_attribute("html", "lang")
    for language in (first, "nb" if first == "en" else "en"):
        button, label, status = words[language]
        assert page.tab.get_attribute("html", "lang") == language
        assert page.texts("#rank") == [button]
        assert page.texts("label[for=documents]") == [label]
        assert page.texts("#status")[0].startswith(status)
        page.tab.click("#language")


def test_the_keyboard_is_enough(page: Page) -> None:
    page.tab.focus("#query")
    page.tab.keyboard.type(QUERY)
    page.tab.keyboard.press("Tab")
    page.tab.keyboard.insert_text("\n".join(DOCUMENTS))
    page.tab.keyboard.press("Tab")
    page.tab.keyboard.press("Space")  # windows off
    assert not page.tab.is_checked("#windows")
    page.tab.keyboard.press("Tab")
    page.tab.keyboard.press("Enter")
    page.tab.wait_for_selector("#results li")
    assert page.texts("#results .text")[0] == DOCUMENTS[BEST]
    outline = page.tab.locator("#rank").evaluate("button => getComputedStyle(button).outlineStyle")
    assert outline == "solid"  # one sees where one is


def test_every_control_has_a_name_and_is_large_enough_to_touch(page: Page) -> None:
    page.rank(QUERY, "\n".join(DOCUMENTS))
    for control in page.tab.locator("button, input, textarea").all():
        named = control.evaluate("one => (one.labels?.length ? one.labels[0].textContent : one.textContent).trim()")
        box = control.bounding_box()
        assert named
        assert box is not None
        assert box["height"] >= 18


def test_nothing_typed_is_an_error_at_its_field(page: Page) -> None:
    page.tab.click("#rank")
    assert page.tab.locator("#problem").is_visible()
    assert page.tab.evaluate("document.activeElement.id") == "query"
    page.tab.fill("#query", QUERY)
    page.tab.click("#rank")
    assert page.tab.evaluate("document.activeElement.id") == "documents"


def test_refusals_of_the_server_are_said(browser: Any, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(KEY)
    with serving("--api-key-file", str(file), "--max-documents", "3") as server:
        page = Page(browser.new_context(viewport=LARGE, locale="en-GB"), server)
        page.tab.fill("#query", QUERY)
        page.tab.fill("#documents", "\n".join(DOCUMENTS))
        page.tab.click("#rank")
        page.tab.wait_for_selector("#problem:not([hidden])")
        assert page.texts("#problem") == ["The API key is not valid."]
        page.tab.fill("#key", KEY)
        page.rank(QUERY, "\n".join(DOCUMENTS))
        assert page.texts("#results .text")[0] == DOCUMENTS[BEST]
        assert KEY not in page.texts("#curl")[0]
        page.tab.fill("#documents", "\n".join(["x"] * 4))
        page.tab.click("#rank")
        page.tab.wait_for_selector("#problem:not([hidden])")
        assert page.texts("#problem") == ["The server refused (422): documents: batch size 4 > maximum allowed batch size 3"]
        page.tab.close()
