// openapi.mjs: docs/api/openapi.yaml as tests read it, and as much of JSON Schema as it uses.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { fileURLToPath } from 'node:url';

export const at = (name) => fileURLToPath(new URL(`../../${name}`, import.meta.url));
export const source = (name) => fs.readFileSync(at(name), 'utf8');
export const api = JSON.parse(execFileSync('python3', [
  '-c', 'import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)',
  at('docs/api/openapi.yaml')]));

export function follow(value) {
  while (value?.$ref)
    value = value.$ref.slice(2).split('/').reduce((from, name) => from[name], api);
  assert.ok(value, 'a $ref leads somewhere');
  return value;
}

export const METHODS = ['get', 'post', 'put', 'patch', 'delete', 'head'];
export const operations = Object.entries(api.paths).flatMap(([path, item]) =>
  METHODS.filter((method) => item[method]).map((method) => ({
    path, method: method.toUpperCase(), ...item[method],
    parameters: [...item.parameters ?? [], ...item[method].parameters ?? []].map(follow),
  })));
export const operation = (name) => operations.find(({ operationId }) => operationId === name);

// As much of JSON Schema as the document uses; yields the first fault, or undefined.
export function faultOf(schema, value, where = 'body') {
  schema = follow(schema);
  if (schema.oneOf) {
    const fits = schema.oneOf.filter((one) => !faultOf(one, value, where)).length;
    return fits === 1 ? undefined : `${where}: fits ${fits} of its kinds`;
  }
  const kind = value === null ? 'null' : Array.isArray(value) ? 'array'
    : Number.isInteger(value) ? 'integer' : typeof value;
  const types = [schema.type ?? kind].flat();
  if (!types.includes(kind) && !(kind === 'integer' && types.includes('number')))
    return `${where}: ${kind} where ${types} is documented`;
  if (schema.const !== undefined && value !== schema.const) return `${where}: not ${schema.const}`;
  if (schema.enum && !schema.enum.includes(value)) return `${where}: ${value} is not documented`;
  if (schema.pattern && !new RegExp(schema.pattern).test(value)) return `${where}: ${value}: its form`;
  if (schema.minimum !== undefined && value < schema.minimum) return `${where}: ${value}: too small`;
  if (kind === 'array')
    return value.map((item, i) => faultOf(schema.items, item, `${where}[${i}]`)).find(Boolean);
  if (kind !== 'object') return undefined;
  const missing = (schema.required ?? []).find((name) => !(name in value));
  if (missing) return `${where}.${missing}: is missing`;
  for (const [name, member] of Object.entries(value)) {
    const known = schema.properties?.[name];
    if (!known && schema.additionalProperties === false) return `${where}.${name}: is not documented`;
    const fault = known && faultOf(known, member, `${where}.${name}`);
    if (fault) return fault;
  }
  return undefined;
}
