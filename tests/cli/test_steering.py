"""Text of others is printed without what could steer the terminal: documents, drops, samples, answers."""

from gradus.cli import corpora, evaluating, previewing
from gradus.data.accounts import DroppedRow
from gradus.data.document import Document
from gradus.eval.audit import AuditedSample, AuditResult

STEERING = "\x1b]52;c;cm0gLXJm\x07 and \x9b2J"


def test_what_corpora_previews_and_audits_show_does_not_steer_the_terminal():
    document = Document(f"text {STEERING}\nmore", "id", "web", {"title": STEERING})
    dropped = DroppedRow(id="id", source="web", place="a:1", reason="short", detail=STEERING, excerpt=STEERING)
    sample = {"place": "a:1", "excerpt": STEERING, "detail": STEERING}
    found = {"read": 1, "sound": 1, "unsound": {}, "kept": 0, "filters": {}, "by_source": {}}
    shown = [
        corpora._document_text(document, full=True),
        corpora._dropped_text(dropped),
        "\n".join(previewing._lines("pool", found | {"samples": {"reason": [sample]}})),
        evaluating.audit_text(AuditResult("m", (AuditedSample("1", ("loop",), STEERING, STEERING),))),
    ]
    for text in shown:
        assert "cm0gLXJm" in text
        assert not {"\x1b", "\x07", "\x9b"} & set(text)
