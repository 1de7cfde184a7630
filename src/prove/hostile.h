/* hostile.h: the hostile cell: what an attacker who runs code of his own inside a cell would try.
 *
 * One process is one attempt, in exactly the jail and with exactly the channels of a cell of that
 * tenant. Each attempt names the one thing that stops it, and whether it was that is checked: by
 * the process itself where it survives, by the supervisor's word about its end where it does not.
 *
 * The results are lines of JSON. First {"attempt","name","group","wall","expect","exits",
 * "killed_for"[,"client"]}: how the process is to end, so that a death needs no last words. Then,
 * of a process that lives, {"attempt","got","held"} or {"attempt","skipped"}; {"attempt","wants"}
 * asks for a request to this tenant. The supervisor adds {"attempt","exit","killed_for"}.
 *
 *   system_calls.c  a data table: forbidden calls      key_service.c   the channel to the kms
 *   files.c         beyond the own silo                gateway.c       the relays
 *   supervisor.c    the channel to the supervisor      resources.c     beyond the limits */
#pragma once

#include "base/buffer.h"
#include "base/limits.h"
#include "wire/messages.h"

#include <limits.h>

enum { PROVE_NO_SUCH_ATTEMPT = 99 };

/* Who else is on the node: what `bulkhead prove` put into the target. */
struct target {
    uint8_t neighbour[TENANT_ID_BYTES];
    char neighbour_text[TENANT_ID_TEXT];
    int64_t neighbour_pid, neighbour_uid, supervisor_pid, kms_pid, control_pid, gateway_pid;
    char data[1024], keys[1024];
    uint8_t wrapped[KIB(1)]; /* the neighbour's silo.keys; wrapped_length 0: it has none */
    size_t wrapped_length;
    bool symlink, device, hard_link; /* planted in the own silo by the operator */
};

struct hostile {
    int silo, kms, relays[GATEWAYS_MAX], results;
    uint32_t relay_count, attempt;
    struct target target;
    uint8_t *storage; /* IPC_PACKET_MAX: the message received last */
};

enum expectation {
    EXPECT_SIGSYS,     /* killed by seccomp */
    EXPECT_NO_32_BIT,  /* the same, or SIGSEGV where the kernel has no 32-bit calls */
    EXPECT_SIGSEGV,    /* dies alone */
    EXPECT_KILLED,     /* by the supervisor, for its protocol */
    EXPECT_LOST,       /* by the supervisor, which cannot reach it any more */
    EXPECT_ERRNO,      /* value: errno */
    EXPECT_REFUSED,    /* value: the status of the answer, which holds nothing else */
    EXPECT_CLOSED,     /* the channel has ended and nothing came back */
    EXPECT_CLIENT_503, /* the same, and whom the answer was for gets 503 */
    EXPECT_CLIENT_CUT, /* the same; he gets no more than was announced */
    EXPECT_BOUNDED,    /* it went as far as it may: the text says how far */
    EXPECTATIONS
};

enum got_kind { GOT_SURVIVED, GOT_ERRNO, GOT_REFUSED, GOT_CLOSED, GOT_BOUNDED, GOT_SKIPPED };

struct got { /* of an attempt that did not end its process */
    enum got_kind kind;
    int value;
    char text[160];
};

struct attempt;
typedef struct got attempt_run(struct hostile *self, const struct attempt *attempt);
typedef void attempt_put(struct buffer *body, const struct target *target);

struct attempt {
    const char *name;
    const char *wall; /* what stops it, where the group does not say it */
    enum expectation expect;
    int value;
    attempt_run *run;
    /* of those that are one system call */
    long call;
    uintptr_t arguments[6];
    /* of those that are one message */
    uint32_t type, fds;
    attempt_put *put; /* NULL: an empty body */
    /* of those that are one path */
    const char *path;
    int flags;
};

struct battery {
    const char *group, *wall;
    const struct attempt *attempts;
    size_t count;
};

extern const struct battery battery_system_calls, battery_files, battery_supervisor,
    battery_key_service, battery_gateway, battery_resources;

#define BATTERY(group, wall, table) {group, wall, table, sizeof(table) / sizeof *(table)}

/* ---- report.c ---- */

struct got got_survived(const char *format, ...) __attribute__((format(printf, 1, 2)));
struct got got_skipped(const char *why);
struct got got_bounded(const char *format, ...) __attribute__((format(printf, 1, 2)));
struct got got_errno(int error);

/* Numbers run through all batteries; NULL after the last. */
const struct attempt *attempt_find(uint32_t number, const struct battery **ret_battery);
MUST_CHECK status report_begin(const struct hostile *self, const struct attempt *attempt,
                               const struct battery *battery, struct fault *fault);
MUST_CHECK status report_end(const struct hostile *self, const struct attempt *attempt,
                             const struct got *got, struct fault *fault);
void report_wants_request(const struct hostile *self);

/* ---- channels.c: what the attempts on channels share ---- */

/* Sends type with the attempt's body, fds copies of a descriptor beside it. False: the channel has
 * ended already. */
bool channel_send(int fd, uint32_t type, uint32_t id, struct span body, uint32_t fds);
/* Bytes as they are, for packets that are no messages. */
bool channel_send_raw(int fd, struct span packet, uint32_t fds);
/* Waits for the end of the channel: GOT_CLOSED, or GOT_SURVIVED when anything came back or nothing
 * happened in time. */
struct got channel_ending(struct hostile *self, int fd);

/* ---- start.c ---- */

/* jail_blank was done. Everything up to the attempt and the attempt itself. OK: it was made and has
 * been reported; NOT_FOUND: there is no such attempt. */
MUST_CHECK status hostile_run(int supervisor, struct fault *fault);
