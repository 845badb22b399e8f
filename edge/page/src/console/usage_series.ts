// The sums of a report of usage, and their days as stacked series for a chart.

import { costOf, tokensOf } from "./budgets";
import type { UsageRow } from "./types";

export const MEASURES = ["tokens", "cost", "calls", "errors"] as const;
export type Measure = (typeof MEASURES)[number];

/** So many series have a colour of their own; smaller ones are drawn together. */
export const COLOURS = 8;
const DAY_SECONDS = 86_400;
const COUNTS = ["calls", "errors", "attempts", "prompt_tokens", "completion_tokens", "cost_nanos"] as const;

/** The sum of a group of the report. */
export interface Sum {
  name: string;
  row: UsageRow;
  /** The number of its colour; the last one is shared. */
  place: number;
}

export interface Series {
  /** The days, in Unix seconds. */
  days: number[];
  /** The values of each colour by day, each with those of the colours before it. */
  stacked: number[][];
  /** The largest first. */
  sums: Sum[];
}

export function valueOf(row: UsageRow, measure: Measure): number {
  if (measure === "tokens") return tokensOf(row);
  return measure === "cost" ? costOf(row) : Number(row[measure] ?? 0);
}

const unixOf = (day: string) => Date.parse(`${day}T00:00:00Z`) / 1000;

/** Returns the series of a report by day and `group`, from the day `since` to the day `until`. */
export function seriesOf(rows: UsageRow[], group: keyof UsageRow, since: string, until: string, measure: Measure): Series {
  const groups = new Map<string, UsageRow[]>();
  for (const row of rows) {
    const name = row[group] ?? "";
    groups.set(name, [...(groups.get(name) ?? []), row]);
  }
  const sums = [...groups].map(([name, found]) => ({ name, row: sumOf(found), place: 0 }));
  sums.sort((one, other) => valueOf(other.row, measure) - valueOf(one.row, measure));
  sums.forEach((sum, index) => (sum.place = Math.min(index, COLOURS - 1)));
  const first = unixOf(since);
  const count = Math.max(1, Math.round((unixOf(until) - first) / DAY_SECONDS) + 1);
  const days = Array.from({ length: count }, (_, index) => first + index * DAY_SECONDS);
  const used = Math.min(sums.length, COLOURS);
  const stacked = Array.from({ length: used }, () => new Array<number>(count).fill(0));
  for (const { name, place } of sums) {
    for (const row of groups.get(name) ?? []) {
      const day = Math.round((unixOf(row.day ?? since) - first) / DAY_SECONDS);
      // Each colour has what lies below it too.
      if (day >= 0 && day < count) for (const values of stacked.slice(place)) values[day]! += valueOf(row, measure);
    }
  }
  return { days, stacked, sums };
}

function sumOf(rows: UsageRow[]): UsageRow {
  return Object.fromEntries(COUNTS.map((name) => [name, String(rows.reduce((sum, row) => sum + Number(row[name] ?? 0), 0))]));
}
