#include "cli/agent_session.h"

enum {
    ID = 1, /* of the one request */
    READ_BYTES = 64 * 1024,
    FROM_MAX = AGENT_FRAME_MAX + 4 + READ_BYTES,
    TO_HIGH = 256 * 1024, /* input waits from here on */
    TO_MAX = 1024 * 1024, /* signals, sizes and credit beyond it that nobody takes */
    SIGNAL_MAX = 64,
};

static_assert(TO_HIGH + AGENT_FRAME_MAX < TO_MAX, "input does not fill the way");

/* ---- beginning ---- */

status agent_session_begin(struct agent_session *session, const struct agent_exec *exec,
                           struct fault *fault)
{
    _cleanup_buffer_ struct buffer payload = buffer_of(AGENT_FRAME_MAX - AGENT_HEAD_BYTES);
    agent_exec_put(&payload, exec);
    if (payload.failed)
        return FAIL(TOO_LARGE, fault, "command and environment: at most %u bytes together",
                    (unsigned)(AGENT_FRAME_MAX - AGENT_HEAD_BYTES));
    *session = (struct agent_session){.pty = exec->flags & AGENT_EXEC_PTY,
                                      .from_guest = buffer_of(FROM_MAX),
                                      .to_guest = buffer_of(TO_MAX)};
    for (int i = 0; i < AGENT_CHANNELS; i++) {
        session->window[i] = AGENT_WINDOW;
        session->output[i] = buffer_of(AGENT_WINDOW);
    }
    session->ended[AGENT_IN] = !(exec->flags & AGENT_EXEC_STDIN);
    agent_frame_put(&session->to_guest, AGENT_EXEC, ID, buffer_span(&payload));
    return buffer_check(&session->to_guest, "command", fault);
}

void agent_session_free(struct agent_session *session)
{
    for (int i = 0; i < AGENT_CHANNELS; i++)
        buffer_free(&session->output[i]);
    buffer_free(&session->from_guest);
    buffer_free(&session->to_guest);
}

bool agent_session_is_over(const struct agent_session *session)
{
    return session->at >= AGENT_SESSION_EXITED;
}

/* ---- what the guest says ---- */

static status take_hello(struct agent_session *session, const struct agent_frame *frame,
                         struct fault *fault)
{
    if (frame->type != AGENT_HELLO)
        return FAIL(BAD_REQUEST, fault, "type 0x%02x before it said who it is", frame->type);
    TRY(agent_hello_get(&session->hello, frame->payload, fault));
    session->at = AGENT_SESSION_ASKED;
    return OK;
}

static status take_started(struct agent_session *session, struct span payload,
                           struct fault *fault)
{
    struct cursor cursor = cursor_over(payload);
    uint32_t pid;
    TRY(cursor_u32(&pid, &cursor, fault));
    TRY(cursor_end(&cursor, fault));
    session->at = AGENT_SESSION_RUNNING;
    return OK;
}

static status take_refused(struct agent_session *session, struct span payload,
                           struct fault *fault)
{
    struct agent_done done;
    TRY(agent_done_get(&done, payload, fault));
    if (done.code == OK)
        return FAIL(BAD_REQUEST, fault, "a command that is done and never began");
    (void)FAIL(done.code, &session->refused, "%s", done.detail);
    session->at = AGENT_SESSION_REFUSED;
    return OK;
}

static status take_output(struct agent_session *session, const struct agent_piece *piece,
                          struct fault *fault)
{
    if (piece->channel == AGENT_IN || (session->pty && piece->channel == AGENT_ERROR))
        return FAIL(BAD_REQUEST, fault, "output on channel %u", piece->channel);
    if (session->ended[piece->channel])
        return FAIL(BAD_REQUEST, fault, "output after the end of channel %u", piece->channel);
    if (piece->bytes.length > session->window[piece->channel])
        return FAIL(BAD_REQUEST, fault, "%zu bytes of output, where credit is for %u",
                    piece->bytes.length, session->window[piece->channel]);
    session->window[piece->channel] -= (uint32_t)piece->bytes.length;
    buffer_put(&session->output[piece->channel], piece->bytes);
    return buffer_check(&session->output[piece->channel], "output", fault);
}

static status take_end(struct agent_session *session, const struct agent_piece *piece,
                       struct fault *fault)
{
    if (piece->channel == AGENT_IN || session->ended[piece->channel])
        return FAIL(BAD_REQUEST, fault, "an end of channel %u", piece->channel);
    session->ended[piece->channel] = true;
    return OK;
}

/* The agent gives back what the command has read, never more than was sent. */
static status take_credit(struct agent_session *session, const struct agent_piece *piece,
                          struct fault *fault)
{
    if (piece->channel != AGENT_IN)
        return FAIL(BAD_REQUEST, fault, "credit for channel %u", piece->channel);
    if (piece->credit > AGENT_WINDOW - session->window[AGENT_IN])
        return FAIL(BAD_REQUEST, fault, "credit beyond what was sent");
    session->window[AGENT_IN] += piece->credit;
    return OK;
}

static status take_piece(struct agent_session *session, const struct agent_frame *frame,
                         struct fault *fault)
{
    struct agent_piece piece;
    TRY(agent_piece_get(&piece, frame, fault));
    if (frame->type == AGENT_DATA)
        return take_output(session, &piece, fault);
    if (frame->type == AGENT_END)
        return take_end(session, &piece, fault);
    return take_credit(session, &piece, fault);
}

static status take_exited(struct agent_session *session, struct span payload,
                          struct fault *fault)
{
    TRY(agent_exited_get(&session->exited, payload, fault));
    if (!session->ended[AGENT_OUT] || (!session->ended[AGENT_ERROR] && !session->pty))
        return FAIL(BAD_REQUEST, fault, "an exit before the end of the output");
    session->at = AGENT_SESSION_EXITED;
    return OK;
}

static status take_frame(struct agent_session *session, const struct agent_frame *frame,
                         struct fault *fault)
{
    bool running = session->at == AGENT_SESSION_RUNNING;
    if (session->at == AGENT_SESSION_CALLING)
        return take_hello(session, frame, fault);
    if (frame->id != ID)
        return FAIL(BAD_REQUEST, fault, "id %u, which nobody chose", frame->id);
    if (!running && frame->type == AGENT_STARTED)
        return take_started(session, frame->payload, fault);
    if (!running && frame->type == AGENT_DONE)
        return take_refused(session, frame->payload, fault);
    /* input does not wait for the command to begin, so neither does its credit */
    if (frame->type == AGENT_CREDIT || (running && frame->type >= AGENT_DATA
                                        && frame->type < AGENT_CREDIT))
        return take_piece(session, frame, fault);
    if (running && frame->type == AGENT_EXITED)
        return take_exited(session, frame->payload, fault);
    return FAIL(BAD_REQUEST, fault, "type 0x%02x out of turn", frame->type);
}

size_t agent_session_room(const struct agent_session *session)
{
    return FROM_MAX - session->from_guest.length;
}

status agent_session_take(struct agent_session *session, struct span bytes, struct fault *fault)
{
    size_t begin = 0;
    status done = OK;
    buffer_put(&session->from_guest, bytes);
    TRY(buffer_check(&session->from_guest, "frames", fault));
    while (done == OK && !agent_session_is_over(session)) {
        struct agent_frame frame;
        size_t taken = 0;
        struct span rest = {session->from_guest.data + begin, session->from_guest.length - begin};
        done = agent_frame_get(&frame, &taken, rest, fault);
        if (done == OK)
            done = take_frame(session, &frame, fault);
        begin += taken;
    }
    buffer_consume(&session->from_guest, begin);
    if (done == OK || done == AGAIN)
        return OK;
    return done == TRUNCATED || done == BAD_FIELD ? BAD_REQUEST : done;
}

/* ---- what goes to it ---- */

struct span agent_session_waiting(const struct agent_session *session)
{
    return buffer_span(&session->to_guest);
}

void agent_session_sent(struct agent_session *session, size_t bytes)
{
    buffer_consume(&session->to_guest, bytes);
}

struct span agent_session_output(const struct agent_session *session, enum agent_channel channel)
{
    return buffer_span(&session->output[channel]);
}

/* In large parts: a frame for each piece would double the traffic. */
void agent_session_written(struct agent_session *session, enum agent_channel channel,
                           size_t bytes)
{
    if (bytes > 0)
        session->unfinished[channel] = session->output[channel].data[bytes - 1] != '\n';
    buffer_consume(&session->output[channel], bytes);
    session->used[channel] += (uint32_t)bytes;
    if (session->ended[channel] || session->used[channel] < AGENT_WINDOW / 4)
        return;
    agent_put_credit(&session->to_guest, ID, channel, session->used[channel]);
    session->window[channel] += session->used[channel];
    session->used[channel] = 0;
}

size_t agent_session_input_room(const struct agent_session *session)
{
    if (session->ended[AGENT_IN] || agent_session_is_over(session)
        || session->to_guest.length >= TO_HIGH)
        return 0;
    return session->window[AGENT_IN] < AGENT_DATA_MAX ? session->window[AGENT_IN]
                                                      : (size_t)AGENT_DATA_MAX;
}

void agent_session_input(struct agent_session *session, struct span bytes)
{
    session->window[AGENT_IN] -= (uint32_t)bytes.length;
    agent_put_data(&session->to_guest, ID, AGENT_IN, bytes);
}

void agent_session_input_end(struct agent_session *session)
{
    if (session->ended[AGENT_IN] || agent_session_is_over(session))
        return;
    session->ended[AGENT_IN] = true;
    agent_put_end(&session->to_guest, ID, AGENT_IN);
}

void agent_session_signal(struct agent_session *session, uint8_t number)
{
    if (!agent_session_is_over(session) && number >= 1 && number <= SIGNAL_MAX)
        agent_frame_put(&session->to_guest, AGENT_SIGNAL, ID, (struct span){&number, 1});
}

void agent_session_resize(struct agent_session *session, uint16_t rows, uint16_t columns)
{
    uint8_t storage[4];
    struct buffer size = buffer_over(storage, sizeof storage);
    buffer_put_u16(&size, rows);
    buffer_put_u16(&size, columns);
    if (!agent_session_is_over(session) && session->pty)
        agent_frame_put(&session->to_guest, AGENT_RESIZE, ID, buffer_span(&size));
}
