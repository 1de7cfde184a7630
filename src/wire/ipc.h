/* ipc.h: one message between two processes over a SOCK_SEQPACKET socketpair that the supervisor
 * made.
 *
 * A message is one packet: u32 type, u32 id, then a body of at most IPC_BODY_MAX bytes, and up to
 * IPC_FDS_MAX file descriptors. Who sent it is known from the descriptor it came in on, never from
 * its content. Anything longer, shorter, or with more descriptors is BAD_REQUEST and the surplus
 * descriptors are closed. docs/protocols.md lists the types. */
#pragma once

#include "base/buffer.h"
#include "base/limits.h"

struct ipc_message {
    uint32_t type, id;
    struct span body; /* borrowed from the storage given to ipc_receive */
    int fds[IPC_FDS_MAX];
    uint32_t fd_count; /* the receiver owns them: take_fd what is wanted, then ipc_message_close */
};

#define IPC_HEADER_BYTES 8
#define IPC_PACKET_MAX (IPC_HEADER_BYTES + IPC_BODY_MAX)

/* Two ends of a new channel, close-on-exec, non-blocking. */
MUST_CHECK status ipc_pair(int ret_ends[2], struct fault *fault);

/* All or nothing. AGAIN when the peer's queue is full (MSG_DONTWAIT), CLOSED when it is gone. The
 * descriptors stay the caller's. */
MUST_CHECK status ipc_send(int fd, uint32_t type, uint32_t id, struct span body, const int *fds,
                           uint32_t fd_count, struct fault *fault);

/* storage: IPC_PACKET_MAX bytes. AGAIN when nothing waits, CLOSED at the end. */
MUST_CHECK status ipc_receive(struct ipc_message *ret, int fd, uint8_t *storage,
                              struct fault *fault);

/* Waits up to timeout_ms (-1: for ever) for one message: for start-up, where there is no loop
 * yet. */
MUST_CHECK status ipc_await(struct ipc_message *ret, int fd, uint8_t *storage, int timeout_ms,
                            struct fault *fault);
/* The same for sending: waits until the queue has room. */
MUST_CHECK status ipc_send_wait(int fd, uint32_t type, uint32_t id, struct span body,
                                const int *fds, uint32_t fd_count, int timeout_ms,
                                struct fault *fault);

void ipc_message_close(struct ipc_message *message); /* closes what was not taken */

/* BAD_REQUEST unless it carries exactly this many descriptors. */
MUST_CHECK status ipc_need_fds(const struct ipc_message *message, uint32_t count,
                               struct fault *fault);

/* An outgoing queue for loops: ipc_outbox_send sends at once or, when the peer is slow, keeps the
 * packet (fds duplicated) up to a byte bound and IPC_WAITING_FDS_MAX; TOO_LARGE beyond either.
 * ipc_outbox_flush on EPOLLOUT. */
struct ipc_outbox;
MUST_CHECK status ipc_outbox_create(struct ipc_outbox **ret, int fd, size_t max_bytes,
                                    struct fault *fault);
struct ipc_outbox *ipc_outbox_free(struct ipc_outbox *outbox);
MUST_CHECK status ipc_outbox_send(struct ipc_outbox *outbox, uint32_t type, uint32_t id,
                                  struct span body, const int *fds, uint32_t fd_count,
                                  struct fault *fault);
MUST_CHECK status ipc_outbox_flush(struct ipc_outbox *outbox, struct fault *fault);
bool ipc_outbox_waiting(const struct ipc_outbox *outbox); /* then the owner watches EPOLLOUT */
