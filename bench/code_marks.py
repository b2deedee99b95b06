"""Sentences with backquotes as HTML."""

from __future__ import annotations

import re

from markupsafe import Markup, escape


def code_elements(text: str) -> Markup:
    """The text for HTML, with what stands in backquotes as code."""
    parts = re.split(r"`([^`]*)`", text)
    marked = (
        Markup("<code>{}</code>").format(part) if i % 2 else escape(part)
        for i, part in enumerate(parts)
    )
    return Markup("").join(marked)
