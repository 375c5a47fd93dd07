// Tools, calls of them, and functions of this program that are some.

import type { JsonObject, AdminState, HealthState } from "./services.js";
import type { ErrorCode } from "./errors.js";

/** The definition of a tool, as in MCP's `tools/list`. */
export interface ToolDefinition {
  name: string;
  title?: string;
  description?: string;
  inputSchema: { [key: string]: unknown };
  outputSchema?: { [key: string]: unknown };
  annotations?: { [key: string]: unknown };
  [key: string]: unknown;
}

/** A tool as a reader sees it; `score` is there when it was searched for. */
export type Tool = ToolDefinition & { service: string; hash: string; score?: number; suspicious?: string[] };

export interface ToolQuery {
  service?: string;
  cursor?: string;
  limit?: number;
}

export interface CallOptions {
  /** How long it may take in all, in milliseconds: 1 to 600 000; the service's own limit by default. */
  timeout_ms?: number;
  /** Says that the call may be repeated, even if its outcome is unknown. */
  idempotency_key?: string;
  /** Calls with the same key go to the same instance while that is up. */
  affinity_key?: string;
  /** What the instance gets as `_meta`. */
  meta?: JsonObject;
  /** Cancels the call: it is rejected with an `AbortError`, whose `context.outcome` says what is known. */
  signal?: AbortSignal;
  /** Is told of progress. */
  onProgress?: (progress: { progress: number; total?: number; message?: string }) => void;
}

/** What a tool answered: MCP's `CallToolResult`, and in `_meta` how it was come by. */
export interface ToolResult {
  content: { type: string; text?: string; [key: string]: unknown }[];
  structuredContent?: { [key: string]: unknown };
  isError?: boolean;
  _meta: {
    "dev.machina/call": { instance: string; attempts: number; duration_ms: number; tried: Attempt[] };
    [key: string]: unknown;
  };
  [key: string]: unknown;
}

export interface Attempt {
  instance: string;
  duration_ms: number;
  error: ErrorCode | null;
  phase: string | null;
  outcome?: Outcome;
  hedge?: boolean;
  abandoned?: boolean;
}

export type Outcome = "not_executed" | "unknown" | "executed";

/** Why a call would go where it would go. */
export interface Explanation {
  service: string;
  tool?: string | null;
  admin_state: AdminState;
  balancer: string;
  panic: boolean;
  repeatable: boolean;
  repeatable_reason: string;
  timeout_ms: number;
  attempts_max: number;
  candidates: {
    instance: string;
    location: string;
    standing: string;
    eligible: boolean;
    reason: string;
    health: HealthState;
    share: number;
    picked: boolean;
    [key: string]: unknown;
  }[];
  [key: string]: unknown;
}

/** What a function of this program is called with besides its arguments. */
export interface Execution {
  /** Fires when nobody waits for the answer any more. */
  signal: AbortSignal;
  /** Tells the caller how far it has come; `progress` only ever grows. Begins the `idle_timeout` anew. */
  progress(this: void, progress: number, total?: number, message?: string): void;
}

/**
 * A function of this program as a tool. An object that it returns is the structured answer; an object with a list
 * `content` is MCP's result as it is; an error that it throws is an answer that says `isError`.
 */
export type ToolFunction<A = any> = (args: A, execution: Execution) => unknown;
