// What a form has changed of a key.

import type { Key, Limits } from "./types";

export interface KeySettings {
  name: string;
  account: string;
  models: string[];
  scopes: string[];
  limits: Limits;
  expires?: number;
}

/** Returns the day in UTC as YYYY-MM-DD, empty for none. */
export function dayOf(expires: number | undefined): string {
  return expires === undefined ? "" : new Date(1000 * expires).toISOString().slice(0, 10);
}

/** Returns the end of the chosen day in Unix seconds, or the exact second that is known if the day is the same. */
export function expiryOf(day: string, known: number | undefined): number | undefined {
  if (day === dayOf(known)) return known;
  return day ? Date.parse(`${day}T23:59:59Z`) / 1000 : undefined;
}

/** Returns the request that changes what differs, and nothing else; null if nothing does. */
export function changeOf(known: Key, { name, models, scopes, limits, expires }: KeySettings): object | null {
  const settings = { name, models, scopes, limits, expires };
  const before = { name: known.name, models: known.models ?? [], scopes: known.scopes ?? [], limits: known.limits ?? {}, expires: known.expires };
  const changed = (Object.keys(settings) as (keyof typeof settings)[]).filter((field) => comparable(settings[field]) !== comparable(before[field]));
  if (!changed.length) return null;
  const key = Object.fromEntries(changed.map((field) => [field, settings[field]]));
  return { key: { id: known.id, ...key }, update_mask: changed.join(",") };
}

/** Writes lists and limits without regard to their order. */
function comparable(value: unknown): string | undefined {
  if (Array.isArray(value)) return JSON.stringify([...value].sort());
  return value !== null && typeof value === "object" ? JSON.stringify(Object.entries(value).sort()) : JSON.stringify(value);
}
