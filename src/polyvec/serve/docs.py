"""``/docs``: the OpenAPI document as one plain page. No script, nothing from another server."""

import base64
import hashlib
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 0 auto; padding: 1rem; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid; }
section { margin: 1.5rem 0; }
h3 { margin-bottom: .2rem; } code { font-family: ui-monospace, monospace; }
.method { display: inline-block; min-width: 3.5rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; }
tr + tr > * { border-top: 1px solid color-mix(in srgb, currentColor 20%, transparent); }
"""


def style_hash() -> str:
    """Return what a Content-Security-Policy calls the page's one style by (``sha256-...``)."""
    return base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()


def docs_page(document: dict[str, Any]) -> str:
    """Return the page for an OpenAPI document."""
    groups: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            tag = (operation.get("tags") or ["other"])[0]
            groups.setdefault(tag, []).append(_operation(path, method, operation, document))
    headers = document["info"].get("x-headers", {})
    sections = "".join(f"<h2>{escape(tag)}</h2>{''.join(ops)}" for tag, ops in groups.items())
    title = escape(document["info"]["title"])
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}: API</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{_STYLE}</style></head><body><main><h1>{title}</h1>"
        f"<p>{escape(document['info']['description'])} "
        'For programs: <a href="openapi.json">/openapi.json</a>. '
        'To try it: <a href=".">the page</a>. <a href="search">Search documents</a>. '
        '<a href="models">Models</a>.</p>'
        f"<h2>Headers</h2>{_table('Header', headers)}{sections}</main></body></html>"
    )


def _operation(path: str, method: str, operation: dict[str, Any], document: dict[str, Any]) -> str:
    content = operation.get("requestBody", {}).get("content", {})
    schema = content.get("application/json", {}).get("schema", {})
    required = schema.get("required", [])
    fields = {
        f"{name}{' (required)' if name in required else ''}": _field(field, document)
        for name, field in schema.get("properties", {}).items()
    }
    answers = ", ".join(operation.get("responses", {}))
    return (
        f'<section><h3><span class="method">{method.upper()}</span> '
        f"<code>{escape(path)}</code></h3>"
        f"<p>{escape(operation.get('description') or operation.get('summary', ''))} "
        f"Answers: {answers}.</p>{_table('Field', fields)}</section>"
    )


def _field(field: dict[str, Any], document: dict[str, Any]) -> str:
    said = field.get("description", "")
    default = f" Default: {field['default']!r}." if "default" in field else ""
    return f"{_type(field)}. {said}{default}"


def _type(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type(option) for option in schema["anyOf"]))
    if "enum" in schema:
        return " or ".join(repr(value) for value in schema["enum"])
    if "const" in schema:
        return repr(schema["const"])
    if schema.get("type") == "array":
        return f"[{_type(schema.get('items', {}))}, ...]"
    return str(schema.get("type", "object"))


def _table(head: str, rows: dict[str, str]) -> str:
    if not rows:
        return ""
    body = "".join(
        f'<tr><th scope="row"><code>{escape(name)}</code></th><td>{escape(text)}</td></tr>'
        for name, text in rows.items()
    )
    heads = f'<tr><th scope="col">{head}</th><th scope="col">Meaning</th></tr>'
    return f"<table><thead>{heads}</thead><tbody>{body}</tbody></table>"
