#define _GNU_SOURCE
#include "agent/user.h"

#include "agent/text.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

enum {
    FILE_MAX_BYTES = 256 * 1024,
    SANDBOX_UID = 1000,
    FIELDS = 7, /* name, password, uid, gid, comment, home, shell */
};

static bool split(struct span fields[FIELDS], uint32_t count, struct span line)
{
    for (uint32_t i = 0; i < count; i++)
        if (!text_next(&fields[i], &line, ':'))
            return false;
    return line.data == NULL;
}

static bool read_id(uint32_t *ret, struct span text)
{
    uint64_t number;
    if (!text_number(&number, text) || number >= UINT32_MAX)
        return false;
    *ret = (uint32_t)number;
    return true;
}

static bool read_line(struct user *ret, struct span line)
{
    struct span fields[FIELDS];
    return split(fields, FIELDS, line) && fields[0].length > 0 && read_id(&ret->uid, fields[2])
        && read_id(&ret->gid, fields[3]) && span_to_text(ret->name, sizeof ret->name, fields[0])
        && span_to_text(ret->home, sizeof ret->home, fields[5])
        && span_to_text(ret->shell, sizeof ret->shell, fields[6]);
}

static bool find(struct user *ret, struct span passwd, struct span name, uint32_t uid)
{
    struct span line;
    while (text_next(&line, &passwd, '\n')) {
        struct user *user = ret;
        if (read_line(user, line) && (name.length ? span_is(name, user->name) : user->uid == uid))
            return true;
    }
    return false;
}

static void add_groups(struct user *user)
{
    struct fault fault;
    struct span line, fields[FIELDS], member;
    struct buffer text = buffer_of(FILE_MAX_BYTES);
    struct span rest = {0};
    if (text_file_read(&text, AT_FDCWD, "/etc/group", &fault) == OK)
        rest = buffer_span(&text);
    while (text_next(&line, &rest, '\n')) {
        uint32_t gid;
        if (!split(fields, 4, line) || !read_id(&gid, fields[2]))
            continue;
        while (text_next(&member, &fields[3], ','))
            if (user->group_count < USER_GROUPS_MAX && span_is(member, user->name)
                && gid != user->gid)
                user->groups[user->group_count++] = gid;
    }
    buffer_free(&text);
}

static void unknown(struct user *ret, uint32_t uid)
{
    *ret = (struct user){.uid = uid, .gid = uid == getuid() ? getgid() : uid};
    snprintf(ret->name, sizeof ret->name, "%u", uid);
}

static status choose(struct user *ret, struct span passwd, struct span wanted,
                     struct fault *fault)
{
    uint32_t uid = geteuid();
    /* the root of a container has one id and no capability to take another */
    bool root = uid == 0 && prctl(PR_CAPBSET_READ, CAP_SETUID) == 1;
    if (wanted.length == 0) {
        if (root && find(ret, passwd, (struct span){0}, SANDBOX_UID)
            && span_is(SPAN("sandbox"), ret->name))
            return OK;
        if (!find(ret, passwd, (struct span){0}, uid))
            unknown(ret, uid);
        return OK;
    }
    if (read_id(&uid, wanted)) {
        if (!find(ret, passwd, (struct span){0}, uid))
            unknown(ret, uid);
    } else if (!find(ret, passwd, wanted, 0)) {
        return FAIL(NOT_FOUND, fault, "user: no such user");
    }
    if (!root && ret->uid != geteuid())
        return FAIL(FORBIDDEN_POLICY, fault, "user: this sandbox has only user %u", geteuid());
    return OK;
}

status user_find(struct user *ret, struct span wanted, struct fault *fault)
{
    struct fault absent;
    struct buffer text = buffer_of(FILE_MAX_BYTES);
    if (text_file_read(&text, AT_FDCWD, "/etc/passwd", &absent) != OK)
        buffer_clear(&text); /* an image need not have one */
    status done = choose(ret, buffer_span(&text), wanted, fault);
    buffer_free(&text);
    ret->group_count = 0;
    if (done == OK && geteuid() == 0)
        add_groups(ret);
    return done;
}
