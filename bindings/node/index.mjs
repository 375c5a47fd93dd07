// The same for `import`; there is one implementation, so that an error is an instance of its class everywhere.
import machina from './index.js';

export const {
  Machina, setLogger, MachinaError, Invalid, Unauthenticated, Forbidden, NotFound, Conflict, Unavailable, Unreachable,
  Lost, Timeout, Overloaded, Rejected, Unsupported, Internal,
} = machina;
