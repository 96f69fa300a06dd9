"""The examples in the documents run, and assert what they say."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = ["crates/zerobuffer-python/README.md", "docs/python.md", "README.md"]


def examples():
    """Whole programs: they begin with their imports."""
    for page in PAGES:
        for number, code in enumerate(re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.S)):
            if code.startswith("import"):
                yield pytest.param(code, id=f"{page}:{number}")


def test_every_page_has_an_example():
    assert len(list(examples())) >= len(PAGES)


@pytest.mark.parametrize("code", list(examples()))
def test_the_example_runs(name, code):
    assert "image-proc" in code
    scope = {}
    exec(code.replace("image-proc", name), scope)
    scope["client"].close()
    scope["server"].stop()
