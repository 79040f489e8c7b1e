"""Text as people should read it: no markup, no entities, no page code, single spaces. The authors' own cleanings too.

`clean` is the `sound` recipe's; the functions named `paper_…` do exactly what spec B.2 to B.6 say, faults included.
"""

from __future__ import annotations

import html
import re
import unicodedata

_BLOCK = re.compile(r"<(script|style)\b.*?(</\1\s*>|$)", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"</?[A-Za-z][^<>]{0,500}>|<!--.*?-->", re.DOTALL)
_MARKED = re.compile(r"&(#\d|#[xX][\dA-Fa-f]|[A-Za-z]{2,31}\d?;)|</?[A-Za-z][^<>]{0,500}>|<!--")
_INVISIBLE = frozenset(("Cc", "Zl", "Zp", "Cs", "Co", "Cn"))
MARKUP = "freed of markup or entities"
_CODE = re.compile(r"function\s*\(|getElementById|\.a-[a-z]+\s*\{|var\s+\w+\s*=|amznJQ|\{\s*[a-z-]+\s*:\s*[^{}]+;\s*\}")


def clean(text: str) -> str:
    """Without tags, script, entities (twice escaped ones too), control characters and doubled spaces."""
    if "&" in text or "<" in text:
        for _ in range(2):
            text = html.unescape(text)
        text = _TAG.sub(" ", _BLOCK.sub(" ", text))
    if not text.isprintable():
        text = "".join(" " if unicodedata.category(c) in _INVISIBLE else c for c in text)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    elif "  " not in text:  # of white space, all that is left in ASCII is the space
        return text.strip(" ")
    return " ".join(text.split())


def marked(text: str) -> bool:
    """Whether a text holds tags or entities, which `clean` takes out."""
    return ("&" in text or "<" in text) and _MARKED.search(text) is not None


def clean_title(text: str) -> str:
    """`clean`, and "" for page code that was scraped in place of a title."""
    found = clean(text)
    return "" if _CODE.search(text) or len(found) >= 2000 else found


def first_words(text: str, words: int) -> str:
    """At most `words` words; a cut text ends in three dots. Words are what white space separates."""
    parts = text.split()
    return text if len(parts) <= words else " ".join(parts[:words]).strip(".") + "..."


def mostly_english(text: str) -> bool:
    """Whether letters are Latin without accents for the most part. Crude: it stops other scripts, not German."""
    if text.isascii():
        return True
    letters = [c for c in text if c.isalpha()]
    return not letters or sum(c.isascii() for c in letters) >= 0.9 * len(letters)


def key(text: str) -> str:
    """A text as an entity's name: cleaned, case-folded."""
    return clean(text).casefold()


def paper_first_words(text: str, words: int) -> str:
    """Cut at `words` pieces between single spaces (double spaces count), strip dots, append three."""
    parts = text.split(" ")
    return text if len(parts) <= words else " ".join(parts[:words]).strip(".") + "..."


def paper_item(text: str | tuple[str, ...]) -> str:
    """One field of an item text (B.5): no quotes, line ends or HTML, one dot at the end; "" if empty or very long."""
    if isinstance(text, tuple):
        return " ".join(part for part in map(paper_item, text) if part)
    if not text or len(text) >= 2000:
        return ""
    for gone in ('"', "\n", "\r"):
        text = text.replace(gone, "")
    return html.unescape(_TAG.sub("", text)).strip(".") + "."


def paper_ascii(text: str) -> str:
    """NFKD, then without what is not ASCII (B.6)."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def paper_title(text: str) -> str:
    """Line ends, white space and four tags each become one space (B.6)."""
    return re.sub(r"\s|</p>|<p>|<br>|</br>", " ", text)
