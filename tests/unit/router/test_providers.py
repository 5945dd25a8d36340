"""Providers are read from a file, and what is wrong with it is said in one line."""

from pathlib import Path

import pytest

from services.common.settings import SettingError
from services.router.formats.registry import PROVIDER_FORMATS, endpoints_of
from services.router.routing.providers import Provider, read_providers
from services.router.routing.routing import Candidate

GOOD = """
[[providers]]
name = "openai"
format = "openai"
base_url = "https://api.openai.com/v1/"
api_key_variable = "OPENAI_API_KEY"
[providers.models]
"gpt-4o" = "gpt-4o-2024-08-06"
"gpt-4o-mini" = { upstream = "mini", output_tokens_max = 16384 }
"""
OPENAI = endpoints_of("openai")
ENVIRON = {"OPENAI_API_KEY": "sk-platform"}


def read(tmp_path: Path, text: str) -> tuple[Provider, ...]:
    path = tmp_path / "providers.toml"
    path.write_text(text)
    return read_providers(path, ENVIRON)


def test_a_provider_has_its_key_its_times_and_its_models(tmp_path: Path) -> None:
    (provider,) = read(tmp_path, GOOD)

    assert (provider.name, provider.base_url, provider.api_key) == (
        "openai",
        "https://api.openai.com/v1",
        "sk-platform",
    )
    assert (provider.connect_timeout_seconds, provider.drains) == (5, True)
    assert provider.candidates == (
        Candidate("openai", "gpt-4o", "gpt-4o-2024-08-06", None, OPENAI),
        Candidate("openai", "gpt-4o-mini", "mini", 16384, OPENAI),
    )


def test_a_list_of_models_names_them_as_the_provider_does(tmp_path: Path) -> None:
    text = GOOD.partition("[providers.models]")[0] + 'models = ["gpt-4o"]'

    assert read(tmp_path, text)[0].candidates == (Candidate("openai", "gpt-4o", "gpt-4o", None, OPENAI),)


def test_the_example_in_the_readme_is_one(tmp_path: Path) -> None:
    readme = (Path(__file__).parents[3] / "services/router/README.md").read_text()
    path = tmp_path / "providers.toml"
    path.write_text(readme.partition("```toml")[2].partition("```")[0])
    keys = ("OPENAI_API_KEY", "AZURE_API_KEY", "GROQ_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY")
    providers = {each.name: each for each in read_providers(path, dict.fromkeys(keys, "k"))}

    assert {each.format for each in providers.values()} == set(PROVIDER_FORMATS)
    azure = providers["azure"]
    assert azure.url_for("/chat/completions", "my gpt/4o") == (
        "https://example.openai.azure.com/openai/deployments/my%20gpt%2F4o/chat/completions?api-version=2024-10-21"
    )
    assert (azure.credentials.header, azure.credentials.prefix) == ("api-key", "")
    assert providers["google"].url_for("/models/m:streamGenerateContent?alt=sse", "m").endswith("?alt=sse")
    endpoints = {each.model: each.endpoints for each in providers["openai"].candidates}
    assert endpoints["text-embedding-3-small"] == {"embeddings"}
    assert endpoints["gpt-4o"] == {"chat_completions", "responses"}


@pytest.mark.parametrize(
    ("wire_format", "header", "prefix"),
    [("openai", "authorization", "Bearer "), ("anthropic", "x-api-key", ""), ("gemini", "x-goog-api-key", "")],
)
def test_each_format_shows_its_key_in_its_own_way(tmp_path: Path, wire_format: str, header: str, prefix: str) -> None:
    (provider,) = read(tmp_path, GOOD.replace('format = "openai"', f'format = "{wire_format}"'))

    assert (provider.credentials.header, provider.credentials.prefix) == (header, prefix)
    assert ("anthropic-version" in provider.headers) == (wire_format == "anthropic")


def test_the_platform_s_key_is_in_no_log(tmp_path: Path) -> None:
    assert "sk-platform" not in repr(read(tmp_path, GOOD))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("providers = 7", "has no [[providers]]", id="no providers"),
        pytest.param("[[providers", "is not TOML", id="not TOML"),
        pytest.param(GOOD + GOOD, "twice", id="a name twice"),
        pytest.param(GOOD.replace("OPENAI_API_KEY", "OTHER_KEY"), "OTHER_KEY is not set", id="no key"),
        pytest.param(GOOD.replace('"openai"\nbase', '"smoke"\nbase'), "format must be one of", id="unknown format"),
        pytest.param(GOOD.replace("https:", "ftp:"), "base_url must match", id="not HTTP"),
        pytest.param(GOOD.replace('name = "openai"', 'name = "Open AI"'), "name must match", id="a name with spaces"),
        pytest.param(GOOD.partition("[providers.models]")[0], "models must map", id="no models"),
        pytest.param(
            GOOD.replace("16384", '1, endpoints = ["messages"]'), "endpoints must be of", id="not its endpoint"
        ),
        pytest.param(GOOD.replace("[providers.m", "query = 7\n[providers.m"), "query must be a table", id="no query"),
        pytest.param(
            GOOD.replace("[providers.m", 'api_key_header = "a b"\n[providers.m'), "name of a header", id="no header"
        ),
        pytest.param(
            GOOD.replace("[providers.m", 'thinking = "hard"\n[providers.m'), "thinking must be one of", id="no thinking"
        ),
        pytest.param(GOOD.replace("16384", "0"), "output_tokens_max", id="no room for an answer"),
        pytest.param(
            GOOD.replace("[providers.m", "idle_timeout_seconds = 0\n[providers.m"), "idle_timeout", id="no time"
        ),
    ],
)
def test_what_is_wrong_with_the_file_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingError) as raised:
        read(tmp_path, text)

    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="TOLLGATE_PROVIDERS_FILE"):
        read_providers(tmp_path / "none.toml", ENVIRON)
