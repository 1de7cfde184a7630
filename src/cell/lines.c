/* lines.c: a body of NDJSON, handled a line at a time, each a mutation of its own, many in one turn
 * and one commit. What came and was not handled is bounded by the window and one line: credit is
 * given for what was handled, and ahead of that only for a line that is longer than the window.
 * A line that fails fails alone; the answer has one line for each. */
#include "base/clock.h"
#include "base/secret.h"
#include "cell/state.h"

#include <assert.h>
#include <stdlib.h>

enum {
    TURN_LINES_MAX = CELL_TURN_REQUESTS_MAX,
    TURN_BYTES_MAX = MIB(1),
    TURN_US_MAX = 25 * 1000, /* then others' requests have their turn */
    RESULT_MAX = KIB(16),
    RESULTS_MAX = KIB(64),   /* that wait for their client; then no more lines are handled */
};

struct lines {
    struct buffer bytes;     /* came and was not handled: from head on */
    size_t head, scanned;    /* no line ends between them */
    size_t ahead;            /* of the last line: credit was given before it was whole */
    uint64_t number;         /* of the last line that was handled */
    status lost;             /* why the line in front could not be kept; OK: there is none such */
    bool losing;             /* the end of that line has not come */
    status cut;              /* why nothing behind `bytes` is taken any more; OK: all is */
    bool stopped;            /* no line is handled any more */
    bool token_used, token_used_before; /* one that serves once: also in this turn, before it */
    struct buffer results;   /* durable, sent up to */
    size_t sent;
    struct buffer made;      /* of this turn */
    struct buffer numbers;   /* of the lines of this turn: u64, u8 whether it was done */
};

struct line {
    uint64_t number;
    struct span text;
    size_t bytes;            /* with its end */
    status lost;             /* OK: text is all of it */
    bool is_last;            /* none is handled behind it */
};

status lines_open(struct stream *stream, struct fault *fault)
{
    struct cell *cell = stream->relay->cell;
    if (!request_is_media(&stream->request, SPAN("application/x-ndjson")))
        return FAIL(UNSUPPORTED_MEDIA, fault, "content-type must be application/x-ndjson");
    if (RELAY_WINDOW > CELL_BODIES_MAX - cell->bodies_bytes)
        return FAIL(UNAVAILABLE, fault, "too many large requests at once");
    struct lines *lines = malloc(sizeof *lines);
    if (!lines)
        return FAIL(INTERNAL, fault, "out of memory");
    *lines = (struct lines){
        .bytes = buffer_of(DOCUMENT_BODY_MAX + 2 * RELAY_WINDOW),
        .results = buffer_of(MIB(8)), .made = buffer_of(MIB(8)), .numbers = buffer_of(KIB(64)),
    };
    stream->lines = lines;
    stream->body_bytes = RELAY_WINDOW;
    cell->bodies_bytes += RELAY_WINDOW;
    stream->answer = (struct answer){
        .http_status = 200, .length = RELAY_LENGTH_UNKNOWN,
        .headers[RELAY_CONTENT_TYPE] = SPAN("application/x-ndjson"),
    };
    return OK;
}

static void drop(struct buffer *buffer)
{
    if (buffer->data)
        secret_wipe(buffer->data, buffer->length);
    buffer_free(buffer);
}

void lines_free(struct stream *stream)
{
    struct lines *lines = stream->lines;
    drop(&lines->bytes);
    drop(&lines->results);
    drop(&lines->made);
    drop(&lines->numbers);
    free(lines);
    stream->lines = NULL;
}

/* ---- bytes and credit ---- */

/* So many bytes at the front are not needed any more. */
static void consume(struct stream *stream, size_t bytes)
{
    struct lines *lines = stream->lines;
    size_t ahead = lines->ahead < bytes ? lines->ahead : bytes;
    lines->head += bytes;
    lines->scanned = lines->head;
    lines->ahead -= ahead;
    stream->body_bytes -= ahead;
    stream->relay->cell->bodies_bytes -= ahead;
    stream->in_due += (uint32_t)(bytes - ahead);
    if (lines->head == lines->bytes.length) {
        buffer_clear(&lines->bytes);
        lines->head = lines->scanned = 0;
    }
}

static size_t waiting(const struct lines *lines)
{
    return lines->bytes.length - lines->head;
}

/* All that waits is the beginning of one line that cannot be kept. */
static void lose_line(struct stream *stream, status why)
{
    stream->lines->lost = why;
    stream->lines->losing = true;
    consume(stream, waiting(stream->lines));
}

static bool is_blank(struct span text)
{
    for (size_t i = 0; i < text.length; i++)
        if (text.data[i] != ' ' && text.data[i] != '\t' && text.data[i] != '\r')
            return false;
    return true;
}

/* Where the line in front ends; false when that has not come. */
static bool find_end(struct line *ret, struct stream *stream)
{
    struct lines *lines = stream->lines;
    struct span rest = {lines->bytes.data + lines->scanned, lines->bytes.length - lines->scanned};
    size_t found = rest.length ? span_find(rest, '\n') : 0;
    lines->scanned += found;
    bool ends = found < rest.length;
    if (!ends && (!stream->ended || lines->cut != OK || waiting(lines) == 0))
        return false;
    ret->text = (struct span){lines->bytes.data + lines->head, lines->scanned - lines->head};
    ret->bytes = ret->text.length + ends;
    if (ret->text.length && ret->text.data[ret->text.length - 1] == '\r')
        ret->text.length--;
    ret->lost = ret->text.length > DOCUMENT_BODY_MAX ? TOO_LARGE : OK;
    return true;
}

/* The next that can be handled; blank ones are counted and no more. */
static bool next_line(struct line *ret, struct stream *stream)
{
    struct lines *lines = stream->lines;
    *ret = (struct line){.number = lines->number + 1};
    if (lines->lost != OK) {
        ret->lost = lines->lost;
        return !lines->losing || stream->ended;
    }
    while (find_end(ret, stream)) {
        if (!is_blank(ret->text))
            return true;
        consume(stream, ret->bytes);
        ret->number = ++lines->number + 1;
    }
    ret->lost = lines->cut;
    ret->is_last = true;
    return lines->cut != OK;
}

/* A line longer than the window needs more credit than was handled; it is given while nothing else
 * waits, so that never more than one such line is kept. */
static void give_ahead(struct stream *stream)
{
    struct cell *cell = stream->relay->cell;
    struct lines *lines = stream->lines;
    struct line line;
    if (stream->ended || lines->stopped || lines->cut != OK || lines->lost != OK
        || stream->in_open + stream->in_due >= RELAY_WINDOW / 2 || next_line(&line, stream))
        return;
    size_t bytes = waiting(lines) - lines->ahead;
    if (waiting(lines) > DOCUMENT_BODY_MAX + 1) { /* the one may be a CR */
        lose_line(stream, TOO_LARGE);
    } else if (bytes > CELL_BODIES_MAX - cell->bodies_bytes) {
        lose_line(stream, UNAVAILABLE);
    } else {
        lines->ahead += bytes;
        stream->body_bytes += bytes;
        cell->bodies_bytes += bytes;
        stream->in_due += (uint32_t)bytes;
    }
}

void lines_take(struct stream *stream, struct span bytes)
{
    struct lines *lines = stream->lines;
    if (lines->stopped || lines->cut != OK)
        return;
    if (lines->losing) {
        size_t found = span_find(bytes, '\n');
        lines->losing = found == bytes.length;
        size_t dropped = found + !lines->losing;
        stream->in_due += (uint32_t)dropped;
        bytes = (struct span){bytes.data + dropped, bytes.length - dropped};
    }
    buffer_consume(&lines->bytes, lines->head);
    lines->scanned -= lines->head;
    lines->head = 0;
    if (stream->body_came > stream->request.body_max)
        lines->cut = TOO_LARGE;
    else if (bytes.length)
        buffer_put(&lines->bytes, bytes);
    if (lines->bytes.failed)
        lines->cut = INTERNAL;
    give_ahead(stream);
    relay_send_credit(stream);
}

/* ---- results ---- */

static void put_failure(struct buffer *out, uint64_t number, status why, const char *detail)
{
    struct json_writer writer = json_writer_on(out);
    json_open_object(&writer, NULL);
    json_put_integer(&writer, "line", (int64_t)number);
    json_put_integer(&writer, "status", status_http(why));
    json_put_text(&writer, "code", status_code(why));
    json_put_text(&writer, "detail", request_detail(why, detail));
    json_close_object(&writer);
    buffer_put_text(out, "\n");
}

static void put_result(struct lines *lines, const struct line *line, status code,
                       const struct silo_response *response, const struct fault *fault)
{
    buffer_put_u64(&lines->numbers, line->number);
    buffer_put_u8(&lines->numbers, code == OK);
    if (code != OK) {
        put_failure(&lines->made, line->number, code, fault->detail);
    } else {
        buffer_put(&lines->made, buffer_span(response->body));
        buffer_put_text(&lines->made, "\n");
    }
}

static const char *why_lost(status lost)
{
    return lost == TOO_LARGE ? "the line, or the body, is larger than this action takes"
         : lost == UNAVAILABLE ? "too many large requests at once" : "out of memory";
}

static void note_refusal(struct cell *cell, struct request *request,
                         const struct silo_request *asked, status why)
{
    struct fault fault;
    if (request->denial != DENIAL_NONE)
        denial_note(cell, request->denial, request->envelope.user);
    else if (silo_refuse(cell->silo, asked, why, &fault) != OK)
        turn_complain(cell, "cell.audit", &fault);
}

/* ---- the turn ---- */

/* The rest is not for this caller: its last line says why, or the answer as a whole. */
static void stop(struct stream *stream)
{
    struct lines *lines = stream->lines;
    lines->stopped = true;
    drop(&lines->bytes);
    lines->head = lines->scanned = 0;
}

static bool has_answered(const struct stream *stream)
{
    return stream->begun || stream->lines->results.length || stream->lines->made.length;
}

static status handle(struct silo_response *response, struct cell *cell, struct stream *stream,
                     const struct silo_request *asked, struct fault *fault)
{
    status done = silo_handle(response, cell->silo, asked, fault);
    assert(!response->download);
    stream->lines->token_used |= response->token_used;
    if (done == OK && (response->body->failed || response->body->length > RESULT_MAX))
        done = FAIL(INTERNAL, fault, "a result over %u bytes", (unsigned)RESULT_MAX);
    if (done == INTERNAL || done == CORRUPT)
        turn_complain(cell, "cell.request", fault);
    return done;
}

static status try_line(struct silo_response *response, struct cell *cell, struct stream *stream,
                       const struct line *line, int64_t now_us, struct fault *fault)
{
    struct request *request = &stream->request;
    struct silo_request asked = turn_asked(stream, now_us);
    asked.body = line->text;
    asked.line = line->number;
    asked.arena = &cell->line_arena;
    if (stream->lines->token_used)
        asked.token_once = (struct span){0};
    status may = turn_judge(request, cell, now_us, fault);
    if (may != OK) {
        asked.body = (struct span){0}; /* it goes with the rest */
        stop(stream);
    } else if (line->lost != OK) {
        may = FAIL(line->lost, fault, "%s", why_lost(line->lost));
    } else {
        may = turn_admit(request, cell, fault);
    }
    if (may == OK)
        return handle(response, cell, stream, &asked, fault);
    if (!stream->lines->stopped || has_answered(stream))
        note_refusal(cell, request, &asked, may);
    return may;
}

static void handle_line(struct cell *cell, struct stream *stream, const struct line *line,
                        int64_t now_us)
{
    struct lines *lines = stream->lines;
    struct request *request = &stream->request;
    struct buffer *body = &cell->turn.body;
    struct silo_response response = {.body = body};
    struct fault fault;
    status done = try_line(&response, cell, stream, line, now_us, &fault);
    if (lines->stopped && !has_answered(stream)) { /* the turn answers as any request */
        request_refuse(request, done, fault.detail);
        relay_make_ready(stream);
        return;
    }
    put_result(lines, line, done, &response, &fault);
    turn_wipe(body);
    arena_reset(&cell->line_arena);
    request->denial = DENIAL_NONE;
    if (lines->stopped)
        return;
    lines->number = line->number;
    if (lines->lost == OK)
        consume(stream, line->bytes);
    lines->lost = OK;
    lines->losing = false;
    /* of a token that serves once, and did not yet, nobody knows whether it may */
    if (line->is_last || (done != OK && request->serves_once && !lines->token_used))
        stop(stream);
}

static bool can_handle(const struct stream *stream)
{
    const struct lines *lines = stream->lines;
    return lines && !lines->stopped && relay_can_send(stream->relay)
        && lines->results.length - lines->sent + lines->made.length < RESULTS_MAX;
}

bool lines_ready(const struct cell *cell)
{
    struct line line;
    for (struct stream *stream = cell->flows.first; stream; stream = stream->next)
        if (can_handle(stream) && next_line(&line, stream))
            return true;
    return false;
}

struct share { /* of a turn */
    uint32_t lines;
    size_t bytes;
    int64_t until_us;
};

static bool is_spent(const struct share *share)
{
    return share->lines >= TURN_LINES_MAX || share->bytes >= TURN_BYTES_MAX
        || clock_monotonic_us() >= share->until_us;
}

/* One line of each; false when there was none. */
static bool run_round(struct cell *cell, struct share *share, int64_t now_us)
{
    struct stream_list round = cell->flows;
    struct stream *stream;
    struct line line;
    bool any = false;
    cell->flows = (struct stream_list){0};
    while (!is_spent(share) && (stream = stream_list_take(&round))) {
        stream_list_put(&cell->flows, stream);
        if (!can_handle(stream) || !next_line(&line, stream))
            continue;
        share->lines++;
        share->bytes += line.bytes;
        any = true;
        handle_line(cell, stream, &line, now_us);
    }
    stream_list_join(&round, &cell->flows); /* who had no turn is next */
    cell->flows = round;
    return any;
}

void lines_run(struct cell *cell, int64_t now_us)
{
    struct share share = {.until_us = clock_monotonic_us() + TURN_US_MAX};
    while (!is_spent(&share) && run_round(cell, &share, now_us))
        ;
}

static void undo(struct cell *cell, struct stream *stream, int64_t now_us, status why,
                 const struct fault *fault)
{
    struct lines *lines = stream->lines;
    struct silo_request asked = turn_asked(stream, now_us);
    struct cursor numbers = cursor_over(buffer_span(&lines->numbers));
    struct fault ignored;
    uint8_t done;
    if (lines->made.data)
        secret_wipe(lines->made.data, lines->made.length);
    buffer_clear(&lines->made);
    while (cursor_u64(&asked.line, &numbers, &ignored) == OK
           && cursor_u8(&done, &numbers, &ignored) == OK) {
        put_failure(&lines->made, asked.line, why, fault->detail);
        if (done)
            note_refusal(cell, &stream->request, &asked, why);
    }
    lines->token_used = lines->token_used_before;
}

void lines_undo(struct cell *cell, int64_t now_us, status why, const struct fault *fault)
{
    for (struct stream *stream = cell->flows.first; stream; stream = stream->next)
        if (stream->lines && stream->lines->numbers.length)
            undo(cell, stream, now_us, why, fault);
}

void lines_committed(struct cell *cell)
{
    for (struct stream *stream = cell->flows.first; stream; stream = stream->next) {
        struct lines *lines = stream->lines;
        if (!lines)
            continue;
        buffer_put(&lines->results, buffer_span(&lines->made));
        buffer_clear(&lines->made);
        buffer_clear(&lines->numbers);
        lines->token_used_before = lines->token_used;
    }
}

/* ---- sending ---- */

static void send_results(struct stream *stream, struct span results, bool end)
{
    if (stream->begun)
        relay_send_more(stream, results, end);
    else
        relay_send_head(stream, results, end);
}

void lines_send(struct stream *stream)
{
    struct lines *lines = stream->lines;
    struct line line;
    size_t left, room;
    bool over = (stream->ended || lines->stopped)
             && (lines->stopped || !next_line(&line, stream)) && lines->numbers.length == 0;
    bool failed = lines->results.failed;
    while (!failed && (left = lines->results.length - lines->sent) > 0
           && relay_can_send(stream->relay) && (room = relay_room(stream)) > 0) {
        size_t length = left < room ? left : room;
        length = length < RELAY_FRAGMENT_MAX ? length : RELAY_FRAGMENT_MAX;
        struct span piece = {lines->results.data + lines->sent, length};
        lines->sent += length;
        send_results(stream, piece, over && length == left);
        if (over && length == left)
            return; /* the stream may be gone */
    }
    if (failed) {
        relay_send_break(stream);
        return;
    }
    if (lines->sent == lines->results.length) {
        buffer_clear(&lines->results);
        lines->sent = 0;
        if (over && relay_can_send(stream->relay)) {
            send_results(stream, (struct span){0}, true);
            return;
        }
    }
    give_ahead(stream);
    relay_send_credit(stream);
}
