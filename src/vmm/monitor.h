/* monitor.h: what bulkhead-vmm does: from a blank that the supervisor has made to one sandbox and
 * its end (docs/protocols.md, "Sandboxes"). */
#pragma once

#include "base/loop.h"
#include "jail/jail.h"

struct monitor_jail { /* so that a test can do without; each as in jail.h */
    status (*enter)(struct jail_proof *ret, struct fault *fault);
    status (*seal)(enum jail_thread thread, struct fault *fault);
};

/* supervisor: the channel. OK when the sandbox has ended and the supervisor was told; CLOSED when
 * the supervisor is gone. */
MUST_CHECK status monitor_run(int supervisor, struct loop *loop, const struct monitor_jail *jail,
                              struct fault *fault);
