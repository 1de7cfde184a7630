/* Every call to the disk fails in turn, once or for good; nothing that was acknowledged is lost. */
#include "disk_faults.h"
#include "support.h"

#include "base/hex.h"
#include "crypt/note.h"

#include <string.h>
#include <unistd.h>

enum { KEPT = 1, SUBJECT = 2, CALLS_MAX = 200 };

static int prepared; /* a store with the tenant KEPT, its key released and its anchor moved */
static struct released_key kept;
static struct anchor kept_anchor;

static int directory;
static struct keystore *store;
static struct fault fault;

static void advance(struct anchor *anchor, uint64_t log_size)
{
    anchor->commits++;
    anchor->map_generation++;
    anchor->log_size = log_size;
    log_root(anchor->log_root, log_size);
}

static status move_to(uint8_t n, const struct anchor *anchor, uint64_t from)
{
    struct hash_value proof[CONSISTENCY_PROOF_MAX];
    uint8_t storage[NOTE_MAX];
    struct buffer note = buffer_over(storage, sizeof storage);
    uint32_t count = log_proof(proof, from, anchor->log_size);
    return keystore_move(&note, store, id_of(n), anchor->epoch, anchor, proof, count, &fault);
}

static status create_and_sync(uint8_t n)
{
    uint8_t fingerprint[HASH_BYTES];
    TRY(keystore_create(fingerprint, store, id_of(n), &fault));
    return keystore_sync(store, &fault);
}

static int prepare(void **state)
{
    (void)state;
    prepared = directory_make();
    store = store_open_in(prepared);
    assert_ok(create_and_sync(KEPT));
    assert_ok(keystore_release(&kept, store, id_of(KEPT), SPAN(""), &fault));
    kept_anchor = kept.anchor;
    advance(&kept_anchor, 5);
    assert_ok(move_to(KEPT, &kept_anchor, 0));
    assert_ok(keystore_sync(store, &fault));
    store = keystore_close(store);
    return 0;
}

static int dispose(void **state)
{
    (void)state;
    directory_remove(prepared);
    return 0;
}

static enum key_state state_of(uint8_t n)
{
    struct key_status key;
    assert_ok(keystore_look(&key, store, id_of(n), &fault));
    return key.state;
}

/* The bystander's key opens, and its anchor is no older than what was acknowledged. */
static void the_bystander_is_whole(void)
{
    struct key_status key;
    struct released_key back;
    assert_ok(keystore_look(&key, store, id_of(KEPT), &fault));
    assert_int_equal(key.state, KEY_LIVE);
    assert_true(key.anchor.epoch >= kept_anchor.epoch);
    assert_int_equal(key.anchor.commits, kept_anchor.commits);
    assert_int_equal(key.anchor.log_size, kept_anchor.log_size);
    assert_ok(keystore_release(&back, store, id_of(KEPT), wrapped_of(&kept), &fault));
    assert_memory_equal(back.deks[0].key, kept.deks[0].key, KEY_BYTES);
}

static void restart(void)
{
    store = keystore_close(store);
    store = store_open_in(directory);
    assert_int_equal(files_with_suffix(directory, ".tmp"), 0);
    assert_int_equal(files_with_suffix(directory, ".gone"), 0);
}

struct scenario {
    void (*before)(void);      /* on a sound disk */
    status (*act)(void);       /* while the nth call fails */
    void (*after)(status was); /* on a sound disk again */
};

/* Runs with the nth call failing, for each n until none is reached. */
static void run(const struct scenario *scenario, enum disk_faults_mode mode)
{
    unsigned nth = 1;
    for (bool reached = true; reached; nth++) {
        assert_true(nth < CALLS_MAX);
        directory = directory_copy(prepared);
        store = store_open_in(directory);
        if (scenario->before)
            scenario->before();
        disk_faults_arm(mode, nth);
        status was = scenario->act();
        reached = disk_faults_disarm();
        assert_true(reached || was == OK);
        if (mode == DISK_DIES)
            restart();
        scenario->after(was);
        the_bystander_is_whole();
        restart();
        scenario->after(was);
        the_bystander_is_whole();
        store = keystore_close(store);
        directory_remove(directory);
    }
    assert_true(nth > 3); /* a write and its sync at least */
}

static void run_both(const struct scenario *scenario)
{
    run(scenario, DISK_FAILS_ONCE);
    run(scenario, DISK_DIES);
}

/* ---- creating ---- */

static status act_create(void)
{
    return create_and_sync(SUBJECT);
}

static void after_create(status was)
{
    enum key_state state = state_of(SUBJECT);
    assert_true(state == KEY_LIVE || (was != OK && state == KEY_NONE));
    assert_ok(create_and_sync(SUBJECT));
    assert_int_equal(state_of(SUBJECT), KEY_LIVE);
}

static void a_create_cut_short_leaves_a_live_key_or_none(void **state)
{
    (void)state;
    run_both(&(struct scenario){NULL, act_create, after_create});
}

static void before_with_subject(void)
{
    assert_ok(create_and_sync(SUBJECT));
}

static void after_create_again(status was)
{
    (void)was;
    assert_int_equal(state_of(SUBJECT), KEY_LIVE);
}

static void creating_what_exists_never_loses_it(void **state)
{
    (void)state;
    run_both(&(struct scenario){before_with_subject, act_create, after_create_again});
}

/* ---- discarding ---- */

static status act_discard(void)
{
    return keystore_discard(store, id_of(SUBJECT), &fault);
}

static void after_discard(status was)
{
    enum key_state state = state_of(SUBJECT);
    assert_true(state == KEY_NONE || (was != OK && state == KEY_LIVE));
    assert_ok(keystore_discard(store, id_of(SUBJECT), &fault));
    assert_int_equal(state_of(SUBJECT), KEY_NONE);
    assert_ok(create_and_sync(SUBJECT));
    assert_ok(keystore_discard(store, id_of(SUBJECT), &fault));
}

static void a_discard_cut_short_can_be_finished(void **state)
{
    (void)state;
    run_both(&(struct scenario){before_with_subject, act_discard, after_discard});
}

/* ---- releasing ---- */

static struct released_key given;

static status act_release(void)
{
    TRY(keystore_release(&given, store, id_of(SUBJECT), SPAN(""), &fault));
    return keystore_sync(store, &fault);
}

static void after_release(status was)
{
    struct released_key back;
    if (was == OK) {
        assert_ok(keystore_release(&back, store, id_of(SUBJECT), wrapped_of(&given), &fault));
        assert_memory_equal(back.deks[0].key, given.deks[0].key, KEY_BYTES);
        assert_true(back.anchor.epoch > given.anchor.epoch);
    } else {
        assert_int_equal(state_of(SUBJECT), KEY_LIVE);
        assert_ok(keystore_release(&back, store, id_of(SUBJECT), SPAN(""), &fault));
    }
}

static void a_released_key_was_durable_before(void **state)
{
    (void)state;
    run_both(&(struct scenario){before_with_subject, act_release, after_release});
}

/* ---- moving ---- */

static struct anchor moved;

static void before_move(void)
{
    before_with_subject();
    assert_ok(keystore_release(&given, store, id_of(SUBJECT), SPAN(""), &fault));
    moved = given.anchor;
    advance(&moved, 5);
    assert_ok(move_to(SUBJECT, &moved, 0));
    assert_ok(keystore_sync(store, &fault));
}

static status act_move(void)
{
    struct anchor next = moved;
    advance(&next, 23);
    TRY(move_to(SUBJECT, &next, 5));
    return keystore_sync(store, &fault);
}

static void after_move(status was)
{
    struct key_status key;
    assert_ok(keystore_look(&key, store, id_of(SUBJECT), &fault));
    assert_int_equal(key.anchor.epoch, given.anchor.epoch);
    bool is_old = key.anchor.commits == moved.commits && key.anchor.log_size == 5;
    bool is_new = key.anchor.commits == moved.commits + 1 && key.anchor.log_size == 23;
    assert_true(is_new || (was != OK && is_old));
    if (is_old) {
        struct anchor next = moved;
        advance(&next, 23);
        assert_ok(move_to(SUBJECT, &next, 5));
        assert_ok(keystore_sync(store, &fault));
    }
}

static void a_move_cut_short_is_the_anchor_before_or_the_new_one(void **state)
{
    (void)state;
    run_both(&(struct scenario){before_move, act_move, after_move});
}

static status act_two_moves(void)
{
    struct anchor next = kept_anchor;
    struct released_key again;
    TRY(keystore_release(&again, store, id_of(KEPT), wrapped_of(&kept), &fault));
    next.epoch = again.anchor.epoch;
    TRY(move_to(KEPT, &next, 5));
    return act_move();
}

static void moves_of_one_turn_do_not_hurt_each_other(void **state)
{
    (void)state;
    run_both(&(struct scenario){before_move, act_two_moves, after_move});
}

/* ---- charters ---- */

static status sign(uint64_t sequence, const char *document)
{
    struct signed_charter charter = {.sequence = sequence, .document = span_of_text(document)};
    bool is_new;
    memcpy(charter.id, id_of(SUBJECT), TENANT_ID_BYTES);
    TRY(keystore_charter(&is_new, store, &charter, false, &fault));
    return keystore_sync(store, &fault);
}

static void before_sign(void)
{
    before_move();
    assert_ok(sign(1, "first"));
}

static status act_sign(void)
{
    return sign(2, "second");
}

/* What was not acknowledged may have happened or not, and can in any case be asked for again. */
static void after_sign(status was)
{
    struct charter_head own, platform;
    struct key_status key;
    assert_ok(keystore_heads(&own, &platform, store, id_of(SUBJECT), &fault));
    assert_int_equal(platform.sequence, 0);
    assert_true(own.sequence == 2 || (was != OK && own.sequence == 1));
    assert_int_equal(sign(1, "first"), own.sequence == 1 ? OK : CONFLICT);
    assert_ok(sign(2, "second"));
    assert_int_equal(sign(2, "another"), CONFLICT);
    assert_int_equal(sign(1, "first"), CONFLICT);
    assert_ok(keystore_look(&key, store, id_of(SUBJECT), &fault));
    assert_int_equal(key.anchor.log_size, moved.log_size); /* it costs the silo's anchor nothing */
}

static void a_charter_cut_short_is_the_one_before_or_the_new_one(void **state)
{
    (void)state;
    run_both(&(struct scenario){before_sign, act_sign, after_sign});
}

/* ---- shredding ---- */

static uint8_t fingerprint[HASH_BYTES];

static void before_shred(void)
{
    struct key_status key;
    before_move();
    assert_ok(keystore_look(&key, store, id_of(SUBJECT), &fault));
    memcpy(fingerprint, key.fingerprint, HASH_BYTES);
}

static status act_shred(void)
{
    struct key_status gone;
    return keystore_shred(&gone, store, id_of(SUBJECT), &fault);
}

static void after_shred(status was)
{
    struct key_status gone;
    struct released_key back;
    uint8_t made[HASH_BYTES];
    enum key_state state = state_of(SUBJECT);
    assert_true(state == KEY_SHREDDED || (was != OK && state == KEY_LIVE));
    if (state == KEY_LIVE) {
        assert_ok(keystore_release(&back, store, id_of(SUBJECT), wrapped_of(&given), &fault));
        assert_memory_equal(back.deks[0].key, given.deks[0].key, KEY_BYTES);
    }
    assert_ok(keystore_shred(&gone, store, id_of(SUBJECT), &fault));
    assert_memory_equal(gone.fingerprint, fingerprint, HASH_BYTES);
    assert_int_equal(gone.anchor.commits, moved.commits);
    assert_int_equal(keystore_create(made, store, id_of(SUBJECT), &fault), CONFLICT);
    assert_int_equal(keystore_release(&back, store, id_of(SUBJECT), wrapped_of(&given),
                                      &fault), NOT_FOUND);
    assert_false(file_exists(directory, file_of(SUBJECT, ".kek")));
    assert_int_equal(files_with_suffix(directory, ".gone"), 0);
}

static void a_shred_cut_short_is_not_begun_or_is_finished(void **state)
{
    (void)state;
    run_both(&(struct scenario){before_shred, act_shred, after_shred});
}

/* A tombstone that stood at the crash is obeyed at the start, without anybody asking again. */
static void a_shredded_key_does_not_outlive_a_restart(void **state)
{
    (void)state;
    unsigned finished = 0;
    bool reached = true;
    for (unsigned nth = 1; reached; nth++) {
        directory = directory_copy(prepared);
        store = store_open_in(directory);
        before_shred();
        disk_faults_arm(DISK_DIES, nth);
        (void)act_shred();
        reached = disk_faults_disarm();
        bool buried = file_exists(directory, file_of(SUBJECT, ".tombstone"));
        bool kek = file_exists(directory, file_of(SUBJECT, ".kek"))
                || files_with_suffix(directory, ".gone") > 0;
        assert_true(buried || kek); /* never neither */
        restart();
        assert_int_equal(state_of(SUBJECT), buried ? KEY_SHREDDED : KEY_LIVE);
        assert_true(file_exists(directory, file_of(SUBJECT, ".kek")) != buried);
        finished += buried && kek;
        store = keystore_close(store);
        directory_remove(directory);
    }
    assert_true(finished >= 3);
}

static void the_tombstone_is_durable_before_the_key_is_touched(void **state)
{
    (void)state;
    directory = directory_copy(prepared);
    store = store_open_in(directory);
    before_shred();
    disk_faults_arm(DISK_SOUND, 0);
    assert_ok(act_shred());
    char tombstone[96], doomed[96];
    snprintf(tombstone, sizeof tombstone, "rename to %s\nfsync", file_of(SUBJECT, ".tombstone"));
    snprintf(doomed, sizeof doomed, "rename to %s", file_of(SUBJECT, ".kek.gone"));
    const char *buried = strstr(disk_faults_trace(), tombstone);
    const char *touched = strstr(disk_faults_trace(), doomed);
    assert_non_null(buried);
    assert_non_null(touched);
    assert_true(buried < touched);
    const char *overwritten = strstr(touched, "pwrite"), *removed = strstr(touched, "unlink");
    assert_true(overwritten && removed && overwritten < strstr(overwritten, "fsync"));
    assert_true(strstr(overwritten, "fsync") < removed);
    assert_non_null(strstr(removed, "fsync")); /* of the directory */
    store = keystore_close(store);
    directory_remove(directory);
}

/* The sync of the directory failed, so the tombstone may not be durable: a retry syncs first. */
static void shredding_again_makes_the_tombstone_durable_first(void **state)
{
    (void)state;
    unsigned retried = 0;
    bool reached = true;
    for (unsigned nth = 1; reached; nth++) {
        directory = directory_copy(prepared);
        store = store_open_in(directory);
        before_shred();
        disk_faults_arm(DISK_FAILS_ONCE, nth);
        (void)act_shred();
        reached = disk_faults_disarm();
        if (file_exists(directory, file_of(SUBJECT, ".tombstone"))
            && file_exists(directory, file_of(SUBJECT, ".kek"))) {
            disk_faults_arm(DISK_SOUND, 0);
            assert_ok(act_shred());
            const char *synced = strstr(disk_faults_trace(), "\nfsync");
            const char *touched = strstr(disk_faults_trace(), "rename to");
            assert_true(synced && touched && synced < touched);
            retried++;
        }
        store = keystore_close(store);
        directory_remove(directory);
    }
    assert_true(retried >= 1);
}

static void the_first_release_makes_the_key_durable_once_more(void **state)
{
    (void)state;
    struct released_key again;
    directory = directory_copy(prepared);
    store = store_open_in(directory);
    before_with_subject();
    disk_faults_arm(DISK_SOUND, 0);
    assert_ok(act_release());
    const char *synced = strstr(disk_faults_trace(), "\nfsync");
    const char *acknowledged = strstr(disk_faults_trace(), "\nfdatasync");
    assert_true(synced && acknowledged && synced < acknowledged);
    disk_faults_arm(DISK_SOUND, 0);
    assert_ok(keystore_release(&again, store, id_of(SUBJECT), wrapped_of(&given), &fault));
    assert_null(strstr(disk_faults_trace(), "\nfsync"));
    store = keystore_close(store);
    directory_remove(directory);
}

/* ---- rotating ---- */

static struct released_key kept_by_silo; /* what silo.keys holds */

static void before_rotate(void)
{
    before_move();
    kept_by_silo = given;
}

static status release_and_keep(void)
{
    struct released_key opened;
    TRY(keystore_release(&opened, store, id_of(SUBJECT), wrapped_of(&kept_by_silo), &fault));
    TRY(keystore_sync(store, &fault));
    if (opened.wrapped_length == 0)
        return OK;
    kept_by_silo = opened;
    return keystore_kept(store, id_of(SUBJECT), opened.wrapped_under, &fault);
}

static status act_rotate(void)
{
    uint8_t made[HASH_BYTES];
    TRY(keystore_rotate(made, store, id_of(SUBJECT), &fault));
    TRY(keystore_sync(store, &fault));
    return release_and_keep();
}

/* Wherever it was cut: what the silo holds opens, and asking again finishes it. */
static void after_rotate(status was)
{
    struct released_key back;
    struct key_status key;
    assert_ok(keystore_release(&back, store, id_of(SUBJECT), wrapped_of(&kept_by_silo), &fault));
    assert_memory_equal(back.deks[0].key, given.deks[0].key, KEY_BYTES);
    assert_true(was != OK || back.wrapped_length == 0);
    assert_ok(keystore_sync(store, &fault));
    assert_ok(release_and_keep());
    assert_ok(keystore_look(&key, store, id_of(SUBJECT), &fault));
    assert_false(key.rotating);
    assert_ok(release_and_keep());
}

static void a_kek_rotation_cut_short_loses_no_key_and_can_be_finished(void **state)
{
    (void)state;
    run_both(&(struct scenario){before_rotate, act_rotate, after_rotate});
}

static status act_versions(void)
{
    struct released_key next, left;
    TRY(keystore_next(&next, store, id_of(SUBJECT), wrapped_of(&kept_by_silo), &fault));
    TRY(keystore_sync(store, &fault));
    kept_by_silo = next;
    TRY(keystore_drop(&left, store, id_of(SUBJECT), wrapped_of(&next), next.deks[0].version,
                      &fault));
    TRY(keystore_sync(store, &fault));
    kept_by_silo = left;
    return OK;
}

/* The newest version that the silo kept always opens; after the drop the first one never does. */
static void after_versions(status was)
{
    struct released_key back;
    assert_ok(keystore_release(&back, store, id_of(SUBJECT), wrapped_of(&kept_by_silo), &fault));
    assert_memory_equal(back.deks[0].key, kept_by_silo.deks[0].key, KEY_BYTES);
    status old = keystore_release(&back, store, id_of(SUBJECT), wrapped_of(&given), &fault);
    assert_true(was == OK ? old == ROLLED_BACK : old == OK || old == ROLLED_BACK);
    assert_ok(keystore_sync(store, &fault));
}

static void versions_of_a_data_key_cut_short_are_those_that_the_silo_kept(void **state)
{
    (void)state;
    run_both(&(struct scenario){before_rotate, act_versions, after_versions});
}

/* ---- starting ---- */

static void a_first_start_cut_short_is_finished_by_the_next(void **state)
{
    (void)state;
    bool reached = true;
    for (unsigned nth = 1; reached; nth++) {
        assert_true(nth < CALLS_MAX);
        directory = directory_make();
        struct keystore *half = NULL;
        disk_faults_arm(DISK_DIES, nth);
        status was = keystore_open(&half, directory, count_report, NULL, &fault);
        reached = disk_faults_disarm();
        assert_true(was == OK || reached);
        keystore_close(half);
        store = store_open_in(directory);
        assert_int_equal(state_of(0), KEY_LIVE);
        assert_ok(create_and_sync(SUBJECT));
        restart();
        assert_int_equal(state_of(SUBJECT), KEY_LIVE);
        store = keystore_close(store);
        directory_remove(directory);
    }
}

static void a_start_on_a_failing_disk_changes_nothing(void **state)
{
    (void)state;
    bool reached = true;
    for (unsigned nth = 1; reached; nth++) {
        assert_true(nth < CALLS_MAX);
        directory = directory_copy(prepared);
        struct keystore *half = NULL;
        disk_faults_arm(DISK_FAILS_ONCE, nth);
        status was = keystore_open(&half, directory, count_report, NULL, &fault);
        reached = disk_faults_disarm();
        assert_true(was != OK || half);
        keystore_close(half);
        store = store_open_in(directory);
        the_bystander_is_whole();
        store = keystore_close(store);
        directory_remove(directory);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_create_cut_short_leaves_a_live_key_or_none),
        cmocka_unit_test(creating_what_exists_never_loses_it),
        cmocka_unit_test(a_discard_cut_short_can_be_finished),
        cmocka_unit_test(a_released_key_was_durable_before),
        cmocka_unit_test(a_move_cut_short_is_the_anchor_before_or_the_new_one),
        cmocka_unit_test(moves_of_one_turn_do_not_hurt_each_other),
        cmocka_unit_test(a_charter_cut_short_is_the_one_before_or_the_new_one),
        cmocka_unit_test(a_shred_cut_short_is_not_begun_or_is_finished),
        cmocka_unit_test(a_shredded_key_does_not_outlive_a_restart),
        cmocka_unit_test(the_tombstone_is_durable_before_the_key_is_touched),
        cmocka_unit_test(shredding_again_makes_the_tombstone_durable_first),
        cmocka_unit_test(the_first_release_makes_the_key_durable_once_more),
        cmocka_unit_test(a_kek_rotation_cut_short_loses_no_key_and_can_be_finished),
        cmocka_unit_test(versions_of_a_data_key_cut_short_are_those_that_the_silo_kept),
        cmocka_unit_test(a_first_start_cut_short_is_finished_by_the_next),
        cmocka_unit_test(a_start_on_a_failing_disk_changes_nothing),
    };
    struct fault why;
    if (crypt_start(&why) != OK)
        return 1;
    return cmocka_run_group_tests(tests, prepare, dispose);
}
