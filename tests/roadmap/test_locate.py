"""Line numbers of TOML keys, against tomllib's reading of the same text."""

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from gradus.roadmap.locate import Locator


def paths_of(value, path=()):
    """Every key path in parsed data: the independent truth about what a locator must know."""
    found = {path} if path else set()
    if isinstance(value, dict):
        for key, inner in value.items():
            found |= paths_of(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found |= paths_of(inner, (*path, index))
    return found


def test_every_way_of_writing_a_key_has_its_line():
    text = '''# a comment with [brackets] and "quotes
name = "toy"            # 2
machine.threads = 2     # 3
"quoted key" = 'a#b'    # 4

[[stage]]               # 6
name = "a"
sources = [             # 8
  { kind = "files", path = "x" },   # 9
  # comment ] }
  { kind = "files",
    path = """
] } text \\""" [[stage]]
""" },
]
  [stage.model]         # 16
  depth = 4
  [[stage.gate]]        # 18
  measure = "bpb"
  [[stage.gate]]        # 20
  measure = "x"

[[ stage ]]             # 23
model = { depth = 2, mlp.width = 3 }
text = \'\'\'
it''s [[stage]]\'\'\'
last = 1979-05-27T07:32:00Z
'''
    locator = Locator(text)
    lines = {
        ("name",): 2, ("machine",): 3, ("machine", "threads"): 3, ("quoted key",): 4,
        ("stage",): 6, ("stage", 0): 6, ("stage", 0, "name"): 7, ("stage", 0, "sources"): 8,
        ("stage", 0, "sources", 0): 9, ("stage", 0, "sources", 0, "path"): 9, ("stage", 0, "sources", 1): 11,
        ("stage", 0, "sources", 1, "path"): 12, ("stage", 0, "model"): 16, ("stage", 0, "model", "depth"): 17,
        ("stage", 0, "gate", 0): 18, ("stage", 0, "gate", 1, "measure"): 21,
        ("stage", 1): 23, ("stage", 1, "model", "mlp", "width"): 24, ("stage", 1, "text"): 25,
        ("stage", 1, "last"): 27,
    }  # fmt: skip
    assert {path: locator.line(path) for path in lines} == lines


def test_a_path_that_is_not_written_gets_the_line_of_what_encloses_it():
    locator = Locator("a = 1\n[b]\nc = 2\n")
    assert locator.line(("b", "missing", "deeper")) == 2
    assert locator.line(("nothing",)) == 1


def test_windows_line_ends_count_once():
    assert Locator("a = 1\r\n\r\n[b]\r\nc = [\r\n1,\r\n2]\r\n").line(("b", "c", 1)) == 6


KEYS = st.sampled_from(["a", "b", "c-d", "1", "é é", 'q"t', "x.y", "#", "[", "\\"])
SCALARS = st.sampled_from(
    ["1", "-2.5", "true", "1979-05-27", '"]"', '"a\\"}"', "'#'", '""', "''", '"""\n]"""', "'''x\n\n'''"]
)


def written_key(key):
    if all(c.isascii() and (c.isalnum() or c in "-_") for c in key):
        return key
    return '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'


@st.composite
def values(draw, depth=2):
    kind = draw(st.sampled_from(["scalar", "array", "table"])) if depth else "scalar"
    if kind == "scalar":
        return draw(SCALARS)
    if kind == "array":
        items = draw(st.lists(values(depth=depth - 1), max_size=3))
        gap = draw(st.sampled_from([" ", "\n", " # ] }\n  "]))
        return "[" + gap + ",".join(item + gap for item in items) + "]"
    keys = draw(st.lists(KEYS, unique=True, max_size=3))
    return "{" + ", ".join(f"{written_key(k)} = {draw(values(depth=0))}" for k in keys) + "}"


@st.composite
def documents(draw):
    """(text, line of each assignment by path) of documents with pairs, tables and arrays of tables."""
    lines, known, count = [], {}, {}
    prefix = ()
    for index in range(draw(st.integers(1, 4))):
        if index:
            if draw(st.booleans()):
                place = count.get("stage", 0)
                count["stage"] = place + 1
                prefix = ("stage", place)
                lines.append(draw(st.sampled_from(["[[stage]]", "  [[ stage ]] # [[stage]]"])))
            else:
                prefix = (f"table{index}", "in ner")
                lines.append(f'[ table{index} . "in ner" ]')
            known[prefix] = len(lines)
        for key in draw(st.lists(KEYS, unique=True, max_size=3)):
            known[(*prefix, key)] = len(lines) + 1
            text = f"{written_key(key)} = {draw(values())}" + draw(st.sampled_from(["", " # x = 1", "\n"]))
            lines += text.split("\n")
    return "\n".join(lines), known


@given(documents())
def test_any_document_is_followed_as_tomllib_reads_it(document):
    text, known = document
    data = tomllib.loads(text)
    locator = Locator(text)
    assert set(locator.lines) == paths_of(data)
    for path, line in known.items():
        assert locator.line(path) == line
