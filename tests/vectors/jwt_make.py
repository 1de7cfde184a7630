#!/usr/bin/env python3
"""Makes jwt.tsv: tokens to accept and to refuse, by the number of the check:

01 compact form, base64url  02 size  03 UTF-8, duplicate names  04 alg  05 none
06 kid and its one alg  07 crit  08 keys in the header  09 kid is opaque  10 typ  11 iss  12 aud
13 times  14 sub  15 client_id  17 scope  18 tenant  19 act  24 JWE
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

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

NOW = 1_800_000_000
TENANT = "00112233445566778899aabbccddeeff"
OTHER_TENANT = "ffeeddccbbaa99887766554433221100"
DROP = object()
LONG_KID = "k" * 64
ODD_KID = "../../keys/one' OR '1'='1"


def seed_key(name):
    seed = hashlib.sha256(b"bulkhead test key " + name).digest()
    return Ed25519PrivateKey.from_private_bytes(seed)


KEYS = {name: seed_key(name.encode()) for name in ["builtin", "ext1", "ext2", "bound", "stranger"]}


def public(name):
    return KEYS[name].public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


BUILTIN_KID = hashlib.sha256(public("builtin")).hexdigest()[:16]


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


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


def token(header={}, key="builtin", **claims):
    return compose(changed(HEADER, header), changed(PAYLOAD, claims), key)


def ext(header={}, key="ext1", **claims):
    return compose(changed(EXT_HEADER, header), changed(EXT_PAYLOAD, claims), key)


def bound(header={}, key="bound", **claims):
    return compose(changed(BOUND_HEADER, header), changed(BOUND_PAYLOAD, claims), key)


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
    accept("17", "scopes that are not ours are passed over", token(scope="openid memory:read x:y"))
    accept("17", "scope of 1024 bytes", token(scope="memory:read " + "s" * 1012))
    for name, scope in [("empty", ""), ("two blanks", "memory:read  memory:write"),
                        ("leading blank", " memory:read"), ("closing blank", "memory:read "),
                        ("tab", "memory:read\tmemory:write"), ("quote", 'memory:"read'),
                        ("backslash", "memory:\\read"), ("not ASCII", "memory:réad"),
                        ("1025 bytes", "s" * 1025), ("a list", ["memory:read"]), ("null", None)]:
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
                         ("all-zero id", "0" * 32), ("31 digits and G", TENANT[1:] + "G"),
                         ("NUL", TENANT + "\0"), ("blank", TENANT + " "),
                         ("two", TENANT + "," + TENANT)]:
        reject("18", "bad_tenant", f"tenant {name}", token(tenant_id=tenant))
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


def write_corpus(folder):
    """A token after a 0, a payload (which the target signs) after a 1."""
    seen = set()
    for check, verdict, _, _, value in ROWS:
        segments = value.split(".")
        if (check, verdict) in seen or len(segments) != 3 or not 256 < len(value) < 4096:
            continue
        seen.add((check, verdict))
        payload = base64.urlsafe_b64decode(segments[1].rstrip("=") + "==")
        pathlib.Path(folder, f"{check}-{verdict}-token").write_bytes(b"0" + value.encode())
        pathlib.Path(folder, f"{check}-{verdict}-payload").write_bytes(b"1" + payload)


for make in [form, algorithms, header_members, parties, times, rights, actors]:
    make()
if len(sys.argv) == 2:
    write_corpus(sys.argv[1])
    sys.exit()
for key in KEYS:
    print("key", key, public(key).hex(), sep="\t")
for row in ROWS:
    assert not any("\t" in column or "\n" in column for column in row), row
    print(*row, sep="\t")
