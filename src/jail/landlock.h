/* landlock.h: the last wall around the file system, network and signals, as far as the kernel has
 * it. For jail_close, and for jail_kernel_check which asks for the ABI.
 *
 * Constants up to ABI 7 stand here because the system's headers know the second only. */
#pragma once

#include "jail/jail.h"

enum { LANDLOCK_ABI_KNOWN = 7 };

/* 1 and up (never above LANDLOCK_ABI_KNOWN); UNAVAILABLE where the kernel has none or it is off. */
MUST_CHECK status landlock_abi(uint32_t *ret, struct fault *fault);

/* Refuses this process all that the ABI can refuse, but the uses of the directories. Needs
 * no_new_privs. Cannot be undone. */
MUST_CHECK status landlock_restrict(uint32_t abi, const struct jail_directory *directories,
                                    size_t count, struct fault *fault);
