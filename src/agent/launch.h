/* launch.h: the words of a command as execve(2) takes them. */
#pragma once

#include "agent/user.h"
#include "wire/agent.h"

struct launch {
    char *arguments[AGENT_ARGUMENTS_MAX + 1];
    char *environment[AGENT_ARGUMENTS_MAX + 8];
    const char *directory; /* NULL: the user's home */
    struct buffer text;    /* holds them */
};

/* The caller's environment, and PATH, HOME, USER, LOGNAME, SHELL (and TERM for a terminal) where
 * it has none of that name. */
MUST_CHECK status launch_make(struct launch *ret, const struct agent_exec *exec,
                              const struct user *user, struct fault *fault);
void launch_free(struct launch *launch);
