/* audit.h: the silo's audit entries: what they say, and their way into the log.
 *
 * An entry holds no content: who, when, what was asked, what was decided, and hashes of the item,
 * the request and the answer under a key of the silo, so that nobody outside can guess ids or texts
 * and compare. docs/file-formats.md has the members. */
#pragma once

#include "silo/state.h"

/* Keeps the entry of a request that was handled or refused, in memory. why: what the handler (or
 * the check before it) returned. OUT_OF_SPACE, UNAVAILABLE when too many wait: then the request
 * must be refused, since nothing happens unseen. */
MUST_CHECK status audit_request(const struct call *call, status why, struct fault *fault);

/* Room for one more entry? To be asked before the request is handled. */
MUST_CHECK status audit_has_room(const struct silo *silo, struct fault *fault);

/* Something the silo did itself, "memory.expire", to `count` items. */
MUST_CHECK status audit_system(struct silo *silo, const char *action, int64_t count,
                               struct fault *fault);

/* Tables were brought up to date: "silo.upgraded", with from and to of each room. */
MUST_CHECK status audit_upgrade(struct silo *silo, struct span changes, int64_t count,
                                struct fault *fault);

/* The same, the whole entry given: an object without "index". */
MUST_CHECK status audit_own(struct silo *silo, struct span entry, struct fault *fault);

/* See silo_note_denials. */
MUST_CHECK status audit_denials(struct silo *silo, const char *action, status why,
                                const char *subject, uint64_t count, struct fault *fault);

/* Moves all that waits into the log, inside the open transaction; they still wait until
 * audit_written. */
MUST_CHECK status audit_write(struct silo *silo, struct fault *fault);
void audit_written(struct silo *silo);
/* The turn was taken back: its effects did not happen, so neither are their entries kept. */
void audit_taken_back(struct silo *silo);

bool audit_is_urgent(const struct silo *silo); /* so much waits that the turn must commit */
