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

/* The directory and all beneath it, and what a restore left beside it; idempotent, durable when OK.
 * Counts files and their bytes. */
MUST_CHECK status silos_remove(uint64_t *ret_files, uint64_t *ret_bytes,
                               const struct silos *silos, const uint8_t id[TENANT_ID_BYTES],
                               struct fault *fault);
