"""The keys of the vectors: each made from its name alone, so that a run makes the same file again.
They are worth nothing and are known to everybody."""
import base64
import hashlib

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

P256_ORDER = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551
P256_FIELD = 2**256 - 2**224 + 2**192 + 2**96 - 1
WITNESSES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def stream(name, size):
    made = b""
    while len(made) < size:
        made += hashlib.sha256(f"bulkhead test key {name} {len(made)}".encode()).digest()
    return made[:size]


def ed25519_key(name):
    seed = hashlib.sha256(b"bulkhead test key " + name.encode()).digest()
    return Ed25519PrivateKey.from_private_bytes(seed)


def ed25519_public(key):
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def ec_key(name, curve=None):
    scalar = int.from_bytes(stream(name, 32), "big") % (P256_ORDER - 1) + 1
    return ec.derive_private_key(scalar, curve or ec.SECP256R1())


def ec_public(key):
    numbers = key.public_key().public_numbers()
    return numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")


def is_prime(number):
    if any(number % small == 0 for small in WITNESSES):
        return number in WITNESSES
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for witness in WITNESSES:
        power = pow(witness, odd, number)
        if power in (1, number - 1):
            continue
        for _ in range(twos - 1):
            power = power * power % number
            if power == number - 1:
                break
        else:
            return False
    return True


def prime(name, bits, exponent):
    number = int.from_bytes(stream(name, bits // 8), "big") | 3 << (bits - 2) | 1
    while not is_prime(number) or (number - 1) % exponent == 0:
        number += 2
    return number


def rsa_key(name, bits, exponent=65537):
    p, q = prime(name + " p", bits // 2, exponent), prime(name + " q", bits // 2, exponent)
    d = pow(exponent, -1, (p - 1) * (q - 1))
    public = rsa.RSAPublicNumbers(exponent, p * q)
    numbers = rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), public)
    return numbers.private_key()


def rsa_modulus(key):
    number = key.public_key().public_numbers().n
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def rsa_public(key):
    return key.public_key().public_numbers().e.to_bytes(4, "big") + rsa_modulus(key)


def rsa_raw(key, block):
    """The bare private operation: for signatures over what no library would pad so."""
    numbers = key.private_numbers()
    size = len(rsa_modulus(key))
    power = pow(int.from_bytes(block, "big"), numbers.d, numbers.public_numbers.n)
    return power.to_bytes(size, "big")


SHA256_INFO = bytes.fromhex("3031300d060960864801650304020105000420")


def pkcs1(message, size, info=SHA256_INFO, fill=b"\xff", kind=1, hashed=hashlib.sha256):
    """EMSA-PKCS1-v1_5 (RFC 8017 section 9.2), or what is nearly that."""
    tail = b"\0" + info + hashed(message).digest()
    return bytes([0, kind]) + fill * (size - 2 - len(tail)) + tail


def mgf1(seed, size, hashed):
    made, count = b"", 0
    while len(made) < size:
        made += hashed(seed + count.to_bytes(4, "big")).digest()
        count += 1
    return made[:size]


def pss(message, size, salt, hashed=hashlib.sha256, mask=hashlib.sha256, trailer=b"\xbc"):
    """EMSA-PSS (RFC 8017 section 9.1.1) with a salt of the caller's."""
    digest = hashed(bytes(8) + hashed(message).digest() + salt).digest()
    block = bytes(size - len(salt) - len(digest) - 2) + b"\x01" + salt
    masked = bytes(a ^ b for a, b in zip(block, mgf1(digest, len(block), mask)))
    return bytes([masked[0] & 0x7f]) + masked[1:] + digest + trailer
