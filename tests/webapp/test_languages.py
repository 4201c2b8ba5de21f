"""The Dutch words: the compiled catalogue is the readable one, and placeholders survive translation."""

from __future__ import annotations

import gettext
import re
from ast import literal_eval
from pathlib import Path

from django.conf import settings

CATALOGUE = Path(settings.LOCALE_PATHS[0]) / "nl" / "LC_MESSAGES"
_ENTRY = re.compile(r'^msgid (".*")\n(?:msgid_plural (".*")\n)?((?:msgstr.*\n?)+)', re.MULTILINE)
_PLACE = re.compile(r"%\(\w+\)[0-9]*[a-z]|\{\w+\}")


def entries() -> list[tuple[str, str, list[str]]]:
    """(singular, plural, translations) of each entry of the readable catalogue but its head."""
    text = (CATALOGUE / "django.po").read_text()
    found = []
    for one, many, said in _ENTRY.findall(text):
        translations = [literal_eval(s) for s in re.findall(r'^msgstr(?:\[\d\])? (".*")$', said, re.MULTILINE)]
        if literal_eval(one):
            found.append((literal_eval(one), literal_eval(many) if many else "", translations))
    return found


def test_the_compiled_catalogue_says_what_the_readable_one_says():
    with (CATALOGUE / "django.mo").open("rb") as file:
        compiled = gettext.GNUTranslations(file)
    assert len(entries()) > 300
    for one, many, said in entries():
        if many:
            assert [compiled.ngettext(one, many, n) for n in (1, 2)] == said
        else:
            assert compiled.gettext(one) == said[0], one


def test_everything_is_translated_with_its_placeholders():
    for one, many, said in entries():
        for source, words in zip([one, many], said, strict=False):
            assert words, source
            assert sorted(_PLACE.findall(words)) == sorted(_PLACE.findall(source)), source
