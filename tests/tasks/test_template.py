"""The templates are a wire format: lengths and digests of spec C.1."""

import hashlib

import pytest

from ecellm.tasks.template import cut_reply, fill, fixed_text


@pytest.mark.parametrize(
    ("template", "options", "size", "digest"),
    [
        ("alpaca", "OPT", 230, "a69523d6dd634a2fa14782e20f8ab4fbff23e94eed61a248aeb2a4a2e3be73bc"),
        ("alpaca", None, 212, "1ed1ca2492ac35dd71d43fd0fc8abebab1eff90bd2a87e384275493e88e822e6"),
        ("mistral", "OPT", 246, "7c8dab5bee15667834ea3395d36f54fd96acb41d1970804f523aac70338bd38f"),
        ("mistral", "", 228, "de3f714ca931e2b6d2181ecb7a0c1b75c9ecf572ba67973c684436e64be83c2c"),
    ],
)
def test_vectors(template: str, options: str | None, size: int, digest: str) -> None:
    text = fill(template, "INSTR", "IN", options).encode()
    assert (len(text), hashlib.sha256(text).hexdigest()) == (size, digest)


def test_braces_in_values_are_text() -> None:
    assert "{input} {options}" in fill("alpaca", "{input} {options}", "x", None)


def test_fixed_text_is_all_of_a_template() -> None:
    text = fill("mistral", "", "", "x")
    for piece in fixed_text("mistral"):
        assert piece in text


def test_a_reply_ends_where_the_separator_comes_again() -> None:
    assert cut_reply("alpaca", " yes \n### Response:\nno") == "yes"
