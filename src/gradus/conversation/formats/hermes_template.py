"""The hermes format as a Jinja chat template, for transformers, vLLM and llama.cpp.

It writes what HermesFormat.render writes, with {% generation %} around what is trained. Variables besides
the usual ones: enable_thinking=false opens the turn with an empty think block (as in Qwen3),
force_thinking=true with an open one. It cannot defend itself against control tokens inside content: readers
other than ours must (transformers: sanitize_control_tokens=True).
"""

from __future__ import annotations

HERMES_TEMPLATE = """\
{%- set no_thinking = enable_thinking is defined and enable_thinking is false %}
{%- if tools or messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content }}
    {%- endif %}
    {%- if tools %}
        {{- '<tools>' }}
        {%- for tool in tools %}
            {%- set f = tool.function if tool.function is defined else tool %}
            {{- ('' if loop.first else '\\n') + '{"name":' + f.name | tojson }}
            {%- if f.description %}
                {{- ',"description":' + f.description | tojson }}
            {%- endif %}
            {{- ',"parameters":' + f.parameters | tojson(separators=(',', ':')) + '}' }}
        {%- endfor %}
        {{- '</tools>' }}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
    {%- elif message.role == 'assistant' %}
        {%- set content = content | trim %}
        {%- set opens_turn = loop.first or messages[loop.index0 - 1].role != 'tool' %}
        {%- set ns = namespace(thinking=none, body='') %}
        {%- if message.reasoning_content is string %}
            {%- set ns.thinking = message.reasoning_content | trim %}
        {%- elif message.reasoning is string %}
            {%- set ns.thinking = message.reasoning | trim %}
        {%- elif opens_turn and no_thinking %}
            {%- set ns.thinking = '' %}
        {%- endif %}
        {{- '<|im_start|>assistant\\n' }}
        {%- if ns.thinking %}
            {%- set ns.body = '<think>\\n' + ns.thinking + '\\n</think>\\n\\n' %}
        {%- elif ns.thinking is string %}
            {{- '<think>\\n\\n</think>\\n\\n' }}
        {%- endif %}
        {%- set ns.body = ns.body + content %}
        {%- for call in message.tool_calls or [] %}
            {%- set f = call.function if call.function is defined else call %}
            {%- set arguments = f.arguments if f.arguments is string else f.arguments | tojson %}
            {%- set ns.body = ns.body + ('' if loop.first and not content else '\\n') %}
            {%- set ns.body = ns.body + '<tool_call>\\n{"name": ' + f.name | tojson %}
            {%- set ns.body = ns.body + ', "arguments": ' + arguments + '}\\n</tool_call>' %}
        {%- endfor %}
        {%- if message.train is defined and message.train is false %}
            {{- ns.body + '<|im_end|>' }}
        {%- else %}
            {%- generation %}
                {{- ns.body + '<|im_end|>' }}
            {%- endgeneration %}
        {%- endif %}
        {{- '\\n' }}
    {%- elif message.role == 'tool' %}
        {%- set opens_results = loop.first or messages[loop.index0 - 1].role != 'tool' %}
        {{- '<|im_start|>user\\n' if opens_results else '\\n' }}
        {{- '<tool_response>\\n' + content + '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if messages[-1].role != 'tool' %}
        {%- if no_thinking %}
            {{- '<think>\\n\\n</think>\\n\\n' }}
        {%- elif force_thinking is defined and force_thinking %}
            {{- '<think>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endif %}"""
