"""Self-contained HTML pages from templates; `page.css` beside the report's template is what all of them share."""

from pathlib import Path
from typing import Any

SHARED = Path(__file__).parent / "templates"


def page(template: Path, **values: Any) -> str:
    """The template, filled; it may `include` what lies beside it or in `SHARED`, and a value that is missing is an error."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, SHARED]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template.name).render(**values)
