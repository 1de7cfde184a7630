/* Health, metrics, the orderly stop, START, what an idle connection costs. */
#include "house.h"

#include "gateway/state.h"

#include <malloc.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static const char *page(struct house *house, int client, const char *path,
                        int http_status)
{
    static char text[METRICS_MAX];
    house_say(house, client, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path);
    const struct reply *reply = house_reply(house, client);
    assert_int_equal(reply->status, http_status);
    assert_true(span_to_text(text, sizeof text, buffer_span(&reply->body)));
    return text;
}

static void health_and_readiness_are_told_apart(void **state)
{
    struct house *house = *state;
    int client = house_dial_ops(house);
    assert_string_equal(page(house, client, "/healthz", 200), "ok\n");
    page(house, client, "/readyz", 200);
    close(house->control);
    house->control = -1;
    house_turn(house);
    page(house, client, "/readyz", 503);
    page(house, client, "/healthz", 200);
    house_new_control(house);
    page(house, client, "/readyz", 200);
    page(house, client, "/v1/memories", 404);
    house_say(house, client, "POST /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    house_expect(house, client, 405, "method_not_allowed");
    house_say(house, client, "GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na");
    house_expect(house, client, 400, "bad_request");
    assert_true(house_closed(house, client));
    close(client);
}

static void pages_of_operations_are_not_on_the_public_listener(void **state)
{
    struct house *house = *state;
    int client = house_dial(house);
    house_say(house, client, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    house_expect(house, client, 401, "unauthenticated");
    close(client);
}

static void metrics_count_what_happened(void **state)
{
    struct house *house = *state;
    struct relayed relayed;
    int client = house_dial(house), ops = house_dial_ops(house);
    int cell = house_relayed(house, client, &relayed);
    cell_answer(cell, relayed.id, 200, "{}");
    house_expect(house, client, 200, NULL);
    house_say(house, client, "GET /v1/memories HTTP/1.1\r\nHost: x\r\n\r\n");
    house_expect(house, client, 401, NULL);
    house->stats->slots[0].wakes = 3;
    stats_time(house->stats->slots[0].wake_us, &house->stats->slots[0].wake_us_sum, 5000);
    const char *text = page(house, ops, "/metrics", 200);
    static const char *const lines[] = {
        "# TYPE bulkhead_requests_total counter\n",
        "bulkhead_requests_total{action=\"memory.list\",status=\"200\"} 1\n",
        "bulkhead_requests_total{action=\"none\",status=\"401\"} 1\n",
        "bulkhead_denied_total{reason=\"no_token\"} 1\n",
        "# TYPE bulkhead_request_seconds histogram\n",
        "bulkhead_request_seconds_bucket{le=\"+Inf\"} 2\n",
        "bulkhead_request_seconds_count 2\n",
        "bulkhead_connections_open 1\n",
        "bulkhead_wakes_total 3\n",
        "bulkhead_wake_seconds_bucket{le=\"0.004096\"} 0\n",
        "bulkhead_wake_seconds_bucket{le=\"0.008192\"} 1\n",
        "bulkhead_wake_seconds_sum 0.005000\n",
        "bulkhead_restarts_total 0\n",
        "bulkhead_tenant_requests_total{tenant=\"" TENANT "\",status=\"2xx\"} 1\n",
        "bulkhead_queue_depth{queue=\"wake\"} 0\n",
        "bulkhead_connections_by_protocol{protocol=\"http1\",tls=\"no\"} 1\n",
        "bulkhead_tls_handshakes_failed_total{reason=\"refused\"} 0\n",
    };
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        if (!strstr(text, lines[i]))
            fail_msg("no line %s", lines[i]);
    close(client);
    close(ops);
    close(cell);
}

/* Of the page that came last. */
static void expect_line(const char *text, const char *line)
{
    if (!strstr(text, line))
        fail_msg("no line %s", line);
}

static void metrics_tell_what_waits(void **state)
{
    struct house *house = *state;
    struct relayed relayed;
    int first = house_dial(house), second = house_dial(house), third = house_dial(house);
    int ops = house_dial_ops(house);
    int cell = house_relayed(house, first, &relayed);
    house_token(house, OTHER_TENANT, "memory:read");
    house_get(house, second, "/v1/memories"); /* waits for its lookup */
    const char *text = page(house, ops, "/metrics", 200);
    expect_line(text, "bulkhead_queue_depth{queue=\"cells\"} 1\n");
    expect_line(text, "bulkhead_queue_depth{queue=\"lookup\"} 1\n");
    expect_line(text, "bulkhead_queue_depth{queue=\"control\"} 1\n");
    house_find(house, OTHER_TENANT, 1); /* and now for its cell */
    house_get(house, third, "/v1/memories");
    text = page(house, ops, "/metrics", 200);
    expect_line(text, "bulkhead_queue_depth{queue=\"lookup\"} 0\n");
    expect_line(text, "bulkhead_queue_depth{queue=\"wake\"} 2\n");
    close(second);
    cell_answer(cell, relayed.id, 200, "{}");
    house_expect(house, first, 200, NULL);
    text = page(house, ops, "/metrics", 200);
    expect_line(text, "bulkhead_queue_depth{queue=\"cells\"} 0\n");
    expect_line(text, "bulkhead_queue_depth{queue=\"wake\"} 1\n");
    close(first);
    close(third);
    close(ops);
    close(cell);
}

static void tenants_beyond_the_table_are_counted_together(void **state)
{
    struct house *house = *state;
    struct stats *stats = &house->stats->slots[1];
    int client = house_dial(house), ops = house_dial_ops(house);
    for (uint32_t i = 0; i < STATS_TENANTS_MAX; i++) { /* by a predecessor */
        stats->tenants[i].id[0] = (uint8_t)(i >> 8);
        stats->tenants[i].id[1] = (uint8_t)i;
        stats->tenants[i].requests[4] = 7;
    }
    stats->tenant_count = STATS_TENANTS_MAX;
    house_get(house, client, "/no");
    house_find(house, TENANT, 1);
    house_expect(house, client, 404, NULL);
    const char *text = page(house, ops, "/metrics", 200);
    expect_line(text, "bulkhead_tenant_requests_total{tenant=\"other\",status=\"4xx\"} 1\n");
    expect_line(text, "{tenant=\"03ff0000000000000000000000000000\",status=\"4xx\"} 7\n");
    assert_null(strstr(text, TENANT));
    stats->tenant_count = UINT32_MAX; /* by a gateway that was taken over */
    text = page(house, ops, "/metrics", 200);
    expect_line(text, "{tenant=\"other\",status=\"4xx\"} 1\n");
    close(client);
    close(ops);
}

static int unlabelled_setup(void **state)
{
    const struct house_options options = {.no_tenant_labels = true};
    return house_setup_as(state, &options);
}

static void without_tenant_labels_no_tenant_is_told_apart(void **state)
{
    struct house *house = *state;
    int client = house_dial(house), ops = house_dial_ops(house);
    house_get(house, client, "/no");
    house_find(house, TENANT, 1);
    house_expect(house, client, 404, NULL);
    const char *text = page(house, ops, "/metrics", 200);
    assert_null(strstr(text, TENANT));
    assert_null(strstr(text, "tenant="));
    expect_line(text, "bulkhead_requests_total{action=\"none\",status=\"404\"} 1\n");
    assert_int_equal(house->stats->slots[1].tenant_count, 0);
    close(client);
    close(ops);
}

static void stop(struct house *house)
{
    cell_send(house->supervisor, MESSAGE_STOP, 0, (struct span){0});
    house_turn(house);
}

static void a_stop_lets_what_is_in_flight_finish(void **state)
{
    struct house *house = *state;
    struct relayed relayed;
    status why;
    int idle = house_dial(house), busy = house_dial(house);
    int cell = house_relayed(house, busy, &relayed);
    stop(house);
    assert_true(house_closed(house, idle));
    assert_false(house_ended(house, &why));
    cell_answer(cell, relayed.id, 200, "{}");
    const struct reply *reply = house_reply(house, busy);
    assert_int_equal(reply->status, 200);
    assert_string_equal(reply_header(reply, "Connection"), "close");
    assert_true(house_closed(house, busy));
    close(busy);
    assert_true(house_ended(house, &why));
    assert_int_equal(why, OK);
    close(idle);
    close(cell);
}

static void a_stop_does_not_wait_for_ever(void **state)
{
    struct house *house = *state;
    struct relayed relayed;
    status why;
    int busy = house_dial(house);
    int cell = house_relayed(house, busy, &relayed);
    stop(house);
    house_wait(house, 9999);
    assert_false(house_ended(house, &why));
    house_wait(house, 2);
    assert_true(house_ended(house, &why));
    assert_int_equal(why, OK);
    close(busy);
    close(cell);
}

static void without_connections_a_stop_is_at_once(void **state)
{
    struct house *house = *state;
    status why;
    stop(house);
    assert_true(house_ended(house, &why));
    assert_int_equal(why, OK);
}

static void a_supervisor_that_is_gone_ends_the_gateway(void **state)
{
    struct house *house = *state;
    status why;
    close(house->supervisor);
    house->supervisor = -1;
    assert_true(house_ended(house, &why));
    assert_int_equal(why, CLOSED);
}

static void a_message_that_is_not_the_supervisors_ends_the_gateway(void **state)
{
    struct house *house = *state;
    status why;
    cell_send(house->supervisor, MESSAGE_RELAY_DRAIN, 0, (struct span){0});
    assert_true(house_ended(house, &why));
    assert_int_equal(why, BAD_REQUEST);
}

static void put_start(struct buffer *body, uint32_t index, uint16_t proxies)
{
    uint8_t keys[2 * SIGN_PUBLIC_BYTES] = {0}, address[ADDRESS_BYTES] = {10};
    buffer_put_u32(body, index);
    buffer_put_u32(body, 2);
    buffer_put(body, SPAN_OF(keys));
    buffer_put_u8(body, 1);
    buffer_put_text_field(body, "bank.example");
    buffer_put_text_field(body, "eu");
    buffer_put_u8(body, 1);
    buffer_put_u32(body, 50);
    buffer_put_u16(body, proxies);
    for (uint16_t i = 0; i < proxies; i++) {
        buffer_put_u8(body, 4);
        buffer_put(body, SPAN_OF(address));
        buffer_put_u8(body, 8);
    }
}

static void a_start_is_what_it_must_be_or_nothing(void **state)
{
    (void)state;
    uint8_t bytes[4096];
    struct buffer body = buffer_over(bytes, sizeof bytes);
    struct gateway_start start;
    struct fault fault;
    put_start(&body, 1, 2);
    struct ipc_message message = {.type = MESSAGE_START, .body = buffer_span(&body),
                                  .fd_count = 3, .fds = {10, 11, 12, -1}};
    struct ipc_message wrong = message;
    assert_int_equal(gateway_start_get(&start, &message, &fault), OK);
    assert_int_equal(start.index, 1);
    assert_int_equal(start.gateways, 2);
    assert_int_equal(start.ops, -1);
    assert_true(start.tls && start.tenant_labels);
    assert_string_equal(start.domain, "bank.example");
    assert_string_equal(start.region, "eu");
    assert_int_equal(start.connections_per_address, 50);
    assert_int_equal(start.proxy_count, 2);
    assert_int_equal(start.proxies[1].prefix_bits, 8);
    for (size_t length = 0; length < body.length; length++) {
        wrong.body.length = length;
        assert_int_not_equal(gateway_start_get(&start, &wrong, &fault), OK);
    }
    wrong.body.length = body.length + 1;
    assert_int_equal(gateway_start_get(&start, &wrong, &fault), BAD_REQUEST);
    wrong.body.length = body.length;
    wrong.fd_count = 2;
    assert_int_equal(gateway_start_get(&start, &wrong, &fault), BAD_REQUEST);
    wrong.fd_count = 3;
    bytes[72] = 2; /* TLS: neither on nor off */
    assert_int_equal(gateway_start_get(&start, &wrong, &fault), BAD_REQUEST);
    bytes[72] = 1;
    bytes[3] = 2; /* gateway 2 of 2 */
    assert_int_equal(gateway_start_get(&start, &wrong, &fault), BAD_REQUEST);
    bytes[3] = 0; /* gateway 0 has the listener of operations */
    assert_int_equal(gateway_start_get(&start, &wrong, &fault), BAD_REQUEST);
    assert_int_equal(wrong.fds[0], 10); /* nothing was taken */
    buffer_clear(&body);
    put_start(&body, 1, TRUSTED_PROXIES_MAX + 1);
    wrong.body = buffer_span(&body);
    assert_int_equal(gateway_start_get(&start, &wrong, &fault), BAD_REQUEST);
}

static void an_idle_connection_costs_little(void **state)
{
    enum { CLIENTS = 400, BYTES_EACH = 1024 };
    struct house *house = *state;
    static int clients[CLIENTS];
    struct mallinfo2 before = mallinfo2();
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = house_dial(house);
        house_say(house, clients[i], "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        house_expect(house, clients[i], 401, NULL);
    }
    struct mallinfo2 after = mallinfo2();
    assert_true(after.uordblks - before.uordblks < CLIENTS * BYTES_EACH);
    for (int i = 0; i < CLIENTS; i++)
        close(clients[i]);
    house_turn(house);
}

static void the_number_of_ops_connections_is_bounded(void **state)
{
    struct house *house = *state;
    int clients[GATEWAY_OPS_CONNECTIONS_MAX + 1];
    for (int i = 0; i <= GATEWAY_OPS_CONNECTIONS_MAX; i++)
        clients[i] = house_dial_ops(house);
    house_say(house, clients[GATEWAY_OPS_CONNECTIONS_MAX],
              "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_true(house_silent(house, clients[GATEWAY_OPS_CONNECTIONS_MAX]));
    close(clients[0]); /* makes room */
    house_expect(house, clients[GATEWAY_OPS_CONNECTIONS_MAX], 200, NULL);
    for (int i = 1; i <= GATEWAY_OPS_CONNECTIONS_MAX; i++)
        close(clients[i]);
}

#define HOUSE_TEST(name) cmocka_unit_test_setup_teardown(name, house_setup, house_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOUSE_TEST(health_and_readiness_are_told_apart),
        HOUSE_TEST(pages_of_operations_are_not_on_the_public_listener),
        HOUSE_TEST(metrics_count_what_happened),
        HOUSE_TEST(metrics_tell_what_waits),
        HOUSE_TEST(tenants_beyond_the_table_are_counted_together),
        cmocka_unit_test_setup_teardown(without_tenant_labels_no_tenant_is_told_apart,
                                        unlabelled_setup, house_teardown),
        HOUSE_TEST(a_stop_lets_what_is_in_flight_finish),
        HOUSE_TEST(a_stop_does_not_wait_for_ever),
        HOUSE_TEST(without_connections_a_stop_is_at_once),
        HOUSE_TEST(a_supervisor_that_is_gone_ends_the_gateway),
        HOUSE_TEST(a_message_that_is_not_the_supervisors_ends_the_gateway),
        cmocka_unit_test(a_start_is_what_it_must_be_or_nothing),
        HOUSE_TEST(an_idle_connection_costs_little),
        HOUSE_TEST(the_number_of_ops_connections_is_bounded),
    };
    return cmocka_run_group_tests_name("gateway operations", tests, NULL, NULL);
}
