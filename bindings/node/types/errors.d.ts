// What can go wrong: one class for each kind of error.

import type { Outcome } from "./tools.js";

export type ErrorCode =
  | "invalid" | "unauthenticated" | "forbidden" | "not_found" | "conflict" | "unavailable" | "unreachable" | "lost"
  | "timeout" | "overloaded" | "rejected" | "unsupported" | "internal";

/** What a program may want to know about an error; fields that say nothing are absent. */
export interface ErrorContext {
  problems?: { field: string; detail: string }[];
  service?: string;
  tool?: string;
  instance?: string;
  phase?: "not_sent" | "maybe_executed" | "refused" | "answered" | "committed";
  outcome?: Outcome;
  attempts?: number;
  retry_after_ms?: number;
  upstream_status?: number;
  upstream_code?: number;
  upstream_data?: unknown;
  stderr_tail?: string;
  hard?: boolean;
}

/** What every operation is rejected with; `code` is listed in `docs/reference/errors.md`. */
export declare class MachinaError extends Error {
  constructor(message: string, about?: { code?: ErrorCode; context?: ErrorContext; cause?: unknown });
  readonly code: ErrorCode;
  readonly context: ErrorContext;
}

export declare class Invalid extends MachinaError {}
export declare class Unauthenticated extends MachinaError {}
export declare class Forbidden extends MachinaError {}
export declare class NotFound extends MachinaError {}
export declare class Conflict extends MachinaError {}
export declare class Unavailable extends MachinaError {}
export declare class Unreachable extends MachinaError {}
export declare class Lost extends MachinaError {}
export declare class Timeout extends MachinaError {}
export declare class Overloaded extends MachinaError {}
export declare class Rejected extends MachinaError {}
export declare class Unsupported extends MachinaError {}
export declare class Internal extends MachinaError {}
