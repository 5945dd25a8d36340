"""The published document tells the truth: requests made from it find no server error and no unknown answer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

DOCUMENT = Path(__file__).parents[2] / "services" / "gen" / "openapi.json"
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]

schema = schemathesis.openapi.from_path(DOCUMENT)


@schema.parametrize()
@settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_one_that_the_document_promises(case: schemathesis.Case[Any], make_customer: Any) -> None:
    api = _api(make_customer)

    response = case.call(base_url=api.url, headers={"authorization": f"Bearer {api.key}"}, timeout=30)

    case.validate_response(response, checks=CHECKS)


_made: list[Any] = []


def _api(make_customer: Callable[..., Any]) -> Any:
    """Of a customer whose organization may be turned upside down, the same one throughout."""
    if not _made:
        _made.append(make_customer().api)
    return _made[0]
