// An answer's Markdown as elements. No text of a model is ever parsed as HTML.

import { Component, type ComponentChildren } from "preact";
import { useRef } from "preact/hooks";
import { Blocks, MAX_LIVE } from "./blocks";
import { LongText } from "./long_text";
import { tokensOf } from "./parser";
import { elementsOf } from "./render";

const MAX_BLOCK = 100_000;

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
  override shouldComponentUpdate(next: Props): boolean {
    return next.source !== this.props.source || next.live !== this.props.live;
  }

  override render({ source, live }: Props): ComponentChildren {
    if (source.length > (live ? MAX_LIVE : MAX_BLOCK)) return <LongText text={source} />;
    return elementsOf(tokensOf(source), live);
  }
}
