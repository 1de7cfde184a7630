/* stream.h: bytes between a descriptor and a channel of a request, each within its window.
 *
 * No stream holds another up: one without credit, or whose reader is slow, is not read. */
#pragma once

#include "agent/agent.h"

/* From a descriptor to the host. Zeroed is closed. */
struct outflow {
    struct request *request;
    struct loop_source *source;
    struct loop_timer turn; /* of a regular file, which epoll does not know */
    /* All was sent and END put (error 0), or the descriptor failed. May end the request. */
    void (*on_end)(struct request *request, struct outflow *flow, int error);
    uint64_t left; /* bytes that may still come; then it ends */
    uint32_t credit;
    int fd;
    uint8_t channel;
    bool open, file, finishing;
};

/* Takes the fd: non-blocking, or of a regular file. left: UINT64_MAX for no bound. */
void outflow_begin(struct outflow *flow, struct request *request, enum agent_channel channel,
                   int fd, bool file, uint64_t left);
MUST_CHECK status outflow_credit(struct outflow *flow, uint32_t bytes, struct fault *fault);
void outflow_resume(struct outflow *flow);
/* Nobody writes any more who should: what is there is sent, at most this, without waiting. */
void outflow_finish(struct outflow *flow, uint64_t most);
void outflow_end(struct outflow *flow);   /* END now, without on_end; also when closed */
void outflow_close(struct outflow *flow); /* without a word */

/* From the host to a descriptor. Zeroed is closed. */
struct inflow {
    struct request *request;
    struct loop_source *source;
    /* END came and all is written (error 0), or the reader is gone. May end the request. */
    void (*on_end)(struct request *request, struct inflow *flow, int error);
    struct buffer pending;
    uint32_t window, taken; /* what may come; what was used of it and not given back yet */
    int fd;
    uint8_t channel;
    bool open, ended, deaf, waits; /* deaf: what comes is dropped; waits: is kept for later */
};

void inflow_begin(struct inflow *flow, struct request *request, enum agent_channel channel,
                  int fd);
/* BAD_REQUEST beyond the window or after END. */
MUST_CHECK status inflow_piece(struct inflow *flow, uint8_t type, const struct agent_piece *piece,
                               struct fault *fault);
void inflow_go_on(struct inflow *flow);  /* waits no longer: its fd is set */
void inflow_deafen(struct inflow *flow); /* gives up the descriptor, keeps the account */
void inflow_close(struct inflow *flow);

/* The account alone, for who takes the bytes at once. */
MUST_CHECK status inflow_account(struct inflow *flow, size_t bytes, struct fault *fault);
void inflow_used(struct inflow *flow, size_t bytes);
