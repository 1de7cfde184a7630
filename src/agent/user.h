/* user.h: whom a command runs as, by the guest's own passwd and group. */
#pragma once

#include "base/limits.h"
#include "base/span.h"
#include "base/status.h"

#include <sys/types.h>

enum { USER_GROUPS_MAX = 64 };

struct user {
    uid_t uid;
    gid_t gid;
    uint32_t group_count;
    gid_t groups[USER_GROUPS_MAX]; /* further ones */
    char name[65];  /* its number where it has no name */
    char home[AGENT_PATH_MAX], shell[AGENT_PATH_MAX];
};

/* wanted: a name or a number; empty: `sandbox` when uid 1000 has that name, else root; always the
 * agent's own where the agent is not root. NOT_FOUND, FORBIDDEN_POLICY. */
MUST_CHECK status user_find(struct user *ret, struct span wanted, struct fault *fault);
