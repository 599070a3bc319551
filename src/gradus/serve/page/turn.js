// A reply of the assistant: its blocks in the order in which they were said, folded from the typed events of a stream.
//
// turn: {model, label, status, blocks, error, usage, thinkBudget, started, firstToken, ended}
// usage: null or {prompt, completion, thinking}, in tokens; thinkBudget: the most tokens of thinking, where one was set.
// status: "streaming", "done", "stopped" (by the person), "cut" (token limit), "interrupted" (the page was closed) or
// "failed" (error says why). Times are milliseconds since 1970.
// blocks: {type: "think", text, started, ended}, {type: "text", text},
//   {type: "call", id, name, arguments, round, client, result}; `arguments` is an object, or the text of one while it arrives;
//   result: null or {content, error}. round: how many results stood before the call; calls of one round were made at once.
//   client: a call that the client should run, and this page runs none.

import { ApiError } from "./api.js";

export function newTurn(model) {
  return {
    model: model.id,
    label: model.label,
    status: "streaming",
    blocks: [],
    error: null,
    usage: null,
    thinkBudget: null,
    started: Date.now(),
    firstToken: null,
    ended: null,
  };
}

/** Fold one chunk of a stream into a turn. */
export function absorb(turn, chunk) {
  if (chunk.usage) {
    const { prompt_tokens: prompt, completion_tokens: completion, completion_tokens_details: details } = chunk.usage;
    turn.usage = { prompt, completion, thinking: details?.reasoning_tokens ?? 0 };
  }
  const choice = chunk.choices?.[0];
  if (!choice) return;
  const delta = choice.delta ?? {};
  // Servers send one of the two, or the same text under both names.
  addText(turn, "think", delta.reasoning_content ?? delta.reasoning);
  addText(turn, "text", delta.content);
  for (const piece of delta.tool_calls ?? []) addCallPiece(turn, piece);
  if (delta.gradus) addEvent(turn, delta.gradus);
  if (choice.finish_reason === "length") turn.status = "cut";
}

function addText(turn, type, text) {
  // Text alone is kept: a conversation with anything else in its place could not be read again.
  if (typeof text !== "string" || text === "") return;
  turn.firstToken ??= Date.now();
  const last = turn.blocks.at(-1);
  if (last?.type === type) last.text += text;
  else addBlock(turn, type === "think" ? { type, text, started: Date.now(), ended: null } : { type, text });
}

function addBlock(turn, block) {
  closeThinking(turn);
  turn.blocks.push(block);
}

function closeThinking(turn) {
  const last = turn.blocks.at(-1);
  if (last?.type === "think") last.ended ??= Date.now();
}

/** A piece of a call that is the client's to run: id and name come first, then the arguments as pieces of JSON. */
function addCallPiece(turn, piece) {
  turn.firstToken ??= Date.now();
  let block = turn.blocks.find((one) => one.client && one.index === piece.index);
  if (!block) {
    block = {
      type: "call",
      id: piece.id ?? `call_${piece.index}`,
      name: "",
      arguments: "",
      round: numResults(turn),
      client: true,
      index: piece.index,
      result: null,
    };
    addBlock(turn, block);
  }
  block.name += piece.function?.name ?? "";
  block.arguments += piece.function?.arguments ?? "";
}

/** What a tool of the server did. */
function addEvent(turn, event) {
  turn.firstToken ??= Date.now();
  if (event.type === "tool_call") {
    addBlock(turn, {
      type: "call",
      id: event.id,
      name: String(event.name),
      arguments: event.arguments ?? {},
      round: numResults(turn),
      client: false,
      result: null,
    });
  } else if (event.type === "tool_result") {
    const block = turn.blocks.find(
      (one) => one.type === "call" && one.id === event.tool_call_id && one.result === null,
    );
    if (!block)
      throw new ApiError(
        "stream",
        `The server sent a result of a call that it did not announce: ${event.tool_call_id}.`,
      );
    block.result = { content: contentText(event.content), error: event.error === true };
  }
}

function numResults(turn) {
  return turn.blocks.filter((block) => block.type === "call" && block.result !== null).length;
}

export function contentText(content) {
  return typeof content === "string" ? content : JSON.stringify(content, null, 2);
}

function argumentText(values) {
  return typeof values === "string" ? values : JSON.stringify(values);
}

/** Say how a turn ended. `error`: null, or what was thrown; an abort is the person's stop. */
export function finishTurn(turn, error) {
  closeThinking(turn);
  turn.ended = Date.now();
  if (error?.name === "AbortError") turn.status = "stopped";
  else if (error) {
    turn.status = "failed";
    turn.error = { kind: error.kind ?? "page", message: error.message, retryAfter: error.retryAfter ?? null };
  } else if (turn.status === "streaming") turn.status = "done";
}

/** What the assistant said to the person, without thinking and calls. */
export function turnText(turn) {
  return turn.blocks
    .filter((block) => block.type === "text")
    .map((block) => block.text)
    .join("\n\n");
}

/**
 * A turn as OpenAI-style messages: an assistant message, its results, and again where it went on after them.
 *
 * reasoning: whether the server takes `reasoning_content` back; OpenAI's own refuses it. A call that has no result is
 * left out, since no server accepts one. A turn in which nothing was said is one empty message: roles must alternate.
 */
export function turnMessages(turn, reasoning) {
  const messages = [];
  let message = { role: "assistant", content: "" };
  let results = [];
  let round = null;
  const flush = () => {
    messages.push(message, ...results);
    message = { role: "assistant", content: "" };
    results = [];
  };
  for (const block of turn.blocks) {
    if (results.length > 0 && (block.type !== "call" || block.round !== round)) flush();
    if (block.type === "text") message.content += block.text;
    else if (block.type === "think" && reasoning)
      message.reasoning_content = (message.reasoning_content ?? "") + block.text;
    else if (block.type === "call" && block.result !== null) {
      round = block.round;
      (message.tool_calls ??= []).push({
        id: block.id,
        type: "function",
        function: { name: block.name, arguments: argumentText(block.arguments) },
      });
      results.push({ role: "tool", tool_call_id: block.id, content: block.result.content });
    }
  }
  if (message.content || message.tool_calls || message.reasoning_content || messages.length === 0) flush();
  return messages;
}
