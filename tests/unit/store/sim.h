/* sim.h: a disk in memory behind the store's table of calls, for tests.
 *
 * It keeps what was written apart from what was synced. When the power is cut, each write that no
 * sync covered is kept, lost or torn at 512-byte sectors, each by the toss of a seeded coin; each
 * truncation is kept or lost; of the changes of names (of a directory that was not synced) a random
 * first part is kept. It can also fail a chosen call, or be full. */
#pragma once

#include "store/io.h"

enum { SIM_FILES = 48, SIM_NAMES = 40, SIM_FDS = 64, SIM_NAME_TEXT = 40 };

/* There are two: the silo's directory, and the one that can be made in it. */
enum sim_directory { SIM_TOP, SIM_BELOW };

struct sim_bytes {
    uint8_t *data;
    size_t length;
};

struct sim_change { /* not yet synced */
    uint32_t file;
    bool truncates;
    size_t offset; /* or the new size */
    struct sim_bytes bytes;
};

struct sim_name {
    char text[SIM_NAME_TEXT];
    uint32_t file;
    enum sim_directory directory;
    bool used, is_directory;
};

struct sim_names {
    struct sim_name at[SIM_NAMES];
};

struct sim {
    struct store_io io;
    struct sim_bytes now[SIM_FILES], durable[SIM_FILES];
    struct sim_names names, *name_history; /* history[0] is durable, the last is now */
    size_t name_history_count;
    struct sim_change *changes;
    size_t change_count, change_capacity;
    struct {
        uint32_t file; /* or, of the directory below, how many names were listed */
        bool open, locks, is_directory;
    } fds[SIM_FDS];
    uint64_t random;

    uint64_t calls;        /* all of them */
    uint64_t mutations;    /* writes, truncations, syncs, new names */
    uint64_t cut_at;       /* the power goes at this mutation, counted from 1; 0: never */
    bool off;
    uint64_t fail_at;      /* this call fails, counted from 1; 0: none */
    uint64_t fail_every;   /* every n-th call fails; 0: none */
    int fail_errno;
    size_t space;          /* bytes on the disk; 0: endless */
    void (*on_write)(struct span bytes); /* sees all that is ever written; NULL: nobody does */
};

struct sim *sim_create(uint64_t seed);
struct sim *sim_copy(const struct sim *sim); /* the files as they are now; nothing is open */
struct sim *sim_free(struct sim *sim);

/* The power is gone and comes back: what was not synced is decided, nothing is open. */
void sim_power_cycle(struct sim *sim);

/* The name of the i-th file in the directory below, in no order; NULL: there are not so many. */
const char *sim_below(struct sim *sim, uint32_t i);

/* The content of a file, to be looked at or changed in place; NULL data when there is none. */
struct sim_bytes *sim_file(struct sim *sim, const char *name);
void sim_set(struct sim *sim, const char *name, struct span bytes);
void sim_resize(struct sim *sim, const char *name, size_t size);
void sim_remove(struct sim *sim, const char *name);

uint64_t sim_random(struct sim *sim, uint64_t below);
