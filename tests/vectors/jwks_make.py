#!/usr/bin/env python3
"""Makes jwks.tsv: documents of issuers' keys to take and to refuse (RFC 7517, 7518, 8037).

    python3 jwks_make.py > jwks.tsv
    python3 jwks_make.py ../fuzz/corpus/jwks      seeds of fuzz_jwks
Lines: "accept <keys taken> <keys passed over> <name> <document>" and
"reject bad_field|bad_json|too_large <a word of the reason> <name> <document>", separated by
tabs."""
import json
import pathlib
import sys

from cryptography.hazmat.primitives.asymmetric import ec

from test_keys import (P256_FIELD, b64, ec_key, ec_public, ed25519_key, ed25519_public, rsa_key,
                       rsa_modulus)

DROP = object()


def changed(base, changes):
    merged = {**base, **changes}
    return {name: value for name, value in merged.items() if value is not DROP}


ED = {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": b64(ed25519_public(ed25519_key("ext1")))}
POINT = ec_public(ec_key("es256"))
EC = {"kty": "EC", "crv": "P-256", "kid": "es", "x": b64(POINT[:32]), "y": b64(POINT[32:])}
MODULUS = rsa_modulus(rsa_key("rs256", 2048))
RSA = {"kty": "RSA", "kid": "rs", "n": b64(MODULUS), "e": "AQAB"}
LARGE = {"kty": "RSA", "kid": "large", "n": b64(rsa_modulus(rsa_key("rs256 large", 4096))),
         "e": "AQAB"}
ROWS = []


def document(*keys, **members):
    return json.dumps({"keys": list(keys), **members}, separators=(",", ":"))


def accept(name, taken, passed_over, text):
    ROWS.append(("accept", str(taken), str(passed_over), name, text))


def reject(name, code, word, text):
    ROWS.append(("reject", code, word, name, text))


def refuse(name, word, key, **changes):
    reject(name, "bad_field", word, document(changed(key, changes)))


def what_is_taken():
    accept("one of each kind", 3, 0, document(ED, EC, RSA))
    accept("with use, alg and key_ops", 3, 0, document(
        {**ED, "use": "sig", "alg": "EdDSA", "key_ops": ["verify"]},
        {**EC, "use": "sig", "alg": "ES256"},
        {**RSA, "alg": "RS256", "key_ops": ["sign", "verify"]}))
    accept("PS256 by name", 1, 0, document({**RSA, "alg": "PS256"}))
    accept("4096 bits", 1, 0, document(LARGE))
    accept("members that nobody knows", 1, 0, document(
        {**EC, "x5c": ["MIIB"], "x5t": "AA", "nbf": 1, "issuer": None}, next="https://x.example"))
    accept("what is not ours is passed over", 1, 9, document(
        {**ED, "kid": "a", "crv": "X25519"}, {**ED, "kid": "b", "crv": "Ed448"},
        {**EC, "kid": "c", "crv": "P-384"}, {**EC, "kid": "d", "crv": "secp256k1"},
        {**RSA, "kid": "e", "use": "enc"}, {**RSA, "kid": "f", "alg": "RSA-OAEP"},
        {**RSA, "kid": "g", "alg": "RS512"}, {**EC, "kid": "h", "key_ops": ["deriveKey"]},
        {**EC, "kid": "i", "kty": "AKP"}, ED))
    accept("what is passed over needs no kid", 1, 1,
           document(changed(RSA, {"kid": DROP, "use": "enc"}), ED))
    accept("ES256 of an RSA key is not ours", 1, 1, document({**RSA, "alg": "ES256"}, ED))
    accept("use in another case is not ours", 1, 1, document({**RSA, "use": "SIG"}, ED))
    accept("a kid of 64 bytes", 1, 0, document({**ED, "kid": "k" * 64}))
    accept("as many as are allowed", 8, 0,
           document(*({**ED, "kid": str(number)} for number in range(8))))


def the_document():
    reject("one too many", "too_large", "8",
           document(*({**ED, "kid": str(number)} for number in range(9))))
    reject("a key without a set", "bad_field", "Set", json.dumps(ED))
    reject("a list", "bad_field", "Set", json.dumps([ED]))
    reject("keys no list", "bad_field", "Set", json.dumps({"keys": {"a": ED}}))
    reject("a key that is text", "bad_field", "object", document("key"))
    reject("no key", "bad_field", "none", document())
    reject("none of ours", "bad_field", "none", document({**RSA, "use": "enc"}))
    reject("an empty document", "bad_json", "", "")
    reject("a comma too many", "bad_json", "", document(ED)[:-2] + ",]}")
    reject("followed by more", "bad_json", "", document(ED) + "{}")
    reject("a member twice", "bad_json", "", document(ED).replace('"kid"', '"kid":"a","kid"'))
    reject("too long", "too_large", "bytes", document(ED, pad="p" * 65536))
    reject("two keys of one kid", "bad_field", "kid", document(ED, {**EC, "kid": "ed"}))
    reject("one kid, one of them not ours", "bad_field", "kid",
           document(ED, {**RSA, "kid": "ed", "use": "enc"}))


def secrets():
    private = ec_key("es256").private_numbers().private_value.to_bytes(32, "big")
    for key in [ED, EC, RSA]:
        refuse(f"a private {key['kty']} key", "private", key, d=b64(private))
    for member in ["p", "q", "dp", "dq", "qi", "oth"]:
        refuse(f"an RSA key with {member}", "private", RSA, **{member: "AQ"})
    refuse("a private key, even null", "private", EC, d=None)
    reject("a private key among those passed over", "bad_field", "private",
           document(ED, {**RSA, "use": "enc", "d": "AQ"}))
    reject("a symmetric key", "bad_field", "symmetric",
           document({"kty": "oct", "kid": "h", "alg": "HS256", "k": b64(b"secret")}))
    reject("a symmetric key beside a good one", "bad_field", "symmetric",
           document(ED, {"kty": "oct", "kid": "h", "k": b64(b"secret")}))
    refuse("k in a key that is not symmetric", "symmetric", ED, k="AQ")


def members():
    for name, kid in [("no kid", DROP), ("an empty kid", ""), ("a kid of 65 bytes", "k" * 65),
                      ("a number for a kid", 1), ("a kid with a NUL", "a\0"),
                      ("a kid with a line feed", "a\n")]:
        refuse(name, "kid", ED, kid=kid)
    refuse("no kty", "kty", ED, kty=DROP)
    refuse("kty a number", "kty", ED, kty=1)
    refuse("alg a number", "alg", ED, alg=1)
    refuse("key_ops a text", "key_ops", ED, key_ops="verify")
    refuse("key_ops with a number", "key_ops", ED, key_ops=["verify", 1])
    for key, name in [(ED, "x"), (EC, "x"), (EC, "y"), (RSA, "n"), (RSA, "e")]:
        for what, value in [("missing", DROP), ("a number", 1), ("empty", ""),
                            ("padded", key[name] + "="),
                            ("plain base64", "+" + key[name][1:]),
                            ("not base64", "!" + key[name][1:])]:
            refuse(f"{key['kty']} {name} {what}", "key 1", key, **{name: value})
    refuse("Ed25519 of 31 bytes", "key 1", ED, x=b64(bytes(31)))
    refuse("Ed25519 of 33 bytes", "key 1", ED, x=b64(bytes(33)))
    refuse("Ed25519 of small order", "small order", ED, x=b64(bytes([1]) + bytes(31)))
    refuse("Ed25519, no point", "point", ED, x=b64(bytes([2]) + bytes(31)))


def elliptic():
    x, y = int.from_bytes(POINT[:32], "big"), int.from_bytes(POINT[32:], "big")
    other = ec_key("es256", ec.SECP256K1()).public_key().public_numbers()
    for name, left, right in [("y one more", x, (y + 1) % P256_FIELD), ("x and y changed", y, x),
                              ("zero", 0, 0), ("of secp256k1", other.x, other.y),
                              ("x of the field's size", P256_FIELD, y)]:
        refuse(f"P-256, {name}", "point", EC, x=b64(left.to_bytes(32, "big")),
               y=b64(right.to_bytes(32, "big")))
    refuse("P-256, x of 31 bytes", "key 1", EC, x=b64(POINT[1:32]))
    refuse("P-256, 31 and 33 bytes", "key 1", EC, x=b64(POINT[:31]), y=b64(POINT[31:]))
    refuse("P-256, x with a zero before", "key 1", EC, x=b64(b"\0" + POINT[:32]))


def rsa():
    refuse("RSA of 1024 bits", "2048", RSA, n=b64(rsa_modulus(rsa_key("small", 1024))))
    refuse("RSA of 2047 bits", "2048", RSA,
           n=b64((int.from_bytes(MODULUS, "big") >> 1 | 1).to_bytes(256, "big")))
    refuse("RSA of 8192 bits", "n", RSA, n=b64(b"\xff" * 1024))
    refuse("RSA, n with a zero before", "zero", RSA, n=b64(b"\0" + MODULUS))
    refuse("RSA, an even n", "odd", RSA, n=b64(MODULUS[:-1] + b"\0"))
    for name, e in [("3", b"\x03"), ("1", b"\x01"), ("65536", b"\x01\0\0"), ("65535", b"\xff\xff")]:
        refuse(f"RSA, e {name}", "exponent", RSA, e=b64(e))
    refuse("RSA, e with a zero before", "e:", RSA, e=b64(b"\0\x01\0\x01"))
    refuse("RSA, e of five bytes", "e:", RSA, e=b64(b"\x01\0\0\0\x01"))


for make in [what_is_taken, the_document, secrets, members, elliptic, rsa]:
    make()
if len(sys.argv) == 2:
    for number, row in enumerate(ROWS):
        if len(row[4]) < 8192 and (row[0] == "accept" or number % 3 == 0):
            pathlib.Path(sys.argv[1], f"{number:03}").write_text(row[4])
    sys.exit()
for row in ROWS:
    assert not any("\t" in column or "\n" in column for column in row), row
    print(*row, sep="\t")
