/* fuzz_backup.c: records of a backup file, as a restore reads them before it believes a byte. */
#include "store/backup.h"

#include <stdlib.h>
#include <string.h>

struct memory {
    const uint8_t *next;
    size_t left;
};

static status read_memory(void *context, uint8_t *bytes, size_t length, struct fault *fault)
{
    struct memory *memory = context;
    if (memory->left < length)
        return FAIL(memory->left == 0 ? NOT_FOUND : TRUNCATED, fault, "end");
    memcpy(bytes, memory->next, length);
    memory->next += length;
    memory->left -= length;
    return OK;
}

static void read_files(struct backup_reader *reader)
{
    struct backup_head head;
    struct backup_record record;
    struct fault fault;
    while (backup_reader_head(&head, reader, &fault) == OK) {
        struct buffer again = buffer_of(BACKUP_HEAD_MAX);
        if (backup_put_head(&again, &head, &fault) != OK || strlen(head.tenant_id) != 32)
            abort(); /* what was read can be written */
        buffer_free(&again);
        do {
            if (backup_reader_next(&record, reader, &fault) != OK)
                return;
        } while (record.kind != BACKUP_END);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct memory memory = {data, size};
    struct backup_reader *reader;
    struct backup_end end;
    struct fault fault;
    if (crypt_start(&fault) != OK || backup_reader_create(&reader, read_memory, &memory, &fault))
        abort();
    read_files(reader);
    backup_reader_free(reader);
    if (size >= BACKUP_END_BYTES)
        (void)!backup_get_end(&end, (struct span){data + size - BACKUP_END_BYTES,
                                                  BACKUP_END_BYTES}, &fault);
    return 0;
}
