/**
 * A registry of MCP servers in this process, or a client of one elsewhere.
 *
 * Methods and callbacks are named as JavaScript names them. Everything that is data has the names it has
 * in the REST API, in files and in every other language: see `docs/reference/rest.md`.
 */

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type JsonObject = { [key: string]: Json };
export type AdminState = "enabled" | "draining" | "disabled" | "maintenance" | "quarantined";
export type Status = "healthy" | "degraded" | "unhealthy" | "unknown" | "disabled" | "maintenance";
export type HealthState =
  | "unknown" | "starting" | "healthy" | "suspect" | "unhealthy" | "recovering" | "crash_loop" | "expired";
export type BuildType = "fastmcp" | "fastapi" | "external" | "conversion" | "docker" | "other";
export type BuildPriority = "HIGH" | "MEDIUM" | "LOW";
export type Order = "name" | "created_at" | "updated_at" | "build_priority" | "status";

export interface StdioEndpoint {
  command: string;
  args?: string[];
  env?: Record<string, string>;
  cwd?: string;
}

export interface HttpEndpoint {
  url: string;
  headers?: Record<string, string>;
}

/** Where a service runs; one of the endpoints, and what is said of it. */
export interface InstanceSpec {
  stdio?: StdioEndpoint;
  http?: HttpEndpoint;
  sse?: HttpEndpoint;
  websocket?: HttpEndpoint;
  openapi?: { document: string; base_url: string };
  in_process?: {};
  id?: string;
  weight?: number;
  region?: string;
  zone?: string;
  labels?: Record<string, string>;
  admin_state?: AdminState;
  admin_reason?: string;
  lease_ttl?: string;
}

/** What is declared about a service. */
export interface ServiceSpec {
  name: string;
  title?: string;
  description?: string;
  version?: string;
  build_type?: BuildType;
  origin?: "official" | "community" | "internal" | "mock";
  required?: boolean;
  build_priority?: BuildPriority;
  enabled?: boolean;
  admin_state?: AdminState;
  admin_reason?: string;
  tags?: string[];
  category?: string;
  capabilities?: string[];
  environment?: string;
  tenant?: string;
  access_level?: "diamond" | "emerald" | "sapphire" | "opal" | "onyx";
  owner?: string;
  repository_url?: string;
  documentation_url?: string;
  health_policy?: JsonObject;
  routing_policy?: JsonObject;
  session_policy?: JsonObject;
  config?: JsonObject;
  env?: Record<string, string>;
  instances?: InstanceSpec[];
  labels?: Record<string, string>;
  metadata?: JsonObject;
}

export interface Health {
  state: HealthState;
  reason: { code: string; message: string };
  since: string;
  last_check: string | null;
  response_time_ms: number | null;
  consecutive_failures: number;
  flapping?: boolean;
  uptime_percentage: number | null;
  last_heartbeat?: string;
  lease_expires_at?: string;
}

export type Instance = InstanceSpec & { id: string; weight: number; health: Health; protocol_version?: string };

/** A service as a reader sees it: what was declared, and what is observed. Secrets are masked. */
export type Service = Omit<ServiceSpec, "instances"> & {
  id: string;
  instances: Instance[];
  enabled: boolean;
  revision: number;
  created_at: string;
  updated_at: string;
  updated_by: string;
  status: Status;
  health: Health;
  tool_count: number;
};

export interface InstanceHealth {
  id: string;
  location: string;
  status: Status;
  admin_reason?: string;
  health: Health;
  protocol_version: string | null;
  process_id: number | null;
  stderr_tail?: string;
}

export interface ServiceHealth {
  service: string;
  status: Status;
  admin_reason?: string;
  health: Health;
  instances: InstanceHealth[];
  withheld_tools?: { instance: string; name: string | null; hash?: string; reason: string }[];
}

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

export interface Page<T> {
  items: T[];
  next_cursor: string | null;
  revision: number;
}

/** Which services to read: what is left out filters nothing. */
export interface Query {
  text?: string;
  name?: string;
  build_type?: BuildType[];
  required?: boolean;
  build_priority?: BuildPriority[];
  enabled?: boolean;
  status?: Status[];
  tags?: string[];
  capability?: string[];
  region?: string;
  environment?: string;
  tenant?: string;
  category?: string;
  tool?: string;
  order?: Order;
  descending?: boolean;
  cursor?: string;
  limit?: number;
}

export interface ToolQuery {
  service?: string;
  cursor?: string;
  limit?: number;
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

export interface Overview {
  revision: number;
  services: number;
  statuses: Record<Status, number>;
  instances: number;
  tools: number;
  dropped_journal_entries: number;
  self_preservation: boolean;
}

export interface Heartbeat {
  service: string;
  instance?: string | null;
  lease?: { ttl_ms: number; expires_at: string; renew_after_ms: number } | null;
  health?: HealthState | null;
  revision: number;
}

export type JournalKind = "transition" | "sample" | "rollup" | "call" | "alert" | "audit";
export type JournalEntry = { at: string; kind: JournalKind; service?: string; instance?: string; [key: string]: unknown };

export type Mutation =
  | { register: ServiceSpec }
  | { put: ServiceSpec }
  | { update: { name: string; spec: ServiceSpec; expected?: number } }
  | { deregister: { name: string; expected?: number } }
  | { set_admin_state: { name: string; admin_state: AdminState; instance?: string; reason?: string } }
  | { pin_tools: { name: string; pinning?: string } };

export interface OpenOptions {
  /** The configuration, as in `docs/reference/configuration.md`: `health`, `routing`, `sessions`, `journal`, … */
  config?: { [section: string]: { [key: string]: unknown } };
  /** What placeholders such as `${env:TOKEN}` refer to and children inherit from; `process.env` by default. */
  env?: Record<string, string | undefined>;
  /** Whether instances are started and watched; `true` by default. */
  monitor?: boolean;
}

export interface Expected {
  /** The revision that must be current. */
  expected?: number;
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

/** What a function of this program is called with besides its arguments. */
export interface Execution {
  /** Fires when nobody waits for the answer any more. */
  signal: AbortSignal;
}

/**
 * A function of this program as a tool. An object that it returns is the structured answer; an object with a list
 * `content` is MCP's result as it is; an error that it throws is an answer that says `isError`.
 */
export type ToolFunction<A = any> = (args: A, execution: Execution) => unknown;

export interface Principal {
  id: string;
  role: "viewer" | "developer" | "admin";
  tenant?: string;
  remote?: boolean;
}

/** A registry. Close it: until then it watches its servers, though it never keeps the process alive. */
export declare class Machina {
  private constructor();

  /**
   * Opens the registry at `url`: a store for one in this process (`memory:`, `sqlite:machina.db`, `postgres://…`), or
   * `http://…`, `https://…` for one elsewhere.
   */
  static open(url: string, options?: OpenOptions): Promise<Machina>;

  /** Registers a new service; its instances are started and probed at once. */
  register(service: ServiceSpec): Promise<Service>;
  /** Registers the service, or replaces its declaration. */
  put(service: ServiceSpec): Promise<Service>;
  /** Replaces the declaration of a service, perhaps with another name. */
  update(name: string, service: ServiceSpec, options?: Expected): Promise<Service>;
  /** Removes a service; resolves to the revision at which it is gone. */
  deregister(name: string, options?: Expected): Promise<number>;
  /** Says something about a service, or about one instance of it. */
  setAdminState(name: string, state: AdminState, options?: { instance?: string; reason?: string }): Promise<Service>;
  /** Declares that the tools of a service are those it publishes now. */
  pinTools(name: string, options?: { pinning?: string }): Promise<Service>;
  /** Several changes: all of them, or none. */
  apply(mutations: Mutation[]): Promise<{ revision: number; services: Service[] }>;

  /** The service of this name, or with this identity. */
  get(name: string): Promise<Service>;
  /** One page of services. */
  find(query?: Query): Promise<Page<Service>>;
  /** One page of tools. */
  tools(query?: ToolQuery): Promise<Page<Tool>>;
  /** The tools that fit `text` best, best first: 10, or `limit`. */
  findTools(text: string, options?: { limit?: number }): Promise<Tool[]>;
  /** One tool of a service. */
  getTool(service: string, name: string): Promise<Tool>;
  /**
   * Makes a function of this program a tool of `service`, which is declared if it is not. It can be found and called
   * when the promise is fulfilled. `executions_max` (64) says how many run at once.
   */
  tool<A = any>(
    service: string,
    definition: ToolDefinition & { executions_max?: number },
    run: ToolFunction<A>,
  ): Promise<Service>;
  /** Takes such a tool away; says whether there was one. */
  removeTool(service: string, name: string): Promise<boolean>;

  /** Calls a tool on a healthy instance, failing over where that is safe. */
  call(service: string, tool: string, args?: { [name: string]: unknown }, options?: CallOptions): Promise<ToolResult>;
  /** Why a call would go where it would go. */
  explain(service: string, tool?: string): Promise<Explanation>;

  /** The health of a service and of each of its instances. */
  health(service: string): Promise<ServiceHealth>;
  /** Probes every instance of a service now. Only of a registry in this process. */
  check(service: string): Promise<ServiceHealth>;
  /** Says that an instance that registered itself is alive. */
  heartbeat(service: string, instance?: string): Promise<Heartbeat>;
  /** The registry in numbers. */
  overview(): Promise<Overview>;
  /** What was recorded, newest first. Only of a registry in this process. */
  journal(
    kind: JournalKind,
    filter?: { service?: string; instance?: string; since?: string; cursor?: string; limit?: number },
  ): Promise<{ items: JournalEntry[]; next_cursor: string | null }>;

  groups(): Promise<Group[]>;
  group(name: string): Promise<Group>;
  /** Makes a group, or replaces its declaration. */
  putGroup(group: GroupSpec, options?: Expected & { create_only?: boolean }): Promise<Group>;
  removeGroup(name: string, options?: Expected): Promise<number>;

  /** Everything that changes from this call on, or since a revision. */
  watch(options?: WatchOptions): Watch;

  /** The registry as someone else may see and change it. Only of a registry in this process. */
  scoped(principal: Principal): Machina;

  /**
   * Ends probes, sessions and child processes, and closes the store, for those too that `scoped` made. A second time
   * nothing happens.
   */
  close(): Promise<void>;
  /** Whether it was closed. */
  readonly closed: boolean;
  [Symbol.asyncDispose](): Promise<void>;
}

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
