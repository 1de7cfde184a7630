/* control.h: the process that decides and that nobody takes at its word.
 *
 * It keeps the registry (names, states, routes, charters; no tenant content) and the platform's
 * ledger, both in one sealed and anchored store of their own, and drives the life of tenants:
 * create, wake, update, pause, erase. It holds no tenant's key. Calls to the kms are answered in
 * milliseconds and are waited for; calls to the supervisor may take seconds and come back through
 * calls.c. */
#pragma once

#include "authz/charter.h"
#include "base/clock.h"
#include "base/limits.h"
#include "base/loop.h"
#include "base/stats.h"
#include "crypt/note.h"
#include "store/log.h"
#include "store/statement.h"
#include "wire/json.h"
#include "wire/messages.h"
#include "wire/sandbox.h"
#include "wire/usage.h"

enum tenant_state {
    TENANT_CREATING = 0,
    TENANT_ACTIVE = 1,
    TENANT_PAUSED_STATE = 2,
    TENANT_ERASING = 3
};

struct tenant { /* one row of the registry; what its charter says is read there */
    uint8_t id[TENANT_ID_BYTES];
    char name[TENANT_NAME_MAX + 1];
    uint32_t uid;
    enum tenant_state state;
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

enum { WITHDRAWALS_KEPT = 64 };

struct control {
    struct loop *loop;
    struct loop_source *supervisor_source;
    struct ipc_outbox *supervisor_outbox;
    int supervisor; /* fd 3 */
    int kms;        /* the standing channel */
    int directory;
    bool stopping;
    uint8_t platform_key[SIGN_PUBLIC_BYTES], issuer_key[SIGN_PUBLIC_BYTES];
    uint32_t gateway_count, uid_base, idle_seconds;
    char region[TENANT_NAME_MAX + 1]; /* of this node; "" for any */
    struct gateway_link gateways[GATEWAYS_MAX];
    struct store *store;
    struct store_log *log;
    uint64_t epoch, anchored_size;
    char checkpoint[NOTE_MAX]; /* the newest signed note of the ledger */
    struct call *calls;
    struct awake *awake;
    struct withdrawal { /* of wakes.c: a key that was just found withdrawn */
        uint8_t id[TENANT_ID_BYTES];
        int64_t until_us; /* monotonic */
    } withdrawals[WITHDRAWALS_KEPT];
    uint32_t next_withdrawal, next_call;
    struct work *works; /* of lifecycle.c, under way */
    struct restore *restores; /* of restore.c, under way */
    struct session *sessions;
    uint32_t session_count, route_question_count, usage_note_count;
    struct loop_timer expiry_timer, flush_timer, denial_timer, charter_timer, route_timer;
    struct route_question *route_questions; /* answered when the ledger has them */
    uint8_t platform_told[HASH_BYTES]; /* of the PLATFORM message that gateways have */
    uint64_t denials[STATS_REASONS_MAX]; /* by reason, not yet in the ledger */
    uint8_t denial_sample[HASH_BYTES];
    struct usage_note *usage_notes; /* of usage.c, to be stored */
    struct loop_timer usage_timer;
    struct sandbox *sandboxes; /* of sandboxes.c, alive */
    struct ended_sandbox *ended_sandboxes; /* the newest; NULL before the first */
    uint32_t sandbox_count, next_ended_sandbox;
    struct prices prices; /* of the price file in force */
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
    uint8_t fingerprint[HASH_BYTES]; /* of the KEK */
    struct anchor anchor;
    uint32_t dek_floor, dek_newest, restores;
    uint8_t kek_rotating, withdrawn;
};
MUST_CHECK status kms_key_state(struct key_state *ret, struct control *control,
                                const uint8_t id[TENANT_ID_BYTES], struct fault *fault);

/* registry.c: rows; writing only between registry_begin and registry_commit. NOT_FOUND. */
MUST_CHECK status registry_migrate(struct control *control, struct fault *fault);
MUST_CHECK status registry_begin(struct control *control, struct fault *fault);
/* Commits and anchors; on failure everything since begin is undone. */
MUST_CHECK status registry_commit(struct control *control, struct fault *fault);
void registry_undo(struct control *control);
/* What every transaction ends with: result OK: committed; else undone, and result is returned. */
MUST_CHECK status registry_end(struct control *control, status result, struct fault *fault);
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
/* With its charters and routes. */
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

/* charters.c: the newest charter of each scope and, while its signature is asked for, the next one.
 *
 * The next document is committed before it is signed and takes the other's place in one commit with
 * its entry in the ledger, so a crash between the two is settled by asking the kms to sign it once
 * more over the standing channel: it does when it had signed it, and only then. */
extern const uint8_t charter_platform_id[TENANT_ID_BYTES]; /* all zero */

struct ledger_note { /* the entry that comes with a change */
    const char *event;
    struct span detail; /* JSON of ours */
    int64_t operator_uid;
};
/* Inside a transaction; replaces a next one that was kept before. */
MUST_CHECK status charter_keep_next(struct control *control, const struct charter *charter,
                                    const struct ledger_note *note, struct fault *fault);
/* Asks the kms over that channel for the signature of the next one. NOT_FOUND: none is kept. */
MUST_CHECK status charter_sign_next(uint8_t ret[SIGNATURE_BYTES], struct control *control,
                                    int channel, const uint8_t id[TENANT_ID_BYTES],
                                    struct fault *fault);
/* Inside a transaction: the next one is the newest from here on; writes its entry. */
MUST_CHECK status charter_promote(struct control *control, const struct tenant *tenant,
                                  const uint8_t id[TENANT_ID_BYTES],
                                  const uint8_t signature[SIGNATURE_BYTES], struct fault *fault);
/* Both together, for a tenant that is there (NULL: the platform), and tells the gateways. With
 * UNAVAILABLE it may have happened: then it is settled as soon as that can be. */
MUST_CHECK status charter_change(struct control *control, const struct tenant *tenant,
                                 const struct charter *charter, const struct ledger_note *note,
                                 int kms_admin, struct fault *fault);
/* OK: nothing of this scope is pending any more. */
MUST_CHECK status charter_settle(struct control *control, const uint8_t id[TENANT_ID_BYTES],
                                 struct fault *fault);
/* Every scope; tries again by itself while something stays pending. */
void charters_settle(struct control *control);
/* The newest, or that which a tenant in the making is to have. NOT_FOUND. */
MUST_CHECK status charter_newest(struct charter **ret, struct control *control,
                                 const uint8_t id[TENANT_ID_BYTES], struct fault *fault);
/* Appended as it travels; nothing is appended when the newest is that of sequence `known`.
 * NOT_FOUND: none was signed. */
MUST_CHECK status charter_put_signed(struct buffer *out, struct control *control,
                                     const uint8_t id[TENANT_ID_BYTES], uint64_t known,
                                     struct fault *fault);
/* Inside a transaction: all of a tenant that goes. */
MUST_CHECK status charter_remove(struct control *control, const uint8_t id[TENANT_ID_BYTES],
                                 struct fault *fault);

enum { CLAIM_NAMES_MAX = 16 }; /* under which issuers of tenants put the tenant */
typedef status claim_each(void *context, struct span name, struct fault *fault);
MUST_CHECK status charter_claims(struct control *control, claim_each *each, void *context,
                                 struct fault *fault);

/* draft.c: the next charter of a scope: the newest one, or for a tenant the posture given, with
 * room for one more of each list. What is revoked and can matter no more is left out. */
struct draft {
    struct charter *newest; /* NULL: there is none yet */
    struct charter next;    /* its lists are the draft's own */
};
MUST_CHECK status draft_open(struct draft *ret, struct control *control,
                             const uint8_t id[TENANT_ID_BYTES], struct fault *fault);
void draft_close(struct draft *draft); /* also when zeroed */

/* posture.c: what an operator may say of a tenant's posture, by name; the rest stays. */
struct posture_wish {
    bool has_tier, has_region, has_retention, has_audit, has_clearance, has_lifetime, has_sandbox;
    enum tier tier;
    enum sandbox_tier sandbox;
    char region[TENANT_NAME_MAX + 1];
    uint32_t retention_days;
    bool audit_strict, clearance_required;
    int64_t token_lifetime_max_seconds;
    struct quota_wish {
        char name[32];
        uint64_t value;
    } quotas[8];
    uint32_t quota_count;
};
extern const char *const posture_wish_members[]; /* with "name"; ends with NULL */
MUST_CHECK status posture_wish_read(struct posture_wish *ret, const struct json *arguments,
                                    struct fault *fault);
/* CONFLICT: a tier is lowered. BAD_FIELD: what the tier forbids. */
MUST_CHECK status posture_wish_apply(struct posture *posture, const struct posture_wish *wish,
                                     struct fault *fault);
bool posture_equal(const struct posture *left, const struct posture *right);
void posture_put_json(struct json_writer *writer, const struct posture *posture);
/* {"charter_sequence":n,"changes":{"region":{"old":...,"new":...}}} */
void posture_put_changes(struct buffer *out, uint64_t sequence, const struct posture *old,
                         const struct posture *new);

/* routes.c: by what else than its name a tenant is found. */
struct route {
    char kind[16], value[256];
};
/* BAD_FIELD names what a kind allows. Host names are lower-cased. */
MUST_CHECK status route_read(struct route *ret, struct span kind, struct span value,
                             struct fault *fault);
MUST_CHECK status route_find(struct tenant *ret, struct control *control,
                             const struct route *route, struct fault *fault);
/* Each with its entry in the ledger. CONFLICT: it leads to another tenant. ret_news: it was not so
 * before. */
MUST_CHECK status route_add(bool *ret_news, struct control *control, const struct route *route,
                            const struct tenant *tenant, int64_t operator_uid,
                            struct fault *fault);
MUST_CHECK status route_remove(struct tenant *ret, struct control *control,
                               const struct route *route, int64_t operator_uid,
                               struct fault *fault);
typedef status route_each(void *context, struct span kind, struct span value, struct span tenant,
                          struct fault *fault);
/* tenant NULL: of all. */
MUST_CHECK status routes_all(struct control *control, const struct tenant *tenant,
                             route_each *each, void *context, struct fault *fault);
MUST_CHECK status routes_any_host(bool *ret, struct control *control, struct fault *fault);
/* Inside a transaction. */
MUST_CHECK status routes_remove_of(struct control *control, const uint8_t id[TENANT_ID_BYTES],
                                   struct fault *fault);
/* ROUTE_FIND: answered once its entry is durable. */
MUST_CHECK status route_ask(struct gateway_link *link, uint32_t id, struct cursor *body,
                            struct fault *fault);
void routes_flush(struct control *control);

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

struct session;

/* lifecycle.c */
struct outcome { /* what an operation that takes its time tells its caller, once */
    void (*done)(void *context, status code, const char *detail, struct span json);
    void *context;
};
struct tenant_wish {
    struct span name;
    struct posture_wish posture;
    int64_t operator_uid;
};
void lifecycle_create(struct control *control, const struct tenant_wish *wish, int kms_admin,
                      struct outcome outcome);
void lifecycle_erase(struct control *control, struct span name, int kms_admin,
                     int64_t operator_uid, struct outcome outcome);
/* Done when the cell has parked. */
void lifecycle_pause(struct control *control, struct span name, bool pause, int64_t operator_uid,
                     struct outcome outcome);
/* Something is under way with it: create, pause, erase, restore. */
bool lifecycle_is_busy(const struct control *control, const uint8_t id[TENANT_ID_BYTES]);
/* Finishes or undoes what a crash, also of the kms, left; not what is under way. */
void lifecycle_reconcile(struct control *control);
/* Its cost of the month so far is among the members, and returned. */
struct cost tenant_put_json(struct json_writer *writer, struct control *control,
                            const struct tenant *tenant);
/* The same with its use of the month, of today and of the last days one by one. */
void tenant_put_whole(struct json_writer *writer, struct control *control,
                      const struct tenant *tenant, uint32_t days);

/* sandboxes.c */
struct sandbox_wish {
    struct tenant tenant;
    bool has_tenant; /* else it is the operator's own */
    bool has_tier;   /* the caller named spec.weakest */
    uint32_t timeout_s; /* of the command; the sandbox lives a little longer */
    struct sandbox_spec spec;
    int64_t operator_uid;
    char argv_hash[2 * HASH_BYTES + 1]; /* of the command; "" where nobody said */
};
/* Answers the session when it runs or was refused, unless it fails here. fds: the stream, and with
 * a console what takes it; they stay the caller's. Each start and refusal is in the ledger. */
MUST_CHECK status sandbox_start(struct session *session, struct sandbox_wish *wish,
                                const int *fds, struct fault *fault);
/* Told when no process of it is left. NOT_FOUND. */
MUST_CHECK status sandbox_kill(struct control *control, uint64_t id, int64_t operator_uid,
                               struct outcome outcome, struct fault *fault);
/* Answers the session at its end, or at once where it has ended lately. NOT_FOUND. */
MUST_CHECK status sandbox_wait(struct session *session, uint64_t id, struct fault *fault);
/* Told when no process of a sandbox of the tenant is left, those that are being started included.
 * For tenants that are not active any more: no new one begins. */
void sandboxes_stop_of(struct control *control, const struct tenant *tenant, int64_t operator_uid,
                       struct outcome outcome);
void sandboxes_on_gone(struct control *control, struct cursor *body);
void sandboxes_put_json(struct json_writer *writer, const struct control *control);
enum { SANDBOX_ID_TEXT = 17 };
void sandbox_id_text(char text[SANDBOX_ID_TEXT], uint64_t id);
/* BAD_FIELD. */
MUST_CHECK status sandbox_id_read(uint64_t *ret, struct span text, struct fault *fault);

/* usage.c */
void usage_on_report(struct control *control, struct cursor *body);
void usage_on_prices(struct control *control, struct cursor *body);
void usage_flush(struct control *control); /* what was reported goes into the registry now */
MUST_CHECK status usage_read(struct usage_period *ret, struct control *control,
                             const struct tenant *tenant, uint32_t first_day, uint32_t last_day,
                             struct fault *fault);
/* Members of the open object: "month", "today" and, of so many days, "days". */
void usage_put_month(struct json_writer *writer, struct control *control,
                     const struct tenant *tenant, uint32_t days);
/* Member "cost": of the month so far. */
struct cost usage_put_cost(struct json_writer *writer, struct control *control,
                           const struct tenant *tenant);
/* Inside a transaction. */
MUST_CHECK status usage_remove_of(struct control *control, const uint8_t id[TENANT_ID_BYTES],
                                  struct fault *fault);

/* keys.c: the member "key" of the open object; null without a live one. */
void keys_put_json(struct json_writer *writer, struct control *control,
                   const struct tenant *tenant);

/* wakes.c */
void wake_tenant(struct control *control, const struct tenant *tenant, uint32_t gateway,
                 struct outcome outcome);
/* A key was given back: it is asked for again at once. */
void wakes_forget_withdrawal(struct control *control, const uint8_t id[TENANT_ID_BYTES]);
void wakes_on_gone(struct control *control, struct cursor *body);
void wakes_flush(struct control *control);    /* what woke and parked goes into the registry now */
void wakes_schedule(struct control *control); /* arms the timer of the next expiry */
bool wakes_is_awake(const struct control *control, const uint8_t id[TENANT_ID_BYTES]);
enum { CHARTER_WIRE_MAX = CHARTER_MAX + 128 }; /* bytes of a signed one */
/* What a cell is woken with (docs/protocols.md). NOT_FOUND: the tenant has no charter. */
MUST_CHECK status posture_put(struct buffer *out, struct control *control,
                              const struct tenant *tenant, struct fault *fault);

/* gateways.c, admin.c, verbs*.c */
void gateway_link_open(struct control *control, uint32_t index, int fd);
void gateways_flush(struct control *control); /* denials counted so far go into the ledger now */
void gateways_tell_changed(struct control *control, const uint8_t id[TENANT_ID_BYTES]);
void gateways_tell_platform(struct control *control); /* when it is not what they know */
void gateway_answer(struct gateway_link *link, uint32_t id, status code, const char *detail,
                    struct span result);
void admin_open(struct control *control, struct cursor *body, struct ipc_message *message);

/* restore.c */
bool restore_under_way(const struct control *control, const uint8_t id[TENANT_ID_BYTES]);
/* Replaces the tenant's silo by what is made of the backups that come through *backups (taken when
 * OK). Told once: done, or nothing has changed. CONFLICT while something else is under way. */
MUST_CHECK status restore_begin(struct session *session, const struct tenant *tenant, int *backups,
                                struct outcome outcome, struct fault *fault);
void restores_reconcile(struct control *control); /* finishes or undoes what a crash left */

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
typedef status verb_run(struct session *session, const struct json *arguments,
                        struct ipc_message *message, struct fault *fault);
/* {"name"} or {"platform":true}: whose charter is meant. */
struct charter_scope {
    bool platform;
    struct tenant tenant; /* unless it is the platform */
    const uint8_t *id;
};
MUST_CHECK status verb_scope(struct charter_scope *ret, struct control *control,
                             const struct json *arguments, struct fault *fault);
MUST_CHECK status verb_tenant(struct tenant *ret, struct control *control,
                              const struct json *arguments, struct fault *fault);
verb_run verb_audit_export, verb_audit_checkpoint, verb_backup, verb_restore, verb_check,
    verb_tenant_export, verb_sandbox_run, verb_sandbox_list, verb_sandbox_kill, verb_sandbox_wait;
verb_run verb_issuer_add, verb_issuer_remove, verb_issuer_list, verb_revoke, verb_revoke_list,
    verb_route_add, verb_route_remove, verb_route_list,
    verb_rotate_dek, verb_rotate_kek, verb_key_disable, verb_key_enable;
