/* What is stored for objects, and what is left of those that were refused, dropped, replaced,
 * rolled back or met a crash. */
#include "objects.h"

/* ---- quota and space ---- */

static void the_quota_counts_the_bytes_of_objects(void **state)
{
    struct house *house = *state;
    struct posture posture = house->opening.posture;
    uint64_t before;
    assert_ok(house, put(house, &ada, "a", NULL, SPAN("x"))); /* the tables are there */
    before = silo_bytes(house->silo);
    struct span bytes = many(house, 300000, 1);
    assert_ok(house, put(house, &ada, "k", NULL, bytes));
    assert_in_range(silo_bytes(house->silo), before + 300000, before + 300000 + 40000);
    posture.quotas.bytes_stored = silo_bytes(house->silo) + 200000;
    silo_set_posture(house->silo, &posture, 1);
    assert_status(house, put(house, &ada, "l", NULL, bytes), QUOTA_EXCEEDED);
    assert_non_null(strstr(house->fault.detail, "bytes_stored"));
    struct ask lies = {.method = "PUT", .key = "l", .bytes = bytes, .announced = 5};
    assert_status(house, do_ask(house, &ada, &lies), QUOTA_EXCEEDED); /* while they come */
    lies.announced = -1;
    assert_status(house, do_ask(house, &ada, &lies), QUOTA_EXCEEDED);
    assert_int_equal(files_of(house), 2);
    assert_ok(house, del(house, &ada, "k"));
    assert_ok(house, put(house, &ada, "l", NULL, bytes));
    house_reopen(house);
    assert_in_range(silo_bytes(house->silo), before + 300000, before + 300000 + 40000);
    assert_ok(house, del(house, &ada, "l"));
    assert_in_range(silo_bytes(house->silo), 0, before + 40000);
}

static void uploads_at_once_cannot_share_what_is_left(void **state)
{
    struct house *house = *state;
    struct posture posture = house->opening.posture;
    struct envelope envelope;
    struct span headers[HEADERS_MAX], bytes = many(house, 50000, 1);
    struct silo_request request;
    struct silo_upload *uploads[4];
    struct ask ask = {.method = "PUT", .key = "k"};
    assert_ok(house, put(house, &ada, "a", NULL, SPAN("x")));
    posture.quotas.bytes_stored = silo_bytes(house->silo) + 120000;
    silo_set_posture(house->silo, &posture, 1);
    prepare(&request, &envelope, headers, house, &ada, &ask);
    for (int i = 0; i < 4; i++)
        assert_ok(house, silo_upload_begin(&uploads[i], house->silo, &request, -1, &house->fault));
    int taken = 0;
    for (int i = 0; i < 4; i++) {
        status code = silo_upload_put(uploads[i], bytes, &house->fault);
        taken += code == OK;
        assert_true(code == OK || code == QUOTA_EXCEEDED);
    }
    assert_int_equal(taken, 2);
    for (int i = 0; i < 4; i++)
        silo_upload_drop(uploads[i]);
    assert_int_equal(files_of(house), 1);
    assert_ok(house, put(house, &ada, "k", NULL, bytes)); /* what they had is free again */
}

static void a_full_disk_refuses_the_object_and_keeps_the_others(void **state)
{
    struct house *house = *state;
    struct span bytes = many(house, 400000, 1);
    assert_ok(house, put(house, &ada, "k", NULL, SPAN("kept")));
    size_t used = 0;
    for (int i = 0; i < SIM_NAMES; i++)
        if (house->sim->names.at[i].used)
            used += house->sim->now[house->sim->names.at[i].file].length;
    house->sim->space = used + 300000;
    assert_status(house, put(house, &ada, "k", NULL, bytes), OUT_OF_SPACE);
    assert_int_equal(files_of(house), 1);
    house->sim->space = 0;
    assert_reads(house, &ada, "k", SPAN("kept"));
    assert_ok(house, put(house, &ada, "k", NULL, bytes));
}

/* ---- rows and files ---- */

static void an_upload_that_nobody_takes_leaves_nothing(void **state)
{
    struct house *house = *state;
    struct ask ask = {.method = "PUT", .key = "k", .bytes = many(house, 300000, 1),
                      .drops = true};
    assert_status(house, do_ask(house, &ada, &ask), CLOSED);
    assert_int_equal(files_of(house), 0);
    struct ask read;
    assert_status(house, get(house, &read, &ada, "k"), NOT_FOUND);
}

static void a_commit_that_fails_leaves_files_as_they_were(void **state)
{
    struct house *house = *state;
    struct fault fault;
    assert_ok(house, put(house, &ada, "k", NULL, SPAN("old")));
    assert_ok(house, put(house, &ada, "l", NULL, SPAN("other")));
    struct ask replace = {.method = "PUT", .key = "k", .bytes = SPAN("new")};
    struct ask remove = {.method = "DELETE", .key = "l"};
    silo_begin(house->silo, house->now_us);
    assert_ok(house, do_in_turn(house, &ada, &replace, NULL));
    assert_ok(house, do_in_turn(house, &ada, &remove, NULL));
    assert_int_equal(files_of(house), 3); /* nothing goes before the commit */
    house->sim->fail_every = 1;
    assert_true(silo_commit(house->silo, &fault) != OK);
    house->sim->fail_every = 0;
    assert_reads(house, &ada, "k", SPAN("old"));
    assert_reads(house, &ada, "l", SPAN("other"));
    house_expire(house, true);
    house_reopen(house); /* the file of the new one could not be removed: it is swept */
    house_expire(house, false);
    assert_int_equal(files_of(house), 2);
    assert_reads(house, &ada, "k", SPAN("old"));
}

static void a_download_keeps_what_it_began_with(void **state)
{
    struct house *house = *state;
    struct span bytes = many(house, 200000, 1);
    struct silo_download *download = NULL;
    struct ask ask = {.method = "GET", .key = "k"};
    assert_ok(house, put(house, &ada, "k", NULL, bytes));
    silo_begin(house->silo, house->now_us);
    assert_ok(house, do_in_turn(house, &ada, &ask, &download));
    assert_non_null(download);
    assert_ok(house, put(house, &ada, "k", NULL, SPAN("replaced")));
    assert_int_equal(files_of(house), 1);
    assert_ok(house, read_download(house, &ask, download));
    assert_int_equal(ask.content.length, bytes.length);
    assert_memory_equal(ask.content.data, bytes.data, bytes.length);
    assert_reads(house, &ada, "k", SPAN("replaced"));
}

/* Of so many MiB; not in the arena. */
static struct silo_upload *upload_large(struct house *house, uint32_t mib)
{
    static uint8_t piece[MIB(1)];
    struct envelope envelope;
    struct span headers[HEADERS_MAX];
    struct silo_request request;
    struct silo_upload *upload;
    struct ask ask = {.method = "PUT", .key = "large"};
    prepare(&request, &envelope, headers, house, &ada, &ask);
    assert_ok(house, silo_upload_begin(&upload, house->silo, &request, -1, &house->fault));
    for (uint32_t i = 0; i < mib; i++)
        assert_ok(house, silo_upload_put(upload, SPAN_OF(piece), &house->fault));
    return upload;
}

static uint64_t bytes_of_largest(const struct house *house)
{
    uint64_t most = 0;
    for (int i = 0; i < SIM_NAMES; i++)
        if (house->sim->names.at[i].used
            && house->sim->now[house->sim->names.at[i].file].length > most)
            most = house->sim->now[house->sim->names.at[i].file].length;
    return most;
}

static void a_large_file_goes_piece_by_piece(void **state)
{
    struct house *house = *state;
    uint32_t turns = 0;
    assert_ok(house, put(house, &ada, "k", NULL, SPAN("kept")));
    silo_upload_drop(upload_large(house, 40));
    assert_int_equal(files_of(house), 2);
    for (bool more = true; more; turns++) {
        uint64_t before = bytes_of_largest(house);
        assert_int_equal(silo_next_expiry_us(house->silo), 1);
        silo_begin(house->silo, house->now_us);
        assert_ok(house, silo_expire(&more, house->silo, house->now_us, false, &house->fault));
        assert_false(silo_must_commit(house->silo));
        assert_in_range(before - bytes_of_largest(house), 1, MIB(16));
    }
    assert_int_equal(turns, 2);
    assert_int_equal(files_of(house), 1);
    assert_int_equal(silo_next_expiry_us(house->silo), 0);
    assert_reads(house, &ada, "k", SPAN("kept"));
}

static void files_that_a_crash_left_are_swept(void **state)
{
    struct house *house = *state;
    struct envelope envelope;
    struct span headers[HEADERS_MAX];
    struct silo_request request;
    struct silo_upload *upload;
    struct ask ask = {.method = "PUT", .key = "half"};
    for (int i = 0; i < 9; i++) {
        char key[8];
        snprintf(key, sizeof key, "k%d", i);
        assert_ok(house, put(house, &ada, key, NULL, SPAN("x")));
    }
    prepare(&request, &envelope, headers, house, &ada, &ask);
    struct silo *dying = house->silo;
    assert_ok(house, silo_upload_begin(&upload, dying, &request, -1, &house->fault));
    assert_ok(house, silo_upload_put(upload, many(house, 300000, 2), &house->fault));
    struct sim *then = sim_copy(house->sim), *now = house->sim;
    struct anchor anchor = house_anchor(house);
    silo_upload_drop(upload);
    house_expire(house, true);
    house_reopen(house);
    assert_int_equal(silo_next_expiry_us(house->silo), 0); /* left in order: nothing is due */
    house->silo = silo_close(house->silo);
    sim_free(now);
    house->sim = then; /* the disk at the moment of the crash */
    house->opening.io = &then->io;
    house->opening.anchor = anchor;
    assert_ok(house, silo_open(&house->silo, &house->opening, &house->fault));
    assert_int_equal(files_of(house), 10);
    assert_int_equal(silo_next_expiry_us(house->silo), 1); /* at once */
    house_expire(house, false);
    assert_int_equal(files_of(house), 9);
    assert_int_equal(silo_next_expiry_us(house->silo), 0);
    for (int i = 0; i < 9; i++) {
        char key[8];
        snprintf(key, sizeof key, "k%d", i);
        assert_reads(house, &ada, key, SPAN("x"));
    }
}

static void a_first_upload_that_a_crash_cut_is_swept_once_there_is_a_store(void **state)
{
    struct house *house = *state;
    struct blobs *blobs;
    struct blob_writer *writer;
    assert_ok(house, blobs_open(&blobs, -1, house->opening.tenant_id, &house->sim->io,
                                &house->fault));
    assert_ok(house, blob_create(&writer, blobs, &house->fault));
    assert_ok(house, blob_put(writer, SPAN("bytes"), &house->fault));
    assert_ok(house, blob_end(writer, &house->fault));
    blob_drop(writer);
    blobs_close(blobs);
    house_expire(house, false);
    assert_int_equal(files_of(house), 1);
    list(house, &ada, NULL);
    house_expire(house, false);
    assert_int_equal(files_of(house), 0);
}

static void held_files_stay_until_they_are_released(void **state)
{
    struct house *house = *state;
    struct blob blob;
    int64_t n = 0;
    assert_ok(house, put(house, &ada, "a", NULL, SPAN("first")));
    assert_ok(house, put(house, &ada, "b", NULL, SPAN("second!")));
    objects_hold(house->silo);
    assert_ok(house, objects_next(&blob, &n, house->silo, &house->fault));
    assert_int_equal(blob.bytes, 5);
    assert_ok(house, objects_next(&blob, &n, house->silo, &house->fault));
    assert_int_equal(blob.bytes, 7);
    assert_status(house, objects_next(&blob, &n, house->silo, &house->fault), NOT_FOUND);
    assert_ok(house, del(house, &ada, "a"));
    assert_ok(house, put(house, &ada, "b", NULL, SPAN("third")));
    assert_int_equal(files_of(house), 3);
    objects_release(house->silo);
    assert_int_equal(files_of(house), 1);
    assert_reads(house, &ada, "b", SPAN("third"));
}

static void a_damaged_or_missing_file_is_that_objects_alone(void **state)
{
    struct house *house = *state;
    struct ask ask;
    assert_ok(house, put(house, &ada, "a", NULL, many(house, 100000, 1)));
    char name[SIM_NAME_TEXT] = "";
    for (uint32_t i = 0; sim_below(house->sim, i); i++)
        if (strcmp(sim_below(house->sim, i), "open") != 0)
            snprintf(name, sizeof name, "%s", sim_below(house->sim, i));
    assert_ok(house, put(house, &ada, "b", NULL, SPAN("sound")));
    sim_file(house->sim, name)->data[70000] ^= 1;
    assert_status(house, get(house, &ask, &ada, "a"), CORRUPT);
    ask = (struct ask){.method = "GET", .key = "a", .headers[RELAY_RANGE] = "bytes=0-99"};
    assert_ok(house, do_ask(house, &ada, &ask)); /* of a chunk that is sound */
    sim_remove(house->sim, name);
    assert_status(house, get(house, &ask, &ada, "a"), CORRUPT);
    assert_reads(house, &ada, "b", SPAN("sound"));
    assert_ok(house, del(house, &ada, "a")); /* it can be deleted, and stored anew */
    assert_ok(house, put(house, &ada, "a", NULL, SPAN("new")));
    assert_reads(house, &ada, "a", SPAN("new"));
}

/* ---- against a plain model ---- */

enum { MODEL_KEYS = 5, MODEL_SIZES = 4 };

struct model {
    bool there[CLEARANCE_COUNT][MODEL_KEYS];
    uint8_t seed[CLEARANCE_COUNT][MODEL_KEYS];
    size_t size[CLEARANCE_COUNT][MODEL_KEYS];
};

static void check_model(struct house *house, const struct model *model)
{
    static const struct who *const callers[] = {&guest, &ada, &chief};
    uint32_t files = 0;
    for (int caller = 0; caller < 3; caller++) {
        for (int k = 0; k < MODEL_KEYS; k++) {
            char key[8];
            struct ask ask;
            int best = -1;
            snprintf(key, sizeof key, "key%d", k);
            for (int c = 0; c <= (int)callers[caller]->clearance; c++)
                best = model->there[c][k] ? c : best;
            if (best < 0)
                assert_status(house, get(house, &ask, callers[caller], key), NOT_FOUND);
            else
                assert_reads(house, callers[caller], key,
                             many(house, model->size[best][k], model->seed[best][k]));
        }
    }
    for (int c = 0; c < CLEARANCE_COUNT; c++)
        for (int k = 0; k < MODEL_KEYS; k++)
            files += model->there[c][k];
    assert_int_equal(files_of(house), files);
}

static void random_operations_agree_with_a_plain_model(void **state)
{
    struct house *house = *state;
    static const struct who *const callers[] = {&guest, &ada, &chief};
    static const size_t sizes[MODEL_SIZES] = {1, 70, 65536, 150001};
    struct model model = {0};
    for (int step = 0; step < 300; step++) {
        const struct who *who = callers[sim_random(house->sim, 3)];
        int c = (int)sim_random(house->sim, (uint64_t)who->clearance + 1);
        int k = (int)sim_random(house->sim, MODEL_KEYS);
        bool covered = false;
        char key[8], query[64];
        snprintf(key, sizeof key, "key%d", k);
        snprintf(query, sizeof query, "classification=%s", clearance_name((enum clearance)c));
        uint64_t what = sim_random(house->sim, 12);
        if (what >= 10) {
            if (what == 10)
                house_reopen(house);
            else
                house_crash(house);
            house_expire(house, false);
            check_model(house, &model);
            arena_reset(&house->arena);
            continue;
        }
        for (int i = 0; i <= (int)who->clearance; i++) {
            covered |= model.there[i][k];
            model.there[i][k] = false;
        }
        if (what >= 7) {
            assert_status(house, del(house, who, key), covered ? OK : NOT_FOUND);
            continue;
        }
        size_t size = sizes[sim_random(house->sim, MODEL_SIZES)];
        model.there[c][k] = true;
        model.size[c][k] = size;
        model.seed[c][k] = (uint8_t)step;
        assert_ok(house, put(house, who, key, query, many(house, size, (uint8_t)step)));
        assert_int_equal(house->http_status, covered ? 200 : 201);
    }
    check_model(house, &model);
}

/* The power is cut in the middle of random work: what was acknowledged is there, whole. */
static void what_was_acknowledged_survives_a_power_cut(void **state)
{
    (void)state;
    uint32_t cuts = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct house *house;
        assert_int_equal(house_build((void **)&house), 0);
        house->sim->random = seed;
        int known[3] = {-1, -1, -1}; /* seed of what was acknowledged; -1: none, -2: in doubt */
        struct span first = SPAN("x");
        assert_ok(house, put(house, &ada, "first", NULL, first));
        house->opening.anchor = house_anchor(house);
        house->sim->cut_at = house->sim->mutations + 20 + sim_random(house->sim, 120);
        for (int step = 0; step < 12 && !house->sim->off; step++) {
            int k = (int)sim_random(house->sim, 3);
            char key[8];
            snprintf(key, sizeof key, "k%d", k);
            bool deletes = known[k] >= 0 && sim_random(house->sim, 3) == 0;
            status done = deletes ? del(house, &ada, key)
                                  : put(house, &ada, key, NULL, many(house, 150000,
                                                                     (uint8_t)step));
            known[k] = done != OK ? -2 : deletes ? -1 : step;
        }
        cuts += house->sim->off;
        silo_abandon(house->silo);
        sim_power_cycle(house->sim);
        assert_ok(house, silo_open(&house->silo, &house->opening, &house->fault));
        house_expire(house, false);
        uint32_t readable = 0;
        for (int k = 0; k < 3; k++) {
            char key[8];
            struct ask ask;
            snprintf(key, sizeof key, "k%d", k);
            status code = get(house, &ask, &ada, key);
            readable += code == OK;
            if (known[k] == -1)
                assert_int_equal(code, NOT_FOUND);
            else if (known[k] >= 0)
                assert_reads(house, &ada, key, many(house, 150000, (uint8_t)known[k]));
            else
                assert_true(code == OK || code == NOT_FOUND);
        }
        assert_reads(house, &ada, "first", first);
        assert_int_equal(files_of(house), readable + 1);
        house_pull_down((void **)&house);
    }
    assert_true(cuts > 20);
}

int main(void)
{
#define IN_A_HOUSE(name) cmocka_unit_test_setup_teardown(name, house_build, house_pull_down)
    const struct CMUnitTest tests[] = {
        IN_A_HOUSE(the_quota_counts_the_bytes_of_objects),
        IN_A_HOUSE(uploads_at_once_cannot_share_what_is_left),
        IN_A_HOUSE(a_full_disk_refuses_the_object_and_keeps_the_others),
        IN_A_HOUSE(an_upload_that_nobody_takes_leaves_nothing),
        IN_A_HOUSE(a_commit_that_fails_leaves_files_as_they_were),
        IN_A_HOUSE(a_download_keeps_what_it_began_with),
        IN_A_HOUSE(a_large_file_goes_piece_by_piece),
        IN_A_HOUSE(files_that_a_crash_left_are_swept),
        IN_A_HOUSE(a_first_upload_that_a_crash_cut_is_swept_once_there_is_a_store),
        IN_A_HOUSE(held_files_stay_until_they_are_released),
        IN_A_HOUSE(a_damaged_or_missing_file_is_that_objects_alone),
        IN_A_HOUSE(random_operations_agree_with_a_plain_model),
        cmocka_unit_test(what_was_acknowledged_survives_a_power_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
