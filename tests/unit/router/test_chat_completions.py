"""Bodies go on byte for byte, but for the model's name, the project and the request for usage."""

import orjson
import pytest

from services.common.errors import InvalidRequestError
from services.router.formats.endpoint import ModelRequest
from services.router.formats.registry import CHAT_COMPLETIONS


def body(**members: object) -> bytes:
    whole = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], **members}
    return orjson.dumps(whole, option=orjson.OPT_INDENT_2)


def read(sent: bytes) -> ModelRequest:
    return CHAT_COMPLETIONS.read(sent, {})


def test_a_body_with_nothing_to_change_goes_on_byte_for_byte() -> None:
    sent = body(temperature=0.5, unknown={"kept": [1.0, 2]})

    assert read(sent).body_for("gpt-4o", own_key=False) is sent


def test_only_the_model_changes_when_the_provider_names_it_otherwise() -> None:
    changed = orjson.loads(read(body(seed=7)).body_for("deployment-7", own_key=False))

    assert changed == orjson.loads(body(seed=7)) | {"model": "deployment-7"}


def test_the_project_is_taken_out_before_it_goes_on() -> None:
    request = read(body(project_id="web"))

    assert request.project_id == "web"
    assert "project_id" not in orjson.loads(request.body_for("gpt-4o", own_key=False))


def test_a_stream_is_asked_for_its_usage_and_keeps_its_other_options() -> None:
    request = read(body(stream=True, stream_options={"include_obfuscation": False}))

    assert not request.usage_wanted
    assert orjson.loads(request.body_for("gpt-4o", own_key=False))["stream_options"] == {
        "include_obfuscation": False,
        "include_usage": True,
    }


def test_a_stream_that_asks_for_usage_itself_goes_on_byte_for_byte() -> None:
    sent = body(stream=True, stream_options={"include_usage": True})

    assert read(sent).body_for("gpt-4o", own_key=False) is sent


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        pytest.param(b"{", "the body", id="half a JSON"),
        pytest.param(b"", "the body", id="nothing"),
        pytest.param(b"[]", "the body", id="a list"),
        pytest.param(b'"\xff"', "the body", id="not UTF-8"),
        pytest.param(b"[" * 100_000, "the body", id="too deep"),
        pytest.param(body(model=None), "model", id="no model"),
        pytest.param(body(model=7), "model", id="a number for a model"),
        pytest.param(body(model="x" * 257), "model", id="a model's name without end"),
        pytest.param(body(messages=None), "messages", id="no messages"),
        pytest.param(body(messages=[]), "messages", id="empty messages"),
        pytest.param(body(messages="Hi"), "messages", id="a text for messages"),
        pytest.param(body(stream="yes"), "stream", id="a text for stream"),
        pytest.param(body(stream_options=[]), "stream_options", id="a list for stream options"),
        pytest.param(body(project_id="a/b"), "project_id", id="a project with a slash"),
        pytest.param(body(project_id=""), "project_id", id="an empty project"),
        pytest.param(body(project_id=7), "project_id", id="a number for a project"),
    ],
)
def test_what_is_wrong_with_a_body_is_named(sent: bytes, field: str) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        read(sent)

    assert raised.value.metadata["field"] == field


@pytest.mark.parametrize("member", ["stream", "stream_options"])
def test_null_is_as_good_as_absent(member: str) -> None:
    request = read(body(**{member: None}))

    assert (request.streamed, request.usage_wanted) == (False, False)
