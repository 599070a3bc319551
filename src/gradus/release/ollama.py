"""The Modelfile with which Ollama takes a GGUF file: template, system message, where to stop.

Ollama renders conversations by Go's text/template and not by the chat template inside the file, so the hermes format
stands here a second time, in that language; golden/ollama.json holds what Go makes of it. Its data are Ollama's:
.Messages with .Role, .Content, .Thinking and .ToolCalls, .Tools, and .Think behind .IsThinkSet. Ollama reads off the
template, too, how thinking and calls look in an answer.
"""

from __future__ import annotations

from gradus.core.errors import ConfigError
from gradus.release.settings import ExportSettings
from gradus.tokenizer.specials import END_OF_TEXT, IM_END

MODELFILE = "Modelfile"
# Results of several calls in a row share one segment, which is closed when something else follows. `$before` is the
# role of the message before.
CHAT_TEMPLATE = """\
{{- $before := "" }}
{{- if or .System .Tools }}<|im_start|>system
{{ .System }}
{{- if .Tools }}<tools>
{{- range $i, $tool := .Tools }}
{{- if $i }}
{{ end }}{{ json $tool.Function }}
{{- end }}</tools>
{{- end }}<|im_end|>
{{ end }}
{{- range $i, $message := .Messages }}
{{- $last := eq (len (slice $.Messages $i)) 1 }}
{{- if and (eq $before "tool") (ne .Role "tool") }}<|im_end|>
{{ end }}
{{- if eq .Role "user" }}<|im_start|>user
{{ .Content }}<|im_end|>
{{ else if eq .Role "assistant" }}<|im_start|>assistant
{{ if .Thinking }}<think>
{{ .Thinking }}
</think>

{{ end }}{{ .Content }}
{{- range $n, $call := .ToolCalls }}
{{- if or $n $message.Content }}
{{ end }}<tool_call>
{"name": "{{ $call.Function.Name }}", "arguments": {
{{- $comma := "" }}
{{- range $key, $value := $call.Function.Arguments }}{{ $comma }}{{ json $key }}: {{ json $value }}
{{- $comma = ", " }}
{{- end }}}}
</tool_call>
{{- end }}
{{- if not $last }}<|im_end|>
{{ end }}
{{- else if eq .Role "tool" }}
{{- if eq $before "tool" }}
{{ else }}<|im_start|>user
{{ end }}<tool_response>
{{ .Content }}
</tool_response>
{{- end }}
{{- if and $last (ne .Role "assistant") }}
{{- if eq .Role "tool" }}<|im_end|>
{{ end }}<|im_start|>assistant
{{ if and (ne .Role "tool") $.IsThinkSet (not $.Think) }}<think>

</think>

{{ end }}
{{- end }}
{{- $before = .Role }}
{{- end }}"""


def modelfile(gguf_file: str, settings: ExportSettings, context: int, is_chat: bool) -> str:
    """The text of a Modelfile. Errors: ConfigError for a system message that cannot stand in one."""
    lines = [f"FROM ./{gguf_file}", f"PARAMETER num_ctx {context}", "PARAMETER temperature 0"]
    lines += [f'PARAMETER stop "{name}"' for name in (IM_END, END_OF_TEXT)]
    lines.append(f'TEMPLATE """{CHAT_TEMPLATE if is_chat else "{{ .Prompt }}"}"""')
    if settings.system is not None:
        if '"""' in settings.system:
            raise ConfigError('system: a Modelfile has no way to write three quotes (""") inside a text')
        lines.append(f'SYSTEM """{settings.system}"""')
    if settings.licence is not None:
        lines.append(f'LICENSE """{settings.licence}"""')
    return "\n".join(lines) + "\n"
