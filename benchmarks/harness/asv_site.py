"""Makes asv's published site whole: its page loads scripts from elsewhere, and finds them beside it afterwards.

`python -m benchmarks.harness.asv_site SITE PACKAGES`, as `make asv-site` does: SITE is what `asv publish` wrote,
PACKAGES the `node_modules` folder of asv-site/package.json. Of what asv 0.6.6 loads, jquery, bootstrap, md5 and
orderBars are the same bytes there (by the digests in its page); flot is the same version, not minified; stupidtable is
1.1.3 in place of 1.0.1, which npm does not have.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

LOCAL = "local"
"""Folder of the site that the files are copied to, with the names that they have in their packages."""

FILES = {
    "jquery-3.3.1.min.js": "jquery/dist/jquery.min.js",
    "jquery.flot.min.js": "jquery-flot/jquery.flot.js",
    "jquery.flot.time.min.js": "jquery-flot/jquery.flot.time.js",
    "jquery.flot.selection.min.js": "jquery-flot/jquery.flot.selection.js",
    "jquery.flot.categories.min.js": "jquery-flot/jquery.flot.categories.js",
    "jquery.flot.orderBars.js": "flot-orderbars/js/jquery.flot.orderBars.js",
    "stupidtable.min.js": "stupid-table-plugin/stupidtable.min.js",
    "md5.min.js": "blueimp-md5/js/md5.min.js",
    "bootstrap.min.js": "bootstrap/dist/js/bootstrap.min.js",
    "bootstrap.min.css": "bootstrap/dist/css/bootstrap.min.css",
}
"""Where the packages have what asv's page loads, by the last part of its URL."""

_LOADED = re.compile(r"<(?:script|link)\b[^>]*?\b(?:src|href)=\"(?P<url>(?:https?:)?//[^\"]+)\"[^>]*>")
_OF_CDN = re.compile(r"\s+(?:integrity|crossorigin|referrerpolicy)=\"[^\"]*\"")
_IN_STYLE = re.compile(r"url\(\s*['\"]?(?P<path>[^'\")?#]+)[^)]*\)")


class SiteError(RuntimeError):
    """The site cannot be made whole; the message says why."""


def make_local(site: Path, packages: Path) -> list[Path]:
    """Copy what the page loads into the site and let it load that; returns the copies. Doing it again changes nothing.

    Raises:
        SiteError: something is not there, or the page loads what is not in `FILES`.
    """
    page = site / "index.html"
    try:
        text = page.read_text(encoding="utf-8")
        copies: list[Path] = []

        def local(found: re.Match[str]) -> str:
            file = FILES.get(found["url"].rsplit("/", 1)[-1])
            if file is None:
                raise SiteError(f"{page} loads {found['url']}, and benchmarks/harness/asv_site.py knows no copy of it")
            copies.extend(_copied(file, site, packages))
            return _OF_CDN.sub("", found[0]).replace(found["url"], f"{LOCAL}/{file}")

        whole = _LOADED.sub(local, text)
        page.write_text(whole, encoding="utf-8")
    except OSError as error:
        raise SiteError(f"{error.filename}: {error.strerror}") from error
    return copies


def _copied(file: str, site: Path, packages: Path) -> list[Path]:
    """The file, and what a style sheet loads in its turn."""
    source, target = packages / file, site / LOCAL / file
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    copies = [target]
    if source.suffix == ".css":
        for path in sorted({found["path"] for found in _IN_STYLE.finditer(source.read_text(encoding="utf-8"))}):
            if not path.startswith("data:"):
                beside = (source.parent / path).resolve().relative_to(packages.resolve())
                copies += _copied(beside.as_posix(), site, packages)
    return copies


def main(arguments: Sequence[str]) -> int:
    """Make one site whole; returns the exit code."""
    if len(arguments) != 2:
        print("usage: python -m benchmarks.harness.asv_site SITE PACKAGES", file=sys.stderr)
        return 2
    try:
        copies = make_local(*map(Path, arguments))
    except SiteError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{arguments[0]}: {len(copies)} files copied; it needs no network")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
