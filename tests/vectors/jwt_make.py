#!/usr/bin/env python3
"""Makes jwt.tsv: tokens to accept and to refuse, by the number of the check:

01 compact form, base64url  02 size  03 UTF-8, duplicate names  04 alg  05 none
06 kid and its one alg  07 crit  08 keys in the header  09 kid is opaque  10 typ  11 iss  12 aud
13 times  14 sub  15 client_id  16 jti where the issuer asks for it  17 scope  18 tenant  19 act
23 signatures of each algorithm  24 JWE
(RFC 7515, 7519, 8725, 8693, 9068)

Signed with the `cryptography` package, so that nothing of ours is on both sides of the test.
    python3 jwt_make.py > jwt.tsv
    python3 jwt_make.py ../fuzz/corpus/jwt      seeds of fuzz_jwt: one accept and one reject a check
Lines: "key <name> <public key, hex>" and "<check> accept|reject <reason> <name> <token>",
separated by tabs. All times are around NOW; test_token.c sets up the issuers named here.
"""
import base64
import hashlib
import hmac
import json
import pathlib
import sys

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from test_keys import (P256_ORDER, b64, ec_key, ec_public, ed25519_key, ed25519_public, pkcs1, pss,
                       rsa_key, rsa_modulus, rsa_public, rsa_raw)

NOW = 1_800_000_000
TENANT = "00112233445566778899aabbccddeeff"
OTHER_TENANT = "ffeeddccbbaa99887766554433221100"
DROP = object()
LONG_KID = "k" * 64
ODD_KID = "../../keys/one' OR '1'='1"


KEYS = {name: ed25519_key(name)
        for name in ["builtin", "ext1", "ext2", "bound", "stranger"]}
EC, EC_STRANGER = ec_key("es256"), ec_key("es256 stranger")
RSA, RSA_STRANGER = rsa_key("rs256", 2048), rsa_key("rs256 stranger", 2048)
RSA_LARGE = rsa_key("rs256 large", 4096)
FOREIGN_KEYS = {"es256": ec_public(EC), "rs256": rsa_public(RSA),
                "rs256-4096": rsa_public(RSA_LARGE)}


def public(name):
    return ed25519_public(KEYS[name])


BUILTIN_KID = hashlib.sha256(public("builtin")).hexdigest()[:16]


def text(value):
    return value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()


def changed(base, changes):
    merged = {**base, **changes}
    return {name: value for name, value in merged.items() if value is not DROP}


def compose(header, payload, key):
    body = b64(text(header)) + "." + b64(text(payload))
    signature = KEYS[key].sign(body.encode()) if isinstance(key, str) else key(body.encode())
    return body + "." + b64(signature)


HEADER = {"alg": "EdDSA", "typ": "at+jwt", "kid": BUILTIN_KID}
PAYLOAD = {"iss": "bulkhead", "aud": "bulkhead", "sub": "ada", "tenant_id": TENANT,
           "scope": "memory:read memory:write", "iat": NOW - 10, "exp": NOW + 890, "jti": "j-1"}
EXT_HEADER = {"alg": "EdDSA", "kid": "one"}
EXT_PAYLOAD = {"iss": "https://id.example/", "aud": ["other", "https://bulkhead.example"],
               "sub": "ada", "org": "acme", "iat": NOW - 10, "exp": NOW + 890}
BOUND_HEADER = {"alg": "EdDSA", "kid": "one"}
BOUND_PAYLOAD = {"iss": "https://acme.example/", "aud": "bulkhead", "sub": "ada",
                 "tenant_id": TENANT, "iat": NOW - 10, "exp": NOW + 890}


# One issuer, its claims under names of its own: "es" ES256, "rs" RS256 and "ps" PS256 with one
# modulus, "rs-large" and "ps-large" with another, "ed" EdDSA with the key ext1.
FOREIGN_PAYLOAD = {"iss": "https://foreign.example/", "aud": "bulkhead", "uid": "ada",
                   "sub": "0f3c", "org": "acme", "scp": ["memory:read", "memory:write"],
                   "level": "confidential", "iat": NOW - 10, "exp": NOW + 890}
ONCE_PAYLOAD = {"iss": "https://once.example/", "aud": "bulkhead", "sub": "ada", "jti": "j-1",
                "tenant_id": TENANT, "iat": NOW - 10, "exp": NOW + 890}


def token(header={}, key="builtin", **claims):
    return compose(changed(HEADER, header), changed(PAYLOAD, claims), key)


def ext(header={}, key="ext1", **claims):
    return compose(changed(EXT_HEADER, header), changed(EXT_PAYLOAD, claims), key)


def bound(header={}, key="bound", **claims):
    return compose(changed(BOUND_HEADER, header), changed(BOUND_PAYLOAD, claims), key)


def ecdsa(message, key=EC):
    algorithm = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
    return key.sign(message, algorithm)


def es256(message, key=EC):
    r, s = decode_dss_signature(ecdsa(message, key))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def rs256(message, key=RSA, **how):
    return rsa_raw(key, pkcs1(message, len(rsa_modulus(key)), **how))


def ps256(message, key=RSA, salt=bytes(range(32)), **how):
    return rsa_raw(key, pss(message, len(rsa_modulus(key)), salt, **how))


SIGNERS = {"ES256": es256, "RS256": rs256, "PS256": ps256}
KIDS = {"ES256": "es", "RS256": "rs", "PS256": "ps"}


def foreign(alg, key=None, header={}, **claims):
    own = {"alg": alg, "typ": "JWT", "kid": KIDS.get(alg, "es")}
    return compose(changed(own, header), changed(FOREIGN_PAYLOAD, claims), key or SIGNERS[alg])


def once(header={}, key="bound", **claims):
    return compose(changed(BOUND_HEADER, header), changed(ONCE_PAYLOAD, claims), key)


def raw_payload(payload):
    return compose(HEADER, payload, "builtin")


def raw_header(header):
    return compose(header, PAYLOAD, "builtin")


ROWS = []


def accept(check, name, value):
    ROWS.append((check, "accept", "accepted", name, value))


def reject(check, reason, name, value):
    ROWS.append((check, "reject", reason, name, value))


def padded_to(total):
    """A token of exactly total characters, or as near below as base64url allows."""
    for size in range(total * 3 // 4, 0, -1):
        candidate = token(pad="p" * size)
        if len(candidate) <= total:
            return candidate


def header_of(size):
    pad = size - len(text({**HEADER, "pad": ""}))
    return compose({**HEADER, "pad": "p" * pad}, PAYLOAD, "builtin")


def form():
    good = token()
    head, body, signature = good.split(".")
    accept("01", "plain", good)
    reject("01", "not_compact", "two segments", head + "." + body)
    reject("01", "not_compact", "four segments", good + ".AAAA")
    reject("01", "not_compact", "one word", "token")
    reject("01", "not_compact", "six segments", good + ".A.A.A")
    reject("01", "not_compact", "JSON serialisation", json.dumps(
        {"protected": head, "payload": body, "signature": signature}, separators=(",", ":")))
    reject("01", "bad_encoding", "padded header", head + "=" + "." + body + "." + signature)
    reject("01", "bad_encoding", "padded payload", head + "." + body + "=." + signature)
    reject("01", "bad_signature", "padded signature", good + "==")
    reject("01", "bad_signature", "empty signature", head + "." + body + ".")
    for extra in [1, 2, 3]:
        reject("01", "bad_signature", f"the right signature and {extra} bytes more",
               token(key=lambda message: KEYS["builtin"].sign(message) + bytes(extra)))
    reject("01", "bad_signature", "a byte less than the right signature",
           token(key=lambda message: KEYS["builtin"].sign(message)[:-1]))
    reject("01", "bad_json", "empty header", "." + body + "." + signature)
    reject("01", "bad_json", "empty payload", head + ".." + signature)
    reject("01", "bad_encoding", "plain base64 alphabet",
           "+/" + head[2:] + "." + body + "." + signature)
    reject("01", "bad_encoding", "leading blank", " " + good)
    reject("01", "bad_signature", "trailing blank", good + " ")
    reject("01", "bad_signature", "stray bits in the last character",
           good[:-1] + chr(ord(good[-1]) + 1))
    accept("02", "as large as allowed", padded_to(16384))
    reject("02", "too_large", "larger than allowed", token(pad="p" * 12288))
    reject("02", "too_large", "a signature larger than allowed",
           token(key=lambda message: bytes(12288)))
    accept("02", "header as large as allowed", header_of(2048))
    reject("02", "too_large", "header larger than allowed", header_of(2053))
    accept("03", "UTF-8 in sub", token(sub="Zoë 🚢"))
    plain = text(PAYLOAD)
    reject("03", "bad_json", "not UTF-8", raw_payload(plain.replace(b'"ada"', b'"a\xff"')))
    reject("03", "bad_json", "claim twice", raw_payload(plain[:-1] + b',"sub":"eve"}'))
    reject("03", "bad_json", "claim twice, once escaped",
           raw_payload(plain[:-1] + b',"\\u0073ub":"eve"}'))
    reject("03", "bad_json", "header member twice",
           raw_header(text(HEADER)[:-1] + b',"alg":"EdDSA"}'))
    reject("03", "bad_json", "payload followed by more", raw_payload(plain + b"{}"))
    reject("03", "bad_json", "payload is an array", raw_payload([PAYLOAD]))
    reject("03", "bad_json", "header is an array", raw_header([HEADER]))


def algorithms():
    def mac(message):
        return hmac.new(public("builtin"), message, hashlib.sha256).digest()

    accept("04", "EdDSA", token())
    for name in ["eddsa", "EDDSA", "EdDSA ", "Ed25519", "ES256", "RS256", "PS256", ""]:
        reject("04", "bad_alg", f"alg '{name}'", token({"alg": name}))
    reject("04", "bad_alg", "alg missing", token({"alg": DROP}))
    reject("04", "bad_alg", "alg a number", token({"alg": 1}))
    reject("04", "bad_alg", "alg a list", token({"alg": ["EdDSA"]}))
    reject("04", "bad_alg", "HS256 with the public key as secret", token({"alg": "HS256"}, key=mac))
    accept("05", "signed", token())
    for name in ["none", "None", "NONE", "nOnE"]:
        reject("05", "bad_alg", f"{name}, no signature",
               token({"alg": name}, key=lambda message: b""))
        reject("05", "bad_alg", f"{name}, a signature all the same", token({"alg": name}))
    accept("06", "the second key of an issuer", ext({"kid": "two"}, key="ext2"))
    reject("06", "bad_signature", "kid one, signed by key two", ext({"kid": "one"}, key="ext2"))
    reject("06", "bad_kid", "unknown kid", token({"kid": "0123456789abcdef"}))
    reject("06", "bad_kid", "no kid", token({"kid": DROP}))
    reject("06", "bad_kid", "kid in upper case", token({"kid": BUILTIN_KID.upper()}))
    reject("06", "bad_kid", "kid of another issuer's key", token({"kid": "two"}, key="ext2"))
    reject("06", "bad_signature", "a stranger's signature", token(key="stranger"))


def header_members():
    accept("07", "unknown member that is not critical", token({"x-note": "n", "b64": True}))
    reject("07", "bad_crit", "crit exp", token({"crit": ["exp"]}))
    reject("07", "bad_crit", "crit empty", token({"crit": []}))
    reject("07", "bad_crit", "crit null", token({"crit": None}))
    reject("07", "bad_crit", "crit b64", token({"crit": ["b64"], "b64": False}))
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64(public("stranger")), "kid": BUILTIN_KID}
    lures = {"jwk": jwk, "jku": "https://stranger.example/jwks", "x5u": "https://stranger.example/",
             "x5c": ["MIIB"]}
    accept("08", "lures beside the right signature", token(lures))
    for name, value in lures.items():
        reject("08", "bad_signature", f"stranger's key by {name}",
               token({name: value}, key="stranger"))
    accept("09", "kid of 64 bytes", ext({"kid": LONG_KID}, key="ext1"))
    accept("09", "kid like a path is only compared", ext({"kid": ODD_KID}, key="ext2"))
    reject("09", "bad_kid", "kid of 65 bytes", ext({"kid": LONG_KID + "k"}))
    reject("09", "bad_kid", "kid empty", ext({"kid": ""}))
    reject("09", "bad_kid", "kid a number", ext({"kid": 1}))
    reject("09", "bad_kid", "kid with a NUL behind it", ext({"kid": "one\0"}))
    reject("09", "bad_kid", "kid a path", ext({"kid": "../../../../dev/null"}))
    accept("10", "no typ", token({"typ": DROP}))
    for typ in ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", "Application/JWT"]:
        accept("10", f"typ {typ}", token({"typ": typ}))
    for typ in ["JOSE", "", "application/", "dpop+jwt", "secevent+jwt", "text/jwt", "jwt ", "jwtx",
                "application/application/jwt", "x" * 65]:
        reject("10", "bad_typ", f"typ '{typ}'", token({"typ": typ}))
    reject("10", "bad_typ", "typ a number", token({"typ": 1}))
    accept("24", "a JWS", token())
    reject("24", "encrypted", "five segments", token() + ".AAAA.AAAA")
    reject("24", "encrypted", "a JWE",
           b64(text({"alg": "dir", "enc": "A256GCM"})) + "..AAAA.AAAA.AAAA")
    reject("24", "encrypted", "enc in the header", token({"enc": "A256GCM"}))


def parties():
    accept("11", "built-in issuer", token())
    accept("11", "registered issuer", ext())
    for iss in ["Bulkhead", "bulkhead/", " bulkhead", "bulkhead\0", "", "https://id.example"]:
        reject("11", "bad_iss", f"iss {json.dumps(iss)}", token(iss=iss))
    reject("11", "bad_iss", "no iss", token(iss=DROP))
    reject("11", "bad_iss", "iss a list", token(iss=["bulkhead"]))
    reject("11", "bad_kid", "built-in key under another iss", token(iss="https://id.example/"))
    reject("11", "bad_signature", "registered key under another iss",
           ext(iss="https://acme.example/"))
    reject("11", "bad_kid", "registered key under the built-in iss", ext(iss="bulkhead"))
    accept("12", "aud as text", token())
    accept("12", "aud in a list", token(aud=["a", "bulkhead"]))
    for aud in ["Bulkhead", "bulkhead2", "", "https://bulkhead.example", [], ["a"], ["bulkhead", 1],
                [["bulkhead"]], {"bulkhead": 1}, None, ["bulkhead"] * 17]:
        reject("12", "bad_aud", f"aud {json.dumps(aud)}", token(aud=aud))
    reject("12", "bad_aud", "no aud", token(aud=DROP))
    reject("12", "bad_aud", "another resource's aud", ext(aud="bulkhead"))
    long_name = "u" * 255
    accept("14", "sub of 255 bytes", token(sub=long_name))
    for name, sub in [("empty", ""), ("256 bytes", long_name + "u"), ("a line feed", "a\nb"),
                      ("DEL", "a\x7f"), ("C1", "a\x85b"), ("NUL", "ada\0"), ("a number", 7),
                      ("null", None), ("an object", {"sub": "ada"})]:
        reject("14", "bad_sub", f"sub {name}", token(sub=sub))
    reject("14", "bad_sub", "no sub", token(sub=DROP))
    accept("15", "client_id beside sub", token(client_id="backend"))
    reject("15", "bad_sub", "client_id instead of sub", token(client_id="backend", sub=DROP))
    reject("15", "bad_sub", "azp instead of sub", token(azp="backend", sub=DROP))


def times():
    accept("13", "plain", token())
    accept("13", "last second", token(exp=NOW + 1))
    accept("13", "exp with a fraction", token(exp=NOW + 1.9))
    accept("13", "nbf now", token(nbf=NOW))
    accept("13", "nbf 60 s ahead", token(nbf=NOW + 60))
    accept("13", "iat 60 s ahead", token(iat=NOW + 60))
    accept("13", "lifetime at the cap", token(iat=NOW, exp=NOW + 86400))
    accept("13", "registered issuer, exp 59 s past", ext(exp=NOW - 59, iat=NOW - 100))
    accept("13", "registered issuer, lifetime at its cap", ext(iat=NOW, exp=NOW + 3600))
    accept("13", "no iat, short", ext(iat=DROP))
    reject("13", "expired", "exp now", token(exp=NOW))
    reject("13", "expired", "exp with a fraction of now", token(exp=NOW + 0.9))
    reject("13", "expired", "exp an hour past", token(iat=NOW - 7200, exp=NOW - 3600))
    reject("13", "expired", "registered issuer, exp 60 s past", ext(exp=NOW - 60, iat=NOW - 100))
    reject("13", "not_yet", "nbf 61 s ahead", token(nbf=NOW + 61))
    reject("13", "not_yet", "nbf a fraction over 60 s ahead", token(nbf=NOW + 60.5))
    reject("13", "not_yet", "iat 61 s ahead", token(iat=NOW + 61))
    reject("13", "too_long_lived", "lifetime over the cap", token(iat=NOW, exp=NOW + 86401))
    reject("13", "too_long_lived", "registered issuer, over its cap", ext(iat=NOW, exp=NOW + 3601))
    reject("13", "too_long_lived", "no iat, long", ext(iat=DROP, exp=NOW + 3601))
    for exp in [None, "1800000890", True, -1, 0, 1e30, 253402300800, [NOW + 890],
                9223372036854775807]:
        reject("13", "bad_time", f"exp {json.dumps(exp)}", token(exp=exp))
    reject("13", "bad_time", "no exp", token(exp=DROP))
    reject("13", "bad_time", "exp before iat", token(iat=NOW + 50, exp=NOW + 40))
    for name in ["nbf", "iat"]:
        for value in ["1800000000", None, -5, 0, 1e30]:
            reject("13", "bad_time", f"{name} {json.dumps(value)}", token(**{name: value}))


def rights():
    accept("17", "two scopes", token())
    accept("17", "no scope", token(scope=DROP))
    accept("17", "a list", token(scope=["memory:read", "openid"]))
    accept("17", "an empty list", token(scope=[]))
    accept("17", "a list of 1024 bytes", token(scope=["s" * 512, "t" * 511]))
    accept("17", "routes:read beside a tenant's scopes", token(scope="memory:read routes:read"))
    accept("17", "scopes that are not ours are passed over", token(scope="openid memory:read x:y"))
    accept("17", "scope of 1024 bytes", token(scope="memory:read " + "s" * 1012))
    for name, scope in [("empty", ""), ("two blanks", "memory:read  memory:write"),
                        ("leading blank", " memory:read"), ("closing blank", "memory:read "),
                        ("tab", "memory:read\tmemory:write"), ("quote", 'memory:"read'),
                        ("backslash", "memory:\\read"), ("not ASCII", "memory:réad"),
                        ("1025 bytes", "s" * 1025), ("null", None), ("a number", 1),
                        ("a list with a number", ["memory:read", 1]), ("nested", [["memory:read"]]),
                        ("a list with a blank inside", ["memory:read memory:write"]),
                        ("a list with an empty one", ["memory:read", ""]),
                        ("a list of 1025 bytes", ["s" * 512, "t" * 512]),
                        ("an object", {"memory:read": 1})]:
        reject("17", "bad_scope", f"scope {name}", token(scope=scope))
    accept("18", "tenant by id", token())
    accept("18", "tenant by name", token(tenant_id="acme-2"))
    accept("18", "claim named by the issuer", ext(org="acme"))
    accept("18", "the one tenant of a tenant's issuer", bound())
    accept("18", "a tenant's issuer and a name, to be matched later", bound(tenant_id="acme"))
    reject("18", "bad_tenant", "a tenant's issuer and another tenant",
           bound(tenant_id=OTHER_TENANT))
    for name, tenant in [("null", None), ("empty", ""), ("upper case", "Acme"),
                         ("64 bytes", "a" * 64),
                         ("leading hyphen", "-acme"), ("closing hyphen", "acme-"), ("dot", "a.b"),
                         ("path", "../acme"), ("list", [TENANT]), ("number", 1),
                         ("31 digits and G", TENANT[1:] + "G"),
                         ("NUL", TENANT + "\0"), ("blank", TENANT + " "),
                         ("two", TENANT + "," + TENANT)]:
        reject("18", "bad_tenant", f"tenant {name}", token(tenant_id=tenant))
    accept("18", "the built-in issuer for the platform",
           token(tenant_id="0" * 32, scope="routes:read memory:read"))
    reject("18", "bad_tenant", "a platform's issuer for the platform", ext(org="0" * 32))
    reject("18", "bad_tenant", "a tenant's issuer for the platform", bound(tenant_id="0" * 32))
    reject("18", "bad_tenant", "no tenant", token(tenant_id=DROP))
    reject("18", "bad_tenant", "another issuer's claim name", token(tenant_id=DROP, org="acme"))
    reject("18", "bad_tenant", "tenant in the header", token({"tenant_id": TENANT}, tenant_id=DROP))


def chain(depth):
    act = None
    for level in range(depth, 0, -1):
        act = {"sub": f"agent-{level}", **({"act": act} if act else {})}
    return act


def actors():
    accept("19", "no agent", token())
    accept("19", "one agent", token(act=chain(1)))
    accept("19", "chain of four", token(act=chain(4)))
    reject("19", "bad_act", "chain of five", token(act=chain(5)))
    for name, act in [("without sub", {"iss": "x"}), ("text", "agent"), ("null", None),
                      ("list", [chain(1)]),
                      ("sub a number", {"sub": 1}), ("sub empty", {"sub": ""}),
                      ("sub too long", {"sub": "a" * 256}), ("sub with a control", {"sub": "a\r"}),
                      ("inner without sub", {"sub": "a", "act": {}}),
                      ("inner text", {"sub": "a", "act": "b"})]:
        reject("19", "bad_act", f"act {name}", token(act=act))
    for clearance in ["public", "internal", "confidential", "restricted"]:
        accept("clearance", clearance, token(clearance=clearance))
    accept("clearance", "none stated", token())
    for clearance in ["", "Public", "secret", "top", 3, None, ["restricted"], "restricted ",
                      "restricted\0"]:
        reject("clearance", "bad_clearance", json.dumps(clearance), token(clearance=clearance))
    accept("roles", "two", token(roles=["admin", "ops"]))
    accept("roles", "64 of 128 bytes", token(roles=["r" * 128] * 64))
    for name, roles in [("text", "admin"), ("65", ["r"] * 65), ("129 bytes", ["r" * 129]),
                        ("number", [1]),
                        ("empty", [""]), ("null", None)]:
        reject("roles", "bad_roles", name, token(roles=roles))
    accept("jti", "none", token(jti=DROP))
    accept("jti", "255 bytes", token(jti="j" * 255))
    for name, jti in [("empty", ""), ("256 bytes", "j" * 256), ("number", 1), ("null", None)]:
        reject("jti", "bad_jti", name, token(jti=jti))


def flip(signature, at):
    return signature[:at] + bytes([signature[at] ^ 1]) + signature[at + 1:]


def of_each_algorithm():
    for alg, sign in SIGNERS.items():
        accept("23", f"{alg}", foreign(alg))
        size = len(sign(b""))
        for at in (0, size // 2, size - 1):
            reject("23", "bad_signature", f"{alg}, byte {at} of the signature changed",
                   foreign(alg, lambda message, at=at: flip(sign(message), at)))
        reject("23", "bad_signature", f"{alg}, no signature", foreign(alg, lambda message: b""))
        reject("23", "bad_signature", f"{alg}, a byte less",
               foreign(alg, lambda message: sign(message)[:-1]))
        reject("23", "bad_signature", f"{alg}, a byte more",
               foreign(alg, lambda message: sign(message) + b"\0"))
        reject("23", "bad_signature", f"{alg}, a zero before",
               foreign(alg, lambda message: b"\0" + sign(message)))
        reject("23", "bad_signature", f"{alg}, zeros", foreign(alg, lambda message: bytes(size)))
        reject("23", "bad_signature", f"{alg}, of another payload",
               foreign(alg, lambda message: sign(message[:-2])))
        reject("23", "bad_signature", f"{alg}, EdDSA's signature", foreign(alg, "ext1"))
        for other in ["EdDSA", "ES256", "RS256", "PS256"]:
            if other != alg:
                reject("06", "bad_alg", f"a key for {alg} under {other}",
                       foreign(alg, header={"alg": other}))
        for name in ["none", "HS256", alg.lower(), alg.replace("256", "384"), "ES256K"]:
            reject("04", "bad_alg", f"a key for {alg} under {name}",
                   foreign(alg, header={"alg": name}))
        reject("05", "bad_alg", f"a key for {alg} under none, no signature",
               foreign(alg, lambda message: b"", {"alg": "none"}))
    pem = {"ES256": EC, "RS256": RSA, "PS256": RSA}
    for alg, key in pem.items():
        secret = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

        def mac(message, secret=secret):
            return hmac.new(secret, message, hashlib.sha256).digest()
        reject("04", "bad_alg", f"HS256 with the PEM of a key for {alg} as secret",
               foreign(alg, mac, {"alg": "HS256"}))
        reject("23", "bad_signature", f"a MAC with the PEM of a key for {alg} as secret",
               foreign(alg, mac))


def elliptic():
    order = P256_ORDER.to_bytes(32, "big")
    reject("23", "bad_signature", "ES256 by a stranger",
           foreign("ES256", lambda message: es256(message, EC_STRANGER)))
    reject("23", "bad_signature", "ES256 in DER", foreign("ES256", ecdsa))
    reject("23", "bad_signature", "ES256, r and s changed places",
           foreign("ES256", lambda message: es256(message)[32:] + es256(message)[:32]))
    for name, r, s in [("r zero", bytes(32), None), ("s zero", None, bytes(32)),
                       ("r the order", order, None), ("s the order", None, order),
                       ("both zero", bytes(32), bytes(32)), ("both the order", order, order),
                       ("r all ones", b"\xff" * 32, None), ("s all ones", None, b"\xff" * 32),
                       ("r one, s one", (1).to_bytes(32, "big"), (1).to_bytes(32, "big"))]:
        reject("23", "bad_signature", f"ES256, {name}",
               foreign("ES256", lambda message, r=r, s=s:
                       (r or es256(message)[:32]) + (s or es256(message)[32:])))

    def plus_order(at):
        def sign(message):
            parts = [es256(message)[:32], es256(message)[32:]]
            number = int.from_bytes(parts[at], "big") + P256_ORDER
            parts[at] = (number % 2**256).to_bytes(32, "big")
            return b"".join(parts)
        return sign
    reject("23", "bad_signature", "ES256, r plus the order", foreign("ES256", plus_order(0)))
    reject("23", "bad_signature", "ES256, s plus the order", foreign("ES256", plus_order(1)))

    def other_s(message):
        s = P256_ORDER - int.from_bytes(es256(message)[32:], "big")
        return es256(message)[:32] + s.to_bytes(32, "big")
    accept("23", "ES256, the other s, which is as good", foreign("ES256", other_s))


def rsa_padding():
    large = {"RS256": "rs-large", "PS256": "ps-large"}
    for alg, sign in [("RS256", rs256), ("PS256", ps256)]:
        accept("23", f"{alg} by 4096 bits",
               foreign(alg, lambda message, sign=sign: sign(message, RSA_LARGE),
                       {"kid": large[alg]}))
        reject("23", "bad_signature", f"{alg} by 2048 bits under a kid of 4096",
               foreign(alg, header={"kid": large[alg]}))
        reject("23", "bad_signature", f"{alg} by a stranger",
               foreign(alg, lambda message, sign=sign: sign(message, RSA_STRANGER)))
    reject("23", "bad_signature", "an RS256 signature under the kid and alg of PS256",
           foreign("PS256", rs256))
    reject("23", "bad_signature", "a PS256 signature under the kid and alg of RS256",
           foreign("RS256", ps256))
    reject("06", "bad_alg", "RS256's kid under PS256", foreign("PS256", header={"kid": "rs"}))
    reject("06", "bad_alg", "PS256's kid under RS256", foreign("RS256", header={"kid": "ps"}))
    for size in [0, 20, 31, 33, 64, 222]:
        reject("23", "bad_signature", f"PS256 with a salt of {size} bytes",
               foreign("PS256", lambda message, size=size: ps256(message, salt=bytes(size))))
    reject("23", "bad_signature", "PS256 with MGF1 over SHA-1",
           foreign("PS256", lambda message: ps256(message, mask=hashlib.sha1)))
    reject("23", "bad_signature", "PS384's hash",
           foreign("PS256", lambda message: ps256(message, hashed=hashlib.sha384)))
    reject("23", "bad_signature", "PS256 with another trailer",
           foreign("PS256", lambda message: ps256(message, trailer=b"\xcc")))
    sha1 = bytes.fromhex("3021300906052b0e03021a05000414")
    without_null = bytes.fromhex("302f300b06096086480165030402010420")
    for name, how in [("without the hash's name", {"info": b""}),
                      ("without NULL parameters", {"info": without_null}),
                      ("zeros for filling", {"fill": b"\0"}), ("of block type 2", {"kind": 2}),
                      ("over SHA-1", {"info": sha1, "hashed": hashlib.sha1}),
                      ("over SHA-512 named SHA-256", {"hashed": hashlib.sha512})]:
        reject("23", "bad_signature", f"RS256 {name}",
               foreign("RS256", lambda message, how=how: rs256(message, **how)))
    reject("23", "bad_signature", "RS256, short filling and rubbish behind the hash",
           foreign("RS256", lambda message: rsa_raw(RSA, pkcs1(message, 200) + bytes(56))))
    modulus = int.from_bytes(rsa_modulus(RSA), "big")
    for jti in range(64):
        value = foreign("RS256", jti=str(jti))
        body, _, signature = value.rpartition(".")
        number = int.from_bytes(base64.urlsafe_b64decode(signature + "=="), "big") + modulus
        if number < 2**2048:
            reject("23", "bad_signature", "RS256, the signature plus the modulus",
                   body + "." + b64(number.to_bytes(256, "big")))
            return
    raise AssertionError("no signature that leaves room for its modulus")


def claim_mapping():
    accept("mapping", "all four", foreign("ES256"))
    accept("mapping", "EdDSA beside the others", foreign("EdDSA", "ext1", {"kid": "ed"}))
    accept("mapping", "scopes as text", foreign("ES256", scp="memory:read"))
    accept("mapping", "the usual names say nothing here",
           foreign("ES256", scope=7, clearance="top", tenant_id=TENANT))
    reject("mapping", "bad_sub", "sub, where it is not the user", foreign("ES256", uid=DROP))
    reject("mapping", "bad_sub", "user a number", foreign("ES256", uid=7))
    reject("mapping", "bad_tenant", "tenant_id, where it is not the tenant",
           foreign("ES256", org=DROP, tenant_id=TENANT))
    reject("mapping", "bad_scope", "scope with a control", foreign("ES256", scp=["memory:\nread"]))
    reject("mapping", "bad_clearance", "clearance unknown", foreign("ES256", level="high"))
    accept("16", "a jti where it is asked for", once())
    reject("16", "bad_jti", "no jti where it is asked for", once(jti=DROP))
    reject("16", "bad_jti", "an empty jti where it is asked for", once(jti=""))
    accept("16", "no jti where it is not asked for", bound())


def write_corpus(folder):
    """A token after a 0 (or a 3), a payload (which the target signs) after a 1, a signature after a
    2 and the number of its algorithm."""
    seen = set()
    for check, verdict, _, _, value in ROWS:
        segments = value.split(".")
        if (check, verdict) in seen or len(segments) != 3 or not 256 < len(value) < 4096:
            continue
        seen.add((check, verdict))
        payload = base64.urlsafe_b64decode(segments[1].rstrip("=") + "==")
        pathlib.Path(folder, f"{check}-{verdict}-token").write_bytes(b"0" + value.encode())
        pathlib.Path(folder, f"{check}-{verdict}-payload").write_bytes(b"1" + payload)
    pathlib.Path(folder, "peek").write_bytes(b"3" + token().encode())
    for number, (alg, sign) in enumerate(SIGNERS.items()):
        pathlib.Path(folder, f"{alg}-signature").write_bytes(b"2%d" % number + sign(b"message"))


for make in [form, algorithms, header_members, parties, times, rights, actors, of_each_algorithm,
             elliptic, rsa_padding, claim_mapping]:
    make()
if len(sys.argv) == 2:
    write_corpus(sys.argv[1])
    sys.exit()
for key in KEYS:
    print("key", key, public(key).hex(), sep="\t")
for name, value in FOREIGN_KEYS.items():
    print("key", name, value.hex(), sep="\t")
for row in ROWS:
    assert not any("\t" in column or "\n" in column for column in row), row
    print(*row, sep="\t")
