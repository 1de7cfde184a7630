/* agent.h: frames between a sandbox's agent and the host: docs/protocols.md has the bytes.
 *
 * Both ends read with the same strict codec: a frame that is too long, of an unknown type, or whose
 * payload does not end where it must, ends the connection. */
#pragma once

#include "base/buffer.h"
#include "base/cursor.h"
#include "base/limits.h"

enum { AGENT_VERSION = 1, AGENT_HEAD_BYTES = 9 }; /* u32 length, u8 type, u32 id */

enum agent_type {
    /* agent -> host, id 0 */
    AGENT_HELLO = 0x01,   /* first of all: u32 version, text kernel, u64 us since its boot */

    /* host -> agent, with an id that the host chose and that is not in use */
    AGENT_EXEC = 0x10,
    AGENT_FILE_READ = 0x11,
    AGENT_FILE_WRITE = 0x12,
    AGENT_FILE_LIST = 0x13,
    AGENT_FILE_STAT = 0x14,
    AGENT_FILE_MOVE = 0x15,
    AGENT_FILE_REMOVE = 0x16,
    AGENT_FILE_MAKE = 0x17,  /* a directory */
    AGENT_FILE_WATCH = 0x18,
    AGENT_PORT_OPEN = 0x19,
    AGENT_METRICS = 0x1A,
    AGENT_CLOCK_SET = 0x1B,
    AGENT_FREEZE = 0x1C,
    AGENT_THAW = 0x1D,
    AGENT_SHUTDOWN = 0x1E,   /* u8 0: off, 1: reboot; answered, then done */
    /* about an id that is under way */
    AGENT_SIGNAL = 0x20,     /* u8 number: to the process group; 9 ends the whole tree */
    AGENT_RESIZE = 0x21,     /* u16 rows, u16 columns: of a PTY */
    AGENT_CANCEL = 0x22,     /* empty: end it; answered by its EXITED or DONE */

    /* both ways: streams of an id. channel: 0 in, 1 out, 2 error */
    AGENT_DATA = 0x30,       /* u8 channel, the rest: bytes, 1..AGENT_DATA_MAX */
    AGENT_END = 0x31,        /* u8 channel: no more of it */
    AGENT_CREDIT = 0x32,     /* u8 channel, u32 bytes (not 0) more that the sender will take */

    /* agent -> host */
    AGENT_STARTED = 0x40,    /* of EXEC: u32 pid; of PORT_OPEN, FILE_READ, FILE_WRITE: begun */
    AGENT_EXITED = 0x41,     /* of EXEC, the last of its id: how, code, usage */
    AGENT_DONE = 0x42,       /* of all others, the last of their id: u16 status, text detail, result */
    AGENT_EVENT = 0x43,      /* of FILE_WATCH */
};

enum agent_channel { AGENT_IN, AGENT_OUT, AGENT_ERROR, AGENT_CHANNELS };

enum agent_exec_flags {
    AGENT_EXEC_PTY = 1,   /* in, out and error are one terminal; output comes on AGENT_OUT */
    AGENT_EXEC_STDIN = 2, /* else /dev/null */
};

enum agent_exit { AGENT_EXIT_CODE = 1, AGENT_EXIT_SIGNAL, AGENT_EXIT_TIMEOUT, AGENT_EXIT_MEMORY };

struct agent_frame {
    uint8_t type;
    uint32_t id;
    struct span payload; /* borrowed */
};

/* The first frame of what has arrived; ret_taken: its bytes. AGAIN: not whole yet. BAD_REQUEST:
 * longer than AGENT_FRAME_MAX, shorter than its head, or of a type that is none. */
MUST_CHECK status agent_frame_get(struct agent_frame *ret, size_t *ret_taken, struct span bytes,
                                  struct fault *fault);
void agent_frame_put(struct buffer *out, uint8_t type, uint32_t id, struct span payload);

struct agent_exec {
    struct span arguments[AGENT_ARGUMENTS_MAX], environment[AGENT_ARGUMENTS_MAX]; /* without NUL */
    uint32_t argument_count, environment_count; /* at least one argument */
    struct span directory; /* empty: the user's home */
    struct span user;      /* a name or a number of the guest's; empty: its default user */
    uint8_t flags;
    uint16_t rows, columns;
    uint32_t timeout_ms;   /* 0: none */
    uint32_t processes;    /* 0: no bound of its own */
    uint64_t memory_bytes; /* 0: the same */
};

void agent_exec_put(struct buffer *out, const struct agent_exec *exec);
/* Borrowed from the payload. */
MUST_CHECK status agent_exec_get(struct agent_exec *ret, struct span payload, struct fault *fault);

struct agent_exited {
    uint8_t how;  /* enum agent_exit */
    uint8_t code; /* exit code, or signal */
    uint64_t cpu_us, peak_kib;
};

void agent_exited_put(struct buffer *out, const struct agent_exited *exited);
MUST_CHECK status agent_exited_get(struct agent_exited *ret, struct span payload,
                                   struct fault *fault);
