/* hostile_control.c: control in the hands of an attacker: the genuine program, linked so that what
 * it says to cells and gateways passes through here. The attack is chosen by small files in its own
 * directory, the only place that its jail leaves to it; without them it is honest. Test program.
 *
 *   seen.ID.SEQUENCE   written: each genuine signed charter that it handed on
 *   forged.ID          handed out instead of the charter of ID; "none": nothing is
 *   alias              two ids: asked for the first, it answers with the second
 *   ask                u32 type, body: said to the kms over the standing channel, once
 *   answer             written: the status that came back, or "closed"
 *   die                "before" or "after": it ends there when a charter is signed, once */
#include "base/cleanup.h"
#include "base/hex.h"
#include "control/control.h"
#include "store/io.h"

#include <stdio.h>
#include <unistd.h>

enum { NAME_MAX_BYTES = 80 };

status __real_charter_put_signed(struct buffer *out, struct control *control,
                                 const uint8_t id[TENANT_ID_BYTES], uint64_t known,
                                 struct fault *fault);
status __wrap_charter_put_signed(struct buffer *out, struct control *control,
                                 const uint8_t id[TENANT_ID_BYTES], uint64_t known,
                                 struct fault *fault);
status __real_registry_by_id(struct tenant *ret, struct control *control,
                             const uint8_t id[TENANT_ID_BYTES], struct fault *fault);
status __wrap_registry_by_id(struct tenant *ret, struct control *control,
                             const uint8_t id[TENANT_ID_BYTES], struct fault *fault);

status __real_kms_call(struct cursor *ret_result, int channel, uint32_t type, struct span body,
                       struct fault *fault);
status __wrap_kms_call(struct cursor *ret_result, int channel, uint32_t type, struct span body,
                       struct fault *fault);

static int own_directory = -1; /* of the one control of this process */

static void name_of(char ret[NAME_MAX_BYTES], const char *what,
                    const uint8_t id[TENANT_ID_BYTES])
{
    char text[TENANT_ID_TEXT];
    hex_encode(text, (struct span){id, TENANT_ID_BYTES});
    snprintf(ret, NAME_MAX_BYTES, "%s.%s", what, text);
}

static void write_file(const struct control *control, const char *name, struct span bytes)
{
    struct fault fault;
    if (store_write_small(control->directory, name, bytes, &fault) != OK)
        control_die("hostile: write", &fault);
}

static void keep_seen(const struct control *control, const uint8_t id[TENANT_ID_BYTES],
                      struct span genuine)
{
    _cleanup_buffer_ struct buffer before = buffer_of(CHARTER_WIRE_MAX);
    char name[NAME_MAX_BYTES], whole[NAME_MAX_BYTES + 24];
    struct signed_charter charter;
    struct cursor cursor = cursor_over(genuine);
    struct fault fault;
    if (signed_charter_get(&charter, &cursor, &fault) != OK)
        control_die("hostile: its own charter", &fault);
    name_of(name, "seen", id);
    snprintf(whole, sizeof whole, "%s.%ju", name, (uintmax_t)charter.sequence);
    if (store_read_small(&before, control->directory, whole, &fault) == NOT_FOUND)
        write_file(control, whole, genuine);
}

/* As kill -9 would: nothing is flushed, answered or undone. */
static void die_when_due(const char *when)
{
    uint8_t storage[16];
    struct buffer wish = buffer_over(storage, sizeof storage);
    struct fault fault;
    if (own_directory < 0 || store_read_small(&wish, own_directory, "die", &fault) != OK
        || !span_is(buffer_span(&wish), when))
        return;
    unlinkat(own_directory, "die", 0);
    _exit(1);
}

status __wrap_kms_call(struct cursor *ret_result, int channel, uint32_t type, struct span body,
                       struct fault *fault)
{
    if (type == MESSAGE_CHARTER_SIGN)
        die_when_due("before");
    status said = __real_kms_call(ret_result, channel, type, body, fault);
    if (type == MESSAGE_CHARTER_SIGN)
        die_when_due("after");
    return said;
}

static void ask_kms(const struct control *control)
{
    _cleanup_buffer_ struct buffer wish = buffer_of(CHARTER_WIRE_MAX);
    struct cursor cursor, result;
    uint32_t type;
    struct fault fault;
    if (store_read_small(&wish, control->directory, "ask", &fault) != OK)
        return;
    unlinkat(control->directory, "ask", 0);
    cursor = cursor_over(buffer_span(&wish));
    if (cursor_u32(&type, &cursor, &fault) != OK)
        return;
    status said = __real_kms_call(&result, control->kms, type,
                           (struct span){cursor.next, cursor_left(&cursor)}, &fault);
    write_file(control, "answer", said == CLOSED ? SPAN("closed")
                                                 : span_of_text(status_code(said)));
}

status __wrap_charter_put_signed(struct buffer *out, struct control *control,
                                 const uint8_t id[TENANT_ID_BYTES], uint64_t known,
                                 struct fault *fault)
{
    _cleanup_buffer_ struct buffer genuine = buffer_of(CHARTER_WIRE_MAX);
    char name[NAME_MAX_BYTES];
    struct fault ignored;
    status found = __real_charter_put_signed(&genuine, control, id, 0, fault);
    if (found == OK)
        keep_seen(control, id, buffer_span(&genuine));
    ask_kms(control);
    name_of(name, "forged", id);
    buffer_clear(&genuine);
    if (store_read_small(&genuine, control->directory, name, &ignored) == OK) {
        if (!span_is(buffer_span(&genuine), "none"))
            buffer_put(out, buffer_span(&genuine));
        return OK;
    }
    return __real_charter_put_signed(out, control, id, known, fault);
}

status __wrap_registry_by_id(struct tenant *ret, struct control *control,
                             const uint8_t id[TENANT_ID_BYTES], struct fault *fault)
{
    _cleanup_buffer_ struct buffer alias = buffer_of(2 * TENANT_ID_BYTES);
    struct fault ignored;
    own_directory = control->directory;
    if (store_read_small(&alias, control->directory, "alias", &ignored) == OK
        && alias.length == 2 * TENANT_ID_BYTES
        && span_equal((struct span){alias.data, TENANT_ID_BYTES},
                      (struct span){id, TENANT_ID_BYTES}))
        return __real_registry_by_id(ret, control, alias.data + TENANT_ID_BYTES, fault);
    return __real_registry_by_id(ret, control, id, fault);
}
