// Formulas as MathML, by Temml, which is loaded with the first formula.

import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { texts } from "../texts";
import { withoutDirections } from "./links";

type Typeset = (source: string, block: boolean) => Element | null;

let typeset: Typeset | null = null;
const loading = () => import("./typeset").then((module) => (typeset = module.typeset));

export function Formula({ source, block }: { source: string; block: boolean }) {
  const place = useRef<HTMLSpanElement>(null);
  const [isLoaded, setLoaded] = useState(typeset !== null);
  useLayoutEffect(() => {
    let isCurrent = true;
    if (!typeset) loading().then(() => isCurrent && setLoaded(true), () => undefined);
    const made = typeset?.(source, block);
    place.current?.replaceChildren(made ?? withoutDirections(source));
    return () => {
      isCurrent = false;
    };
  }, [source, block, isLoaded]);
  return <span ref={place} class={block ? "formula block" : "formula"} {...(block && { tabIndex: 0, role: "group", "aria-label": texts.answer.formula })} />;
}
