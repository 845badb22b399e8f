// What an account has used today and this month, beside its limits.

import type { Limits, UsageRow } from "./types";

export const NANOS = 1e9;

export interface Budget {
  /** The name of the limit. */
  name: string;
  used: number;
  /** Undefined without a limit. */
  limit: number | undefined;
}

const BUDGETS = ["tokens_per_day", "tokens_per_month", "cost_per_day", "cost_per_month"] as const;

/** Returns the tokens of the prompts and answers. */
export function tokensOf(row: UsageRow): number {
  return Number(row.prompt_tokens ?? 0) + Number(row.completion_tokens ?? 0);
}

export function costOf(row: UsageRow): number {
  return Number(row.cost_nanos ?? 0) / NANOS;
}

/** Returns the budgets that have a limit, and what is used this month without one. */
export function budgetsOf(limits: Limits, today: UsageRow = {}, month: UsageRow = {}): Budget[] {
  return BUDGETS.map((name) => {
    const value = name.startsWith("cost") ? costOf : tokensOf;
    return { name, used: value(name.endsWith("day") ? today : month), limit: limits[name] };
  }).filter(({ name, used, limit }) => limit !== undefined || (used > 0 && name.endsWith("month")));
}
