/* silos.h: the directories of DATA: made, handed out, removed. The supervisor never opens a file in
 * a silo. */
#pragma once

#include "base/limits.h"
#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct silos {
    int data;   /* DATA */
    int silos;  /* DATA/silos */
    int run;    /* DATA/run */
    int erased; /* DATA/erased: large silos whose key is destroyed, until silos_clear is done */
    bool shared_id; /* not root: all is ours, nothing is chowned */
};

/* Makes what is absent. CONFLICT when another supervisor has DATA (a lock in DATA/run). */
MUST_CHECK status silos_open(struct silos *ret, const char *data, bool shared_id,
                             struct fault *fault);

/* A directory of a service, made and given to uid, mode 0700; ret is an open descriptor. */
MUST_CHECK status silos_service(int *ret, const char *path, uid_t uid, bool shared_id,
                                struct fault *fault);

/* BAD_FIELD when the directory of the keys is DATA or lies beneath it, whatever links or ".." its
 * name had: a copy of the data must never hold its keys. */
MUST_CHECK status silos_keep_apart(const struct silos *silos, int keys, struct fault *fault);

/* Idempotent; durable when OK. */
MUST_CHECK status silos_make(const struct silos *silos, const uint8_t id[TENANT_ID_BYTES],
                             uid_t uid, struct fault *fault);

/* The silo as a detached mount, after checking that it is a directory of uid, mode 0700. */
MUST_CHECK status silos_mount(int *ret, const struct silos *silos,
                              const uint8_t id[TENANT_ID_BYTES], uid_t uid, struct fault *fault);

/* The same two for the silo that a restore makes beside the one in place. */
MUST_CHECK status silos_make_restored(const struct silos *silos,
                                      const uint8_t id[TENANT_ID_BYTES], uid_t uid,
                                      struct fault *fault);
MUST_CHECK status silos_mount_restored(int *ret, const struct silos *silos,
                                       const uint8_t id[TENANT_ID_BYTES], uid_t uid,
                                       struct fault *fault);

/* It takes the place of the one that stood there, which is removed; or it is removed itself. Both
 * are idempotent, durable when OK, and finish what a crash at any moment left of them. */
MUST_CHECK status silos_replace(const struct silos *silos, const uint8_t id[TENANT_ID_BYTES],
                                struct fault *fault);
MUST_CHECK status silos_discard(const struct silos *silos, const uint8_t id[TENANT_ID_BYTES],
                                struct fault *fault);

struct silos_removed {
    uint64_t files, bytes;
    bool later; /* of it, something waits for silos_clear */
};

/* The directory and all beneath it, and what a restore left beside it: gone from where cells look;
 * idempotent, durable when OK. A large one is only set aside: to free a gigabyte takes a file
 * system a fifth of a second, in which nobody else would be served. */
MUST_CHECK status silos_remove(struct silos_removed *ret, const struct silos *silos,
                               const uint8_t id[TENANT_ID_BYTES], struct fault *fault);

/* One step of some milliseconds at what was set aside, now or before a crash. */
MUST_CHECK status silos_clear(bool *ret_more, const struct silos *silos, struct fault *fault);
