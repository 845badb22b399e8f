// A request as code, to be copied.

import { useState } from "preact/hooks";
import type { CompletionRequest } from "../api/completions";
import { CodeBlock } from "../markdown/code";
import { texts } from "../texts";
import { Dialog } from "../ui/dialog";
import { snippets } from "./snippets";

interface Props {
  request: CompletionRequest;
  grpcPort: number;
  onClose(): void;
}

export function SnippetsDialog({ request, grpcPort, onClose }: Props) {
  const [chosen, choose] = useState(0);
  const place = { origin: location.origin, grpc: `${location.hostname}:${grpcPort || texts.snippets.port}` };
  const all = snippets(request, place);
  const shown = all[chosen] ?? all[0]!;
  return (
    <Dialog title={texts.snippets.title} onClose={onClose}>
      <div class="row" role="group" aria-label={texts.snippets.title}>
        {all.map(({ name }, index) => (
          <button type="button" key={name} aria-pressed={index === chosen} onClick={() => choose(index)}>
            {name}
          </button>
        ))}
      </div>
      <CodeBlock source={shown.code} language={shown.language} />
      <p class="hint">
        {texts.snippets.hint} {!grpcPort && texts.snippets.portHint}
      </p>
    </Dialog>
  );
}
