// Names workers that did not answer, whose part is missing.

import { consoleTexts } from "../texts";
import { Notice } from "../ui/notice";

export function Silent({ workers }: { workers: string[] }) {
  return workers.length ? <Notice kind="error">{consoleTexts.silent(workers.join(", "))}</Notice> : null;
}
