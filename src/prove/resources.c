/* resources.c: beyond the limits of one process: it gets an error or dies, alone. */
#define _GNU_SOURCE
#include "prove/hostile.h"

#include "base/sanitized.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define GIB (UINT64_C(1) << 30)

enum {
    CHUNK = 16 << 20,
    CHUNKS_MAX = 4096, /* 64 GiB: more than any cell may have */
    FILES_MAX = 100 * 1000,
    LOCKED_TRY = 64 << 20,
};

static struct got map_at_once(struct hostile *self, const struct attempt *attempt)
{
    (void)self, (void)attempt;
    if (SANITIZED)
        return got_skipped("a sanitized build has no bound of its data");
    void *place = mmap(NULL, 4 * GIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return place == MAP_FAILED ? got_errno(errno) : got_survived("4 GiB were given");
}

/* Reserved only, touched nowhere: the host need not have it. */
static struct got map_piecewise(struct hostile *self, const struct attempt *attempt)
{
    (void)self, (void)attempt;
    if (SANITIZED)
        return got_skipped("a sanitized build has no bound of its data");
    for (int i = 0; i < CHUNKS_MAX; i++)
        if (mmap(NULL, CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
            == MAP_FAILED)
            return i <= (int)(GIB / CHUNK) ? got_bounded("%s after %d MiB", strerrorname_np(errno),
                                                         i * (CHUNK >> 20))
                                           : got_survived("%d MiB were given", i * (CHUNK >> 20));
    return got_survived("64 GiB were given");
}

/* PROT_NONE is not counted as data; making it writable is. */
static struct got map_reserved(struct hostile *self, const struct attempt *attempt)
{
    (void)self, (void)attempt;
    if (SANITIZED)
        return got_skipped("a sanitized build has no bound of its data");
    void *place = mmap(NULL, 4 * GIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (place == MAP_FAILED)
        return got_errno(errno);
    return mprotect(place, 4 * GIB, PROT_READ | PROT_WRITE) ? got_errno(errno)
                                                            : got_survived("4 GiB were given");
}

/* Shared memory belongs to no process: no limit of one counts it. */
static struct got map_shared(struct hostile *self, const struct attempt *attempt)
{
    (void)self, (void)attempt;
    void *place = mmap(NULL, 4 * GIB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return got_survived(place == MAP_FAILED ? "the call was made, and failed" : "it was given");
}

static struct got open_many(struct hostile *self, const struct attempt *attempt)
{
    (void)attempt;
    int count = 0;
    while (count < FILES_MAX && openat(self->silo, ".", O_PATH | O_CLOEXEC) >= 0)
        count++;
    return count < FILES_MAX ? got_errno(errno) : got_survived("%d were opened", count);
}

static struct got lock_much(struct hostile *self, const struct attempt *attempt)
{
    (void)self, (void)attempt;
    void *place = mmap(NULL, LOCKED_TRY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                       0);
    if (place == MAP_FAILED)
        return got_survived("64 MiB were not given: %s", strerrorname_np(errno));
    /* not by the library, which sanitizers replace */
    long locked = syscall(SYS_mlock, place, LOCKED_TRY);
    return locked ? got_errno(errno) : got_survived("64 MiB were locked");
}

static struct got secret_much(struct hostile *self, const struct attempt *attempt)
{
    (void)self, (void)attempt;
    int file = (int)syscall(SYS_memfd_secret, O_CLOEXEC);
    if (file < 0)
        return got_skipped("this kernel has no secret memory");
    if (ftruncate(file, LOCKED_TRY))
        return got_survived("ftruncate: %s", strerrorname_np(errno));
    void *place = mmap(NULL, LOCKED_TRY, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    return place == MAP_FAILED ? got_errno(errno) : got_survived("64 MiB were given");
}

static struct got write_far(struct hostile *self, const struct attempt *attempt)
{
    (void)attempt;
    int file = openat(self->silo, "prove-file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0)
        return got_survived("no file: %s", strerrorname_np(errno));
    ssize_t written = pwrite(file, "x", 1, (off_t)(1024 * GIB));
    int error = errno;
    unlinkat(self->silo, "prove-file", 0);
    return written < 0 ? got_errno(error) : got_survived("a byte at 1 TiB was written");
}

static struct got extend_far(struct hostile *self, const struct attempt *attempt)
{
    (void)attempt;
    int file = openat(self->silo, "prove-file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0)
        return got_survived("no file: %s", strerrorname_np(errno));
    int extended = ftruncate(file, (off_t)(1024 * GIB));
    int error = errno;
    unlinkat(self->silo, "prove-file", 0);
    return extended ? got_errno(error) : got_survived("a file of 1 TiB was made");
}

/* The log is of all processes: one of them must not cut it, nor read what others wrote. */
static struct got truncate_log(struct hostile *self, const struct attempt *attempt)
{
    (void)self, (void)attempt;
    off_t length = lseek(STDERR_FILENO, 0, SEEK_END);
    if (length > 0) /* not done: it is the operator's */
        return got_survived("a file of %lld bytes, which could be cut", (long long)length);
    return ftruncate(STDERR_FILENO, 0) ? got_errno(errno) : got_survived("the log was cut");
}

static struct got read_log(struct hostile *self, const struct attempt *attempt)
{
    uint8_t bytes[64];
    (void)self, (void)attempt;
    ssize_t count = read(STDERR_FILENO, bytes, sizeof bytes);
    return count < 0 ? got_errno(errno) : got_survived("%zd bytes were read", count);
}

static struct got overwrite_log(struct hostile *self, const struct attempt *attempt)
{
    (void)self, (void)attempt;
    ssize_t written = pwrite(STDERR_FILENO, "", 0, 0); /* no byte of the operator's is harmed */
    return written < 0 ? got_errno(errno) : got_survived("bytes of others can be written over");
}

/* ---- faults of its own ---- */

static struct got use_null(struct hostile *self, const struct attempt *attempt)
{
    volatile uint8_t *volatile nowhere = (volatile uint8_t *)(uintptr_t)8;
    (void)self, (void)attempt;
    *nowhere = 1;
    return got_survived("the page of NULL was written");
}

static struct got run_heap(struct hostile *self, const struct attempt *attempt)
{
    static uint8_t code[16] = {0xC3, 0xC0, 0x03, 0x5F, 0xD6}; /* a return, on either machine */
    void (*volatile run)(void) = (void (*)(void))(uintptr_t)code;
    (void)self, (void)attempt;
    run();
    return got_survived("data was executed");
}

static int deeper(int depth)
{
    volatile uint8_t frame[16384];
    frame[0] = (uint8_t)depth;
    return depth > 0 ? deeper(depth + 1) + frame[0] : frame[0];
}

static struct got exhaust_stack(struct hostile *self, const struct attempt *attempt)
{
    (void)self, (void)attempt;
    return got_survived("the stack has no end: %d", deeper(1));
}

#define FAILS(title, why, number, function) \
    {.name = title, .wall = why, .expect = EXPECT_ERRNO, .value = number, .run = function}
#define DIES(title, why, function) \
    {.name = title, .wall = why, .expect = EXPECT_SIGSEGV, .run = function}

static const struct attempt attempts[] = {
    FAILS("4 GiB at once", "RLIMIT_DATA", ENOMEM, map_at_once),
    {.name = "memory piece by piece", .wall = "RLIMIT_DATA", .expect = EXPECT_BOUNDED,
     .run = map_piecewise},
    FAILS("4 GiB reserved, then made writable", "RLIMIT_DATA", ENOMEM, map_reserved),
    {.name = "shared memory, which no limit counts", .wall = "the seccomp list of cells",
     .expect = EXPECT_SIGSYS, .run = map_shared},
    FAILS("100,000 open files", "RLIMIT_NOFILE", EMFILE, open_many),
    FAILS("64 MiB locked", "RLIMIT_MEMLOCK", ENOMEM, lock_much),
    FAILS("64 MiB of secret memory", "RLIMIT_MEMLOCK", EAGAIN, secret_much),
    FAILS("a byte written at 1 TiB", "RLIMIT_FSIZE", EFBIG, write_far),
    FAILS("a file of 1 TiB", "RLIMIT_FSIZE", EFBIG, extend_far),
    FAILS("the log cut", "a pipe of its own to the log", EINVAL, truncate_log),
    FAILS("the log read", "a pipe of its own to the log", EBADF, read_log),
    FAILS("the log written over", "a pipe of its own to the log", ESPIPE, overwrite_log),
    DIES("the page of NULL written", "own address space", use_null),
    DIES("data executed", "no page is writable and executable", run_heap),
    DIES("a recursion without end", "RLIMIT_STACK", exhaust_stack),
};

const struct battery battery_resources = BATTERY("resources", "limits of the process", attempts);
