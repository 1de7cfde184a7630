/* child.h: from the fork to the program: the one place where a process that is not the agent runs
 * the agent's code. */
#pragma once

#include "agent/user.h"

#include <stdint.h>

struct child_plan {
    char *const *arguments, *const *environment; /* NULL at their ends */
    const char *directory;   /* NULL: the user's home, or / */
    const struct user *user;
    uint64_t memory_bytes;   /* bounds by rlimits, where there is no cgroup; 0: none */
    uint32_t processes;
    int in, out, error;      /* the child's ends */
    int cgroup;              /* of its tree; -1: a shepherd watches it */
    bool terminal;           /* in is a terminal, to be the controlling one */
};

/* What the child says before the program runs: once with error 0, and again if it cannot run. */
struct child_report {
    int32_t pid;
    int32_t error; /* errno */
    char step[24];
};

/* What a shepherd says when the program has ended; then it waits for the end of its line. */
struct child_end {
    int32_t code, status; /* as of waitid(2) */
};

struct child {
    pid_t pid;  /* of the program, or of its shepherd */
    int report; /* reads struct child_report; its end: the program runs */
    int line;   /* to the shepherd: reads struct child_end; -1 without one */
};

MUST_CHECK status child_start(struct child *ret, const struct child_plan *plan,
                              struct fault *fault);
