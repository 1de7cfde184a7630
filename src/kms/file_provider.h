/* file_provider.h: the provider that keeps its keys as sealed files under a root key in a file.
 *
 * Formats: docs/file-formats.md. What it cannot promise: that an overwritten block is gone from the
 * medium (copy-on-write file systems, flash, snapshots), where the root key outlives it. */
#pragma once

#include "kms/provider.h"

/* directory: readable; borrowed while open. Makes root.key on first use. CORRUPT when root.key is
 * missing beside keys that were sealed under it, damaged, or open to others. */
MUST_CHECK status file_provider_open(struct provider **ret, int directory, struct fault *fault);
