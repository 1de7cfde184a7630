/* A guest that may say anything to the host's side of its command. The first byte says how the
 * command was asked for; then each step is a byte that says what happens: bytes of the guest arrive
 * (a length and they), output is written, input is given, a signal is sent. Whatever comes, what is
 * kept stays bounded, output never passes the credit given, what we say is a run of whole frames of
 * the one id, and after the end nothing is taken any more. */
#include "cli/agent_session.h"
#include "fuzz.h"

enum { TO_BOUND = 1 << 20 };

static uint64_t credit[AGENT_CHANNELS], written[AGENT_CHANNELS], given;

static void check_said(struct agent_session *session)
{
    struct span waiting = agent_session_waiting(session);
    size_t at = 0;
    CHECK(waiting.length <= TO_BOUND);
    while (at < waiting.length) {
        struct agent_frame frame;
        struct agent_piece piece;
        struct agent_exec exec;
        struct fault fault;
        size_t taken;
        struct span rest = {waiting.data + at, waiting.length - at};
        CHECK(agent_frame_get(&frame, &taken, rest, &fault) == OK);
        CHECK(frame.id == 1);
        at += taken;
        if (frame.type == AGENT_EXEC)
            CHECK(agent_exec_get(&exec, frame.payload, &fault) == OK);
        if (frame.type < AGENT_DATA || frame.type > AGENT_CREDIT)
            continue;
        CHECK(agent_piece_get(&piece, &frame, &fault) == OK);
        CHECK((piece.channel == AGENT_IN) == (frame.type != AGENT_CREDIT));
        given += frame.type == AGENT_DATA ? piece.bytes.length : 0;
        credit[piece.channel] += piece.credit;
    }
    agent_session_sent(session, waiting.length);
}

static void check(const struct agent_session *session)
{
    for (enum agent_channel channel = AGENT_OUT; channel < AGENT_CHANNELS; channel++) {
        size_t waits = agent_session_output(session, channel).length;
        CHECK(waits <= AGENT_WINDOW);
        CHECK(written[channel] + waits <= AGENT_WINDOW + credit[channel]);
    }
    CHECK(agent_session_input_room(session) <= AGENT_DATA_MAX);
    CHECK(session->window[AGENT_IN] <= AGENT_WINDOW);
    CHECK(agent_session_output(session, AGENT_IN).length == 0);
    if (session->at == AGENT_SESSION_REFUSED)
        CHECK(span_is_plain_text(span_of_text(session->refused.detail)));
    if (session->at >= AGENT_SESSION_ASKED)
        CHECK(span_is_plain_text(span_of_text(session->hello.kernel)));
}

static bool hear(struct agent_session *session, struct cursor *input)
{
    struct fault fault;
    struct span bytes;
    uint16_t length;
    if (cursor_u16(&length, input, &fault) != OK)
        return false;
    size_t most = length, left = cursor_left(input), room = agent_session_room(session);
    most = most < left ? most : left;
    most = most < room ? most : room;
    CHECK(room > 0);
    CHECK(cursor_bytes(&bytes, input, most, &fault) == OK);
    return agent_session_take(session, bytes, &fault) == OK;
}

static void write_output(struct agent_session *session, enum agent_channel channel, uint8_t part)
{
    size_t waits = agent_session_output(session, channel).length;
    size_t taken = waits * part / 255;
    agent_session_written(session, channel, taken);
    written[channel] += taken;
}

static void give(struct agent_session *session, uint8_t part)
{
    static const uint8_t bytes[AGENT_DATA_MAX];
    size_t room = agent_session_input_room(session);
    size_t length = room * part / 255;
    if (length)
        agent_session_input(session, (struct span){bytes, length});
}

static bool step(struct agent_session *session, struct cursor *input)
{
    struct fault fault;
    uint8_t what, part;
    if (cursor_u8(&what, input, &fault) != OK)
        return false;
    if (what % 8 < 4)
        return hear(session, input);
    if (cursor_u8(&part, input, &fault) != OK)
        return false;
    switch (what % 8) {
    case 4: write_output(session, part & 1 ? AGENT_OUT : AGENT_ERROR, part); break;
    case 5: give(session, part); break;
    case 6: agent_session_input_end(session); break;
    default:
        agent_session_signal(session, part);
        agent_session_resize(session, part, part);
    }
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct agent_exec exec = {.arguments = {SPAN("sh")}, .argument_count = 1};
    struct agent_session session;
    struct fault fault;
    if (size == 0)
        return 0;
    struct cursor input = cursor_over((struct span){data + 1, size - 1});
    exec.flags = data[0] & (AGENT_EXEC_PTY | AGENT_EXEC_STDIN);
    for (int i = 0; i < AGENT_CHANNELS; i++)
        credit[i] = written[i] = 0;
    given = 0;
    CHECK(agent_session_begin(&session, &exec, &fault) == OK);
    bool on = true;
    while (on) {
        enum agent_session_at before = session.at;
        on = step(&session, &input);
        check(&session);
        check_said(&session);
        CHECK(before < AGENT_SESSION_EXITED || session.at == before);
        if (agent_session_is_over(&session))
            CHECK(agent_session_input_room(&session) == 0);
    }
    agent_session_free(&session);
    return 0;
}
