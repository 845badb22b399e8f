// An answer's Markdown as elements. No text of a model is ever parsed as HTML.

import type { Token } from "markdown-it";
import { Component, type ComponentChildren } from "preact";
import { useRef } from "preact/hooks";
import { Blocks, MAX_LIVE } from "./blocks";
import { LongText } from "./long_text";
import { Pace } from "./pace";
import { tokensOf } from "./parser";
import { elementsOf } from "./render";

const MAX_BLOCK = 100_000;
/** A block with more tokens is shown as plain text: an answer may contain a table of a hundred thousand cells. */
const MAX_TOKENS = 20_000;

interface Props {
  source: string;
  /** Whether more text may follow. */
  live: boolean;
}

export function Markdown({ source, live }: Props) {
  const blocks = useRef<Blocks | null>(null);
  const parts = (blocks.current ??= new Blocks()).update(source);
  return (
    <div class="markdown" dir="auto">
      {parts.map((part, index) => (
        <Block key={index} source={part} live={live && index === parts.length - 1} />
      ))}
    </div>
  );
}

/** One block; it is rendered again only when it changes. */
class Block extends Component<Props> {
  private readonly pace = new Pace();

  override shouldComponentUpdate(next: Props): boolean {
    const isChanged = next.source !== this.props.source || next.live !== this.props.live;
    return isChanged && (!next.live || this.pace.isDue);
  }

  override render({ source, live }: Props): ComponentChildren {
    if (source.length > (live ? MAX_LIVE : MAX_BLOCK)) return <LongText text={source} />;
    const tokens = this.pace.run(() => tokensOf(source));
    return sizeOf(tokens) > MAX_TOKENS ? <LongText text={source} /> : elementsOf(tokens, live);
  }
}

/** Returns the number of tokens, those in lines included. */
function sizeOf(tokens: Token[]): number {
  return tokens.reduce((size, { children }) => size + 1 + (children?.length ?? 0), 0);
}
