"""The page around the blocks: one HTML text that needs nothing from outside, and may ask for nothing either."""

import base64
import gzip
import hashlib
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from azr_nemo.errors import UserError

PARTS = Path(__file__).parent / "page"
SCRIPTS = ("elements.js", "charts.js", "tasks.js", "main.js")


def page(title: str, blocks: Mapping[str, str], live: bool = False) -> str:
    """The whole page. live: it fetches its blocks from the server that it came from; otherwise they are in it. Raises UserError without plotly."""
    scripts = [_clean(_plotly()), _clean("\n".join((PARTS / name).read_text(encoding="utf-8") for name in SCRIPTS))]
    # Of the map library inside plotly: it adds a style of its own, which the policy refuses, unless an element of this name is there. No chart is a map.
    absent = re.findall(r'getElementById\("([0-9a-f]{64})"\)', scripts[0])
    style = _clean((PARTS / "report.css").read_text(encoding="utf-8"))
    environment = Environment(loader=FileSystemLoader(PARTS), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    return environment.get_template("report.html").render(
        title=title,
        policy=policy(scripts, style, live),
        style=style,
        scripts=scripts,
        blocks={} if live else {name: embedded(name, content) for name, content in blocks.items()},
        live=live,
        absent=absent,
    )


def embedded(name: str, content: str) -> tuple[str, str]:
    """A block as it stands in the page, and what it is: json, or gzip for JSON that is packed and in base64. Answers are most of a page, and few are
    opened."""
    if not name.startswith("answers-"):
        return content, "json"
    return base64.b64encode(gzip.compress(content.encode("ascii"), compresslevel=6, mtime=0)).decode("ascii"), "gzip"


def policy(scripts: list[str], style: str, live: bool) -> str:
    """The Content-Security-Policy: only these very scripts and this style run, and nothing is fetched, but a live page's own blocks."""
    # plotly adds an empty style element and fills it by calls, and sets style attributes; its pictures are data: and blob:.
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {' '.join(_hash(script) for script in scripts)}",
            f"style-src-elem {_hash(style)} {_hash('')}",
            "style-src-attr 'unsafe-inline'",
            "img-src data: blob:",
            f"connect-src {chr(39)}self{chr(39)}" if live else "connect-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def write(text: str, to: Path) -> None:
    """Written aside and renamed. Raises UserError when it cannot be written; what was there before is then untouched."""
    aside = to.with_name(f".{to.name}.writing")
    try:
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, to)
    except OSError as error:
        raise UserError(
            f"cannot write {to} ({error.strerror}): expected a writable place with free space; give another with --out"
        ) from error
    finally:
        with suppress(OSError):
            aside.unlink()


def _plotly() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise UserError("the report's charts need plotly, which is not installed: pip install 'azr-nemo[report]'") from None
    return str(get_plotlyjs())


def _clean(text: str) -> str:
    """As a browser reads it, which its hash is of."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"
