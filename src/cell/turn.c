/* turn.c: the one transaction of a turn of the loop. Reads run first and see only what was
 * committed before; then the mutations; then one commit, and only after it the answers that depend
 * on it. A read leaves at once where the posture lets its entry follow within AUDIT_DELAY_MAX_MS;
 * where it does not (strict audit, too many entries pending) it waits for it like a mutation.
 * When a commit fails, its mutations did not happen, and the reads, which never saw them, get a
 * commit of their own entries. */
#include "base/clock.h"
#include "base/log.h"
#include "base/secret.h"
#include "cell/state.h"

#include <assert.h>

enum {
    COMMIT_AFTER_US = AUDIT_DELAY_MAX_MS * 1000 / 2,
    COMMIT_RETRY_US = 1000 * 1000,
    EXPIRY_LOOK_US = 1000 * 1000,           /* TTLs are whole seconds */
    EXPIRY_RETRY_US = 10 * 1000 * 1000,
    COMPLAIN_EVERY_US = 1000 * 1000,
};
#define EXPIRY_LOOK_MAX_US (INT64_C(3600) * 1000 * 1000) /* the wall clock may be set */

struct turn {
    int64_t now_us;       /* wall */
    uint32_t handled;     /* of the present kind */
    size_t held_bytes;
    struct stream_list reads, mutations; /* held until the commit */
};

void turn_wipe(struct buffer *body)
{
    if (body->length)
        secret_wipe(body->data, body->length);
    if (body->capacity > KIB(64))
        buffer_free(body);
    else
        buffer_clear(body);
    body->max = CELL_RESPONSE_MAX;
}

void turn_complain(struct cell *cell, const char *event, const struct fault *fault)
{
    int64_t now_us = clock_monotonic_us();
    if (cell->turn.complained_us && now_us - cell->turn.complained_us < COMPLAIN_EVERY_US)
        return;
    cell->turn.complained_us = now_us;
    log_event(LOG_ERROR, event, "%s", fault->detail);
}

struct silo_request turn_asked(struct stream *stream, int64_t now_us)
{
    const struct request *request = &stream->request;
    struct silo_request asked = {
        .envelope = &request->envelope, .action = request->action, .query = request->query,
        .content_type = request->headers[RELAY_CONTENT_TYPE], .body = request->body,
        .idempotency_key = request->headers[RELAY_IDEMPOTENCY_KEY], .headers = request->headers,
        .head_only = request->head_only, .arena = &stream->arena, .now_us = now_us,
        .upload = stream->upload,
    };
    if (request->serves_once) {
        asked.token_once = SPAN_OF(request->token_id);
        asked.token_until = request->usable_until;
    }
    for (uint32_t i = 0; i < request->id_count; i++)
        asked.ids[i] = request->ids[i];
    return asked;
}

/* The verdict on a request, now that its turn has come: it may have waited for a slow gateway. */
status turn_judge(struct request *request, struct cell *cell, int64_t now_us, struct fault *fault)
{
    if (request->verdict != OK) {
        *fault = request->fault;
        return request->verdict;
    }
    TRY(request_renew(request, cell, now_us, fault));
    if (now_us / 1000000 >= request->usable_until)
        return FAIL(UNAUTHENTICATED, fault, TOKEN_REFUSED);
    return OK;
}

status turn_admit(struct request *request, struct cell *cell, struct fault *fault)
{
    if (request->action->mutates && !kms_takes_mutations(cell))
        return FAIL(UNAVAILABLE, fault, "nothing can be changed at the moment");
    if (request->streams & ACTION_STREAMS_OUT && !streams_have_room(cell))
        return FAIL(UNAVAILABLE, fault, "too many downloads at once");
    return quota_check_bytes(request, cell, fault);
}

/* The headers live as long as the stream. */
static status answer_of(struct answer *ret, struct stream *stream,
                        const struct silo_response *response, struct fault *fault)
{
    struct answer answer = {.http_status = response->http_status, .length = response->length};
    if (response->body->length)
        answer.headers[RELAY_CONTENT_TYPE] = SPAN("application/json");
    for (uint32_t i = 0; i < response->header_count; i++) {
        const struct silo_header *header = &response->headers[i];
        struct span value = arena_copy(&stream->arena, span_of_text(header->value));
        assert(header->kind < RELAY_HEADERS && RELAY_ANSWER_HEADERS >> header->kind & 1);
        if (!value.data || !relay_header_fits(value))
            return FAIL(INTERNAL, fault, "header %u of an answer", header->kind);
        answer.headers[header->kind] = value;
    }
    *ret = answer;
    return OK;
}

/* An answer to HEAD has the length of what it leaves out. */
static void leave_out(struct stream *stream, struct buffer *body)
{
    struct answer *answer = &stream->answer;
    answer->head_only = true;
    if (body->length)
        answer->length = body->length;
    stream->download = silo_download_close(stream->download);
    turn_wipe(body);
}

/* What the handler wrote: a body at hand, or a download. */
static status take_response(struct stream *stream, struct silo_response *response,
                            struct fault *fault)
{
    const struct request *request = &stream->request;
    bool streams_out = request->streams & ACTION_STREAMS_OUT;
    struct buffer *body = response->body;
    stream->download = response->download;
    assert(!stream->download || (streams_out && body->length == 0));
    if (body->failed)
        return FAIL(INTERNAL, fault, "an answer over %u bytes", (unsigned)CELL_RESPONSE_MAX);
    if (streams_out && body->length > RELAY_WINDOW)
        return FAIL(INTERNAL, fault, "an answer over the window, and no download");
    TRY(answer_of(&stream->answer, stream, response, fault));
    if (streams_out && request->head_only)
        leave_out(stream, body);
    else if (stream->download)
        stream->relay->cell->downloads++;
    return OK;
}

static status handle(struct cell *cell, struct stream *stream, const struct silo_request *asked,
                     struct buffer *body, struct fault *fault)
{
    struct silo_response response = {.body = body};
    status code = silo_handle(&response, cell->silo, asked, fault);
    if (code == OK) {
        stream->upload = NULL; /* taken */
        code = take_response(stream, &response, fault);
        if (code != OK)
            stream->download = silo_download_close(stream->download);
    }
    if (code == RANGE_NOT_SATISFIABLE && response.header_count > 0) /* it says how much there is */
        stream->request.content_range =
            arena_copy(&stream->arena, span_of_text(response.headers[0].value));
    if (code == INTERNAL || code == CORRUPT)
        turn_complain(cell, "cell.request", fault);
    return code;
}

static void run(struct cell *cell, const struct turn *turn, struct stream *stream,
                struct buffer *body)
{
    struct request *request = &stream->request;
    struct fault fault;
    status code = turn_judge(request, cell, turn->now_us, &fault);
    if (code == OK)
        code = turn_admit(request, cell, &fault);
    const struct silo_request asked = turn_asked(stream, turn->now_us);
    if (request->denial != DENIAL_NONE) {
        denial_note(cell, request->denial, request->envelope.user);
    } else if (code != OK && request->known) {
        status noted = silo_refuse(cell->silo, &asked, code, &fault);
        code = noted == OK ? code : noted;
    } else if (code == OK) {
        code = handle(cell, stream, &asked, body, &fault);
    }
    if (code != OK)
        stream->answer = request_problem(body, request, code, fault.detail);
}

static void send_answer(struct stream *stream, const struct buffer *body)
{
    if (stream->download)
        streams_deliver(stream);
    else
        relay_send_answer(stream, buffer_span(body));
}

static void run_read(struct cell *cell, struct turn *turn, struct stream *stream)
{
    struct buffer *body = &cell->turn.body;
    run(cell, turn, stream, body);
    if (!silo_must_commit(cell->silo)) {
        send_answer(stream, body);
        turn_wipe(body);
        return;
    }
    turn->held_bytes += body->length;
    stream->held = *body;
    *body = buffer_of(CELL_RESPONSE_MAX);
    stream_list_put(&turn->reads, stream);
}

static void run_mutation(struct cell *cell, struct turn *turn, struct stream *stream)
{
    stream->held = buffer_of(CELL_RESPONSE_MAX);
    run(cell, turn, stream, &stream->held);
    turn->held_bytes += stream->held.length;
    stream_list_put(&turn->mutations, stream);
}

static bool has_room(const struct turn *turn)
{
    return turn->handled < CELL_TURN_REQUESTS_MAX && turn->held_bytes < CELL_TURN_BYTES_MAX;
}

static bool needs_note(const struct stream *stream)
{
    const struct request *request = &stream->request;
    return request->verdict == OK && request->action->fresh_note && !stream->has_note;
}

static void run_requests(struct cell *cell, struct turn *turn)
{
    struct stream *stream;
    for (; has_room(turn) && (stream = relay_take_ready(cell, READY_READ)); turn->handled++)
        if (needs_note(stream))
            streams_await_note(stream);
        else
            run_read(cell, turn, stream);
    turn->handled = 0;
    for (; has_room(turn) && (stream = relay_take_ready(cell, READY_MUTATION)); turn->handled++)
        if (needs_note(stream))
            streams_await_note(stream);
        else
            run_mutation(cell, turn, stream);
    lines_run(cell, turn->now_us);
}

static void send_all(struct stream_list *list)
{
    struct stream *stream;
    while ((stream = stream_list_take(list)))
        send_answer(stream, &stream->held); /* what was held goes with the stream */
}

static void fail_all(struct stream_list *list, status code, const struct fault *fault)
{
    struct stream *stream;
    while ((stream = stream_list_take(list))) {
        streams_let_go(stream);
        stream->answer = request_problem(&stream->held, &stream->request, code, fault->detail);
        relay_send_answer(stream, buffer_span(&stream->held));
    }
}

/* The entries of what was undone went with it: others say that it was tried. */
static void tell_undone(struct cell *cell, const struct turn *turn, status why)
{
    struct fault fault;
    for (struct stream *stream = turn->mutations.first; stream; stream = stream->next) {
        const struct silo_request asked = turn_asked(stream, turn->now_us);
        if (stream->answer.http_status < 400
            && silo_refuse(cell->silo, &asked, why, &fault) != OK)
            turn_complain(cell, "cell.audit", &fault);
    }
}

static void on_expire_look(void *context);

static void look_for_expiry(struct cell *cell, int64_t after_us)
{
    struct loop_timer *timer = &cell->turn.expire_timer;
    if (timer->due_us == 0 || timer->due_us > clock_monotonic_us() + after_us)
        cell_timer(cell, timer, after_us, on_expire_look, cell);
}

static void on_expire_look(void *context)
{
    struct cell *cell = context;
    int64_t next_us = silo_next_expiry_us(cell->silo), now_us = clock_wall_us();
    if (next_us == 0)
        return; /* the next commit looks again */
    if (next_us <= now_us)
        cell->turn.expire_due = true;
    else
        look_for_expiry(cell, next_us - now_us < EXPIRY_LOOK_MAX_US ? next_us - now_us
                                                                    : EXPIRY_LOOK_MAX_US);
}

void turn_start(struct cell *cell)
{
    look_for_expiry(cell, 0);
}

void turn_look_for_expiry(struct cell *cell)
{
    look_for_expiry(cell, 0);
}

static status commit(struct cell *cell, struct fault *fault)
{
    status committed = silo_commit(cell->silo, fault);
    cell->turn.commit_due = false;
    if (committed != OK) {
        turn_complain(cell, "cell.commit", fault);
        return committed;
    }
    kms_note_commit(cell);
    look_for_expiry(cell, EXPIRY_LOOK_US);
    return OK;
}

static bool expire(struct cell *cell, const struct turn *turn, bool parking)
{
    struct fault fault;
    bool more = false;
    cell->turn.expire_due = false;
    status expired = silo_expire(&more, cell->silo, turn->now_us, parking, &fault);
    if (expired != OK)
        turn_complain(cell, "cell.expire", &fault);
    look_for_expiry(cell, expired != OK ? EXPIRY_RETRY_US : more ? 0 : EXPIRY_LOOK_US);
    return expired == OK && more;
}

static void finish(struct cell *cell, struct turn *turn, bool expired)
{
    struct fault fault;
    status committed = OK;
    if (cell->turn.commit_due || silo_must_commit(cell->silo))
        committed = commit(cell, &fault);
    if (committed == OK) {
        send_all(&turn->reads);
        send_all(&turn->mutations);
        lines_committed(cell);
        return;
    }
    silo_begin(cell->silo, turn->now_us);
    tell_undone(cell, turn, committed);
    fail_all(&turn->mutations, committed, &fault);
    lines_undo(cell, turn->now_us, committed, &fault);
    lines_committed(cell); /* that they failed is sure */
    if (expired) { /* not in a circle while the disk is full */
        loop_timer_stop(cell->loop, &cell->turn.expire_timer);
        look_for_expiry(cell, EXPIRY_RETRY_US);
    }
    if (!turn->reads.first)
        return;
    committed = commit(cell, &fault);
    if (committed == OK)
        send_all(&turn->reads);
    else
        fail_all(&turn->reads, committed, &fault);
}

static void on_commit_due(void *context)
{
    struct cell *cell = context;
    cell->turn.commit_due = true;
}

static void on_again(void *context)
{
    (void)context; /* the end of the turn is all that is wanted */
}

void turn_again(struct cell *cell)
{
    if (cell->turn.again_timer.due_us == 0)
        cell_timer(cell, &cell->turn.again_timer, 0, on_again, cell);
}

static void run_turn(struct cell *cell)
{
    struct turn turn = {.now_us = clock_wall_us()};
    bool expires = cell->turn.expire_due, tried = cell->turn.commit_due;
    silo_begin(cell->silo, turn.now_us);
    run_requests(cell, &turn);
    if (cell->quota.tell_due)
        denials_tell(cell, false);
    if (expires)
        expire(cell, &turn, false);
    finish(cell, &turn, expires);
    if (silo_pending_since_us(cell->silo) && cell->turn.commit_timer.due_us == 0)
        cell_timer(cell, &cell->turn.commit_timer, tried ? COMMIT_RETRY_US : COMMIT_AFTER_US,
                   on_commit_due, cell);
}

static void tell_damage(struct cell *cell)
{
    char where[120];
    uint8_t storage[160];
    struct fault fault;
    uint32_t damage = silo_damage(cell->silo, where, sizeof where);
    if (damage <= cell->turn.damage_told)
        return;
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put_u32(&body, damage);
    buffer_put_text_field(&body, where);
    log_event(LOG_ERROR, "cell.damage", "%u damaged pages, last: %s", damage, where);
    if (ipc_send(cell->supervisor, MESSAGE_CELL_DAMAGE, 0, buffer_span(&body), NULL, 0, &fault)
        == OK)
        cell->turn.damage_told = damage; /* else next turn */
}

bool turn_finish(struct cell *cell)
{
    struct turn turn = {.now_us = clock_wall_us()};
    struct fault fault;
    silo_begin(cell->silo, turn.now_us);
    bool more = expire(cell, &turn, true);
    denials_tell(cell, true);
    bool counted = silo_usage_settle(cell->silo);
    if (counted || silo_must_commit(cell->silo) || silo_pending_since_us(cell->silo))
        more = commit(cell, &fault) == OK && more;
    return !more;
}

void turn_commit_pending(struct cell *cell)
{
    struct fault fault;
    if (!silo_pending_since_us(cell->silo))
        return;
    silo_begin(cell->silo, clock_wall_us());
    status committed = commit(cell, &fault);
    (void)committed; /* it has complained */
}

uint64_t turn_ask_note(struct cell *cell)
{
    turn_commit_pending(cell); /* what was answered before is in it */
    return kms_sign_now(cell);
}

void turn_end(void *context)
{
    struct cell *cell = context;
    if (relay_has_ready(cell) || streams_wait(cell))
        kms_listen(cell); /* no request is handled under a charter that was replaced before it */
    if (cell->ended)
        return;
    if (cell->turn.expire_due || cell->turn.commit_due || cell->quota.tell_due
        || relay_has_ready(cell) || lines_ready(cell))
        run_turn(cell);
    if (!cell->ended)
        streams_continue(cell);
    if (relay_has_ready(cell) || lines_ready(cell))
        turn_again(cell);
    export_continue(cell);
    if (!cell->ended)
        rotation_continue(cell);
    tell_damage(cell); /* exports read, too */
    relay_sweep(cell);
    park_continue(cell);
}
