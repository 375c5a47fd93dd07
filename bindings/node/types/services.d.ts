// What is declared about services, and what readers see of them.

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type JsonObject = { [key: string]: Json };
/** What nobody changes: what is read, and what is only read when it is handed over. */
// Lists have a case of their own, or those of `Json`, which hold lists, would have no end.
export type Frozen<T> =
  T extends readonly (infer E)[] ? readonly Frozen<E>[] : T extends object ? { readonly [K in keyof T]: Frozen<T[K]> } : T;
export type AdminState = "enabled" | "draining" | "disabled" | "maintenance" | "quarantined";
export type Status = "healthy" | "degraded" | "unhealthy" | "unknown" | "disabled" | "maintenance";

export type HealthState =
  | "unknown" | "starting" | "healthy" | "suspect" | "unhealthy" | "recovering" | "crash_loop" | "expired";
export type BuildType = "fastmcp" | "fastapi" | "external" | "conversion" | "docker" | "other";
export type BuildPriority = "HIGH" | "MEDIUM" | "LOW";

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

export interface Page<T> {
  items: T[];
  next_cursor: string | null;
  revision: number;
}

export type Order = "name" | "created_at" | "updated_at" | "build_priority" | "status";

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

export interface Heartbeat {
  service: string;
  instance?: string | null;
  lease?: { ttl_ms: number; expires_at: string; renew_after_ms: number } | null;
  health?: HealthState | null;
  revision: number;
}

export interface Overview {
  revision: number;
  services: number;
  statuses: Record<Status, number>;
  instances: number;
  tools: number;
  dropped_journal_entries: number;
  self_preservation: boolean;
}
