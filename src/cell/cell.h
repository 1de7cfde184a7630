/* cell.h: one tenant awake: the process that has its silo open, from blank to parked.
 *
 * Called by main.c, which adds the jail, and by tests, which play supervisor, kms and gateways. The
 * rest of the room is in state.h and not for others. docs/protocols.md has every message. */
#pragma once

#include "base/loop.h"
#include "base/status.h"
#include "jail/jail.h"

/* Gives up everything but the silo's directory; a failure ends the process. */
typedef status cell_close_jail(struct jail_proof *ret, int silo_fd, struct fault *fault);

/* Says CELL_BLANK on supervisor_fd, waits to be told which tenant to be, closes the jail, opens the
 * silo with the key from the kms and serves until it is parked (OK, CELL_PARKED was sent) or must
 * end: then the fault says why, and CELL_FAILED was sent when the silo had not been open yet.
 * supervisor_fd and loop stay the caller's; SIGPIPE must be ignored, crypt_start and store_start
 * done. To be called once in a process. */
MUST_CHECK status cell_run(int supervisor_fd, struct loop *loop, cell_close_jail *close_jail,
                           struct fault *fault);
