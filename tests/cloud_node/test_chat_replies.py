"""What servers say, in the forms that they say it in."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from roadside.bus.errors import BackendError
from roadside.cloud_node.backends.chat_replies import LONGEST_TEXT, clean, read_completion, refusal

URL = "http://127.0.0.1:8000/v1"


def body(content: object, **more: object) -> bytes:
    return json.dumps({"id": "x", "choices": [{"index": 0, "message": {"content": content}}], **more}).encode()


def test_an_answer_with_its_tokens():
    completion = read_completion(body("it stops .", usage={"prompt_tokens": 38, "completion_tokens": 4}), URL)
    assert (completion.text, completion.prompt_tokens, completion.completion_tokens) == ("it stops .", 38, 4)


def test_tokens_that_were_not_counted_are_not_known():
    completion = read_completion(body("it stops ."), URL)
    assert (completion.prompt_tokens, completion.completion_tokens) == (None, None)


@pytest.mark.parametrize(
    "garbage",
    [b"", b"<html>hello</html>", b"[]", b'{"choices": []}', b'{"choices": [{}]}', b"\xff\xfe", b"[" * 100_000,
     body(7), body(["parts"])],
)  # fmt: skip
def test_what_is_no_answer_is_named_so(garbage):
    with pytest.raises(BackendError, match="check the URL") as refused:
        read_completion(garbage, URL)
    assert refused.value.reason == "not-an-answer"


@pytest.mark.parametrize("content", [None, "", " \n", "\u0000", "<think>the light is", "<think>red</think>\n"])
def test_an_answer_without_words_is_none(content):
    with pytest.raises(BackendError, match="said nothing") as refused:
        read_completion(body(content), URL)
    assert refused.value.reason == "empty"


def test_thoughts_and_line_breaks_are_taken_out():
    assert clean("<think>hm,\nred</think>\n\nThe car\tstops\u0000 .\n") == "The car stops ."


@given(st.text(max_size=3000))
def test_cleaned_text_always_fits_a_message(text):
    cleaned = clean(text)
    assert len(cleaned) <= LONGEST_TEXT
    assert not any(unicodedata.category(each).startswith("C") for each in cleaned)
    assert cleaned == clean(cleaned)


@given(st.lists(st.text("abc<>é", min_size=1, max_size=30), max_size=60))
def test_nothing_is_lost_of_what_is_short_and_plain(words):
    text = " ".join(words)
    if "<think>" not in text and len(text) <= LONGEST_TEXT:
        assert clean(text) == text


@pytest.mark.parametrize(
    ("status", "said", "reason", "todo"),
    [
        (401, '{"error": {"message": "Incorrect API key provided"}}', "unauthorised", "correct the key"),
        (403, "Forbidden", "unauthorised", "correct the key"),
        (404, '{"object": "error", "message": "The model `m` does not exist."}', "unknown-model", "name one"),
        (404, '{"error": {"code": "model_not_found", "message": "no"}}', "unknown-model", "name one"),
        (400, "{\"detail\": \"Server is pinned to 'a'; requested 'm'.\"}", "unknown-model", "name one"),
        (404, '{"detail": "Not Found"}', "wrong-url", "/v1"),
        (405, "", "wrong-url", "/v1"),
        (301, "", "wrong-url", "/v1"),
        (400, '{"message": "m is not a multimodal model"}', "no-images", "serve one that does"),
        (500, '{"message": "image input is not supported - hint: provide the mmproj"}', "no-images", "serve one"),
        (429, '{"error": "rate limit"}', "overloaded", "rate limit"),
        (500, "Internal Server Error", "server-error", "Internal Server Error"),
        (503, "", "server-error", "gives no reason"),
        (422, '{"detail": "messages: bad"}', "refused", "messages: bad"),
    ],
)  # fmt: skip
def test_a_refusal_says_why_and_what_to_do(status, said, reason, todo):
    error = refusal(status, said.encode(), url=URL, model="m", with_key=True)
    assert error.reason == reason
    assert todo in str(error)
    assert URL in str(error)
    assert "\n" not in str(error)


def test_without_a_key_the_advice_is_to_name_one():
    assert "name its variable" in str(refusal(401, b"", url=URL, model="m", with_key=False))


@given(st.integers(201, 599), st.binary(max_size=2000))
def test_whatever_a_server_says_becomes_one_short_line(status, said):
    error = refusal(status, said, url=URL, model="m", with_key=False)
    assert error.reason
    assert len(str(error)) < 500
    assert str(error).isprintable()
