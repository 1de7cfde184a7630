#include "agent/launch.h"

#include <assert.h>

/* All words of a frame with their NULs, and what comes of the user. */
enum { TEXT_MAX = AGENT_FRAME_MAX + 2 * AGENT_ARGUMENTS_MAX + 2 * AGENT_PATH_MAX + 1024 };

static char *keep(struct buffer *text, struct span word)
{
    char *kept = (char *)text->data + text->length;
    buffer_put(text, word);
    buffer_put_u8(text, 0);
    return kept;
}

static bool names(const struct agent_exec *exec, struct span prefix)
{
    for (uint32_t i = 0; i < exec->environment_count; i++)
        if (span_starts_with(exec->environment[i], prefix))
            return true;
    return false;
}

static void put_environment(struct launch *launch, const struct agent_exec *exec,
                            const struct user *user)
{
    const struct {
        struct span name;
        const char *value;
    } more[] = {
        {SPAN("PATH="), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
        {SPAN("HOME="), user->home[0] ? user->home : "/"},
        {SPAN("USER="), user->name},
        {SPAN("LOGNAME="), user->name},
        {SPAN("SHELL="), user->shell[0] ? user->shell : "/bin/sh"},
        {SPAN("TERM="), exec->flags & AGENT_EXEC_PTY ? "xterm-256color" : NULL}};
    uint32_t count = 0;
    for (uint32_t i = 0; i < exec->environment_count; i++)
        launch->environment[count++] = keep(&launch->text, exec->environment[i]);
    for (size_t i = 0; i < sizeof more / sizeof *more; i++) {
        if (more[i].value == NULL || names(exec, more[i].name))
            continue;
        launch->environment[count] = (char *)launch->text.data + launch->text.length;
        buffer_put(&launch->text, more[i].name);
        (void)keep(&launch->text, span_of_text(more[i].value));
        count++;
    }
    launch->environment[count] = NULL;
}

status launch_make(struct launch *ret, const struct agent_exec *exec, const struct user *user,
                   struct fault *fault)
{
    *ret = (struct launch){.text = buffer_of(TEXT_MAX)};
    if (buffer_reserve(&ret->text, TEXT_MAX) == NULL) /* it must not move */
        return FAIL(UNAVAILABLE, fault, "out of memory");
    for (uint32_t i = 0; i < exec->argument_count; i++)
        ret->arguments[i] = keep(&ret->text, exec->arguments[i]);
    put_environment(ret, exec, user);
    if (exec->directory.length)
        ret->directory = keep(&ret->text, exec->directory);
    assert(!ret->text.failed);
    return OK;
}

void launch_free(struct launch *launch)
{
    buffer_free(&launch->text);
}
