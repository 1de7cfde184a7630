#define _GNU_SOURCE
#include "store/vfs.h"

#include "base/clock.h"
#include "crypt/crypt.h"

#include <errno.h>
#include <string.h>
#include <time.h>

/* What SQLite allocates for each file it opens. */
struct file {
    sqlite3_file base;
    struct files *files;
};

static struct files *files_of(sqlite3_file *file)
{
    return ((struct file *)file)->files;
}

/* Of the family of SQLITE_CORRUPT, but not that very code: then only the statement fails that met
 * the damage. SQLITE_IOERR would roll back the turn, with the requests of others in it; after plain
 * SQLITE_CORRUPT the turn could write nothing more. What such a statement may leave half done is
 * the store's business: see store_note_write. */
enum { DAMAGED = SQLITE_CORRUPT | 64 << 8 };

static int result(status code, int failure)
{
    switch (code) {
    case OK: return SQLITE_OK;
    case OUT_OF_SPACE: return SQLITE_FULL;
    case TOO_LARGE: return SQLITE_FULL;
    case CORRUPT: return DAMAGED;
    default: return failure;
    }
}

static void note_damage(struct files *files, const char *file, uint32_t page)
{
    files->damage.count++;
    files->damage.last_file = file;
    files->damage.last_page = page;
}

/* ---- the database ---- */

/* The front of page 1 as every silo has it. SQLite reads it once, before it looks at the WAL, to
 * learn the page size; after a crash in a checkpoint the page itself may not be readable yet. */
static void put_front(uint8_t front[DATABASE_FRONT_BYTES])
{
    static const uint8_t fixed[] = "SQLite format 3\0\x10\x00\x02\x02\x2c\x40\x20\x20";
    memset(front, 0, DATABASE_FRONT_BYTES);
    memcpy(front, fixed, sizeof fixed - 1);
}

static int database_read(sqlite3_file *file, void *bytes, int length, sqlite3_int64 offset)
{
    struct files *files = files_of(file);
    struct fault ignored;
    if (offset == 0 && length == DATABASE_FRONT_BYTES) {
        put_front(bytes);
        return SQLITE_OK;
    }
    if (length <= 0 || offset % PAGE_BYTES + length > PAGE_BYTES)
        return SQLITE_IOERR_READ;
    uint32_t page = (uint32_t)(offset / PAGE_BYTES) + 1;
    if (page > files->map.pages) {
        memset(bytes, 0, (size_t)length);
        return SQLITE_IOERR_SHORT_READ;
    }
    uint8_t *text = length == PAGE_BYTES ? bytes : files->page;
    status read = files_read_page(files, page, text, &ignored);
    if (read == CORRUPT)
        note_damage(files, STORE_DATABASE, page);
    if (read == OK && text != bytes)
        memcpy(bytes, text + offset % PAGE_BYTES, (size_t)length);
    return result(read, SQLITE_IOERR_READ);
}

static int database_write(sqlite3_file *file, const void *bytes, int length, sqlite3_int64 offset)
{
    struct files *files = files_of(file);
    struct fault ignored;
    if (files->dead || length != PAGE_BYTES || offset % PAGE_BYTES != 0)
        return SQLITE_IOERR_WRITE;
    uint32_t page = (uint32_t)(offset / PAGE_BYTES) + 1;
    return result(files_write_page(files, page, bytes, &ignored), SQLITE_IOERR_WRITE);
}

static int database_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    struct files *files = files_of(file);
    struct fault ignored;
    if (files->dead || size % PAGE_BYTES != 0)
        return SQLITE_IOERR_TRUNCATE;
    return result(files_truncate(files, (uint32_t)(size / PAGE_BYTES), &ignored),
                  SQLITE_IOERR_TRUNCATE);
}

static int database_sync(sqlite3_file *file, int flags)
{
    (void)flags;
    struct files *files = files_of(file);
    struct fault ignored;
    if (files->dead)
        return SQLITE_IOERR_FSYNC;
    return result(files_sync(files, &ignored), SQLITE_IOERR_FSYNC);
}

static int database_size(sqlite3_file *file, sqlite3_int64 *ret)
{
    *ret = (sqlite3_int64)files_of(file)->map.pages * PAGE_BYTES;
    return SQLITE_OK;
}

/* ---- the WAL ---- */

static int log_read(sqlite3_file *file, void *bytes, int length, sqlite3_int64 offset)
{
    struct files *files = files_of(file);
    struct fault ignored;
    status read = wal_read(&files->wal, bytes, (size_t)length, (uint64_t)offset, &ignored);
    if (read == CORRUPT)
        note_damage(files, STORE_WAL, 0);
    return read == TRUNCATED ? SQLITE_IOERR_SHORT_READ : result(read, SQLITE_IOERR_READ);
}

static int log_write(sqlite3_file *file, const void *bytes, int length, sqlite3_int64 offset)
{
    struct files *files = files_of(file);
    struct fault ignored;
    if (files->dead)
        return SQLITE_IOERR_WRITE;
    return result(wal_write(&files->wal, &files->map, (struct span){bytes, (size_t)length},
                            (uint64_t)offset, &ignored),
                  SQLITE_IOERR_WRITE);
}

static int log_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    struct files *files = files_of(file);
    struct fault ignored;
    if (files->dead || size != 0)
        return SQLITE_IOERR_TRUNCATE;
    return result(wal_empty(&files->wal, &ignored), SQLITE_IOERR_TRUNCATE);
}

static int log_sync(sqlite3_file *file, int flags)
{
    (void)flags;
    struct files *files = files_of(file);
    struct fault ignored;
    if (files->dead)
        return SQLITE_IOERR_FSYNC;
    return result(wal_sync(&files->wal, &ignored), SQLITE_IOERR_FSYNC);
}

static int log_size(sqlite3_file *file, sqlite3_int64 *ret)
{
    *ret = (sqlite3_int64)wal_size(&files_of(file)->wal);
    return SQLITE_OK;
}

/* ---- both ---- */

/* The descriptors belong to struct files. */
static int either_close(sqlite3_file *file)
{
    file->pMethods = NULL;
    return SQLITE_OK;
}

/* One process has the silo: files_open holds the lock. */
static int either_lock(sqlite3_file *file, int level)
{
    (void)file;
    (void)level;
    return SQLITE_OK;
}

static int either_is_reserved(sqlite3_file *file, int *ret)
{
    (void)file;
    *ret = 0;
    return SQLITE_OK;
}

static int either_control(sqlite3_file *file, int operation, void *argument)
{
    switch (operation) {
    case SQLITE_FCNTL_CKPT_START:
        wal_checkpoint_starts(&files_of(file)->wal);
        return SQLITE_OK;
    case SQLITE_FCNTL_PERSIST_WAL: /* an empty WAL stays, so that waking makes no directory entry */
    case SQLITE_FCNTL_POWERSAFE_OVERWRITE:
        *(int *)argument = 1;
        return SQLITE_OK;
    case SQLITE_FCNTL_HAS_MOVED:
        *(int *)argument = 0;
        return SQLITE_OK;
    default:
        return SQLITE_NOTFOUND;
    }
}

static int either_sector(sqlite3_file *file)
{
    (void)file;
    return PAGE_BYTES;
}

/* Without it SQLite would fill up the last sector with copies of the last frame. */
static int either_characteristics(sqlite3_file *file)
{
    (void)file;
    return SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

/* Version 1: no shared memory and no memory mapping exist here. */
static const sqlite3_io_methods database_methods = {
    .iVersion = 1,
    .xClose = either_close,
    .xRead = database_read,
    .xWrite = database_write,
    .xTruncate = database_truncate,
    .xSync = database_sync,
    .xFileSize = database_size,
    .xLock = either_lock,
    .xUnlock = either_lock,
    .xCheckReservedLock = either_is_reserved,
    .xFileControl = either_control,
    .xSectorSize = either_sector,
    .xDeviceCharacteristics = either_characteristics,
};

static const sqlite3_io_methods log_methods = {
    .iVersion = 1,
    .xClose = either_close,
    .xRead = log_read,
    .xWrite = log_write,
    .xTruncate = log_truncate,
    .xSync = log_sync,
    .xFileSize = log_size,
    .xLock = either_lock,
    .xUnlock = either_lock,
    .xCheckReservedLock = either_is_reserved,
    .xFileControl = either_control,
    .xSectorSize = either_sector,
    .xDeviceCharacteristics = either_characteristics,
};

/* ---- the VFS ---- */

static int vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags,
                    int *ret_flags)
{
    (void)name; /* the kind of file decides: no path leads anywhere from here */
    struct file *opened = (struct file *)file;
    if (vfs->pAppData == NULL)
        return SQLITE_CANTOPEN;
    *opened = (struct file){.files = vfs->pAppData};
    if (flags & SQLITE_OPEN_MAIN_DB)
        opened->base.pMethods = &database_methods;
    else if (flags & SQLITE_OPEN_WAL)
        opened->base.pMethods = &log_methods;
    else
        return SQLITE_CANTOPEN;
    if (ret_flags != NULL)
        *ret_flags = flags;
    return SQLITE_OK;
}

static int vfs_delete(sqlite3_vfs *vfs, const char *name, int sync)
{
    (void)vfs;
    (void)name;
    (void)sync;
    return SQLITE_IOERR_DELETE;
}

/* The WAL always exists; nothing else does. */
static int vfs_access(sqlite3_vfs *vfs, const char *name, int flags, int *ret)
{
    (void)vfs;
    (void)flags;
    *ret = span_is(span_of_text(name), STORE_WAL);
    return SQLITE_OK;
}

static int vfs_full_name(sqlite3_vfs *vfs, const char *name, int size, char *ret)
{
    (void)vfs;
    return span_to_text(ret, (size_t)size, span_of_text(name)) ? SQLITE_OK : SQLITE_CANTOPEN;
}

static void *vfs_no_library(sqlite3_vfs *vfs, const char *name)
{
    (void)vfs;
    (void)name;
    return NULL;
}

static void vfs_no_library_error(sqlite3_vfs *vfs, int size, char *ret)
{
    (void)vfs;
    sqlite3_snprintf(size, ret, "no extension can be loaded");
}

static void (*vfs_no_symbol(sqlite3_vfs *vfs, void *library, const char *name))(void)
{
    (void)vfs;
    (void)library;
    (void)name;
    return NULL;
}

static void vfs_no_close(sqlite3_vfs *vfs, void *library)
{
    (void)vfs;
    (void)library;
}

static int vfs_random(sqlite3_vfs *vfs, int size, char *ret)
{
    (void)vfs;
    crypt_random(ret, (size_t)size);
    return size;
}

static int vfs_sleep(sqlite3_vfs *vfs, int microseconds)
{
    (void)vfs;
    struct timespec wait = {microseconds / 1000000, microseconds % 1000000 * 1000L};
    nanosleep(&wait, NULL);
    return microseconds;
}

/* Milliseconds since noon in Greenwich on November 24, 4714 B.C. */
static int vfs_now(sqlite3_vfs *vfs, sqlite3_int64 *ret)
{
    (void)vfs;
    *ret = INT64_C(210866760000000) + clock_wall_us() / 1000;
    return SQLITE_OK;
}

static int vfs_now_days(sqlite3_vfs *vfs, double *ret)
{
    sqlite3_int64 now;
    vfs_now(vfs, &now);
    *ret = (double)now / 86400000.0;
    return SQLITE_OK;
}

static int vfs_error(sqlite3_vfs *vfs, int size, char *ret)
{
    (void)vfs;
    (void)size;
    (void)ret;
    return errno;
}

sqlite3_vfs vfs_over(struct files *files, const char *name)
{
    return (sqlite3_vfs){
        .iVersion = 2,
        .szOsFile = sizeof(struct file),
        .mxPathname = 64,
        .zName = name,
        .pAppData = files,
        .xOpen = vfs_open,
        .xDelete = vfs_delete,
        .xAccess = vfs_access,
        .xFullPathname = vfs_full_name,
        .xDlOpen = vfs_no_library,
        .xDlError = vfs_no_library_error,
        .xDlSym = vfs_no_symbol,
        .xDlClose = vfs_no_close,
        .xRandomness = vfs_random,
        .xSleep = vfs_sleep,
        .xCurrentTime = vfs_now_days,
        .xGetLastError = vfs_error,
        .xCurrentTimeInt64 = vfs_now,
    };
}
