#include "silo/keys.h"

#include "base/secret.h"

static const char *const versions[] = {
    "CREATE TABLE silo_keys (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;",
};
const struct store_schema keys_schema = {"keys", versions, 1};

static const struct {
    const char *name, *purpose;
    size_t offset;
} derived[] = {
    {"audit", "bulkhead audit hashes v1", offsetof(struct silo_keys, audit)},
    {"idempotency", "bulkhead idempotency v1", offsetof(struct silo_keys, idempotency)},
    {"cursors", "bulkhead cursors v1", offsetof(struct silo_keys, cursors)},
};
enum { DERIVED = sizeof derived / sizeof *derived };

static uint8_t *place_of(struct silo *silo, size_t which)
{
    return (uint8_t *)silo->keys + derived[which].offset;
}

static status make_cursor_key(struct silo *silo, struct fault *fault)
{
    struct aead *made;
    TRY(aead_create(&made, silo->keys->cursors, fault));
    aead_free(silo->cursor_key);
    silo->cursor_key = made;
    return OK;
}

static status derive(struct silo *silo, const struct store_key *from, struct fault *fault)
{
    for (size_t i = 0; i < DERIVED; i++)
        key_derive(place_of(silo, i), from->dek, SPAN_OF(silo->tenant_id), derived[i].purpose);
    return make_cursor_key(silo, fault);
}

void keys_take_newest(struct silo *silo, const struct store_key *newest)
{
    key_derive(silo->keys->backup, newest->dek, SPAN_OF(silo->tenant_id), BACKUP_KEY_PURPOSE);
    silo->keys->backup_version = newest->version;
}

status keys_create(struct silo *silo, const struct silo_opening *opening, bool empty,
                   struct fault *fault)
{
    if (opening->key_count == 0 || opening->key_count > DEK_VERSIONS_MAX)
        return FAIL(INTERNAL, fault, "%u versions of a data key", opening->key_count);
    silo->keys = secret_alloc(sizeof *silo->keys);
    if (silo->keys == NULL)
        return FAIL(INTERNAL, fault, "no locked memory for the silo's keys");
    silo->keys->dek_count = empty ? 1 : opening->key_count;
    silo->keys->outlive = opening->key_count > 1;
    keys_take_newest(silo, &opening->keys[0]);
    for (uint32_t i = 0; i < silo->keys->dek_count; i++)
        silo->keys->deks[i] = opening->keys[i];
    return derive(silo, &silo->keys->deks[silo->keys->dek_count - 1], fault);
}

void keys_free(struct silo *silo)
{
    silo->cursor_key = aead_free(silo->cursor_key);
    secret_free(silo->keys, sizeof *silo->keys);
    silo->keys = NULL;
}

static status read_one(struct silo *silo, struct statement *read, size_t which,
                       struct fault *fault)
{
    statement_bind_text(read, 1, span_of_text(derived[which].name));
    status found = statement_step(read, fault);
    if (found == NOT_FOUND)
        return FAIL(CORRUPT, fault, "a stored key is missing: %s", derived[which].name);
    TRY(found);
    struct cursor value = cursor_over(statement_span(read, 0));
    TRY(cursor_copy(place_of(silo, which), &value, KEY_BYTES, fault));
    TRY(cursor_end(&value, fault));
    statement_reset(read);
    return OK;
}

status keys_read(struct silo *silo, struct fault *fault)
{
    _cleanup_statement_ struct statement *read = NULL;
    bool stored;
    TRY(store_has(&stored, silo->store, &keys_schema, fault));
    silo->keys->stored = stored;
    if (!stored)
        return OK;
    TRY(store_migrate(silo->store, &keys_schema, fault));
    TRY(statement_open(&read, silo->store, "SELECT value FROM silo_keys WHERE name = ?1", fault));
    for (size_t i = 0; i < DERIVED; i++)
        TRY(read_one(silo, read, i, fault));
    return make_cursor_key(silo, fault);
}

void keys_forget_data_keys(struct silo *silo)
{
    secret_wipe(silo->keys->deks, sizeof silo->keys->deks);
    silo->keys->dek_count = 0;
}

status keys_replace(struct silo *silo, const struct store_key *key, bool derives,
                    struct fault *fault)
{
    if (derives)
        TRY(derive(silo, key, fault));
    silo->keys->deks[0] = *key;
    silo->keys->dek_count = 1;
    return OK;
}

void keys_outlive(struct silo *silo)
{
    silo->keys->outlive = true;
}

bool keys_unwritten(const struct silo *silo)
{
    return silo->keys->outlive && !silo->keys->stored;
}

status keys_write(struct silo *silo, struct fault *fault)
{
    _cleanup_statement_ struct statement *put = NULL;
    if (!keys_unwritten(silo))
        return OK;
    TRY(store_migrate(silo->store, &keys_schema, fault));
    TRY(statement_open(&put, silo->store,
                       "INSERT OR REPLACE INTO silo_keys (name, value) VALUES (?1, ?2)", fault));
    for (size_t i = 0; i < DERIVED; i++) {
        statement_bind_text(put, 1, span_of_text(derived[i].name));
        statement_bind_blob(put, 2, (struct span){place_of(silo, i), KEY_BYTES});
        TRY(statement_run(put, fault));
        statement_reset(put);
    }
    return OK;
}

void keys_written(struct silo *silo)
{
    if (silo->keys->outlive)
        silo->keys->stored = true;
}
