// The patterns of tests/scenarios, as its README describes them.

const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);

const SPECIAL = {
  $any: (value) => value != null,
  $absent: (value) => value == null,
  $contains: (value, text) => typeof value === 'string' && value.includes(text),
  $has: (value, pattern) => Array.isArray(value) && value.some((item) => !misfit(item, pattern)),
  $lacks: (value, pattern) => Array.isArray(value) && !value.some((item) => !misfit(item, pattern)),
  $length: (value, length) => Array.isArray(value) && value.length === length,
  $not: (value, pattern) => misfit(value, pattern) !== undefined,
  $at_least: (value, least) => typeof value === 'number' && value >= least,
};

/** Where and why `value` does not fit `pattern`; `undefined` when it does. */
export function misfit(value, pattern, place = '') {
  const shown = () => `${place || '/'}: ${JSON.stringify(value)} does not fit ${JSON.stringify(pattern)}`;
  if (Array.isArray(pattern)) {
    if (!Array.isArray(value) || value.length !== pattern.length) return shown();
    return first(pattern.map((part, index) => misfit(value[index], part, `${place}/${index}`)));
  }
  if (isObject(pattern)) {
    const special = Object.keys(pattern).filter((key) => key.startsWith('$'));
    if (special.length > 0) {
      const [key] = special;
      if (Object.keys(pattern).length !== 1 || !(key in SPECIAL)) throw new Error(`no pattern: ${JSON.stringify(pattern)}`);
      return SPECIAL[key](value, pattern[key]) ? undefined : shown();
    }
    if (!isObject(value)) return shown();
    return first(Object.entries(pattern).map(([key, part]) => misfit(value[key], part, `${place}/${key}`)));
  }
  return (value ?? null) === pattern ? undefined : shown();
}

function first(misfits) {
  return misfits.find((one) => one !== undefined);
}

/** The part of `value` at a JSON Pointer. */
export function at(value, pointer) {
  const names = pointer.split('/').slice(1).map((name) => name.replaceAll('~1', '/').replaceAll('~0', '~'));
  return names.reduce((part, name) => part?.[name], value);
}
