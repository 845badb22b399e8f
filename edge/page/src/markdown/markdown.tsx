// An answer's Markdown as elements. No text of a model is ever parsed as HTML.

import { Component, type ComponentChildren } from "preact";
import { useRef } from "preact/hooks";
import { Blocks, MAX_LIVE } from "./blocks";
import { Budget } from "./budget";
import { LongText } from "./long_text";
import { Pace } from "./pace";
import { tokensOf } from "./parser";
import { elementsOf } from "./render";

/** A longer block is plain text: the parser needs the square of its length where a block has many beginnings without an end. */
const MAX_BLOCK = 50_000;
/** The text behind so many blocks is plain text. */
const MAX_BLOCKS = 2_000;

interface Props {
  source: string;
  /** Whether more text may follow. */
  live: boolean;
}

export function Markdown({ source, live }: Props) {
  const { current: state } = useRef({ blocks: new Blocks(), budget: new Budget() });
  const parts = state.blocks.update(source);
  const rest = parts.slice(MAX_BLOCKS).join("");
  return (
    <div class="markdown" dir="auto">
      {parts.slice(0, MAX_BLOCKS).map((part, index) => (
        <Block key={index} source={part} live={live && index === parts.length - 1} budget={state.budget} />
      ))}
      {rest && <LongText text={rest} />}
    </div>
  );
}

type BlockProps = Props & { budget: Budget };

/** One block; it is rendered again only when it changes. */
class Block extends Component<BlockProps> {
  private readonly pace = new Pace();

  override shouldComponentUpdate(next: BlockProps): boolean {
    const isChanged = next.source !== this.props.source || next.live !== this.props.live;
    return isChanged && (!next.live || this.pace.isDue);
  }

  override render({ source, live, budget }: BlockProps): ComponentChildren {
    if (source.length > (live ? MAX_LIVE : MAX_BLOCK)) return <LongText text={source} />;
    const tokens = this.pace.run(() => tokensOf(source));
    return budget.admits(this, tokens) ? elementsOf(tokens, live) : <LongText text={source} />;
  }
}
