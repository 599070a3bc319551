// Server-sent events, read as they arrive (WHATWG HTML, section 9.2.6). Bytes are decoded as one stream, so a character
// that two network packets share stays whole.

/** The data of each event of a response body, in order. */
export async function* eventData(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (data.length > 0) yield data.join("\n");
          data = [];
        } else if (line.startsWith("data:")) {
          data.push(line.slice(line.startsWith("data: ") ? 6 : 5));
        }
      }
    }
    // Some servers end without the empty line after the last event.
    if (rest.startsWith("data:")) data.push(rest.slice(5).trimStart());
    if (data.length > 0) yield data.join("\n");
  } finally {
    reader.cancel().catch(() => {}); // The stream is over or was aborted: nothing is left to cancel.
  }
}
