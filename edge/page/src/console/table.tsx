// A table; on a phone each row is a card.

import type { ComponentChildren } from "preact";
import { withoutDirections } from "../markdown/links";

export interface Column<T> {
  name: string;
  show(row: T): ComponentChildren;
  isNumber?: boolean;
}

interface Props<T> {
  label: string;
  columns: Column<T>[];
  rows: T[];
  keyOf(row: T): string;
  /** What stands in place of a table without rows. */
  empty: string;
}

/** The roles keep the meaning of a table where its rows are shown as cards. */
export function Table<T>({ label, columns, rows, keyOf, empty }: Props<T>) {
  if (!rows.length) return <p class="hint">{empty}</p>;
  return (
    <table role="table" aria-label={label}>
      <thead role="rowgroup">
        <tr role="row">
          {columns.map(({ name, isNumber }) => (
            <th key={name} role="columnheader" scope="col" class={isNumber ? "number" : undefined}>
              {name}
            </th>
          ))}
        </tr>
      </thead>
      <tbody role="rowgroup">
        {rows.map((row) => (
          <tr key={keyOf(row)} role="row">
            {columns.map(({ name, show, isNumber }) => (
              <td key={name} role="cell" data-label={name} class={isNumber ? "number" : undefined}>
                <div>{show(row)}</div>
              </td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** A text of callers or of other servers, which may have any characters. */
export function Text({ children }: { children: string | undefined }) {
  return children ? <bdi>{withoutDirections(children)}</bdi> : null;
}
