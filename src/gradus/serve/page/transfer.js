// Conversations as files: everything the page keeps, to be read back; and rows that `gradus` pools can read.

import {
  ROOT,
  addQuestion,
  addReply,
  leafBelow,
  messagesTo,
  newConversation,
  pathTo,
  problemWith,
  titleFrom,
} from "./conversation.js";
import { contentText, finishTurn, newTurn } from "./turn.js";

const FORMAT = "gradus-chat";

export function exportText(conversations) {
  return JSON.stringify({ format: FORMAT, version: 1, exported: new Date().toISOString(), conversations }, null, 1);
}

/** The branch that is shown as one line of training data; calls in it hold their arguments as objects. */
export function trainingRow(conversation) {
  const messages = messagesTo(conversation, leafBelow(conversation), true).map(({ tool_calls: calls, ...message }) =>
    calls
      ? {
          ...message,
          tool_calls: calls.map((call) => ({
            id: call.id,
            name: call.function.name,
            arguments: parsedArguments(call.function.arguments),
          })),
        }
      : message,
  );
  return JSON.stringify({ messages });
}

/** The branch that is shown as a text to read: who said what, with thinking as quotes and calls with their results. */
export function markdownText(conversation) {
  const parts = [`# ${conversation.title || "Untitled"}`];
  if (conversation.system) parts.push("## System", conversation.system);
  for (const node of pathTo(conversation, leafBelow(conversation))) {
    if (node.role === "user") parts.push("## You", node.text);
    else parts.push(`## ${node.turn.label}`, ...node.turn.blocks.map(blockMarkdown));
  }
  return `${parts.join("\n\n")}\n`;
}

function blockMarkdown(block) {
  if (block.type === "text") return block.text.trim();
  if (block.type === "think") return `Thinking:\n\n${quoted(block.text)}`;
  const result = block.result === null ? "no result" : block.result.content;
  return `${block.name}:\n\n${fenced(contentText(block.arguments))}\n\n${fenced(result)}`;
}

function quoted(text) {
  return text
    .trim()
    .split("\n")
    .map((line) => `> ${line}`.trimEnd())
    .join("\n");
}

/** A code block whose fence is longer than any run of backticks in it. */
function fenced(text) {
  const longest = Math.max(2, ...(text.match(/`+/g) ?? []).map((run) => run.length));
  const fence = "`".repeat(longest + 1);
  return `${fence}\n${text}\n${fence}`;
}

function parsedArguments(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** Conversations in a file of ours, or in lines of {"messages": [...]}; problems: what was left out, and why. */
export function readImport(text) {
  let whole = null;
  try {
    whole = JSON.parse(text);
  } catch {
    return readRows(
      text.split("\n").filter((line) => line.trim() !== ""),
      JSON.parse,
    );
  }
  if (Array.isArray(whole?.messages)) return readRows([whole], (row) => row);
  if (whole?.format !== FORMAT || !Array.isArray(whole.conversations)) {
    return {
      conversations: [],
      problems: [
        `The file is no export of this page: it has no "format": "${FORMAT}", and no lines of {"messages": [...]}.`,
      ],
    };
  }
  const conversations = [];
  const problems = [];
  whole.conversations.forEach((one, index) => {
    const problem = problemWith(one);
    if (problem) problems.push(`Conversation ${index + 1} ${problem}.`);
    else conversations.push(one);
  });
  return { conversations, problems };
}

function readRows(rows, read) {
  const conversations = [];
  const problems = [];
  rows.forEach((row, index) => {
    try {
      conversations.push(fromMessages(read(row).messages));
    } catch (error) {
      problems.push(`Row ${index + 1}: ${error.message}.`);
    }
  });
  return { conversations, problems };
}

/** A conversation from OpenAI-style messages; roles must be system, then user and assistant in turn, with tool results. */
function fromMessages(messages) {
  if (!Array.isArray(messages)) throw new Error('no "messages"');
  const conversation = newConversation();
  let at = ROOT;
  let turn = null;
  for (const message of messages) {
    if (message?.role === "system") conversation.system = contentText(message.content ?? "");
    else if (message?.role === "user") {
      at = addQuestion(conversation, at, contentText(message.content ?? "")).id;
      turn = null;
    } else if (message?.role === "assistant") {
      if (at === ROOT) throw new Error("an assistant message before any user message");
      if (turn === null) {
        turn = newTurn({ id: "imported", label: "imported" });
        at = addReply(conversation, at, turn).id;
        finishTurn(turn, null);
      }
      addMessage(turn, message);
    } else if (message?.role === "tool") {
      const call = turn?.blocks.find((block) => block.id === message.tool_call_id && block.result === null);
      if (!call) throw new Error(`a tool result without its call (${message.tool_call_id})`);
      call.result = { content: contentText(message.content ?? ""), error: false };
    } else {
      throw new Error(`a message of role ${JSON.stringify(message?.role)}`);
    }
  }
  if (at === ROOT) throw new Error("no messages");
  conversation.title ||= titleFrom("Imported conversation");
  return conversation;
}

function addMessage(turn, message) {
  const thinking = message.reasoning_content ?? message.reasoning;
  if (thinking) turn.blocks.push({ type: "think", text: contentText(thinking), started: null, ended: null });
  if (message.content) turn.blocks.push({ type: "text", text: contentText(message.content) });
  const round = turn.blocks.filter((block) => block.result).length;
  for (const call of message.tool_calls ?? []) {
    const given = call.function?.arguments ?? call.arguments ?? {};
    turn.blocks.push({
      type: "call",
      id: call.id,
      name: String(call.function?.name ?? call.name ?? ""),
      arguments: typeof given === "string" ? parsedArguments(given) : given,
      round,
      client: false,
      result: null,
    });
  }
}
