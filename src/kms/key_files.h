/* key_files.h: small files in the key store's directory, each written whole or not at all.
 *
 * The kms is the only writer. A file is written under NAME.tmp, synced, renamed, and the directory
 * synced; it is destroyed as NAME.gone. What a crash leaves of either is finished by
 * key_files_recover. directory: readable (not O_PATH), so that it can be synced. Faults name the
 * file. */
#pragma once

#include "base/span.h"
#include "base/status.h"

enum { KEY_FILE_NAME = 64 }; /* longest name of the store, its suffixes and NUL included */

/* Exactly length bytes of a regular file. NOT_FOUND; CORRUPT where it is anything else, or longer
 * or shorter; INTERNAL when the disk fails. ret is only defined on OK. */
MUST_CHECK status key_file_read(uint8_t *ret, size_t length, int directory, const char *name,
                                struct fault *fault);

/* Durable when OK. Never replaces: CONFLICT. After INTERNAL the whole file may exist, or none. */
MUST_CHECK status key_file_write(int directory, const char *name, unsigned mode,
                                 struct span content, struct fault *fault);

/* Overwrites, syncs, unlinks, syncs the directory. A file that does not exist is destroyed. After
 * INTERNAL it must be called again (or key_files_recover at the next start). */
MUST_CHECK status key_file_destroy(int directory, const char *name, struct fault *fault);

/* Makes every rename that came before durable. */
MUST_CHECK status key_files_settle(int directory, struct fault *fault);

/* Visits every name but "." and "..". Stops at the first that is not OK and returns it. */
typedef status key_file_visit(void *context, const char *name, struct fault *fault);
MUST_CHECK status key_files_each(int directory, key_file_visit *visit, void *context,
                                 struct fault *fault);

/* Finishes what a crash left: removes half-written files, destroys what was being destroyed. */
MUST_CHECK status key_files_recover(int directory, struct fault *fault);

bool key_file_has_suffix(const char *name, const char *suffix);
