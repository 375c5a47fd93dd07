// Errors: one class for each kind, of which the native half says only the code.
'use strict';

/** What every Machina operation is rejected with. */
class MachinaError extends Error {
  /** @param {string} message @param {{ code?: string, context?: object, cause?: unknown }} [about] */
  constructor(message, { code = 'internal', context = {}, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
    this.context = context;
  }

  get name() {
    return this.constructor.name;
  }
}

class Invalid extends MachinaError {}
class Unauthenticated extends MachinaError {}
class Forbidden extends MachinaError {}
class NotFound extends MachinaError {}
class Conflict extends MachinaError {}
class Unavailable extends MachinaError {}
class Unreachable extends MachinaError {}
class Lost extends MachinaError {}
class Timeout extends MachinaError {}
class Overloaded extends MachinaError {}
class Rejected extends MachinaError {}
class Unsupported extends MachinaError {}
class Internal extends MachinaError {}

const classes = {
  Invalid, Unauthenticated, Forbidden, NotFound, Conflict, Unavailable, Unreachable, Lost, Timeout, Overloaded,
  Rejected, Unsupported, Internal,
};
const byCode = new Map(
  Object.entries(classes).map(([name, kind]) => [name.replace(/(?<=.)[A-Z]/g, '_$&').toLowerCase(), kind]),
);

/** The error of a field that is wrong. */
function wrongField(field, detail) {
  return new Invalid(`${field}: ${detail}`, { code: 'invalid', context: { problems: [{ field, detail }] } });
}

/** What `error`, thrown by the native half, is to a caller; another error is that error. */
function translated(error) {
  if (error instanceof MachinaError || !(error instanceof Error)) return error;
  const { code } = error;
  if (code === 'GenericFailure' && error.message.startsWith('{"code":')) {
    const { code, message, context } = JSON.parse(error.message);
    return new (byCode.get(code) ?? MachinaError)(message, { code, context });
  }
  // An argument of a type that the native half does not take.
  if (code === 'InvalidArg' || /^[A-Z][A-Za-z]+Expected$/.test(code)) {
    return new Invalid(error.message, { code: 'invalid', cause: error });
  }
  return error;
}

/** `error` of what `signal` ended: an `AbortError` to those who look at the name. */
function aborted(error, signal) {
  const about = error instanceof MachinaError ? error : new Timeout('the caller cancelled', { code: 'timeout' });
  Object.defineProperty(about, 'name', { value: 'AbortError', configurable: true });
  about.cause = signal.reason;
  return about;
}

module.exports = { MachinaError, ...classes, aborted, translated, wrongField };
