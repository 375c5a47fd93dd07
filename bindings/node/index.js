// The public half of the package: promises, classes and async iterators over the JSON of the native half.
// It holds no rule of the registry and no shape of its answers.
'use strict';

const native = require('./native.js');
const { aborted, translated, wrongField, ...errors } = require('./errors.js');
const { Remembered, frozen } = require('./remembered.js');
const { callee } = require('./tools.js');

/** What is open: a Machina that nobody holds any more still watches its servers. */
const open = new Set();

function text(value, field) {
  if (typeof value !== 'string') throw wrongField(field, `must be a string, is ${typeof value}`);
  return value;
}

function object(value, field = 'options') {
  if (value === undefined) return {};
  if (typeof value !== 'object' || value === null) throw wrongField(field, 'must be an object');
  return value;
}

/** Options that may have these names only: one that is misspelt must not be passed over. */
function options(value, ...names) {
  const unknown = Object.keys(object(value)).find((name) => !names.includes(name));
  if (unknown !== undefined) throw wrongField(unknown, `is no option; there are ${names.join(', ')}`);
  return object(value);
}

function encoded(value, field) {
  try {
    const json = JSON.stringify(value);
    if (json !== undefined) return json;
  } catch (error) {
    throw wrongField(field, `is no JSON: ${error.message}`);
  }
  throw wrongField(field, 'is no JSON');
}

/** The signal among options, where there is one. */
function signalIn({ signal }) {
  if (signal === undefined || signal instanceof AbortSignal) return signal;
  throw wrongField('signal', 'must be an AbortSignal');
}

/** Calls `cancel` when `signal` fires, or has fired; what is returned ends that. */
function onAbort(signal, cancel) {
  if (!signal) return () => {};
  if (signal.aborted) cancel();
  signal.addEventListener('abort', cancel, { once: true });
  return () => signal.removeEventListener('abort', cancel);
}

/** What changes, as an async iterator. */
class Watch {
  #signal;
  #opened;
  #ended = false;
  #release;

  constructor(opened, signal) {
    this.#signal = signal;
    this.#opened = opened;
    this.#release = onAbort(signal, () => void this.#close());
    // Whoever reads is told; nobody else has to be.
    Promise.resolve(opened).catch(() => {});
  }

  async #close() {
    this.#ended = true;
    this.#release?.();
    await Promise.resolve(this.#opened).then((stream) => stream.close(), () => {});
  }

  async next() {
    try {
      const stream = await this.#opened;
      const json = this.#ended ? null : await stream.next();
      if (this.#signal?.aborted) throw aborted(undefined, this.#signal);
      if (json != null) return { done: false, value: JSON.parse(json) };
      await this.#close();
      return { done: true, value: undefined };
    } catch (error) {
      throw translated(error);
    }
  }

  async return(value) {
    await this.#close();
    return { done: true, value };
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  async [Symbol.asyncDispose]() {
    await this.#close();
  }
}

/** A registry, in this process or elsewhere. */
class Machina {
  #handle;
  /** What functions of this program answer to; it lets go of the handle with the close. */
  #owner;
  /** What was read; nothing is remembered of a registry elsewhere. */
  #remembered;

  constructor(handle, owner) {
    if (!(handle instanceof native.Handle)) throw wrongField('Machina', 'is made by Machina.open');
    this.#handle = handle;
    this.#owner = owner;
    this.#remembered = handle.isHere ? new Remembered(handle) : undefined;
  }

  static async open(url, opening) {
    const { config = {}, env = process.env, monitor = true, ...others } = object(opening);
    const json = encoded({ ...others, config, environment: env, monitor }, 'options');
    try {
      const handle = await native.open(text(url, 'url'), json);
      const owner = { handle };
      open.add(owner);
      return new Machina(handle, owner);
    } catch (error) {
      throw translated(error);
    }
  }

  async #ask(question) {
    const json = encoded(question, 'arguments');
    try {
      return JSON.parse(await this.#handle.ask(json));
    } catch (error) {
      throw translated(error);
    }
  }

  async #one(mutation) {
    const { services } = await this.#ask({ apply: { mutations: [mutation] } });
    if (services.length > 0) return services[0];
    throw new errors.Conflict('the service was removed meanwhile', { code: 'conflict' });
  }

  apply(mutations) {
    return this.#ask({ apply: { mutations } });
  }

  register(service) {
    return this.#one({ register: service });
  }

  put(service) {
    return this.#one({ put: service });
  }

  async update(name, service, about) {
    const { expected } = options(about, 'expected');
    return this.#one({ update: { name, spec: service, expected } });
  }

  async deregister(name, about) {
    const { expected } = options(about, 'expected');
    const { revision } = await this.#ask({ apply: { mutations: [{ deregister: { name, expected } }] } });
    return revision;
  }

  async setAdminState(name, admin_state, about) {
    const { instance, reason } = options(about, 'instance', 'reason');
    return this.#one({ set_admin_state: { name, admin_state, instance, reason } });
  }

  async pinTools(name, about) {
    const { pinning } = options(about, 'pinning');
    return this.#one({ pin_tools: { name, pinning } });
  }

  async get(name) {
    text(name, 'name');
    if (!this.#remembered) return frozen(await this.#ask({ get: { service: name } }));
    try {
      return this.#remembered.get(name);
    } catch (error) {
      throw translated(error);
    }
  }

  find(query = {}) {
    return this.#ask({ find: query });
  }

  tools(query = {}) {
    return this.#ask({ tools: query });
  }

  getTool(service, tool) {
    return this.#ask({ tool: { service, tool } });
  }

  async findTools(text, about) {
    const { limit = 10 } = options(about, 'limit');
    return this.#ask({ find_tools: { text, limit } });
  }

  health(service) {
    return this.#ask({ health: { service } });
  }

  explain(service, tool) {
    return this.#ask({ explain: { service, tool } });
  }

  overview() {
    return this.#ask({ overview: {} });
  }

  groups() {
    return this.#ask({ groups: {} });
  }

  group(name) {
    return this.#ask({ group: { name } });
  }

  async putGroup(group, about) {
    const { expected, create_only = false } = options(about, 'expected', 'create_only');
    return this.#ask({ put_group: { group, expected, create_only } });
  }

  async removeGroup(name, about) {
    const { expected } = options(about, 'expected');
    return this.#ask({ remove_group: { name, expected } });
  }

  heartbeat(service, instance) {
    return this.#ask({ heartbeat: { service, instance } });
  }

  check(service) {
    return this.#ask({ check: { service } });
  }

  async journal(kind, about) {
    const { limit = 100, ...filter } = object(about);
    return this.#ask({ journal: { ...filter, kind, limit } });
  }

  async call(service, tool, args = {}, circumstances) {
    const { signal: _, onProgress, ...others } = object(circumstances);
    const signal = signalIn(object(circumstances));
    if (onProgress !== undefined && typeof onProgress !== 'function') throw wrongField('onProgress', 'must be a function');
    const json = encoded({ ...others, service, tool, arguments: args }, 'arguments');
    const told = onProgress && ((step) => onProgress(JSON.parse(step)));
    const cancel = signal && new native.Cancel();
    const release = onAbort(signal, () => cancel.cancel());
    try {
      return JSON.parse(await this.#handle.call(json, cancel, told));
    } catch (error) {
      throw signal?.aborted ? aborted(translated(error), signal) : translated(error);
    } finally {
      release();
    }
  }

  watch(circumstances) {
    const { since } = options(circumstances, 'since', 'signal');
    const signal = signalIn(circumstances ?? {});
    if (since !== undefined && !Number.isSafeInteger(since)) throw wrongField('since', 'must be a revision');
    try {
      return new Watch(this.#handle.watch(since), signal);
    } catch (error) {
      throw translated(error);
    }
  }

  async tool(service, definition, run) {
    const { executions_max, ...declared } = object(definition, 'definition');
    const json = encoded(declared, 'definition');
    try {
      const called = callee(this.#owner, run);
      this.#handle.attach(text(service, 'service'), json, executions_max, called);
      // Those that are added in one go are made known in one go.
      await undefined;
      return JSON.parse(await this.#handle.declare(service));
    } catch (error) {
      throw translated(error);
    }
  }

  async removeTool(service, tool) {
    try {
      return this.#handle.removeTool(text(service, 'service'), text(tool, 'tool'));
    } catch (error) {
      throw translated(error);
    }
  }

  scoped(principal) {
    try {
      return new Machina(this.#handle.scoped(encoded(principal, 'principal')), this.#owner);
    } catch (error) {
      throw translated(error);
    }
  }

  async close() {
    open.delete(this.#owner);
    try {
      await this.#handle.close();
    } catch (error) {
      throw translated(error);
    } finally {
      this.#owner.handle = undefined;
    }
  }

  get closed() {
    return this.#handle.isClosed;
  }

  [Symbol.asyncDispose]() {
    return this.close();
  }
}

/** Has what Machina logs told to `listener`; to nobody when it is `null`. */
function setLogger(listener, filter = 'info') {
  if (listener !== null && typeof listener !== 'function') throw wrongField('listener', 'must be a function, or null');
  const told = listener && ((record) => listener(JSON.parse(record)));
  try {
    native.listenToLog(text(filter, 'filter'), told ?? undefined);
  } catch (error) {
    throw translated(error);
  }
}

module.exports = { Machina, setLogger, ...errors };
