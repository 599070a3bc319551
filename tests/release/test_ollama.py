"""The Modelfile: what Go's text/template makes of its template is what the format writes.

Run as a program, with Go at hand, it asks Go and writes golden/ollama.json: python tests/release/test_ollama.py GO.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gradus.conversation.chat_template import TemplateRenderer
from gradus.conversation.formats.hermes import HermesFormat
from gradus.conversation.messages import Conversation, Message, ToolCall, ToolSchema
from gradus.core.errors import ConfigError
from gradus.release.ollama import CHAT_TEMPLATE, modelfile
from gradus.release.settings import ExportSettings
from gradus.tokenizer.training import train_tokenizer

FOLDER = Path(__file__).parent
GOLDEN = FOLDER / "golden" / "ollama.json"
CALCULATOR = ToolSchema(
    "calculator",
    "Works it out.",
    {"type": "object", "required": ["expression"], "properties": {"expression": {"type": "string"}}},
)
SEARCH = ToolSchema("search", "", {"type": "object", "properties": {"q": {"type": "string", "description": "What."}}})


def call(number, name, **arguments):
    return ToolCall(f"c{number}", name, arguments)


USER = Message("user", "What is 17 * 45?\n Tell me.")
THOUGHT = Message("assistant", "", "It needs\nthe tool.", (call(1, "calculator", expression="17 * 45"),))
RESULT = Message("tool", "765", tool_call_id="c1")
TWO = Message("assistant", "Let me look.", None, (call(2, "search", q='a "b"', z=3), call(3, "search", q="ü")))
TWO_RESULTS = (Message("tool", "one", tool_call_id="c2"), Message("tool", "two\n", tool_call_id="c3"))
SYSTEM = Message("system", "You are Ada.")
CASES = [
    (Conversation((USER,)), None),
    (Conversation((USER,)), False),
    (Conversation((SYSTEM, USER)), None),
    (Conversation((USER,), (CALCULATOR,)), None),
    (Conversation((SYSTEM, USER), (CALCULATOR, SEARCH)), False),
    (Conversation((USER, THOUGHT, RESULT), (CALCULATOR,)), None),
    (Conversation((USER, THOUGHT, RESULT, Message("assistant", "765."), USER), (CALCULATOR,)), None),
    (Conversation((SYSTEM, USER, TWO, *TWO_RESULTS), (SEARCH,)), None),
    (Conversation((USER, TWO, *TWO_RESULTS, Message("assistant", "So.", "Well."), USER), (SEARCH,)), None),
    (Conversation((USER, Message("assistant", "Hi {{ .System }}"), Message("user", "ok"))), None),
]


def as_ollama_has_it(conversation, think):
    """The data that Ollama gives a template: system messages apart, the rest in order."""
    messages = [
        {
            "Role": m.role,
            "Content": m.content,
            "Thinking": m.reasoning_content or "",
            "ToolCalls": [{"Function": {"name": c.name, "arguments": c.arguments}} for c in m.tool_calls],
        }
        for m in conversation.messages
        if m.role != "system"
    ]
    tools = [{"Function": tool.to_json()} for tool in conversation.tools]
    system = "".join(m.content for m in conversation.messages if m.role == "system")
    return {
        "System": system,
        "Messages": messages,
        "Tools": tools,
        "Think": bool(think),
        "IsThinkSet": think is not None,
    }


def test_go_writes_what_the_format_writes():
    golden = json.loads(GOLDEN.read_text())
    assert golden["template"] == CHAT_TEMPLATE, "ask Go again: python tests/release/test_ollama.py GO"
    form = HermesFormat(train_tokenizer(["a few words"] * 9, 270))
    assert len(golden["texts"]) == len(CASES)
    for (conversation, think), text in zip(CASES, golden["texts"], strict=True):
        ours = form.tokenizer.decode(form.render_prompt(conversation, think).tolist())
        assert text == ours
    renderer = TemplateRenderer(form)
    assert golden["texts"][0] == renderer.text(CASES[0][0], add_generation_prompt=True)


def test_a_modelfile_says_where_the_model_is_and_where_it_stops():
    text = modelfile(
        "toy-Q8_0.gguf", ExportSettings(formats=["ollama"], system="You are Ada.", licence="mit"), 512, is_chat=True
    )
    lines = text.splitlines()
    assert lines[:3] == ["FROM ./toy-Q8_0.gguf", "PARAMETER num_ctx 512", "PARAMETER temperature 0"]
    assert lines[3:5] == ['PARAMETER stop "<|im_end|>"', 'PARAMETER stop "<|endoftext|>"']
    assert text.count('"""') == 6
    assert text.endswith('SYSTEM """You are Ada."""\nLICENSE """mit"""\n')
    assert 'TEMPLATE """{{ .Prompt }}"""' in modelfile("a.gguf", ExportSettings(), 512, is_chat=False)
    with pytest.raises(ConfigError, match="no way to write three quotes"):
        modelfile("a.gguf", ExportSettings(formats=["ollama"], system='say """'), 512, is_chat=True)


def main(go):
    """Have Go render every case."""
    task = {"template": CHAT_TEMPLATE, "cases": [as_ollama_has_it(*case) for case in CASES]}
    done = subprocess.run(
        [go, "run", str(FOLDER / "ollama_template.go")], input=json.dumps(task), capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    body = {"template": CHAT_TEMPLATE, "texts": json.loads(done.stdout)}
    GOLDEN.write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
