/* What control tells gateways: tenants with their charters, the platform's, routes; and what it
 * does with a gateway that talks nonsense. */
#include "node.h"

#include "authz/charter.h"
#include "base/cleanup.h"
#include "base/hex.h"
#include "base/limits.h"

#include <string.h>
#include <unistd.h>

enum { PATIENCE_MS = 10000 };

static struct node node;
static uint8_t packet[IPC_PACKET_MAX];
static struct ipc_message message;
static struct fault fault;
static int gateway;

static void must(status result)
{
    if (result != OK)
        fail_msg("%s", fault.detail);
}

static void call(const char *verb, const char *arguments)
{
    char detail[256];
    status code;
    struct buffer json = buffer_of(65536);
    assert_true(node_call(&node, verb, arguments, &code, detail, &json));
    if (code != OK)
        fail_msg("%s: %s", verb, detail);
    buffer_free(&json);
}

/* One node for all tests: its processes must be forked before this one's secret memory is there. */
static int make_node(void **state)
{
    (void)state;
    node_make(&node);
    node_start_control(&node);
    call("tenant.create", "{\"name\":\"acme\"}");
    return crypt_start(&fault) == OK ? 0 : -1;
}

static int remove_node(void **state)
{
    (void)state;
    node_remove(&node);
    return 0;
}

static int set_up(void **state)
{
    (void)state;
    gateway = node_open_gateway(&node);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    close(gateway);
    return 0;
}

/* The next message of this type; what else comes is passed over. */
static struct cursor expect(uint32_t type)
{
    do
        must(ipc_await(&message, gateway, packet, PATIENCE_MS, &fault));
    while (message.type != type);
    return cursor_over(message.body);
}

static status ask(struct cursor *ret_result, uint32_t type, const struct buffer *body)
{
    static uint32_t id;
    must(buffer_check(body, "body", &fault));
    must(ipc_send(gateway, type, ++id, buffer_span(body), NULL, 0, &fault));
    (void)expect(MESSAGE_REPLY);
    assert_int_equal(message.id, id);
    return reply_get_head(ret_result, &message, &fault);
}

static status find(struct cursor *ret_result, const char *text, uint64_t known)
{
    uint8_t storage[512];
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put_text_field(&body, text);
    buffer_put_u64(&body, known);
    return ask(ret_result, MESSAGE_TENANT_FIND, &body);
}

struct found {
    uint8_t id[TENANT_ID_BYTES], state;
    uint64_t created_at;
    struct span charter;
};

static struct found found(const char *text, uint64_t known)
{
    struct cursor result;
    struct found found;
    must(find(&result, text, known));
    must(cursor_copy(found.id, &result, sizeof found.id, &fault));
    must(cursor_u8(&found.state, &result, &fault));
    must(cursor_u64(&found.created_at, &result, &fault));
    must(cursor_field(&found.charter, &result, IPC_BODY_MAX, "charter", &fault));
    must(cursor_end(&result, &fault));
    return found;
}

static struct charter *opened(struct span bytes)
{
    struct cursor cursor = cursor_over(bytes);
    struct signed_charter charter;
    struct charter *ret;
    struct verifier *platform;
    must(signed_charter_get(&charter, &cursor, &fault));
    must(cursor_end(&cursor, &fault));
    must(verifier_create(&platform, node.keys_public, &fault));
    must(signed_charter_open(&ret, platform, &charter, &fault));
    verifier_free(platform);
    return ret;
}

static void a_tenant_is_found_with_its_signed_charter_by_each_of_its_names(void **state)
{
    (void)state;
    char id[TENANT_ID_TEXT];
    struct cursor result;
    struct found by_name = found("acme", 0);
    struct charter *charter = opened(by_name.charter);
    assert_memory_equal(charter->id, by_name.id, TENANT_ID_BYTES);
    assert_string_equal(charter->posture.name, "acme");
    assert_int_equal((uint64_t)charter->posture.created_at_us, by_name.created_at);
    charter_free(charter);
    hex_encode(id, SPAN_OF(by_name.id));
    assert_memory_equal(found(id, 0).id, by_name.id, TENANT_ID_BYTES);
    assert_int_equal(find(&result, "host:www.acme.example", 0), NOT_FOUND);
    call("route.add",
         "{\"name\":\"acme\",\"kind\":\"host\",\"value\":\"www.acme.example\"}");
    assert_memory_equal(found("host:WWW.acme.example", 0).id, by_name.id, TENANT_ID_BYTES);
    for (size_t i = 0; i < 6; i++) {
        static const char *const none[] = {"", "beta", "host:", "host:acme", "host:-",
                                           "HOST:a.b"};
        assert_int_equal(find(&result, none[i], 0), NOT_FOUND);
    }
}

static void a_charter_is_sent_when_it_is_not_the_one_that_is_known(void **state)
{
    (void)state;
    assert_int_equal(found("acme", 1).charter.length, 0);
    call("tenant.update", "{\"name\":\"acme\",\"retention_days\":7}");
    struct cursor changed = expect(MESSAGE_TENANT_CHANGED);
    uint8_t id[TENANT_ID_BYTES];
    must(cursor_copy(id, &changed, sizeof id, &fault));
    struct found newer = found("acme", 1);
    assert_memory_equal(newer.id, id, sizeof id);
    struct charter *charter = opened(newer.charter);
    assert_int_equal(charter->sequence, 2);
    assert_int_equal(charter->posture.retention_days, 7);
    charter_free(charter);
    assert_int_equal(found("acme", 2).charter.length, 0);
    assert_true(found("acme", 3).charter.length > 0); /* who knows more is told what is */
}

static void the_platforms_charter_comes_at_once_and_on_every_change(void **state)
{
    (void)state;
    struct span charter;
    uint8_t hosts;
    uint16_t claims;
    struct cursor body = expect(MESSAGE_PLATFORM);
    must(cursor_field(&charter, &body, IPC_BODY_MAX, "charter", &fault));
    must(cursor_u8(&hosts, &body, &fault));
    must(cursor_u16(&claims, &body, &fault));
    must(cursor_end(&body, &fault));
    assert_int_equal(charter.length, 0);
    assert_int_equal(hosts, 0);
    assert_int_equal(claims, 0);
    call("token.revoke", "{\"platform\":true,\"user\":\"eve\"}");
    body = expect(MESSAGE_PLATFORM);
    must(cursor_field(&charter, &body, IPC_BODY_MAX, "charter", &fault));
    struct charter *platform = opened(charter);
    assert_true(charter_is_platform(platform));
    assert_int_equal(platform->subject_count, 1);
    charter_free(platform);
    call("route.add", "{\"name\":\"acme\",\"kind\":\"host\",\"value\":\"acme.example\"}");
    body = expect(MESSAGE_PLATFORM);
    must(cursor_field(&charter, &body, IPC_BODY_MAX, "charter", &fault));
    must(cursor_u8(&hosts, &body, &fault));
    assert_int_equal(hosts, 1);
}

static void put_question(struct buffer *body, const char *kind, const char *value)
{
    static const uint8_t token[HASH_BYTES], trace[TRACE_ID_BYTES];
    buffer_put_text_field(body, kind);
    buffer_put_text_field(body, value);
    buffer_put_text_field(body, "switchboard");
    buffer_put(body, SPAN_OF(token));
    buffer_put(body, SPAN_OF(trace));
}

static void a_route_is_found_and_what_could_be_none_is_answered_too(void **state)
{
    (void)state;
    static char longest[20000];
    struct cursor result;
    struct buffer body = buffer_of(IPC_BODY_MAX);
    uint8_t id[TENANT_ID_BYTES];
    char name[TENANT_NAME_MAX + 1];
    memset(longest, 'x', sizeof longest - 1);
    call("route.add", "{\"name\":\"acme\",\"kind\":\"phone\",\"value\":\"+4930123456\"}");
    put_question(&body, "phone", "+4930123456");
    must(ask(&result, MESSAGE_ROUTE_FIND, &body));
    must(cursor_copy(id, &result, sizeof id, &fault));
    must(cursor_text(name, sizeof name, &result, "name", &fault));
    must(cursor_end(&result, &fault));
    assert_string_equal(name, "acme");
    const struct { const char *kind, *value; status answer; } none[] = {
        {"phone", "+4930123457", NOT_FOUND}, {"host", "a.b", NOT_FOUND}, {"phone", "", BAD_FIELD},
        {"mail", "a", BAD_FIELD}, {"", "", BAD_FIELD}, {"customer", longest, BAD_FIELD},
        {longest, "a", BAD_FIELD}};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        buffer_clear(&body);
        put_question(&body, none[i].kind, none[i].value);
        assert_int_equal(ask(&result, MESSAGE_ROUTE_FIND, &body), none[i].answer);
    }
    buffer_free(&body);
}

static void must_end_the_channel(uint32_t type, struct span body)
{
    status came;
    must(ipc_send(gateway, type, 1, body, NULL, 0, &fault));
    do
        came = ipc_await(&message, gateway, packet, PATIENCE_MS, &fault);
    while (came == OK);
    assert_int_equal(came, CLOSED);
    close(gateway);
    gateway = node_open_gateway(&node);
    (void)found("acme", 0); /* and nothing else */
}

static void a_gateway_that_talks_nonsense_loses_its_channel_alone(void **state)
{
    (void)state;
    uint8_t storage[512];
    struct buffer body = buffer_over(storage, sizeof storage);
    must_end_the_channel(MESSAGE_TENANT_FIND, SPAN(""));
    buffer_put_text_field(&body, "acme"); /* without the sequence that it has */
    must_end_the_channel(MESSAGE_TENANT_FIND, buffer_span(&body));
    buffer_put_u64(&body, 0);
    buffer_put_u8(&body, 0);
    must_end_the_channel(MESSAGE_TENANT_FIND, buffer_span(&body));
    buffer_clear(&body);
    put_question(&body, "phone", "+4930123456");
    must_end_the_channel(MESSAGE_ROUTE_FIND, (struct span){body.data, body.length - 1});
    must_end_the_channel(MESSAGE_CHARTER_SIGN, SPAN(""));
    must_end_the_channel(MESSAGE_PLATFORM, SPAN(""));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = { /* in this order: what one adds stays */
        TEST(the_platforms_charter_comes_at_once_and_on_every_change),
        TEST(a_tenant_is_found_with_its_signed_charter_by_each_of_its_names),
        TEST(a_charter_is_sent_when_it_is_not_the_one_that_is_known),
        TEST(a_route_is_found_and_what_could_be_none_is_answered_too),
        TEST(a_gateway_that_talks_nonsense_loses_its_channel_alone),
    };
    return cmocka_run_group_tests(tests, make_node, remove_node);
}
