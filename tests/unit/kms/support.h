/* support.h: key stores in temporary directories, logs with proofs: for the tests of the kms. */
#pragma once

#include "kms/keystore.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define assert_ok(expression) assert_int_equal((expression), OK)

/* A new, empty directory, open; removed with all that is in it by directory_remove. */
int directory_make(void);
int directory_copy(int from); /* of regular files */
void directory_remove(int fd);

/* Whole files, at most size bytes; -1 when there is none. */
ptrdiff_t file_read(int directory, const char *name, uint8_t *bytes, size_t size);
void file_write(int directory, const char *name, const uint8_t *bytes, size_t length);
bool file_exists(int directory, const char *name);
void file_flip(int directory, const char *name, size_t at); /* one bit of the byte at */
unsigned files_with_suffix(int directory, const char *suffix);

/* Counts what the store reports. */
extern unsigned reports;
void count_report(void *context, const char *text);

/* What the silo keeps of it. */
struct span wrapped_of(const struct released_key *key);

struct keystore *store_open_in(int directory); /* must open */

/* An id whose bytes are all n; and the name of its file. */
const uint8_t *id_of(uint8_t n);
const char *file_of(uint8_t n, const char *suffix);

/* A log of n leaves ("0", "1", ...): its root, and proofs. */
void log_root(uint8_t ret[HASH_BYTES], uint64_t size);
uint32_t log_proof(struct hash_value *ret, uint64_t from, uint64_t to);
