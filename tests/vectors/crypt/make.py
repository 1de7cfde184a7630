#!/usr/bin/env python3
"""Makes crypt_vectors.h: answers for the crypt room from a second implementation.

Trees are computed by the plain recursion of RFC 6962 section 2.1 over hashlib; HKDF, XAES-256-GCM
(as SP 800-108 with CMAC, not by block operations) and signatures come from pyca/cryptography.
Run it beside the header: python3 make.py > crypt_vectors.h"""

import base64
import hashlib

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFCMAC, CounterLocation, Mode
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

TREE_SIZES = 131
NOTE_SIZES = [0, 1, 9, 10, 20852163, 2**63, 2**64 - 1]
PAGE_LENGTHS = [0, 1, 15, 16, 17, 100, 4052]


def sha256(data):
    return hashlib.sha256(data).digest()


def tree_root(leaves):
    if not leaves:
        return sha256(b"")
    if len(leaves) == 1:
        return sha256(b"\0" + leaves[0])
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\1" + tree_root(leaves[:split]) + tree_root(leaves[split:]))


def xaes_seal(key, nonce, text, associated):
    kdf = KBKDFCMAC(algorithms.AES, Mode.CounterMode, 32, 2, None, CounterLocation.BeforeFixed,
                    label=None, context=None, fixed=b"X\0" + nonce[:12])
    return AESGCM(kdf.derive(key)).encrypt(nonce[12:], text, associated)


def sign_line(name, key, body):
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    tagged = sha256(name.encode() + b"\n\1" + public)[:4] + key.sign(body.encode())
    return f"\u2014 {name} {base64.b64encode(tagged).decode()}\n"


def note(size):
    body = f"bulkhead/silo/test\n{size}\n{base64.b64encode(sha256(str(size).encode())).decode()}\n"
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    return body + "\n" + sign_line("bulkhead", key, body)


def as_array(name, strings):
    print(f"static const char *const {name}[] = {{")
    for string in strings:
        print(f'    "{string}",')
    print("};\n")


def as_literal(text):
    """Cut into pieces, for lines of a readable length."""
    pieces = [text.encode()[i:i + 60] for i in range(0, len(text.encode()), 60)]
    return '"\n    "'.join(
        "".join(chr(b) if 32 <= b < 127 else f"\\{b:03o}" for b in piece) for piece in pieces)


def main():
    print("/* Made by make.py, from other implementations than the one under test. */")
    print("#pragma once\n")
    print("/* Roots of trees of 0, 1, 2, ... leaves; leaf i is the two bytes i >> 8, i & 255. */")
    leaves = [bytes([i >> 8, i & 255]) for i in range(TREE_SIZES)]
    as_array("tree_roots", [tree_root(leaves[:n]).hex() for n in range(TREE_SIZES)])
    print('/* Checkpoints of "bulkhead/silo/test" signed as "bulkhead", seed 00 01 .. 1f;')
    print(" * the root is SHA-256 of the size's digits. */")
    print(f"static const uint64_t note_sizes[] = {{\n    {', '.join(f'{n}u' for n in NOTE_SIZES)}")
    print("};")
    as_array("notes", [as_literal(note(n)) for n in NOTE_SIZES])
    print('/* HKDF-SHA-256, key 00 01 .. 1f, info "bulkhead pages v1"; salt empty, then "salt". */')
    as_array("derived", [HKDF(hashes.SHA256(), 32, salt, b"bulkhead pages v1")
                         .derive(bytes(range(32))).hex() for salt in (b"", b"salt")])
    print('/* XAES-256-GCM, key 00 01 .. 1f, nonce 40 41 .. 57, associated data "page": SHA-256 of')
    print(" * ciphertext || tag of 00 01 02 .. (modulo 256), by the text's length. */")
    print(f"static const size_t page_lengths[] = {{{', '.join(map(str, PAGE_LENGTHS))}}};")
    as_array("page_hashes", [
        sha256(xaes_seal(bytes(range(32)), bytes(range(0x40, 0x58)),
                         bytes(i & 255 for i in range(n)), b"page")).hex() for n in PAGE_LENGTHS])


if __name__ == "__main__":
    main()
