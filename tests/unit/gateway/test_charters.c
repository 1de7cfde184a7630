/* What control says of tenants and the platform is believed as far as the platform's key signed it,
 * and a tenant's own issuer is believed about that tenant alone. */
#include "house.h"

#include "base/clock.h"
#include "gateway/state.h"

#include <unistd.h>

#define ISS "https://id.acme.example"
#define ACME "\"sub\":\"ada\",\"scope\":\"memory:read\",\"tenant_id\":\"acme\""

static uint64_t denied(const struct house *house, uint32_t reason)
{
    return house->stats->slots[1].denied[reason];
}

static void expect_401(struct house *house, int client)
{
    house_expect(house, client, 401, "unauthenticated");
}

/* acme, with an issuer of its own. */
static struct charter acme(struct token_issuer *issuer, uint64_t sequence)
{
    struct charter charter = house_charter(TENANT, "acme", sequence);
    *issuer = house_issuer(ISS, TENANT, 1);
    charter.issuers = issuer;
    charter.issuer_count = 1;
    return charter;
}

/* "/no" is 404 for whoever is let in. */
static void expect_in(struct house *house, int client)
{
    house_get(house, client, "/no");
    house_expect(house, client, 404, "not_found");
}

/* ---- forged and old charters ---- */

static void a_forged_charter_lets_nobody_in(void **state)
{
    struct house *house = *state;
    struct token_issuer issuer;
    struct charter charter = acme(&issuer, 1);
    struct buffer given = buffer_of(IPC_BODY_MAX);
    int client = house_dial(house);
    house_put_charter(&given, house, &charter);
    size_t offsets[] = {0, 23, 40, given.length - 1}; /* id, sequence, document, signature */
    for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
        house_foreign(house, ISS, 1, ACME);
        house_get(house, client, "/no");
        uint32_t id = house_asked(house, "acme", 0);
        given.data[offsets[i]] ^= 1;
        house_found_with(house, id, TENANT, 1, buffer_span(&given));
        given.data[offsets[i]] ^= 1;
        expect_401(house, client);
        house_token(house, TENANT, "memory:read"); /* ours, whom we know: told to come again */
        house_get(house, client, "/no");
        id = house_asked(house, TENANT, 0);
        given.data[offsets[i]] ^= 1;
        house_found_with(house, id, TENANT, 1, buffer_span(&given));
        given.data[offsets[i]] ^= 1;
        house_expect(house, client, 503, "unavailable");
    }
    assert_int_equal(denied(house, DENIAL_BAD_CHARTER), 8);
    house_foreign(house, ISS, 1, ACME);
    house_get(house, client, "/no");
    house_found_with(house, house_asked(house, "acme", 0), TENANT, 1, buffer_span(&given));
    house_expect(house, client, 404, NULL); /* the true one */
    buffer_free(&given);
    close(client);
}

static void an_older_charter_than_one_seen_lets_nobody_in(void **state)
{
    struct house *house = *state;
    struct token_issuer issuer;
    struct charter old = acme(&issuer, 4), new = house_charter(TENANT, "acme", 5);
    int client = house_dial(house);
    house_foreign(house, ISS, 1, ACME);
    house_get(house, client, "/no");
    house_find_with(house, "acme", 0, &old);
    house_expect(house, client, 404, NULL);
    house_changed(house, TENANT);
    house_get(house, client, "/no");
    house_find_with(house, "acme", 4, &new); /* the issuer was taken away */
    expect_401(house, client);
    house_changed(house, TENANT);
    house_get(house, client, "/no");
    house_find_with(house, "acme", 5, &old);
    house_expect(house, client, 503, NULL); /* it was verified once: told to come again */
    assert_int_equal(denied(house, DENIAL_BAD_CHARTER), 1);
    house_token(house, TENANT, "memory:read"); /* by another text: the same tenant */
    house_get(house, client, "/no");
    house_find_with(house, TENANT, 0, &old);
    house_expect(house, client, 503, NULL);
    house_get(house, client, "/no");
    house_found(house, house_asked(house, TENANT, 0), TENANT, 1); /* and none at all is older */
    house_expect(house, client, 503, NULL);
    house_get(house, client, "/no");
    house_find_with(house, TENANT, 0, &new);
    house_expect(house, client, 404, NULL);
    close(client);
}

static void a_charter_is_asked_for_once_and_kept(void **state)
{
    struct house *house = *state;
    struct token_issuer issuer;
    struct charter charter = acme(&issuer, 3);
    int client = house_dial(house);
    house_foreign(house, ISS, 1, ACME);
    house_get(house, client, "/no");
    house_find_with(house, "acme", 0, &charter);
    house_expect(house, client, 404, NULL);
    for (int i = 0; i < 3; i++) {
        house_wait(house, 1100);
        house_get(house, client, "/no");
        house_found(house, house_asked(house, "acme", 3), TENANT, 1); /* it is that one */
        house_expect(house, client, 404, NULL);
    }
    close(client);
}

static void a_name_that_became_another_tenants_is_asked_for_again(void **state)
{
    struct house *house = *state;
    struct token_issuer issuer;
    struct charter before = acme(&issuer, 1), after = house_charter(OTHER_TENANT, "acme", 1);
    int client = house_dial(house);
    house_foreign(house, ISS, 1, ACME);
    house_get(house, client, "/no");
    house_find_with(house, "acme", 0, &before);
    house_expect(house, client, 404, NULL);
    house_wait(house, 1100);
    house_get(house, client, "/no"); /* erased and made again: also at its first charter */
    house_found(house, house_asked(house, "acme", 1), OTHER_TENANT, 1);
    house_find_with(house, "acme", 0, &after);
    expect_401(house, client); /* the new one never had that issuer */
    close(client);
}

static void control_cannot_answer_with_another_tenant(void **state)
{
    struct house *house = *state;
    struct token_issuer issuer;
    struct charter charter = acme(&issuer, 1), other = house_charter(OTHER_TENANT, "beta", 1);
    int client = house_dial(house);
    house_foreign(house, ISS, 1, "\"sub\":\"ada\",\"tenant_id\":\"beta\"");
    house_get(house, client, "/no");
    house_find_with(house, "beta", 0, &charter); /* acme's, under the name of beta */
    expect_401(house, client);
    house_token(house, TENANT, "memory:read");
    house_get(house, client, "/no");
    house_find_with(house, TENANT, 0, &other);
    house_expect(house, client, 503, NULL);
    assert_int_equal(denied(house, DENIAL_BAD_CHARTER), 2);
    close(client);
}

/* ---- issuers of one tenant ---- */

static void a_tenants_issuer_lets_its_users_in(void **state)
{
    struct house *house = *state;
    struct token_issuer issuer;
    struct charter charter = acme(&issuer, 1);
    int client = house_dial(house);
    house_foreign(house, ISS, 1, ACME);
    house_get(house, client, "/v1/memories");
    house_find_with(house, "acme", 0, &charter);
    int cell = house_wake(house, TENANT);
    struct relayed relayed = house_request(house, cell);
    cell_answer(cell, relayed.id, 200, "{}");
    house_expect(house, client, 200, NULL);
    expect_in(house, client); /* from the cache */
    house_foreign(house, ISS, 1, "\"sub\":\"ada\",\"tenant_id\":\"" TENANT "\"");
    house_get(house, client, "/no");
    house_find_with(house, TENANT, 0, &charter); /* by id */
    house_expect(house, client, 404, NULL);
    close(client);
    close(cell);
}

static void a_tenants_issuer_vouches_for_no_other_tenant(void **state)
{
    static const char *const claims[] = {
        "\"sub\":\"ada\",\"tenant_id\":\"beta\"", /* beta has no such issuer */
        "\"sub\":\"ada\",\"tenant_id\":\"" OTHER_TENANT "\"",
        "\"sub\":\"ada\",\"tenant_id\":\"host:beta\"", /* no name: not asked for */
        "\"sub\":\"ada\",\"tenant_id\":\"Beta\"",
        "\"sub\":\"ada\",\"tenant_id\":7", "\"sub\":\"ada\"", "\"sub\":\"ada\",\"tenant_id\":\"\"",
    };
    struct house *house = *state;
    struct charter beta = house_charter(OTHER_TENANT, "beta", 1);
    struct token_issuer own = house_issuer(ISS, OTHER_TENANT, 2); /* the name, not the key */
    int client = house_dial(house);
    beta.issuers = &own;
    beta.issuer_count = 1;
    for (size_t i = 0; i < sizeof claims / sizeof *claims; i++) {
        house_foreign(house, ISS, 1, claims[i]);
        house_get(house, client, "/no");
        if (i < 2)
            house_find_with(house, i == 0 ? "beta" : OTHER_TENANT, 0, &beta);
        expect_401(house, client);
        assert_true(house_quiet(house, house->control));
    }
    close(client);
}

/* The claim that picks the verifier is not the one that the issuer is configured to speak by. */
static void what_is_verified_must_be_what_was_said_before(void **state)
{
    struct house *house = *state;
    struct token_issuer issuer;
    struct charter charter = acme(&issuer, 1);
    int client = house_dial(house);
    assert_true(span_to_text(issuer.tenant_claim, sizeof issuer.tenant_claim, SPAN("org")));
    house_platform(house, NULL, false, "org");
    house_foreign(house, ISS, 1, "\"sub\":\"ada\",\"tenant_id\":\"acme\",\"org\":\"beta\"");
    house_get(house, client, "/no");
    house_find_with(house, "acme", 0, &charter);
    expect_401(house, client);
    house_get(house, client, "/no"); /* nor when it comes again: nobody is asked for beta */
    expect_401(house, client);
    assert_true(house_quiet(house, house->control));
    house_foreign(house, ISS, 1, "\"sub\":\"ada\",\"org\":\"acme\"");
    expect_in(house, client);
    close(client);
}

static void a_cached_token_falls_with_its_issuer(void **state)
{
    struct house *house = *state;
    struct token_issuer issuer;
    struct charter charter = acme(&issuer, 1);
    int client = house_dial(house);
    house_foreign(house, ISS, 1, ACME);
    house_get(house, client, "/no");
    house_find_with(house, "acme", 0, &charter);
    house_expect(house, client, 404, NULL);
    expect_in(house, client);
    issuer = house_issuer(ISS, TENANT, 9); /* its key was replaced */
    charter.sequence = 2;
    house_changed(house, TENANT);
    house_get(house, client, "/no");
    house_find_with(house, "acme", 1, &charter);
    expect_401(house, client);
    house_foreign(house, ISS, 9, ACME);
    expect_in(house, client);
    close(client);
}

/* ---- revocations ---- */

static void what_a_tenants_charter_revokes_is_out(void **state)
{
    struct house *house = *state;
    struct charter charter = house_charter(TENANT, "acme", 1);
    int64_t now = clock_wall_us() / 1000000;
    struct revoked_subject subject = {.user = "ada", .at = now + 5};
    int client = house_dial(house);
    house_get(house, client, "/no");
    house_find_with(house, TENANT, 0, &charter);
    house_expect(house, client, 404, NULL);
    charter.sequence = 2;
    charter.subjects = &subject;
    charter.subject_count = 1;
    house_changed(house, TENANT);
    house_get(house, client, "/no");
    house_find_with(house, TENANT, 1, &charter);
    expect_401(house, client);
    assert_int_equal(denied(house, DENIAL_REVOKED), 1);
    assert_true(span_to_text(subject.user, sizeof subject.user, SPAN("bob"))); /* somebody else */
    charter.sequence = 3;
    house_changed(house, TENANT);
    house_get(house, client, "/no");
    house_find_with(house, TENANT, 2, &charter);
    house_expect(house, client, 404, NULL);
    close(client);
}

static void what_the_platform_revokes_is_out_everywhere(void **state)
{
    struct house *house = *state;
    struct charter charter = house_charter(TENANT, "acme", 1);
    struct charter platform = house_platform_charter(1);
    struct revoked_jti jti = {.until = clock_wall_us() / 1000000 + 900};
    uint8_t hashed[HASH_BYTES];
    int client = house_dial(house);
    house_foreign(house, "https://id.platform.example", 3, ACME ",\"jti\":\"one\"");
    struct token_issuer issuer = house_issuer("https://id.platform.example", NULL, 3);
    platform.issuers = &issuer;
    platform.issuer_count = 1;
    house_platform(house, &platform, false, NULL);
    house_get(house, client, "/no");
    house_find_with(house, "acme", 0, &charter);
    house_expect(house, client, 404, NULL);
    hash(hashed, SPAN("one"));
    for (size_t i = 0; i < REVOKED_JTI_BYTES; i++)
        jti.hash[i] = hashed[i];
    platform.sequence = 2;
    platform.jtis = &jti;
    platform.jti_count = 1;
    house_platform(house, &platform, false, NULL);
    house_get(house, client, "/no");
    expect_401(house, client);
    assert_int_equal(denied(house, DENIAL_REVOKED), 1);
    house_foreign(house, "https://id.platform.example", 3, ACME ",\"jti\":\"two\"");
    expect_in(house, client);
    close(client);
}

/* ---- the platform's charter ---- */

static void a_platform_charter_that_is_forged_or_older_lets_nobody_in(void **state)
{
    struct house *house = *state;
    struct charter platform = house_platform_charter(2), older = house_platform_charter(1);
    struct charter tenants = house_charter(TENANT, "acme", 3);
    struct buffer given = buffer_of(IPC_BODY_MAX);
    int client = house_dial(house);
    house_platform(house, &platform, false, NULL);
    house_get(house, client, "/no");
    house_find(house, TENANT, 1);
    house_expect(house, client, 404, NULL);
    house_put_charter(&given, house, &platform);
    given.data[given.length - 1] ^= 1;
    for (int i = 0; i < 4; i++) {
        if (i == 0)
            house_platform_given(house, buffer_span(&given), false, NULL);
        else
            house_platform(house, i == 1 ? &older : i == 2 ? &tenants : NULL, false, NULL);
        house_get(house, client, "/no");
        house_expect(house, client, 503, "unavailable");
        assert_int_equal(denied(house, DENIAL_BAD_CHARTER), (uint64_t)i + 1);
        house_foreign(house, ISS, 1, "\"sub\":\"x\""); /* who is nobody learns nothing of it */
        house_get(house, client, "/no");
        expect_401(house, client);
        house_token(house, TENANT, "memory:read");
    }
    house_platform(house, &platform, false, NULL);
    expect_in(house, client);
    buffer_free(&given);
    close(client);
}

static void a_tenant_may_have_an_issuer_of_the_same_name_as_the_platform(void **state)
{
    struct house *house = *state;
    struct token_issuer own, issuer = house_issuer(ISS, NULL, 3);
    struct charter charter = acme(&own, 1), platform = house_platform_charter(1);
    int client = house_dial(house);
    platform.issuers = &issuer;
    platform.issuer_count = 1;
    house_platform(house, &platform, false, NULL);
    house_foreign(house, ISS, 3, ACME); /* the platform's key */
    house_get(house, client, "/no");
    house_find_with(house, "acme", 0, &charter);
    house_expect(house, client, 404, NULL);
    house_foreign(house, ISS, 1, ACME); /* the tenant's own */
    expect_in(house, client);
    house_foreign(house, ISS, 7, ACME); /* nobody's */
    house_get(house, client, "/no");
    expect_401(house, client);
    close(client);
}

/* Before control has said what the platform revoked, nobody else would notice. */
static void a_token_of_the_platform_waits_for_the_platforms_charter(void **state)
{
    struct house *house = *state;
    struct charter platform = house_platform_charter(1);
    struct revoked_subject subject = {.user = "ada", .at = clock_wall_us() / 1000000 + 5};
    int client = house_dial(house);
    house_token(house, "00000000000000000000000000000000", "routes:read");
    house_get(house, client, "/v1/routes/customer/4711");
    house_expect(house, client, 503, "unavailable");
    assert_true(house_quiet(house, house->control));
    platform.subjects = &subject;
    platform.subject_count = 1;
    house_platform(house, &platform, false, NULL);
    house_get(house, client, "/v1/routes/customer/4711");
    expect_401(house, client);
    assert_true(house_quiet(house, house->control));
    assert_true(span_to_text(subject.user, sizeof subject.user, SPAN("bob"))); /* somebody else */
    platform.sequence = 2;
    house_platform(house, &platform, false, NULL);
    house_get(house, client, "/v1/routes/customer/4711");
    house_reply_to(house, house_next(house, house->control, MESSAGE_ROUTE_FIND).id, NOT_FOUND);
    house_expect(house, client, 404, "not_found");
    close(client);
}

static void tell_claims(struct house *house)
{
    uint8_t storage[128];
    struct buffer body = buffer_over(storage, sizeof storage);
    buffer_put_field(&body, SPAN(""));
    buffer_put_u8(&body, 0);
    buffer_put_u16(&body, 3);
    for (const char *name = "a\0sub\0org\0"; *name; name += span_of_text(name).length + 1)
        buffer_put_text_field(&body, name);
    cell_send(house->control, MESSAGE_PLATFORM, 0, buffer_span(&body));
    house_turn(house);
}

/* One tenant's issuer names it by a claim that the tokens of others have, too. */
static void one_tenants_name_for_its_claim_is_in_nobodys_way(void **state)
{
    static const char *const in_the_way[] = {
        "\"sub\":\"ada\",\"org\":\"acme\"",
        "\"sub\":\"ada\",\"tenant_id\":\"Not a name\",\"org\":\"acme\"",
        "\"sub\":\"ada\",\"tenant_id\":\"nobody\",\"org\":\"acme\"",
        "\"sub\":\"beta\",\"tenant_id\":\"beta\",\"org\":\"acme\"",
    };
    struct house *house = *state;
    struct token_issuer issuer, own = house_issuer(ISS, OTHER_TENANT, 2);
    struct charter charter = acme(&issuer, 1), beta = house_charter(OTHER_TENANT, "beta", 1);
    int client = house_dial(house);
    beta.issuers = &own;
    beta.issuer_count = 1;
    assert_true(span_to_text(issuer.tenant_claim, sizeof issuer.tenant_claim, SPAN("org")));
    tell_claims(house);
    for (size_t i = 0; i < sizeof in_the_way / sizeof *in_the_way; i++) {
        house_wait(house, 1100);
        house_foreign(house, ISS, 1, in_the_way[i]);
        house_get(house, client, "/no");
        if (i == 2)
            house_reply_to(house, house_asked(house, "nobody", 0), NOT_FOUND);
        if (i < 3)
            house_reply_to(house, house_asked(house, "ada", 0), NOT_FOUND);
        else
            house_find_with(house, "beta", 0, &beta);
        if (i == 0)
            house_find_with(house, "acme", 0, &charter);
        else
            house_found(house, house_asked(house, "acme", 1), TENANT, 1);
        house_expect(house, client, 404, NULL);
    }
    house_foreign(house, ISS, 1, "\"sub\":\"eve\",\"org\":\"acme\""); /* in use: found at once */
    expect_in(house, client);
    assert_true(house_quiet(house, house->control));
    house_foreign(house, ISS, 1, "\"sub\":\"e\",\"a\":\"f\",\"tenant_id\":\"g\",\"org\":\"h\"");
    house_get(house, client, "/no");
    for (const char *text = "g\0f\0e\0h\0"; *text; text += 2)
        house_reply_to(house, house_asked(house, text, 0), NOT_FOUND);
    expect_401(house, client);
    close(client);
}

/* ---- floods ---- */

static void a_flood_of_invented_tokens_starves_nobody(void **state)
{
    enum { FLOOD = GATEWAY_UNPROVEN_EACH_MAX + 50 };
    struct house *house = *state;
    struct token_issuer issuer;
    struct charter charter = acme(&issuer, 1);
    char claims[128];
    uint32_t asked = 0;
    int client = house_dial(house), other = house_dial(house);
    house_foreign(house, ISS, 1, ACME);
    house_get(house, client, "/no");
    house_find_with(house, "acme", 0, &charter);
    house_expect(house, client, 404, NULL);
    for (int i = 0; i < FLOOD; i++) {
        struct ipc_message message;
        struct fault fault;
        snprintf(claims, sizeof claims, "\"sub\":\"x\",\"tenant_id\":\"t%d\"", i);
        house_foreign(house, "https://nobody.example", 5, claims);
        house_get(house, other, "/no");
        while (ipc_receive(&message, house->control, house->storage, &fault) == OK) {
            asked += message.type == MESSAGE_TENANT_FIND;
            house_reply_to(house, message.id, NOT_FOUND);
        }
        if (i < GATEWAY_UNPROVEN_EACH_MAX - 1) /* one was acme's */
            expect_401(house, other);
        else
            house_expect(house, other, 503, "unavailable");
    }
    assert_int_equal(asked, GATEWAY_UNPROVEN_EACH_MAX - 1);
    assert_int_equal(denied(house, DENIAL_FLOOD), FLOOD - asked);
    house_foreign(house, ISS, 5, ACME); /* nor does it tell whether a tenant is in use */
    house_get(house, other, "/no");
    house_expect(house, other, 503, "unavailable");
    house_foreign(house, ISS, 1, ACME);
    expect_in(house, client); /* known: not touched */
    house_token(house, OTHER_TENANT, "memory:read");
    house_get(house, client, "/no"); /* and who is verified first is not rationed */
    house_find(house, OTHER_TENANT, 1);
    house_expect(house, client, 404, NULL);
    close(client);
    close(other);
}

static void without_control_a_foreign_token_reads_alike_for_known_and_unknown(void **state)
{
    struct house *house = *state;
    struct token_issuer issuer;
    struct charter charter = acme(&issuer, 1);
    int client = house_dial(house);
    house_foreign(house, ISS, 1, ACME);
    house_get(house, client, "/no");
    house_find_with(house, "acme", 0, &charter);
    house_expect(house, client, 404, NULL);
    close(house->control);
    house->control = dup(house->supervisor);
    house_turn(house);
    house_foreign(house, ISS, 5, ACME); /* not its key */
    house_get(house, client, "/no");
    house_expect(house, client, 503, NULL);
    house_foreign(house, ISS, 5, "\"sub\":\"x\",\"tenant_id\":\"nobody\"");
    house_get(house, client, "/no");
    house_expect(house, client, 503, NULL);
    close(client);
}

/* Its largest charters, of more tenants than there is memory for: the oldest are asked for anew. */
static void the_memory_of_charters_is_bounded(void **state)
{
    enum { TENANTS = 400 };
    struct house *house = *state;
    static struct token_issuer issuers[CHARTER_ISSUERS_MAX];
    char id[TENANT_ID_TEXT], iss[32];
    size_t most = 0;
    int client = house_dial(house);
    for (uint32_t i = 0; i < TENANTS; i++) {
        snprintf(id, sizeof id, "%032x", i + 1);
        struct charter charter = house_charter(id, "acme", 1);
        for (uint32_t j = 0; j < CHARTER_ISSUERS_MAX; j++) {
            snprintf(iss, sizeof iss, "https://%u.example", j);
            issuers[j] = house_issuer(iss, id, 1);
        }
        charter.issuers = issuers;
        charter.issuer_count = CHARTER_ISSUERS_MAX;
        house_token(house, id, "memory:read");
        house_get(house, client, "/no");
        house_find_with(house, id, 0, &charter);
        house_expect(house, client, 404, NULL);
        if (house->gateway->vouched_bytes > most)
            most = house->gateway->vouched_bytes;
    }
    assert_in_range(most, GATEWAY_VOUCHED_MAX * 9 / 10, GATEWAY_VOUCHED_MAX + MIB(1));
    assert_in_range(house->gateway->lookups.count, 100, TENANTS - 1);
    house_get(house, client, "/no");
    house_expect(house, client, 404, NULL); /* the last is known */
    snprintf(id, sizeof id, "%032x", 1);
    house_token(house, id, "memory:read");
    house_get(house, client, "/no");
    house_reply_to(house, house_asked(house, id, 0), NOT_FOUND); /* the first is not */
    house_expect(house, client, 401, NULL);
    close(client);
}

#define HOUSE_TEST(name) cmocka_unit_test_setup_teardown(name, house_setup, house_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOUSE_TEST(a_forged_charter_lets_nobody_in),
        HOUSE_TEST(an_older_charter_than_one_seen_lets_nobody_in),
        HOUSE_TEST(a_charter_is_asked_for_once_and_kept),
        HOUSE_TEST(a_name_that_became_another_tenants_is_asked_for_again),
        HOUSE_TEST(control_cannot_answer_with_another_tenant),
        HOUSE_TEST(a_tenants_issuer_lets_its_users_in),
        HOUSE_TEST(a_tenants_issuer_vouches_for_no_other_tenant),
        HOUSE_TEST(what_is_verified_must_be_what_was_said_before),
        HOUSE_TEST(a_cached_token_falls_with_its_issuer),
        HOUSE_TEST(what_a_tenants_charter_revokes_is_out),
        HOUSE_TEST(what_the_platform_revokes_is_out_everywhere),
        HOUSE_TEST(a_platform_charter_that_is_forged_or_older_lets_nobody_in),
        HOUSE_TEST(a_tenant_may_have_an_issuer_of_the_same_name_as_the_platform),
        HOUSE_TEST(a_token_of_the_platform_waits_for_the_platforms_charter),
        HOUSE_TEST(one_tenants_name_for_its_claim_is_in_nobodys_way),
        HOUSE_TEST(a_flood_of_invented_tokens_starves_nobody),
        HOUSE_TEST(the_memory_of_charters_is_bounded),
        HOUSE_TEST(without_control_a_foreign_token_reads_alike_for_known_and_unknown),
    };
    return cmocka_run_group_tests_name("gateway charters", tests, NULL, NULL);
}
