// Functions of this program as tools: runs them for the native half, and says what came of it.
'use strict';

const { translated, wrongField } = require('./errors.js');

/** A value as an answer: MCP's own results as they are, everything else as a value. */
function written(value) {
  const json = JSON.stringify(value);
  if (json === undefined) return '"nothing"';
  return Array.isArray(value?.content) ? `{"result":${json}}` : `{"value":${json}}`;
}

function failed(error) {
  return JSON.stringify({ error: String(error instanceof Error ? error.message : error) });
}

/**
 * The function that the native half calls with the number of an execution and its arguments, or with
 * the number alone when nobody waits for it any more. `owner.handle` is what is told of progress and outcome.
 */
function callee(owner, run) {
  if (typeof run !== 'function') throw wrongField('function', 'must be a function');
  const running = new Map();

  function told(number, step) {
    try {
      owner.handle?.progress(number, JSON.stringify(step));
    } catch (error) {
      throw translated(error);
    }
  }

  async function execute(number, text) {
    const controller = new AbortController();
    running.set(number, controller);
    const progress = (progress, total, message) => {
      // Its number may be another's after its end.
      if (running.get(number) === controller) told(number, { progress, total, message });
    };
    let outcome;
    try {
      outcome = written(await run(JSON.parse(text), { signal: controller.signal, progress }));
    } catch (error) {
      outcome = failed(error);
    }
    running.delete(number);
    try {
      owner.handle?.finish(number, outcome);
    } catch (error) {
      owner.handle?.finish(number, failed(error));
    }
  }

  return (number, text) => {
    if (text == null) {
      running.get(number)?.abort();
    } else {
      void execute(number, text);
    }
  };
}

module.exports = { callee };
