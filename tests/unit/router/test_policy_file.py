"""How calls are treated: the file's word, and what projects and keys say otherwise."""

from collections.abc import Callable
from pathlib import Path

import pytest

from services.common.settings import SettingError
from services.router.calls.answers import AnswerFormat
from services.router.limits.limits import Limit
from services.router.routing.ordering import Order
from services.router.routing.policies import policy_for
from services.router.routing.policy_file import PolicyFile, read_policies
from tollgate.ledger.v1 import directory_service_pb2
from tollgate.ledger.v1.directory_service_pb2 import ProjectSettings, RateLimit, ResolveKeyResponse

Read = Callable[[str], PolicyFile]
WHOLE = """
[defaults]
order = "latency"
prefer = ["azure", "openai"]
cache_seconds = 60
answer_format = "meta"
cooldown_seconds = 9
[limits.key]
requests_per_minute = 600
[limits.address]
tokens_per_minute = 1000
concurrent_calls = 3
[auto]
models = ["gpt-4o", "o3"]
order = "latency"
"""


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read_text(text: str) -> PolicyFile:
        path = tmp_path / "providers.toml"
        path.write_text(text)
        return read_policies(path, {"gpt-4o", "o3"})

    return read_text


def test_everything_can_be_said_in_the_file(read: Read) -> None:
    policies = read(WHOLE)
    defaults = policies.defaults

    assert (defaults.preference.order, defaults.preference.providers) == (Order.LATENCY, ("azure", "openai"))
    assert (defaults.cache_seconds, defaults.answer_format) == (60, AnswerFormat.META)
    assert defaults.key_limit == Limit(requests_per_minute=600)
    assert defaults.address_limit == Limit(tokens_per_minute=1000, concurrent_calls=3)
    assert (policies.cooldown_seconds, policies.auto.models, policies.auto.order) == (
        9,
        ("gpt-4o", "o3"),
        Order.LATENCY,
    )


def test_everything_can_be_left_out(read: Read) -> None:
    policies = read("")

    assert (policies.defaults.preference.order, policies.defaults.cache_seconds) == (Order.CONFIGURED, 0)
    assert (policies.defaults.answer_format, policies.cooldown_seconds) == (AnswerFormat.RAW, 5)
    assert policies.auto.models == ()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[defaults]\norder = 'cheap'", "order must be one of configured, price, latency"),
        ("[defaults]\ncache_seconds = -1", "cache_seconds must be a whole number"),
        ("[defaults]\nprefer = 'azure'", "prefer must be a list"),
        ("[limits.key]\nrequests_per_minute = true", r"\[limits.key\]: requests_per_minute"),
        ("[limits]\nkey = 600", r"\[limits.key\]: must be a table"),
        ("[auto]\nmodels = ['gpt-9']", "no provider offers 'gpt-9'"),
    ],
)
def test_a_mistake_stops_the_start_by_name(read: Read, text: str, named: str) -> None:
    with pytest.raises(SettingError, match=named):
        read(text)


def test_a_project_and_a_key_say_otherwise_and_the_rest_stays(read: Read) -> None:
    defaults = read(WHOLE).defaults
    grant = ResolveKeyResponse(
        project_settings=ProjectSettings(
            provider_order=directory_service_pb2.PROVIDER_ORDER_PRICE, cache_seconds=0, rate_limit=RateLimit()
        ),
        rate_limit=RateLimit(tokens_per_minute=7),
    )
    policy = policy_for(grant, defaults)

    assert (policy.preference.order, policy.preference.providers) == (Order.PRICE, ("azure", "openai"))
    assert (policy.cache_seconds, policy.answer_format) == (0, AnswerFormat.META)
    assert policy.key_limit == Limit(requests_per_minute=600, tokens_per_minute=7)
    assert policy.project_limit == defaults.project_limit
    assert policy.address_limit == defaults.address_limit


def test_a_key_that_says_nothing_is_treated_as_the_file_says(read: Read) -> None:
    defaults = read(WHOLE).defaults

    assert policy_for(ResolveKeyResponse(), defaults) is defaults
