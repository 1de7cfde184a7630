#define _GNU_SOURCE
#include "base/secret.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static size_t whole_pages(size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (size + page - 1) / page * page;
}

static void *map_hidden(size_t size)
{
    int fd = (int)syscall(SYS_memfd_secret, 0x80000 /* O_CLOEXEC */);
    if (fd < 0)
        return MAP_FAILED;
    void *pages = MAP_FAILED;
    if (ftruncate(fd, (off_t)size) == 0)
        pages = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return pages;
}

static void *map_locked(size_t size)
{
    void *pages = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED)
        return MAP_FAILED;
    if (mlock(pages, size) || madvise(pages, size, MADV_DONTDUMP)
        || madvise(pages, size, MADV_WIPEONFORK)) {
        munmap(pages, size);
        return MAP_FAILED;
    }
    return pages;
}

void *secret_alloc(size_t size)
{
    size = whole_pages(size);
    void *pages = map_hidden(size);
    if (pages != MAP_FAILED && madvise(pages, size, MADV_DONTFORK)) {
        munmap(pages, size); /* shared with a child otherwise, which must never hold it */
        pages = MAP_FAILED;
    }
    if (pages == MAP_FAILED)
        pages = map_locked(size);
    return pages == MAP_FAILED ? NULL : pages;
}

void secret_free(void *secret, size_t size)
{
    if (!secret)
        return;
    explicit_bzero(secret, whole_pages(size));
    munmap(secret, whole_pages(size));
}

void secret_wipe(void *bytes, size_t length)
{
    explicit_bzero(bytes, length);
}

bool secret_equal(struct span left, struct span right)
{
    if (left.length != right.length)
        return false;
    uint8_t difference = 0;
    for (size_t i = 0; i < left.length; i++)
        difference |= (uint8_t)(left.data[i] ^ right.data[i]);
    __asm__("" : "+r"(difference)); /* keeps the compiler from leaving the loop early */
    return difference == 0;
}
