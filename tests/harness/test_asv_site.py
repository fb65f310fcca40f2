"""asv's page loads nothing from elsewhere once it was made local, and everything that it loads is there."""

from __future__ import annotations

import json
import re
import shutil
from importlib import resources
from pathlib import Path

import pytest

from benchmarks.harness.asv_site import FILES, LOCAL, SiteError, main, make_local
from tests.harness.commands import ROOT

LOADED = re.compile(r"<(?:script|link)\b[^>]*?\b(?:src|href)=\"([^\"]+)\"")
STYLE = "@font-face{src:url('../fonts/a.eot?#iefix') format('x'),url(../fonts/b.woff)} a{background:url(data:x)}"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """What `asv publish` of the installed asv begins with."""
    with resources.as_file(resources.files("asv") / "www") as pages:
        return Path(shutil.copytree(pages, tmp_path / "site"))


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    folder = tmp_path / "node_modules"
    for file in (*FILES.values(), "bootstrap/dist/fonts/a.eot", "bootstrap/dist/fonts/b.woff"):
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(STYLE if path.suffix == ".css" else file)
    return folder


def test_nothing_is_loaded_from_elsewhere_and_all_of_it_is_there(site: Path, packages: Path) -> None:
    assert re.search(r"https?://", "".join(LOADED.findall((site / "index.html").read_text())))
    make_local(site, packages)
    page = (site / "index.html").read_text()
    loaded = LOADED.findall(page)
    assert [url for url in loaded if re.match(r"(https?:)?//", url)] == []
    assert [url for url in loaded if not url.endswith(".xml") and not (site / url).is_file()] == []
    assert {f"{LOCAL}/{file}" for file in FILES.values()} <= set(loaded)
    assert not re.search(r"integrity|crossorigin|referrerpolicy", page)  # a digest would be another file's
    assert 'onerror="js_load_failure()"' in page  # and what is missing is still told


def test_what_a_style_sheet_loads_is_there_too(site: Path, packages: Path) -> None:
    copies = make_local(site, packages)
    assert {path.name for path in copies} >= {"a.eot", "b.woff"}
    assert (site / LOCAL / "bootstrap/dist/fonts/b.woff").is_file()


def test_doing_it_again_changes_nothing(site: Path, packages: Path) -> None:
    make_local(site, packages)
    once = (site / "index.html").read_bytes()
    assert make_local(site, packages) == []
    assert (site / "index.html").read_bytes() == once


def test_a_script_that_is_not_known_is_named(site: Path, packages: Path) -> None:
    page = site / "index.html"
    page.write_text(page.read_text().replace("md5.min.js", "md6.min.js"))
    with pytest.raises(SiteError, match=r"loads https://\S+/md6\.min\.js"):
        make_local(site, packages)
    assert "code.jquery.com" in page.read_text()  # all of it or nothing


def test_what_is_missing_is_one_sentence(tmp_path: Path, site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "nowhere"), str(tmp_path)]) == 2
    assert main([str(site), str(tmp_path / "nowhere")]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"error: {tmp_path}/nowhere/index.html: No such file or directory"
    assert "jquery" in second


def test_each_package_is_pinned_by_its_digest() -> None:
    wanted = json.loads((ROOT / "asv-site" / "package.json").read_text())["dependencies"]
    locked = json.loads((ROOT / "asv-site" / "package-lock.json").read_text())["packages"]
    assert {file.split("/")[0] for file in FILES.values()} == set(wanted)
    for name, version in wanted.items():
        package = locked[f"node_modules/{name}"]
        assert package["version"] == version
        assert package["integrity"].startswith("sha512-")
        assert "resolved" not in package  # from whichever index npm is set to
