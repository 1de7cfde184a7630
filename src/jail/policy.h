/* policy.h: the seccomp allow-list of each role, as const data. Supervisor and tests only: jailed
 * processes get the compiled program over JAIL_FD_FILTERS and never link libseccomp.
 *
 * A call that no row allows kills the process. Rows of the same call are alternatives; the
 * comparisons of one row must all hold. A row may refuse with an error instead of allowing. */
#pragma once

#include "base/buffer.h"
#include "jail/jail.h"

enum jail_stage {
    JAIL_STAGE_BLANK, /* what the others allow and what jail_close needs */
    JAIL_STAGE_FINAL, /* of the main thread */
    JAIL_STAGE_VCPU,  /* of each other thread; no row in a role that has none */
    JAIL_STAGES
};

/* A sealed memfd with the programs of the role (of a runner: none), for struct jail_plan; made
 * once, used by every spawn of the role. ret is the caller's, close-on-exec. */
MUST_CHECK status jail_filters(int *ret, enum jail_role role, struct fault *fault);

/* One line a row, in the order of the table, "fcntl  arg1 == F_GETFL (& mask == value)": for people
 * and for the golden test. */
void jail_policy_dump(struct buffer *out, enum jail_role role, enum jail_stage stage);
