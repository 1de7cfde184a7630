/* backup.h: the file of one backup of a silo: its records, written and read. Not what they hold:
 * pages and objects stay sealed (store/copy.h). docs/file-formats.md, "Backup", has the bytes.
 *
 * Needs no store and no key: the cell writes and reads whole files, the command line looks at the
 * head and the end of one. Everything read is hostile until the MACs of its key hold. */
#pragma once

#include "base/buffer.h"
#include "base/cursor.h"
#include "base/limits.h"
#include "crypt/crypt.h"
#include "wire/messages.h"

#define BACKUP_FORMAT "bulkhead-backup/1"

enum backup_kind { /* in the order of the file */
    BACKUP_KEYS = 'K',       /* the content of silo.keys */
    BACKUP_NOTE = 'C',       /* the newest signed checkpoint; absent when there is none */
    BACKUP_TAGS = 'T',       /* u32 first page, tags of 16 bytes: until all pages are told */
    BACKUP_LIST = 'O',       /* names of 16 bytes: all sealed objects, ascending, or some of them */
    BACKUP_HEAD_MAC = 'A',   /* 32 bytes over all before */
    BACKUP_PAGES = 'P',      /* u32 first page, sealed pages */
    BACKUP_BLOB = 'B',       /* name 16, u64 bytes: a sealed object begins */
    BACKUP_BLOB_BYTES = 'D', /* of it */
    BACKUP_END = 'E',
    BACKUP_FAILED = 'X',     /* text: the writer gave up; as long as an end */
};

enum {
    BACKUP_BLOB_NAME = 16,
    BACKUP_RECORD_HEAD = 5,
    BACKUP_END_TEXT = 8 + 4 + 8 + 8 + 2 * HASH_BYTES,
    BACKUP_END_BYTES = BACKUP_RECORD_HEAD + BACKUP_END_TEXT,
};

struct backup_head {
    char tenant_id[TENANT_ID_TEXT];
    char name[TENANT_NAME_MAX + 1];
    char time[40];
    uint64_t sequence;
    bool full;                    /* begins a chain */
    uint8_t previous[HASH_BYTES]; /* else: the id of the backup that it continues */
    uint32_t key_version;         /* under which the MACs are, the newest of silo.keys */
    uint32_t pages;
    struct anchor anchor;         /* of the state that it holds; its epoch is not told */
};

struct backup_end {
    uint64_t length; /* of the whole file */
    uint32_t pages;  /* that it carries, and blobs, and bytes of these */
    uint64_t blobs, blob_bytes;
    uint8_t id[HASH_BYTES];  /* the digest of everything before the end record */
    uint8_t mac[HASH_BYTES]; /* over the fields before it */
};

/* One line. */
MUST_CHECK status backup_put_head(struct buffer *out, const struct backup_head *head,
                                  struct fault *fault);
/* The line without its end. CORRUPT; NOT_IMPLEMENTED: of another version of the format. */
MUST_CHECK status backup_get_head(struct backup_head *ret, struct span line, struct fault *fault);

void backup_put_record(struct buffer *out, enum backup_kind kind, struct span body);
/* The same for a body that was appended behind room for the head, BACKUP_RECORD_HEAD at `at`. */
void backup_close_record(struct buffer *out, size_t at, enum backup_kind kind);

/* Whole records, one after another, into the digest that the MACs are over: all of them but the
 * bodies of pages and objects, which open under tags and keys of their own (ADR 8). */
void backup_digest(struct hasher *hasher, struct span records);

/* With its MAC under key. */
void backup_put_end(struct buffer *out, struct backup_end *end, const uint8_t key[KEY_BYTES]);
/* An end record or BACKUP_FAILED, BACKUP_END_BYTES of it: CORRUPT, or UNAVAILABLE with the writer's
 * reason. */
MUST_CHECK status backup_get_end(struct backup_end *ret, struct span record, struct fault *fault);
void backup_put_failed(struct buffer *out, const char *why);

/* UNAUTHENTICATED unless the MAC is that of these bytes' hash. */
MUST_CHECK status backup_check_head(struct span mac, const uint8_t digest[HASH_BYTES],
                                    const uint8_t key[KEY_BYTES], struct fault *fault);
MUST_CHECK status backup_check_end(const struct backup_end *end, const uint8_t key[KEY_BYTES],
                                   struct fault *fault);

/* ---- reading, record by record ---- */

/* Exactly length bytes; NOT_FOUND when there is none at all, TRUNCATED when there are fewer. */
typedef status backup_read(void *context, uint8_t *bytes, size_t length, struct fault *fault);

struct backup_record {
    enum backup_kind kind;
    struct span body;             /* borrowed until the next */
    uint8_t digest[HASH_BYTES];   /* of BACKUP_HEAD_MAC and BACKUP_END: of all before */
};

struct backup_reader;

MUST_CHECK status backup_reader_create(struct backup_reader **ret, backup_read *read,
                                       void *context, struct fault *fault);
struct backup_reader *backup_reader_free(struct backup_reader *reader); /* takes NULL */

/* The head of the next file; NOT_FOUND at the end of all. */
MUST_CHECK status backup_reader_head(struct backup_head *ret, struct backup_reader *reader,
                                     struct fault *fault);

/* Its records, the end being the last. CORRUPT: out of order, of no known kind, too long, cut. */
MUST_CHECK status backup_reader_next(struct backup_record *ret, struct backup_reader *reader,
                                     struct fault *fault);
uint64_t backup_reader_offset(const struct backup_reader *reader); /* within the file */
