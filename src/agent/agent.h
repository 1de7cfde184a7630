/* agent.h: the room of bulkhead-agent, the first process of every sandbox: it runs what the host
 * asks for over one connection (wire/agent.h) and nothing else.
 *
 * One thread, one loop. Each request that lives on is a struct request with a kind: what may
 * arrive about it and how it ends. A breach of the protocol ends the connection, and with the
 * connection everything that runs. */
#pragma once

#include "base/buffer.h"
#include "base/loop.h"
#include "wire/agent.h"

#include <sys/types.h>

struct request;

struct request_kind {
    /* NULL: such a frame about this kind is a breach */
    status (*on_piece)(struct request *request, uint8_t type, const struct agent_piece *piece,
                       struct fault *fault);
    status (*on_signal)(struct request *request, uint8_t number, struct fault *fault);
    status (*on_resize)(struct request *request, uint16_t rows, uint16_t columns,
                        struct fault *fault);
    void (*cancel)(struct request *request); /* ends it now or soon, with its last frame */
    void (*resume)(struct request *request); /* the way to the host has room again; may be NULL */
    void (*drop)(struct request *request);   /* the connection is gone: ends it without a frame */
};

/* The first member of each request. */
struct request {
    struct agent *agent;
    const struct request_kind *kind;
    uint32_t id;
};

struct trees; /* tree.h */

struct agent {
    struct loop *loop;
    struct trees *trees;
    struct loop_source *connection_source, *signal_source, *pressure_source;
    struct buffer in, out;
    struct request *requests[AGENT_REQUESTS_MAX];
    struct loop_timer redial;
    uint32_t redial_ms;
    int connection, signals; /* -1: none */
    uint32_t watched;        /* events of the connection */
    bool guest;              /* init of a microVM; else of a container, or an ordinary process */
    bool broken;             /* the connection is over; noticed at the end of the turn */
    bool stalled;            /* somebody was told to wait for room in out */
    bool frozen;
    uint8_t shutdown;        /* 1 + how, when it is to be done */
    size_t sent;             /* bytes of out that the host has */
};

/* ---- session.c ---- */

/* Takes the connection: stream socket, set to non-blocking and close-on-exec. Says HELLO. */
MUST_CHECK status session_open(struct agent *agent, int connection, struct fault *fault);
/* Kills what runs, waits until it is gone, forgets the connection. */
void session_close(struct agent *agent);
/* The end of a turn: takes what waits, sends what is to be sent. */
void session_turn(struct agent *agent);
/* Whether producers have to wait; their resume is called. */
bool session_is_congested(struct agent *agent);
/* Sends what is left, for at most a second. */
void session_flush(struct agent *agent);

/* size bytes, of which struct request is the first member and all else is zero; its kind frees
 * them. QUOTA_EXCEEDED: AGENT_REQUESTS_MAX are under way; UNAVAILABLE: no memory. */
MUST_CHECK status request_make(struct request **ret, size_t size, struct agent *agent, uint32_t id,
                               const struct request_kind *kind, struct fault *fault);
void request_remove(struct request *request); /* its last frame has been put */
void agent_answer(struct agent *agent, uint32_t id, status code, const struct fault *fault,
                  struct span result);
void agent_started(struct agent *agent, uint32_t id);

/* ---- requests: each reads its payload; what it returns besides OK is answered with DONE ---- */

typedef status request_handler(struct agent *agent, uint32_t id, struct span payload,
                               struct fault *fault);

request_handler exec_begin;
request_handler file_read_begin, file_write_begin;             /* transfer.c */
request_handler file_list, file_stat, file_move, file_remove, file_make; /* files.c */
request_handler watch_begin, port_begin, metrics_tell, clock_set, freeze_begin, thaw,
    shutdown_begin;

/* A child has ended. exec.c */
void exec_reaped(struct agent *agent, pid_t pid, int how, uint64_t cpu_us, uint64_t peak_kib);

/* power.c */
void power_down(const struct agent *agent, bool restart) __attribute__((noreturn));

/* ---- init.c: what the first process of a guest has to do ---- */

/* Modules, root file system, mounts, loopback. Where it fails the guest is of no use. */
MUST_CHECK status init_guest(struct fault *fault);
/* What keeps the agent alive and apart beside what it runs; every step is a best effort. */
void init_protect(bool guest);

/* ---- errors of the system, as the host reads them: word: strerror ---- */

MUST_CHECK status errno_status(int error, const char *what, struct fault *fault);
