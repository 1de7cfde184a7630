#include "house.h"

#include "silo/memory.h"
#include "silo/schema.h"

/* What a program of an earlier version made, and what was in it: as memory_rows.c had it. */
static const char *const older_keys_sql[] = {
    "CREATE TABLE memory_keys (key BLOB NOT NULL, body BLOB NOT NULL, n INTEGER NOT NULL,"
    " id BLOB NOT NULL, made_at INTEGER NOT NULL, PRIMARY KEY (key)) WITHOUT ROWID;"
    "CREATE INDEX memory_keys_by_item ON memory_keys (n);"
    "CREATE INDEX memory_keys_by_time ON memory_keys (made_at);",
};
static const struct store_schema older_keys = {"memory_keys", older_keys_sql, 1};

static int64_t number(struct house *house, const char *sql)
{
    struct statement *read;
    assert_ok(house, statement_open(&read, house->silo->store, sql, &house->fault));
    assert_ok(house, statement_step(read, &house->fault));
    int64_t value = statement_int(read, 0);
    statement_close(read);
    return value;
}

static int64_t version_of(struct house *house, const char *room)
{
    char sql[128];
    struct statement *read;
    snprintf(sql, sizeof sql, "SELECT value FROM store_state WHERE name = 'room %s'", room);
    char *kept = (char *)arena_copy(&house->arena, span_of_text(sql)).data;
    assert_ok(house, statement_open(&read, house->silo->store, kept, &house->fault));
    status found = statement_step(read, &house->fault);
    int64_t version = found == OK ? statement_int(read, 0) : 0;
    statement_close(read);
    return version;
}

/* A silo with memories in it, as the version before left it, parked. */
static const char *leave_older(struct house *house)
{
    struct fault *fault = &house->fault;
    const char *id = remember(house, &alice, "the key is under the mat");
    remember(house, &alice, "the dog is called Rex");
    struct store *store = house->silo->store;
    assert_ok(house, store_begin(store, fault));
    assert_ok(house, store_migrate(store, &older_keys, fault));
    assert_ok(house, store_execute(store, "INSERT INTO memory_keys VALUES (x'01', x'02', 1, x'03',"
                                          " 4)", fault));
    assert_ok(house, store_commit(store, fault));
    assert_int_equal(version_of(house, "memory_keys"), 1);
    return id;
}

static void assert_whole(struct house *house, const char *id)
{
    assert_ok(house, ask(house, &alice, "GET", path_of(house, id, ""), "", NULL));
    assert_string_equal(answer_text(house, &house->answer, "text"), "the key is under the mat");
    assert_ok(house, ask(house, &alice, "POST", "/v1/memories/search", "",
                         "{\"query\":\"called Rex\"}"));
    assert_string_equal(answer_text(house, answer_item(house, 0), "text"),
                        "the dog is called Rex");
    assert_int_equal(number(house, "SELECT count(*) FROM memories"), 2);
}

static status keep_entry(void *context, const struct store_log_entry *entry, bool *stop,
                         struct fault *fault)
{
    struct house *house = context;
    (void)stop, (void)fault;
    buffer_clear(&house->body);
    buffer_put(&house->body, entry->entry);
    return OK;
}

static struct span entry_at(struct house *house, uint64_t index)
{
    assert_ok(house, store_log_read(house->silo->log, index, index + 1, keep_entry, house,
                                    &house->fault));
    return buffer_span(&house->body);
}

static bool contains(struct span text, const char *part)
{
    struct span wanted = span_of_text(part);
    for (size_t i = 0; i + wanted.length <= text.length; i++)
        if (memcmp(text.data + i, wanted.data, wanted.length) == 0)
            return true;
    return false;
}

static void an_older_silo_is_brought_up_to_date_before_its_first_request(void **state)
{
    struct house *house = *state;
    const char *id = leave_older(house);
    uint64_t entries = store_log_size(house->silo->log);
    house_reopen(house);
    assert_int_equal(version_of(house, "memory_keys"), memory_keys_schema.count);
    assert_true(memory_keys_schema.count > older_keys.count);
    assert_int_equal(store_log_size(house->silo->log), entries + 1);
    struct span entry = entry_at(house, entries);
    assert_true(contains(entry, "\"action\":\"silo.upgraded\""));
    assert_true(contains(entry, "\"changes\":{\"memory_keys\":{\"from\":1,\"to\":2}}"));
    struct json parsed;
    assert_ok(house, json_parse(&parsed, &house->arena, entry, &house->fault));
    assert_whole(house, id);
}

static void a_silo_that_is_up_to_date_is_not_written_to(void **state)
{
    struct house *house = *state;
    remember(house, &alice, "one");
    house_reopen(house);
    uint64_t entries = store_log_size(house->silo->log);
    uint64_t commits = house_anchor(house).commits;
    house_reopen(house);
    assert_int_equal(store_log_size(house->silo->log), entries);
    assert_int_equal(house_anchor(house).commits, commits);
}

static void rooms_that_were_never_used_have_no_tables_after_waking(void **state)
{
    struct house *house = *state;
    leave_older(house);
    house_reopen(house);
    assert_int_equal(version_of(house, "knowledge"), 0);
    assert_int_equal(version_of(house, "used_tokens"), 0);
}

static void put_version(struct house *house, const char *sql)
{
    struct store *store = house->silo->store;
    assert_ok(house, store_begin(store, &house->fault));
    assert_ok(house, store_execute(store, sql, &house->fault));
    assert_ok(house, store_commit(store, &house->fault));
}

static void assert_refused(struct house *house, const char *detail)
{
    struct silo *other;
    assert_ok(house, silo_commit(house->silo, &house->fault));
    assert_ok(house, silo_checkpoint(house->silo, &house->fault));
    struct anchor anchor = house_anchor(house);
    house->silo = silo_close(house->silo);
    house->opening.anchor = anchor;
    uint64_t mutations = house->sim->mutations;
    assert_status(house, silo_open(&other, &house->opening, &house->fault), CONFLICT);
    if (!strstr(house->fault.detail, detail))
        fail_msg("%s", house->fault.detail);
    assert_non_null(strstr(house->fault.detail, "this silo was written by a newer version"));
    assert_int_equal(house->sim->mutations, mutations);
}

static void a_silo_with_newer_tables_is_refused_as_a_whole_and_left_alone(void **state)
{
    struct house *house = *state;
    leave_older(house); /* there is something to upgrade, too: it is not */
    put_version(house, "UPDATE store_state SET value = 9 WHERE name = 'room memory'");
    assert_refused(house, "memory 9 (known: 1)");
}

static void a_silo_with_a_room_that_nobody_knows_is_refused(void **state)
{
    struct house *house = *state;
    remember(house, &alice, "one");
    put_version(house, "INSERT INTO store_state VALUES ('room telepathy', 1)");
    assert_refused(house, "telepathy 1 (known: 0)");
}

/* Every mutation of the disk while it wakes is once the last before the power goes. */
static void a_power_cut_while_tables_change_leaves_the_old_state_or_the_new(void **state)
{
    struct house *house = *state;
    const char *id = leave_older(house);
    assert_ok(house, silo_commit(house->silo, &house->fault));
    assert_ok(house, silo_checkpoint(house->silo, &house->fault));
    house->opening.anchor = house_anchor(house);
    house->silo = silo_close(house->silo);
    struct sim *parked = sim_copy(house->sim);
    bool through = false;
    uint32_t cuts = 0;
    for (uint64_t cut = 1; !through; cut++) {
        struct sim *sim = sim_copy(parked);
        struct silo *woken;
        sim->random = cut * 7919;
        sim->cut_at = cut;
        house->opening.io = &sim->io;
        status opened = silo_open(&woken, &house->opening, &house->fault);
        through = opened == OK && !sim->off;
        if (opened == OK)
            silo_abandon(woken);
        cuts += !through;
        sim_power_cycle(sim);
        sim->cut_at = 0;
        sim_free(house->sim);
        house->sim = sim;
        assert_ok(house, silo_open(&house->silo, &house->opening, &house->fault));
        assert_int_equal(version_of(house, "memory_keys"), 2); /* it was tried again */
        assert_whole(house, id);
        house->silo = silo_abandon(house->silo);
    }
    assert_true(cuts >= 3);
    sim_free(parked);
    assert_ok(house, silo_open(&house->silo, &house->opening, &house->fault));
}

#define HOUSE_TEST(name) cmocka_unit_test_setup_teardown(name, house_build, house_pull_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOUSE_TEST(an_older_silo_is_brought_up_to_date_before_its_first_request),
        HOUSE_TEST(a_silo_that_is_up_to_date_is_not_written_to),
        HOUSE_TEST(rooms_that_were_never_used_have_no_tables_after_waking),
        HOUSE_TEST(a_silo_with_newer_tables_is_refused_as_a_whole_and_left_alone),
        HOUSE_TEST(a_silo_with_a_room_that_nobody_knows_is_refused),
        HOUSE_TEST(a_power_cut_while_tables_change_leaves_the_old_state_or_the_new),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
