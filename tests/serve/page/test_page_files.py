"""The chat page as files: whole, small, from nowhere else, with a policy that lets nothing run that is not ours."""

import gzip
import hashlib
import re
from importlib.resources import files

PAGE = files("gradus.serve") / "page"
# Of the files in the packages marked 18.2.1 (lib/marked.esm.js) and dompurify 3.4.18 (dist/purify.es.mjs) on npm.
VENDORED = {
    "marked.esm.js": "5371fea86fd0656b4fc7bea7c94c663109d82789b69433eeee78d42895aa44de",
    "purify.es.mjs": "1a06b721ad8b46d6174b21f22ea70290aaf3e5a81d65af3b7178113953f7c9b1",
}
LARGEST_BYTES = 150_000  # gzipped, all of it


def own(*endings):
    return {file.name: file.read_text("utf-8") for file in PAGE.iterdir() if file.name.endswith(endings)}


def test_vendored_files_are_those_of_the_packages_and_have_their_licences():
    vendor = PAGE / "vendor"
    found = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in vendor.iterdir()}
    assert {name: found[name] for name in VENDORED} == VENDORED
    assert set(found) == set(VENDORED) | {"marked.LICENSE", "purify.LICENSE"}
    assert "Permission is hereby granted" in (vendor / "marked.LICENSE").read_text("utf-8")
    assert "Apache License" in (vendor / "purify.LICENSE").read_text("utf-8")


def test_all_of_the_page_is_small():
    names = [*PAGE.iterdir(), *(PAGE / "vendor").iterdir()]
    sent = [file for file in names if file.name.endswith((".js", ".mjs", ".css", ".html", ".svg"))]
    assert len(sent) > 20
    assert sum(len(gzip.compress(file.read_bytes())) for file in sent) < LARGEST_BYTES


def test_nothing_is_fetched_from_elsewhere_and_no_script_or_style_is_inline():
    page = own(".html")["index.html"]
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", page) == []
    assert re.findall(r"(?:src|href)=\"(?!main\.js|page\.css|thread\.css|icon\.svg)", page) == []
    for name, text in own(".js", ".css").items():
        addresses = set(re.findall(r"https?://[\w.:/-]+", text))
        assert addresses <= {"http://www.w3.org/2000/svg", "http://localhost:11434/v1"}, name
        assert "@import" not in text, name
        assert not re.search(r"\beval\(|new Function|innerHTML|outerHTML|insertAdjacentHTML|document\.write", text), (
            name
        )


def test_the_policy_is_strict():
    page = own(".html")["index.html"]
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split(";")}
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == ["'none'"]
    assert rules["script-src"] == rules["style-src"] == rules["img-src"] == ["'self'"]
    # Other servers may be talked to, in the page's settings.
    assert rules["connect-src"] == ["'self'", "http:", "https:"]
    assert rules["require-trusted-types-for"] == ["'script'"]
    assert rules["trusted-types"] == ["dompurify"]
    assert "unsafe" not in policy


def test_every_export_is_used_by_another_file():
    scripts = own(".js")
    for name, text in scripts.items():
        elsewhere = "\n".join(other for other_name, other in scripts.items() if other_name != name)
        for exported in re.findall(r"^export (?:async )?(?:function\*?|class|const) (\w+)", text, re.M):
            assert re.search(rf"\b{exported}\b", elsewhere), f"{name}: {exported}"
