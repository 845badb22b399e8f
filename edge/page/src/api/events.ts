// Server-sent events of a response's body.

const LINE_END = /\r\n|\n|\r(?!$)/g;

/** Splits text that arrives in parts into lines. A carriage return at the end of a part may be half of a line end. */
export class Lines {
  private rest = "";

  push(part: string): string[] {
    if (!/[\r\n]/.test(part)) {
      this.rest += part;
      return [];
    }
    const lines = (this.rest + part).split(LINE_END);
    this.rest = lines.pop() ?? "";
    return lines;
  }
}

/** Yields the data of each event, several at a time as they arrive. An event that the body cuts off is left out. */
export async function* events(body: ReadableStream<Uint8Array>): AsyncGenerator<string[]> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  const lines = new Lines();
  let data: string[] = [];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const found: string[] = [];
      for (const line of lines.push(decoder.decode(value, { stream: true }))) {
        if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5));
        else if (line === "" && data.length) {
          found.push(data.join("\n"));
          data = [];
        }
      }
      if (found.length) yield found;
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}
