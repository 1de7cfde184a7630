/* start.c: a hostile cell wakes like any other: it says that it is blank, is told which tenant to
 * be, closes its jail, is read back by the supervisor; only then it is told what to try. */
#define _GNU_SOURCE
#include "prove/hostile.h"

#include "base/cleanup.h"
#include "base/hex.h"
#include "jail/jail.h"
#include "wire/json.h"

#include <stdlib.h>
#include <unistd.h>

enum { SEND_WAIT_MS = 5000, POSTURE_MAX = 2 * CHARTER_MAX + KIB(2),
       TARGET_MAX = PROVE_TARGET_MAX };

static status take_assume(struct hostile *self, struct ipc_message *message, struct fault *fault)
{
    struct cursor body = cursor_over(message->body);
    uint8_t tenant[TENANT_ID_BYTES];
    uint32_t uid;
    struct span posture;
    if (message->type != MESSAGE_CELL_ASSUME)
        return FAIL(BAD_REQUEST, fault, "message %#x where CELL_ASSUME was due", message->type);
    TRY(ipc_need_fds(message, 2, fault));
    TRY(cursor_copy(tenant, &body, sizeof tenant, fault));
    TRY(cursor_u32(&uid, &body, fault));
    TRY(cursor_field(&posture, &body, POSTURE_MAX, "posture", fault));
    TRY(cursor_end(&body, fault));
    self->silo = take_fd(&message->fds[0]);
    self->kms = take_fd(&message->fds[1]);
    return OK;
}

static status close_jail(struct hostile *self, int supervisor, struct fault *fault)
{
    const struct jail_directory silo = {self->silo, JAIL_READ | JAIL_WRITE};
    uint8_t storage[8];
    struct buffer body = buffer_over(storage, sizeof storage);
    struct jail_proof proof;
    TRY(jail_close(&proof, JAIL_CELL, &silo, 1, fault));
    buffer_put_u32(&body, proof.landlock_abi);
    buffer_put_u8(&body, proof.landlock_abi > 0);
    return ipc_send_wait(supervisor, MESSAGE_JAILED, 0, buffer_span(&body), NULL, 0, SEND_WAIT_MS,
                         fault);
}

static status take_channel(struct hostile *self, struct ipc_message *message, struct fault *fault)
{
    struct cursor body = cursor_over(message->body);
    uint8_t kind;
    uint32_t index;
    TRY(ipc_need_fds(message, 1, fault));
    TRY(cursor_u8(&kind, &body, fault));
    TRY(cursor_u32(&index, &body, fault));
    TRY(cursor_end(&body, fault));
    if (kind != CHANNEL_GATEWAY || self->relay_count == GATEWAYS_MAX)
        return FAIL(BAD_REQUEST, fault, "a channel of kind %u", kind);
    self->relays[self->relay_count++] = take_fd(&message->fds[0]);
    return OK;
}

static status target_path(char *ret, size_t size, const struct json *target, const char *name,
                          struct fault *fault)
{
    struct span path;
    TRY(json_text(&path, target, name, 1, size - 1, fault));
    if (!span_to_text(ret, size, path))
        return FAIL(BAD_FIELD, fault, "%s: too long", name);
    return OK;
}

static status target_wrapped(struct target *ret, const struct json *target, struct fault *fault)
{
    struct span text = {0};
    TRY(json_optional_text(&text, target, "wrapped", 0, 2 * sizeof ret->wrapped, fault));
    if (text.length)
        TRY(hex_decode(ret->wrapped, text.length / 2, text, "wrapped", fault));
    ret->wrapped_length = text.length / 2;
    return OK;
}

static status target_get(struct target *ret, const struct json *target, struct fault *fault)
{
    const struct {
        const char *name;
        int64_t *ret;
    } numbers[] = {{"neighbour_pid", &ret->neighbour_pid}, {"neighbour_uid", &ret->neighbour_uid},
                   {"supervisor_pid", &ret->supervisor_pid}, {"kms_pid", &ret->kms_pid},
                   {"control_pid", &ret->control_pid}, {"gateway_pid", &ret->gateway_pid}};
    struct span neighbour;
    TRY(json_need_object(target, "target", fault));
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        TRY(json_optional_integer(numbers[i].ret, target, numbers[i].name, 2, UINT32_MAX, fault));
    TRY(json_text(&neighbour, target, "neighbour", TENANT_ID_TEXT - 1, TENANT_ID_TEXT - 1, fault));
    TRY(hex_decode(ret->neighbour, sizeof ret->neighbour, neighbour, "neighbour", fault));
    hex_encode(ret->neighbour_text, SPAN_OF(ret->neighbour));
    TRY(target_path(ret->data, sizeof ret->data, target, "data", fault));
    TRY(target_path(ret->keys, sizeof ret->keys, target, "keys", fault));
    TRY(json_optional_bool(&ret->symlink, target, "symlink", fault));
    TRY(json_optional_bool(&ret->device, target, "device", fault));
    TRY(json_optional_bool(&ret->hard_link, target, "hard_link", fault));
    return target_wrapped(ret, target, fault);
}

static status take_prove(struct hostile *self, struct ipc_message *message, struct fault *fault)
{
    struct cursor body = cursor_over(message->body);
    struct span text;
    struct json target;
    TRY(ipc_need_fds(message, 1, fault));
    TRY(cursor_u32(&self->attempt, &body, fault));
    TRY(cursor_field(&text, &body, TARGET_MAX, "target", fault));
    TRY(cursor_end(&body, fault));
    struct arena arena = arena_of(KIB(64));
    status parsed = json_parse(&target, &arena, text, fault);
    if (parsed == OK)
        parsed = target_get(&self->target, &target, fault);
    arena_free(&arena);
    self->results = take_fd(&message->fds[0]);
    return parsed;
}

static status await_orders(struct hostile *self, int supervisor, struct fault *fault)
{
    struct ipc_message message;
    TRY(ipc_send_wait(supervisor, MESSAGE_CELL_BLANK, 0, (struct span){0}, NULL, 0, SEND_WAIT_MS,
                      fault));
    TRY(ipc_await(&message, supervisor, self->storage, -1, fault));
    status taken = take_assume(self, &message, fault);
    ipc_message_close(&message);
    TRY(taken);
    TRY(close_jail(self, supervisor, fault));
    for (bool told = false; !told;) {
        TRY(ipc_await(&message, supervisor, self->storage, -1, fault));
        told = message.type == MESSAGE_PROVE;
        if (told)
            taken = take_prove(self, &message, fault);
        else if (message.type == MESSAGE_CHANNEL)
            taken = take_channel(self, &message, fault);
        else
            taken = FAIL(BAD_REQUEST, fault, "message %#x is not for a hostile cell",
                         message.type);
        ipc_message_close(&message);
        TRY(taken);
    }
    return OK;
}

status hostile_run(int supervisor, struct fault *fault)
{
    static struct hostile self = {.silo = -1, .kms = -1, .results = -1};
    const struct battery *battery;
    _cleanup_free_ uint8_t *storage = malloc(IPC_PACKET_MAX);
    if (!storage)
        return FAIL(INTERNAL, fault, "out of memory");
    self.storage = storage;
    TRY(await_orders(&self, supervisor, fault));
    const struct attempt *attempt = attempt_find(self.attempt, &battery);
    if (!attempt)
        return FAIL(NOT_FOUND, fault, "there is no attempt %u", self.attempt);
    TRY(report_begin(&self, attempt, battery, fault));
    struct got got = attempt->run(&self, attempt);
    return report_end(&self, attempt, &got, fault);
}
