/* secret.h: keys in memory: out of swap, core dumps and forked children, wiped when done.
 *
 * memfd_secret where the kernel has it (not even the kernel's own direct map shows the page), else
 * anonymous memory that is mlocked, MADV_DONTDUMP and MADV_WIPEONFORK. Allocated at start-up; a
 * secret page is never moved or grown. */
#pragma once

#include "base/span.h"
#include "base/status.h"

/* Zeroed, page aligned; NULL when the kernel refuses (RLIMIT_MEMLOCK): then the process must not go
 * on. */
void *secret_alloc(size_t size);

/* Wipes and unmaps. NULL is allowed. size as given to secret_alloc. */
void secret_free(void *secret, size_t size);

void secret_wipe(void *bytes, size_t length);

/* Constant-time in the content; the lengths are not secret. */
bool secret_equal(struct span left, struct span right);
