/* tree.h: everything that came of one command, to be bounded, counted and killed as a whole.
 *
 * Where the agent owns a cgroup v2 hierarchy (a microVM) a tree is a cgroup: nothing leaves it. In
 * a container a tree is what descends from its shepherd: a process of ours that is subreaper, so
 * that daemons come back to it. Who kills a shepherd gets nothing: its orphans come to the agent
 * and are strays, which are killed as well. */
#pragma once

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { TREES_MAX = 64 }; /* AGENT_REQUESTS_MAX: static_assert in tree.c */

struct tree {
    uint64_t memory_bytes; /* bounds: 0: none of its own */
    uint32_t processes, number;
    pid_t shepherd;        /* 0: none yet, or ended */
    int cgroup;            /* its directory, or -1 */
    uint16_t rounds;       /* of killing */
    bool used, oom;
    bool starved;          /* it was ended because nothing could run for want of memory */
};

struct trees {
    struct tree slots[TREES_MAX];
    int cgroup;      /* directory of all trees, or -1: by shepherds */
    int pressure;    /* EPOLLPRI: the trees starve, see trees_relieve; -1: nobody tells */
    uint32_t number; /* the next one */
};

/* guest: there has to be a cgroup hierarchy, and all of it is ours. */
MUST_CHECK status trees_open(struct trees *ret, bool guest, struct fault *fault);
/* Ends the tree that holds the most memory. */
void trees_relieve(struct trees *trees);
/* Returns when nothing runs any more, or after some seconds. */
void trees_kill_all(struct trees *trees);
/* How many processes do not stand still yet (stop), or 0; -1: cannot be told. */
int trees_stop(struct trees *trees);
void trees_continue(struct trees *trees);
/* Children of ours that no tree owns. */
void trees_kill_strays(struct trees *trees);

MUST_CHECK status tree_make(struct tree **ret, struct trees *trees, uint32_t processes,
                            uint64_t memory_bytes, struct fault *fault);
/* One round; true when nothing of it runs any more. To be called again until then. */
bool tree_kill(struct tree *tree);
/* CPU time and peak of a cgroup; nothing is written where a shepherd's exit tells. */
void tree_usage(struct tree *tree, uint64_t *cpu_us, uint64_t *peak_kib);
/* Returns NULL; takes NULL. It has to be dead. */
struct tree *tree_free(struct trees *trees, struct tree *tree);
