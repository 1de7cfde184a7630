#include "sim.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

enum { SECTOR = 512 };

uint64_t sim_random(struct sim *sim, uint64_t below)
{
    sim->random += UINT64_C(0x9e3779b97f4a7c15); /* splitmix64 */
    uint64_t mixed = sim->random;
    mixed = (mixed ^ (mixed >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    mixed = (mixed ^ (mixed >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (mixed ^ (mixed >> 31)) % below;
}

/* In powers of two: a file that grows page by page is not moved each time. */
static size_t room_for(size_t length)
{
    size_t room = 64;
    while (room <= length)
        room *= 2;
    return room;
}

static void resize(struct sim_bytes *bytes, size_t length)
{
    uint8_t *grown = bytes->data;
    if (grown == NULL || room_for(length) != room_for(bytes->length))
        grown = realloc(bytes->data, room_for(length));
    assert(grown != NULL);
    if (length > bytes->length)
        memset(grown + bytes->length, 0, length - bytes->length);
    *bytes = (struct sim_bytes){grown, length};
}

static void put(struct sim_bytes *bytes, size_t offset, const uint8_t *data, size_t length)
{
    if (offset + length > bytes->length)
        resize(bytes, offset + length);
    memcpy(bytes->data + offset, data, length);
}

static void replace(struct sim_bytes *bytes, const struct sim_bytes *by)
{
    resize(bytes, by->length);
    if (by->length != 0)
        memcpy(bytes->data, by->data, by->length);
}

static int fail(int error)
{
    errno = error;
    return -1;
}

/* True where the call must not happen. */
static bool denied(struct sim *sim, bool mutates)
{
    sim->calls++;
    if (sim->off) {
        errno = EIO;
        return true;
    }
    if ((sim->fail_at != 0 && sim->calls == sim->fail_at) ||
        (sim->fail_every != 0 && sim->calls % sim->fail_every == 0)) {
        errno = sim->fail_errno;
        return true;
    }
    if (mutates && ++sim->mutations == sim->cut_at)
        sim->off = true; /* a write of this moment may still reach the disk, in part */
    return false;
}

static struct sim_name *find_name(struct sim *sim, const char *text)
{
    for (int i = 0; i < SIM_NAMES; i++)
        if (sim->names.at[i].used && strcmp(sim->names.at[i].text, text) == 0)
            return &sim->names.at[i];
    return NULL;
}

static struct sim_name *new_name(struct sim *sim, const char *text, uint32_t file)
{
    struct sim_name *name = find_name(sim, text);
    for (int i = 0; i < SIM_NAMES && name == NULL; i++)
        if (!sim->names.at[i].used)
            name = &sim->names.at[i];
    assert(name != NULL && strlen(text) < SIM_NAME_TEXT);
    *name = (struct sim_name){.file = file, .used = true};
    strcpy(name->text, text);
    return name;
}

static struct sim_name *new_name_in(struct sim *sim, enum sim_directory directory,
                                    const char *text, uint32_t file)
{
    struct sim_name *name = new_name(sim, text, file);
    name->directory = directory;
    return name;
}

static void names_changed(struct sim *sim)
{
    sim->name_history = realloc(sim->name_history, (sim->name_history_count + 1) *
                                                       sizeof *sim->name_history);
    assert(sim->name_history != NULL);
    sim->name_history[sim->name_history_count++] = sim->names;
}

static void names_synced(struct sim *sim)
{
    sim->name_history_count = 0;
    names_changed(sim);
}

/* The names of one directory as they are now, those of the other as they were then. */
static struct sim_names mixed(const struct sim *sim, const struct sim_names *then,
                              enum sim_directory now)
{
    struct sim_names names;
    int count = 0;
    memset(&names, 0, sizeof names);
    for (int i = 0; i < SIM_NAMES; i++)
        if (then->at[i].used && then->at[i].directory != now)
            names.at[count++] = then->at[i];
    for (int i = 0; i < SIM_NAMES; i++) {
        if (!sim->names.at[i].used || sim->names.at[i].directory != now)
            continue;
        assert(count < SIM_NAMES);
        names.at[count++] = sim->names.at[i];
    }
    return names;
}

/* At every moment that the power may still fall back to, the directory is as it is now. */
static void directory_synced(struct sim *sim, enum sim_directory directory)
{
    size_t kept = 0;
    for (size_t i = 0; i < sim->name_history_count; i++) {
        struct sim_names names = mixed(sim, &sim->name_history[i], directory);
        if (kept == 0 || memcmp(&names, &sim->name_history[kept - 1], sizeof names) != 0)
            sim->name_history[kept++] = names;
    }
    sim->name_history_count = kept;
}

static bool has_directory(const struct sim_names *names)
{
    for (int i = 0; i < SIM_NAMES; i++)
        if (names->at[i].used && names->at[i].is_directory)
            return true;
    return false;
}

/* Files that no name of now or of the history reaches are used again. */
static uint32_t new_file(struct sim *sim)
{
    bool used[SIM_FILES] = {false};
    for (size_t i = 0; i < sim->name_history_count; i++)
        for (int j = 0; j < SIM_NAMES; j++)
            if (sim->name_history[i].at[j].used)
                used[sim->name_history[i].at[j].file] = true;
    for (int i = 0; i < SIM_FDS; i++)
        if (sim->fds[i].open)
            used[sim->fds[i].file] = true;
    uint32_t file = 0;
    while (file < SIM_FILES && used[file])
        file++;
    assert(file < SIM_FILES);
    resize(&sim->now[file], 0);
    resize(&sim->durable[file], 0);
    return file;
}

static struct sim_change *new_change(struct sim *sim, uint32_t file)
{
    if (sim->change_count == sim->change_capacity) {
        sim->change_capacity = sim->change_capacity * 2 + 64;
        sim->changes = realloc(sim->changes, sim->change_capacity * sizeof *sim->changes);
        assert(sim->changes != NULL);
    }
    struct sim_change *change = &sim->changes[sim->change_count++];
    *change = (struct sim_change){.file = file};
    return change;
}

static void forget_changes(struct sim *sim, uint32_t file)
{
    size_t kept = 0;
    for (size_t i = 0; i < sim->change_count; i++) {
        if (sim->changes[i].file == file)
            free(sim->changes[i].bytes.data);
        else
            sim->changes[kept++] = sim->changes[i];
    }
    sim->change_count = kept;
}

static size_t space_used(const struct sim *sim)
{
    size_t used = 0;
    for (int i = 0; i < SIM_NAMES; i++)
        if (sim->names.at[i].used)
            used += sim->now[sim->names.at[i].file].length;
    return used;
}

static int new_fd(struct sim *sim)
{
    for (int i = 0; i < SIM_FDS; i++) {
        if (sim->fds[i].open)
            continue;
        sim->fds[i].open = true;
        sim->fds[i].locks = sim->fds[i].is_directory = false;
        sim->fds[i].file = 0;
        return 1000 + i;
    }
    return fail(EMFILE);
}

static enum sim_directory directory_of(const struct sim *sim, int fd)
{
    bool below = fd >= 1000 && fd < 1000 + SIM_FDS && sim->fds[fd - 1000].open;
    assert(!below || sim->fds[fd - 1000].is_directory);
    return below ? SIM_BELOW : SIM_TOP;
}

static struct sim_name *find_in(struct sim *sim, int directory_fd, const char *text)
{
    struct sim_name *name = find_name(sim, text);
    return name != NULL && name->directory == directory_of(sim, directory_fd) ? name : NULL;
}

static int open_below(struct sim *sim, struct sim_name *name)
{
    if (denied(sim, false))
        return -1;
    if (name == NULL)
        return fail(ENOENT);
    int fd = new_fd(sim);
    if (fd >= 0)
        sim->fds[fd - 1000].is_directory = true;
    return fd;
}

static int sim_open(void *context, int silo_fd, const char *text, int flags, mode_t mode)
{
    (void)mode;
    struct sim *sim = context;
    struct sim_name *name = find_in(sim, silo_fd, text);
    if (flags & O_DIRECTORY)
        return open_below(sim, name);
    bool creates = name == NULL && (flags & O_CREAT) != 0;
    bool truncates = name != NULL && (flags & O_TRUNC) != 0;
    if (denied(sim, creates || truncates))
        return -1;
    if (name == NULL && !creates)
        return fail(ENOENT);
    if (creates) {
        uint32_t file = new_file(sim);
        forget_changes(sim, file);
        name = new_name_in(sim, directory_of(sim, silo_fd), text, file);
        names_changed(sim);
    }
    if (truncates) {
        new_change(sim, name->file)->truncates = true;
        resize(&sim->now[name->file], 0);
    }
    int fd = new_fd(sim);
    if (fd >= 0)
        sim->fds[fd - 1000].file = name->file;
    return fd;
}

static uint32_t file_of(struct sim *sim, int fd)
{
    assert(fd >= 1000 && fd < 1000 + SIM_FDS && sim->fds[fd - 1000].open);
    assert(!sim->fds[fd - 1000].is_directory);
    return sim->fds[fd - 1000].file;
}

static int sim_close(void *context, int fd)
{
    struct sim *sim = context;
    assert(fd >= 1000 && fd < 1000 + SIM_FDS && sim->fds[fd - 1000].open);
    sim->fds[fd - 1000].open = false;
    return 0;
}

static ssize_t sim_read(void *context, int fd, void *bytes, size_t length, off_t offset)
{
    struct sim *sim = context;
    if (denied(sim, false))
        return -1;
    const struct sim_bytes *file = &sim->now[file_of(sim, fd)];
    size_t at = (size_t)offset;
    if (at >= file->length)
        return 0;
    size_t count = file->length - at < length ? file->length - at : length;
    memcpy(bytes, file->data + at, count);
    return (ssize_t)count;
}

static ssize_t sim_write(void *context, int fd, const void *bytes, size_t length, off_t offset)
{
    struct sim *sim = context;
    if (denied(sim, true))
        return -1;
    uint32_t number = file_of(sim, fd);
    struct sim_bytes *file = &sim->now[number];
    size_t end = (size_t)offset + length;
    if (sim->space != 0 && end > file->length &&
        space_used(sim) + (end - file->length) > sim->space)
        return fail(ENOSPC);
    if (sim->on_write != NULL)
        sim->on_write((struct span){bytes, length});
    put(file, (size_t)offset, bytes, length);
    struct sim_change *change = new_change(sim, number);
    change->offset = (size_t)offset;
    put(&change->bytes, 0, bytes, length);
    return sim->off ? fail(EIO) : (ssize_t)length;
}

static int sim_sync(void *context, int fd)
{
    struct sim *sim = context;
    if (denied(sim, true) || sim->off)
        return fail(errno != 0 && !sim->off ? errno : EIO);
    uint32_t file = file_of(sim, fd);
    replace(&sim->durable[file], &sim->now[file]);
    forget_changes(sim, file);
    return 0;
}

static int sim_truncate(void *context, int fd, off_t size)
{
    struct sim *sim = context;
    if (denied(sim, true))
        return -1;
    uint32_t file = file_of(sim, fd);
    struct sim_change *change = new_change(sim, file);
    change->truncates = true;
    change->offset = (size_t)size;
    resize(&sim->now[file], (size_t)size);
    return sim->off ? fail(EIO) : 0;
}

static off_t sim_size(void *context, int fd)
{
    struct sim *sim = context;
    if (denied(sim, false))
        return -1;
    return (off_t)sim->now[file_of(sim, fd)].length;
}

static int sim_lock(void *context, int fd)
{
    struct sim *sim = context;
    if (denied(sim, false))
        return -1;
    for (int i = 0; i < SIM_FDS; i++)
        if (sim->fds[i].open && sim->fds[i].locks && sim->fds[i].file == file_of(sim, fd))
            return fail(EWOULDBLOCK);
    sim->fds[fd - 1000].locks = true;
    return 0;
}

static int sim_rename(void *context, int silo_fd, const char *from, const char *to)
{
    (void)silo_fd;
    struct sim *sim = context;
    if (denied(sim, true))
        return -1;
    struct sim_name *name = find_name(sim, from);
    if (name == NULL)
        return fail(ENOENT);
    uint32_t file = name->file;
    name->used = false;
    new_name(sim, to, file);
    names_changed(sim);
    return sim->off ? fail(EIO) : 0;
}

static int sim_sync_names(void *context, int silo_fd)
{
    struct sim *sim = context;
    if (denied(sim, true) || sim->off)
        return fail(errno != 0 && !sim->off ? errno : EIO);
    directory_synced(sim, directory_of(sim, silo_fd));
    return 0;
}

static int sim_make_directory(void *context, int silo_fd, const char *text)
{
    struct sim *sim = context;
    assert(directory_of(sim, silo_fd) == SIM_TOP);
    if (denied(sim, true))
        return -1;
    if (find_name(sim, text) != NULL)
        return fail(EEXIST);
    uint32_t file = new_file(sim);
    forget_changes(sim, file);
    new_name(sim, text, file)->is_directory = true;
    names_changed(sim);
    return sim->off ? fail(EIO) : 0;
}

static int sim_unlink(void *context, int directory_fd, const char *text)
{
    struct sim *sim = context;
    struct sim_name *name = find_in(sim, directory_fd, text);
    if (denied(sim, true))
        return -1;
    if (name == NULL)
        return fail(ENOENT);
    name->used = false;
    names_changed(sim);
    return sim->off ? fail(EIO) : 0;
}

const char *sim_below(struct sim *sim, uint32_t i)
{
    for (int j = 0; j < SIM_NAMES; j++)
        if (sim->names.at[j].used && sim->names.at[j].directory == SIM_BELOW && i-- == 0)
            return sim->names.at[j].text;
    return NULL;
}

/* A few at a time, by their place: names may go meanwhile, as from a real directory. */
static int sim_list(void *context, int directory_fd, struct store_listed *ret)
{
    enum { AT_ONCE = 3 };
    struct sim *sim = context;
    assert(directory_of(sim, directory_fd) == SIM_BELOW);
    if (denied(sim, false))
        return -1;
    uint32_t *place = &sim->fds[directory_fd - 1000].file;
    for (ret->count = 0; *place < SIM_NAMES && ret->count < AT_ONCE; ++*place) {
        const struct sim_name *name = &sim->names.at[*place];
        if (name->used && name->directory == SIM_BELOW)
            strcpy(ret->names[ret->count++], name->text);
    }
    return 0;
}

static void sim_write_out(void *context, int fd, off_t offset, off_t length)
{
    (void)offset;
    (void)length;
    file_of(context, fd);
}

static int sim_await_written(void *context, int fd, off_t offset, off_t length)
{
    (void)offset;
    (void)length;
    file_of(context, fd);
    return denied(context, false) ? -1 : 0;
}

static void sim_read_ahead(void *context, int fd)
{
    file_of(context, fd);
}

struct sim *sim_create(uint64_t seed)
{
    struct sim *sim = calloc(1, sizeof *sim);
    assert(sim != NULL);
    sim->random = seed;
    sim->fail_errno = EIO;
    sim->io = (struct store_io){
        .context = sim,
        .open = sim_open,
        .close = sim_close,
        .read = sim_read,
        .write = sim_write,
        .sync = sim_sync,
        .truncate = sim_truncate,
        .size = sim_size,
        .lock = sim_lock,
        .rename = sim_rename,
        .sync_names = sim_sync_names,
        .make_directory = sim_make_directory,
        .remove = sim_unlink,
        .list = sim_list,
        .await_written = sim_await_written,
        .write_out = sim_write_out,
        .read_ahead = sim_read_ahead,
    };
    names_synced(sim);
    return sim;
}

struct sim *sim_copy(const struct sim *from)
{
    struct sim *sim = sim_create(from->random);
    sim->names = from->names;
    names_synced(sim);
    for (int i = 0; i < SIM_FILES; i++) {
        replace(&sim->now[i], &from->now[i]);
        replace(&sim->durable[i], &from->now[i]);
    }
    return sim;
}

struct sim *sim_free(struct sim *sim)
{
    for (uint32_t i = 0; i < SIM_FILES; i++) {
        forget_changes(sim, i);
        free(sim->now[i].data);
        free(sim->durable[i].data);
    }
    free(sim->changes);
    free(sim->name_history);
    free(sim);
    return NULL;
}

static void apply_part(struct sim *sim, const struct sim_change *change)
{
    struct sim_bytes *file = &sim->durable[change->file];
    uint64_t fate = sim_random(sim, 3); /* kept, lost, torn */
    if (fate == 1)
        return;
    if (change->truncates) {
        resize(file, change->offset);
        return;
    }
    size_t end = change->offset + change->bytes.length;
    for (size_t at = change->offset; at < end;) {
        size_t next = (at / SECTOR + 1) * SECTOR < end ? (at / SECTOR + 1) * SECTOR : end;
        uint64_t sector = fate == 0 ? 0 : sim_random(sim, 4); /* whole, whole, in part, lost */
        size_t part = sector < 2 ? next - at : sector == 2 ? sim_random(sim, next - at) : 0;
        if (part != 0)
            put(file, at, change->bytes.data + (at - change->offset), part);
        at = next;
    }
}

void sim_power_cycle(struct sim *sim)
{
    for (size_t i = 0; i < sim->change_count; i++)
        apply_part(sim, &sim->changes[i]);
    sim->names = sim->name_history[sim_random(sim, sim->name_history_count)];
    for (int i = 0; i < SIM_NAMES && !has_directory(&sim->names); i++)
        if (sim->names.at[i].directory == SIM_BELOW)
            sim->names.at[i].used = false;
    for (uint32_t i = 0; i < SIM_FILES; i++) {
        forget_changes(sim, i);
        replace(&sim->now[i], &sim->durable[i]);
    }
    for (int i = 0; i < SIM_FDS; i++)
        sim->fds[i].open = false;
    names_synced(sim);
    sim->off = false;
    sim->cut_at = 0;
}

struct sim_bytes *sim_file(struct sim *sim, const char *name)
{
    struct sim_name *found = find_name(sim, name);
    return found != NULL ? &sim->now[found->file] : NULL;
}

void sim_resize(struct sim *sim, const char *name, size_t size)
{
    struct sim_bytes *file = sim_file(sim, name);
    assert(file != NULL);
    resize(file, size);
}

void sim_set(struct sim *sim, const char *name, struct span bytes)
{
    if (sim_file(sim, name) == NULL) {
        new_name(sim, name, new_file(sim));
        names_synced(sim);
    }
    struct sim_bytes *file = sim_file(sim, name);
    resize(file, bytes.length);
    if (bytes.length != 0)
        memcpy(file->data, bytes.data, bytes.length);
}

void sim_remove(struct sim *sim, const char *name)
{
    struct sim_name *found = find_name(sim, name);
    if (found != NULL)
        found->used = false;
    names_synced(sim);
}
