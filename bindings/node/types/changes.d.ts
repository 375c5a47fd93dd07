// What changes services and groups, and what tells of it.

import type { AdminState, HealthState, ServiceSpec, Health } from "./services.js";

export interface Expected {
  /** The revision that must be current. */
  expected?: number;
}

export type Mutation =
  | { register: ServiceSpec }
  | { put: ServiceSpec }
  | { update: { name: string; spec: ServiceSpec; expected?: number } }
  | { deregister: { name: string; expected?: number } }
  | { set_admin_state: { name: string; admin_state: AdminState; instance?: string; reason?: string } }
  | { pin_tools: { name: string; pinning?: string } };

export interface GroupSpec {
  name: string;
  title?: string;
  description?: string;
  tenant?: string;
  members?: { service: string; tools?: string[] }[];
  mode?: string;
  prefix?: string;
}

export type Group = GroupSpec & {
  revision: number;
  created_at: string;
  updated_at: string;
  updated_by: string;
  missing: string[];
  tool_count: number;
};

/** What changed. `resync` says that the reader fell behind: read the state again and go on. */
export type Event =
  | { type: "resync" }
  | ({ sequence: number; revision: number; at: string; service?: string } & (
      | { type: "service_registered" | "service_updated" | "service_deregistered" }
      | { type: "health_changed"; instance: string; from: HealthState; to: HealthState; reason: Health["reason"] }
      | { type: "flapping_began"; instance: string; downs: number }
      | { type: "flapping_ended"; instance: string }
      | {
          type: "definitions_changed";
          instance: string;
          added: string[];
          removed: string[];
          changed: string[];
          prompts?: boolean;
          resources?: boolean;
        }
      | { type: "self_preservation"; active: boolean; failing: number; targets: number; message: string }
      | { type: "group_changed" | "group_removed"; group: string }
    ));

export interface WatchOptions {
  /** Tells of what changed since this revision, too. */
  since?: number;
  /** Ends the iteration with an `AbortError`. */
  signal?: AbortSignal;
}

/** A stream of events. While its next event is awaited, the process does not end. */
export interface Watch extends AsyncIterableIterator<Event> {
  [Symbol.asyncIterator](): Watch;
  return(value?: unknown): Promise<IteratorResult<Event>>;
  [Symbol.asyncDispose](): Promise<void>;
}

export type JournalKind = "transition" | "sample" | "rollup" | "call" | "alert" | "audit";
export type JournalEntry = { at: string; kind: JournalKind; service?: string; instance?: string; [key: string]: unknown };
