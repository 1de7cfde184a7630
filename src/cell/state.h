/* state.h: the state of a cell and what its files do for each other. Not for other rooms.
 *
 *   wake.c     from blank to an open silo        relay.c    channels to gateways, streams
 *   serve.c    the loop, the supervisor          request.c  token, route, envelope, verdict
 *   anchor.c   the channel to the kms            turn.c     one transaction, one commit for a turn
 *   park.c     idle, drain, the way out          export.c   audit log, backup to a descriptor
 *   restore.c  a silo from backups, then the end
 *   charters.c posture, issuers, revocations     quota.c    rates, slots, bytes; denials as numbers
 *   streams.c  uploads, downloads, notes         lines.c    NDJSON, a line at a time
 *   usage.c    reports of what was used          rotation.c versions of the data key
 *
 * One thread. Callbacks of the loop only collect; all use of the silo is in turn.c at the end of a
 * turn, but for waking, anchoring, exporting and parking, which never run inside a transaction. */
#pragma once

#include "authz/cache.h"
#include "authz/quota.h"
#include "base/loop.h"
#include "cell/cell.h"
#include "cell/request.h"
#include "crypt/merkle.h"
#include "silo/silo.h"

/* ---- relays and streams (relay.c) ---- */

enum {
    STREAM_BUCKETS = 64,
    /* of one request or line: a body twice, its parsed form, what the handler needs */
    REQUEST_ARENA_MAX = 4 * DOCUMENT_BODY_MAX,
};
static_assert(REQUEST_ARENA_MAX >= 4 * HTTP_BODY_MAX, "the largest body fits");

/* What a complete request waits for: reads of a turn run before its mutations, so that no read ever
 * saw what a failed commit took back. */
enum ready_kind { READY_READ, READY_MUTATION, READY_KINDS };

struct fragment {
    struct fragment *next;
    struct span bytes;
};

enum stream_phase {
    STREAM_ARRIVES, /* its body does */
    STREAM_READY,   /* on a list of its relay, or of the turn */
    STREAM_FLOWS,   /* on cell->flows */
    STREAM_RESTS,   /* answered; what still comes of its body is dropped */
};

struct stream {
    struct stream *next;        /* of whichever list it is on */
    struct stream *next_bucket;
    struct relay *relay;
    uint32_t id;
    enum stream_phase phase;
    bool ended;                 /* FLAG_END has come */
    struct arena arena;
    struct request request;
    struct fragment *first_fragment, **last_fragment;
    size_t body_bytes;          /* kept of the body, counted in cell->bodies_bytes */
    uint64_t body_came;         /* kept or dropped */
    struct answer answer;
    struct buffer held;         /* the answer's body while it waits for the commit */

    /* of streamed bodies */
    bool has_slot;              /* of cell->uploads */
    uint32_t in_open;           /* bytes that the gateway may still send */
    uint32_t in_due;            /* bytes more that it may be told to send */
    struct silo_upload *upload;
    struct lines *lines;
    struct silo_download *download;
    bool begun;                 /* the head of the answer is sent */
    uint64_t out_sent, out_credited;
    uint64_t note;              /* of kms_moved: what it waits for on cell->flows; 0: nothing */
    bool has_note;              /* it has waited */
    int64_t note_until_us;      /* monotonic */
};

struct stream_list {
    struct stream *first, **last;
};

struct relay {
    struct cell *cell;
    uint32_t index;             /* of the gateway */
    int fd;
    struct loop_source *source;
    struct ipc_outbox *outbox;
    bool blocked;               /* the gateway is slow: nothing is read from it or handled for it */
    bool drain_sent, drained, dead;
    uint32_t streams;
    uint32_t taken;             /* bytes of streamed bodies, since it was last asked */
    struct stream *buckets[STREAM_BUCKETS];
    struct stream_list ready[READY_KINDS];
    struct relay *next_ending;
};

/* Serves the channel from now on; an older one of the same gateway ends. Takes fd in any case. */
MUST_CHECK status relay_add(struct cell *cell, uint32_t index, int fd, struct fault *fault);
void relay_drain(struct relay *relay);           /* RELAY_DRAIN, once */
void relay_end(struct relay *relay);             /* marks it dead: freed by relay_sweep */
void relay_sweep(struct cell *cell);             /* at the end of a turn */
/* The stream is gone afterwards, or rests until the last of its body has come. */
void relay_send_answer(struct stream *stream, struct span body);
/* The same in parts: the head of stream->answer, more of the body, the end. Only while
 * relay_can_send, and no more than relay_room. */
void relay_send_head(struct stream *stream, struct span fragment, bool end);
void relay_send_more(struct stream *stream, struct span fragment, bool end);
void relay_send_break(struct stream *stream);
void relay_send_credit(struct stream *stream); /* what is due, when it is worth a message */
bool relay_can_send(const struct relay *relay);
size_t relay_room(const struct stream *stream);
void relay_make_ready(struct stream *stream); /* to its turn: it arrived or flowed before */
struct stream *relay_take_ready(struct cell *cell, enum ready_kind kind); /* NULL: none */
bool relay_has_ready(const struct cell *cell);
void relay_free_spares(struct cell *cell);
void stream_list_put(struct stream_list *list, struct stream *stream);
struct stream *stream_list_take(struct stream_list *list);
void stream_list_join(struct stream_list *list, struct stream_list *behind); /* empties that */
void stream_list_remove(struct stream_list *list, struct stream *stream); /* also when not on it */

/* ---- streamed bodies (streams.c); docs/protocols.md has the rules of credit ---- */

bool stream_takes(const struct stream *stream); /* its body is streamed */
void streams_open(struct stream *stream);       /* such a one whose head has come */
void streams_take(struct stream *stream, struct span bytes); /* more of it, perhaps the end */
/* The handler gave it a download, and what must be durable before its first byte is. */
void streams_deliver(struct stream *stream);
bool streams_have_room(const struct cell *cell); /* for one more download */
/* It is to be handled with the kms's newest note, or after a while without. */
void streams_await_note(struct stream *stream);
bool streams_wait(const struct cell *cell);      /* is there anything for streams_continue? */
void streams_continue(struct cell *cell);        /* at the end of a turn, outside of it */
void streams_break(struct cell *cell);           /* all that have begun to answer */
void streams_let_go(struct stream *stream);      /* of everything but its number */

/* ---- NDJSON (lines.c) ---- */

struct lines;

/* UNSUPPORTED_MEDIA, UNAVAILABLE */
MUST_CHECK status lines_open(struct stream *stream, struct fault *fault);
void lines_free(struct stream *stream);
void lines_take(struct stream *stream, struct span bytes);
bool lines_ready(const struct cell *cell); /* is there one that could be handled? */
/* Inside the turn: as many as are a fair share of it. */
void lines_run(struct cell *cell, int64_t now_us);
/* What they did was taken back; inside the turn after it, which says so in its entries. */
void lines_undo(struct cell *cell, int64_t now_us, status why, const struct fault *fault);
void lines_committed(struct cell *cell); /* or there was nothing to commit */
void lines_send(struct stream *stream);  /* results that are due, and the end */

/* ---- the channel to the kms (anchor.c) ---- */

struct key_versions { /* of the data key, newest first */
    uint32_t list[DEK_VERSIONS_MAX];
    uint32_t count;
};

struct kms_key { /* the answer to KEY_OPEN; the DEKs are in secret memory, the caller's to free */
    struct key_versions versions;
    struct span wrapped; /* empty unless new; borrowed from the message */
    struct anchor anchor;
    uint32_t restores; /* of the silo so far */
    uint8_t platform_key[SIGN_PUBLIC_BYTES], issuer_key[SIGN_PUBLIC_BYTES];
    struct charter_head heads[SILO_CHARTERS];
};

struct kms_link {
    int fd; /* -1: none */
    struct loop_source *source;
    uint32_t last_id, open_id, move_id; /* of the requests in flight; 0: none */
    uint64_t epoch;               /* of this channel's KEY_OPEN */
    struct anchor anchored;       /* acknowledged by the kms */
    struct anchor moving;         /* in flight */
    uint64_t moves_begun, moves_done; /* a move that began later than a moment covers it */
    int64_t trouble_since_us;     /* monotonic; since when an answer is awaited; 0: it answers */
    bool dirty;                   /* there are commits it does not know of */
    bool urgent;                  /* somebody waits */
    bool wants_note;              /* for the signed tree head, even of an anchored state */
    bool has_note;                /* one was signed since this cell woke */
    struct loop_timer timer;
};

/* The answer to KEY_OPEN. keys: DEK_VERSIONS_MAX of them, or NULL: passed over. */
MUST_CHECK status kms_key_get(struct kms_key *ret, struct store_key *keys, struct cursor *cursor,
                              struct fault *fault);
bool key_versions_equal(const struct key_versions *left, const struct key_versions *right);
MUST_CHECK status kms_start(struct cell *cell, struct fault *fault); /* after waking */
void kms_replace(struct cell *cell, int fd);    /* takes fd */
void kms_listen(struct cell *cell);             /* what has come: a charter among it is in force */
void kms_note_commit(struct cell *cell);
/* Asks for a move that covers the present state; its number for kms_moved. 0: nothing to move. */
uint64_t kms_move_now(struct cell *cell);
/* The same, and the state's checkpoint is signed again if this cell has none yet. */
uint64_t kms_sign_now(struct cell *cell);
bool kms_moved(const struct cell *cell, uint64_t number);
bool kms_takes_mutations(const struct cell *cell);
void kms_close(struct cell *cell);

/* ---- the turn (turn.c) ---- */

struct turn_state {
    bool commit_due;  /* entries of reads have waited long enough */
    bool expire_due;
    struct loop_timer commit_timer, expire_timer, again_timer;
    struct buffer body;  /* of an answer that leaves at once */
    struct buffer frame; /* the message being built */
    uint32_t damage_told;
    int64_t complained_us; /* monotonic: when a failed commit was logged last */
};

void turn_start(struct cell *cell);
void turn_end(void *cell);            /* the loop's hook */
void turn_again(struct cell *cell);   /* another turn is wanted at once */
void turn_commit_pending(struct cell *cell);
/* Of a request whose head has come: is it still to be believed and allowed? */
MUST_CHECK status turn_judge(struct request *request, struct cell *cell, int64_t now_us,
                             struct fault *fault);
/* And can it be done now: UNAVAILABLE, QUOTA_EXCEEDED? */
MUST_CHECK status turn_admit(struct request *request, struct cell *cell, struct fault *fault);
struct silo_request turn_asked(struct stream *stream, int64_t now_us);
/* Commits what is pending, so that the note that is asked of the kms covers it; for kms_moved. */
uint64_t turn_ask_note(struct cell *cell);
void turn_wipe(struct buffer *body); /* the turn's, or of an answer that was sent */
void turn_complain(struct cell *cell, const char *event, const struct fault *fault);
/* By another retention more may be due than was known. */
void turn_look_for_expiry(struct cell *cell);
/* For parking: expires and commits one batch. False when there is more to do and it can be done. */
bool turn_finish(struct cell *cell);

/* ---- idle and parking (park.c) ---- */

enum park_phase {
    PARK_NOT,
    PARK_ASKED,  /* CELL_IDLE was sent; serves as before until CELL_PARK comes */
    PARK_DRAIN,  /* gateways and exports finish; late requests are served */
    PARK_ANCHOR, /* the state on disk is final; the kms is told of it */
    PARK_DONE,
};

struct park_state {
    enum park_phase phase;
    bool forced;   /* the deadline passed: go with what there is */
    bool trimmed;  /* memory was given back, and there was no request since */
    uint64_t move; /* what PARK_ANCHOR waits for */
    struct loop_timer idle_timer, deadline_timer;
};

void park_watch_idle(struct cell *cell);
void park_note_use(struct cell *cell); /* a request, or a piece of one */
void park_begin(struct cell *cell); /* CELL_PARK: no other gateway's channel follows it */
void park_continue(struct cell *cell); /* at the end of a turn */

/* ---- export (export.c) ---- */

struct export;

struct export_wish {
    char kind[16];
    uint64_t sequence; /* of a backup */
    int fd, previous;  /* where to; the backup before, or -1. Taken, or still the caller's */
};
/* BAD_REQUEST: there is no such kind. */
MUST_CHECK status export_begin(struct cell *cell, struct export_wish *wish, struct fault *fault);
void export_continue(struct cell *cell);      /* at the end of a turn */
bool export_active(const struct cell *cell);
void export_drop_all(struct cell *cell);

/* ---- what is in force (charters.c) ---- */

struct charters {
    uint32_t idle_seconds;               /* of the node, as is */
    char region[TENANT_NAME_MAX + 1];    /* "" for any */
    struct buffer handed[SILO_CHARTERS]; /* candidates: signed; until one is chosen */
    struct verifier *platform;
    struct charter *in_force[SILO_CHARTERS]; /* the platform's: NULL while there is none */
    struct charter_head heads[SILO_CHARTERS];
    uint64_t generation;                 /* of both together: what was judged under an older one
                                            is judged again */
};

/* The posture of CELL_ASSUME; checked only by charters_choose. */
MUST_CHECK status charters_hand_in(struct cell *cell, struct cursor *posture, struct fault *fault);
/* One that the kms sent before it answered KEY_OPEN: a newer candidate. */
MUST_CHECK status charters_hand_in_late(struct cell *cell, struct span body, struct fault *fault);
/* With the silo open: UNAVAILABLE when a charter of these heads is neither there nor handed in. */
MUST_CHECK status charters_choose(struct cell *cell, const struct charter_head heads[SILO_CHARTERS],
                                  struct fault *fault);
/* MESSAGE_CHARTER: in force when it returns OK; otherwise the cell must end. */
MUST_CHECK status charters_replace(struct cell *cell, struct span body, struct fault *fault);
bool charters_are(const struct cell *cell, const struct charter_head heads[SILO_CHARTERS]);
bool charters_revoke(const struct cell *cell, const struct claims *claims);
const struct posture *charters_posture(const struct cell *cell);
void charters_free(struct cell *cell);

/* ---- quotas (quota.c) ---- */

struct denials {
    uint64_t count;      /* not told yet */
    int64_t told_us;     /* monotonic; 0: never */
    char user[USER_MAX + 1]; /* of the first of them */
};

struct quota_state {
    struct quotas limits;
    struct rate requests;
    struct user_rates *users;
    uint64_t in_flight;  /* admitted and not answered, of all gateways */
    struct denials denials[DENIAL_KINDS];
    bool tell_due;
    struct loop_timer timer;
};

void quota_apply(struct cell *cell, const struct quotas *quotas);
/* Takes what the request needs, or QUOTA_EXCEEDED with denial and retry_after set in it. */
MUST_CHECK status quota_admit(struct request *request, struct cell *cell, struct fault *fault);
void quota_leave(struct request *request, struct cell *cell); /* also one that was not admitted */
/* Inside the turn: may it add bytes? One that is let through may go over by what it adds. */
MUST_CHECK status quota_check_bytes(struct request *request, struct cell *cell,
                                    struct fault *fault);
void denial_note(struct cell *cell, enum denial kind, const char *user);
/* Entries for what was noted, at most one a second and kind; inside a turn. all: the last. */
void denials_tell(struct cell *cell, bool all);

/* ---- versions of the data key (rotation.c) ---- */

enum rotation_phase {
    ROTATION_NONE,
    ROTATION_NEXT,  /* the next version is asked for */
    ROTATION_PAGES, /* what older ones have sealed moves to it */
    ROTATION_DROP,  /* nothing is left: the kms is to open the older ones no more */
};

struct rotation {
    enum rotation_phase phase;
    bool due;                      /* a step, at the end of this turn */
    uint32_t request_id, kept_id;  /* in flight; 0: none */
    struct loop_timer timer;
};

/* What is to be done follows from the charter and the versions: after waking, and when either may
 * have changed. */
void rotation_look(struct cell *cell);
void rotation_continue(struct cell *cell); /* at the end of a turn */
/* True when it was an answer to a question of this file. */
bool rotation_answered(struct cell *cell, const struct ipc_message *message);
void rotation_lose_kms(struct cell *cell);
/* When the parked cell is to be woken: while a rotation is under way, soon. */
int64_t rotation_wake_us(const struct cell *cell, int64_t next_us);
/* Makes what the kms has wrapped anew durable, and tells it so. */
MUST_CHECK status rotation_tell_kept(struct cell *cell, struct span wrapped, struct fault *fault);
/* The same, and the older versions are forgotten. INTERNAL while they are in use. */
MUST_CHECK status rotation_drop(struct cell *cell, struct span wrapped, struct fault *fault);

/* ---- usage (usage.c) ---- */

struct usage_state {
    struct prices prices; /* as the posture says: the silo shows them */
    struct loop_timer timer;
};

void usage_start(struct cell *cell);
/* A stream is over. */
void usage_count(struct cell *cell, const struct stream *stream);
/* CELL_USAGE, when there is something to tell. */
void usage_tell(struct cell *cell);

/* ---- the cell (wake.c, serve.c) ---- */

struct cell {
    struct loop *loop;
    int supervisor;
    struct loop_source *supervisor_source;
    uint8_t tenant_id[TENANT_ID_BYTES];
    struct charters charters;
    struct quota_state quota;
    struct rotation rotation;
    struct usage_state usage;
    struct tenant_facts facts;
    struct buffer wrapped;    /* the content of silo.keys, for a new channel to the kms */
    struct key_versions versions; /* of the keys in it */
    uint8_t platform_key[SIGN_PUBLIC_BYTES], issuer_key[SIGN_PUBLIC_BYTES];
    struct token_verifier *verifier;
    struct token_cache *tokens;
    struct silo *silo;
    int silo_fd;              /* the store borrows it */
    int restore_fd;           /* -1; or: this process only restores, from there */
    struct kms_link kms;
    struct relay *relays[GATEWAYS_MAX];
    struct relay *ending;     /* replaced, to be swept */
    uint32_t relay_next;      /* whose turn it is */
    struct stream *spares;
    uint32_t spare_count, streams;
    size_t bodies_bytes;
    struct stream_list flows; /* bodies under way outside of turns */
    uint32_t uploads, downloads;
    struct arena line_arena;  /* of the line that is being handled */
    struct loop_timer note_timer;
    uint8_t *storage;         /* IPC_PACKET_MAX: the message being read */
    int64_t last_request_us;  /* monotonic */
    struct turn_state turn;
    struct park_state park;
    struct export *exports;
    bool ended;               /* the loop was stopped: why, OK when parked */
    status why;
    struct fault fault;
};

/* wake.c: everything up to an open silo. ret is the caller's to give to cell_free. */
MUST_CHECK status cell_wake(struct cell **ret, int supervisor, struct loop *loop,
                            cell_close_jail *close_jail, struct fault *fault);
struct cell *cell_free(struct cell *cell);

/* KEY_OPEN for the wrapped keys that the cell has, and its answer, in the cell's storage: with
 * a secret in it. */
MUST_CHECK status cell_open_key(struct ipc_message *ret, struct cell *cell, struct fault *fault);

/* restore.c: instead of waking: makes the silo from the backups on restore_fd, and says so. */
MUST_CHECK status cell_restore(struct cell *cell, int silo_fd, struct fault *fault);

/* serve.c */
MUST_CHECK status cell_serve(struct cell *cell, struct fault *fault);
void cell_stop(struct cell *cell, status why, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* For what must not fail but for want of memory: a cell that cannot keep a timer ends. */
void cell_timer(struct cell *cell, struct loop_timer *timer, int64_t after_us,
                loop_on_time *on_time, void *context);
