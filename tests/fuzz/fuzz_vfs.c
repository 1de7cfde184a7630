/* Whoever has the disk, and whoever even has the keys.
 *
 * First byte even: the rest is a program of changes to the files of a silo (blocks of other times
 * and of another silo, flipped bits, cuts, removals). The store then answers with an error or with
 * the content of one single time, and with the anchor only with the newest.
 * First byte odd: the rest is cut into records of the page map, sealed as the store would seal
 * them, so that the parser behind the seal sees what only a keyholder could write. */
#include "fuzz.h"

#include "../unit/store/sim.h"
#include "base/buffer.h"
#include "base/cursor.h"
#include "store/map.h"
#include "store/statement.h"

#include <string.h>

enum { ROWS = 40, OLD = 0, PARKED, CRASHED, STRANGER, COPIES, CHANGES_MAX = 12 };

static const char *const names[] = {STORE_DATABASE, STORE_MAP, STORE_WAL};
static const size_t block_bytes[] = {4096, 1, 4120}, blocks_at[] = {0, 0, 8192};
static const uint8_t id[TENANT_ID_BYTES] = "silo to be fuzz";
static const uint8_t other_id[TENANT_ID_BYTES] = "stranger";
static const struct store_key key = {.version = 1, .dek = "a data key for the fuzz target.."};

static struct sim *copies[COPIES];
static struct store_anchor newest;
static int64_t newest_time;

static status open_sim(struct store **ret, struct sim *sim, const uint8_t *silo_id,
                       const struct store_anchor *anchor)
{
    struct fault fault;
    struct store_options options = {.silo_fd = -1, .silo_id = silo_id, .keys = &key,
                                    .key_count = 1, .anchor = anchor, .io = &sim->io};
    return store_open(ret, &options, &fault);
}

/* Every row is rewritten, so that pages of two times cannot be mixed unseen. */
static void turn(struct store *store, int64_t time)
{
    struct fault fault;
    struct statement *put = NULL;
    CHECK(store_begin(store, &fault) == OK);
    CHECK(store_execute(store, "CREATE TABLE IF NOT EXISTS item (row INTEGER PRIMARY KEY,"
                               " time INTEGER, data BLOB)", &fault) == OK);
    CHECK(statement_open(&put, store, "INSERT OR REPLACE INTO item VALUES (?1, ?2, zeroblob(500))",
                         &fault) == OK);
    for (int row = 0; row < ROWS; row++) {
        statement_bind_int(put, 1, row);
        statement_bind_int(put, 2, time);
        CHECK(statement_run(put, &fault) == OK);
        statement_reset(put);
    }
    statement_close(put);
    CHECK(store_commit(store, &fault) == OK);
}

static void make_copies(const uint8_t *silo_id, struct sim *made[3])
{
    struct fault fault;
    struct store *store;
    struct sim *sim = sim_create(1);
    newest_time = 0;
    for (int copy = OLD; copy <= PARKED; copy++) {
        CHECK(open_sim(&store, sim, silo_id, NULL) == OK);
        turn(store, ++newest_time);
        CHECK(store_close(store, NULL, &fault) == OK);
        made[copy] = sim_copy(sim);
    }
    CHECK(open_sim(&store, sim, silo_id, NULL) == OK);
    for (int i = 0; i < 3; i++)
        turn(store, ++newest_time);
    newest = store_anchor(store);
    made[CRASHED] = sim_copy(sim);
    store_abandon(store);
    sim_free(sim);
}

static void start(void)
{
    struct fault fault;
    struct sim *strangers[3];
    CHECK(crypt_start(&fault) == OK && store_start(&fault) == OK);
    make_copies(other_id, strangers);
    copies[STRANGER] = strangers[CRASHED];
    sim_free(strangers[OLD]);
    sim_free(strangers[PARKED]);
    make_copies(id, copies);
}

/* The time that all rows show; 0: an error. */
static int64_t read_time(struct store *store)
{
    struct fault fault;
    _cleanup_statement_ struct statement *read = NULL;
    int64_t time = 0;
    int rows = 0;
    status found = statement_open(&read, store, "SELECT time, data FROM item", &fault);
    while (found == OK && (found = statement_step(read, &fault)) == OK) {
        CHECK(rows == 0 || statement_int(read, 0) == time);
        time = statement_int(read, 0);
        CHECK(time > 0 && time <= newest_time);
        rows++;
    }
    CHECK(found != NOT_FOUND || rows == ROWS);
    return found == NOT_FOUND ? time : 0;
}

static void copy_block(struct sim_bytes *to, size_t at, const struct sim_bytes *from,
                       size_t from_at, size_t length)
{
    if (at + length <= to->length && from_at + length <= from->length)
        memcpy(to->data + at, from->data + from_at, length);
}

static void change(struct sim *sim, uint8_t operation, uint8_t which, uint16_t left, uint16_t right)
{
    int file = which % 3;
    struct sim_bytes *bytes = sim_file(sim, names[file]);
    struct sim_bytes *from = sim_file(copies[which / 3 % COPIES], names[file]);
    if (bytes == NULL)
        return;
    size_t at = blocks_at[file] + left * block_bytes[file];
    size_t from_at = blocks_at[file] + right * block_bytes[file];
    switch (operation % 7) {
    case 0: /* a bit */
        if (bytes->length != 0)
            bytes->data[(left * 65536u + right) % bytes->length] ^= (uint8_t)(1 << (which >> 5));
        break;
    case 1: sim_resize(sim, names[file], (size_t)left * 16 + right % 16); break;
    case 2: copy_block(bytes, at, from, from_at, block_bytes[file]); break;
    case 3: copy_block(bytes, at, from, at, block_bytes[file] * (right % 8 + 1)); break;
    case 4: sim_set(sim, names[file], (struct span){from->data, from->length}); break;
    case 5: copy_block(bytes, left % 8192, from, left % 8192, right % 4096); break; /* headers */
    default: sim_remove(sim, names[file]); break;
    }
}

static void check_silo(const struct sim *changed, bool anchored)
{
    struct sim *sim = sim_copy(changed);
    struct store *store;
    status opened = open_sim(&store, sim, id, anchored ? &newest : NULL);
    if (opened == OK) {
        int64_t time = read_time(store);
        CHECK(!anchored || time == 0 || time == newest_time);
        CHECK(time != 0 || store_damage(store).count != 0 || !anchored);
        store_abandon(store);
    } else {
        CHECK(opened == CORRUPT || opened == ROLLED_BACK);
    }
    sim_free(sim);
}

static void fuzz_files(struct span program)
{
    struct cursor cursor = cursor_over(program);
    struct fault fault;
    struct sim *sim = sim_copy(copies[CRASHED]);
    uint8_t operation, which;
    uint16_t left, right;
    for (int i = 0; i < CHANGES_MAX && cursor_u8(&operation, &cursor, &fault) == OK &&
                    cursor_u8(&which, &cursor, &fault) == OK &&
                    cursor_u16(&left, &cursor, &fault) == OK &&
                    cursor_u16(&right, &cursor, &fault) == OK;
         i++)
        change(sim, operation, which, left, right);
    check_silo(sim, false);
    check_silo(sim, true);
    sim_free(sim);
}

/* Each record of the input: kind, u16 length, text. */
static void put_record(struct buffer *out, struct seal *seal, uint8_t kind, struct span text,
                       uint8_t before[TAG_BYTES])
{
    uint8_t *sealed, trailer[SEAL_BYTES];
    buffer_put_u32(out, (uint32_t)kind << 24 | (uint32_t)text.length);
    sealed = buffer_reserve(out, text.length);
    CHECK(sealed != NULL);
    seal_put(sealed, trailer, seal,
             (struct seal_place){.file = SEAL_MAP, .kind = kind, .major = text.length,
                                 .before = before},
             text);
    buffer_advance(out, text.length);
    buffer_put(out, SPAN_OF(trailer));
    memcpy(before, trailer + SEAL_TAG_AT, TAG_BYTES);
}

static void check_map(struct sim *sim, struct seal *seal)
{
    const struct disk disk = {.io = &sim->io, .silo_fd = -1};
    struct map map;
    struct fault fault;
    bool torn;
    map_init(&map, &disk, seal);
    status loaded = map_load(&map, &torn, NULL, &fault);
    CHECK(loaded == OK || loaded == CORRUPT || loaded == TOO_LARGE || loaded == NOT_FOUND);
    if (loaded == OK) {
        for (uint32_t page = 0; page < map.pages + 2 && page < 100000; page++)
            CHECK(map_tag(&map, page) == NULL || (page >= 1 && page <= map.pages));
        uint32_t next = map.pages < STORE_PAGES_MAX ? map.pages + 1 : 1;
        CHECK(map_set(&map, next, id, &fault) == OK);
    }
    map_destroy(&map);
}

static void fuzz_map(struct span input)
{
    static struct seal seal;
    struct fault fault;
    struct store_options options = {.silo_id = id, .keys = &key, .key_count = 1};
    struct cursor cursor = cursor_over(input);
    struct buffer file = buffer_of(1u << 20);
    uint8_t before[TAG_BYTES] = {0}, kind;
    uint16_t length;
    struct span text;
    if (seal.key_count == 0)
        CHECK(seal_create(&seal, &options, &fault) == OK);
    while (cursor_u8(&kind, &cursor, &fault) == OK && cursor_u16(&length, &cursor, &fault) == OK &&
           cursor_bytes(&text, &cursor, length, &fault) == OK)
        put_record(&file, &seal, kind, text, before);
    buffer_put(&file, (struct span){cursor.next, cursor_left(&cursor)}); /* a torn end */
    struct sim *sim = sim_create(1);
    sim_set(sim, STORE_MAP, buffer_span(&file));
    check_map(sim, &seal);
    sim_free(sim);
    buffer_free(&file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (copies[0] == NULL)
        start();
    if (size == 0)
        return 0;
    struct span rest = {data + 1, size - 1};
    if (data[0] % 2 == 0)
        fuzz_files(rest);
    else
        fuzz_map(rest);
    return 0;
}
