#define _GNU_SOURCE
#include "kms/anchors.h"

#include "base/cleanup.h"
#include "base/cursor.h"
#include "base/hex.h"
#include "base/secret.h"
#include "crypt/merkle.h"
#include "kms/key_files.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define ANCHORS_FILE "anchors"
#define FILE_MAGIC SPAN("BHANCH01")
#define COPY_MAGIC SPAN("BHSLOT03")
#define COPY_MAGIC_2 SPAN("BHSLOT02") /* before keys were rotated: ends behind the charter */
#define COPY_MAGIC_1 SPAN("BHSLOT01") /* before there were charters: ends behind the anchor */

enum {
    SECTOR_BYTES = 512,
    SLOT_BYTES = 2 * SECTOR_BYTES,
    HEADER_BYTES = SLOT_BYTES, /* so that slot n lies at (n + 1) * SLOT_BYTES */
    COPY_TEXT_BYTES_1 = 8 + 4 + 8 + 1 + TENANT_ID_BYTES + HASH_BYTES + ANCHOR_WIRE_BYTES,
    COPY_TEXT_BYTES_2 = COPY_TEXT_BYTES_1 + CHARTER_HEAD_BYTES,
    COPY_TEXT_BYTES = COPY_TEXT_BYTES_2 + 4 + 4 + 4,
    COPY_BYTES = COPY_TEXT_BYTES + HASH_BYTES, /* the MAC behind it */
    HEADER_TEXT_BYTES = 8 + 4 + 4,
    SLOTS_MAX = TENANTS_MAX + 1,               /* the registry's silo has one, too */
    SLOTS_FIRST = 64,                          /* room for so many at first */
    READ_SLOTS = 64,                           /* read at once at start */
};

static_assert(COPY_BYTES <= SECTOR_BYTES, "a copy lies in one sector");

enum slot_state { SLOT_FREE, SLOT_USED, SLOT_DAMAGED };

struct slot {
    struct anchor_record record;
    uint64_t sequence; /* of the newest copy in the file; 0: never written */
    uint64_t late;     /* the sync that its newest copy still waits for; see write_changes */
    uint8_t state;     /* enum slot_state */
    bool changed;      /* in the list below */
    bool may_wait;     /* what changed need not be durable before it is answered */
};

struct change {
    uint32_t slot;
    struct anchor_record before;
};

struct anchors {
    int file;
    struct provider *provider;
    struct slot *slots;
    uint32_t count, capacity, free_hint; /* free_hint: no free slot lies before it */
    uint32_t *index; /* open addressing, linear probing: slot + 1, 0 for none */
    uint32_t index_size, used; /* index_size: a power of two, over twice as many as used */
    uint64_t mix[4];           /* per process, so that no sender of ids can choose collisions */
    struct change *changes;
    uint32_t change_count, change_capacity;
    uint64_t syncs; /* of the file, so far */
};

static const struct key_name records_key = {.kind = KEY_RECORDS};

struct anchor anchor_beginning(void)
{
    struct anchor anchor = {0};
    struct merkle_edge empty = {0};
    struct hash_value root = merkle_root(&empty);
    memcpy(anchor.log_root, root.bytes, sizeof anchor.log_root);
    return anchor;
}

static bool same_id(const uint8_t left[TENANT_ID_BYTES], const uint8_t right[TENANT_ID_BYTES])
{
    return span_equal((struct span){left, TENANT_ID_BYTES}, (struct span){right, TENANT_ID_BYTES});
}

/* ---- the index from ids to slots ---- */

static uint32_t home_of(const struct anchors *anchors, const uint8_t id[TENANT_ID_BYTES])
{
    uint64_t halves[2];
    memcpy(halves, id, sizeof halves);
    unsigned __int128 mixed = (unsigned __int128)(halves[0] ^ anchors->mix[0]) * anchors->mix[1]
                            + (unsigned __int128)(halves[1] ^ anchors->mix[2]) * anchors->mix[3];
    return (uint32_t)(mixed >> 80) & (anchors->index_size - 1);
}

/* Where id stands, or the empty place where it would. */
static uint32_t place_of(const struct anchors *anchors, const uint8_t id[TENANT_ID_BYTES])
{
    uint32_t place = home_of(anchors, id);
    while (anchors->index[place]
           && !same_id(anchors->slots[anchors->index[place] - 1].record.id, id))
        place = (place + 1) & (anchors->index_size - 1);
    return place;
}

static struct slot *find_slot(const struct anchors *anchors, const uint8_t id[TENANT_ID_BYTES])
{
    uint32_t entry = anchors->index[place_of(anchors, id)];
    return entry ? &anchors->slots[entry - 1] : NULL;
}

static status index_reserve(struct anchors *anchors, struct fault *fault)
{
    if (anchors->index && (anchors->used + 1) * 2 < anchors->index_size)
        return OK;
    uint32_t size = anchors->index_size ? anchors->index_size * 2 : 4 * SLOTS_FIRST;
    uint32_t *index = calloc(size, sizeof *index);
    if (!index)
        return FAIL(INTERNAL, fault, ANCHORS_FILE ": out of memory");
    free(anchors->index);
    anchors->index = index;
    anchors->index_size = size;
    for (uint32_t i = 0; i < anchors->count; i++)
        if (anchors->slots[i].state == SLOT_USED)
            index[place_of(anchors, anchors->slots[i].record.id)] = i + 1;
    return OK;
}

static void index_drop(struct anchors *anchors, const uint8_t id[TENANT_ID_BYTES])
{
    uint32_t mask = anchors->index_size - 1, hole = place_of(anchors, id);
    anchors->index[hole] = 0;
    /* who stands behind the hole and was pushed past it moves back, else no probe finds it */
    for (uint32_t at = (hole + 1) & mask; anchors->index[at]; at = (at + 1) & mask) {
        uint32_t home = home_of(anchors, anchors->slots[anchors->index[at] - 1].record.id);
        if (((at - home) & mask) < ((at - hole) & mask))
            continue;
        anchors->index[hole] = anchors->index[at];
        anchors->index[at] = 0;
        hole = at;
    }
}

/* ---- the form of a copy ---- */

static void put_copy_text(struct buffer *out, uint32_t number, uint64_t sequence,
                          const struct anchor_record *record)
{
    static const struct anchor_record none;
    buffer_put(out, COPY_MAGIC);
    buffer_put_u32(out, number);
    buffer_put_u64(out, sequence);
    buffer_put_u8(out, record ? SLOT_USED : SLOT_FREE);
    record = record ? record : &none;
    buffer_put(out, SPAN_OF(record->id));
    buffer_put(out, SPAN_OF(record->fingerprint));
    anchor_put(out, &record->anchor);
    charter_head_put(out, &record->charter);
    buffer_put_u32(out, record->dek_floor);
    buffer_put_u32(out, record->dek_newest);
    buffer_put_u32(out, record->restores);
}

struct copy {
    uint64_t sequence;
    uint8_t state;
    struct anchor_record record;
};

/* What came with a later form is as it was before there was any of it. */
static status read_later(struct anchor_record *record, struct span magic, struct cursor *cursor,
                         struct fault *fault)
{
    record->dek_floor = record->dek_newest = DEK_VERSION_FIRST;
    if (!span_equal(magic, COPY_MAGIC_1))
        TRY(charter_head_get(&record->charter, cursor, fault));
    if (!span_equal(magic, COPY_MAGIC))
        return OK;
    TRY(cursor_u32(&record->dek_floor, cursor, fault));
    TRY(cursor_u32(&record->dek_newest, cursor, fault));
    return cursor_u32(&record->restores, cursor, fault);
}

static status read_copy(struct copy *ret, uint32_t number, struct span text, struct fault *fault)
{
    struct cursor cursor = cursor_over(text);
    struct copy copy = {0};
    struct span magic;
    uint32_t own_number;
    TRY(cursor_bytes(&magic, &cursor, COPY_MAGIC.length, fault));
    TRY(cursor_u32(&own_number, &cursor, fault));
    TRY(cursor_u64(&copy.sequence, &cursor, fault));
    TRY(cursor_u8(&copy.state, &cursor, fault));
    TRY(cursor_copy(copy.record.id, &cursor, TENANT_ID_BYTES, fault));
    TRY(cursor_copy(copy.record.fingerprint, &cursor, HASH_BYTES, fault));
    TRY(anchor_get(&copy.record.anchor, &cursor, fault));
    TRY(read_later(&copy.record, magic, &cursor, fault));
    TRY(cursor_end(&cursor, fault));
    if (own_number != number || copy.state > SLOT_USED || copy.sequence == 0)
        return FAIL(CORRUPT, fault, ANCHORS_FILE ": slot %u: not a copy of it", number);
    *ret = copy;
    return OK;
}

static status check_mac(struct anchors *anchors, struct span text, struct span mac,
                        struct fault *fault)
{
    uint8_t storage[HASH_BYTES];
    struct buffer due = buffer_over(storage, sizeof storage);
    TRY(anchors->provider->methods->sign(&due, anchors->provider, &records_key, text, fault));
    if (!secret_equal(buffer_span(&due), mac))
        return FAIL(CORRUPT, fault, ANCHORS_FILE ": damaged, or not of this key store");
    return OK;
}

static bool all_zero(struct span bytes)
{
    uint8_t any = 0;
    for (size_t i = 0; i < bytes.length; i++)
        any |= bytes.data[i];
    return any == 0;
}

/* What the MAC is over, by the form that the copy says it has. */
static status copy_text(struct span *ret, uint32_t number, struct span sector,
                        struct fault *fault)
{
    struct span magic = {sector.data, COPY_MAGIC.length};
    if (span_equal(magic, COPY_MAGIC))
        *ret = (struct span){sector.data, COPY_TEXT_BYTES};
    else if (span_equal(magic, COPY_MAGIC_2))
        *ret = (struct span){sector.data, COPY_TEXT_BYTES_2};
    else if (span_equal(magic, COPY_MAGIC_1))
        *ret = (struct span){sector.data, COPY_TEXT_BYTES_1};
    else
        return FAIL(CORRUPT, fault, ANCHORS_FILE ": slot %u: not a copy of it", number);
    return OK;
}

static status open_copy(struct copy *ret, struct anchors *anchors, uint32_t number, unsigned which,
                        struct span sector, struct fault *fault)
{
    struct copy copy;
    struct span text;
    TRY(copy_text(&text, number, sector, fault));
    size_t length = text.length + HASH_BYTES;
    TRY(check_mac(anchors, text, (struct span){sector.data + text.length, HASH_BYTES}, fault));
    TRY(read_copy(&copy, number, text, fault));
    if (copy.sequence % 2 != which
        || !all_zero((struct span){sector.data + length, sector.length - length}))
        return FAIL(CORRUPT, fault, ANCHORS_FILE ": slot %u: a copy out of its place", number);
    *ret = copy;
    return OK;
}

/* ---- writing ---- */

static status write_copy(struct anchors *anchors, uint32_t number,
                         const struct anchor_record *record, struct fault *fault)
{
    uint8_t sector[SECTOR_BYTES] = {0};
    uint64_t sequence = anchors->slots[number].sequence + 1;
    struct buffer text = buffer_over(sector, sizeof sector);
    put_copy_text(&text, number, sequence, record);
    assert(text.length == COPY_TEXT_BYTES);
    TRY(anchors->provider->methods->sign(&text, anchors->provider, &records_key,
                                         buffer_span(&text), fault));
    assert(text.length == COPY_BYTES && !text.failed);
    off_t at = HEADER_BYTES + (off_t)number * SLOT_BYTES + (off_t)(sequence % 2) * SECTOR_BYTES;
    ssize_t put;
    do
        put = pwrite(anchors->file, sector, sizeof sector, at);
    while (put < 0 && errno == EINTR);
    if (put < 0 && (errno == ENOSPC || errno == EDQUOT))
        return FAIL(OUT_OF_SPACE, fault, ANCHORS_FILE ": no space in the key store");
    if (put != sizeof sector)
        return FAIL(INTERNAL, fault, ANCHORS_FILE ": write: %s",
                    put < 0 ? strerror(errno) : "cut short");
    return OK;
}

static status sync_file(struct anchors *anchors, struct fault *fault)
{
    if (fdatasync(anchors->file))
        return FAIL(INTERNAL, fault, ANCHORS_FILE ": fdatasync: %s", strerror(errno));
    anchors->syncs++;
    return OK;
}

/* record NULL: the slot becomes free. */
static status write_now(struct anchors *anchors, uint32_t number,
                        const struct anchor_record *record, struct fault *fault)
{
    TRY(write_copy(anchors, number, record, fault));
    TRY(sync_file(anchors, fault));
    anchors->slots[number].sequence++;
    return OK;
}

/* A free slot, a new one where there is none. */
static status choose_slot(uint32_t *ret, struct anchors *anchors, struct fault *fault)
{
    while (anchors->free_hint < anchors->count
           && anchors->slots[anchors->free_hint].state != SLOT_FREE)
        anchors->free_hint++;
    if (anchors->free_hint == SLOTS_MAX)
        return FAIL(QUOTA_EXCEEDED, fault, ANCHORS_FILE ": %u tenants, no more can be held",
                    (unsigned)TENANTS_MAX);
    if (anchors->free_hint == anchors->capacity) {
        uint32_t capacity = anchors->capacity ? anchors->capacity * 2 : SLOTS_FIRST;
        struct slot *slots = reallocarray(anchors->slots, capacity, sizeof *slots);
        if (!slots)
            return FAIL(INTERNAL, fault, ANCHORS_FILE ": out of memory");
        anchors->slots = slots;
        anchors->capacity = capacity;
    }
    if (anchors->free_hint == anchors->count)
        anchors->slots[anchors->count++] = (struct slot){.state = SLOT_FREE};
    *ret = anchors->free_hint;
    return OK;
}

status anchors_add(struct anchors *anchors, const uint8_t id[TENANT_ID_BYTES], struct fault *fault)
{
    uint32_t number;
    struct anchor_record record = {.anchor = anchor_beginning(), .dek_floor = DEK_VERSION_FIRST,
                                   .dek_newest = DEK_VERSION_FIRST};
    if (find_slot(anchors, id))
        return FAIL(CONFLICT, fault, ANCHORS_FILE ": the tenant has a slot");
    TRY(index_reserve(anchors, fault));
    TRY(choose_slot(&number, anchors, fault));
    memcpy(record.id, id, TENANT_ID_BYTES);
    TRY(write_now(anchors, number, &record, fault));
    anchors->slots[number].record = record;
    anchors->slots[number].state = SLOT_USED;
    anchors->index[place_of(anchors, id)] = number + 1;
    anchors->used++;
    return OK;
}

static void forget_change(struct anchors *anchors, struct slot *slot)
{
    uint32_t number = (uint32_t)(slot - anchors->slots);
    for (uint32_t i = 0; i < anchors->change_count; i++)
        if (anchors->changes[i].slot == number) {
            anchors->changes[i] = anchors->changes[--anchors->change_count];
            break;
        }
    slot->changed = false;
}

status anchors_remove(struct anchors *anchors, const uint8_t id[TENANT_ID_BYTES],
                      struct fault *fault)
{
    struct slot *slot = find_slot(anchors, id);
    if (!slot)
        return OK;
    uint32_t number = (uint32_t)(slot - anchors->slots);
    TRY(write_now(anchors, number, NULL, fault));
    forget_change(anchors, slot);
    index_drop(anchors, slot->record.id); /* id may point into the record that goes */
    slot->state = SLOT_FREE;
    slot->record = (struct anchor_record){0};
    anchors->used--;
    anchors->free_hint = number < anchors->free_hint ? number : anchors->free_hint;
    return OK;
}

const struct anchor_record *anchors_find(const struct anchors *anchors,
                                         const uint8_t id[TENANT_ID_BYTES])
{
    const struct slot *slot = find_slot(anchors, id);
    return slot ? &slot->record : NULL;
}

static status remember(struct anchors *anchors, struct slot *slot, bool may_wait,
                       struct fault *fault)
{
    if (slot->changed) {
        slot->may_wait = slot->may_wait && may_wait;
        return OK;
    }
    if (anchors->change_count == anchors->change_capacity) {
        uint32_t capacity = anchors->change_capacity ? anchors->change_capacity * 2 : SLOTS_FIRST;
        struct change *changes = reallocarray(anchors->changes, capacity, sizeof *changes);
        if (!changes)
            return FAIL(INTERNAL, fault, ANCHORS_FILE ": out of memory");
        anchors->changes = changes;
        anchors->change_capacity = capacity;
    }
    anchors->changes[anchors->change_count++] = (struct change){
        .slot = (uint32_t)(slot - anchors->slots), .before = slot->record};
    slot->changed = true;
    slot->may_wait = may_wait;
    return OK;
}

static status set(struct anchors *anchors, const struct anchor_record *record, bool may_wait,
                  struct fault *fault)
{
    struct slot *slot = find_slot(anchors, record->id);
    assert(slot);
    TRY(remember(anchors, slot, may_wait, fault));
    slot->record = *record;
    return OK;
}

status anchors_set(struct anchors *anchors, const struct anchor_record *record,
                   struct fault *fault)
{
    return set(anchors, record, false, fault);
}

status anchors_raise_epoch(struct anchors *anchors, const uint8_t id[TENANT_ID_BYTES],
                           struct fault *fault)
{
    const struct slot *slot = find_slot(anchors, id);
    assert(slot && slot->record.anchor.epoch < UINT64_MAX);
    struct anchor_record record = slot->record;
    bool first = record.anchor.epoch++ == 0; /* from then on the key is in use: durable at once */
    return set(anchors, &record, !first, fault);
}

/* A copy that may wait is written, which a crash of the kms survives, but not synced, which only a
 * power cut asks for. At most one copy of a slot is ever unsynced: the other must stay good. */
static status write_changes(struct anchors *anchors, struct fault *fault)
{
    bool sync = false;
    for (uint32_t i = 0; i < anchors->change_count; i++) {
        struct slot *slot = &anchors->slots[anchors->changes[i].slot];
        if (slot->late == anchors->syncs + 1)
            TRY(sync_file(anchors, fault));
        TRY(write_copy(anchors, anchors->changes[i].slot, &slot->record, fault));
        slot->late = anchors->syncs + 1;
        sync = sync || !slot->may_wait;
    }
    return sync ? sync_file(anchors, fault) : OK;
}

status anchors_flush(struct anchors *anchors, struct fault *fault)
{
    if (anchors->change_count == 0)
        return OK;
    status written = write_changes(anchors, fault);
    for (uint32_t i = 0; i < anchors->change_count; i++) {
        struct slot *slot = &anchors->slots[anchors->changes[i].slot];
        slot->changed = written != OK; /* the copy may be there: what holds is written over it */
        if (written == OK)
            slot->sequence++;
        else
            slot->record = anchors->changes[i].before;
    }
    if (written == OK)
        anchors->change_count = 0;
    return written;
}

status anchors_each_unreleased(struct anchors *anchors, anchors_visit *visit, void *context,
                               struct fault *fault)
{
    for (uint32_t i = 0; i < anchors->count; i++) {
        const struct slot *slot = &anchors->slots[i];
        if (slot->state == SLOT_USED && slot->record.anchor.epoch == 0)
            TRY(visit(context, &slot->record, fault));
    }
    return OK;
}

/* ---- opening ---- */

static void put_header_text(struct buffer *out)
{
    buffer_put(out, FILE_MAGIC);
    buffer_put_u32(out, SECTOR_BYTES);
    buffer_put_u32(out, SLOT_BYTES);
}

status anchors_make(int directory, struct provider *provider, struct fault *fault)
{
    uint8_t bytes[HEADER_BYTES] = {0};
    struct buffer header = buffer_over(bytes, sizeof bytes);
    put_header_text(&header);
    TRY(provider->methods->sign(&header, provider, &records_key, buffer_span(&header), fault));
    return key_file_write(directory, ANCHORS_FILE, 0600, SPAN_OF(bytes), fault);
}

/* ret_got: fewer bytes than asked for only at the end of the file. */
static status read_at(uint8_t *ret, size_t *ret_got, struct anchors *anchors, size_t length,
                      off_t at, struct fault *fault)
{
    size_t done = 0;
    while (done < length) {
        ssize_t got = pread(anchors->file, ret + done, length - done, at + (off_t)done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return FAIL(INTERNAL, fault, ANCHORS_FILE ": read: %s", strerror(errno));
        if (got == 0)
            break;
        done += (size_t)got;
    }
    *ret_got = done;
    return OK;
}

static status check_header(struct anchors *anchors, struct fault *fault)
{
    uint8_t bytes[HEADER_BYTES], due[HEADER_TEXT_BYTES];
    size_t got;
    struct buffer text = buffer_over(due, sizeof due);
    put_header_text(&text);
    TRY(read_at(bytes, &got, anchors, sizeof bytes, 0, fault));
    if (got != sizeof bytes || !span_equal((struct span){bytes, sizeof due}, SPAN_OF(due)))
        return FAIL(CORRUPT, fault, ANCHORS_FILE ": damaged: its head is not that of such a file");
    return check_mac(anchors, SPAN_OF(due), (struct span){bytes + sizeof due, HASH_BYTES}, fault);
}

struct loading {
    struct anchors *anchors;
    anchors_report *report;
    void *context;
};

static void report_slot(const struct loading *loading, uint32_t number, const struct slot *slot)
{
    char text[160], id[TENANT_ID_TEXT] = "";
    if (slot->state == SLOT_DAMAGED) {
        snprintf(text, sizeof text, ANCHORS_FILE ": slot %u: damaged; its tenant is refused",
                 number);
    } else {
        hex_encode(id, SPAN_OF(slot->record.id));
        snprintf(text, sizeof text, ANCHORS_FILE ": slot %u: one copy is torn or damaged; the "
                 "other is in force, of tenant %s", number, id);
    }
    loading->report(loading->context, text);
}

static void settle_slot(const struct loading *loading, struct slot *slot, uint32_t number,
                        struct span bytes)
{
    struct copy copies[2];
    struct fault why;
    bool sound[2], blank[2];
    for (unsigned i = 0; i < 2; i++) {
        struct span sector = {bytes.data + i * SECTOR_BYTES, SECTOR_BYTES};
        blank[i] = all_zero(sector);
        sound[i] = !blank[i]
                && open_copy(&copies[i], loading->anchors, number, i, sector, &why) == OK;
    }
    if (blank[0] && blank[1])
        return;
    slot->state = SLOT_DAMAGED;
    if (sound[0] || sound[1]) {
        unsigned newest = sound[0] && sound[1] ? copies[1].sequence > copies[0].sequence
                                               : sound[1];
        slot->state = copies[newest].state;
        slot->sequence = copies[newest].sequence;
        slot->record = copies[newest].record;
    }
    if ((!sound[0] && !blank[0]) || (!sound[1] && !blank[1]))
        report_slot(loading, number, slot);
}

/* Two slots name one tenant where the newest copy of a slot that was given back is damaged: what it
 * shows is from before, and was never released, else its tenant could not have been made again. */
static void drop_older(struct slot *left, struct slot *right)
{
    struct slot *older = left->record.anchor.epoch < right->record.anchor.epoch ? left : right;
    older->state = SLOT_DAMAGED;
}

static status load_slot(const struct loading *loading, struct span bytes, struct fault *fault)
{
    struct anchors *anchors = loading->anchors;
    struct slot slot = {0};
    uint32_t number;
    anchors->free_hint = anchors->count; /* the next one behind the last */
    TRY(choose_slot(&number, anchors, fault));
    settle_slot(loading, &slot, number, bytes);
    struct slot *same = slot.state == SLOT_USED ? find_slot(anchors, slot.record.id) : NULL;
    if (same)
        drop_older(same, &slot);
    if (slot.state == SLOT_USED) {
        TRY(index_reserve(anchors, fault));
        anchors->index[place_of(anchors, slot.record.id)] = number + 1;
        anchors->used += same ? 0 : 1;
    }
    anchors->slots[number] = slot;
    return OK;
}

static status load_slots(const struct loading *loading, struct fault *fault)
{
    uint8_t bytes[READ_SLOTS * SLOT_BYTES];
    for (off_t at = HEADER_BYTES;; at += (off_t)sizeof bytes) {
        size_t got;
        TRY(read_at(bytes, &got, loading->anchors, sizeof bytes, at, fault));
        for (size_t i = got; i < sizeof bytes; i++)
            bytes[i] = 0; /* a slot that the end of the file cuts */
        for (size_t slot = 0; slot * SLOT_BYTES < got; slot++)
            TRY(load_slot(loading, (struct span){bytes + slot * SLOT_BYTES, SLOT_BYTES}, fault));
        if (got < sizeof bytes)
            return OK;
    }
}

struct anchors *anchors_close(struct anchors *anchors)
{
    if (!anchors)
        return NULL;
    cleanup_close(&anchors->file);
    free(anchors->slots);
    free(anchors->index);
    free(anchors->changes);
    free(anchors);
    return NULL;
}

static status open_file(int *ret, int directory, struct fault *fault)
{
    _cleanup_close_ int fd = openat(directory, ANCHORS_FILE,
                                    O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct stat facts;
    if (fd < 0 && errno == ENOENT)
        return FAIL(NOT_FOUND, fault, ANCHORS_FILE ": does not exist");
    if (fd < 0 || fstat(fd, &facts))
        return FAIL(errno == ELOOP ? CORRUPT : INTERNAL, fault, ANCHORS_FILE ": open: %s",
                    strerror(errno));
    if (!S_ISREG(facts.st_mode)
        || facts.st_size > HEADER_BYTES + (off_t)SLOTS_MAX * SLOT_BYTES)
        return FAIL(CORRUPT, fault, ANCHORS_FILE ": damaged: not a file of this form");
    *ret = take_fd(&fd);
    return OK;
}

status anchors_open(struct anchors **ret, int directory, struct provider *provider,
                    anchors_report *report, void *context, struct fault *fault)
{
    _cleanup_close_ int file = -1;
    TRY(open_file(&file, directory, fault));
    struct anchors *anchors = calloc(1, sizeof *anchors);
    if (!anchors)
        return FAIL(INTERNAL, fault, ANCHORS_FILE ": out of memory");
    anchors->file = take_fd(&file);
    anchors->provider = provider;
    crypt_random(anchors->mix, sizeof anchors->mix);
    anchors->mix[1] |= 1;
    anchors->mix[3] |= 1;
    const struct loading loading = {anchors, report, context};
    status loaded = index_reserve(anchors, fault);
    if (loaded == OK)
        loaded = check_header(anchors, fault);
    if (loaded == OK)
        loaded = load_slots(&loading, fault);
    if (loaded != OK) {
        anchors_close(anchors);
        return loaded;
    }
    anchors->free_hint = 0;
    *ret = anchors;
    return OK;
}
