// The one client of the page: an OpenAI-compatible server, this one or another.

import { eventData } from "./sse.js";

/** A request that failed, in words for a person. kind: "key", "busy", "refused", "server", "unreachable" or "stream". */
export class ApiError extends Error {
  constructor(kind, message, retryAfter = null) {
    super(message);
    this.kind = kind;
    this.retryAfter = retryAfter;
  }
}

/** What the page's own server says of itself. A plain file server has no such file: then the defaults hold. */
export async function loadConfig() {
  const defaults = { title: "gradus", needs_key: false, models_url: "/v1" };
  const response = await fetch("config.json").catch(() => null);
  if (response === null || !response.ok) return defaults;
  return { ...defaults, ...(await response.json().catch(() => ({}))) };
}

function headers(connection) {
  return { "Content-Type": "application/json", ...(connection.key && { Authorization: `Bearer ${connection.key}` }) };
}

async function request(connection, path, options) {
  const url = `${connection.url.replace(/\/+$/, "")}${path}`;
  let response;
  try {
    response = await fetch(url, {
      ...options,
      headers: headers(connection),
      credentials: "omit",
      referrerPolicy: "no-referrer",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(
      "unreachable",
      `No answer from ${new URL(url, location.href).href}. The server may not be running` +
        (isOwn(url) ? "." : ", or it may not allow pages from other addresses (CORS)."),
    );
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

function isOwn(url) {
  return new URL(url, location.href).origin === location.origin;
}

async function refusal(response) {
  const text = await response.text().catch(() => "");
  const said = errorText(parsed(text)) ?? plainText(text);
  const status = `${response.status} ${response.statusText}`.trim();
  const retryAfter = Number(response.headers.get("Retry-After")) || null;
  if (response.status === 401 || response.status === 403)
    return new ApiError("key", said || `The server wants a key (${status}).`);
  if (response.status === 429 || response.status === 503) {
    return new ApiError("busy", said || `The server is busy (${status}).`, retryAfter);
  }
  return new ApiError(
    response.status < 500 ? "refused" : "server",
    said ? `${said} (${status})` : `The server answered ${status}.`,
  );
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** The message in an OpenAI-shaped error, in FastAPI's `detail`, or null. */
function errorText(value) {
  const error = value?.error ?? value?.detail;
  if (typeof error === "string") return error;
  return typeof error?.message === "string" ? error.message : null;
}

/** An error page in HTML as one line of words. */
function plainText(text) {
  const bare = text
    .replace(/<(style|script)[\s\S]*?<\/\1>/gi, " ")
    .replace(/<[^>]*>/g, " ")
    .replace(/\s+/g, " ")
    .trim();
  return bare.length > 300 ? `${bare.slice(0, 300)}…` : bare;
}

/** The models of a connection: {id, label, extras}; extras is null where the server is not gradus. */
export async function listModels(connection) {
  const response = await request(connection, "/models", {});
  const answer = await response.json().catch(() => null);
  if (!Array.isArray(answer?.data)) {
    throw new ApiError("server", `${connection.url}/models answered something that is no list of models.`);
  }
  return answer.data
    .filter((row) => typeof row?.id === "string")
    .map((row) => {
      const extras = row.gradus && typeof row.gradus === "object" ? row.gradus : null;
      return { id: row.id, label: String(extras?.label || row.id), extras };
    });
}

/** Ask for a streamed chat completion; yields each chunk. It throws ApiError, or AbortError once `signal` is aborted. */
export async function* streamChat(connection, body, signal) {
  const response = await request(connection, "/chat/completions", {
    method: "POST",
    body: JSON.stringify(body),
    signal,
  });
  const type = response.headers.get("Content-Type") ?? "";
  if (!type.startsWith("text/event-stream")) {
    throw new ApiError("server", `The server did not stream its reply: it answered with ${type || "no content type"}.`);
  }
  let finished = false;
  try {
    for await (const data of eventData(response.body)) {
      if (data === "[DONE]") return;
      const chunk = parsed(data);
      if (chunk === null)
        throw new ApiError("stream", `The server sent something that is no JSON: ${data.slice(0, 120)}`);
      if (chunk.error)
        throw new ApiError("stream", errorText(chunk) ?? "The server reported an error without a message.");
      finished ||= Boolean(chunk.choices?.[0]?.finish_reason);
      yield chunk;
    }
  } catch (error) {
    if (error instanceof ApiError || signal.aborted) throw error;
    throw new ApiError("stream", "The connection broke off before the reply was complete.");
  }
  if (!finished) throw new ApiError("stream", "The connection broke off before the reply was complete.");
}
