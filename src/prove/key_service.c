/* key_service.c: the channel to the kms: what it must not say, and what it must not get by saying
 * what it may. The attempts keep the silo's wrapped key as a cell does, so that each opens it
 * anew. */
#define _GNU_SOURCE
#include "prove/hostile.h"

#include "base/cleanup.h"
#include "base/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum {
    ANSWER_WAIT_MS = 10 * 1000,
    KEY_BYTES_SENT = 32,
    HASH_BYTES_SENT = 32,
    WRAPPED_MAX = CELL_WRAPPED_MAX,
    MOVES_UNREAD_MAX = 20 * 1000,
    DRAIN_WAIT_MS = 3000,
};

#define BY_PERMIT "the kms's table of permits"
#define BY_ANCHOR "the anchor, kept by the kms alone"
static const char keys_file[] = "silo.keys";

/* ---- what a cell may do ---- */

static size_t read_wrapped(uint8_t ret[WRAPPED_MAX], const struct hostile *self)
{
    _cleanup_close_ int file = openat(self->silo, keys_file, O_RDONLY | O_CLOEXEC);
    ssize_t length = file < 0 ? 0 : read(file, ret, WRAPPED_MAX);
    return length > 0 ? (size_t)length : 0;
}

static void keep_wrapped(const struct hostile *self, struct span wrapped)
{
    _cleanup_close_ int file = openat(self->silo, keys_file,
                                      O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (file >= 0 && write(file, wrapped.data, wrapped.length) != (ssize_t)wrapped.length)
        unlinkat(self->silo, keys_file, 0); /* the next one gets a new key */
}

static void send_open(const struct hostile *self, struct span wrapped)
{
    uint8_t storage[4 + WRAPPED_MAX];
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put_field(&body, wrapped);
    channel_send(self->kms, MESSAGE_KEY_OPEN, 1, buffer_span(&body), 0);
}

static status take_open(struct anchor *ret, struct hostile *self, struct ipc_message *message,
                        struct fault *fault)
{
    struct cursor result;
    uint8_t count;
    struct span deks, wrapped;
    TRY(reply_get_head(&result, message, fault));
    TRY(cursor_u8(&count, &result, fault));
    TRY(cursor_bytes(&deks, &result, count * (4 + KEY_BYTES_SENT), fault));
    TRY(cursor_field(&wrapped, &result, WRAPPED_MAX, "wrapped", fault));
    TRY(anchor_get(ret, &result, fault)); /* keys and charter heads follow */
    if (wrapped.length)
        keep_wrapped(self, wrapped);
    secret_wipe((void *)(uintptr_t)deks.data, deks.length);
    return OK;
}

static status open_key(struct anchor *ret, struct hostile *self, struct fault *fault)
{
    uint8_t wrapped[WRAPPED_MAX];
    struct ipc_message message;
    send_open(self, (struct span){wrapped, read_wrapped(wrapped, self)});
    TRY(ipc_await(&message, self->kms, self->storage, ANSWER_WAIT_MS, fault));
    status taken = take_open(ret, self, &message, fault);
    ipc_message_close(&message);
    return taken;
}

static void send_move(const struct hostile *self, uint32_t id, const struct anchor *anchor,
                      uint16_t proof_count)
{
    static const uint8_t forged[HASH_BYTES_SENT] = {0x5A};
    uint8_t storage[1024];
    struct buffer body = buffer_over(storage, sizeof storage);
    anchor_put(&body, anchor);
    buffer_put_u16(&body, proof_count);
    for (uint16_t i = 0; i < proof_count && i < 8; i++)
        buffer_put(&body, SPAN_OF(forged));
    channel_send(self->kms, MESSAGE_ANCHOR_MOVE, id, buffer_span(&body), 0);
}

/* ---- what comes back ---- */

/* A refusal, and nothing behind it. */
static struct got refusal(struct hostile *self)
{
    struct ipc_message message;
    struct cursor result;
    struct fault fault;
    status received = ipc_await(&message, self->kms, self->storage, ANSWER_WAIT_MS, &fault);
    if (received != OK)
        return got_survived("no answer: %s", fault.detail);
    status said = reply_get_head(&result, &message, &fault);
    bool bare = said != OK && cursor_left(&result) == 0 && message.fd_count == 0;
    ipc_message_close(&message);
    if (!bare)
        return got_survived("an answer of status %d, %zu bytes behind it", (int)said,
                            cursor_left(&result));
    struct got got = {.kind = GOT_REFUSED, .value = (int)said};
    snprintf(got.text, sizeof got.text, "%.150s", fault.detail);
    return got;
}

/* The same, and the channel ends behind it. */
static struct got refusal_and_end(struct hostile *self)
{
    struct got got = refusal(self);
    if (got.kind != GOT_REFUSED)
        return got;
    struct got end = channel_ending(self, self->kms);
    return end.kind == GOT_CLOSED ? got : got_survived("the channel stays: %.100s", end.text);
}

static struct got no_key(const struct fault *fault)
{
    return got_survived("its own key was not given: %.100s", fault->detail);
}

/* ---- single messages ---- */

static struct got say(struct hostile *self, const struct attempt *attempt)
{
    uint8_t storage[512];
    struct buffer body = buffer_over(storage, sizeof storage);
    if (attempt->put)
        attempt->put(&body, &self->target);
    channel_send(self->kms, attempt->type, 7, buffer_span(&body), attempt->fds);
    return channel_ending(self, self->kms);
}

static void put_neighbour(struct buffer *body, const struct target *target)
{
    buffer_put(body, SPAN_OF(target->neighbour));
}

static void put_platform(struct buffer *body, const struct target *target)
{
    static const uint8_t zeros[TENANT_ID_BYTES];
    (void)target;
    buffer_put(body, SPAN_OF(zeros));
}

static void put_mint(struct buffer *body, const struct target *target)
{
    put_neighbour(body, target);
    buffer_put_text_field(body, "mallory");
    buffer_put_text_field(body, "");
    buffer_put_text_field(body, "memory:read memory:any-user");
    buffer_put_text_field(body, "restricted");
    buffer_put_u32(body, 900);
}

static void put_receipt(struct buffer *body, const struct target *target)
{
    put_neighbour(body, target);
    buffer_put_field(body, SPAN("{}"));
}

static void put_document(struct buffer *body)
{
    buffer_put_u64(body, 1);
    buffer_put_field(body, SPAN("{\"issuers\":[{\"iss\":\"https://mallory.example\"}]}"));
}

static void put_charter_of_neighbour(struct buffer *body, const struct target *target)
{
    put_neighbour(body, target);
    put_document(body);
}

static void put_charter_of_platform(struct buffer *body, const struct target *target)
{
    put_platform(body, target);
    put_document(body);
}

static void put_signed_charter(struct buffer *body, const struct target *target)
{
    static const uint8_t signature[64];
    put_charter_of_neighbour(body, target);
    buffer_put(body, SPAN_OF(signature));
}

static void put_root(struct buffer *body, const struct target *target)
{
    (void)target;
    buffer_put_u32(body, 0);
}

static void put_channel(struct buffer *body, const struct target *target)
{
    (void)target;
    buffer_put_u8(body, CHANNEL_CONTROL);
    buffer_put_u32(body, 0);
}

static void put_reply(struct buffer *body, const struct target *target)
{
    (void)target;
    reply_put_head(body, OK, "");
}

static void put_empty_field(struct buffer *body, const struct target *target)
{
    (void)target;
    buffer_put_field(body, (struct span){0});
}

static void put_field_and_id(struct buffer *body, const struct target *target)
{
    put_empty_field(body, target);
    put_neighbour(body, target);
}

static void put_field_of_4_gib(struct buffer *body, const struct target *target)
{
    (void)target;
    buffer_put_u32(body, UINT32_MAX);
    buffer_put_text(body, "short");
}

static struct got cut_packet(struct hostile *self, const struct attempt *attempt)
{
    (void)attempt;
    channel_send_raw(self->kms, SPAN("\0\0\x03"), 0);
    return channel_ending(self, self->kms);
}

static struct got large_packet(struct hostile *self, const struct attempt *attempt)
{
    (void)attempt;
    _cleanup_free_ uint8_t *packet = calloc(1, IPC_PACKET_MAX + 1);
    if (!packet)
        return got_survived("out of memory");
    channel_send_raw(self->kms, (struct span){packet, IPC_PACKET_MAX + 1}, 0);
    return channel_ending(self, self->kms);
}

static struct got random_packet(struct hostile *self, const struct attempt *attempt)
{
    uint8_t packet[512];
    (void)attempt;
    if (getrandom(packet, sizeof packet, 0) != sizeof packet)
        return got_survived("no random bytes");
    packet[0] |= 0x80; /* a type that nobody has */
    channel_send_raw(self->kms, SPAN_OF(packet), 0);
    return channel_ending(self, self->kms);
}

/* ---- keys ---- */

static struct got open_twice(struct hostile *self, const struct attempt *attempt)
{
    struct anchor anchor;
    struct fault fault;
    uint8_t wrapped[WRAPPED_MAX];
    (void)attempt;
    if (open_key(&anchor, self, &fault) != OK)
        return no_key(&fault);
    send_open(self, (struct span){wrapped, read_wrapped(wrapped, self)});
    return channel_ending(self, self->kms);
}

static struct got open_neighbours(struct hostile *self, const struct attempt *attempt)
{
    (void)attempt;
    if (!self->target.wrapped_length)
        return got_skipped("the neighbour's wrapped key could not be read");
    send_open(self, (struct span){self->target.wrapped, self->target.wrapped_length});
    return refusal(self);
}

static struct got open_altered(struct hostile *self, const struct attempt *attempt)
{
    struct anchor anchor;
    struct fault fault;
    uint8_t wrapped[WRAPPED_MAX];
    size_t length = read_wrapped(wrapped, self);
    (void)attempt;
    if (!length) { /* the first of all attempts that need one */
        if (open_key(&anchor, self, &fault) != OK)
            return no_key(&fault);
        return got_skipped("the own key was made just now; it can be altered the next time");
    }
    wrapped[length - 1] ^= 1;
    send_open(self, (struct span){wrapped, length});
    return refusal(self);
}

static struct got open_garbage(struct hostile *self, const struct attempt *attempt)
{
    uint8_t garbage[84]; /* as long as one */
    (void)attempt;
    memset(garbage, 'k', sizeof garbage);
    send_open(self, SPAN_OF(garbage));
    return refusal(self);
}

/* An empty silo over one that has a history: a new key would hide what was lost. */
static struct got open_as_if_new(struct hostile *self, const struct attempt *attempt)
{
    (void)attempt;
    send_open(self, (struct span){0});
    return refusal(self);
}

/* ---- anchors ---- */

static struct got move_before_open(struct hostile *self, const struct attempt *attempt)
{
    const struct anchor anchor = {.epoch = 1, .commits = 1};
    (void)attempt;
    send_move(self, 2, &anchor, 0);
    return channel_ending(self, self->kms);
}

/* The own log with two entries, of which the kms has signed: the state that the others attack. */
static status move_on(struct anchor *anchor, struct hostile *self, struct fault *fault)
{
    struct ipc_message message;
    struct cursor result;
    anchor->commits++;
    anchor->map_generation++;
    if (anchor->log_size == 0) {
        anchor->log_size = 2;
        memset(anchor->log_root, 0x11, sizeof anchor->log_root);
    }
    send_move(self, 2, anchor, 0);
    TRY(ipc_await(&message, self->kms, self->storage, ANSWER_WAIT_MS, fault));
    status moved = reply_get_head(&result, &message, fault);
    ipc_message_close(&message);
    return moved;
}

typedef void alter(struct anchor *anchor);

static void shrink_commits(struct anchor *anchor)
{
    anchor->commits--;
}

static void shrink_map(struct anchor *anchor)
{
    anchor->map_generation--;
}

static void change_map(struct anchor *anchor)
{
    anchor->map_hash[0] ^= 1;
}

static void shrink_log(struct anchor *anchor)
{
    anchor->log_size--;
}

static void empty_log(struct anchor *anchor)
{
    anchor->log_size = 0;
    memset(anchor->log_root, 0, sizeof anchor->log_root);
}

static void fork_log(struct anchor *anchor)
{
    anchor->log_root[0] ^= 1;
}

static void grow_log(struct anchor *anchor)
{
    anchor->log_size += 3;
    anchor->log_root[0] ^= 1;
}

static void grow_log_without_end(struct anchor *anchor)
{
    anchor->log_size = UINT64_MAX;
}

static void earlier_epoch(struct anchor *anchor)
{
    anchor->epoch--;
}

static void later_epoch(struct anchor *anchor)
{
    anchor->epoch++;
}

static void next_commit(struct anchor *anchor)
{
    anchor->commits++;
}

static struct got altered_move(struct hostile *self, alter *change, uint16_t proof_count)
{
    struct anchor anchor;
    struct fault fault;
    if (open_key(&anchor, self, &fault) != OK)
        return no_key(&fault);
    if (move_on(&anchor, self, &fault) != OK)
        return got_survived("an honest anchor was refused: %.100s", fault.detail);
    change(&anchor);
    send_move(self, 3, &anchor, proof_count);
    return refusal_and_end(self);
}

#define MOVE(function, change, proof_count) \
    static struct got function(struct hostile *self, const struct attempt *attempt) \
    { \
        (void)attempt; \
        return altered_move(self, change, proof_count); \
    }

MOVE(move_fewer_commits, shrink_commits, 0)
MOVE(move_older_map, shrink_map, 0)
MOVE(move_other_map, change_map, 0)
MOVE(move_cut_log, shrink_log, 0)
MOVE(move_empty_log, empty_log, 0)
MOVE(move_forked_log, fork_log, 0)
MOVE(move_forged_proof, grow_log, 2)
MOVE(move_no_proof, grow_log, 0)
MOVE(move_endless_log, grow_log_without_end, 8)
MOVE(move_surplus_proof, next_commit, 1)
MOVE(move_earlier_epoch, earlier_epoch, 0)
MOVE(move_later_epoch, later_epoch, 0)

static struct got move_long_proof(struct hostile *self, const struct attempt *attempt)
{
    struct anchor anchor;
    struct fault fault;
    (void)attempt;
    if (open_key(&anchor, self, &fault) != OK)
        return no_key(&fault);
    send_move(self, 2, &anchor, UINT16_MAX);
    return channel_ending(self, self->kms);
}

/* Anchors without end, of which no answer is taken: only this channel may come to a halt. */
static struct got move_flood(struct hostile *self, const struct attempt *attempt)
{
    uint8_t storage[256];
    struct buffer body = buffer_over(storage, sizeof storage);
    struct anchor anchor;
    struct fault fault;
    (void)attempt;
    if (open_key(&anchor, self, &fault) != OK)
        return no_key(&fault);
    anchor_put(&body, &anchor);
    buffer_put_u16(&body, 0);
    for (uint32_t i = 0; i < MOVES_UNREAD_MAX; i++) {
        status sent = ipc_send(self->kms, MESSAGE_ANCHOR_MOVE, i + 2, buffer_span(&body), NULL, 0,
                               &fault);
        struct pollfd writable = {.fd = self->kms, .events = POLLOUT};
        if (sent == CLOSED)
            return got_bounded("the channel ended after %u", i);
        if (sent == AGAIN && poll(&writable, 1, DRAIN_WAIT_MS) == 0)
            return got_bounded("it is not read any more after %u", i);
    }
    return got_survived("%d were taken", (int)MOVES_UNREAD_MAX);
}

/* ---- versions of the key ---- */

/* version: of KEY_DROP alone. */
static void send_versions(const struct hostile *self, uint32_t type, uint32_t version,
                          struct span wrapped)
{
    uint8_t storage[8 + WRAPPED_MAX];
    struct buffer body = buffer_over(storage, sizeof storage);
    if (type == MESSAGE_KEY_DROP)
        buffer_put_u32(&body, version);
    buffer_put_field(&body, wrapped);
    channel_send(self->kms, type, 2, buffer_span(&body), 0);
}

static struct got versions_unopened(struct hostile *self, uint32_t type)
{
    uint8_t wrapped[WRAPPED_MAX];
    send_versions(self, type, 1, (struct span){wrapped, read_wrapped(wrapped, self)});
    return channel_ending(self, self->kms);
}

static struct got next_before_open(struct hostile *self, const struct attempt *attempt)
{
    (void)attempt;
    return versions_unopened(self, MESSAGE_KEY_NEXT);
}

static struct got drop_before_open(struct hostile *self, const struct attempt *attempt)
{
    (void)attempt;
    return versions_unopened(self, MESSAGE_KEY_DROP);
}

/* After its own key was opened. theirs: with the neighbour's wrapped key, else with its own. */
static struct got versions_opened(struct hostile *self, uint32_t type, uint32_t version,
                                  bool theirs)
{
    uint8_t wrapped[WRAPPED_MAX];
    struct anchor anchor;
    struct fault fault;
    if (theirs && !self->target.wrapped_length)
        return got_skipped("the neighbour's wrapped key could not be read");
    if (open_key(&anchor, self, &fault) != OK)
        return no_key(&fault);
    struct span own = {wrapped, read_wrapped(wrapped, self)};
    struct span other = {self->target.wrapped, self->target.wrapped_length};
    send_versions(self, type, version, theirs ? other : own);
    return refusal(self);
}

static struct got next_of_neighbour(struct hostile *self, const struct attempt *attempt)
{
    (void)attempt;
    return versions_opened(self, MESSAGE_KEY_NEXT, 0, true);
}

static struct got drop_of_neighbour(struct hostile *self, const struct attempt *attempt)
{
    (void)attempt;
    return versions_opened(self, MESSAGE_KEY_DROP, 1, true);
}

static struct got drop_all(struct hostile *self, const struct attempt *attempt)
{
    (void)attempt;
    return versions_opened(self, MESSAGE_KEY_DROP, UINT32_MAX, false);
}

static struct got drop_none(struct hostile *self, const struct attempt *attempt)
{
    (void)attempt;
    return versions_opened(self, MESSAGE_KEY_DROP, 0, false);
}

#define CLOSES(title, message, body, descriptors) \
    {.name = title, .wall = BY_PERMIT, .expect = EXPECT_CLOSED, .run = say, .type = message, \
     .put = body, .fds = descriptors}
#define CLOSES_RUN(title, function) \
    {.name = title, .wall = BY_PERMIT, .expect = EXPECT_CLOSED, .run = function}
#define REFUSES(title, why, code, function) \
    {.name = title, .wall = why, .expect = EXPECT_REFUSED, .value = code, .run = function}

static const struct attempt attempts[] = {
    CLOSES("KEY_STATE of the neighbour", MESSAGE_KEY_STATE, put_neighbour, 0),
    CLOSES("KEY_DISCARD of the neighbour", MESSAGE_KEY_DISCARD, put_neighbour, 0),
    CLOSES("KEY_CREATE", MESSAGE_KEY_CREATE, put_neighbour, 0),
    CLOSES("KEY_SHRED of the neighbour", MESSAGE_KEY_SHRED, put_neighbour, 0),
    CLOSES("KEY_SHRED of the platform", MESSAGE_KEY_SHRED, put_platform, 0),
    CLOSES("TOKEN_MINT for the neighbour", MESSAGE_TOKEN_MINT, put_mint, 0),
    CLOSES("RECEIPT_SIGN for the neighbour", MESSAGE_RECEIPT_SIGN, put_receipt, 0),
    CLOSES("CHARTER_SIGN for the neighbour", MESSAGE_CHARTER_SIGN, put_charter_of_neighbour, 0),
    CLOSES("CHARTER_SIGN for the platform", MESSAGE_CHARTER_SIGN, put_charter_of_platform, 0),
    CLOSES("a CHARTER of the neighbour's to the kms", MESSAGE_CHARTER, put_signed_charter, 0),
    CLOSES("the supervisor's KMS_SERVE_CELL", MESSAGE_KMS_SERVE_CELL, put_neighbour, 1),
    CLOSES("the supervisor's KMS_SERVE_ADMIN as root", MESSAGE_KMS_SERVE_ADMIN, put_root, 1),
    CLOSES("the supervisor's CHANNEL", MESSAGE_CHANNEL, put_channel, 1),
    CLOSES("the supervisor's STOP", MESSAGE_STOP, NULL, 0),
    CLOSES("an answer to nothing", MESSAGE_REPLY, put_reply, 0),
    CLOSES("an unknown type", 0x0fff, NULL, 0),
    CLOSES("KEY_OPEN with a descriptor", MESSAGE_KEY_OPEN, put_empty_field, 1),
    CLOSES("KEY_OPEN that names the neighbour", MESSAGE_KEY_OPEN, put_field_and_id, 0),
    CLOSES("KEY_OPEN with a field of 4 GiB", MESSAGE_KEY_OPEN, put_field_of_4_gib, 0),
    CLOSES("KEY_OPEN without a body", MESSAGE_KEY_OPEN, NULL, 0),
    CLOSES_RUN("a packet of three bytes", cut_packet),
    CLOSES_RUN("a packet over the limit", large_packet),
    CLOSES_RUN("random bytes", random_packet),
    CLOSES_RUN("ANCHOR_MOVE before KEY_OPEN", move_before_open),
    CLOSES_RUN("KEY_OPEN twice", open_twice),
    CLOSES_RUN("a proof of 65,535 hashes", move_long_proof),
    CLOSES_RUN("KEY_NEXT before KEY_OPEN", next_before_open),
    CLOSES_RUN("KEY_DROP before KEY_OPEN", drop_before_open),
    CLOSES("KEY_KEPT before KEY_OPEN", MESSAGE_KEY_KEPT, NULL, 0),
    CLOSES("KEY_KEPT of the neighbour", MESSAGE_KEY_KEPT, put_neighbour, 0),
    REFUSES("KEY_NEXT with the neighbour's wrapped key", "a KEK a tenant, its id authenticated",
            CORRUPT, next_of_neighbour),
    REFUSES("KEY_DROP with the neighbour's wrapped key", "a KEK a tenant, its id authenticated",
            CORRUPT, drop_of_neighbour),
    REFUSES("KEY_DROP of all versions", "a version that is in use stays", BAD_FIELD, drop_all),
    REFUSES("KEY_DROP of version 0", "a version that is in use stays", BAD_FIELD, drop_none),
    REFUSES("the neighbour's wrapped key as its own", "a KEK a tenant, its id authenticated",
            CORRUPT, open_neighbours),
    REFUSES("its own wrapped key, one bit altered", "authenticated encryption", CORRUPT,
            open_altered),
    REFUSES("garbage as a wrapped key", "the form of a wrapped key", CORRUPT, open_garbage),
    REFUSES("an anchor with fewer commits", BY_ANCHOR, CORRUPT, move_fewer_commits),
    REFUSES("an anchor with an older page map", BY_ANCHOR, CORRUPT, move_older_map),
    REFUSES("an anchor with another page map", BY_ANCHOR, CORRUPT, move_other_map),
    REFUSES("an anchor with a cut log", BY_ANCHOR, CORRUPT, move_cut_log),
    REFUSES("an anchor with an empty log", BY_ANCHOR, CORRUPT, move_empty_log),
    REFUSES("an anchor with a rewritten log", BY_ANCHOR, CORRUPT, move_forked_log),
    REFUSES("a longer log with a forged proof", BY_ANCHOR, CORRUPT, move_forged_proof),
    REFUSES("a longer log without a proof", BY_ANCHOR, CORRUPT, move_no_proof),
    REFUSES("a log of 2^64 - 1 entries", BY_ANCHOR, CORRUPT, move_endless_log),
    REFUSES("a proof where nothing is to be proven", BY_ANCHOR, CORRUPT, move_surplus_proof),
    REFUSES("an anchor of an earlier epoch", BY_ANCHOR, CORRUPT, move_earlier_epoch),
    REFUSES("an anchor of a later epoch", BY_ANCHOR, CORRUPT, move_later_epoch),
    REFUSES("a new key over a silo with a history", BY_ANCHOR, ROLLED_BACK, open_as_if_new),
    {.name = "anchors without end, no answer taken", .wall = "bounded queues",
     .expect = EXPECT_BOUNDED, .run = move_flood},
};

const struct battery battery_key_service = BATTERY("key service", BY_PERMIT, attempts);
