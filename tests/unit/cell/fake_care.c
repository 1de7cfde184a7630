/* fake_care.c: backups, restores, checks and exports of the fake silo: the cell's part is what is
 * tested. */
#include "silo/care.h"
#include "silo/check.h"
#include "silo/export.h"

#include <stdlib.h>

struct silo_backup {
    uint64_t sequence;
    uint32_t pieces;
};

struct silo_restore {
    uint8_t keys[4];
};

status silo_note(struct silo *silo, const char *action, int64_t count, struct fault *fault)
{
    (void)silo, (void)action, (void)count, (void)fault;
    return OK;
}

status silo_backup_begin(struct silo_backup **ret, struct silo *silo,
                         const struct silo_backup_wish *wish, struct fault *fault)
{
    (void)silo;
    if (wish->sequence == 13)
        return FAIL(CORRUPT, fault, "an unlucky number");
    *ret = calloc(1, sizeof **ret);
    if (!*ret)
        return FAIL(INTERNAL, fault, "out of memory");
    (*ret)->sequence = wish->sequence;
    return OK;
}

status silo_backup_piece(struct buffer *out, bool *ret_done, struct silo_backup *backup,
                         struct fault *fault)
{
    (void)fault;
    buffer_printf(out, "piece %u of %llu\n", backup->pieces,
                  (unsigned long long)backup->sequence);
    *ret_done = ++backup->pieces == 3;
    return OK;
}

struct silo_backup *silo_backup_end(struct silo_backup *backup)
{
    free(backup);
    return NULL;
}

status silo_restore_begin(struct silo_restore **ret, const uint8_t tenant_id[TENANT_ID_BYTES],
                          backup_read *read, void *context, struct fault *fault)
{
    (void)tenant_id;
    *ret = calloc(1, sizeof **ret);
    if (!*ret)
        return FAIL(INTERNAL, fault, "out of memory");
    status got = read(context, (*ret)->keys, sizeof (*ret)->keys, fault);
    if (got != OK)
        silo_restore_end(*ret);
    return got;
}

uint32_t silo_restore_key_version(const struct silo_restore *restore)
{
    (void)restore;
    return 1;
}

struct span silo_restore_wrapped(const struct silo_restore *restore)
{
    return SPAN_OF(restore->keys);
}

status silo_restore_run(struct silo_restored *ret, struct silo_restore *restore,
                        const struct silo_opening *opening, const uint8_t platform_key[32],
                        struct fault *fault)
{
    (void)restore, (void)platform_key, (void)fault;
    *ret = (struct silo_restored){.anchor = opening->anchor, .sequence = 1};
    return OK;
}

struct silo_restore *silo_restore_end(struct silo_restore *restore)
{
    free(restore);
    return NULL;
}

struct silo_check {
    uint32_t pieces;
};

status silo_check_begin(struct silo_check **ret, struct silo *silo,
                        const uint8_t platform_key[32], struct fault *fault)
{
    (void)silo, (void)platform_key;
    *ret = calloc(1, sizeof **ret);
    return *ret ? OK : FAIL(INTERNAL, fault, "out of memory");
}

status silo_check_piece(struct buffer *out, bool *ret_done, struct silo_check *check,
                        struct fault *fault)
{
    (void)fault;
    buffer_printf(out, "checked %u\n", check->pieces);
    *ret_done = ++check->pieces == 3;
    return OK;
}

struct silo_check *silo_check_end(struct silo_check *check)
{
    free(check);
    return NULL;
}

struct silo_export {
    uint32_t pieces;
};

status silo_export_begin(struct silo_export **ret, struct silo *silo,
                         const uint8_t platform_key[32], struct fault *fault)
{
    (void)silo, (void)platform_key;
    *ret = calloc(1, sizeof **ret);
    return *ret ? OK : FAIL(INTERNAL, fault, "out of memory");
}

/* Now and then there is nothing to write yet. */
status silo_export_piece(struct buffer *out, bool *ret_done, struct silo_export *export,
                         struct fault *fault)
{
    (void)fault;
    if (export->pieces % 2 == 0)
        buffer_printf(out, "exported %u\n", export->pieces);
    *ret_done = ++export->pieces == 5;
    return OK;
}

struct silo_export *silo_export_end(struct silo_export *export)
{
    free(export);
    return NULL;
}
