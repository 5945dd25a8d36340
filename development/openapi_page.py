"""An OpenAPI document as one page for people, which needs no network and no scripts."""

import html
import re
from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c1c1c; }
code { font: 0.9em ui-monospace, monospace; background: #f3f3f3; padding: 0 0.2em; }
h2 { border-bottom: 1px solid #ccc; margin-top: 3rem; }
h3 { margin-top: 2rem; font-weight: 600; }
table { border-collapse: collapse; width: 100%; font-size: 0.9em; }
td { border-top: 1px solid #e3e3e3; padding: 0.3rem 0.6rem 0.3rem 0; vertical-align: top; }
td:first-child { white-space: nowrap; }
summary { cursor: pointer; }
"""


def page(document: Json) -> str:
    """The whole page."""
    return "\n".join(_lines(document)) + "\n"


def _lines(document: Json) -> Iterator[str]:
    info = document["info"]
    title = html.escape(info["title"])
    yield f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{title}</title>\n<style>{STYLE}</style>'
    yield f"<h1>{title}</h1>\n{_prose(info['description'])}"
    yield "<p>As a document for programs: <a href='/openapi.json'>openapi.json</a>.</p>"
    yield from _table("Errors", ((status, one["description"]) for status, one in _responses(document)))
    for tag in document["tags"]:
        yield f"<h2 id='{tag['name']}'>{html.escape(tag['name'])}</h2>\n{_prose(tag['description'])}"
        for path, verbs in document["paths"].items():
            for verb, operation in verbs.items():
                if tag["name"] in operation["tags"]:
                    yield from _operation(document, verb, path, operation)


def _responses(document: Json) -> Iterator[tuple[str, Json]]:
    yield from document["components"]["responses"].items()


def _operation(document: Json, verb: str, path: str, operation: Json) -> Iterator[str]:
    yield f"<h3 id='{operation['operationId']}'><code>{verb.upper()} {html.escape(path)}</code></h3>"
    yield _prose(f"{operation['summary']}\n\n{operation['description']}")
    parameters = operation.get("parameters", [])
    yield from _table("Parameters", ((one["name"], one["description"]) for one in parameters))
    body = operation.get("requestBody")
    if body:
        yield from _fields(document, "Body", body["content"]["application/json"]["schema"], set())
    for kind, content in operation["responses"]["200"]["content"].items():
        if kind == "application/json":
            yield from _fields(document, "Answer", content["schema"], set())
        else:
            yield f"<p>Answers with a file, <code>{kind}</code>.</p>"


def _fields(document: Json, name: str, schema: Json, seen: set[str]) -> Iterator[str]:
    """The fields of an object, and then those of the objects within, each kind once."""
    reference = schema.get("$ref", "")
    if reference in seen:
        return
    if reference:
        seen.add(reference)
        schema = document["components"]["schemas"][reference.rpartition("/")[2]]
    properties: Json = schema.get("properties", {})
    yield from _table(name, ((field, one.get("description", "")) for field, one in properties.items()))
    for field, one in properties.items():
        inner = one.get("items") or one.get("additionalProperties") or one
        if "$ref" in inner:
            yield from _fields(document, f"{name}: {field}", inner, seen)


def _table(name: str, rows: Iterator[tuple[str, str]]) -> Iterator[str]:
    cells = [f"<tr><td><code>{html.escape(key)}</code><td>{_inline(text)}" for key, text in rows]
    if cells:
        yield f"<details open><summary>{html.escape(name)}</summary><table>"
        yield from cells
        yield "</table></details>"


def _prose(text: str) -> str:
    return "\n".join(f"<p>{_inline(paragraph)}</p>" for paragraph in text.split("\n\n") if paragraph)


def _inline(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text, quote=False))
