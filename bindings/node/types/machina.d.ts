// The registry, and how it is opened.

import type {
  AdminState, Frozen, ServiceSpec, Service, ServiceHealth, Page, Query, Heartbeat, Overview,
} from "./services.js";
import type { ToolDefinition, Tool, ToolQuery, CallOptions, ToolResult, Explanation, ToolFunction } from "./tools.js";
import type {
  Expected, Mutation, GroupSpec, Group, WatchOptions, Watch, JournalKind, JournalEntry,
} from "./changes.js";

export interface OpenOptions {
  /** The configuration, as in `docs/reference/configuration.md`: `health`, `routing`, `sessions`, `journal`, … */
  config?: { [section: string]: { [key: string]: unknown } };
  /** What placeholders such as `${env:TOKEN}` refer to and children inherit from; `process.env` by default. */
  env?: Record<string, string | undefined>;
  /** Whether instances are started and watched; `true` by default. */
  monitor?: boolean;
}

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
  register(service: Frozen<ServiceSpec>): Promise<Service>;
  /** Registers the service, or replaces its declaration. */
  put(service: Frozen<ServiceSpec>): Promise<Service>;
  /** Replaces the declaration of a service, perhaps with another name. */
  update(name: string, service: Frozen<ServiceSpec>, options?: Expected): Promise<Service>;
  /** Removes a service; resolves to the revision at which it is gone. */
  deregister(name: string, options?: Expected): Promise<number>;
  /** Says something about a service, or about one instance of it. */
  setAdminState(name: string, state: AdminState, options?: { instance?: string; reason?: string }): Promise<Service>;
  /** Declares that the tools of a service are those it publishes now. */
  pinTools(name: string, options?: { pinning?: string }): Promise<Service>;
  /** Several changes: all of them, or none. */
  apply(mutations: Frozen<Mutation[]>): Promise<{ revision: number; services: Service[] }>;

  /**
   * The service of this name, or with this identity: frozen, as others who ask may get the same object. `put` and
   * `update` take it; `structuredClone(service) as Service` is one to work on.
   */
  get(name: string): Promise<Frozen<Service>>;
  /** One page of services. */
  find(query?: Query): Promise<Page<Service>>;
  /** One page of tools. */
  tools(query?: ToolQuery): Promise<Page<Tool>>;
  /**
   * The tools that fit `text` best, best first: 10, or `limit`. A registry in this process is searched in the thread
   * of the caller: a word that each of 100,000 tools has takes 13 to 30 ms.
   */
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
  putGroup(group: Frozen<GroupSpec>, options?: Expected & { create_only?: boolean }): Promise<Group>;
  removeGroup(name: string, options?: Expected): Promise<number>;

  /** Everything that changes from this call on, or since a revision. */
  watch(options?: WatchOptions): Watch;

  /** The registry as someone else may see and change it. Only of a registry in this process. */
  scoped(principal: Principal): Machina;

  /**
   * Closes it, for those too that `scoped` made. In this process, probes, sessions and child processes are ended and
   * the store is closed; a registry elsewhere goes on, and is no longer asked. A second time nothing happens.
   */
  close(): Promise<void>;
  /** Whether it was closed. */
  readonly closed: boolean;
  [Symbol.asyncDispose](): Promise<void>;
}
