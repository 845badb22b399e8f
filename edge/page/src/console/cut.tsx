// Says that a list has more entries than are shown.

import { Notice } from "../ui/notice";

export function Cut({ is, text }: { is: boolean; text: string }) {
  return is ? <Notice kind="error">{text}</Notice> : null;
}
