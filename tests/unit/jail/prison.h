/* prison.h: what the tests of the jail have in common: inmates, what is around them, orders. */
#pragma once

#include "inmate.h"

#include "base/cleanup.h"
#include "jail/policy.h"
#include "jail/spawn.h"
#include "jail/verify.h"
#include "wire/ipc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

enum { TENANT_UID = 61234, WAIT_MS = 10000 };

struct prison { /* one inmate and what is needed to keep it */
    struct jail_child child;
    int channel;
    uint32_t found, abi;
};

extern int prison_executable, prison_empty_root;
extern struct fault fault;

int prison_prepare(void **state); /* a folder with silo, second, outside, empty */
int prison_clean_up(void **state);
void prison_path(char path[128], const char *name); /* in that folder */

void assert_ok(status code);
status prison_spawn(struct prison *ret, enum jail_role role, int cgroup);
struct prison prison_blank(enum jail_role role);
uint32_t prison_heard(struct prison *prison, enum inmate_message expected);
void prison_order(struct prison *prison, enum inmate_message type, int value, const int *fds,
                  uint32_t count);
void prison_close(struct prison *prison, enum inmate_closing how, const int *fds, uint32_t count,
                  uid_t uid);
int prison_release(struct prison *prison); /* its exit */
int prison_detached(const char *name, bool writable);
/* A closed jail with the silo as directory 0 and the read-only second one as directory 1, or what
 * its role has instead. */
struct prison prison_jailed(enum jail_role role);
uint32_t prison_attempt(struct prison *prison, enum inmate_attempt attempt);
uint32_t prison_attempt_by_vcpu(struct prison *prison, enum inmate_attempt attempt);
void assert_killed(struct prison *prison, enum inmate_message by, enum inmate_attempt what);
struct jail_expectation prison_expectation(const struct prison *prison);
void assert_refused(const struct prison *prison, const struct jail_expectation *expected,
                    const char *reason);
