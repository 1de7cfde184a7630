/* note.h: signed notes (C2SP signed-note) and tree heads in them (C2SP tlog-checkpoint): the form
 * of every checkpoint. Text:
 *
 *   <origin>\n<size>\n<base64 root>\n\n— <key name> <base64(key id (4 bytes) || signature)>\n
 *
 * key id = the first 4 bytes of SHA-256(key name || 0x0A || 0x01 || public key): the standard. */
#pragma once

#include "base/buffer.h"
#include "crypt/merkle.h"
#include "crypt/sign.h"

enum {
    NOTE_MAX = 1024,            /* of a note that we sign */
    NOTE_SIGNED_MAX = KIB(8),   /* of a note that is opened: witnesses may have added signatures */
    NOTE_SIGNATURES_MAX = 16,   /* what the standard demands at least */
    ORIGIN_MAX = 160,
};

struct checkpoint {
    /* "bulkhead/silo/<tenant id>", "bulkhead/ledger/<platform fingerprint>" */
    char origin[ORIGIN_MAX];
    uint64_t size;
    struct hash_value root;
};

/* The text that is signed (the first three lines). */
void checkpoint_put_body(struct buffer *out, const struct checkpoint *checkpoint);

/* The whole note: body, empty line, signature line. BAD_FIELD when the origin is empty, not UTF-8
 * or holds control characters, or the key name is no key name; out then stays as it was. */
MUST_CHECK status checkpoint_sign(struct buffer *out, const struct checkpoint *checkpoint,
                                  const char *key_name, struct signer *signer, struct fault *fault);

/* The rest of the note, behind its body, for a signature over the body that was made elsewhere (by
 * a key that this process does not hold). */
void checkpoint_put_signature(struct buffer *out, const char *key_name,
                              const uint8_t key[SIGN_PUBLIC_BYTES],
                              const uint8_t signature[SIGNATURE_BYTES]);

/* Strict: exactly three lines of text (the standard's extension lines are refused: we sign none),
 * one spelling of the number and of every base64. Signature lines of other keys are passed over,
 * but must be well formed; each line that bears this key's name and id must verify. CORRUPT when
 * the note is malformed or no signature line of (key_name, key) verifies; BAD_FIELD when key is
 * none. */
MUST_CHECK status checkpoint_open(struct checkpoint *ret, struct span note, const char *key_name,
                                  const uint8_t key[SIGN_PUBLIC_BYTES], struct fault *fault);

/* "ab12...": lower-case hex of SHA-256(public key), what commands print as the fingerprint. */
void key_fingerprint(char text[2 * HASH_BYTES + 1], const uint8_t key[SIGN_PUBLIC_BYTES]);

/* The key name of the platform's notes: every checkpoint, receipt and statement. */
#define PLATFORM_KEY_NAME "bulkhead"
