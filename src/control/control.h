/* control.h: the process that decides and that nobody takes at its word.
 *
 * It keeps the registry (names, states, routes; no tenant content) and the platform's ledger, both
 * in one sealed and anchored store of their own, and drives the life of tenants: create, wake,
 * pause, erase. It holds no tenant's key. Calls to the kms are answered in milliseconds and are
 * waited for; calls to the supervisor may take seconds and come back through calls.h. */
#pragma once

#include "base/clock.h"
#include "base/limits.h"
#include "base/loop.h"
#include "base/stats.h"
#include "crypt/note.h"
#include "store/log.h"
#include "store/statement.h"
#include "wire/json.h"
#include "wire/messages.h"

enum tenant_state {
    TENANT_CREATING = 0,
    TENANT_ACTIVE = 1,
    TENANT_PAUSED_STATE = 2,
    TENANT_ERASING = 3
};
enum tenant_tier { TIER_STANDARD = 0, TIER_REGULATED = 1 };

struct tenant { /* one row of the registry */
    uint8_t id[TENANT_ID_BYTES];
    char name[TENANT_NAME_MAX + 1];
    uint32_t uid;
    enum tenant_state state;
    enum tenant_tier tier;
    char region[TENANT_NAME_MAX + 1];
    uint32_t retention_days;
    int64_t created_at_us;
    int64_t next_expiry_us; /* wall; 0: none known */
    int64_t bytes_stored;
    bool was_paused; /* when TENANT_ERASING: what an undone erasure goes back to */
};

struct gateway_link {
    struct control *control;
    uint32_t index;
    int fd;
    uint32_t generation; /* of its channel: a restarted gateway gets no answer to its predecessor */
    uint32_t wakes;      /* that it waits for */
    struct loop_source *source;
    struct ipc_outbox *outbox;
};

struct control {
    struct loop *loop;
    int supervisor; /* fd 3 */
    struct loop_source *supervisor_source;
    struct ipc_outbox *supervisor_outbox;
    int kms; /* the standing channel */
    int directory;
    uint8_t platform_key[SIGN_PUBLIC_BYTES], issuer_key[SIGN_PUBLIC_BYTES];
    uint32_t gateway_count, uid_base, idle_seconds;
    struct gateway_link gateways[GATEWAYS_MAX];
    struct store *store;
    struct store_log *log;
    uint64_t epoch, anchored_size;
    char checkpoint[NOTE_MAX]; /* the newest signed note of the ledger */
    struct call *calls;
    uint32_t next_call;
    struct awake *awake;
    struct work *works; /* of lifecycle.c, under way */
    struct session *sessions;
    uint32_t session_count;
    struct loop_timer expiry_timer, flush_timer, denial_timer;
    uint64_t denials[STATS_REASONS_MAX]; /* by reason, not yet in the ledger */
    uint8_t denial_sample[HASH_BYTES];
    bool stopping;
};

/* Aborts the process with a log line: control's own store is gone or forged; the supervisor
 * restarts it. */
_Noreturn void control_die(const char *what, const struct fault *fault);

/* kms_link.c: waited for, 5 s at most. ret_result borrows static storage until the next call. */
MUST_CHECK status kms_call(struct cursor *ret_result, int channel, uint32_t type,
                           struct span body, struct fault *fault);
MUST_CHECK status platform_open(struct control *control, struct fault *fault);
/* A new standing channel: takes the key again (a new epoch) without reopening the store. */
MUST_CHECK status platform_renew(struct control *control, int channel, struct fault *fault);
/* Moves the anchor over what was committed and keeps the signed checkpoint. */
MUST_CHECK status platform_anchor(struct control *control, struct fault *fault);

struct key_state {
    uint8_t state; /* 0 none, 1 live, 2 shredded */
    uint8_t fingerprint[HASH_BYTES];
    struct anchor anchor;
};
MUST_CHECK status kms_key_state(struct key_state *ret, struct control *control,
                                const uint8_t id[TENANT_ID_BYTES], struct fault *fault);

/* registry.c: rows; writing only between registry_begin and registry_commit. NOT_FOUND. */
MUST_CHECK status registry_migrate(struct control *control, struct fault *fault);
MUST_CHECK status registry_begin(struct control *control, struct fault *fault);
/* Commits and anchors; on failure everything since begin is undone. */
MUST_CHECK status registry_commit(struct control *control, struct fault *fault);
void registry_undo(struct control *control);
MUST_CHECK status registry_by_id(struct tenant *ret, struct control *control,
                                 const uint8_t id[TENANT_ID_BYTES], struct fault *fault);
MUST_CHECK status registry_by_name(struct tenant *ret, struct control *control, struct span name,
                                   struct fault *fault);
MUST_CHECK status registry_insert(struct tenant *tenant, struct control *control,
                                  struct fault *fault); /* fills uid */
MUST_CHECK status registry_set_state(struct control *control, const uint8_t id[TENANT_ID_BYTES],
                                     enum tenant_state state, struct fault *fault);
MUST_CHECK status registry_set_usage(struct control *control, const uint8_t id[TENANT_ID_BYTES],
                                     int64_t next_expiry_us, int64_t bytes, struct fault *fault);
MUST_CHECK status registry_remove(struct control *control, const uint8_t id[TENANT_ID_BYTES],
                                  struct fault *fault);
MUST_CHECK status registry_keep_receipt(struct control *control, const struct tenant *tenant,
                                        struct span document, struct fault *fault);
/* Appends the newest receipt of an erased tenant of that name. */
MUST_CHECK status registry_receipt(struct buffer *out, struct control *control, struct span name,
                                   struct fault *fault);
typedef status registry_each(void *context, const struct tenant *tenant, struct fault *fault);
MUST_CHECK status registry_all(struct control *control, registry_each *each, void *context,
                               struct fault *fault);
/* The earliest expiry of a parked tenant; NOT_FOUND when nothing will expire. */
MUST_CHECK status registry_next_expiry(struct tenant *ret, struct control *control,
                                       struct fault *fault);

/* ledger.c: inside a registry transaction. tenant may be NULL; detail is JSON of ours or empty. */
MUST_CHECK status ledger_append(struct control *control, const char *event,
                                const struct tenant *tenant, int64_t operator_uid,
                                struct span detail, struct fault *fault);
MUST_CHECK status ledger_export(struct control *control, int fd, struct fault *fault);

/* calls.c: requests to the supervisor. on_reply is called exactly once, before this returns when
 * nothing could be sent; fds of the reply are in message. */
typedef void call_on_reply(void *context, status code, const char *detail, struct cursor *result,
                           struct ipc_message *message);
void call_supervisor(struct control *control, uint32_t type, struct span body, const int *fds,
                     uint32_t fd_count, call_on_reply *on_reply, void *context);
void call_answered(struct control *control, struct ipc_message *message);

/* lifecycle.c */
struct outcome { /* what an operation that takes its time tells its caller, once */
    void (*done)(void *context, status code, const char *detail, struct span json);
    void *context;
};
struct tenant_wish {
    struct span name, region;
    enum tenant_tier tier;
    uint32_t retention_days;
    int64_t operator_uid;
};
void lifecycle_create(struct control *control, const struct tenant_wish *wish, int kms_admin,
                      struct outcome outcome);
void lifecycle_erase(struct control *control, struct span name, int kms_admin,
                     int64_t operator_uid, struct outcome outcome);
/* Done when the cell has parked. */
void lifecycle_pause(struct control *control, struct span name, bool pause, int64_t operator_uid,
                     struct outcome outcome);
/* Finishes or undoes what a crash, also of the kms, left; not what is under way. */
void lifecycle_reconcile(struct control *control);
void tenant_put_json(struct json_writer *writer, struct control *control,
                     const struct tenant *tenant);

/* wakes.c */
void wake_tenant(struct control *control, const struct tenant *tenant, uint32_t gateway,
                 struct outcome outcome);
void wakes_on_gone(struct control *control, struct cursor *body);
void wakes_flush(struct control *control);    /* what woke and parked goes into the registry now */
void wakes_schedule(struct control *control); /* arms the timer of the next expiry */
bool wakes_is_awake(const struct control *control, const uint8_t id[TENANT_ID_BYTES]);
void posture_put(struct buffer *out, const struct control *control, const struct tenant *tenant);

/* gateways.c, admin.c, verbs.c */
void gateway_link_open(struct control *control, uint32_t index, int fd);
void gateways_flush(struct control *control); /* denials counted so far go into the ledger now */
void gateways_tell_changed(struct control *control, const uint8_t id[TENANT_ID_BYTES]);
void admin_open(struct control *control, struct cursor *body, struct ipc_message *message);

struct session {
    struct control *control;
    int client, kms_admin;
    uint32_t uid;
    bool busy, gone; /* a call is at work; the client went away meanwhile */
    uint32_t call;   /* its id */
    struct loop_source *source;
    struct session *next;
};
void session_answer(struct session *session, status code, const char *detail, struct span json);
/* Runs one verb; answers at once or later, exactly once. */
void verbs_run(struct session *session, struct span verb, struct span arguments,
               struct ipc_message *message);
