// Markdown's tokens as elements.

import type { Token } from "markdown-it";
import { Fragment, h, type ComponentChild } from "preact";
import { texts } from "../texts";
import { CodeBlock } from "./code";
import { calledAddress, imageOf, linkOf, withoutOverrides } from "./links";
import { Formula } from "./math";

const HEADING = /^h[1-6]$/;
/** Deeper elements are left out, and their content stays: a browser lays out nested elements recursively. */
const MAX_DEPTH = 100;
const KNOWN = new Set("p ul ol li blockquote table thead tbody tr th td strong em s a".split(" "));

interface Open {
  token: Token | null;
  children: ComponentChild[];
}

/** Returns the elements of tokens. In a block that grows (`live`), code is not highlighted yet. */
export function elementsOf(tokens: Token[], live: boolean): ComponentChild[] {
  const stack: Open[] = [{ token: null, children: [] }];
  const add = (child: ComponentChild) => stack.at(-1)!.children.push(child);
  for (const token of tokens) {
    if (token.nesting === 1) stack.push({ token, children: [] });
    else if (token.nesting === 0) add(leaf(token, live));
    else {
      const { token: opened, children } = stack.pop()!;
      if (opened && stack.length > MAX_DEPTH) stack.at(-1)!.children.push(...children);
      else if (opened) add(element(opened, children));
    }
  }
  return stack[0]!.children;
}

function element(token: Token, children: ComponentChild[]): ComponentChild {
  const { tag } = token;
  // The headings of an answer are one level below its own, in any order that a model writes them.
  if (HEADING.test(tag)) return <h4 class={tag}>{children}</h4>;
  if (token.hidden || !KNOWN.has(tag)) return h(Fragment, null, ...children);
  if (tag === "a") return <Link address={attribute(token, "href")}>{children}</Link>;
  if (tag === "table") {
    return (
      <div class="table" role="group" aria-label={texts.answer.table} tabIndex={0}>
        <table>{children}</table>
      </div>
    );
  }
  return h(tag, properties(token), ...children);
}

function properties(token: Token): Record<string, unknown> {
  const start = attribute(token, "start");
  const align = /text-align:\s*(left|right|center)/.exec(attribute(token, "style") ?? "")?.[1];
  return { ...(start && { start: Number(start) }), ...(align && { style: { textAlign: align } }) };
}

function attribute(token: Token, name: string): string | null {
  const value = token.attrs?.find(([key]) => key === name)?.[1];
  return value === undefined ? null : String(value);
}

function leaf(token: Token, live: boolean): ComponentChild {
  switch (token.type) {
    case "inline":
      return h(Fragment, null, ...elementsOf(token.children ?? [], live));
    case "fence":
    case "code_block":
      return <CodeBlock source={token.content} language={token.info.trim().split(/\s+/)[0] ?? ""} live={live} />;
    case "code_inline":
      return <code dir="ltr">{withoutOverrides(token.content)}</code>;
    case "math_inline":
    case "math_block":
      return <Formula source={token.content} block={token.type === "math_block"} />;
    case "image":
      return <Picture address={attribute(token, "src")} text={token.content} />;
    case "hr":
      return <hr />;
    case "hardbreak":
      return <br />;
    case "softbreak":
      return "\n";
    default:
      return withoutOverrides(token.content);
  }
}

function Link({ address, children }: { address: string | null; children: ComponentChild[] }) {
  const href = linkOf(address);
  if (!href) return <>{children}</>;
  return (
    <a href={href} target="_blank" rel="noopener noreferrer nofollow" title={calledAddress(href)}>
      {children}
    </a>
  );
}

/** An image that the answer contains; for one of another server, a link. */
function Picture({ address, text }: { address: string | null; text: string }) {
  const source = imageOf(address);
  if (source) return <img src={source} alt={text || texts.answer.image} />;
  return <Link address={address}>{[texts.answer.imageLink(text)]}</Link>;
}
