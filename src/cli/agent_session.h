/* agent_session.h: the host's side of one command in a sandbox (docs/protocols.md, "Host and
 * agent").
 *
 * What comes from the guest is hostile: the agent in it may be anybody's by now. Frames are taken
 * in the one order that an honest agent has, each stream within the credit that was given, and all
 * that is kept is bounded; whatever else comes is BAD_REQUEST, and the caller closes the stream,
 * which ends the sandbox. Neither a descriptor nor a clock is in here: bytes in, bytes out. */
#pragma once

#include "wire/agent.h"

#include <stdbool.h>

enum agent_session_at {
    AGENT_SESSION_CALLING, /* HELLO has not come */
    AGENT_SESSION_ASKED,   /* the command has not begun */
    AGENT_SESSION_RUNNING,
    AGENT_SESSION_EXITED,  /* exited says how */
    AGENT_SESSION_REFUSED, /* it could not be started: refused says why */
};

struct agent_session {
    enum agent_session_at at;
    bool pty;
    bool ended[AGENT_CHANNELS];
    bool unfinished[AGENT_CHANNELS]; /* of output: what was written last is no end of a line */
    uint32_t window[AGENT_CHANNELS]; /* bytes that may come; AGENT_IN: that may be sent */
    uint32_t used[AGENT_CHANNELS];   /* of output: written, and no credit given for it yet */
    struct buffer output[AGENT_CHANNELS];
    struct buffer from_guest, to_guest;
    struct agent_hello hello;
    struct agent_exited exited;
    struct fault refused; /* plain text */
};

/* Asks for the command; it is sent before HELLO has come, so that no round trip is waited for.
 * TOO_LARGE: arguments and environment do not fit a frame. */
MUST_CHECK status agent_session_begin(struct agent_session *session,
                                      const struct agent_exec *exec, struct fault *fault);
void agent_session_free(struct agent_session *session); /* also when zeroed */
bool agent_session_is_over(const struct agent_session *session);

/* From the guest: at most agent_session_room bytes at once. What follows the end of the command is
 * not looked at. */
size_t agent_session_room(const struct agent_session *session);
MUST_CHECK status agent_session_take(struct agent_session *session, struct span bytes,
                                     struct fault *fault);
/* To the guest: what waits, and how much of it was sent. */
struct span agent_session_waiting(const struct agent_session *session);
void agent_session_sent(struct agent_session *session, size_t bytes);

/* The command's output, AGENT_OUT or AGENT_ERROR: what waits, and how much of it was written. */
struct span agent_session_output(const struct agent_session *session, enum agent_channel channel);
void agent_session_written(struct agent_session *session, enum agent_channel channel,
                           size_t bytes);

/* Its input: at most so many bytes at once; 0 while it has no credit or the way is full. */
size_t agent_session_input_room(const struct agent_session *session);
void agent_session_input(struct agent_session *session, struct span bytes);
void agent_session_input_end(struct agent_session *session);

/* Nothing happens where the command has ended. */
void agent_session_signal(struct agent_session *session, uint8_t number);
void agent_session_resize(struct agent_session *session, uint16_t rows, uint16_t columns);
