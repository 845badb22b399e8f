// The JSON of the API, as far as the page reads it (/openapi.json).

export interface Model {
  id: string;
  /** The following are absent where they are not known. */
  name?: string;
  description?: string;
  context_length?: number;
  top_provider?: { max_completion_tokens?: number };
  architecture?: { input_modalities?: string[]; output_modalities?: string[] };
  supported_parameters?: string[];
  /** Prices of one token, as decimal numbers. */
  pricing?: { prompt: string; completion: string };
}

export interface TextPart {
  type: "text";
  text: string;
}

export interface ImagePart {
  type: "image_url";
  image_url: { url: string };
}

export type Part = TextPart | ImagePart;

export interface ToolCall {
  id: string;
  type: string;
  function: { name: string; arguments: string };
}

export interface Message {
  role: "system" | "user" | "assistant" | "tool";
  content: string | Part[] | null;
  tool_calls?: ToolCall[];
  tool_call_id?: string;
  reasoning_content?: string;
}

export interface TokenLogprob {
  token: string;
  logprob: number;
  top_logprobs?: { token: string; logprob: number }[];
}

export interface Usage {
  prompt_tokens?: number;
  completion_tokens?: number;
  total_tokens?: number;
}

export interface ToolCallDelta {
  index?: number;
  id?: string;
  type?: string;
  function?: { name?: string; arguments?: string };
}

export interface Delta {
  content?: string | null;
  reasoning_content?: string | null;
  refusal?: string | null;
  tool_calls?: ToolCallDelta[];
  images?: { image_url?: { url?: string } }[];
}

export interface ChunkChoice {
  index?: number;
  delta?: Delta;
  finish_reason?: string | null;
  logprobs?: { content?: TokenLogprob[] | null } | null;
}

export interface Chunk {
  chatSessionId?: string;
  model?: string;
  choices?: ChunkChoice[];
  usage?: Usage | null;
}

export interface Attempt {
  model: string;
  backend: string;
  target_model?: string;
  kind: string;
  outcome?: string;
  reason?: string;
  started_ms?: number;
  first_token_ms?: number;
  duration_ms: number;
  usage?: Usage;
  estimated?: boolean;
  cost?: number;
}

/** What a guard decided about the request (`before`) or the answer (`after`). */
export interface GuardResult {
  guard: string;
  phase: string;
  outcome: string;
  reason?: string;
}

export interface Receipt {
  guards?: GuardResult[];
  /** How the call used the cache of its model: `hit`, `miss` or `bypass`. */
  cache?: string;
  attempts?: Attempt[];
  usage?: Usage;
  cost?: number;
  duration_ms?: number;
}

/** The state of a stored turn. */
export interface TurnState {
  state: "in_progress" | "completed" | "incomplete";
  /** Why it is incomplete, for example `cancelled`, `failed` or `crashed`. */
  reason?: string;
}

export interface SessionMessage extends TurnState {
  message: Message;
  turn: number;
  receipt?: Receipt;
}

export interface Session {
  id: string;
  model: string;
  created: number;
  updated: number;
  turn_count?: number;
  forked_from?: string;
  title?: string;
  labels?: Record<string, string>;
}

/** How callers sign in at an issuer; the operator configures it with `auth.issuers`. */
export interface SignIn {
  issuer: string;
  client_id: string;
  scopes: string[];
  id_token: boolean;
  /** Further parameters of the authorization request. */
  parameters: Record<string, string>;
}

/** What the edge tells the page about this server. */
export interface Settings {
  grpc_port: number;
  /** Whether the documentation is at `/docs/`. */
  docs?: boolean;
  sign_in: SignIn[];
}
