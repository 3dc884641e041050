"""The Python in the pages about families runs."""

import doctest
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("page", ["families.md", "saving.md", "add-a-family.md", "encoders.md"])
def test_page_runs(page):
    failed, tried = doctest.testfile(str(DOCS / page), module_relative=False)
    assert tried
    assert not failed
