/* hosts.c: a tenant may be named by the host that a request asks for: NAME.domain, or a host that
 * an operator has routed to it. The host lets nobody in: it only must not contradict the token. */
#include "base/hex.h"
#include "gateway/state.h"

static uint8_t lower(uint8_t byte)
{
    return byte >= 'A' && byte <= 'Z' ? (uint8_t)(byte - 'A' + 'a') : byte;
}

static bool is_host_byte(uint8_t byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9') || byte == '-'
        || byte == '.' || byte == '_';
}

void host_take(char ret[HOST_NAME_TEXT], struct span value)
{
    struct address ignored;
    size_t length = span_find(value, ':');
    ret[0] = '\0';
    if (length > 0 && value.data[length - 1] == '.') /* of the root: the same name */
        length--;
    if (length == 0 || length >= HOST_NAME_TEXT)
        return;
    for (size_t i = 0; i < length; i++) {
        uint8_t byte = lower(value.data[i]);
        if (!is_host_byte(byte)) { /* an IPv6 literal, or no name of ours */
            ret[0] = '\0';
            return;
        }
        ret[i] = (char)byte;
    }
    ret[length] = '\0';
    if (address_read(&ignored, span_of_text(ret)) || span_is(span_of_text(ret), "localhost"))
        ret[0] = '\0';
}

/* The tenant that a host under the node's own domain names; empty when it is not one label. */
static struct span label_under(struct span host, struct span domain)
{
    if (domain.length == 0 || host.length <= domain.length + 1)
        return (struct span){0};
    struct span label = {host.data, host.length - domain.length - 1};
    struct span rest = {host.data + label.length + 1, domain.length};
    if (host.data[label.length] != '.' || !span_equal(rest, domain)
        || span_find(label, '.') < label.length)
        return (struct span){0};
    return label;
}

/* "" when only control could say. */
static struct span name_of(const struct lookup *tenant)
{
    uint8_t id[TENANT_ID_BYTES];
    struct fault ignored;
    struct span text = span_of_text(tenant->text);
    if (tenant->vouched.charter)
        return span_of_text(tenant->vouched.charter->posture.name);
    if (hex_decode(id, sizeof id, text, "id", &ignored) == OK)
        return (struct span){0};
    return text;
}

static status must_be(struct exchange *exchange, const struct lookup *tenant, const char *text,
                      bool must_exist, struct fault *fault)
{
    struct lookup *named;
    TRY(lookup_find(&named, exchange, text, true, fault));
    if (named->state == LOOKUP_ABSENT && !must_exist)
        return OK;
    if (named->state == LOOKUP_FOUND && tenant
        && span_equal(SPAN_OF(named->record.id), SPAN_OF(tenant->record.id)))
        return OK;
    return refuse_token(exchange, DENIAL_HOST, fault);
}

static status label_permits(struct exchange *exchange, const struct lookup *tenant,
                            struct span label, struct fault *fault)
{
    char name[TENANT_NAME_MAX + 1];
    struct span known = tenant ? name_of(tenant) : (struct span){0};
    if (!tenant || !span_to_text(name, sizeof name, label)
        || (known.length && !span_equal(known, label)))
        return refuse_token(exchange, DENIAL_HOST, fault);
    return known.length ? OK : must_be(exchange, tenant, name, true, fault);
}

status host_permits(struct exchange *exchange, const struct caller *caller, struct fault *fault)
{
    struct gateway *gateway = exchange->connection->gateway;
    struct span host = span_of_text(exchange->host);
    struct span label = label_under(host, span_of_text(gateway->start.domain));
    char storage[LOOKUP_TEXT_SIZE];
    struct buffer text = buffer_over((uint8_t *)storage, sizeof storage);
    if (label.length)
        return label_permits(exchange, caller->lookup, label, fault);
    if (!gateway->platform.host_routes || host.length == 0)
        return OK;
    buffer_put_text(&text, LOOKUP_HOST);
    buffer_put(&text, host);
    buffer_put_u8(&text, 0);
    TRY(buffer_check(&text, "host", fault));
    return must_be(exchange, caller->lookup, storage, false, fault);
}
