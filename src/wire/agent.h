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
    AGENT_STARTED = 0x40,    /* of EXEC: u32 pid; of what else has streams or events: begun */
    AGENT_EXITED = 0x41,     /* of EXEC, the last of its id: how, code, usage */
    AGENT_DONE = 0x42,       /* of all others, the last of their id: struct agent_done */
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
 * longer than AGENT_FRAME_MAX, shorter than its head, of a type that is none, or with an id where
 * HELLO has none, without one elsewhere. */
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
    uint8_t code; /* exit code; else the signal that ended it: 1..64 */
    uint64_t cpu_us, peak_kib;
};

void agent_exited_put(struct buffer *out, const struct agent_exited *exited);
MUST_CHECK status agent_exited_get(struct agent_exited *ret, struct span payload,
                                   struct fault *fault);

/* ---- streams: whole frames ---- */

void agent_put_data(struct buffer *out, uint32_t id, enum agent_channel channel,
                    struct span bytes); /* 1..AGENT_DATA_MAX of them */
void agent_put_end(struct buffer *out, uint32_t id, enum agent_channel channel);
void agent_put_credit(struct buffer *out, uint32_t id, enum agent_channel channel,
                      uint32_t bytes);

struct agent_piece { /* of DATA, END or CREDIT */
    struct span bytes; /* of DATA; borrowed */
    uint32_t credit;   /* of CREDIT */
    uint8_t channel;   /* enum agent_channel */
};

MUST_CHECK status agent_piece_get(struct agent_piece *ret, const struct agent_frame *frame,
                                  struct fault *fault);

/* ---- answers ---- */

struct agent_hello {
    uint32_t version; /* AGENT_VERSION */
    uint64_t boot_us; /* since the guest's kernel began */
    char kernel[65];  /* its release: plain text */
};

void agent_hello_put(struct buffer *out, const struct agent_hello *hello);
MUST_CHECK status agent_hello_get(struct agent_hello *ret, struct span payload,
                                  struct fault *fault);

struct agent_done {
    struct span result; /* borrowed; empty unless code is OK */
    status code;
    char detail[sizeof ((struct fault *)0)->detail]; /* plain text */
};

/* A whole frame. detail becomes plain ASCII. */
void agent_put_done(struct buffer *out, uint32_t id, status code, const char *detail,
                    struct span result);
/* OK: ret says how the request went; BAD_REQUEST and its like: the frame is none. */
MUST_CHECK status agent_done_get(struct agent_done *ret, struct span payload, struct fault *fault);

enum agent_kind { AGENT_FILE = 1, AGENT_DIRECTORY, AGENT_LINK, AGENT_OTHER };

struct agent_entry {
    uint64_t bytes;
    int64_t changed_us; /* wall */
    uint32_t mode, uid, gid; /* mode: the twelve bits of permission */
    uint8_t kind; /* enum agent_kind */
};

void agent_entry_put(struct buffer *out, const struct agent_entry *entry);
MUST_CHECK status agent_entry_get(struct agent_entry *ret, struct cursor *cursor,
                                  struct fault *fault);
/* A name of a listing: 1..255 bytes, neither "." nor ".." nor with '/' or NUL. Borrowed; any
 * bytes else: not for a terminal as they are. */
MUST_CHECK status agent_name_get(struct span *ret, struct cursor *cursor, struct fault *fault);

enum agent_change {
    AGENT_CREATED = 1, AGENT_CHANGED, AGENT_REMOVED, AGENT_MOVED_AWAY, AGENT_MOVED_HERE,
    AGENT_CHANGES_LOST, /* its path is empty */
};

struct agent_event {
    struct span path; /* relative to what is watched; borrowed */
    uint8_t what;     /* enum agent_change */
};

void agent_event_put(struct buffer *out, const struct agent_event *event);
MUST_CHECK status agent_event_get(struct agent_event *ret, struct span payload,
                                  struct fault *fault);

struct agent_metrics {
    uint64_t uptime_us, cpu_us, memory_kib, available_kib, disk_kib, free_kib;
    uint32_t processes;
};

void agent_metrics_put(struct buffer *out, const struct agent_metrics *metrics);
MUST_CHECK status agent_metrics_get(struct agent_metrics *ret, struct span payload,
                                    struct fault *fault);
