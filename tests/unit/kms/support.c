#define _GNU_SOURCE
#include "support.h"

#include "base/hex.h"
#include "kms/key_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

unsigned reports;

void count_report(void *context, const char *text)
{
    (void)context;
    assert_true(strlen(text) > 0);
    reports++;
}

int directory_make(void)
{
    char path[] = "/tmp/bulkhead-kms-XXXXXX";
    assert_non_null(mkdtemp(path));
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

static void each_file(int fd, void (*visit)(int fd, const char *name, void *context),
                      void *context)
{
    DIR *listing = fdopendir(openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    assert_non_null(listing);
    for (const struct dirent *entry; (entry = readdir(listing));)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            visit(fd, entry->d_name, context);
    closedir(listing);
}

static void remove_file(int fd, const char *name, void *context)
{
    (void)context;
    if (unlinkat(fd, name, 0))
        assert_int_equal(unlinkat(fd, name, AT_REMOVEDIR), 0);
}

void directory_remove(int fd)
{
    char link[64], path[256] = "";
    each_file(fd, remove_file, NULL);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    assert_true(readlink(link, path, sizeof path - 1) > 0);
    close(fd);
    assert_int_equal(rmdir(path), 0);
}

ptrdiff_t file_read(int directory, const char *name, uint8_t *bytes, size_t size)
{
    int fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t got = pread(fd, bytes, size, 0);
    close(fd);
    return got;
}

void file_write(int directory, const char *name, const uint8_t *bytes, size_t length)
{
    (void)unlinkat(directory, name, 0);
    int fd = openat(directory, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, length, 0), length);
    close(fd);
}

bool file_exists(int directory, const char *name)
{
    return faccessat(directory, name, F_OK, 0) == 0;
}

void file_flip(int directory, const char *name, size_t at)
{
    uint8_t byte;
    int fd = openat(directory, name, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
    byte ^= 0x10;
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
    close(fd);
}

static void copy_file(int from, const char *name, void *context)
{
    static uint8_t bytes[1 << 20];
    const int *to = context;
    struct stat facts;
    ptrdiff_t length = file_read(from, name, bytes, sizeof bytes);
    assert_true(length >= 0 && (size_t)length < sizeof bytes);
    file_write(*to, name, bytes, (size_t)length);
    assert_int_equal(fstatat(from, name, &facts, 0), 0);
    assert_int_equal(fchmodat(*to, name, facts.st_mode & 0777, 0), 0);
}

int directory_copy(int from)
{
    int to = directory_make();
    each_file(from, copy_file, &to);
    return to;
}

struct counting {
    const char *suffix;
    unsigned count;
};

static void count_file(int fd, const char *name, void *context)
{
    struct counting *counting = context;
    (void)fd;
    counting->count += key_file_has_suffix(name, counting->suffix);
}

unsigned files_with_suffix(int directory, const char *suffix)
{
    struct counting counting = {suffix, 0};
    each_file(directory, count_file, &counting);
    return counting.count;
}

struct keystore *store_open_in(int directory)
{
    struct keystore *store = NULL;
    struct fault fault = {0};
    if (keystore_open(&store, directory, count_report, NULL, &fault) != OK)
        fail_msg("the key store does not open: %s", fault.detail);
    return store;
}

struct span wrapped_of(const struct released_key *key)
{
    return (struct span){key->wrapped, key->wrapped_length};
}

const uint8_t *id_of(uint8_t n)
{
    static uint8_t ids[256][TENANT_ID_BYTES];
    memset(ids[n], n, TENANT_ID_BYTES);
    return ids[n];
}

const char *file_of(uint8_t n, const char *suffix)
{
    static char name[KEY_FILE_NAME];
    char id[TENANT_ID_TEXT];
    hex_encode(id, (struct span){id_of(n), TENANT_ID_BYTES});
    snprintf(name, sizeof name, "%s%s", id, suffix);
    return name;
}

enum { LEVELS = 8, LEAVES = 1 << (LEVELS - 1) };

static struct hash_value tree[LEVELS][LEAVES];

static status keep_node(void *context, uint32_t level, uint64_t index,
                        const struct hash_value *node, struct fault *fault)
{
    (void)context, (void)fault;
    assert_true(level < LEVELS && index < LEAVES);
    tree[level][index] = *node;
    return OK;
}

static status read_node(struct hash_value *ret, void *context, uint32_t level, uint64_t index,
                        struct fault *fault)
{
    (void)context, (void)fault;
    assert_true(level < LEVELS && index < LEAVES);
    *ret = tree[level][index];
    return OK;
}

void log_root(uint8_t ret[HASH_BYTES], uint64_t size)
{
    struct merkle_edge edge = {0};
    struct fault fault;
    for (uint64_t i = 0; i < size; i++) {
        char text[24];
        snprintf(text, sizeof text, "%ju", (uintmax_t)i);
        struct hash_value leaf = merkle_leaf(span_of_text(text));
        assert_ok(merkle_append(&edge, &leaf, keep_node, NULL, &fault));
    }
    struct hash_value root = merkle_root(&edge);
    memcpy(ret, root.bytes, HASH_BYTES);
}

uint32_t log_proof(struct hash_value *ret, uint64_t from, uint64_t to)
{
    uint8_t root[HASH_BYTES];
    uint32_t count = 0;
    struct fault fault;
    log_root(root, to); /* fills the tree */
    if (from > 0 && from < to)
        assert_ok(merkle_consistency(ret, &count, from, to, read_node, NULL, &fault));
    return count;
}
