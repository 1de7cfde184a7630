/* bench-audit: how fast entries become durable in the tamper-evident log, and how long its proofs
 * take. Entries of the usual size are appended in batches, each batch one commit with its sync, to
 * a store on the disk. Prints JSON.
 *
 * bench-audit [DIRECTORY] [ENTRIES] [BATCH]        default: the current one, 1000000, 1000 */
#define _GNU_SOURCE /* O_PATH */
#include "store/log.h"

#include "base/clock.h"
#include "store/statement.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ENTRY_BYTES = 560, PROOFS = 200 };

static void need(status code, const char *what, const struct fault *fault)
{
    if (code == OK)
        return;
    fprintf(stderr, "bench-audit: %s: %s\n", what, fault->detail);
    exit(1);
}

static int compare(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

static void append_batch(struct store *store, struct store_log *log, long batch)
{
    struct fault fault;
    char entry[ENTRY_BYTES + 1];
    memset(entry, 'x', sizeof entry);
    need(store_begin(store, &fault), "begin", &fault);
    for (long i = 0; i < batch; i++) {
        int head = snprintf(entry, sizeof entry, "{\"index\":%llu,\"time\":",
                            (unsigned long long)store_log_next(log));
        entry[head] = 'x';
        need(store_log_append(log, (struct span){(uint8_t *)entry, ENTRY_BYTES}, &fault),
             "append", &fault);
    }
    need(store_commit(store, &fault), "commit", &fault);
    store_log_committed(log);
}

/* Median and worst of both proofs at places all over the log. */
static void time_proofs(struct store_log *log, int64_t ret_us[2])
{
    static int64_t us[PROOFS];
    struct hash_value proof[CONSISTENCY_PROOF_MAX];
    struct fault fault;
    uint64_t size = store_log_size(log);
    for (uint64_t i = 0; i < PROOFS; i++) {
        uint32_t count;
        uint64_t at = 1 + (size - 2) * i / PROOFS;
        int64_t begin = clock_monotonic_us();
        need(store_log_inclusion(proof, &count, log, at, size, &fault), "inclusion", &fault);
        need(store_log_consistency(proof, &count, log, at, size, &fault), "consistency", &fault);
        us[i] = (clock_monotonic_us() - begin) / 2;
    }
    qsort(us, PROOFS, sizeof *us, compare);
    ret_us[0] = us[PROOFS / 2];
    ret_us[1] = us[PROOFS - 1];
}

static struct store *open_in(int fd)
{
    static const struct store_key key = {1, "thirty-two bytes of data key ..."};
    struct store *store;
    struct fault fault;
    const struct store_options options = {.silo_fd = fd, .keys = &key, .key_count = 1,
                                          .silo_id = (const uint8_t *)"a bench's silo .."};
    need(store_open(&store, &options, &fault), "open", &fault);
    return store;
}

int main(int argc, char **argv)
{
    char folder[512];
    struct fault fault;
    struct store_log *log;
    int64_t proof_us[2];
    long entries = argc > 2 ? strtol(argv[2], NULL, 10) : 1000000;
    long batch = argc > 3 ? strtol(argv[3], NULL, 10) : 1000;
    if (entries < batch || batch < 1) {
        fprintf(stderr, "usage: bench-audit [DIRECTORY] [ENTRIES] [BATCH]\n");
        return 2;
    }
    snprintf(folder, sizeof folder, "%s/bench-audit-XXXXXX", argc > 1 ? argv[1] : ".");
    need(crypt_start(&fault), "crypt", &fault);
    need(store_start(&fault), "store", &fault);
    int fd = mkdtemp(folder) ? open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd < 0) {
        perror(folder);
        return 1;
    }
    struct store *store = open_in(fd);
    need(store_log_open(&log, store, &fault), "log", &fault);
    int64_t begin = clock_monotonic_us();
    for (long done = 0; done < entries; done += batch)
        append_batch(store, log, batch);
    double seconds = (double)(clock_monotonic_us() - begin) / 1e6;
    time_proofs(log, proof_us);
    uint64_t size = store_log_size(log), bytes = store_bytes(store);
    log = store_log_close(log);
    begin = clock_monotonic_us();
    need(store_log_open(&log, store, &fault), "log", &fault);
    int64_t open_us = clock_monotonic_us() - begin;
    printf("{\"entries\":%llu,\"batch\":%ld,\"entry_bytes\":%d,\"seconds\":%.3f,"
           "\"durable_entries_per_second\":%.0f,\"bytes_stored\":%llu,\"proof_p50_us\":%lld,"
           "\"proof_max_us\":%lld,\"open_us\":%lld}\n",
           (unsigned long long)size, batch, ENTRY_BYTES, seconds, (double)size / seconds,
           (unsigned long long)bytes, (long long)proof_us[0], (long long)proof_us[1],
           (long long)open_us);
    log = store_log_close(log);
    need(store_close(store, NULL, &fault), "close", &fault);
    static const char *const names[] = {STORE_DATABASE, STORE_WAL, STORE_MAP};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unlinkat(fd, names[i], 0);
    close(fd);
    return rmdir(folder) == 0 ? 0 : 1;
}
