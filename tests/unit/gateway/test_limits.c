/* Quotas that are shed, caps on connections, hosts and regions that are not a tenant's, routes. */
#include "house.h"

#include "base/clock.h"
#include "gateway/state.h"

#include <stdio.h>
#include <unistd.h>

static uint64_t denied(const struct house *house, uint32_t reason)
{
    return house->stats->slots[1].denied[reason];
}

/* A request of house->token, and its answer by a cell. */
static void served(struct house *house, int client, int cell)
{
    house_get(house, client, "/v1/memories");
    struct relayed relayed = house_request(house, cell);
    cell_answer(cell, relayed.id, 200, "{}");
    house_expect(house, client, 200, NULL);
}

/* The first, with this charter. Returns the cell's end. */
static int served_first(struct house *house, int client, const struct charter *charter)
{
    house_get(house, client, "/v1/memories");
    house_find_with(house, TENANT, 0, charter);
    int cell = house_wake(house, TENANT);
    struct relayed relayed = house_request(house, cell);
    cell_answer(cell, relayed.id, 200, "{}");
    house_expect(house, client, 200, NULL);
    return cell;
}

/* 429 that names the quota and says when to come again. */
static void expect_shed(struct house *house, int client, const char *quota)
{
    const struct reply *reply = house_reply(house, client);
    char body[1024];
    assert_int_equal(reply->status, 429);
    assert_string_equal(reply_header(reply, "Retry-After"), "1");
    assert_true(span_to_text(body, sizeof body, buffer_span(&reply->body)));
    assert_non_null(strstr(body, "\"code\":\"quota_exceeded\""));
    assert_non_null(strstr(body, quota));
}

/* ---- quotas ---- */

static void what_is_over_the_rate_is_shed_and_no_cell_hears_of_it(void **state)
{
    struct house *house = *state;
    struct charter charter = house_charter(TENANT, "acme", 1);
    int client = house_dial(house);
    charter.posture.quotas.requests_per_second = 3;
    int cell = served_first(house, client, &charter);
    served(house, client, cell);
    served(house, client, cell);
    for (int i = 0; i < 5; i++) {
        house_get(house, client, "/v1/memories");
        expect_shed(house, client, "requests_per_second");
    }
    assert_true(house_quiet(house, cell));
    assert_int_equal(denied(house, DENIAL_QUOTA), 5);
    house_wait(house, 334);
    served(house, client, cell);
    house_get(house, client, "/v1/memories");
    expect_shed(house, client, "requests_per_second");
    close(client);
    close(cell);
}

static void no_client_can_make_a_tenants_use_be_forgotten(void **state)
{
    struct house *house = *state;
    struct charter charter = house_charter(TENANT, "acme", 1);
    int client = house_dial(house);
    charter.posture.quotas.requests_per_second = 1;
    int cell = served_first(house, client, &charter);
    house_changed(house, TENANT); /* the lookup is made anew */
    struct ipc_message check = house_next(house, house->control, MESSAGE_TENANT_FIND);
    house_found(house, check.id, TENANT, 1);
    house_get(house, client, "/v1/memories");
    charter.sequence = 2; /* and so is the charter */
    house_find_with(house, TENANT, 1, &charter);
    expect_shed(house, client, "requests_per_second");
    close(client);
    client = house_dial(house); /* another connection, another token, by name */
    house_token(house, TENANT, "memory:read memory:write");
    house_get(house, client, "/v1/memories");
    expect_shed(house, client, "requests_per_second");
    close(client);
    close(cell);
}

static void what_the_caller_may_not_do_does_not_use_up_the_quota(void **state)
{
    struct house *house = *state;
    struct charter charter = house_charter(TENANT, "acme", 1);
    int client = house_dial(house);
    charter.posture.quotas.requests_per_second = 2;
    int cell = served_first(house, client, &charter);
    for (int i = 0; i < 5; i++) {
        house_get(house, client, "/no");
        house_expect(house, client, 404, NULL);
        house_get(house, client, "/v1/memories?nothing=1");
        house_expect(house, client, 400, NULL);
    }
    served(house, client, cell);
    close(client);
    close(cell);
}

static void more_at_once_than_the_quota_is_shed(void **state)
{
    enum { AT_ONCE = 3 };
    struct house *house = *state;
    struct charter charter = house_charter(TENANT, "acme", 1);
    int clients[AT_ONCE], more = house_dial(house);
    charter.posture.quotas.concurrent_requests = AT_ONCE;
    int cell = served_first(house, more, &charter);
    struct relayed relayed[AT_ONCE];
    for (int i = 0; i < AT_ONCE; i++) {
        clients[i] = house_dial(house);
        house_get(house, clients[i], "/v1/memories");
        relayed[i] = house_request(house, cell);
    }
    house_get(house, more, "/v1/memories");
    expect_shed(house, more, "concurrent_requests");
    cell_answer(cell, relayed[1].id, 200, "{}");
    house_expect(house, clients[1], 200, NULL);
    house_get(house, more, "/v1/memories");
    relayed[1] = house_request(house, cell);
    close(clients[0]); /* whose client goes away is not counted for ever */
    house_turn(house);
    house_get(house, clients[1], "/v1/memories");
    house_next(house, cell, MESSAGE_RELAY_CANCEL);
    house_request(house, cell);
    house_get(house, house_dial(house), "/v1/memories");
    assert_true(house_quiet(house, cell));
    for (int i = 1; i < AT_ONCE; i++)
        close(clients[i]);
    close(more);
    close(cell);
}

static void what_is_shed_is_told_before_its_body(void **state)
{
    struct house *house = *state;
    struct charter charter = house_charter(TENANT, "acme", 1);
    int first = house_dial(house), second = house_dial(house);
    charter.posture.quotas.concurrent_requests = 1;
    int cell = served_first(house, first, &charter);
    house_get(house, first, "/v1/memories");
    house_request(house, cell);
    house_say(house, second,
              "POST /v1/memories HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
              "Content-Type: application/json\r\nContent-Length: 60000\r\n"
              "Expect: 100-continue\r\n\r\n", (const char *)house->token.data);
    expect_shed(house, second, "concurrent_requests");
    close(first);
    close(second);
    close(cell);
}

/* Two that were let in while there was room for one more: the second finds it taken. */
static void room_is_counted_again_when_the_body_is_there(void **state)
{
    struct house *house = *state;
    struct charter charter = house_charter(TENANT, "acme", 1);
    int clients[2] = {house_dial(house), house_dial(house)};
    charter.posture.quotas.concurrent_requests = 1;
    int cell = served_first(house, clients[0], &charter);
    for (int i = 0; i < 2; i++)
        house_say(house, clients[i],
                  "POST /v1/memories HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
                  "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n",
                  (const char *)house->token.data);
    house_say(house, clients[0], "{}");
    house_request(house, cell);
    house_say(house, clients[1], "{}");
    expect_shed(house, clients[1], "concurrent_requests");
    assert_true(house_quiet(house, cell));
    for (int i = 0; i < 2; i++)
        close(clients[i]);
    close(cell);
}

static void requests_that_wait_for_a_wake_count_as_at_once(void **state)
{
    struct house *house = *state;
    struct charter charter = house_charter(TENANT, "acme", 1);
    int first = house_dial(house), second = house_dial(house);
    charter.posture.quotas.concurrent_requests = 1;
    house_get(house, first, "/v1/memories");
    house_find_with(house, TENANT, 0, &charter);
    house_get(house, second, "/v1/memories");
    expect_shed(house, second, "concurrent_requests");
    int cell = house_wake(house, TENANT);
    house_request(house, cell);
    close(first);
    close(second);
    close(cell);
}

static void a_user_beyond_its_own_rate_uses_up_nothing_of_the_others(void **state)
{
    struct house *house = *state;
    struct charter charter = house_charter(TENANT, "acme", 1);
    struct token_issuer issuer = house_issuer("https://id.example", TENANT, 1);
    int client = house_dial(house);
    charter.posture.quotas.requests_per_second = 6;
    charter.posture.quotas.user_requests_per_second = 2;
    charter.issuers = &issuer;
    charter.issuer_count = 1;
    int cell = served_first(house, client, &charter); /* ada */
    served(house, client, cell);
    for (int i = 0; i < 20; i++) {
        house_get(house, client, "/v1/memories");
        expect_shed(house, client, "user_requests_per_second");
    }
    for (int user = 0; user < 2; user++) {
        char claims[160];
        snprintf(claims, sizeof claims,
                 "\"sub\":\"user%d\",\"scope\":\"memory:read\",\"tenant_id\":\"" TENANT "\"", user);
        house_foreign(house, "https://id.example", 1, claims);
        served(house, client, cell);
        served(house, client, cell);
    }
    house_foreign(house, "https://id.example", 1,
                  "\"sub\":\"last\",\"scope\":\"memory:read\",\"tenant_id\":\"" TENANT "\"");
    house_get(house, client, "/v1/memories");
    expect_shed(house, client, "\"requests_per_second");
    close(client);
    close(cell);
}

/* ---- regions ---- */

static int europe_setup(void **state)
{
    const struct house_options options = {.region = "eu"};
    return house_setup_as(state, &options);
}

static void a_tenant_of_another_region_is_sent_there(void **state)
{
    static const char *const regions[] = {"us", "eu", ""};
    struct house *house = *state;
    int client = house_dial(house);
    for (uint64_t i = 0; i < 3; i++) {
        struct charter charter = house_charter(TENANT, "acme", i + 1);
        assert_true(span_to_text(charter.posture.region, sizeof charter.posture.region,
                                 span_of_text(regions[i])));
        house_get(house, client, "/no");
        house_find_with(house, TENANT, i, &charter);
        house_expect(house, client, i == 0 ? 421 : 404, i == 0 ? "wrong_region" : "not_found");
        house_changed(house, TENANT);
    }
    assert_int_equal(denied(house, DENIAL_REGION), 1);
    close(client);
}

/* ---- hosts ---- */

static int domain_setup(void **state)
{
    const struct house_options options = {.domain = "bank.example"};
    return house_setup_as(state, &options);
}

static void the_host_must_be_the_tenants_own(void **state)
{
    static const struct {
        const char *host;
        int status;
    } hosts[] = {
        {"acme.bank.example", 404}, {"ACME.Bank.Example", 404}, {"acme.bank.example:7117", 404},
        {"acme.bank.example.", 404}, {"bank.example", 404}, {"elsewhere.example", 404},
        {"127.0.0.1", 404}, {"[::1]:7117", 404}, {"localhost", 404},
        {"beta.bank.example", 401}, {"beta.bank.example:80", 401}, {"beta.BANK.example.", 401},
        {"acmee.bank.example", 401}, {"x.bank.example", 401},
    };
    struct house *house = *state;
    struct charter charter = house_charter(TENANT, "acme", 1);
    int client = house_dial(house);
    uint64_t refused = 0;
    house_get(house, client, "/no");
    house_find_with(house, TENANT, 0, &charter);
    house_expect(house, client, 404, NULL);
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        house_get_host(house, client, "/no", hosts[i].host);
        const struct reply *reply = house_reply(house, client);
        if (reply->status != hosts[i].status)
            fail_msg("%s: %d", hosts[i].host, reply->status);
        refused += reply->status == 401;
    }
    assert_int_equal(denied(house, DENIAL_HOST), refused);
    assert_true(house_quiet(house, house->control));
    close(client);
}

static void a_routed_host_and_anothers_token_are_refused_together(void **state)
{
    struct house *house = *state;
    struct charter acme = house_charter(TENANT, "acme", 1);
    struct charter beta = house_charter(OTHER_TENANT, "beta", 1);
    int client = house_dial(house);
    house_platform(house, NULL, true, NULL);
    house_get_host(house, client, "/no", "agents.acme.example");
    house_find_with(house, TENANT, 0, &acme);
    house_find_with(house, "host:agents.acme.example", 0, &acme);
    house_expect(house, client, 404, NULL);
    house_get_host(house, client, "/no", "agents.beta.example:443");
    house_find_with(house, "host:agents.beta.example", 0, &beta);
    house_expect(house, client, 401, "unauthenticated");
    house_get_host(house, client, "/no", "agents.beta.example"); /* remembered */
    house_expect(house, client, 401, NULL);
    house_get_host(house, client, "/no", "plain.example"); /* names nobody */
    house_find(house, "host:plain.example", 0);
    house_expect(house, client, 404, NULL);
    house_get_host(house, client, "/no", "192.0.2.1"); /* nor are these asked for */
    house_expect(house, client, 404, NULL);
    house_get_host(house, client, "/no", "localhost:7117");
    house_expect(house, client, 404, NULL);
    house_say(house, client, "GET /no HTTP/1.1\r\nHost: agents.acme.example\r\n"
                             "Authorization: Bearer a.b.c\r\n\r\n");
    house_expect(house, client, 401, NULL); /* who is nobody has nothing looked up */
    assert_true(house_quiet(house, house->control));
    assert_int_equal(denied(house, DENIAL_HOST), 2);
    house_platform(house, NULL, false, NULL);
    house_get_host(house, client, "/no", "agents.beta.example");
    house_expect(house, client, 404, NULL);
    close(client);
}

/* ---- behind proxies ---- */

static int forwarding_setup(void **state)
{
    const struct house_options options = {.domain = "bank.example", .proxy = true};
    return house_setup_as(state, &options);
}

static int status_with(struct house *house, int client, const char *headers)
{
    house_say(house, client,
              "GET /no HTTP/1.1\r\nHost: inner\r\nAuthorization: Bearer %s\r\n%s\r\n",
              (const char *)house->token.data, headers);
    return house_reply(house, client)->status;
}

static const struct {
    const char *headers;
    int status; /* behind the trusted proxy; 404 is let in */
} forwarded_hosts[] = {
    {"X-Forwarded-Host: acme.bank.example\r\n", 404},
    {"X-Forwarded-Host: beta.bank.example\r\n", 401},
    {"X-Forwarded-Host: acme.bank.example, beta.bank.example:443\r\n", 401},
    {"X-Forwarded-Host: beta.bank.example ,\tacme.bank.example \r\n", 404},
    {"X-Forwarded-Host: beta.bank.example\r\nX-Forwarded-Host: acme.bank.example\r\n", 404},
    {"X-Forwarded-Host: acme.bank.example\r\nX-Forwarded-Host: beta.bank.example\r\n", 401},
    {"X-Forwarded-Host:\r\n", 404}, {"X-Forwarded-Host: ,\r\n", 404},
};

static void a_trusted_proxy_says_which_host_was_asked_for(void **state)
{
    struct house *house = *state;
    struct charter charter = house_charter(TENANT, "acme", 1);
    int client = house_dial(house);
    house_get(house, client, "/no");
    house_find_with(house, TENANT, 0, &charter);
    house_expect(house, client, 404, NULL);
    for (size_t i = 0; i < sizeof forwarded_hosts / sizeof *forwarded_hosts; i++)
        if (status_with(house, client, forwarded_hosts[i].headers) != forwarded_hosts[i].status)
            fail_msg("%s", forwarded_hosts[i].headers);
    close(client);
}

static void nobody_else_says_which_host_was_asked_for(void **state)
{
    struct house *house = *state;
    struct charter charter = house_charter(TENANT, "acme", 1);
    int client = house_dial(house);
    house_get(house, client, "/no");
    house_find_with(house, TENANT, 0, &charter);
    house_expect(house, client, 404, NULL);
    for (size_t i = 0; i < sizeof forwarded_hosts / sizeof *forwarded_hosts; i++)
        assert_int_equal(status_with(house, client, forwarded_hosts[i].headers), 404);
    close(client);
}

/* Is this client known by what the header says? Its denials are told with a hash of the address. */
static void sample_of(struct house *house, int client, const char *header,
                      uint8_t ret[HASH_BYTES])
{
    struct fault fault;
    house_say(house, client, "GET / HTTP/1.1\r\nHost: x\r\n%s\r\n", header);
    house_expect(house, client, 401, NULL);
    house_wait(house, 1000);
    struct ipc_message told = house_next(house, house->control, MESSAGE_DENIED);
    struct cursor cursor = cursor_over(told.body);
    struct span head;
    assert_int_equal(cursor_bytes(&head, &cursor, 5, &fault), OK);
    assert_int_equal(cursor_copy(ret, &cursor, HASH_BYTES, &fault), OK);
}

static void a_trusted_proxy_says_who_its_client_is(void **state)
{
    static const struct {
        const char *header;
        bool client; /* 192.0.2.1; else the proxy itself */
    } cases[] = {
        {"X-Forwarded-For: 192.0.2.1\r\n", true},
        {"X-Forwarded-For: 198.51.100.9, 192.0.2.1\r\n", true}, /* what it said itself */
        {"X-Forwarded-For: 198.51.100.9, 192.0.2.1, 127.0.0.1\r\n", true}, /* through two */
        {"X-Forwarded-For: 198.51.100.9\r\nX-Forwarded-For: 192.0.2.1:4711\r\n", true},
        {"X-Forwarded-For: [::ffff:192.0.2.1]:80\r\n", true},
        {"X-Forwarded-For: 192.0.2.1, unknown\r\n", false}, /* nothing before it is believed */
        {"X-Forwarded-For: 192.0.2.1,\r\n", false}, {"X-Forwarded-For:\r\n", false},
        {"X-Forwarded-For: [192.0.2.1\r\n", false}, {"X-Real-IP: 192.0.2.1\r\n", false},
    };
    struct house *house = *state;
    uint8_t proxy[HASH_BYTES], known[HASH_BYTES], sample[HASH_BYTES];
    int client = house_dial(house);
    sample_of(house, client, "", proxy);
    sample_of(house, client, cases[0].header, known);
    assert_memory_not_equal(proxy, known, HASH_BYTES);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sample_of(house, client, cases[i].header, sample);
        if (!span_equal(SPAN_OF(sample), cases[i].client ? SPAN_OF(known) : SPAN_OF(proxy)))
            fail_msg("%s", cases[i].header);
    }
    close(client);
}

/* ---- connections of one address ---- */

static int capped_setup(void **state)
{
    const struct house_options options = {.connections_per_address = 3};
    return house_setup_as(state, &options);
}

static int proxied_setup(void **state)
{
    const struct house_options options = {.connections_per_address = 3, .proxy = true};
    return house_setup_as(state, &options);
}

static void one_address_gets_so_many_connections_and_no_more(void **state)
{
    struct house *house = *state;
    int clients[3];
    for (int i = 0; i < 3; i++)
        clients[i] = house_dial(house);
    for (int i = 0; i < 4; i++) {
        int refused = house_dial(house);
        assert_true(house_closed(house, refused));
        close(refused);
    }
    assert_int_equal(denied(house, DENIAL_ADDRESS_CAP), 4);
    assert_int_equal(house->stats->slots[1].connections_open, 3);
    close(clients[1]);
    house_turn(house);
    clients[1] = house_dial(house);
    for (int i = 0; i < 3; i++) {
        house_say(house, clients[i], "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        house_expect(house, clients[i], 401, NULL);
    }
    int ops = house_dial_ops(house); /* which are not counted */
    house_say(house, ops, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_int_equal(house_reply(house, ops)->status, 200);
    close(ops);
    for (int i = 0; i < 3; i++)
        close(clients[i]);
}

static void a_trusted_proxy_is_not_counted(void **state)
{
    struct house *house = *state;
    int clients[8];
    for (int i = 0; i < 8; i++)
        clients[i] = house_dial(house);
    for (int i = 0; i < 8; i++) {
        house_say(house, clients[i], "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        house_expect(house, clients[i], 401, NULL);
        close(clients[i]);
    }
    assert_int_equal(denied(house, DENIAL_ADDRESS_CAP), 0);
}

static struct address address(const char *text)
{
    struct address read;
    assert_true(address_read(&read, span_of_text(text)));
    return read;
}

static void addresses_are_what_they_are_however_they_came(void **state)
{
    (void)state;
    struct address ignored;
    struct address_range ranges[] = {{address("10.1.0.0"), 16}, {address("2001:db8::"), 33},
                                     {address("192.0.2.7"), 32}, {address("198.51.100.0"), 25}};
    static const struct {
        const char *text;
        bool in;
    } cases[] = {
        {"10.1.255.1", true}, {"10.2.0.1", false}, {"::ffff:10.1.2.3", true},
        {"192.0.2.7", true}, {"192.0.2.6", false}, {"2001:db8:7fff::1", true},
        {"2001:db8:8000::1", false}, {"::a01:0", false}, {"198.51.100.127", true},
        {"198.51.100.128", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (address_in(address(cases[i].text), ranges, 4) != cases[i].in)
            fail_msg("%s", cases[i].text);
    assert_false(address_in((struct address){0}, ranges, 4)); /* unknown: in none */
    struct address_range all = {{.family = 4}, 0};
    assert_true(address_in(address("203.0.113.9"), &all, 1));
    assert_false(address_in(address("2001:db8::1"), &all, 1));
    struct address near = address_for_cap(address("2001:db8:1:2:3::4")),
                   same = address_for_cap(address("2001:db8:1:2:ffff::")),
                   other = address_for_cap(address("2001:db8:1:3::"));
    assert_memory_equal(near.bytes, same.bytes, ADDRESS_BYTES);
    assert_memory_not_equal(near.bytes, other.bytes, ADDRESS_BYTES);
    static const char *const none[] = {"", "1.2.3", "1.2.3.4:80", "[::1]", "example.com", "::g",
                                       "1.2.3.256", "fe80::1%eth0"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        assert_false(address_read(&ignored, span_of_text(none[i])));
}

/* ---- routes ---- */

#define PLATFORM_ID "00000000000000000000000000000000"

static void reply_route(struct house *house, uint32_t id, const char *name)
{
    uint8_t storage[256], tenant[TENANT_ID_BYTES] = {0xAB};
    struct buffer body = buffer_over(storage, sizeof storage);
    struct fault fault;
    reply_put_head(&body, OK, "");
    buffer_put(&body, SPAN_OF(tenant));
    buffer_put_text_field(&body, name);
    assert_int_equal(ipc_send(house->control, MESSAGE_REPLY, id, buffer_span(&body), NULL, 0,
                              &fault), OK);
    house_turn(house);
}

static void a_back_end_of_the_platform_resolves_a_number(void **state)
{
    struct house *house = *state;
    struct fault fault;
    struct span kind, value, subject;
    uint8_t token_hash[HASH_BYTES], wanted[HASH_BYTES], trace[TRACE_ID_BYTES];
    int client = house_dial(house);
    house_platform(house, NULL, false, NULL);
    const char *token = house_token(house, PLATFORM_ID, "routes:read");
    hash(wanted, span_of_text(token));
    house_get(house, client, "/v1/routes/phone/%2B442079460000");
    struct ipc_message asked = house_next(house, house->control, MESSAGE_ROUTE_FIND);
    struct cursor cursor = cursor_over(asked.body);
    assert_int_equal(cursor_field(&kind, &cursor, 64, "kind", &fault), OK);
    assert_int_equal(cursor_field(&value, &cursor, 64, "value", &fault), OK);
    assert_int_equal(cursor_field(&subject, &cursor, 64, "subject", &fault), OK);
    assert_int_equal(cursor_copy(token_hash, &cursor, HASH_BYTES, &fault), OK);
    assert_int_equal(cursor_copy(trace, &cursor, TRACE_ID_BYTES, &fault), OK);
    assert_int_equal(cursor_end(&cursor, &fault), OK);
    assert_true(span_is(kind, "phone") && span_is(value, "+442079460000"));
    assert_true(span_is(subject, "ada"));
    assert_memory_equal(token_hash, wanted, HASH_BYTES);
    reply_route(house, asked.id, "acme");
    const struct reply *reply = house_reply(house, client);
    char body[512];
    assert_int_equal(reply->status, 200);
    assert_string_equal(reply_header(reply, "Content-Type"), "application/json");
    assert_non_null(reply_header(reply, "Traceparent"));
    assert_true(span_to_text(body, sizeof body, buffer_span(&reply->body)));
    assert_string_equal(body, "{\"kind\":\"phone\",\"value\":\"+442079460000\",\"tenant_id\":"
                              "\"ab000000000000000000000000000000\",\"tenant\":\"acme\"}");
    close(client);
}

static void a_route_that_is_not_found_or_not_answered_says_so(void **state)
{
    static const struct {
        status code;
        int http;
        const char *text;
    } answers[] = {{NOT_FOUND, 404, "not_found"}, {BAD_FIELD, 400, "bad_field"},
                   {UNAVAILABLE, 503, "unavailable"}, {INTERNAL, 503, "unavailable"}};
    struct house *house = *state;
    int client = house_dial(house);
    house_platform(house, NULL, false, NULL);
    house_token(house, PLATFORM_ID, "routes:read");
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        house_get(house, client, "/v1/routes/customer/4711");
        house_reply_to(house, house_next(house, house->control, MESSAGE_ROUTE_FIND).id,
                       answers[i].code);
        house_expect(house, client, answers[i].http, answers[i].text);
    }
    house_get(house, client, "/v1/routes/Phone/1");
    house_expect(house, client, 400, "bad_field");
    house_get(house, client, "/v1/routes/customer/4711"); /* its client goes before the answer */
    struct ipc_message asked = house_next(house, house->control, MESSAGE_ROUTE_FIND);
    close(client);
    house_turn(house);
    reply_route(house, asked.id, "acme");
    client = house_dial(house);
    house_get(house, client, "/v1/routes/customer/4711"); /* control goes before it */
    house_next(house, house->control, MESSAGE_ROUTE_FIND);
    house_new_control(house);
    house_expect(house, client, 503, NULL);
    close(client);
}

static void routes_are_for_tokens_of_the_platform_and_those_for_nothing_else(void **state)
{
    static const struct {
        const char *method, *path;
        int status;
        const char *code;
    } others[] = {{"GET", "/v1/memories", 403, "forbidden_scope"},
                  {"DELETE", "/v1/memories/x", 403, "forbidden_scope"},
                  {"GET", "/v1/tenant", 403, "forbidden_scope"},
                  {"GET", "/no", 404, "not_found"},
                  {"POST", "/v1/routes/phone/1", 405, "method_not_allowed"},
                  {"GET", "/v1/routes/phone/1?x=1", 400, "bad_field"},
                  {"GET", "/v1/routes/phone", 404, "not_found"}};
    struct house *house = *state;
    struct charter charter = house_charter(TENANT, "acme", 1);
    int client = house_dial(house);
    house_platform(house, NULL, false, NULL);
    const char *token = house_token(house, PLATFORM_ID, "routes:read");
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        house_say(house, client, "%s %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n",
                  others[i].method, others[i].path, token);
        house_expect(house, client, others[i].status, others[i].code);
    }
    struct token_issuer issuer = house_issuer("https://id.example", TENANT, 1);
    charter.issuers = &issuer;
    charter.issuer_count = 1;
    house_foreign(house, "https://id.example", 1, /* a tenant that helps itself to the scope */
                  "\"sub\":\"x\",\"scope\":\"routes:read\",\"tenant_id\":\"acme\"");
    house_get(house, client, "/v1/routes/phone/1");
    house_find_with(house, "acme", 0, &charter);
    house_expect(house, client, 403, "forbidden_scope");
    assert_true(house_quiet(house, house->control));
    close(client);
}

static void a_token_of_the_platform_is_refused_at_a_tenants_host(void **state)
{
    struct house *house = *state;
    int client = house_dial(house);
    house_platform(house, NULL, false, NULL);
    house_token(house, PLATFORM_ID, "routes:read");
    house_get_host(house, client, "/v1/routes/phone/1", "acme.bank.example");
    house_expect(house, client, 401, NULL);
    house_get_host(house, client, "/v1/routes/phone/1", "bank.example");
    house_reply_to(house, house_next(house, house->control, MESSAGE_ROUTE_FIND).id, NOT_FOUND);
    house_expect(house, client, 404, NULL);
    close(client);
}

#define HOUSE_TEST(name) cmocka_unit_test_setup_teardown(name, house_setup, house_teardown)
#define TEST_IN(name, setup) cmocka_unit_test_setup_teardown(name, setup, house_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOUSE_TEST(what_is_over_the_rate_is_shed_and_no_cell_hears_of_it),
        HOUSE_TEST(no_client_can_make_a_tenants_use_be_forgotten),
        HOUSE_TEST(what_the_caller_may_not_do_does_not_use_up_the_quota),
        HOUSE_TEST(more_at_once_than_the_quota_is_shed),
        HOUSE_TEST(what_is_shed_is_told_before_its_body),
        HOUSE_TEST(room_is_counted_again_when_the_body_is_there),
        HOUSE_TEST(requests_that_wait_for_a_wake_count_as_at_once),
        HOUSE_TEST(a_user_beyond_its_own_rate_uses_up_nothing_of_the_others),
        TEST_IN(a_tenant_of_another_region_is_sent_there, europe_setup),
        TEST_IN(the_host_must_be_the_tenants_own, domain_setup),
        HOUSE_TEST(a_routed_host_and_anothers_token_are_refused_together),
        TEST_IN(a_trusted_proxy_says_which_host_was_asked_for, forwarding_setup),
        TEST_IN(nobody_else_says_which_host_was_asked_for, domain_setup),
        TEST_IN(a_trusted_proxy_says_who_its_client_is, forwarding_setup),
        TEST_IN(one_address_gets_so_many_connections_and_no_more, capped_setup),
        TEST_IN(a_trusted_proxy_is_not_counted, proxied_setup),
        cmocka_unit_test(addresses_are_what_they_are_however_they_came),
        HOUSE_TEST(a_back_end_of_the_platform_resolves_a_number),
        HOUSE_TEST(a_route_that_is_not_found_or_not_answered_says_so),
        HOUSE_TEST(routes_are_for_tokens_of_the_platform_and_those_for_nothing_else),
        TEST_IN(a_token_of_the_platform_is_refused_at_a_tenants_host, domain_setup),
    };
    return cmocka_run_group_tests_name("gateway limits", tests, NULL, NULL);
}
