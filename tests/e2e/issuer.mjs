// issuer.mjs: an issuer of tokens of the kind that customers bring along, with its key in this process.
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';

const encode = (value) => Buffer.from(Buffer.isBuffer(value) ? value : JSON.stringify(value)).toString('base64url');

export class Issuer {
  constructor(iss, kid = 'key-1') {
    this.iss = iss;
    this.kid = kid;
    const { privateKey, publicKey } = crypto.generateKeyPairSync('ed25519');
    this.privateKey = privateKey;
    this.jwk = { ...publicKey.export({ format: 'jwk' }), kid, alg: 'EdDSA', use: 'sig' };
  }

  // Its keys as a file of this node's directory, for `issuer add --jwks`.
  jwks(node) {
    const file = path.join(node.directory, `jwks-${crypto.randomUUID()}.json`);
    fs.writeFileSync(file, JSON.stringify({ keys: [this.jwk] }));
    return file;
  }

  // A token that lives for ten minutes, of these claims.
  token(claims) {
    const now = Math.floor(Date.now() / 1000);
    const payload = {
      iss: this.iss, aud: 'bulkhead', iat: now, exp: now + 600, jti: crypto.randomUUID(),
      scope: 'memory:read memory:write', ...claims,
    };
    const body = `${encode({ alg: 'EdDSA', typ: 'JWT', kid: this.kid })}.${encode(payload)}`;
    return `${body}.${encode(crypto.sign(null, Buffer.from(body), this.privateKey))}`;
  }
}

// A signed charter as it travels (docs/protocols.md), to its parts and back.
export function readCharter(bytes) {
  const length = bytes.readUInt32BE(24);
  return {
    id: bytes.subarray(0, 16), sequence: bytes.readBigUInt64BE(16),
    document: bytes.subarray(28, 28 + length).toString('utf8'),
    signature: bytes.subarray(28 + length),
  };
}

const u64 = (value) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
};

export function charterMessage({ id, sequence, document }) {
  const text = Buffer.from(document);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(text.length);
  return Buffer.concat([id, u64(sequence), length, text]);
}

export function charterBytes(charter) {
  return Buffer.concat([charterMessage(charter), charter.signature]);
}

// The same charter under another key's signature.
export function signCharter(charter, privateKey) {
  const signed = Buffer.concat([Buffer.from('bulkhead charter v1\n'), charter.id, u64(charter.sequence),
                                Buffer.from(charter.document)]);
  return { ...charter, signature: crypto.sign(null, signed, privateKey) };
}
