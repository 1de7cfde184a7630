/* streams.c: bodies that nobody holds whole. An upload is given to the silo as it comes, between
 * turns, and becomes a mutation when all of it has come; a download is read between turns, each in
 * its share. Credit bounds what is under way: neither a slow client nor a hostile gateway makes
 * memory grow. Also requests that wait for the kms's note before their turn. */
#include "base/clock.h"
#include "base/log.h"
#include "cell/state.h"

enum {
    SHARE_BYTES = KIB(256), /* of one download in a turn */
    TURN_BYTES = MIB(1),    /* of all downloads in a turn */
    ROOM_MIN = KIB(16),     /* what is worth a message, and less than any window */
    NOTE_WAIT_US = 3 * 1000 * 1000,
};

bool stream_takes(const struct stream *stream)
{
    return stream->request.streams & ACTION_STREAMS_IN;
}

void streams_let_go(struct stream *stream)
{
    struct cell *cell = stream->relay->cell;
    if (stream->upload)
        turn_look_for_expiry(cell); /* the file of a large one goes piece by piece */
    stream->upload = silo_upload_drop(stream->upload);
    if (stream->lines)
        lines_free(stream);
    if (stream->download)
        cell->downloads--;
    stream->download = silo_download_close(stream->download);
    if (stream->has_slot)
        cell->uploads--;
    stream->has_slot = false;
}

/* ---- what comes ---- */

static void refuse(struct stream *stream, status why, const struct fault *fault)
{
    if (why == INTERNAL || why == CORRUPT || why == OUT_OF_SPACE)
        turn_complain(stream->relay->cell, "cell.upload", fault);
    streams_let_go(stream);
    request_refuse(&stream->request, why, fault->detail);
    relay_make_ready(stream);
}

static status open_upload(struct stream *stream, struct fault *fault)
{
    struct cell *cell = stream->relay->cell;
    struct request *request = &stream->request;
    int64_t now_us = clock_wall_us();
    TRY(turn_judge(request, cell, now_us, fault));
    TRY(turn_admit(request, cell, fault));
    const struct silo_request asked = turn_asked(stream, now_us);
    return silo_upload_begin(&stream->upload, cell->silo, &asked, request->length, fault);
}

static status open_body(struct stream *stream, struct fault *fault)
{
    struct cell *cell = stream->relay->cell;
    const struct request *request = &stream->request;
    if (request->verdict != OK) {
        *fault = request->fault;
        return request->verdict;
    }
    if (request->length > 0 && (uint64_t)request->length > request->body_max)
        return FAIL(TOO_LARGE, fault, "the body is larger than this action takes");
    if (cell->uploads >= CELL_UPLOADS_MAX)
        return FAIL(UNAVAILABLE, fault, "too many uploads at once");
    TRY(request->action->body == ACTION_BODY_NDJSON ? lines_open(stream, fault)
                                                    : open_upload(stream, fault));
    stream->has_slot = true;
    cell->uploads++;
    return OK;
}

void streams_open(struct stream *stream)
{
    struct cell *cell = stream->relay->cell;
    struct fault fault;
    status opened = open_body(stream, &fault);
    if (opened != OK) {
        refuse(stream, opened, &fault);
    } else if (stream->lines) {
        stream->phase = STREAM_FLOWS;
        stream_list_put(&cell->flows, stream);
    }
}

static status put(struct stream *stream, struct span bytes, int64_t now_us, struct fault *fault)
{
    struct request *request = &stream->request;
    if (stream->body_came > request->body_max)
        return FAIL(TOO_LARGE, fault, "the body is larger than this action takes");
    TRY(turn_judge(request, stream->relay->cell, now_us, fault)); /* revoked meanwhile? */
    if (bytes.length)
        TRY(silo_upload_put(stream->upload, bytes, fault));
    return stream->ended ? silo_upload_end(stream->upload, fault) : OK;
}

static void take_upload(struct stream *stream, struct span bytes)
{
    struct fault fault;
    int64_t now_us = clock_wall_us();
    status taken = put(stream, bytes, now_us, &fault);
    if (taken != OK) {
        refuse(stream, taken, &fault);
        return;
    }
    stream->in_due += (uint32_t)bytes.length;
    if (!stream->ended) {
        relay_send_credit(stream);
        return;
    }
    request_complete(&stream->request, (struct span){0}, now_us);
    relay_make_ready(stream);
}

void streams_take(struct stream *stream, struct span bytes)
{
    park_note_use(stream->relay->cell);
    if (stream->phase == STREAM_READY)
        return; /* refused: what comes until the answer is dropped */
    if (stream->lines)
        lines_take(stream, bytes);
    else
        take_upload(stream, bytes);
}

/* ---- what goes ---- */

bool streams_have_room(const struct cell *cell)
{
    return cell->downloads < CELL_DOWNLOADS_MAX;
}

void streams_deliver(struct stream *stream)
{
    struct cell *cell = stream->relay->cell;
    stream->phase = STREAM_FLOWS;
    stream_list_put(&cell->flows, stream);
}

/* Nobody may take for the whole what has begun; what has not can still be told. */
static void cannot_go_on(struct stream *stream, status why, const struct fault *fault)
{
    struct cell *cell = stream->relay->cell;
    log_event(LOG_WARN, "cell.download", "%s", fault->detail);
    if (stream->begun) {
        relay_send_break(stream);
        return;
    }
    struct buffer *body = &cell->turn.body;
    stream->answer = request_problem(body, &stream->request, why, fault->detail);
    relay_send_answer(stream, buffer_span(body));
    turn_wipe(body);
}

/* The next piece into the turn's buffer. */
static status read_piece(bool *ret_last, struct stream *stream, size_t max, struct fault *fault)
{
    struct cell *cell = stream->relay->cell;
    struct buffer *piece = &cell->turn.body;
    uint64_t length = stream->answer.length;
    bool known = length != RELAY_LENGTH_UNKNOWN, end = false;
    uint64_t left = known ? length - stream->out_sent : UINT64_MAX;
    TRY(request_renew_begun(&stream->request, cell, clock_wall_us(), fault));
    if (left == 0) {
        *ret_last = true;
        return OK;
    }
    TRY(silo_download_read(piece, &end, stream->download, max, fault));
    TRY(buffer_check(piece, "download", fault));
    if (piece->length > max || piece->length > left || (piece->length == 0 && !end)
        || (known && end && piece->length < left))
        return FAIL(CORRUPT, fault, "a download of another length than said");
    *ret_last = known ? piece->length == left : end;
    return OK;
}

/* One piece; false when nothing more of it goes now. */
static bool send_piece(struct stream *stream)
{
    struct buffer *piece = &stream->relay->cell->turn.body;
    size_t max = relay_room(stream) < RELAY_FRAGMENT_MAX ? relay_room(stream) : RELAY_FRAGMENT_MAX;
    struct fault fault;
    bool last;
    if (!relay_can_send(stream->relay) || max < ROOM_MIN)
        return false;
    status code = read_piece(&last, stream, max, &fault);
    if (code != OK) {
        cannot_go_on(stream, code, &fault);
        last = true;
    } else if (stream->begun) {
        relay_send_more(stream, buffer_span(piece), last);
    } else {
        relay_send_head(stream, buffer_span(piece), last);
    }
    turn_wipe(piece);
    return !last;
}

/* Its share of what is left for this turn. */
static void send_share(struct stream *stream, size_t *left)
{
    struct cell *cell = stream->relay->cell;
    park_note_use(cell);
    for (size_t sent = 0; sent < SHARE_BYTES && *left > 0; sent += RELAY_FRAGMENT_MAX) {
        if (!send_piece(stream))
            return;
        *left -= *left < RELAY_FRAGMENT_MAX ? *left : RELAY_FRAGMENT_MAX;
    }
    turn_again(cell);
}

/* ---- what waits for a note ---- */

void streams_await_note(struct stream *stream)
{
    stream->has_note = true;
    stream->note = 0;
    stream->note_until_us = clock_monotonic_us() + NOTE_WAIT_US;
    streams_deliver(stream);
}

static void on_note_late(void *context)
{
    (void)context; /* the end of the turn looks */
}

/* One question serves all that began to wait in this turn. */
static void look_for_note(struct stream *stream, uint64_t *asked)
{
    struct cell *cell = stream->relay->cell;
    int64_t wait_us = stream->note_until_us - clock_monotonic_us();
    if (stream->note == 0 && *asked == 0)
        *asked = turn_ask_note(cell);
    if (stream->note == 0)
        stream->note = *asked;
    if (kms_moved(cell, stream->note) || wait_us <= 0) {
        stream->note_until_us = 0;
        relay_make_ready(stream);
    } else if (cell->note_timer.due_us == 0) {
        cell_timer(cell, &cell->note_timer, wait_us, on_note_late, cell);
    }
}

/* ---- all of them ---- */

bool streams_wait(const struct cell *cell)
{
    return cell->flows.first != NULL;
}

void streams_continue(struct cell *cell)
{
    struct stream_list round = cell->flows;
    struct stream *stream;
    size_t left = TURN_BYTES;
    uint64_t asked = 0;
    cell->flows = (struct stream_list){0};
    while (left > 0 && (stream = stream_list_take(&round))) {
        stream_list_put(&cell->flows, stream);
        if (stream->note_until_us)
            look_for_note(stream, &asked);
        else if (stream->lines)
            lines_send(stream);
        else
            send_share(stream, &left);
    }
    stream_list_join(&round, &cell->flows); /* who was not served is next */
    cell->flows = round;
}

void streams_break(struct cell *cell)
{
    struct stream *next;
    for (struct stream *stream = cell->flows.first; stream; stream = next) {
        next = stream->next;
        if (stream->begun)
            relay_send_break(stream);
    }
}
