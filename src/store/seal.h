/* seal.h: inner header of the room: how one piece of a silo's files is sealed.
 *
 * Every piece (page, WAL header, WAL frame, record of the page map) is XAES-256-GCM under a subkey
 * of the DEK for its file, bound to the silo and to its place, and followed by a trailer of
 * SEAL_BYTES: nonce (24), tag (16), key version (4). docs/file-formats.md has the bytes. */
#pragma once

#include "base/limits.h"
#include "crypt/aead.h"
#include "store/store.h"

enum {
    PAGE_BYTES = 4096,
    SEAL_BYTES = 44, /* what SQLite leaves free at the end of every page */
    PAGE_TEXT_BYTES = PAGE_BYTES - SEAL_BYTES,
    TAG_BYTES = AEAD_TAG_BYTES,
    SEAL_TAG_AT = AEAD_NONCE_BYTES, /* in the trailer */
    SEAL_VERSION_AT = AEAD_NONCE_BYTES + AEAD_TAG_BYTES,
};
static_assert(SEAL_VERSION_AT + 4 == SEAL_BYTES, "the trailer is nonce, tag, key version");

enum seal_file { SEAL_PAGES, SEAL_WAL, SEAL_MAP, SEAL_FILES };

struct seal_key {
    uint32_t version;
    struct aead *files[SEAL_FILES];
};

struct seal {
    uint8_t silo_id[TENANT_ID_BYTES];
    struct seal_key keys[STORE_KEY_VERSIONS_MAX]; /* newest first */
    uint32_t key_count;
};

/* What the piece is and where it stands; all of it is authenticated. */
struct seal_place {
    enum seal_file file;
    uint8_t kind;          /* a letter: no two kinds of piece open as one another */
    uint64_t major, minor; /* page number; or WAL sequence and frame; or the length of a record */
    const uint8_t *before; /* the tag of the piece before (TAG_BYTES), NULL where none is bound */
};

MUST_CHECK status seal_create(struct seal *ret, const struct store_options *options,
                              struct fault *fault);
void seal_destroy(struct seal *seal); /* also half made or zeroed */

/* From here on seal_put uses it. INTERNAL: not newer than the others, or too many. */
MUST_CHECK status seal_add(struct seal *seal, const struct store_key *key, struct fault *fault);
void seal_keep_newest(struct seal *seal); /* the others are forgotten */

/* out and in may be the same bytes, but not overlap otherwise. */
void seal_put(uint8_t *out, uint8_t trailer[SEAL_BYTES], struct seal *seal,
              struct seal_place place, struct span in);

/* CORRUPT unless the bytes were sealed for that very place under a key of this silo. */
MUST_CHECK status seal_get(uint8_t *out, struct seal *seal, struct seal_place place,
                           struct span in, const uint8_t trailer[SEAL_BYTES], struct fault *fault);
