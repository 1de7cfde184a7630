/* sandboxes.c: which sandboxes are alive, for whom and under which limits; how each ended.
 *
 * Nothing of it is durable but the ledger's entries: the supervisor ends every sandbox when control
 * ends, so whoever comes next begins with none. An entry is durable before the caller hears that
 * its sandbox runs, which is before it can send a command. */
#include "base/cleanup.h"
#include "base/hex.h"
#include "base/log.h"
#include "control/control.h"

#include <stdlib.h>

enum { DETAIL_MAX = 2048, ENDED_KEPT = SANDBOXES_MAX };

struct waiter {
    struct session *session;
    struct waiter *next;
};

struct stop { /* of all that a tenant has */
    uint32_t pending;
    status code; /* the first failure */
    char detail[sizeof((struct fault *)0)->detail];
    struct outcome outcome;
};

struct sandbox {
    struct control *control;
    struct sandbox_wish wish;
    uint64_t id; /* 0: it is being started */
    uint8_t tier;
    int64_t since_us; /* wall */
    int64_t stopper;  /* operator's uid; -1: nobody stopped it */
    struct session *caller; /* while it is being started */
    struct stop *stop;      /* the same: ends it as soon as it runs */
    struct waiter *waiters;
    struct sandbox *next;
};

struct ended_sandbox {
    uint64_t id, cpu_us, peak_kib, wall_us;
    enum sandbox_end end;
    char detail[sizeof((struct fault *)0)->detail];
};

/* ---- what is alive ---- */

static struct sandbox *find(struct control *control, uint64_t id)
{
    struct sandbox *sandbox = control->sandboxes;
    while (sandbox && (id == 0 || sandbox->id != id))
        sandbox = sandbox->next;
    return sandbox;
}

static bool is_of(const struct sandbox *sandbox, const uint8_t id[TENANT_ID_BYTES])
{
    return sandbox->wish.has_tenant
        && span_equal(SPAN_OF(sandbox->wish.tenant.id), (struct span){id, TENANT_ID_BYTES});
}

static void forget(struct sandbox *sandbox)
{
    struct sandbox **at = &sandbox->control->sandboxes;
    while (*at != sandbox)
        at = &(*at)->next;
    *at = sandbox->next;
    sandbox->control->sandbox_count--;
    free(sandbox);
}

static status check_quotas(struct control *control, const struct sandbox_wish *wish,
                           const struct quotas *quotas, struct fault *fault)
{
    uint64_t count = 1, memory_mib = wish->spec.memory_mib;
    for (const struct sandbox *other = control->sandboxes; other; other = other->next) {
        if (!is_of(other, wish->tenant.id))
            continue;
        count++;
        memory_mib += other->wish.spec.memory_mib;
    }
    if (quotas->sandboxes && count > quotas->sandboxes)
        return FAIL(QUOTA_EXCEEDED, fault, "sandboxes: the tenant has %llu alive, at most %llu",
                    (unsigned long long)count - 1, (unsigned long long)quotas->sandboxes);
    if (quotas->sandbox_memory_mib && memory_mib > quotas->sandbox_memory_mib)
        return FAIL(QUOTA_EXCEEDED, fault, "sandbox_memory_mib: the tenant's sandboxes would have "
                    "%llu, at most %llu", (unsigned long long)memory_mib,
                    (unsigned long long)quotas->sandbox_memory_mib);
    return OK;
}

/* What its posture demands may be tightened by the caller, never loosened. */
static status admit_tenant(struct control *control, struct sandbox_wish *wish,
                           struct fault *fault)
{
    struct charter *charter = NULL;
    if (wish->tenant.state != TENANT_ACTIVE)
        return FAIL(UNAVAILABLE, fault, "the tenant is not active");
    TRY(charter_newest(&charter, control, wish->tenant.id, fault));
    enum sandbox_tier demanded = charter->posture.sandbox;
    const struct quotas quotas = charter->posture.quotas;
    charter_free(charter);
    if (!wish->has_tier)
        wish->spec.weakest = (uint8_t)demanded;
    if (wish->spec.weakest < demanded)
        return FAIL(FORBIDDEN_POLICY, fault, "tier: the tenant's posture demands %s, %s is weaker",
                    sandbox_tier_name(demanded),
                    sandbox_tier_name((enum sandbox_tier)wish->spec.weakest));
    return check_quotas(control, wish, &quotas, fault);
}

static status admit(struct control *control, struct sandbox_wish *wish, struct fault *fault)
{
    if (wish->has_tenant)
        TRY(admit_tenant(control, wish, fault));
    if (control->sandbox_count >= SANDBOXES_MAX)
        return FAIL(QUOTA_EXCEEDED, fault, "%d sandboxes are alive on this node, the most there "
                    "may be", SANDBOXES_MAX);
    return OK;
}

/* ---- the ledger ---- */

static void put_limits(struct json_writer *writer, const struct sandbox_wish *wish)
{
    const struct sandbox_spec *spec = &wish->spec;
    json_put_text(writer, "image", spec->image);
    json_put_integer(writer, "vcpus", spec->vcpus);
    json_put_integer(writer, "memory_mib", spec->memory_mib);
    json_put_integer(writer, "disk_mib", spec->disk_mib);
    json_put_integer(writer, "processes", spec->processes);
    json_put_integer(writer, "timeout_seconds", wish->timeout_s);
    json_put_integer(writer, "lifetime_seconds", spec->lifetime_s);
    json_put_integer(writer, "cpu_limit_seconds", spec->cpu_s);
    json_put_text(writer, "net", spec->net == SANDBOX_NET_NONE ? "none" : "isolated");
    if (wish->argv_hash[0])
        json_put_text(writer, "argv_sha256", wish->argv_hash);
    else
        json_put_null(writer, "argv_sha256");
}

static void put_id(struct json_writer *writer, const char *name, uint64_t id)
{
    char text[SANDBOX_ID_TEXT];
    sandbox_id_text(text, id);
    json_put_text(writer, name, text);
}

static status record(struct control *control, const char *event, const struct sandbox_wish *wish,
                     struct span detail, struct fault *fault)
{
    TRY(registry_begin(control, fault));
    status result = ledger_append(control, event, wish && wish->has_tenant ? &wish->tenant : NULL,
                                  wish ? wish->operator_uid : -1, detail, fault);
    return registry_end(control, result, fault);
}

static void record_refused(struct control *control, const struct sandbox_wish *wish, status code,
                           const char *reason)
{
    uint8_t storage[DETAIL_MAX];
    struct buffer detail = buffer_over(storage, sizeof storage);
    struct json_writer writer = json_writer_on(&detail);
    struct fault fault;
    json_open_object(&writer, NULL);
    json_put_text(&writer, "code", status_code(code));
    json_put_text(&writer, "reason", reason);
    json_put_text(&writer, "weakest", sandbox_tier_name((enum sandbox_tier)wish->spec.weakest));
    put_limits(&writer, wish);
    json_close_object(&writer);
    status recorded = buffer_check(&detail, "detail", &fault);
    if (recorded == OK)
        recorded = record(control, "sandbox.refused", wish, buffer_span(&detail), &fault);
    if (recorded != OK) /* it is refused all the same */
        log_event(LOG_ERROR, "sandbox.refused", "not in the ledger: %s", fault.detail);
}

static status record_started(struct sandbox *sandbox, struct fault *fault)
{
    uint8_t storage[DETAIL_MAX];
    struct buffer detail = buffer_over(storage, sizeof storage);
    struct json_writer writer = json_writer_on(&detail);
    json_open_object(&writer, NULL);
    put_id(&writer, "sandbox", sandbox->id);
    json_put_text(&writer, "tier", sandbox_tier_name((enum sandbox_tier)sandbox->tier));
    json_put_text(&writer, "weakest",
                  sandbox_tier_name((enum sandbox_tier)sandbox->wish.spec.weakest));
    put_limits(&writer, &sandbox->wish);
    json_close_object(&writer);
    TRY(buffer_check(&detail, "detail", fault));
    return record(sandbox->control, "sandbox.start", &sandbox->wish, buffer_span(&detail), fault);
}

/* sandbox NULL: a predecessor of this process started it. Without the words of the monitor: a guest
 * may have had a say in them. */
static void record_ended(struct control *control, const struct sandbox *sandbox,
                         const struct ended_sandbox *ended)
{
    uint8_t storage[DETAIL_MAX];
    struct buffer detail = buffer_over(storage, sizeof storage);
    struct json_writer writer = json_writer_on(&detail);
    struct fault fault;
    json_open_object(&writer, NULL);
    put_id(&writer, "sandbox", ended->id);
    if (sandbox) {
        json_put_text(&writer, "tier", sandbox_tier_name((enum sandbox_tier)sandbox->tier));
        json_put_text(&writer, "image", sandbox->wish.spec.image);
    }
    json_put_text(&writer, "end", sandbox_end_name(ended->end));
    json_put_double(&writer, "cpu_seconds", (double)ended->cpu_us / 1e6);
    json_put_integer(&writer, "peak_kib", (int64_t)ended->peak_kib);
    json_put_double(&writer, "wall_seconds", (double)ended->wall_us / 1e6);
    if (sandbox && sandbox->stopper >= 0)
        json_put_integer(&writer, "stopped_by_uid", sandbox->stopper);
    json_close_object(&writer);
    status recorded = buffer_check(&detail, "detail", &fault);
    if (recorded == OK)
        recorded = record(control, "sandbox.end", sandbox ? &sandbox->wish : NULL,
                          buffer_span(&detail), &fault);
    if (recorded != OK)
        log_event(LOG_ERROR, "sandbox.end", "not in the ledger: %s", fault.detail);
}

/* ---- stopping ---- */

static void stop_step(struct stop *stop, status code, const char *detail)
{
    if (code != OK && stop->code == OK) {
        stop->code = code;
        (void)span_to_text(stop->detail, sizeof stop->detail, span_of_text(detail));
    }
    if (--stop->pending > 0)
        return;
    stop->outcome.done(stop->outcome.context, stop->code, stop->detail, (struct span){0});
    free(stop);
}

static void on_stopped(void *context, status code, const char *detail, struct cursor *result,
                       struct ipc_message *message)
{
    (void)result, (void)message;
    stop_step(context, code, detail);
}

static void ask_stop(struct sandbox *sandbox, int64_t operator_uid, struct stop *stop)
{
    uint8_t storage[8];
    struct buffer body = buffer_over(storage, sizeof storage);
    if (sandbox->stopper < 0)
        sandbox->stopper = operator_uid;
    buffer_put_u64(&body, sandbox->id);
    call_supervisor(sandbox->control, MESSAGE_SANDBOX_STOP, buffer_span(&body), NULL, 0,
                    on_stopped, stop);
}

/* Its first step is the caller's own, so that it does not end under its hands. */
static struct stop *stop_begin(struct outcome outcome)
{
    struct stop *stop = calloc(1, sizeof *stop);
    if (!stop) {
        outcome.done(outcome.context, INTERNAL, "out of memory", (struct span){0});
        return NULL;
    }
    *stop = (struct stop){.pending = 1, .outcome = outcome};
    return stop;
}

void sandboxes_stop_of(struct control *control, const struct tenant *tenant, int64_t operator_uid,
                       struct outcome outcome)
{
    struct stop *stop = stop_begin(outcome);
    if (!stop)
        return;
    for (struct sandbox *sandbox = control->sandboxes; sandbox; sandbox = sandbox->next) {
        if (!is_of(sandbox, tenant->id))
            continue;
        stop->pending++;
        if (sandbox->id) {
            ask_stop(sandbox, operator_uid, stop);
        } else { /* two things are never under way with one tenant, so there is no other */
            assert(!sandbox->stop);
            sandbox->stopper = operator_uid;
            sandbox->stop = stop;
        }
    }
    stop_step(stop, OK, "");
}

status sandbox_kill(struct control *control, uint64_t id, int64_t operator_uid,
                    struct outcome outcome, struct fault *fault)
{
    struct sandbox *sandbox = find(control, id);
    if (!sandbox)
        return FAIL(NOT_FOUND, fault, "no sandbox of this id is alive");
    struct stop *stop = stop_begin(outcome);
    if (!stop)
        return OK;
    ask_stop(sandbox, operator_uid, stop);
    return OK;
}

/* ---- starting ---- */

static void sandbox_put_json(struct json_writer *writer, const struct sandbox *sandbox)
{
    char since[CLOCK_TEXT_SIZE];
    json_open_object(writer, NULL);
    if (sandbox->id)
        put_id(writer, "id", sandbox->id);
    else
        json_put_null(writer, "id");
    json_put_text(writer, "state", sandbox->id ? "running" : "starting");
    if (sandbox->id)
        json_put_text(writer, "tier", sandbox_tier_name((enum sandbox_tier)sandbox->tier));
    else
        json_put_null(writer, "tier");
    if (sandbox->wish.has_tenant)
        json_put_text(writer, "tenant", sandbox->wish.tenant.name);
    else
        json_put_null(writer, "tenant");
    clock_text(since, sandbox->since_us);
    json_put_text(writer, "since", since);
    json_put_integer(writer, "operator_uid", sandbox->wish.operator_uid);
    put_limits(writer, &sandbox->wish);
    json_close_object(writer);
}

static void answer_started(struct sandbox *sandbox)
{
    uint8_t storage[DETAIL_MAX];
    struct buffer json = buffer_over(storage, sizeof storage);
    struct json_writer writer = json_writer_on(&json);
    sandbox_put_json(&writer, sandbox);
    session_answer(sandbox->caller, OK, "", buffer_span(&json));
}

/* NULL, or why nobody may use what runs now. */
static const char *refuse_running(struct sandbox *sandbox, struct fault *fault)
{
    if (record_started(sandbox, fault) != OK)
        return fault->detail;
    if (sandbox->tier < sandbox->wish.spec.weakest)
        return "the sandbox runs in a weaker tier than was allowed";
    if (sandbox->stop)
        return "the tenant was paused or erased meanwhile";
    return NULL;
}

static void on_unwanted_stopped(void *context, status code, const char *detail, struct span json)
{
    (void)context, (void)json;
    if (code != OK)
        log_event(LOG_ERROR, "sandbox.stop", "%s", detail);
}

static void running(struct sandbox *sandbox)
{
    struct fault fault = {0};
    const char *why = refuse_running(sandbox, &fault);
    struct stop *stop = take_ptr(sandbox->stop);
    if (!why) {
        answer_started(sandbox);
    } else {
        log_event(LOG_WARN, "sandbox.stop", "%s", why);
        session_answer(sandbox->caller, UNAVAILABLE, why, (struct span){0});
        if (!stop)
            stop = stop_begin((struct outcome){.done = on_unwanted_stopped});
        if (stop)
            ask_stop(sandbox, sandbox->stopper, stop);
    }
    sandbox->caller = NULL;
}

static void on_started(void *context, status code, const char *detail, struct cursor *result,
                       struct ipc_message *message)
{
    struct sandbox *sandbox = context;
    struct fault fault;
    (void)message;
    if (code != OK) {
        record_refused(sandbox->control, &sandbox->wish, code, detail);
        session_answer(sandbox->caller, code, detail, (struct span){0});
        struct stop *stop = sandbox->stop;
        forget(sandbox);
        if (stop)
            stop_step(stop, OK, "");
        return;
    }
    if (cursor_u64(&sandbox->id, result, &fault) != OK
        || cursor_u8(&sandbox->tier, result, &fault) != OK || cursor_end(result, &fault) != OK)
        control_die("SANDBOX_START", &fault);
    running(sandbox);
}

static status put_start(struct buffer *body, const struct sandbox_wish *wish, struct fault *fault)
{
    static const uint8_t nobody[TENANT_ID_BYTES];
    buffer_put(body, wish->has_tenant ? SPAN_OF(wish->tenant.id) : SPAN_OF(nobody));
    sandbox_spec_put(body, &wish->spec);
    return buffer_check(body, "SANDBOX_START", fault);
}

status sandbox_start(struct session *session, struct sandbox_wish *wish, const int *fds,
                     struct fault *fault)
{
    struct control *control = session->control;
    uint8_t storage[512];
    struct buffer body = buffer_over(storage, sizeof storage);
    status admitted = admit(control, wish, fault);
    if (admitted != OK) {
        record_refused(control, wish, admitted, fault->detail);
        return admitted;
    }
    TRY(put_start(&body, wish, fault));
    struct sandbox *sandbox = calloc(1, sizeof *sandbox);
    if (!sandbox)
        return FAIL(INTERNAL, fault, "out of memory");
    *sandbox = (struct sandbox){.control = control, .wish = *wish, .since_us = clock_wall_us(),
                                .stopper = -1, .caller = session, .next = control->sandboxes};
    control->sandboxes = sandbox;
    control->sandbox_count++;
    call_supervisor(control, MESSAGE_SANDBOX_START, buffer_span(&body), fds,
                    wish->spec.console ? 2 : 1, on_started, sandbox);
    return OK;
}

/* ---- the end ---- */

static void answer_ended(struct session *session, const struct ended_sandbox *ended)
{
    uint8_t storage[DETAIL_MAX];
    struct buffer json = buffer_over(storage, sizeof storage);
    struct json_writer writer = json_writer_on(&json);
    json_open_object(&writer, NULL);
    put_id(&writer, "id", ended->id);
    json_put_text(&writer, "end", sandbox_end_name(ended->end));
    json_put_double(&writer, "cpu_seconds", (double)ended->cpu_us / 1e6);
    json_put_integer(&writer, "peak_kib", (int64_t)ended->peak_kib);
    json_put_double(&writer, "wall_seconds", (double)ended->wall_us / 1e6);
    json_put_text(&writer, "detail", ended->detail);
    json_close_object(&writer);
    session_answer(session, OK, "", buffer_span(&json));
}

/* The newest that ended are kept, for those who ask a little late. */
static void keep_ended(struct control *control, const struct ended_sandbox *ended)
{
    if (!control->ended_sandboxes)
        control->ended_sandboxes = calloc(ENDED_KEPT, sizeof *control->ended_sandboxes);
    if (control->ended_sandboxes)
        control->ended_sandboxes[control->next_ended_sandbox++ % ENDED_KEPT] = *ended;
}

static void read_gone(struct ended_sandbox *ret, struct cursor *body)
{
    struct ended_sandbox ended = {0};
    struct fault fault;
    uint8_t end;
    if (cursor_u64(&ended.id, body, &fault) != OK || cursor_u8(&end, body, &fault) != OK
        || cursor_u64(&ended.cpu_us, body, &fault) != OK
        || cursor_u64(&ended.peak_kib, body, &fault) != OK
        || cursor_u64(&ended.wall_us, body, &fault) != OK
        || cursor_text(ended.detail, sizeof ended.detail, body, "detail", &fault) != OK
        || cursor_end(body, &fault) != OK)
        control_die("SANDBOX_GONE", &fault);
    ended.end = (enum sandbox_end)end;
    *ret = ended;
}

void sandboxes_on_gone(struct control *control, struct cursor *body)
{
    struct ended_sandbox ended;
    read_gone(&ended, body);
    struct sandbox *sandbox = find(control, ended.id);
    record_ended(control, sandbox, &ended);
    keep_ended(control, &ended);
    if (!sandbox)
        return;
    while (sandbox->waiters) {
        struct waiter *waiter = sandbox->waiters;
        sandbox->waiters = waiter->next;
        answer_ended(waiter->session, &ended);
        free(waiter);
    }
    forget(sandbox);
}

status sandbox_wait(struct session *session, uint64_t id, struct fault *fault)
{
    struct control *control = session->control;
    struct sandbox *sandbox = find(control, id);
    for (uint32_t i = 0; !sandbox && control->ended_sandboxes && i < ENDED_KEPT; i++) {
        if (id && control->ended_sandboxes[i].id == id) {
            answer_ended(session, &control->ended_sandboxes[i]);
            return OK;
        }
    }
    if (!sandbox)
        return FAIL(NOT_FOUND, fault, "no sandbox of this id is alive or has ended lately");
    struct waiter *waiter = calloc(1, sizeof *waiter);
    if (!waiter)
        return FAIL(INTERNAL, fault, "out of memory");
    *waiter = (struct waiter){.session = session, .next = sandbox->waiters};
    sandbox->waiters = waiter;
    return OK;
}

void sandboxes_put_json(struct json_writer *writer, const struct control *control)
{
    json_open_object(writer, NULL);
    json_open_array(writer, "data");
    for (const struct sandbox *one = control->sandboxes; one; one = one->next)
        sandbox_put_json(writer, one);
    json_close_array(writer);
    json_close_object(writer);
}

/* ---- ids ---- */

void sandbox_id_text(char text[SANDBOX_ID_TEXT], uint64_t id)
{
    snprintf(text, SANDBOX_ID_TEXT, "%016llx", (unsigned long long)id);
}

status sandbox_id_read(uint64_t *ret, struct span text, struct fault *fault)
{
    uint8_t bytes[8];
    if (text.length != 2 * sizeof bytes
        || hex_decode(bytes, sizeof bytes, text, "id", fault) != OK)
        return FAIL(BAD_FIELD, fault, "id: 16 hexadecimal digits, as `sandbox ps` shows them");
    struct cursor cursor = cursor_over(SPAN_OF(bytes));
    return cursor_u64(ret, &cursor, fault);
}
