#include "support.h"

#include "base/hex.h"
#include "crypt/note.h"
#include "kms/file_provider.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SEALED_BYTES = 101, SECTOR = 512, SLOT = 1024 };

static int directory;
static struct keystore *store;
static struct fault fault;

static int set_up(void **state)
{
    (void)state;
    directory = directory_make();
    store = store_open_in(directory);
    reports = 0;
    fault = (struct fault){0};
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    store = keystore_close(store);
    directory_remove(directory);
    return 0;
}

static void reopen(void)
{
    assert_ok(keystore_sync(store, &fault));
    store = keystore_close(store);
    store = store_open_in(directory);
}

static void create(uint8_t n)
{
    uint8_t fingerprint[HASH_BYTES];
    assert_ok(keystore_create(fingerprint, store, id_of(n), &fault));
    assert_ok(keystore_sync(store, &fault));
}

static status release(struct released_key *key, uint8_t n, struct span wrapped)
{
    return keystore_release(key, store, id_of(n), wrapped, &fault);
}

static struct released_key opened(uint8_t n, struct span wrapped)
{
    struct released_key key;
    assert_ok(release(&key, n, wrapped));
    assert_ok(keystore_sync(store, &fault));
    return key;
}

static struct key_status look(uint8_t n)
{
    struct key_status key;
    assert_ok(keystore_look(&key, store, id_of(n), &fault));
    return key;
}

static status look_status(uint8_t n)
{
    struct key_status key;
    return keystore_look(&key, store, id_of(n), &fault);
}

static struct anchor anchor_at(const struct released_key *key, uint64_t commits, uint64_t log_size)
{
    struct anchor anchor = {.epoch = key->anchor.epoch, .commits = commits,
                            .map_generation = commits, .log_size = log_size};
    memset(anchor.map_hash, (int)commits, sizeof anchor.map_hash);
    log_root(anchor.log_root, log_size);
    return anchor;
}

static status move(uint8_t n, const struct anchor *anchor, uint64_t from)
{
    struct hash_value proof[CONSISTENCY_PROOF_MAX];
    uint8_t storage[NOTE_MAX];
    struct buffer note = buffer_over(storage, sizeof storage);
    uint32_t count = log_proof(proof, from, anchor->log_size);
    return keystore_move(&note, store, id_of(n), anchor->epoch, anchor, proof, count, &fault);
}

static void names(const char *what)
{
    if (!strstr(fault.detail, what))
        fail_msg("\"%s\" does not name %s", fault.detail, what);
}

/* ---- keys ---- */

static void a_new_store_opens_again_with_the_same_signing_keys(void **state)
{
    (void)state;
    uint8_t keys[4][SIGN_PUBLIC_BYTES];
    struct stat facts;
    keystore_public_keys(keys[0], keys[1], store);
    reopen();
    keystore_public_keys(keys[2], keys[3], store);
    assert_memory_equal(keys[0], keys[2], SIGN_PUBLIC_BYTES);
    assert_memory_equal(keys[1], keys[3], SIGN_PUBLIC_BYTES);
    assert_memory_not_equal(keys[0], keys[1], SIGN_PUBLIC_BYTES);
    assert_int_equal(fstatat(directory, "root.key", &facts, 0), 0);
    assert_int_equal(facts.st_mode & 0777, 0400);
    assert_int_equal(facts.st_size, 32);
    assert_int_equal(look(0).state, KEY_LIVE); /* the platform's own silo */
    assert_int_equal(reports, 0);
}

static void a_created_key_is_live_and_creating_again_changes_nothing(void **state)
{
    (void)state;
    uint8_t first[HASH_BYTES], again[HASH_BYTES];
    assert_int_equal(look(1).state, KEY_NONE);
    assert_ok(keystore_create(first, store, id_of(1), &fault));
    assert_ok(keystore_create(again, store, id_of(1), &fault));
    assert_memory_equal(first, again, HASH_BYTES);
    reopen();
    struct key_status key = look(1);
    assert_int_equal(key.state, KEY_LIVE);
    assert_memory_equal(key.fingerprint, first, HASH_BYTES);
    assert_int_equal(key.anchor.epoch, 0);
    assert_int_equal(look(2).state, KEY_NONE);
}

static void a_dek_comes_back_from_its_wrapped_form_after_a_restart(void **state)
{
    (void)state;
    create(1);
    struct released_key made = opened(1, SPAN(""));
    assert_int_equal(made.wrapped_length, WRAPPED_DEK_BYTES);
    assert_int_equal(made.deks[0].version, 1);
    assert_int_equal(made.anchor.epoch, 1);
    reopen();
    struct released_key back = opened(1, wrapped_of(&made));
    assert_int_equal(back.wrapped_length, 0);
    assert_memory_equal(back.deks[0].key, made.deks[0].key, KEY_BYTES);
    assert_int_equal(back.anchor.epoch, 2);
}

static void a_wrapped_dek_opens_for_its_own_tenant_only_and_unchanged_only(void **state)
{
    (void)state;
    struct released_key key;
    create(1);
    create(2);
    struct released_key made = opened(1, SPAN(""));
    assert_int_equal(release(&key, 2, wrapped_of(&made)), CORRUPT);
    for (size_t i = 0; i < made.wrapped_length; i++) {
        made.wrapped[i] ^= 1;
        assert_int_equal(release(&key, 1, wrapped_of(&made)), CORRUPT);
        made.wrapped[i] ^= 1;
        if (i > 0)
            assert_int_equal(release(&key, 1, (struct span){made.wrapped, i}), CORRUPT);
    }
    assert_ok(release(&key, 1, wrapped_of(&made)));
}

static void a_key_that_does_not_exist_is_not_released(void **state)
{
    (void)state;
    struct released_key key;
    assert_int_equal(release(&key, 1, SPAN("")), NOT_FOUND);
}

static void an_empty_wrapped_is_rolled_back_once_the_silo_has_a_history(void **state)
{
    (void)state;
    struct released_key key;
    create(1);
    struct released_key made = opened(1, SPAN(""));
    struct anchor anchor = anchor_at(&made, 1, 0);
    assert_ok(release(&key, 1, SPAN(""))); /* it crashed before its first commit */
    anchor.epoch = key.anchor.epoch;
    assert_ok(move(1, &anchor, 0));
    assert_int_equal(release(&key, 1, SPAN("")), ROLLED_BACK);
    assert_int_equal(look(1).anchor.epoch, 2);
}

static void discarding_undoes_a_create_but_never_a_release(void **state)
{
    (void)state;
    create(1);
    assert_ok(keystore_discard(store, id_of(1), &fault));
    assert_int_equal(look(1).state, KEY_NONE);
    assert_false(file_exists(directory, file_of(1, ".kek")));
    assert_ok(keystore_discard(store, id_of(1), &fault)); /* there is none */
    reopen();
    assert_int_equal(look(1).state, KEY_NONE);
    create(1);
    opened(1, SPAN(""));
    assert_int_equal(keystore_discard(store, id_of(1), &fault), CONFLICT);
    assert_int_equal(look(1).state, KEY_LIVE);
}

/* ---- shredding ---- */

static void a_shredded_key_is_gone_for_ever_and_its_tombstone_stays(void **state)
{
    (void)state;
    struct key_status gone, again;
    struct released_key key;
    uint8_t fingerprint[HASH_BYTES];
    create(1);
    struct released_key made = opened(1, SPAN(""));
    struct anchor anchor = anchor_at(&made, 7, 3);
    assert_ok(move(1, &anchor, 0));
    struct key_status live = look(1);
    assert_ok(keystore_shred(&gone, store, id_of(1), &fault));
    assert_int_equal(gone.state, KEY_SHREDDED);
    assert_memory_equal(gone.fingerprint, live.fingerprint, HASH_BYTES);
    assert_int_equal(gone.anchor.commits, 7);
    assert_int_equal(gone.anchor.log_size, 3);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(look(1).state, KEY_SHREDDED);
        assert_int_equal(release(&key, 1, wrapped_of(&made)), NOT_FOUND);
        assert_int_equal(keystore_create(fingerprint, store, id_of(1), &fault), CONFLICT);
        assert_int_equal(keystore_discard(store, id_of(1), &fault), CONFLICT);
        assert_int_equal(move(1, &anchor, 3), NOT_FOUND);
        assert_ok(keystore_shred(&again, store, id_of(1), &fault));
        assert_memory_equal(&again, &gone, sizeof gone);
        assert_false(file_exists(directory, file_of(1, ".kek")));
        assert_int_equal(files_with_suffix(directory, ".gone"), 0);
        reopen();
    }
}

static void shredding_overwrites_the_file_and_writes_the_tombstone_first(void **state)
{
    (void)state;
    static const uint8_t zeros[SEALED_BYTES];
    uint8_t bytes[SEALED_BYTES];
    struct key_status gone;
    create(1);
    int fd = openat(directory, file_of(1, ".kek"), O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_ok(keystore_shred(&gone, store, id_of(1), &fault));
    assert_int_equal(pread(fd, bytes, sizeof bytes, 0), sizeof bytes);
    assert_memory_equal(bytes, zeros, sizeof zeros);
    close(fd);
}

static void what_never_was_cannot_be_shredded_nor_can_the_platform(void **state)
{
    (void)state;
    struct key_status gone;
    assert_int_equal(keystore_shred(&gone, store, id_of(1), &fault), NOT_FOUND);
    assert_int_equal(look(1).state, KEY_NONE);
    assert_int_equal(keystore_shred(&gone, store, id_of(0), &fault), FORBIDDEN_POLICY);
    assert_int_equal(look(0).state, KEY_LIVE);
}

static void a_damaged_key_can_still_be_erased(void **state)
{
    (void)state;
    struct key_status gone;
    create(1);
    opened(1, SPAN(""));
    struct key_status live = look(1);
    file_flip(directory, file_of(1, ".kek"), 50);
    assert_int_equal(look_status(1), CORRUPT);
    assert_ok(keystore_shred(&gone, store, id_of(1), &fault));
    assert_memory_equal(gone.fingerprint, live.fingerprint, HASH_BYTES);
    assert_false(file_exists(directory, file_of(1, ".kek")));
}

static void a_damaged_tombstone_neither_raises_the_dead_nor_kills(void **state)
{
    (void)state;
    struct key_status gone;
    uint8_t bytes[256];
    create(1);
    create(2);
    assert_ok(keystore_shred(&gone, store, id_of(1), &fault));
    file_flip(directory, file_of(1, ".tombstone"), 30);
    assert_int_equal(look_status(1), CORRUPT);
    names(".tombstone");
    ptrdiff_t length = file_read(directory, file_of(1, ".tombstone"), bytes, sizeof bytes);
    file_write(directory, file_of(2, ".tombstone"), bytes, (size_t)length);
    reopen(); /* a forged tombstone is no reason to destroy a key */
    assert_true(file_exists(directory, file_of(2, ".kek")));
    assert_int_equal(reports, 1);
    assert_int_equal(look_status(2), CORRUPT);
    assert_int_equal(unlinkat(directory, file_of(2, ".tombstone"), 0), 0);
    assert_int_equal(look(2).state, KEY_LIVE);
}

/* ---- anchors ---- */

static void a_moved_anchor_is_kept_and_its_checkpoint_verifies(void **state)
{
    (void)state;
    uint8_t platform[SIGN_PUBLIC_BYTES], issuer[SIGN_PUBLIC_BYTES], storage[NOTE_MAX];
    struct hash_value proof[CONSISTENCY_PROOF_MAX];
    struct buffer note = buffer_over(storage, sizeof storage);
    struct checkpoint checkpoint;
    create(0x5a);
    struct released_key key = opened(0x5a, SPAN(""));
    struct anchor first = anchor_at(&key, 2, 5), second = anchor_at(&key, 9, 23);
    assert_ok(move(0x5a, &first, 0));
    uint32_t count = log_proof(proof, 5, 23);
    assert_ok(keystore_move(&note, store, id_of(0x5a), 1, &second, proof, count, &fault));
    keystore_public_keys(platform, issuer, store);
    assert_ok(checkpoint_open(&checkpoint, buffer_span(&note), PLATFORM_KEY_NAME, platform,
                              &fault));
    assert_string_equal(checkpoint.origin,
                        "bulkhead/silo/5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a");
    assert_int_equal(checkpoint.size, 23);
    assert_memory_equal(checkpoint.root.bytes, second.log_root, HASH_BYTES);
    reopen();
    struct anchor kept = look(0x5a).anchor;
    assert_memory_equal(&kept, &second, sizeof second);
}

static void an_anchor_never_shrinks_nor_changes_what_it_stands_for(void **state)
{
    (void)state;
    create(1);
    struct released_key key = opened(1, SPAN(""));
    struct anchor good = anchor_at(&key, 5, 8), bad = good;
    assert_ok(move(1, &good, 0));
    assert_ok(move(1, &good, 8)); /* standing still is allowed */
    bad.commits = 4;
    assert_int_equal(move(1, &bad, 8), CORRUPT);
    bad = good, bad.map_generation = 4;
    assert_int_equal(move(1, &bad, 8), CORRUPT);
    bad = good, bad.map_hash[0] ^= 1;
    assert_int_equal(move(1, &bad, 8), CORRUPT);
    bad = good, bad.log_root[31] ^= 1;
    assert_int_equal(move(1, &bad, 8), CORRUPT);
    bad = anchor_at(&key, 6, 7);
    assert_int_equal(move(1, &bad, 8), CORRUPT);
    struct anchor kept = look(1).anchor;
    assert_memory_equal(&kept, &good, sizeof good);
}

static void an_anchor_of_another_epoch_is_refused(void **state)
{
    (void)state;
    create(1);
    struct released_key key = opened(1, SPAN(""));
    struct anchor anchor = anchor_at(&key, 1, 1);
    anchor.epoch = 2;
    assert_int_equal(move(1, &anchor, 0), CORRUPT);
    anchor.epoch = 0;
    assert_int_equal(move(1, &anchor, 0), CORRUPT);
    opened(1, wrapped_of(&key)); /* a later cell */
    anchor.epoch = 1;
    assert_int_equal(move(1, &anchor, 0), CORRUPT);
    assert_int_equal(look(1).anchor.commits, 0);
}

static void a_log_that_was_rewritten_is_refused_whatever_the_proof(void **state)
{
    (void)state;
    struct hash_value proof[CONSISTENCY_PROOF_MAX];
    uint8_t storage[NOTE_MAX];
    create(1);
    struct released_key key = opened(1, SPAN(""));
    struct anchor first = anchor_at(&key, 1, 5), next = anchor_at(&key, 2, 23);
    assert_ok(move(1, &first, 0));
    uint32_t count = log_proof(proof, 5, 23);
    assert_true(count > 2);
    for (uint32_t cut = 0; cut < count; cut++) {
        struct buffer note = buffer_over(storage, sizeof storage);
        assert_int_equal(keystore_move(&note, store, id_of(1), 1, &next, proof, cut, &fault),
                         CORRUPT);
        proof[cut].bytes[7] ^= 1;
        assert_int_equal(keystore_move(&note, store, id_of(1), 1, &next, proof, count, &fault),
                         CORRUPT);
        proof[cut].bytes[7] ^= 1;
    }
    next.log_root[0] ^= 1;
    assert_int_equal(move(1, &next, 5), CORRUPT);
    assert_int_equal(look(1).anchor.log_size, 5);
}

/* ---- damage ---- */

static void the_store_refuses_to_open(status why, const char *what)
{
    struct keystore *other = NULL;
    assert_int_equal(keystore_open(&other, directory, count_report, NULL, &fault), why);
    assert_null(other);
    names(what);
}

static void without_its_root_key_the_store_does_not_start(void **state)
{
    (void)state;
    uint8_t root[64] = {0};
    assert_int_equal(file_read(directory, "root.key", root, sizeof root), 32);
    assert_int_equal(unlinkat(directory, "root.key", 0), 0);
    the_store_refuses_to_open(CORRUPT, "root.key is missing");
    assert_false(file_exists(directory, "root.key"));
    static const size_t lengths[] = {0, 31, 33};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        file_write(directory, "root.key", root, lengths[i]);
        the_store_refuses_to_open(CORRUPT, "root.key");
    }
    file_write(directory, "root.key", root, 32);
    assert_int_equal(fchmodat(directory, "root.key", 0440, 0), 0);
    the_store_refuses_to_open(CORRUPT, "root.key");
    root[0] ^= 1;
    file_write(directory, "root.key", root, 32);
    the_store_refuses_to_open(CORRUPT, "anchors");
    root[0] ^= 1;
    file_write(directory, "root.key", root, 32);
    reopen();
}

static void signing_keys_and_anchors_are_never_silently_replaced(void **state)
{
    (void)state;
    static const char *const files[] = {"platform.seed", "issuer.seed", "anchors"};
    static uint8_t bytes[1 << 16];
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        ptrdiff_t length = file_read(directory, files[i], bytes, sizeof bytes);
        assert_true(length > 60);
        assert_int_equal(unlinkat(directory, files[i], 0), 0);
        the_store_refuses_to_open(CORRUPT, files[i]);
        assert_false(file_exists(directory, files[i]));
        file_write(directory, files[i], bytes, (size_t)length);
        for (size_t at = 0; at < 48; at += 5) {
            file_flip(directory, files[i], at);
            the_store_refuses_to_open(CORRUPT, files[i]);
            file_flip(directory, files[i], at);
        }
        file_write(directory, files[i], bytes, 20);
        the_store_refuses_to_open(CORRUPT, files[i]);
        file_write(directory, files[i], bytes, (size_t)length);
    }
    reopen();
}

static void the_seeds_cannot_be_swapped(void **state)
{
    (void)state;
    uint8_t bytes[SEALED_BYTES];
    assert_int_equal(file_read(directory, "issuer.seed", bytes, sizeof bytes), sizeof bytes);
    file_write(directory, "platform.seed", bytes, sizeof bytes);
    the_store_refuses_to_open(CORRUPT, "platform.seed");
}

static void a_damaged_kek_refuses_its_tenant_alone_and_is_left_as_it_is(void **state)
{
    (void)state;
    uint8_t sound[SEALED_BYTES + 1] = {0}, fingerprint[HASH_BYTES], now[SEALED_BYTES];
    struct released_key key;
    create(1);
    create(2);
    char name[64];
    snprintf(name, sizeof name, "%s", file_of(1, ".kek"));
    assert_int_equal(file_read(directory, name, sound, sizeof sound), SEALED_BYTES);
    for (size_t at = 0; at < SEALED_BYTES; at++) {
        file_flip(directory, name, at);
        assert_int_equal(look_status(1), CORRUPT);
        names(name);
        assert_int_equal(release(&key, 1, SPAN("")), CORRUPT);
        assert_int_equal(keystore_create(fingerprint, store, id_of(1), &fault), CORRUPT);
        file_flip(directory, name, at);
    }
    assert_int_equal(file_read(directory, name, now, sizeof now), SEALED_BYTES);
    assert_memory_equal(now, sound, SEALED_BYTES);
    for (size_t length = 0; length <= SEALED_BYTES + 1; length++) {
        if (length == SEALED_BYTES)
            continue;
        file_write(directory, name, sound, length);
        assert_int_equal(look_status(1), CORRUPT);
    }
    assert_int_equal(look(2).state, KEY_LIVE);
    reopen();
    assert_int_equal(keystore_create(fingerprint, store, id_of(1), &fault), CORRUPT);
    assert_int_equal(look(2).state, KEY_LIVE);
}

static void what_is_no_file_is_no_key(void **state)
{
    (void)state;
    create(1);
    char name[64];
    snprintf(name, sizeof name, "%s", file_of(1, ".kek"));
    assert_int_equal(renameat(directory, name, directory, "elsewhere"), 0);
    assert_int_equal(symlinkat("elsewhere", directory, name), 0);
    assert_int_equal(look_status(1), CORRUPT);
    assert_int_equal(unlinkat(directory, name, 0), 0);
    assert_int_equal(mkfifoat(directory, name, 0600), 0);
    assert_int_equal(look_status(1), CORRUPT);
    assert_int_equal(unlinkat(directory, name, 0), 0);
    assert_int_equal(mkdirat(directory, name, 0700), 0);
    assert_int_equal(look_status(1), CORRUPT);
}

static void the_kek_of_another_tenant_or_of_another_time_is_refused(void **state)
{
    (void)state;
    uint8_t older[SEALED_BYTES];
    create(1);
    create(2);
    assert_int_equal(file_read(directory, file_of(1, ".kek"), older, sizeof older), SEALED_BYTES);
    file_write(directory, file_of(2, ".kek"), older, sizeof older);
    assert_int_equal(look_status(2), CORRUPT);
    assert_ok(keystore_discard(store, id_of(1), &fault));
    create(1);
    file_write(directory, file_of(1, ".kek"), older, sizeof older);
    assert_int_equal(look_status(1), CORRUPT);
    names("anchor");
}

static void a_released_key_that_is_missing_is_not_made_again(void **state)
{
    (void)state;
    uint8_t fingerprint[HASH_BYTES];
    create(1);
    opened(1, SPAN(""));
    assert_int_equal(unlinkat(directory, file_of(1, ".kek"), 0), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(keystore_create(fingerprint, store, id_of(1), &fault), CORRUPT);
        names("missing");
        assert_int_equal(keystore_discard(store, id_of(1), &fault), CONFLICT);
        reopen();
    }
}

/* Slot 0 is the platform's, slot 1 the first tenant's. */
static size_t copy_at(unsigned slot, unsigned sequence)
{
    return SLOT + slot * SLOT + (sequence % 2) * SECTOR;
}

static void a_torn_copy_of_an_anchor_costs_the_newest_move_only(void **state)
{
    (void)state;
    create(1); /* sequences 1 and 2 */
    struct released_key key = opened(1, SPAN("")); /* 3 */
    struct anchor anchor = anchor_at(&key, 5, 5);
    assert_ok(move(1, &anchor, 0)); /* 4 */
    reopen();
    assert_int_equal(look(1).anchor.commits, 5);
    file_flip(directory, "anchors", copy_at(1, 4) + 90);
    reopen();
    assert_int_equal(reports, 1);
    assert_int_equal(look(1).anchor.commits, 0);
    assert_int_equal(look(1).anchor.epoch, 1);
    assert_ok(move(1, &anchor, 0)); /* over the torn one */
    reopen();
    assert_int_equal(reports, 1);
    assert_int_equal(look(1).anchor.commits, 5);
    file_flip(directory, "anchors", copy_at(1, 3) + 90); /* the older one does not matter */
    reopen();
    assert_int_equal(look(1).anchor.commits, 5);
}

static void an_anchor_with_both_copies_damaged_refuses_its_tenant_alone(void **state)
{
    (void)state;
    struct released_key key;
    uint8_t fingerprint[HASH_BYTES];
    create(1);
    opened(1, SPAN(""));
    create(2);
    file_flip(directory, "anchors", copy_at(1, 2) + 400); /* in the zeros behind it, too */
    file_flip(directory, "anchors", copy_at(1, 3) + 3);
    reopen();
    assert_int_equal(reports, 1);
    assert_int_equal(release(&key, 1, SPAN("")), CORRUPT);
    names("anchor");
    assert_int_equal(keystore_create(fingerprint, store, id_of(1), &fault), CORRUPT);
    assert_int_equal(keystore_discard(store, id_of(1), &fault), CORRUPT);
    opened(2, SPAN(""));
    create(3); /* in a slot of its own */
    reopen();
    assert_int_equal(look(2).anchor.epoch, 1);
    assert_int_equal(look(3).state, KEY_LIVE);
}

static void a_slot_cannot_be_moved_to_another_place(void **state)
{
    (void)state;
    static uint8_t bytes[1 << 16];
    create(1);
    create(2);
    ptrdiff_t length = file_read(directory, "anchors", bytes, sizeof bytes);
    memcpy(bytes + copy_at(2, 0), bytes + copy_at(1, 0), SLOT);
    file_write(directory, "anchors", bytes, (size_t)length);
    reopen();
    assert_int_equal(look(1).state, KEY_LIVE);
    assert_int_equal(look_status(2), CORRUPT);
}

static struct charter_head head_of(uint8_t n)
{
    struct charter_head own, platform;
    assert_ok(keystore_heads(&own, &platform, store, id_of(n), &fault));
    return own;
}

static void sign(uint8_t n, uint64_t sequence, const char *document)
{
    struct signed_charter charter = {.sequence = sequence, .document = span_of_text(document)};
    bool is_new;
    memcpy(charter.id, id_of(n), TENANT_ID_BYTES);
    assert_ok(keystore_charter(&is_new, store, &charter, false, &fault));
    assert_true(is_new);
}

/* Copies as they were written before there were charters. */
static void write_older_form(void)
{
    enum { OLD_TEXT = 165, OLD_COPY = OLD_TEXT + HASH_BYTES };
    static const struct key_name records = {.kind = KEY_RECORDS};
    static uint8_t bytes[1 << 16];
    struct provider *provider;
    ptrdiff_t length = file_read(directory, "anchors", bytes, sizeof bytes);
    assert_ok(file_provider_open(&provider, directory, &fault));
    for (uint8_t *copy = bytes + SLOT; copy < bytes + length; copy += SECTOR) {
        if (copy[0] == 0)
            continue;
        struct buffer text = buffer_over(copy, SECTOR);
        text.length = OLD_TEXT;
        copy[7] = '1';
        memset(copy + OLD_TEXT, 0, SECTOR - OLD_TEXT);
        assert_ok(provider->methods->sign(&text, provider, &records, buffer_span(&text), &fault));
        assert_int_equal(text.length, OLD_COPY);
    }
    provider->methods->close(provider);
    file_write(directory, "anchors", bytes, (size_t)length);
}

static void a_store_from_before_charters_opens_and_no_charter_was_signed(void **state)
{
    (void)state;
    create(1);
    create(2);
    struct released_key key = opened(1, SPAN(""));
    struct anchor anchor = anchor_at(&key, 5, 5);
    assert_ok(move(1, &anchor, 0));
    assert_ok(keystore_sync(store, &fault));
    store = keystore_close(store);
    write_older_form();
    store = store_open_in(directory);
    assert_int_equal(reports, 0);
    assert_int_equal(look(1).anchor.commits, 5);
    assert_int_equal(head_of(1).sequence, 0);
    assert_int_equal(head_of(0).sequence, 0);
    sign(1, 1, "first"); /* then one copy is of either form */
    reopen();
    assert_int_equal(reports, 0);
    assert_int_equal(look(1).anchor.commits, 5);
    assert_int_equal(head_of(1).sequence, 1);
    assert_int_equal(look(2).state, KEY_LIVE);
}

/* The MAC is over the form, too: cutting off the head of a copy does not make an older one. */
static void a_charters_head_cannot_be_cut_off_its_anchor(void **state)
{
    (void)state;
    static uint8_t bytes[1 << 16];
    create(1);
    sign(1, 1, "first");
    reopen(); /* sequences 1 to 3 */
    ptrdiff_t length = file_read(directory, "anchors", bytes, sizeof bytes);
    uint8_t *newest = bytes + copy_at(1, 3);
    newest[7] = '1';
    memset(newest + 165, 0, SECTOR - 165);
    memcpy(newest + 165, bytes + copy_at(1, 3) + 205, HASH_BYTES);
    file_write(directory, "anchors", bytes, (size_t)length);
    file_flip(directory, "anchors", copy_at(1, 2) + 90);
    reopen();
    assert_int_equal(reports, 1);
    assert_int_equal(look_status(1), CORRUPT);
}

static void a_discarded_tenant_leaves_no_charter_behind(void **state)
{
    (void)state;
    create(1);
    sign(1, 1, "first");
    sign(0, 1, "of the platform");
    reopen();
    assert_int_equal(head_of(1).sequence, 1);
    assert_ok(keystore_discard(store, id_of(1), &fault));
    create(1);
    reopen();
    assert_int_equal(head_of(1).sequence, 0);
    assert_int_equal(head_of(0).sequence, 1);
}

static void many_tenants_come_and_go_and_slots_are_used_again(void **state)
{
    (void)state;
    struct key_status gone;
    struct stat before, after;
    for (unsigned n = 1; n <= 150; n++)
        create((uint8_t)n);
    assert_int_equal(fstatat(directory, "anchors", &before, 0), 0);
    for (unsigned n = 1; n <= 150; n += 3)
        assert_ok(keystore_discard(store, id_of((uint8_t)n), &fault));
    for (unsigned n = 2; n <= 150; n += 3)
        assert_ok(keystore_shred(&gone, store, id_of((uint8_t)n), &fault));
    for (unsigned n = 151; n <= 230; n++)
        create((uint8_t)n);
    assert_int_equal(fstatat(directory, "anchors", &after, 0), 0);
    assert_int_equal(before.st_size, after.st_size);
    for (int i = 0; i < 2; i++) {
        for (unsigned n = 1; n <= 230; n++) {
            enum key_state due = n > 150 || n % 3 == 0 ? KEY_LIVE
                               : n % 3 == 1           ? KEY_NONE
                                                      : KEY_SHREDDED;
            assert_int_equal(look((uint8_t)n).state, due);
        }
        reopen();
    }
    assert_int_equal(reports, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_new_store_opens_again_with_the_same_signing_keys),
        TEST(a_created_key_is_live_and_creating_again_changes_nothing),
        TEST(a_dek_comes_back_from_its_wrapped_form_after_a_restart),
        TEST(a_wrapped_dek_opens_for_its_own_tenant_only_and_unchanged_only),
        TEST(a_key_that_does_not_exist_is_not_released),
        TEST(an_empty_wrapped_is_rolled_back_once_the_silo_has_a_history),
        TEST(discarding_undoes_a_create_but_never_a_release),
        TEST(a_shredded_key_is_gone_for_ever_and_its_tombstone_stays),
        TEST(shredding_overwrites_the_file_and_writes_the_tombstone_first),
        TEST(what_never_was_cannot_be_shredded_nor_can_the_platform),
        TEST(a_damaged_key_can_still_be_erased),
        TEST(a_damaged_tombstone_neither_raises_the_dead_nor_kills),
        TEST(a_moved_anchor_is_kept_and_its_checkpoint_verifies),
        TEST(an_anchor_never_shrinks_nor_changes_what_it_stands_for),
        TEST(an_anchor_of_another_epoch_is_refused),
        TEST(a_log_that_was_rewritten_is_refused_whatever_the_proof),
        TEST(without_its_root_key_the_store_does_not_start),
        TEST(signing_keys_and_anchors_are_never_silently_replaced),
        TEST(the_seeds_cannot_be_swapped),
        TEST(a_damaged_kek_refuses_its_tenant_alone_and_is_left_as_it_is),
        TEST(what_is_no_file_is_no_key),
        TEST(the_kek_of_another_tenant_or_of_another_time_is_refused),
        TEST(a_released_key_that_is_missing_is_not_made_again),
        TEST(a_torn_copy_of_an_anchor_costs_the_newest_move_only),
        TEST(an_anchor_with_both_copies_damaged_refuses_its_tenant_alone),
        TEST(a_slot_cannot_be_moved_to_another_place),
        TEST(a_store_from_before_charters_opens_and_no_charter_was_signed),
        TEST(a_charters_head_cannot_be_cut_off_its_anchor),
        TEST(a_discarded_tenant_leaves_no_charter_behind),
        TEST(many_tenants_come_and_go_and_slots_are_used_again),
    };
    struct fault why;
    if (crypt_start(&why) != OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
