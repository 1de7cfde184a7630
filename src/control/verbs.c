/* verbs.c: what an operator may ask, by name. Arguments are checked as strictly as a stranger's. */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/hex.h"
#include "base/secret.h"
#include "control/control.h"
#include "wire/base64.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LIST_MAX = 256 * 1024 * 1024 };

static void on_done(void *context, status code, const char *detail, struct span json)
{
    session_answer(context, code, detail, json);
}

static struct outcome answer_of(struct session *session)
{
    return (struct outcome){.done = on_done, .context = session};
}

static status name_of(struct span *ret, const struct json *arguments, struct fault *fault)
{
    return json_text(ret, arguments, "name", 1, TENANT_NAME_MAX, fault);
}

static status only_name(struct span *ret, const struct json *arguments, struct fault *fault)
{
    static const char *const known[] = {"name", NULL};
    TRY(json_only(arguments, known, fault));
    return name_of(ret, arguments, fault);
}

static status tenant_named(struct tenant *ret, struct control *control, struct span name,
                           struct fault *fault)
{
    status found = registry_by_name(ret, control, name, fault);
    if (found == NOT_FOUND)
        return FAIL(NOT_FOUND, fault, "there is no tenant of this name");
    return found;
}

/* Whose charter can be changed. */
status verb_tenant(struct tenant *ret, struct control *control, const struct json *arguments,
                   struct fault *fault)
{
    struct span name;
    struct tenant tenant;
    TRY(name_of(&name, arguments, fault));
    TRY(tenant_named(&tenant, control, name, fault));
    if (tenant.state != TENANT_ACTIVE && tenant.state != TENANT_PAUSED_STATE)
        return FAIL(CONFLICT, fault, "it is being created or erased right now");
    *ret = tenant;
    return OK;
}

status verb_scope(struct charter_scope *ret, struct control *control, const struct json *arguments,
                  struct fault *fault)
{
    bool platform = false;
    TRY(json_optional_bool(&platform, arguments, "platform", fault));
    if (platform && json_member(arguments, "name"))
        return FAIL(BAD_FIELD, fault, "name: either a tenant or the platform");
    ret->platform = platform;
    if (!platform)
        TRY(verb_tenant(&ret->tenant, control, arguments, fault));
    ret->id = platform ? charter_platform_id : ret->tenant.id;
    return OK;
}

static status tenant_create(struct session *session, const struct json *arguments,
                            struct ipc_message *message, struct fault *fault)
{
    struct tenant_wish wish = {.operator_uid = session->uid};
    (void)message;
    TRY(json_only(arguments, posture_wish_members, fault));
    TRY(name_of(&wish.name, arguments, fault));
    TRY(posture_wish_read(&wish.posture, arguments, fault));
    if (wish.posture.has_retention && wish.posture.retention_days == 0)
        return FAIL(BAD_FIELD, fault, "retention_days: must be 1 to %d, or left out for ever",
                    RETENTION_DAYS_MAX);
    lifecycle_create(session->control, &wish, session->kms_admin, answer_of(session));
    return OK;
}

static status change_posture(struct session *session, const struct tenant *tenant,
                             struct draft *draft, const struct posture_wish *wish,
                             struct fault *fault)
{
    uint8_t storage[4096];
    struct buffer detail = buffer_over(storage, sizeof storage);
    struct posture *posture = &draft->next.posture;
    TRY(posture_wish_apply(posture, wish, fault));
    if (posture_equal(&draft->newest->posture, posture))
        return OK;
    posture_put_changes(&detail, draft->next.sequence, &draft->newest->posture, posture);
    TRY(buffer_check(&detail, "changes", fault));
    const struct ledger_note note = {"tenant.update", buffer_span(&detail), session->uid};
    return charter_change(session->control, tenant, &draft->next, &note, session->kms_admin,
                          fault);
}

static status answer_tenant(struct session *session, const struct tenant *tenant,
                            struct fault *fault)
{
    uint8_t storage[4096];
    struct buffer text = buffer_over(storage, sizeof storage);
    struct json_writer writer = json_writer_on(&text);
    tenant_put_json(&writer, session->control, tenant);
    TRY(buffer_check(&text, "tenant", fault));
    session_answer(session, OK, "", buffer_span(&text));
    return OK;
}

static status tenant_update(struct session *session, const struct json *arguments,
                            struct ipc_message *message, struct fault *fault)
{
    struct posture_wish wish;
    struct tenant tenant;
    struct draft draft = {0};
    (void)message;
    TRY(json_only(arguments, posture_wish_members, fault));
    TRY(posture_wish_read(&wish, arguments, fault));
    TRY(verb_tenant(&tenant, session->control, arguments, fault));
    TRY(draft_open(&draft, session->control, tenant.id, fault));
    status result;
    if (draft.newest)
        result = change_posture(session, &tenant, &draft, &wish, fault);
    else
        result = FAIL(CORRUPT, fault, "the tenant has no charter");
    draft_close(&draft);
    TRY(result);
    return answer_tenant(session, &tenant, fault);
}

static status tenant_erase(struct session *session, const struct json *arguments,
                           struct ipc_message *message, struct fault *fault)
{
    struct span name;
    (void)message;
    TRY(only_name(&name, arguments, fault));
    lifecycle_erase(session->control, name, session->kms_admin, session->uid, answer_of(session));
    return OK;
}

static status tenant_pause(struct session *session, const struct json *arguments,
                           struct ipc_message *message, struct fault *fault)
{
    struct span name;
    (void)message;
    TRY(only_name(&name, arguments, fault));
    lifecycle_pause(session->control, name, true, session->uid, answer_of(session));
    return OK;
}

static status tenant_resume(struct session *session, const struct json *arguments,
                            struct ipc_message *message, struct fault *fault)
{
    struct span name;
    (void)message;
    TRY(only_name(&name, arguments, fault));
    lifecycle_pause(session->control, name, false, session->uid, answer_of(session));
    return OK;
}

struct listing {
    struct control *control;
    struct json_writer writer;
    struct cost cost; /* of all */
};

static status list_one(void *context, const struct tenant *tenant, struct fault *fault)
{
    struct listing *listing = context;
    (void)fault;
    struct cost cost = tenant_put_json(&listing->writer, listing->control, tenant);
    cost_add(&listing->cost, &cost);
    return OK;
}

static status tenant_list(struct session *session, const struct json *arguments,
                          struct ipc_message *message, struct fault *fault)
{
    static const char *const known[] = {NULL};
    _cleanup_buffer_ struct buffer text = buffer_of(LIST_MAX);
    struct listing listing = {.control = session->control, .writer = json_writer_on(&text)};
    (void)message;
    TRY(json_only(arguments, known, fault));
    usage_flush(session->control);
    json_open_object(&listing.writer, NULL);
    json_open_array(&listing.writer, "data");
    TRY(registry_all(session->control, list_one, &listing, fault));
    json_close_array(&listing.writer);
    cost_put(&listing.writer, "cost", &listing.cost, &session->control->prices);
    json_close_object(&listing.writer);
    TRY(buffer_check(&text, "list", fault));
    session_answer(session, OK, "", buffer_span(&text));
    return OK;
}

static status tenant_show(struct session *session, const struct json *arguments,
                          struct ipc_message *message, struct fault *fault)
{
    static const char *const known[] = {"name", "days", NULL};
    _cleanup_buffer_ struct buffer text = buffer_of(LIST_MAX);
    struct json_writer writer = json_writer_on(&text);
    struct tenant tenant;
    struct span name;
    int64_t days = 0;
    (void)message;
    TRY(json_only(arguments, known, fault));
    TRY(name_of(&name, arguments, fault));
    TRY(json_optional_integer(&days, arguments, "days", 0, USAGE_DAYS_KEPT, fault));
    TRY(tenant_named(&tenant, session->control, name, fault));
    usage_flush(session->control);
    tenant_put_whole(&writer, session->control, &tenant, (uint32_t)days);
    TRY(buffer_check(&text, "tenant", fault));
    session_answer(session, OK, "", buffer_span(&text));
    return OK;
}

/* ret_longest: the longest life of a token. */
static status mint_for(uint8_t ret_id[TENANT_ID_BYTES], int64_t *ret_longest,
                       struct control *control, const struct json *arguments,
                       struct fault *fault)
{
    struct tenant tenant;
    struct span name;
    struct charter *charter = NULL;
    bool platform = false;
    struct cursor id = cursor_over(SPAN_OF(charter_platform_id));
    *ret_longest = TOKEN_LIFETIME_MAX_SECONDS;
    TRY(json_optional_bool(&platform, arguments, "platform", fault));
    if (platform && json_member(arguments, "name"))
        return FAIL(BAD_FIELD, fault, "name: either a tenant or the platform");
    if (platform)
        return cursor_copy(ret_id, &id, TENANT_ID_BYTES, fault);
    TRY(name_of(&name, arguments, fault));
    TRY(tenant_named(&tenant, control, name, fault));
    TRY(charter_newest(&charter, control, tenant.id, fault));
    if (charter->posture.token_lifetime_max_seconds)
        *ret_longest = charter->posture.token_lifetime_max_seconds;
    charter_free(charter);
    id = cursor_over(SPAN_OF(tenant.id));
    return cursor_copy(ret_id, &id, TENANT_ID_BYTES, fault);
}

static status put_mint(struct buffer *body, struct control *control,
                       const struct json *arguments, struct fault *fault)
{
    static const char whole[] = "memory:read memory:write knowledge:read knowledge:write "
                                "objects:read objects:write audit:read tenant:read";
    uint8_t id[TENANT_ID_BYTES];
    struct span user, agent = {0}, clearance = {0}, scope = SPAN(whole);
    int64_t longest, ttl = 15 * 60;
    TRY(mint_for(id, &longest, control, arguments, fault));
    TRY(json_text(&user, arguments, "user", 1, USER_MAX, fault));
    TRY(json_optional_text(&agent, arguments, "agent", 1, USER_MAX, fault));
    TRY(json_optional_text(&scope, arguments, "scope", 0, TOKEN_SCOPES_MAX, fault));
    TRY(json_optional_text(&clearance, arguments, "clearance", 1, 32, fault));
    ttl = ttl < longest ? ttl : longest;
    TRY(json_optional_integer(&ttl, arguments, "ttl_seconds", 1, TOKEN_LIFETIME_MAX_SECONDS,
                              fault));
    if (ttl > longest)
        return FAIL(BAD_FIELD, fault, "ttl_seconds: at most %lld, the tenant's "
                    "token_lifetime_seconds", (long long)longest);
    buffer_put(body, SPAN_OF(id));
    buffer_put_field(body, user);
    buffer_put_field(body, agent);
    buffer_put_field(body, scope);
    buffer_put_field(body, clearance);
    buffer_put_u32(body, (uint32_t)ttl);
    return buffer_check(body, "token", fault);
}

static status token_mint(struct session *session, const struct json *arguments,
                         struct ipc_message *message, struct fault *fault)
{
    static const char *const known[] = {"name", "platform", "user", "agent", "scope", "clearance",
                                        "ttl_seconds", NULL};
    uint8_t storage[4096], answer_bytes[TOKEN_MAX + 64];
    struct buffer body = buffer_over(storage, sizeof storage);
    struct buffer answer = buffer_over(answer_bytes, sizeof answer_bytes);
    struct json_writer writer = json_writer_on(&answer);
    struct span token;
    struct cursor result;
    (void)message;
    TRY(json_only(arguments, known, fault));
    TRY(put_mint(&body, session->control, arguments, fault));
    TRY(kms_call(&result, session->kms_admin, MESSAGE_TOKEN_MINT, buffer_span(&body), fault));
    TRY(cursor_field(&token, &result, TOKEN_MAX, "token", fault));
    json_open_object(&writer, NULL);
    json_put_string(&writer, "token", token);
    json_close_object(&writer);
    session_answer(session, OK, "", buffer_span(&answer));
    secret_wipe(answer_bytes, sizeof answer_bytes);
    secret_wipe((void *)(uintptr_t)token.data, token.length);
    return OK;
}

static status platform_key(struct session *session, const struct json *arguments,
                           struct ipc_message *message, struct fault *fault)
{
    uint8_t storage[512], hashed[HASH_BYTES];
    char fingerprint[2 * HASH_BYTES + 1];
    struct buffer text = buffer_over(storage, sizeof storage);
    struct span key = SPAN_OF(session->control->platform_key);
    (void)arguments, (void)message, (void)fault;
    hash(hashed, key);
    hex_encode(fingerprint, SPAN_OF(hashed));
    buffer_put_text(&text, "{\"algorithm\":\"Ed25519\",\"public_key\":\"");
    base64_put(&text, key);
    buffer_printf(&text, "\",\"fingerprint\":\"%s\"}", fingerprint);
    session_answer(session, OK, "", buffer_span(&text));
    return OK;
}

static status export_ledger(struct session *session, const struct json *arguments,
                            struct ipc_message *message, struct fault *fault)
{
    struct stat info;
    (void)arguments;
    TRY(ipc_need_fds(message, 1, fault));
    if (fstat(message->fds[0], &info) || !S_ISREG(info.st_mode))
        return FAIL(BAD_FIELD, fault, "ledger.export writes to a file, not to a pipe");
    TRY(ledger_export(session->control, message->fds[0], fault));
    session_answer(session, OK, "", SPAN("{}"));
    return OK;
}

static void on_plain_reply(void *context, status code, const char *detail, struct cursor *result,
                           struct ipc_message *message)
{
    (void)result, (void)message;
    session_answer(context, code, detail, SPAN("{}"));
}

static void on_status(void *context, status code, const char *detail, struct cursor *result,
                      struct ipc_message *message)
{
    struct session *session = context;
    (void)result;
    _cleanup_buffer_ struct buffer text = buffer_of(LIST_MAX);
    struct fault fault;
    if (code == OK && message && message->fd_count == 1
        && (code = file_read(&text, message->fds[0], "status", &fault)) != OK)
        detail = fault.detail;
    session_answer(session, code, detail, buffer_span(&text));
}

static status node_status(struct session *session, const struct json *arguments,
                          struct ipc_message *message, struct fault *fault)
{
    (void)arguments, (void)message, (void)fault;
    call_supervisor(session->control, MESSAGE_STATUS, (struct span){0}, NULL, 0, on_status,
                    session);
    return OK;
}

static status prove(struct session *session, const struct json *arguments,
                    struct ipc_message *message, struct fault *fault)
{
    static const char *const known[] = {"name", "target", NULL};
    _cleanup_buffer_ struct buffer body = buffer_of(IPC_BODY_MAX);
    _cleanup_buffer_ struct buffer posture = buffer_of(IPC_BODY_MAX);
    struct tenant tenant;
    struct span name;
    TRY(ipc_need_fds(message, 1, fault));
    TRY(json_only(arguments, known, fault));
    TRY(name_of(&name, arguments, fault));
    TRY(tenant_named(&tenant, session->control, name, fault));
    const struct json *target = json_member(arguments, "target");
    TRY(json_need_object(target, "target", fault));
    if (target->source.length > PROVE_TARGET_MAX)
        return FAIL(BAD_FIELD, fault, "target: at most %u bytes", (unsigned)PROVE_TARGET_MAX);
    TRY(posture_put(&posture, session->control, &tenant, fault));
    buffer_put(&body, SPAN_OF(tenant.id));
    buffer_put_u32(&body, tenant.uid);
    buffer_put_field(&body, buffer_span(&posture));
    buffer_put_field(&body, target->source);
    TRY(buffer_check(&body, "target", fault));
    call_supervisor(session->control, MESSAGE_PROVE, buffer_span(&body), message->fds, 1,
                    on_plain_reply, session);
    return OK;
}

static const struct {
    const char *name;
    verb_run *run;
} verbs[] = {
    {"tenant.create", tenant_create}, {"tenant.update", tenant_update},
    {"tenant.list", tenant_list},     {"tenant.show", tenant_show},
    {"tenant.erase", tenant_erase},   {"tenant.pause", tenant_pause},
    {"tenant.resume", tenant_resume}, {"token.mint", token_mint},
    {"token.revoke", verb_revoke},    {"token.revoked", verb_revoke_list},
    {"issuer.add", verb_issuer_add},  {"issuer.remove", verb_issuer_remove},
    {"issuer.list", verb_issuer_list}, {"route.add", verb_route_add},
    {"route.remove", verb_route_remove}, {"route.list", verb_route_list},
    {"tenant.rotate_dek", verb_rotate_dek}, {"tenant.rotate_kek", verb_rotate_kek},
    {"tenant.key.disable", verb_key_disable}, {"tenant.key.enable", verb_key_enable},
    {"audit.export", verb_audit_export}, {"audit.checkpoint", verb_audit_checkpoint},
    {"ledger.export", export_ledger},
    {"platform.key", platform_key},   {"status", node_status},
    {"prove", prove},                 {"tenant.backup", verb_backup},
    {"tenant.check", verb_check},     {"tenant.export", verb_tenant_export},
    {"tenant.restore", verb_restore}, {"sandbox.run", verb_sandbox_run},
    {"sandbox.list", verb_sandbox_list}, {"sandbox.kill", verb_sandbox_kill},
    {"sandbox.wait", verb_sandbox_wait},
};

void verbs_run(struct session *session, struct span verb, struct span arguments,
               struct ipc_message *message)
{
    struct arena arena = arena_of(KIB(256));
    struct fault fault = {0};
    struct json parsed;
    status result = FAIL(NOT_IMPLEMENTED, &fault, "this version does not know the verb %.40s",
                         (const char *)verb.data);
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++) {
        if (!span_is(verb, verbs[i].name))
            continue;
        result = json_parse(&parsed, &arena, arguments, &fault);
        if (result == OK)
            result = json_need_object(&parsed, "arguments", &fault);
        if (result == OK)
            result = verbs[i].run(session, &parsed, message, &fault);
        break;
    }
    arena_free(&arena); /* a verb that answers later has copied what it needs */
    if (result != OK)
        session_answer(session, result, fault.detail, (struct span){0});
}
