/* schema.h: the tables of a silo that an older program wrote are brought up to date when it wakes:
 * all rooms in one transaction, before the first request; a silo that a newer one wrote is left
 * alone. Tables of rooms that were never used are made at their first use, by the room itself. */
#pragma once

#include "silo/state.h"

enum { SCHEMA_ROOMS_MAX = 32, SCHEMA_CHANGES_MAX = 1024 };

struct schema_list {
    const struct store_schema *const *rooms;
    uint32_t count;
};
extern const struct schema_list schema_rooms; /* those of this program */

struct schema_plan { /* rooms that are older than this program's */
    const struct store_schema *rooms[SCHEMA_ROOMS_MAX];
    uint32_t count;
    char changes[SCHEMA_CHANGES_MAX]; /* {"memory":{"from":1,"to":2}} */
};

/* Outside of a transaction; writes nothing. CONFLICT: a room is newer than this program's, or not
 * known to it; the fault names rooms and versions. */
MUST_CHECK status schema_look(struct schema_plan *ret, struct store *store,
                              const struct schema_list *list, struct fault *fault);

/* In the open transaction: every room of the plan, and the entry that says so. The caller commits,
 * or drops the store. */
MUST_CHECK status schema_upgrade(struct silo *silo, const struct schema_plan *plan,
                                 struct fault *fault);
