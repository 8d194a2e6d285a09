"""The pages of docs/integrations do what they show: all their examples, one after another, print what stands below them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from applications.conftest import lacking
from paths import ROOT

PAGES = sorted((ROOT / "docs" / "integrations").glob("*.md"))
CODE, TEXT = (re.compile(rf"^```{kind}\n(.*?)^```$", re.DOTALL | re.MULTILINE) for kind in ("python", "text"))
SCORE = re.compile(r"\d\.\d+")
ROUNDING = 0.02  # of a score in another machine's last digits, shown with two


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "index.md"], ids=lambda page: page.stem)
def test_the_page_prints_what_it_shows(page: Path, tmp_path: Path) -> None:
    text = page.read_text("utf-8")
    code, shown = "\n\n".join(CODE.findall(text)), "".join(TEXT.findall(text))
    assert code
    if missing := lacking(code):
        pytest.skip(f"needs {', '.join(missing)}: make test-applications")
    script = tmp_path / "example.py"
    script.write_text(code, "utf-8")
    done = subprocess.run(
        [sys.executable, "-X", "utf8", str(script)],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert SCORE.sub("", done.stdout) == SCORE.sub("", shown)
    printed, expected = ([float(score) for score in SCORE.findall(output)] for output in (done.stdout, shown))
    assert printed == pytest.approx(expected, abs=ROUNDING)


def test_every_page_is_in_the_overview() -> None:
    overview = (ROOT / "docs" / "integrations" / "index.md").read_text("utf-8")
    assert {page.name for page in PAGES} == {"index.md", *re.findall(r"\]\(([\w-]+\.md)\)", overview)}
