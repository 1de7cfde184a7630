#include "store/log.h"

#include "base/cursor.h"
#include "base/secret.h"
#include "store/statement.h"

#include <assert.h>
#include <stdlib.h>

enum {
    TILE_HEIGHT = 8,
    TILE_WIDTH = 1 << TILE_HEIGHT,
    SALTS_AHEAD = 64, /* a system call for each salt would cost more than the entry */
    TILES_KEPT = 3,   /* during one proof: the tile of the leaf, the last one, the one above */
};

static const char *const versions[] = {
    "CREATE TABLE log_entries (idx INTEGER PRIMARY KEY, salt BLOB NOT NULL, entry BLOB NOT NULL);"
    "CREATE TABLE log_nodes (place INTEGER PRIMARY KEY, hash BLOB NOT NULL);",
};
const struct store_schema store_log_schema = {"log", versions, 1};

struct store_log {
    struct store *store;
    bool has_tables, had_tables; /* now, and when the transaction began */
    struct merkle_edge edge, committed;
    uint32_t salts_left;
    uint8_t salts[SALTS_AHEAD][AUDIT_SALT_BYTES];
};

struct tile {
    uint32_t level; /* of its hashes: 0, 8, 16 ... */
    uint64_t index;
    uint32_t count; /* 0: not in use */
    struct hash_value hashes[TILE_WIDTH];
};

struct tiles {
    struct store_log *log;
    uint32_t next; /* slot that is replaced next */
    struct tile kept[TILES_KEPT];
};

/* A node's key: nodes of one level are neighbours, in their order. */
static int64_t place_of(uint32_t level, uint64_t index)
{
    assert(level < 64 && index < (uint64_t)1 << 56);
    return (int64_t)((uint64_t)level << 56 | index);
}

static struct hash_value leaf_of(struct span salt, struct span entry)
{
    const struct span parts[] = {salt, entry};
    return merkle_leaf_parts(parts, 2);
}

status store_log_read(struct store_log *log, uint64_t from, uint64_t to, store_log_each *each,
                      void *context, struct fault *fault)
{
    if (from > to || to > log->edge.size)
        return FAIL(BAD_FIELD, fault, "entries %llu to %llu of a log of %llu",
                    (unsigned long long)from, (unsigned long long)to,
                    (unsigned long long)log->edge.size);
    if (from == to)
        return OK;
    _cleanup_statement_ struct statement *rows = NULL;
    TRY(statement_open(&rows, log->store,
                       "SELECT idx, salt, entry FROM log_entries WHERE idx >= ?1 AND idx < ?2 "
                       "ORDER BY idx", fault));
    statement_bind_int(rows, 1, (int64_t)from);
    statement_bind_int(rows, 2, (int64_t)to);
    bool stop = false;
    for (uint64_t index = from; index < to && !stop; index++) {
        status stepped = statement_step(rows, fault);
        if (stepped != OK && stepped != NOT_FOUND)
            return stepped;
        struct store_log_entry entry = {.index = index};
        if (stepped == OK) {
            entry.salt = statement_span(rows, 1);
            entry.entry = statement_span(rows, 2);
        }
        if (stepped == NOT_FOUND || (uint64_t)statement_int(rows, 0) != index ||
            entry.salt.length != AUDIT_SALT_BYTES)
            return FAIL(CORRUPT, fault, "log: entry %llu is missing", (unsigned long long)index);
        TRY(each(context, &entry, &stop, fault));
    }
    return OK;
}

static status hash_entry(void *context, const struct store_log_entry *entry, bool *stop,
                         struct fault *fault)
{
    (void)stop;
    (void)fault;
    struct tile *tile = context;
    tile->hashes[tile->count++] = leaf_of(entry->salt, entry->entry);
    return OK;
}

static status read_leaves(struct tile *tile, struct store_log *log, struct fault *fault)
{
    uint64_t first = tile->index * TILE_WIDTH;
    uint64_t end = first + TILE_WIDTH < log->edge.size ? first + TILE_WIDTH : log->edge.size;
    if (first >= end)
        return FAIL(CORRUPT, fault, "log: a leaf past the end was asked for");
    return store_log_read(log, first, end, hash_entry, tile, fault);
}

static status read_roots(struct tile *tile, struct store_log *log, struct fault *fault)
{
    uint64_t first = tile->index * TILE_WIDTH;
    _cleanup_statement_ struct statement *rows = NULL;
    TRY(statement_open(&rows, log->store,
                       "SELECT place, hash FROM log_nodes WHERE place >= ?1 AND place < ?2 "
                       "ORDER BY place", fault));
    statement_bind_int(rows, 1, place_of(tile->level, first));
    statement_bind_int(rows, 2, place_of(tile->level, first) + TILE_WIDTH);
    while (tile->count < TILE_WIDTH) {
        status stepped = statement_step(rows, fault);
        if (stepped == NOT_FOUND)
            return OK;
        TRY(stepped);
        struct cursor hash = cursor_over(statement_span(rows, 1));
        if (statement_int(rows, 0) != place_of(tile->level, first + tile->count))
            return FAIL(CORRUPT, fault, "log: a node of level %u is missing", tile->level);
        TRY(cursor_copy(tile->hashes[tile->count].bytes, &hash, HASH_BYTES, fault));
        TRY(cursor_end(&hash, fault));
        tile->count++;
    }
    return OK;
}

static status find_tile(struct tile **ret, struct tiles *tiles, uint32_t level, uint64_t index,
                        struct fault *fault)
{
    for (uint32_t i = 0; i < TILES_KEPT; i++) {
        struct tile *tile = &tiles->kept[i];
        if (tile->count > 0 && tile->level == level && tile->index == index) {
            *ret = tile;
            return OK;
        }
    }
    struct tile *tile = &tiles->kept[tiles->next];
    tiles->next = (tiles->next + 1) % TILES_KEPT;
    tile->level = level;
    tile->index = index;
    tile->count = 0;
    status loaded = level == 0 ? read_leaves(tile, tiles->log, fault)
                               : read_roots(tile, tiles->log, fault);
    if (loaded != OK) {
        tile->count = 0;
        return loaded;
    }
    *ret = tile;
    return OK;
}

/* merkle_read_node: any complete node, hashed from the tile that holds its leaves. */
static status read_node(struct hash_value *ret, void *context, uint32_t level, uint64_t index,
                        struct fault *fault)
{
    uint32_t height = level % TILE_HEIGHT;
    uint64_t first = index << height;
    struct tile *tile;
    TRY(find_tile(&tile, context, level - height, first / TILE_WIDTH, fault));
    uint32_t at = (uint32_t)(first % TILE_WIDTH), width = 1u << height;
    if (at + width > tile->count)
        return FAIL(CORRUPT, fault, "log: node %llu of level %u is missing",
                    (unsigned long long)index, level);
    struct hash_value nodes[TILE_WIDTH / 2];
    for (uint32_t i = 0; i < width; i++)
        nodes[i] = tile->hashes[at + i];
    for (; width > 1; width /= 2)
        for (uint32_t i = 0; i < width / 2; i++)
            nodes[i] = merkle_node(&nodes[2 * i], &nodes[2 * i + 1]);
    *ret = nodes[0];
    return OK;
}

/* The edge of the first `size` entries: its complete subtrees, the largest first. */
static status edge_at(struct merkle_edge *ret, struct store_log *log, uint64_t size,
                      struct fault *fault)
{
    struct tiles *tiles = calloc(1, sizeof *tiles);
    if (tiles == NULL)
        return FAIL(INTERNAL, fault, "log: out of memory");
    tiles->log = log;
    struct merkle_edge edge = {.size = size};
    uint64_t before = 0;
    status done = OK;
    for (uint32_t level = 63; done == OK && level < 64; level--) {
        if ((size >> level & 1) == 0)
            continue;
        done = read_node(&edge.nodes[edge.count++], tiles, level, before >> level, fault);
        before += (uint64_t)1 << level;
    }
    free(tiles);
    if (done == OK)
        *ret = edge;
    return done;
}

static status count_entries(uint64_t *ret, struct store_log *log, struct fault *fault)
{
    _cleanup_statement_ struct statement *last = NULL;
    TRY(statement_open(&last, log->store, "SELECT max(idx) FROM log_entries", fault));
    TRY(statement_step(last, fault));
    int64_t newest = statement_int(last, 0);
    if (newest < 0 || newest >= (int64_t)1 << 56)
        return FAIL(CORRUPT, fault, "log: an entry has an impossible number");
    *ret = statement_is_null(last, 0) ? 0 : (uint64_t)newest + 1;
    return OK;
}

static status load(struct store_log *log, struct fault *fault)
{
    TRY(store_has(&log->has_tables, log->store, &store_log_schema, fault));
    log->had_tables = log->has_tables;
    if (!log->has_tables)
        return OK;
    TRY(store_migrate(log->store, &store_log_schema, fault));
    uint64_t size;
    TRY(count_entries(&size, log, fault));
    log->edge.size = size; /* what may be read */
    TRY(edge_at(&log->edge, log, size, fault));
    log->committed = log->edge;
    return OK;
}

status store_log_open(struct store_log **ret, struct store *store, struct fault *fault)
{
    struct store_log *log = calloc(1, sizeof *log);
    if (log == NULL)
        return FAIL(INTERNAL, fault, "log: out of memory");
    log->store = store;
    status loaded = load(log, fault);
    if (loaded != OK) {
        free(log);
        return loaded;
    }
    *ret = log;
    return OK;
}

struct store_log *store_log_close(struct store_log *log)
{
    if (log != NULL)
        secret_wipe(log, sizeof *log); /* salts that were not used yet */
    free(log);
    return NULL;
}

/* merkle_on_node: keeps the root of every complete tile. */
static status keep_node(void *context, uint32_t level, uint64_t index,
                        const struct hash_value *node, struct fault *fault)
{
    struct store_log *log = context;
    if (level == 0 || level % TILE_HEIGHT != 0)
        return OK;
    _cleanup_statement_ struct statement *insert = NULL;
    TRY(statement_open(&insert, log->store,
                       "INSERT INTO log_nodes (place, hash) VALUES (?1, ?2)", fault));
    statement_bind_int(insert, 1, place_of(level, index));
    statement_bind_blob(insert, 2, SPAN_OF(node->bytes));
    return statement_run(insert, fault);
}

static struct span next_salt(struct store_log *log)
{
    if (log->salts_left == 0) {
        crypt_random(log->salts, sizeof log->salts);
        log->salts_left = SALTS_AHEAD;
    }
    log->salts_left--;
    return SPAN_OF(log->salts[log->salts_left]);
}

status store_log_append(struct store_log *log, struct span entry, struct fault *fault)
{
    if (entry.length > AUDIT_ENTRY_MAX)
        return FAIL(TOO_LARGE, fault, "log entry: %zu bytes, at most %d are allowed", entry.length,
                    AUDIT_ENTRY_MAX);
    if (!log->has_tables) {
        TRY(store_migrate(log->store, &store_log_schema, fault));
        log->has_tables = true;
    }
    struct span salt = next_salt(log);
    _cleanup_statement_ struct statement *insert = NULL;
    TRY(statement_open(&insert, log->store,
                       "INSERT INTO log_entries (idx, salt, entry) VALUES (?1, ?2, ?3)", fault));
    statement_bind_int(insert, 1, (int64_t)log->edge.size);
    statement_bind_blob(insert, 2, salt);
    statement_bind_blob(insert, 3, entry);
    TRY(statement_run(insert, fault));
    struct hash_value leaf = leaf_of(salt, entry);
    return merkle_append(&log->edge, &leaf, keep_node, log, fault);
}

void store_log_committed(struct store_log *log)
{
    log->committed = log->edge;
    log->had_tables = log->has_tables;
}

void store_log_rolled_back(struct store_log *log)
{
    log->edge = log->committed;
    log->has_tables = log->had_tables;
}

uint64_t store_log_next(const struct store_log *log)
{
    return log->edge.size;
}

uint64_t store_log_size(const struct store_log *log)
{
    return log->committed.size;
}

struct hash_value store_log_root(const struct store_log *log)
{
    return merkle_root(&log->committed);
}

status store_log_root_at(struct hash_value *ret, struct store_log *log, uint64_t size,
                         struct fault *fault)
{
    if (size > log->edge.size)
        return FAIL(BAD_FIELD, fault, "the log has %llu entries, not %llu",
                    (unsigned long long)log->edge.size, (unsigned long long)size);
    if (size == log->edge.size) {
        *ret = merkle_root(&log->edge);
        return OK;
    }
    struct merkle_edge edge;
    TRY(edge_at(&edge, log, size, fault));
    *ret = merkle_root(&edge);
    return OK;
}

status store_log_node(struct hash_value *ret, struct store_log *log, uint32_t level,
                      uint64_t index, struct fault *fault)
{
    _cleanup_statement_ struct statement *read = NULL;
    TRY(statement_open(&read, log->store, "SELECT hash FROM log_nodes WHERE place = ?1", fault));
    statement_bind_int(read, 1, place_of(level, index));
    TRY(statement_step(read, fault));
    struct cursor hash = cursor_over(statement_span(read, 0));
    TRY(cursor_copy(ret->bytes, &hash, HASH_BYTES, fault));
    return cursor_end(&hash, fault);
}

status store_log_consistency(struct hash_value *ret, uint32_t *ret_count, struct store_log *log,
                             uint64_t from, uint64_t to, struct fault *fault)
{
    if (from > to || to > log->edge.size)
        return FAIL(BAD_FIELD, fault, "from %llu to %llu: the log has %llu entries",
                    (unsigned long long)from, (unsigned long long)to,
                    (unsigned long long)log->edge.size);
    if (from == 0) {
        *ret_count = 0;
        return OK;
    }
    struct tiles *tiles = calloc(1, sizeof *tiles);
    if (tiles == NULL)
        return FAIL(INTERNAL, fault, "log: out of memory");
    tiles->log = log;
    status proved = merkle_consistency(ret, ret_count, from, to, read_node, tiles, fault);
    free(tiles);
    return proved;
}

status store_log_inclusion(struct hash_value *ret, uint32_t *ret_count, struct store_log *log,
                           uint64_t index, uint64_t size, struct fault *fault)
{
    if (index >= size || size > log->edge.size)
        return FAIL(BAD_FIELD, fault, "index %llu of %llu: the log has %llu entries",
                    (unsigned long long)index, (unsigned long long)size,
                    (unsigned long long)log->edge.size);
    struct tiles *tiles = calloc(1, sizeof *tiles);
    if (tiles == NULL)
        return FAIL(INTERNAL, fault, "log: out of memory");
    tiles->log = log;
    status proved = merkle_inclusion(ret, ret_count, index, size, read_node, tiles, fault);
    free(tiles);
    return proved;
}
