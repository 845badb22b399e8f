// The JSON of the admin API, as far as the console reads it (protos/parley/admin/v1). Unset fields are absent, zeros included; whole
// numbers of 64 bits are texts.

export type Limits = Record<string, number>;

export interface Target {
  name: string;
  models?: string[];
  breaker?: string;
  workers?: number;
  workers_open?: number;
  cause?: string;
  admits_in?: number;
  callers_open?: number;
  unhealthy?: boolean;
  calls?: number;
  queued?: number;
  max_calls?: number;
  weight?: number;
  weight_override?: number;
  opened?: boolean;
  keys?: number;
  keys_left_out?: number;
}

export interface RunningCall {
  request_id: string;
  method: string;
  account?: string;
  key?: string;
  model?: string;
  target?: string;
  age?: number;
  tokens?: number;
  session_id?: string;
  worker: string;
}

export interface Key {
  id: string;
  name: string;
  account: string;
  models?: string[];
  scopes?: string[];
  limits?: Limits;
  state: "KEY_STATE_ACTIVE" | "KEY_STATE_EXPIRED" | "KEY_STATE_REVOKED";
  created?: number;
  expires?: number;
  revoked?: number;
}

export interface Account {
  name: string;
  plan: string;
  limits?: Limits;
  suspended?: number;
}

export interface Plan {
  name: string;
  api?: boolean;
  limits?: Limits;
  default?: boolean;
}

export interface UsageRow {
  day?: string;
  account?: string;
  key?: string;
  model?: string;
  target?: string;
  calls?: string;
  errors?: string;
  attempts?: string;
  prompt_tokens?: string;
  completion_tokens?: string;
  cost_nanos?: string;
}

export interface LogLine {
  request_id: string;
  time: string;
  line: string;
  worker: string;
}

export interface LogLevel {
  level: string;
  configured: string;
  until?: number;
}

export interface AuditEvent {
  id: string;
  time: number;
  actor: string;
  source: string;
  method: string;
  subject: string;
  changes?: { field: string; before?: unknown; after?: unknown }[];
}

export interface LastReload {
  time?: number;
  running?: boolean;
  error?: string;
  changes?: string[];
}

/** An answer of all workers; it names those that did not answer. */
export interface OfWorkers {
  unreachable_workers?: string[];
}
