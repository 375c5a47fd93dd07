/**
 * A registry of MCP servers in this process, or a client of one elsewhere.
 *
 * Methods and callbacks are named as JavaScript names them. Everything that is data has the names it has
 * in the REST API, in files and in every other language: see `docs/reference/rest.md`.
 */

export * from "./types/machina.js";
export * from "./types/services.js";
export * from "./types/tools.js";
export * from "./types/changes.js";
export * from "./types/errors.js";

import type { JsonObject } from "./types/services.js";

export interface LogRecord {
  at: string;
  level: "error" | "warn" | "info" | "debug" | "trace";
  target: string;
  message: string;
  fields: JsonObject;
  /** How many records before this one were lost, because the listener was too slow. */
  lost?: number;
}

/**
 * Has what Machina logs told to `listener`, `null` for nobody; there is one for the process, and none at first.
 * `filter` is a level (`info` by default), or such as `warn,machina_mcp=debug`.
 */
export declare function setLogger(listener: ((record: LogRecord) => void) | null, filter?: string): void;
