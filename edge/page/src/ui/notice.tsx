// A message that screen readers announce.

import type { ComponentChildren } from "preact";

export function Notice({ kind, children }: { kind: "error" | "info"; children: ComponentChildren }) {
  return (
    <div class={`notice ${kind}`} role={kind === "error" ? "alert" : "status"} dir="auto">
      {children}
    </div>
  );
}
