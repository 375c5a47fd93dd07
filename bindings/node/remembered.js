// Services as they were last read: what has not changed is not read again.
'use strict';

/** How many services are remembered. */
const REMEMBERED_MAX = 4_000;

/** The same value, which nobody can change any more. */
function frozen(value) {
  if (typeof value === 'object' && value !== null) Object.values(value).forEach(frozen);
  return Object.freeze(value);
}

/** What was read of a registry in this process, by the name it was asked for. */
class Remembered {
  #handle;
  #services = new Map();

  constructor(handle) {
    this.#handle = handle;
  }

  /** The service of this name, which all who ask share. */
  get(name) {
    const known = this.#services.get(name);
    const looked = this.#handle.look(name, known?.told);
    if (looked === null) return known.service;
    const remembered = { told: looked.told, service: frozen(JSON.parse(looked.service)) };
    if (this.#services.size >= REMEMBERED_MAX) this.#services.clear();
    this.#services.set(name, remembered);
    return remembered.service;
  }
}

module.exports = { Remembered, frozen };
